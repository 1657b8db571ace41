"""The picture of an identity graph: every person in its split's colour, every swap across the border dashed."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from fairdf_utils.corpora.splits import Split, identity_graph
from fairdf_utils.figures import splits as plots_splits


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
    axes = plots_splits.identity_graph(graph, split, "title").axes[0]
    dots = axes.collections[0]
    shown = dict(zip(graph.persons["identity"], map(to_hex, dots.get_facecolors()), strict=True))
    assert shown == {person: plots_splits.COLOURS[name].lower() for person, name in home.items()}
    styles = {line.get_linestyle(): 0 for line in axes.lines} | {"-": 0}
    for line in axes.lines:
        styles[line.get_linestyle()] += 1
    assert styles == {"-": 2, "--": 1}


def test_without_a_split_nothing_is_coloured_or_dashed(divided):
    axes = plots_splits.identity_graph(divided[0]).axes[0]
    assert {to_hex(colour) for colour in axes.collections[0].get_facecolors()} == {plots_splits.COLOURS[""]}
    assert {line.get_linestyle() for line in axes.lines} == {"-"}


@pytest.mark.parametrize("persons", [2, 30, 59])
def test_dots_keep_apart_and_stay_inside(persons):
    names = [str(number) for number in range(persons)]
    rows = rows_of(list(zip(names, names[1:] + names[:1], strict=True)), [f"alone-{n}" for n in range(40)])
    axes = plots_splits.identity_graph(identity_graph(rows)).axes[0]
    places = np.asarray(axes.collections[0].get_offsets())
    apart = np.linalg.norm(places[:, None] - places, axis=-1)[np.triu_indices(len(places), 1)]
    assert apart.min() > 0.85
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert (places[:, 0] > left).all() and (places[:, 0] < right).all()
    assert (places[:, 1] > low).all() and (places[:, 1] < high).all()
