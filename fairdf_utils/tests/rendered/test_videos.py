"""The rendered corpora: layouts as their owners name them, the same bytes from a seed, and flaws that are real."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace

import av
import dlib
import numpy as np
import pandas as pd
import pytest

from fairdf_utils.data.vocabulary import DATASETS, FORGERIES, GROUPS
from fairdf_utils.rendered import clips as rendered_clips
from fairdf_utils.rendered import planted_flaws
from fairdf_utils.rendered import videos as video_corpus
from fairdf_utils.rendered.clips import Clip, Filming, Person
from fairdf_utils.rendered.videos import _write_celebdf_list, corpus_clips, generate_videos

SMALL = dict(identities=6, seconds=0.5, width=320, seed=3)  # four frames a video
FFPP_REALS = "ffpp/original_sequences/youtube/c23/videos"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return generate_videos(tmp_path_factory.mktemp("videos"), **SMALL, jobs=1)


@pytest.fixture(scope="module")
def planted(corpus):
    return pd.read_csv(corpus / "planted.csv", keep_default_na=False)


def _digests(root):
    """SHA-256 of every regular file by its path; links and what tells the parameters are left out."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.name not in ("complete.json", "planted.csv")
    }


def _decode(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def _names(folder):
    return {path.name for path in folder.glob("*.mp4")}


def test_ffpp_names_and_official_splits(corpus):
    root = corpus / "ffpp"
    reals = {name for name in _names(corpus / FFPP_REALS) if name < "900"}
    assert reals == {f"{number:03d}.mp4" for number in range(6)}
    pairs = set()
    for forgery in FORGERIES[1:]:
        names = _names(root / "manipulated_sequences" / forgery / "c23" / "videos")
        assert all(re.fullmatch(r"\d{3}_\d{3}\.mp4", name) for name in names) and names
        pairs |= {tuple(sorted(name[:-4].split("_"))) for name in names}
    splits = [json.loads((root / "splits" / f"{name}.json").read_text()) for name in ("train", "val", "test")]
    listed = [tuple(pair) for split in splits for pair in split]
    assert all(splits) and len(set(listed)) == len(listed) and set(listed) == pairs


def test_dfd_names(corpus):
    originals = _names(corpus / "dfd/original_sequences/actors/c23/videos")
    fakes = _names(corpus / "dfd/manipulated_sequences/DeepFakeDetection/c23/videos")
    takes = {re.fullmatch(r"(\d\d)__(\w+)\.mp4", name).groups() for name in originals}
    parsed = [re.fullmatch(r"(\d\d)_(\d\d)__(\w+)__([A-Z0-9]{8})\.mp4", name).groups() for name in fakes]
    assert {(target, scene) for target, _, scene, _ in parsed} == takes and len(takes) == 8
    assert all(target != source for target, source, _, _ in parsed)


def test_celebdf_names_and_test_list(corpus, planted):
    root = corpus / "celebdf"
    reals, strangers = _names(root / "Celeb-real"), _names(root / "YouTube-real")
    assert all(re.fullmatch(r"\d{5}\.mp4", name) for name in strangers) and strangers
    links = {number: {number} for number in range(4)}
    for name in _names(root / "Celeb-synthesis"):
        target, source, turn = re.fullmatch(r"id(\d)_id(\d)_(\d{4})\.mp4", name).groups()
        assert f"id{target}_{turn}.mp4" in reals
        joined = links[int(target)] | links[int(source)]
        links.update(dict.fromkeys(joined, joined))
    assert links[0] == {0, 1, 2, 3}  # one component: no split by identity keeps every fake
    lines = [line.split(" ") for line in (root / "List_of_testing_videos.txt").read_text().splitlines()]
    assert all((kind == "0") == path.startswith("Celeb-synthesis/") for kind, path in lines)
    missing = [path for _, path in lines if not (root / path).exists()]
    assert [f"{video}.mp4" for video in planted[planted["flaw"] == "listed video missing"]["video"]] == missing


@pytest.mark.parametrize("identities", [24, 48])
def test_the_test_list_of_celebdf_leaves_swaps_of_others(tmp_path, identities):
    """So that training has fakes: some swap shows nobody who is tested."""
    clips = corpus_clips("celebdf", identities)
    _write_celebdf_list(tmp_path, clips, seed=0)
    lines = (tmp_path / "List_of_testing_videos.txt").read_text().splitlines()
    listed = {line[2:].removesuffix(".mp4") for line in lines}
    tested = [clip for clip in clips if clip.video in listed]
    assert {"Celeb-real", "YouTube-real", "Celeb-synthesis"} == {clip.video.split("/")[0] for clip in tested}
    persons = {clip.person.name for clip in tested} | {clip.source.name for clip in tested if clip.source}
    others = [clip for clip in clips if clip.source and not {clip.person.name, clip.source.name} & persons]
    assert len(others) >= identities // 8 and len({clip.person.name for clip in others}) >= 3


def test_dfdc_lists_name_every_video(corpus):
    for part in ("dfdc_train_part_0", "dfdc_train_part_1"):
        entries = json.loads((corpus / "dfdc" / part / "metadata.json").read_text(encoding="utf-8"))
        assert set(entries) == _names(corpus / "dfdc" / part)
        fakes = [entry for entry in entries.values() if entry["label"] == "FAKE"]
        assert fakes and all(entries[entry["original"]]["label"] == "REAL" for entry in fakes)
    labels = pd.read_csv(corpus / "dfdc/test/labels.csv")
    assert set(labels["filename"]) == _names(corpus / "dfdc/test") and set(labels["label"]) == {0, 1}


def test_sound_videos_have_the_frames_and_size_asked_for(corpus):
    for layout in DATASETS:
        for clip in corpus_clips(layout, SMALL["identities"], SMALL["seed"]):
            frames = _decode(corpus / clip.path)
            assert [(frame.width, frame.height, frame.rotation) for frame in frames] == [(320, 180, 0)] * 4, clip.path
            np.testing.assert_allclose([frame.time for frame in frames], np.arange(4) / 8)


def test_bytes_depend_on_the_seed_only(corpus, tmp_path):
    again = _digests(generate_videos(tmp_path, ("celebdf",), **SMALL, jobs=2))
    first = {path: digest for path, digest in _digests(corpus).items() if path in again}
    assert len(again) == 22 and again == first
    other = _digests(generate_videos(tmp_path, ("celebdf",), **SMALL | {"seed": 4}, jobs=1))
    videos = {path: digest for path, digest in other.items() if path.endswith(".mp4")}
    assert videos and not set(videos.values()) & set(first.values())


def test_bytes_do_not_depend_on_what_memory_held(tmp_path):
    """glibc fills new memory with a pattern on demand, which shows an encoder that reads what it never wrote."""
    code = (
        "import sys; from fairdf_utils.rendered.clips import *; "
        "clip = Clip('x.mp4', 'dfd', 'Deepfakes', Person('p', 'male-white'), 't', Person('q', 'male-white')); "
        "make(clip, Filming(width=320, seconds=0.5, seed=3), sys.argv[1])"
    )
    for pattern in ("0", "85"):
        environment = os.environ | {"MALLOC_PERTURB_": pattern}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / pattern)], env=environment, check=True)
    assert len({path.read_bytes() for path in tmp_path.glob("*/x.mp4")}) == 1


def test_an_interrupted_run_goes_on(corpus, tmp_path, monkeypatch):
    """The second attempt keeps what the first finished; a finished corpus is not touched again."""
    root = tmp_path / corpus.name.replace("ffpp-dfdc-celebdf-dfd", "dfd")
    whole, films = rendered_clips.write_video, []

    def third_fails(path, *rest, **options):
        films.append(path)
        if len(films) == 3:
            raise KeyboardInterrupt
        whole(path, *rest, **options)

    monkeypatch.setattr(rendered_clips, "write_video", third_fails)
    with pytest.raises(KeyboardInterrupt):
        generate_videos(tmp_path, ("dfd",), **SMALL, jobs=1)
    assert not (root / "complete.json").exists() and len(list(root.rglob("*.mp4"))) == 2
    assert generate_videos(tmp_path, ("dfd",), **SMALL, jobs=1) == root
    assert len(films) == 3 + 14 and len(set(films)) == 16  # only the one that failed was begun twice
    generate_videos(tmp_path, ("dfd",), **SMALL, jobs=1)
    assert len(films) == 17
    videos = {path: digest for path, digest in _digests(root).items() if path.endswith(".mp4")}
    assert len(videos) == 16 and videos.items() <= _digests(corpus).items()


def test_files_of_another_version_are_replaced(corpus, tmp_path):
    root = tmp_path / corpus.name.replace("ffpp-dfdc-celebdf-dfd", "dfd")
    (root / "dfd").mkdir(parents=True)
    (root / "complete.json").write_text("{}")
    (root / "dfd" / "stale.mp4").write_bytes(b"")
    assert generate_videos(tmp_path, ("dfd",), **SMALL, jobs=1) == root
    assert not (root / "dfd" / "stale.mp4").exists() and (root / "complete.json").read_text() != "{}"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(layouts=("ffpp", "dfcd")), "dfcd"),
        (dict(layouts=()), "layouts"),
        (dict(identities=7), "identities is 7"),
        (dict(identities=4), "identities is 4"),
        (dict(width=300), "width is 300"),
        (dict(width=401), "width is 401"),
        (dict(seconds=0.1), "seconds is 0.1"),
    ],
)
def test_unusable_parameters_are_refused_before_anything_is_written(tmp_path, wrong, said):
    with pytest.raises(ValueError, match=said):
        generate_videos(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


# The flaws.


def test_every_planted_file_is_there_and_listed_once(corpus, planted):
    assert list(planted.columns) == ["layout", "file", "video", "flaw", "expected"]
    assert all(os.path.lexists(corpus / file) for file in planted["file"])
    assert (planted["expected"] != "").all() and not planted.duplicated(["file", "video", "flaw"]).any()
    assert {flaw.file for flaw in planted_flaws.VIDEOS} <= set(planted["file"])


@pytest.mark.parametrize("number", [900, 902, 904])
def test_truncated_empty_and_text_cannot_be_opened(corpus, number):
    path = corpus / FFPP_REALS / f"{number}.mp4"
    with pytest.raises(av.error.InvalidDataError):
        av.open(str(path))
    assert (path.stat().st_size == 0) == (number == 902)


def test_cut_short_gives_some_frames_then_an_error(corpus):
    with av.open(str(corpus / FFPP_REALS / "901.mp4")) as container:
        assert container.streams.video[0].frames == 4
        decoded = []
        with pytest.raises(av.error.FFmpegError):
            decoded.extend(frame.pts for frame in container.decode(video=0))
    assert 0 < len(decoded) < 4


def test_damaged_opens_but_gives_no_frame(corpus):
    with av.open(str(corpus / FFPP_REALS / "905.mp4")) as container:
        assert container.streams.video[0].frames == 4
        with pytest.raises(av.error.FFmpegError):
            next(container.decode(video=0))


def test_audio_only_has_sound_and_no_picture(corpus):
    with av.open(str(corpus / FFPP_REALS / "903.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["audio"]
        loud = max(np.abs(frame.to_ndarray()).max() for frame in container.decode(audio=0))
    assert loud > 0.1


def test_variable_frame_rate_is_uneven(corpus):
    gaps = np.diff([frame.time for frame in _decode(corpus / FFPP_REALS / "908.mp4")])
    assert len(gaps) == 3 and gaps.min() > 0 and gaps.max() > 1.5 * gaps.min()


def test_odd_size_is_odd(corpus):
    frames = _decode(corpus / FFPP_REALS / "910.mp4")
    assert {(frame.width, frame.height) for frame in frames} == {(319, 179)}


def test_links_lead_in_circles_and_a_folder_has_a_videos_name(corpus):
    with pytest.raises(OSError, match="symbolic links"):
        (corpus / FFPP_REALS / "911.mp4").read_bytes()
    assert (corpus / FFPP_REALS / "912.mp4").is_dir()
    loop = corpus / "dfdc/dfdc_train_part_0/loop"
    assert loop.is_symlink() and loop.resolve() == (corpus / "dfdc").resolve()


def test_non_ascii_name_decodes(corpus):
    (path,) = [path for path in (corpus / "dfdc/dfdc_train_part_0").glob("*.mp4") if not path.name.isascii()]
    assert len(_decode(path)) == 4


def test_escaping_entry_is_added_only_when_asked(corpus, tmp_path):
    metadata = tmp_path / "dfdc_train_part_0" / "metadata.json"
    metadata.parent.mkdir()
    shutil.copy(corpus / "dfdc/dfdc_train_part_0/metadata.json", metadata)
    before = json.loads(metadata.read_text(encoding="utf-8"))
    planted_flaws.plant_escape(tmp_path)
    after = json.loads(metadata.read_text(encoding="utf-8"))
    assert "../x.mp4" not in before and after.items() > before.items() and "../x.mp4" in after


# What is seen.


@pytest.fixture(scope="module")
def detector():
    return dlib.get_frontal_face_detector()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The planted videos of FF++ that show something, at the default width: faces are large enough to be found."""
    filming, root = Filming(seconds=0.5), tmp_path_factory.mktemp("large")
    for flaw in planted_flaws.VIDEOS:
        if flaw.flaw in ("no face", "several faces", "rotation"):
            planted_flaws.make(flaw, filming, root)
    return root / FFPP_REALS


def test_nobody_one_turned_and_two_faces_are_what_a_detector_sees(detector, large):
    def found(frame, turns=0):
        image = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
        return len(detector(image, 0))

    assert [found(frame) for frame in _decode(large / "906.mp4")] == [0] * 4
    assert max(found(frame) for frame in _decode(large / "907.mp4")) == 2
    turned = _decode(large / "909.mp4")
    assert {(frame.rotation, frame.width, frame.height) for frame in turned} == {(90, 270, 480)}
    assert [found(frame, frame.rotation // 90) for frame in turned] == [1] * 4
    assert sum(found(frame) for frame in turned) == 0  # who ignores the metadata finds nobody


def test_the_detector_finds_the_great_majority_of_faces(detector):
    """One frame of a real and of a fake in every group, at the default size."""
    filming, found = Filming(seconds=0.5), []
    for number, group in enumerate(GROUPS):
        for forgery in ("real", FORGERIES[1 + number % 5]):
            person, source = Person(f"seen {group}", group), Person(f"source {group}", group)
            clip = Clip("x.mp4", "ffpp", forgery, person, f"seen {group}", source)
            boxes = detector(next(rendered_clips.frames(clip, filming)), 0)
            found.append(len(boxes))
            assert all(80 <= box.width() <= 130 for box in boxes)
    assert found.count(1) >= 14


def test_a_fake_differs_from_its_real_in_the_face_only():
    filming = Filming(width=320, seconds=0.5)
    real = Clip("x.mp4", "ffpp", "real", Person("target", "female-white"), "take")
    fake = replace(real, forgery="FaceSwap", source=Person("source", "female-white"))
    a, b = (np.stack(list(rendered_clips.frames(clip, filming))).astype(int) for clip in (real, fake))
    changed = np.abs(a - b).max(axis=-1) > 0
    assert 0.02 < changed.mean() < 0.15  # of a frame; the face is near 0.06
    assert not changed[:, :, :40].any() and not changed[:, :, -40:].any() and not changed[:, -20:].any()


def test_the_person_moves_and_the_room_does_not():
    filming = Filming(width=320, seconds=2)
    clip = Clip("x.mp4", "ffpp", "real", Person("mover", "male-asian"), "moving")
    first, *_, last = (frame.astype(int) for frame in rendered_clips.frames(clip, filming))
    difference = np.abs(first - last).mean(axis=-1)
    assert difference.max() > 60 and np.median(difference) < 6  # of 255; the room shows noise only


def test_a_dark_take_is_darker_and_gets_darker():
    filming = Filming(width=320, seconds=2)
    bright = Clip("x.mp4", "ffpp", "real", Person("shade", "female-black"), "shade")
    levels = np.array(
        [[frame.mean() for frame in rendered_clips.frames(replace(bright, dark=dark), filming)] for dark in (0, 1)]
    )
    assert (levels[1] < levels[0]).all()
    assert levels[1][-1] < 0.6 * levels[1][0] and levels[0][-1] > 0.9 * levels[0][0]


# Annotations.


def _annotations(corpus, name):
    table = pd.read_csv(corpus / "annotations" / name, index_col=0)
    return table.set_axis(table.columns.str.lower(), axis="columns")


@pytest.mark.parametrize(
    ("name", "layout"), [("A-FF++.csv", "ffpp"), ("A-DFD.csv", "dfd"), ("A-Celeb-DF.csv", "celebdf")]
)
def test_annotations_give_groups_and_labels_of_every_frame(corpus, planted, name, layout):
    table = _annotations(corpus, name)
    assert table.filter(["male", "asian", "white", "black"]).isin([-1, 0, 1]).all(axis=None)
    table["video"] = table["path"].str.split("/").str[-2]
    spoilt = set(planted[planted["file"].str.endswith(name)]["video"])
    clips = [clip for clip in corpus_clips(layout, SMALL["identities"], SMALL["seed"]) if clip.video not in spoilt]
    assert clips
    for clip in clips:
        folder, stem = clip.video.split("/")
        rows = table[(table["video"] == stem) & table["path"].str.contains(f"/{folder}/")]
        assert [path.rsplit("/", 1)[1] for path in rows["path"]] == [f"frame{number}.png" for number in range(4)]
        gender, race = clip.person.group.split("-")
        assert (rows["label"] == (clip.forgery != "real")).all()
        assert (rows["male"] == (1 if gender == "male" else -1)).all()
        assert all((rows[one] == (1 if one == race else -1)).all() for one in ("asian", "white", "black"))


def test_headers_are_spelled_differently(corpus):
    headers = {path.name: path.read_text().splitlines()[0] for path in (corpus / "annotations").glob("A-*.csv")}
    assert len(headers) == 4 and len(set(headers.values())) == 4
    for header in headers.values():
        assert header.startswith(",")  # the unnamed index
        assert {"path", "label", "male", "young", "asian", "white", "black"} <= set(header.lower().split(","))


def test_planted_annotation_flaws_are_real(corpus, planted):
    table = _annotations(corpus, "A-FF++.csv")
    video = dict(zip(planted["flaw"], planted["video"], strict=True))

    def rows(flaw):
        folder, stem = video[flaw].split("/")
        return table[table["path"].str.contains(f"/{folder}/") & table["path"].str.contains(f"/{stem}/", regex=False)]

    assert rows("frame listed twice")["path"].duplicated().sum() == 1
    flipped = rows("group flips")["male"].value_counts()
    assert len(flipped) == 2 and flipped.iloc[0] > flipped.iloc[1]
    (clip,) = [clip for clip in corpus_clips("ffpp", 6, 3) if clip.video == video["group flips"]]
    assert flipped.index[0] == (1 if clip.person.group.startswith("male") else -1)
    undefined = rows("undefined demographics")[["male", "asian", "white", "black"]]
    assert len(undefined) == 4 and (undefined == 0).all(axis=None)
    assert (rows("label disagreement")["label"] == 0).all() and not video["label disagreement"].startswith("youtube")
    assert rows("crops without annotation").empty
    assert len(rows("annotated video does not exist")) == 4 and not (corpus / FFPP_REALS / "999.mp4").exists()


def test_dfdc_annotations_need_the_mapping(corpus):
    table = _annotations(corpus, "A-DFDC.csv")
    mapping = pd.read_csv(corpus / "annotations" / "DFDC-mapping.csv", dtype=str)
    annotated = set(table["path"].str.split("/").str[-2])
    assert annotated - set(mapping["annotation_id"]) == {"999"} and mapping["annotation_id"].is_unique
    names = {path.name for path in (corpus / "dfdc").glob("*/*.mp4")}
    assert set(mapping["file_name"]) == names


def test_command_prints_where_the_corpus_is(corpus, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(video_corpus, "generate_videos", lambda *out, **options: asked.append((out, options)) or corpus)
    assert video_corpus.main_videos(Namespace(out="videos", seed=5)) == 0
    assert asked == [(("videos",), {"seed": 5})]
    assert str(corpus) in capsys.readouterr().out
