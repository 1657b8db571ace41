"""The columns and codes of the released fair-deepfake-detection manifests, and groups of one's own, in and out.

`rows_of` reads them, with eight groups or, without ``isasian``, with the six of Celeb-DF and DFD; `table_of` writes.
A column ``group`` holds groups of one's own, names as they are; ``gender`` and ``race`` may stand for it.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

import numpy as np
import pandas as pd

from fairdf_utils.data.crop_names import from_crop_names, video_and_frame, video_facts
from fairdf_utils.data.csv_rows import UNKNOWN, Rows
from fairdf_utils.data.vocabulary import COLUMNS, FORGERIES, GROUPS, RACES, SIX_GROUPS, scheme_of

CODED = ("ismale", "iswhite", "isblack", "intersec_label")
ATTRIBUTES = ("gender", "race")
PLACED = ("source", "dataset", "split")  # columns that say where a row was read: no part of it
CONTRADICTION = "contradicting columns"


def required(header: Container[str]) -> tuple[str, ...]:
    """The columns that a file with this header must have."""
    if "group" not in header and any(name in header for name in CODED):
        return ("img_path", "label", *CODED)
    named = all(name in header for name in ATTRIBUTES) and "group" not in header
    return ("img_path", "label", *(ATTRIBUTES if named else ["group"]))


def rows_of(rows: Rows) -> dict[str, np.ndarray]:
    """The canonical columns as arrays (N,); ``gender`` and ``race`` where the file has them."""
    paths = rows.image_paths("img_path")
    label = rows.codes("label", (0, 1))
    table = {"img_path": paths, "label": label} | _groups(rows) | _from_names(rows, paths)
    table["forgery"] = _forgeries(rows, label, table["forgery"])
    if "frame" in rows.cells:
        cells = rows.strings("frame")
        whole = np.array([re.fullmatch(r"[0-9]{1,9}(\.0)?", cell) is not None for cell in cells], dtype=bool)
        rows.reject(~whole, "bad cell", "frame", "It is no frame number", "Use a whole number of 0 or more.")
        table["frame"] = np.where(whole, cells, "0").astype(np.float64).astype(np.int64)
    return table


def _from_names(rows: Rows, paths: np.ndarray) -> dict[str, np.ndarray]:
    """``video``, ``identity``, ``source_identity``, ``forgery`` and ``frame``, from their columns or from names."""
    video, frame = video_and_frame(paths)
    if "video" in rows.cells:
        video = rows.filled("video")
    else:
        crop = from_crop_names(paths)
        # A bare number such as 0_12_3.png is DFDC's in the follow-up form, but may be any renamed video's here.
        known = crop["dataset"].isin(("ffpp", "celebdf", "dfd")).to_numpy()
        video, frame = np.where(known, crop["video"], video), np.where(known, crop["frame"], frame)
    facts = {name: column.to_numpy() for name, column in video_facts(video).items()}
    if "identity" in rows.cells:
        facts["identity"] = rows.filled("identity")
    if "source_identity" in rows.cells:
        facts["source_identity"] = rows.strings("source_identity")
    return facts | {"video": video, "frame": frame}


def _groups(rows: Rows) -> dict[str, np.ndarray]:
    """``group``, with ``gender`` and ``race`` where they are told."""
    if all(name in rows.cells for name in CODED):
        table = names_of(_group_codes(rows))
    else:
        table = {name: rows.words(name, needed="group" not in rows.cells) for name in ATTRIBUTES if name in rows.cells}
    both = table["gender"] + "-" + table["race"] if len(table) > 1 else None
    if "group" not in rows.cells:
        return {"group": both} | table
    group = rows.words("group")
    if both is not None:
        contradicts = np.isin(group, GROUPS) & (group != both)
        rows.reject(contradicts, CONTRADICTION, "group", "It contradicts gender and race", "Correct one of them.")
    return table | {"group": group}


def names_of(code: np.ndarray, scheme: Sequence[str] = GROUPS, second: str = "race") -> dict[str, np.ndarray]:
    """``group`` and its parts, ``gender`` and ``second``, of codes (N,), negative in faulty rows."""
    parts = np.array([[name, *name.split("-")] for name in scheme], dtype=object)[np.maximum(code, 0)]
    return dict(zip(("group", "gender", second), parts.T, strict=True))


def _group_codes(rows: Rows) -> np.ndarray:
    """Positions among the eight groups (N,), after checking that flags and ``intersec_label`` tell one story."""
    male = rows.codes("ismale", (-1, 1))
    flags = {race: rows.codes(f"is{race}", (-1, 1)) for race in RACES[:3] if f"is{race}" in rows.cells}
    known = np.all([male != UNKNOWN, *(flag != UNKNOWN for flag in flags.values())], axis=0)
    several = known & (np.sum([flag == 1 for flag in flags.values()], axis=0) > 1)
    finding = "More than one of isasian, iswhite and isblack is 1"
    rows.reject(several, CONTRADICTION, "iswhite", finding, "Set the others to -1.")
    race = np.full(len(male), RACES.index("others"))
    for name, flag in flags.items():
        race[flag == 1] = RACES.index(name)
    code = np.where(known, np.where(male == 1, 0, len(RACES)) + race, UNKNOWN)
    groups = GROUPS if "isasian" in rows.cells else SIX_GROUPS
    coded = rows.codes("intersec_label", range(len(groups)))
    among_eight = np.array([GROUPS.index(group) for group in groups])[np.maximum(coded, 0)]
    contradicts = known & ~several & (coded != UNKNOWN) & (among_eight != code)
    remedy = f"Correct one of them (codes: {', '.join(groups)}, from 0)."
    rows.reject(contradicts, CONTRADICTION, "intersec_label", "It contradicts ismale and is<race>", remedy)
    return code


def _forgeries(rows: Rows, label: np.ndarray, named: np.ndarray) -> np.ndarray:
    """Forgeries (N,) from ``spe_label`` or ``forgery`` (also called ``method``), else from the video, else "fake"."""
    forgeries = np.where(label == 0, "real", np.where(np.isin(named, FORGERIES[1:]), named, "fake")).astype(object)
    if "spe_label" in rows.cells:
        coded = rows.codes("spe_label", range(1, len(FORGERIES)))
        remedy = "Set label to 1 or move the row."
        rows.reject(label == 0, CONTRADICTION, "spe_label", "Only fakes have a forgery", remedy)
        forgeries = np.array(FORGERIES, dtype=object)[np.maximum(coded, 0)]
    columns = [column for column in ("forgery", "method") if column in rows.cells]
    if not columns:
        return forgeries
    column, written = columns[0], rows.strings(columns[0])
    known = np.isin(written, [*FORGERIES, "fake"])
    remedy = f"Use one of {', '.join(FORGERIES)}, or fake."
    rows.reject(~known, "bad cell", column, "It is no known forgery", remedy)
    contradicts = known & (label != UNKNOWN) & ((written == "real") != (label == 0))
    rows.reject(contradicts, CONTRADICTION, column, "It contradicts label", "Correct one of them.")
    keep_one = "Keep one of the two columns."
    if "spe_label" in rows.cells:
        contradicts = known & (coded != UNKNOWN) & (written != forgeries)
        rows.reject(contradicts, CONTRADICTION, column, "It contradicts spe_label", keep_one)
    if len(columns) == 2:
        contradicts = rows.strings("method") != written
        rows.reject(contradicts, CONTRADICTION, "method", "It contradicts forgery", keep_one)
    return written


def table_of(frame: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """Canonical rows in the columns and codes of the file; ``groups`` are all eight, the six, or names of one's own."""
    table = {"img_path": frame["img_path"], "label": frame["label"].astype(int)}
    if scheme_of(groups) == GROUPS:
        flags = {"ismale": frame["gender"] == "male"}
        flags |= {f"is{race}": frame["race"] == race for race in (RACES[:3] if groups == GROUPS else RACES[1:3])}
        table |= {name: flag.map({True: 1, False: -1}) for name, flag in flags.items()}
        table["intersec_label"] = frame["group"].map(groups.index)
    else:
        table |= {name: frame[name] for name in (*ATTRIBUTES, "group") if name in frame}
    if frame["forgery"].isin(FORGERIES[1:]).all():
        table["spe_label"] = frame["forgery"].map(FORGERIES.index)
    elif (frame["label"] == 1).any():
        table["forgery"] = frame["forgery"]
    table |= {name: frame[name] for name in ("video", "identity", "source_identity", "frame")}
    known = {*table, *COLUMNS, *PLACED}
    return pd.DataFrame(table | {name: frame[name] for name in frame if name not in known})
