"""Which data sets a run reads, and how many bytes its crops and decoded images take."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from fairdf_utils.preflight.place import Place, dataset_of

PNG = 0.6  # bytes of a face crop as PNG at level 1, in bytes of its pixels: photographs lie between 0.45 and 0.65
HEADER = 128  # bytes of a .npy file before its pixels


def bytes_by_folder(place: Place, crops: Mapping[str, float | None] | None = None) -> Iterator[tuple[Path, str, int]]:
    """(folder, what is written into it, bytes) of crops and decoded images that are not there yet.

    `crops` are the bytes of one crop by data set, where they were measured.
    """
    for values in place.corpora.values():
        name = dataset_of(values)
        measured = (crops or {}).get(name) or 0.0  # NaN where no face was found in what was measured
        each = measured if measured > 0 else PNG * 3 * values["crop_size"] ** 2
        yield (
            place.path(values["prepared"]),
            f"crops of {name}",
            int(each * values["frames"] * len(place.waiting(values))),
        )
    decoded = {}
    for values, sets in sets_of(place):
        decoded.setdefault((values["data_dir"], values["image_size"]), {}).update(dict.fromkeys(sets))
    for (data_dir, image_size), sets in decoded.items():
        there = {path.stat().st_size - HEADER for path in place.path(data_dir).glob("*.npy")}
        sizes = [place.images(folder, split) * 3 * image_size**2 for folder, split in sets]
        yield place.path(data_dir), f"decoded images of {image_size} px", sum(s for s in sizes if s not in there)


def sets_of(place: Place) -> Iterator[tuple[dict, list[tuple[Path, str]]]]:
    """The values of each step that trains, and what its detector reads: (folder of manifests, split)."""
    steps = [step.values for step in place.plan.steps if "detector" in step.values]
    tests = {(v["detector"], v["seed"]): v["test_sets"] for v in steps if "test_sets" in v}
    for values in (values for values in steps if "method" in values):
        wanted = [(values["train_set"], "train"), (values["train_set"], "val")]
        wanted += [(name, "test") for name in tests.get((values["detector"], values["seed"]), [])]
        yield values, [(place.path(f"{values['manifests']}/{name}"), split) for name, split in wanted]
