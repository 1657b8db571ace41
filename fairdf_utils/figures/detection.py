"""Figures of detection: curves of score tables, by detector or data set; a dot marks the decision threshold.

One function a figure, each returns a closed matplotlib Figure; fractions come in, percent are drawn.
"""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from fairdf_utils.figures.style import DATASET_COLOURS, DETECTOR_COLOURS, DOT, FLOOR, colours_of, styled


@styled
def roc(tables: dict[str, pd.DataFrame], threshold: float = 0.5) -> Figure:
    """ROC curves."""

    def curve(label, score, called):
        fpr, tpr, _ = roc_curve(label, score)
        dot = called[label == 0].mean(), called[label == 1].mean()
        return fpr, tpr, f"AUC {100 * roc_auc_score(label, score):.1f} %", dot

    words = {"xlabel": "False-positive rate: reals called fake (%)", "ylabel": "True-positive rate: fakes found (%)"}
    figure = _curves(tables, threshold, curve, "chance", "default", words)
    figure.axes[0].plot([0, 100], [0, 100], color=FLOOR, linewidth=1)
    return figure


@styled
def precision_recall(tables: dict[str, pd.DataFrame], threshold: float = 0.5) -> Figure:
    """Precision against recall, and the share of fakes.

    A curve is drawn in steps: between two of its points precision does not change in a straight line, and the area
    below the steps is the average precision. A blind detector has the share of fakes as its precision at every
    recall, so that curves of test sets with other shares do not compare.
    """

    def curve(label, score, called):
        precision, recall, _ = precision_recall_curve(label, score)
        words = f"AP {100 * average_precision_score(label, score):.1f} %, fakes {100 * label.mean():.0f} %"
        dot = (called[label == 1].mean(), label[called].mean()) if called.any() else None  # else there is no alarm
        return recall, precision, words, dot

    words = {"xlabel": "Recall: fakes found (%)", "ylabel": "Precision: alarms that are fakes (%)"}
    figure = _curves(tables, threshold, curve, "share of fakes: chance", "steps-post", words)
    for share in {table["label"].mean() for table in tables.values()} - {0, 1}:
        figure.axes[0].axhline(100 * share, color=FLOOR, linewidth=1, zorder=1)
    return figure


def _curves(tables: dict, threshold: float, curve: Callable, chance: str, drawstyle: str, words: dict) -> Figure:
    """One line a table; `curve` makes x, y, a caption and the dot (or None) of labels, scores and decisions."""
    figure, axes = plt.subplots(figsize=(6.4, 4.6))
    colours = colours_of(tables, {**DETECTOR_COLOURS, **DATASET_COLOURS})
    for i, (name, table) in enumerate(tables.items()):
        label, score = table["label"].to_numpy(), table["score"].to_numpy()
        look, count = {"color": colours[name], "linestyle": ("-", "--", "-.", ":")[i % 4]}, f"(n = {len(label):,})"
        if not 0 < label.sum() < len(label):
            axes.plot([], [], **look, label=f"{name}\nundefined: one class {count}")
            continue
        x, y, caption, dot = curve(label, score, score >= threshold)
        axes.plot(100 * x, 100 * y, drawstyle=drawstyle, label=f"{name}\n{caption} {count}", **look)
        if dot:
            axes.plot(*np.multiply(dot, 100), color=colours[name], **DOT)
    axes.plot([], [], "o", color="#444444", label=f"threshold {threshold:g}")
    axes.plot([], [], color=FLOOR, linewidth=1, label=chance)
    axes.set(xlim=(-1, 101), ylim=(-1, 101), aspect="equal", **words)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), labelspacing=0.8)
    return figure
