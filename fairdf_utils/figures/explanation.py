"""Figures of robustness and explanation: one function a figure, each returns a matplotlib Figure.

As in `plots`: fractions come in and are drawn in percent, colours are told apart with every common colour vision,
and no rcParams and no open figure remain.
"""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fairdf_utils.data.vocabulary import DATASETS, FORGERIES, GENDERS, GROUPS, RACES, group_order
from fairdf_utils.figures.style import (
    DATASET_COLOURS,
    DETECTOR_COLOURS,
    FAKE,
    FLOOR,
    METRIC_WORDS,
    REAL,
    colours_of,
    legend_below,
    line_styles,
    need_columns,
    styled,
)
from fairdf_utils.figures.training import contact_sheet

RACE_COLOURS = dict(zip(RACES, ("#E69F00", "#56B4E9", "#000000", "#009E73"), strict=True))
FEATURE_WORDS = {
    "domain_agnostic": "domain-agnostic",
    "domain_specific": "domain-specific",
    "demographic": "demographic",
    "content": "content",
    "fused": "fused (the answer)",
    "encoder": "encoder (the answer)",
}
ROBUSTNESS_WORDS = {"auc": "AUC (%)", "fpr": "FPR (%)", "tpr": "TPR (%)", "acc": "Accuracy (%)"}


@styled
def grad_cam_grid(faces, heat, title=None):
    """Mean faces with mean Grad-CAM heat over them, groups down and methods across.

    The scale is the same in every cell; 1 would mean that every image of the cell has its strongest evidence there.
    Where there is no heat the face shows in grey.

    Parameters
    ----------
    faces : Means
        From `explain.mean_by` of images, 0..255.
    heat : Means
        From `explain.mean_by` of Grad-CAM maps, 0..1, over the same rows and columns.
    """
    if (faces.rows, faces.columns) != (heat.rows, heat.columns):
        raise ValueError("faces and heat must have the same rows and columns: use mean_by with the same manifest")
    top = np.nanmax(heat.mean) or 1.0  # nothing speaks for a fake anywhere: all cells stay grey
    cells = _overlay(faces.mean.mean(-1) / 255, heat.mean / top)  # (R, C, H, H, 3)
    cells[heat.count == 0] = 0.93
    side = cells.shape[2]
    sheet = cells.transpose(0, 2, 1, 3, 4).reshape(len(heat.rows) * side, len(heat.columns) * side, 3)
    figure = contact_sheet(sheet, heat.rows, heat.columns, title)
    figure.set_figwidth(1.14 * figure.get_figwidth())  # room for the colour bar
    axes = figure.axes[0]
    for (row, column), count in np.ndenumerate(heat.count):
        at = (side * (column + 0.03), side * (row + 0.95))
        axes.text(*at, f"n = {count:,}", fontsize=7.5, color="white" if count else "#666666", va="bottom")
    shown = ListedColormap(_overlay(np.full(256, 0.5), np.linspace(0, 1, 256)))  # over middle grey
    colour = ScalarMappable(Normalize(0, top), shown)
    figure.colorbar(colour, ax=axes, label="Mean Grad-CAM heat for “fake”", fraction=0.04, aspect=35)
    return figure


def _overlay(grey, heat):
    """Grey values 0..1 (...) under heat 0..1 (...), the more covered the hotter: RGB (..., 3)."""
    share = (0.85 * np.sqrt(np.clip(heat, 0, 1)))[..., None]
    return (1 - share) * grey[..., None] + share * plt.get_cmap("inferno")(heat)[..., :3]


@styled
def landscapes(surfaces, sharpness=None, title=None):
    """Loss surfaces of several runs side by side, on one logarithmic colour scale.

    Parameters
    ----------
    surfaces : dict of name -> Landscape
        From `landscape.landscape`.
    sharpness : dict of name -> dict, optional
        From `landscape.sharpness`; written under the names.
    """
    loss = np.stack([each.loss for each in surfaces.values()])
    top = loss[np.isfinite(loss)].max()  # far from the centre a deep network may overflow: left white
    levels = np.geomspace(max(loss[np.isfinite(loss)].min(), 1e-6 * top), top, 19)
    norm = LogNorm(levels[0], levels[-1])
    width = min(9.5, 3.6 * len(surfaces) + 1.2)
    figure, panels = plt.subplots(1, len(surfaces), figsize=(width, 3.9), sharey=True, squeeze=False)
    for axes, (name, each) in zip(panels[0], surfaces.items(), strict=True):
        shown = np.ma.masked_invalid(np.maximum(each.loss, levels[0]))
        axes.contourf(each.x, each.y, shown, levels, norm=norm, cmap="viridis", extend="both")
        axes.contour(each.x, each.y, shown, levels[::2], colors="white", linewidths=0.5)
        axes.plot(0, 0, "*", color="white", markersize=13, markeredgecolor="#444444")
        axes.set_title(name)
        if sharpness:
            rises = "rise uphill {ascent:.2g}, at random {random:.2g}".format(**sharpness[name])
            axes.set_title(f"{name}\n{rises}")
        axes.set(xlabel="Along direction 1 (lengths of a filter)", aspect="equal")
        axes.grid(False)
    panels[0, 0].set_ylabel("Along direction 2 (lengths of a filter)")
    bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=panels, label="Loss (logarithmic)")
    bar.set_ticks(levels[::3])
    bar.ax.yaxis.set_major_formatter("{x:.2g}")
    bar.ax.minorticks_off()
    if title:
        figure.suptitle(title)
    return figure


@styled
def embeddings(points, frame, by=("label", "group", "dataset"), title=None):
    """Two-dimensional embeddings: features down, the same points in the colours of one attribute across.

    Parameters
    ----------
    points : dict of feature -> DataFrame
        From `probes.embed`, N rows each.
    frame : DataFrame, N rows
        With the columns named in `by`.
    by : sequence of str
        Attributes; label, group, gender, race, method and dataset have colours of their own.
    """
    need_columns(frame, by, "The manifest")
    figure, grid = plt.subplots(
        len(points), len(by), figsize=(9.5, 2.75 * len(points) + 1.4), squeeze=False, layout="constrained"
    )
    order = np.random.default_rng(0).permutation(len(frame))  # no class is drawn over the others
    for column, attribute in enumerate(by):
        looks = _looks(frame[attribute])
        colour = frame[attribute].map(lambda value, looks=looks: looks[value][0]).to_numpy()
        marker = frame[attribute].map(lambda value, looks=looks: looks[value][1]).to_numpy()
        for row, (name, each) in enumerate(points.items()):
            axes = grid[row, column]
            x, y = each[["x", "y"]].to_numpy().T
            for shape in np.unique(marker):
                at = order[marker[order] == shape]
                axes.scatter(x[at], y[at], s=9, c=list(colour[at]), marker=shape, alpha=0.7, linewidths=0)
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel(f"{FEATURE_WORDS.get(name, name)}\n{_embedding_words(each)}")
        grid[0, column].set_title(attribute)
        handles = [Line2D([], [], color=c, marker=m, linestyle="") for c, m in looks.values()]
        words = [{0: "real", 1: "fake"}.get(value, value) for value in looks]
        box = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.02), "handletextpad": 0.1, "columnspacing": 0.8}
        grid[-1, column].legend(handles, words, ncols=2, fontsize=8.5, **box)
    sns.despine(figure, left=True, bottom=True)
    if title:
        figure.suptitle(f"{title} (n = {len(frame):,} images)")
    return figure


def _looks(labels):
    """value -> (colour, marker): race by colour and gender by marker; one marker for other attributes."""
    values = group_order(labels)
    if set(values) <= set(GROUPS):
        parts = {value: value.split("-") for value in values}
        return {value: (RACE_COLOURS[race], "o^"[gender == GENDERS[1]]) for value, (gender, race) in parts.items()}
    known = (*FORGERIES, *DATASETS)
    if set(values) <= set(known):
        values = sorted(values, key=known.index)
    colours = {0: REAL, 1: FAKE, **RACE_COLOURS, **DATASET_COLOURS, "real": REAL}
    spare = iter(sns.color_palette("colorblind", len(values)).as_hex())
    return {value: (colours.get(value) or next(spare), "o") for value in values}


def _embedding_words(each):
    if each.attrs["kind"] == "pca":
        return f"PCA, {100 * sum(each.attrs['explained']):.0f} % of the variance"
    return "t-SNE"


@styled
def probe_table(tables, title=None):
    """How well each attribute is read from each feature.

    A cell holds the balanced accuracy in percent and its standard deviation over the folds; the colour is how far it
    is from chance (white) to perfect (dark), so that columns with different chance levels compare.

    Parameters
    ----------
    tables : DataFrame, or dict of detector -> DataFrame
        From `probes.probes`.
    """
    tables = tables if isinstance(tables, dict) else {"": tables}
    lines = [(detector, *line) for detector, table in tables.items() for line in _probe_lines(table)]
    chances = {row.target: row.chance for table in tables.values() for row in table.itertuples()}
    targets = list(chances)
    figure, axes = plt.subplots(figsize=(1.1 * len(targets) + 3, 0.38 * len(lines) + 1.5))
    shade = np.full((len(lines), len(targets)), np.nan)
    for row, (_, _, cells) in enumerate(lines):
        for column, target in enumerate(targets):
            if target not in cells.index:
                continue
            one = cells.loc[target]
            shade[row, column] = np.clip((one["accuracy"] - one["chance"]) / (1 - one["chance"]), 0, 1)
            ink = "white" if shade[row, column] > 0.6 else "black"
            text = f"{100 * one['accuracy']:.0f} ± {100 * one['sd']:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=9.5)
    axes.imshow(shade, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    words = [f"{target}\nchance {100 * chance:.3g}" for target, chance in chances.items()]
    axes.set_xticks(range(len(targets)), words)
    axes.set_yticks(range(len(lines)), [FEATURE_WORDS.get(name, name) for _, name, _ in lines])
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    _separate_detectors(axes, [detector for detector, _, _ in lines])
    axes.grid(False)
    sns.despine(ax=axes, left=True, bottom=True)
    axes.set_xlabel("Balanced accuracy (%) ± standard deviation over folds; white: chance, dark: perfect")
    if title:
        figure.suptitle(title)
    return figure


def _probe_lines(table):
    """(feature, its rows indexed by target), in the order of the table."""
    need_columns(table, ["feature", "target", "accuracy", "sd", "chance"], "The table of probes")
    return [(name, cells.set_index("target")) for name, cells in table.groupby("feature", sort=False)]


def _separate_detectors(axes, detectors):
    """A line between detectors, and each one's name beside its rows."""
    for start, name in enumerate(detectors):
        if start and detectors[start - 1] == name:
            continue
        end = start + detectors.count(name)
        if start:
            axes.axhline(start - 0.5, color="#444444", linewidth=1)
        at = axes.get_yaxis_transform()
        axes.text(1.01, (start + end - 1) / 2, name, transform=at, ha="left", va="center", fontsize=9.5)


@styled
def robustness(tables, metrics=("auc", "fpr_gap"), by="group", title=None):
    """Metrics against the severity of each perturbation: one line a detector or data set.

    A gap that closes is no gain where the AUC falls to one half: a detector that calls everything fake treats all
    groups alike. Severity 0 is the unchanged image.

    Parameters
    ----------
    tables : dict of name -> DataFrame
        From `perturbations.robustness`.
    metrics : sequence of str
        Of all images (auc, acc, fpr, tpr) or, for `by`, of `fairness.METRICS`; one row of panels each.
    by : str
        The groups that fairness metrics compare.
    """
    kinds = list(next(iter(tables.values()))["kind"].unique())
    colours, lines = colours_of(tables, {**DETECTOR_COLOURS, **DATASET_COLOURS}), line_styles(tables)
    figure, grid = _severity_grid(kinds, len(metrics))
    for metric, row in zip(metrics, grid, strict=True):
        for name, table in tables.items():
            own = table[(table["metric"] == metric) & (table["by"].isin(["", by])) & (table["group"] == "")]
            for kind, axes in zip(kinds, row, strict=True):
                curve = own[own["kind"] == kind].sort_values("severity")
                style = {"color": colours[name], "linestyle": lines[name], "marker": "o", "markersize": 3}
                axes.plot(curve["severity"], 100 * curve["value"], **style)
        words = METRIC_WORDS.get(metric, metric).split(":")[0].replace(" between groups", "")
        row[0].set_ylabel(ROBUSTNESS_WORDS.get(metric, f"{words}\nby {by} (%)"))
        if metric == "auc":
            for axes in row:
                axes.axhline(50, color="#444444", linestyle=":", linewidth=1)
    handles = [Line2D([], [], color=colours[name], linestyle=lines[name], marker="o", markersize=4) for name in tables]
    legend_below(figure, handles, [str(name) for name in tables])
    if title:
        figure.suptitle(title)
    return figure


@styled
def group_robustness(table, by="group", metrics=("fpr", "tpr"), title=None):
    """Rates of every group against the severity of each perturbation; the band spans the groups.

    Parameters
    ----------
    table : DataFrame
        From `perturbations.robustness`.
    by : str
    metrics : sequence of "fpr", "tpr", "auc"
        One row of panels each.
    """
    kinds = list(table["kind"].unique())
    figure, grid = _severity_grid(kinds, len(metrics))
    own = table[table["by"] == by]
    names = group_order(own.loc[own["group"] != "", "group"])
    looks = _group_lines(names)
    for metric, row in zip(metrics, grid, strict=True):
        for kind, axes in zip(kinds, row, strict=True):
            rates = own[(own["kind"] == kind) & (own["metric"] == metric) & (own["group"] != "")]
            rates = 100 * rates.pivot(index="severity", columns="group", values="value")
            axes.fill_between(
                rates.index, rates.min(axis=1), rates.max(axis=1), color="#BBBBBB", alpha=0.3, linewidth=0
            )
            for name in names:
                axes.plot(rates.index, rates[name], linewidth=1.2, **looks[name])
            overall = table[(table["by"] == "") & (table["metric"] == metric) & (table["kind"] == kind)]
            overall = overall.sort_values("severity")
            axes.plot(overall["severity"], 100 * overall["value"], color="#444444", linewidth=2.6, alpha=0.6)
        row[0].set(ylabel=ROBUSTNESS_WORDS[metric], ylim=(-3, 103))
    handles = [Line2D([], [], linewidth=1.6, **looks[name]) for name in names]
    handles += [Line2D([], [], color="#444444", linewidth=2.6, alpha=0.6), Patch(color=FLOOR, alpha=0.3)]
    legend_below(figure, handles, [*names, "all images", "spread of the groups"])
    if title:
        figure.suptitle(title)
    return figure


def _severity_grid(kinds, rows):
    figure, grid = plt.subplots(
        rows, len(kinds), figsize=(min(9.8, 1.3 * len(kinds) + 1.2), 1.9 * rows + 1.1), sharex=True, sharey="row",
        squeeze=False,
    )  # fmt: skip
    for axes, kind in zip(grid[0], kinds, strict=True):
        axes.set_title(kind)
    for axes in grid.flat:
        axes.set_xticks(range(0, 6))
        axes.grid(False, axis="x")
    for axes in grid[-1]:
        axes.set_xlabel("severity")
    sns.despine(figure)
    return figure, grid


def _group_lines(names):
    """group -> line: race by colour, gender by dashes; other attributes by colour alone."""
    if set(names) <= set(GROUPS):
        parts = {name: name.split("-") for name in names}
        return {
            name: {"color": RACE_COLOURS[race], "linestyle": ("-", "--")[gender == GENDERS[1]]}
            for name, (gender, race) in parts.items()
        }
    spare = iter(sns.color_palette("colorblind", len(names)).as_hex())
    return {name: {"color": RACE_COLOURS.get(name) or next(spare), "linestyle": "-"} for name in names}
