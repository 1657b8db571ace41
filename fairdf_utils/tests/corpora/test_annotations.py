"""Annotations: every layout's paths, every fault, votes against an oracle, and no crop is lost."""

from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdf_utils.corpora.annotations import lost_by_group, merge, read_annotations
from fairdf_utils.data.csv_rows import ManifestError
from fairdf_utils.data.vocabulary import COLUMNS, GROUPS

HEADER = ",path,label,male,asian,white,black,young"
FF = "FaceForensics++/manipulated_sequences/Deepfakes/raw/face_images/000_003"


def _file(tmp_path, *lines, name="A.csv"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _annotations(*rows):
    """Rows (video, frame, label, gender, race)."""
    table = pd.DataFrame(list(rows), columns=["video", "frame", "label", "gender", "race"])
    return table.assign(source=[f"A.csv, line {n + 2}" for n in range(len(table))])


def _crops(*rows):
    """Rows (video, frame, label)."""
    table = pd.DataFrame(list(rows), columns=["video", "frame", "label"])
    table["forgery"] = table["label"].map({0: "real", 1: "fake"})
    table["img_path"] = [f"ffpp/faces/{video}/{frame}.png" for video, frame, _ in rows]
    return table.assign(identity=table["video"], source_identity="")


@pytest.mark.parametrize(
    ("dataset", "path", "video", "frame"),
    [
        ("ffpp", f"{FF}/frame101.png", "Deepfakes/000_003", 101),
        ("ffpp", "FaceForensics++/original_sequences/youtube/raw/face_images/183/frame1.png", "youtube/183", 1),
        ("ffpp", r"FaceForensics++\original_sequences\youtube\raw\face_images\183\frame1.png", "youtube/183", 1),
        (
            "dfd",
            "FaceForensics++/original_sequences/actors/raw/face_images/01__kitchen_pan/frame7.png",
            "actors/01__kitchen_pan",
            7,
        ),
        (
            "dfd",
            "FaceForensics++/manipulated_sequences/DeepFakeDetection/raw/face_images/01_02__a__YVGY8LOK/frame7.png",
            "DeepFakeDetection/01_02__a__YVGY8LOK",
            7,
        ),
        ("celebdf", "Celeb-DF-v2_faces_single/YouTube-real/00170/frame31.png", "YouTube-real/00170", 31),
        ("celebdf", "Celeb-synthesis/id0_id1_0002/frame0.png", "Celeb-synthesis/id0_id1_0002", 0),
        ("folder", "mine/real/monday/clip/frame3.png", "real/monday/clip", 3),
    ],
)
def test_a_path_names_its_video_and_frame(tmp_path, dataset, path, video, frame):
    row = read_annotations(_file(tmp_path, HEADER, f"0,{path},0,1,-1,1,-1,0"), dataset).iloc[0]
    assert (row["video"], row["frame"]) == (video, frame)
    assert row["source"] == f"{tmp_path / 'A.csv'}, line 2"


@pytest.mark.parametrize("mark", [";", "\t"])
def test_cells_may_be_separated_otherwise(tmp_path, mark):
    lines = ("path,label,male,asian,white,black", f"{FF}/frame1.png,1.0,1,1,-1,-1", f"{FF}/frame2.png,7,1,1,-1,-1")
    lines = [line.replace(",", mark) for line in lines]
    assert read_annotations([_file(tmp_path, *lines[:2])], "ffpp")["race"].tolist() == ["asian"]
    with pytest.raises(ManifestError, match="A.csv, line 3, column label"):
        read_annotations([_file(tmp_path, *lines)], "ffpp")


def test_columns_are_matched_whatever_their_case_and_order(tmp_path):
    first = _file(tmp_path, " Black,WHITE,Asian,Bald,Male,Label,PATH", f"-1,1,-1,7,-1,fake,{FF}/frame0.png")
    second = _file(tmp_path, HEADER, f"0,{FF}/frame10.png,1,1.0,-1,-1,-1,5", name="B.csv")
    table = read_annotations([first, second], "ffpp")
    assert table[["frame", "label", "gender", "race"]].values.tolist() == [
        [0, 1, "female", "white"],
        [10, 1, "male", "others"],
    ]


@pytest.mark.parametrize(
    ("flags", "race"),
    [
        ("1,-1,-1", "asian"),
        ("0,1,-1", "white"),
        ("-1,0,1", "black"),
        ("-1,-1,-1", "others"),
        ("-1,0,-1", ""),
        ("0,0,0", ""),
        ("1,1,-1", ""),
    ],
)
def test_the_race_is_the_one_that_is_1(tmp_path, flags, race):
    table = read_annotations(_file(tmp_path, HEADER, f"0,{FF}/frame0.png,1,0,{flags},1"), "ffpp")
    assert table.loc[0, ["gender", "race"]].tolist() == ["", race]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([",path,label,male,white", f"0,{FF}/frame0.png,1,1,1"], "line 1: missing column asian, black. Add it"),
        ([HEADER, f"0,{FF}/frame0.png,1,1,-1,1,-1,1", f"1,{FF}/frame1.png,1,2,-1,1,-1,1"], "line 3, column male: '2'"),
        ([HEADER, f"0,{FF}/frame0.png,maybe,1,-1,1,-1,1"], "line 2, column label: 'maybe' .* Use one of 0, 1, real"),
        ([HEADER, "0,somewhere/frame0.png,1,1,-1,1,-1,1"], "line 2, column path: .* names no video and frame of ffpp"),
        ([HEADER, f"0,{FF}/cover.png,1,1,-1,1,-1,1"], "line 2, column path: .* names no video and frame"),
        ([HEADER + ",Male", f"0,{FF}/frame0.png,1,1,-1,1,-1,1,1"], "line 1: column male appears twice"),
        ([HEADER], "holds no rows"),
        ([""], "not a UTF-8 CSV file|missing column"),
    ],
)
def test_a_faulty_file_is_refused_with_its_line(tmp_path, lines, message):
    with pytest.raises(ManifestError, match=message):
        read_annotations(_file(tmp_path, *lines), "ffpp")


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(ManifestError, match="cannot be read"):
        read_annotations(tmp_path / "none.csv", "ffpp")
    (tmp_path / "image.csv").write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)))
    with pytest.raises(ManifestError, match="not a UTF-8 CSV"):
        read_annotations(tmp_path / "image.csv", "ffpp")
    with pytest.raises(ManifestError, match="No annotation file"):
        read_annotations([], "ffpp")
    with pytest.raises(ValueError, match="dataset='ff'"):
        read_annotations("A.csv", "ff")


def test_celebdf_may_do_without_asian_and_says_so(tmp_path):
    path = _file(tmp_path, "path,label,male,white,black", "Celeb-real/id0_0000/frame0.png,0,1,-1,-1")
    with pytest.warns(UserWarning, match="no column asian"):
        assert read_annotations(path, "celebdf")["race"].tolist() == ["others"]


def test_dfdc_needs_a_mapping(tmp_path):
    path = _file(
        tmp_path,
        HEADER,
        "0,DFDC_validation_single/1/4000/frame1.png,1,1,-1,1,-1,1",
        "1,DFDC_validation_single/0/4001/frame1.png,0,1,-1,1,-1,1",
    )
    with pytest.raises(ManifestError, match="Pass mapping, a CSV with columns annotation_id and file_name"):
        read_annotations(path, "dfdc")
    names = _file(tmp_path, "annotation_id,file_name", "4000,dfdc_train_part_0/abc.mp4", name="m.csv")
    with pytest.warns(UserWarning, match="1 annotated ids are not listed, such as 4001"):
        table = read_annotations(path, "dfdc", mapping=names)
    assert table["video"].tolist() == ["dfdc_train_part_0/abc", "4001"]
    doubled = _file(tmp_path, "annotation_id,file_name", "4000,a.mp4", "4000,b.mp4", name="d.csv")
    with pytest.raises(ManifestError, match="line 3, column annotation_id: '4000' appears twice"):
        read_annotations(path, "dfdc", mapping=doubled)
    other = _file(tmp_path, "id,file", "4000,a.mp4", name="o.csv")
    with pytest.raises(ManifestError, match="missing column annotation_id, file_name"):
        read_annotations(path, "dfdc", mapping=other)


def test_a_video_named_without_folder_matches_in_any_folder():
    merged = merge(_crops(("part_0/abc", 0, 1), ("part_0/xyz", 0, 1)), _annotations(("abc", 5, 1, "male", "black")))
    assert merged.rows["video"].tolist() == ["part_0/abc"] and merged.unmatched["video"].tolist() == ["part_0/xyz"]
    assert merged.by_frame == 0


def test_each_doubt_is_listed_in_its_place():
    annotations = _annotations(
        ("majority", 0, 0, "male", "white"),
        ("majority", 1, 0, "male", "black"),
        ("majority", 1, 0, "male", "black"),  # the same again votes once
        ("majority", 2, 0, "female", "white"),
        ("tie", 0, 0, "male", "white"),
        ("tie", 1, 0, "female", "white"),
        ("nobody", 0, 0, "", ""),
        ("half", 0, 0, "female", ""),
        ("half", 1, 0, "", "asian"),
        ("other", 0, 0, "male", "others"),
        ("spare", 0, 0, "male", "others"),
    )
    crops = _crops(
        ("majority", 1, 0), ("tie", 0, 0), ("nobody", 0, 0), ("half", 9, 0), ("other", 0, 1), ("unknown", 0, 0)
    )
    merged = merge(crops, annotations)
    groups = dict(zip(merged.rows["video"], merged.rows["group"], strict=True))
    assert groups == {"majority": "male-white", "half": "female-asian", "other": "male-others"}
    assert merged.unmatched["video"].tolist() == ["unknown"]
    assert dict(zip(merged.undefined["video"], merged.undefined["reason"], strict=True)) == {
        "tie": "gender: tie, male 1, female 1",
        "nobody": "gender undefined in every frame; race undefined in every frame",
    }
    assert merged.conflicts.values.tolist() == [
        ["majority", "gender", "male 2, female 1", "male"],
        ["tie", "gender", "male 1, female 1", ""],
        ["majority", "race", "white 2, black 1", "white"],
    ]
    assert merged.disagreements.values.tolist() == [["other", 1, 1, 1, 1]]
    assert merged.rows.set_index("video").loc["other", "label"] == 1  # the corpus is believed
    assert merged.unused["video"].tolist() == ["spare"]
    assert merged.repeated["source"].tolist() == ["A.csv, line 4"]
    assert merged.by_frame == 2
    assert merged.summary()["count"].tolist() == [3, 1, 2, 2, 3, 1, 1, 1, 1]
    assert tuple(merged.rows.columns) == COLUMNS


_VIDEOS = st.sampled_from(["a", "b", "c", "d"])
_NOTES = st.tuples(
    _VIDEOS,
    st.integers(0, 3),
    st.integers(0, 1),
    st.sampled_from(["male", "female", ""]),
    st.sampled_from(["asian", "white", "black", "others", ""]),
)


def _majority(values):
    ranked = Counter(value for value in values if value).most_common(2)
    tie = len(ranked) == 2 and ranked[0][1] == ranked[1][1]
    return "" if not ranked or tie else ranked[0][0]


@pytest.mark.filterwarnings("ignore:None of the")
@given(
    crops=st.lists(st.tuples(_VIDEOS | st.just("e"), st.integers(0, 5), st.integers(0, 1)), max_size=20, unique=True),
    notes=st.lists(_NOTES, max_size=25),
)
@settings(max_examples=60, deadline=None)
def test_every_crop_is_in_one_table_and_majorities_are_counted_right(crops, notes):
    crops, annotations = _crops(*crops), _annotations(*notes)
    merged = merge(crops, annotations)
    parts = [merged.rows, merged.unmatched, merged.undefined]
    assert sorted(
        row for part in parts for row in part[["img_path", "label"]].itertuples(index=False, name=None)
    ) == sorted(crops[["img_path", "label"]].itertuples(index=False, name=None))
    unique = set(notes)
    for video in {note[0] for note in notes}:
        gender = _majority(note[3] for note in unique if note[0] == video)
        race = _majority(note[4] for note in unique if note[0] == video)
        assert set(merged.rows.loc[merged.rows["video"] == video, "group"]) <= {f"{gender}-{race}"}
        if gender and race:
            assert video not in set(merged.undefined["video"])
    assert set(merged.unmatched["video"]).isdisjoint(note[0] for note in notes)
    assert set(merged.unused["video"]) == {note[0] for note in notes} - set(crops["video"])
    assert len(merged.repeated) == len(notes) - len(unique)


def test_annotations_of_another_data_set_are_told():
    told = _annotations(("Celeb-real/id0_0000", 0, 0, "male", "white"))
    with pytest.warns(UserWarning, match=r"None of the 2 crops .*'youtube/000'.*'Celeb-real/id0_0000'.* one data set"):
        merged = merge(_crops(("youtube/000", 0, 0), ("youtube/000", 1, 0)), told)
    assert len(merged.unmatched) == 2 and merged.rows.empty


def test_losses_count_every_video_and_those_that_gave_nothing():
    annotations = _annotations(
        ("a", 0, 0, "male", "white"), ("b", 0, 0, "male", "white"), ("c", 0, 0, "female", "black"), ("d", 0, 0, "", "")
    )
    ledger = pd.DataFrame(
        [
            ("a", 30, 27, "ok"),
            ("b", 30, 0, "failed"),
            ("c", 20, 5, "partial"),
            ("d", 30, 30, "ok"),
            ("e", 30, 29, "ok"),
        ],
        columns=["video", "asked", "found", "status"],
    )
    table = lost_by_group(ledger, annotations)
    assert table.index.tolist() == [*GROUPS, "undefined", "not annotated"]
    assert table.loc["male-white"].tolist() == [2, 1, 60, 33, 0.55]
    assert table.loc["female-black"].tolist() == [1, 0, 20, 15, 0.75]  # partial: it gave crops
    assert table.loc["undefined", "lost"] == 0 and table.loc["not annotated", "lost"] == 1
    assert table["videos"].sum() == len(ledger) and pd.isna(table.loc["male-asian", "share"])
