"""Intervals, p-values and the sampling floor against plain loops, scipy and hand arithmetic."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.fairness import clusters, intervals, resampling
from fairdf_utils.fairness import metrics as fairness
from fairdf_utils.fairness.metrics import METRICS, OVERALL
from fairdf_utils.fairness.score_table import ScoreTableError
from fairdf_utils.tests.fairness.score_tables import random_table, score_table, video_table


def recorded(monkeypatch, table, by, resamples):
    """Whatever is drawn next from `table`, in two parts, is kept: returns a function that gives times (n, B)."""
    seen, inner = [], clusters.drawn_weights

    def remember(*args):
        for weights in inner(*args):
            seen.append(weights)
            yield weights

    monkeypatch.setattr(clusters, "drawn_weights", remember)
    monkeypatch.setattr(clusters, "chunks", lambda count, *_: [count - 7, 7])
    unit = clusters.clustered(table, by, 0.5, "corrected", "video").unit
    return lambda: np.concatenate(seen, axis=1)[unit].astype(int)


@pytest.mark.parametrize("by", ["group", "gender"])
@pytest.mark.parametrize("mixed", [False, True])
def test_intervals_equal_a_plain_loop(monkeypatch, by, mixed):
    """Repeat the images of each drawn video, then compute: metrics of all groups, and rates of each."""
    table = random_table(3, videos=40) if mixed else video_table()
    times = recorded(monkeypatch, table, by, 40)
    ours = resampling.bootstrap(table, by, resamples=40, level=0.9)
    metrics, rates = [], []
    for column in times().T:
        drawn = table.loc[table.index.repeat(column)].reset_index(drop=True)
        metrics.append({**fairness.fairness_metrics(drawn, by), **fairness.overall_metrics(drawn)[list(OVERALL)]})
        rates.append(fairness.group_rates(drawn, by)[["fpr", "tpr", "acc", "auc"]].stack())
    loop = pd.DataFrame(metrics)
    np.testing.assert_allclose(ours["low"], loop.quantile(0.05), atol=1e-12)
    np.testing.assert_allclose(ours["high"], loop.quantile(0.95), atol=1e-12)
    expected = fairness.fairness_metrics(table, by)
    np.testing.assert_allclose(ours.loc[list(METRICS), "estimate"], expected, atol=1e-12)
    assert ours.loc[list(METRICS), "groups"].tolist() == list(expected.attrs["groups"].values())
    assert ours.index.tolist() == [*METRICS, *OVERALL]

    groups = resampling.group_intervals(table, by, resamples=40, level=0.9)
    loop = pd.DataFrame(rates)
    for rate in ("fpr", "tpr", "acc", "auc"):
        spread = [rate not in names for names in groups["collapsed"]]
        for name, share in (("low", 0.05), ("high", 0.95)):
            bound = loop.quantile(share).unstack().loc[groups.index, rate]
            np.testing.assert_allclose(groups[f"{rate}_{name}"][spread], bound[spread], atol=1e-12)


def test_without_auc_the_rest_is_the_same():
    table = video_table(2)
    for kind in intervals.INTERVALS:
        whole = resampling.bootstrap(table, resamples=60, kind=kind)
        part = resampling.bootstrap(table, resamples=60, kind=kind, auc=False)
        pd.testing.assert_frame_equal(part, whole.drop(["auc_gap", "auc"]))
    whole = resampling.group_intervals(table, resamples=60)
    part = resampling.group_intervals(table, resamples=60, auc=False)
    assert set(whole.columns) - set(part.columns) == {"auc_low", "auc_high"}
    floor = resampling.sampling_floor(table, permutations=40)
    pd.testing.assert_frame_equal(resampling.sampling_floor(table, permutations=40, auc=False), floor.drop("auc_gap"))


def test_drawn_weights_keep_strata_and_are_multinomial():
    members = np.array([2, 3, 5])
    weights = np.concatenate(list(clusters.drawn_weights(members, [3000, 1000], seed=0)), axis=1)
    assert weights.shape == (10, 4000)
    for part, size in zip(np.split(weights, [2, 5]), members, strict=True):
        assert (part.sum(0) == size).all()
        np.testing.assert_allclose(part.mean(1), 1, atol=0.06)
        np.testing.assert_allclose(part.var(1), 1 - 1 / size, atol=0.08)  # multinomial variance


def test_chunks_do_not_change_the_draws():
    members = np.array([10, 20])
    whole = np.concatenate(list(clusters.drawn_weights(members, [20], seed=4)), axis=1)
    parts = np.concatenate(list(clusters.drawn_weights(members, [7, 13], seed=4)), axis=1)
    np.testing.assert_array_equal(whole, parts)
    assert clusters.chunks(1000, 10**7) == [1] * 1000 and sum(clusters.chunks(2000, 25_000)) == 2000


def test_clusters_are_sorted_by_group_and_label():
    table = video_table(per_cell=3).sample(frac=1, random_state=0)
    data = clusters.clustered(table, "group", 0.5, "corrected", "video")
    assert data.members.tolist() == [3] * 16
    named = pd.DataFrame({"unit": data.unit, "video": table["video"], "group": table["group"], "label": table["label"]})
    assert (named.groupby("unit")["video"].nunique() == 1).all()
    stratum = named.groupby("unit")[["group", "label"]].first().assign(stratum=data.strata)
    assert (stratum.groupby("stratum").nunique() == 1).all().all()


def by_scipy(samples, statistic, draws, level):
    """scipy's BCa interval of draws that are given to it."""
    settings = {"statistic": statistic, "confidence_level": level, "vectorized": False, "forgery": "BCa"}
    drawn = stats.bootstrap(samples, n_resamples=2, **settings | {"forgery": "percentile"})
    drawn.bootstrap_distribution = draws
    found = stats.bootstrap(samples, n_resamples=0, bootstrap_result=drawn, **settings)
    return found.confidence_interval


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bca_of_a_mean_equals_scipy(level):
    sample = np.random.default_rng(0).exponential(size=25)
    draws = np.random.default_rng(1).choice(sample, (400, 25)).mean(1)
    without_one = (sample.sum() - sample) / 24
    values = pd.DataFrame({"mean": [sample.mean(), *draws]})
    ours = intervals.interval(values, level, pd.DataFrame({"mean": without_one}), np.zeros(25, int))
    theirs = by_scipy((sample,), np.mean, draws, level)
    np.testing.assert_allclose(ours.loc["mean", ["low", "high"]], [theirs.low, theirs.high], atol=1e-12)
    assert ours.loc["mean", "high"] > np.quantile(draws, (1 + level) / 2)  # skewed to the right: BCa moves up


def test_bca_of_the_auc_equals_scipy_with_two_samples():
    """Images as clusters, one group: reals and fakes are two samples that are drawn apart."""
    table = score_table(["male-white"] * 60, [0, 1] * 30, np.random.default_rng(0).uniform(size=60).round(2) ** 2)
    table["score"] = np.where(table["label"] == 1, table["score"] ** 0.3, table["score"])
    data = clusters.clustered(table, "group", 0.5, "corrected", "img_path")
    counts, auc = clusters.resampled_tables(data, 300, 0, True)
    ours = resampling.bootstrap(table, resamples=300, level=0.9, cluster="img_path", kind="bca")
    fakes, reals = (table.loc[table["label"] == label, "score"].to_numpy() for label in (1, 0))

    def area(fakes, reals):
        return roc_auc_score(np.repeat([1, 0], [len(fakes), len(reals)]), np.append(fakes, reals))

    def accuracy(fakes, reals):
        return np.append(fakes >= 0.5, reals < 0.5).mean()

    accuracies = counts[1:, 0].trace(axis1=-2, axis2=-1) / 60
    for name, statistic, draws in (("auc", area, auc[1:, -1]), ("acc", accuracy, accuracies)):
        theirs = by_scipy((fakes, reals), statistic, draws, 0.9)
        np.testing.assert_allclose(ours.loc[name, ["low", "high"]].astype(float), [theirs.low, theirs.high], atol=1e-12)


def test_bca_leaves_whole_clusters_out():
    table = random_table(3, videos=30)
    data = clusters.clustered(table, "gender", 0.5, "corrected", "video")
    ours = resampling._metrics(*clusters.tables_without_one(data, True), "corrected")[0]
    for unit in range(0, 30, 7):
        left = table[data.unit != unit]
        expected = {**fairness.fairness_metrics(left, "gender"), **fairness.overall_metrics(left)[list(OVERALL)]}
        np.testing.assert_allclose(ours.loc[unit, list(expected)].astype(float), list(expected.values()), atol=1e-12)


def test_bca_is_defined_where_all_resamples_lie_on_one_side():
    values = pd.DataFrame({"gap": [0.0, *np.linspace(0.1, 0.5, 99)], "flat": 1.0})
    found = intervals.interval(values, 0.95, pd.DataFrame({"gap": [0.1, 0.2], "flat": 1.0}), np.array([0, 0]))
    assert found.loc["gap", "low"] == pytest.approx(0.1, abs=0.01) and found.loc["gap"].notna().all()
    assert found.loc["flat"].tolist() == [1, 1, 1]


def test_undefined_values_are_left_out_of_intervals():
    draws = np.random.default_rng(0).normal(size=200)
    holes = np.where(np.arange(201) % 3 == 1, np.nan, np.append(0.1, draws))
    values = pd.DataFrame(
        {"holes": holes, "unknown": np.append(np.nan, draws), "never": np.append(0.1, draws * np.nan)}
    )
    found = intervals.interval(values, 0.9)
    np.testing.assert_allclose(found.loc["holes", ["low", "high"]], np.nanquantile(holes[1:], [0.05, 0.95]))
    assert found.loc[["unknown", "never"], ["low", "high"]].isna().all().all()
    p = intervals.p_values(values)
    assert 0.5 < p["holes"] <= 1 and p[["unknown", "never"]].isna().all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_p_value_is_the_level_at_which_the_interval_touches_zero(seed, bca):
    rng = np.random.default_rng(seed)
    sample = rng.exponential(size=20) - rng.uniform(0.3, 1.7)
    draws = rng.choice(sample, (4000, 20)).mean(1)
    values = pd.DataFrame({"mean": [sample.mean(), *draws]})
    extra = {}
    if bca:
        extra = {"without_one": pd.DataFrame({"mean": (sample.sum() - sample) / 19}), "strata": np.zeros(20, int)}
    p = intervals.p_values(values, **extra)["mean"]
    for factor, outside in ((1.3, True), (0.75, False)):  # a little narrower, a little wider
        if p > 0.05 and factor * p < 0.9:
            low, high = intervals.interval(values, 1 - factor * p, **extra).loc["mean", ["low", "high"]]
            assert (low > 0 or high < 0) == outside


def test_holm_by_hand():
    np.testing.assert_allclose(intervals.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    named = pd.Series({"a": 0.02, "b": np.nan, "c": 0.9, "d": 0.6})
    corrected = intervals.holm(named)
    assert corrected.drop("b").tolist() == pytest.approx([0.06, 1, 1]) and np.isnan(corrected["b"])
    assert corrected.index.equals(named.index) and intervals.holm([np.nan]).shape == (1,)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p, level):
    order, rejected = np.argsort(p, kind="stable"), np.zeros(len(p), bool)
    for step, i in enumerate(order):  # Holm 1979: stop at the first that is too large
        if p[i] * (len(p) - step) > level:
            break
        rejected[i] = True
    np.testing.assert_array_equal(intervals.holm(p) <= level, rejected)


def test_collapsed_rates_get_an_honest_interval():
    table = video_table(per_cell=6)
    chosen = (table["group"] == GROUPS[0]) & (table["label"] == 0)
    table.loc[chosen, "score"] = 0.01  # no false alarm in six videos, and reals below all fakes
    groups = resampling.group_intervals(table, resamples=50)
    assert "fpr" in groups.loc[GROUPS[0], "collapsed"] and groups.loc[GROUPS[0], "fpr_low"] == 0
    assert groups.loc[GROUPS[0], "fpr_high"] == pytest.approx(fairness.rate_interval(0, 6)[1])
    assert groups.loc[GROUPS[0], "clusters_real"] == 6
    assert np.isnan(groups.loc[GROUPS[0], "auc_low"]) == ("auc" in groups.loc[GROUPS[0], "collapsed"])
    fakes = table[(table["label"] == 1) | (table["group"] != GROUPS[0])]
    undefined = resampling.group_intervals(fakes, resamples=50).loc[GROUPS[0]]
    assert undefined[["fpr", "fpr_low", "fpr_high", "auc_low"]].isna().all() and "fpr" not in undefined["collapsed"]


def test_group_against_rest_equals_a_plain_loop(monkeypatch):
    table = video_table(1)
    times = recorded(monkeypatch, table, "race", 40)
    ours = resampling.group_against_rest(table, "race", ("fpr", "acc"), resamples=40)
    loop = []
    for column in times().T:
        drawn = table.loc[table.index.repeat(column)].reset_index(drop=True)
        sides = [(fairness.overall_metrics(drawn[own]), fairness.overall_metrics(drawn[~own]))
                 for own in (drawn["race"] == name for name in ("asian", "white", "black", "others"))]  # fmt: skip
        loop.append([own[rate] - rest[rate] for rate in ("fpr", "acc") for own, rest in sides])
    np.testing.assert_allclose(ours["low"], np.quantile(loop, 0.025, axis=0), atol=1e-12)
    np.testing.assert_allclose(ours["high"], np.quantile(loop, 0.975, axis=0), atol=1e-12)
    np.testing.assert_allclose(ours["p_holm"], intervals.holm(ours["p_value"]))
    assert ours.index.names == ["rate", "race"]
    assert len(resampling.group_against_rest(table, "gender", resamples=20)) == 3  # the second mirrors the first


def test_group_against_rest_finds_the_wronged_group():
    table = video_table(per_cell=12, frames=3)
    wronged = (table["group"] == "female-black") & (table["label"] == 0)
    table.loc[wronged, "score"] = np.clip(table.loc[wronged, "score"] + 0.5, 0, 1)
    found = resampling.group_against_rest(table, resamples=999, kind="bca")
    assert found["p_holm"].idxmin() in {("fpr", "female-black"), ("acc", "female-black")}
    assert found.loc[("fpr", "female-black"), "p_holm"] < 0.05 and found.loc[("fpr", "female-black"), "low"] > 0.2


def test_the_p_value_of_a_group_is_the_share_of_all_deals():
    alarms = np.array([1, 1, 0, 0, 0, 1, 0])
    table = pd.DataFrame({"label": 0, "score": alarms, "own": ["own"] * 2 + ["rest"] * 5})
    table["video"] = table["img_path"] = [f"v{row}" for row in table.index]
    deals = [np.isin(range(7), chosen) for chosen in combinations(range(7), 2)]
    gap = [abs(alarms[own].mean() - alarms[~own].mean()) for own in deals]
    exact = np.mean(np.array(gap) >= gap[0] - 1e-12)
    found = resampling.group_against_rest(table, "own", ("fpr", "tpr"), 10, permutations=4000)["p_value"]
    assert found["fpr", "own"] == pytest.approx(exact, abs=0.02) and np.isnan(found["tpr", "own"])


def test_a_group_of_few_videos_is_seldom_accused_by_chance():
    """p < 0.05 in about 3 of 60 blind detectors; more than 8 would come about once in 500 times."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(60):
        group = np.repeat(["small", "large"], [5, 60])
        alarms = rng.random(65) < 0.05
        table = pd.DataFrame({"label": 0, "score": alarms.astype(float), "group": group}).assign(video=np.arange(65))
        found = resampling.group_against_rest(table, "group", ("fpr",), 20, permutations=200)
        wrong += (found["p_value"] < 0.05).any()
    assert wrong <= 8


def test_bootstrap_by_video_is_wider_than_by_image():
    table = video_table(per_cell=6, frames=6)
    first = table.groupby("video")["score"].transform("first")
    table["score"] = first  # all frames of a video agree: six times fewer independent observations
    video = resampling.bootstrap(table, "gender", 400)
    image = resampling.bootstrap(table, "gender", 400, cluster="img_path")
    width = (video["high"] - video["low"]) / (image["high"] - image["low"])
    assert 1.8 < width["acc"] < 3.2  # sqrt(6) = 2.4


def test_bootstrap_is_reproducible_and_uses_the_seed():
    table = video_table()
    pd.testing.assert_frame_equal(resampling.bootstrap(table, resamples=50), resampling.bootstrap(table, resamples=50))
    other = resampling.bootstrap(table, resamples=50, seed=1)
    assert not other["low"].equals(resampling.bootstrap(table, resamples=50)["low"])


def test_incomplete_counts_resamples_that_lost_a_group():
    # one video mixes two groups and holds the only reals of one of them
    table = score_table(["male-white"] * 6 + ["male-black"] * 2, [0, 1, 0, 1, 0, 1, 0, 1], [0.2, 0.8] * 4)
    table["video"] = ["a", "b", "c", "d", "e", "f", "c", "f"]
    result = resampling.bootstrap(table, resamples=500)
    lost = (2 / 3) ** 3  # video c is not among the three draws from the stratum of a, c, e
    assert result.loc["fpr_gap", "incomplete"] == pytest.approx(lost, abs=0.06)
    assert result.loc["acc", "incomplete"] == 0


def test_paired_difference_uses_the_same_resamples():
    a = video_table(0)
    shuffled = a.sample(frac=1, random_state=1)
    same = resampling.paired_difference(a, shuffled, resamples=50)
    np.testing.assert_allclose(same[["estimate", "low", "high"]], 0, atol=1e-12)
    b = a.assign(score=np.clip(a["score"] + 0.2 * (a["gender"] == "male"), 0, 1))
    result = resampling.paired_difference(a, b, "gender", resamples=200)
    assert result.loc["fpr", "high"] < 0  # A has fewer false alarms
    np.testing.assert_allclose(result["estimate"], result["a"] - result["b"])
    np.testing.assert_allclose(result.loc[list(METRICS), "b"], fairness.fairness_metrics(b, "gender"))
    assert result.loc["fpr", "p_value"] < 0.01 and same["p_value"].eq(1).all()
    np.testing.assert_allclose(result["p_holm"], intervals.holm(result["p_value"]))
    reverse = resampling.paired_difference(b, a, "gender", resamples=200)
    np.testing.assert_allclose(reverse["p_value"], result["p_value"], atol=1e-12)
    np.testing.assert_allclose(reverse["low"], -result["high"], atol=1e-12)


def test_paired_difference_with_bca_takes_both_detectors_constants():
    a = video_table(0, per_cell=6)
    b = a.assign(score=np.clip(a["score"] + np.random.default_rng(0).normal(0, 0.2, len(a)), 0, 1))
    settings = {"resamples": 200, "kind": "bca"}
    result, reverse = (resampling.paired_difference(*pair, "gender", **settings) for pair in ((a, b), (b, a)))
    np.testing.assert_allclose(reverse["low"], -result["high"], atol=1e-12)
    sides = [clusters.clustered(table, "gender", 0.5, "corrected", "video") for table in (a, b)]
    rates = [
        resampling._metrics(*clusters.resampled_tables(data, 200, 0, True), "corrected")[0]["tpr"] for data in sides
    ]
    alone = [resampling._metrics(*clusters.tables_without_one(data, True), "corrected")[0]["tpr"] for data in sides]
    values = pd.DataFrame({"tpr": rates[0] - rates[1]})
    expected = intervals.interval(values, 0.95, pd.DataFrame({"tpr": alone[0] - alone[1]}), sides[0].strata)
    np.testing.assert_allclose(result.loc["tpr", ["estimate", "low", "high"]], expected.loc["tpr"])


def test_the_band_is_the_metric_of_the_deviation(monkeypatch):
    """By a loop: rates of each resample minus the estimate's, their metric, its quantile either way."""
    table = video_table(per_cell=5)
    table = table[~((table["group"] == GROUPS[4]) & (table["label"] == 1))].reset_index(drop=True)
    times = recorded(monkeypatch, table, "group", 40)
    ours = resampling.bootstrap(table, "group", 40, 0.9, kind="band")
    here, reach = (fairness.group_rates(table), fairness.overall_metrics(table)), []
    for column in times().T:
        drawn = table.loc[table.index.repeat(column)].reset_index(drop=True)
        rates = fairness.group_rates(drawn)[list(fairness.RATES)] - here[0][list(fairness.RATES)]
        overall = fairness.overall_metrics(drawn) - here[1]
        gap, off = rates.max() - rates.min(), (rates[["fpr", "tpr"]] - overall[["fpr", "tpr"]]).abs().sum()
        metrics = [off["fpr"], gap["fpr"], gap["acc"], gap["predicted_fake"], max(gap["fpr"], gap["tpr"]), off.sum()]
        reach.append([*metrics, gap["auc"], *overall[list(OVERALL)].abs()])
    reach = np.quantile(reach, 0.9, axis=0)
    estimate = ours["estimate"].to_numpy()
    assert ours.index.tolist() == [*METRICS, *OVERALL]
    np.testing.assert_allclose(ours["low"], np.maximum(estimate - reach, 0), atol=1e-12)
    assert estimate[0] + reach[0] == pytest.approx(ours["high"].iloc[0])
    np.testing.assert_allclose(ours["high"].iloc[1:5], np.minimum(estimate + reach, 1)[1:5], atol=1e-12)


def test_unknown_kind_of_interval_is_refused():
    with pytest.raises(ValueError, match="kind is 'band'; use one of percentile, bca"):
        resampling.paired_difference(video_table(), video_table(), resamples=5, kind="band")
    with pytest.raises(ValueError, match="kind is 'BCa'"):
        resampling.bootstrap(video_table(), resamples=5, kind="BCa")


def test_paired_difference_refuses_other_images_and_labels():
    a = video_table(0)
    with pytest.raises(ScoreTableError, match="3.png is in one only"):
        resampling.paired_difference(a, a.drop(index=3))
    with pytest.raises(ScoreTableError, match="3.png is in one only"):
        resampling.paired_difference(a.drop(index=3), a)
    with pytest.raises(ScoreTableError, match=r"second table lists 0.png twice \(row 320"):
        resampling.paired_difference(a, pd.concat([a, a[:1]]))
    with pytest.raises(ScoreTableError, match="'label' of 0.png differs"):
        resampling.paired_difference(a, a.assign(label=1))


def blind_table(n, balanced, fpr=0.18, tpr=0.84, seed=0):
    """A group-blind detector with exactly these rates on n independent images, half of them fakes."""
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1], n // 2)
    group = np.tile(GROUPS, n // 8) if balanced else rng.choice(GROUPS, n)
    called = np.concatenate([rng.permutation(n // 2) < round(r * n / 2) for r in (fpr, tpr)])
    return score_table(group, label, np.where(called, 0.9, 0.1))


@pytest.mark.parametrize("n", [400, 1600])
def test_sampling_floor_known_before_this_module(n):
    """Rounded numbers that a prototype had measured for FPR .18, TPR .84, eight groups."""
    floor = resampling.sampling_floor(blind_table(n, balanced=False), permutations=2000)
    known = {400: {"fpr_sum": 0.46}, 1600: {"fpr_sum": 0.23, "meo": 0.13, "dp": 0.11, "oae": 0.07}}[n]
    for name, mean in known.items():
        assert floor.loc[name, "mean"] == pytest.approx(mean, abs=0.015), name
    assert floor.loc["fpr_sum", "q95"] == pytest.approx({400: 0.69, 1600: 0.35}[n], abs=0.025)


def test_sampling_floor_equals_binomial_simulation():
    """The same question without permutations: 100 reals and 100 fakes a group, every image an independent draw."""
    rng = np.random.default_rng(5)
    floor = resampling.sampling_floor(blind_table(1600, balanced=True), permutations=2000)
    fpr, tpr = rng.binomial(100, 0.18, (20_000, 8)) / 100, rng.binomial(100, 0.84, (20_000, 8)) / 100
    fpr_off = np.abs(fpr - fpr.mean(1, keepdims=True)).sum(1)
    simulated = {
        "fpr_sum": fpr_off,
        "fpr_gap": np.ptp(fpr, axis=1),
        "oae": np.ptp((1 - fpr + tpr) / 2, axis=1),
        "dp": np.ptp((fpr + tpr) / 2, axis=1),
        "meo": np.maximum(np.ptp(fpr, axis=1), np.ptp(tpr, axis=1)),
        "eo": fpr_off + np.abs(tpr - tpr.mean(1, keepdims=True)).sum(1),
    }
    for name, values in simulated.items():
        assert floor.loc[name, "mean"] == pytest.approx(values.mean(), rel=0.03), name
        assert floor.loc[name, "q95"] == pytest.approx(np.quantile(values, 0.95), rel=0.06), name


def test_sampling_floor_equals_a_plain_loop(monkeypatch):
    table = random_table(5, n=120, groups=GROUPS[:3])
    floor = resampling.sampling_floor(table, permutations=300)
    rng = np.random.default_rng(99)
    loop = []
    for _ in range(300):
        shuffled = table.copy()
        for label in (0, 1):
            rows = table["label"] == label
            shuffled.loc[rows, "group"] = rng.permutation(table.loc[rows, "group"])
        loop.append(fairness.fairness_metrics(shuffled))
    loop = pd.DataFrame(loop)
    spread = loop.std() / np.sqrt(300)
    assert ((floor["mean"] - loop.mean()).abs() < 5 * spread).all()
    np.testing.assert_allclose(floor["estimate"], fairness.fairness_metrics(table), atol=1e-12)


def test_sampling_floor_keeps_videos_together_and_p_values_behave():
    table = video_table(per_cell=6, frames=8, seed=2)
    table["score"] = table.groupby("video")["score"].transform("first")  # frames agree
    whole = resampling.sampling_floor(table, permutations=300)
    single = resampling.sampling_floor(table, permutations=300, cluster="img_path")
    assert (whole["mean"] > 1.8 * single["mean"]).all()  # sqrt(8) = 2.8 if no correlation were left
    unfair = video_table(per_cell=10)
    male = unfair["gender"] == "male"
    unfair.loc[male, "score"] = np.clip(unfair.loc[male, "score"] + 0.3, 0, 1)
    p = resampling.sampling_floor(unfair, "gender", permutations=199)["p_value"]
    assert p["fpr_gap"] == pytest.approx(1 / 200)
    assert (p > 0).all() and (p <= 1).all()


def test_sampling_floor_splits_mixed_videos():
    table = random_table(3, n=200, videos=20)  # every video mixes labels and groups
    floor = resampling.sampling_floor(table, permutations=50)
    assert floor[["mean", "q95"]].notna().all().all()
    assert resampling.sampling_floor(table, permutations=50).equals(floor)
