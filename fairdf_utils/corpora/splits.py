"""Training, validation and test sets that share no person.

A fake shows two persons, so swaps link persons to each other; what hangs together in that graph belongs into one
split. FF++'s persons come in pairs, and its graph falls into hundreds of components. The swaps of Celeb-DF link all 59
identities: there no assignment keeps every fake, so persons are assigned one by one, and a fake whose two persons fall
into different splits is dropped, and counted.

The rule (:func:`split`): components stay whole if that brings every split within :data:`TOLERANCE` of its share of the
images. Otherwise those components that hold more images than the smallest share are broken up into their persons.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fairdf_utils.corpora.partition import partition
from fairdf_utils.data.csv_rows import ManifestError
from fairdf_utils.data.manifests import SPLIT_FILES, count_by, write_manifest
from fairdf_utils.data.vocabulary import SIX_GROUP_DATASETS, SIX_GROUPS, scheme_of

SPLITS = tuple(SPLIT_FILES)
TOLERANCE = 0.05  # of the images
ACROSS = "its two persons are in different splits"
UNLISTED = "not in the official split"
TESTED = "it shows a person of the test list"
NAMELESS = "Identities are not known: each video counts as a person of its own."
_NEEDED = ("video", "identity", "source_identity", "label", "group")
# A line of Celeb-DF's list.
_TESTED = re.compile(r"([01])\s+((?:Celeb-real|YouTube-real|Celeb-synthesis)/[^/\\]+)\.\w+\s*")


class IdentityGraph(NamedTuple):
    """Who is linked to whom."""

    persons: pd.DataFrame  # identity, component (0 is the one with most images), images
    swaps: pd.DataFrame  # identity, source_identity, videos, images


@dataclass(frozen=True)
class Split:
    """Rows with their split, and what did not fit into any."""

    rows: pd.DataFrame  # canonical rows with column ``split``
    dropped: pd.DataFrame  # canonical rows with column ``reason``
    wanted: tuple[float, ...]  # share of the images asked for, by split; NaN where the split is given by a list
    notes: tuple[str, ...]  # sentences: how persons were assigned, what a list names in vain

    def shares(self) -> pd.DataFrame:
        """What each split holds: ``images``, ``share`` of the images kept, ``wanted``, and what it rests on."""
        table = count_by(self.rows, "split", SPLITS)
        table.insert(1, "share", table["images"] / max(len(self.rows), 1))
        table.insert(2, "wanted", self.wanted)
        return table

    def losses(self) -> pd.DataFrame:
        """Why rows were dropped: ``images`` and ``videos`` by reason."""
        return self.dropped.groupby("reason")["video"].agg(images="size", videos="nunique")


def identity_graph(rows: pd.DataFrame) -> IdentityGraph:
    """Link the two persons of every fake, and persons who share a video; of canonical rows, group and label aside."""
    first, second, names = _persons(rows)
    component = components(first, second, rows["video"], len(names))
    persons = pd.DataFrame({"identity": names, "component": component})
    persons["images"] = np.bincount(first, minlength=len(names))
    order = persons.groupby("component")["images"].sum().sort_values(ascending=False, kind="stable").index
    persons["component"] = persons["component"].map({old: new for new, old in enumerate(order)})
    fakes = rows[rows["source_identity"] != ""].groupby(["identity", "source_identity"], sort=False)
    swaps = fakes.agg(videos=("video", "nunique"), images=("video", "size")).reset_index()
    return IdentityGraph(persons.sort_values(["component", "identity"], ignore_index=True), swaps)


def _persons(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each row the number of its person and of the other one (itself where there is none); and all names."""
    source = rows["source_identity"].where(rows["source_identity"] != "", rows["identity"])
    numbers, names = pd.factorize(np.concatenate([rows["identity"], source]).astype(object), sort=True)
    return numbers[: len(rows)], numbers[len(rows) :], names


def components(first: np.ndarray, second: np.ndarray, shared: pd.Series, count: int) -> np.ndarray:
    """The component of each of ``count`` units: ``first`` is linked with ``second`` (N,), and with whom it shares."""
    other = pd.Series(first).groupby(shared.to_numpy(), sort=False).transform("first").to_numpy()
    ends = np.tile(first, 2), np.concatenate([second, other])
    links = coo_array((np.ones(len(ends[0]), dtype=bool), ends), shape=(count, count))
    return connected_components(links, directed=False)[1]


def split(rows: pd.DataFrame, shares: Sequence[float] = (0.6, 0.2, 0.2), seed: int = 0) -> Split:
    """Divide canonical rows into training, validation and test sets without a person in two of them.

    Group and label keep their proportions as far as the units to be assigned (components, or persons of a component
    that was broken up) allow: see `partition.partition`. The same rows and seed give the same split.

    Parameters
    ----------
    shares : (float, float, float)
        Of the images, for train, val and test; they are positive and add up to 1.

    Raises a ManifestError for no rows, or rows without demographics.
    """
    if len(shares) != len(SPLITS) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares={shares} must be three positive numbers that add up to 1.")
    if rows.empty:
        raise ManifestError("There are no rows to split. Read a manifest or merge annotations first.")
    if missing := [column for column in _NEEDED if column not in rows.columns]:
        raise ManifestError(
            f"The rows have no column {', '.join(missing)}. Read them by manifests.read_manifest, or give crops their "
            "demographics by annotations.merge first."
        )
    return _assigned(rows, SPLITS, shares, seed)


def _assigned(rows: pd.DataFrame, names: Sequence[str], shares: Sequence[float], seed: int) -> Split:
    """The rule of this module for any number of splits."""
    rows = rows.reset_index(drop=True)
    first, second, persons = _persons(rows)
    labels = rows["label"].to_numpy()
    cells = pd.factorize(rows["group"] + rows["label"].astype(str), sort=True)[0]
    component = components(first, second, rows["video"], len(persons))
    sizes = np.bincount(component[first])
    place = partition(component[first], component[first], cells, labels, shares, seed)[component]
    note = f"All {len(sizes)} components stay whole."
    reached = np.bincount(place[first], minlength=len(shares)) / len(rows)
    large = (sizes > min(shares) * len(rows)) & (np.bincount(component) > 1)
    if np.abs(reached - shares).max() > TOLERANCE and large.any():
        broken = large[component]
        unit = np.where(broken, len(sizes) + np.arange(len(persons)), component)
        unit = components(unit[first], unit[first], rows["video"], unit.max() + 1)[unit]
        unit = np.unique(unit, return_inverse=True)[1]
        place = partition(unit[first], unit[second], cells, labels, shares, seed)[unit]
        note = (
            f"{large.sum()} of {len(sizes)} components would hold more images than the smallest split and were broken "
            f"up: their {broken.sum()} persons were assigned one by one."
        )
    kept = place[first] == place[second]
    chosen = rows.assign(split=np.array(names, dtype=object)[place[first]])[kept].reset_index(drop=True)
    dropped = rows.assign(reason=ACROSS)[~kept].reset_index(drop=True)
    nameless = (rows["identity"] == rows["video"]).all() and (rows["source_identity"] == "").all()
    return Split(chosen, dropped, tuple(shares), (note, NAMELESS) if nameless else (note,))


def official_ffpp(rows: pd.DataFrame, folder: str | Path) -> Split:
    """Divide FF++ as its authors do; fakes of pairs that are not listed, and reals of no pair, are dropped.

    Parameters
    ----------
    rows : pandas.DataFrame
        Canonical rows of FF++, identities its three-digit numbers.
    folder : str or Path
        Holds ``train.json``, ``val.json`` and ``test.json``, lists of pairs such as ``["071", "054"]``: the reals 071
        and 054 and the fakes 071_054 and 054_071 belong to that split.

    Raises a ManifestError if a file is missing or of another form, a number is in two splits, or no row is listed.
    """
    placed, listed = {}, set()
    for name in SPLITS:
        path = Path(folder, f"{name}.json")
        for one, other in _pairs(path):
            for number in (one, other):
                if placed.setdefault(number, name) != name:
                    raise ManifestError(f"{path}: {number} is in {placed[number]} as well. Get the files anew.")
            listed |= {(one, other), (other, one), (one, ""), (other, "")}
    rows = rows.reset_index(drop=True)
    kept = pd.MultiIndex.from_frame(rows[["identity", "source_identity"]]).isin(listed)
    if not kept.any():
        example = "" if rows.empty else f" (there is {rows['identity'].iloc[0]!r})"
        raise ManifestError(
            f"{folder}: lists none of the rows' identities{example}. The official split is for FF++, whose identities "
            "are three-digit numbers."
        )
    chosen = rows.assign(split=rows["identity"].map(placed))[kept].reset_index(drop=True)
    dropped = rows.assign(reason=UNLISTED)[~kept].reset_index(drop=True)
    absent = len(set(placed) - set(rows["identity"]))
    return Split(chosen, dropped, (np.nan,) * 3, (f"{absent} of {len(placed)} listed identities have no rows.",))


def _pairs(path: Path) -> list[list[str]]:
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}). Correct the path.") from None
    except ValueError as error:
        raise ManifestError(f"{path}: not a json file ({error}). Get the official file anew.") from None
    if not isinstance(pairs, list):
        raise ManifestError(f"{path}: not a list of pairs. Get the official file anew.")
    for pair in pairs:
        if not (isinstance(pair, list) and [type(number) for number in pair] == [str, str]):
            raise ManifestError(f'{path}: {pair!r} is no pair such as ["071", "054"]. Get the official file anew.')
    return pairs


def celebdf_test_list(rows: pd.DataFrame, path: str | Path, seed: int = 0) -> Split:
    """Test Celeb-DF on its official list, and divide what shows none of the tested persons into train and val, 3 to 1.

    Rows that show a tested person are dropped, and those across the border of train and val.

    Parameters
    ----------
    rows : pandas.DataFrame
        Canonical rows of Celeb-DF, videos named "Celeb-real/id0_0000" and so on.
    path : str or Path
        ``List_of_testing_videos.txt``, lines such as ``1 YouTube-real/00170.mp4``; there 1 is real.

    Raises a ManifestError for a line of another form, a label that contradicts the rows', or no listed video there.
    """
    listed = _read_test_list(Path(path))
    rows = rows.reset_index(drop=True)
    tested = rows["video"].isin(listed)
    if not tested.any():
        example = "" if rows.empty else f" (there is {rows['video'].iloc[0]!r})"
        raise ManifestError(f"{path}: lists none of the rows' videos{example}. Name videos as Celeb-DF does.")
    for row in rows[tested].drop_duplicates(["video", "label"]).itertuples():
        label, line = listed[row.video]
        if row.label != label:
            raise ManifestError(
                f"{path}, line {line}: {row.video} has label {row.label} among the rows, the list makes it {label} (1 "
                "is real there). Correct one of them."
            )
    persons = set(rows.loc[tested, "identity"]) | set(rows.loc[tested, "source_identity"]) - {""}
    leaks = ~tested & (rows["identity"].isin(persons) | rows["source_identity"].isin(persons))
    rest = rows[~tested & ~leaks]
    absent = len(set(listed) - set(rows["video"]))
    notes = (f"{absent} of {len(listed)} listed videos have no rows.",)
    chosen, dropped = rows[tested].assign(split="test"), rows[leaks].assign(reason=TESTED)
    if len(rest):
        divided = _assigned(rest, SPLITS[:2], (0.75, 0.25), seed)
        chosen = pd.concat([divided.rows, chosen], ignore_index=True)
        dropped, notes = pd.concat([dropped, divided.dropped], ignore_index=True), notes + divided.notes
    else:
        notes += ("Nothing is left to train on: every row shows a tested person.",)
    return Split(chosen.reset_index(drop=True), dropped.reset_index(drop=True), (np.nan,) * 3, notes)


def _read_test_list(path: Path) -> dict[str, tuple[int, int]]:
    """Celeb-DF's list: video name -> (label, 1 fake as everywhere here; line)."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read ({error}). Correct the path.") from None
    listed = {}
    for number, line in enumerate(lines, start=1):
        match = _TESTED.fullmatch(line)
        if match:
            listed[match[2]] = (1 - int(match[1]), number)
        elif line.strip():
            raise ManifestError(f"{path}, line {number}: {line!r} is not like '1 YouTube-real/00170.mp4'. Correct it.")
    return listed


def read_official(layout: str, path: str | Path) -> None:
    """Raise a ManifestError if official lists cannot be read as `official_ffpp` and `celebdf_test_list` read them."""
    if layout == "ffpp":
        for name in SPLITS:
            _pairs(Path(path, f"{name}.json"))
    elif layout == "celebdf":
        _read_test_list(Path(path))
    else:
        raise ManifestError(f"split_by {str(path)!r}: layout {layout!r} has no official lists. Use identity.")


def write_splits(split: Split, folder: str | Path) -> list[Path]:
    """Write the splits as manifests, :data:`SPLIT_FILES`, and return their paths; the folder is made if it is missing.

    All files are written aside first and take their places together at the end, so that a failure leaves the folder
    as it was. In folders named celebdf or dfd six groups are written, unless a group they lack occurs.

    Raises a ManifestError if train or val has reals or fakes only, or the folder a file of a split that is empty now.
    """
    folder = Path(folder)
    six = folder.name in SIX_GROUP_DATASETS and split.rows["group"].isin(SIX_GROUPS).all()
    tables = _tables(split, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as aside:
        for name, table in tables.items():
            write_manifest(table, Path(aside) / name, SIX_GROUPS if six else scheme_of(split.rows["group"]))
        for name in tables:
            os.replace(Path(aside) / name, folder / name)
    return [folder / name for name in tables]


def _tables(split: Split, folder: Path) -> dict[str, pd.DataFrame]:
    """File name -> rows."""
    tables = {}
    for name, files in SPLIT_FILES.items():
        part = split.rows[split.rows["split"] == name]
        parts = [part[part["label"] == 1], part[part["label"] == 0]] if len(files) == 2 else [part]
        if part.empty:
            stale = [file for file in files if (folder / file).exists()]
            if stale:
                raise ManifestError(f"{folder / stale[0]}: is of an earlier split, and {name} is empty now. Remove it.")
            continue
        if any(table.empty for table in parts):
            kind = "fakes" if parts[0].empty else "reals"
            gone = "; ".join(f"{reason}: {row.images:,} images" for reason, row in split.losses().iterrows())
            dropped = f"Rows were dropped ({gone}). " if gone else ""
            change = "Take another seed"
            if np.isnan(split.wanted).any():
                change = "The split is given by a list: take another one, use splits.split, which needs none"
            raise ManifestError(f"{folder}: {name} has no {kind}. {dropped}{change}, or add videos.")
        tables |= dict(zip(files, parts, strict=True))
    return tables
