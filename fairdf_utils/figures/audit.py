"""The one figure that only the audit needs: false alarms of each group at every threshold, and their gap.

As in `plots`: a closed matplotlib Figure; fractions come in, percent are drawn.
"""

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fairdf_utils.figures.style import FLOOR, legend_below, styled

LINES = ("-", "--", "-.", ":")


@styled
def false_alarms(rates, floor, points):
    """Left the FPR of each group, right their gap and what sampling alone shows of it, both against the threshold.

    Parameters
    ----------
    rates : DataFrame
        From `thresholds.rates_by_threshold` with rate "fpr": index threshold, a column a group.
    floor : Series
        Index threshold: the 95 % quantile of the floor of the FPR gap.
    points : dict of name -> threshold
        Operating points, marked in both panels.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2), sharex=True)
    palette = sns.color_palette("colorblind", min(max(rates.shape[1], 1), 10))
    styles = [
        {"color": palette[i % len(palette)], "linestyle": LINES[(i // 4 + i // len(palette)) % 4], "linewidth": 1.8}
        for i in range(rates.shape[1])
    ]
    for group, style in zip(rates.columns, styles, strict=True):
        left.step(rates.index, 100 * rates[group], where="pre", **style)
    right.fill_between(floor.index, 100 * floor, color=FLOOR, alpha=0.55, linewidth=0)
    right.step(rates.index, 100 * (rates.max(axis=1) - rates.min(axis=1)), where="pre", color="#000000")
    for axes in (left, right):
        for number, (name, at) in enumerate(points.items()):
            axes.axvline(at, color="#444444", linestyle=(0, (2, 2)), linewidth=1)
            end = {"xytext": (2, -2 - 11 * (number % 3)), "textcoords": "offset points", "va": "top", "fontsize": 8.5}
            axes.annotate(name, (at, 1), xycoords=("data", "axes fraction"), color="#444444", **end)
        axes.set(xlabel="Threshold of the score", ylim=(0, None), xlim=(0, 1))
    left.set(title="Reals called fake, by group", ylabel="FPR (%)", ylim=(0, 101))
    right.set(title="Gap between groups", ylabel="Percentage points")
    sns.despine(figure)
    handles = [Line2D([], [], **style) for style in styles]
    handles += [Line2D([], [], color="#000000"), Patch(color=FLOOR, alpha=0.55)]
    legend_below(figure, handles, [*map(str, rates.columns), "gap", "sampling alone (95 % quantile)"])
    return figure
