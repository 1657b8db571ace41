"""Detection and alignment on the one real face; extraction that stops for nothing and starts again where it was."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.transform import SimilarityTransform

from fairdf_utils.__main__ import main
from fairdf_utils.corpora import extraction
from fairdf_utils.corpora.extraction import COUNTS, LEDGER, append_row, read_ledger, write_ledger
from fairdf_utils.corpora.faces import FoundFace, align, canonical, find, similarity
from fairdf_utils.corpora.layouts import CorpusError
from fairdf_utils.corpora.videos import read_frames
from fairdf_utils.files import locked
from fairdf_utils.rendered import drawing, people
from fairdf_utils.tests.corpora.tiny_videos import (
    astronaut_clip,
    astronaut_frame,
    cut,
    numbered,
    write_sound,
    write_video,
)

LATIN_1 = os.fsdecode(b"caf\xe9")  # a file name that is no UTF-8
SIZE, MARGIN = 256, 1.3
CANONICAL_EYES = SIZE * ((np.array([(0.3427, 0.4608), (0.6573, 0.4608)]) + 0.15) / MARGIN) - 0.5  # left, right


def in_crop(points, face, size=SIZE, margin=MARGIN):
    """Where points of the frame, (N, 2), lie in the face's crop, by scikit-image's estimate of the transform."""
    return SimilarityTransform.from_estimate(face.landmarks, canonical(size, margin))(points)


@pytest.fixture(scope="module")
def clip():
    return astronaut_clip(8)


# The real face


def test_the_astronaut_lies_in_every_crop_as_the_canonical_face(clip, tmp_path):
    """Through a video: each frame has one face, and its eyes land within 4 of 256 px of where they belong."""
    images, eyes = clip
    path = write_video(tmp_path / "astronaut.mp4", images)
    got = list(read_frames(path, 8))
    assert len(got) == 8
    for number, image in got:
        largest = find(image)[0]
        assert largest.score > 0
        assert np.linalg.norm(in_crop(eyes[number], largest) - CANONICAL_EYES, axis=1).max() < 4
        left, top, right, bottom = largest.box
        assert (eyes[number] > (left, top)).all() and (eyes[number] < (right, bottom)).all()


def test_the_astronaut_is_upright_after_rotation_metadata(clip, tmp_path):
    images, eyes = clip
    stored = [np.ascontiguousarray(np.rot90(image, -1)) for image in images]
    (number, image), *_ = read_frames(write_video(tmp_path / "turned.mp4", stored, rotation=90), 1)
    (face, *_) = find(image)
    assert np.linalg.norm(in_crop(eyes[number], face) - CANONICAL_EYES, axis=1).max() < 4
    assert not find(stored[number])


def test_the_crop_looks_like_the_face_that_was_turned_and_scaled(clip):
    """Crops of frames that show the face at other sizes and angles are alike, and unlike their mirror image."""
    chips = [align(image, find(image)[0]).astype(float)[64:224, 48:208] for image in clip[0]]
    for chip in chips[1:]:
        assert np.corrcoef(chip.ravel(), chips[0].ravel())[0, 1] > 0.97
        assert np.corrcoef(chip[:, ::-1].ravel(), chips[0].ravel())[0, 1] < 0.9


@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
def test_boxes_and_landmarks_do_not_depend_on_the_copy_that_is_searched(scale):
    """A frame of 320 px is enlarged, one of 2560 px is shrunk; the face takes the same share of both."""
    image, eyes = astronaut_frame(round(360 * scale), round(640 * scale), 1.5 * scale, 320 * scale, 180 * scale)
    (face, *_) = find(image)
    right, left = face.landmarks[:4].reshape(2, 2, 2).mean(1)
    apart = np.linalg.norm(eyes[1] - eyes[0])
    assert np.linalg.norm([left, right] - eyes, axis=1).max() < 0.06 * apart


def test_a_small_face_is_found_at_full_size_and_the_largest_comes_first():
    small, eyes = astronaut_frame(720, 1280, 1.1, 320, 360)
    (face, *_) = find(small)  # of 97 px, which is 48 px in the first copy
    assert abs(face.landmarks[:4].mean(0) - eyes.mean(0)).max() < 5
    both = small.copy()
    both[:, 640:] = astronaut_frame(720, 1280, 2.6, 960, 360)[0][:, 640:]
    first, *_ = find(both)
    assert first.landmarks[:, 0].min() > 640
    widths = [face.box[2] - face.box[0] for face in find(both)]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("scale", [0.4, 0.5, 0.75])
def test_small_heads_are_looked_for_in_an_enlarged_copy(scale):
    """Some 40 to 75 px of a face in a frame that is no larger than the first copy."""
    image, eyes = astronaut_frame(360, 640, scale, 320, 180)
    (face,) = find(image)
    assert face.box[0] < eyes[:, 0].min() and eyes[:, 0].max() < face.box[2]


def test_every_face_of_a_group_is_found():
    """One large face, which the first copy shows, and small ones that only a finer copy does."""
    image = np.full((1000, 2000, 3), 120, np.uint8)
    image[100:900, 50:750], _ = astronaut_frame(800, 700, 5, 350, 400)
    places = [(250 + 400 * (i % 2), 900 + 200 * i) for i in range(5)]
    for top, left in places:
        image[top : top + 200, left : left + 180], _ = astronaut_frame(200, 180, 1.2, 90, 100)
    assert len(find(image)) == 1, "videos need the largest face only"
    first, *others = find(image, everywhere=True)
    assert first.box[2] - first.box[0] > 300 and len(others) == 5
    middles = {(round(face.box[1] + face.box[3]) // 2, (face.box[0] + face.box[2]) // 2) for face in others}
    for top, left in places:
        assert any(top < y < top + 200 and left < x < left + 180 for y, x in middles)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (2000, 2), (40, 40)])
def test_no_face_in_what_is_hardly_an_image(shape):
    assert find(np.full((*shape, 3), 128, np.uint8)) == []


def test_a_rendered_face_is_found():
    rng = np.random.default_rng(3)
    face, scene = people.draw_face(rng, "female", "asian"), people.draw_scene(rng, rng)
    painted = drawing.paint(face, scene, 300, drawing.skin_grain(rng, 300))
    (found, *_) = find((255 * painted.transpose(1, 2, 0)).astype(np.uint8))
    eyes = found.landmarks[:4].mean(0) / 300  # between the eyes, in the rendered crop's sides
    assert np.abs(eyes - (0.5, 0.47)).max() < 0.08


# The geometry


@given(
    st.floats(0.2, 30), st.floats(-180, 180), st.floats(-500, 500), st.floats(-500, 500), st.integers(0, 2**31)
)  # fmt: skip
def test_the_similarity_is_scikit_images(scale, degrees, x, y, seed):
    """Of points that do not fit exactly, too."""
    source = canonical(SIZE, MARGIN)
    target = SimilarityTransform(scale=scale, rotation=np.radians(degrees), translation=(x, y))(source)
    target = target + np.random.default_rng(seed).normal(0, scale, target.shape)
    expected = SimilarityTransform.from_estimate(source, target).params
    a, b = similarity(source, target)
    ours = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag], [0, 0, 1]])
    assert np.abs(ours - expected).max() < 1e-6 * max(1, np.abs(expected).max())


def test_the_canonical_face_and_its_margin():
    face = canonical(112, 1.0)
    assert np.allclose(face[[0, 1]].mean(0) + 0.5, (0.6573 * 112, 0.4608 * 112), atol=0.9)  # ArcFace: (73.5, 51.5)
    eyes = face[:4].reshape(2, 2, 2).mean(1)
    assert np.allclose(eyes[0] - eyes[1], (0.3146 * 112, 0), atol=0.05)
    wide = canonical(200, 2.0)
    assert np.allclose((wide + 0.5) / 100 - 0.5, (face + 0.5) / 112)  # half a side more on each side


@settings(max_examples=30, deadline=None)
@given(st.floats(0.4, 6), st.floats(-40, 40), st.sampled_from([64, 256]))
def test_landmarks_land_on_the_canonical_face(scale, degrees, size):
    """Blobs drawn at the landmarks have their centres there in the crop, to a tenth of a pixel or so."""
    turn = SimilarityTransform(scale=scale, rotation=np.radians(degrees))
    middle = SimilarityTransform(translation=np.array([300, 300]) - turn(np.full((1, 2), size / 2))[0])
    points = middle(turn(canonical(size, MARGIN)))
    if points.min() < 40 or points.max() > 560:
        return
    y, x = np.mgrid[:600, :600]
    spread = max(1.5, 1.5 * scale)
    for point, place in zip(points, canonical(size, MARGIN), strict=True):
        blob = 250 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * spread**2))
        image = np.repeat(blob.astype(np.uint8)[..., None], 3, 2)
        crop = align(image, FoundFace((0, 0, 1, 1), points, 1.0), size)[..., 0].astype(float)
        rows, columns = np.mgrid[:size, :size]
        centre = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum()
        assert np.abs(centre - place).max() < 0.15


def test_shrinking_does_not_alias_and_keeps_edges_sharp():
    points = canonical(64, MARGIN) * 5 + 20
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than a crop's pixel: grey
    assert align(stripes, FoundFace((0, 0, 1, 1), points, 1.0), 64).std() < 3
    edge = np.zeros((400, 400, 3), np.uint8)
    edge[:, 200:] = 255
    row = align(edge, FoundFace((0, 0, 1, 1), points, 1.0), 64)[32, :, 0].astype(int)
    assert ((row > 25) & (row < 230)).sum() <= 2


def test_outside_the_frame_is_black(clip):
    image = clip[0][0]
    face = find(image)[0]
    shifted = FoundFace(face.box, face.landmarks + (0, -10_000), 1.0)
    assert align(image, shifted).max() == 0
    assert align(image, face, 64, 1.0).shape == (64, 64, 3) and align(image, face).dtype == np.uint8


# Extraction


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, clip):
    """A folder of two videos with a face, an image, and every kind of flaw."""
    root = tmp_path_factory.mktemp("corpus") / "mine"
    good = write_video(root / "real/zażółć 你.mp4", clip[0][:4])
    front = write_video(root / "front.mp4", clip[0] * 3, container={"movflags": "faststart"})
    shutil.copy(good, root / "real/other name.mp4")
    cut(front, root / "real/cut.mp4", 0.7)
    cut(good, root / "real/no_contents.mp4", 0.7)
    write_video(root / "real/nobody.mp4", numbered(5))
    (root / "fake").mkdir()
    two = [np.hstack([image[:, 60:420], image[:, 60:420]]) for image in clip[0][:2]]
    write_video(root / "fake/several.mp4", two)
    write_video(root / "fake/odd.mp4", [image[:359, :479] for image in clip[0][:3]], pixels="yuv444p")
    Image.fromarray(clip[0][0]).save(root / "fake/image.png")
    (root / "fake/empty.mp4").touch()
    (root / "fake/words.mp4").write_text("words\n" * 500)
    write_sound(root / "fake/sound.mp4")
    os.symlink("loop.mp4", root / "fake/loop.mp4")
    os.symlink("..", root / "fake/up")
    os.symlink("/etc/hostname", root / "fake/outside.mp4")
    (root / "fake" / f"{LATIN_1}.mp4").write_bytes(good.read_bytes())
    return root


@pytest.fixture(scope="module")
def extracted(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, extraction.extract(corpus, "folder", out, frames=6, jobs=1)


def contents(folder):
    """Bytes of every crop, and the ledger without its seconds."""
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*g") if path.is_file()}
    return files, read_ledger(folder / "ledger.csv").drop(columns="seconds").to_csv()


def test_no_video_stops_the_run(extracted):
    """Each flaw has its reason; what could be decoded of a cut video is kept."""
    out, rows = extracted
    assert list(rows.columns) == list(LEDGER) and rows["video"].is_monotonic_increasing
    assert dict(zip(rows["video"], rows["status"], strict=True))["real/cut"] == "partial"
    reasons = {row.video: row.reason for row in rows.itertuples() if row.status != "ok"}
    assert set(rows.loc[rows["found"] == 0, "status"]) == {"failed"}
    assert reasons == {
        r"fake/caf\xe9": "name not UTF-8",
        "fake/empty": "empty file",
        "fake/loop": "symlink loop",
        "fake/outside": "outside the root",
        "fake/sound": "no video stream",
        "fake/up": "symlink loop",
        "fake/words": "not a video",
        "real/cut": "truncated",
        "real/no_contents": "truncated",
        "real/nobody": "no face",
    }
    counts = rows.set_index("video")[list(COUNTS)]
    assert counts.loc["real/zażółć 你"].tolist()[:4] == [4, 4, 4, 0]
    assert counts.loc["real/nobody"].tolist() == [5, 5, 0, 5, 0]
    assert counts.loc["fake/empty"].tolist() == [6, 0, 0, 0, 0]
    assert counts.loc["fake/image"].tolist()[:4] == [1, 1, 1, 0]
    assert counts.loc["fake/several", "several"] == 2
    cut_short = counts.loc["real/cut"]
    assert cut_short["asked"] == 6 and 0 < cut_short["decoded"] == cut_short["found"] < 6
    assert (counts["decoded"] == counts["found"] + counts["lost"]).all()
    assert sum(len(files) for _, _, files in os.walk(out / "mine/faces")) == counts["found"].sum()


def test_crops(extracted):
    out, rows = extracted
    table = extraction.crops(out, "mine")
    assert table["img_path"].tolist() == sorted(table["img_path"]) and len(table) == rows["found"].sum()
    own = table[table["video"] == "real/zażółć 你"]
    assert own["img_path"].tolist() == [f"mine/faces/real/zażółć 你/{n:06d}.png" for n in range(4)]
    assert own["frame"].tolist() == [0, 1, 2, 3] and set(own["label"]) == {0} and set(own["forgery"]) == {"real"}
    assert table.loc[table["video"] == "fake/several", ["label", "forgery"]].iloc[0].tolist() == [1, "fake"]
    assert set(table["identity"]) == set(table["video"]) and (table["source_identity"] == "").all()
    with Image.open(out / own["img_path"].iloc[0]) as crop:
        assert crop.size == (256, 256) and crop.mode == "RGB"
    with pytest.raises(CorpusError, match="no such ledger"):
        extraction.crops(out, "other")


def test_two_runs_give_the_same_bytes(extracted, corpus, tmp_path):
    """In other processes, too, which finish in any order; and a second call changes nothing."""
    out, _ = extracted
    extraction.extract(corpus, "folder", tmp_path, frames=6, jobs=2)
    assert contents(tmp_path / "mine") == contents(out / "mine")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mine/faces").rglob("*.png")}
    extraction.extract(corpus, "folder", tmp_path, frames=6, jobs=1)
    assert contents(tmp_path / "mine") == contents(out / "mine")
    changed = [path.parent.name for path, at in before.items() if path.stat().st_mtime_ns != at]
    assert set(changed) == {"cut"}  # what could not be read in full is tried again
    names = sorted(path.name for path in (tmp_path / "mine").iterdir())
    assert names == [".lock", "faces", "ledger.csv", "parameters.json"]


def test_a_killed_run_goes_on(clip, tmp_path):
    """SIGKILL while videos are in work: rows and crops that are there are whole, and none is made again."""
    root, out = tmp_path / "root", tmp_path / "out"
    for number in range(12):
        write_video(root / f"real/{number:02}.mp4", clip[0][number % 4 :])
    call = "extract(*sys.argv[1:4], frames=4, jobs=2)"
    command = f"import sys; from fairdf_utils.corpora.extraction import extract; {call}"
    arguments = [sys.executable, "-c", command, str(root), "folder", str(out)]
    run = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    table, deadline = out / "root/ledger.csv", time.monotonic() + 60
    while len(done := read_ledger(table)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    done = read_ledger(table)
    assert run.returncode == -signal.SIGKILL and 3 <= len(done) < 12
    with table.open("a") as file:
        file.write("real/11,real/11.mp4,0,re")  # a line that the kill tore
    for row in done.itertuples():
        assert len(list((out / "root/faces" / row.video).iterdir())) == row.found == row.decoded
    rows = extraction.extract(root, "folder", out, frames=4, jobs=1)
    assert len(rows) == 12 and (rows["status"] == "ok").all()
    kept = rows[rows["video"].isin(done["video"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, done)  # their seconds, too
    extraction.extract(root, "folder", tmp_path / "whole", frames=4, jobs=1)
    assert contents(out / "root") == contents(tmp_path / "whole/root")


def test_other_parameters_are_refused(extracted, corpus):
    out, _ = extracted
    before = contents(out / "mine")
    for name, value in {"frames": 7, "size": 224, "margin": 1.5, "image_format": "jpg", "compression": "raw"}.items():
        with pytest.raises(CorpusError, match=rf"begun with {name} .*, now {value!r}\. .* choose another"):
            extraction.extract(corpus, "folder", out, jobs=1, **{"frames": 6, name: value})
    assert contents(out / "mine") == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "at least 1 frame"),
        ({"size": 8}, "16 px"),
        ({"margin": 9}, "margin from 0.5"),
        ({"image_format": "gif"}, "Unknown image format 'gif'. Use one of png, jpg"),
        ({"dataset": "../x"}, "one folder"),
        ({"jobs": 0}, "jobs is 0. Use the number of processes, or -1"),
    ],
)
def test_unusable_parameters(corpus, tmp_path, options, message):
    with pytest.raises(CorpusError, match=message):
        extraction.extract(corpus, "folder", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_two_runs_at_once_are_refused(corpus, tmp_path):
    with locked(tmp_path / "mine/.lock"), pytest.raises(CorpusError, match="another process"):
        extraction.extract(corpus, "folder", tmp_path, jobs=1)


def test_a_full_disk_stops_the_run_and_loses_nothing(clip, tmp_path, monkeypatch):
    root, out = tmp_path / "root", tmp_path / "out"
    for name in ("a", "b"):
        write_video(root / f"real/{name}.mp4", clip[0][:3])
    save, saved = Image.Image.save, []

    def fill_up(image, *args, **kwargs):
        saved.append(args)
        if len(saved) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(image, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", fill_up)
        with pytest.raises(OSError, match="no room left"):
            extraction.extract(root, "folder", out, jobs=1)
    assert read_ledger(out / "root/ledger.csv")["video"].tolist() == ["real/a"]
    assert not (out / "root/faces/real/b").exists()
    assert extraction.extract(root, "folder", out, jobs=1)["found"].tolist() == [3, 3]


def test_a_video_got_anew_is_tried_again(clip, tmp_path):
    root, out = tmp_path / "root", tmp_path / "out"
    good = write_video(root / "good.mp4", clip[0][:3])
    (root / "real").mkdir()
    cut(good, root / "real/a.mp4")
    assert extraction.extract(root, "folder", out, jobs=1)["reason"].tolist() == ["truncated"]
    shutil.copy(good, root / "real/a.mp4")
    assert extraction.extract(root, "folder", out, jobs=1)["found"].tolist() == [3]


def test_another_corpus_is_refused_and_a_grown_one_goes_on(clip, tmp_path, capsys):
    """Rows of two corpora never mix, and no crop is made twice."""
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "out"
    write_video(first / "real/same.mp4", clip[0][:4])
    write_video(first / "real/gone.mp4", clip[0][:4])
    write_video(second / "real/same.mp4", clip[0][4:7])
    call = {"layout": "folder", "out": out, "dataset": "d", "jobs": 1}
    extraction.extract(first, **call)
    before = contents(out / "d")
    with pytest.raises(CorpusError, match="1 video that .*second does not hold, such as real/gone. Choose another"):
        extraction.extract(second, **call)
    assert contents(out / "d") == before
    write_video(second / "real/gone.mp4", clip[0][:2])
    write_video(second / "real/new.mp4", clip[0][:2])
    rows = extraction.extract(second, **call)
    assert rows[["video", "found"]].values.tolist() == [["real/gone", 2], ["real/new", 2], ["real/same", 3]]
    assert "0 videos reused" in capsys.readouterr().out
    write_video(second / "real/newer.mp4", clip[0][:2])
    assert len(extraction.extract(second, **call)) == 4 and "3 videos reused" in capsys.readouterr().out


def test_a_file_that_changed_is_extracted_again(clip, tmp_path):
    video = write_video(tmp_path / "root/real/a.mp4", clip[0][:4])
    call = {"root": tmp_path / "root", "layout": "folder", "out": tmp_path / "out", "jobs": 1}
    extraction.extract(**call)
    crop = tmp_path / "out/root/faces/real/a/000000.png"
    crop.write_bytes(b"")  # to see whether it is made again
    extraction.extract(**call)
    assert crop.read_bytes() == b""
    os.utime(video, ns=(1, 1))
    extraction.extract(**call)
    assert crop.read_bytes()


def test_out_that_cannot_be_a_folder_is_refused_before_the_work(clip, tmp_path, monkeypatch):
    write_video(tmp_path / "root/real/a.mp4", clip[0][:2])
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(extraction, "_extract_video", lambda *_: pytest.fail("work began"))
    for out in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(CorpusError, match="folder cannot be made .* Choose another"):
            extraction.extract(tmp_path / "root", "folder", out, jobs=1)
    assert (tmp_path / "file").read_text() == "mine"


def test_whatever_else_goes_wrong_with_a_video_is_recorded(clip, tmp_path, monkeypatch):
    write_video(tmp_path / "root/real/a.mp4", clip[0][:3])
    monkeypatch.setattr(extraction, "find", lambda image: [][0])
    rows = extraction.extract(tmp_path / "root", "folder", tmp_path / "out", jobs=1)
    assert rows["reason"].tolist() == ["IndexError: list index out of range"]


def test_the_command_without_annotations_makes_faces_and_says_what_failed(clip, tmp_path, capsys):
    write_video(tmp_path / "fine/real/a.mp4", clip[0][:3])
    command = ["prepare", str(tmp_path / "fine"), "--layout", "folder", "--out", str(tmp_path / "out"), "--jobs", "1"]
    command += ["--size", "64", "--margin", "1.2", "--format", "jpg"]
    assert main([*command, "--dataset", "d", "--frames", "3"]) == 0
    text = capsys.readouterr().out
    assert "1 video, 0 partial, 0 failed; 3 frames: 3 with a face, 0 without" in text and "no manifests" in text
    with Image.open(tmp_path / "out/d/faces/real/a/000000.jpg") as crop:
        assert crop.size == (64, 64)
    (tmp_path / "fine/real/b.mp4").touch()
    assert main([*command, "--dataset", "d", "--frames", "3"]) == 0
    text = capsys.readouterr().out
    assert "2 videos, 0 partial, 1 failed (empty file 1)" in text and "failed: 'real/b.mp4': empty file" in text
    assert "1 video reused" in text
    front = write_video(tmp_path / "front.mp4", clip[0] * 3, container={"movflags": "faststart"})
    cut(front, tmp_path / "fine/real/b.mp4", 0.7)
    assert main([*command, "--frames", "6"]) == 0
    text = capsys.readouterr().out
    assert "2 videos, 1 partial (truncated 1), 0 failed" in text and "partial: 'real/b.mp4': truncated" in text
    assert (tmp_path / "out/folder/ledger.csv").is_file()
    for video in (tmp_path / "fine/real").iterdir():
        video.write_bytes(b"")
    assert main([*command, "--dataset", "empty"]) == 1


def test_the_ledger_keeps_any_name_and_its_last_row(tmp_path):
    row = dict.fromkeys(LEDGER, "")
    row |= {"label": 1, "seconds": 0.125, **dict.fromkeys(COUNTS, 3)}
    names = ["b", 'a "quoted", name', "line\nbreak", "zażółć 你", "071"]
    for reason in ("first", "last"):
        for name in names:
            append_row(tmp_path / "ledger.csv", {**row, "video": name, "identity": "071", "reason": reason})
    rows = read_ledger(tmp_path / "ledger.csv")
    assert (
        rows["video"].tolist() == sorted(names) and set(rows["reason"]) == {"last"} and set(rows["identity"]) == {"071"}
    )
    write_ledger(tmp_path / "ledger.csv", rows)
    pd.testing.assert_frame_equal(read_ledger(tmp_path / "ledger.csv"), rows)
