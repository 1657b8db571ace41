"""What a run will cost, from two steps of each of its trainings on the device at hand: hours, memory, disk.

Counts are exact where manifests exist; of corpora that are still to be read they are their videos times the frames
asked for. Times are measured, and scaled up where a whole batch would take too long here.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd
from joblib import effective_n_jobs

from fairdf_utils.corpora.extraction import recipe_of
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.preflight import measure
from fairdf_utils.preflight.place import GB, Place

HOUR = 3600
LIMIT = 90  # seconds that all measurements together may take
NOT_IN_IT = (
    "Not in it: chapters 2 and 5 to 9, rendering, decoding crops for the first time, the start of each notebook, and "
    "whatever else runs on this machine."
)


@dataclass(frozen=True)
class Bill:
    """The parts of an estimate; what could not be measured is NaN, and `error` says why.

    `trainings` has a row a detector: `detector`, `trainings` (seeds that are not done), `steps` and `images` (scored,
    for validation too) of all of them, `step` and `image` (seconds of one), `pairs` (that were timed) of `batch_size`,
    `on` (device and precision), `hours`, `memory` (bytes at the peak of one), `stored` (bytes of all checkpoints).
    `corpora` has a row a corpus: `dataset`, `videos` (still to be read), `frames`, `frame` (seconds of one), `crop`
    (bytes of one), `processes`, `hours`. `disk` has `folder`, `what` and `bytes`.
    """

    trainings: pd.DataFrame
    corpora: pd.DataFrame
    disk: pd.DataFrame
    at_a_time: int  # steps

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    @property
    def too_large(self) -> list[str]:
        """The detectors that the device has no memory for."""
        return [row.detector for row in self.trainings.itertuples() if "OutOfMemory" in row.error]


def estimate(*places: Place) -> Bill:
    """Measure what the extractions and trainings of plans without faults will take, with their scores.

    What is done is left out: videos whose faces are there, and epochs of trainings in the run folders. The others are
    counted up to the cap, which a training with `patience` need not reach. The plans differ in their worlds alone.
    """
    corpora, trainings = [row for place in places for row in _corpora(place)], _trainings(places)
    calls = {repr(row["call"]): row["call"] for row in [*corpora, *trainings]}
    told = dict(zip(calls, measure.measure(list(calls.values()), LIMIT), strict=True))
    corpora = _table(corpora, told, "dataset videos frames processes crop frame")
    counts = "detector trainings steps images batch_size"
    trainings = _table(trainings, told, f"{counts} step pairs on memory stored image")
    corpora["hours"] = corpora["videos"] * corpora["frames"] * corpora["frame"] / corpora["processes"] / HOUR
    seconds = trainings["steps"] * trainings["step"] + trainings["images"] * trainings["image"]
    trainings["hours"], trainings["stored"] = seconds / HOUR, trainings["stored"] * trainings["trainings"]
    crops = corpora.drop_duplicates("dataset").set_index("dataset")["crop"].dropna()
    disk = [need for place in places for need in place.needs(crops)]
    run = Path(os.path.commonpath([place.run for place in places]))
    disk += [(run, "checkpoints", size) for size in trainings["stored"]]
    on_cpu = trainings["on"].astype(str).str.startswith("cpu").all()  # steps on one GPU take turns
    at_a_time = min(places[0].plan.jobs, os.cpu_count() or 1) if on_cpu else 1
    return Bill(trainings, corpora, pd.DataFrame(disk, columns=["folder", "what", "bytes"]), at_a_time)


def _table(rows: list[dict], told: dict[str, dict], columns: str) -> pd.DataFrame:
    """The rows with what their calls told; an `error` where the last column was not measured."""
    columns, late = columns.split(), f"not measured within the {LIMIT} s for all measurements"
    rows = [row | told[repr(row["call"])] for row in rows]
    for row in rows:
        row.setdefault("error", "" if columns[-1] in row else late)
    return pd.DataFrame(rows, columns=[*columns, "error"])


def _trainings(places: Sequence[Place]) -> list[dict]:
    """What each detector has left to do, and the `call` that measures it, the same one for what takes equally long."""
    rows, none = {}, dict.fromkeys(("trainings", "steps", "images"), 0)
    asked = [(place, *training) for place in places for training in place.trainings()]
    for place, step, sets in asked:
        config = TrainingConfig(**{field.name: step.values[field.name] for field in fields(TrainingConfig)})
        history, epochs = place.run / step.folder / "history.csv", config.epochs
        if history.exists():
            aucs = pd.read_csv(history)["val_auc"]
            flat = len(aucs) - 1 - aucs.argmax()  # epochs since the best
            epochs = 0 if 0 < config.patience <= flat else epochs - len(aucs)
        if epochs > 0:
            kind = config.method if config.method in ("fairdf", "ucf") else "ori"
            same = replace(config, detector="", method=kind, seed=0, epochs=1, weights="")
            call = measure.training, (same, step.values["device"], step.values["threads"])
            new = {"detector": config.detector, "batch_size": config.batch_size, "call": call}
            row = rows.setdefault((config.detector, repr(call)), new | none)
            row["trainings"] += 1
            row["steps"] += epochs * max(1, place.images(*sets[0], labels=[1]) // config.batch_size)
            row["images"] += epochs * place.images(*sets[1]) + sum(place.images(*part) for part in sets[1:])
    return list(rows.values())


def _corpora(place: Place) -> list[dict]:
    """What each corpus has left to read, and the `call` that measures it, on two of its videos."""
    rows = []
    for folder, values in place.corpora.items():
        paths, root = place.waiting(folder)["path"], place.path(values["corpus_root"]).absolute()
        if count := len(paths):
            recipe = recipe_of(*(values[name] for name in ("layout", "compression", "frames", "crop_size", "margin")))
            call = measure.extraction, (root, paths.iloc[[count // 3, 2 * count // 3]].tolist(), recipe)
            row = {"dataset": folder.name, "videos": count, "frames": values["frames"], "call": call}
            rows.append(row | {"processes": effective_n_jobs(values["workers"])})
    return rows


def _lines(bill: Bill) -> Iterator[str]:
    for row in bill.corpora.itertuples():
        took = f"{row.frame:.2g} s a frame: {_span(row.hours)}" if row.frame == row.frame else f"unknown ({row.error})"
        many = f"{row.videos:,} videos x {row.frames} frames with {row.processes} processes"
        yield f"faces of {row.dataset}: {many}, {took}"
    if len(bill.trainings):
        yield _shown(bill.trainings)
        hours = bill.trainings["hours"].sum(skipna=False)
        together = f", {_span(hours / bill.at_a_time)} with {bill.at_a_time} at a time" if bill.at_a_time > 1 else ""
        yield f"trainings and scores: {_span(hours)} one after the other{together}"
    for row in bill.trainings.itertuples():
        if row.error:
            yield f"{row.detector}: {row.error}"
        if row.pairs < row.batch_size:
            yield f"{row.detector}: {row.pairs:.0f} of {row.batch_size} pairs were timed, time and memory scaled up"
    for folder, rows in bill.disk[bill.disk["bytes"] > 0].groupby("folder", sort=False):
        parts = rows.groupby("what", sort=False)["bytes"].sum()
        yield f"disk of {folder}: " + ", ".join(f"{size / GB:.2g} GB of {what}" for what, size in parts.items())
    if len(bill.trainings) or len(bill.corpora):
        yield NOT_IN_IT


def _shown(rows: pd.DataFrame) -> str:
    names = {"detector": "detector", "trainings": "trainings", "steps": "steps", "step": "s a step", "on": "on"}
    names |= {"images": "images scored", "image": "ms an image", "memory": "GB of memory", "hours": "time"}
    forms = {"step": "{:.3g}".format, "image": "{:.3g}".format, "memory": "{:.1f}".format, "hours": _span}
    rows = rows.assign(image=rows["image"] * 1000, memory=rows["memory"] / GB)
    header = list(names.values())
    return rows.to_string(index=False, columns=list(names), header=header, formatters=forms, na_rep="unknown")


def _span(hours: float) -> str:
    if hours != hours:
        return "unknown"
    for size, unit in ((1, "h"), (1 / 60, "min")):
        if hours >= size:
            return f"{hours / size:.2g} {unit}" if hours < 100 * size else f"{hours / size:,.0f} {unit}"
    return f"{hours * HOUR:.0f} s"
