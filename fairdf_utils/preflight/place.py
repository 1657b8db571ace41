"""What is known of a plan before anything runs: where its paths lead, what is there, and what will be made."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from fairdf_utils.corpora import extraction
from fairdf_utils.data.manifests import SPLIT_FILES, read_manifest
from fairdf_utils.data.vocabulary import COLUMNS

GB = 1e9
# A corpus is divided so by identity; official lists come near it.
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
PNG = 0.6  # bytes of a face crop as PNG at level 1, in bytes of its pixels: photographs lie between 0.45 and 0.65
HEADER = 128  # bytes of a .npy file before its pixels


class Place:
    """The plan of a run, looked at from the folder of its chapters; every file is read once.

    Parameters
    ----------
    plan : has `jobs` and `steps`, each with `repetition`, `folder`, `corpus` and `values`
    run : the run folder
    notebooks : folder of the chapters, which paths in a parameters file start from
    """

    def __init__(self, plan, run: str | Path, notebooks: str | Path):
        self.plan, self.run, self.notebooks = plan, Path(run), Path(notebooks).resolve()
        # What absolute paths in manifests are made relative to; "" of the embedded benchmark.
        self.image_root = next((self.path(root) for step in plan.steps if (root := step.values.get("image_root"))), "")
        # The values of each step that makes manifests, by the folder that gets them, which has the data set's name.
        self.corpora = {
            self.path(f"{step.values['prepared']}/manifests/{step.corpus}"): step.values
            for step in plan.steps
            if step.corpus
        }
        self._read: dict[Path, pd.DataFrame] = {}

    def path(self, value: str) -> Path:
        """Where a value of the parameters file leads, as the reader would type it."""
        found = Path(os.path.normpath(self.notebooks / value))
        return Path(os.path.relpath(found)) if found.is_relative_to(Path.cwd()) else found

    def videos(self, values: dict) -> pd.DataFrame:
        """The videos of the corpus that a step reads; none where they cannot be listed, see `_look`."""
        root, layout, compression = self.path(values["corpus_root"]), values["layout"], values["compression"]
        key = root / layout / compression
        return self._look(key, extraction.TOLD, extraction.list_videos, root, layout, compression)

    def manifest(self, path: Path) -> pd.DataFrame:
        """The rows of a manifest; none where it cannot be read, see `_look`."""
        return self._look(path, COLUMNS, read_manifest, path, self.image_root)

    def _look(self, key: Path, columns: Sequence[str], read: Callable, *arguments) -> pd.DataFrame:
        """What is read there; if it is refused, no rows, and the reason in `attrs["refused"]`."""
        if key not in self._read:
            try:
                with warnings.catch_warnings(action="ignore"):  # chapter 1 shows them
                    self._read[key] = read(*arguments)
            except (ValueError, OSError) as error:
                self._read[key] = pd.DataFrame(columns=columns)
                self._read[key].attrs["refused"] = str(error)
        return self._read[key]

    def split(self, folder: Path, split: str) -> pd.DataFrame:
        """The rows of a data set's split that can be read."""
        found = [self.manifest(folder / name) for name in SPLIT_FILES[split]]
        return pd.concat([rows for rows in found if len(rows)] or found[:1])

    def images(self, folder: Path, split: str, labels: Sequence[int] = (0, 1)) -> int:
        """Images of a split with these labels; of a corpus that is still to be read, a share of its frames."""
        if corpus := self.corpora.get(folder):
            rows, each = self.videos(corpus), corpus["frames"] * SHARES[split]
        else:
            rows, each = self.split(folder, split), 1
        return round(each * rows["label"].isin(labels).sum())

    def waiting(self, folder: Path) -> pd.DataFrame:
        """The videos whose faces are still to be cut out, of the corpus that manifests in a folder will be made of."""
        videos, prepared = self.videos(self.corpora[folder]), self.path(self.corpora[folder]["prepared"])
        return extraction.waiting(videos, extraction.read_ledger(prepared / folder.name / "ledger.csv"))

    def trainings(self) -> Iterator[tuple[object, list[tuple[Path, str]]]]:
        """Each step that trains, and the manifests' folder and split that it trains on, validates on, is tested on."""
        tests = {step.repetition: step.values.get("test_sets", []) for step in self.plan.steps}
        for step in self.plan.steps:
            if "method" in step.values:
                wanted = [(step.values["train_set"], "train"), (step.values["train_set"], "val")]
                wanted += [(name, "test") for name in tests[step.repetition]]
                yield step, [(self.path(f"{step.values['manifests']}/{name}"), split) for name, split in wanted]

    def needs(self, crops: Mapping[str, float]) -> Iterator[tuple[Path, str, int]]:
        """(folder, what is written into it, bytes) of crops and decoded images that are not there yet.

        `crops` are the bytes of one crop by data set, where they were measured.
        """
        for folder, values in self.corpora.items():
            each = crops.get(folder.name, PNG * 3 * values["crop_size"] ** 2)
            count = values["frames"] * len(self.waiting(folder))
            yield self.path(values["prepared"]), f"crops of {folder.name}", int(each * count)
        decoded = {}
        for step, sets in self.trainings():
            key = self.path(step.values["data_dir"]), step.values["image_size"]
            decoded.setdefault(key, {}).update(dict.fromkeys(sets))
        for (data_dir, image_size), sets in decoded.items():
            there = {path.stat().st_size - HEADER for path in data_dir.glob("*.npy")}
            sizes = [self.images(*part) * 3 * image_size**2 for part in sets]
            yield data_dir, f"decoded images of {image_size} px", sum(size for size in sizes if size not in there)


def existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
