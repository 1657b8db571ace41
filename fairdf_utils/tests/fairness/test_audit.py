"""The audit finds what was built in, keeps quiet where nothing was, and says what it cannot tell."""

import argparse
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdf_utils.fairness import audit, gaps
from fairdf_utils.fairness.audit_findings import p_text
from fairdf_utils.fairness.gaps import Settings
from fairdf_utils.fairness.intervals import holm
from fairdf_utils.fairness.metrics import fairness_metrics, group_rates, rate_interval
from fairdf_utils.fairness.resampling import bootstrap
from fairdf_utils.fairness.sample_size import design_effects, videos_needed
from fairdf_utils.fairness.score_table import ScoreTableError
from fairdf_utils.fairness.thresholds import fit_threshold

QUICK = Settings(resamples=60)


def made_table(videos, raised=(), seed=0, frames=3, shift=1.2):
    """Scores of a detector: `videos` {"male-white": (real, fake)}; reals of the groups in `raised` score higher."""
    rng, parts = np.random.default_rng(seed), []
    for group, counts in videos.items():
        for label, count in enumerate(counts):
            centre = rng.normal(1.2 if label else -1.2 + shift * (group in raised), 0.9, (count, 1))
            score = 1 / (1 + np.exp(-centre - rng.normal(0, 0.4, (count, frames))))
            names = [f"{group}/{label}/{video}" for video in range(count)]
            part = {"video": np.repeat(names, frames), "label": label, "group": group, "score": score.ravel().round(4)}
            parts.append(pd.DataFrame(part))
    table = pd.concat(parts, ignore_index=True)
    table[["gender", "race"]] = table["group"].str.split("-", expand=True)
    return table


def options(scores, out, **changed):
    defaults = {"by": None, "threshold": 0.5, "validation": None, "resamples": 60, "level": 0.95}
    return argparse.Namespace(scores=scores, out=out, **{**defaults, "cluster": "video", "seed": 0} | changed)


def judged_from(table, folder, bys=None, **kwargs):
    """A table taken through a file, as a user's is."""
    path = folder / "given.csv"
    table.to_csv(path, index=False)
    read, bys = audit.read(path, bys)
    return audit.judge("given", read, bys, kwargs.pop("settings", QUICK), **kwargs)


def of_kind(judged, kind):
    return [finding for finding in judged.findings if finding["kind"] == kind]


PLANTED = {
    "male-white": (40, 40),
    "female-white": (40, 40),
    "male-black": (40, 40),
    "female-black": (40, 40),
    "male-asian": (20, 0),
    "female-others": (3, 0),
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """More false alarms for black people; one group without fakes, one with three videos."""
    table = made_table(PLANTED, raised=("male-black", "female-black"))
    return judged_from(table, tmp_path_factory.mktemp("planted"))


def test_the_planted_difference_is_found(planted):
    differs = {(f["by"], f["metric"]) for f in of_kind(planted, "differs") if not f["group"]}
    assert {("group", "fpr_gap"), ("race", "fpr_gap")} <= differs
    assert not {("gender", "fpr_gap"), ("gender", "tpr_gap"), ("group", "tpr_gap")} & differs
    singled_out = {f["group"] for f in of_kind(planted, "differs") if f["by"] == "race" and f["metric"] == "fpr"}
    assert "black" in singled_out
    assert planted.primary == "group"


def test_the_numbers_in_a_sentence_are_those_of_the_rates(planted):
    rates = group_rates(planted.table, "race")["fpr"]
    finding = next(f for f in of_kind(planted, "differs") if (f["by"], f["metric"]) == ("race", "fpr_gap"))
    large = rates[["white", "black", "asian"]]
    assert finding["numbers"]["estimate"] == pytest.approx(large.max() - large.min())
    for group in (large.idxmin(), large.idxmax()):
        assert f"{100 * large[group]:.1f} % ({group})" in finding["text"]
    black = next(f for f in of_kind(planted, "differs") if f["group"] == "black" and f["metric"] == "fpr")
    reals = planted.table[planted.table["label"] == 0]
    alarms = (reals["score"] >= 0.5).groupby(reals["race"] == "black").mean()
    assert black["numbers"]["difference"] == pytest.approx(alarms[True] - alarms[False])


def test_three_videos_do_not_hide_the_others(planted):
    row = planted.images.fairness.loc[("group", "fpr_gap")]
    assert row["left_out"] == "female-others" and row["groups"] == 5
    whole = planted.images.fairness.loc[("group", "fpr_sum")]
    assert whole["groups"] == 6, "the metrics of the field take all groups"
    assert whole["estimate"] == pytest.approx(fairness_metrics(planted.table, "group")["fpr_sum"])


def test_small_groups_are_named_with_what_they_need(planted):
    small = next(f for f in of_kind(planted, "too small") if f["by"] == "group")
    assert small["numbers"]["lacking"] == {"male-asian": ["fake"], "female-others": ["real", "fake"]}
    pooled = design_effects(planted.table, "group").loc[("fpr", "pooled")]
    needed = videos_needed(0.2, pooled["rate"], pooled["frames"], pooled["correlation"])
    assert small["numbers"]["needed"]["real"] == needed and f"about {needed} videos with reals" in small["text"]
    named = {f["group"] for kind in ("differs", "not told apart") for f in of_kind(planted, kind)}
    assert not named & {"female-others", "others"}
    assert "female-others (reals and fakes)" in audit.report.in_short(planted.findings)


def test_an_undefined_rate_has_its_reason_and_n(planted):
    texts = [f["text"] for f in of_kind(planted, "undefined")]
    assert "By group, male-asian has no FNR, TPR and AUC: no fakes (n = 60, all real)." in texts
    assert np.isnan(planted.images.groups.loc[("group", "male-asian"), "tpr"])
    assert planted.images.fairness.loc[("group", "tpr_gap"), "groups"] == 4


def test_few_videos_get_the_wilson_interval_of_so_many_images(planted):
    row = planted.images.groups.loc[("group", "female-others")]
    assert row["few"] == "fpr, tpr" and row["clusters_real"] == 3
    assert (row["fpr_low"], row["fpr_high"]) == pytest.approx(rate_interval(3 * row["fpr"], 3))
    assert np.isnan(row["auc_low"])


def test_holm_runs_over_gaps_sums_and_single_groups_apart(planted):
    fairness, groups = planted.images.fairness, planted.images.groups
    of_gaps = fairness.index.isin(gaps.GAPS, level="metric")
    for part in (fairness[of_gaps], fairness[~of_gaps]):
        assert np.allclose(part["p_holm"], holm(part["p_value"]), equal_nan=True)
    once = groups.drop(index=("gender", "female"))  # of two groups the second mirrors the first
    p = pd.concat([once["fpr_off_p"], once["tpr_off_p"]])
    corrected = pd.concat([once["fpr_off_p_holm"], once["tpr_off_p_holm"]])
    assert np.allclose(corrected, holm(p), equal_nan=True)


def test_of_two_groups_the_second_mirrors_the_first(planted):
    male, female = (planted.images.groups.loc[("gender", group)] for group in ("male", "female"))
    assert male["fpr_off"] == pytest.approx(male["fpr"] - female["fpr"])
    assert female["fpr_off"] == -male["fpr_off"] and female["fpr_off_low"] == -male["fpr_off_high"]
    assert female["fpr_off_p"] == male["fpr_off_p"]


def findings_of_blind_detectors(cluster):
    """In how many of 24 tables, whose scores know nothing of the groups, any gap of rates is said to differ."""
    wrong = 0
    for seed in range(24):
        table = made_table({"a-x": (12, 0), "b-x": (40, 0), "c-x": (30, 0)}, seed=seed, frames=6)
        table["img_path"] = table.index.astype(str)
        row = gaps.gap(table, "group", "fpr_gap", Settings(resamples=20, cluster=cluster), 200)
        wrong += row["p_value"] < 0.05
    return wrong


def test_blind_detectors_are_seldom_accused():
    """At p < 0.05, six or more of 24 would come about once in 800 times; images taken for videos exceed that."""
    assert findings_of_blind_detectors("video") <= 5
    assert findings_of_blind_detectors("img_path") > 5


def test_a_difference_joined_from_two_rates():
    """Newcombe's example: 56 of 70 against 48 of 80, by his method 10."""
    two = pd.DataFrame({"fpr": [56 / 70, 48 / 80]})
    two["fpr_low"], two["fpr_high"] = rate_interval(np.array([56, 48]), np.array([70, 80]))
    joined = gaps._joined(two, "fpr")
    assert (joined["low"], joined["high"]) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_no_error_at_all_is_not_certainty():
    """A group without any false alarm in 12 videos: the interval of its difference is not that of the rest alone."""
    table = made_table({"a-x": (12, 12), "b-x": (40, 12), "c-x": (40, 12)}, frames=2)
    table.loc[table["group"] == "a-x", "score"] *= table["label"]
    table["img_path"] = table.index.astype(str)
    groups = gaps.group_table(table, "group", QUICK)
    assert "fpr" in groups.loc["a-x", "collapsed"]
    wide = gaps.with_differences(table, ["group"], pd.concat({"group": groups}, names=["by", "group"]), QUICK, 60)
    row = wide.loc[("group", "a-x")]
    own_half = rate_interval(0, 12)[1]
    assert row["fpr_off_high"] - row["fpr_off"] >= own_half - 1e-12


def test_intervals_of_gaps_reach_zero_unless_it_is_excluded(planted):
    rows = planted.images.fairness.dropna(subset="p_value")
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
    """In 36 or more of 40 test sets; percentile intervals, which lie above the gap, in far fewer."""
    covered, percentile = 0, 0
    for seed in range(40):
        table = eight_groups(seed)
        row = gaps.gap(table, "group", "fpr_gap", Settings(resamples=200), 20)
        covered += row["low"] <= 0.2 <= row["high"]
        old = bootstrap(table, "group", resamples=200, auc=False).loc["dp"]
        percentile += old["low"] <= 0.2 <= old["high"]
    assert covered >= 36 > percentile


def test_only_common_fitted_thresholds_are_corrected_for_each_other(planted):
    points = planted.points
    fitted = points.drop(index="as given", level="point")
    assert points.xs("as given", level="point")["p_holm"].isna().all(), "tested among the gaps already"
    assert np.allclose(fitted["p_holm"], holm(fitted["p_value"].astype(float)))


def test_a_verdict_stands_beside_its_own_p(planted):
    said = of_kind(planted, "threshold") + of_kind(planted, "videos")
    assert len(said) == 3
    for finding in said:
        p = finding["numbers"]["p_holm"]
        assert f"p = {p_text(p)}, corrected" in finding["text"]
        assert ("cannot be told apart" in finding["text"]) == (p >= 0.05)


def test_permutations_suffice_for_the_number_of_tests():
    for tests in (1, 24, 100):
        count = Settings(resamples=10).permutations(tests)
        assert tests / (count + 1) < 0.05
    assert Settings(resamples=10_000).permutations(10) == 10_000


def test_thresholds_come_from_validation_when_it_is_given(tmp_path, planted):
    validation = made_table(PLANTED, seed=9).assign(dataset="given")
    table = made_table({group: PLANTED[group] for group in ("male-white", "male-black")}, seed=3)
    fitted = judged_from(table, tmp_path, ["group"], validation=validation)
    assert fitted.fitted_on == "validation"
    eer = fit_threshold(validation, "eer")
    assert fitted.points.loc[("group", "EER", "common"), "threshold"] == eer
    at_eer = group_rates(fitted.table, "group", eer)["fpr"]
    assert fitted.points.loc[("group", "EER", "common"), "gap"] == pytest.approx(at_eer.max() - at_eer.min())
    assert ("group", "EER", "per group") in fitted.points.index
    assert "per group" not in planted.points.index.get_level_values("thresholds"), "it would close gaps by itself"
    assert all("the same images" in f["text"] for f in of_kind(planted, "threshold"))


def test_videos_are_judged_beside_images(planted):
    assert planted.videos is not None
    videos = planted.table.groupby("video").agg({"score": "mean", "label": "first"})
    reals = videos[videos["label"] == 0]
    assert planted.videos.overall.loc["fpr", "estimate"] == pytest.approx((reals["score"] >= 0.5).mean())
    assert len(of_kind(planted, "videos")) == 1


SIMPLE = {"male-white": (12, 12), "female-white": (12, 12)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="video"), "no column 'video'"),
        (lambda t: t.assign(identity="one person"), "show 1 person"),
        (lambda t: t.assign(img_path="same.png"), "71 rows repeat an img_path"),
        (lambda t: t.assign(score=t["score"].round()), "two values"),
        (lambda t: t.assign(score=1 - t["score"]), "Reals score higher"),
        (lambda t: t.assign(score=t["score"] / 3), "nothing is called fake"),
        (lambda t: t.assign(score=0.5 + t["score"] / 3), "everything is called fake"),
        (lambda t: t.assign(gender=t["gender"].where(t.index >= 6)), "6 images without a value in 'gender' (6 of them"),
        (lambda t: t.assign(gender="male"), "one group only (male)"),
        (lambda t: t[(t["label"] == 0) | (t["gender"] == "male")], "trust the gaps of FPR and TPR"),
        (lambda t: t.assign(video="all"), "holds reals and fakes"),
        (lambda t: t.assign(race=["white", "black"] * (len(t) // 2)), "24 videos have several values in 'race'"),
        (lambda t: pd.concat([t, t[:5]]), "5 rows are exact copies of another row"),
        (lambda t: t[t["label"] == 1], "There are no reals"),
        (lambda t: t[t["label"] == 0], "There are no fakes"),
        (lambda t: t.assign(score=0.5), "All scores are the same"),
        (lambda t: t.assign(score=0.5), "No operating point can be fitted"),
        (lambda t: t.assign(skin=None), "No image has a value in 'skin'"),
    ],
)
def test_the_reader_is_warned(tmp_path, change, said):
    table = change(made_table(SIMPLE).drop(columns="group").iloc[::2].reset_index(drop=True))
    judged = judged_from(table, tmp_path, [name for name in ("gender", "skin") if name in table])
    if "several" in said:
        judged = judged_from(table, tmp_path, ["race"])
    assert not any("Only 0" in warning for warning in judged.warnings)
    assert any(said in warning for warning in judged.warnings), judged.warnings


def test_equal_rates_are_no_gap(tmp_path):
    table = made_table({"a-x": (12, 12), "b-x": (12, 12), "c-x": (12, 12)}).drop(columns=["gender", "race"])
    judged = judged_from(table.assign(score=table["label"] * 0.8 + 0.1), tmp_path)
    gap = next(f for f in judged.findings if f["metric"] == "fpr_gap")
    assert gap["kind"] == "not told apart"
    assert gap["text"].startswith("By group, the share of real images called fake is the same in all groups, 0.0 %.")


def test_images_left_out_of_a_grouping_stay_in_the_overall_numbers(tmp_path):
    table = made_table(SIMPLE).drop(columns=["group", "race"])
    table.loc[table["video"] == "male-white/0/0", "gender"] = None
    judged = judged_from(table, tmp_path)
    assert judged.images.groups["n"].sum() == len(table) - 3
    reals = table[table["label"] == 0]
    assert judged.images.overall.loc["fpr", "estimate"] == pytest.approx((reals["score"] >= 0.5).mean())


def test_validation_that_shares_videos_is_noticed(tmp_path):
    table = made_table(SIMPLE)
    judged = judged_from(table, tmp_path, ["gender"], validation=table.assign(dataset="given"))
    assert any("48 videos are in validation too" in warning for warning in judged.warnings)


@pytest.mark.parametrize("labels", [(0,), (1,)])
def test_one_class_alone_is_judged_as_far_as_it_goes(tmp_path, labels):
    table = made_table({"male-white": (15, 15), "female-white": (15, 15)})
    judged = judged_from(table[table["label"].isin(labels)], tmp_path, ["gender"])
    tested = judged.images.fairness["p_value"].notna()
    assert tested["gender", "fpr_gap"] == (labels == (0,)) and tested["gender", "tpr_gap"] == (labels == (1,))
    assert not tested["gender", "auc_gap"]
    assert any("operating point EER is left out" in warning for warning in judged.warnings)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("label,score,gender\n0,0.1,male\n2,0.2,male\n", "row 1"),
        ("label,score,gender\n0,1.1,male\n", "A score is P\\(fake\\)"),
        ("label,gender\n0,male\n", "no column 'score'"),
        ("label,score\n0,0.1\n", "none of the columns gender, race, group"),
        ("label,score,gender\n", "nothing to judge"),
        ("", "No columns"),
        ("y_true,y_prob,gender\n0,0.1,male\n", "it has: y_true, y_prob, gender. Rename 'y_true' to 'label'"),
        ("label,score,sex\n0,0.1,male\n", "It has: label, score, sex"),
        ("label,score,gender\n0,87,male\n", "divide by 100 if percent, apply the sigmoid if logits"),
        ("label;score;gender\n0;0,1;male\n", "separates its columns with semicolons"),
    ],
)
def test_a_bad_table_is_refused_with_its_name(tmp_path, content, said):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(ScoreTableError, match=said) as error:
        audit.main_audit(options(path, tmp_path / "report"))
    assert str(error.value).startswith(str(path)) and not (tmp_path / "report").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "file").write_text("kept")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="is a file, no folder"):
            audit.main_audit(options(tmp_path / "none.csv", out))
    assert (tmp_path / "file").read_text() == "kept"


def test_bad_options_are_refused(tmp_path):
    path = tmp_path / "scores.csv"
    made_table(SIMPLE).to_csv(path, index=False)
    wrong = [({"level": 1.0}, "strictly"), ({"threshold": 2}, "0..1"), ({"cluster": "frame"}, "use one of")]
    wrong += [({"by": ["skin"]}, "no column 'skin'"), ({"cluster": "identity"}, "no column 'identity'")]
    wrong += [({"resamples": 0}, "at least 1")]
    wrong += [({"by": ["skin"]}, "it has: video, label, group, score, gender, race[.]")]
    for change, said in wrong:
        with pytest.raises(ValueError, match=said):
            audit.main_audit(options(path, tmp_path / "report", **change))
    with pytest.raises(FileNotFoundError):
        audit.main_audit(options(tmp_path / "none.csv", tmp_path / "report"))
    many = made_table({"a-x": (60, 0)})
    many.to_csv(path, index=False)
    with pytest.raises(ScoreTableError, match="60 different values"):
        audit.main_audit(options(path, tmp_path / "report", by=["video"]))


def test_any_column_is_a_grouping_and_codes_are_words(tmp_path):
    table = made_table(SIMPLE).drop(columns=["group", "race"])
    table["skin"] = np.where(table["gender"] == "male", 1.0, 2.0)
    table.loc[0, "skin"] = np.nan
    judged = judged_from(table, tmp_path, ["skin"])
    assert list(judged.images.groups.loc["skin"].index) == ["1", "2"]


TORCHLESS = """
import sys, argparse

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "accelerate"):
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, NoTorch())
from fairdf_utils.fairness.audit import main_audit
sys.exit(main_audit(argparse.Namespace(scores=sys.argv[1], out=sys.argv[2], by=["gender"], threshold=0.5,
    validation=None, resamples=20, level=0.95, cluster="video", seed=0)))
"""


def test_the_audit_needs_no_torch(tmp_path):
    made_table(SIMPLE).to_csv(tmp_path / "scores.csv", index=False)
    command = [sys.executable, "-c", TORCHLESS, str(tmp_path / "scores.csv"), str(tmp_path / "report")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "The report is" in done.stdout and (tmp_path / "report/index.html").is_file()


@st.composite
def odd_tables(draw):
    n = draw(st.integers(1, 40))
    column = {
        "video": draw(st.lists(st.integers(0, 12), min_size=n, max_size=n)),
        "label": draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)),
        "gender": draw(st.lists(st.sampled_from(["male", "female", None]), min_size=n, max_size=n)),
        "score": draw(st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), min_size=n, max_size=n)),
    }
    column["gender"][0] = "male"
    return pd.DataFrame(column)


@settings(max_examples=10, deadline=None)
@given(odd_tables())
def test_every_table_of_the_form_is_judged(tmp_path_factory, table):
    judged = judged_from(table, tmp_path_factory.mktemp("odd"), settings=Settings(resamples=8, level=0.5))
    fairness = judged.images.fairness.dropna(subset="p_value")
    assert fairness["p_value"].between(0, 1).all() and (fairness["p_holm"] >= fairness["p_value"] - 1e-12).all()
    groups = judged.images.groups
    assert groups["n"].sum() == table["gender"].notna().sum()
    for rate in ("fpr", "tpr"):
        shown = groups.dropna(subset=[rate, f"{rate}_low"])
        assert (shown[f"{rate}_low"] <= shown[f"{rate}_high"]).all()
    assert all(finding["text"].endswith(".") for finding in judged.findings)
