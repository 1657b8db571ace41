"""From the videos of a corpus to aligned face crops, and a ledger that says what became of every video.

The largest face of every frame is cut out. The ledger has one row a video, appended as each is done by a single write:
a reader sees whole rows, or at worst a last line without its end, which reading leaves out. So a killed run goes on.
When the run ends the file is written anew, ordered by video.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from PIL import Image

from fairdf_utils.corpora import layouts
from fairdf_utils.corpora.faces import align, find
from fairdf_utils.corpora.layouts import CorpusError, find_videos, locate
from fairdf_utils.corpora.videos import VideoError, read_frames
from fairdf_utils.data.vocabulary import DATASETS, counted
from fairdf_utils.files import locked, needing_room, replacing, write_text
from fairdf_utils.progress import bar
from fairdf_utils.workers import end_with_parent

COUNTS = ("asked", "decoded", "found", "lost", "several")
TOLD = (*layouts.COLUMNS, "file")  # what is known of a video before it is opened
LEDGER = ("video", *(name for name in TOLD if name != "video"), *COUNTS, "status", "reason", "seconds")
# PNG at zlib's level 1 takes 4 ms a crop, at the default 6 it takes 20 ms and saves 8 % of the bytes.
_SAVING = {"png": {"compress_level": 1}, "jpg": {"quality": 95, "subsampling": 0}}


def extract(
    root: str | Path,
    layout: str,
    out: str | Path,
    dataset: str | None = None,
    frames: int = 30,
    size: int = 256,
    margin: float = 1.3,
    image_format: str = "png",
    compression: str = "c23",
    jobs: int = -1,
) -> pd.DataFrame:
    """Cut the largest face out of evenly spaced frames of every video of a corpus.

    Crops are ``<out>/<dataset>/faces/<video>/<frame:06d>.png``; those of a video appear all at once, when it is done.
    ``<out>/<dataset>/ledger.csv`` gets a row a video as each is done. The same call goes on with a killed run, tries
    videos again that could not be read in full or whose file has changed, and gives the same bytes. Each worker process
    takes one core. To use a cluster whose machines share ``root`` and ``out``, make the same call inside
    ``joblib.parallel_config(backend="dask")``, with a ``dask.distributed.Client``, or "ray", after
    ``ray.util.joblib.register_ray()``.

    Parameters
    ----------
    root, layout, compression, size, margin
        See `layouts.find_videos` and `faces.align`.
    dataset : str, optional
        Folder below ``out``; by default the layout's name, or for "folder" the root's.
    frames : int
        Asked for of each video.
    image_format : {"png", "jpg"}
        PNG without loss, or JPEG of quality 95 in full colour resolution (a quarter of the bytes).
    jobs : int
        Processes; -1 for one a core.

    Returns
    -------
    pandas.DataFrame
        The ledger, ordered by video: what `find_videos` says of it; ``file`` (its bytes and time of change, "" where
        it cannot be looked up); ``asked`` (frames; fewer in a short video), ``decoded``, ``found`` and ``lost``
        (frames with and without a face), ``several`` (with more than one); ``status`` "ok", "partial" (not read in
        full, but it gave crops) or "failed" (no crops), ``reason`` ("no face" or a VideoError's) and ``seconds``.

    Raises
    ------
    CorpusError
        The corpus cannot be used, or ``out`` cannot be made, was begun with other parameters or with videos that this
        corpus does not hold, or is in use by another process.
    OSError
        Crops cannot be written: the disk is full, for instance. What is done stays done.
    """
    recipe = recipe_of(layout, compression, frames, size, margin, image_format)
    name = dataset or (layout if layout in DATASETS else Path(root).resolve().name)
    refuse_unusable(recipe, name, jobs)
    videos = list_videos(root, layout, compression)
    folder = Path(out) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CorpusError(f"{folder}: this folder cannot be made ({error.strerror}). Choose another one.") from None
    if not os.access(folder, os.W_OK):
        raise CorpusError(f"{folder}: this folder cannot be written to. Choose another one.")
    started = time.perf_counter()
    try:
        with locked(folder / ".lock", wait=False):
            refuse_other_parameters(folder / "parameters.json", recipe)
            write_text(folder / "parameters.json", json.dumps(recipe, indent=1) + "\n")
            reused = _run(videos, Path(root).absolute(), folder.absolute(), recipe, jobs)
    except BlockingIOError:
        raise CorpusError(f"{folder}: another process is extracting into it. Wait for it, or stop it.") from None
    rows = read_ledger(folder / "ledger.csv")
    print(summary(rows, time.perf_counter() - started, reused))
    return rows


def recipe_of(
    layout: str, compression: str, frames: int, size: int, margin: float, image_format: str = "png"
) -> dict[str, str | int | float]:
    """What decides the bytes of the crops; see `extract`."""
    recipe = {"layout": layout, "compression": compression, "frames": frames, "size": size}
    return recipe | {"margin": float(margin), "image_format": image_format}


def refuse_unusable(recipe: dict, dataset: str, jobs: int) -> None:
    """Raise a CorpusError for values of a recipe, a data set's name or a number of processes that cannot be."""
    frames, size, margin, image_format = (recipe[name] for name in ("frames", "size", "margin", "image_format"))
    if jobs == 0:
        raise CorpusError("jobs is 0. Use the number of processes, or -1 for one a core.")
    if frames < 1 or size < 16 or not 0.5 <= margin <= 4:
        told = f"frames {frames}, size {size}, margin {margin:g}"
        raise CorpusError(f"{told}: use at least 1 frame, 16 px and a margin from 0.5 to 4.")
    if image_format not in _SAVING:
        raise CorpusError(f"Unknown image format {image_format!r}. Use one of {', '.join(_SAVING)}.")
    if dataset in ("", ".", "..") or "/" in dataset or "\\" in dataset:
        raise CorpusError(f"Data set name {dataset!r}: use the name of one folder, without slashes.")


def list_videos(root: str | Path, layout: str, compression: str = "c23") -> pd.DataFrame:
    """What `find_videos` says of the videos of a corpus, and ``file``; the columns `TOLD`."""
    videos = find_videos(root, layout, compression)
    return videos.assign(file=[_state(Path(root, path)) for path in videos["path"]])


def waiting(videos: pd.DataFrame, ledger: pd.DataFrame) -> pd.DataFrame:
    """The videos (of `list_videos`) whose faces are still to be cut out: not settled, or told otherwise now."""
    settled = ledger[(ledger["status"] == "ok") | (ledger["reason"] == "no face")]
    now, then = (pd.MultiIndex.from_frame(table[list(TOLD)]) for table in (videos, settled))
    return videos[~now.isin(then)]


def _state(file: Path) -> str:
    """What tells a file from a later one of its name, without reading it: bytes and time of change."""
    try:
        told = file.stat()
    except (OSError, ValueError):  # a listed video that is missing, a link in circles: its extraction says which
        return ""
    return f"{told.st_size} bytes, {told.st_mtime_ns} ns"


def refuse_other_parameters(path: Path, parameters: dict) -> None:
    """Raise a CorpusError if a folder was begun with other parameters: crops of two kinds would mix."""
    if not path.exists():
        return
    old = json.loads(path.read_text(encoding="utf-8"))
    changed = [f"{name} {old.get(name)!r}, now {now!r}" for name, now in parameters.items() if old.get(name) != now]
    if changed:
        raise CorpusError(
            f"{path.parent} was begun with {'; '.join(changed)}. Go on with the old values, or choose another "
            f"output folder or data set name, or delete {path.parent}."
        )


def _run(videos: pd.DataFrame, root: Path, folder: Path, recipe: dict, jobs: int) -> int:
    """Extract what is not done; how many videos were."""
    table = folder / "ledger.csv"
    done = read_ledger(table)
    others = done.loc[~done["video"].isin(videos["video"]), "video"]
    if len(others):
        raise CorpusError(
            f"{table} has {counted(len(others), 'videos')} that {root} does not hold, such as {others.iloc[0]}. "
            "Choose another output folder or data set name, or take their rows out of the ledger."
        )
    write_ledger(table, done)  # without the torn last line of a run that was killed
    shutil.rmtree(folder / ".partial", ignore_errors=True)
    (folder / ".partial").mkdir(parents=True)
    calls = [delayed(_extract_video)(video, root, folder, recipe) for video in waiting(videos, done).to_dict("records")]
    with bar(total=len(videos), initial=len(videos) - len(calls), desc=folder.name, unit="video") as shown:
        for row in _completed(calls, jobs):
            append_row(table, row)
            shown.update()
    write_ledger(table, read_ledger(table))
    shutil.rmtree(folder / ".partial")
    return len(videos) - len(calls)


def _completed(calls: list, jobs: int) -> Iterator[dict]:
    """Results in the order in which they come; from a backend that cannot do that (Ray) a few a worker at a time."""
    try:
        parallel, width = Parallel(jobs, return_as="generator_unordered", batch_size=1), len(calls)
    except ValueError:
        parallel, width = Parallel(jobs, batch_size=1), 8 * effective_n_jobs(jobs)
    for start in range(0, len(calls), max(1, width)):
        yield from parallel(calls[start : start + width])


def _extract_video(video: dict, root: Path, folder: Path, recipe: dict) -> dict:
    """Extract one video; its row of the ledger. Only a failure to write raises."""
    end_with_parent()
    started, counts, reason = time.perf_counter(), Counter(), ""
    with tempfile.TemporaryDirectory(dir=folder / ".partial") as partial:
        made = Path(partial, "crops")
        made.mkdir()
        try:
            with needing_room(folder):
                write_crops(locate(root, video["path"]), made, recipe, counts)
        except VideoError as error:
            reason = error.reason
        except OSError:
            raise
        except Exception as error:  # whatever else a strange file brings about is no reason to stop
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        # All at once, and instead of those of a run that was killed before it wrote the row.
        target = folder / "faces" / video["video"]
        shutil.rmtree(target, ignore_errors=True)
        if counts["found"]:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(made, target)
    counts["asked"] = recipe["frames"] if reason else counts["decoded"]
    counts["lost"] = counts["decoded"] - counts["found"]
    reason = reason or ("" if counts["found"] else "no face")
    status = "ok" if not reason else "partial" if counts["found"] else "failed"
    outcome = {"status": status, "reason": reason, "seconds": round(time.perf_counter() - started, 3)}
    return {**video, **{name: counts[name] for name in COUNTS}, **outcome}


def write_crops(file: Path, folder: Path, recipe: dict, counts: Counter) -> None:
    """Write the crops of one video into a folder; `counts` get what was decoded and found, also if an error ends it."""
    for number, image in read_frames(file, recipe["frames"]):
        counts["decoded"] += 1
        found = find(image)
        counts["several"] += len(found) > 1
        if found:
            crop = Image.fromarray(align(image, found[0], recipe["size"], recipe["margin"]))
            crop.save(folder / f"{number:06d}.{recipe['image_format']}", **_SAVING[recipe["image_format"]])
            counts["found"] += 1


def summary(rows: pd.DataFrame, seconds: float, reused: int = 0) -> str:
    """What became of the videos of a ledger, in one line; ``seconds`` of the clock, ``reused`` videos done before."""
    decoded, found = int(rows["decoded"].sum()), int(rows["found"].sum())
    rate = decoded / max(rows["seconds"].sum(), 1e-3)
    return (
        f"{counted(len(rows), 'videos')}, {_reasons(rows, 'partial')}, {_reasons(rows, 'failed')}; "
        f"{counted(decoded, 'frames')}: {found:,} with a face, {decoded - found:,} without, "
        f"{int(rows['several'].sum()):,} with several; {counted(reused, 'videos')} reused; "
        f"{seconds:,.1f} s, {rate:,.1f} frames a second a core"
    )


def _reasons(rows: pd.DataFrame, status: str) -> str:
    """For instance "2 failed (empty file 1, truncated 1)"."""
    counts = rows.loc[rows["status"] == status, "reason"].value_counts(sort=False)
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
    return f"{counts.sum():,} {status}" + (f" ({reasons})" if reasons else "")


def crops(out: str | Path, dataset: str) -> pd.DataFrame:
    """List the crops of an extraction, ordered by video and frame.

    The columns are the canonical ones that the corpus tells, ``img_path`` relative to ``out``. A CorpusError says that
    there is no ledger.
    """
    table = Path(out) / dataset / "ledger.csv"
    if not table.is_file():
        raise CorpusError(f"{table}: no such ledger. Extract the faces first (python -m fairdf_utils prepare).")
    rows = []
    for video in read_ledger(table).itertuples():
        folder = f"{dataset}/faces/{video.video}"
        names = sorted(os.listdir(Path(out, folder))) if video.found else []
        told = (video.label, video.forgery, video.video, video.identity, video.source_identity)
        rows += [(f"{folder}/{name}", *told, int(Path(name).stem)) for name in names if Path(name).stem.isdecimal()]
    columns = ["img_path", "label", "forgery", "video", "identity", "source_identity", "frame"]
    return pd.DataFrame(rows, columns=columns)


def read_ledger(path: Path) -> pd.DataFrame:
    """Rows of a ledger (columns `LEDGER`), ordered by video, the last one of each; none where there is no file."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    rows = [row for row in lines if len(row) == len(LEDGER) and row[0] != LEDGER[0]]
    table = pd.DataFrame(rows, columns=list(LEDGER), dtype=object)
    table = table.astype({"label": int, **dict.fromkeys(COUNTS, int), "seconds": float})
    return table.drop_duplicates("video", keep="last").sort_values("video", ignore_index=True)


def append_row(path: Path, row: dict) -> None:
    """Add one row, a dict with the keys `LEDGER`, by one write."""
    text = pd.DataFrame([row], columns=list(LEDGER)).to_csv(index=False, header=not path.exists(), lineterminator="\n")
    with open(path, "ab", buffering=0) as file:
        file.write(text.encode("utf-8"))


def write_ledger(path: Path, table: pd.DataFrame) -> None:
    """Write the whole ledger anew, atomically."""
    with replacing(path) as partial:
        table.to_csv(partial, columns=list(LEDGER), index=False, lineterminator="\n", encoding="utf-8")
