"""Images, groups, training curves, scores and results: one function a figure, each returns a Figure (see `style`)."""

from collections.abc import Sequence
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from fairdf_utils.data.vocabulary import group_order
from fairdf_utils.figures import style
from fairdf_utils.figures.style import colours_of, legend_below, panels, styled, write_beside

SHORT = {"auc": "AUC (%)", "worst_auc": "Worst-group AUC (%)", "fpr_sum_matched": "F_FPR at 10 % FPR (points)"}
STAR = {"marker": "*", "markersize": 15, "markeredgecolor": "white", "zorder": 3}


@styled
def contact_sheet(sheet: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str | None = None) -> Figure:
    """A sheet of equal tiles, uint8 (len(rows) * size, len(columns) * size, 3), with a name at each row and column."""
    height, width = sheet.shape[0] / len(rows), sheet.shape[1] / len(columns)
    figure, axes = plt.subplots(figsize=(8, 8 * 0.86 * sheet.shape[0] / sheet.shape[1] + 0.4))
    axes.imshow(sheet, interpolation="lanczos")
    axes.set_xticks(width * (np.arange(len(columns)) + 0.5) - 0.5, columns)
    axes.set_yticks(height * (np.arange(len(rows)) + 0.5) - 0.5, rows)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.tick_params(axis="x", labelsize=9.5)
    bottom, right = np.array(sheet.shape[:2]) - 0.5
    axes.vlines(width * np.arange(1, len(columns)) - 0.5, -0.5, bottom, color="white", linewidth=1.5)
    axes.hlines(height * np.arange(1, len(rows)) - 0.5, -0.5, right, color="white", linewidth=1.5)
    axes.grid(False)
    sns.despine(ax=axes, left=True, bottom=True)
    figure.suptitle(title or "")
    return figure


@styled
def image_grid(images: Sequence[np.ndarray], titles: Sequence[str], columns: int) -> Figure:
    """Images side by side, uint8 (H, W, 3) or float 0..1 (H, W, 3) or (H, W), each under its title."""
    tile, lines = min(9 / min(columns, len(images)), 2.4), max(text.count("\n") + 1 if text else 0 for text in titles)
    figure, grid = panels(len(images), columns, tile, tile + 0.2 * lines)
    for axes, image, text in zip(grid, images, titles, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1 if np.asarray(image).dtype.kind == "f" else 255)
        axes.set_title(text, fontsize=9)
        axes.axis("off")
    return figure


@styled
def group_counts(counts: pd.DataFrame, title: str = "") -> Figure:
    """Images (reals, fakes) and videos of each group, from `manifests.group_table`."""
    rows = np.arange(len(counts))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 0.5 * len(counts) + 1.4), sharey=True, width_ratios=(3, 2))
    for shift, name, colour in ((-0.2, "reals", style.REAL), (0.2, "fakes", style.FAKE)):
        bars = left.barh(rows + shift, counts[name], height=0.38, color=colour, label=name)
        left.bar_label(bars, [f"{n:,}" for n in counts[name]], padding=3, fontsize=9)
    bars = right.barh(rows, counts["videos"], height=0.5, color="#7F7F7F")
    people = [f"{v:,} videos, {i:,} people" for v, i in zip(counts["videos"], counts["identities"], strict=True)]
    right.bar_label(bars, people, padding=3, fontsize=9)
    left.set(yticks=rows, yticklabels=counts.index, xlabel="Images")
    left.xaxis.set_major_formatter("{x:,.0f}")
    left.invert_yaxis()
    right.set_xlabel("Videos")
    for axes, room in ((left, 0.14), (right, 0.55)):
        axes.margins(x=room)
        axes.grid(False, axis="y")
    legend_below(figure, *left.get_legend_handles_labels())
    figure.suptitle(f"{title} (n = {int((counts['reals'] + counts['fakes']).sum()):,} images)".strip())
    return figure


@styled
def history(rows: pd.DataFrame) -> Figure:
    """Losses, validation AUC and F_FPR against the epoch; the best one, the first with the highest AUC, is marked.

    Columns epoch, loss, val_auc, val_fpr_sum and the terms of the loss, loss_<term>.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.5, 3.8))
    best = rows.loc[rows["val_auc"].idxmax()]
    left.plot(rows["epoch"], rows["loss"], color="black", label="total")
    terms = [name for name in rows.columns if name.startswith("loss_")]
    for name, colour in zip(terms, sns.color_palette("colorblind", len(terms)), strict=True):
        left.plot(rows["epoch"], rows[name], color=colour, linewidth=1.2, label=name.removeprefix("loss_"))
    for axes, column in ((middle, "val_auc"), (right, "val_fpr_sum")):
        axes.plot(rows["epoch"], 100 * rows[column], color="black", marker="o", markersize=3)
        axes.plot(best["epoch"], 100 * best[column], color="black", **STAR)
    for axes in (left, middle, right):
        axes.axvline(best["epoch"], color="#444444", linestyle="--", linewidth=1, zorder=1)
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(title="Training", ylabel="Loss (logarithmic scale)", yscale="log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_locator(NullLocator())
    middle.set(title="Validation", ylabel="AUC (%)")
    right.set(title="Validation", ylabel="F_FPR (percentage points)", ylim=(0, None))
    handles, labels = left.get_legend_handles_labels()
    handles.append(Line2D([], [], marker="*", markersize=11, color="#444444", linestyle=""))
    legend_below(figure, handles, [*labels, "best epoch"])
    return figure


@styled
def fairness_comparison(
    results: pd.DataFrame, metrics: Sequence[str] = ("fpr_sum", "oae", "dp", "meo"), title: str | None = None
) -> Figure:
    """Fairness metrics of several detectors on several data sets, with intervals, over the sampling floor.

    Of several runs (training seeds) of a detector each is a small dot with its interval, and their mean a large one.
    `results` has a row for each run, data set and metric (a panel each): columns detector, dataset, metric,
    estimate, low, high (fractions, NaN = undefined), floor (what sampling alone may show: the q95 of
    `permutation.sampling_floor`) and n (images of the test set).
    """
    detectors, datasets = list(results["detector"].unique()), list(results["dataset"].unique())
    colours, sizes = colours_of(detectors, style.DETECTOR_COLOURS), results.groupby("dataset")["n"].max()
    figure, grid = panels(len(metrics), 2, 9.5 / min(2, len(metrics)), 2.9, 0.6)
    step = 0.8 / len(detectors)
    for axes, metric in zip(grid, metrics, strict=True):
        for (name, dataset), runs in results[results["metric"] == metric].groupby(["detector", "dataset"], sort=False):
            x = datasets.index(dataset) + step * (detectors.index(name) - (len(detectors) - 1) / 2)
            colour, runs = colours[name], runs.dropna(subset="estimate")
            if runs.empty:
                word = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 8.5, "color": colour}
                axes.text(x, 0.03, "undefined", transform=axes.get_xaxis_transform(), **word)
                continue
            axes.bar(
                x, 100 * runs["floor"].max(), width=0.9 * step, color=style.FLOOR, alpha=0.55, linewidth=0, zorder=1
            )
            places = x + 0.7 * step * ((np.arange(len(runs)) + 0.5) / len(runs) - 0.5)
            thin = {"linewidth": 2.2} if len(runs) == 1 else {"linewidth": 1, "alpha": 0.6}
            axes.vlines(places, 100 * runs["low"], 100 * runs["high"], color=colour, zorder=2, **thin)
            axes.scatter(places, 100 * runs["estimate"], color=colour, s=8, zorder=2)
            axes.plot(x, 100 * runs["estimate"].mean(), color=colour, **style.DOT)
        axes.set(title=style.METRIC_WORDS.get(metric, metric), ylabel="Percentage points")
        axes.set(ylim=(0, None), xlim=(-0.6, len(datasets) - 0.4))
        axes.set_xticks(range(len(datasets)), [f"{name}\nn = {sizes[name]:,}" for name in datasets])
        axes.grid(False, axis="x")
    handles = [Line2D([], [], marker="o", color=colours[name]) for name in detectors]
    handles.append(Patch(color=style.FLOOR, alpha=0.55))
    legend_below(figure, handles, [*map(str, detectors), "sampling alone (95 % quantile)"])
    figure.suptitle(title or "")
    return figure


@styled
def response(
    runs: pd.DataFrame, x: str, xlabel: str, metrics: Sequence[str] = ("auc", "worst_auc", "fpr_sum_matched")
) -> Figure:
    """Numbers of detectors against what was varied, a line each: a column of panels a metric, a row a kind of test set.

    `runs` has columns detector, tests (the kind, such as "ffpp" or "other sets"), seed, data_seed, `x` and the metrics
    (fractions). Of several runs: mean and standard deviation.
    """
    detectors, kinds = list(dict.fromkeys(runs["detector"])), list(dict.fromkeys(runs["tests"]))
    colours, values = colours_of(detectors, style.DETECTOR_COLOURS), sorted(runs[x].unique())
    wide = len(metrics)
    figure, grid = panels(wide * len(kinds), wide, 9.5 / wide, 2.5, 0.5)
    for axes, (kind, metric) in zip(grid, product(kinds, metrics), strict=True):
        for name in detectors:
            part = runs[(runs["tests"] == kind) & (runs["detector"] == name)]
            one = 100 * part.groupby([x, "seed", "data_seed"])[metric].mean()  # over the test sets of a kind
            mean, sd = (getattr(one.groupby(x), what)() for what in ("mean", "std"))
            look = {"color": colours[name], "marker": style.marker_of(name), "markersize": 5, "elinewidth": 1}
            axes.errorbar(mean.index, mean, sd.fillna(0), **look)
        words = SHORT.get(metric, metric)
        axes.set(title=kind if metric == metrics[0] else "", ylabel=words, xscale="log" if x == "epochs" else "linear")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.xaxis.set_minor_locator(NullLocator())
    for axes in grid[-wide:]:
        axes.set_xlabel(xlabel)
    look = {"linewidth": 1.8, "markersize": 5}
    handles = [Line2D([], [], color=colours[name], marker=style.marker_of(name), **look) for name in detectors]
    legend_below(figure, handles, detectors)
    return figure


@styled
def score_distributions(table: pd.DataFrame, by: str = "group", threshold: float = 0.5, bins: int = 24) -> Figure:
    """Scores of fakes (upwards) and reals (downwards) of each group; errors are drawn in full colour.

    A histogram of `bins` bins, none of which crosses the threshold, scaled to its own n. Heights are the square root
    of the density, so that rare errors stay visible.
    """
    names = group_order(table[by])
    figure, axes = plt.subplots(figsize=(9, 0.72 * len(names) + 1.5))
    below = int(np.clip(round(bins * threshold), 1, bins - 1))
    edges = np.unique(np.r_[np.linspace(0, threshold, below + 1), np.linspace(threshold, 1, bins - below + 1)])
    width = np.diff(edges)
    cells = {
        (row, label): (table[by] == names[row]) & (table["label"] == label) for row, label in np.ndindex(len(names), 2)
    }
    scores = {key: table.loc[cell, "score"].to_numpy() for key, cell in cells.items()}
    height = {key: np.sqrt(np.histogram(x, edges)[0] / max(len(x), 1) / width) for key, x in scores.items()}
    scale = 0.46 / max(values.max() for values in height.values())
    for (row, label), values in height.items():
        sign, colour = ((-1, style.FAKE), (1, style.REAL))[1 - label]  # the axis points down
        wrong = (edges[:-1] >= threshold) != label
        for which, alpha in ((~wrong, 0.4), (wrong, 1.0)):
            bars = {"color": colour, "alpha": alpha, "linewidth": 0, "align": "edge"}
            axes.bar(edges[:-1][which], sign * scale * values[which], width[which], row, **bars)
    for row in range(len(names)):
        axes.axhline(row, color="#444444", linewidth=0.8)
    sizes = [f"{len(scores[row, 1]):,} fakes\n{len(scores[row, 0]):,} reals" for row in range(len(names))]
    write_beside(axes, range(len(names)), sizes)
    axes.axvline(threshold, color="#444444", linestyle="--", linewidth=1.2)
    axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.45, -0.55))
    axes.set(xlim=(0, 1), xlabel="Score: P(fake)")
    axes.grid(False, axis="y")
    handles = [Patch(color=colour, alpha=alpha) for colour in (style.FAKE, style.REAL) for alpha in (0.4, 1.0)]
    words = ["fakes found (up)", "fakes missed (up)", "reals passed (down)", "reals called fake (down)"]
    legend_below(figure, handles, words)
    return figure


@styled
def surface(x: np.ndarray, y: np.ndarray, loss: np.ndarray, paths: dict[str, np.ndarray]) -> Figure:
    """Contours of a loss over two directions in weight space, with the paths of optimisers on it.

    `loss` (M, K) has loss[j, i] at (x[i], y[j]); its scale is logarithmic where it is positive and spans a factor of
    ten. `paths` are name -> float (steps, 2), such as {"SGD": ..., "SAM": ...}: a dot at the start, a star at the end.
    """
    logarithmic = loss.min() > 0 and loss.max() > 10 * loss.min()
    levels = (np.geomspace if logarithmic else np.linspace)(loss.min(), loss.max(), 22)
    figure, axes = plt.subplots(figsize=(7.2, 5))
    filled = axes.contourf(x, y, loss, levels, norm="log" if logarithmic else None, cmap="Greys_r", alpha=0.75)
    axes.contour(x, y, loss, levels[::3], colors="white", linewidths=0.6)
    bar = figure.colorbar(filled, ax=axes, label="Loss (logarithmic)" if logarithmic else "Loss")
    bar.ax.yaxis.set_major_formatter("{x:.2g}")
    bar.set_ticks(levels[::3])
    bar.ax.minorticks_off()
    colours = colours_of(paths, {"SGD": "#AA3377", "SAM": "#228833"})
    for name, path in paths.items():
        axes.plot(*path.T, color=colours[name], label=f"{name} ({len(path) - 1} steps)")
        axes.plot(*path[0], color=colours[name], **style.DOT)
        axes.plot(*path[-1], color=colours[name], **STAR)
    axes.set(xlabel="Along direction 1 (weight units)", ylabel="Along direction 2 (weight units)")
    axes.set(xlim=(np.min(x), np.max(x)), ylim=(np.min(y), np.max(y)))
    axes.grid(False)
    figure.legend(loc="outside lower center", ncols=len(paths))
    return figure
