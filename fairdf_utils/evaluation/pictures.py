"""Scores for one's own pictures and videos: `python -m fairdf_utils predict FACE.jpg|VIDEO.mp4|FOLDER --run runs/cpu`.

Faces are found, aligned as chapter 1 does it, and scored one by one. A video's score is the mean over its frames of
the largest face, which is the face that detectors are trained on. What cannot be scored gets a row with the reason.

No row says "real" or "fake": where a score lies among those of the validation faces, whose kind is known, says what it
is worth, and the threshold that would make a word of it is the reader's.
"""

import json
import textwrap
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torchvision.utils import draw_bounding_boxes

from fairdf_utils import progress
from fairdf_utils.corpora import faces, videos
from fairdf_utils.data.vocabulary import counted
from fairdf_utils.evaluation.scoring import logits_of, scoring_copy
from fairdf_utils.fairness.auc import segment_auc
from fairdf_utils.files import printable, replacing
from fairdf_utils.model import stored
from fairdf_utils.model.detectors import score
from fairdf_utils.released.checkpoints import load_any_detector

SCORED = "04_cross_dataset_evaluation"  # folder of a run
SMALL_CROP = 512  # pixels: a square picture up to this size may well be an aligned crop already
STRIP_FRAMES, STRIP_HEIGHT = 5, 300  # of a video's annotated picture; pixels
SMALLEST, LARGEST = 320, 1280  # pixels, longer side of an annotated picture
COLOUR = "#0173b2"  # of every box: a colour for each side of a threshold would be a verdict
FONT, TEXT = str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), 16  # text height in pixels
BOX = ("left", "top", "right", "bottom")  # pixels
NOT_DRAWN = "its annotated picture cannot be written"
# A row is a part: "face", "video" (the mean of its frames), or "" where nothing could be scored, and the reason why.
# Face 1 is the largest of its picture; its score is the finder's: about 0 is doubtful, 1 and more is sure. `score` is
# P(fake); `above_real` and `above_fake` are the shares, 0 to 1, of the validation faces (videos) that score lower.
PLACE, COUNTS, SHARES = ("frame", "face", *BOX), ("frames_read", "frames_scored"), ("above_real", "above_fake")
COLUMNS = ("file", "part", *PLACE, "face_score", "logit_real", "logit_fake", "score", *SHARES, *COUNTS, "reason")


class PictureError(Exception):
    """A call that cannot be answered; the message says what the caller can do."""


class Detector(NamedTuple):
    """A trained detector in the form that scores fastest, on `device`; what it is and what its scores tell."""

    model: nn.Module
    device: torch.device
    image_size: int  # side of the crops that it scores, pixels
    name: str
    worth: str
    validation: dict[str, pd.DataFrame]  # "face" and "video" -> label and score of the validation set; or none


def main_predict(options: Namespace) -> int:
    """Score what `options.path` names, print a table, write `scores.csv` and annotated pictures.

    The result is 0 when every file was scored whole, 1 otherwise, and 130 after an interruption. Raises PictureError or
    DetectorError when nothing can be scored: no such file, run, device, checkpoint, or place for the results.
    """
    out = Path(options.out)
    files, skipped = files_of(Path(options.path), out)
    checkpoint, name = options.checkpoint, f"{options.detector}-s{options.seed}"
    scored = None if checkpoint else Path(options.run, SCORED, name)
    checkpoint = checkpoint or checkpoint_of(options.run, options.detector, options.seed)
    detector = open_detector(Path(checkpoint), options.device, scored)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PictureError(f"{out}: this folder cannot be made ({error.strerror}). Choose another --out") from None
    print(f"{detector.name}\n{detector.worth}\n")
    rows, code = [], 0
    try:
        for path, name in progress.bar(files.items(), desc="predict", unit="file"):
            rows += score_file(detector, path, name, out, options.frames, options.aligned)
    except KeyboardInterrupt:
        code = 130
    finally:  # interrupted or not, what was scored is kept
        table = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(PLACE + COUNTS, "Int64"))
        with replacing(out / "scores.csv") as partial:
            table.to_csv(partial, index=False)
    print(in_words(table))
    if skipped:
        print(f"files skipped, by suffix: {_counted(skipped)}")
    drawn = table.loc[(table["part"] != "") & ~table["reason"].str.startswith(NOT_DRAWN), "file"].nunique()
    pictures = f" and {drawn:,} annotated picture{'s' * (drawn != 1)}" if drawn else "; there is nothing to draw"
    print(f"\nwrote {out / 'scores.csv'}{pictures}")
    if code:
        print(f"Interrupted: {table['file'].nunique():,} of {len(files):,} files are in it; another call begins anew")
    return code or int((table["reason"] != "").any())


def checkpoint_of(run: str | Path, detector: str = "fairdf", seed: int = 0) -> Path:
    """The published weights of a run's detector; in a run without any, those of `SHIPPED`.

    Raises PictureError where there is none; it lists those that the run holds.
    """
    folder = Path(run) / "03_sam_training"
    path = folder / f"{detector}-s{seed}" / "best.safetensors"
    if path.is_file():
        return path
    held = sorted(found.parent.name for found in folder.glob("*/best.safetensors"))
    if not held and (shipped := stored.shipped_instead(path)):
        return shipped
    if not held:
        raise PictureError(f"{run} holds no trained detector: run the book into it first, or give --checkpoint")
    held = f"it holds {', '.join(held)}. Choose with --detector and --seed"
    raise PictureError(f"{run} holds no detector {detector}-s{seed}; {held}")


def open_detector(checkpoint: Path, device: str = "auto", scored: Path | None = None) -> Detector:
    """The detector of a checkpoint, ready to score; `scored` is what chapter 4 wrote of it, else it is looked for."""
    if not checkpoint.is_file():
        raise PictureError(f"{checkpoint}: no such checkpoint. Give a best.safetensors, or one of the released code")
    target = stored.choose_device(device)
    model, config = load_any_detector(checkpoint, target)
    name = f"Detector {config.detector}-s{config.seed}: {config.backbone} at {config.image_size} px, {checkpoint}"
    validation = _validation(checkpoint, scored)
    worth = f"{_origin(checkpoint)}\n{_separation(validation.get('face'))}"
    return Detector(scoring_copy(model), target, config.image_size, name, worth, validation)


def _validation(checkpoint: Path, scored: Path | None = None) -> dict[str, pd.DataFrame]:
    """What chapter 4 keeps of the detector of a run: label and score of its validation faces and videos; or nothing."""
    folder = checkpoint.resolve().parent  # <run>/03_sam_training/<detector>-s<seed>
    scored = scored or folder.parent.parent / SCORED / folder.name
    files = {"face": scored / "validation/scores.parquet", "video": scored / "validation/video_scores.parquet"}
    try:
        if min(file.stat().st_mtime for file in files.values()) < checkpoint.stat().st_mtime:
            return {}  # of an earlier training
        return {part: pd.read_parquet(file, columns=["label", "score"]) for part, file in files.items()}
    except (OSError, ValueError):  # not there, or damaged: pyarrow's error is a ValueError
        return {}


def _separation(table: pd.DataFrame | None) -> str:
    """How well a detector tells the faces of its validation set apart."""
    if table is None:
        return "Its validation faces are not scored beside it (chapter 4): there is nothing to compare a score with."
    label, score = table["label"].to_numpy(), table["score"].to_numpy()
    auc, fakes = segment_auc(np.zeros(len(table), int), 1, label, score)[0], int(label.sum())
    return (
        f"AUC {auc:.2f} on its {len(label) - fakes:,} real and {fakes:,} fake validation faces, which also chose its "
        "weights."
    )


def _shares(detector: Detector, part: str, p: float) -> dict[str, float]:
    """`SHARES` of a score; NaN where there is nothing to compare it with."""
    if part not in detector.validation:
        return dict.fromkeys(SHARES, np.nan)
    table = detector.validation[part]
    return {name: (table.loc[table["label"] == i, "score"] < p).mean() for i, name in enumerate(SHARES)}


def _origin(checkpoint: Path) -> str:
    """What a detector was trained on, as the run that it lies in tells it."""
    folder = checkpoint.resolve().parent  # <run>/03_sam_training/<detector>-s<seed>
    rendered = "Trained on rendered faces only: it knows nothing of real people, and its scores for them mean nothing."
    if folder == stored.SHIPPED:
        return rendered
    try:
        entries = json.loads((folder.parents[1] / "manifest.json").read_text(encoding="utf-8"))
        sets = list(entries[f"{folder.parent.name}/{folder.name}"]["read"])
    except (OSError, ValueError, LookupError):
        return "What it was trained on is not recorded beside it."
    if any("synthetic" in PurePosixPath(name).parts for name in sets):
        return rendered
    return f"Trained on {', '.join(sets)}; on other cameras, forgeries and people it does worse (chapter 4)."


def files_of(path: Path, out: Path) -> tuple[dict[Path, str], Counter]:
    """The pictures and videos that a path names, each with its name in the results, and how many others, by suffix.

    Hidden files and those below `out` are not looked at. A name's bytes that are no UTF-8 are written as \\x...
    """
    if path.is_file():
        return {path: printable(path.name)}, Counter()
    if not path.is_dir():
        raise PictureError(f"{path}: no such file or folder")
    endings, own = videos.IMAGES + videos.VIDEOS, out.resolve()
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    files = [file for file in files if not file.resolve().is_relative_to(own)]
    found = {file: printable(file.relative_to(path).as_posix()) for file in files if file.suffix.lower() in endings}
    skipped = Counter(printable(file.suffix.lower()) or "no suffix" for file in files if file not in found)
    if not found:
        others = f"; it has {_counted(skipped)}" if skipped else ""
        raise PictureError(
            f"{path} holds no picture and no video{others}; looked for {' '.join(endings)}, sub-folders too"
        )
    return found, skipped


def _counted(counts: Counter) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())


def score_file(detector: Detector, path: Path, name: str, out: Path, frames: int, aligned: bool) -> list[dict]:
    """Score one file and write its annotated picture, `<out>/<name>.scored.png`; rows of the table (`COLUMNS`)."""
    still, trouble, read = videos.is_picture(path), "", 0
    # Of a video's other frames no pixel is kept, so that memory does not grow with its length.
    drawn = {0} if still else set(np.linspace(0, frames - 1, STRIP_FRAMES).round())
    shown, rows, crops = [], [], []  # (number, image) of what is drawn; a row and a crop per face
    try:
        for read, (number, image) in enumerate(videos.read_frames(path, frames), start=1):
            shown += [(number, image)] if read - 1 in drawn else []
            height, width = image.shape[:2]
            if aligned and height != width:
                trouble, read = f"is {width} x {height} px, but a face crop is square; leave --aligned out", 0
                break
            for face, crop in _faces_in(image, detector.image_size, aligned, still):
                rows.append({"part": "face", "frame": None if still else number, **face})
                crops.append(crop)
    except videos.VideoError as error:  # after the last frame that could be decoded
        trouble = f"cannot be read{' to its end' if read else ''}: {error.reason}"
    except Exception as error:  # whatever else a strange file brings about is no reason to stop
        trouble, read = f"{type(error).__name__}: {error}".splitlines()[0], max(0, read - 1)
    if not crops:
        reasons = [trouble] * bool(trouble)
        if read or not trouble:
            reasons.append(_no_face(read, shown[0][1] if still and shown else None))
        return [{"file": name, "part": "", "reason": ", and ".join(reasons)}]
    logits = logits_of(detector.model, np.stack(crops), detector.device, batch_size=32)  # (n, 2)
    for face, (real, fake), p in zip(rows, logits, score(torch.from_numpy(logits)).tolist(), strict=True):
        face |= {"logit_real": real, "logit_fake": fake, "score": p, **_shares(detector, "face", p)}
    caption, whole = f"{name}: P(fake) of each face", []
    if not still:
        largest = [face["score"] for face in rows if face["face"] == 1]
        mean, counts = float(np.mean(largest)), dict(zip(COUNTS, (read, len(largest)), strict=True))
        whole = [{"part": "video", "score": mean, **_shares(detector, "video", mean), "reason": trouble, **counts}]
        caption = f"{name}: P(fake) {mean:.2f}, mean of the largest face in {len(largest)} frames; "
        caption += f"shown: frames {', '.join(str(number) for number, _ in shown)}"
    reason = trouble if still else ""
    try:
        _draw(shown, rows, [caption, *detector.worth.splitlines()], out / f"{name}.scored.png")
    except OSError as error:  # a name that is too long, say; a full disk stops the table, too
        reason = f"{NOT_DRAWN}: {error.strerror}"
    return [{"file": name, "reason": reason, **row} for row in rows + whole]


def _faces_in(image: np.ndarray, size: int, aligned: bool, still: bool) -> Iterator[tuple[dict, np.ndarray]]:
    """Place, number and crop (size, size, 3) of each face of a picture; an aligned crop is taken as it is."""
    if aligned:
        crop = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
        found = [((0, 0, *image.shape[1::-1]), np.nan, crop)]
    else:
        found = faces.find(image, everywhere=still)
        found = ((face.box, face.score, faces.align(image, face, size)) for face in found)
    for number, (box, sure, crop) in enumerate(found, start=1):
        yield {"face": number, **dict(zip(BOX, box, strict=True)), "face_score": sure}, crop


def _no_face(read: int, image: np.ndarray | None) -> str:
    """Why there is nothing to score in a picture, or in the frames of a video (image None)."""
    if image is None:
        return f"no face found in {counted(read, 'frames')}" if read else "holds no frame"
    square = image.shape[0] == image.shape[1] <= SMALL_CROP
    return f"no face found{'; if the picture is a face crop already, add --aligned' if square else ''}"


def _draw(shown: list, rows: list[dict], captions: list[str], path: Path) -> None:
    panels, height = [], None if rows[0]["frame"] is None else STRIP_HEIGHT
    for number, image in shown:
        own = [face for face in rows if face["frame"] in (None, number)]
        boxes, scores = [[face[edge] for edge in BOX] for face in own], [face["score"] for face in own]
        panels.append(annotate(image, boxes, scores, height))
    with replacing(path) as partial:
        captioned(panels, captions).save(partial, format="PNG")


def annotate(image: np.ndarray, boxes: list, scores: list[float], height: int | None = None) -> np.ndarray:
    """A picture, uint8 (H, W, 3), with a box around every face and its score in the box's upper left corner.

    Boxes are left, top, right, bottom in pixels, and may reach outside; scores are P(fake). The result is `height`
    pixels high, by default its longer side is brought into 320..1280 pixels; lines and text keep their size.
    """
    longer = max(image.shape[:2])
    scale = height / image.shape[0] if height else np.clip(longer, SMALLEST, LARGEST) / longer
    size = np.rint(np.multiply(image.shape[1::-1], scale)).clip(1).astype(int)
    picture = np.array(Image.fromarray(image).resize(size.tolist(), Image.Resampling.LANCZOS))
    if not boxes:
        return picture
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    places = torch.from_numpy(np.multiply(boxes, scale).round().clip(0, np.tile(size - 1, 2)))
    style = {"width": 3, "font": FONT, "font_size": TEXT, "label_colors": "white", "fill_labels": True}
    labels = [f"{p:.2f}" for p in scores]
    return draw_bounding_boxes(tensor, places, labels, COLOUR, **style).permute(1, 2, 0).numpy()


def captioned(panels: list[np.ndarray], captions: list[str]) -> Image.Image:
    """Pictures of one height in a row, with lines of text below that are wrapped to fit."""
    row, margin = np.hstack(panels), TEXT // 2
    height, width = row.shape[0], max(SMALLEST, row.shape[1])
    lines = [line for caption in captions for line in textwrap.wrap(caption, (width - 2 * margin) // (TEXT * 2 // 3))]
    sheet = Image.new("RGB", (width, height + (len(lines) + 1) * TEXT * 3 // 2), "white")
    sheet.paste(Image.fromarray(row))
    at, font = (margin, height + margin), ImageFont.truetype(FONT, TEXT)
    ImageDraw.Draw(sheet).multiline_text(at, "\n".join(lines), fill="black", font=font, spacing=TEXT // 4)
    return sheet


def in_words(table: pd.DataFrame) -> str:
    """The table for a reader: a line a face of a picture, a line a video, a line a file that was not scored."""
    shown = table[table["frame"].isna()]
    width = max(4, shown["file"].str.len().max())
    lines = [f"{'file':{width}}  P(fake)  above real  above fake"]
    for row in shown.itertuples():
        if row.part == "":
            lines.append(f"{row.file:{width}}        -  not scored: {row.reason}")
            continue
        if row.part == "video":
            what = f"mean of the largest face in {row.frames_scored} of {row.frames_read} frames"
        elif np.isnan(row.face_score):
            what = "the crop as it is"
        else:
            what = f"face {row.face} at {row.left}, {row.top}, found with score {row.face_score:.1f}"
        what += f"; {row.reason}" if row.reason else ""
        shares = (f"{'-' if np.isnan(share) else f'{share:.0%}':>10}" for share in (row.above_real, row.above_fake))
        lines.append("  ".join((f"{row.file:{width}}", f"{row.score:7.3f}", *shares, what)))
    if shown["above_real"].notna().any():
        lines.append("above: the share of the real and of the fake validation faces (or videos) that score lower")
    return "\n".join(lines)
