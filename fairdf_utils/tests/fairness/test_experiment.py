"""Means over runs, paired differences over runs and the rule of a win: by hand, against SciPy, at its edges."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from fairdf_utils.fairness import experiment

SETS = ("ffpp", "dfdc", "celebdf", "dfd")


def comparisons(metric, *means, spread=0.01, runs=6):
    """Paired differences of one metric: a mean for each test set, `runs` runs around it."""
    off = np.resize([-spread, spread], runs)
    rows = [
        ("balanced", "ours", name, metric, mean + one) for name, mean in zip(SETS, means, strict=True) for one in off
    ]
    return pd.DataFrame(rows, columns=["reference", "detector", "dataset", "metric", "estimate"])


def won(*parts):
    return experiment.wins(experiment.pooled(pd.concat(parts)))["win"].droplevel([0, 1]).to_dict()


EQUAL_AUC = comparisons("auc", 0, 0, 0, 0)


def test_the_interval_is_that_of_a_t_test():
    rows = comparisons("worst_auc", 0.03, 0.0, -0.02, 0.1, runs=5)
    rows["estimate"] += np.random.default_rng(0).normal(0, 0.02, len(rows))
    found = experiment.pooled(rows, 0.9)
    for name, values in rows.groupby("dataset")["estimate"]:
        row, test = found.loc[("balanced", "ours", name, "worst_auc")], ttest_1samp(values, 0)
        assert row["runs"] == 5 and row["mean"] == pytest.approx(values.mean())
        assert row[["low", "high"]].tolist() == pytest.approx(list(test.confidence_interval(0.9)))
        assert (row["better"] or row["worse"]) == (test.pvalue < 0.1)


def test_three_sets_of_four_win_and_a_lower_auc_loses():
    three, two = comparisons("worst_auc", 0.1, 0.1, 0.1, -0.2), comparisons("worst_auc", 0.1, 0.1, 0.001, 0.001)
    assert won(three, EQUAL_AUC) == {"worst_auc": True} and won(two, EQUAL_AUC) == {"worst_auc": False}
    assert won(three, comparisons("auc", 0.1, 0.1, 0.1, -0.1)) == {"worst_auc": False}
    fairer = comparisons("fpr_sum_matched", -0.3, -0.3, -0.3, -0.3)  # smaller is better
    assert won(fairer, three, EQUAL_AUC) == {"fpr_sum_matched": True, "worst_auc": True}
    assert won(fairer.assign(estimate=-fairer["estimate"]), EQUAL_AUC) == {"fpr_sum_matched": False}


def test_one_run_has_no_interval_and_wins_nothing():
    found = experiment.pooled(pd.concat([comparisons("worst_auc", 0.1, 0.1, 0.1, np.nan, runs=1), EQUAL_AUC]))
    alone = found.xs("worst_auc", level="metric")
    assert alone[["low", "high"]].isna().all(axis=None) and not alone[["better", "worse"]].any(axis=None)


def test_sentences_say_who_wins_and_who_loses():
    better = comparisons("worst_auc", 0.1, 0.1, 0.1, -0.2), comparisons("fpr_sum_matched", 0, 0, 0, 0), EQUAL_AUC
    theirs = comparisons("worst_auc", -0.1, -0.1, -0.1, 0).assign(detector="theirs")
    nobody = pd.concat([EQUAL_AUC, comparisons("worst_auc", 0, 0, 0, 0)]).assign(detector="other")
    found = experiment.pooled(pd.concat([*better, theirs, EQUAL_AUC.assign(detector="theirs"), nobody]))
    assert experiment.win_sentences(found) == [
        "Against balanced by worst-group AUC, win: ours; lose: theirs; not shown: other.",
        "Against balanced by F_FPR at 10 % FPR, win: nobody; lose: nobody; not shown: ours.",
    ]
    row = experiment.wins(found).loc[("balanced", "ours", "worst_auc")]
    assert row[["runs", "better", "worse", "auc_lower"]].tolist() == [6, 3, 1, 0]


def test_fewer_than_six_runs_are_no_win():
    parts = [comparisons(name, 0.1, 0.1, 0.1, 0.1, runs=5) for name in ("worst_auc", "auc")]
    assert won(*parts) == {"worst_auc": False}


def claim(number, *parts):
    (said,) = (v for k, v in experiment.hypotheses(experiment.pooled(pd.concat(parts))).items() if k.startswith(number))
    return said


def test_hypotheses_are_asked_of_rows_that_are_there_in_either_direction():
    def pair(detector, reference, *means):
        rows = pd.concat([comparisons("worst_auc", *means), EQUAL_AUC])
        return rows.assign(detector=detector, reference=reference)

    up, down, same = (0.1, 0.1, 0.1, 0), (-0.1, -0.1, -0.1, 0), (0, 0, 0, 0)
    assert claim("H1", pair("fairdf", "ori", *up)) == "shown by fairdf"
    assert claim("H1", pair("ori", "fairdf", *up)) == claim("H1", pair("fairdf", "ori", *down)) == "refuted"
    assert claim("H1", pair("fairdf", "ori", *same)) == "not shown" and claim("H3", pair("a", "b", *up)) == "not asked"
    assert claim("H5", pair("fairdf-nobranch", "fairdf-nosam", *down)) == "shown by fairdf-nosam"
    grouped = [pair("fairdf-grouped", name, *up) for name in ("balanced", "balanced-long")]
    worse = [pair("fairdf", name, *down) for name in ("balanced", "balanced-long")]
    assert claim("H2", *grouped, *worse) == "shown by fairdf-grouped"
    assert claim("H2", grouped[0], *worse) == "not shown"  # against one of the two is not enough
    assert claim("H2", *worse) == "refuted" and claim("H2", worse[0]) == "not shown"


def test_leaders_by_the_mean_and_whether_runs_overlap():
    runs = pd.DataFrame(
        {"detector": ["a", "a", "b", "b", "c"], "dataset": "ffpp", "worst_auc": [0.8, 0.9, 0.6, 0.7, np.nan]}
    ).assign(auc=[0.9, 0.7, 0.8, 0.9, 0.99])
    assert experiment.leaders(runs) == [
        "Highest worst-group AUC (%): ffpp a 85.0 ± 7.1, then b 65.0 ± 7.1 (runs apart).",
        "Highest AUC (%): ffpp c 99.0, then b 85.0 ± 7.1.",
    ]
    overlapping = runs.assign(fpr_sum_matched=[0.2, 0.4, 0.3, 0.5, 0.9])
    assert "Lowest F_FPR at 10 % FPR (%): ffpp a 30.0 ± 14.1, then b 40.0 ± 14.1 (runs overlap)." in experiment.leaders(
        overlapping
    )
    assert experiment.leaders(runs.assign(worst_auc=np.nan, auc=np.nan)) == []  # no group large enough


def test_plus_minus_of_one_run_and_of_none():
    assert experiment.plus_minus(pd.Series([0.5])) == "50.0" and experiment.plus_minus(pd.Series([np.nan])) == ""
