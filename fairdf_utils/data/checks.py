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
bad row                 error     a canonical row that breaks a rule of `checks_rows.ROWS`
same image twice        error     in one data set; a warning between two data sets
label flip              error     a video that is real and fake
demographic flip        error     a video whose rows differ in gender or race
leaked video            error     in two splits of one data set
leaked identity         error     a person, or the source of a fake, in two splits of one data set
unknown split           warning   a file of several whose name does not say train, val or test
misnamed file           error     reals in a file named fake..., or fakes in one named real...
one-class group         warning   only reals of a group in a split (no TPR, no AUC), or only fakes (no FPR, no AUC)
one-class split         error     only reals or only fakes at all; a warning where the file names say so and the other
                                  half of the split lies beside them
few videos              warning   a group that rests on fewer than `checks_rows.FEW_VIDEOS` videos in a split
absent group            warning   a group without an image in a split
image outside the root  error     a symbolic link that leaves the image root
missing image           error     no such file below the image root
unreadable image        error     not an image, empty or cut off
wrong size              error     not the size asked for
======================  ========  =================================================================================

A row with an error in a cell takes no part in the rules between rows: correct it and check again.
"""

import re
import sys
from pathlib import Path

import pandas as pd

from fairdf_utils.data.checks_images import image_findings
from fairdf_utils.data.checks_rows import flips, group_findings, leaks, misnamed, repeated_images, row_findings
from fairdf_utils.data.findings import FINDING_COLUMNS, Report, found, nothing
from fairdf_utils.data.manifests import SPLIT_FILES, read_leniently


def check(paths, images=None, size=None):
    """Check manifests by themselves, against each other and, on request, against their images.

    The folder of a file is its data set, and the file's name tells its split (`manifests.SPLIT_FILES`; the words
    train, val and test in other names do as well).

    Parameters
    ----------
    paths : list of str or Path
        Manifests, or folders: all CSV files in them and in their sub-folders.
    images : str or Path, optional
        The folder that ``img_path`` starts from. Without it no image is looked for.
    size : int, optional
        The side every image must have, pixels.

    Returns
    -------
    Report
        All findings; ``report.errors`` is empty if the manifests can be trained on.

    Raises
    ------
    FileNotFoundError
        ``images`` is not a folder.
    """
    files, findings = _files(paths)
    tables, counts = [], []
    for file in files:
        rows, problems = read_leniently(file)
        findings.append(_reading_findings(file, problems))
        tables.append(_placed(rows, file))
        counts.append(_file_counts(tables[-1], file, findings[-1]))
    findings.append(_unknown_splits(counts))
    if tables := [table for table in tables if len(table)]:
        rows = pd.concat(tables, ignore_index=True)
        findings += _rule_findings(rows)
        if images is not None:
            findings.append(image_findings(rows, images, size))
    table = pd.concat(findings, ignore_index=True).sort_values("severity", kind="stable", ignore_index=True)
    columns = ["file", "dataset", "split", "rows", "faulty", "videos", "groups"]
    return Report(table, pd.DataFrame(counts, columns=columns))


def _files(paths):
    """The CSV files meant, each once, and findings (in a list) for folders without any."""
    files, findings = {}, [nothing()]
    for path in map(Path, paths):
        inside = sorted(path.rglob("*.csv")) if path.is_dir() else [path]
        for file in inside:
            files.setdefault(file.resolve(), file)
        if not inside:
            at = pd.DataFrame({"file": [str(path)], "line": [0]})
            remedy = "Give a manifest, or the folder of a data set."
            findings.append(found(at, "error", "unreadable file", "", "", "No CSV file in this folder", remedy))
    return list(files.values()), findings


def _placed(rows, file):
    """The rows with their file, line, data set and split."""
    line = rows["source"].str.rpartition(", line ")[2].astype(int) if len(rows) else 0
    return rows.assign(file=str(file), line=line, dataset=_dataset(file), split=_split(file))


def _dataset(file):
    """The folder of a file, the same however it was reached."""
    return str(file.parent.resolve())


def _split(file):
    """The split that a file's name speaks of, "" if it speaks of none or several: faketrain.csv, ff_test_real.csv."""
    words = re.findall("[a-z]+", re.sub("fake|real", " ", file.stem.lower()))
    named = [split for split in SPLIT_FILES if split in words]
    return named[0] if len(named) == 1 else ""


def _file_counts(rows, file, findings):
    lines = findings.loc[(findings["severity"] == "error") & (findings["line"] > 1), "line"]
    counts = (len(rows), lines.nunique(), rows["video"].nunique(), rows["group"].nunique())
    return (str(file), _dataset(file), _split(file), *counts)


def _reading_findings(file, problems):
    at = pd.DataFrame({"file": str(file), "line": [problem.line for problem in problems]})
    cells = {name: [getattr(problem, name) for problem in problems] for name in FINDING_COLUMNS[4:]}
    kinds = [_kind(problem) for problem in problems]
    return found(at, [problem.severity for problem in problems], kinds, **cells)


def _kind(problem):
    if problem.severity == "warning":
        return "unsure value"
    if problem.line <= 1:
        return "bad header" if problem.line else "unreadable file"
    if problem.column in ("img_path", "Image Path") and problem.value.strip():
        return "path outside the root"
    contradicts = problem.finding.startswith(("It contradicts", "More than one", "Only fakes"))
    return "contradicting columns" if contradicts else "bad cell"


def _unknown_splits(counts):
    """Files beside others of their data set that cannot be searched for leaks."""
    folders = [dataset for _, dataset, *_ in counts]
    unknown = [file for file, dataset, split, *_ in counts if not split and folders.count(dataset) > 1]
    at = pd.DataFrame({"file": unknown, "line": 0})
    remedy = f"Name it {', '.join(name for names in SPLIT_FILES.values() for name in names)}, or move it elsewhere."
    finding = "Its name does not tell its split, so leaks are not looked for in it"
    return found(at, "warning", "unknown split", "", "", finding, remedy)


def _rule_findings(rows):
    yield row_findings(rows)
    yield misnamed(rows)
    yield repeated_images(rows)
    yield from (flips(rows, column) for column in ("label", "gender", "race"))
    yield from (leaks(part) for _, part in rows.groupby("dataset"))
    alone = rows["file"].where(rows["split"] == "", "")  # a file of no known split is judged by itself
    yield from (group_findings(part) for _, part in rows.groupby(["dataset", "split", alone], sort=False))


def main_check(options):
    """Print what is wrong with ``options.manifests`` (paths); 0 if nothing or warnings only, 1 for errors, 2 for usage.

    ``options.images``, ``options.size`` as in :func:`check`; ``options.out``: a CSV file for all findings, or None.
    """
    try:
        _make_room(options.out)
        report = check(options.manifests, options.images, options.size)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report)
    if options.out:
        report.write(options.out)
        print(f"All findings are in {options.out}")
    return 1 if len(report.errors) else 0


def _make_room(out):
    """Refuse a file for the findings that could not be written in the end."""
    if out is None:
        return
    folder = Path(out).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder}: this folder cannot be made ({error.strerror}). Choose another --out") from None
    if Path(out).is_dir():
        raise OSError(f"{out}: is a folder. Give --out the name of a CSV file")
