"""The cells of a CSV file with the lines they came from, and every problem found in them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

UNKNOWN = -9  # stands for a cell that holds no known code, so that one faulty cell is reported once
_LEAVES_ROOT = re.compile(r"(^|[/\\])\.\.([/\\]|$)")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")


class ManifestError(ValueError):
    """A manifest that cannot be used; the message names file, line, column, value and remedy."""


class Problem(NamedTuple):
    """One thing wrong in one file. The kinds are those of `checks`."""

    severity: str  # "error", or "warning": the row can be used
    kind: str
    file: str
    line: int  # 0 the file as a whole, 1 its header
    column: str  # "" where it is not one column's
    value: str
    finding: str  # a sentence without its full stop
    remedy: str

    def message(self) -> str:
        """One line for a terminal, with everything needed to find and mend it."""
        where = f"{self.file}, line {self.line}" if self.line else self.file
        what = f", column {self.column}: {self.value!r}. " if self.column else ": "
        return f"{where}{what}{self.finding}. {self.remedy}"


class Rows:
    """The cells of one CSV file as strings; checks note their findings in ``problems`` and mark rows as faulty.

    ``cells`` (N, columns) leave out rows with a wrong number of cells, which are noted; ``lines`` int (N,) are those
    that each row ends on; ``faulty`` bool (N,) are the rows with an error.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.problems: list[Problem] = []
        header, rows = self._read()
        whole = [(line, row) for line, row in rows if len(row) == len(header)]
        for line, number in [(line, len(row)) for line, row in rows if len(row) != len(header)]:
            finding = f"{number} cells where the header has {len(header)}"
            self._note("bad cell", line, finding, "Quote values that contain a comma, or add the missing cells.")
        self.lines = np.array([line for line, _ in whole], dtype=np.int64)
        self.cells = pd.DataFrame([row for _, row in whole], columns=header, dtype=object)
        self.faulty = np.zeros(len(whole), dtype=bool)

    def _read(self) -> tuple[list[str], list[tuple[int, list[str]]]]:
        try:
            with open(self.path, newline="", encoding="utf-8-sig") as handle:
                reader = csv.reader(handle)
                header = next(reader, [])
                rows = [(reader.line_num, row) for row in reader if row]
        except OSError as error:
            finding = "no such manifest" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
            remedy = "Prepare the data set first (chapter 01) or correct the path."
        except (UnicodeDecodeError, csv.Error) as error:
            finding, remedy = f"not a UTF-8 CSV file ({error})", "Export it again as CSV."
        else:
            if rows:
                return header, rows
            finding, remedy = "holds no rows", "Write the manifest again; an empty set has no use."
        self._note("unreadable file", 0, finding, remedy)
        return [], []

    def _note(self, kind: str, line: int, finding: str, remedy: str) -> None:
        self.problems.append(Problem("error", kind, str(self.path), line, "", "", finding, remedy))

    def require(self, columns: Iterable[str]) -> bool:
        """Whether there are rows and all ``columns``, each once; what is amiss is noted."""
        if any(problem.line == 0 for problem in self.problems):
            return False
        found = self.cells.columns
        if missing := [column for column in columns if column not in found]:
            finding = f"missing column {', '.join(missing)} (found: {', '.join(found)})"
            self._note("bad header", 1, finding, "Add it, or rename the column that holds it.")
        doubled = found[found.duplicated()]
        if len(doubled):
            self._note("bad header", 1, f"column {doubled[0]} appears twice", "Keep one of them.")
        return not missing and not len(doubled)

    def reject(
        self, bad: np.ndarray, kind: str, column: str, finding: str, remedy: str, severity: str = "error"
    ) -> None:
        """Note the rows where ``bad`` (N,) is true; errors make them faulty."""
        bad = np.asarray(bad, dtype=bool)
        if not bad.any():
            return
        where = zip(self.lines[bad].tolist(), self.strings(column)[bad], strict=True)
        file = str(self.path)
        self.problems += [Problem(severity, kind, file, line, column, cell, finding, remedy) for line, cell in where]
        if severity == "error":
            self.faulty |= bad

    def strings(self, column: str) -> np.ndarray:
        """The column's cells, object (N,)."""
        return self.cells[column].to_numpy()

    def codes(self, column: str, allowed: Iterable[int]) -> np.ndarray:
        """The column as integers (N,); a cell that is none of ``allowed`` is noted and becomes :data:`UNKNOWN`."""
        known = {str(code): code for code in allowed}
        values = np.array([known.get(cell, UNKNOWN) for cell in self.strings(column)], dtype=np.int64)
        self.reject(values == UNKNOWN, "bad cell", column, "It is no known code", f"Use one of {', '.join(known)}.")
        return values

    def image_paths(self, column: str) -> np.ndarray:
        """The column's cells, checked to be paths below the image root."""
        paths = self.strings(column)
        empty = np.array([not path.strip() for path in paths], dtype=bool)
        absolute, leaving = leaves_root(paths)
        remedy = "Make the path relative to the image root, not absolute."
        below = 'Remove ".."; a manifest may only name images below its image root.'
        self.reject(empty, "bad cell", column, "There is no path", "Give the image's path relative to the image root.")
        self.reject(absolute, "path outside the root", column, "The path is absolute", remedy)
        self.reject(leaving, "path outside the root", column, "The path can leave the image root", below)
        return paths

    def filled(self, column: str) -> np.ndarray:
        """The column's cells, none of which may be empty."""
        remedy = "Fill the cell in, or leave the whole column out."
        self.reject(self.strings(column) == "", "bad cell", column, "The cell is empty", remedy)
        return self.strings(column)


def leaves_root(paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which paths are absolute, and which climb with "..": two bool arrays (N,)."""
    absolute = np.array([_ABSOLUTE.match(path) is not None for path in paths], dtype=bool)
    return absolute, np.array([".." in path and bool(_LEAVES_ROOT.search(path)) for path in paths], dtype=bool)
