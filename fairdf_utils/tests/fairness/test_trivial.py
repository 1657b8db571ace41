"""Trivial predictors win the paper's scores, and never the main numbers."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from fairdf_utils.fairness.resampling import Settings
from fairdf_utils.fairness.trivial import trivial_rows, trivial_scores
from fairdf_utils.fairness.worst_group import COLUMNS, COMMON_FPR, WORST, main_numbers
from fairdf_utils.tests.fairness.score_tables import planted_table, score_table

GROUPS = ("male-white", "male-black", "female-white", "female-black")
JUDGED = Settings()


@st.composite
def honest_tables(draw):
    """Scores of a detector that sees the truth in every group, some better, some with more false alarms than others."""
    sizes = draw(st.lists(st.integers(40, 150), min_size=2, max_size=4))
    means = draw(st.lists(st.floats(1.5, 3), min_size=len(sizes), max_size=len(sizes)))
    offsets = draw(st.lists(st.floats(-0.2, 0.2), min_size=len(sizes), max_size=len(sizes)))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    group, label = (np.concatenate([np.repeat(code, 2 * size) for code, size in enumerate(sizes)]),
                    np.concatenate([np.repeat([0, 1], size) for size in sizes]))  # fmt: skip
    logit = np.array(offsets)[group] + (np.array(means)[group]) * (label - 0.5) + rng.normal(size=len(label))
    return score_table(np.array(GROUPS)[group], label, norm.cdf(logit))


@settings(max_examples=60, deadline=None)
@given(honest_tables())
def test_no_trivial_predictor_beats_an_honest_detector_by_the_main_numbers(table):
    honest, trivial = main_numbers(table, "group", JUDGED), trivial_rows(table, "group", JUDGED)
    assert trivial.index.tolist() == ["always real", "always fake", "coin", "shuffled scores"]
    assert (trivial[list(WORST)] < honest[list(WORST)]).all().all()
    constants = trivial.loc[["always real", "always fake"]]
    np.testing.assert_allclose(constants[list(WORST)], np.tile([0.5, COMMON_FPR], (2, 1)))
    assert (constants[["fpr_sum", "dp", "meo"]] == 0).all().all(), "nobody is fairer by F_FPR"


def test_who_knows_only_the_group_stays_where_a_constant_is():
    """One score for each group: no order inside a group, and as many fakes as real images are called fake in each."""
    table = planted_table(dict.fromkeys(GROUPS, (20, 20)))
    for scores in np.random.default_rng(0).random((20, 4)):
        known = table.assign(score=table["group"].map(dict(zip(GROUPS, scores, strict=True))))
        found = main_numbers(known, "group", JUDGED)
        assert found["worst_auc"] == 0.5 and found["worst_tpr"] <= COMMON_FPR + 1e-12


def test_levelling_down_does_not_raise_the_main_numbers():
    """The better group gets as many false alarms as the other: F_FPR falls, and nobody is served better."""
    sizes = {"male-white": (60, 60), "female-white": (60, 60)}
    tables = (planted_table(sizes, raised=raised) for raised in (("male-white",), tuple(sizes)))
    before, after = (main_numbers(table, "gender", JUDGED) for table in tables)
    assert after["fpr_sum"] < before["fpr_sum"] / 2 and (after[list(WORST)] <= before[list(WORST)]).all()


def test_shuffled_scores_are_the_detectors_own_and_seeded():
    table = planted_table(dict.fromkeys(GROUPS, (20, 20)))
    once, again, other = (trivial_scores(table, seed) for seed in (0, 0, 1))
    assert sorted(once["shuffled scores"]) == sorted(table["score"])
    np.testing.assert_equal(once, again)
    assert (once["coin"] != other["coin"]).any() and (once["shuffled scores"] != other["shuffled scores"]).any()


def test_the_blur_meter_is_fitted_on_validation_only():
    """Where forgeries blur in validation, a blurred image is called fake in the test set, whatever is true there."""
    validation = planted_table(dict.fromkeys(GROUPS, (20, 20)))
    validation["laplacian_variance"] = np.where(validation["label"] == 1, 50.0, 200.0)
    test = validation.assign(label=1 - validation["label"])
    blur = trivial_scores(test, 0, validation)["blur meter"]
    assert roc_auc_score(test["label"], blur) == 0 and roc_auc_score(validation["label"], blur) == 1
    assert "blur meter" in trivial_rows(test, "group", JUDGED, validation).index
    for incomplete in (None, validation.drop(columns="laplacian_variance"), validation[validation["label"] == 1]):
        assert "blur meter" not in trivial_scores(test, 0, incomplete)


def test_rows_are_what_both_conventions_make_of_the_scores():
    """The official score is the sigmoid of the fake class's logit, which must follow."""
    table = planted_table(dict.fromkeys(GROUPS, (20, 20))).assign(logit_fake=0.0)
    rows = [trivial_rows(table, "group", Settings(fidelity=fidelity)) for fidelity in ("corrected", "official")]
    pd.testing.assert_frame_equal(*(one[list(COLUMNS)] for one in rows))
    assert rows[0].loc["always fake", "fpr"] == pytest.approx(1)
