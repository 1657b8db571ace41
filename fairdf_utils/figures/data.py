"""Figures of chapter 1: what the face detector sees, for whom it loses frames, and who is linked to whom by swaps."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from fairdf_utils.figures.style import styled, write_beside

BOX, OTHER, LANDMARKS, LOST = "#E69F00", "#56B4E9", "#CC79A7", "#882255"
SPLITS = {"train": "#0072B2", "val": "#E69F00", "test": "#009E73", "": "#999999"}
ACROSS = "#D55E00"
WIDTH = 18.0  # of an identity graph; two linked persons are 1 apart


@styled
def detection(frames: Sequence[np.ndarray], faces: Sequence[list], crops: Sequence[np.ndarray | None]) -> Figure:
    """Frames, uint8 (H, W, 3), with box and landmarks of the largest face, each with the crop that was cut out.

    `faces` is what `faces.find` returned for each frame: of all but the first only the box is drawn. `crops` are uint8
    (size, size, 3), or None where there is no face.
    """
    rows, pairs = -(-len(frames) // 2), min(2, len(frames))
    wide = max(image.shape[1] / image.shape[0] for image in frames)
    figure = plt.figure(figsize=(4.75 * pairs, rows * (4.75 / (wide + 1) + 0.45)))
    grid = figure.subplots(rows, 2 * pairs, squeeze=False, width_ratios=[wide, 1] * pairs)
    for axes in grid.flat:
        axes.axis("off")
    for left, right, image, found, crop in zip(grid.flat[::2], grid.flat[1::2], frames, faces, crops, strict=False):
        left.imshow(image)
        for face in found[::-1]:  # the largest last, over the others
            x, y, x_end, y_end = face.box
            style = {"linewidth": 2, "edgecolor": BOX} if face is found[0] else {"linewidth": 1.2, "edgecolor": OTHER}
            left.add_patch(Rectangle((x, y), x_end - x, y_end - y, fill=False, **style))
        words = f"score {found[0].score:.1f}" if found else "no face found"
        left.set_title(f"{words}, largest of {len(found)}" if len(found) > 1 else words, fontsize=9)
        if crop is not None:
            left.plot(*found[0].landmarks.T, "o", color=LANDMARKS, markersize=3.5, markeredgecolor="white")
            right.imshow(crop)
            right.set_title(f"crop, {crop.shape[0]} px", fontsize=9)
    return figure


@styled
def losses(table: pd.DataFrame) -> Figure:
    """Share of the frames in which no face was found, by group, with the frames and videos that it rests on.

    `table` is that of `annotations.lost_by_group`; groups without frames are left out. There are no intervals: frames
    of one video are near copies.
    """
    table = table[table["asked"] > 0]
    rows, share = np.arange(len(table)), 100 * table["lost"] / table["asked"]
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(table) + 1.5))
    axes.barh(rows, share, height=0.6, color=LOST, alpha=0.75)
    axes.axvline(100 * table["lost"].sum() / table["asked"].sum(), color="#444444", linestyle="--", linewidth=1.2)
    words = "{0.lost:,} of {0.asked:,} frames, {0.videos:,} video"
    texts = [words.format(row) + "s" * (row.videos != 1) for row in table.itertuples()]
    write_beside(axes, rows, texts, "lost")
    axes.set(yticks=rows, yticklabels=table.index, xlabel="Frames without a face (%)  – – all groups")
    axes.set(ylim=(len(table) - 0.45, -0.55), xlim=(0, max(1.0, 1.05 * share.max())))
    axes.grid(False, axis="y")
    return figure


@styled
def identity_graph(graph, split=None) -> Figure:
    """Persons as dots and swaps as lines, component by component, from a `splits.IdentityGraph`.

    A `splits.Split` colours every person by the split that shows it; swaps between two, which are dropped, are dashed.
    """
    places, home = _places(graph.persons), {}
    for column in ("source_identity", "identity") if split else ():
        home |= dict(zip(split.rows[column], split.rows["split"], strict=True))
    x, y = np.array([places[person] for person in graph.persons["identity"]]).T
    height = y.max() - y.min() + 1
    figure, axes = plt.subplots(figsize=(9, 0.8 + 9 * height / WIDTH), layout="constrained")
    for swap in graph.swaps.itertuples():
        across = split is not None and home.get(swap.identity) != home.get(swap.source_identity)
        style = {"color": ACROSS, "linestyle": "--"} if across else {"color": "#777777", "linestyle": "-"}
        ends = places[swap.identity], places[swap.source_identity]
        axes.plot(*zip(*ends, strict=True), linewidth=1, zorder=1, **style)
    axes.scatter(x, y, c=[SPLITS[home.get(person, "")] for person in graph.persons["identity"]], s=60, zorder=2)
    axes.set(aspect="equal", xlim=(0, WIDTH), ylim=(y.min() - 0.5, y.max() + 0.5))
    axes.axis("off")
    if split:
        dots = [Line2D([], [], marker="o", linestyle="", color=SPLITS[name], label=name) for name in SPLITS if name]
        handles = [*dots, Line2D([], [], color=ACROSS, linestyle="--", label="swap between splits: dropped")]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _places(persons: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Position (x, y) of each person: components as circles, the largest first, in lines as long as WIDTH."""
    places, left, top, line = {}, 0.0, 0.0, 0.0
    for _, members in persons.groupby("component"):
        count = len(members)
        radius = 0.0 if count == 1 else min(0.5 * max(1.0, count / np.pi), WIDTH / 2 - 0.5)
        side = 2 * radius + 1
        middle = side / 2 if count > 2 else 0.5  # two lie side by side
        if left + side > WIDTH and left > 0:
            left, top, line = 0.0, top - line, 0.0
        angles = np.pi / 2 + 2 * np.pi * np.arange(count) / count + (np.pi / 2 if count == 2 else 0)
        for person, angle in zip(members["identity"], angles, strict=True):
            places[person] = (left + side / 2 + radius * np.cos(angle), top - middle + radius * np.sin(angle))
        left, line = left + side, max(line, side if count > 2 else 1.0)
    return places
