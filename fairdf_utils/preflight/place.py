"""What is known of a plan before anything runs: where its paths lead, which manifests are there or will be made."""

import os
import warnings
from functools import cached_property
from pathlib import Path

import pandas as pd

from fairdf_utils.corpora.extraction import read_ledger
from fairdf_utils.corpora.layouts import find_videos
from fairdf_utils.data.manifests import SPLIT_FILES, ManifestError, read_manifest

# A corpus is divided so by identity; official lists come near it.
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


class Place:
    """The plan of a run, looked at from the folder of its chapters; every file is read once.

    Parameters
    ----------
    plan : has `steps`, each with `chapter`, `repetition` and `values`
    run : the run folder
    notebooks : folder of the chapters, which paths in a parameters file start from
    """

    def __init__(self, plan, run: str | Path, notebooks: str | Path):
        self.plan, self.run, self.notebooks = plan, Path(run), Path(notebooks).resolve()
        roots = {step.values["image_root"] for step in plan.steps if step.values.get("image_root")}
        self.image_root = next((self.path(root) for root in sorted(roots)), "")  # "": the embedded benchmark's
        self._read: dict[Path, pd.DataFrame | ManifestError] = {}

    def path(self, value: str) -> Path:
        """Where a value of the parameters file leads, as the reader would type it."""
        found = Path(os.path.normpath(self.notebooks / value))
        return Path(os.path.relpath(found)) if found.is_relative_to(Path.cwd()) else found

    @cached_property
    def corpora(self) -> dict[Path, dict]:
        """The values of each step that makes manifests, by the folder that gets them."""
        made = {}
        for values in (step.values for step in self.plan.steps):
            if values.get("corpus_root"):
                made[self.path(f"{values['prepared']}/manifests/{dataset_of(values)}")] = values
        return made

    @cached_property
    def image_root(self) -> str | Path:
        """The folder that absolute paths in manifests are made relative to, "" for the embedded benchmark."""
        return next((self.path(root) for step in self.plan.steps if (root := step.values.get("image_root"))), "")

    def videos(self, values: dict) -> pd.DataFrame | Exception:
        """The videos of the corpus that a step reads, or why they cannot be listed."""
        key = self.path(f"{values['corpus_root']}/{values['layout']}/{values['compression']}")
        if key not in self._read:
            try:
                found = find_videos(self.path(values["corpus_root"]), values["layout"], values["compression"])
            except (ValueError, OSError) as error:
                found = error
            self._read[key] = found
        return self._read[key]

    def manifest(self, path: Path) -> pd.DataFrame | ManifestError:
        """The rows of a manifest, or why it cannot be read."""
        if path not in self._read:
            try:
                with warnings.catch_warnings(action="ignore"):  # chapter 1 shows them
                    self._read[path] = read_manifest(path, self.image_root)
            except ManifestError as error:
                self._read[path] = error
        return self._read[path]

    def split(self, folder: Path, split: str) -> list[pd.DataFrame]:
        """The manifests of a data set's split that are there and can be read."""
        found = [self.manifest(folder / name) for name in SPLIT_FILES[split]]
        return [rows for rows in found if isinstance(rows, pd.DataFrame)]

    def images(self, folder: Path, split: str, label: int | None = None) -> int:
        """Images of a split (with a label): rows of manifests; of a corpus not yet read, a share of the frames."""
        frames_each = 1
        if folder in self.corpora:
            frames_each, found = self.corpora[folder]["frames"] * SHARES[split], [self.videos(self.corpora[folder])]
        else:
            found = self.split(folder, split)
        labels = [rows["label"] for rows in found if isinstance(rows, pd.DataFrame)]
        return round(frames_each * sum(len(rows) if label is None else (rows == label).sum() for rows in labels))

    def waiting(self, values: dict) -> pd.DataFrame:
        """The videos of a corpus whose faces are still to be cut out."""
        videos = self.videos(values)
        if not isinstance(videos, pd.DataFrame):
            return pd.DataFrame(columns=["path", "video"])
        done = read_ledger(self.path(f"{values['prepared']}/{dataset_of(values)}/ledger.csv"))
        settled = done.loc[(done["status"] == "ok") | (done["reason"] == "no face"), "video"]
        return videos[~videos["video"].isin(settled)]


def dataset_of(values: dict) -> str:
    """The name of the data set that chapter 1 makes of a corpus."""
    return values.get("dataset") or values["layout"]


def existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
