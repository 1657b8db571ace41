"""Manifests: the released columns with eight and six groups, every error, a round trip, leaks and group counts."""

import csv
import os
import string
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairdf_utils.data import manifests
from fairdf_utils.data.manifests import (
    ManifestError,
    group_table,
    read_leniently,
    read_manifest,
    read_split,
    write_manifest,
)
from fairdf_utils.data.vocabulary import COLUMNS, DATASETS, FORGERIES, GROUPS, SIX_GROUPS, scheme_of

EIGHT = "img_path,label,ismale,isasian,iswhite,isblack,intersec_label"
SIX = "img_path,label,ismale,iswhite,isblack,intersec_label"


def _file(tmp_path, *lines, name="test.csv"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _row(group="male-asian", forgery="real", video="ffpp/real/1", identity="1", source="", frame=0):
    gender, race = group.split("-")
    path = f"{video}_{frame}.png"
    return (path, int(forgery != "real"), forgery, gender, race, group, video, identity, source, frame)


def _frame(*rows):
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


def test_reads_eight_groups_by_code(tmp_path):
    flags = {"asian": "1,-1,-1", "white": "-1,1,-1", "black": "-1,-1,1", "others": "-1,-1,-1"}
    lines = [
        f"a/{code}.png,0,{1 if group.startswith('male') else -1},{flags[group.split('-')[1]]},{code}"
        for code, group in enumerate(GROUPS)
    ]
    frame = read_manifest(_file(tmp_path, EIGHT, *lines))
    assert tuple(frame.columns) == (*COLUMNS, "source")
    assert frame["source"].iloc[2] == f"{tmp_path / 'test.csv'}, line 4"
    assert frame["group"].tolist() == list(GROUPS)
    assert frame["label"].dtype == "int64" and frame["frame"].dtype == "int64"


def test_reads_six_groups_by_code(tmp_path):
    flags = {"white": "1,-1", "black": "-1,1", "others": "-1,-1"}
    lines = [
        f"a/{code}.png,1,{1 if group.startswith('male') else -1},{flags[group.split('-')[1]]},{code}"
        for code, group in enumerate(SIX_GROUPS)
    ]
    frame = read_manifest(_file(tmp_path, SIX, *lines))
    assert frame["group"].tolist() == list(SIX_GROUPS)
    assert set(frame["forgery"]) == {"fake"}


def test_columns_are_found_by_name_and_optional_ones_default(tmp_path):
    path = _file(
        tmp_path,
        ",intersec_label,isblack,iswhite,isasian,ismale,spe_label,label,img_path",
        "0,6,1,-1,-1,-1,3,1,crops/FaceSwap/000_003_12.png",
        "1,6,1,-1,-1,-1,5,1,crops/whole.png",
    )
    first, second = read_manifest(path).itertuples(index=False)
    assert (first.group, first.forgery) == ("female-black", "FaceSwap")
    assert (first.video, first.identity, first.source_identity, first.frame) == (
        "crops/FaceSwap/000_003",
        "crops/FaceSwap/000_003",
        "",
        12,
    )
    assert (second.video, second.frame, second.forgery) == ("crops/whole", 0, "FaceShifter")


@pytest.mark.parametrize(
    ("root", "written"),
    [
        ("/path/to/cropped_images", "/path/to/cropped_images/imgxx.png"),
        ("/path/to/cropped_images/", "/path/to//cropped_images/./imgxx.png"),
        ("C:\\crops", r"C:\crops\imgxx.png"),
        ("/", "/imgxx.png"),
        ("/any", "imgxx.png"),
    ],
)
def test_an_absolute_path_below_the_image_root_becomes_relative(tmp_path, root, written):
    """The released manifests' own lines name images so."""
    path = _file(tmp_path, EIGHT, f"{written},0,1,-1,-1,1,2")
    assert read_manifest(path, root)["img_path"].tolist() == ["imgxx.png"]


def test_a_root_may_be_a_link_or_relative(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    path = _file(tmp_path, EIGHT, f"{tmp_path}/real/a/b.png,0,1,-1,-1,1,2", r"link\b.png,0,1,-1,-1,1,2")
    assert read_manifest(path, "link")["img_path"].tolist() == ["a/b.png", "link/b.png"]


@pytest.mark.parametrize(
    "written", ["/path/to/other/1.png", "/path/to/crops_2/1.png", "/path/to/crops/../1.png", "D:/1"]
)
def test_an_absolute_path_elsewhere_is_refused_with_the_root(tmp_path, written):
    path = _file(tmp_path, EIGHT, f"{written},0,1,-1,-1,1,2")
    with pytest.raises(ManifestError, match=f"{path}, line 2, column img_path.*not below image_root '/path/to/crops'"):
        read_manifest(path, "/path/to/crops")


OWN = ("img_path", "label", "group", "age", "video")
AGES = [
    ("a/1_0.png", "0", "young", "7", "a"),
    ("a/2_0.png", "1", "old", "80", "b"),
    ("a/3_0.png", "1", "in between", "", "c"),
]


def test_groups_of_ones_own_are_a_scheme_and_other_columns_follow(tmp_path):
    rows = read_manifest(_file(tmp_path, *(",".join(cells) for cells in (OWN, *AGES))))
    expected = [name for name in COLUMNS if name not in ("gender", "race")]
    assert rows.columns.tolist() == [*expected, "source", "age"]
    assert rows["group"].tolist() == ["young", "old", "in between"] and rows["age"].tolist() == ["7", "80", ""]
    assert scheme_of(rows["group"]) == ("in between", "old", "young")
    assert group_table(rows)["fakes"].to_dict() == {"in between": 1, "old": 1, "young": 0}
    write_manifest(rows, tmp_path / "celebdf/test.csv")  # a folder of six groups, which these are not
    again = read_manifest(tmp_path / "celebdf/test.csv")
    assert again.drop(columns="source").equals(rows.drop(columns="source"))


@pytest.mark.parametrize("name", ["", " ", " old"])
def test_a_group_that_would_not_come_back_is_not_written(tmp_path, name):
    with pytest.raises(ManifestError, match="row 1 has group"):
        write_manifest(_frame(_row(), _row(frame=1)).assign(group=["young", name]), tmp_path / "own/test.csv")
    assert not (tmp_path / "own/test.csv").exists()


def test_a_column_of_groups_wins_over_the_codes_and_names_of_the_eight_are_the_eight(tmp_path):
    rows = read_manifest(_file(tmp_path, f"{EIGHT},group", "a/1.png,0,1,1,-1,-1,0,A"))
    assert rows[["group", "gender", "race"]].iloc[0].tolist() == ["A", "male", "asian"]
    rows = read_manifest(_file(tmp_path, "img_path,label,race,gender", "a/1.png,0, asian,male"))
    assert rows["group"].tolist() == ["male-asian"] and scheme_of(rows["group"]) == GROUPS
    assert scheme_of([]) == scheme_of(SIX_GROUPS) == GROUPS


@pytest.mark.parametrize(
    "text",
    [
        f"{EIGHT},,\n{{row}},,\n,,,,,,,,\n",  # a spreadsheet's empty columns and rows
        f"{EIGHT}\n{{row}},,\n",
        f",{EIGHT},Unnamed: 0\n7,{{row}},7\n",  # pandas' index, written twice
        f"{EIGHT}\n{{row}}\n".replace(",", ";"),
        f"{EIGHT}\n{{row}}\n".replace(",", "\t"),
        f"{EIGHT}\n{{row}}\n".replace(",", "|"),
        "\ufeff" + f"{EIGHT}\r\n{{row}}\r\n",
        f" {EIGHT} \n{{row}}\n".replace(",", " , "),
    ],
)
def test_what_spreadsheets_and_tables_write_is_read(tmp_path, text):
    mark = next(mark for mark in (" , ", ";", "\t", "|", ",") if mark in text)
    for cells in (("a/1.png", 0, 1, 1, -1, -1, 0), ("a/1.png", "0.0", "1.0", "1.0", "-1.0", "-1.0", "0.0")):
        path = tmp_path / "test.csv"
        path.write_bytes(text.format(row=mark.join(map(str, cells))).encode())
        rows = read_manifest(path)
        assert rows["group"].tolist() == ["male-asian"] and rows["img_path"].str.strip().tolist() == ["a/1.png"]
        assert rows.columns.tolist() == [*COLUMNS, "source"]


def test_a_header_written_otherwise_is_told_how_to_write_it(tmp_path):
    with pytest.raises(ManifestError, match="rename 'Img Path' to 'img_path', 'Label' to 'label', 'Group' to 'group'"):
        read_manifest(_file(tmp_path, "Img Path,Label,Group", "a/1.png,0,A"))
    with pytest.raises(ManifestError, match="UTF-8"):
        path = tmp_path / "test.csv"
        path.write_text(f"{EIGHT}\n{GOOD}\n", encoding="utf-16")
        read_manifest(path)


def test_forgery_may_be_called_method(tmp_path):
    """Files of others do, and ours once did."""
    rows = ("a/1.png,1,1,1,-1,-1,0,FaceSwap", "a/2.png,0,1,1,-1,-1,0,real", "a/3.png,1,1,1,-1,-1,0,fake")
    called = [read_manifest(_file(tmp_path, f"{EIGHT},{name}", *rows)) for name in ("forgery", "method")]
    assert called[1]["forgery"].tolist() == ["FaceSwap", "real", "fake"] and called[0].equals(called[1])
    both = [f"{row},{row.rsplit(',')[-1]}" for row in rows]
    assert read_manifest(_file(tmp_path, f"{EIGHT},method,forgery", *both)).equals(called[0])
    write_manifest(called[1], tmp_path / "ffpp/test.csv")
    header = (tmp_path / "ffpp/test.csv").read_text().split("\n")[0].split(",")
    assert "forgery" in header and "method" not in header


GOOD = "a/1.png,0,1,1,-1,-1,0"


@pytest.mark.parametrize(
    ("lines", "line", "column", "remedy"),
    [
        ([EIGHT, GOOD, "a/2.png,2,1,1,-1,-1,0"], 3, "label", "Use one of 0, 1"),
        ([EIGHT, GOOD, "a/2.png,,1,1,-1,-1,0"], 3, "label", "Use one of 0, 1"),
        ([EIGHT, "a/2.png,0,0,1,-1,-1,0"], 2, "ismale", "Use one of -1, 1"),
        ([EIGHT, "a/2.png,0,1,yes,-1,-1,0"], 2, "isasian", "Use one of -1, 1"),
        ([EIGHT, "a/2.png,0,1,1,-1,-1,8"], 2, "intersec_label", "Use one of 0, 1, 2, 3, 4, 5, 6, 7"),
        ([SIX, "a/2.png,0,1,1,-1,6"], 2, "intersec_label", "Use one of 0, 1, 2, 3, 4, 5"),
        ([EIGHT, GOOD, GOOD, "a/2.png,0,1,1,-1,-1,1"], 4, "intersec_label", "contradicts ismale"),
        ([EIGHT, "a/2.png,0,1,-1,1,1,1"], 2, "iswhite", "More than one"),
        ([EIGHT, "/data/2.png,0,1,1,-1,-1,0"], 2, "img_path", "relative to the image root"),
        ([EIGHT, r"C:\data\2.png,0,1,1,-1,-1,0"], 2, "img_path", "relative to the image root"),
        ([EIGHT, "a/../../2.png,0,1,1,-1,-1,0"], 2, "img_path", 'Remove ".."'),
        ([EIGHT, ",0,1,1,-1,-1,0"], 2, "img_path", "Give the image's path"),
        ([EIGHT, " ,0,1,1,-1,-1,0"], 2, "img_path", "Give the image's path"),
        (["img_path,label,group", "a/2.png,0, "], 2, "group", "Fill the cell in"),
        ([EIGHT + ",group", "a/2.png,0,1,1,-1,-1,0,male-white"], 2, "group", "contradicts gender and race"),
        (["img_path,label,group,gender,race", "a/2.png,0,male-white,male,"], 2, "group", "contradicts gender and race"),
        ([EIGHT + ",spe_label", "a/2.png,1,1,1,-1,-1,0,6"], 2, "spe_label", "Use one of 1, 2, 3, 4, 5"),
        ([EIGHT + ",spe_label", "a/2.png,0,1,1,-1,-1,0,2"], 2, "spe_label", "Only fakes"),
        ([EIGHT + ",forgery", "a/2.png,1,1,1,-1,-1,0,DeepFake"], 2, "forgery", "Use one of real, Deepfakes"),
        ([EIGHT + ",forgery", "a/2.png,1,1,1,-1,-1,0,real"], 2, "forgery", "contradicts label"),
        ([EIGHT + ",spe_label,forgery", "a/2.png,1,1,1,-1,-1,0,1,FaceSwap"], 2, "forgery", "contradicts spe_label"),
        ([EIGHT + ",method", "a/2.png,1,1,1,-1,-1,0,DeepFake"], 2, "method", "Use one of real, Deepfakes"),
        ([EIGHT + ",method", "a/2.png,1,1,1,-1,-1,0,real"], 2, "method", "contradicts label"),
        (
            [EIGHT + ",method,forgery", GOOD + ",real,real", "a/2.png,1,1,1,-1,-1,0,Deepfakes,FaceSwap"],
            3,
            "method",
            "contradicts forgery. Keep one of the two columns",
        ),
        ([EIGHT + ",frame", "a/2.png,1,1,1,-1,-1,0,-3"], 2, "frame", "whole number"),
        ([EIGHT + ",video", "a/2.png,1,1,1,-1,-1,0,"], 2, "video", "Fill the cell in"),
        ([EIGHT, GOOD, "", "a/2.png,7,1,1,-1,-1,0"], 4, "label", "Use one of 0, 1"),  # blank lines count
    ],
)
def test_a_bad_cell_is_named_with_file_line_column_and_remedy(tmp_path, lines, line, column, remedy):
    path = _file(tmp_path, *lines)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}, column {column}: ")
    assert remedy in message


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        (["img_path,label,ismale,isasian,iswhite", "a,0,1,1,-1"], ["line 1", "missing column isblack, intersec_label"]),
        ([EIGHT + ",label", GOOD + ",0"], ["line 1", "label appears twice"]),
        ([EIGHT], ["no rows"]),
        ([""], ["no rows"]),
        ([EIGHT, GOOD, "a/2.png,0,1"], ["line 3", "3 cells where the header has 7"]),
        ([EIGHT, "a/2,b.png,0,1,1,-1,-1,0"], ["line 2", "8 cells", "Quote values"]),
    ],
)
def test_a_bad_file_is_refused(tmp_path, lines, parts):
    path = _file(tmp_path, *lines)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert all(part in str(caught.value) for part in [str(path), *parts])


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="no such manifest"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "image.csv").write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)))
    with pytest.raises(ManifestError, match="not a UTF-8 CSV"):
        read_manifest(tmp_path / "image.csv")


def test_every_problem_is_collected_and_the_sound_rows_are_kept(tmp_path):
    path = _file(
        tmp_path,
        EIGHT + ",forgery",
        "a/2_0.png,2,0,1,-1,-1,0,magic",  # three unknown codes and an unknown forgery
        GOOD + ",real",
        "/a/3.png,1,1,1,-1,-1,3,real",
        "a/4.png,0,1",
        "a/5_7.png,1,1,1,1,-1,9,FaceSwap",
    )
    rows, problems = read_leniently(path)
    assert rows["source"].tolist() == [f"{path}, line 3"]
    assert [(problem.line, problem.column) for problem in problems] == [
        (2, "label"),
        (2, "ismale"),
        (2, "forgery"),
        (4, "img_path"),
        (4, "intersec_label"),
        (4, "forgery"),
        (5, ""),
        (6, "iswhite"),
        (6, "intersec_label"),
    ]
    assert all(problem.remedy and problem.finding and problem.severity == "error" for problem in problems)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert str(caught.value) == problems[0].message()


@pytest.mark.parametrize("content", [None, b"", b"a,b\n1,2\n", b"\xff\xd8", EIGHT.encode()])
def test_a_file_that_cannot_be_read_gives_no_rows_and_one_problem(tmp_path, content):
    path = tmp_path / "test.csv"
    if content is not None:
        path.write_bytes(content)
    rows, problems = read_leniently(path)
    assert len(rows) == 0 and tuple(rows.columns) == (*COLUMNS, "source")
    assert len(problems) == 1 and problems[0].line in (0, 1)


_CELLS = st.sampled_from(["0", "1", "-1", "2", "7", "", "a/1_2.png", "../x", "real", "FaceSwap", "x"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8), _CELLS), max_size=4))
def test_each_line_is_either_a_row_or_named_in_a_problem(tmp_path, changes):
    header = EIGHT.split(",") + ["forgery", "video"]
    cells = [[f"a/{n}.png", "1", "1", "1", "-1", "-1", "0", "fake", "v"] for n in range(4)]
    for row, column, cell in changes:
        cells[row][column] = cell
    path = tmp_path / "test.csv"
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *cells])
    rows, problems = read_leniently(path)
    sound = [int(source.rsplit(" ", 1)[1]) for source in rows["source"]]
    named = {problem.line for problem in problems}
    assert sound == sorted({2, 3, 4, 5} - named) and named <= {2, 3, 4, 5}
    if problems:
        with pytest.raises(ManifestError, match=f"line {min(named)}, column "):
            read_manifest(path)
    else:
        pd.testing.assert_frame_equal(read_manifest(path), rows)


def test_names_of_the_corpora_tell_persons(tmp_path):
    lines = ["a/0_Deepfakes_300_304_151.png,1,1,1,-1,-1,0", "b/0_12_3.png,1,1,1,-1,-1,0"]
    known, plain = read_manifest(_file(tmp_path, EIGHT, *lines)).itertuples(index=False)
    assert (known.video, known.identity, known.source_identity) == ("Deepfakes/300_304", "300", "304")
    assert (known.forgery, known.frame) == ("Deepfakes", 151)
    assert (plain.video, plain.identity, plain.forgery, plain.frame) == ("b/0_12", "b/0_12", "fake", 3)
    named = _file(tmp_path, EIGHT + ",video", GOOD + ",youtube/001", "a/9.png,1,1,1,-1,-1,0,FaceSwap/001_002")
    assert read_manifest(named)[["identity", "source_identity"]].values.tolist() == [["001", ""], ["001", "002"]]


SHIPPED = sorted((Path(manifests.__file__).parents[2] / "data_manifests/synthetic").rglob("*.csv"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_shipped_manifests_come_back_byte_for_byte(tmp_path, path):
    target = tmp_path / path.parent.name / path.name
    write_manifest(read_manifest(path), target)
    assert target.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("dataset", ["ffpp", "celebdf"])
def test_the_released_loaders_find_their_columns(tmp_path, dataset):
    """They read these columns by name, and index the groups by intersec_label."""
    groups = GROUPS if dataset == "ffpp" else SIX_GROUPS
    frame = _frame(*(_row(group, "NeuralTextures", video=f"v/{n}") for n, group in enumerate(groups)))
    write_manifest(frame, tmp_path / dataset / "faketrain.csv")
    with open(tmp_path / dataset / "faketrain.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [int(row["intersec_label"]) for row in rows] == list(range(len(groups)))
    for row, group in zip(rows, groups, strict=True):
        gender, race = group.split("-")
        assert int(row["label"]) == 1 and int(row["spe_label"]) == 4 and row["img_path"].endswith(".png")
        assert int(row["ismale"]) == (1 if gender == "male" else -1)
        flags = {name: int(row[f"is{name}"]) for name in ("asian", "white", "black") if f"is{name}" in row}
        assert flags == {name: 1 if name == race else -1 for name in flags}
        assert ("asian" in flags) == (dataset == "ffpp")


def test_the_groups_may_be_given_where_the_folder_does_not_decide(tmp_path):
    write_manifest(_frame(_row("male-asian")), tmp_path / "dfd" / "test.csv", groups=GROUPS)
    assert read_manifest(tmp_path / "dfd" / "test.csv")["group"].tolist() == ["male-asian"]


def test_a_group_with_one_class_only_is_no_error(tmp_path):
    assert len(read_manifest(_file(tmp_path, EIGHT, GOOD, GOOD))) == 2


_NAMES = st.text(string.ascii_letters + string.digits + ' ,"-é', min_size=1, max_size=8)


@st.composite
def _rows(draw, groups):
    fakes = draw(st.sampled_from([FORGERIES[1:], ("real",), (*FORGERIES, "fake")]))
    rows = draw(
        st.lists(
            st.builds(
                _row,
                group=st.sampled_from(groups),
                forgery=st.sampled_from(fakes),
                video=_NAMES.map(lambda name: f"v/{name}"),
                identity=_NAMES,
                source=st.one_of(st.just(""), _NAMES),
                frame=st.integers(0, 10**6),
            ),
            min_size=1,
            max_size=6,
        )
    )
    return _frame(*rows)


@pytest.mark.parametrize(("dataset", "groups"), [("ffpp", GROUPS), ("celebdf", SIX_GROUPS)])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_written_rows_read_back_and_give_the_same_bytes(tmp_path, dataset, groups, data):
    frame = data.draw(_rows(groups))
    path = tmp_path / dataset / "test.csv"
    write_manifest(frame, path)
    content = path.read_bytes()
    again = read_manifest(path)
    pd.testing.assert_frame_equal(again[list(COLUMNS)], frame, check_dtype=False)
    write_manifest(again, path)
    assert path.read_bytes() == content
    assert b"\r" not in content


def test_columns_follow_the_kind_of_file(tmp_path):
    real, fake = _row(), _row(forgery="FaceSwap", video="ffpp/FaceSwap/1", source="2")
    for rows, extra in (([real], []), ([fake], ["spe_label"]), ([fake, real], ["forgery"])):
        write_manifest(_frame(*rows), tmp_path / "ffpp" / "x.csv")
        header = (tmp_path / "ffpp" / "x.csv").read_text().splitlines()[0]
        assert header == ",".join([EIGHT, *extra, "video,identity,source_identity,frame"])
    write_manifest(_frame(_row("female-others")), tmp_path / "dfd" / "test.csv")
    header, row = (tmp_path / "dfd" / "test.csv").read_text().splitlines()
    assert header.startswith(SIX + ",") and row.split(",")[1:6] == ["0", "-1", "-1", "-1", "5"]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (_frame(), "there are no rows"),
        (_frame(_row()).drop(columns="video"), "column video is missing"),
        (_frame(_row("male-asian")), "row 0 has group 'male-asian'"),  # celebdf has no asian group
        (_frame(_row("male-white"), _row("male-white")).assign(label=1), "label 1, forgery 'real'"),
        (_frame(_row("male-white")).assign(gender="female"), "gender 'female'"),
        (_frame(_row("male-white")).assign(img_path="/data/a.png"), "row 0 has .* img_path '/data/a.png'"),
        (
            _frame(_row("male-white"), _row("male-white", frame=1)).assign(img_path=["a", "b/../c"]),
            "row 1 has .* img_path 'b/../c'",
        ),
    ],
)
def test_rows_that_could_not_be_read_back_are_not_written(tmp_path, frame, message):
    path = tmp_path / "celebdf" / "test.csv"
    with pytest.raises(ManifestError, match=message):
        write_manifest(frame, path)
    assert not path.exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "ffpp" / "test.csv"
    write_manifest(_frame(_row()), path)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_manifest(_frame(_row("female-black")), path)
    assert path.read_bytes() == before


def test_read_split_joins_its_files_and_names_a_missing_one(tmp_path):
    folder = tmp_path / "ffpp"
    write_manifest(_frame(_row(forgery="Deepfakes")), folder / "faketrain.csv")
    with pytest.raises(ManifestError, match=r"realtrain\.csv: no such manifest"):
        read_split(folder, "train")
    write_manifest(_frame(_row(), _row(frame=3)), folder / "realtrain.csv")
    frame = read_split(folder, "train")
    assert frame["label"].tolist() == [1, 0, 0]
    assert set(frame["dataset"]) == {"ffpp"}
    with pytest.raises(ManifestError, match="unknown split 'dev'"):
        read_split(folder, "dev")


def test_group_table_counts():
    frame = _frame(
        _row("female-white", video="a", identity="1"),
        _row("female-white", video="a", identity="1", frame=1),
        _row("female-white", video="b", identity="1", source="2", forgery="FaceSwap"),
        _row("male-others", video="c", identity="3"),
    )
    table = group_table(frame)
    assert table.index.tolist() == list(GROUPS)
    assert table.loc["female-white"].to_dict() == {"images": 3, "reals": 2, "fakes": 1, "videos": 2, "identities": 1}
    assert table["images"].sum() == 4 and table.loc["male-asian"].sum() == 0


def test_constants_agree():
    assert len(GROUPS) == 8 and GROUPS[0] == "male-asian" and GROUPS[7] == "female-others"
    assert FORGERIES.index("FaceShifter") == 5 and DATASETS == ("ffpp", "dfdc", "celebdf", "dfd")
