"""Figures of robustness and explanation: what is drawn and written; no global state is left behind."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fairdf_utils.data.vocabulary import DATASETS, FORGERIES, GROUPS
from fairdf_utils.figures import explanation as draw
from fairdf_utils.figures.style import DATASET_COLOURS, DETECTOR_COLOURS, FAKE, REAL
from fairdf_utils.tests.figures.test_training import words

KINDS = ("jpeg", "blur")


class Means:
    """As `explain.Means`, which needs torch."""

    def __init__(self, mean, count, rows=GROUPS[:3], columns=FORGERIES[:2]):
        self.mean, self.count, self.rows, self.columns = mean, count, list(rows), list(columns)


class Surface:
    """As `landscape.Landscape`."""

    def __init__(self, scale):
        self.x = self.y = np.linspace(-1, 1, 5)
        self.loss = 0.1 + scale * (self.x**2 + self.y[:, None] ** 2)


@pytest.fixture
def cells():
    """Faces and heat of 3 groups and 2 forgeries; one cell has no image."""
    random = np.random.default_rng(0)
    count = np.array([[10, 2000], [3, 0], [5, 6]])
    faces, heat = random.uniform(0, 255, (3, 2, 8, 8, 3)), random.uniform(0, 0.5, (3, 2, 8, 8))
    faces[1, 1] = heat[1, 1] = np.nan
    return Means(faces, count), Means(heat, count)


@pytest.fixture
def frame():
    n = 96
    group = np.array(GROUPS)[np.arange(n) % 8]
    frame = pd.DataFrame({"label": np.arange(n) // 8 % 2, "group": group})
    frame["dataset"] = np.array(DATASETS)[np.arange(n) // 24]
    frame["forgery"] = np.where(frame["label"] == 1, "FaceSwap", "real")
    return frame.assign(gender=[g.split("-")[0] for g in group], race=[g.split("-")[1] for g in group])


@pytest.fixture
def points(frame):
    random = np.random.default_rng(0)
    pca, tsne = (pd.DataFrame(random.normal(size=(len(frame), 2)), columns=["x", "y"]) for _ in range(2))
    pca.attrs, tsne.attrs = {"words": "PCA, 75 % of the variance"}, {"words": "t-SNE"}
    return {"domain_agnostic": pca, "demographic": tsne}


@pytest.fixture
def probed():
    rows = [
        ("ori", "encoder", "label", 0.9, 0.02, 0.5),
        ("fairdf", "domain_agnostic", "label", 0.9, 0.02, 0.5),
        ("fairdf", "domain_agnostic", "group", 0.125, 0.03, 0.125),
        ("fairdf", "demographic", "label", 0.4, 0.04, 0.5),
        ("fairdf", "demographic", "group", 1.0, 0.0, 0.125),
    ]
    return pd.DataFrame(rows, columns=["detector", "feature", "target", "accuracy", "sd", "chance"])


@pytest.fixture
def curves():
    """Group 0 has no fakes, so its TPR is undefined."""
    rows = []
    for k, kind in enumerate(KINDS):
        for severity in range(6):
            rows += [(kind, severity, metric, draw.ALL, 0.3 + 0.1 * k) for metric in ("fpr", "tpr")]
            for g, name in enumerate(GROUPS):
                rows += [(kind, severity, "fpr", name, 0.05 * g + 0.02 * severity)]
                rows += [(kind, severity, "tpr", name, np.nan if g == 0 else 0.9 - 0.05 * g)]
    return pd.DataFrame(rows, columns=["kind", "severity", "metric", "group", "value"])


def test_every_figure_leaves_no_trace_and_is_saved(cells, frame, points, probed, curves):
    surfaces = {"fairdf-nosam": Surface(5), "fairdf": Surface(1)}
    drawings = {
        "grad_cam_grid": lambda: draw.grad_cam_grid(*cells, title="t"),
        "landscapes": lambda: draw.landscapes(surfaces, title="t"),
        "embeddings": lambda: draw.embeddings(points, frame, title="t"),
        "probe_table": lambda: draw.probe_table(probed, title="t"),
        "severity_curves": lambda: draw.severity_curves(curves, "group", title="t"),
    }
    mine = plt.figure()
    before = dict(mpl.rcParams)
    for name, make in drawings.items():
        figure = make()
        assert isinstance(figure, Figure), name
        assert dict(mpl.rcParams) == before, name
        assert plt.get_fignums() == [mine.number], name
        png = io.BytesIO()
        figure.savefig(png, bbox_inches="tight")
        assert png.getvalue().startswith(b"\x89PNG"), name
        assert any(line == "t" or line.startswith("t (n = ") for line in words(figure).split("\n")), name
        assert 300 < 100 * figure.get_figwidth() < 1050, name
    plt.close(mine)


def test_heat_covers_the_face_where_it_is_and_empty_cells_say_so(cells):
    faces, heat = cells
    heat.mean[0, 0] = 0
    heat.mean[0, 0, :4, :4] = 1
    axes = draw.grad_cam_grid(faces, heat).axes[0]
    face, hot = axes.images
    grey = face.get_array()[..., 0].astype(float)
    np.testing.assert_allclose(grey[4:8, 4:8], faces.mean[0, 0, 4:, 4:].mean(-1), atol=1)
    assert (hot.get_alpha()[4:8, :8] == 0).all(), "where there is no heat the face shows"
    assert (hot.get_array()[:4, :4] == 1).all() and (hot.get_alpha()[:4, :4] > 0.8).all()
    assert np.ptp(grey[8:16, 8:]) == 0 == hot.get_alpha()[8:16, 8:].max(), "no image, no face"
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["n = 10", "n = 2,000", "n = 3", "n = 0", "n = 5", "n = 6"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(GROUPS[:3])


def test_landscapes_share_one_colour_scale():
    panels = draw.landscapes({"fairdf-nosam": Surface(5), "fairdf": Surface(1)}).axes[:2]
    assert [axes.get_title() for axes in panels] == ["fairdf-nosam", "fairdf"]
    filled = [axes.collections[0] for axes in panels]
    assert filled[0].norm is filled[1].norm
    assert (filled[0].norm.vmin, filled[0].norm.vmax) == (pytest.approx(0.1), pytest.approx(10.1))
    np.testing.assert_array_equal(filled[0].levels, filled[1].levels)


def test_points_of_the_plane_where_the_loss_overflows_are_left_out():
    whole, broken = Surface(5), Surface(5)
    broken.loss[0, 0], broken.loss[4, 4], broken.loss[2, 2] = np.inf, np.nan, 0
    panels = draw.landscapes({"whole": whole, "broken": broken}).axes[:2]
    assert panels[0].collections[0].norm.vmax == pytest.approx(10.1)
    assert np.isfinite(panels[1].collections[0].levels).all()


def test_without_any_evidence_the_faces_stay_grey(cells):
    faces, heat = cells
    heat.mean = heat.mean * 0
    assert draw.grad_cam_grid(faces, heat).axes[0].images[1].get_alpha().max() == 0


def test_points_have_the_colour_of_their_attribute(frame, points):
    figure = draw.embeddings(points, frame, by=("label", "group", "dataset"))
    grid = np.array(figure.axes).reshape(2, 3)
    label = grid[0, 0].collections[0]
    colours = {
        tuple(xy): mpl.colors.to_hex(c) for xy, c in zip(label.get_offsets(), label.get_facecolors(), strict=True)
    }
    for (x, y), value in zip(points["domain_agnostic"][["x", "y"]].to_numpy(), frame["label"], strict=True):
        assert colours[x, y].upper() == (REAL, FAKE)[value]
    triangles = {len(path.vertices) for path in grid[1, 1].collections[0].get_paths()}
    assert len(triangles) == 2, "one marker a gender"
    legends = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in grid[1]]
    assert legends == [["real", "fake"], list(GROUPS), list(DATASETS)]
    shown = {mpl.colors.to_hex(c).upper() for c in grid[0, 2].collections[0].get_facecolors()}
    assert shown == {colour.upper() for colour in DATASET_COLOURS.values()}
    assert "PCA, 75 % of the variance" in words(figure) and "t-SNE" in words(figure)


@pytest.mark.parametrize("by", ["gender", "race", "forgery"])
def test_other_attributes_have_distinct_colours(frame, points, by):
    axes = draw.embeddings(points, frame, by=(by,)).axes[-1]
    handles = axes.get_legend().legend_handles
    assert len({handle.get_color() for handle in handles}) == frame[by].nunique()


def test_probe_cells_hold_the_numbers_and_colour_the_way_from_chance(probed):
    axes = draw.probe_table(probed).axes[0]
    shade = np.ma.filled(axes.collections[0].get_array(), np.nan).reshape(3, 2)
    np.testing.assert_allclose(shade, [[0.8, np.nan], [0.8, 0], [0, 1]])  # below chance is drawn as chance
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["90 ± 2", "90 ± 2", "12 ± 3", "40 ± 4", "100 ± 0"], "what a detector lacks stays empty"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["label\nchance 50", "group\nchance 12.5"]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["ori: encoder", "fairdf: domain-agnostic", "fairdf: demographic"]


def test_curves_are_the_tables_numbers_in_percent(curves):
    figure = draw.severity_curves(curves.sample(frac=1, random_state=0), "group")
    grid = {}
    for axes in figure.axes:
        grid[axes.get_title(), axes.get_ylabel()] = axes
    fpr, tpr = (next(axes for (_, label), axes in grid.items() if label == f"{name} (%)") for name in ("FPR", "TPR"))
    np.testing.assert_allclose(fpr.lines[3].get_xydata(), [(s, 15 + 2 * s) for s in range(6)])
    assert sum(np.isfinite(line.get_ydata()).any() for line in tpr.lines) == 8, "no fakes, no line"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*GROUPS, draw.ALL]
    assert len({(line.get_color(), line.get_linestyle()) for line in fpr.lines[:8]}) == 8


def test_detectors_have_their_colour_of_the_book(curves):
    table = curves.assign(detector=np.where(np.arange(len(curves)) % 2, "fairdf", "mine"), metric="fpr_gap")
    figure = draw.severity_curves(table, "detector")
    shown = {text.get_text(): line.get_color() for text, line in zip(
        figure.legends[0].get_texts(), figure.legends[0].legend_handles, strict=True)}  # fmt: skip
    assert shown["fairdf"].upper() == DETECTOR_COLOURS["fairdf"].upper() != shown["mine"].upper()
    assert figure.axes[0].get_ylabel() == "Gap of the FPR (%)"
