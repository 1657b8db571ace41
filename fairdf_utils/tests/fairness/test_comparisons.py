"""Two detectors are compared by rule, and at a common FPR only where there is one."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fairdf_utils.fairness import metrics, thresholds
from fairdf_utils.fairness.comparisons import COMMON, QUESTIONS, SEEN, compare, compared, comparison_sentences
from fairdf_utils.fairness.score_table import log_odds
from fairdf_utils.fairness.uncertainty import Settings
from fairdf_utils.tests.fairness.score_tables import planted_table

QUICK = Settings(resamples=100, permutations=20)
KEYS = {"detector": "b", "reference": "a", "seed": 0}
PLANTED = {"male-x": (20, 20), "female-x": (20, 20)}
A = planted_table(PLANTED, raised=["male-x"]).assign(dataset="ffpp").reset_index(names="img_path")
B = A.assign(score=A["score"] ** 1.2)  # same order: at a common FPR nothing is left between them
ON = planted_table(PLANTED, raised=["male-x"], seed=5)
VALIDATION = (ON.assign(score=ON["score"] ** 1.2), ON)  # of B and of A


def judged(b, a, validation=VALIDATION, **given):
    rows, failures = compare(b, a, "gender", QUICK, validation)
    assert failures == []
    return compared(rows.assign(**{**KEYS, "dataset": "dfd", **given}), 0.95)


def verdicts(rows):
    return rows.set_index(["metric", "at"])["verdict"].to_dict()


def test_the_thresholds_of_a_common_fpr_are_fitted_on_validation():
    rows, _ = compare(B, A, "gender", QUICK, VALIDATION)
    target = metrics.overall_metrics(ON)["fpr"]
    cuts = [thresholds.fit_threshold(table, "fpr", target) for table in VALIDATION]
    row = rows.set_index(["at", "metric"]).loc[(COMMON, "fpr_sum")]
    for side, table, cut in (("a", B, cuts[0]), ("b", A, cuts[1])):
        assert row[side] == metrics.fairness_metrics(table, "gender", cut)["fpr_sum"]
        assert row[f"fpr_{side}"] == metrics.overall_metrics(table, cut)["fpr"]


def test_fewer_alarms_are_no_advantage_at_a_common_fpr():
    low = A.assign(score=A["score"] ** 4)
    found = verdicts(
        judged(
            low, A, tuple(one.assign(score=ON["score"] ** power) for one, power in zip(VALIDATION, (4, 1), strict=True))
        )
    )
    assert found["fpr_sum", "threshold"] == "lower"
    assert found["fpr_sum", COMMON] == found["fpr_sum", SEEN] == "undecided"


def test_thresholds_that_did_not_travel_give_no_verdict():
    """On the test set B calls far fewer real images fake than on validation: its smaller gap is no merit."""
    rows = judged(A.assign(score=A["score"] ** 8), A)
    found = verdicts(rows)
    assert found["fpr_sum", COMMON] == "did not travel" and found["fpr_sum", SEEN] == "undecided"
    row = rows[(rows["metric"] == "fpr_sum") & (rows["at"] == COMMON)].iloc[0]
    assert np.isnan(row["p_holm"]) and row["p_value"] < 0.05, "without the rule there would be a verdict"
    text = f"the thresholds did not travel to dfd (FPR {100 * row['fpr_a']:.1f} % and {100 * row['fpr_b']:.1f} %)."
    assert f"b against a, F_FPR at a common FPR: {text}" in comparison_sentences(rows)


@pytest.mark.parametrize(("other", "said"), [(0.25, "lower"), (0.26, "did not travel")])
def test_fprs_agree_within_five_points(other, said):
    one = {"metric": "fpr_sum", "at": COMMON, "estimate": -0.1, "p_value": 0.01, "fpr_a": 0.2, "fpr_b": other}
    rows = compared(pd.DataFrame([{**KEYS, **one, "dataset": "dfd"}]), 0.95)
    assert list(rows["verdict"]) == [said]


def test_without_validation_only_the_marked_reading_is_left():
    rows = judged(B, A, None)
    assert set(rows["at"]) == {"threshold", SEEN}
    assert any("F_FPR at a common FPR (test labels seen)" in text for text in comparison_sentences(rows))


def test_what_is_undefined_is_not_undecided():
    """The worst group is one of at least two that are large enough."""
    small = A[(A["gender"] == "male") | A["video"].str.endswith("/3")]
    rows = judged(small.assign(score=small["score"] ** 1.2), small)
    found = verdicts(rows)
    assert found["worst_auc", "threshold"] == "undefined" and found["auc", "threshold"] == "undecided"
    assert "b against a, worst-group AUC: cannot be judged on dfd." in comparison_sentences(rows)


def test_without_real_images_there_is_no_common_fpr():
    fakes = tuple(table[table["label"] == 1] for table in VALIDATION)
    _, failures = compare(B, A, "gender", QUICK, fakes)
    assert len(failures) == 1 and "the table has no reals" in failures[0]


def test_a_common_fpr_is_one_of_the_scores_that_are_judged():
    a, b = (table.assign(logit_real=0.0, logit_fake=log_odds(table["score"]) - 1) for table in (A, B))
    rows, _ = compare(b, a, "gender", replace(QUICK, fidelity="official"), None)
    row = rows.set_index(["at", "metric"]).loc[(SEEN, "fpr")]
    assert row["a"] == row["b"] == metrics.overall_metrics(a, fidelity="official")["fpr"]


def test_scores_of_two_values_have_no_common_fpr():
    """One threshold between the two values is all there is, and A's decisions are other ones."""
    decisions = A.assign(score=np.where(A["score"] >= 0.1, 0.9, 0.1))
    assert verdicts(judged(A.assign(score=1 - decisions["score"]), decisions, None))["fpr_sum", SEEN] == "no common FPR"


def test_the_main_numbers_come_first():
    asked = list(dict.fromkeys(judged(B, A)["metric"]))
    assert asked == ["worst_auc", "worst_tpr", "fpr_sum", "auc"]


def test_what_cannot_be_fitted_is_said():
    fakes = A[A["label"] == 1]
    rows, failures = compare(fakes, fakes, "gender", QUICK)
    assert set(rows["at"]) == {"threshold"} and "Nothing is compared at a common FPR" in failures[0]


def test_each_question_is_corrected_alone_and_seeds_are_counted():
    worse = A.assign(score=np.where(A["label"] == 1, A["score"] ** 3, A["score"]))
    one, _ = compare(worse, A, "gender", QUICK)
    every = [one.assign(**{**KEYS, "seed": seed, "dataset": name}) for seed in (0, 1) for name in ("dfd", "ffpp")]
    rows = compared(pd.concat(every, ignore_index=True), 0.95)
    assert np.allclose(rows["p_holm"], np.minimum(1, 2 * rows["p_value"]))
    assert "b against a, AUC: lower on dfd 2/2, ffpp 2/2." in comparison_sentences(rows)
    places = [list(QUESTIONS.values()).index(question) for question in rows["question"]]
    assert places == sorted(places)
    assert comparison_sentences(compared(rows[:0], 0.95)) == []
