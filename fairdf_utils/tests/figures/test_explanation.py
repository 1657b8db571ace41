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
from fairdf_utils.figures.style import DATASET_COLOURS, FAKE, REAL
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
    """Faces and heat of 3 groups and 2 methods; one cell has no image."""
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
    pca.attrs, tsne.attrs = {"kind": "pca", "explained": (0.5, 0.25)}, {"kind": "tsne"}
    return {"domain_agnostic": pca, "demographic": tsne}


@pytest.fixture
def probed():
    rows = [
        ("domain_agnostic", "label", 0.9, 0.02, 0.5),
        ("domain_agnostic", "group", 0.125, 0.03, 0.125),
        ("demographic", "label", 0.4, 0.04, 0.5),
        ("demographic", "group", 1.0, 0.0, 0.125),
    ]
    return pd.DataFrame(rows, columns=["feature", "target", "accuracy", "sd", "chance"])


@pytest.fixture
def curves():
    """As `perturbations.robustness`: group 0 has no fakes, so its TPR is undefined."""
    rows = []
    for k, kind in enumerate(KINDS):
        for severity in range(6):
            at = (kind, severity)
            rows += [(*at, "", "", "auc", 0.9 - 0.05 * severity - 0.1 * k, 100), (*at, "", "", "fpr", 0.3, 50)]
            rows += [(*at, "", "", "tpr", 0.7, 50), (*at, "group", "", "fpr_gap", 0.2 + 0.1 * severity, 100)]
            for g, name in enumerate(GROUPS):
                rows += [(*at, "group", name, "fpr", 0.05 * g + 0.02 * severity, 6)]
                rows += [(*at, "group", name, "tpr", np.nan if g == 0 else 0.9 - 0.05 * g, 6)]
    return pd.DataFrame(rows, columns=["kind", "severity", "by", "group", "metric", "value", "n"])


def test_every_figure_leaves_no_trace_and_is_saved(cells, frame, points, probed, curves):
    surfaces = {"fairdf-nosam": Surface(5), "fairdf": Surface(1)}
    drawings = {
        "grad_cam_grid": lambda: draw.grad_cam_grid(*cells, title="t"),
        "landscapes": lambda: draw.landscapes(surfaces, title="t"),
        "embeddings": lambda: draw.embeddings(points, frame, title="t"),
        "probe_table": lambda: draw.probe_table({"ori": probed, "fairdf": probed}, title="t"),
        "robustness": lambda: draw.robustness({"ffpp": curves, "dfd": curves}, title="t"),
        "group_robustness": lambda: draw.group_robustness(curves, title="t"),
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
    sheet = axes.images[0].get_array()
    assert sheet.shape == (24, 16, 3)
    np.testing.assert_allclose(sheet[4:8, 4:8], faces.mean[0, 0, 4:, 4:].mean(-1)[..., None].repeat(3, -1) / 255)
    hottest = np.array(plt.get_cmap("inferno")(1.0)[:3])
    assert (
        np.abs(sheet[:4, :4] - hottest).max() < np.abs(faces.mean[0, 0, :4, :4].mean(-1) / 255 - 0.5).max() * 0.5 + 0.2
    )
    assert np.ptp(sheet[8:16, 8:]) == 0, "no image, no face"
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["n = 10", "n = 2,000", "n = 3", "n = 0", "n = 5", "n = 6"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(GROUPS[:3])


def test_faces_and_heat_of_other_tables_are_refused(cells):
    faces, heat = cells
    heat.columns = heat.columns[::-1]
    with pytest.raises(ValueError, match="same rows and columns"):
        draw.grad_cam_grid(faces, heat)


def test_landscapes_share_one_colour_scale_and_show_the_sharpness():
    surfaces = {"fairdf-nosam": Surface(5), "fairdf": Surface(1)}
    sharpness = {"fairdf-nosam": {"ascent": 1.5, "random": 0.25}, "fairdf": {"ascent": 0.3, "random": 0.02}}
    figure = draw.landscapes(surfaces, sharpness)
    panels = figure.axes[:2]
    assert panels[0].get_title() == "fairdf-nosam\nrise uphill 1.5, at random 0.25"
    filled = [axes.collections[0] for axes in panels]
    assert filled[0].norm is filled[1].norm
    assert (filled[0].norm.vmin, filled[0].norm.vmax) == (pytest.approx(0.1), pytest.approx(10.1))
    np.testing.assert_array_equal(filled[0].levels, filled[1].levels)
    assert draw.landscapes(surfaces).axes[1].get_title() == "fairdf"


def test_points_of_the_plane_where_the_loss_overflows_are_left_out():
    whole, broken = Surface(5), Surface(5)
    broken.loss[0, 0], broken.loss[4, 4], broken.loss[2, 2] = np.inf, np.nan, 0
    panels = draw.landscapes({"whole": whole, "broken": broken}).axes[:2]
    assert panels[0].collections[0].norm.vmax == pytest.approx(10.1)
    assert np.isfinite(panels[1].collections[0].levels).all()


def test_without_any_evidence_the_faces_stay_grey(cells):
    faces, heat = cells
    heat.mean = heat.mean * 0
    sheet = draw.grad_cam_grid(faces, heat).axes[0].images[0].get_array()
    np.testing.assert_allclose(sheet[:8, :8], faces.mean[0, 0].mean(-1)[..., None].repeat(3, -1) / 255)


def test_points_have_the_colour_of_their_attribute(frame, points):
    figure = draw.embeddings(points, frame, by=("label", "group", "dataset"))
    grid = np.array(figure.axes).reshape(2, 3)
    label = grid[0, 0].collections[0]
    colours = {
        tuple(xy): mpl.colors.to_hex(c) for xy, c in zip(label.get_offsets(), label.get_facecolors(), strict=True)
    }
    for (x, y), value in zip(points["domain_agnostic"][["x", "y"]].to_numpy(), frame["label"], strict=True):
        assert colours[x, y].upper() == (REAL, FAKE)[value]
    assert sum(len(each.get_offsets()) for each in grid[1, 1].collections) == len(frame)
    assert len(grid[1, 1].collections) == 2, "one marker a gender"
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
    with pytest.raises(ValueError, match="no column colour"):
        draw.embeddings(points, frame, by=("colour",))


def test_probe_cells_hold_the_numbers_and_colour_the_way_from_chance(probed):
    figure = draw.probe_table({"ori": probed[:2], "fairdf": probed})
    axes = figure.axes[0]
    shade = axes.images[0].get_array()
    np.testing.assert_allclose(shade, [[0.8, 0], [0.8, 0], [0, 1]])  # below chance is drawn as chance
    texts = [text.get_text() for text in axes.texts]
    assert texts[:6] == ["90 ± 2", "12 ± 3", "90 ± 2", "12 ± 3", "40 ± 4", "100 ± 0"]
    assert texts[6:] == ["ori", "fairdf"]
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["label\nchance 50", "group\nchance 12.5"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["domain-agnostic"] * 2 + ["demographic"]


def test_a_target_that_one_detector_lacks_stays_empty(probed):
    figure = draw.probe_table({"ori": probed[probed["target"] == "label"], "fairdf": probed})
    shade = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    assert np.isnan(shade[:2, 1]).all() and not np.isnan(shade[2:]).any()


def test_curves_are_the_tables_numbers_in_percent(curves):
    shuffled = curves.sample(frac=1, random_state=0)
    figure = draw.robustness({"ffpp": curves, "dfd": shuffled.assign(value=shuffled["value"] / 2)})
    grid = np.array(figure.axes).reshape(2, 2)
    first, second = (line for line in grid[0, 1].lines if line.get_marker() == "o")
    order = list(curves["kind"].unique())
    assert [axes.get_title() for axes in grid[0]] == order
    np.testing.assert_allclose(first.get_xydata(), [(s, 100 * (0.8 - 0.05 * s)) for s in range(6)])
    np.testing.assert_allclose(second.get_ydata(), first.get_ydata() / 2)
    np.testing.assert_allclose(grid[1, 0].lines[0].get_ydata(), [20, 30, 40, 50, 60, 70])
    assert grid[1, 0].get_ylabel() == "Gap of the FPR\nby group (%)"


def test_groups_and_their_spread_are_drawn_and_undefined_rates_are_left_open(curves):
    figure = draw.group_robustness(curves)
    fpr, tpr = np.array(figure.axes).reshape(2, 2)[:, 0]
    np.testing.assert_allclose(fpr.lines[3].get_ydata(), [15 + 2 * s for s in range(6)])
    np.testing.assert_allclose(fpr.lines[8].get_ydata(), 30)
    edge = fpr.collections[0].get_paths()[0].vertices
    assert (edge[:, 1].min(), edge[:, 1].max()) == (pytest.approx(0), pytest.approx(45))
    assert np.isnan(tpr.lines[0].get_ydata()).all(), "no fakes, no line"
    spread = tpr.collections[0].get_paths()[0].vertices[:, 1]
    assert (spread.min(), spread.max()) == (pytest.approx(55), pytest.approx(85))
    assert [*GROUPS, "all images", "spread of the groups"] == sorted(
        [text.get_text() for text in figure.legends[0].get_texts()],
        key=[*GROUPS, "all images", "spread of the groups"].index,
    )
    styles = {(line.get_color(), line.get_linestyle()) for line in fpr.lines[:8]}
    assert len(styles) == 8
