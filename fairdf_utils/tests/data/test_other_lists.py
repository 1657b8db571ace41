"""Lists of others: crop names of every corpus, the released samples."""

import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdf_utils.corpora.layouts import find_videos
from fairdf_utils.data.crop_names import from_crop_names, video_facts
from fairdf_utils.data.csv_rows import ManifestError
from fairdf_utils.data.manifests import read_leniently, read_manifest, write_manifest
from fairdf_utils.data.vocabulary import COLUMNS, FORGERIES, GROUPS, TONE_GROUPS, scheme_of

HEADER = "Image Path,Ground Truth Gender,Ground Truth Age,Ground Truth Race,Intersection,Target,intersec_label"
SAMPLES = Path(__file__).parents[4] / "shared/samples"

NAMES = [  # crop, data set, video, frame, forgery, identity, source identity
    ("0_Deepfakes_300_304_151", "ffpp", "Deepfakes/300_304", 151, "Deepfakes", "300", "304"),
    ("0_FaceShifter_960_999_71", "ffpp", "FaceShifter/960_999", 71, "FaceShifter", "960", "999"),
    ("0_youtube_186_151", "ffpp", "youtube/186", 151, "real", "186", ""),
    ("0_Celeb-synthesis_id54_id50_0006_91", "celebdf", "Celeb-synthesis/id54_id50_0006", 91, "fake", "id54", "id50"),
    ("0_Celeb-real_id55_0005_161", "celebdf", "Celeb-real/id55_0005", 161, "real", "id55", ""),
    ("0_YouTube-real_00281_241", "celebdf", "YouTube-real/00281", 241, "real", "youtube-00281", ""),
    (
        "0_23_19__secret_conversation__H4SUVFTL_271",
        "dfd",
        "DeepFakeDetection/23_19__secret_conversation__H4SUVFTL",
        271,
        "fake",
        "23",
        "19",
    ),
    ("0_01__secret_conversation_181", "dfd", "actors/01__secret_conversation", 181, "real", "01", ""),
    ("0_7273_251", "dfdc", "7273", 251, "", "7273", ""),
    ("cover", "", "", 0, "", "", ""),
    ("0_Deepfakes_300_151", "", "", 151, "", "", ""),
    ("0_my_video_3", "", "", 3, "", "", ""),
]


def _file(tmp_path, *rows, header=HEADER):
    path = tmp_path / "list.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def _dataset(path):
    return {"ff": "ffpp", "ff_train_real": "ffpp"}.get(path.stem.removesuffix("_head"), path.stem.removesuffix("_head"))


@pytest.mark.parametrize(("name", "dataset", "video", "frame", "forgery", "identity", "source"), NAMES)
def test_a_crop_name_tells_video_and_persons(name, dataset, video, frame, forgery, identity, source):
    row = from_crop_names([f"some/folder/{name}.png"]).iloc[0]
    assert row.to_dict() == {
        "dataset": dataset,
        "video": video,
        "frame": frame,
        "forgery": forgery,
        "identity": identity,
        "source_identity": source,
    }


def test_an_unknown_video_is_its_own_identity():
    facts = video_facts(["FaceSwap/000_003", "mine/1", "FaceSwap/000_003"])
    assert facts.values.tolist() == [["FaceSwap", "000", "003"], ["", "mine/1", ""], ["FaceSwap", "000", "003"]]


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.csv")) or [None], ids=lambda path: path and path.stem)
def test_the_released_samples_are_read_and_written(tmp_path, path):
    """Translated independently here: group from the Intersection cell, video from the name between 0_ and the frame."""
    if path is None:
        pytest.skip("../shared/samples is not in this checkout")
    cells = [line.split(",") for line in path.read_text().splitlines()[1:]]
    rows, problems = read_leniently(path)
    assert problems == [] and len(rows) == len(cells) == 150
    assert rows["group"].tolist() == [GROUPS[int(row[4])] for row in cells]
    assert rows["label"].tolist() == [int(row[5]) for row in cells]
    stems = [re.fullmatch(r".*/0_(.*)_[0-9]+\.png", row[0])[1] for row in cells]
    assert [video.rsplit("/", 1)[-1] for video in rows["video"]] == [
        re.sub("^(Celeb-real|Celeb-synthesis|YouTube-real|youtube|" + "|".join(FORGERIES[1:]) + ")_", "", stem)
        for stem in stems
    ]
    target = tmp_path / _dataset(path) / "test.csv"
    write_manifest(rows, target, groups=GROUPS)
    assert read_manifest(target)[list(COLUMNS)].equals(rows[list(COLUMNS)])


def test_the_cleaned_labels_are_read_and_the_older_ones_are_not(tmp_path):
    path = _file(tmp_path, "celebdf/0_Celeb-real_id5_0001_3.png,0,0,2,6,0,1", "dfdc/0_12_3.png,1,0,3,3,1,7")
    assert read_manifest(path)["group"].tolist() == ["female-black", "male-others"]
    path = _file(tmp_path, "3,a/0_youtube_001_3.png,0", header="intersec_label,Image Path,Target")
    with pytest.raises(ManifestError, match="missing column Ground Truth Gender, Ground Truth Race, Intersection"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("row", "column", "finding"),
    [
        ("a/0_youtube_001_3.png,2,0,1,1,0,1", "Ground Truth Gender", "no known code"),
        ("a/0_youtube_001_3.png,1,0,4,1,0,1", "Ground Truth Race", "no known code"),
        ("a/0_youtube_001_3.png,1,0,1,5,0,1", "Intersection", "contradicts Ground Truth"),
        ("a/0_youtube_001_3.png,1,0,1,1,1,1", "Target", "contradicts the kind of video"),
        ("a/0_FaceSwap_001_002_3.png,1,0,1,1,0,1", "Target", "contradicts the kind of video"),
        ("/a/0_youtube_001_3.png,1,0,1,1,0,1", "Image Path", "absolute"),
        ("a/../../0_youtube_001_3.png,1,0,1,1,0,1", "Image Path", "leave the image root"),
    ],
)
def test_a_bad_cell_is_named(tmp_path, row, column, finding):
    path = _file(tmp_path, "a/0_youtube_002_3.png,1,0,1,1,0,1", row)
    rows, problems = read_leniently(path)
    assert len(rows) == 1
    errors = [problem for problem in problems if problem.severity == "error"]
    assert [(problem.line, problem.column) for problem in errors] == [(3, column)] and finding in errors[0].finding
    with pytest.raises(ManifestError, match=f"line 3, column {column}: "):
        read_manifest(path)


def test_a_video_that_is_not_in_the_name_is_warned_of(tmp_path):
    path = _file(tmp_path, "a/0_youtube_002_3.png,1,0,1,1,0,1", "a/clip_7.png,1,0,1,1,1,1", "a/x.png,1,0,1,1,1,1")
    with pytest.warns(UserWarning, match=r"line 3, column Image Path: 'a/clip_7.png'. .*\(2 such rows\)"):
        rows = read_manifest(path)
    assert rows["video"].tolist() == ["youtube/002", "a/clip", "a/x"]
    assert rows["identity"].tolist() == ["002", "a/clip", "a/x"] and rows["frame"].tolist() == [3, 7, 0]
    assert rows["forgery"].tolist() == ["real", "fake", "fake"]


@pytest.mark.parametrize(
    ("name", "target", "specific", "forgery"),
    [
        ("clip_1", 1, "3", "FaceSwap"),
        ("clip_1", 1, "neuraltextures", "NeuralTextures"),
        ("clip_1", 1, "", "fake"),
        ("clip_1", 1, "0", "fake"),
        ("clip_1", 0, "0", "real"),
        ("clip_1", 0, "3", "real"),
        ("0_Deepfakes_001_002_3", 1, "1", "Deepfakes"),
        ("0_Deepfakes_001_002_3", 1, "2", "Deepfakes"),
        ("0_id1", 1, "5", "FaceShifter"),
    ],
)
def test_the_forgery_is_in_the_name_or_in_specific(tmp_path, name, target, specific, forgery):
    path = _file(tmp_path, f"a/{name}.png,1,0,1,1,{target},1,{specific}", header=HEADER + ",Specific")
    rows, problems = read_leniently(path)
    assert rows["forgery"].tolist() == [forgery]
    contradicts = [problem.column for problem in problems if "forgery in the image's name" in problem.finding]
    assert contradicts == (["Specific"] if (name[2:4], specific) == ("De", "2") else [])


FILES = {
    "ffpp": [
        "original_sequences/youtube/c23/videos/000.mp4",
        "manipulated_sequences/NeuralTextures/c23/videos/000_003.mp4",
    ],
    "dfd": [
        "original_sequences/actors/c23/videos/01__kitchen_pan.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__kitchen_pan__YVGY8LOK.mp4",
    ],
    "celebdf": ["Celeb-real/id0_0000.mp4", "YouTube-real/00170.mp4", "Celeb-synthesis/id0_id16_0000.mp4"],
}


@pytest.mark.parametrize("layout", FILES)
def test_names_tell_what_the_folders_of_the_corpora_tell(tmp_path, layout):
    for file in FILES[layout]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    videos = find_videos(tmp_path, layout)
    assert len(videos) == len(FILES[layout])
    facts = video_facts(videos["video"])
    assert facts.values.tolist() == videos[facts.columns].values.tolist()


_PERSON = st.integers(0, 999).map(lambda number: f"{number:03d}")


@given(
    forgery=st.sampled_from(FORGERIES[1:]),
    target=_PERSON,
    source=_PERSON,
    frame=st.integers(0, 10**6),
    folder=st.text("abc/._- ", max_size=8),
)
def test_any_ffpp_crop_name_is_taken_apart(forgery, target, source, frame, folder):
    row = from_crop_names([f"{folder}/0_{forgery}_{target}_{source}_{frame}.png"]).iloc[0]
    assert (row["video"], row["frame"]) == (f"{forgery}/{target}_{source}", frame)
    assert (row["identity"], row["source_identity"], row["forgery"]) == (target, source, forgery)


@pytest.mark.parametrize("prefix", ["", "Predicted ", "Ground Truth "])
def test_ai_face_lists_have_women_first_and_a_skin_tone(tmp_path, prefix):
    header = ",".join(
        ["Image Path", *(prefix + name for name in ("Gender", "Age", "Skin Tone")), "Intersection,Target"]
    )
    tones = ["light", "medium", "dark"]
    lines = [f"GANs/AttGAN/{code}.png,{code // 3},{code},{2 + 3 * (code % 3)},{code},1" for code in range(6)]
    path = tmp_path / "test.csv"
    path.write_text("\n".join([header, *lines]))
    with pytest.warns(UserWarning, match="no known pattern"):
        rows = read_manifest(path)
    assert rows["group"].tolist() == list(TONE_GROUPS) == list(scheme_of(rows["group"][:1]))
    assert rows["group"].iloc[[0, 5]].tolist() == ["female-light", "male-dark"]
    assert rows["gender"].tolist() == ["female"] * 3 + ["male"] * 3 and rows["skin_tone"].tolist() == tones * 2
    assert rows[f"{prefix}Age"].tolist() == list("012345") and rows[f"{prefix}Skin Tone"].tolist() == list("258258")
    assert "race" not in rows and set(rows["forgery"]) == {"fake"}
    write_manifest(rows, tmp_path / "own/test.csv")
    kept = rows.drop(columns="source")
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "own/test.csv")[kept.columns], kept)


def test_a_gender_against_ai_faces_intersection_is_named(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("Image Path,Gender,Age,Skin Tone,Intersection,Target\na/1.png,1,0,1,2,0\n")
    with pytest.raises(ManifestError, match="column Intersection: '2'. It contradicts Gender"):
        read_manifest(path)
