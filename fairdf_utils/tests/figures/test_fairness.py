"""Figures of the fairness analysis: what is drawn and written on them; no global state is left behind."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.fairness import calibration, thresholds, uncertainty
from fairdf_utils.figures import fairness as plots_fairness
from fairdf_utils.figures import style as plot_style
from fairdf_utils.tests.fairness.score_tables import video_table

FEW = uncertainty.Settings(resamples=50, permutations=20)
TABLES = {"ori-s0": video_table(0, per_cell=10), "fairdf-s0": video_table(1, per_cell=10)}
RUNS = pd.DataFrame(
    [
        ("ffpp", "ori", 0.70, 0.9, 0.6, 0.8),
        ("ffpp", "fairdf", 0.80, 0.2, 0.7, 0.9),
        ("ffpp", "fairdf", 0.90, 0.4, 0.8, 0.95),
        ("ffpp", "(always real)", 0.5, 0.0, np.nan, np.nan),
        ("dfd", "fairdf", np.nan, 0.3, np.nan, np.nan),  # no group is large enough
    ],
    columns=["dataset", "detector", "worst_auc", "fpr_sum_matched", "worst_auc_low", "worst_auc_high"],
)


def words(figure):
    """Everything written on a figure, in one string."""
    found = [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_visible()]
    return "\n".join(text for text in found if text)


def curves(**settings):
    return {name: thresholds.metrics_by_threshold(table, **settings) for name, table in TABLES.items()}


def compared():
    found = uncertainty.paired_difference(*TABLES.values(), "group", FEW).reset_index()
    return found[found["metric"].isin(["fpr_sum", "auc"])].assign(name="fairdf - ori")


HELD = pd.DataFrame(
    [
        ("fpr", size, method, 0.9)
        for size in ("36 and more", "1-3", "4-9")
        for method in ("videos", "independent images")
    ],
    columns=["metric", "size", "method", "coverage"],
)


def test_the_coverage_of_classes_is_drawn_from_few_videos_to_many():
    (axes,) = plots_fairness.coverage(HELD).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1-3", "4-9", "36 and more"]
    assert sorted(axes.collections[0].get_offsets()[:, 1]) == [90, 90, 90]


def test_every_figure_leaves_no_trace_and_is_saved():
    table = TABLES["ori-s0"]
    drawings = {
        "threshold": lambda: plots_fairness.threshold_curves(curves(), marked=0.5, title="t"),
        "three": lambda: plots_fairness.threshold_curves(curves(), ("dp", "tpr", "acc"), "fpr", {"ori-s0": 0.1}, "t"),
        "reliability": lambda: plots_fairness.reliability(
            calibration.reliability(table, "group"), calibration.calibration(table, "group"), "t"
        ),
        "groups": lambda: plots_fairness.group_intervals(uncertainty.group_intervals(table, "group", FEW), title="t"),
        "all_runs": lambda: plots_fairness.all_runs(RUNS, title="t"),
        "differences": lambda: plots_fairness.differences(compared(), title="t"),
        "coverage": lambda: plots_fairness.coverage(HELD, title="t"),
    }
    mine = plt.figure()
    before = dict(mpl.rcParams)
    for name, draw in drawings.items():
        figure = draw()
        assert isinstance(figure, Figure), name
        assert dict(mpl.rcParams) == before and plt.get_fignums() == [mine.number], name
        png = io.BytesIO()
        figure.savefig(png, bbox_inches="tight")
        assert png.getvalue().startswith(b"\x89PNG"), name
        assert "t" in words(figure).split("\n"), name
        assert 500 < 100 * figure.get_figwidth() < 1000, name
    plt.close(mine)


def test_group_intervals_are_drawn_from_low_to_high_with_their_videos():
    table = TABLES["ori-s0"]
    table = table[~((table["group"] == GROUPS[2]) & (table["label"] == 1))]
    found = uncertainty.group_intervals(table, "group", FEW)
    figure = plots_fairness.group_intervals(found, ("fpr", "tpr", "auc"))
    for axes, rate in zip(figure.axes, ("fpr", "tpr", "auc"), strict=True):
        spans = [segment[:, 0] for lines in axes.collections for segment in lines.get_segments() if len(segment)]
        expected = 100 * found[[f"{rate}_low", f"{rate}_high"]].dropna()
        np.testing.assert_allclose([span for span in spans if not np.isnan(span).any()], expected)
    assert words(figure).split("\n").count("undefined") == 2  # TPR and AUC of the group without fakes


def test_threshold_curves_draw_the_curve_in_percent_and_mark_the_point_in_use():
    drawn = curves(by="gender")
    figure = plots_fairness.threshold_curves(drawn, ("fpr_gap", "tpr"), "fpr", {"ori-s0": 0.25, "fairdf-s0": 0.5})
    first, second = figure.axes[:2]
    data = first.lines[0].get_xydata()
    np.testing.assert_allclose(data, 100 * drawn["ori-s0"][["fpr", "fpr_gap"]].to_numpy())
    marks = [line.get_xdata()[0] for line in first.lines if len(line.get_xdata()) == 2]
    assert marks == [25, 50]
    assert second.get_ylabel() == "%" and first.get_ylabel() == "Percentage points"
    assert first.get_xlabel() == second.get_xlabel() == "FPR of all images (%)"


def test_reliability_draws_bins_with_images_only_and_names_the_numbers():
    table = TABLES["ori-s0"]
    curve, numbers = calibration.reliability(table, "group"), calibration.calibration(table, "group")
    figure = plots_fairness.reliability(curve, numbers)
    panels = figure.axes[: len(GROUPS)]
    assert [axes.get_title() for axes in panels] == list(GROUPS)
    for axes, group in zip(panels, GROUPS, strict=True):
        bins = curve.loc[group][curve.loc[group, "n"] > 0]
        dots = axes.collections[-1]
        np.testing.assert_allclose(dots.get_offsets(), 100 * bins[["score", "fake_share"]])
        assert (np.argsort(dots.get_sizes(), kind="stable") == np.argsort(bins["n"].to_numpy(), kind="stable")).all()
        assert f"n = {bins['n'].sum()}\nECE {numbers.loc[group, 'ece']:.3f}" in axes.texts[0].get_text()


def test_all_runs_are_drawn_with_their_mean_and_its_spread_and_one_run_with_its_interval():
    figure = plots_fairness.all_runs(RUNS)
    ffpp, dfd = figure.axes
    assert [ffpp.get_title(), dfd.get_title()] == ["ffpp", "dfd"]
    middles = [container.lines[0].get_xydata()[0].tolist() for container in ffpp.containers]
    np.testing.assert_allclose(middles, [[90, 70], [30, 85], [0, 50]])
    small = [line.get_xydata().tolist() for line in ffpp.lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(small, [[[20, 80], [40, 90]]])
    bars = [[bar.get_segments()[0] for bar in container.lines[2]] for container in ffpp.containers]
    np.testing.assert_allclose(bars[0], [[[90, 60], [90, 80]]])  # the interval of the one run
    spread = np.std([20, 40], ddof=1), np.std([80, 90], ddof=1)
    np.testing.assert_allclose(bars[1][0], [[30 - spread[0], 85], [30 + spread[0], 85]])
    np.testing.assert_allclose(bars[1][1], [[30, 85 - spread[1]], [30, 85 + spread[1]]])
    assert {"ori", "fairdf", "(always real)"} <= set(words(figure).split("\n")) and bars[2] == []
    assert [text.get_text() for text in dfd.texts] == ["undefined"] and not ffpp.texts


def test_runs_of_a_comparison_share_a_row():
    rows = [("a", "auc", 0.02, 0.01, 0.03, 0.01), ("a", "auc", -0.02, -0.03, 0.01, 0.4), ("b", "auc", *[np.nan] * 4)]
    table = pd.DataFrame(rows, columns=["name", "metric", "estimate", "low", "high", "p_holm"])
    figure = plots_fairness.differences(table)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    places = axes.collections[1].get_offsets()
    np.testing.assert_allclose(places[:2, 0], [2, -2])
    assert places[0, 1] == -places[1, 1] != 0
    assert {"1 of 2", "0 of 0", "differ", "undefined"} <= set(words(figure).split("\n"))


def test_every_detector_has_a_colour_of_its_own_that_no_spare_one_is():
    colours = [*plot_style.DETECTOR_COLOURS.values(), *plot_style.SPARE_COLOURS, *plot_style.DATASET_COLOURS.values()]
    assert len({mpl.colors.to_rgb(colour) for colour in colours}) == len(colours)


def test_differences_are_coloured_by_the_corrected_p_and_say_undefined():
    """Not by the interval, which excludes zero in the second row too."""
    rows = [("a", "auc", 0.02, 0.01, 0.03, 0.01), ("b", "auc", 0.02, 0.01, 0.03, 0.4), ("c", "auc", *[np.nan] * 4)]
    table = pd.DataFrame(rows, columns=["name", "metric", "estimate", "low", "high", "p_holm"])
    figure = plots_fairness.differences(table)
    axes = figure.axes[0]
    colours = [mpl.colors.to_hex(each).upper() for each in axes.collections[0].get_colors()]
    assert colours[:2] == [plots_fairness.DIFFERS, plots_fairness.UNDECIDED.upper()]
    spans = [segment[:, 0].tolist() for segment in axes.collections[0].get_segments()[:2]]
    np.testing.assert_allclose(spans, [[1, 3], [1, 3]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert {"undefined", "0.010", "0.400", "p (Holm)"} <= set(words(figure).split("\n"))
    assert "differs: p (Holm) below 0.05" in words(figure)
    (strict,) = plots_fairness.differences(table, level=0.995).axes
    assert mpl.colors.to_hex(strict.collections[0].get_colors()[0]).upper() == plots_fairness.UNDECIDED.upper()
    assert "nan" not in words(figure)


def test_names_that_no_figure_can_show_are_numbered_and_explained(recwarn):
    table = TABLES["ori-s0"].copy()
    odd = {"male-white": "黑人", "male-black": "白人", "female-white": "long " * 30, "female-black": "a$x_{$b"}
    table["group"] = table["group"].replace(odd)
    figure = plots_fairness.reliability(calibration.reliability(table, "group"), None, "Scores on 数据")
    ticks = plots_fairness.group_intervals(uncertainty.group_intervals(table, "group", FEW, auc=False))
    ticks.savefig(io.BytesIO())
    for written in (words(figure), words(ticks)):
        assert not set("黑人白数据") & set(written) and "a$x_{$b" in written and "long long" in written
        assert max(map(len, written.split("\n"))) <= 120
    explained = plot_style.key()
    numbers = {name: explained.split(f") {name}")[0].rpartition("(")[2] for name in odd.values() if "$" not in name}
    for name in ("黑人", "白人"):
        assert f"name {numbers[name]}" in words(ticks)
    assert f"… ({numbers['long ' * 30]})" in words(ticks) and not recwarn.list
