"""Figures of the fairness analysis: intervals, thresholds, calibration, differences and the front.

One function a figure, each returns a closed matplotlib Figure; fractions come in, percent are drawn.
"""

from collections.abc import Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fairdf_utils.fairness.pareto import undominated
from fairdf_utils.figures import style
from fairdf_utils.figures.style import colours_of, legend_below, line_styles, panels, styled, write_beside

DIFFERS, UNDECIDED = "#0072B2", "#999999"
RATE_WORDS = {"acc": "Accuracy", "fpr": "FPR: reals called fake", "tpr": "TPR: fakes found", "auc": "AUC"}
RATE_WORDS |= {"worst_auc": "Worst-group AUC", "worst_tpr": "Worst-group TPR"}


@styled
def group_intervals(
    intervals: pd.DataFrame, rates: Sequence[str] = ("fpr", "tpr"), level: float = 0.95, title: str | None = None
) -> Figure:
    """Rates (of fpr, tpr, acc, auc: a panel each) of each group with intervals, and the videos that they rest on.

    `intervals` come from `uncertainty.group_intervals`; `level` is the coverage that they aim at, for the legend.
    """
    rows = np.arange(len(intervals))
    figure, grid = panels(len(rates), len(rates), 9.5 / len(rates), 0.42 * len(rows) + 1.6, sharey=True)
    for axes, rate in zip(grid, rates, strict=True):
        colour = {"fpr": style.REAL, "tpr": style.FAKE}.get(rate, "#7F7F7F")
        bounds = 100 * intervals[[f"{rate}_low", f"{rate}_high"]].to_numpy()
        axes.hlines(rows, *bounds.T, color=colour, linewidth=5, alpha=0.45)
        axes.plot(100 * intervals[rate], rows, "o", color=colour, markersize=7, markeredgecolor="white")
        for row in rows[intervals[rate].isna()]:
            axes.text(50, row, "undefined", ha="center", va="center", color="#666666", style="italic")
        which = {"fpr": "clusters_real", "tpr": "clusters_fake"}.get(rate)
        smaller = intervals[["clusters_real", "clusters_fake"]].min(axis=1)
        write_beside(axes, rows, [f"{count:,}" for count in (intervals[which] if which else smaller)], "videos")
        axes.set(xlim=(-2, 102), xlabel=f"{RATE_WORDS[rate]} (%)")
        axes.grid(False, axis="y")
    grid[0].set(yticks=rows, yticklabels=intervals.index, ylim=(len(rows) - 0.4, -0.6))
    dot = Line2D([], [], marker="o", color="#7F7F7F", linestyle="")
    legend_below(figure, [dot, Patch(color="#7F7F7F", alpha=0.45)], ["group", f"{100 * level:g} % interval"])
    figure.suptitle(title)
    return figure


@styled
def threshold_curves(
    curves: dict[str, pd.DataFrame],
    metrics: Sequence[str] = ("fpr_sum", "oae", "dp", "meo"),
    against: str = "threshold",
    marked: float | dict[str, float] | None = None,
    title: str | None = None,
) -> Figure:
    """Fairness metrics (columns of the curves, a panel each) against the threshold, or the overall FPR that it brings.

    `curves` are those of `thresholds.metrics_by_threshold`, by detector or data set. Against "fpr" detectors compare
    where they raise equally many false alarms. `marked` is the point in use, for all curves or each: a threshold, or
    the FPR there, 0..1.
    """
    colours, lines = colours_of(curves, {**style.DETECTOR_COLOURS, **style.DATASET_COLOURS}), line_styles(curves)
    figure, grid = panels(len(metrics), 2, 9.5 / min(2, len(metrics)), 2.7, 0.6)
    for axes, metric in zip(grid, metrics, strict=True):
        for name, curve in curves.items():
            curve = curve.reset_index()
            look = {"color": colours[name], "linestyle": lines[name], "linewidth": 1.5}
            axes.step(100 * curve[against], 100 * curve[metric], where="mid", **look)  # jumps lie between cuts
            point = marked.get(name) if isinstance(marked, dict) else marked
            if point is not None:
                look = {"color": colours[name] if isinstance(marked, dict) else "#444444", "linewidth": 1}
                axes.axvline(100 * point, linestyle=(0, (2, 2)), **look)
        gap = metric in style.METRIC_WORDS
        words = style.METRIC_WORDS.get(metric) or RATE_WORDS.get(metric, metric)
        axes.set(title=words, ylabel="Percentage points" if gap else "%", ylim=(0, None), xlim=(-1, 101))
    for axes in grid[-2:]:  # nothing below them
        axes.set_xlabel("Threshold (P(fake), %)" if against == "threshold" else "FPR of all images (%)")
    handles = [Line2D([], [], color=colours[name], linestyle=lines[name]) for name in curves]
    words = [str(name) for name in curves]
    if marked is not None:
        handles.append(Line2D([], [], color="#444444", linestyle=(0, (2, 2)), linewidth=1))
        words.append("in use" if isinstance(marked, dict) else f"in use: {100 * marked:g} %")
    legend_below(figure, handles, words)
    figure.suptitle(title)
    return figure


@styled
def reliability(curve: pd.DataFrame, numbers: pd.DataFrame | None = None, title: str | None = None) -> Figure:
    """Reliability diagrams, one panel a group: share of fakes against mean score; the area of a dot shows n.

    `curve` is that of `calibration.reliability`, `numbers` those of `calibration.calibration` for the same groups: ece
    and brier are written into the panels.
    """
    groups = list(dict.fromkeys(curve.index.get_level_values(0)))
    figure, grid = panels(len(groups), 4, max(2.35, 5.2 / len(groups)), 2.35, 1, sharex=True, sharey=True)
    largest = max(curve["n"].max(), 1)
    for axes, group in zip(grid, groups, strict=True):
        bins = curve.loc[group][lambda each: each["n"] > 0]
        axes.plot([0, 100], [0, 100], color="#888888", linewidth=1, linestyle="--", zorder=1)
        x, y = 100 * bins["score"], 100 * bins["fake_share"]
        axes.vlines(x, x, y, color=style.FAKE, linewidth=1.2, alpha=0.5)
        axes.scatter(x, y, s=8 + 130 * bins["n"] / largest, color="#0072B2", edgecolor="white", linewidth=0.7, zorder=3)
        text = f"n = {int(bins['n'].sum()):,}"
        if numbers is not None:
            row = numbers.loc[group]
            text += f"\nECE {row['ece']:.3f}\nBrier {row['brier']:.3f}" if row["n"] else "\nundefined"
        axes.text(3, 97, text, va="top", fontsize=8.5)
        axes.set(title=str(group), xlim=(-4, 104), ylim=(-4, 104), aspect="equal")
        axes.set(xticks=(0, 50, 100), yticks=(0, 50, 100))
    for axes in grid[-4:]:  # nothing below them
        axes.set_xlabel("Mean score of a bin (%)", fontsize=9)
        axes.tick_params(labelbottom=True)
    for axes in grid[::4]:
        axes.set_ylabel("Fakes in the bin (%)", fontsize=9)
    dot = {"marker": "o", "color": "#0072B2", "linestyle": ""}
    handles = [Line2D([], [], markersize=(8 + 130 * n / largest) ** 0.5, **dot) for n in (0.1 * largest, largest)]
    handles.append(Line2D([], [], color="#888888", linestyle="--", linewidth=1))
    words = [f"{0.1 * largest:,.0f} images", f"{largest:,} images", "scores that mean what they say"]
    legend_below(figure, handles, words)
    figure.suptitle(title)
    return figure


@styled
def front(results: pd.DataFrame, lower: str = "fpr_sum", higher: str = "auc", title: str | None = None) -> Figure:
    """Runs by accuracy and fairness, with the front: the runs than which no other is better in both.

    `results` has a row for each run ("fairdf-s0", coloured by detector); `lower` and `higher` are the columns in which
    lower, or higher, is better (fractions). Columns <name>_low and <name>_high, where there are any, are intervals.
    """
    on_front, colours = undominated(results, (higher,), (lower,)), colours_of(results.index, style.DETECTOR_COLOURS)
    figure, axes = plt.subplots(figsize=(8.2, 4.6))
    edge = 100 * results.loc[on_front.to_numpy(), [higher, lower]].sort_values(higher)
    axes.step(edge[higher], edge[lower], where="post", color="#444444", linewidth=1.2, zorder=1)
    for (name, row), best in zip(results.iterrows(), on_front, strict=True):
        look = {"color": colours[name], "alpha": 0.45, "linewidth": 1.3, "zorder": 2}
        if {f"{higher}_low", f"{higher}_high"} <= set(results.columns):
            axes.hlines(100 * row[lower], 100 * row[f"{higher}_low"], 100 * row[f"{higher}_high"], **look)
        if {f"{lower}_low", f"{lower}_high"} <= set(results.columns):
            axes.vlines(100 * row[higher], 100 * row[f"{lower}_low"], 100 * row[f"{lower}_high"], **look)
        face = {"markerfacecolor": colours[name] if best else "white", "markeredgecolor": colours[name]}
        axes.plot(100 * row[higher], 100 * row[lower], "o", markersize=9, markeredgewidth=1.6, zorder=3, **face)
    words = style.METRIC_WORDS.get(lower, lower).split(":")[0]
    axes.set(xlabel=f"{RATE_WORDS.get(higher, higher)} (%)  → better", ylabel=f"{words} (percentage points)\nbetter ←")
    axes.set_ylim(0, None)
    bases = dict.fromkeys(colours.values())
    named = {colour: [name for name in colours if colours[name] == colour] for colour in bases}
    handles, dot = [Patch(color=colour) for colour in named], {"marker": "o", "color": "#444444", "markersize": 8}
    handles += [Line2D([], [], linewidth=1.2, **dot), Line2D([], [], markerfacecolor="white", linestyle="", **dot)]
    legend_below(figure, handles, [*(", ".join(map(str, names)) for names in named.values()), "front", "beaten"])
    axes.set_title(title or "")
    return figure


@styled
def differences(table: pd.DataFrame, title: str | None = None, level: float = 0.95) -> Figure:
    """Differences with intervals: one row a comparison, one panel a metric; zero is no difference.

    `table` has the columns name (of the comparison), metric, estimate, low, high (fractions, NaN = undefined) and
    p_holm, written beside the row. A difference is drawn in blue where that is below 1 - `level`, which decides: an
    interval stands for itself alone, and may exclude zero in one of many rows by chance.
    """
    names, metrics = list(dict.fromkeys(table["name"])), list(dict.fromkeys(table["metric"]))
    wide = min(len(metrics), 3)
    figure, grid = panels(len(metrics), wide, 9.5 / wide, 0.26 * len(names) + 1.5, sharey=True)
    for axes, metric in zip(grid, metrics, strict=True):
        part = table[table["metric"] == metric].set_index("name").reindex(names)
        rows, colours = np.arange(len(names)), np.where(part["p_holm"] < 1 - level, DIFFERS, UNDECIDED)
        axes.hlines(rows, 100 * part["low"], 100 * part["high"], color=colours, linewidth=2)
        axes.scatter(100 * part["estimate"], rows, color=colours, s=24, zorder=3)
        axes.axvline(0, color="#444444", linestyle="--", linewidth=1, zorder=1)
        for row in rows[part["estimate"].isna()]:
            axes.text(0, row, "undefined", ha="center", va="center", fontsize=8.5, style="italic", color="#666666")
        write_beside(axes, rows, ["" if np.isnan(p) else f"{p:.3f}" for p in part["p_holm"]], "p (Holm)")
        words = style.METRIC_WORDS.get(metric, RATE_WORDS.get(metric, metric)).split(":")[0]
        axes.set(title=fill(words, 20), xlabel="Percentage points")
        axes.grid(False, axis="y")
    grid[0].set(yticks=np.arange(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    handles = [Line2D([], [], marker="o", color=colour, linewidth=2) for colour in (DIFFERS, UNDECIDED)]
    below = f"{1 - level:.2g}"
    legend_below(figure, handles, [f"differs: p (Holm) below {below}", f"undecided: p from {below} on"])
    figure.suptitle(title)
    return figure


@styled
def coverage(table: pd.DataFrame, title: str | None = None) -> Figure:
    """How often intervals hold the truth, by the number of videos of a group: one panel a metric, one dot a kind of
    test sets, over the strip of 92 to 97 %.

    `table` holds rows of `fairness.coverage.study`: metric, size, method, coverage (a fraction).
    """
    metrics, sizes = (list(dict.fromkeys(table[name])) for name in ("metric", "size"))
    sizes.sort(key=lambda size: int(size.split("-")[0].split()[0]))
    figure, grid = panels(len(metrics), len(metrics), 9.5 / len(metrics), 3.6, sharey=True)
    for axes, metric in zip(grid, metrics, strict=True):
        axes.axhspan(92, 97, color="#CCCCCC", zorder=0)
        for method, colour in zip(dict.fromkeys(table["method"]), (DIFFERS, UNDECIDED), strict=False):
            part = table[(table["metric"] == metric) & (table["method"] == method)]
            beside = part.groupby("size").cumcount()
            place = part["size"].map(sizes.index) + 0.5 * beside / max(beside.max(), 1) - 0.25
            axes.scatter(place, 100 * part["coverage"], s=16, color=colour, label=method)
        axes.set(title=RATE_WORDS.get(metric, metric), xticks=range(len(sizes)), xticklabels=sizes)
        axes.set(xlabel="Videos of the group", ylabel="Intervals that hold the truth (%)")
    legend_below(figure, *grid[0].get_legend_handles_labels())
    figure.suptitle(title)
    return figure
