"""Do the intervals hold the truth as often as they say? Simulated test sets with frames that err together."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairdf_utils.fairness import coverage, metrics, sample_size, uncertainty
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


KINDS = (["Celeb-DF"], [30], ["small 0.8, large 0.2"], ["0.1", "different"])
LEAST = 0.79  # 0.92 less three standard errors of 40 sets


@pytest.fixture(scope="module")
def small_study():
    return coverage.study(40, kinds=KINDS).set_index(["method", "metric", "size"])


def test_intervals_hold_the_truth_where_groups_have_two_videos(small_study):
    """The study of `data_manifests/results/coverage.csv`, on its hardest list; the whole takes minutes."""
    ours, naive = small_study.loc["videos"], small_study.loc["independent images"]
    assert (ours["coverage"] >= LEAST).all() and ours["width"].dropna().between(0, 10).all()
    assert (naive.loc["fpr", "coverage"] < LEAST).all(), "images are not independent"


def test_the_study_would_find_intervals_that_borrow_the_correlation_of_others(monkeypatch):
    """Wilson on the effective number, with the correlation of the large groups: what small ones had before."""

    def before(errors, sizes, level):
        effective = sizes.sum() / (1 + (sizes.mean() - 1) * 0.2)
        low, high = metrics.rate_interval(errors.sum() / sizes.sum() * effective, effective, level)
        return {"low": low, "high": high}

    monkeypatch.setattr(coverage, "interval_of_a_rate", before)
    found = coverage.study(40, kinds=KINDS).set_index(["method", "metric", "size"]).loc["videos"]
    assert found.loc[("fpr", "1-3"), "coverage"].min() < LEAST


def test_the_study_would_find_bands_from_resampled_videos(monkeypatch):
    """Two or three videos, drawn with replacement, hardly vary."""
    rng = np.random.default_rng(0)

    def resampled(cells, chance):
        drawn = np.zeros((1 + chance.shape[1], *cells.shape[1:]))
        drawn[0] = cells.sum(0)
        for group in range(cells.shape[1]):
            own = cells[cells[:, group].any((1, 2)), group]
            drawn[1:, group] = own[rng.integers(len(own), size=(chance.shape[1], len(own)))].sum(1)
        return drawn

    monkeypatch.setattr(uncertainty, "drawn_tables", resampled)
    found = coverage.study(40, kinds=(*KINDS[:3], ["0.1"])).set_index(["method", "metric", "size"])
    assert found.loc[("videos", "fpr_sum", "all"), "coverage"].min() < LEAST


def test_the_committed_study_says_what_is_claimed():
    path = Path(__file__).parents[3] / "data_manifests" / "results" / "coverage.csv"
    table = pd.read_csv(path)
    assert set(table["list"]) == set(coverage.LISTS) and set(table["rate"]) == set(coverage.RATES)
    ours = table[(table["method"] == "videos") & table["width"].notna()]  # not tests, see chapter 8
    assert (ours["coverage"] + 3 * np.sqrt(0.92 * 0.08 / ours["sets"]) >= 0.92).all()


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
