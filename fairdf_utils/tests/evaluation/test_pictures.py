"""One's own pictures and videos: every face scored, every failure told, nothing finished lost."""

import json
import os
from argparse import Namespace
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fairdf_utils.evaluation import pictures, scoring
from fairdf_utils.evaluation.pictures import (
    COLOUR,
    TEXT,
    PictureError,
    annotate,
    captioned,
    checkpoint_of,
    files_of,
    main_predict,
)
from fairdf_utils.model import stored
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.model.detectors import build
from fairdf_utils.model.stored import DetectorError, load_detector, save_detector

CPU = torch.device("cpu")
SIZE = 16  # pixels, of the crops that the small detector wants
BOXES = ((30, 10, 60, 40), (5, 5, 25, 25), (70, 50, 90, 70))  # left, top, right, bottom; largest first
Face = namedtuple("Face", "box landmarks score")


@pytest.fixture
def run(tmp_path):
    """A run folder with a small untrained detector and the record of its training."""
    config = TrainingConfig(method="ori", backbone="tiny", weights="", image_size=SIZE, width=16)
    save_detector(tmp_path / "run/03_sam_training/fairdf-s0/best.safetensors", build(config), config, 1)
    entry = {"read": {"../data_manifests/synthetic/ffpp": {}}, "wrote": {}}
    (tmp_path / "run/manifest.json").write_text(json.dumps({"03_sam_training/fairdf-s0": entry}))
    return tmp_path / "run"


@pytest.fixture
def finder(monkeypatch):
    """A face finder that sees as many faces as the first pixel says, without the cost of a real one."""

    def find(image, everywhere):
        return [Face(box, None, 1.5 - i) for i, box in enumerate(BOXES[: image[0, 0, 0]])]

    def align(image, face, size, margin=1.3):
        return np.asarray(Image.fromarray(image).crop(face.box).resize((size, size)))

    monkeypatch.setattr(pictures.faces, "find", find)
    monkeypatch.setattr(pictures.faces, "align", align)


def picture(faces, seed=0, size=(80, 100)):
    """uint8 (H, W, 3) noise in which the finder sees that many faces."""
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    image[0, 0, 0] = faces
    return image


def save(folder, name, image):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / name)
    return folder / name


def scored(run, path, **changes):
    """Exit code and table of one call."""
    given = {"path": path, "run": run, "detector": "fairdf", "seed": 0, "checkpoint": None, "device": "cpu"}
    given |= {"out": run.parent / "out", "frames": 30, "aligned": False}
    code = main_predict(Namespace(**(given | changes)))
    table = pd.read_csv(run.parent / "out/scores.csv", dtype={"part": object, "reason": object})
    return code, table.fillna({"part": "", "reason": ""})


def expected(run, crops):
    """P(fake) of crops by the detector as it is published."""
    model, _ = load_detector(run / "03_sam_training/fairdf-s0/best.safetensors", CPU)
    logits = scoring.predict(model, np.stack(crops), CPU)
    return 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))


def crop(image, number):
    return np.asarray(Image.fromarray(image).crop(BOXES[number]).resize((SIZE, SIZE)))


# Pictures


def test_every_face_of_a_picture_is_scored(run, finder, tmp_path, capsys):
    image = picture(faces=3)
    code, table = scored(run, save(tmp_path, "three.png", image))
    assert code == 0 and table["part"].tolist() == ["face"] * 3 and table["face"].tolist() == [1, 2, 3]
    assert table["score"].tolist() == pytest.approx(expected(run, [crop(image, i) for i in range(3)]), abs=1e-5)
    assert table[["left", "top", "right", "bottom"]].to_numpy().tolist() == [list(box) for box in BOXES]
    assert table[["above_real", "above_fake"]].isna().all(axis=None), "there is nothing to compare the scores with"
    softmax = 1 / (1 + np.exp(table["logit_real"] - table["logit_fake"]))
    assert np.allclose(softmax, table["score"], atol=1e-6)
    shown = capsys.readouterr().out
    assert shown.count("three.png ") == 3 and "face 2 at 5, 5" in shown
    with Image.open(tmp_path / "out/three.png.scored.png") as drawn:
        assert drawn.width >= 320 and drawn.height > 256, "enlarged, and a caption below"


def test_what_cannot_be_scored_is_told_and_the_others_go_on(run, finder, tmp_path, capsys):
    folder = tmp_path / "mixed"
    save(folder, "a_good.png", picture(1))
    save(folder, "b_none.png", picture(0))
    save(folder, "c_cut.png", picture(1))
    (folder / "c_cut.png").write_bytes((folder / "c_cut.png").read_bytes()[:200])
    (folder / "d_text.jpg").write_text("no picture")
    (folder / "e_text.mp4").write_text("no video")
    (folder / "f_empty.png").touch()
    save(folder / "sub", "g_good.png", picture(2))
    (folder / "notes.txt").write_text("neither")
    code, table = scored(run, folder)
    assert code == 1
    good = table["reason"] == ""
    assert table.loc[good, "file"].tolist() == ["a_good.png", "sub/g_good.png", "sub/g_good.png"]
    reasons = table[~good].set_index("file")["reason"]
    assert reasons.index.tolist() == ["b_none.png", "c_cut.png", "d_text.jpg", "e_text.mp4", "f_empty.png"]
    assert reasons["b_none.png"] == "no face found"
    assert reasons["c_cut.png"] == "cannot be read: truncated"
    assert reasons["d_text.jpg"] == "cannot be read: not a picture of a known kind"
    assert reasons["e_text.mp4"] == "cannot be read: not a video"
    assert reasons["f_empty.png"] == "cannot be read: empty file"
    assert capsys.readouterr().out.count("not scored: ") == 5
    drawn = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.scored.png"))
    assert drawn == ["a_good.png.scored.png", "sub/g_good.png.scored.png"]


def test_a_picture_is_turned_upright(run, finder, tmp_path):
    upright = picture(1)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways: turn clockwise to see it upright
    Image.fromarray(np.rot90(upright)).save(tmp_path / "turned.png", exif=exif)
    _, turned = scored(run, tmp_path / "turned.png")
    _, direct = scored(run, save(tmp_path, "upright.png", upright))
    assert turned["score"].tolist() == direct["score"].tolist()


def test_an_aligned_crop_is_scored_as_it_is(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pictures.faces, "find", lambda *_: pytest.fail("no face is looked for"))
    image = picture(0, size=(SIZE, SIZE))
    code, table = scored(run, save(tmp_path, "crop.png", image), aligned=True)
    assert code == 0 and table["score"].tolist() == pytest.approx(expected(run, [image]), abs=1e-5)
    assert "the crop as it is" in capsys.readouterr().out
    code, table = scored(run, save(tmp_path, "wide.png", picture(0, size=(40, 60))), aligned=True)
    assert code == 1 and table["reason"].tolist() == ["is 60 x 40 px, but a face crop is square; leave --aligned out"]


@pytest.mark.parametrize("size, hint", [((64, 64), True), ((64, 80), False), ((600, 600), False)])
def test_a_small_square_without_a_face_may_be_a_crop(run, finder, tmp_path, size, hint):
    _, table = scored(run, save(tmp_path, "face.png", picture(0, size=size)))
    assert ("--aligned" in table["reason"].iloc[0]) == hint


# Videos


def test_a_video_is_the_mean_of_the_largest_face(run, finder, tmp_path, monkeypatch, capsys):
    faces = [1, 0, 2, 1, 3, 0, 1, 1]
    frames = [picture(number, seed=i) for i, number in enumerate(faces)]
    monkeypatch.setattr(pictures.videos, "read_frames", lambda path, count: ((7 * i, f) for i, f in enumerate(frames)))
    drawn = []
    monkeypatch.setattr(pictures, "captioned", lambda *given: drawn.append(given) or captioned(*given))
    (tmp_path / "clip.mp4").touch()
    code, table = scored(run, tmp_path / "clip.mp4", frames=8)
    by_frame, whole = table[table["part"] == "face"], table[table["part"] == "video"].iloc[0]
    assert code == 0 and len(by_frame) == sum(faces) and table["part"].iloc[-1] == "video"
    assert by_frame["frame"].tolist() == np.repeat(7 * np.arange(8), faces).tolist()
    largest = expected(run, [crop(frame, 0) for frame, number in zip(frames, faces, strict=True) if number])
    assert whole["score"] == pytest.approx(largest.mean(), abs=1e-5)
    assert (whole["frames_read"], whole["frames_scored"]) == (8, 6)
    assert "mean of the largest face in 6 of 8 frames" in capsys.readouterr().out
    ((panels, (caption, *_)),) = drawn
    assert len(panels) == 5, "only some frames are kept to be drawn"
    assert caption.endswith("mean of the largest face in 6 frames; shown: frames 0, 14, 28, 35, 49")


def test_a_video_without_faces_or_frames_is_told(run, finder, tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setattr(pictures.videos, "read_frames", lambda path, count: iter([(0, picture(0)), (5, picture(0))]))
    assert scored(run, tmp_path / "clip.mp4")[1]["reason"].tolist() == ["no face found in 2 frames"]
    monkeypatch.setattr(pictures.videos, "read_frames", lambda path, count: iter([]))
    assert scored(run, tmp_path / "clip.mp4")[1]["reason"].tolist() == ["holds no frame"]


def test_what_is_there_of_a_truncated_video_is_scored(run, finder, tmp_path, monkeypatch, capsys):
    def truncated(path, count):
        yield from ((i, picture(faces, seed=i)) for i, faces in enumerate((1, 0, 1)))
        raise pictures.videos.VideoError("truncated")

    (tmp_path / "clip.mp4").touch()
    monkeypatch.setattr(pictures.videos, "read_frames", truncated)
    code, table = scored(run, tmp_path / "clip.mp4")
    whole = table.iloc[-1]
    largest = expected(run, [crop(picture(1, seed=i), 0) for i in (0, 2)])
    assert code == 1 and whole["score"] == pytest.approx(largest.mean(), abs=1e-5)
    assert whole["reason"] == "cannot be read to its end: truncated"
    assert "in 2 of 3 frames; cannot be read to its end" in capsys.readouterr().out
    monkeypatch.setattr(pictures.faces, "find", lambda image, everywhere: [])
    reason = scored(run, tmp_path / "clip.mp4")[1]["reason"].iloc[0]
    assert reason == "cannot be read to its end: truncated, and no face found in 3 frames"


# The whole command


def test_a_real_face_is_found_and_scored(run, tmp_path):
    astronaut = pytest.importorskip("skimage.data").astronaut()
    code, table = scored(run, save(tmp_path, "astronaut.png", astronaut))
    face = table.iloc[0]
    assert code == 0 and 0 <= face["score"] <= 1
    assert face["left"] < 224 < face["right"] and face["top"] < 120 < face["bottom"], "around her nose"


def test_what_was_scored_before_an_interruption_is_kept(run, finder, tmp_path, monkeypatch, capsys):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "faces", name, picture(1))
    frames = pictures.videos.read_frames

    def interrupted(path, count):
        if path.name == "b.png":
            raise KeyboardInterrupt
        return frames(path, count)

    monkeypatch.setattr(pictures.videos, "read_frames", interrupted)
    code, table = scored(run, tmp_path / "faces")
    assert code == 130 and table["file"].tolist() == ["a.png"]
    assert "1 of 3 files are in it" in capsys.readouterr().out


def test_whatever_a_file_brings_about_is_told_and_the_others_go_on(run, finder, tmp_path, monkeypatch):
    save(tmp_path / "faces", "a.png", picture(2))
    save(tmp_path / "faces", "b.png", picture(1))
    align = pictures.faces.align

    def strange(image, face, *size):
        if face.box == BOXES[1]:
            raise RuntimeError("odd\nlines")
        return align(image, face, *size)

    monkeypatch.setattr(pictures.faces, "align", strange)
    code, table = scored(run, tmp_path / "faces")
    assert code == 1 and table["file"].tolist() == ["a.png", "b.png"]
    assert table["reason"].tolist() == ["RuntimeError: odd", ""]

    def broken(path, count):
        raise RuntimeError("strange")
        yield

    monkeypatch.setattr(pictures.videos, "read_frames", broken)
    assert scored(run, tmp_path / "faces")[1]["reason"].tolist() == ["RuntimeError: strange"] * 2


def test_a_checkpoint_in_the_root_has_nothing_beside_it():
    assert pictures._validation(pictures.Path("/best.safetensors")) == {}
    assert "not recorded" in pictures._origin(pictures.Path("/best.safetensors"))


def test_a_name_that_leaves_no_room_for_more_is_no_reason_to_stop(run, finder, tmp_path, capsys):
    save(tmp_path / "faces", f"{'a' * 245}.png", picture(1))
    save(tmp_path / "faces", "b.png", picture(1))
    code, table = scored(run, tmp_path / "faces")
    assert code == 1 and table["score"].notna().all()
    assert table["reason"].tolist() == ["its annotated picture cannot be written: File name too long", ""]
    assert "and 1 annotated picture\n" in capsys.readouterr().out


def test_names_with_bytes_that_are_no_text(run, finder, tmp_path):
    save(tmp_path / "faces", "a.png", picture(1)).rename(tmp_path / "faces" / os.fsdecode(b"caf\xe9.png"))
    code, table = scored(run, tmp_path / "faces")
    assert code == 0 and table["file"].tolist() == ["caf\\xe9.png"]


def test_skipped_files_are_counted_by_suffix(run, finder, tmp_path, capsys):
    save(tmp_path / "faces", "a.gif", picture(0))
    for name in ("a.txt", "b.TXT", "c.heic", "d", ".hidden"):
        (tmp_path / "faces" / name).touch()
    scored(run, tmp_path / "faces")
    assert "files skipped, by suffix: .txt 2, .heic 1, no suffix 1\n" in capsys.readouterr().out
    (tmp_path / "faces/a.gif").unlink()
    with pytest.raises(PictureError, match="no picture and no video; it has .txt 2, .heic 1, no suffix 1; looked for"):
        scored(run, tmp_path / "faces")


def test_pictures_are_searched_everywhere_and_frames_for_their_largest_face(run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pictures.faces, "find", lambda image, everywhere: asked.append(everywhere) or [])
    scored(run, save(tmp_path, "a.png", picture(0)))
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setattr(pictures.videos, "read_frames", lambda path, count: iter([(0, picture(0))]))
    scored(run, tmp_path / "clip.mp4")
    assert asked == [True, False]


def validated(run, faces, whole):
    """Let chapter 4 have scored validation faces and videos: label and score of each."""
    folder = run / "04_cross_dataset_evaluation/fairdf-s0/validation"
    folder.mkdir(parents=True)
    for name, rows in (("scores", faces), ("video_scores", whole)):
        pd.DataFrame(rows, columns=["label", "score"]).to_parquet(folder / f"{name}.parquet")


def test_a_score_is_placed_among_those_of_validation_faces(run, finder, tmp_path, capsys, monkeypatch):
    validated(run, [(0, 0.0), (0, 0.1), (0, 0.2), (0, 1.0), (1, 0.1), (1, 1.0)], [(0, 0.0), (1, 0.0), (1, 0.99)])
    code, table = scored(run, save(tmp_path, "a.png", picture(1)))
    assert code == 0 and 0.2 < table["score"].iloc[0] < 0.99
    assert table[["above_real", "above_fake"]].to_numpy().tolist() == [[0.75, 0.5]]
    shown = capsys.readouterr().out
    assert "AUC 0.62 on its 4 real and 2 fake validation faces" in shown and "75%" in shown and "50%" in shown
    (row,) = (line for line in shown.splitlines() if line.startswith("a.png"))
    assert not {"real", "fake"} & set(row.split()), "no verdict"
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setattr(pictures.videos, "read_frames", lambda path, count: iter([(0, picture(1))]))
    _, table = scored(run, tmp_path / "clip.mp4")
    assert table[["above_real", "above_fake"]].to_numpy().tolist() == [[0.75, 0.5], [1.0, 0.5]], "a face, the video"


def test_validation_scores_of_an_earlier_training_are_not_taken(run, finder, tmp_path, capsys):
    validated(run, [(0, 0.0), (1, 1.0)], [(0, 0.0), (1, 1.0)])
    later = checkpoint_of(run).stat().st_mtime + 9
    os.utime(checkpoint_of(run), (later, later))
    _, table = scored(run, save(tmp_path, "a.png", picture(1)))
    assert table["above_real"].isna().all() and "nothing to compare a score with" in capsys.readouterr().out


def test_a_second_call_does_not_score_its_own_pictures(run, finder, tmp_path):
    folder = tmp_path / "faces"
    save(folder, "a.png", picture(1))
    for _ in range(2):
        main_predict(
            Namespace(
                path=folder, run=run, detector="fairdf", seed=0, checkpoint=None, device="cpu",
                out=folder / "out", frames=3, aligned=False,
            )
        )  # fmt: skip
    assert pd.read_csv(folder / "out/scores.csv")["file"].tolist() == ["a.png"]


def test_files_without_something_to_score_are_refused(tmp_path):
    with pytest.raises(PictureError, match="no such file or folder"):
        files_of(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(PictureError, match="no picture and no video"):
        files_of(tmp_path, tmp_path / "out")


def test_a_run_without_the_detector_lists_those_it_holds(run, tmp_path):
    assert checkpoint_of(run).name == "best.safetensors"
    with pytest.raises(PictureError, match="no detector ori-s1; it holds fairdf-s0. Choose with --detector"):
        checkpoint_of(run, "ori", 1)


def test_an_empty_run_scores_with_the_shipped_detector_and_says_so(run, finder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stored, "SHIPPED", tmp_path / "shipped")
    with pytest.raises(PictureError, match="holds no trained detector"):
        checkpoint_of(tmp_path / "empty")
    (tmp_path / "shipped").mkdir()
    checkpoint_of(run).rename(tmp_path / "shipped/fairdf.safetensors")
    code, table = scored(run, save(tmp_path, "a.png", picture(1)))
    said = capsys.readouterr().out
    assert code == 0 and len(table) == 1 and "shipped/fairdf.safetensors, described in" in said
    assert "Trained on rendered faces only" in said and "nothing to compare a score with" in said
    validated(run, [(0, 0.0), (1, 1.0)], [(0, 0.0), (1, 1.0)])  # chapter 4 scored it into this run
    _, table = scored(run, tmp_path / "a.png")
    assert table[["above_real", "above_fake"]].to_numpy().tolist() == [[1.0, 0.0]]


def test_a_checkpoint_that_cannot_be_used_is_refused(run, finder, tmp_path):
    face, path = save(tmp_path, "a.png", picture(1)), tmp_path / "other.safetensors"
    for absent in (path, tmp_path):
        with pytest.raises(PictureError, match="no such checkpoint"):
            scored(run, face, checkpoint=absent)
    path.write_bytes(b"damaged")
    with pytest.raises(DetectorError, match="not a detector published by this project"):
        scored(run, face, checkpoint=path)


@pytest.mark.parametrize("below", ["", "/below"])
def test_an_out_that_cannot_be_a_folder_is_refused_before_the_work(run, finder, tmp_path, monkeypatch, below):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(pictures, "score_file", lambda *_: pytest.fail("work began"))
    with pytest.raises(PictureError, match="folder cannot be made .* Choose another --out"):
        scored(run, save(tmp_path, "a.png", picture(1)), out=f"{tmp_path / 'file'}{below}")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("device", ["banana", "cuda:99", "mps:0:0", ""])
def test_a_device_that_is_not_there_is_refused(run, finder, tmp_path, device):
    with pytest.raises(DetectorError, match=f"device '{device}' is not there. Use auto, cpu"):
        scored(run, save(tmp_path, "a.png", picture(1)), device=device)


def test_cuda_without_a_gpu_is_refused(run, finder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DetectorError, match="device 'cuda' is not there"):
        scored(run, save(tmp_path, "a.png", picture(1)), device="cuda")


def test_only_pictures_that_were_drawn_are_claimed(run, finder, tmp_path, capsys):
    scored(run, save(tmp_path / "none", "a.png", picture(0)))
    assert capsys.readouterr().out.endswith("scores.csv; there is nothing to draw\n")
    save(tmp_path / "both", "a.png", picture(0))
    save(tmp_path / "both", "b.png", picture(2))
    scored(run, tmp_path / "both")
    assert capsys.readouterr().out.endswith("scores.csv and 1 annotated picture\n")
    assert [path.name for path in (tmp_path / "out").glob("*.scored.png")] == ["b.png.scored.png"]


def test_the_reader_is_told_what_the_detector_was_trained_on(run, finder, tmp_path, capsys):
    face = save(tmp_path, "a.png", picture(1))
    scored(run, face)
    assert "rendered faces only: it knows nothing of real people" in capsys.readouterr().out
    (run / "manifest.json").write_text((run / "manifest.json").read_text().replace("synthetic/", ""))
    scored(run, face)
    assert "Trained on ../data_manifests/ffpp" in capsys.readouterr().out
    elsewhere = tmp_path / "copy.safetensors"
    elsewhere.write_bytes(checkpoint_of(run).read_bytes())
    scored(run, face, checkpoint=elsewhere)
    assert "not recorded beside it" in capsys.readouterr().out


# The picture


def rgb(colour):
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_a_box_carries_its_score_and_no_verdict():
    low, high = (annotate(np.zeros((400, 500, 3), np.uint8), [(100, 120, 200, 260)], [p]) for p in (0.1, 0.9))
    assert low.shape == (400, 500, 3) and not np.array_equal(low, high)
    for drawn in (low, high):
        edges = [(200, 100), (200, 200), (120, 150), (260, 150)]
        assert all(tuple(drawn[edge]) == rgb(COLOUR) for edge in edges) and not drawn[200, 150].any()
        corner = drawn[125 : 125 + TEXT, 105:180]
        assert (corner == rgb(COLOUR)).all(-1).any() and (corner == 255).all(-1).any(), "the label, white on colour"


@pytest.mark.parametrize("box", [(-50, -40, 30, 30), (470, 380, 700, 600), (0, 0, 500, 400)])
def test_a_box_that_reaches_outside_is_drawn_to_the_edge(box):
    drawn = annotate(np.zeros((400, 500, 3), np.uint8), [box], [0.9])
    assert (drawn == rgb(COLOUR)).all(-1).sum() > 250


@pytest.mark.parametrize("shape, size", [((32, 64), (160, 320)), ((3000, 2000), (1280, 853)), ((1, 5000), (1, 1280))])
def test_any_picture_becomes_readable(shape, size):
    assert annotate(np.zeros((*shape, 3), np.uint8), [], []).shape[:2] == size


@pytest.mark.parametrize("count", [1, 5])
def test_a_strip_holds_all_pictures_and_its_text_fits(count):
    panels = [annotate(np.full((90, 60, 3), 30, np.uint8), [], [], 300)] * count
    assert {panel.shape for panel in panels} == {(300, 200, 3)}
    sheet = np.asarray(captioned(panels, ["short", "many words " * 60]))
    assert sheet.shape[1] == max(320, 200 * count) and (sheet[:300, : 200 * count] == 30).all()
    below = (sheet[300:] < 128).any((0, 2))
    assert below.any() and not below[-TEXT // 4 :].any(), "no line reaches the right edge"
