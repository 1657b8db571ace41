"""The released files: what the released metric script makes of ours, and we of theirs, are the same numbers."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairdf_utils.data.vocabulary import GROUPS, SIX_GROUPS
from fairdf_utils.fairness import metrics as fairness
from fairdf_utils.fairness.score_table import ScoreTableError
from fairdf_utils.released.score_files import detection_rates, read_released, write_released

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
EIGHT = (("male", "nonmale"), ("asian", "white", "black", "others"))
SIX = (("male", "nonmale"), ("white", "black", "others"))


def random_table(groups=GROUPS, n=300, seed=0, dataset="ffpp"):
    rng = np.random.default_rng(seed)
    label, group = rng.integers(2, size=n), rng.choice(groups, n)
    real, fake = rng.normal(0, 1, n), rng.normal(label * 1.5 - 0.7, 1)
    names = [f"{dataset}/{i // 3}_{i % 3}.png" for i in range(n)]
    table = pd.DataFrame({"img_path": names, "video": [name.split("_")[0] for name in names], "label": label})
    table["identity"], table["forgery"], table["dataset"] = "someone", np.where(label, "FaceSwap", "real"), dataset
    table["group"] = group
    table[["gender", "race"]] = table["group"].str.split("-", expand=True)
    return table.assign(logit_real=real, logit_fake=fake, score=1 / (1 + np.exp(real - fake)))


def released_script(folder, attributes):
    """What the released metric script computes from a folder: plain Python, one image after the other.

    It opens two files for every pair of attributes, takes the sigmoid, calls fake from one half on, and leaves a
    group out that is empty or has one class only.
    """
    outcomes = {}  # name of a group -> list of (label, score)
    for pair in itertools.product(*attributes):
        name = f"{folder}/{pair[0]},{pair[1]}"
        labels, predictions = np.load(name + "labels.npy"), np.load(name + "predictions.npy")
        images = [(int(y), 1 / (1 + np.exp(-float(z)))) for y, z in zip(labels, predictions, strict=True)]
        for key in (("all",), pair, pair[:1], pair[1:]):
            outcomes.setdefault(key, []).extend(images)

    def rates(images):
        fakes, reals = [s >= 0.5 for y, s in images if y == 1], [s >= 0.5 for y, s in images if y == 0]
        fpr, tpr = sum(reals) / len(reals), sum(fakes) / len(fakes)
        right = sum(fakes) + len(reals) - sum(reals)
        return {"fpr": fpr, "tpr": tpr, "acc": right / len(images), "share": (sum(fakes) + sum(reals)) / len(images)}

    known = {key: rates(images) for key, images in outcomes.items() if len({y for y, _ in images}) == 2}
    overall, result = known[("all",)], {}
    pairs = list(itertools.product(*attributes))
    for by, keys in (
        ("group", pairs),
        ("gender", [(a,) for a in attributes[0]]),
        ("race", [(b,) for b in attributes[1]]),
    ):
        each = [known[key] for key in keys if key in known]
        gap = {name: max(r[name] for r in each) - min(r[name] for r in each) for name in overall}
        off = {name: sum(abs(r[name] - overall[name]) for r in each) for name in overall}
        result[by] = {
            "fpr_sum": off["fpr"],
            "eo": off["fpr"] + off["tpr"],
            "fpr_gap": gap["fpr"],
            "oae": gap["acc"],
            "dp": gap["share"],
            "meo": max(gap["fpr"], gap["tpr"]),
        }
    return result, overall


def assert_same_numbers(table, folder, attributes, fidelity="official"):
    theirs, overall = released_script(folder, attributes)
    for by, printed in theirs.items():
        ours = fairness.fairness_metrics(table, by, fidelity=fidelity)
        for name, value in printed.items():
            assert ours[name] == pytest.approx(value, abs=1e-12), (by, name)
    ours = fairness.overall_metrics(table, fidelity=fidelity)
    assert [ours[name] for name in ("fpr", "tpr", "acc")] == pytest.approx(
        [overall[name] for name in ("fpr", "tpr", "acc")]
    )


# Both ways


@pytest.mark.parametrize(
    "groups, attributes",
    [(GROUPS, EIGHT), (SIX_GROUPS, SIX), (SIX_GROUPS, EIGHT)],
    ids=["eight", "six", "six of eight"],
)
@pytest.mark.parametrize("seed", range(3))
def test_the_released_script_and_we_agree_on_our_files(tmp_path, groups, attributes, seed):
    table = random_table(groups, seed=seed)
    folder = write_released(table, tmp_path)["ffpp"]
    assert_same_numbers(table, folder, attributes)
    assert_same_numbers(read_released(folder), folder, attributes)


def test_a_group_with_one_class_is_left_out_by_both(tmp_path):
    table = random_table()
    table = table[(table["group"] != "male-white") | (table["label"] == 0)].reset_index(drop=True)
    assert_same_numbers(table, write_released(table, tmp_path)["ffpp"], EIGHT)


def test_golden_numbers_come_back_through_the_files(tmp_path):
    if not (GOLDEN / "scores.csv").exists():
        pytest.skip("golden vectors are not beside this checkout (../shared/golden)")
    scores = pd.read_csv(GOLDEN / "scores.csv")
    released = json.loads((GOLDEN / "fairness_released.json").read_text())
    table = pd.DataFrame({"dataset": "ffpp", "group": np.array(GROUPS)[scores["group"]], "label": scores["label"]})
    folder = write_released(table.assign(logit_fake=scores["logit_fake"]), tmp_path)["ffpp"]
    back = read_released(folder)
    for by, printed in (("group", "intersection"), ("gender", "gender"), ("race", "race")):
        ours = fairness.fairness_metrics(back, by, fidelity="official")
        script = released_script(folder, EIGHT)[0][by]
        for name in ("fpr_sum", "eo"):
            expected = released[printed][{"eo": "eo_sum"}.get(name, name)]
            assert round(ours[name], 5) == round(script[name], 5) == expected, (by, name)
        for name in ("fpr_gap", "oae", "dp", "meo"):
            assert round(100 * ours[name], 3) == round(100 * script[name], 3) == released[printed][name], (by, name)
        assert round(100 * ours["auc_gap"], 3) == released[printed]["auc_gap"]


def test_names_types_and_order_are_those_of_the_released_test_script(tmp_path):
    table = random_table(n=200)
    folder = write_released(table, tmp_path)["ffpp"]
    names = {f"{a},{b}{ending}.npy" for a in EIGHT[0] for b in EIGHT[1] for ending in ("labels", "predictions")}
    assert {path.name for path in folder.iterdir()} == names
    own = table[table["group"] == "female-black"]
    label, logit = (np.load(folder / f"nonmale,black{ending}.npy") for ending in ("labels", "predictions"))
    assert label.dtype == np.int64 and logit.dtype == np.float64
    assert label.tolist() == own["label"].tolist() and logit.tolist() == own["logit_fake"].tolist()


def test_every_data_set_gets_its_folder(tmp_path):
    tables = [random_table(seed=1), random_table(SIX_GROUPS, seed=2, dataset="celebdf")]
    folders = write_released(pd.concat(tables), tmp_path)
    assert list(folders) == ["ffpp", "celebdf"]
    for table in tables:
        name = table["dataset"].iloc[0]
        back = read_released(folders[name])
        assert set(back["dataset"]) == {name} and len(back) == len(table)
        assert sorted(back["logit_fake"]) == sorted(table["logit_fake"])


def test_the_corrected_score_survives_the_scripts_sigmoid(tmp_path):
    table = random_table()
    table.loc[[0, 1], ["score", "label"]] = [[0.0, 0], [1.0, 1]]
    folder = write_released(table, tmp_path, fidelity="corrected")["ffpp"]
    assert_same_numbers(table, folder, EIGHT, "corrected")
    assert np.allclose(sorted(read_released(folder)["score"]), sorted(table["score"]), atol=1e-11)


# What the files do not say


def test_the_manifest_gives_images_and_videos_back(tmp_path):
    table = random_table()
    back = read_released(write_released(table, tmp_path)["ffpp"], manifest=table)
    for name in ("dataset", "img_path", "video", "identity", "forgery", "label", "logit_fake", "gender", "race"):
        assert back[name].tolist() == table[name].tolist(), name
    assert fairness.group_rates(back)["n_videos"].max() < fairness.group_rates(back)["n"].max()


def test_without_a_manifest_every_image_is_its_own_video(tmp_path):
    table = random_table()
    back = read_released(write_released(table, tmp_path)["ffpp"])
    assert back["video"].nunique() == len(back) == len(table)
    assert ((back["forgery"] == "real") == (back["label"] == 0)).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.iloc[1:],
        lambda m: m.assign(label=1 - m["label"]),
        lambda m: m.iloc[::-1],
        lambda m: m.assign(group="male-asian"),
    ],
    ids=["a row less", "other labels", "another order", "other groups"],
)
def test_the_wrong_manifest_is_refused(tmp_path, change):
    table = random_table()
    folder = write_released(table, tmp_path)["ffpp"]
    with pytest.raises(ScoreTableError, match="that was tested on, or none"):
        read_released(folder, manifest=change(table))


def test_an_empty_group_stays_visible(tmp_path):
    table = random_table([group for group in GROUPS if group != "male-black"])
    folder = write_released(table, tmp_path)["ffpp"]
    rates = fairness.group_rates(read_released(folder))
    assert rates.loc["male-black", "n"] == 0 and "no images" in rates.loc["male-black", "undefined"]
    assert_same_numbers(read_released(folder), folder, EIGHT)


# Faults


def folder_of_six(tmp_path):
    folder = write_released(random_table(SIX_GROUPS, dataset="celebdf"), tmp_path)["celebdf"]
    for path in folder.glob("*asian*"):  # as the released script leaves Celeb-DF
        path.unlink()
    return folder


def test_a_folder_of_six_groups_is_read(tmp_path):
    back = read_released(folder_of_six(tmp_path))
    assert list(fairness.group_rates(back).index) == list(SIX_GROUPS)


def test_all_missing_files_are_named(tmp_path):
    folder = folder_of_six(tmp_path)
    for name in ("male,whitelabels.npy", "nonmale,otherspredictions.npy"):
        (folder / name).unlink()
    with pytest.raises(ScoreTableError, match="2 of 12 files are missing: male,whitelabels.npy nonmale,others"):
        read_released(folder)


def test_one_asian_file_means_eight_groups(tmp_path):
    folder = folder_of_six(tmp_path)
    np.save(folder / "male,asianlabels.npy", np.zeros(3, int))
    with pytest.raises(ScoreTableError, match="3 of 16 files are missing: male,asianpredictions.npy nonmale,asian"):
        read_released(folder)


@pytest.mark.parametrize(
    "name, values, message",
    [
        ("male,whitelabels.npy", np.zeros(2, int), "holds 2 labels, male,whitepredictions.npy"),
        ("male,whitepredictions.npy", np.zeros((4, 2)), r"float64 \(4, 2\), not one number an image"),
        ("male,whitelabels.npy", np.array(["real"]), "not one number an image"),
        ("male,whitelabels.npy", np.array([None]), "is not a NumPy file of numbers"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, name, values, message):
    folder = folder_of_six(tmp_path)
    np.save(folder / name, values, allow_pickle=True)
    with pytest.raises(ScoreTableError, match=message):
        read_released(folder)


@pytest.mark.parametrize(
    "ending, value, message",
    [("labels", 2, "A label is 0"), ("predictions", -np.inf, "a finite number"), ("predictions", np.nan, "a finite")],
)
def test_impossible_values_are_refused(tmp_path, ending, value, message):
    folder = folder_of_six(tmp_path)
    path = folder / f"male,white{ending}.npy"
    values = np.load(path)
    values[3] = value
    np.save(path, values)
    with pytest.raises(ScoreTableError, match=rf"{path.name}, element 3 .* not allowed. .*{message}"):
        read_released(folder)


@pytest.mark.parametrize("content", [b"", b"not numpy", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_a_broken_file_is_refused(tmp_path, content):
    folder = folder_of_six(tmp_path)
    (folder / "male,whitelabels.npy").write_bytes(content)
    with pytest.raises(ScoreTableError, match="male,whitelabels.npy is not a NumPy file"):
        read_released(folder)


def test_nothing_at_all_is_refused(tmp_path):
    with pytest.raises(ScoreTableError, match="no such folder"):
        read_released(tmp_path / "absent")
    folder = folder_of_six(tmp_path)
    for path in folder.iterdir():
        np.save(path, np.array([]))
    with pytest.raises(ScoreTableError, match="all its groups are empty"):
        read_released(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"group": "male-green"}, "group 'male-green'"),
        ({"label": 2}, "'label', row 0"),
        ({"logit_fake": np.inf}, "must be a finite number"),
    ],
)
def test_a_table_that_the_script_could_not_read_is_not_written(tmp_path, change, message):
    with pytest.raises(ScoreTableError, match=message):
        write_released(random_table().assign(**change), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_empty_table_and_an_unknown_fidelity_are_refused(tmp_path):
    with pytest.raises(ScoreTableError, match="no rows"):
        write_released(random_table().iloc[:0], tmp_path)
    with pytest.raises(ValueError, match="use one of corrected, official"):
        write_released(random_table(), tmp_path, fidelity="paper")


# Rates of everybody and of each group


def test_rates_counted_by_hand():
    """Two groups with both classes, one without fakes, which counts for everybody alone; only the fake logit counts."""
    rows = [("male-white", 1, 2.0), ("male-white", 1, -1.0), ("male-white", 0, 1.0), ("male-white", 0, -2.0),
            ("female-white", 1, -3.0), ("female-white", 0, -4.0), ("male-black", 0, 5.0)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["group", "label", "logit_fake"]).assign(score=0.5, logit_real=9.0)
    rates = detection_rates(table)
    assert set(rates.index) == {"overall", "male-white", "female-white"}
    white = rates.loc["male-white"]
    assert white[["n", "acc", "error", "fpr", "tpr", "precision"]].tolist() == [4, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert (white["auc"], white["eer"]) == (0.75, 0.5)
    assert white["ap"] == pytest.approx((1 + 2 / 3) / 2)
    women = rates.loc["female-white"]
    assert women[["n", "acc", "error", "fpr", "tpr", "auc", "eer"]].tolist() == [2, 0.5, 0.5, 0, 0, 1, 0]
    assert np.isnan(women["precision"]), "nobody there is called a fake"
    everybody = rates.loc["overall", ["n", "error", "fpr", "tpr", "precision"]]
    assert everybody.tolist() == pytest.approx([7, 4 / 7, 2 / 4, 1 / 3, 1 / 3])


def test_gaps_of_the_rates_are_those_that_the_released_script_prints():
    if not GOLDEN.exists():
        pytest.skip(f"golden vectors are not at {GOLDEN}")
    scores = pd.read_csv(GOLDEN / "scores.csv")
    rates = detection_rates(scores.assign(group=np.array(GROUPS)[scores["group"]], score=0.5))
    printed = json.loads((GOLDEN / "fairness_released.json").read_text())
    for name in ("fpr", "tpr", "acc", "auc"):
        assert rates.loc["overall", name] == pytest.approx(printed["overall"][name], abs=1e-6)
    groups, expected = rates.drop("overall"), printed["intersection"]
    for name, gap in (("fpr", "fpr_gap"), ("auc", "auc_gap"), ("acc", "oae"), ("error", "oae")):
        assert round(100 * (groups[name].max() - groups[name].min()), 3) == expected[gap]
