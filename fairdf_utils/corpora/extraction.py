"""From the videos of a corpus to aligned face crops, and a ledger that says what became of every video.

The largest face of every frame is cut out; `alignment` finds and aligns it.
"""

import os
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from PIL import Image

from fairdf_utils.corpora import ledger
from fairdf_utils.corpora.faces import align, find
from fairdf_utils.corpora.layouts import CorpusError, find_videos, locate
from fairdf_utils.corpora.videos import VideoError, frames
from fairdf_utils.data.vocabulary import DATASETS
from fairdf_utils.files import locked
from fairdf_utils.progress import bar
from fairdf_utils.workers import end_with_parent


@dataclass(frozen=True)
class _Recipe:
    """What decides the bytes of a data set's crops."""

    layout: str
    compression: str
    frames: int
    size: int
    margin: float
    image_format: str


def extract(
    root,
    layout,
    out,
    dataset=None,
    frames=30,
    size=256,
    margin=1.3,
    image_format="png",
    compression="c23",
    jobs=-1,
):
    """Cut the largest face out of evenly spaced frames of every video of a corpus.

    Crops are ``<out>/<dataset>/faces/<video>/<frame:06d>.png``; those of a video appear all at once, when it is done.
    ``<out>/<dataset>/ledger.csv`` gets a row a video as each is done (`ledger`). The same call goes on with a killed
    run, tries videos again that could not be read in full or whose file has changed, and gives the same bytes. Rows of
    videos that the corpus does not hold (any more) wait in ``other_videos.csv`` beside the ledger, where neither the
    ledger nor `crops` counts them. Each worker process takes one core. To use a cluster whose machines share ``root``
    and ``out``, make the same call inside joblib's context::

        client = dask.distributed.Client("scheduler:8786")     # Dask
        ray.util.joblib.register_ray()                          # or Ray
        with joblib.parallel_config(backend="dask"):            # or "ray"
            extract(root, "ffpp", out)

    Parameters
    ----------
    root, layout, compression
        See `corpora.find_videos`.
    out : str or Path
    dataset : str, optional
        Folder below ``out``; by default the layout's name, or for "folder" the root's.
    frames : int
        Asked for of each video.
    size, margin
        See `align`.
    image_format : {"png", "jpg"}
        PNG without loss, or JPEG of quality 95 in full colour resolution (a quarter of the bytes).
    jobs : int
        Processes; -1 for one a core.

    Returns
    -------
    pandas.DataFrame
        The ledger, ordered by video: what `find_videos` says of it; ``file`` (its bytes and time of change, "" where
        it cannot be looked up); ``asked`` (frames; fewer in a short video), ``decoded``, ``found`` and ``lost``
        (frames with and without a face), ``several`` (with more than one); ``status`` "ok", "partial" (it could not
        be read in full, but gave crops) or "failed" (it gave none), ``reason`` ("no face" or a VideoError's), and
        ``seconds`` of one core.

    Raises
    ------
    CorpusError
        The corpus cannot be used, or ``out`` cannot be made, was begun with other parameters or is in use by another
        process.
    OSError
        Crops cannot be written: the disk is full, for instance. What is done stays done.
    """
    recipe = _checked(_Recipe(layout, compression, frames, size, float(margin), image_format))
    if jobs == 0:
        raise CorpusError("jobs is 0. Use the number of processes, or -1 for one a core.")
    videos = find_videos(root, layout, compression)
    videos["file"] = [_state(Path(root, path)) for path in videos["path"]]
    folder = _made(Path(out) / _dataset(root, layout, dataset))
    started, table = time.perf_counter(), folder / "ledger.csv"
    try:
        with locked(folder / ".lock", wait=False):
            ledger.keep_parameters(folder / "parameters.json", asdict(recipe))
            reused, others = _run(videos, Path(root).absolute(), folder.absolute(), recipe, table, jobs)
    except BlockingIOError:
        raise CorpusError(f"{folder}: another process is extracting into it. Wait for it, or stop it.") from None
    rows = ledger.read(table)
    print(summary(rows, time.perf_counter() - started, reused, others))
    return rows


def _state(file):
    """What tells a file from a later one of its name, without reading it: bytes and time of change."""
    try:
        told = file.stat()
    except (OSError, ValueError):  # a listed video that is missing, a link in circles: its extraction says which
        return ""
    return f"{told.st_size} bytes, {told.st_mtime_ns} ns"


def _made(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CorpusError(f"{folder}: this folder cannot be made ({error.strerror}). Choose another one.") from None
    if not os.access(folder, os.W_OK):
        raise CorpusError(f"{folder}: this folder cannot be written to. Choose another one.")
    return folder


def _run(videos, root, folder, recipe, table, jobs):
    """Extract what is not done; how many videos were, and how many rows are of videos that are not there."""
    done, others = ledger.open_for(table, folder / "other_videos.csv", videos)
    shutil.rmtree(folder / ".partial", ignore_errors=True)
    (folder / ".partial").mkdir(parents=True)
    waiting = ledger.waiting(videos, done).to_dict("records")
    calls = [delayed(_extract_video)(video, root, folder, recipe) for video in waiting]
    with bar(total=len(videos), initial=len(videos) - len(calls), desc=folder.name, unit="video") as shown:
        for row in _completed(calls, jobs):
            ledger.append(table, row)
            shown.update()
    ledger.write(table, ledger.read(table))
    shutil.rmtree(folder / ".partial")
    return len(videos) - len(calls), len(others)


def _completed(calls, jobs):
    """Results in the order in which they come; from a backend that cannot do that (Ray) a few a worker at a time."""
    try:
        parallel, width = Parallel(jobs, return_as="generator_unordered", batch_size=1), len(calls)
    except ValueError:
        parallel, width = Parallel(jobs, batch_size=1), 8 * effective_n_jobs(jobs)
    for start in range(0, len(calls), max(1, width)):
        yield from parallel(calls[start : start + width])


def _extract_video(video, root, folder, recipe):
    """Extract one video; its row of the ledger. Only a failure to write raises."""
    end_with_parent()
    started, counts, reason = time.perf_counter(), Counter(), ""
    with tempfile.TemporaryDirectory(dir=folder / ".partial") as partial:
        crops = Path(partial, "crops")
        crops.mkdir()
        try:
            _write_crops(locate(root, video["path"]), crops, recipe, counts)
        except VideoError as error:
            reason = error.reason
        except OSError:
            raise
        except Exception as error:  # whatever else a strange file brings about is no reason to stop
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        reason = reason or ("" if counts["found"] else "no face")
        _move(crops, folder / "faces" / video["video"])
    counts["asked"] = recipe.frames if reason not in ("", "no face") else counts["decoded"]
    counts["lost"] = counts["decoded"] - counts["found"]
    seconds = round(time.perf_counter() - started, 3)
    status = "ok" if not reason else "partial" if counts["found"] else "failed"
    outcome = {"status": status, "reason": reason, "seconds": seconds}
    return {**video, **{name: counts[name] for name in ledger.COUNTS}, **outcome}


def _write_crops(file, crops, recipe, counts):
    for number, image in frames(file, recipe.frames):
        counts["decoded"] += 1
        found = find(image)
        counts["several"] += len(found) > 1
        if found:
            crop = Image.fromarray(align(image, found[0], recipe.size, recipe.margin))
            crop.save(crops / f"{number:06d}.{recipe.image_format}", **_SAVING[recipe.image_format])
            counts["found"] += 1


# PNG at zlib's level 1 takes 4 ms a crop, at the default 6 it takes 20 ms and saves 8 % of the bytes.
_SAVING = {"png": {"compress_level": 1}, "jpg": {"quality": 95, "subsampling": 0}}


def _move(crops, target):
    """Put a video's crops in place at once, instead of those of a run that was killed before it wrote the row."""
    shutil.rmtree(target, ignore_errors=True)
    if any(crops.iterdir()):
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(crops, target)


def _checked(recipe):
    if recipe.frames < 1 or recipe.size < 16 or not 0.5 <= recipe.margin <= 4:
        raise CorpusError(
            f"frames {recipe.frames}, size {recipe.size}, margin {recipe.margin:g}: use at least 1 frame, 16 px and a "
            "margin from 0.5 to 4."
        )
    if recipe.image_format not in _SAVING:
        raise CorpusError(f"Unknown image format {recipe.image_format!r}. Use one of {', '.join(_SAVING)}.")
    return recipe


def _dataset(root, layout, dataset):
    name = dataset or (layout if layout in DATASETS else Path(root).resolve().name)
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise CorpusError(f"Data set name {name!r}: use the name of one folder, without slashes.")
    return name


def summary(rows, seconds, reused=0, others=0):
    """What became of the videos of a ledger, in one line.

    ``seconds`` of the clock; ``reused`` videos were done before; ``others`` rows were left out (see `extract`).
    """
    decoded, found = int(rows["decoded"].sum()), int(rows["found"].sum())
    rate = decoded / max(rows["seconds"].sum(), 1e-3)
    left_out = f"; {others:,} rows are of videos that this corpus does not hold: they are left out" if others else ""
    return (
        f"{len(rows):,} videos, {_reasons(rows, 'partial')}, {_reasons(rows, 'failed')}; "
        f"{decoded:,} frames: {found:,} with a face, {decoded - found:,} without, {int(rows['several'].sum()):,} with "
        f"several; {reused:,} videos reused; {seconds:,.1f} s, {rate:,.1f} frames a second a core{left_out}"
    )


def _reasons(rows, status):
    """For instance "2 failed (empty file 1, truncated 1)"."""
    counts = rows.loc[rows["status"] == status, "reason"].value_counts(sort=False)
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
    return f"{counts.sum():,} {status}" + (f" ({reasons})" if reasons else "")


def crops(out, dataset):
    """List the crops of an extraction.

    Returns
    -------
    pandas.DataFrame
        One row a crop, ordered by video and frame: the canonical columns that the corpus tells: img_path (relative to
        ``out``), label, forgery, video, identity, source_identity, frame.

    Raises
    ------
    CorpusError
        There is no ledger.
    """
    table = Path(out) / dataset / "ledger.csv"
    if not table.is_file():
        raise CorpusError(f"{table}: no such ledger. Extract the faces first (python -m fairdf_utils faces).")
    rows = []
    for video in ledger.read(table).itertuples():
        folder = f"{dataset}/faces/{video.video}"
        names = sorted(os.listdir(Path(out, folder))) if video.found else []
        told = (video.label, video.forgery, video.video, video.identity, video.source_identity)
        rows += [(f"{folder}/{name}", *told, int(Path(name).stem)) for name in names if Path(name).stem.isdecimal()]
    columns = ["img_path", "label", "forgery", "video", "identity", "source_identity", "frame"]
    return pd.DataFrame(rows, columns=columns)


def main_faces(options) -> int:
    """The sub-command `faces`: 0, or 1 if any video failed, wholly or in part."""
    rows = extract(
        options.root,
        options.layout,
        options.out,
        dataset=options.dataset,
        frames=options.frames,
        size=options.size,
        margin=options.margin,
        image_format=options.format,
        compression=options.compression,
        jobs=options.jobs,
    )
    for row in rows[rows["status"] != "ok"].itertuples():
        print(f"{row.status}: {row.path!r}: {row.reason}")
    return int((rows["status"] != "ok").any())
