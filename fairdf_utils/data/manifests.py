"""Manifests: one CSV row an image, the contract between data preparation, training and the fairness audit.

Files keep the columns of the released fair-deepfake-detection manifests; inside this package every row has the
*canonical* columns below, with groups and forgeries as names. Nothing but :func:`read_manifest` knows file codes.
Columns of a file that are none of them (an age, a skin tone) follow these as text, under their own names.

=================  ======================================================================================
``img_path``       str, relative to the image root, "/" between parts
``label``          int, 0 real, 1 fake
``forgery``        str, one of :data:`FORGERIES`, or "fake" where the file does not say which forgery it is
``gender``         str, "male" or "female"; absent where a file has groups of its own and does not tell it
``race``           str, "asian", "white", "black" or "others"; absent likewise
``group``          str: gender and race, the intersection, or another name; see :func:`vocabulary.scheme_of`
``video``          str, the cluster for confidence intervals
``identity``       str, the person in front of the camera
``source_identity``  str, the person a fake takes its face or expression from; "" where there is none
``frame``          int >= 0, the frame's number in its video
=================  ======================================================================================
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fairdf_utils.data import other_lists, released_columns
from fairdf_utils.data.csv_rows import ManifestError, Problem, Rows, leaves_root
from fairdf_utils.data.vocabulary import COLUMNS, FORGERIES, GROUPS, SIX_GROUP_DATASETS, SIX_GROUPS, scheme_of
from fairdf_utils.files import replacing

SPLIT_FILES = {
    "train": ("faketrain.csv", "realtrain.csv"),
    "val": ("fakeval.csv", "realval.csv"),
    "test": ("test.csv",),
}


def read_manifest(path: str | Path, image_root: str | Path = "") -> pd.DataFrame:
    """Read one manifest, a CSV file in any of its forms, and translate it to canonical columns.

    Columns are found by name, never by position, and tell the form: the released columns with eight groups; without
    ``isasian`` the six groups of Celeb-DF and DFD, whose ``intersec_label`` counts 0..5; with "Image Path" the
    released follow-up forms; with ``group`` groups of one's own. ``forgery`` may be called ``method``. Where ``video``,
    ``identity``, ``source_identity`` or ``frame`` are absent, they come from the image's name:
    ``0_Deepfakes_300_304_151.png`` and its kin, or ``<video>_<frame>.png``, where identity is the video. An absolute
    image path below ``image_root`` becomes relative to it.

    The result has the columns :data:`COLUMNS`, ``source`` (file and line, for error messages) and the file's other
    ones, rows in file order.

    Raises
    ------
    ManifestError
        A missing or empty file, a missing column, an unknown code, columns that contradict each other, or an image
        path that is absolute elsewhere or leaves the image root. A group with one class only is no error here; a
        name in a follow-up form that does not tell video or forgery is a warning, once a kind, with the count.
    """
    table, problems = read_leniently(path, image_root)
    for problem in problems:
        if problem.severity == "error":
            raise ManifestError(problem.message())
    first = {problem.finding: problem for problem in reversed(problems)}
    for finding, count in Counter(problem.finding for problem in problems).items():
        warnings.warn(f"{first[finding].message()} ({count} such rows)", stacklevel=2)
    return table


def read_leniently(path: str | Path, image_root: str | Path = "") -> tuple[pd.DataFrame, list[Problem]]:
    """The rows of a manifest that have no error, as from :func:`read_manifest`, and every problem in it, by line."""
    rows = Rows(path, image_root)
    form = other_lists if other_lists.FIRST in rows.cells else released_columns
    if not rows.require(form.required(rows.cells)):
        return pd.DataFrame(columns=[*COLUMNS, "source"]), sorted(rows.problems, key=lambda problem: problem.line)
    table = form.rows_of(rows)
    table["source"] = [f"{rows.name}, line {line}" for line in rows.lines.tolist()]
    first = {column: table.pop(column) for column in (*COLUMNS, "source") if column in table}
    others = {column: rows.cells[column].to_numpy() for column in rows.cells if column not in rows.asked | first.keys()}
    frame = pd.DataFrame(first | table | others)[~rows.faulty]
    return frame.reset_index(drop=True).infer_objects(), sorted(rows.problems, key=lambda problem: problem.line)


def write_manifest(frame: pd.DataFrame, path: str | Path, groups: Sequence[str] | None = None) -> None:
    """Write canonical rows in the released columns; the same rows give the same bytes.

    Celeb-DF and DFD (known by the folder's name) are written with their six groups, unless ``groups`` says otherwise
    (:data:`GROUPS`, :data:`SIX_GROUPS` or a scheme of one's own, which gets the column ``group`` in place of codes). A
    file of fakes whose forgeries are all known gets ``spe_label``; a file of fakes and reals together gets ``forgery``.
    Columns that are not canonical follow. The file is written atomically, missing folders are made.

    Raises a ManifestError if there are no rows, a canonical column is missing, or a row could not be read back.
    """
    path = Path(path)
    if groups is None:
        scheme = scheme_of(frame["group"]) if "group" in frame else GROUPS
        groups = SIX_GROUPS if scheme == GROUPS and path.parent.name in SIX_GROUP_DATASETS else scheme
    coded = scheme_of(groups) == GROUPS
    needed = [column for column in COLUMNS if coded or column not in released_columns.ATTRIBUTES]
    missing = [column for column in needed if column not in frame.columns]
    if missing or frame.empty:
        what = f"column {', '.join(missing)} is missing" if missing else "there are no rows"
        raise ManifestError(f"{path}: cannot be written, {what}. Pass the canonical columns, at least one row.")
    _refuse_unreadable(frame, path, groups)
    table = released_columns.table_of(frame, tuple(groups))
    with replacing(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n", encoding="utf-8")


def _refuse_unreadable(frame: pd.DataFrame, path: Path, groups: Sequence[str]) -> None:
    coded = scheme_of(groups) == GROUPS
    told = frame["gender"] + "-" + frame["race"] if coded else frame["group"].str.strip().replace("", None)
    fake = frame["forgery"].isin([*FORGERIES[1:], "fake"])
    outside = np.logical_or(*leaves_root(frame["img_path"]))
    good = frame["group"].isin(groups) & (frame["group"] == told) & ~outside
    good &= np.where(frame["label"] == 0, frame["forgery"] == "real", fake)
    if not good.all():
        position = int((~good.to_numpy()).argmax())
        row = frame.iloc[position].astype(object)
        raise ManifestError(
            f"{path}: cannot be written, row {position} has group {row.group!r}, gender {row.get('gender')!r}, race "
            f"{row.get('race')!r}, label {row.label}, forgery {row.forgery!r}, img_path {row.img_path!r}. Make them "
            f'agree (groups of this file: {", ".join(groups)}), and the path relative to the image root, without "..".'
        )


def read_split(folder: str | Path, split: str, image_root: str | Path = "") -> pd.DataFrame:
    """Read one split ("train", "val", "test") of a data set's folder of manifests, fakes first.

    The folder's name, of ``data_manifests/synthetic/ffpp`` for instance, becomes the column ``dataset``. Training and
    validation are a file of fakes and a file of reals, a test set is one file. ``image_root`` as of
    :func:`read_manifest`.

    Raises a ManifestError if a file of the split is missing or faulty, or the split is unknown.
    """
    if split not in SPLIT_FILES:
        raise ManifestError(f"{folder}: unknown split {split!r}. Use one of {', '.join(SPLIT_FILES)}.")
    folder = Path(folder)
    frames = [read_manifest(folder / name, image_root) for name in SPLIT_FILES[split]]
    return pd.concat(frames, ignore_index=True).assign(dataset=folder.name)


def group_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Count what each group of the scheme rests on; absent ones as zeros."""
    return count_by(frame, "group", scheme_of(frame["group"]))


def count_by(frame: pd.DataFrame, by: str, names: Sequence[str]) -> pd.DataFrame:
    """Int counts ``images``, ``reals``, ``fakes``, ``videos``, ``identities`` (persons shown), a row for each name."""
    table = (
        frame.assign(real=frame["label"] == 0, fake=frame["label"] == 1)
        .groupby(by)
        .agg(
            images=("label", "size"),
            reals=("real", "sum"),
            fakes=("fake", "sum"),
            videos=("video", "nunique"),
            identities=("identity", "nunique"),
        )
    )
    return table.reindex(list(names), fill_value=0).astype(int).rename_axis(by)
