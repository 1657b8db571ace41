"""What all figures of the book share: style, colours, words for metrics, and small parts.

A figure is made through pyplot (so that a notebook's inline backend is in place), drawn inside a style context and
closed again: as the last expression of a cell it is shown once, and no rcParams and no open figure remain. Rates
and AUCs come in as fractions and are drawn in percent. A detector or data set has one colour in the whole book.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text

# Okabe and Ito 2008, told apart with every common colour vision; for the variants of a detector further ones that are
# so among themselves. A family also has a marker of its own: thirteen colours alone are too many.
DETECTOR_COLOURS = {
    "ori": "#D55E00",
    "balanced": "#009E73",
    "balanced-long": "#117733",
    "dag_fdd": "#CC79A7",
    "daw_fdd": "#E69F00",
    "ucf": "#56B4E9",
    "fairdf": "#0072B2",
    "fairdf-nosam": "#882255",
    "fairdf-grouped": "#DDCC77",
    "fairdf-nobranch": "#805D00",
    "fairdf-nocvar": "#B8DE29",
    "fairdf-official": "#88CCEE",
    "fairdf-plus": "#3E2723",
}
MARKERS = {"ori": "s", "balanced": "s", "balanced-long": "s", "dag_fdd": "^", "daw_fdd": "^", "ucf": "^"}  # others "o"
# Paul Tol's "muted" scheme, so that no data set looks like a detector.
DATASET_COLOURS = {"ffpp": "#332288", "dfdc": "#CC6677", "celebdf": "#44AA99", "dfd": "#999933"}
SPARE_COLOURS = ("#000000", "#7F7F7F", "#661100", "#4B0092", "#AA4499")
REAL, FAKE, FLOOR = "#6699CC", "#994455", "#BBBBBB"
DOT = {"marker": "o", "markersize": 7, "markeredgecolor": "white", "zorder": 3}

# Metrics are drawn in percent; of rates, so their gaps and sums are in percentage points.
METRIC_WORDS = {
    "fpr_sum_matched": "F_FPR where 10 % of real images are called fake",
    "fpr_sum": "F_FPR: sum of |FPR of a group − FPR|",
    "fpr_gap": "Gap of the FPR between groups",
    "tpr_gap": "Gap of the TPR between groups",
    "oae": "F_OAE: gap of the accuracy",
    "dp": "F_DP: gap of the share called fake",
    "meo": "F_MEO: largest gap of an error rate",
    "eo": "F_EO: sum of FPR and TPR deviations",
    "auc_gap": "Gap of the AUC between groups",
}
STYLE = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "axes.edgecolor": "#444444",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.title_fontsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # names of the reader's own groups may hold a $
}

_NUMBERED: dict[str, int] = {}  # names that figures gave in short


def styled(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw inside the style and hand back a finished figure that pyplot no longer holds."""

    @wraps(function)
    def draw(*args: Any, **kwargs: Any) -> Figure:
        with plt.rc_context({**sns.axes_style("whitegrid"), **sns.plotting_context("notebook"), **STYLE}):
            before = set(plt.get_fignums())
            try:
                figure = function(*args, **kwargs)
                _make_drawable(figure)
                figure.draw_without_rendering()  # ticks are made while drawing, and take the style then
            finally:
                for number in set(plt.get_fignums()) - before:
                    plt.close(number)
        return figure

    return draw


def _make_drawable(figure: Figure) -> None:
    """Replace texts with letters that the font lacks, and very long ones, by what `key` explains."""
    for text in figure.findobj(Text):
        text.set_text(_drawable(text.get_text(), 120))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if (short := [_drawable(label, 60) for label in labels]) != labels:
            axis.set_ticks(axis.get_ticklocs(), short)


def _drawable(text: str, longest: int) -> str:
    font = get_font(findfont(FontProperties()))
    lacking = any(letter != "\n" and not font.get_char_index(ord(letter)) for letter in text)
    if not lacking and max(map(len, text.split("\n"))) <= longest:
        return text
    number = _NUMBERED.setdefault(text, len(_NUMBERED) + 1)
    return f"name {number}" if lacking else f"{text[: longest - 10]}… ({number})"


def key() -> str:
    """HTML that says which names the figures so far gave in short; empty where they needed none."""
    named = "; ".join(f"({number}) {escape(name)}" for name, number in _NUMBERED.items())
    return f"<p>Names that the figures cannot show as they are: {named}</p>" if named else ""


def colours_of(names: Iterable[str], known: dict[str, str]) -> dict[str, str]:
    """name -> colour; "fairdf-s1" has the colour of "fairdf", unknown names take spare colours in order."""
    bases = [re.sub(r"-s\d+$", "", str(name)) for name in names]
    unknown = [base for base in dict.fromkeys(bases) if base not in known]
    spare = {base: SPARE_COLOURS[i % len(SPARE_COLOURS)] for i, base in enumerate(unknown)}
    return {name: known.get(base, spare.get(base)) for name, base in zip(names, bases, strict=True)}


def marker_of(name: str) -> str:
    """The marker of a detector's family."""
    return MARKERS.get(re.sub(r"-s\d+$", "", name), "o")


def line_styles(names: Iterable[str]) -> dict[str, str]:
    """name -> line style: solid for the first seed of a detector, others for the next."""
    return {name: ("-", "--", ":", "-.")[int((re.findall(r"-s(\d+)$", str(name)) or [0])[0]) % 4] for name in names}


def legend_below(figure: Figure, handles: list, labels: list[str]) -> None:
    """A legend under the panels, filled row by row, never wider than the figure."""
    inches = [0.08 * len(label) + 0.65 for label in labels]
    columns = len(labels)
    while columns > 1 and sum(max(inches[i::columns]) for i in range(columns)) > figure.get_figwidth():
        columns -= 1
    order = sorted(range(len(labels)), key=lambda i: i % columns)  # matplotlib fills column by column
    handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def panels(count: int, columns: int, width: float, height: float, more: float = 0.0, **shared: bool) -> tuple:
    """A figure of `count` panels in rows of at most `columns`, and a list of their axes.

    Inches: a panel is `width` by `height`, and `more` is added to the figure's height.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(width * columns, height * rows + more), squeeze=False, **shared)
    for axes in grid.flat[count:]:
        axes.axis("off")
    return figure, list(grid.flat[:count])


def write_beside(axes: Axes, rows: Iterable[float], texts: Sequence[str], heading: str | None = None) -> None:
    """Text right of the axes, one line a row (data coordinates), where nothing else is drawn."""
    word = {"ha": "left", "fontsize": 9, "color": "#333333"}
    for row, text in zip(rows, texts, strict=True):
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", **word)
    if heading:
        axes.text(1.02, 1.01, heading, transform=axes.transAxes, va="bottom", **word)
