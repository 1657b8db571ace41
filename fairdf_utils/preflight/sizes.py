"""How many images a run will hold, and how many bytes its crops and decoded images take."""

from collections.abc import Iterator
from pathlib import Path

from fairdf_utils.preflight.place import Place, dataset_of

PNG = 0.6  # bytes of a face crop as PNG at level 1, in bytes of its pixels: photographs lie between 0.45 and 0.65
HEADER = 128  # bytes of a .npy file before its pixels


def bytes_by_folder(place: Place) -> Iterator[tuple[Path, str, int]]:
    """(folder, what is written into it, bytes) of crops and decoded images that are not there yet."""
    for values in place.corpora.values():
        size = PNG * 3 * values["crop_size"] ** 2 * values["frames"] * len(place.waiting(values))
        yield place.path(values["prepared"]), f"crops of {dataset_of(values)}", int(size)
    for (data_dir, image_size), sets in decoded_sets(place).items():
        there = {path.stat().st_size - HEADER for path in place.path(data_dir).glob("*.npy")}
        sizes = [place.images(folder, split) * 3 * image_size**2 for folder, split in sets]
        yield place.path(data_dir), f"decoded images of {image_size} px", sum(s for s in sizes if s not in there)


def decoded_sets(place: Place) -> dict[tuple[str, int], dict[tuple[Path, str], None]]:
    """The data sets (folder, split) that are decoded, by data_dir and image size: for training, and to be scored."""
    found, tested = {}, [values for values in _all_values(place) if "test_sets" in values and "detector" in values]
    for values in _all_values(place):
        if "train_set" in values and "method" in values:
            sets = found.setdefault((values["data_dir"], values["image_size"]), {})
            wanted = [(values["train_set"], "train"), (values["train_set"], "val")]
            for scored in tested:
                if (scored["detector"], scored["seed"]) == (values["detector"], values["seed"]):
                    wanted += [(name, "test") for name in scored["test_sets"]]
            sets.update(dict.fromkeys((place.path(f"{values['manifests']}/{name}"), split) for name, split in wanted))
    return found


def _all_values(place: Place) -> list[dict]:
    return [step.values for step in place.plan.steps]
