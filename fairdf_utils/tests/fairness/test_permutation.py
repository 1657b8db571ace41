"""p-values and floors from dealt groups against plain loops, enumeration and simulation."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.fairness import metrics, permutation, resampling, uncertainty
from fairdf_utils.fairness.uncertainty import Settings
from fairdf_utils.tests.fairness.score_tables import random_table, score_table, video_table

FEW = Settings(resamples=40, permutations=40, level=0.9)


def test_the_p_value_of_a_group_is_the_share_of_all_deals():
    """Single images of two groups alike in size: the larger the difference, the more standard errors it is."""
    alarms = np.array([1, 1, 1, 0, 0, 1, 0, 0])
    cells = np.zeros((8, 2, 2, 2))
    cells[np.arange(8), np.arange(8) // 4, 0, alarms] = 1
    members = [np.isin(range(8), chosen) for chosen in combinations(range(8), 4)]
    gap = [abs(alarms[own].mean() - alarms[~own].mean()) for own in members]
    apart = np.abs(permutation.deals(cells, Settings(permutations=4000))[1])
    assert permutation.chance(apart[0])[0] == pytest.approx(np.mean(np.array(gap) >= gap[0] - 1e-12), abs=0.02)
    assert np.isnan(permutation.chance(apart[1])).all(), "no fakes, no TPR"


def test_groups_of_few_videos_are_not_accused():
    rng, wrong = np.random.default_rng(0), []
    for _ in range(30):
        group = np.repeat(["few", "small", "large"], [9, 10, 60])
        alarms = rng.random(79) < 0.1
        table = pd.DataFrame({"label": 0, "score": alarms.astype(float), "group": group}).assign(video=np.arange(79))
        found = uncertainty.against_rest(table, "group", Settings(permutations=200), ("fpr",)).loc["fpr", "p_value"]
        assert np.isnan(found["few"]) and found[["small", "large"]].notna().all()
        wrong.append(found[["small", "large"]] < 0.05)
    assert np.sum(wrong) <= 8, "3 of 60 are expected; more than 8 would come about once in 500 times"


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
    floor = permutation.sampling_floor(blind_table(n, balanced=False), "group", Settings(permutations=2000))
    known = {400: {"fpr_sum": 0.46}, 1600: {"fpr_sum": 0.23, "meo": 0.13, "dp": 0.11, "oae": 0.07}}[n]
    for name, mean in known.items():
        assert floor.loc[name, "mean"] == pytest.approx(mean, abs=0.02), name
    assert floor.loc["fpr_sum", "q95"] == pytest.approx({400: 0.69, 1600: 0.35}[n], abs=0.025)


def test_sampling_floor_equals_binomial_simulation():
    """The same question without permutations: 100 reals and 100 fakes a group, every image an independent draw."""
    rng = np.random.default_rng(5)
    floor = permutation.sampling_floor(blind_table(1600, balanced=True), "group", Settings(permutations=2000))
    fpr, tpr = rng.binomial(100, 0.18, (20_000, 8)) / 100, rng.binomial(100, 0.84, (20_000, 8)) / 100
    fpr_off = np.abs(fpr - fpr.mean(1, keepdims=True)).sum(1)
    simulated = {
        "fpr_sum": fpr_off,
        "fpr_gap": np.ptp(fpr, axis=1),
        "tpr_gap": np.ptp(tpr, axis=1),
        "oae": np.ptp((1 - fpr + tpr) / 2, axis=1),
        "dp": np.ptp((fpr + tpr) / 2, axis=1),
        "meo": np.maximum(np.ptp(fpr, axis=1), np.ptp(tpr, axis=1)),
        "eo": fpr_off + np.abs(tpr - tpr.mean(1, keepdims=True)).sum(1),
    }
    for name, values in simulated.items():
        assert floor.loc[name, "mean"] == pytest.approx(values.mean(), rel=0.03), name
        assert floor.loc[name, "q95"] == pytest.approx(np.quantile(values, 0.95), rel=0.07), name


def test_sampling_floor_equals_a_plain_loop():
    table = random_table(5, n=120, groups=GROUPS[:3])
    floor = permutation.sampling_floor(table, "group", Settings(permutations=300))
    rng = np.random.default_rng(99)
    loop = []
    for _ in range(300):
        shuffled = table.copy()
        for label in (0, 1):
            rows = table["label"] == label
            shuffled.loc[rows, "group"] = rng.permutation(table.loc[rows, "group"])
        loop.append(metrics.fairness_metrics(shuffled))
    loop = pd.DataFrame(loop)
    spread = loop.std() / np.sqrt(300)
    assert ((floor["mean"] - loop.mean()).abs() < 5 * spread).all()
    np.testing.assert_allclose(floor["estimate"], metrics.fairness_metrics(table), atol=1e-12)


def test_sampling_floor_keeps_videos_together_and_p_values_behave():
    table = video_table(per_cell=6, frames=8, seed=2)
    table["score"] = table.groupby("video")["score"].transform("first")  # frames agree
    given = Settings(permutations=300)
    whole = permutation.sampling_floor(table, "group", given)
    single = permutation.sampling_floor(table, "group", replace(given, cluster="img_path"))
    assert (whole["mean"] > 1.8 * single["mean"]).all()  # sqrt(8) = 2.8 if no correlation were left
    unfair = video_table(per_cell=10)
    male = unfair["gender"] == "male"
    unfair.loc[male, "score"] = np.clip(unfair.loc[male, "score"] + 0.3, 0, 1)
    p = permutation.sampling_floor(unfair, "gender", Settings(permutations=199))["p_value"]
    assert 0 < p["fpr_gap"] < 1 / 200 and p.between(0, 1).all()


def test_sampling_floor_splits_mixed_videos():
    table = random_table(3, n=200, videos=20)  # every video mixes labels and groups
    floor = permutation.sampling_floor(table, "group", FEW)
    assert floor[["mean", "q95"]].notna().all().all()
    assert permutation.sampling_floor(table, "group", FEW).equals(floor)


def test_holm_by_hand():
    np.testing.assert_allclose(permutation.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    named = pd.Series({"a": 0.02, "b": np.nan, "c": 0.9, "d": 0.6})
    corrected = permutation.holm(named)
    assert corrected.drop("b").tolist() == pytest.approx([0.06, 1, 1]) and np.isnan(corrected["b"])
    assert corrected.index.equals(named.index) and permutation.holm([np.nan]).shape == (1,)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p, level):
    order, rejected = np.argsort(p, kind="stable"), np.zeros(len(p), bool)
    for step, i in enumerate(order):  # Holm 1979: stop at the first that is too large
        if p[i] * (len(p) - step) > level:
            break
        rejected[i] = True
    np.testing.assert_array_equal(permutation.holm(p) <= level, rejected)


FFPP = (13, 88, 7, 12, 23, 109, 6, 9)  # real videos of the eight groups in the test list of FF++


def cells_of(rng, sizes, rates, alike, frames=10):
    """Beta-binomial clusters of real images: (C, G, 2, 2)."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    rate, scale = np.asarray(rates)[group], (1 / np.asarray(alike) - 1)[group]
    called = rng.binomial(frames, rng.beta(rate * scale, (1 - rate) * scale))
    cells = np.zeros((len(group), len(sizes), 2, 2))
    cells[np.arange(len(group)), group, 0] = np.stack([frames - called, called], axis=-1)
    return cells


def both_tests(cells, seed):
    """p-values of the gap and of each group, (1 + G,): ours, and those of the raw differences in the same deals."""
    tables, apart = permutation.deals(cells, Settings(permutations=60, seed=seed))
    own, rest = (metrics.rates_of(each)["fpr"] for each in (tables, tables.sum(1, keepdims=True) - tables))
    return [
        [permutation.chance(gap), *permutation.chance(groups)]
        for gap, groups in ((np.abs(apart[0]).max(1), np.abs(apart[0])), (np.ptp(own, axis=1), np.abs(own - rest)))
    ]


def rejected(sizes, rates, alike, sets, level):
    """Share of simulated test sets in which each test finds a difference: ours and raw, (1 + G,) each."""
    rng = np.random.default_rng(1)
    p = [both_tests(cells_of(rng, sizes, rates, alike), seed) for seed in range(sets)]
    return (np.array(p) <= level).mean(0)


def test_p_values_are_uniform_where_the_groups_are_exchangeable():
    rng = np.random.default_rng(0)
    p = [both_tests(cells_of(rng, (15, 30, 60), [0.3] * 3, [0.5] * 3), seed)[0] for seed in range(150)]
    for each in np.array(p).T:
        assert stats.kstest(each, "uniform").pvalue > 0.001


@pytest.mark.parametrize("rate", [0.5, 0.1])
def test_alike_groups_are_seldom_told_apart_however_their_frames_err_together(rate):
    """The large groups of FF++, the smaller of them with frames that err together; 120 sets, standard error 0.02.

    The raw gap, which the spread of all groups together judges, would be significant in a fifth and more of the sets.
    """
    sizes = [size for size in FFPP if size >= resampling.MINIMUM]
    ours, raw = rejected(sizes, [rate] * len(sizes), [0.8 if size < 30 else 0.2 for size in sizes], 120, 0.05)
    assert ours[0] <= 0.09 and ours[1:].max() <= 0.13
    assert raw[0] > 0.15


def test_a_quiet_group_is_found_and_a_noisy_one_is_not_accused():
    """The quiet one is off by 15 points, the noisy one by none; raw, the one is missed and the other accused."""
    ours, raw = rejected((60, 15, 120), [0.05, 0.2, 0.2], [0.05, 0.9, 0.3], 60, 0.01)
    assert ours[0] >= 0.9 and ours[1] >= 0.9 and ours[2] <= 0.06
    assert raw[0] < 0.7 and raw[2] > 0.06


def test_independent_images_agree_with_the_exact_distribution():
    """Clusters with one image each: the alarms of a group are hypergeometric; the statistic is written out by hand."""
    rng = np.random.default_rng(3)
    one, two = (rng.random(40) < 0.15).astype(float), (rng.random(90) < 0.4).astype(float)

    def apart(a, b, axis):
        pooled = np.mean(np.concatenate([one, two]))
        sides = []
        for x in (a, b):
            n = x.shape[axis]
            calls = np.minimum(x.sum(axis=axis), n - x.sum(axis=axis))
            sides.append((calls * x.var(axis=axis, ddof=1) + 2 * pooled * (1 - pooled)) / (calls + 2) / n)
        return np.abs(a.mean(axis=axis) - b.mean(axis=axis)) / np.sqrt(sum(sides))

    alarms, statistic = int(one.sum() + two.sum()), apart(one, two, 0)
    ways = [(np.arange(40) < own, np.arange(90) < alarms - own) for own in range(min(40, alarms) + 1)]
    extreme = np.array([apart(*(way.astype(float) for way in both), 0) >= statistic - 1e-9 for both in ways])
    exact = stats.hypergeom(130, alarms, 40).pmf(np.arange(len(ways)))[extreme].sum()
    table = pd.DataFrame({"score": np.append(one, two), "label": 0, "group": np.repeat(["a", "b"], [40, 90])})
    table["video"] = table["img_path"] = table.index.astype(str)
    found = uncertainty.against_rest(table, "group", Settings(permutations=100_000), ("fpr",)).loc["fpr", "a"]
    cells = resampling.clustered(table, "group", FEW).cells
    assert permutation.deals(cells, FEW)[1][0, 0, 0] == pytest.approx(-statistic)
    assert found["p_value"] == pytest.approx(exact, rel=0.12)


def test_fitted_p_values_agree_with_two_hundred_times_as_many_deals():
    """A p-value near 2 / 10,000 from 1,000 deals, whose plain share is never below 10 / 10,000."""
    cells = cells_of(np.random.default_rng(5), (60, 40, 90), [0.1, 0.32, 0.2], [0.4] * 3)
    apart = np.abs(permutation.deals(cells, Settings(permutations=200_000))[1][0])
    share = (apart >= apart[0] - 1e-9).mean(0)
    assert 1e-4 < share[0] < 4e-4 and 0.002 < share[1] < 0.005
    parts = [np.concatenate([apart[:1], part]) for part in np.split(apart[1:20_001], 20)]
    ratio = np.array([permutation.chance(part) for part in parts]) / share
    assert (np.median(ratio, axis=0) < 3).all() and np.median(ratio) > 0.8
    assert ((ratio > 0.2) & (ratio < 8)).all()


def test_names_and_orders_do_not_matter():
    table = video_table(2)
    found = permutation.sampling_floor(table, "group", FEW, auc=False)
    other = table.sample(frac=1, random_state=0)
    other["video"] = other["video"].map(hash)
    pd.testing.assert_frame_equal(permutation.sampling_floor(other, "group", FEW, auc=False), found)
    cells = resampling.clustered(table, "group", FEW).cells
    ours, mirrored = (permutation.deals(each, FEW)[1][:, 0] for each in (cells, cells[:, :, ::-1, ::-1]))
    np.testing.assert_allclose(mirrored, [-ours[1], -ours[0], ours[2], -ours[3]], atol=1e-12)
    np.testing.assert_allclose(permutation.deals(cells[:, ::-1], FEW)[1][:, 0], ours[:, ::-1], atol=1e-12)


def test_clusters_of_few_kinds_are_dealt_as_one_by_one():
    """Numbers stay what they are, and each count is hypergeometric, as scipy knows it."""
    held = np.array([[5, 1, 0], [20, 3, 9], [0, 0, 2], [30, 10, 0]])
    found = permutation.dealt(held, 20_000, np.random.default_rng(0))
    assert (found.sum(1) == held.sum(0)).all() and (found.sum(2) == held.sum(1)).all() and (found >= 0).all()
    for group, kind in np.ndindex(held.shape):
        exact = stats.hypergeom(held.sum(), held[:, kind].sum(), held[group].sum())
        assert found[:, group, kind].mean() == pytest.approx(exact.mean(), abs=0.05)
        assert found[:, group, kind].var() == pytest.approx(exact.var(), rel=0.06)
    table = blind_table(1600, balanced=False)  # two kinds of images of each class
    cells = resampling.clustered(table, "group", Settings()).cells
    floors = []
    for factor in (1, 1e9):  # by kinds, then one by one
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(permutation, "FEW_KINDS", factor * permutation.FEW_KINDS)
            floors.append(permutation.floor_of_cells(cells, Settings(permutations=2000)))
    np.testing.assert_allclose(floors[0][["mean", "q95"]], floors[1][["mean", "q95"]], rtol=0.06)
    assert not floors[0].equals(floors[1])
