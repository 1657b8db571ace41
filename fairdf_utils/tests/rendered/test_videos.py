"""The rendered corpus: FF++'s names and lists, the same bytes from a seed, and faults that are real."""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import av
import dlib
import numpy as np
import pandas as pd
import pytest

from fairdf_utils.__main__ import main
from fairdf_utils.data.vocabulary import FORGERIES, GROUPS
from fairdf_utils.rendered import videos
from fairdf_utils.rendered.videos import Clip, Filming, Person, ffpp_clips, generate_videos

SMALL = dict(identities=6, frames=4, size=240, seed=3)
REALS = "ffpp/original_sequences/youtube/c23/videos"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return generate_videos(tmp_path_factory.mktemp("videos"), **SMALL, jobs=1)


@pytest.fixture(scope="module")
def planted(corpus):
    return pd.read_csv(corpus / "planted.csv", keep_default_na=False)


def _digests(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in ("complete.json", "planted.csv")
    }


def _decode(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def _names(folder):
    return {path.name for path in folder.glob("*.mp4")}


def test_ffpp_names_and_official_splits(corpus):
    root = corpus / "ffpp"
    reals = {name for name in _names(corpus / REALS) if name < "900"}
    assert reals == {f"{number:03d}.mp4" for number in range(6)}
    pairs = set()
    for forgery in FORGERIES[1:]:
        names = _names(root / "manipulated_sequences" / forgery / "c23" / "videos")
        assert all(re.fullmatch(r"\d{3}_\d{3}\.mp4", name) for name in names) and names
        pairs |= {tuple(sorted(name[:-4].split("_"))) for name in names}
    splits = [json.loads((root / "splits" / f"{name}.json").read_text()) for name in ("train", "val", "test")]
    listed = [tuple(pair) for split in splits for pair in split]
    assert all(splits) and len(set(listed)) == len(listed) and set(listed) == pairs


def test_sound_videos_have_the_frames_and_size_asked_for(corpus):
    for clip in ffpp_clips(SMALL["identities"]):
        if clip.fault not in ("truncated", "empty"):
            frames = _decode(corpus / clip.path)
            assert [(frame.width, frame.height, frame.rotation) for frame in frames] == [(240, 240, 0)] * 4, clip.path
            np.testing.assert_allclose([frame.time for frame in frames], np.arange(4) / 8)


def test_bytes_depend_on_the_seed_only(corpus, tmp_path):
    assert _digests(generate_videos(tmp_path, **SMALL, jobs=2)) == _digests(corpus)
    clip = ffpp_clips(6)[1]
    one, other = (next(videos.frames(clip, Filming(240, 4, seed))) for seed in (3, 4))
    assert np.abs(one.astype(int) - other).mean() > 10


def test_bytes_do_not_depend_on_what_memory_held(tmp_path):
    """glibc fills new memory with a pattern on demand, which shows an encoder that reads what it never wrote."""
    code = (
        "import sys; from pathlib import Path; from fairdf_utils.rendered.videos import *; "
        "clip = Clip('x.mp4', 'dfd', 'Deepfakes', Person('p', 'male-white'), 't', Person('q', 'male-white')); "
        "film([clip], Filming(240, 4, 3), Path(sys.argv[1]), jobs=1)"
    )
    for pattern in ("0", "85"):
        environment = os.environ | {"MALLOC_PERTURB_": pattern}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / pattern)], env=environment, check=True)
    assert len({path.read_bytes() for path in tmp_path.glob("*/x.mp4")}) == 1


def test_an_interrupted_run_goes_on(corpus, tmp_path, monkeypatch):
    """The second attempt keeps what the first finished; a finished corpus is not touched again."""
    root, whole, films = tmp_path / corpus.name, videos.write_video, []

    def third_fails(path, pictures):
        films.append(path)
        if len(films) == 3:
            raise KeyboardInterrupt
        whole(path, pictures)

    monkeypatch.setattr(videos, "write_video", third_fails)
    with pytest.raises(KeyboardInterrupt):
        generate_videos(tmp_path, **SMALL, jobs=1)
    assert not (root / "complete.json").exists() and len(list(root.rglob("*.mp4"))) == 2
    assert generate_videos(tmp_path, **SMALL, jobs=1) == root
    assert len(films) == 3 + 19 and len(set(films)) == 21  # only the one that failed was begun twice
    generate_videos(tmp_path, **SMALL, jobs=1)
    assert len(films) == 22 and _digests(root) == _digests(corpus)


def test_files_of_another_version_are_replaced(corpus, tmp_path):
    root = tmp_path / corpus.name
    (root / "ffpp").mkdir(parents=True)
    (root / "complete.json").write_text("{}")
    (root / "ffpp" / "stale.mp4").write_bytes(b"")
    assert generate_videos(tmp_path, **SMALL, jobs=1) == root
    assert not (root / "ffpp" / "stale.mp4").exists() and (root / "complete.json").read_text() != "{}"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(identities=7), "identities is 7"),
        (dict(identities=4), "identities is 4"),
        (dict(size=200), "size is 200"),
        (dict(size=401), "size is 401"),
        (dict(frames=1), "frames is 1"),
        (dict(seed=-1), "seed is -1"),
    ],
)
def test_unusable_parameters_are_refused_before_anything_is_written(tmp_path, wrong, said):
    with pytest.raises(ValueError, match=said):
        generate_videos(tmp_path / "out", **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [[], ["--videos"]])
def test_the_command_refuses_a_seed_in_one_line(tmp_path, capsys, kind):
    code = main(["synthetic", *kind, "--seed", "-1", "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert code != 0 and not (tmp_path / "out").exists()
    assert (said.out + said.err).strip() == "error: seed is -1; use 0 or more."


def test_the_command_prints_where_the_corpus_is(corpus, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(videos, "generate_videos", lambda *out, **options: asked.append((out, options)) or corpus)
    assert main(["synthetic", "--videos", "--seed", "5", "--out", "here"]) == 0
    assert asked == [(("here",), {"seed": 5})]
    assert str(corpus) in capsys.readouterr().out


# What is wrong on purpose.


def test_every_planted_file_is_there_and_listed_once(corpus, planted):
    assert list(planted.columns) == ["file", "video", "flaw", "expected"]
    assert all((corpus / file).exists() for file in planted["file"])
    assert (planted["expected"] != "").all() and not planted.duplicated(["file", "video", "flaw"]).any()
    assert set(videos.FAULTS) - {"dark"} <= set(planted["flaw"])  # of the six nobody is black
    assert sum(clip.fault == "dark" for clip in ffpp_clips(16)) == 6


def test_a_truncated_video_gives_some_frames_then_an_error_an_empty_one_nothing(corpus):
    decoded = []
    with pytest.raises(av.error.FFmpegError), av.open(str(corpus / REALS / "900.mp4")) as container:
        decoded.extend(frame.pts for frame in container.decode(video=0))
    with pytest.raises(av.error.InvalidDataError):
        av.open(str(corpus / REALS / "901.mp4"))
    assert (corpus / REALS / "901.mp4").stat().st_size == 0


def test_annotations_give_groups_and_labels_of_every_frame(corpus):
    table = pd.read_csv(corpus / "annotations" / "A-FF++.csv", index_col=0)
    table["video"] = table["path"].str.split("/").str[-2]
    clips = [clip for clip in ffpp_clips(6) if clip.fault not in ("empty", "no face")]
    assert len(clips) > 10
    for clip in clips:
        folder, stem = clip.video.split("/")
        rows = table[(table["video"] == stem) & table["path"].str.contains(f"/{folder}/")]
        assert [path.rsplit("/", 1)[1] for path in rows["path"]] == [f"frame{number}.png" for number in range(4)]
        gender, race = clip.person.group.split("-")
        assert (rows["label"] == (clip.forgery != "real")).all()
        assert (rows["male"] == (1 if gender == "male" else -1)).all()
        assert all((rows[one] == (1 if one == race else -1)).all() for one in ("asian", "white", "black"))


# What is seen.


def test_the_detector_finds_the_great_majority_of_faces():
    """One frame of a real video and of a fake in every group, at the default size."""
    detector, found = dlib.get_frontal_face_detector(), []
    for number, group in enumerate(GROUPS):
        for forgery in ("real", FORGERIES[1 + number % 5]):
            person, source = Person(f"seen {group}", group), Person(f"source {group}", group)
            clip = Clip("x.mp4", "ffpp", forgery, person, f"seen {group}", None if forgery == "real" else source)
            boxes = detector(next(videos.frames(clip, Filming())), 0)
            found.append(len(boxes))
            assert all(70 <= box.width() <= 110 for box in boxes)
    assert found.count(1) >= 14


@pytest.fixture(scope="module")
def clip():
    return Clip("x.mp4", "ffpp", "real", Person("target", "female-black"), "take")


def test_a_fake_differs_from_its_real_in_the_face_only(clip):
    fake = replace(clip, forgery="FaceSwap", source=Person("source", "female-black"))
    one, two = (np.stack(list(videos.frames(which, Filming(240, 4)))).astype(int) for which in (clip, fake))
    changed = np.abs(one - two).max(axis=-1) > 20
    assert 0.01 < changed.mean() < 0.2  # of a frame; the face is near 0.1
    assert not changed[:, :, :40].any() and not changed[:, :, -40:].any() and not changed[:, -20:].any()


def test_the_person_moves_and_the_room_does_not(clip):
    first, *_, last = (frame.astype(int) for frame in videos.frames(clip, Filming(240, 12)))
    difference = np.abs(first - last).mean(axis=-1)
    assert difference.max() > 60 and np.median(difference) < 6  # of 255; the room shows noise only


def test_nobody_is_seen_where_no_face_is_planted(clip):
    for frame in videos.frames(replace(clip, fault="no face"), Filming(240, 4)):
        assert frame.mean(axis=(0, 1)).std() < 25 and frame.std(axis=(0, 1)).max() < 40  # a wall, grey
        assert not dlib.get_frontal_face_detector()(frame, 0)


def test_a_dark_take_is_darker_and_gets_darker(clip):
    levels = np.array(
        [
            [frame.mean() for frame in videos.frames(replace(clip, fault=fault), Filming(240, 12))]
            for fault in ("", "dark")
        ]
    )
    assert (levels[1] < levels[0]).all()
    assert levels[1][-1] < 0.6 * levels[1][0] and levels[0][-1] > 0.9 * levels[0][0]
