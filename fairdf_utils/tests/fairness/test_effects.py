"""Paired differences and the parts of a gap, by hand and by SciPy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fairdf_utils.fairness.effects import decomposition, interval_of_means, paired_effects
from fairdf_utils.fairness.score_table import ScoreTableError


def scored(seed=0):
    """Three persons with two real images each, and one fake of each; one ladder of three values, one pair of words."""
    rng, rows = np.random.default_rng(seed), []
    for person, (label, images) in [(p, kind) for p in "abc" for kind in ((0, 2), (1, 1))]:
        for image in range(images):
            for attribute, values in {"melanin": (0.0, 0.5, 1.0), "capture": ("good", "poor")}.items():
                pair = f"{person}/{label}/{image}"
                rows += [(pair, person, label, attribute, value, rng.random()) for value in values]
    return pd.DataFrame(rows, columns=["pair", "identity", "label", "attribute", "value", "score"])


def test_paired_difference_by_hand():
    """The mean of person means, not of images: a has one image more."""
    table = scored()
    table = table[~table["pair"].isin(["b/0/1", "c/0/1"])]
    found = paired_effects(table)
    assert list(found.loc[0].index) == [("melanin", 0.5), ("melanin", 1.0), ("capture", "poor")]
    assert list(found.index.get_level_values("label").unique()) == [0, 1]
    score = table.query("attribute == 'melanin'").set_index(["pair", "value"])["score"]
    off = {pair: score[pair, 1.0] - score[pair, 0.0] for pair in ("a/0/0", "a/0/1", "b/0/0", "c/0/0")}
    persons = np.array([(off["a/0/0"] + off["a/0/1"]) / 2, off["b/0/0"], off["c/0/0"]])
    reach = 4.302652729749464 * persons.std(ddof=1) / np.sqrt(3)  # Student's 97.5 % quantile, two degrees of freedom
    row = found.loc[(0, "melanin", 1.0)]
    assert row["persons"] == 3
    assert row[["estimate", "low", "high"]].tolist() == pytest.approx(
        [persons.mean(), persons.mean() - reach, persons.mean() + reach]
    )
    assert row["p_value"] == pytest.approx(stats.ttest_1samp(persons, 0).pvalue)


def test_a_pair_that_lacks_an_image_is_refused():
    with pytest.raises(ScoreTableError, match="b/0/1 has no row with melanin = 1.0"):
        paired_effects(scored().query("not (pair == 'b/0/1' and attribute == 'melanin' and value == 1.0)"))
    with pytest.raises(ScoreTableError, match="no column 'logit'"):
        paired_effects(scored(), of="logit")


def test_interval_of_two_samples_is_that_of_welch():
    a, b = np.random.default_rng(3).normal([[0.0], [1.0]], [[1.0], [3.0]], (2, 12))
    known = stats.ttest_ind(a[:7], b, equal_var=False)
    found = interval_of_means(a[:7], b)
    assert found["p_value"] == pytest.approx(known.pvalue)
    assert (found["low"], found["high"]) == pytest.approx(tuple(known.confidence_interval(0.95)))


def test_interval_of_one_person_and_of_equal_values():
    assert np.isnan(interval_of_means(np.array([0.3]))["low"])
    same = interval_of_means(np.zeros(5))
    assert (same["low"], same["high"], same["p_value"]) == (0, 0, 1)


def test_parts_of_a_gap_are_those_that_were_built_in_and_add_up():
    rng, rows = np.random.default_rng(1), []
    for group, persons, skin, camera in (("x", 30, 0.0, 0.1), ("y", 20, 0.3, 0.1), ("z", 25, 0.0, 0.4)):
        for person in range(persons):
            plain = rng.normal(0.2, 0.05)
            for _ in range(2):  # of two frames the mean counts
                rows.append((group, f"{group}{person}", plain + camera + skin, plain + camera, plain))
    table = pd.DataFrame(rows, columns=["group", "identity", "as drawn", "skin", "camera"])
    parts = decomposition(table, ["as drawn", "skin", "camera"], "x")
    estimate = parts["estimate"].unstack()
    assert list(parts.loc["y"].index) == ["skin", "camera", "rest", "gap"]
    assert estimate.loc["y", "skin"] == pytest.approx(0.3) and estimate.loc["z", "camera"] == pytest.approx(0.3)
    assert estimate.loc["y", "camera"] == pytest.approx(0) and estimate.loc["z", "skin"] == pytest.approx(0)
    np.testing.assert_allclose(estimate[["skin", "camera", "rest"]].sum(axis=1), estimate["gap"])
    own = table.groupby(["group", "identity"])["camera"].mean().groupby("group").mean()
    assert parts.loc[("y", "rest"), "estimate"] == pytest.approx(own["y"] - own["x"])
