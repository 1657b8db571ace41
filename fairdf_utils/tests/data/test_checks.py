"""Each trap is planted in a clean data set and must be found where it was planted; a clean one yields nothing."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fairdf_utils.__main__ import main
from fairdf_utils.data.checks import FEW_VIDEOS, SHOWN, check
from fairdf_utils.data.csv_rows import Problem
from fairdf_utils.data.manifests import SPLIT_FILES, write_manifest
from fairdf_utils.data.vocabulary import COLUMNS, GROUPS, SIX_GROUPS

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT.parent / "shared/samples"
FRAMES = 2


def _rows(split, label, **options):
    """Clean canonical rows: `videos` of one class for each group, each of another person."""
    return _made_rows(split, label, **options).copy()


@cache
def _made_rows(split, label, videos=FEW_VIDEOS // 2, groups=GROUPS, frames=FRAMES):
    rows = []
    for number, group in enumerate(np.repeat(groups, videos)):
        person, source = f"{split}{number}", f"{split}{(number + 1) % (videos * len(groups))}"
        video = f"{'Deepfakes' if label else 'real'}/{person}"
        for frame in range(frames):
            names = (video, person, source if label else "", frame)
            rows.append((f"{video}_{frame}.png", label, video.split("/")[0], *group.split("-"), group, *names))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _tables(**options):
    """A clean data set: rows by file name."""
    halves = [(name, split, label) for split in ("train", "val") for label, name in enumerate(("real", "fake"))]
    tables = {f"{name}{split}.csv": _rows(split, label, **options) for name, split, label in halves}
    return tables | {"test.csv": pd.concat([_rows("test", 0, **options), _rows("test", 1, **options)])}


def _write(tables, folder):
    for name, table in tables.items():
        write_manifest(table, folder / name)
    return folder


def _append(tables, name, rows):
    """Add rows to a file; returns the line of the first."""
    tables[name] = pd.concat([tables[name], rows], ignore_index=True)
    return len(tables[name]) - len(rows) + 2


def _places(findings):
    return [(row.kind, Path(row.file).name, row.line, row.value) for row in findings.itertuples()]


# Traps between well-formed rows: each plants one and returns where it must be found.


def repeated_in_a_file(tables):
    line = _append(tables, "realtrain.csv", tables["realtrain.csv"].iloc[[3]])
    return [("same image twice", "realtrain.csv", line, "real/train1_1.png")], "line 5"


def repeated_in_another_file(tables):
    row = tables["faketrain.csv"].iloc[[0]]
    line = _append(tables, "test.csv", row)
    return [
        ("same image twice", "test.csv", line, "Deepfakes/train0_0.png"),
        ("leaked video", "test.csv", line, "Deepfakes/train0"),
    ], "faketrain.csv, line 2"


def one_frame_on_the_wrong_side(tables):
    last = tables["realtrain.csv"].iloc[[1]].assign(img_path="real/train0_2.png", frame=2)
    line = _append(tables, "test.csv", last)
    return [("leaked video", "test.csv", line, "real/train0")], "2 in train"


def most_frames_on_the_right_side(tables):
    """The split with fewer frames is the wrong one, whichever it is."""
    last = tables["test.csv"].iloc[[1]].assign(img_path="real/test0_2.png", frame=2)
    line = _append(tables, "realtrain.csv", last)
    return [("leaked video", "realtrain.csv", line, "real/test0")], "2 in test"


def a_person_in_two_splits(tables):
    tables["realval.csv"].loc[6:7, "identity"] = "train5"
    return [("leaked identity", "realval.csv", 8, "train5")], "2 of its rows in val"


def a_source_in_two_splits(tables):
    tables["fakeval.csv"].loc[4:5, "source_identity"] = "train5"
    return [("leaked identity", "fakeval.csv", 6, "train5")], "2 of its rows in val"


def a_source_before_the_person_in_another_split(tables):
    """The first row that names the person decides which column is named."""
    tables["fakeval.csv"].loc[4:5, "source_identity"] = "train5"
    tables["realval.csv"].loc[6:7, "identity"] = "train5"
    return [("leaked identity", "fakeval.csv", 6, "train5")], "4 of its rows in val, 6 in train"


def a_label_that_flips(tables):
    rows = tables["test.csv"]
    rows.iloc[0, rows.columns.get_indexer(["label", "forgery"])] = [1, "fake"]
    rows.iloc[2, rows.columns.get_loc("video")] = "real/test0"  # so that there is a majority
    return [("label flip", "test.csv", 2, "1")], "label 0 in 2 of its rows and another in 1"


def a_race_that_flips(tables):
    rows = tables["fakeval.csv"]
    rows.loc[1, ["race", "group"]] = ["black", "male-black"]
    return [("demographic flip", "fakeval.csv", 3, "black")], "race asian in 1 of its rows"


def a_gender_that_flips(tables):
    rows = tables["fakeval.csv"]
    rows.loc[5, ["gender", "group"]] = ["female", "female-asian"]
    return [("demographic flip", "fakeval.csv", 7, "female")], "gender male in 1 of its rows"


def a_real_with_a_source(tables):
    tables["realtrain.csv"].loc[9, "source_identity"] = "train1"
    return [("bad row", "realtrain.csv", 11, "train1")], "no source"


def a_group_of_one_class(tables):
    rows = tables["test.csv"].reset_index(drop=True)
    rows = rows[(rows["group"] != "male-white") | (rows["label"] == 0)].reset_index(drop=True)
    # As many reals as keep it from resting on few videos.
    more = _rows("more", 0, groups=("male-white",))
    tables["test.csv"] = pd.concat([rows, more])
    return [("one-class group", "test.csv", 2 + FRAMES * FEW_VIDEOS // 2, "male-white")], "40 reals and 0 fakes"


def reals_in_a_file_named_fake(tables):
    line = _append(tables, "faketrain.csv", _rows("more", 0, videos=1)[:3])
    return [("misnamed file", "faketrain.csv", line, "0")], "named fake, and has 3 rows of reals"


def fakes_in_a_file_named_real(tables):
    line = _append(tables, "realval.csv", _rows("more", 1, videos=1)[:2])
    return [("misnamed file", "realval.csv", line, "1")], "named real, and has 2 rows of fakes"


def a_group_on_few_videos(tables):
    rows = tables["test.csv"]
    last = rows["video"].isin(["real/test79", "Deepfakes/test78", "Deepfakes/test79"])
    tables["test.csv"] = rows[~last]
    line = 2 + 7 * FRAMES * FEW_VIDEOS // 2
    return [("few videos", "test.csv", line, "female-others")], "17 videos in test (9 of reals, 8 of fakes)"


def an_absent_group(tables):
    tables["test.csv"] = tables["test.csv"][tables["test.csv"]["group"] != "female-black"]
    return [("absent group", "test.csv", 0, "female-black")], "in test"


def a_group_absent_from_two_files(tables):
    for name in SPLIT_FILES["val"]:
        tables[name] = tables[name][tables[name]["group"] != "female-black"]
    return [("absent group", "ffpp", 0, "female-black")], "in val"


def no_fakes_at_all(tables):
    tables["test.csv"] = pd.concat([_rows("test", 0), _rows("more", 0)])
    return [("one-class split", "test.csv", 0, "")], "Only reals"


def no_file_of_fakes(tables):
    del tables["fakeval.csv"]
    tables["realval.csv"] = pd.concat([_rows("val", 0), _rows("more", 0)])
    return [("one-class split", "realval.csv", 0, "")], "Only reals in val: fakeval.csv is missing"


def a_file_of_no_split(tables):
    tables["others.csv"] = pd.concat([_rows("others", 0), _rows("others", 1)])
    return [("unknown split", "others.csv", 0, "")], "name"


WARNINGS = [
    a_group_of_one_class,
    a_group_on_few_videos,
    an_absent_group,
    a_group_absent_from_two_files,
    a_file_of_no_split,
]
ERRORS = [
    repeated_in_a_file,
    repeated_in_another_file,
    one_frame_on_the_wrong_side,
    most_frames_on_the_right_side,
    a_person_in_two_splits,
    a_source_in_two_splits,
    a_source_before_the_person_in_another_split,
    a_label_that_flips,
    a_race_that_flips,
    a_gender_that_flips,
    a_real_with_a_source,
    reals_in_a_file_named_fake,
    fakes_in_a_file_named_real,
    no_file_of_fakes,
    no_fakes_at_all,
]


@pytest.mark.parametrize("plant", [*ERRORS, *WARNINGS], ids=lambda plant: plant.__name__)
def test_a_planted_trap_is_found_at_its_line_and_nothing_else_is(tmp_path, plant):
    tables = _tables()
    places, words = plant(tables)
    report = check([_write(tables, tmp_path / "ffpp")])
    assert _places(report.findings) == places
    assert words in report.findings["finding"].iloc[0]
    assert (report.findings["severity"] == ("error" if plant in ERRORS else "warning")).all()
    assert (report.findings["remedy"] != "").all()


def test_half_a_split_by_itself_is_a_warning_while_the_other_half_exists(tmp_path):
    folder = _write(_tables(), tmp_path / "ffpp")
    report = check([folder / "realtrain.csv"])
    assert report.errors.empty and set(report.warnings["kind"]) == {"one-class split", "few videos"}
    (folder / "faketrain.csv").unlink()
    assert check([folder / "realtrain.csv"]).errors["kind"].tolist() == ["one-class split"]
    (folder / "realtrain.csv").rename(folder / "my_train_reals.csv")  # the name of no half: nothing is known to lack
    assert check([folder / "my_train_reals.csv"]).errors.empty


@pytest.mark.parametrize(("label", "rate", "missing"), [(0, "TPR", "fakes"), (1, "FPR", "reals")])
def test_a_group_of_one_class_is_told_which_rate_it_lacks(tmp_path, label, rate, missing):
    rows = pd.concat([_rows("test", 0), _rows("test", 1)])
    rows = rows[(rows["group"] != "male-white") | (rows["label"] == label)]
    report = check([_write({"test.csv": rows}, tmp_path / "ffpp")])
    (remedy,) = report.findings.loc[report.findings["kind"] == "one-class group", "remedy"]
    assert remedy.startswith(f"Without {missing} it has no {rate} and no AUC") and report.errors.empty


def test_a_file_that_speaks_of_reals_and_fakes_may_hold_both(tmp_path):
    rows = pd.concat([_rows("test", 0), _rows("test", 1)])
    assert check([_write({"real_and_fake.csv": rows}, tmp_path / "ffpp")]).findings.empty


# Traps inside a file: (line, old text, new text, kind, column, value).
CELLS = [
    (2, ",0,1,1,-1,-1,0,", ",0,1,1,-1,-1,7,", "contradicting columns", "intersec_label", "7"),
    (3, ",0,1,1,-1,-1,0,", ",0,-1,1,-1,-1,0,", "contradicting columns", "intersec_label", "0"),
    (4, ",0,1,1,-1,-1,0,", ",0,1,1,1,-1,0,", "contradicting columns", "iswhite", "1"),
    (5, ",0,1,1,-1,-1,0,", ",2,1,1,-1,-1,0,", "bad cell", "label", "2"),
    (6, ",0,1,1,-1,-1,0,", ",0,1,1,-1,-1,", "bad cell", "", ""),
    (7, "real/test2_1.png", "/data/test2_1.png", "path outside the root", "img_path", "/data/test2_1.png"),
    (8, "real/test3_0.png", "real/../../x.png", "path outside the root", "img_path", "real/../../x.png"),
    (9, ",real,", ",Deepfakes,", "contradicting columns", "forgery", "Deepfakes"),
    (10, "real/test4_0.png", "", "bad cell", "img_path", ""),
    (11, ",real,", ",,", "bad cell", "forgery", ""),
    (12, ",real/test5,", ",,", "bad cell", "video", ""),
    (13, ",test5,", ",,", "bad cell", "identity", ""),
    (14, ",,0", ",,-1", "bad cell", "frame", "-1"),
]


def _spoil(path, cells):
    lines = path.read_text().split("\n")
    for line, old, new, *_ in cells:
        assert old in lines[line - 1]
        lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_text("\n".join(lines))


def test_all_bad_cells_of_a_file_are_found_at_once(tmp_path):
    test = _write(_tables(videos=FEW_VIDEOS), tmp_path / "ffpp") / "test.csv"
    _spoil(test, CELLS)
    report = check([test.parent])
    found = [(row.line, row.kind, row.column, row.value) for row in report.findings.itertuples()]
    assert found == [(line, *expected) for line, _, _, *expected in CELLS]
    assert set(report.findings["file"]) == {str(test)} and len(report.warnings) == 0
    assert report.files.set_index("file").loc[str(test), ["rows", "faulty"]].tolist() == [640 - len(CELLS), len(CELLS)]


def _follow_up(path, rows):
    """A file of the released follow-up form; a row: image name, male, race code, intersection, fake."""
    header = "Image Path,Ground Truth Gender,Ground Truth Age,Ground Truth Race,Intersection,Target,intersec_label"
    lines = [f"set/{name},{male},0,{race},{group},{fake},{group}" for name, male, race, group, fake in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n")


def test_traps_of_the_released_follow_up_form(tmp_path):
    train = [(f"0_youtube_{video:03d}_{frame}.png", 1, 1, 1, 0) for video in range(4) for frame in (11, 21, 31)]
    test = [(f"0_Deepfakes_{video}_{video + 1}_{frame}.png", 1, 1, 1, 1) for video in (500, 502) for frame in (11, 21)]
    test.append(test[1])  # line 6: the same image again
    test.append(("0_Deepfakes_500_501_31.png", 0, 1, 5, 1))  # line 7: another gender in the same video
    test.append(("0_Deepfakes_600_601_11.png", 1, 1, 5, 1))  # line 8: Intersection says female
    test.append(("0_youtube_002_41.png", 1, 1, 1, 0))  # line 9: a frame of a training video
    test.append(("0_Face2Face_003_700_11.png", 1, 1, 1, 1))  # line 10: of a training person
    test.append(("0_youtube_800_11.png", 1, 2, 2, 0))  # line 11: the only images of male-black are real
    _follow_up(tmp_path / "ff++/ff_train_real.csv", train)
    _follow_up(tmp_path / "ff++/ff_test.csv", test)
    report = check([tmp_path / "ff++"])
    assert sorted(_places(report.errors)) == [
        ("contradicting columns", "ff_test.csv", 8, "5"),
        ("demographic flip", "ff_test.csv", 7, "female"),
        ("leaked identity", "ff_test.csv", 10, "003"),
        ("leaked video", "ff_test.csv", 9, "youtube/002"),
        ("same image twice", "ff_test.csv", 6, "set/0_Deepfakes_500_501_21.png"),
    ]
    few = report.warnings[(report.warnings["kind"] == "few videos") & (report.warnings["value"] == "male-white")]
    assert [finding.split(" (")[0] for finding in few["finding"]] == [
        "It rests on 4 videos in test",
        "It rests on 4 videos in train",
    ]


def test_a_leak_names_the_column_of_its_line(tmp_path):
    for plant, column in (
        (a_person_in_two_splits, "identity"),
        (a_source_before_the_person_in_another_split, "source_identity"),
    ):
        tables = _tables()
        plant(tables)
        assert check([_write(tables, tmp_path / plant.__name__)]).findings["column"].tolist() == [column]


def test_the_committed_manifests_yield_nothing():
    report = check([ROOT / "data_manifests/synthetic"])
    assert report.findings.empty
    assert len(report.files) == 8 and report.files["rows"].sum() == 10864 and report.files["faulty"].sum() == 0


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="samples of the released files are not here")
def test_the_repeated_image_in_a_sample_of_a_released_file_is_found():
    report = check([SAMPLES / "dfdc_head.csv"])
    twice = report.errors[report.errors["kind"] == "same image twice"]
    assert list(twice["line"]) == [139] and "line 29" in twice["finding"].iloc[0]


quick = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(
    seed=st.integers(0, 2**32 - 1),
    videos=st.integers(FEW_VIDEOS // 2, FEW_VIDEOS),
    frames=st.integers(1, 3),
    name=st.sampled_from(["ffpp", "celebdf", "anything"]),
)
def test_clean_rows_in_any_order_yield_nothing(tmp_path_factory, seed, videos, frames, name):
    groups = SIX_GROUPS if name == "celebdf" else GROUPS
    tables = _tables(videos=videos, frames=frames, groups=groups)
    tables = {file: rows.sample(frac=1, random_state=seed) for file, rows in tables.items()}
    report = check([_write(tables, tmp_path_factory.mktemp("clean") / name)])
    assert report.findings.empty
    assert report.files["rows"].sum() == 6 * videos * frames * len(groups)


@quick
@given(data=st.data())
def test_repetitions_and_leaks_planted_anywhere_are_all_found(tmp_path_factory, data):
    """An oracle in plain Python: the rows of a file are read one after the other."""
    tables = _tables(frames=3)
    for _ in range(data.draw(st.integers(1, 8))):
        source, target = (data.draw(st.sampled_from(sorted(tables))) for _ in range(2))
        row = tables[source].iloc[[data.draw(st.integers(0, len(tables[source]) - 1))]]
        at = data.draw(st.integers(0, len(tables[target])))
        fits = target == "test.csv" or target.startswith("fake") == bool(row["label"].iloc[0])
        if fits:
            tables[target] = pd.concat([tables[target].iloc[:at], row, tables[target].iloc[at:]])
    report = check([_write(tables, tmp_path_factory.mktemp("planted") / "ffpp")])
    seen, twice, splits = set(), set(), {}
    for name in sorted(tables):
        for line, row in enumerate(tables[name].itertuples(), start=2):
            if row.img_path in seen:
                twice.add((name, line))
            seen.add(row.img_path)
            splits.setdefault(row.video, set()).add(name.removeprefix("fake").removeprefix("real"))
    found = report.findings[report.findings["kind"] == "same image twice"]
    assert {(Path(row.file).name, row.line) for row in found.itertuples()} == twice and len(found) == len(twice)
    leaked = report.findings.loc[report.findings["kind"] == "leaked video", "value"].value_counts()
    assert leaked.to_dict() == {video: len(names) - 1 for video, names in splits.items() if len(names) > 1}


@pytest.mark.parametrize("spelling", ["real/./val1_1.png", "real//val1_1.png", "./real/val1_1.png", "real\\val1_1.png"])
def test_another_spelling_is_the_same_image(tmp_path, spelling):
    tables = _tables()
    line = _append(tables, "realval.csv", tables["realval.csv"].iloc[[3]].assign(img_path=spelling))
    report = check([_write(tables, tmp_path / "ffpp")])
    assert _places(report.findings) == [("same image twice", "realval.csv", line, spelling.replace("\\", "/"))]


def test_files_of_unknown_splits_are_judged_one_by_one(tmp_path):
    halves = {"a.csv": GROUPS[:4], "b.csv": GROUPS[4:]}
    for name, groups in halves.items():
        write_manifest(pd.concat([_rows(name, label, groups=groups) for label in (0, 1)]), tmp_path / name)
    absent = check([tmp_path]).warnings.query("kind == 'absent group'")
    expected = [("a.csv", group) for group in GROUPS[4:]] + [("b.csv", group) for group in GROUPS[:4]]
    assert _places(absent) == [("absent group", name, 0, group) for name, group in expected]


def test_data_sets_do_not_leak_into_each_other_but_share_no_image(tmp_path):
    """Two corpora may use the same numbers for persons; one image in both is worth a word."""
    for name in ("ffpp", "dfdc"):
        rows = pd.concat([_rows("train", 0), _rows("train", 1)])
        rows = rows if name == "ffpp" else rows.assign(img_path="dfdc/" + rows["img_path"])
        write_manifest(rows, tmp_path / name / ("test.csv" if name == "dfdc" else "train.csv"))
    assert check([tmp_path]).findings.empty
    rows.iloc[5, 0] = "real/train7_0.png"
    write_manifest(rows, tmp_path / "dfdc/test.csv")
    # The data sets are read in the order of their names.
    assert _places(check([tmp_path]).findings) == [("same image twice", "train.csv", 16, "real/train7_0.png")]
    assert len(check([tmp_path]).warnings) == 1


# Images.


@pytest.fixture
def pictures(tmp_path):
    """A data set of 4 x 4 pixels with its image root."""
    folder = _write(_tables(frames=1), tmp_path / "ffpp")
    root = tmp_path / "images"
    for name in ("real", "Deepfakes"):
        (root / name).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    for rows in _tables(frames=1).values():
        for path in rows["img_path"]:
            os.link(tmp_path / "one.png", root / path)
    return folder, root


def test_whole_images_yield_nothing(pictures):
    assert check([pictures[0]], pictures[1], size=4).findings.empty


def test_bad_images_are_found_at_their_lines(pictures, tmp_path):
    folder, root = pictures
    big = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8))

    def replace(number, write):
        path = root / f"real/test{number}_0.png"
        path.unlink()
        write(path)

    def cut_off(form):
        def write(path):
            big.save(path, format=form)
            path.write_bytes(path.read_bytes()[:-200])

        return write

    outside = tmp_path / "elsewhere.png"
    big.save(outside)
    replace(0, lambda path: None)
    replace(1, lambda path: path.write_bytes(b""))
    replace(2, lambda path: path.write_text("no image"))
    replace(3, cut_off("png"))
    replace(4, cut_off("jpeg"))
    replace(5, cut_off("bmp"))
    replace(6, lambda path: big.save(path))
    replace(7, lambda path: path.symlink_to(outside))
    replace(8, lambda path: path.symlink_to(root / "real/test9_0.png"))  # stays inside: allowed
    replace(10, lambda path: path.symlink_to(path))
    replace(11, lambda path: path.mkdir())
    replace(12, lambda path: path.symlink_to(root / "none.png"))
    report = check([folder], root, size=4)
    kinds = {
        0: "missing image",
        **dict.fromkeys((1, 2, 3, 4, 5, 10, 11), "unreadable image"),
        6: "wrong size",
        7: "image outside the root",
        12: "missing image",
    }
    expected = [(kinds[n], "test.csv", n + 2, f"real/test{n}_0.png") for n in sorted(kinds)]
    assert _places(report.findings) == expected and len(report.warnings) == 0
    by_line = report.findings.set_index("line")["finding"]
    assert "48 x 64" in by_line[8] and "empty" in by_line[3] and "not a picture" in by_line[4]
    assert "wrong size" not in set(check([folder], root).findings["kind"])


def test_a_folder_that_links_out_of_the_root_is_found(pictures, tmp_path):
    folder, root = pictures
    (root / "Deepfakes").rename(tmp_path / "moved")
    (root / "Deepfakes").symlink_to(tmp_path / "moved")
    findings = check([folder], root).findings
    fakes = sum((rows["label"] == 1).sum() for rows in _tables(frames=1).values())
    assert len(findings) == fakes and set(findings["kind"]) == {"image outside the root"}


def test_a_root_reached_through_a_link_is_no_finding(pictures, tmp_path):
    (tmp_path / "link").symlink_to(pictures[1])
    assert check([pictures[0]], tmp_path / "link").findings.empty


# Files, the report and the command.


def test_files_that_cannot_be_read_do_not_stop_the_others(tmp_path):
    folder = _write(_tables(), tmp_path / "ffpp")
    rows = pd.concat([_rows("test", 0), _rows("test", 1)])
    write_manifest(pd.concat([rows, rows[:1]]), folder / "test.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "header.csv").write_text("img_path,label\na.png,0\n")
    (tmp_path / "empty").mkdir()
    assert _places(check([tmp_path / "none.csv"]).findings) == [("unreadable file", "none.csv", 0, "")]
    paths = [tmp_path / "none.csv", tmp_path / "bytes.csv", tmp_path / "header.csv", tmp_path / "empty", folder]
    report = check(paths)
    assert sorted(_places(report.errors)) == [
        ("bad header", "header.csv", 1, ""),
        ("same image twice", "test.csv", len(rows) + 2, "real/test0_0.png"),
        ("unreadable file", "bytes.csv", 0, ""),
        ("unreadable file", "empty", 0, ""),
        ("unreadable file", "none.csv", 0, ""),
    ]
    assert len(report.files) == 8


def test_names_with_bytes_that_are_no_text(tmp_path):
    folder = _write(_tables(), tmp_path / os.fsdecode(b"caf\xe9"))
    (folder / os.fsdecode(b"t\xe9st.csv")).write_text("img_path\na.png\n")
    report = check([folder])
    assert len(report.errors) and all("caf\\xe9/t\\xe9st.csv" in file for file in report.errors["file"])
    str(report).encode("utf-8")


def test_a_file_named_twice_is_checked_once(tmp_path):
    folder = _write(_tables(), tmp_path / "ffpp")
    (tmp_path / "link").symlink_to(folder)
    report = check([folder, folder / "test.csv", tmp_path / "link"])
    assert report.findings.empty and len(report.files) == 5


def test_a_data_set_is_one_however_its_files_are_reached(tmp_path, monkeypatch):
    tables = _tables()
    places, _ = one_frame_on_the_wrong_side(tables)
    folder = _write(tables, tmp_path / "ffpp")
    monkeypatch.chdir(folder)
    report = check(["realtrain.csv", "faketrain.csv", folder / "test.csv"])
    assert _places(report.findings) == places


@pytest.mark.parametrize(
    ("name", "split"),
    [(name, split) for split, names in SPLIT_FILES.items() for name in names]
    + [("ff_train_real_head.csv", "train"), ("DFDC-Test.csv", "test"), ("contest.csv", ""), ("train_test.csv", "")],
)
def test_the_split_is_told_by_the_files_name(tmp_path, name, split):
    write_manifest(pd.concat([_rows("a", 0), _rows("a", 1)]), tmp_path / name)
    assert check([tmp_path]).files["split"].tolist() == [split]


def _command(*words):
    return main(["check", *map(str, words)])


def test_the_printed_report_folds_and_the_table_is_complete(tmp_path, capsys):
    tables = _tables()
    again = tables["realtrain.csv"].iloc[:40]
    _append(tables, "realtrain.csv", again)
    tables["test.csv"] = tables["test.csv"][tables["test.csv"]["group"] != "male-white"]
    folder = _write(tables, tmp_path / "ffpp")
    out = tmp_path / "reports/findings.csv"
    assert _command(folder, "--out", out) == 1
    text = capsys.readouterr().out
    assert f"and {40 - SHOWN} more\n" in text and text.count("Already listed") == SHOWN
    assert "ERROR: same image twice, column img_path, 40 findings. Remove one of the two rows.\n" in text
    assert f"{folder / 'realtrain.csv'}, line 162: 'real/train0_0.png'. Already listed in line 2\n" in text
    assert text.index("ERROR") < text.index("WARNING: absent group, column group, 1 finding.")
    assert f"{folder / 'realtrain.csv'}: 200 rows, 80 videos, 8 groups\n" in text
    assert "Verdict: 40 errors and 1 warning in 5 files." in text
    table = pd.read_csv(out, keep_default_na=False)
    pd.testing.assert_frame_equal(table, check([folder]).findings, check_dtype=False)
    assert list(table.columns) == list(Problem._fields) and table["line"].tolist() == [*range(162, 202), 0]


def test_errors_come_first(tmp_path):
    tables = _tables()
    a_file_of_no_split(tables)  # a warning that is found before
    repeated_in_a_file(tables)
    report = check([_write(tables, tmp_path / "ffpp")])
    assert report.findings["severity"].tolist() == ["error", "warning"]


def test_a_long_value_is_cut_in_print_only(tmp_path):
    folder = _write(_tables(), tmp_path / "ffpp")
    _spoil(folder / "test.csv", [(2, ",real,", f",{'x' * 5000},")])
    report = check([folder])
    assert report.findings["value"].str.len().max() == 5000
    assert max(map(len, str(report).split("\n"))) < 400


def test_warnings_alone_do_not_fail(tmp_path, capsys):
    tables = _tables()
    an_absent_group(tables)
    assert _command(_write(tables, tmp_path / "ffpp")) == 0
    assert "Verdict: 0 errors and 1 warning in 5 files." in capsys.readouterr().out


def test_a_wrong_image_root_is_a_usage_error(tmp_path, capsys):
    folder = _write(_tables(), tmp_path / "ffpp")
    assert _command(folder, "--images", tmp_path / "none") == 2
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(("out", "said"), [("file/below/all.csv", "file/below"), ("folder", "is a folder")])
def test_an_out_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys, monkeypatch, out, said):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr("fairdf_utils.data.checks.check", lambda *_: pytest.fail("work began"))
    assert _command(tmp_path, "--out", tmp_path / out) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and said in told and told.count("\n") == 1


def _own(folder, **groups):
    """A data set with groups of one's own: reals and fakes of 20 videos for each group in each file asked for."""
    folder.mkdir()
    for name, names in groups.items():
        label = {"faketrain": "11", "fakeval": "11", "test": "01"}.get(name, "00")
        lines = [
            f"{folder}/crops/{name}-{group}-{video}_0.png,{label[video % 2]},{group}"
            for group in names
            for video in range(40)
        ]
        (folder / f"{name}.csv").write_text("\n".join(["img_path,label,group", *lines]))
    return folder


def test_groups_of_ones_own_with_absolute_paths_are_checked_by_their_scheme(tmp_path):
    train = {"faketrain": "ab", "realtrain": "abc"}
    folder = _own(tmp_path / "own", **train, fakeval="bd", realval="abc", test="abe")
    report = check([folder], images=tmp_path / "own")
    found = report.findings[report.findings["kind"] != "missing image"]
    values = found.groupby("kind")["value"].agg(list)
    assert values["untrained group"] == ["d"] and values["absent group"] == ["c"]
    assert "a, b, c" in found.loc[found["kind"] == "untrained group", "remedy"].iloc[0]
    assert len(report.findings) - len(found) == report.files["rows"].sum()  # every path was looked for
    assert set(check([folder]).findings["kind"]) == {"path outside the root"}


@pytest.mark.parametrize("beside", ["", ",male,white"])
def test_a_video_in_two_groups_of_ones_own_is_found(tmp_path, beside):
    lines = [
        f"crops/{video}_{frame}.png,{video % 2},{'ab'[frame == 2 == video]}{beside}"
        for video in (1, 2)
        for frame in range(4)
    ]
    (tmp_path / "test.csv").write_text("\n".join(["img_path,label,group" + ",gender,race" * bool(beside), *lines]))
    found = check([tmp_path]).errors
    assert found[["kind", "column", "line"]].to_numpy().tolist() == [["demographic flip", "group", 8]]
