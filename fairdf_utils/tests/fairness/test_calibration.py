"""Calibration against scikit-learn, an independent decomposition and detectors whose calibration is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.fairness.calibration import calibration, reliability
from fairdf_utils.tests.fairness.score_tables import random_table, score_table


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_reliability_and_brier_equal_scikit_learn(bins):
    table = random_table(0, ties=False)
    curve, numbers = reliability(table, "gender", bins), calibration(table, "gender", bins)
    for name, part in table.groupby("gender"):
        share, score = calibration_curve(part["label"], part["score"], n_bins=bins)
        own = curve.loc[name]
        np.testing.assert_allclose(own["fake_share"].dropna(), share)
        np.testing.assert_allclose(own["score"].dropna(), score)
        assert own["n"].sum() == len(part) == numbers.loc[name, "n"]
        assert numbers.loc[name, "brier"] == pytest.approx(brier_score_loss(part["label"], part["score"]))
        gap = (own["fake_share"] - own["score"]).abs().fillna(0)
        assert numbers.loc[name, "ece"] == pytest.approx((gap * own["n"]).sum() / len(part))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=60), st.integers(1, 12))
def test_brier_decomposition_is_exact(rows, bins):
    """What the bins hide, computed by itself: variance of scores in a bin minus twice their covariance with labels."""
    label, score = np.array(rows).T
    table = score_table(["male-white"] * len(label), label.astype(int), np.clip(score, 1e-9, 1 - 1e-9))
    row = calibration(table, bins=bins).loc["all"]
    score = table["score"].to_numpy()
    own = np.minimum((score * bins).astype(int), bins - 1)
    hidden = 0
    for code in np.unique(own):
        s, y = score[own == code], label[own == code]
        hidden += len(s) * (s.var() - 2 * ((s - s.mean()) * (y - y.mean())).mean())
    assert row["within"] == pytest.approx(hidden / len(label), abs=1e-12)
    assert row["reliability"] >= 0 and row["resolution"] >= 0 and row["uncertainty"] <= 0.25
    assert row["ece"] ** 2 <= row["reliability"] + 1e-12  # the mean of a square is at least the square of the mean


def test_a_calibrated_detector_and_a_boastful_one():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.02, 0.98, 40_000)
    label = (rng.uniform(size=len(truth)) < truth).astype(int)
    group = np.where(np.arange(len(truth)) % 2, "male-white", "female-white")
    boast = np.where(group == "male-white", 0.5 + 0.5 * np.sign(truth - 0.5) * np.abs(2 * truth - 1) ** 0.3, truth)
    numbers = calibration(score_table(group, label, boast), "gender")
    assert numbers.loc["female", "ece"] < 0.015 and numbers.loc["male", "ece"] > 0.1
    assert numbers.loc["female", "within"] == pytest.approx(-(0.96**2) / 1200, abs=2e-4)  # -var of a uniform bin
    assert numbers.loc["female", "n"] == numbers.loc["female", "n_real"] + numbers.loc["female", "n_fake"] == 20_000


def test_empty_bins_and_groups_are_undefined_not_zero():
    table = score_table(["male-white"] * 3, [0, 1, 1], [0.05, 0.95, 1.0])
    table["group"] = table["group"].astype("category").cat.set_categories([GROUPS[1], GROUPS[5]])
    curve = reliability(table, "group")
    assert curve.loc[GROUPS[1], "n"].tolist() == [1, *[0] * 8, 2]  # the score 1 is in the last bin
    assert curve.loc[(GROUPS[1], 4), ["score", "fake_share"]].isna().all()
    assert curve.loc[(GROUPS[1], 9), ["low", "high", "score"]].tolist() == [0.9, 1, 0.975]
    numbers = calibration(table, "group")
    assert numbers.loc[GROUPS[5]].drop(["n", "n_real", "n_fake"]).isna().all() and numbers.loc[GROUPS[5], "n"] == 0
    assert numbers.loc[GROUPS[1], "ece"] == pytest.approx((0.05 + 2 * 0.025) / 3)
    with pytest.raises(ValueError, match="at least 1"):
        reliability(table, bins=0)


def test_official_fidelity_calibrates_the_released_score():
    table = random_table(1, ties=False)
    table["score"] = 0.5
    table["logit_fake"] = table["logit_fake"].clip(-8, 8)
    expected = calibration(table.assign(score=1 / (1 + np.exp(-table["logit_fake"]))), "race")
    np.testing.assert_allclose(calibration(table, "race", fidelity="official"), expected)
