"""The seed form of a manifest, the columns of the released fair-deepfake-detection files: its codes in and out.

:func:`rows_of` reads it with eight groups or, without ``isasian``, with the six of Celeb-DF and DFD;
:func:`table_of` writes it.
"""

import re

import numpy as np
import pandas as pd

from fairdf_utils.data.crop_names import from_crop_names, video_and_frame, video_facts
from fairdf_utils.data.csv_rows import UNKNOWN
from fairdf_utils.data.vocabulary import FORGERIES, GROUPS, RACES, SIX_GROUPS

REQUIRED = ("img_path", "label", "ismale", "iswhite", "isblack", "intersec_label")


def rows_of(rows):
    """The canonical columns of a seed form as arrays (N,); groups as ``code``, their position among the eight."""
    paths = rows.image_paths("img_path")
    label = rows.codes("label", (0, 1))
    code = _seed_codes(rows)
    table = {"img_path": paths, "label": label, "code": code} | _from_names(rows, paths)
    table["forgery"] = _forgeries(rows, label, table["forgery"])
    if rows.has("frame"):
        whole = np.array([re.fullmatch("[0-9]{1,9}", cell) is not None for cell in rows.strings("frame")], dtype=bool)
        rows.reject(~whole, "frame", "It is no frame number", "Use a whole number of 0 or more.")
        table["frame"] = np.where(whole, rows.strings("frame"), "0").astype(np.int64)
    return table


def _from_names(rows, paths):
    """``video``, ``identity``, ``source_identity``, ``forgery`` and ``frame``, from their columns or from names."""
    video, frame = video_and_frame(paths)
    if rows.has("video"):
        video = rows.filled("video")
    else:
        crop = from_crop_names(paths)
        # A bare number such as 0_12_3.png is DFDC's in the follow-up form, but any renamed video's in the seed form.
        known = crop["dataset"].isin(("ffpp", "celebdf", "dfd")).to_numpy()
        video, frame = np.where(known, crop["video"], video), np.where(known, crop["frame"], frame)
    facts = video_facts(video)
    source = rows.strings("source_identity") if rows.has("source_identity") else facts["source_identity"].to_numpy()
    return {
        "video": video,
        "identity": rows.filled("identity") if rows.has("identity") else facts["identity"].to_numpy(),
        "source_identity": source,
        "forgery": facts["forgery"].to_numpy(),
        "frame": frame,
    }


def _seed_codes(rows):
    """Positions among the eight groups (N,), after checking that flags and ``intersec_label`` tell one story."""
    six = not rows.has("isasian")
    male = rows.codes("ismale", (-1, 1))
    flags = {race: rows.codes(f"is{race}", (-1, 1)) for race in RACES[:3] if rows.has(f"is{race}")}
    known = np.all([male != UNKNOWN, *(flag != UNKNOWN for flag in flags.values())], axis=0)
    several = known & (np.sum([flag == 1 for flag in flags.values()], axis=0) > 1)
    finding = "More than one of isasian, iswhite and isblack is 1"
    rows.reject(several, "iswhite", finding, "Set the others to -1.")
    race = np.full(len(male), RACES.index("others"))
    for name, flag in flags.items():
        race[flag == 1] = RACES.index(name)
    code = np.where(known, np.where(male == 1, 0, len(RACES)) + race, UNKNOWN)
    groups = SIX_GROUPS if six else GROUPS
    coded = rows.codes("intersec_label", range(len(groups)))
    translated = np.array([GROUPS.index(group) for group in groups])[np.maximum(coded, 0)]
    rows.reject(
        known & ~several & (coded != UNKNOWN) & (translated != code),
        "intersec_label",
        "It contradicts ismale and is<race>",
        f"Correct one of them (codes: {', '.join(groups)}, from 0).",
    )
    return code


def _forgeries(rows, label, named):
    """Method names (N,) from ``spe_label`` or ``forgery``, else from the video's name, else "fake"."""
    forgeries = np.where(label == 0, "real", np.where(np.isin(named, FORGERIES[1:]), named, "fake")).astype(object)
    if rows.has("spe_label"):
        coded = rows.codes("spe_label", range(1, len(FORGERIES)))
        finding = "Only fakes have a forgery"
        rows.reject(label == 0, "spe_label", finding, "Set label to 1 or move the row.")
        forgeries = np.array(FORGERIES, dtype=object)[np.maximum(coded, 0)]
    if rows.has("forgery"):
        written = rows.strings("forgery")
        known = np.isin(written, [*FORGERIES, "fake"])
        rows.reject(~known, "forgery", "It is no known forgery", f"Use one of {', '.join(FORGERIES)}, or fake.")
        contradicts = known & (label != UNKNOWN) & ((written == "real") != (label == 0))
        rows.reject(contradicts, "forgery", "It contradicts label", "Correct one of them.")
        if rows.has("spe_label"):
            contradicts = known & (coded != UNKNOWN) & (written != forgeries)
            rows.reject(contradicts, "forgery", "It contradicts spe_label", "Keep one of the two columns.")
        forgeries = written
    return forgeries


def table_of(frame, groups):
    """Canonical rows in the columns and codes of the file; ``groups`` are all eight or the six."""
    flag = {True: 1, False: -1}
    table = {
        "img_path": frame["img_path"],
        "label": frame["label"].astype(int),
        "ismale": (frame["gender"] == "male").map(flag),
    }
    for race in RACES[:3] if groups == GROUPS else RACES[1:3]:
        table[f"is{race}"] = (frame["race"] == race).map(flag)
    table["intersec_label"] = frame["group"].map(groups.index)
    if frame["forgery"].isin(FORGERIES[1:]).all():
        table["spe_label"] = frame["forgery"].map(FORGERIES.index)
    elif (frame["label"] == 1).any():
        table["forgery"] = frame["forgery"]
    for column in ("video", "identity", "source_identity", "frame"):
        table[column] = frame[column]
    return pd.DataFrame(table)
