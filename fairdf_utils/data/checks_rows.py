"""Rules for manifest rows: of one row, of a video, of a group, between splits.

Every function takes canonical rows (`manifests.COLUMNS`) with four more columns, ``file``, ``line``, ``dataset`` (the
folder of the file, resolved) and ``split`` ("" if unknown), and returns findings (`findings.FINDING_COLUMNS`). Its
index tells rows apart.
"""

import posixpath
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from fairdf_utils.data.csv_rows import leaves_root
from fairdf_utils.data.findings import counted, found, nothing, where
from fairdf_utils.data.manifests import SPLIT_FILES, find_leaks, group_table
from fairdf_utils.data.vocabulary import FORGERIES, GENDERS, GROUPS, RACES, SIX_GROUP_DATASETS, SIX_GROUPS

# An interval that resamples fewer videos than this is too narrow itself: with few clusters the spread between them is
# underestimated (Cameron, Gelbach, Miller 2008 put "few" at 5 to 30).
FEW_VIDEOS = 20

# Finding -> (column, remedy) of what `ROWS` tests; pandera carries the finding along as the text of its check.
_REMEDIES = {
    "It is absolute or has '..'": ("img_path", "Make it a path below the image root."),
    "No such label": ("label", "Use 0 for a real, 1 for a fake."),
    "No such forgery": ("forgery", f"Use one of {', '.join(FORGERIES)}, or fake."),
    "No such gender": ("gender", f"Use one of {', '.join(GENDERS)}."),
    "No such race": ("race", f"Use one of {', '.join(RACES)}."),
    "It contradicts gender and race": ("group", "Make it '<gender>-<race>'."),
    "It contradicts label": ("forgery", "Correct one of them: forgery is real where label is 0."),
    "No name": ("video", "Name the video; confidence intervals resample videos."),
    "No person": ("identity", "Name the person, or repeat the video's name."),
    "A real image has no source": ("source_identity", "Leave it empty, or set label to 1."),
    "It is negative": ("frame", "Number the frames of a video from 0."),
}


def _below_root(paths):
    return pd.Series(~np.logical_or(*leaves_root(paths)), index=paths.index)


def _check(finding, test):
    assert finding in _REMEDIES
    return pa.Check(test, error=finding)


ROWS = pa.DataFrameSchema(
    {
        "img_path": pa.Column(checks=_check("It is absolute or has '..'", _below_root)),
        "label": pa.Column(checks=_check("No such label", lambda label: label.isin([0, 1]))),
        "forgery": pa.Column(checks=_check("No such forgery", lambda forgery: forgery.isin([*FORGERIES, "fake"]))),
        "gender": pa.Column(checks=_check("No such gender", lambda gender: gender.isin(GENDERS))),
        "race": pa.Column(checks=_check("No such race", lambda race: race.isin(RACES))),
        "video": pa.Column(checks=_check("No name", lambda video: video != "")),
        "identity": pa.Column(checks=_check("No person", lambda identity: identity != "")),
        "frame": pa.Column(checks=_check("It is negative", lambda frame: frame >= 0)),
    },
    checks=[
        _check("It contradicts gender and race", lambda rows: rows["group"] == rows["gender"] + "-" + rows["race"]),
        _check("It contradicts label", lambda rows: (rows["forgery"] == "real") == (rows["label"] == 0)),
        _check("A real image has no source", lambda rows: (rows["label"] == 1) | (rows["source_identity"] == "")),
    ],
)
"""The canonical row as a pandera schema."""


def row_findings(rows):
    """Rows that break a rule of :data:`ROWS`, one finding a row and rule."""
    try:
        ROWS.validate(rows, lazy=True)
    except pa.errors.SchemaErrors as errors:
        # A check over several columns fails once for each column of the table: one of them tells it all.
        cases = errors.failure_cases.drop_duplicates(["check", "index"])
        parts = []
        for finding, failed in cases.groupby("check", sort=False):
            column, remedy = _REMEDIES[finding]
            bad = rows.loc[sorted(failed["index"])]
            parts.append(found(bad, "error", "bad row", column, bad[column].astype(str), finding, remedy))
        return pd.concat(parts, ignore_index=True)
    return nothing()


def repeated_images(rows):
    """Images listed more than once: an error within a data set, a warning between data sets of one image root."""
    key = _plain_paths(rows["img_path"])
    inside = pd.MultiIndex.from_arrays([rows["dataset"], key]).duplicated()
    between = ~inside & key.duplicated().to_numpy()
    first = _first_position(key)
    first_inside = _first_position(rows["dataset"] + "\0" + key)
    parts = []
    for repeated, earlier, severity, remedy in (
        (inside, first_inside, "error", "Remove one of the two rows."),
        (between, first, "warning", "Take it out of one data set, or keep their images under different folders."),
    ):
        bad = rows[repeated]
        finding = "Already listed in " + where(rows.iloc[earlier[repeated]], bad)
        parts.append(found(bad, severity, "same image twice", "img_path", bad["img_path"], finding, remedy))
    return pd.concat(parts, ignore_index=True)


def _plain_paths(paths):
    """Paths (N,) with one spelling a file: a/./b.png, a//b.png and a\\b.png are a/b.png."""
    paths = paths.str.replace("\\", "/", regex=False)
    odd = paths.str.contains("//", regex=False) | paths.str.contains("./", regex=False)
    return paths.where(~odd, paths[odd].map(posixpath.normpath).reindex(paths.index))


def _first_position(key):
    """Where each value of ``key`` (N,) stands for the first time, int (N,)."""
    codes, values = pd.factorize(key)
    first = np.zeros(len(values), dtype=int)
    first[codes[::-1]] = np.arange(len(key))[::-1]  # the last to be written is the first to be read
    return first[codes]


def flips(rows, column):
    """Videos whose rows do not agree on ``column`` ("label", "gender" or "race"), at the first row off the majority."""
    kind = "label flip" if column == "label" else "demographic flip"
    remedy = "Settle it by the majority of the video's rows, or leave the video out."
    values = rows.assign(position=rows.index).groupby(["dataset", "video", column], sort=False, as_index=False)
    values = values.agg(count=("position", "size"), position=("position", "min"))
    values = values[values.duplicated(["dataset", "video"], keep=False)]
    values = values.sort_values(["count", "position"], ascending=[False, True])
    most = values.drop_duplicates(["dataset", "video"]).set_index(["dataset", "video"])
    rest = values[values.duplicated(["dataset", "video"])].sort_values("position").groupby(["dataset", "video"])
    rest = rest.agg(count=("count", "sum"), position=("position", "min")).sort_values("position")
    most = most.loc[rest.index]
    finding = [
        f"The video {video!r} has {column} {value} in {many:,} of its rows and another in {few:,}"
        for (_, video), value, many, few in zip(rest.index, most[column], most["count"], rest["count"], strict=True)
    ]
    bad = rows.loc[rest["position"]]
    return found(bad, "error", kind, column, bad[column].astype(str), finding, remedy)


def leaks(rows):
    """Videos and persons in more than one split of one data set, each at the first row of the split with fewer of it.

    A person who is in two splits only through a leaked video is not reported again.
    """
    rows = rows[rows["split"] != ""]
    if rows["split"].nunique() < 2:
        return nothing()
    videos, strays = _leaked(rows, "video", ["video"])
    persons, _ = _leaked(rows.drop(strays), "identity", ["identity", "source_identity"])
    return pd.concat([videos, persons], ignore_index=True)


def _leaked(rows, kind, columns):
    """Findings of one kind, one a value and split that should not have it, and the index of all rows concerned."""
    shared = find_leaks({split: rows[rows["split"] == split] for split in SPLIT_FILES})
    uses = [pd.DataFrame({"value": rows[c], "row": rows.index, "split": rows["split"], "column": c}) for c in columns]
    uses = pd.concat(uses).sort_values("row", kind="stable")  # so that "first" below is the first in the files
    uses = uses[uses["value"].isin(shared.loc[shared["kind"] == kind, "value"])]
    parts = uses.groupby(["value", "split"], as_index=False)
    parts = parts.agg(count=("row", "nunique"), row=("row", "first"), column=("column", "first"))
    # The split with most of its rows keeps it; of equals the first in the order train, val, test.
    order = parts["split"].map(list(SPLIT_FILES).index)
    parts = parts.assign(order=order).sort_values(["count", "order"], ascending=[False, True])
    away = parts[parts.duplicated("value")].sort_values("row")
    home = parts.drop_duplicates("value").set_index("value").loc[away["value"]]
    strays = uses.merge(away[["value", "split"]], on=["value", "split"])["row"].unique()
    bad = rows.loc[away["row"]]
    places = zip(home["count"], home["split"], where(rows.loc[home["row"]], bad), strict=True)
    finding = [
        f"{few:,} of its rows in {split}, {many:,} in {home_split} ({first})"
        for few, split, (many, home_split, first) in zip(away["count"], away["split"], places, strict=True)
    ]
    remedy = f"Keep each {kind} in one split: move these rows, or leave them out."
    return found(bad, "error", f"leaked {kind}", away["column"], away["value"], finding, remedy), strays


def group_findings(rows):
    """Groups of one split that have one class only, rest on few videos or are absent."""
    name = rows["split"].iloc[0] or "this file"
    table = group_table(rows)
    one_class = _one_class_groups if rows["label"].nunique() == 2 else _one_class_split
    parts = [one_class(rows, table, name), _few_videos(rows, table, name), _absent_groups(rows, table, name)]
    return pd.concat(parts, ignore_index=True)


def _first_rows(rows, groups):
    """The first row of each of these groups, index the group's name."""
    first = rows.drop_duplicates("group").set_index("group", drop=False)
    return first[first.index.isin(groups)]


def _one_class_groups(rows, table, name):
    bad = _first_rows(rows, table.index[(table["reals"] == 0) | (table["fakes"] == 0)])
    counts = table.loc[bad.index, ["reals", "fakes"]]
    finding = [f"{real:,} reals and {fake:,} fakes in {name}" for real, fake in counts.to_numpy()]
    remedy = [
        f"Without {missing} it has no {rate} and no AUC there: say so with the results, or add {missing}."
        for missing, rate in (("reals", "FPR") if real == 0 else ("fakes", "TPR") for real, _ in counts.to_numpy())
    ]
    return found(bad, "warning", "one-class group", "group", bad["group"], finding, remedy)


def _few_videos(rows, table, name):
    bad = _first_rows(rows, table.index[table["videos"] < FEW_VIDEOS])
    by_class = rows.groupby(["label", "group"])["video"].nunique()
    finding = [
        f"It rests on {counted(table.at[group, 'videos'], 'video')} in {name} "
        f"({by_class.get((0, group), 0)} of reals, {by_class.get((1, group), 0)} of fakes)"
        for group in bad.index
    ]
    remedy = f"Show an interval with each of its rates, or add videos: below {FEW_VIDEOS} even that is too narrow."
    return found(bad, "warning", "few videos", "group", bad["group"], finding, remedy)


def _one_class_split(rows, table, name):
    """Fakes or reals alone: half a split where the file's name says so and the other half exists; else an error."""
    which, other = ("fakes", "reals") if rows["label"].iloc[0] else ("reals", "fakes")
    files = [Path(file) for file in rows["file"].unique()]
    half = all(which[:-1] in file.stem.lower() for file in files)
    lacking = [partner for file in files if (partner := _partner(file)) and not partner.exists()]
    finding = f"Only {which} in {name}"
    remedy = f"Check the {other} along with them: groups cannot be judged by one class."
    if half and lacking:
        finding += f": {lacking[0].name} is missing"
        remedy = f"Put {lacking[0].name} beside it: a detector is trained and judged on both halves of a split."
    severity = "warning" if half and not lacking else "error"
    return found(_at(rows), severity, "one-class split", "label", "", finding, remedy)


def _partner(file):
    """The file of fakes that belongs to a file of reals, and the reverse; None where the name is of no half."""
    halves = [names for names in SPLIT_FILES.values() if file.name in names and len(names) == 2]
    return file.with_name(next(name for name in halves[0] if name != file.name)) if halves else None


def misnamed(rows):
    """Reals in a file whose name begins with "fake", and the reverse: one finding a file, at its first such row."""
    stems = rows["file"].map({file: Path(file).stem.lower() for file in rows["file"].unique()})
    parts = []
    for label, word, other in ((1, "real", "fake"), (0, "fake", "real")):
        named = stems.str.startswith(word) & ~stems.str.contains(other, regex=False)
        wrong = rows[named & (rows["label"] == label)]
        bad = wrong.drop_duplicates("file")
        counts = wrong["file"].value_counts()
        finding = [f"It is named {word}, and has {counted(counts[file], 'row')} of {other}s" for file in bad["file"]]
        remedy = f"Move them to a file of {other}s, or correct the label: released loaders go by the file's name."
        parts.append(found(bad, "error", "misnamed file", "label", bad["label"].astype(str), finding, remedy))
    return pd.concat(parts, ignore_index=True)


def _absent_groups(rows, table, name):
    expected = SIX_GROUPS if Path(rows["dataset"].iloc[0]).name in SIX_GROUP_DATASETS else GROUPS
    absent = [group for group in expected if not table.at[group, "images"]]
    at = pd.concat([_at(rows)] * len(absent) + [_at(rows)[:0]])
    remedy = "Nothing can be said about it: say so with the results, or add images of it."
    return found(at, "warning", "absent group", "group", absent, f"No image in {name}", remedy)


def _at(rows):
    """Where a finding about a split as a whole is put: its file, or its folder if it has several."""
    files = rows["file"].unique()
    return pd.DataFrame({"file": [files[0] if len(files) == 1 else str(Path(files[0]).parent)], "line": [0]})
