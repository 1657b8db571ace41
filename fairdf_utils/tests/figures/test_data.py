"""Figures of chapter 1: boxes and crops, lost frames, and the identity graph with its splits in colour."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from fairdf_utils.corpora.splits import Split, identity_graph
from fairdf_utils.figures import data


def rows_of(swaps, reals):
    rows = [(a, b, f"{a}_{b}", 1) for a, b in swaps] + [(a, "", a, 0) for a in reals]
    return pd.DataFrame(rows, columns=["identity", "source_identity", "video", "label"])


@pytest.fixture
def divided():
    rows = rows_of([("1", "2"), ("2", "3"), ("4", "5")], "123456")
    home = {"1": "train", "2": "train", "3": "test", "4": "val", "5": "val", "6": "test"}
    kept = rows[rows["video"] != "2_3"].assign(split=lambda kept: kept["identity"].map(home))
    split = Split(kept, rows[rows["video"] == "2_3"].assign(reason="across"), (0.6, 0.2, 0.2), ())
    return identity_graph(rows), split, home


def test_persons_have_their_splits_colours_and_border_swaps_are_dashed(divided):
    graph, split, home = divided
    axes = data.identity_graph(graph, split).axes[0]
    dots = axes.collections[0]
    shown = dict(zip(graph.persons["identity"], map(to_hex, dots.get_facecolors()), strict=True))
    assert shown == {person: data.SPLITS[name].lower() for person, name in home.items()}
    styles = {line.get_linestyle(): 0 for line in axes.lines} | {"-": 0}
    for line in axes.lines:
        styles[line.get_linestyle()] += 1
    assert styles == {"-": 2, "--": 1}


def test_without_a_split_nothing_is_coloured_or_dashed(divided):
    axes = data.identity_graph(divided[0]).axes[0]
    assert {to_hex(colour) for colour in axes.collections[0].get_facecolors()} == {data.SPLITS[""]}
    assert {line.get_linestyle() for line in axes.lines} == {"-"}


@pytest.mark.parametrize("persons", [2, 30, 59])
def test_dots_keep_apart_and_stay_inside(persons):
    names = [str(number) for number in range(persons)]
    rows = rows_of(list(zip(names, names[1:] + names[:1], strict=True)), [f"alone-{n}" for n in range(40)])
    axes = data.identity_graph(identity_graph(rows)).axes[0]
    places = np.asarray(axes.collections[0].get_offsets())
    apart = np.linalg.norm(places[:, None] - places, axis=-1)[np.triu_indices(len(places), 1)]
    assert apart.min() > 0.85
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert (places[:, 0] > left).all() and (places[:, 0] < right).all()
    assert (places[:, 1] > low).all() and (places[:, 1] < high).all()


def test_detection_shows_box_landmarks_and_crop():
    face = SimpleNamespace(box=(30, 20, 90, 80), landmarks=np.full((5, 2), 50.0), score=1.2)
    small = SimpleNamespace(box=(100, 20, 110, 30), landmarks=np.full((5, 2), 105.0), score=0.3)
    frame, crop = np.zeros((120, 160, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    figure = data.detection([frame] * 3, [[face, small], [face], []], [crop, crop, None])
    assert plt.get_fignums() == []
    titles = [axes.get_title() for axes in figure.axes if axes.get_images()]
    assert titles == ["score 1.2, largest of 2", "crop, 64 px", "score 1.2", "crop, 64 px", "no face found"]
    first = figure.axes[0]
    assert [patch.get_bbox().bounds for patch in first.patches] == [(100, 20, 10, 10), (30, 20, 60, 60)]
    assert (first.lines[0].get_xydata() == face.landmarks).all()


def test_losses_by_group():
    table = pd.DataFrame({"videos": [6, 1, 0], "asked": [180, 30, 0], "lost": [18, 30, 0]}, index=["a", "b", "c"])
    figure = data.losses(table)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"] and plt.get_fignums() == []
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([10, 100])
    words = [text.get_text() for text in axes.texts]
    assert words[:2] == ["18 of 180 frames, 6 videos", "30 of 30 frames, 1 video"]
