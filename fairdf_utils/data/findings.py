"""Findings of the checks: a table, and its printed form, which folds what repeats."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fairdf_utils.files import replacing

FINDING_COLUMNS = ("severity", "kind", "file", "line", "column", "value", "finding", "remedy")
SHOWN = 3  # findings of one sort that are printed; all of them are in the table
VALUE_LENGTH = 80  # characters of a value that are printed: an open quote can swallow half a file


def found(rows, severity, kind, column, value, finding, remedy):
    """Findings at some manifest rows.

    Parameters
    ----------
    rows : pandas.DataFrame
        One row a finding, with the columns ``file`` and ``line`` (0: the file as a whole).
    severity, kind, column, value, finding, remedy : str or sequence of str
        One for all rows, or one a row. ``severity`` is "error" or "warning", ``finding`` a sentence without its stop.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`FINDING_COLUMNS`.
    """
    cells = {"severity": severity, "kind": kind, "column": column, "value": value, "finding": finding, "remedy": remedy}
    cells = {name: cell if isinstance(cell, str) else list(cell) for name, cell in cells.items()}
    table = {"file": list(rows["file"]), "line": list(rows["line"]), **cells}
    return pd.DataFrame(table, index=range(len(rows)), columns=list(FINDING_COLUMNS)).astype({"line": int})


def nothing():
    """The table of no findings."""
    return pd.DataFrame(columns=list(FINDING_COLUMNS)).astype({"line": int})


def where(rows, seen_from):
    """The places of N rows for sentences about N others: "line 5", with the file's name if it is another; str (N,)."""
    line = "line " + rows["line"].astype(str).to_numpy(object)
    same = rows["file"].to_numpy(object) == seen_from["file"].to_numpy(object)
    return np.where(same, line, rows["file"].to_numpy(object) + ", " + line)


def counted(number, noun):
    """For instance "1 video", "1,476 videos"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Report:
    """What a check found. ``print(report)`` shows it folded; the tables are complete.

    Attributes
    ----------
    findings : pandas.DataFrame
        Columns :data:`FINDING_COLUMNS`, all str but ``line`` (int, the first line of the file is 1, 0 stands for the
        file or split as a whole); ``severity`` is "error" or "warning". Errors first.
    files : pandas.DataFrame
        One row a file: ``file``, ``dataset`` (its folder, resolved), ``split`` ("" if unknown), ``rows`` (usable ones),
        ``faulty`` (rows with an error in a cell, in no other count), ``videos``, ``groups``.
    """

    findings: pd.DataFrame
    files: pd.DataFrame

    @property
    def errors(self):
        """The findings that must be corrected before training."""
        return self.findings[self.findings["severity"] == "error"]

    @property
    def warnings(self):
        """The findings to bear in mind when results are read."""
        return self.findings[self.findings["severity"] == "warning"]

    def write(self, path):
        """Write all findings to a CSV file, atomically."""
        with replacing(path) as partial:
            self.findings.to_csv(partial, index=False, lineterminator="\n", encoding="utf-8")

    def __str__(self):
        alike = self.findings.groupby(["severity", "kind", "column", "remedy"], sort=False)
        parts = [_fold(*sort, findings) for sort, findings in alike]
        return "\n\n".join([*parts, "\n".join(map(_file_line, self.files.itertuples())), self._verdict()])

    def _verdict(self):
        counts = [counted(len(self.errors), "error"), counted(len(self.warnings), "warning")]
        advice = "Correct the errors first." if len(self.errors) else "They can be used."
        return f"Verdict: {' and '.join(counts)} in {counted(len(self.files), 'file')}. {advice}"


def _fold(severity, kind, column, remedy, findings):
    head = f"{severity.upper()}: {kind}" + (f", column {column}" if column else "")
    lines = [f"{head}, {counted(len(findings), 'finding')}. {remedy}"]
    for one in findings.head(SHOWN).itertuples():
        value = one.value if len(one.value) <= VALUE_LENGTH else one.value[:VALUE_LENGTH] + "…"
        line = f", line {one.line}" if one.line else ""
        lines.append(f"  {one.file}{line}: " + (f"{value!r}. " if value else "") + one.finding)
    if len(findings) > SHOWN:
        lines.append(f"  and {len(findings) - SHOWN:,} more")
    return "\n".join(lines)


def _file_line(file):
    counts = [counted(file.rows, "row"), counted(file.videos, "video"), counted(file.groups, "group")]
    faulty = f" ({counted(file.faulty, 'faulty row')} left out)" if file.faulty else ""
    return f"{file.file}: {', '.join(counts)}{faulty}"
