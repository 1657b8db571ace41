"""Figures: what is drawn and written on them; no global state is left behind."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fairdf_utils.data.vocabulary import FORGERIES, GROUPS
from fairdf_utils.fairness import metrics as fairness
from fairdf_utils.figures import detection, style, training


def score_table(seed=0, n=320):
    rng = np.random.default_rng(seed)
    label, group = np.arange(n) % 2, np.array(GROUPS)[np.arange(n) // 2 % 8]
    frame = pd.DataFrame({"img_path": [f"{i}.png" for i in range(n)], "label": label, "group": group})
    frame["video"] = [f"v{i // 4}" for i in range(n)]
    return frame.assign(dataset="ffpp", score=1 / (1 + np.exp(-rng.normal(2 * label - 1, 1))))


@pytest.fixture
def one_class():
    """All groups but the first, which has fakes only, and the last, which has reals only."""
    table = score_table()
    fake = table["label"] == 1
    return table[~((table["group"] == GROUPS[0]) & ~fake | (table["group"] == GROUPS[-1]) & fake)]


@pytest.fixture
def results():
    rows = []
    for detector, shift in (("ori", 0.0), ("fairdf", 0.1)):
        for dataset, n in (("ffpp", 1600), ("dfd", 1200)):
            for i, metric in enumerate(("fpr_sum", "oae", "dp", "meo", "auc")):
                middle = 0.9 if metric == "auc" else 0.2 + 0.05 * i - shift
                rows.append((detector, dataset, metric, middle, middle - 0.1, middle + 0.1, 0.1, n))
    frame = pd.DataFrame(rows, columns=["detector", "dataset", "metric", "estimate", "low", "high", "floor", "n"])
    undefined = (frame["detector"] == "ori") & (frame["dataset"] == "dfd") & (frame["metric"] == "meo")
    return frame.assign(estimate=frame["estimate"].mask(undefined))


@pytest.fixture
def run():
    epoch = np.arange(1, 6)
    frame = pd.DataFrame(
        {"epoch": epoch, "loss": 2 / epoch, "loss_agnostic": 1.2 / epoch, "loss_fairness": 0.8 / epoch}
    )
    return frame.assign(lr=1e-3, val_auc=0.9 - 0.01 * (epoch - 3) ** 2, val_fpr_sum=0.5)


def counts():
    frame = pd.DataFrame({"reals": range(8), "fakes": range(1000, 9000, 1000)}, index=GROUPS)
    return frame.assign(images=frame.sum(axis=1), videos=5, identities=3)


def words(figure):
    """Everything written on a figure, in one string."""
    found = [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_visible()]
    return "\n".join(text for text in found if text)


def colour_of(artist):
    return mpl.colors.to_hex(artist.get_color()).upper()


def dots(axes, marker):
    return [line for line in axes.lines if line.get_marker() == marker]


def test_every_figure_leaves_no_trace_and_is_saved(one_class, results, run):
    sheet = np.zeros((8 * 16, 6 * 16, 3), np.uint8)
    line = np.linspace(-1, 1, 12)
    loss = 0.1 + line[:, None] ** 2 + line**2
    drawings = {
        "contact_sheet": lambda: training.contact_sheet(sheet, GROUPS, FORGERIES, title="t"),
        "image_grid": lambda: training.image_grid([sheet] * 3, ["a", "b", "c"], columns=6),
        "group_counts": lambda: training.group_counts(counts(), title="t"),
        "history": lambda: training.history(run),
        "roc": lambda: detection.roc({"ffpp": score_table()}),
        "fairness_comparison": lambda: training.fairness_comparison(results, title="t"),
        "score_distributions": lambda: training.score_distributions(one_class),
        "surface": lambda: training.surface(line, line, loss, {"SGD": np.zeros((3, 2))}),
    }
    mine = plt.figure()
    before = dict(mpl.rcParams)
    for name, draw in drawings.items():
        figure = draw()
        assert isinstance(figure, Figure), name
        assert dict(mpl.rcParams) == before, name
        assert plt.get_fignums() == [mine.number], name  # pyplot does not hold it, so a notebook shows it once
        png = io.BytesIO()
        figure.savefig(png, bbox_inches="tight")
        assert png.getvalue().startswith(b"\x89PNG"), name
        assert 500 < 100 * figure.get_figwidth() < 1000, name
    plt.close(mine)


def test_a_figure_that_fails_is_closed_and_restores_the_style():
    before = dict(mpl.rcParams)
    with pytest.raises(TypeError, match="shape"):
        training.image_grid([np.zeros(3)], [""], columns=1)
    assert plt.get_fignums() == [] and dict(mpl.rcParams) == before


def test_contact_sheet_names_each_row_and_column_at_its_middle():
    axes = training.contact_sheet(np.zeros((8 * 20, 6 * 20, 3), np.uint8), GROUPS, FORGERIES).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(GROUPS)
    assert [label.get_text() for label in axes.get_xticklabels()] == list(FORGERIES)
    np.testing.assert_allclose(axes.get_yticks(), 20 * np.arange(8) + 9.5)


def test_image_grid_shows_every_image_under_its_title():
    figure = training.image_grid([np.full((4, 4), v) for v in np.linspace(0, 1, 5)], list("abcde"), columns=3)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == list("abcde") and len(figure.axes) == 6
    assert all(axes.images[0].get_clim() == (0, 1) for axes in shown)  # grey values are comparable between images
    with pytest.raises(ValueError, match="shorter than"):
        training.image_grid(np.zeros((2, 4, 4, 3)), ["a"], columns=2)


def test_group_counts_draws_and_prints_every_number():
    figure = training.group_counts(counts(), title="train")
    left, right = figure.axes
    assert [bar.get_width() for bar in left.containers[0]] == list(range(8))
    assert [bar.get_width() for bar in left.containers[1]] == list(range(1000, 9000, 1000))
    assert len(right.patches) == 8
    text = words(figure)
    assert "8,000" in text and "5 videos, 3 people" in text and "train (n = 36,028 images)" in text
    assert [label.get_text() for label in left.get_yticklabels()] == list(GROUPS)


def test_history_shows_terms_and_best_epoch(run):
    figure = training.history(run)
    left, middle, right = figure.axes
    assert [line.get_label() for line in left.lines[:3]] == ["total", "agnostic", "fairness"]
    (star,) = dots(middle, "*")
    assert star.get_xdata()[0] == 3 and star.get_ydata()[0] == pytest.approx(90)
    assert dots(right, "*")[0].get_ydata()[0] == pytest.approx(50)
    assert "best epoch" in words(figure) and "F_FPR (percentage points)" in words(figure)


def test_roc_says_auc_n_and_what_is_undefined():
    table = score_table()
    figure = detection.roc({"ffpp": table, "dfd": table[table["label"] == 1]})
    text = words(figure)
    auc = fairness.overall_metrics(table)["auc"]
    assert f"AUC {100 * auc:.1f} % (n = 320)" in text
    assert "dfd\nundefined: one class (n = 160)" in text
    at = dots(figure.axes[0], "o")[0].get_xydata()[0]
    np.testing.assert_allclose(at, 100 * fairness.overall_metrics(table)[["fpr", "tpr"]])


def test_fairness_comparison_draws_each_result_over_its_floor(results):
    figure = training.fairness_comparison(results, metrics=("fpr_sum", "oae", "meo"))
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title().split(":")[0] for axes in panels] == ["F_FPR", "F_OAE", "F_MEO"]
    assert [len(dots(axes, "o")) for axes in panels] == [4, 4, 3]
    assert [text.get_text() for text in panels[2].texts] == ["undefined"]
    for axes in panels[:2]:
        assert [bar.get_height() for bar in axes.patches] == pytest.approx([10] * 4)
    ticks = [label.get_text() for label in panels[0].get_xticklabels()]
    assert ticks == ["ffpp\nn = 1,600", "dfd\nn = 1,200"]
    first = dots(panels[0], "o")[0]
    assert first.get_ydata()[0] == pytest.approx(20) and colour_of(first) == style.DETECTOR_COLOURS["ori"].upper()
    assert len({line.get_xdata()[0] for line in dots(panels[0], "o")}) == 4  # side by side
    assert "sampling alone" in words(figure)
    assert "t" in words(training.fairness_comparison(results, title="t")).split("\n")


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_score_distributions_separate_right_from_wrong(one_class, threshold):
    figure = training.score_distributions(one_class, threshold=threshold)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(GROUPS)
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "20 fakes\n0 reals" and texts[-1] == "0 fakes\n20 reals"
    for bar in axes.patches:
        if bar.get_height() == 0:
            continue
        fake, wrong = mpl.colors.to_hex(bar.get_facecolor()).upper() == style.FAKE, bar.get_alpha() == 1
        assert (bar.get_height() < 0) == fake  # upwards: the axis is turned round
        above = bar.get_x() + bar.get_width() / 2 > threshold
        assert wrong == (above != fake)


def test_surface_draws_paths_from_start_to_end():
    x, y = np.linspace(-1, 1, 9), np.linspace(0, 2, 7)
    loss = 0.01 + x**2 + y[:, None] ** 2
    path = np.array([[0.5, 1.5], [0.2, 1.0], [0.0, 0.3]])
    figure = training.surface(x, y, loss, {"SGD": path, "SAM": path + 0.1})
    axes = figure.axes[0]
    assert "SGD (2 steps)" in words(figure) and "Loss (logarithmic)" in words(figure)
    np.testing.assert_allclose(dots(axes, "*")[0].get_xydata()[0], path[-1])
    assert axes.get_xlim() == (-1, 1) and axes.get_ylim() == (0, 2)
    assert "Loss (logarithmic)" not in words(training.surface(x, y, loss - 1, {"SGD": path}))


def test_colours_are_constant_and_distinct():
    known = style.DETECTOR_COLOURS
    alone = style.colours_of(["fairdf"], known)
    among = style.colours_of(["x", "fairdf-s2", "y", "ori"], known)
    assert alone["fairdf"] == among["fairdf-s2"] and len(set(among.values())) == 4


def test_seeds_of_a_detector_are_small_dots_around_their_mean(results):
    other = results.assign(estimate=results["estimate"] + 0.02)
    first = training.fairness_comparison(pd.concat([results, other]), ("fpr_sum",)).axes[0]
    ori = results[(results["detector"] == "ori") & (results["metric"] == "fpr_sum")]["estimate"]
    means = [line.get_ydata()[0] for line in dots(first, "o") if len(line.get_ydata()) == 1]
    assert set(np.round(100 * ori + 1, 6)) <= set(np.round(means, 6))


def test_the_response_is_a_line_a_detector_of_means_over_sets_then_over_runs():
    rows = [
        ("ori", "abroad", seed, 0, bias, name, 0.8 + 0.1 * bias + 0.02 * seed + (0.05 if name == "dfd" else -0.05))
        for seed in (0, 1)
        for bias in (0.0, 1.0)
        for name in ("dfd", "dfdc")
    ]
    runs = pd.DataFrame(rows, columns=["detector", "tests", "seed", "data_seed", "bias", "dataset", "auc"])
    (axes,) = training.response(runs, "bias", "Bias", ("auc",)).axes
    (line,) = axes.containers
    np.testing.assert_allclose(line.lines[0].get_xydata(), [[0, 81], [1, 91]])
    spread = np.std([80, 82], ddof=1)
    np.testing.assert_allclose(line.lines[2][0].get_segments()[0], [[0, 81 - spread], [0, 81 + spread]])
    assert axes.get_ylabel() == "AUC (%)" and [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1"]
