"""Intervals and p-values against plain loops, scipy and hand arithmetic."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom, binom, binomtest
from scipy.stats import t as student

from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.fairness import metrics, permutation, resampling, uncertainty
from fairdf_utils.fairness.confidence import drawn_tables, log_likelihood
from fairdf_utils.fairness.metrics import METRICS, OVERALL
from fairdf_utils.fairness.score_table import ScoreTableError
from fairdf_utils.fairness.uncertainty import Settings
from fairdf_utils.fairness.worst_group import WORST
from fairdf_utils.tests.fairness.score_tables import random_table, score_table, video_table

FEW = Settings(resamples=40, permutations=40, level=0.9)


def recorded(monkeypatch, table, by):
    """Whatever is drawn next from `table`, in two parts, is kept: returns a function that gives times (n, B)."""
    seen, inner = [], resampling.drawn_weights

    def remember(*args):
        for weights in inner(*args):
            seen.append(weights)
            yield weights

    monkeypatch.setattr(resampling, "drawn_weights", remember)
    monkeypatch.setattr(resampling, "chunks", lambda count, *_: [count - 7, 7])
    unit = resampling.clustered(table, by, FEW).unit
    return lambda: np.concatenate(seen, axis=1)[unit].astype(int)


@pytest.mark.parametrize("mixed", [False, True])
def test_resampled_aucs_equal_a_plain_loop(monkeypatch, mixed):
    """Repeat the images of each drawn video, then compute; but for terms of second order."""
    table, other = (
        (random_table(3, videos=40), random_table(4, videos=40)) if mixed else (video_table(), video_table(9))
    )
    other = table.assign(score=other["score"])
    times = recorded(monkeypatch, table, "group")
    ours = uncertainty.paired_difference(table, other, "group", FEW).drop(list(WORST))
    loop = []
    for column in times()[:, :40].T:
        sides = [each.loc[each.index.repeat(column)].reset_index(drop=True) for each in (table, other)]
        loop.append(metrics.overall_metrics(sides[0])["auc"] - metrics.overall_metrics(sides[1])["auc"])
    assert abs(ours.loc["auc", "low"] - np.quantile(loop, 0.05)) < 0.005
    assert abs(ours.loc["auc", "high"] - np.quantile(loop, 0.95)) < 0.005
    assert ours.index.tolist() == [*METRICS, *OVERALL]


def test_the_band_is_the_metric_of_the_deviation(monkeypatch):
    """By a loop: rates that may be the truth minus the estimate's, their metric, its quantile either way.

    That of the AUCs is drawn: Student's t, each with the spread that its interval has.
    """
    table = video_table(per_cell=5)
    table = table[~((table["group"] == GROUPS[4]) & (table["label"] == 1))].reset_index(drop=True)
    drawn = []
    monkeypatch.setattr(uncertainty, "drawn_tables", lambda *given: drawn.append(drawn_tables(*given)) or drawn[-1])
    ours = uncertainty.metric_intervals(table, "group", FEW)
    here, reach = (metrics.group_rates(table), metrics.overall_metrics(table)), []
    for counts in drawn[0][1:]:
        np.testing.assert_allclose(counts.sum(-1), here[0][["n_real", "n_fake"]])
        rates = pd.DataFrame(metrics.rates_of(counts), here[0].index)
        rates, overall = rates - here[0][list(rates)], pd.Series(metrics.rates_of(counts.sum(0))) - here[1]
        gap, off = rates.max() - rates.min(), (rates[["fpr", "tpr"]] - overall[["fpr", "tpr"]]).abs().sum()
        gaps = [gap["fpr"], gap["tpr"], gap["acc"], gap["predicted_fake"], max(gap["fpr"], gap["tpr"])]
        reach.append([off["fpr"], *gaps, off.sum()])
    known = resampling.auc_of(resampling.clustered(table, "group", FEW))
    low, high = uncertainty.interval_of_an_auc(known, FEW.level)
    errors = (high - low) / 2 / student.ppf(0.95, known.freedom) * known.noise(FEW.resamples, FEW.seed)
    auc_gap = np.nanmax(errors, axis=1) - np.nanmin(errors, axis=1)
    reach = np.append(np.quantile(reach, 0.9, axis=0), np.quantile(auc_gap, 0.9))
    assert ours.index.tolist() == [*METRICS]
    excluded = ours["p_value"] < 1 - FEW.level
    low = np.where(excluded, np.maximum(ours["estimate"] - reach, 0), 0)
    np.testing.assert_allclose(ours["low"], low, atol=1e-12)
    end = np.where(ours.index.isin(["fpr_sum", "eo"]), np.inf, 1)
    np.testing.assert_allclose(ours["high"], np.minimum(ours["estimate"] + reach, end), atol=1e-12)
    np.testing.assert_allclose(ours["estimate"], metrics.fairness_metrics(table))
    assert ours["groups"].tolist() == list(metrics.fairness_metrics(table).attrs["groups"].values())
    floor = permutation.sampling_floor(table, "group", FEW)
    pd.testing.assert_frame_equal(ours[["floor_q95", "p_value"]], floor[["q95", "p_value"]].set_axis(
        ["floor_q95", "p_value"], axis=1))  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.floats(0, 1), st.floats(0.5, 0.99))
def test_of_single_images_a_rate_has_the_mid_p_interval(n, share, level):
    """Its ends are where half of the chance of as many hits, and that of more (fewer), make up the tail."""
    k, tail = round(share * n), (1 - level) / 2
    found = uncertainty.interval_of_a_rate(np.repeat([1.0, 0], [k, n - k]), np.ones(n), level)
    assert found["effective"] == pytest.approx(n)
    exact = binomtest(k, n).proportion_ci(level)  # Clopper-Pearson: more careful
    assert exact.low <= found["low"] <= found["estimate"] <= found["high"] <= exact.high
    low = binom.sf(k, n, found["low"]) + binom.pmf(k, n, found["low"]) / 2
    high = binom.cdf(k, n, found["high"]) - binom.pmf(k, n, found["high"]) / 2
    assert found["low"] == 0 if k == 0 else low == pytest.approx(tail, rel=0.05, abs=2e-3)
    assert found["high"] == 1 if k == n else high == pytest.approx(tail, rel=0.05, abs=2e-3)


def test_the_likelihood_is_that_of_scipy():
    errors, sizes, p, rho = np.array([3.0, 0, 5, 5]), np.array([5.0, 4, 5, 9]), np.array([[0.2], [0.7]]), [0.1, 0.6]
    ours = log_likelihood(errors, sizes, p, np.array(rho))
    theirs = [[betabinom(sizes, q * (1 / r - 1), (1 - q) * (1 / r - 1)).logpmf(errors).sum() for r in rho]
              for q in p[:, 0]]  # fmt: skip
    np.testing.assert_allclose(ours - ours[0, 0], np.array(theirs) - theirs[0][0])


def test_frames_that_agree_are_worth_little_more_than_their_videos():
    table = video_table(per_cell=30, frames=8)
    alike = table.assign(score=table.groupby("video")["score"].transform("first"))
    found, apart = (uncertainty.group_intervals(each, "group", FEW, auc=False) for each in (alike, table))
    assert found["effective_real"].between(30, 36).all() and apart["effective_real"].gt(100).all()
    assert (apart.eval("fpr_high - fpr_low") < found.eval("fpr_high - fpr_low")).all()
    single = uncertainty.group_intervals(table, "group", replace(FEW, cluster="img_path"), auc=False)
    assert single["effective_fake"].to_numpy() == pytest.approx(240), "images taken for independent"


def test_few_videos_never_have_an_interval_without_width():
    table = video_table(per_cell=6)
    chosen = (table["group"] == GROUPS[0]) & (table["label"] == 0)
    table.loc[chosen, "score"] = 0.01  # no false alarm: the group cannot tell how its frames err together
    row = uncertainty.group_intervals(table, "group", FEW).loc[GROUPS[0]]
    assert row["fpr_low"] == 0 and row["clusters_real"] == 6 and 6 <= row["effective_real"] <= 30
    assert metrics.rate_interval(0, 30, 0.9)[1] < row["fpr_high"] < metrics.rate_interval(0, 6, 0.9)[1]
    fakes = table[(table["label"] == 1) | (table["group"] != GROUPS[0])]
    undefined = uncertainty.group_intervals(fakes, "group", FEW).loc[GROUPS[0]]
    assert undefined[["fpr", "fpr_low", "fpr_high", "effective_real", "auc_low"]].isna().all()
    shown = uncertainty.group_intervals(video_table(per_cell=2, frames=1), "group", FEW)
    assert (shown.eval("fpr_high - fpr_low") > 0.4).all() and (shown.eval("auc_high - auc_low") > 0.4).all()
    one = uncertainty.group_intervals(video_table(per_cell=1), "group", FEW)
    assert (one.eval("fpr_high - fpr_low") > 0.4).all(), "one video tells next to nothing"


tables = st.lists(
    st.tuples(st.sampled_from(GROUPS[:3]), st.integers(0, 1), st.integers(0, 20), st.integers(0, 6)),
    min_size=1,
    max_size=40,
).map(lambda rows: score_table(*zip(*[(g, y, s / 20) for g, y, s, _ in rows], strict=True), [r[3] for r in rows]))


@settings(max_examples=40, deadline=None)
@given(tables)
def test_every_interval_holds_its_estimate(table):
    found = uncertainty.group_intervals(table, "group", FEW)
    for rate in ("fpr", "tpr", "acc", "auc"):
        low, high = (found[f"{rate}_{end}"] for end in ("low", "high"))
        assert (found[rate].isna() | ((low <= found[rate] + 1e-12) & (found[rate] <= high + 1e-12))).all()
        assert (found[rate].isna() | (high > low)).all() and (low.isna() == found[rate].isna()).all()
    gaps = uncertainty.metric_intervals(table, "group", FEW)
    shown = gaps.dropna(subset=["low"])
    assert (shown["low"] <= shown["estimate"]).all() and (shown["estimate"] <= shown["high"] + 1e-12).all()
    assert shown["p_value"].between(0, 1).all() and (gaps["low"].isna() == gaps["estimate"].isna()).all()
    off = uncertainty.against_rest(table, "group", FEW, ("fpr", "tpr", "acc")).dropna(subset=["estimate"])
    assert ((off["low"] <= off["estimate"] + 1e-12) & (off["estimate"] <= off["high"] + 1e-12)).all()


def test_without_auc_the_rest_is_the_same():
    table = video_table(2)
    whole = uncertainty.metric_intervals(table, "group", FEW)
    part = uncertainty.metric_intervals(table, "group", FEW, auc=False)
    pd.testing.assert_frame_equal(part, whole.drop("auc_gap"))
    whole, part = (uncertainty.group_intervals(table, "group", FEW, auc=auc) for auc in (True, False))
    assert set(whole.columns) - set(part.columns) == {"auc_low", "auc_high"}
    floor = permutation.sampling_floor(table, "group", FEW)
    pd.testing.assert_frame_equal(permutation.sampling_floor(table, "group", FEW, auc=False), floor.drop("auc_gap"))


def test_drawn_weights_keep_strata_and_are_multinomial():
    members = np.array([2, 3, 5])
    weights = np.concatenate(list(resampling.drawn_weights(members, [3000, 1000], seed=0)), axis=1)
    assert weights.shape == (10, 4000)
    for part, size in zip(np.split(weights, [2, 5]), members, strict=True):
        assert (part.sum(0) == size).all()
        np.testing.assert_allclose(part.mean(1), 1, atol=0.06)
        np.testing.assert_allclose(part.var(1), 1 - 1 / size, atol=0.08)  # multinomial variance


def test_chunks_do_not_change_the_draws():
    members = np.array([10, 20])
    whole = np.concatenate(list(resampling.drawn_weights(members, [20], seed=4)), axis=1)
    parts = np.concatenate(list(resampling.drawn_weights(members, [7, 13], seed=4)), axis=1)
    np.testing.assert_array_equal(whole, parts)
    assert resampling.chunks(1000, 10**7) == [1] * 1000 and sum(resampling.chunks(2000, 25_000)) == 2000


def test_clusters_are_sorted_by_group_and_label():
    table = video_table(per_cell=3).sample(frac=1, random_state=0)
    data = resampling.clustered(table, "group", FEW)
    assert data.members.tolist() == [3] * 16
    named = pd.DataFrame({"unit": data.unit, "video": table["video"], "group": table["group"], "label": table["label"]})
    assert (named.groupby("unit")["video"].nunique() == 1).all()
    stratum = named.groupby("unit")[["group", "label"]].first().assign(stratum=np.repeat(np.arange(16), 3))
    assert (stratum.groupby("stratum").nunique() == 1).all().all()


def test_undefined_values_are_left_out_of_intervals():
    draws = np.random.default_rng(0).normal(size=200)
    holes = np.where(np.arange(201) % 3 == 1, np.nan, np.append(0.1, draws))
    values = pd.DataFrame(
        {"holes": holes, "unknown": np.append(np.nan, draws), "never": np.append(0.1, draws * np.nan)}
    )
    found = uncertainty.percentiles(values, 0.9)
    np.testing.assert_allclose(found.loc["holes", ["low", "high"]], np.nanquantile(holes[1:], [0.05, 0.95]))
    assert found.loc[["unknown", "never"], ["low", "high"]].isna().all().all()
    p = uncertainty.p_values(values)
    assert 0.5 < p["holes"] <= 1 and p[["unknown", "never"]].isna().all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_p_value_is_the_level_at_which_the_interval_touches_zero(seed):
    rng = np.random.default_rng(seed)
    sample = rng.exponential(size=20) - rng.uniform(0.3, 1.7)
    values = pd.DataFrame({"mean": [sample.mean(), *rng.choice(sample, (4000, 20)).mean(1)]})
    p = uncertainty.p_values(values)["mean"]
    for factor, outside in ((1.3, True), (0.75, False)):  # a little narrower, a little wider
        if p > 0.05 and factor * p < 0.9:
            low, high = uncertainty.percentiles(values, 1 - factor * p).loc["mean", ["low", "high"]]
            assert (low > 0 or high < 0) == outside


def test_a_difference_from_the_rest_is_joined_from_two_rates():
    """Newcombe's example: 56 of 70 against 48 of 80, by his method 10 (of Wilson's intervals); single images."""
    alarms = np.repeat([1, 0, 1, 0], [56, 14, 48, 32])
    table = score_table(np.repeat(["male-white", "male-black"], [70, 80]), 0 * alarms, 0.1 + 0.8 * alarms)
    found = uncertainty.against_rest(table, "group", replace(FEW, level=0.95), ("fpr",))
    row = found.loc["fpr", "male-white"]
    assert (row["estimate"], row["low"], row["high"]) == pytest.approx((0.2, 0.0524, 0.3339), abs=4e-3)
    assert len(found) == 1, "of two groups the second mirrors the first"


def test_against_rest_by_hand():
    table = video_table(1)
    found = uncertainty.against_rest(table, "race", FEW, ("fpr", "acc"))
    for group in ("asian", "white", "black", "others"):
        own, rest = (metrics.overall_metrics(table[rows]) for rows in (table["race"] == group, table["race"] != group))
        for rate in ("fpr", "acc"):
            assert found.loc[(rate, group), "estimate"] == pytest.approx(own[rate] - rest[rate])
    np.testing.assert_allclose(found["p_holm"], permutation.holm(found["p_value"]))
    assert found.index.names == ["rate", "race"]


def test_against_rest_finds_the_wronged_group():
    table = video_table(per_cell=12, frames=3)
    wronged = (table["group"] == "female-black") & (table["label"] == 0)
    table.loc[wronged, "score"] = np.clip(table.loc[wronged, "score"] + 0.5, 0, 1)
    found = uncertainty.against_rest(table, "group", Settings())
    assert found["p_holm"].idxmin() == ("fpr", "female-black")
    assert found.loc[("fpr", "female-black"), "p_holm"] < 0.05 and found.loc[("fpr", "female-black"), "low"] > 0.2


def test_the_same_seed_gives_the_same_numbers():
    table = video_table()
    found = uncertainty.metric_intervals(table, "group", FEW)
    pd.testing.assert_frame_equal(found, uncertainty.metric_intervals(table, "group", FEW))
    assert not found["high"].equals(uncertainty.metric_intervals(table, "group", replace(FEW, seed=1))["high"])


def test_paired_difference_of_like_detectors():
    a = video_table(0, per_cell=10)
    shuffled = a.sample(frac=1, random_state=1)
    same = uncertainty.paired_difference(a, shuffled, "group", FEW)
    np.testing.assert_allclose(same[["estimate", "low", "high"]], 0, atol=1e-12)
    b = a.assign(score=np.clip(a["score"] + 0.2 * (a["gender"] == "male"), 0, 1))
    result, reverse = (
        uncertainty.paired_difference(*pair, "gender", Settings(resamples=200)) for pair in ((a, b), (b, a))
    )
    assert result.loc["fpr", "high"] < 0  # A has fewer false alarms
    np.testing.assert_allclose(result["estimate"], result["a"] - result["b"])
    np.testing.assert_allclose(result.loc[list(METRICS), "b"], metrics.fairness_metrics(b, "gender"))
    assert result.loc["fpr", "p_value"] < 0.01 and same["p_value"].eq(1).all()
    np.testing.assert_allclose(result["p_holm"], permutation.holm(result["p_value"]))
    np.testing.assert_allclose(reverse["p_value"], result["p_value"], atol=0.1)  # other draws
    np.testing.assert_allclose(reverse["low"], -result["high"], atol=0.03)


def test_two_detectors_are_compared_at_thresholds_of_their_own():
    a, b = video_table(0), video_table(1)
    found = uncertainty.paired_difference(a, b, "gender", FEW, threshold_b=0.7)
    np.testing.assert_allclose(found.loc[list(METRICS), "a"], metrics.fairness_metrics(a, "gender"))
    np.testing.assert_allclose(found.loc[list(METRICS), "b"], metrics.fairness_metrics(b, "gender", 0.7))


def test_paired_difference_refuses_other_images_and_labels():
    a = video_table(0)
    with pytest.raises(ScoreTableError, match="3.png is in one only"):
        uncertainty.paired_difference(a, a.drop(index=3), "group", FEW)
    with pytest.raises(ScoreTableError, match="3.png is in one only"):
        uncertainty.paired_difference(a.drop(index=3), a, "group", FEW)
    with pytest.raises(ScoreTableError, match=r"second table lists 0.png twice \(row 320"):
        uncertainty.paired_difference(a, pd.concat([a, a[:1]]), "group", FEW)
    with pytest.raises(ScoreTableError, match="'label' of 0.png differs"):
        uncertainty.paired_difference(a, a.assign(label=1), "group", FEW)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"label_noise": 5}, "label_noise is 5; the share of wrong"),
        ({"threshold": 50}, "threshold is 50; it is compared"),
        ({"level": 95}, "level is 95"),
        ({"cluster": "frame"}, "cluster is 'frame'; use one of video, identity, img_path"),
        ({"fidelity": "exact"}, "fidelity is 'exact'"),
        ({"resamples": 0}, "resamples is 0.*at least 1"),
        ({"permutations": 0}, "permutations is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_settings_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Settings(**wrong)
