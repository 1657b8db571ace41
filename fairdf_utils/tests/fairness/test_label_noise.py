"""Wrong group labels dilute gaps; a verdict says whether it stands; other columns of labels stand beside."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fairdf_utils.fairness import label_noise, metrics, permutation, verdicts
from fairdf_utils.fairness.uncertainty import Settings
from fairdf_utils.tests.fairness.score_tables import planted_table

QUICK = Settings(resamples=40, permutations=400)
PLANTED = {"male-white": (40, 20), "female-white": (40, 20), "male-black": (40, 20)}
TABLE = planted_table(PLANTED, raised=["male-black"]).assign(dataset="given").reset_index(names="img_path")


def test_the_first_row_is_the_table_as_given():
    found = label_noise.relabelled(TABLE, "group", 0, QUICK, True)
    whole = metrics.fairness_metrics(TABLE, "group")
    assert (found["sum"][0], found["gap"][0]) == pytest.approx((whole["fpr_sum"], whole["fpr_gap"]))
    assert label_noise.relabelled(TABLE, "group", 1, QUICK, False)["gap"][0] == pytest.approx(whole["tpr_gap"])
    assert len(found) == 1 + label_noise.RELABELLINGS and found["gap"].nunique() > 1


def test_its_p_value_is_that_of_the_floor():
    table = planted_table(PLANTED, raised=["male-black"], seed=3, shift=0.4)
    found = label_noise.relabelled(table, "group", 0, replace(QUICK, permutations=4000), True)
    floor = permutation.sampling_floor(table, "group", replace(QUICK, permutations=4000), auc=False)
    assert 0.01 < floor.loc["fpr_gap", "p_value"] < 0.99
    assert found["p_value"][0] == pytest.approx(floor.loc["fpr_gap", "p_value"], abs=0.03)


@pytest.mark.parametrize(("share", "kept"), [(0.0, 1.0), (0.1, 0.8), (0.5, 0.0)])
def test_flips_between_two_equal_groups_dilute_the_gap_as_they_must(share, kept):
    """r_a' = (1 - share) r_a + share r_b, so the gap keeps 1 - 2 share of itself; none of it is left at one half."""
    group = np.repeat(["a", "b"], 4000)
    alarm = np.arange(8000) % 10 < np.where(group == "a", 2, 6)
    table = pd.DataFrame({"video": np.arange(8000).astype(str), "group": group, "label": 0, "score": 1.0 * alarm})
    found = label_noise.relabelled(table, "group", 0, replace(QUICK, label_noise=share), False)
    assert found["gap"][1:].mean() == pytest.approx(0.4 * kept, abs=0.015)


def test_whole_clusters_change_their_group():
    once = TABLE.groupby("video").head(1)
    thrice = pd.concat([once.assign(img_path=once["img_path"].astype(str) + end) for end in "abc"], ignore_index=True)
    a, b = (label_noise.relabelled(table, "group", 0, QUICK, False) for table in (once, thrice))
    np.testing.assert_allclose(a, b)
    assert not np.allclose(
        a["gap"], label_noise.relabelled(thrice, "group", 0, replace(QUICK, cluster="img_path"), False)["gap"]
    )


def gap_of(table, **given):
    verdict = verdicts.judge(table, ["race"], replace(QUICK, **given))
    return verdict, next(found for found in verdict.findings if found["metric"] == "fpr_gap")


def test_a_verdict_says_that_it_stands():
    verdict, found = gap_of(TABLE)
    assert found["kind"] == "differs"
    assert "It also differs if 5 % of the group labels are wrong: in 20 of 20 random relabellings." in found["text"]
    row = verdict.noise.loc[("race", "fpr_gap")]
    assert row["differs"] == found["numbers"]["stands"] == 20
    assert row["low"] <= row["mean"] <= row["high"] and row["mean"] < row["estimate"]
    assert row["estimate"] == pytest.approx(verdict.fairness.loc[("race", "fpr_gap"), "estimate"])
    assert pd.isna(verdict.noise.loc[("race", "tpr_gap"), "differs"]), "nothing was found there that could fall"


def test_a_verdict_says_that_it_does_not_stand():
    _, found = gap_of(TABLE, label_noise=0.4)
    assert found["kind"] == "differs" and found["numbers"]["stands"] < 20
    assert f"if 40 % of the group labels are wrong, it differs in {found['numbers']['stands']} of 20" in found["text"]


def test_small_groups_take_no_part_in_the_gap_but_in_the_sum():
    more = planted_table({"male-asian": (2, 2)}, raised=["male-asian"]).assign(dataset="given")
    table = pd.concat([TABLE, more.assign(img_path=[f"asian{row}" for row in range(len(more))])])
    noise = verdicts.judge(table, ["race"], QUICK).noise
    alone = verdicts.judge(TABLE, ["race"], QUICK).noise
    assert noise.loc[("race", "fpr_gap"), "estimate"] == alone.loc[("race", "fpr_gap"), "estimate"]
    whole = metrics.fairness_metrics(table, "race")["fpr_sum"]
    assert noise.loc[("race", "fpr_sum"), "estimate"] == pytest.approx(whole)


def test_other_columns_of_the_same_kind_stand_beside():
    second = TABLE["race"].where(TABLE.index % 10 > 0, "white")
    table = TABLE.assign(
        race_2=second, skin=TABLE["race"].map({"white": "I", "black": "VI"}), note="x", racer=TABLE.index
    )
    assert list(label_noise.other_labels(table, ["race"])) == ["race_2", "skin", "racer"]
    verdict, _ = gap_of(table)
    noise, fairness = verdict.noise, metrics.fairness_metrics(table, "race_2")
    assert noise.loc[("race_2", "fpr_sum"), "estimate"] == pytest.approx(fairness["fpr_sum"])
    assert noise.loc[("skin", "fpr_sum"), "estimate"] == noise.loc[("race", "fpr_sum"), "estimate"]
    assert "racer" not in noise.index.get_level_values("by"), "no grouping"
    same = (second == table["race"]).mean()
    texts = [found["text"] for found in verdict.findings if found["kind"] == "labels"]
    assert texts[0].startswith(
        f"By race_2, other labels than race (alike for {100 * same:.1f} % of the images), the gap"
    )
    assert texts[1].startswith("By skin, other labels than race, the gap of false alarms is") and len(texts) == 2


def test_other_labels_of_small_groups_or_of_fakes_alone_stop_nothing():
    table = TABLE.assign(race_2=TABLE["race"].where(TABLE["video"] != "male-white/0/0", "asian"))
    few = table[table["video"].str.endswith(("/0/0", "/0/1"))]
    texts = [found["text"] for found in verdicts.judge(few, ["race"], QUICK).findings if found["kind"] == "labels"]
    assert len(texts) == 1 and "the gap of false alarms is undefined and F_FPR" in texts[0]
    fakes = verdicts.judge(table[table["label"] == 1], ["race"], QUICK)
    assert not any(found["kind"] == "labels" for found in fakes.findings)


@pytest.mark.parametrize("labels", [(0,), (1,)])
def test_one_class_or_one_group_alone(labels):
    table = TABLE[TABLE["label"].isin(labels)]
    noise = verdicts.judge(table, ["race", "group"], QUICK).noise
    assert set(noise.index.get_level_values("metric")) == ({"fpr_sum", "fpr_gap"} if 0 in labels else {"tpr_gap"})
    assert verdicts.judge(table[table["race"] == "black"], ["race"], QUICK).noise.empty
