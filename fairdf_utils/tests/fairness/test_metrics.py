"""Fairness metrics against the released numbers, scikit-learn, fairlearn, plain loops and hand arithmetic."""

import json
from pathlib import Path

import fairlearn.metrics as fl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.fairness import metrics
from fairdf_utils.fairness.metrics import METRICS, RATES
from fairdf_utils.fairness.score_table import ScoreTableError, video_level
from fairdf_utils.tests.fairness.score_tables import random_table, score_table, video_table

GOLDEN = Path(__file__).parents[3] / ".." / "shared" / "golden"


@pytest.fixture(scope="module")
def golden():
    if not (GOLDEN / "scores.csv").exists():
        pytest.skip("golden vectors are not beside this checkout (../shared/golden)")
    scores = pd.read_csv(GOLDEN / "scores.csv")
    table = score_table(np.array(GROUPS)[scores["group"]], scores["label"], np.full(len(scores), 0.5))
    table["logit_fake"] = scores["logit_fake"]
    return table, json.loads((GOLDEN / "fairness_released.json").read_text())


@pytest.mark.parametrize("by,printed", [("group", "intersection"), ("gender", "gender"), ("race", "race")])
def test_official_fidelity_prints_the_released_numbers(golden, by, printed):
    table, released = golden
    ours = metrics.fairness_metrics(table, by, fidelity="official")
    for theirs, name, percent in [
        ("fpr_sum", "fpr_sum", False),
        ("eo_sum", "eo", False),
        *((name, name, True) for name in ("fpr_gap", "auc_gap", "oae", "dp", "meo")),
    ]:
        value = round(100 * ours[name], 3) if percent else round(ours[name], 5)
        assert value == released[printed][theirs], name


def test_official_overall_numbers(golden):
    table, released = golden
    ours = metrics.overall_metrics(table, fidelity="official")
    for name in ("fpr", "tpr", "acc"):
        assert ours[name] == pytest.approx(released["overall"][name], abs=1e-14)
    # logits in the file have six digits: one of 2.35 million pairs changes sides by the rounding
    assert ours["auc"] == pytest.approx(released["overall"]["auc"], abs=1e-6)


def test_fidelities_differ_in_score_and_in_one_class_groups():
    table = random_table(1, groups=GROUPS[:3], ties=False)
    table = table[~((table["group"] == GROUPS[2]) & (table["label"] == 1))]  # the third group has reals only
    corrected = metrics.fairness_metrics(table)
    official = metrics.fairness_metrics(table, fidelity="official")
    rates = metrics.group_rates(table)
    assert corrected["fpr_gap"] == pytest.approx(rates["fpr"].max() - rates["fpr"].min())
    assert official["fpr_gap"] == pytest.approx(abs(rates["fpr"].iloc[0] - rates["fpr"].iloc[1]))
    assert corrected.attrs["groups"] == dict(zip(METRICS, (3, 3, 2, 3, 3, 2, 2, 2), strict=True))
    assert set(official.attrs["groups"].values()) == {2}
    overall_fpr = metrics.overall_metrics(table)["fpr"]  # uses the reals of the dropped group, too
    assert official["fpr_sum"] == pytest.approx((rates["fpr"].iloc[:2] - overall_fpr).abs().sum())
    table["logit_fake"] = -20.0
    assert metrics.overall_metrics(table, fidelity="official")["tpr"] == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("by", ["gender", "race", "group"])
def test_rates_and_metrics_agree_with_fairlearn_and_sklearn(seed, by):
    table = random_table(seed)
    y, p, threshold = table["label"], (table["score"] >= 0.4).astype(int), 0.4
    frame = fl.MetricFrame(
        metrics={
            "fpr": fl.false_positive_rate,
            "fnr": fl.false_negative_rate,
            "tpr": fl.true_positive_rate,
            "tnr": fl.true_negative_rate,
            "acc": accuracy_score,
            "predicted_fake": fl.selection_rate,
            "n": fl.count,
        },
        y_true=y,
        y_pred=p,
        sensitive_features=table[by],
    )
    ours = metrics.group_rates(table, by, threshold)
    expected = frame.by_group.loc[ours.index].astype(float)
    pd.testing.assert_frame_equal(ours[expected.columns].astype(float), expected, check_names=False)
    for name, part in table.groupby(by):
        assert ours.loc[name, "auc"] == pytest.approx(roc_auc_score(part["label"], part["score"]), abs=1e-12)
    found = metrics.fairness_metrics(table, by, threshold)
    gaps = frame.difference()
    deviation = (frame.by_group - frame.overall).abs().sum()
    features = {"sensitive_features": table[by]}
    assert found["fpr_sum"] == pytest.approx(deviation["fpr"])
    assert found["fpr_gap"] == pytest.approx(gaps["fpr"])
    assert found["tpr_gap"] == pytest.approx(gaps["tpr"])
    assert found["oae"] == pytest.approx(gaps["acc"])
    assert found["dp"] == pytest.approx(fl.demographic_parity_difference(y, p, **features))
    assert found["meo"] == pytest.approx(fl.equalized_odds_difference(y, p, **features))
    assert found["eo"] == pytest.approx(deviation["fpr"] + deviation["tpr"])
    assert found["auc_gap"] == pytest.approx(ours["auc"].max() - ours["auc"].min())
    overall = metrics.overall_metrics(table, threshold)
    assert overall["auc"] == pytest.approx(roc_auc_score(y, table["score"]))
    assert overall["ap"] == pytest.approx(average_precision_score(y, table["score"]))
    assert overall["acc"] == pytest.approx(accuracy_score(y, p))
    assert overall["fpr"] == pytest.approx(frame.overall["fpr"])


def test_threshold_is_inclusive():
    table = score_table(["male-white", "male-white"], [0, 1], [0.5, 0.5])
    assert metrics.overall_metrics(table, 0.5)[["fpr", "tpr"]].tolist() == [1, 1]


def test_equal_error_rate_by_hand():
    # sorted scores: the 3rd highest of 4 reals and of 4 fakes are crossed at one error in four
    table = score_table(["male-white"] * 8, [0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.8, 0.25, 0.7, 0.85, 0.9])
    assert metrics.overall_metrics(table)["eer"] == pytest.approx(0.25)
    # all scores equal: the ROC curve is the diagonal
    assert metrics.overall_metrics(table.assign(score=0.3))["eer"] == pytest.approx(0.5)


def test_undefined_rates_are_named_with_reason_and_n():
    table = score_table(["male-white", "male-white", "male-asian", "female-black"], [0, 1, 1, 0], [0.2, 0.9, 0.8, 0.7])
    rates = metrics.group_rates(table)
    assert rates.index.tolist() == ["male-asian", "male-white", "female-black"]
    assert np.isnan(rates.loc["male-asian", ["fpr", "tnr", "auc"]].astype(float)).all()
    assert rates.loc["male-asian", "tpr"] == 1 and rates.loc["male-asian", "n_fake"] == 1
    assert metrics.undefined_rates(table) == [
        "group male-asian: undefined FPR, TNR and AUC: no reals (n = 1, all fake).",
        "group female-black: undefined FNR, TPR and AUC: no fakes (n = 1, all real).",
    ]
    assert metrics.undefined_rates(random_table(0), "gender") == []
    table["group"] = pd.Categorical(table["group"], GROUPS)  # expected groups without any image stay visible
    empty = metrics.group_rates(table).loc["female-others"]
    assert empty["n"] == 0 and np.isnan(empty["acc"]) and "no images" in empty["undefined"]


def test_metrics_of_one_class_are_undefined_not_zero():
    table = random_table(0)
    reals = table[table["label"] == 0]
    found = metrics.fairness_metrics(reals)
    assert found[["tpr_gap", "meo", "eo", "auc_gap"]].isna().all()
    assert found[["fpr_sum", "fpr_gap", "oae", "dp"]].notna().all()
    assert metrics.overall_metrics(reals)[["auc", "ap", "tpr", "eer"]].isna().all()
    one_group = metrics.fairness_metrics(table[table["gender"] == "male"], "gender")
    assert one_group.isna().all()


tables = st.lists(
    st.tuples(st.sampled_from(GROUPS[:4]), st.integers(0, 1), st.integers(0, 20)), min_size=1, max_size=40
).map(lambda rows: score_table(*zip(*[(g, y, s / 20) for g, y, s in rows], strict=True)))


@settings(max_examples=60, deadline=None)
@given(tables)
def test_invariants_of_any_table(table):
    found = metrics.fairness_metrics(table)
    counts = found.attrs["groups"]
    assert all(np.isnan(found[name]) == (counts[name] < 2) for name in METRICS)
    gaps = found.drop(["fpr_sum", "eo"]).dropna()
    assert ((gaps >= 0) & (gaps <= 1)).all()
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_series_equal(metrics.fairness_metrics(shuffled), found)
    rates = metrics.group_rates(table)
    assert (rates["n_real"] + rates["n_fake"] == rates["n"]).all() and rates["n"].sum() == len(table)
    np.testing.assert_allclose(rates["fpr"] + rates["tnr"], np.where(rates["n_real"] > 0, 1, np.nan))
    assert ((rates["undefined"] == "") == (rates["auc"].notna())).all()
    # the same scores for everybody: no metric shows a difference
    same = metrics.fairness_metrics(table.assign(score=0.7))
    assert (same.drop(["oae", "auc_gap"]).dropna().abs() < 1e-12).all()


def test_videos_of_two_data_sets_with_one_name_are_two_clusters():
    table = video_table(frames=1)
    twice = pd.concat([table, table.assign(dataset="dfd")], ignore_index=True)
    assert metrics.group_rates(twice)["n_videos"].sum() == 2 * len(table)


@pytest.mark.parametrize("k,n,low,high", [(0, 10, 0, 0.27754), (1, 10, 0.01788, 0.40415), (81, 263, 0.2553, 0.3662)])
def test_wilson_interval_published_values(k, n, low, high):
    # 81 of 263: Newcombe 1998, table I; the first two by hand from the formula
    np.testing.assert_allclose(metrics.rate_interval(k, n), (low, high), atol=5e-5)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_wilson_interval_agrees_with_scipy(level):
    binomtest = pytest.importorskip("scipy.stats").binomtest
    k, n = np.array([0, 1, 17, 40, 40]), np.array([3, 8, 40, 41, 40])
    low, high = metrics.rate_interval(k, n, level)
    for i in range(len(k)):
        theirs = binomtest(k[i], n[i]).proportion_ci(level, "wilson")
        assert (low[i], high[i]) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_interval_of_none_and_all_reaches_the_end_exactly():
    n = np.arange(1, 400)
    assert (metrics.rate_interval(0 * n, n)[0] == 0).all() and (metrics.rate_interval(n, n)[1] == 1).all()


def test_wilson_interval_without_trials_is_undefined():
    assert np.isnan(metrics.rate_interval(0, 0)).all()
    with pytest.raises(ValueError, match="0 <= k <= n"):
        metrics.rate_interval(3, 2)


def test_any_column_groups_the_images():
    table = random_table(0).assign(
        age=lambda t: np.arange(len(t)) % 3 * 10, glasses=lambda t: np.arange(len(t)) % 2 == 0
    )
    for by in ("age", "glasses"):
        rates = metrics.group_rates(table, by)
        for name, part in table.groupby(by):
            assert rates.loc[name, "fpr"] == pytest.approx((part.loc[part["label"] == 0, "score"] >= 0.5).mean())
    assert metrics.group_rates(table, "age").index.tolist() == [0, 10, 20]
    as_category = table.assign(group=table["group"].astype("category"))
    pd.testing.assert_frame_equal(
        metrics.group_rates(as_category).loc[list(GROUPS)], metrics.group_rates(table), check_index_type=False
    )
    assert metrics.fairness_metrics(table, auc=False).equals(metrics.fairness_metrics(table).drop("auc_gap"))


def test_rates_of_a_table_by_hand():
    counts = np.array([[6.0, 2.0], [1.0, 3.0]])  # tn, fp; fn, tp
    expected = {"fpr": 2 / 8, "tnr": 6 / 8, "fnr": 1 / 4, "tpr": 3 / 4, "acc": 9 / 12, "predicted_fake": 5 / 12}
    assert metrics.rates_of(counts) == pytest.approx(expected)
    assert set(RATES) == {*expected, "auc"}


@pytest.mark.parametrize("fidelity", ["corrected", "official"])
def test_video_level_metrics_are_those_of_mean_frame_scores(fidelity):
    table = video_table(3)
    score = table["score"] if fidelity == "corrected" else 1 / (1 + np.exp(-table["logit_fake"]))
    mean = score.groupby(table["video"]).mean()
    videos = table.groupby("video")[["label", "group"]].first().assign(called=mean >= 0.5)
    rates = metrics.group_rates(video_level(table), "group", fidelity=fidelity)
    expected = videos.groupby(["label", "group"])["called"].mean()
    np.testing.assert_allclose(rates["fpr"], expected[0].loc[rates.index])
    np.testing.assert_allclose(rates["tpr"], expected[1].loc[rates.index])
    assert (rates["n"] == rates["n_videos"]).all()


FAULTS = {
    "no column 'ethnicity'; it has: img_path": (lambda t: t, "ethnicity"),
    "no column 'intersection'.*is called 'group'": (lambda t: t, "intersection"),
    "no column 'score'": (lambda t: t.drop(columns="score"), "group"),
    "'score' is empty in 1 row, first in row 2": (lambda t: t.assign(score=t["score"].where(t.index != 2)), "group"),
    "'score', row 1 .counted from 0.: 1.7": (lambda t: t.assign(score=t["score"].where(t.index != 1, 1.7)), "group"),
    "'score', row 0 .*high is not allowed": (lambda t: t.assign(score="high"), "group"),
    "'label', row 0 .*2": (lambda t: t.assign(label=2), "group"),
    "'race' is empty": (lambda t: t.assign(race=None), "race"),
    "score table is empty": (lambda t: t[:0], "group"),
    "no column 'video'.*copy img_path": (lambda t: t.drop(columns="video"), "group"),
}


@pytest.mark.parametrize("message", FAULTS)
def test_faulty_tables_are_refused(message):
    spoil, by = FAULTS[message]
    with pytest.raises(ScoreTableError, match=message):
        metrics.group_rates(spoil(random_table(0)), by)


def test_faulty_arguments_are_refused():
    table = random_table(0)
    with pytest.raises(ValueError, match="threshold is 50"):
        metrics.fairness_metrics(table, threshold=50)
    with pytest.raises(ValueError, match="fidelity is 'exact'"):
        metrics.fairness_metrics(table, fidelity="exact")
    with pytest.raises(ScoreTableError, match="logit_fake.*finite"):
        metrics.fairness_metrics(table.assign(logit_fake=np.inf), fidelity="official")
