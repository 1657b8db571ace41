"""Figures of detection: what a detector's alarms are worth.

One function a figure, each returns a closed matplotlib Figure; fractions come in, percent are drawn.
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve

from fairdf_utils.figures.style import DATASET_COLOURS, DETECTOR_COLOURS, FLOOR, colours_of, styled


@styled
def precision_recall(tables: dict[str, pd.DataFrame], threshold: float = 0.5, title: str | None = None) -> Figure:
    """Precision against recall; a dot marks the decision threshold, a line the share of fakes.

    A curve is drawn in steps: between two of its points precision does not change in a straight line, and the area
    below the steps is the average precision. A blind detector has the share of fakes as its precision at every
    recall, so that curves of test sets with other shares do not compare. `tables` are score tables by detector or set.
    """
    figure, axes = plt.subplots(figsize=(6.4, 4.6))
    colours = colours_of(tables, {**DETECTOR_COLOURS, **DATASET_COLOURS})
    for i, (name, table) in enumerate(tables.items()):
        label, score = table["label"].to_numpy(), table["score"].to_numpy()
        if not 0 < label.sum() < len(label):
            axes.plot([], [], color=colours[name], label=f"{name}\nundefined: one class (n = {len(label):,})")
            continue
        precision, recall, _ = precision_recall_curve(label, score)
        area, share = 100 * average_precision_score(label, score), 100 * label.mean()
        text = f"{name}\nAP {area:.1f} %, fakes {share:.0f} % (n = {len(label):,})"
        style = {"color": colours[name], "linestyle": ("-", "--", "-.", ":")[i % 4]}
        axes.plot(100 * recall, 100 * precision, drawstyle="steps-post", label=text, **style)
        axes.axhline(share, color=FLOOR, linewidth=1, zorder=1)
        called = score >= threshold
        if called.any():  # else there is no alarm whose precision could be drawn
            at = 100 * called[label == 1].mean(), 100 * label[called].mean()
            axes.plot(*at, "o", color=colours[name], markersize=7, markeredgecolor="white", zorder=3)
    axes.plot([], [], "o", color="#444444", label=f"threshold {threshold:g}")
    axes.plot([], [], color=FLOOR, linewidth=1, label="share of fakes: chance")
    axes.set(xlabel="Recall: fakes found (%)", ylabel="Precision: alarms that are fakes (%)")
    axes.set(xlim=(-1, 101), ylim=(-1, 101), aspect="equal")
    sns.despine(figure)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), labelspacing=0.8)
    axes.set_title(title or "")
    return figure
