"""Worst-group AUC and TPR: against scikit-learn, by loops over resamples, how often the intervals hold."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from fairdf_utils.fairness import uncertainty
from fairdf_utils.fairness.metrics import rate_interval
from fairdf_utils.fairness.resampling import Settings, clustered, drawn_weights, resampled_aucs
from fairdf_utils.fairness.worst_group import (
    COMMON_FPR,
    interval_of_the_worst,
    matched_numbers,
    tpr_at_common_fpr,
    worst,
    worst_groups,
)
from fairdf_utils.tests.fairness.score_tables import planted_table, random_table, score_table

FEW = Settings(resamples=20)
SMALL = {"male-white": (3, 12), "male-black": (30, 30), "female-white": (12, 12), "female-black": (20, 2)}


def by_hand(table, times=None):
    """The TPR of each group where all real images that rank lowest among the alarms make up the FPR, ties by lot."""
    times = np.ones(len(table)) if times is None else times
    real, score = table["label"] == 0, table["score"]
    share_above = np.array([times[real & (score > cut)].sum() for cut in score[real]]) / times[real].sum()
    cut = score[real][share_above <= COMMON_FPR].min()  # the lowest real image of which some may be called fake
    above, tied = (times[real & which].sum() / times[real].sum() for which in (score > cut, score == cut))
    called = (score > cut) + (score == cut) * min(1, (COMMON_FPR - above) / tied)
    fakes = pd.DataFrame({"called": times * called, "all": times})[~real].groupby(table["group"]).sum()
    return fakes["called"] / fakes["all"]


@pytest.mark.parametrize("ties", [False, True])
def test_one_group_is_the_point_of_scikit_learns_curve(ties):
    table = random_table(2, n=300, ties=ties)
    table["group"] = "all-all"
    fpr, tpr, _ = roc_curve(table["label"], table["score"], drop_intermediate=False)
    found = tpr_at_common_fpr(clustered(table, "group", FEW), FEW, 0)
    assert found == pytest.approx(np.interp(COMMON_FPR, fpr, tpr), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_groups_and_resamples_equal_a_plain_loop(seed):
    """At one threshold for all; within a step of the curve where there are more real scores than steps."""
    table = random_table(seed, n=300 if seed < 3 else 2000, ties=seed % 2 == 0, videos=60)
    data = clustered(table, "group", FEW)
    found = tpr_at_common_fpr(data, FEW, 20)
    weights = np.hstack([np.ones((len(data.cells), 1)), *drawn_weights(data.members, [20], FEW.seed)])
    loop = [by_hand(table, column[data.unit]).reindex(data.scored.names) for column in weights.T]
    np.testing.assert_allclose(found[0], loop[0], atol=1e-12)
    np.testing.assert_allclose(found, np.array(loop), atol=1e-12 if seed < 3 else 0.02)


def test_matched_numbers_are_those_where_one_real_image_in_ten_is_called_fake():
    table = random_table(3, n=1000, ties=False)
    table = table.assign(score=table["score"] ** 4)  # at one half the FPR is another
    real = table["label"] == 0
    called = table["score"] > table["score"][real].nlargest(int(0.1 * real.sum()) + 1).min()
    fpr, right = called[real].groupby(table["group"]).mean(), (called == ~real).groupby(table["group"]).mean()
    found = matched_numbers(table, "group", FEW)
    assert found["fpr_sum_matched"] == pytest.approx((fpr - called[real].mean()).abs().sum())
    assert found["oae_matched"] == pytest.approx(right.max() - right.min())
    assert matched_numbers(table.assign(score=1.0), "group", FEW).isna().all()  # all are called fake, or none
    assert matched_numbers(table[~real], "group", FEW).isna().all()


def test_small_groups_take_no_part_and_are_named():
    table = planted_table(SMALL)
    found = worst_groups(table, "group", FEW)
    large = {name: part for name, part in table.groupby("group") if name in ("male-black", "female-white")}
    aucs = {name: roc_auc_score(part["label"], part["score"]) for name, part in large.items()}
    assert found.loc["worst_auc", "estimate"] == pytest.approx(min(aucs.values()))
    assert found.loc["worst_auc", "worst"] == min(aucs, key=aucs.get)
    assert set(found.loc["worst_auc", "left_out"].split(", ")) == {"male-white", "female-black"}
    assert found.loc["worst_tpr", "estimate"] == pytest.approx(by_hand(table).drop("female-black").min())
    assert found["groups"].tolist() == [2, 3] and found.loc["worst_tpr", "left_out"] == "female-black"
    assert (found["low"] < found["estimate"]).all() and (found["estimate"] < found["high"]).all()


def test_one_group_alone_is_not_the_worst_of_any():
    table = planted_table({"male-white": (20, 20), "male-black": (3, 3)})
    assert worst_groups(table, "group", FEW).loc["worst_auc", ["estimate", "low", "high"]].isna().all()
    np.testing.assert_array_equal(worst(np.array([[0.5, np.nan], [0.5, 0.25]])), [np.nan, 0.25])


def test_no_real_images_means_no_common_rate():
    table = planted_table({"male-white": (0, 12), "male-black": (0, 12)})
    assert worst_groups(table, "group", FEW)["estimate"].isna().all()


def test_the_interval_of_one_group_is_that_of_a_rate_and_several_share_the_error_above():
    estimate, worth, freedom = np.array([0.6, 0.62, 0.99]), np.array([30.0, 40.0, 500.0]), np.array([20, 30, 100])
    low, high = rate_interval(estimate * worth, worth, 0.95, freedom)
    assert interval_of_the_worst(estimate[:1], worth[:1], freedom[:1], 0.95) == (low[0], high[0])
    shared = rate_interval(estimate * worth, worth, 0.975, freedom)[1]
    found = interval_of_the_worst(estimate, worth, freedom, 0.95)
    assert found == (low.min(), shared[:2].min()), "the third is certainly not the worst"


def test_a_group_without_an_error_still_has_an_interval():
    table = planted_table({"male-white": (30, 20), "male-black": (30, 12)})
    found = worst_groups(table.assign(score=table["label"]), "group", FEW)
    assert (found["estimate"] == 1).all() and (found["high"] == 1).all() and found["low"].between(0.5, 0.97).all()
    assert found.loc["worst_tpr", "low"] == rate_interval(12, 12, 0.95, 13)[0]


def test_two_detectors_are_compared_by_the_same_resamples():
    a = planted_table({"male-white": (20, 20), "female-white": (20, 20)})
    a["img_path"] = a.index.astype(str)
    b = a.assign(score=np.where(a["gender"] == "male", 0.5 + 0 * a["score"], a["score"]))
    found = uncertainty.paired_difference(a, b, "gender", FEW).loc["worst_auc"]
    sides = [resampled_aucs(clustered(table, "gender", FEW), FEW)[0].min(1) for table in (a, b)]
    assert found["b"] == 0.5 and found["estimate"] == pytest.approx(sides[0][0] - 0.5)
    off_a, off_b = (side[1:] - side[0] for side in sides)  # either way: if the worst group is alone, and if it is not
    low = min(np.quantile(a * off_a - b * off_b, 0.025) for a in (1, -1) for b in (1, -1))
    aucs = [resampled_aucs(clustered(table, "gender", FEW), FEW)[0][1:] for table in (a, b)]
    most = np.quantile(np.abs(aucs[0] - aucs[1]).max(1), 0.975)  # the lowest differ by no more than some group
    assert found["low"] == pytest.approx(max(found["estimate"] + low, -most))


@pytest.mark.parametrize("separation", [(1.5, 1.5, 1.5, 1.5), (2.2, 2.0, 1.0, 1.5)])
def test_the_intervals_hold_the_truth(separation):
    """Groups of 10 to 130 videos, frames that correlate by 1/2: 92 to 100 % in sets of 300 tables, here one of 100."""
    rng, sizes, frames = np.random.default_rng(5), (10, 24, 31, 130), 3
    group, label = (np.concatenate([np.repeat(which, 2 * n) for which, n in zip(range(4), sizes, strict=True)]),
                    np.concatenate([np.repeat([0, 1], n) for n in sizes]))  # fmt: skip
    shift = np.array(separation)[group] * label
    cut = norm.isf(COMMON_FPR)
    truth = np.array([norm.cdf(min(separation) / np.sqrt(2)), norm.sf(cut - min(separation))])
    rows = np.repeat(np.arange(len(group)), frames)
    named = np.array(["male-white", "male-black", "female-white", "female-black"])[group]
    missed, settings = np.zeros(2), Settings(resamples=100)
    for _ in range(100):
        logit = shift[rows] + np.sqrt(0.5) * (rng.normal(size=len(group))[rows] + rng.normal(size=len(rows)))
        table = score_table(named[rows], label[rows], norm.cdf(logit / 3), rows.astype(str))
        found = worst_groups(table, "group", settings)
        missed += (found["low"] > truth) | (found["high"] < truth)
    assert (missed <= 10).all()
