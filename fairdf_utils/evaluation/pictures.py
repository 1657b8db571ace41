"""Scores for one's own pictures and videos: `python -m fairdf_utils predict FACE.jpg|VIDEO.mp4|FOLDER --run runs/cpu`.

Faces are found, aligned as chapter 1 does it, and scored one by one. A video's score is the mean over its frames of
the largest face, which is the face that detectors are trained on. What cannot be scored gets a row with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fairdf_utils import progress
from fairdf_utils.book.run_folder import BookError, read_manifest_of_run
from fairdf_utils.corpora import faces as alignment
from fairdf_utils.corpora import videos as video
from fairdf_utils.evaluation.boxes import annotate, side_by_side
from fairdf_utils.evaluation.scoring import logits_of, scoring_copy
from fairdf_utils.files import replacing
from fairdf_utils.model.detectors import score
from fairdf_utils.training.loop import TrainingError, choose_device, load_detector

THRESHOLD = 0.5  # of P(fake), as in Lin et al. 2024
SMALL_CROP = 512  # pixels: a square picture up to this size may well be an aligned crop already
STRIP_FRAMES, STRIP_HEIGHT = 5, 300  # of a video's annotated picture; pixels
COLUMNS = (
    "file",
    "part",  # "face", "video" (the mean of its frames), or "" where nothing could be scored
    "frame",  # of a video, its number there
    "face",  # 1 = the largest of its picture
    "left",
    "top",
    "right",
    "bottom",  # pixels
    "face_score",  # the face finder's: about 0 is doubtful, 1 and more is sure
    "logit_real",
    "logit_fake",
    "score",  # P(fake)
    "verdict",
    "frames_read",
    "frames_scored",
    "reason",  # why it was not scored, or not whole
)
WHOLE = ("frame", "face", "left", "top", "right", "bottom", "frames_read", "frames_scored")


class NotScored(Exception):
    """A file that has no score; the message says why."""


@dataclass(frozen=True)
class Detector:
    """A trained detector in the form that scores fastest.

    Attributes
    ----------
    model : from `evaluation.scoring_copy`, float32, on `device`
    image_size : side of the crops that it scores, pixels
    name : in words, for the reader
    origin : what it was trained on, in words
    """

    model: torch.nn.Module
    device: torch.device
    image_size: int
    name: str
    origin: str

    def logits(self, crops: list[np.ndarray]) -> np.ndarray:
        """Logits (n, 2) of crops, each uint8 (size, size, 3)."""
        return logits_of(self.model, np.stack(crops), self.device, batch_size=32)


def main_predict(options) -> int:
    """Score what `options.path` names, print a table, write `scores.csv` and annotated pictures.

    Parameters
    ----------
    options : namespace with
        path (file or folder), run, detector, seed, checkpoint (None: the run's detector of that name and seed),
        out (folder), frames (read of a video), aligned (bool: pictures are face crops already), device

    Returns
    -------
    0 when every file was scored whole, 1 otherwise

    Raises
    ------
    BookError
        No such file, folder, run, checkpoint or device, or no folder can be made at `options.out`.
    """
    out = Path(options.out)
    files = files_of(Path(options.path), out)
    checkpoint = options.checkpoint or checkpoint_of(options.run, options.detector, options.seed)
    detector = open_detector(Path(checkpoint), options.device)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BookError(f"{out}: this folder cannot be made ({error.strerror}). Choose another --out") from None
    print(f"{detector.name}\n{detector.origin}\n")
    rows = []
    try:
        for path, name in progress.bar(files.items(), desc="predict", unit="file"):
            rows += score_file(detector, path, name, out, options.frames, options.aligned)
    finally:  # interrupted or not, what was scored is kept
        table = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(WHOLE, "Int64"))
        with replacing(out / "scores.csv") as partial:
            table.to_csv(partial, index=False)
    print(in_words(table))
    drawn = table.loc[table["part"] != "", "file"].nunique()
    pictures = f" and {drawn:,} annotated picture{'s' * (drawn != 1)}" if drawn else "; there is nothing to draw"
    print(f"\nwrote {out / 'scores.csv'}{pictures}")
    return int((table["reason"] != "").any())


def checkpoint_of(run: str | Path, detector: str = "fairdf", seed: int = 0) -> Path:
    """The published weights of a run's detector; the error lists those that the run holds."""
    folder = Path(run) / "03_sam_training"
    path = folder / f"{detector}-s{seed}" / "best.safetensors"
    if path.is_file():
        return path
    held = sorted(found.parent.name for found in folder.glob("*/best.safetensors"))
    if not held:
        raise BookError(f"{run} holds no trained detector: run the book into it first, or give --checkpoint")
    raise BookError(
        f"{run} holds no detector {detector}-s{seed}; it holds {', '.join(held)}. Choose with --detector and --seed"
    )


def open_detector(checkpoint: Path, device: str = "auto") -> Detector:
    """The detector of a checkpoint, ready to score."""
    if not checkpoint.is_file():
        raise BookError(f"{checkpoint}: no such checkpoint. Give the path of a best.safetensors")
    try:
        target = choose_device(device)
        model, config = load_detector(checkpoint, target)
    except TrainingError as error:
        raise BookError(str(error)) from error
    return Detector(
        model=scoring_copy(model),
        device=target,
        image_size=config.image_size,
        name=f"Detector {config.detector}-s{config.seed}: {config.backbone} at {config.image_size} px, {checkpoint}",
        origin=_origin(checkpoint),
    )


def _origin(checkpoint: Path) -> str:
    """What a detector was trained on, as the run that it lies in tells it."""
    folder = checkpoint.resolve().parent
    entries = read_manifest_of_run(folder.parents[1]) if len(folder.parents) > 1 else {}
    sets = list(entries.get(f"{folder.parent.name}/{folder.name}", {}).get("read", ()))
    if not sets:
        return "What it was trained on is not recorded beside it."
    if any("synthetic" in PurePosixPath(name).parts for name in sets):
        return "Trained on rendered faces only: it knows nothing of real people, and its scores for them mean nothing."
    return f"Trained on {', '.join(sets)}; on other cameras, forgeries and people it does worse (chapter 4)."


def files_of(path: Path, out: Path) -> dict[Path, str]:
    """The pictures and videos that a path names, each with its name in the results; nothing below `out`."""
    if path.is_file():
        return {path: path.name}
    if not path.is_dir():
        raise BookError(f"{path}: no such file or folder")
    endings = video.IMAGES + video.VIDEOS
    found = {
        file: file.relative_to(path).as_posix()
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in endings and file.is_file() and not file.resolve().is_relative_to(out.resolve())
    }
    if not found:
        raise BookError(f"{path} holds no picture and no video; looked for {' '.join(endings)}, sub-folders included")
    return found


@dataclass
class Seen:
    """A picture, or a frame of a video, and the faces found in it, largest first.

    Attributes
    ----------
    frame : number of the frame in its video, None for a picture
    image : uint8 (H, W, 3); None for the frames of a video that are not drawn
    boxes : left, top, right, bottom of each face, pixels
    face_scores : the face finder's (`alignment.Face`); NaN for a crop that was given
    crops : each face as the detector wants it, uint8 (size, size, 3)
    logits : float32 (n, 2), once scored
    """

    frame: int | None
    image: np.ndarray | None
    boxes: list[tuple]
    face_scores: list[float]
    crops: list[np.ndarray]
    logits: np.ndarray | None = None

    @property
    def scores(self) -> list[float]:
        """P(fake) of each face."""
        return score(torch.from_numpy(self.logits)).tolist()


def score_file(detector: Detector, path: Path, name: str, out: Path, frames: int, aligned: bool) -> list[dict]:
    """Score one file and write its annotated picture, `<out>/<name>.scored.png`; rows of the table (`COLUMNS`)."""
    still, trouble = path.suffix.lower() in video.IMAGES, ""
    drawn = {0} if still else set(np.linspace(0, frames - 1, STRIP_FRAMES).round())
    seen = []
    try:
        for position, (number, image) in enumerate(video.frames(path, frames)):
            seen.append(_look(detector, None if still else number, image, aligned, position in drawn))
    except NotScored as error:
        return [_not_scored(name, str(error))]
    except video.VideoError as error:  # after the last frame that could be decoded
        trouble = f"cannot be read{' to its end' if seen else ''}: {error.reason}"
    crops = [crop for picture in seen for crop in picture.crops]
    if not crops:
        return [_not_scored(name, ", and ".join(filter(None, (trouble, seen and _no_face(seen)))) or "holds no frame")]
    ends = np.cumsum([len(picture.crops) for picture in seen])[:-1]
    for picture, logits in zip(seen, np.split(detector.logits(crops), ends), strict=True):
        picture.logits = logits
    rows = [row for picture in seen for row in _face_rows(picture)]
    if not still:
        rows.append(_video_row(seen) | {"reason": trouble})
    _draw(seen, _title(name, rows[-1]), detector.origin, out / f"{name}.scored.png")
    return [{"file": name, "reason": "", **row} for row in rows]


def _not_scored(name: str, reason: str) -> dict:
    return {"file": name, "part": "", "reason": reason}


def _look(detector: Detector, number: int | None, image: np.ndarray, aligned: bool, drawn: bool) -> Seen:
    """Find the faces of a picture and cut them out; an aligned crop is taken as it is."""
    height, width = image.shape[:2]
    if not aligned:
        found = alignment.find(image)
        boxes, sure = [face.box for face in found], [face.score for face in found]
        crops = [alignment.align(image, face, detector.image_size) for face in found]
    elif height == width:
        boxes, sure = [(0, 0, width, height)], [np.nan]
        size = (detector.image_size, detector.image_size)
        crops = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))]
    else:
        raise NotScored(f"is {width} x {height} px, but a face crop is square; leave --aligned out")
    # Of the video's other frames no pixel is kept, so that memory does not grow with its length.
    return Seen(number, image if drawn or number is None else None, boxes, sure, crops)


def _no_face(seen: list[Seen]) -> str:
    first = seen[0]
    if first.frame is not None:
        return f"no face found in {len(seen)} frames"
    height, width = first.image.shape[:2]
    crop = "; if the picture is a face crop already, add --aligned" if height == width <= SMALL_CROP else ""
    return f"no face found{crop}"


def _face_rows(picture: Seen) -> list[dict]:
    return [
        {
            "part": "face",
            "frame": picture.frame,
            "face": number + 1,
            **dict(zip(("left", "top", "right", "bottom"), box, strict=True)),
            "face_score": picture.face_scores[number],
            "logit_real": picture.logits[number, 0],
            "logit_fake": picture.logits[number, 1],
            "score": picture.scores[number],
            "verdict": verdict(picture.scores[number]),
        }
        for number, box in enumerate(picture.boxes)
    ]


def _video_row(seen: list[Seen]) -> dict:
    """The mean over the frames of the largest face."""
    largest = [picture.scores[0] for picture in seen if picture.boxes]
    mean = float(np.mean(largest))
    frames = {"frames_read": len(seen), "frames_scored": len(largest)}
    return {"part": "video", "score": mean, "verdict": verdict(mean), **frames}


def verdict(p: float) -> str:
    """The word for a score."""
    return "fake" if p >= THRESHOLD else "real"


def _title(name: str, row: dict) -> str:
    if row["part"] != "video":
        return name
    return f"{name}: {row['verdict']} {row['score']:.2f}, mean of the largest face in {row['frames_scored']} frames"


def _draw(seen: list[Seen], title: str, origin: str, path: Path) -> None:
    panels = []
    for picture in seen:
        if picture.image is None:
            continue
        labels = [f"{verdict(p)} {p:.2f}" for p in picture.scores]
        if picture.frame is None:
            panels.append(annotate(picture.image, picture.boxes, labels))
        else:
            note = f"frame {picture.frame}" + ("" if labels else ": no face")
            panels.append(annotate(picture.image, picture.boxes, labels, STRIP_HEIGHT, note))
    with replacing(path) as partial:
        side_by_side(panels, [title, origin]).save(partial, format="PNG")


def in_words(table: pd.DataFrame) -> str:
    """The table for a reader: a line a face of a picture, a line a video, a line a file that was not scored."""
    shown = table[table["frame"].isna()]
    width = shown["file"].str.len().max()
    lines = [f"{'file':{width}}  P(fake)  verdict"]
    for row in shown.itertuples():
        if row.part == "":
            lines.append(f"{row.file:{width}}        -  not scored: {row.reason}")
            continue
        what = "the crop as it is"
        if row.face_score == row.face_score:  # not NaN
            what = f"face {row.face} at {row.left}, {row.top}, found with score {row.face_score:.1f}"
        if row.part == "video":
            what = f"mean of the largest face in {row.frames_scored} of {row.frames_read} frames"
        if row.reason:
            what += f"; {row.reason}"
        lines.append(f"{row.file:{width}}  {row.score:7.3f}  {row.verdict}     {what}")
    return "\n".join(lines)
