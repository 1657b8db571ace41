"""Figures of the extraction of faces: what the detector sees, and for whom it loses frames."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.patches import Rectangle

from fairdf_utils.fairness.metrics import rate_interval
from fairdf_utils.figures.style import need_columns, styled, write_beside

BOX, OTHER, LANDMARKS, LOST = "#E69F00", "#56B4E9", "#CC79A7", "#882255"


@styled
def detection(frames, faces, crops, title=None):
    """Frames with box and landmarks of the largest face, each with the crop that was cut out.

    Parameters
    ----------
    frames : sequence of uint8 (H, W, 3)
    faces : sequence of list of Face
        What `faces.find` returned for each frame: the first is drawn in full, of the others only the box.
    crops : sequence of uint8 (size, size, 3), or None where there is no face
    """
    rows = -(-len(frames) // 2) if len(frames) > 1 else 1
    pairs = min(2, len(frames))
    wide = max(image.shape[1] / image.shape[0] for image in frames)
    figure = plt.figure(figsize=(4.75 * pairs, rows * 4.75 / (wide + 1) + 0.45 * rows + (0.3 if title else 0)))
    grid = figure.subplots(rows, 2 * pairs, squeeze=False, width_ratios=[wide, 1] * pairs)
    for axes in grid.flat:
        axes.axis("off")
    for left, right, image, found, crop in zip(grid.flat[::2], grid.flat[1::2], frames, faces, crops, strict=False):
        left.imshow(image)
        for place, face in enumerate(found):
            _draw_face(left, face, largest=place == 0)
        words = f"score {found[0].score:.1f}" if found else "no face found"
        left.set_title(f"{words}, largest of {len(found)}" if len(found) > 1 else words, fontsize=9)
        if crop is not None:
            right.imshow(crop)
            right.set_title(f"crop, {crop.shape[0]} px", fontsize=9)
    if title:
        figure.suptitle(title)
    return figure


def _draw_face(axes, face, largest):
    left, top, right, bottom = face.box
    style = {"fill": False, "linewidth": 2 if largest else 1.2, "edgecolor": BOX if largest else OTHER}
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, **style))
    if largest:
        axes.plot(*face.landmarks.T, "o", color=LANDMARKS, markersize=3.5, markeredgecolor="white", markeredgewidth=0.6)


@styled
def losses(table, title=None):
    """Share of the frames in which no face was found, by group, with Wilson intervals and n.

    Parameters
    ----------
    table : DataFrame
        From `annotations.lost_by_group`: index group; columns videos, asked, lost (frames). Groups without frames are
        left out. The intervals take frames as independent; frames of one video are not, so they are too narrow.
    """
    need_columns(table, ["videos", "asked", "lost"], "The table of losses")
    table = table[table["asked"] > 0]
    rows, lost, asked = np.arange(len(table)), table["lost"].to_numpy(), table["asked"].to_numpy()
    low, high = rate_interval(lost, asked)
    share = lost / asked
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(table) + 1.5))
    axes.barh(rows, 100 * share, height=0.6, color=LOST, alpha=0.75)
    spread = 100 * np.stack([share - low, high - share])
    axes.errorbar(
        100 * share, rows, xerr=np.maximum(spread, 0), fmt="none", ecolor="#333333", elinewidth=1.4, capsize=3
    )
    axes.axvline(100 * lost.sum() / asked.sum(), color="#444444", linestyle="--", linewidth=1.2)
    texts = [
        f"{a:,} of {b:,} frames, {v:,} video{'s' * (v != 1)}"
        for a, b, v in zip(lost, asked, table["videos"], strict=True)
    ]
    write_beside(axes, rows, texts, "lost")
    axes.set(yticks=rows, yticklabels=table.index, xlabel="Frames without a face (%)  – – all groups")
    axes.set(ylim=(len(table) - 0.45, -0.55), xlim=(0, max(1.0, 105 * float(high.max(initial=0)))))
    axes.grid(False, axis="y")
    sns.despine(figure)
    if title:
        axes.set_title(title)
    return figure
