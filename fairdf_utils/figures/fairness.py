"""Figures of the fairness analysis: intervals, thresholds, calibration, differences and all runs.

One function a figure, each returns a closed matplotlib Figure; fractions come in, percent are drawn.
"""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fairdf_utils.figures import style
from fairdf_utils.figures.style import colours_of, legend_below, line_styles, panels, styled, write_beside

DIFFERS, UNDECIDED = "#0072B2", "#999999"
RATE_WORDS = {"acc": "Accuracy", "fpr": "FPR: reals called fake", "tpr": "TPR: fakes found", "auc": "AUC"}
RATE_WORDS |= {"worst_auc": "Worst-group AUC", "worst_tpr": "Worst-group TPR"}


@styled
def group_intervals(
    intervals: pd.DataFrame,
    rates: Sequence[str] = ("fpr", "tpr"),
    level: float = 0.95,
    title: str | None = None,
    others: Sequence[pd.DataFrame] = (),
) -> Figure:
    """Rates (of fpr, tpr, acc, auc: a panel each) of each group with intervals, and the videos that they rest on.

    `intervals` come from `uncertainty.group_intervals`; `level` is the coverage that they aim at, for the legend.
    `others` are such tables of other training seeds, of which the rates alone are drawn.
    """
    rows = np.arange(len(intervals))
    figure, grid = panels(len(rates), len(rates), 9.5 / len(rates), 0.42 * len(rows) + 1.6, sharey=True)
    for axes, rate in zip(grid, rates, strict=True):
        colour = {"fpr": style.REAL, "tpr": style.FAKE}.get(rate, "#7F7F7F")
        bounds = 100 * intervals[[f"{rate}_low", f"{rate}_high"]].to_numpy()
        axes.hlines(rows, *bounds.T, color=colour, linewidth=5, alpha=0.45)
        axes.plot(100 * intervals[rate], rows, "o", color=colour, markersize=7, markeredgecolor="white")
        for other in others:
            axes.plot(100 * other[rate].reindex(intervals.index), rows, "o", color="black", markersize=3, alpha=0.7)
        for row in rows[intervals[rate].isna()]:
            axes.text(50, row, "undefined", ha="center", va="center", color="#666666", style="italic")
        which = {"fpr": "clusters_real", "tpr": "clusters_fake"}.get(rate)
        smaller = intervals[["clusters_real", "clusters_fake"]].min(axis=1)
        write_beside(axes, rows, [f"{count:,}" for count in (intervals[which] if which else smaller)], "videos")
        axes.set(xlim=(-2, 102), xlabel=f"{RATE_WORDS[rate]} (%)")
        axes.grid(False, axis="y")
    grid[0].set(yticks=rows, yticklabels=intervals.index, ylim=(len(rows) - 0.4, -0.6))
    handles = [Line2D([], [], marker="o", color="#7F7F7F", linestyle=""), Patch(color="#7F7F7F", alpha=0.45)]
    handles += [Line2D([], [], marker="o", color="black", linestyle="", markersize=3)] * bool(others)
    legend_below(figure, handles, ["group", f"{100 * level:g} % interval", "other training seeds"][: len(handles)])
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
def all_runs(runs: pd.DataFrame, lower: str = "fpr_sum_matched", higher: str = "worst_auc", title: str = "") -> Figure:
    """Every run by fairness and by how well the worst group is served, one panel a test set; upper left is best.

    `runs` has a row for each run and test set: dataset, detector, and the two columns in which lower, and higher, is
    better (fractions). A run is a small mark; a large one and its bars are mean and standard deviation of several. Of
    detectors with one run, the vertical bar is the interval <higher>_low to <higher>_high. Names in parentheses are
    predictors that see no face.
    """
    names, sets = list(dict.fromkeys(runs["detector"])), list(dict.fromkeys(runs["dataset"]))
    blind = [name for name in names if name.startswith("(")]
    colours = colours_of([name for name in names if name not in blind], style.DETECTOR_COLOURS)
    looks = {name: {"color": colour, "marker": style.marker_of(name)} for name, colour in colours.items()}
    looks |= {name: {"color": "#666666", "marker": mark} for name, mark in zip(blind, "x+1234" * 2, strict=False)}
    figure, grid = panels(
        len(sets), 2, 9.5 / min(2, len(sets)), 3.1, 0.6 + 0.2 * (len(names) // 5), sharex=True, sharey=True
    )
    for axes, dataset in zip(grid, sets, strict=True):
        for name, part in runs[runs["dataset"] == dataset].groupby("detector", sort=False):
            x, y = 100 * part[lower], 100 * part[higher]
            size = {"markersize": 8, "markeredgecolor": "#666666" if name in blind else "white"}
            if len(part) > 1:
                axes.plot(x, y, linestyle="", markersize=4, alpha=0.5, markeredgewidth=0, zorder=2, **looks[name])
                size["xerr"], size["yerr"] = x.std(), y.std()
            elif f"{higher}_low" in part and name not in blind:
                ends = 100 * part[[f"{higher}_low", f"{higher}_high"]].to_numpy()
                size["yerr"] = np.abs(ends - y.to_numpy()[:, None]).T
            axes.errorbar(x.mean(), y.mean(), elinewidth=1.3, zorder=3, **size, **looks[name])
        if runs.loc[runs["dataset"] == dataset, [lower, higher]].isna().any(axis=1).all():
            axes.text(0.5, 0.5, "undefined", transform=axes.transAxes, ha="center", style="italic", color="#666666")
        axes.set_title(dataset)
        axes.tick_params(labelbottom=True, labelleft=True)
    grid[0].set_xlim(-3, None)  # of all
    for axes in grid[-2:]:  # nothing below them
        axes.set_xlabel(f"← better   {style.METRIC_WORDS.get(lower, lower)}, points", fontsize=9)
    for axes in grid[::2]:
        axes.set_ylabel(f"{RATE_WORDS.get(higher, higher)} (%)   better →")
    handles = [Line2D([], [], linestyle="", markersize=8, **looks[name]) for name in names]
    legend_below(figure, handles, names)
    figure.suptitle(title)
    return figure


@styled
def differences(table: pd.DataFrame, title: str | None = None, level: float = 0.95) -> Figure:
    """Differences with intervals: one row a comparison, one panel a metric; zero is no difference.

    `table` has the columns name (of the comparison), metric, estimate, low, high (fractions, NaN = undefined) and
    p_holm, written beside the row. A difference is drawn in blue where that is below 1 - `level`, which decides: an
    interval stands for itself alone, and may exclude zero in one of many rows by chance. Several runs of one name share
    its row, beside which stands in how many of them it differs.
    """
    names, metrics = list(dict.fromkeys(table["name"])), list(dict.fromkeys(table["metric"]))
    wide, several = min(len(metrics), 3), table.duplicated(["name", "metric"]).any()
    figure, grid = panels(len(metrics), wide, 9.5 / wide, (0.34 if several else 0.26) * len(names) + 1.5, sharey=True)
    for axes, metric in zip(grid, metrics, strict=True):
        part = table[table["metric"] == metric]
        runs = part.groupby("name")["name"].transform("size")
        rows = part["name"].map(names.index) + 0.7 * ((part.groupby("name").cumcount() + 0.5) / runs - 0.5)
        colours = np.where(part["p_holm"] < 1 - level, DIFFERS, UNDECIDED)
        axes.hlines(rows, 100 * part["low"], 100 * part["high"], color=colours, linewidth=1 if several else 2)
        axes.scatter(100 * part["estimate"], rows, color=colours, s=9 if several else 24, zorder=3)
        axes.axvline(0, color="#444444", linestyle="--", linewidth=1, zorder=1)
        beside = []
        for row, name in enumerate(names):
            mine = part[part["name"] == name].dropna(subset="estimate")
            if mine.empty:
                axes.text(0, row, "undefined", ha="center", va="center", fontsize=8.5, style="italic", color="#666666")
            p = mine["p_holm"].dropna()
            beside.append(f"{(p < 1 - level).sum()} of {len(p)}" if several else f"{p.iloc[0]:.3f}" if len(p) else "")
        write_beside(axes, range(len(names)), beside, "differ" if several else "p (Holm)")
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
