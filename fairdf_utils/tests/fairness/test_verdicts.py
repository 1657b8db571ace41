"""The verdict finds what was built in, keeps quiet where nothing was, and says what it cannot tell."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdf_utils.fairness import (
    cautions,
    findings,
    metrics,
    permutation,
    sample_size,
    thresholds,
    uncertainty,
    verdicts,
)
from fairdf_utils.fairness.permutation import holm
from fairdf_utils.fairness.score_table import ScoreTableError, read_scores
from fairdf_utils.fairness.uncertainty import Settings
from fairdf_utils.fairness.worst_group import WORST, worst_groups
from fairdf_utils.tests.fairness.score_tables import planted_table

QUICK = Settings(resamples=60, permutations=60)


def judged_from(table, folder, bys=(), **given):
    """A table taken through a file, as a user's is."""
    path = folder / "given.csv"
    table.to_csv(path, index=False)
    read = read_scores(path, bys)
    return verdicts.judge(read, verdicts.groupings(read, bys), given.pop("settings", QUICK), **given)


def of_kind(verdict, kind):
    return [finding for finding in verdict.findings if finding["kind"] == kind]


PLANTED = {
    "male-white": (40, 40),
    "female-white": (40, 40),
    "male-black": (40, 40),
    "female-black": (40, 40),
    "male-asian": (20, 0),
    "female-others": (3, 0),
}
TABLE = planted_table(PLANTED, raised=("male-black", "female-black"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """More false alarms for black people; one group without fakes, one with three videos."""
    return judged_from(TABLE, tmp_path_factory.mktemp("planted"))


def test_the_planted_difference_is_found(planted):
    differs = {(f["by"], f["metric"]) for f in of_kind(planted, "differs") if not f["group"]}
    assert {("group", "fpr_gap"), ("race", "fpr_gap")} <= differs
    assert not {("gender", "fpr_gap"), ("gender", "tpr_gap"), ("group", "tpr_gap")} & differs
    singled_out = {f["group"] for f in of_kind(planted, "differs") if f["by"] == "race" and f["metric"] == "fpr"}
    assert "black" in singled_out
    assert planted.primary == "group"


def test_the_numbers_in_a_sentence_are_those_of_the_rates(planted):
    rates = metrics.group_rates(TABLE, "race")["fpr"]
    finding = next(f for f in of_kind(planted, "differs") if (f["by"], f["metric"]) == ("race", "fpr_gap"))
    large = rates[["white", "black", "asian"]]
    assert finding["numbers"]["estimate"] == pytest.approx(large.max() - large.min())
    for group in (large.idxmin(), large.idxmax()):
        assert f"{100 * large[group]:.1f} % ({group})" in finding["text"]
    black = next(f for f in of_kind(planted, "differs") if f["group"] == "black" and f["metric"] == "fpr")
    reals = TABLE[TABLE["label"] == 0]
    alarms = (reals["score"] >= 0.5).groupby(reals["race"] == "black").mean()
    assert black["numbers"]["difference"] == pytest.approx(alarms[True] - alarms[False])


def test_three_videos_do_not_hide_the_others(planted):
    row = planted.fairness.loc[("group", "fpr_gap")]
    assert row["left_out"] == "female-others" and row["groups"] == 5
    whole = planted.fairness.loc[("group", "fpr_sum")]
    assert whole["groups"] == 6, "the metrics of the field take all groups"
    assert whole["estimate"] == pytest.approx(metrics.fairness_metrics(TABLE, "group")["fpr_sum"])


def test_the_numbers_are_those_of_the_one_regime(planted):
    enough = planted.settings
    assert enough == replace(QUICK, permutations=enough.permutations)
    groups = uncertainty.group_intervals(TABLE.assign(img_path=TABLE.index.astype(str)), "race", enough)
    names = ["fpr_low", "fpr_high", "tpr_low", "tpr_high", "acc_low", "acc_high", "auc_low", "auc_high"]
    np.testing.assert_allclose(planted.groups.loc["race"].loc[groups.index, names].astype(float), groups[names])
    whole = uncertainty.metric_intervals(TABLE.assign(img_path=TABLE.index.astype(str)), "gender", enough)
    columns = ["estimate", "low", "high", "floor_q95", "p_value"]
    gender = planted.fairness.loc["gender"].drop(list(WORST))
    np.testing.assert_allclose(gender[columns].astype(float), whole.loc[gender.index, columns].astype(float))
    main = worst_groups(TABLE.assign(img_path=TABLE.index.astype(str)), "race", enough)
    pd.testing.assert_frame_equal(planted.fairness.loc["race"].loc[list(WORST), main.columns], main, check_dtype=False)


def test_the_main_numbers_come_first(planted):
    first, main = planted.findings[0], planted.fairness.loc[planted.primary].loc["worst_tpr"]
    assert first["kind"] == "detection" and first["numbers"]["worst_tpr"]["worst"] == main["worst"]
    said = f"the lowest share of fakes found is that of {main['worst']}, {100 * main['estimate']:.1f} %"
    assert said in first["text"] and f"({100 * main['low']:.1f} to" in first["text"]


def test_small_groups_are_named_with_what_they_need(planted):
    small = next(f for f in of_kind(planted, "too small") if f["by"] == "group")
    assert small["numbers"]["lacking"] == {"male-asian": ["fake"], "female-others": ["real", "fake"]}
    pooled = sample_size.design_effects(TABLE, "group", QUICK).loc[("fpr", "pooled")]
    needed = sample_size.videos_needed(0.2, pooled["rate"], pooled["frames"], pooled["correlation"])
    assert (
        small["numbers"]["needed"]["real"] == needed and f"at least {needed} videos with real images" in small["text"]
    )
    named = {f["group"] for kind in ("differs", "not told apart") for f in of_kind(planted, kind)}
    assert not named & {"female-others", "others"}
    assert "female-others (real images and fakes)" in findings.in_short(planted.findings)


@pytest.mark.parametrize("cluster", ["video", "img_path"])
def test_one_video_alone_is_told_what_it_needs(tmp_path, cluster):
    """Of a class that is not there nothing is known, so there is no plan; nobody needs fewer than ten."""
    table = planted_table({"male-white": (1, 0), "female-white": (30, 0)}, frames=8)
    table["score"] = np.where(table.index % 50 == 9, 0.9, 0.1)  # few alarms, in single frames: three videos would do
    verdict = judged_from(table, tmp_path, ["gender"], settings=replace(QUICK, cluster=cluster))
    small = of_kind(verdict, "too small")[0]
    assert small["numbers"]["needed"].keys() == {"real"} and small["numbers"]["needed"]["real"] >= 10
    needs = {"video": "1 video with real images and 0 videos with fakes", "img_path": "8 real images and 0 fakes"}
    assert f"male ({needs[cluster]})" in small["text"]
    assert "Cannot be judged: male (real images and fakes), female (fakes)." in findings.in_short(verdict.findings)


def test_an_undefined_rate_has_its_reason_and_n(planted):
    texts = [f["text"] for f in of_kind(planted, "undefined")]
    assert "By group, male-asian has no FNR, TPR and AUC: no fakes (n = 60, all real)." in texts
    assert np.isnan(planted.groups.loc[("group", "male-asian"), "tpr"])
    assert planted.fairness.loc[("group", "tpr_gap"), "groups"] == 4


def test_few_videos_have_a_wide_interval_and_no_auc(planted):
    row = planted.groups.loc[("group", "female-others")]
    assert row["few"] == "fpr, tpr" and row["clusters_real"] == 3 <= row["effective_real"] <= row["n_real"]
    assert row["fpr_low"] < row["fpr"] < row["fpr_high"] and row["fpr_high"] - row["fpr_low"] > 0.5
    assert np.isnan(row["auc_low"])


def test_holm_runs_over_gaps_sums_and_single_groups_apart(planted):
    fairness, groups = planted.fairness, planted.groups
    of_gaps = fairness.index.isin(["fpr_gap", "tpr_gap", "auc_gap"], level="metric")
    for part in (fairness[of_gaps], fairness[~of_gaps]):
        assert np.allclose(part["p_holm"], holm(part["p_value"]), equal_nan=True)
    once = groups.drop(index=("gender", "female"))  # of two groups the second mirrors the first
    p = pd.concat([once["fpr_off_p"], once["tpr_off_p"]])
    corrected = pd.concat([once["fpr_off_p_holm"], once["tpr_off_p_holm"]])
    assert np.allclose(corrected, holm(p), equal_nan=True)


def test_of_two_groups_the_second_mirrors_the_first(planted):
    male, female = (planted.groups.loc[("gender", group)] for group in ("male", "female"))
    assert male["fpr_off"] == pytest.approx(male["fpr"] - female["fpr"])
    assert female["fpr_off"] == -male["fpr_off"] and female["fpr_off_low"] == -male["fpr_off_high"]
    assert female["fpr_off_p"] == male["fpr_off_p"]


@pytest.mark.parametrize(("cluster", "seldom"), [("video", True), ("img_path", False)])
def test_blind_detectors_are_seldom_accused(cluster, seldom):
    """At p < 0.05, six or more of 24 would come about once in 800 times; images taken for videos exceed that."""
    wrong = 0
    for seed in range(24):
        table = planted_table({"a-x": (12, 0), "b-x": (40, 0), "c-x": (30, 0)}, seed=seed, frames=6)
        given = Settings(resamples=20, permutations=200, cluster=cluster)
        floor = permutation.sampling_floor(table.assign(img_path=table.index.astype(str)), "group", given, auc=False)
        wrong += floor.loc["fpr_gap", "p_value"] < 0.05
    assert (wrong <= 5) == seldom


def test_intervals_of_gaps_reach_zero_unless_it_is_excluded(planted):
    rows = planted.fairness.dropna(subset="p_value")
    compatible = rows["p_value"] >= 0.05
    assert (rows["low"][compatible] == 0).all() and compatible.any() and not compatible.all()
    assert (rows["high"] >= rows["estimate"] - 1e-12).all()


RATES = np.r_[np.linspace(0.3, 0.4, 7), 0.5]  # false alarms of eight groups: a true gap of 20 points


def eight_groups(seed, videos=10, frames=4):
    """Reals only; each video has a rate of its own around that of its group."""
    rng = np.random.default_rng(seed)
    own = rng.beta(4 * RATES, 4 * (1 - RATES), (videos, 8))
    wrong = rng.random((frames, videos, 8)) < own
    frame, video, group = np.indices(wrong.shape).reshape(3, -1)
    names = np.char.add(np.char.add(group.astype(str), "/"), video.astype(str))
    return pd.DataFrame({"video": names, "label": 0, "group": group.astype(str), "score": 1.0 * wrong.ravel()})


def test_intervals_of_gaps_between_many_groups_cover_the_true_gap():
    """In 36 or more of 40 test sets."""
    covered, given = 0, Settings(resamples=200, permutations=20)
    for seed in range(40):
        row = uncertainty.metric_intervals(eight_groups(seed), "group", given, auc=False).loc["fpr_gap"]
        covered += row["low"] <= 0.2 <= row["high"]
    assert covered >= 36


def test_other_thresholds_and_videos_are_corrected_for_each_other(planted):
    points = planted.points
    assert list(points.index) == ["EER", "FPR 10 %", "videos"]
    assert np.allclose(points["p_holm"], holm(points["p_value"]))
    reals = TABLE[TABLE["label"] == 0]
    means = reals.groupby("video").agg({"score": "mean", "group": "first"})
    alarms = (means["score"] >= 0.5).groupby(means["group"]).mean().drop("female-others")
    assert points.loc["videos", "estimate"] == pytest.approx(alarms.max() - alarms.min())


def test_a_verdict_stands_beside_its_own_p(planted):
    said = of_kind(planted, "threshold") + of_kind(planted, "videos")
    assert len(said) == 3
    for finding in said:
        p = finding["numbers"]["p_holm"]
        assert f"{findings.p_text(p)}, corrected" in finding["text"]
        assert ("cannot be told apart" in finding["text"]) == (p >= 0.05)


def test_corrected_p_values_are_not_all_at_the_floor_of_the_permutations(planted):
    p = planted.groups[["fpr_off_p", "tpr_off_p"]].stack()
    corrected = planted.groups[["fpr_off_p_holm", "tpr_off_p_holm"]].stack()
    assert len(p) / (planted.settings.permutations + 1) > 0.05, "so few could never find one of them"
    assert corrected.min() < 0.05 and p.nsmallest(3).nunique() > 1


def test_thresholds_come_from_validation_when_it_is_given(tmp_path, planted):
    validation = planted_table(PLANTED, seed=9)
    table = planted_table({group: PLANTED[group] for group in ("male-white", "male-black")}, seed=3)
    fitted = judged_from(table, tmp_path, ["group"], validation=validation.assign(dataset="given"))
    assert fitted.fitted_on == "validation"
    eer = thresholds.fit_threshold(validation, "eer")
    assert fitted.points.loc["EER", "threshold"] == eer
    at_eer = metrics.group_rates(table, "group", eer)["fpr"]
    assert fitted.points.loc["EER", "estimate"] == pytest.approx(at_eer.max() - at_eer.min())
    assert all("the same images" in f["text"] for f in of_kind(planted, "threshold"))


SIMPLE = {"male-white": (12, 12), "female-white": (12, 12)}


@pytest.mark.parametrize(
    ("change", "said", "severe"),
    [
        (lambda t: t.drop(columns="video"), "no column 'video'", True),
        (lambda t: t.assign(identity="one person"), "show 1 person", False),
        (lambda t: t.assign(img_path="same.png"), "An img_path is repeated in 71 rows", False),
        (lambda t: t.assign(score=t["score"].round()), "two values", False),
        (lambda t: t.assign(score=1 - t["score"]), "Real images score higher", True),
        (lambda t: t.assign(score=t["score"] / 3), "nothing is called fake", True),
        (lambda t: t.assign(score=0.5 + t["score"] / 3), "everything is called fake", True),
        (
            lambda t: t.assign(gender=t["gender"].where(t.index >= 6)),
            "6 images without a value in 'gender' (6 real; the first is ",
            False,
        ),
        (lambda t: t.assign(gender="male"), "one group only (male)", True),
        (lambda t: t[(t["label"] == 0) | (t["gender"] == "male")], "trust the gaps of FPR and TPR", False),
        (lambda t: t.assign(video="all"), "holds reals and fakes", False),
        (
            lambda t: t.assign(gender=t["gender"].mask(t.index < 6, t["gender"].str.upper())),
            "By gender, 'MALE' and 'male' differ only in capitals",
            True,
        ),
        (lambda t: t.assign(race=["white", "black"] * (len(t) // 2)), "24 videos have several values in 'race'", False),
        (lambda t: pd.concat([t, t[:5]]), "5 rows are exact copies of another row", False),
        (lambda t: t[t["label"] == 1], "There are no real images", True),
        (lambda t: t[t["label"] == 0], "There are no fakes", True),
        (lambda t: t.assign(score=0.5), "All scores are the same", True),
        (lambda t: t.assign(score=0.5), "No operating point can be fitted", False),
        (lambda t: t.assign(skin=None), "No image has a value in 'skin'", False),
        (lambda t: t, "Only 24 videos with real images", False),
        (
            lambda t: t[t["video"].isin(t["video"].unique()[:1]) | t["label"]],
            "Only 1 video with real images: false",
            True,
        ),
        (lambda t: t, "rest on few of 60 resamples", False),
    ],
)
def test_the_reader_is_warned(tmp_path, change, said, severe):
    table = change(planted_table(SIMPLE).drop(columns="group").iloc[::2].reset_index(drop=True))
    bys = ["race"] if "several" in said else [name for name in ("gender", "skin") if name in table]
    verdict = judged_from(table, tmp_path, bys)
    texts = [caution["text"] for caution in verdict.cautions]
    assert not any("Only 0" in text for text in texts)
    found = next((caution for caution in verdict.cautions if said in caution["text"]), None)
    assert found and found["severe"] == severe, texts
    order = [caution["severe"] for caution in verdict.cautions]
    assert order[: sum(order)] == [True] * sum(order), "severe ones first"


def test_images_as_clusters_are_warned_of(tmp_path):
    verdict = judged_from(planted_table(SIMPLE), tmp_path, settings=replace(QUICK, cluster="img_path"))
    assert any(
        "Single images are taken for independent although they come from 48 videos" in c["text"]
        for c in verdict.cautions
    )


def test_equal_rates_are_no_gap(tmp_path):
    table = planted_table({"a-x": (12, 12), "b-x": (12, 12), "c-x": (12, 12)}).drop(columns=["gender", "race"])
    verdict = judged_from(table.assign(score=table["label"] * 0.8 + 0.1), tmp_path)
    gap = next(f for f in verdict.findings if f["metric"] == "fpr_gap")
    assert gap["kind"] == "not told apart"
    assert gap["text"].startswith("By group, the share of real images called fake is the same in all groups, 0.0 %.")


def test_images_left_out_of_a_grouping_stay_in_the_overall_numbers(tmp_path):
    table = planted_table(SIMPLE).drop(columns=["group", "race"])
    table.loc[table["video"] == "male-white/0/0", "gender"] = None
    verdict = judged_from(table, tmp_path)
    assert verdict.groups["n"].sum() == len(table) - 3
    reals = table[table["label"] == 0]
    assert verdict.overall.loc["fpr", "estimate"] == pytest.approx((reals["score"] >= 0.5).mean())


def test_validation_that_shares_videos_is_noticed(tmp_path):
    table = planted_table(SIMPLE)
    verdict = judged_from(table, tmp_path, ["gender"], validation=table.assign(dataset="given"))
    assert any("Validation holds 48 videos" in caution["text"] for caution in verdict.cautions)


@pytest.mark.parametrize("labels", [(0,), (1,)])
def test_one_class_alone_is_judged_as_far_as_it_goes(tmp_path, labels):
    table = planted_table({"male-white": (15, 15), "female-white": (15, 15)})
    verdict = judged_from(table[table["label"].isin(labels)], tmp_path, ["gender"])
    tested = verdict.fairness["p_value"].notna()
    assert tested["gender", "fpr_gap"] == (labels == (0,)) and tested["gender", "tpr_gap"] == (labels == (1,))
    assert not tested["gender", "auc_gap"]
    assert any("operating point EER is left out" in caution["text"] for caution in verdict.cautions)


def test_a_column_that_is_no_grouping_is_refused(tmp_path):
    table = planted_table({"a-x": (60, 0)})
    for bys, said in ((["video"], "60 different values"), (["skin"], "no column 'skin'; it has: video, label, group")):
        with pytest.raises(ScoreTableError, match=said):
            judged_from(table, tmp_path, bys)
    with pytest.raises(ScoreTableError, match="No image has a value in skin"):
        judged_from(table.assign(skin=None), tmp_path, ["skin"])
    with pytest.raises(ScoreTableError, match="no column 'identity'"):
        judged_from(table, tmp_path, ["gender"], settings=replace(QUICK, cluster="identity"))
    twice = judged_from(table, tmp_path, ["gender", "gender"])
    assert twice.bys == ["gender"]


def test_numbers_are_written_as_people_read_them():
    assert cautions.percent(0.257) == "25.7 %" and cautions.percent(np.nan) == "undefined"
    assert findings.points_of(0.031) == "3.1 points"
    assert findings.between(0.1, 0.25) == " (10.0 to 25.0)" and findings.between(np.nan, 0.1) == ""
    assert findings.p_text(0.0004) == "p < 0.001" and findings.p_text(0.0312) == "p = 0.031"
    assert cautions.counted(1, "people") == "1 person" and cautions.counted(2500, "videos") == "2,500 videos"


def test_names_are_escaped_and_nothing_is_lost_on_the_page(tmp_path):
    table = planted_table(PLANTED, raised=("male-black", "female-black")).replace({"female-white": '<b>&"x'})
    verdict = judged_from(table, tmp_path, ["group"])
    text = findings.as_html(verdict)
    assert "<b>" not in text and "&lt;b&gt;&amp;&quot;x" in text
    assert text.count("<li>") == len(verdict.findings) + len(verdict.cautions)
    assert text.index("Differs between groups") < text.index("Cannot be judged")


@st.composite
def odd_tables(draw):
    n = draw(st.integers(1, 40))
    column = {
        "video": draw(st.lists(st.integers(0, 12), min_size=n, max_size=n)),
        "label": draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)),
        "gender": draw(st.lists(st.sampled_from(["male", "female", None]), min_size=n, max_size=n)),
        "gender_2": draw(st.lists(st.sampled_from(["male", "other", None]), min_size=n, max_size=n)),
        "score": draw(st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), min_size=n, max_size=n)),
    }
    column["gender"][0] = "male"
    return pd.DataFrame(column)


@settings(max_examples=20, deadline=None)
@given(odd_tables())
def test_every_table_of_the_form_is_judged(tmp_path_factory, table):
    given = Settings(resamples=8, permutations=8, level=0.5)
    verdict = judged_from(table, tmp_path_factory.mktemp("odd"), settings=given)
    fairness = verdict.fairness.dropna(subset="p_value")
    assert fairness["p_value"].between(0, 1).all() and (fairness["p_holm"] >= fairness["p_value"] - 1e-12).all()
    groups = verdict.groups
    assert groups["n"].sum() == table["gender"].notna().sum()
    for rate in ("fpr", "tpr"):
        shown = groups.dropna(subset=[rate, f"{rate}_low"])
        assert (shown[f"{rate}_low"] <= shown[f"{rate}_high"]).all()
    assert all(finding["text"].endswith(".") for finding in verdict.findings)
    assert findings.as_html(verdict)
