"""Checks of manifests before anything is trained on them: everything that is wrong, in one report.

======================  ========  =================================================================================
kind                    severity  what it is
======================  ========  =================================================================================
unreadable file         error     missing, no CSV, without rows, or a folder without manifests
bad header              error     a column is missing or there twice
bad cell                error     a value that is not allowed, or a row with too few or too many cells
contradicting columns   error     two columns of one row that tell different stories, such as a group and its flags
unsure value            warning   a value that had to be guessed, such as the video of an oddly named image
path outside the root   error     an image path that is absolute or has ".."
bad row                 error     a real image with a source identity
same image twice        error     in one data set; a warning between two data sets
label flip              error     a video that is real and fake
demographic flip        error     a video whose rows differ in gender or race, or in a group of one's own
leaked video            error     in two splits of one data set
leaked identity         error     a person, or the source of a fake, in two splits of one data set
unknown split           warning   a file of several whose name does not say train, val or test
misnamed file           error     reals in a file named fake..., or fakes in one named real...
one-class group         warning   only reals of a group in a split (no TPR, no AUC), or only fakes (no FPR, no AUC)
one-class split         error     only reals or only fakes at all; a warning where the file names say so and the other
                                  half of the split lies beside them
few videos              warning   a group that rests on fewer than `FEW_VIDEOS` videos in a split
absent group            warning   a group without an image in a split
untrained group         error     a group of the validation set that is no group of the training set's scheme
image outside the root  error     a symbolic link that leaves the image root
missing image           error     no such file below the image root
unreadable image        error     not an image, empty or cut off
wrong size              error     not the size asked for
face in two splits      warning   asked for by `check --faces`: a real video looks like one in another split
======================  ========  =================================================================================

A row with an error in a cell takes no part in the rules between rows: correct it and check again.
"""

from __future__ import annotations

import argparse
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd

from fairdf_utils.data.csv_rows import Problem
from fairdf_utils.data.image_checks import image_problems
from fairdf_utils.data.manifests import SPLIT_FILES, group_table, read_leniently
from fairdf_utils.data.vocabulary import GROUPS, SIX_GROUP_DATASETS, SIX_GROUPS, counted, scheme_of
from fairdf_utils.files import printable, replacing

# An interval from fewer videos than this is rough itself: with few clusters the spread between them is
# underestimated (Cameron, Gelbach, Miller 2008 put "few" at 5 to 30).
FEW_VIDEOS = 20
SHOWN = 3  # findings of one sort that are printed; all of them are in the table
VALUE_LENGTH = 80  # characters of a value that are printed: an open quote can swallow half a file


@dataclass(frozen=True)
class Report:
    """What a check found. ``print(report)`` shows it folded; the tables are complete.

    A row of ``files`` has ``file``, ``dataset`` (its folder, resolved), ``split`` ("" if unknown), ``rows`` (usable
    ones), ``faulty`` (rows with an error in a cell, in no other count), ``videos`` and ``groups``.
    """

    findings: pd.DataFrame  # the fields of `csv_rows.Problem` as columns, errors first
    files: pd.DataFrame

    @property
    def errors(self) -> pd.DataFrame:
        """The findings that must be corrected before training."""
        return self.findings[self.findings["severity"] == "error"]

    @property
    def warnings(self) -> pd.DataFrame:
        """The findings to bear in mind when results are read."""
        return self.findings[self.findings["severity"] == "warning"]

    def __str__(self) -> str:
        alike = self.findings.groupby(["severity", "kind", "column", "remedy"], sort=False)
        counts = [counted(len(self.errors), "errors"), counted(len(self.warnings), "warnings")]
        advice = "Correct the errors first." if len(self.errors) else "They can be used."
        verdict = f"Verdict: {' and '.join(counts)} in {counted(len(self.files), 'files')}. {advice}"
        files = "\n".join(map(_file_line, self.files.itertuples()))
        return "\n\n".join([*(_fold(*sort, findings) for sort, findings in alike), files, verdict])


def _fold(severity: str, kind: str, column: str, remedy: str, findings: pd.DataFrame) -> str:
    head = f"{severity.upper()}: {kind}" + (f", column {column}" if column else "")
    lines = [f"{head}, {counted(len(findings), 'findings')}. {remedy}"]
    for one in findings.head(SHOWN).itertuples():
        value = one.value if len(one.value) <= VALUE_LENGTH else one.value[:VALUE_LENGTH] + "…"
        line = f", line {one.line}" if one.line else ""
        lines.append(f"  {one.file}{line}: " + (f"{value!r}. " if value else "") + one.finding)
    if len(findings) > SHOWN:
        lines.append(f"  and {len(findings) - SHOWN:,} more")
    return "\n".join(lines)


def _file_line(file) -> str:
    counts = [counted(file.rows, "rows"), counted(file.videos, "videos"), counted(file.groups, "groups")]
    faulty = f" ({counted(file.faulty, 'faulty rows')} left out)" if file.faulty else ""
    return f"{file.file}: {', '.join(counts)}{faulty}"


def check(
    paths: Iterable[str | Path],
    images: str | Path | None = None,
    size: int | None = None,
    further: Callable[[pd.DataFrame], Iterable[Problem]] | None = None,
) -> Report:
    """Check manifests by themselves, against each other and, on request, against their images.

    The folder of a file is its data set, and the file's name tells its split (`manifests.SPLIT_FILES`; the words
    train, val and test in other names do as well).

    Parameters
    ----------
    paths : list of str or Path
        Manifests, or folders: all CSV files in them and in their sub-folders.
    images, size
        See `image_checks.image_problems`; absolute paths below ``images`` count as relative to it. Without ``images``
        no image is looked for.
    further : callable, optional
        Another check of all rows, canonical ones with ``file``, ``line``, ``dataset`` and ``split``.
    """
    files, problems = _files(paths)
    tables, counts = [], []
    for file in files:
        rows, faults = read_leniently(file, images or "")
        problems += faults
        placed = {"file": printable(file), "dataset": printable(file.parent.resolve()), "split": _split(file)}
        line = rows["source"].str.rpartition(", line ")[2].astype(int) if len(rows) else 0
        tables.append(rows.assign(**placed, line=line))
        faulty = len({fault.line for fault in faults if fault.severity == "error" and fault.line > 1})
        counts.append((*placed.values(), len(rows), faulty, rows["video"].nunique(), rows["group"].nunique()))
    counts = pd.DataFrame(counts, columns=["file", "dataset", "split", "rows", "faulty", "videos", "groups"])
    remedy = f"Name it {', '.join(name for names in SPLIT_FILES.values() for name in names)}, or move it elsewhere."
    finding = "Its name does not tell its split, so leaks are not looked for in it"
    unknown = counts.loc[(counts["split"] == "") & counts["dataset"].duplicated(keep=False), "file"]
    problems += [Problem("warning", "unknown split", file, 0, "", "", finding, remedy) for file in unknown]
    if tables := [table for table in tables if len(table)]:
        rows = pd.concat(tables, ignore_index=True)
        problems += _row_problems(rows)
        if images is not None:
            problems += image_problems(rows, images, size)
        if further is not None:
            problems += further(rows)
    findings = pd.DataFrame(problems, columns=Problem._fields).astype({"line": int})
    return Report(findings.sort_values("severity", kind="stable", ignore_index=True), counts)


def _files(paths: Iterable[str | Path]) -> tuple[list[Path], list[Problem]]:
    """The CSV files meant, each once, and a problem for each folder without any."""
    files, problems = {}, []
    for path in map(Path, paths):
        inside = sorted(path.rglob("*.csv")) if path.is_dir() else [path]
        files |= {file.resolve(): file for file in inside if file.resolve() not in files}
        if not inside:
            finding, remedy = "No CSV file in this folder", "Give a manifest, or the folder of a data set."
            problems.append(Problem("error", "unreadable file", printable(path), 0, "", "", finding, remedy))
    return list(files.values()), problems


def _split(file: Path) -> str:
    """The split that a file's name speaks of, "" if it speaks of none or several: faketrain.csv, ff_test_real.csv."""
    words = re.findall("[a-z]+", re.sub("fake|real", " ", file.stem.lower()))
    named = [split for split in SPLIT_FILES if split in words]
    return named[0] if len(named) == 1 else ""


def _row_problems(rows: pd.DataFrame) -> Iterator[Problem]:
    """What breaks a rule of one row, of a video, of a group or between splits.

    All rules take canonical rows with columns ``file``, ``line``, ``dataset`` and ``split``, told apart by the index.
    """
    sourced = rows[(rows["label"] == 0) & (rows["source_identity"] != "")]
    remedy = "Leave it empty, or set label to 1."
    yield from _at(sourced, "error", "bad row", "source_identity", "A real image has no source", remedy)
    yield from _misnamed(rows)
    yield from _repeated_images(rows)
    for column in ("label", "gender", "race"):
        if column in rows:
            yield from _flips(rows, column)
    yield from _flips(rows[~rows["group"].isin(GROUPS)], "group")
    schemes = {}
    for dataset, part in rows.groupby("dataset"):
        trained = part.loc[part["split"] == "train", "group"]
        schemes[dataset] = scheme_of(trained if len(trained) else part["group"])
        unknown = part[(part["split"] == "val") & ~part["group"].isin(schemes[dataset])].drop_duplicates("group")
        finding = "Not among the groups of the training set"
        remedy = f"Use {', '.join(schemes[dataset])}, or add training images of it."
        yield from _at(unknown, "error", "untrained group", "group", finding, remedy)
    for _, part in rows[rows["split"] != ""].groupby("dataset"):
        videos, strays = _leaked(part, "video", ["video"])
        # A person who is in two splits only through a leaked video is not reported again.
        persons, _ = _leaked(part.drop(strays), "identity", ["identity", "source_identity"])
        yield from videos + persons
    alone = rows["file"].where(rows["split"] == "", "")  # a file of no known split is judged by itself
    for _, part in rows.groupby(["dataset", "split", alone], sort=False):
        yield from _group_problems(part, schemes[part["dataset"].iloc[0]])


Cells = str | Sequence[str]  # one for all rows, or one a row


def _at(
    rows: pd.DataFrame, severity: str, kind: str, column: Cells, finding: Cells, remedy: Cells, value: Cells = ""
) -> list[Problem]:
    """Problems at N rows; the values are the column's where none are given."""
    value = rows[column].astype(str) if isinstance(value, str) else value
    cells = [repeat(cell) if isinstance(cell, str) else cell for cell in (column, value, finding, remedy)]
    return [Problem(severity, kind, *place) for place in zip(rows["file"], rows["line"], *cells, strict=False)]


def _place(rows: pd.DataFrame, seen_from: pd.DataFrame) -> np.ndarray:
    """The places of N rows for sentences about N others: "line 5", with the file's name if it is another; str (N,)."""
    line = "line " + rows["line"].astype(str).to_numpy(object)
    file = rows["file"].to_numpy(object)
    return np.where(file == seen_from["file"].to_numpy(object), line, file + ", " + line)


def _repeated_images(rows: pd.DataFrame) -> list[Problem]:
    """Images listed more than once: an error within a data set, a warning between data sets of one image root."""
    paths = rows["img_path"]
    odd = paths.str.contains("//", regex=False) | paths.str.contains("./", regex=False)
    paths = paths.where(~odd, paths[odd].map(posixpath.normpath).reindex(paths.index))  # one spelling for a file
    inside = rows["dataset"] + "\0" + paths
    across = paths.duplicated() & ~inside.duplicated()
    elsewhere = "Take it out of one data set, or keep their images under different folders."
    problems = []
    for severity, key, again, remedy in (
        ("error", inside, inside.duplicated(), "Remove one of the two rows."),
        ("warning", paths, across, elsewhere),
    ):
        first = pd.Series(rows.index, index=rows.index).groupby(key, sort=False).transform("first")
        bad = rows[again]
        finding = "Already listed in " + _place(rows.loc[first[again]], bad)
        problems += _at(bad, severity, "same image twice", "img_path", finding, remedy)
    return problems


def _flips(rows: pd.DataFrame, column: str) -> list[Problem]:
    """Videos whose rows do not agree on ``column`` ("label", "gender" or "race"), at the first row off the majority."""
    video = ["dataset", "video"]
    values = rows.assign(position=rows.index).groupby([*video, column], sort=False, as_index=False)
    values = values.agg(count=("position", "size"), position=("position", "min"))
    values = values[values.duplicated(video, keep=False)].sort_values(["count", "position"], ascending=[False, True])
    most = values.drop_duplicates(video).set_index(video)
    rest = values[values.duplicated(video)].groupby(video)
    rest = rest.agg(count=("count", "sum"), position=("position", "min")).sort_values("position")
    most = most.loc[rest.index]
    finding = [
        f"The video {name!r} has {column} {value} in {many:,} of its rows and another in {few:,}"
        for (_, name), value, many, few in zip(rest.index, most[column], most["count"], rest["count"], strict=True)
    ]
    kind = "label flip" if column == "label" else "demographic flip"
    remedy = "Settle it by the majority of the video's rows, or leave the video out."
    return _at(rows.loc[rest["position"]], "error", kind, column, finding, remedy)


def _leaked(rows: pd.DataFrame, kind: str, columns: Sequence[str]) -> tuple[list[Problem], np.ndarray]:
    """Videos or persons in several splits, each at its first row in a split with fewer of it; and all such rows."""
    uses = [pd.DataFrame({"value": rows[c], "row": rows.index, "split": rows["split"], "column": c}) for c in columns]
    uses = pd.concat(uses).sort_values("row", kind="stable")  # so that "first" below is the first in the files
    parts = uses[uses["value"] != ""].groupby(["value", "split"], as_index=False)
    parts = parts.agg(count=("row", "nunique"), row=("row", "first"), column=("column", "first"))
    # The split with most of its rows keeps it; of equals the first in the order train, val, test.
    order = parts["split"].map(list(SPLIT_FILES).index)
    parts = parts.assign(order=order).sort_values(["count", "order"], ascending=[False, True])
    away = parts[parts.duplicated("value")].sort_values("row")
    home = parts.drop_duplicates("value").set_index("value").loc[away["value"]]
    strays = uses.merge(away[["value", "split"]], on=["value", "split"])["row"].unique()
    bad = rows.loc[away["row"]]
    places = zip(home["count"], home["split"], _place(rows.loc[home["row"]], bad), strict=True)
    finding = [
        f"{few:,} of its rows in {split}, {many:,} in {home_split} ({first})"
        for few, split, (many, home_split, first) in zip(away["count"], away["split"], places, strict=True)
    ]
    remedy = f"Keep each {kind} in one split: move these rows, or leave them out."
    return _at(bad, "error", f"leaked {kind}", away["column"], finding, remedy, away["value"]), strays


def _misnamed(rows: pd.DataFrame) -> list[Problem]:
    """Reals in a file whose name begins with "fake", and the reverse: one problem a file, at its first such row."""
    stems = rows["file"].map({file: Path(file).stem.lower() for file in rows["file"].unique()})
    problems = []
    for label, word, other in ((1, "real", "fake"), (0, "fake", "real")):
        named = stems.str.startswith(word) & ~stems.str.contains(other, regex=False)
        wrong = rows[named & (rows["label"] == label)]
        bad, counts = wrong.drop_duplicates("file"), wrong["file"].value_counts()
        finding = [f"It is named {word}, and has {counted(counts[file], 'rows')} of {other}s" for file in bad["file"]]
        remedy = f"Move them to a file of {other}s, or correct the label: released loaders go by the file's name."
        problems += _at(bad, "error", "misnamed file", "label", finding, remedy)
    return problems


def _group_problems(rows: pd.DataFrame, scheme: Sequence[str]) -> Iterator[Problem]:
    """Groups of one split that have one class only, rest on few videos or are absent from the data set's scheme."""
    name = rows["split"].iloc[0] or "this file"
    table = group_table(rows)
    both = rows["label"].nunique() == 2
    if not both:
        yield _one_class_split(rows, name)
    by_class = rows.groupby(["label", "group"])["video"].nunique()
    first = rows.drop_duplicates("group")
    for one in first[both & ~first["group"].map(table[["reals", "fakes"]].all(axis=1))].itertuples():
        real, fake = table.loc[one.group, ["reals", "fakes"]]
        missing, rate = ("reals", "FPR") if real == 0 else ("fakes", "TPR")
        remedy = f"Without {missing} it has no {rate} and no AUC there: say so with the results, or add {missing}."
        finding = f"{real:,} reals and {fake:,} fakes in {name}"
        yield Problem("warning", "one-class group", one.file, one.line, "group", one.group, finding, remedy)
    remedy = f"Show an interval with each of its rates, or add videos: below {FEW_VIDEOS} even that is too narrow."
    for one in first[first["group"].map(table["videos"]) < FEW_VIDEOS].itertuples():
        halves = f"{by_class.get((0, one.group), 0)} of reals, {by_class.get((1, one.group), 0)} of fakes"
        finding = f"It rests on {counted(table.at[one.group, 'videos'], 'videos')} in {name} ({halves})"
        yield Problem("warning", "few videos", one.file, one.line, "group", one.group, finding, remedy)
    if scheme == GROUPS and Path(rows["dataset"].iloc[0]).name in SIX_GROUP_DATASETS:
        scheme = SIX_GROUPS
    remedy = "Nothing can be said about it: say so with the results, or add images of it."
    for group in scheme:
        if group not in by_class.index.get_level_values("group"):
            yield Problem("warning", "absent group", _whole(rows), 0, "group", group, f"No image in {name}", remedy)


def _whole(rows: pd.DataFrame) -> str:
    """The file of a split, or its folder if it has several."""
    files = rows["file"].unique()
    return files[0] if len(files) == 1 else str(Path(files[0]).parent)


def _one_class_split(rows: pd.DataFrame, name: str) -> Problem:
    """Fakes or reals alone: half a split where the file's name says so and the other half exists; else an error."""
    which, other = ("fakes", "reals") if rows["label"].iloc[0] else ("reals", "fakes")
    files = [Path(file) for file in rows["file"].unique()]
    half = all(which[:-1] in file.stem.lower() for file in files)
    known = [file for file in files if any(file.name in names for names in SPLIT_FILES.values())]
    partners = [file.with_name(file.name.replace(which[:-1], other[:-1])) for file in known]
    lacking = [partner.name for partner in partners if not partner.exists()]
    finding = f"Only {which} in {name}"
    remedy = f"Check the {other} along with them: groups cannot be judged by one class."
    if half and lacking:
        finding += f": {lacking[0]} is missing"
        remedy = f"Put {lacking[0]} beside it: a detector is trained and judged on both halves of a split."
    severity = "warning" if half and not lacking else "error"
    return Problem(severity, "one-class split", _whole(rows), 0, "label", "", finding, remedy)


def main_check(options: argparse.Namespace, further: Callable[[pd.DataFrame], Iterable[Problem]] | None = None) -> int:
    """The sub-command `check`: 0 if nothing is wrong or there are warnings only, 1 for errors."""
    if options.out:  # refused before the work, not after it
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        if Path(options.out).is_dir():
            raise IsADirectoryError(f"{options.out} is a folder. Give --out the name of a CSV file")
    report = check(options.manifests, options.images, options.size, further)
    print(report)
    if options.out:
        with replacing(options.out) as partial:
            report.findings.to_csv(partial, index=False, lineterminator="\n", encoding="utf-8")
        print(f"All findings are in {options.out}")
    return 1 if len(report.errors) else 0
