"""Figures of robustness and explanation: one function a figure, each returns a matplotlib Figure (see `style`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from fairdf_utils.data.vocabulary import GENDERS, GROUPS, RACES, group_order
from fairdf_utils.figures.style import DATASET_COLOURS, DETECTOR_COLOURS, FAKE, METRIC_WORDS, REAL, colours_of, styled
from fairdf_utils.figures.training import contact_sheet

RACE_COLOURS = dict(zip(RACES, ("#E69F00", "#56B4E9", "#000000", "#009E73"), strict=True))
ALL = "all images"  # beside the groups in `severity_curves`
BY = ("label", "group", "dataset")  # the colours of `embeddings`


@styled
def grad_cam_grid(faces: Any, heat: Any, title: str | None = None) -> Figure:
    """Mean faces (0..255) with mean Grad-CAM heat (0..1) over them, groups down and forgeries across.

    Both are `grad_cam.Means` of the same manifest. The scale is the same in every cell; 1 would mean that every image
    of the cell has its strongest evidence there. Where there is no heat the face shows in grey.
    """
    top = np.nanmax(heat.mean) or 1.0  # nothing speaks for a fake anywhere: all cells stay grey
    side, shape = heat.mean.shape[2], (len(heat.rows), len(heat.columns))
    grey, hot = (
        np.nan_to_num(cells, nan=nan).transpose(0, 2, 1, 3).reshape(side * shape[0], side * shape[1])
        for cells, nan in ((faces.mean.mean(-1), 237), (heat.mean / top, 0))  # without images light grey, no heat
    )
    figure = contact_sheet(grey[..., None].repeat(3, -1).astype(np.uint8), heat.rows, heat.columns, title)
    figure.set_figwidth(1.14 * figure.get_figwidth())  # room for the colour bar
    axes = figure.axes[0]
    shown = axes.imshow(top * hot, cmap="inferno", vmin=0, vmax=top, alpha=0.85 * np.sqrt(hot))
    for (row, column), count in np.ndenumerate(heat.count):
        at = (side * (column + 0.03), side * (row + 0.95))
        axes.text(*at, f"n = {count:,}", fontsize=7.5, color="white" if count else "#666666", va="bottom")
    figure.colorbar(shown, ax=axes, label="Mean Grad-CAM heat for “fake”", fraction=0.04, aspect=35)
    return figure


@styled
def landscapes(surfaces: Mapping[str, Any], title: str | None = None) -> Figure:
    """Loss surfaces (`landscape.Landscape`) side by side, on one logarithmic colour scale; a star: the detector."""
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
        axes.set(title=name, xlabel="Along direction 1 (lengths of a filter)", aspect="equal")
        axes.grid(False)
    panels[0, 0].set_ylabel("Along direction 2 (lengths of a filter)")
    bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=panels, label="Loss (logarithmic)")
    bar.set_ticks(levels[::3])
    bar.ax.yaxis.set_major_formatter("{x:.2g}")
    bar.ax.minorticks_off()
    figure.suptitle(title)
    return figure


@styled
def embeddings(
    points: Mapping[str, pd.DataFrame], frame: pd.DataFrame, by: Sequence[str] = BY, title: str | None = None
) -> Figure:
    """Two-dimensional embeddings (of `probes.embed`): features down, the same points in the colours of `by` across."""
    size = (9.5, 2.75 * len(points) + 1.4)
    figure, grid = plt.subplots(len(points), len(by), figsize=size, squeeze=False)
    order = np.random.default_rng(0).permutation(len(frame))  # no class is drawn over the others
    for column, attribute in enumerate(by):
        values = frame[attribute].replace({0: "real", 1: "fake"}) if attribute == "label" else frame[attribute]
        colours, markers, _ = looks_of(values)
        values, names = values.to_numpy()[order], list(colours)
        style = {"hue": values, "style": values, "hue_order": names, "style_order": names, "palette": colours}
        style |= {"markers": markers, "s": 14, "alpha": 0.7, "linewidth": 0}
        for axes, (name, each) in zip(grid[:, column], points.items(), strict=True):
            x, y = each[["x", "y"]].to_numpy()[order].T
            sns.scatterplot(x=x, y=y, **style, ax=axes, legend=axes is grid[-1, column])
            axes.set(xticks=[], yticks=[], ylabel="" if column else f"{name.replace('_', '-')}\n{each.attrs['words']}")
        grid[0, column].set_title(attribute)
        below = {"bbox_to_anchor": (0.5, -0.02), "handletextpad": 0.1, "columnspacing": 0.8, "fontsize": 8.5}
        sns.move_legend(grid[-1, column], "upper center", ncols=2, title=None, **below)
    sns.despine(figure, left=True, bottom=True)
    figure.suptitle(title and f"{title} (n = {len(frame):,} images)")
    return figure


def looks_of(labels: pd.Series) -> tuple[dict, dict, dict]:
    """value -> colour, marker, dashes: of groups, races by colour and genders by marker and dashes."""
    values = group_order(labels)
    palette = {"real": REAL, "fake": FAKE, ALL: "#888888", **RACE_COLOURS, **DATASET_COLOURS}
    palette |= {group: RACE_COLOURS[group.split("-")[1]] for group in GROUPS}
    spare = iter(sns.color_palette("colorblind", len(values)).as_hex())
    second = {value: str(value).startswith(f"{GENDERS[1]}-") for value in values}
    return (
        {value: palette.get(value) or next(spare) for value in values},
        {value: "^" if is_second else "o" for value, is_second in second.items()},
        {value: (3, 1.5) if is_second else "" for value, is_second in second.items()},
    )


@styled
def probe_table(table: pd.DataFrame, title: str | None = None) -> Figure:
    """How well each attribute is read from each feature: a table of `probes.probes` with a column `detector`.

    The colour is how far it is from chance (white) to perfect (dark), so that columns with other chance levels compare.
    """
    chance = table.groupby("target", sort=False)["chance"].first()
    lines = pd.MultiIndex.from_frame(table[["detector", "feature"]].drop_duplicates())
    shade = ((table["accuracy"] - table["chance"]) / (1 - table["chance"])).clip(0, 1)
    text = [f"{100 * row.accuracy:.0f} ± {100 * row.sd:.0f}" for row in table.itertuples()]
    cells = table.assign(shade=shade, text=text).pivot(index=["detector", "feature"], columns="target")
    shade, text = (cells[name].reindex(index=lines, columns=chance.index) for name in ("shade", "text"))
    figure, axes = plt.subplots(figsize=(max(1.1 * len(chance) + 3, 7), 0.38 * len(lines) + 1.5))
    names = [f"{name}\nchance {100 * value:.3g}" for name, value in chance.items()]
    rows = [f"{detector}: {feature.replace('_', '-')}" for detector, feature in lines]
    sns.heatmap(
        shade, vmin=0, vmax=1, cmap="Blues", annot=text.fillna(""), fmt="", cbar=False, annot_kws={"fontsize": 9.5},
        xticklabels=names, yticklabels=rows, ax=axes,
    )  # fmt: skip
    axes.grid(False)
    axes.tick_params(length=0, labeltop=True, labelbottom=False, rotation=0)
    detectors = lines.get_level_values(0)
    axes.hlines(np.flatnonzero(detectors[1:] != detectors[:-1]) + 1, 0, len(chance), color="#444444", linewidth=1)
    axes.set(ylabel="", xlabel="Balanced accuracy (%) ± standard deviation over folds; white: chance, dark: perfect")
    figure.suptitle(title)
    return figure


@styled
def severity_curves(table: pd.DataFrame, by: str, title: str | None = None) -> Figure:
    """Metrics against the severity of each perturbation: kinds across, metrics down, a line each value of `by`.

    `table` has the columns kind, severity (0 is the unchanged image), metric, value (a fraction) and `by`: "detector",
    or "group" with the value `ALL` for all images.
    """
    colours, _, dashes = looks_of(table[by])
    if by == "detector":
        colours = colours_of(colours, DETECTOR_COLOURS)
    style = {"palette": colours, "dashes": dashes, "errorbar": None, "height": 1.75, "aspect": 0.72}
    order = {"hue_order": list(colours), "style_order": list(colours), "facet_kws": {"sharey": "row"}}
    with plt.rc_context({"figure.constrained_layout.use": False}):  # seaborn lays out its grid in another way first
        grid = sns.relplot(
            table.assign(value=100 * table["value"]), kind="line", x="severity", y="value", col="kind", row="metric",
            hue=by, style=by, **style, **order,
        )  # fmt: skip
    grid.figure.set_layout_engine("constrained")
    grid.set(xticks=range(6))
    for (metric, kind), axes in grid.axes_dict.items():
        words = METRIC_WORDS.get(metric, metric.upper()).split(":")[0].replace(" between groups", "")
        axes.set(title=kind if axes in grid.axes[0] else "", ylabel=f"{words} (%)" if axes in grid.axes[:, 0] else "")
        if metric == "auc":
            axes.axhline(50, color="#444444", linestyle=":", linewidth=1)
    sns.move_legend(grid, "outside lower center", ncols=5, title=None)
    grid.figure.suptitle(title)
    return grid.figure
