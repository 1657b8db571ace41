"""What a run will cost, from two steps of each of its trainings on the device at hand: hours, memory, disk.

Counts are exact where manifests exist; of corpora that are still to be read they are their videos times the frames
asked for. Times are measured, and scaled up where a whole batch would take too long here.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd
from joblib import effective_n_jobs

from fairdf_utils.corpora.extraction import recipe_of
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.preflight import measure
from fairdf_utils.preflight.place import Place, dataset_of
from fairdf_utils.preflight.sizes import bytes_by_folder, sets_of

GB, HOUR, NAN = 1e9, 3600, float("nan")
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


def estimate(plan, run: str | Path, notebooks: str | Path, limit: float = LIMIT) -> Bill:
    """Measure what the extractions and trainings of a plan that are not done yet will take, with their scores.

    Parameters
    ----------
    plan : has `steps`, each with `chapter`, `repetition` and `values`, and `jobs`; without faults
    run : the run folder; a training that it holds counts with the epochs that are left
    notebooks : folder of the chapters, which paths in a parameters file start from
    limit : seconds after which measuring ends
    """
    place = Place(plan, run, notebooks)
    corpora, trainings = list(_corpora(place)), _trainings(place)
    calls = {repr(row["call"]): row["call"] for row in [*corpora, *trainings]}
    found = dict(zip(calls, measure.measure(list(calls.values()), limit), strict=True))
    for row in [*corpora, *trainings]:
        told, wanted = found[repr(row.pop("call"))], row.pop("wanted")
        row |= {name: told.get(name, NAN) for name in wanted}
        late = f"not measured within the {limit:g} s for all measurements"
        row["error"] = told.get("error", "" if wanted[-1] in told else late)
    for row in corpora:
        row["hours"] = row["videos"] * row["frames"] * row["frame"] / row["processes"] / HOUR
    for row in trainings:
        row["hours"] = (row["steps"] * row["step"] + row["images"] * row["image"]) / HOUR
        row["stored"] *= row["trainings"]
    disk = list(bytes_by_folder(place, {row["dataset"]: row["crop"] for row in corpora}))
    disk += [(place.run, "checkpoints", row["stored"]) for row in trainings]
    disk = pd.DataFrame(disk, columns=["folder", "what", "bytes"])
    on_cpu = all(str(row["on"]).startswith("cpu") for row in trainings)  # steps on one GPU take turns
    at_a_time = min(plan.jobs, os.cpu_count() or 1) if on_cpu else 1
    return Bill(pd.DataFrame(trainings), pd.DataFrame(corpora), disk, at_a_time)


def _trainings(place: Place) -> list[dict]:
    """A row a detector: what there is to do, and the call that measures it."""
    rows = {}
    for values, sets in sets_of(place):
        config = TrainingConfig(**{field.name: values[field.name] for field in fields(TrainingConfig)})
        epochs = config.epochs - _epochs_done(place.run / f"03_sam_training/{config.detector}-s{config.seed}")
        if epochs > 0:
            row = rows.setdefault(config.detector, _row_of(config, values))
            row["trainings"] += 1
            row["steps"] += epochs * max(1, place.images(*sets[0], label=1) // config.batch_size)
            row["images"] += epochs * place.images(*sets[1]) + sum(place.images(*part) for part in sets[1:])
    return list(rows.values())


def _row_of(config: TrainingConfig, values: dict) -> dict:
    """Nothing to do yet; the call is the same for what takes equally long."""
    kind = config.method if config.method in ("fairdf", "ucf") else "ori"
    same = replace(config, detector="", method=kind, seed=0, epochs=1, weights="")
    return {
        "detector": config.detector,
        **dict.fromkeys(("trainings", "steps", "images"), 0),
        "batch_size": config.batch_size,
        "call": (measure.training, (same, values["device"], values["threads"])),
        "wanted": ("step", "pairs", "on", "memory", "stored", "image"),
    }


def _epochs_done(folder: Path) -> int:
    history = folder / "history.csv"
    return len(pd.read_csv(history)) if history.exists() else 0


def _corpora(place: Place) -> Iterator[dict]:
    """A row a corpus with videos that are still to be read, and the call that measures it."""
    for values in place.corpora.values():
        paths, root = place.waiting(values)["path"], place.path(values["corpus_root"]).absolute()
        recipe = recipe_of(*(values[name] for name in ("layout", "compression", "frames", "crop_size", "margin")))
        if len(paths):
            yield {
                "dataset": dataset_of(values),
                "videos": len(paths),
                "frames": values["frames"],
                "processes": effective_n_jobs(values["workers"]),
                "call": (
                    measure.extraction,
                    (root, paths.iloc[[len(paths) // 3, 2 * len(paths) // 3]].tolist(), recipe),
                ),
                "wanted": ("crop", "frame"),
            }


def _lines(bill: Bill) -> Iterator[str]:
    for row in bill.corpora.itertuples():
        took = f"{row.frame:.2g} s a frame: {_span(row.hours)}" if row.frame == row.frame else f"unknown ({row.error})"
        many = f"{row.videos:,} videos x {row.frames} frames with {row.processes} processes"
        yield f"faces of {row.dataset}: {many}, {took}"
    if len(bill.trainings):
        yield _table(bill.trainings)
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


def _table(rows: pd.DataFrame) -> str:
    shown = pd.DataFrame(
        {
            "detector": rows["detector"],
            "trainings": rows["trainings"],
            "steps": rows["steps"],
            "s a step": rows["step"].map("{:.3g}".format),
            "on": rows["on"],
            "images scored": rows["images"],
            "ms an image": (rows["image"] * 1000).map("{:.3g}".format),
            "GB of memory": (rows["memory"] / GB).map("{:.1f}".format),
            "time": rows["hours"].map(_span),
        }
    )
    return shown.to_string(index=False)


def _span(hours: float) -> str:
    if hours != hours:
        return "unknown"
    for size, unit in ((1, "h"), (1 / 60, "min")):
        if hours >= size:
            return f"{hours / size:.2g} {unit}" if hours < 100 * size else f"{hours / size:,.0f} {unit}"
    return f"{hours * HOUR:.0f} s"
