"""Everything that would stop a run later on, found before its first frame is decoded, as one list.

Files are read, videos are not opened, and nothing is written that stays. Each check gets the values of its parameters
once for each different set of them, however many steps have it. What is slow to import (torch, sklearn, networkx) is
imported where a check needs it.
"""

import difflib
import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path

import pandas as pd

from fairdf_utils.corpora import extraction
from fairdf_utils.corpora.annotations import read_annotations
from fairdf_utils.data.manifests import SPLIT_FILES
from fairdf_utils.data.vocabulary import COLUMNS, FORGERIES, scheme_of
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.preflight.place import GB, Place, existing
from fairdf_utils.rendered import images

# What chapters take themselves; the classes above check the rest.
RANGES = {
    **dict.fromkeys(("accepted_fpr", "bias"), (0, 1)),
    **dict.fromkeys(("processes", "robustness_images", "explained_images", "changed_persons"), (1, math.inf)),
    **dict.fromkeys(("threads", "seed", "data_seed", "resampling_seed"), (0, math.inf)),
    "pair_count": (8, math.inf),
    "benchmark_size": (64, 512),
}
FILES = ("mapping", "scores", "validation_scores", "checkpoint")


def find_faults(place: Place, elsewhere: bool = False) -> list[str]:
    """One sentence a fault, with value, remedy and the steps that have it; empty if nothing speaks against the run.

    Parameters
    ----------
    place : the run to be; its steps also have the `given` ones of their `values`
    elsewhere : the steps run on other machines, whose devices cannot be looked at
    """
    found = {}
    for names, check in CHECKS:
        if check is _device and elsewhere:
            continue
        asked = {}
        for step in place.plan.steps:
            values = {name: step.values[name] for name in names if name in step.values}
            if names[0] in values and (check not in GIVEN or step.given.keys() & values.keys()):
                asked.setdefault(repr(values), (values, []))[1].append(str(step))
        for values, steps in asked.values():
            for sentence in check(place, values):
                found.setdefault(sentence, {}).update(dict.fromkeys(steps))
    return [f"{sentence} [{_listed(list(steps))}]" for sentence, steps in found.items()]


def _listed(steps: list[str]) -> str:
    return ", ".join(steps[:2]) + (f" and {len(steps) - 2} more" if len(steps) > 2 else "")


def _said(call: Callable, *arguments, **options) -> Iterator[str]:
    """What a call of the code that will run says against its arguments."""
    try:
        with warnings.catch_warnings(action="ignore"):
            call(*arguments, **options)
    except (ValueError, OSError, RuntimeError) as error:
        yield " ".join(str(error).split())


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}" if close else f"there are {', '.join(known) or 'none'}"


def _corpus(place: Place, values: dict) -> Iterator[str]:
    if not values["corpus_root"]:
        return
    layout, dataset = values["layout"], values["dataset"] or values["layout"]
    if refused := place.videos(values).attrs.get("refused"):
        yield f"corpus_root: {refused}"
    recipe = extraction.recipe_of(layout, *(values[name] for name in ("compression", "frames", "crop_size", "margin")))
    begun = place.path(f"{values['prepared']}/{dataset}/parameters.json")
    yield from _said(extraction.refuse_unusable, recipe, dataset, values["workers"])
    yield from _said(extraction.refuse_other_parameters, begun, recipe)
    annotations = [place.path(path) for path in values["annotations"]]
    gone = [path for path in annotations if not path.is_file()]
    yield from (f"annotations: there is no file {path}" for path in gone)
    mapping = place.path(values["mapping"]) if values["mapping"] else None
    if not gone and (mapping is None or mapping.is_file()):
        yield from _said(read_annotations, annotations, layout, mapping, 100)
    if values["split_by"] != "identity":
        from fairdf_utils.corpora import splits

        yield from _said(splits.read_official, layout, place.path(values["split_by"]))


def _training_set(place: Place, values: dict) -> Iterator[str]:
    if "train_set" not in values:
        return
    folder = place.path(f"{values['manifests']}/{values['train_set']}")
    yield from _split_faults(place, values, "train_set", folder, ("train", "val"))
    trained, validated = (place.split(folder, part) for part in ("train", "val"))
    if folder in place.corpora or not len(trained):
        return
    if 0 in (counts := [int((trained["label"] == label).sum()) for label in (0, 1)]):
        yield f"train_set {folder.name!r} has {counts[0]:,} reals and {counts[1]:,} fakes to train on: give both"
    if other := sorted(set(validated["group"]).difference(scheme := scheme_of(trained["group"]))):
        yield (
            f"train_set {folder.name!r} has validation groups that its training groups, {', '.join(scheme)}, lack: "
            f"{', '.join(other)}; give both groups of one scheme"
        )


def _forgeries(place: Place, values: dict) -> Iterator[str]:
    folder = place.path(f"{values['manifests']}/{values['train_set']}")
    rows = place.videos(place.corpora[folder]) if folder in place.corpora else place.split(folder, "train")
    unnamed = sorted(set(rows["forgery"]).difference(FORGERIES))
    if unnamed and values["method"] in ("fairdf", "ucf"):
        yield (
            f"train_set {folder.name!r} has fakes of unknown forgery ({', '.join(unnamed)}), and method "
            f"{values['method']!r} learns to tell forgeries apart: name them in the column `forgery`, or choose "
            "another method"
        )


def _test_sets(place: Place, values: dict) -> Iterator[str]:
    if (sets := values.get("test_sets")) is None:
        return
    if not sets:
        yield "test_sets is empty: name at least one data set"
    if doubled := sorted({name for name in sets if sets.count(name) > 1}):
        yield f"test_sets names {', '.join(doubled)} twice: name each data set once"
    for name in dict.fromkeys(sets):
        folder = place.path(f"{values['manifests']}/{name}")
        yield from _split_faults(place, values, "test_sets", folder, ("test",))


def _split_faults(place: Place, values: dict, key: str, folder: Path, parts: tuple[str, ...]) -> Iterator[str]:
    """Faults of a data set's manifests, and images that they name in vain."""
    if folder in place.corpora:
        return
    if not folder.is_dir():
        there = {path.name for path in folder.parent.glob("*/") if any(path.glob("*.csv"))}
        there = sorted(there | {path.name for path in place.corpora if path.parent == folder.parent})
        yield (
            f"{key} names {folder.name!r}, which has no manifests in {folder.parent}; {_meant(folder.name, there)}. "
            "Prepare it with chapter 1 or `corpora`, correct the name, or say `missing: skip` for a test set"
        )
        return
    for part in parts:
        for name in SPLIT_FILES[part]:
            if refused := place.manifest(folder / name).attrs.get("refused"):
                yield refused
    rows = pd.concat([place.split(folder, part) for part in parts])
    if not values["image_root"]:
        drawn = {path for file in images.MANIFESTS.glob("*/*.csv") for path in place.manifest(file)["img_path"]}
        if lacking := len(set(rows["img_path"]) - drawn):
            yield (
                f'image_root is "", which is the embedded benchmark, and it has not {lacking:,} images of {folder}: '
                "give the folder that their img_path starts from"
            )
    elif (root := place.path(values["image_root"])).is_dir():
        from fairdf_utils.data.batches import check_images  # brings torch

        yield from _said(check_images, rows, root)


def _image_root(place: Place, values: dict) -> Iterator[str]:
    root, made = place.path(values["image_root"]), [place.path(made["prepared"]) for made in place.corpora.values()]
    if not root.is_dir() and root not in made:
        yield f"image_root {values['image_root']!r} is no folder ({root}): give the one that img_path starts from"


def _device(place: Place, values: dict) -> Iterator[str]:
    processes = values.get("processes", 1)
    if values["device"] in ("auto", "cpu") and processes < 2:
        return
    from fairdf_utils.model.stored import choose_device

    yield from _said(choose_device, values["device"])
    if values["device"] != "cpu":
        import torch

        if 0 < (there := torch.cuda.device_count()) < processes:
            yield f"processes is {processes}, and there are {there} GPUs: give a number up to that"


def _training(place: Place, values: dict) -> Iterator[str]:
    """What TrainingConfig says to each of its fields, alone; it stops at the first."""
    for name in (field.name for field in fields(TrainingConfig)):
        if name in values and name not in RANGES:
            yield from _said(TrainingConfig, **{name: values[name]})
    if values["processes"] > 0 and values["batch_size"] % values["processes"]:
        yield f"batch_size {values['batch_size']} must be a multiple of the {values['processes']} processes"


def _backbone(place: Place, values: dict) -> Iterator[str]:
    """The encoder is built once, with its weights: "imagenet" ones are fetched into the local cache now."""
    name, size, weights = values["backbone"], values["image_size"], values.get("weights", "")
    frozen = values.get("frozen_stages", 0)
    if name == "tiny" and not weights and not frozen and size in (16, 32, 64, 128, 256, 512):  # without torch
        return
    from fairdf_utils.model.encoders import Encoder

    wrong = list(_said(Encoder, "tiny", size, 8))
    if weights not in ("", "imagenet", "embedded"):
        weights = place.path(weights)
        if not weights.is_file():
            other = '"imagenet", "embedded" or ""'
            wrong.append(f"weights: there is no file {weights}: put a state dict there, or give {other}")
            weights = ""
    yield from wrong
    yield from _said(Encoder, name, 256 if wrong else size, 8, weights, frozen_stages=frozen)


def _rendering(place: Place, values: dict) -> Iterator[str]:
    if "bias" in values and not values.get("image_root"):
        yield from _said(images.check, 0, image_size=(values["image_size"], 64, 512))


def _judging(_: Place, values: dict) -> Iterator[str]:
    from fairdf_utils.fairness.resampling import Settings

    for name, value in values.items():
        yield from _said(Settings, **{name: value})


def _grouped(place: Place, values: dict) -> Iterator[str]:
    """Columns to judge by, where the scores are those of this run."""
    if values["scores"] or not values["by"]:
        return
    tested = [place.split(*part) for _, sets in place.trainings() for part in sets]
    known = dict.fromkeys([*COLUMNS, *(name for rows in tested for name in rows)])
    for name in values["by"]:
        if name not in known:
            yield f"by names {name!r}, a column of no manifest; {_meant(name, known)}"


def _within(_: Place, values: dict) -> Iterator[str]:
    for name, (low, high) in RANGES.items():
        if name in values and not low <= values[name] <= high:
            yield f"{name} is {values[name]}: give a number from {low:g}" + (f" to {high:g}" if high < math.inf else "")


def _persons(_: Place, values: dict) -> Iterator[str]:
    from fairdf_utils.corpora.persons import refuse_persons

    yield from _said(refuse_persons, values["persons"], values["split_by"], values["same_person"])


def _files(place: Place, values: dict) -> Iterator[str]:
    for name in FILES:
        if values.get(name) and not (path := place.path(values[name])).is_file():
            yield f"{name}: there is no file {path}; paths start from {place.notebooks}"


def _trained_here(_: Place, values: dict) -> Iterator[str]:
    if values["checkpoint_file"]:
        yield "checkpoint_file is for chapter 4 alone, by papermill: a whole run scores the detectors that it trains"


def _writable(place: Place, values: dict) -> Iterator[str]:
    for name, value in values.items():
        path = place.run if name == "run_dir" else place.path(value)
        try:
            with tempfile.TemporaryFile(dir=existing(path)):
                pass
        except OSError as error:
            yield f"{name} {path} cannot be written ({error.strerror}): choose another folder"


def _disk(place: Place, _: dict) -> Iterator[str]:
    """Folders on one file system share what is free there."""
    needs = {}
    for folder, what, size in place.needs({}):
        above = existing(folder)
        needs.setdefault(above.stat().st_dev, (above, []))[1].append((what, size))
    for above, parts in needs.values():
        needed, free = sum(size for _, size in parts), shutil.disk_usage(above).free
        if needed > free:
            told = ", ".join(f"{size / GB:.3g} GB of {what}" for what, size in parts)
            yield (
                f"the disk of {above} has {free / GB:.3g} GB free, and the run needs about {told}: free some, or give "
                "`data_dir` and `prepared` on another disk"
            )


_CORPUS = ("layout", "compression", "frames", "crop_size", "margin", "workers", "annotations", "mapping", "split_by")
CHECKS: list[tuple[tuple[str, ...], Callable[[Place, dict], Iterator[str]]]] = [
    (("corpus_root", "dataset", "prepared", *_CORPUS), _corpus),
    (("image_root", "train_set", "manifests"), _training_set),
    (("method", "manifests", "train_set"), _forgeries),
    (("image_root", "test_sets", "manifests"), _test_sets),
    (("backbone", "image_size", "weights", "frozen_stages"), _backbone),
    (("precision", "processes", *(field.name for field in fields(TrainingConfig))), _training),
    (("device", "processes"), _device),
    (("image_root",), _image_root),
    (("image_size", "bias", "image_root"), _rendering),
    (("resamples", "threshold", "permutations", "level", "cluster", "label_noise"), _judging),
    (("persons", "split_by", "same_person"), _persons),
    (("by", "scores"), _grouped),
    (("run_dir", *RANGES), _within),
    (("run_dir", *FILES), _files),
    (("run_dir", "data_dir", "prepared"), _writable),
    (("checkpoint_file",), _trained_here),
    (("run_dir",), _disk),
]
GIVEN = (_judging, _persons)  # the chapters' own values are good, and need no sklearn
