"""The picture of an identity graph: who is linked to whom by swaps, and which split each person went to."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

from fairdf_utils.figures.style import styled

COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#009E73", "": "#999999"}
ACROSS = "#D55E00"
WIDTH = 18.0  # of the drawing; two linked persons are 1 apart


@styled
def identity_graph(graph, split=None, title=None):
    """Draw persons as dots and swaps as lines, component by component.

    Parameters
    ----------
    graph : splits.IdentityGraph
    split : splits.Split, optional
        Colours every person by the split that shows it; swaps between two splits, which are dropped, are dashed.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
    """
    places = _places(graph.persons)
    home = _homes(split) if split else {}
    y = [place[1] for place in places.values()]
    low, high = min(y) - 0.5, max(y) + 0.5
    figure, axes = plt.subplots(figsize=(9, 0.8 + 9 * (high - low) / WIDTH), layout="constrained")
    for swap in graph.swaps.itertuples():
        ends = places[swap.identity], places[swap.source_identity]
        across = split is not None and home.get(swap.identity) != home.get(swap.source_identity)
        style = {"color": ACROSS, "linestyle": "--"} if across else {"color": "#777777", "linestyle": "-"}
        axes.plot(*zip(*ends, strict=True), linewidth=1, zorder=1, **style)
    x, y = zip(*(places[person] for person in graph.persons["identity"]), strict=True)
    axes.scatter(x, y, c=[COLOURS[home.get(person, "")] for person in graph.persons["identity"]], s=60, zorder=2)
    handles = [Line2D([], [], marker="o", linestyle="", color=COLOURS[name], label=name) for name in COLOURS if name]
    handles.append(Line2D([], [], color=ACROSS, linestyle="--", label="swap between splits: dropped"))
    axes.set(aspect="equal", xlim=(0, WIDTH), ylim=(low, high), title=title)
    axes.axis("off")
    if split:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _homes(split):
    """The split of each person shown or used as a source."""
    rows = split.rows
    return {
        **dict(zip(rows["source_identity"], rows["split"], strict=True)),
        **dict(zip(rows["identity"], rows["split"], strict=True)),
    }


def _places(persons):
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
