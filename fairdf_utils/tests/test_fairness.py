"""Fairness metrics against the released numbers, scikit-learn, fairlearn, plain loops and hand arithmetic."""

import json
from pathlib import Path

import fairlearn.metrics as fl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from fairdf_utils import fairness, resampling
from fairdf_utils.fairness import METRICS, OVERALL
from fairdf_utils.manifests import GROUPS
from fairdf_utils.scores import ScoreTableError

GOLDEN = Path(__file__).parents[2] / ".." / "shared" / "golden"


def score_table(group, label, score, video=None):
    """A score table with the columns that the metrics read."""
    group, label, score = np.asarray(group), np.asarray(label), np.asarray(score, np.float64)
    with np.errstate(divide="ignore"):
        logit = np.log(score) - np.log1p(-score)
    paths = [f"{i}.png" for i in range(len(label))]
    table = pd.DataFrame({"img_path": paths, "video": paths if video is None else video, "label": label})
    table["group"] = group
    table["gender"] = table["group"].str.split("-").str[0]
    table["race"] = table["group"].str.split("-").str[1]
    return table.assign(dataset="ffpp", logit_real=0.0, logit_fake=logit, score=score)


def random_table(seed, n=400, groups=GROUPS, ties=True, videos=None):
    rng = np.random.default_rng(seed)
    label = rng.integers(2, size=n)
    score = 1 / (1 + np.exp(-rng.normal(label * 1.5 - 0.7, 1)))
    score = score.round(2) if ties else score
    return score_table(
        rng.choice(groups, n), label, score, None if videos is None else [f"v{v}" for v in rng.integers(videos, size=n)]
    )


def video_table(seed=0, per_cell=4, frames=5):
    """per_cell videos of each group and label; a video has one group and one label."""
    rng = np.random.default_rng(seed)
    cells = [(g, y, f"{g}/{y}/{v}") for g in GROUPS for y in (0, 1) for v in range(per_cell) for _ in range(frames)]
    group, label, video = zip(*cells, strict=True)
    score = 1 / (1 + np.exp(-rng.normal(np.array(label) * 1.5 - 0.7, 1)))
    return score_table(group, label, score, video)


@pytest.fixture(scope="module")
def golden():
    if not (GOLDEN / "scores.csv").exists():
        pytest.skip("golden vectors are not beside this checkout (../shared/golden)")
    scores = pd.read_csv(GOLDEN / "scores.csv")
    table = score_table(np.array(GROUPS)[scores["group"]], scores["label"], np.full(len(scores), 0.5))
    table["logit_fake"] = scores["logit_fake"]
    return table, json.loads((GOLDEN / "fairness_released.json").read_text())


@pytest.mark.parametrize("by,printed", [("group", "intersection"), ("gender", "gender"), ("race", "race")])
def test_official_fidelity_prints_the_released_numbers(golden, by, printed):
    table, released = golden
    ours = fairness.fairness_metrics(table, by, fidelity="official")
    for theirs, name, percent in [
        ("fpr_sum", "fpr_sum", False),
        ("eo_sum", "eo", False),
        *((name, name, True) for name in ("fpr_gap", "auc_gap", "oae", "dp", "meo")),
    ]:
        value = round(100 * ours[name], 3) if percent else round(ours[name], 5)
        assert value == released[printed][theirs], name


def test_official_overall_numbers(golden):
    table, released = golden
    ours = fairness.overall_metrics(table, fidelity="official")
    for name in ("fpr", "tpr", "acc"):
        assert ours[name] == pytest.approx(released["overall"][name], abs=1e-14)
    # logits in the file have six digits: one of 2.35 million pairs changes sides by the rounding
    assert ours["auc"] == pytest.approx(released["overall"]["auc"], abs=1e-6)


def test_fidelities_differ_in_score_and_in_one_class_groups():
    table = random_table(1, groups=GROUPS[:3], ties=False)
    table = table[~((table["group"] == GROUPS[2]) & (table["label"] == 1))]  # the third group has reals only
    corrected = fairness.fairness_metrics(table)
    official = fairness.fairness_metrics(table, fidelity="official")
    rates = fairness.group_rates(table)
    assert corrected["fpr_gap"] == pytest.approx(rates["fpr"].max() - rates["fpr"].min())
    assert official["fpr_gap"] == pytest.approx(abs(rates["fpr"].iloc[0] - rates["fpr"].iloc[1]))
    assert corrected.attrs["groups"] == dict(zip(METRICS, (3, 3, 3, 3, 2, 2, 2), strict=True))
    assert set(official.attrs["groups"].values()) == {2}
    overall_fpr = fairness.overall_metrics(table)["fpr"]  # uses the reals of the dropped group, too
    assert official["fpr_sum"] == pytest.approx((rates["fpr"].iloc[:2] - overall_fpr).abs().sum())
    table["logit_fake"] = -20.0
    assert fairness.overall_metrics(table, fidelity="official")["tpr"] == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("by", ["gender", "race", "group"])
def test_rates_and_metrics_agree_with_fairlearn_and_sklearn(seed, by):
    table = random_table(seed)
    y, p, threshold = table["label"], (table["score"] >= 0.4).astype(int), 0.4
    frame = fl.MetricFrame(
        metrics={
            "fpr": fl.false_positive_rate,
            "fnr": fl.false_negative_rate,
            "tpr": fl.true_positive_rate,
            "tnr": fl.true_negative_rate,
            "acc": accuracy_score,
            "predicted_fake": fl.selection_rate,
            "n": fl.count,
        },
        y_true=y,
        y_pred=p,
        sensitive_features=table[by],
    )
    ours = fairness.group_rates(table, by, threshold)
    expected = frame.by_group.loc[ours.index].astype(float)
    pd.testing.assert_frame_equal(ours[expected.columns].astype(float), expected, check_names=False)
    for name, part in table.groupby(by):
        assert ours.loc[name, "auc"] == pytest.approx(roc_auc_score(part["label"], part["score"]), abs=1e-12)
    metrics = fairness.fairness_metrics(table, by, threshold)
    gaps = frame.difference()
    deviation = (frame.by_group - frame.overall).abs().sum()
    features = {"sensitive_features": table[by]}
    assert metrics["fpr_sum"] == pytest.approx(deviation["fpr"])
    assert metrics["fpr_gap"] == pytest.approx(gaps["fpr"])
    assert metrics["oae"] == pytest.approx(gaps["acc"])
    assert metrics["dp"] == pytest.approx(fl.demographic_parity_difference(y, p, **features))
    assert metrics["meo"] == pytest.approx(fl.equalized_odds_difference(y, p, **features))
    assert metrics["eo"] == pytest.approx(deviation["fpr"] + deviation["tpr"])
    assert metrics["auc_gap"] == pytest.approx(ours["auc"].max() - ours["auc"].min())
    overall = fairness.overall_metrics(table, threshold)
    assert overall["auc"] == pytest.approx(roc_auc_score(y, table["score"]))
    assert overall["ap"] == pytest.approx(average_precision_score(y, table["score"]))
    assert overall["acc"] == pytest.approx(accuracy_score(y, p))
    assert overall["fpr"] == pytest.approx(frame.overall["fpr"])


def test_threshold_is_inclusive():
    table = score_table(["male-white", "male-white"], [0, 1], [0.5, 0.5])
    assert fairness.overall_metrics(table, 0.5)[["fpr", "tpr"]].tolist() == [1, 1]


def test_equal_error_rate_by_hand():
    # sorted scores: the 3rd highest of 4 reals and of 4 fakes are crossed at one error in four
    table = score_table(["male-white"] * 8, [0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.8, 0.25, 0.7, 0.85, 0.9])
    assert fairness.overall_metrics(table)["eer"] == pytest.approx(0.25)
    # all scores equal: the ROC curve is the diagonal
    assert fairness.overall_metrics(table.assign(score=0.3))["eer"] == pytest.approx(0.5)


def test_undefined_rates_are_named_with_reason_and_n():
    table = score_table(["male-white", "male-white", "male-asian", "female-black"], [0, 1, 1, 0], [0.2, 0.9, 0.8, 0.7])
    rates = fairness.group_rates(table)
    assert rates.index.tolist() == ["male-asian", "male-white", "female-black"]
    assert np.isnan(rates.loc["male-asian", ["fpr", "tnr", "auc"]].astype(float)).all()
    assert rates.loc["male-asian", "tpr"] == 1 and rates.loc["male-asian", "n_fake"] == 1
    assert fairness.undefined_rates(table) == [
        "group male-asian: undefined FPR, TNR and AUC: no reals (n = 1, all fake).",
        "group female-black: undefined FNR, TPR and AUC: no fakes (n = 1, all real).",
    ]
    assert fairness.undefined_rates(random_table(0), "gender") == []
    table["group"] = pd.Categorical(table["group"], GROUPS)  # expected groups without any image stay visible
    empty = fairness.group_rates(table).loc["female-others"]
    assert empty["n"] == 0 and np.isnan(empty["acc"]) and "no images" in empty["undefined"]


def test_metrics_of_one_class_are_undefined_not_zero():
    table = random_table(0)
    reals = table[table["label"] == 0]
    metrics = fairness.fairness_metrics(reals)
    assert metrics[["meo", "eo", "auc_gap"]].isna().all()
    assert metrics[["fpr_sum", "fpr_gap", "oae", "dp"]].notna().all()
    assert fairness.overall_metrics(reals)[["auc", "ap", "tpr", "eer"]].isna().all()
    one_group = fairness.fairness_metrics(table[table["gender"] == "male"], "gender")
    assert one_group.isna().all()


tables = st.lists(
    st.tuples(st.sampled_from(GROUPS[:4]), st.integers(0, 1), st.integers(0, 20)), min_size=1, max_size=40
).map(lambda rows: score_table(*zip(*[(g, y, s / 20) for g, y, s in rows], strict=True)))


@settings(max_examples=60, deadline=None)
@given(tables)
def test_invariants_of_any_table(table):
    metrics = fairness.fairness_metrics(table)
    counts = metrics.attrs["groups"]
    assert all(np.isnan(metrics[name]) == (counts[name] < 2) for name in METRICS)
    gaps = metrics.drop(["fpr_sum", "eo"]).dropna()
    assert ((gaps >= 0) & (gaps <= 1)).all()
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_series_equal(fairness.fairness_metrics(shuffled), metrics)
    rates = fairness.group_rates(table)
    assert (rates["n_real"] + rates["n_fake"] == rates["n"]).all() and rates["n"].sum() == len(table)
    np.testing.assert_allclose(rates["fpr"] + rates["tnr"], np.where(rates["n_real"] > 0, 1, np.nan))
    assert ((rates["undefined"] == "") == (rates["auc"].notna())).all()
    # the same scores for everybody: no metric shows a difference
    same = fairness.fairness_metrics(table.assign(score=0.7))
    assert (same.drop(["oae", "auc_gap"]).dropna().abs() < 1e-12).all()


def bootstrap_by_loop(table, by, weights):
    """The plain form: repeat the images of each drawn video, then compute."""
    videos = pd.unique(table["video"])
    rows = []
    for column in weights.T:
        times = table["video"].map(dict(zip(videos, column.astype(int), strict=True)))
        drawn = table.loc[table.index.repeat(times)]
        metrics = fairness.fairness_metrics(drawn, by)
        rows.append({**metrics, **fairness.overall_metrics(drawn)[list(OVERALL)]})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("by", ["group", "gender"])
@pytest.mark.parametrize("mixed", [False, True])
def test_bootstrap_equals_a_plain_loop(monkeypatch, by, mixed):
    table = random_table(3, videos=40) if mixed else video_table()
    seen = []
    inner = resampling._cluster_weights

    def remember(*args):
        for weights in inner(*args):
            seen.append(weights)
            yield weights

    monkeypatch.setattr(resampling, "_cluster_weights", remember)
    monkeypatch.setattr(resampling, "_chunks", lambda count, width: [count - 7, 7])
    ours = resampling.bootstrap(table, by, resamples=40, level=0.9)
    loop = bootstrap_by_loop(table, by, np.concatenate(seen, axis=1))
    np.testing.assert_allclose(ours["low"], loop.quantile(0.05), atol=1e-12)
    np.testing.assert_allclose(ours["high"], loop.quantile(0.95), atol=1e-12)
    expected = fairness.fairness_metrics(table, by)
    np.testing.assert_allclose(ours.loc[list(METRICS), "estimate"], expected, atol=1e-12)
    assert ours.loc[list(METRICS), "groups"].tolist() == list(expected.attrs["groups"].values())
    assert ours.index.tolist() == [*METRICS, *OVERALL]


def test_drawn_weights_keep_strata_and_are_multinomial():
    strata = np.array([0, 1, 1, 2, 0, 2, 2, 1, 2, 2])
    weights = np.concatenate(list(resampling._cluster_weights(strata, [3000, 1000], seed=0)), axis=1)
    assert weights.shape == (10, 4000)
    for stratum, members in enumerate(np.bincount(strata)):
        part = weights[strata == stratum]
        assert (part.sum(0) == members).all()
        np.testing.assert_allclose(part.mean(1), 1, atol=0.06)
        np.testing.assert_allclose(part.var(1), 1 - 1 / members, atol=0.08)  # multinomial variance


def test_chunks_do_not_change_the_draws():
    strata = np.zeros(30, int)
    whole = np.concatenate(list(resampling._cluster_weights(strata, [20], seed=4)), axis=1)
    parts = np.concatenate(list(resampling._cluster_weights(strata, [7, 13], seed=4)), axis=1)
    np.testing.assert_array_equal(whole, parts)
    assert resampling._chunks(1000, 10**7) == [1] * 1000 and sum(resampling._chunks(2000, 25_000)) == 2000


def test_bootstrap_by_video_is_wider_than_by_image():
    table = video_table(per_cell=6, frames=6)
    first = table.groupby("video")["score"].transform("first")
    table["score"] = first  # all frames of a video agree: six times fewer independent observations
    video = resampling.bootstrap(table, "gender", 400)
    image = resampling.bootstrap(table, "gender", 400, cluster="img_path")
    width = (video["high"] - video["low"]) / (image["high"] - image["low"])
    assert 1.8 < width["acc"] < 3.2  # sqrt(6) = 2.4


def test_bootstrap_is_reproducible_and_uses_the_seed():
    table = video_table()
    pd.testing.assert_frame_equal(resampling.bootstrap(table, resamples=50), resampling.bootstrap(table, resamples=50))
    other = resampling.bootstrap(table, resamples=50, seed=1)
    assert not other["low"].equals(resampling.bootstrap(table, resamples=50)["low"])


def test_incomplete_counts_resamples_that_lost_a_group():
    # one video mixes two groups and holds the only reals of one of them
    table = score_table(["male-white"] * 6 + ["male-black"] * 2, [0, 1, 0, 1, 0, 1, 0, 1], [0.2, 0.8] * 4)
    table["video"] = ["a", "b", "c", "d", "e", "f", "c", "f"]
    result = resampling.bootstrap(table, resamples=500)
    lost = (2 / 3) ** 3  # video c is not among the three draws from the stratum of a, c, e
    assert result.loc["fpr_gap", "incomplete"] == pytest.approx(lost, abs=0.06)
    assert result.loc["acc", "incomplete"] == 0


def test_videos_of_two_data_sets_with_one_name_are_two_clusters():
    table = video_table(frames=1)
    twice = pd.concat([table, table.assign(dataset="dfd")], ignore_index=True)
    assert fairness.group_rates(twice)["n_videos"].sum() == 2 * len(table)


def test_paired_difference_uses_the_same_resamples():
    a = video_table(0)
    shuffled = a.sample(frac=1, random_state=1)
    same = resampling.paired_difference(a, shuffled, resamples=50)
    np.testing.assert_allclose(same[["estimate", "low", "high"]], 0, atol=1e-12)
    b = a.assign(score=np.clip(a["score"] + 0.2 * (a["gender"] == "male"), 0, 1))
    result = resampling.paired_difference(a, b, "gender", resamples=200)
    assert result.loc["fpr", "high"] < 0  # A has fewer false alarms
    np.testing.assert_allclose(result["estimate"], result["a"] - result["b"])
    np.testing.assert_allclose(result.loc[list(METRICS), "b"], fairness.fairness_metrics(b, "gender"))
    reverse = resampling.paired_difference(b, a, "gender", resamples=200)
    np.testing.assert_allclose(reverse["low"], -result["high"], atol=1e-12)


def test_paired_difference_refuses_other_images_and_labels():
    a = video_table(0)
    with pytest.raises(ScoreTableError, match="3.png is in one only"):
        resampling.paired_difference(a, a.drop(index=3))
    with pytest.raises(ScoreTableError, match="3.png is in one only"):
        resampling.paired_difference(a.drop(index=3), a)
    with pytest.raises(ScoreTableError, match=r"second table lists 0.png twice \(row 320"):
        resampling.paired_difference(a, pd.concat([a, a[:1]]))
    with pytest.raises(ScoreTableError, match="'label' of 0.png differs"):
        resampling.paired_difference(a, a.assign(label=1))


@pytest.mark.parametrize("k,n,low,high", [(0, 10, 0, 0.27754), (1, 10, 0.01788, 0.40415), (81, 263, 0.2553, 0.3662)])
def test_wilson_interval_published_values(k, n, low, high):
    # 81 of 263: Newcombe 1998, table I; the first two by hand from the formula
    np.testing.assert_allclose(fairness.rate_interval(k, n), (low, high), atol=5e-5)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_wilson_interval_agrees_with_scipy(level):
    binomtest = pytest.importorskip("scipy.stats").binomtest
    k, n = np.array([0, 1, 17, 40, 40]), np.array([3, 8, 40, 41, 40])
    low, high = fairness.rate_interval(k, n, level)
    for i in range(len(k)):
        theirs = binomtest(k[i], n[i]).proportion_ci(level, "wilson")
        assert (low[i], high[i]) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_interval_of_none_and_all_reaches_the_end_exactly():
    n = np.arange(1, 400)
    assert (fairness.rate_interval(0 * n, n)[0] == 0).all() and (fairness.rate_interval(n, n)[1] == 1).all()


def test_wilson_interval_without_trials_is_undefined():
    assert np.isnan(fairness.rate_interval(0, 0)).all()
    with pytest.raises(ValueError, match="0 <= k <= n"):
        fairness.rate_interval(3, 2)


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
    floor = resampling.sampling_floor(blind_table(n, balanced=False), permutations=2000)
    known = {400: {"fpr_sum": 0.46}, 1600: {"fpr_sum": 0.23, "meo": 0.13, "dp": 0.11, "oae": 0.07}}[n]
    for name, mean in known.items():
        assert floor.loc[name, "mean"] == pytest.approx(mean, abs=0.015), name
    assert floor.loc["fpr_sum", "q95"] == pytest.approx({400: 0.69, 1600: 0.35}[n], abs=0.025)


def test_sampling_floor_equals_binomial_simulation():
    """The same question without permutations: 100 reals and 100 fakes a group, every image an independent draw."""
    rng = np.random.default_rng(5)
    floor = resampling.sampling_floor(blind_table(1600, balanced=True), permutations=2000)
    fpr, tpr = rng.binomial(100, 0.18, (20_000, 8)) / 100, rng.binomial(100, 0.84, (20_000, 8)) / 100
    fpr_off = np.abs(fpr - fpr.mean(1, keepdims=True)).sum(1)
    simulated = {
        "fpr_sum": fpr_off,
        "fpr_gap": np.ptp(fpr, axis=1),
        "oae": np.ptp((1 - fpr + tpr) / 2, axis=1),
        "dp": np.ptp((fpr + tpr) / 2, axis=1),
        "meo": np.maximum(np.ptp(fpr, axis=1), np.ptp(tpr, axis=1)),
        "eo": fpr_off + np.abs(tpr - tpr.mean(1, keepdims=True)).sum(1),
    }
    for name, values in simulated.items():
        assert floor.loc[name, "mean"] == pytest.approx(values.mean(), rel=0.03), name
        assert floor.loc[name, "q95"] == pytest.approx(np.quantile(values, 0.95), rel=0.06), name


def test_sampling_floor_equals_a_plain_loop(monkeypatch):
    table = random_table(5, n=120, groups=GROUPS[:3])
    floor = resampling.sampling_floor(table, permutations=300)
    rng = np.random.default_rng(99)
    loop = []
    for _ in range(300):
        shuffled = table.copy()
        for label in (0, 1):
            rows = table["label"] == label
            shuffled.loc[rows, "group"] = rng.permutation(table.loc[rows, "group"])
        loop.append(fairness.fairness_metrics(shuffled))
    loop = pd.DataFrame(loop)
    spread = loop.std() / np.sqrt(300)
    assert ((floor["mean"] - loop.mean()).abs() < 5 * spread).all()
    np.testing.assert_allclose(floor["estimate"], fairness.fairness_metrics(table), atol=1e-12)


def test_sampling_floor_keeps_videos_together_and_p_values_behave():
    table = video_table(per_cell=6, frames=8, seed=2)
    table["score"] = table.groupby("video")["score"].transform("first")  # frames agree
    whole = resampling.sampling_floor(table, permutations=300)
    single = resampling.sampling_floor(table, permutations=300, cluster="img_path")
    assert (whole["mean"] > 1.8 * single["mean"]).all()  # sqrt(8) = 2.8 if no correlation were left
    unfair = video_table(per_cell=10)
    male = unfair["gender"] == "male"
    unfair.loc[male, "score"] = np.clip(unfair.loc[male, "score"] + 0.3, 0, 1)
    p = resampling.sampling_floor(unfair, "gender", permutations=199)["p_value"]
    assert p["fpr_gap"] == pytest.approx(1 / 200)
    assert (p > 0).all() and (p <= 1).all()


def test_sampling_floor_splits_mixed_videos():
    table = random_table(3, n=200, videos=20)  # every video mixes labels and groups
    floor = resampling.sampling_floor(table, permutations=50)
    assert floor[["mean", "q95"]].notna().all().all()
    assert resampling.sampling_floor(table, permutations=50).equals(floor)


FAULTS = {
    "no column 'ethnicity'; it has: img_path": (lambda t: t, "ethnicity"),
    "no column 'intersection'.*is called 'group'": (lambda t: t, "intersection"),
    "no column 'score'": (lambda t: t.drop(columns="score"), "group"),
    "'score' is empty .NaN. in 1 row.s., first in row 2": (
        lambda t: t.assign(score=t["score"].where(t.index != 2)),
        "group",
    ),
    "'score', row 1 .counted from 0.: 1.7": (lambda t: t.assign(score=t["score"].where(t.index != 1, 1.7)), "group"),
    "'score', row 0 .*high is not allowed": (lambda t: t.assign(score="high"), "group"),
    "'label', row 0 .*2": (lambda t: t.assign(label=2), "group"),
    "'race' is empty": (lambda t: t.assign(race=None), "race"),
    "score table is empty": (lambda t: t[:0], "group"),
    "no column 'video'.*copy img_path": (lambda t: t.drop(columns="video"), "group"),
}


@pytest.mark.parametrize("message", FAULTS)
def test_faulty_tables_are_refused(message):
    spoil, by = FAULTS[message]
    with pytest.raises(ScoreTableError, match=message):
        fairness.group_rates(spoil(random_table(0)), by)


def test_faulty_arguments_are_refused():
    table = random_table(0)
    with pytest.raises(ValueError, match="threshold is 50"):
        fairness.fairness_metrics(table, threshold=50)
    with pytest.raises(ValueError, match="fidelity is 'exact'"):
        fairness.fairness_metrics(table, fidelity="exact")
    with pytest.raises(ValueError, match="at least 1"):
        resampling.bootstrap(table, resamples=0)
    with pytest.raises(ValueError, match="level is 95"):
        resampling.bootstrap(table, resamples=10, level=95)
    with pytest.raises(ScoreTableError, match="logit_fake.*finite"):
        fairness.fairness_metrics(table.assign(logit_fake=np.inf), fidelity="official")
