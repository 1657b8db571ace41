"""Metrics at all thresholds against one call each; fitted thresholds against a search through all of them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.fairness import metrics, thresholds
from fairdf_utils.fairness.score_table import ScoreTableError
from fairdf_utils.tests.fairness.score_tables import random_table, score_table, video_table


@pytest.mark.parametrize("fidelity", ["corrected", "official"])
@pytest.mark.parametrize("by", ["group", "gender"])
def test_all_thresholds_equal_one_call_each(fidelity, by):
    table = random_table(2, n=150)
    table["logit_fake"] += 0.3  # so that the two fidelities differ
    table = table[~((table["group"] == GROUPS[2]) & (table["label"] == 1))]  # one group with reals only
    curve = thresholds.metrics_by_threshold(table, by, fidelity=fidelity)
    for cut in [*curve.index[::17], curve.index[-1]]:
        expected = metrics.fairness_metrics(table, by, cut, fidelity, auc=False)
        np.testing.assert_allclose(curve.loc[cut, expected.index], expected, atol=1e-12)
        overall = metrics.overall_metrics(table, cut, fidelity)
        np.testing.assert_allclose(curve.loc[cut, ["acc", "fpr", "tpr"]], overall[["acc", "fpr", "tpr"]], atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_cuts_make_every_decision_once(score):
    score = np.array(score)
    cuts = thresholds.cuts(score)
    called = [tuple(score >= cut) for cut in cuts]
    assert len(set(called)) == len(called) and (np.diff(cuts) > 0).all() and cuts[0] == 0 and cuts[-1] <= 1
    assert len(cuts) == len(np.unique(score)) + (score.max() < 1)


def test_given_thresholds_are_used_as_they_are():
    table = score_table(["male-white", "female-white"] * 2, [0, 0, 1, 1], [0.2, 0.5, 0.5, 0.9])
    curve = thresholds.metrics_by_threshold(table, "gender", [0.5, 0.500001])
    assert curve["fpr"].tolist() == [0.5, 0] and curve["tpr"].tolist() == [1, 0.5]
    assert curve["fpr_gap"].tolist() == [1, 0]


scores = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 19)), min_size=2, max_size=40).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@settings(max_examples=80, deadline=None)
@given(scores, st.floats(0, 1))
def test_fitted_thresholds_are_the_best_of_all(rows, value):
    label, score = np.array(rows).T
    table = score_table(["male-white"] * len(label), label, score / 20)
    curve = thresholds.metrics_by_threshold(table)
    at = {"eer": thresholds.fit_threshold(table)}
    at |= {target: thresholds.fit_threshold(table, target, value) for target in ("fpr", "tpr")}
    reached = {target: metrics.overall_metrics(table, cut) for target, cut in at.items()}
    off = (curve["fpr"] - (1 - curve["tpr"])).abs()
    assert abs(reached["eer"]["fpr"] - (1 - reached["eer"]["tpr"])) == pytest.approx(off.min())
    # as many fakes found as the FPR allows, as few alarms as the TPR allows
    assert reached["fpr"]["fpr"] <= value and reached["fpr"]["tpr"] == curve["tpr"][curve["fpr"] <= value].max()
    assert reached["tpr"]["tpr"] >= value and reached["tpr"]["fpr"] == curve["fpr"][curve["tpr"] >= value].min()


def test_a_curve_of_many_scores_keeps_some_thresholds_and_both_ends(monkeypatch):
    table = random_table(4, ties=False)
    whole = thresholds.metrics_by_threshold(table)
    monkeypatch.setattr(thresholds, "FINE", 50)
    some = thresholds.metrics_by_threshold(table)
    assert len(whole) == 401 and len(some) == 50
    pd.testing.assert_frame_equal(some, whole.loc[some.index])
    assert some.index[[0, -1]].tolist() == whole.index[[0, -1]].tolist()


def test_thresholds_lie_half_way_between_scores():
    table = score_table(["male-white"] * 4, [0, 0, 1, 1], [0.1, 0.4, 0.6, 0.9])
    assert thresholds.fit_threshold(table) == pytest.approx(0.5)
    assert thresholds.fit_threshold(table, "fpr", 0.5) == pytest.approx(0.25)
    assert thresholds.fit_threshold(table, "tpr", 0.5) == pytest.approx(0.75)


@pytest.mark.parametrize("fidelity", ["corrected", "official"])
def test_group_thresholds_reach_the_target_in_every_group(fidelity):
    table = video_table(per_cell=10)
    table["logit_fake"] += 1.5 * (table["gender"] == "male") + 0.4
    table["score"] = 1 / (1 + np.exp(-table["logit_fake"] + 0.4))
    own = thresholds.fit_group_thresholds(table, "group", "fpr", 0.1, fidelity)
    assert own.attrs["borrowed"] == [] and list(own.index) == list(GROUPS)
    rates = metrics.group_rates(table, "group", own, fidelity)
    np.testing.assert_allclose(rates["fpr"], 0.1)  # 50 reals a group: five of them
    before = metrics.fairness_metrics(table, "group", thresholds.fit_threshold(table, "fpr", 0.1, fidelity), fidelity)
    assert (
        metrics.fairness_metrics(table, "group", own, fidelity)["fpr_gap"] == pytest.approx(0)
        and before["fpr_gap"] > 0.1
    )
    for name, part in table.groupby("group"):
        assert own[name] == thresholds.fit_threshold(part, "fpr", 0.1, fidelity)


def test_a_threshold_for_all_for_each_group_and_for_each_image_decide_alike():
    table = random_table(6)
    of_groups = pd.Series(np.linspace(0.2, 0.9, len(GROUPS)), GROUPS)
    of_images = table["group"].map(of_groups).to_numpy()
    for judged in (metrics.group_rates, metrics.fairness_metrics):
        a, b = judged(table, "group", of_groups), judged(table, "group", of_images)
        assert a.equals(b)
        assert judged(table, "group", 0.4).equals(judged(table, "group", np.full(len(table), 0.4)))
    called = table["score"] >= of_images
    rates = metrics.group_rates(table, "group", of_groups)
    expected = called[table["label"] == 0].groupby(table["group"]).mean()
    np.testing.assert_allclose(rates["fpr"], expected.loc[rates.index])
    assert metrics.overall_metrics(table, of_images)["tpr"] == called[table["label"] == 1].mean()
    with pytest.raises(ValueError, match="no column of the groups"):
        metrics.overall_metrics(table, of_groups)
    with pytest.raises(ValueError, match="3 thresholds for 400 images"):
        metrics.group_rates(table, "group", np.zeros(3))
    with pytest.raises(ValueError, match="threshold is 2"):
        metrics.group_rates(table, "group", of_groups + 2)


def test_groups_that_cannot_be_fitted_borrow_the_common_threshold():
    table = video_table()
    table = table[~((table["group"] == GROUPS[0]) & (table["label"] == 0))]
    own = thresholds.fit_group_thresholds(table, "group", "fpr", 0.2)
    assert own.attrs["borrowed"] == [GROUPS[0]]
    assert own[GROUPS[0]] == thresholds.fit_threshold(table, "fpr", 0.2)


def test_operating_points_are_chosen_on_validation_alone():
    validation, test = video_table(0, per_cell=8), video_table(1, per_cell=8)
    table = thresholds.operating_points(validation, test, "gender", {"a quarter": ("fpr", 0.25)}, threshold=0.4)
    assert table.index.tolist() == ["as given", "a quarter"]
    assert table.loc["as given", "fpr"] == metrics.overall_metrics(test, 0.4)["fpr"]
    cut = thresholds.fit_threshold(validation, "fpr", 0.25)
    fitted = table.loc["a quarter"]
    assert fitted["threshold"] == cut and fitted["fpr"] == metrics.overall_metrics(test, cut)["fpr"] != 0.25
    assert fitted["fpr_gap"] == metrics.fairness_metrics(test, "gender", cut)["fpr_gap"]
    other = thresholds.operating_points(validation, test.assign(label=1 - test["label"]), "gender")
    again = thresholds.operating_points(validation, test, "gender")
    pd.testing.assert_series_equal(other["threshold"], again["threshold"])


def test_a_group_without_a_threshold_is_refused():
    validation = video_table(0)
    rest = validation[validation["group"] != GROUPS[3]]
    with pytest.raises(ScoreTableError, match="No threshold for male-others of column 'group'"):
        metrics.fairness_metrics(video_table(1), "group", thresholds.fit_group_thresholds(rest))


def test_impossible_targets_are_refused():
    table = random_table(0)
    with pytest.raises(ValueError, match="target is 'auc'; use one of eer, fpr, tpr"):
        thresholds.fit_threshold(table, "auc")
    with pytest.raises(ValueError, match="'fpr' with value 10"):
        thresholds.fit_threshold(table, "fpr", 10)
    with pytest.raises(ScoreTableError, match="no threshold for eer: the table has no fakes"):
        thresholds.fit_threshold(table[table["label"] == 0])
    certain = score_table(["male-white"] * 4, [0, 0, 1, 1], [0.2, 1, 1, 1])
    with pytest.raises(ScoreTableError, match="brings the FPR to 0.1: the lowest is 0.5"):
        thresholds.fit_threshold(certain, "fpr", 0.1)
