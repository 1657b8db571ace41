"""Do the intervals hold the truth as often as they say? Simulated test sets with frames that err together."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fairdf_utils.fairness import metrics, resampling, sample_size, uncertainty
from fairdf_utils.fairness.uncertainty import Settings
from fairdf_utils.tests.fairness.score_tables import score_table, video_table

FRAMES, CORRELATION = 10, 0.6
TRUTH = {"male-white": {"fpr": 0.15, "tpr": 0.8}, "female-white": {"fpr": 0.35, "tpr": 0.7}}
QUICK = Settings(resamples=300, permutations=100, level=0.9)


def simulated(rng, videos=40):
    """A test set: every video has its own rate of being called fake (beta, so that errors correlate)."""
    group, label, video, called = [], [], [], []
    for name, rates in TRUTH.items():
        for code, rate in enumerate(rates.values()):
            scale = 1 / CORRELATION - 1
            of_video = rng.beta(rate * scale, (1 - rate) * scale, videos)
            called.append(rng.random((videos, FRAMES)) < of_video[:, None])
            group += [name] * videos * FRAMES
            label += [code] * videos * FRAMES
            video += [f"{name}-{code}-{number}" for number in range(videos) for _ in range(FRAMES)]
    return score_table(group, label, np.where(np.concatenate(called).ravel(), 0.9, 0.1), video)


def coverage(videos, settings=QUICK, sets=150):
    """Share of intervals of the group rates (four a test set) that hold the truth."""
    rng, held = np.random.default_rng(0), []
    for _ in range(sets):
        found = uncertainty.group_intervals(simulated(rng, videos), "group", settings, auc=False)
        for name, rates in TRUTH.items():
            held += [found.loc[name, f"{rate}_low"] <= truth <= found.loc[name, f"{rate}_high"]
                     for rate, truth in rates.items()]  # fmt: skip
    return np.mean(held)


@pytest.mark.parametrize(("videos", "least"), [(2, 0.88), (5, 0.85), (15, 0.86), (40, 0.86)])
def test_intervals_of_group_rates_cover_nearly_as_often_as_they_say(videos, least):
    """Of 600 intervals (a standard error of 0.012) at level 0.9; below ten videos in all each counts as one."""
    assert least <= coverage(videos) <= 0.97


def test_intervals_from_independent_images_would_not():
    assert coverage(40, replace(QUICK, cluster="img_path")) < 0.7


GAPS = ["fpr_sum", "fpr_gap", "tpr_gap", "oae", "dp", "meo", "eo"]


def test_the_band_holds_gaps_that_are_smaller_than_the_noise_where_percentiles_lose_them():
    """Eight groups with the same rates: every true gap is zero, and so is F_FPR."""
    rng, held = np.random.default_rng(4), {"band": [], "percentile": []}
    for seed in range(80):
        table = video_table(seed, per_cell=10, frames=4)
        called = rng.random(table["video"].nunique()) < np.where(table.groupby("video")["label"].first(), 0.8, 0.2)
        of_video = dict(zip(sorted(table["video"].unique()), called, strict=True))
        table["score"] = np.where(table["video"].map(of_video), 0.9, 0.1)
        settings = replace(QUICK, seed=seed)
        held["band"].append(uncertainty.bootstrap(table, "group", settings, auc=False).loc[GAPS, "low"] <= 0)
        counts = resampling.resampled_tables(resampling.clustered(table, "group", settings), settings, False)[0]
        values = pd.DataFrame(metrics.metrics_of(counts, None, "corrected")[0])
        held["percentile"].append(uncertainty.percentiles(values, 0.9).loc[GAPS, "low"] <= 0)
    share = {kind: np.mean(each) for kind, each in held.items()}
    assert share["band"] >= 0.85 and share["percentile"] < 0.5


def test_the_band_holds_large_gaps_and_plain_rates():
    rng, held = np.random.default_rng(5), []
    for seed in range(100):
        found = uncertainty.bootstrap(simulated(rng), "group", replace(QUICK, seed=seed), auc=False)
        truth = pd.Series({"fpr_gap": 0.2, "fpr_sum": 0.2, "meo": 0.2, "eo": 0.3, "fpr": 0.25, "acc": 0.75})
        held.append(truth.between(found["low"].loc[truth.index], found["high"].loc[truth.index]))
        assert found["low"].min() >= 0 and found["high"].drop(["fpr_sum", "eo"]).max() <= 1
    share = pd.DataFrame(held).mean()
    assert (share >= 0.8).all()


def test_paired_differences_of_equal_detectors_are_seldom_significant():
    """Two detectors with the same rates, whose errors share half of their videos' luck: p < 0.1 in one of ten."""
    rng, p = np.random.default_rng(1), []
    for seed in range(120):
        a, b = simulated(rng), simulated(rng)
        rows = rng.random(a["video"].nunique()) < 0.5
        shared = a["video"].map(dict(zip(a["video"].unique(), rows, strict=True)))
        b = a.assign(score=np.where(shared, a["score"], b["score"]))
        found = uncertainty.paired_difference(a, b, "group", replace(QUICK, seed=seed), auc=False)
        p.append(found.loc[["fpr", "tpr", "acc"], "p_value"])
    assert np.mean(np.array(p) < 0.1) == pytest.approx(0.1, abs=0.06)


def test_design_effect_predicts_the_spread_of_the_rates():
    rng, rates, effects = np.random.default_rng(2), [], []
    for _ in range(150):
        table = simulated(rng)
        rates.append(metrics.group_rates(table)["fpr"])
        effects.append(sample_size.design_effects(table, "group", QUICK).loc["fpr"])
    rates, effects = pd.DataFrame(rates), pd.concat(effects, keys=range(150)).groupby(level=1).mean()
    assert effects.loc["pooled", "correlation"] == pytest.approx(CORRELATION, abs=0.03)
    assert effects.loc["pooled", "design_effect"] == pytest.approx(1 + (FRAMES - 1) * CORRELATION, rel=0.05)
    for name, truth in TRUTH.items():
        predicted = truth["fpr"] * (1 - truth["fpr"]) / (40 * FRAMES) * (1 + (FRAMES - 1) * CORRELATION)
        assert rates[name].var() == pytest.approx(predicted, rel=0.3)


def test_the_width_that_videos_give_is_that_of_the_interval():
    rng = np.random.default_rng(3)
    found = [uncertainty.group_intervals(simulated(rng, 60), "group", Settings(), auc=False) for _ in range(20)]
    for name, truth in TRUTH.items():
        width = np.mean([each.loc[name, "fpr_high"] - each.loc[name, "fpr_low"] for each in found])
        assert width == pytest.approx(sample_size.interval_width(60, truth["fpr"], FRAMES, CORRELATION), rel=0.08)


def test_design_effect_by_hand():
    # frames agree wholly: correlation 1; one frame a video: no correlation to know, and every image counts
    table = video_table(per_cell=4, frames=3)
    alike = table.assign(score=table.groupby("video")["score"].transform("first"))
    worth = sample_size.design_effects(alike, "group", QUICK)
    assert worth["correlation"].dropna().eq(1).all() and worth.loc[("fpr", "pooled"), "design_effect"] == 3
    assert worth.loc[("fpr", "pooled"), ["clusters", "images", "effective"]].tolist() == [32, 96, 32]
    single = sample_size.design_effects(video_table(frames=1), "group", QUICK)
    assert single["correlation"].isna().all() and single["design_effect"].eq(1).all()
    # two videos of two frames, one all wrong and one half: MSB = 1/4, MSW = 1/4 -> 0
    two = score_table(["male-white"] * 4, [0] * 4, [0.9, 0.9, 0.9, 0.1], ["a", "a", "b", "b"])
    assert sample_size.design_effects(two, "group", QUICK).loc[("fpr", "male-white"), "correlation"] == pytest.approx(0)
    assert np.isnan(sample_size.design_effects(two, "group", QUICK).loc[("tpr", "male-white"), "effective"])
    # three of three and one of four: MSB 0.96429, MSW 0.15, usual size 24/7
    uneven = score_table(["male-white"] * 7, [0] * 7, [0.9] * 4 + [0.1] * 3, list("aaabbbb"))
    row = sample_size.design_effects(uneven, "group", QUICK).loc[("fpr", "male-white")]
    assert row["correlation"] == pytest.approx(0.612903, abs=1e-6) and row["frames"] == pytest.approx(25 / 7)
    assert row["effective"] == pytest.approx(7 / (1 + (25 / 7 - 1) * 0.612903), rel=1e-5)


def test_videos_needed_is_the_smallest_number_that_is_enough():
    for width, rate, frames, correlation in (
        (0.1, 0.2, 4, 1.0),
        (0.1, 0.2, 4, 0.5),
        (0.5, 0.0, 30, 0.3),
        (1, 0.5, 1, 0),
    ):
        enough = sample_size.videos_needed(width, rate, frames, correlation)
        assert sample_size.interval_width(enough, rate, frames, correlation) <= width
        assert enough == 1 or sample_size.interval_width(enough - 1, rate, frames, correlation) > width
    # six videos, a rate of one in five, frames that err together: half of the scale, as chapter 1 says
    assert sample_size.interval_width(6, 0.2) == pytest.approx(0.55, abs=0.005)
    with pytest.raises(ValueError, match="width is 5"):
        sample_size.videos_needed(5, 0.2)
    with pytest.raises(ValueError, match="rate 20"):
        sample_size.interval_width(6, 20)
