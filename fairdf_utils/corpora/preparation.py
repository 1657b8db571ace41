"""One corpus from its videos to checked manifests: what chapter 1 does step by step."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from fairdf_utils.corpora import extraction, splits
from fairdf_utils.corpora.annotations import Merged, lost_by_group, merge, read_annotations
from fairdf_utils.corpora.persons import SAME_PERSON, identify, refuse_persons
from fairdf_utils.data import checks

SHOWN = 10  # videos that failed; the ledger has all


@dataclass(frozen=True)
class Prepared:
    """What became of a corpus. ``print(prepared)`` tells it; all but ``ledger`` is None where nobody annotated it."""

    ledger: pd.DataFrame  # of `extraction.extract`
    merged: Merged | None = None
    lost: pd.DataFrame | None = None  # of `annotations.lost_by_group`
    split: splits.Split | None = None
    report: checks.Report | None = None

    def __str__(self) -> str:
        failed = self.ledger[self.ledger["status"] != "ok"]
        lines = [f"{video.status}: {video.path!r}: {video.reason}" for video in failed.head(SHOWN).itertuples()]
        lines += [f"and {len(failed) - SHOWN:,} more, see the ledger"] if len(failed) > SHOWN else []
        if self.split is None:
            return "\n".join(lines)
        lost = self.lost[self.lost["videos"] > 0].assign(share=(100 * self.lost["share"]).round(1).astype(str) + " %")
        dropped = self.split.losses()
        parts = {
            "": "\n".join(lines),
            "Faces and annotations": self.merged.summary().to_string(header=False, index_names=False),
            "Frames without a face, by group": lost.to_string(index_names=False),
            "Split": "\n".join([*self.split.notes, self.split.shares().round(2).to_string(index_names=False)]),
            "Dropped by the split": dropped.to_string(index_names=False) if len(dropped) else "",
            "Checks": str(self.report),
        }
        return "\n\n".join(f"{title}\n{text}".strip() for title, text in parts.items() if text)


def prepare(
    corpus_root: str | Path,
    layout: str,
    prepared: str | Path,
    dataset: str = "",
    annotations: Sequence[str | Path] = (),
    mapping: str | Path = "",
    split_by: str | Path = "identity",
    persons: str = "names",
    same_person: float = SAME_PERSON,
    compression: str = "c23",
    frames: int = 30,
    crop_size: int = 256,
    margin: float = 1.3,
    image_format: str = "png",
    workers: int = -1,
    seed: int = 0,
) -> Prepared:
    """Cut the faces out of a corpus, give them their demographics, split them by persons, write and check manifests.

    Crops and ledger come to ``<prepared>/<dataset>``, manifests to ``<prepared>/manifests/<dataset>``. The same call
    goes on with one that was killed. What can be refused is refused before the first video is opened.

    Parameters
    ----------
    corpus_root, layout, compression, frames, margin, image_format
        See `extraction.extract`, as for ``crop_size`` (pixels; there ``size``) and ``workers`` (there ``jobs``).
    dataset : str
        By default the layout's name.
    annotations, mapping
        See `annotations.read_annotations`. Without annotations the faces are all that is made.
    split_by : str or Path
        "identity", or the official lists: of "ffpp" their folder, of "celebdf" the file.
    persons, same_person
        See `persons.identify`; by faces only with ``split_by`` "identity".
    seed : int
        Of the split.

    Raises
    ------
    CorpusError, ManifestError
        The corpus, an annotation or a list cannot be used, or a split would lack a class.
    OSError
        Crops cannot be written: the disk is full, for instance. What is done stays done.
    """
    name, prepared = dataset or layout, Path(prepared)
    annotated = read_annotations(annotations, layout, mapping or None) if annotations else None
    if split_by != "identity":
        splits.read_official(layout, split_by)
    refuse_persons(persons, split_by, same_person)
    ledger = extraction.extract(
        corpus_root, layout, prepared, name, frames, crop_size, margin, image_format, compression, workers
    )
    if annotated is None:
        return Prepared(ledger)
    merged = merge(extraction.crops(prepared, name), annotated)
    if split_by == "identity":
        rows, said = identify(merged.rows, prepared, name, layout, split_by, persons, same_person, workers)
        parts = splits.split(rows, seed=seed)
        parts = replace(parts, notes=(*said, *parts.notes))
    elif layout == "ffpp":
        parts = splits.official_ffpp(merged.rows, split_by)
    else:
        parts = splits.celebdf_test_list(merged.rows, split_by, seed=seed)
    folder = prepared / "manifests" / name
    splits.write_splits(parts, folder)
    report = checks.check([folder], images=prepared, size=crop_size)
    return Prepared(ledger, merged, lost_by_group(ledger, annotated), parts, report)


def main_prepare(options: argparse.Namespace) -> int:
    """The sub-command `prepare`: 0, or 1 if no video gave a face or the manifests hold errors."""
    same = "layout dataset annotations mapping split_by persons same_person compression frames margin seed"
    given = {name: getattr(options, name) for name in same.split()}
    given |= {"crop_size": options.size, "image_format": options.format, "workers": options.jobs}
    made = prepare(options.root, prepared=options.out, **given)
    print(f"\n{made}\n" if str(made) else "")
    if made.report is None:
        print("No annotations were given: there are faces now, and no manifests.")
        return int(not made.ledger["found"].any())
    print(f"Give the chapters manifests: {Path(options.out, 'manifests')} and image_root: {options.out}")
    return int(len(made.report.errors) > 0)
