"""The cells of a CSV file with the lines they came from, and every problem found in them."""

from __future__ import annotations

import csv
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
import pandas as pd

from fairdf_utils.files import printable

UNKNOWN = -9  # stands for a cell that holds no known code, so that one faulty cell is reported once
_LEAVES_ROOT = re.compile(r"(^|[/\\])\.\.([/\\]|$)")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")
_NAMELESS = re.compile(r"(Unnamed: [0-9]+)?")  # the index of a table, and what a spreadsheet leaves beside it


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

    Cells are separated by commas, semicolons, tabs or bars, as those of the header are. ``cells`` (N, columns) leave
    out nameless columns and rows with a wrong number of cells, which are noted; ``lines`` int (N,) are those that each
    row ends on; ``faulty`` bool (N,) are the rows with an error; ``asked`` holds the columns read so far. Absolute
    image paths below ``image_root`` become relative to it.
    """

    def __init__(self, path: str | Path, image_root: str | Path = "") -> None:
        self.path, self.name, self.image_root = Path(path), printable(path), image_root
        self.problems: list[Problem] = []
        self.asked: set[str] = set()
        header, rows = self._read()
        width = len(header)
        whole = [(line, row[:width]) for line, row in rows if len(row) >= width and not any(row[width:])]
        for line, number in [(line, len(row)) for line, row in rows if len(row) < width or any(row[width:])]:
            finding = f"{number} cells where the header has {width}"
            self._note("bad cell", line, finding, "Quote values that contain a comma, or add the missing cells.")
        self.lines = np.array([line for line, _ in whole], dtype=np.int64)
        named = [_NAMELESS.fullmatch(name) is None for name in header]
        self.cells = pd.DataFrame([row for _, row in whole], columns=header, dtype=object).loc[:, named]
        self.faulty = np.zeros(len(whole), dtype=bool)

    def _read(self) -> tuple[list[str], list[tuple[int, list[str]]]]:
        try:
            with open(self.path, newline="", encoding="utf-8-sig") as handle:
                reader = csv.reader(handle, delimiter=separator_of(handle))
                header = [name.strip() for name in next(reader, [])]
                rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
        except OSError as error:
            finding = "no such manifest" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
            remedy = "Prepare the data set first (chapter 01) or correct the path."
        except (UnicodeDecodeError, csv.Error) as error:
            finding, remedy = f"not a UTF-8 CSV file ({error})", "Export it again as CSV, in UTF-8."
        else:
            if rows:
                return header, rows
            finding, remedy = "holds no rows", "Write the manifest again; an empty set has no use."
        self._note("unreadable file", 0, finding, remedy)
        return [], []

    def _note(self, kind: str, line: int, finding: str, remedy: str) -> None:
        self.problems.append(Problem("error", kind, self.name, line, "", "", finding, remedy))

    def require(self, columns: Iterable[str]) -> bool:
        """Whether there are rows and all ``columns``, each once; what is amiss is noted."""
        if any(problem.line == 0 for problem in self.problems):
            return False
        found = self.cells.columns
        if missing := [column for column in columns if column not in found]:
            finding = f"missing column {', '.join(missing)} (found: {', '.join(found)})"
            alike = [(name, own) for name in missing for own in found if _plain(name) == _plain(own)]
            rename = ", ".join(f"{own!r} to {name!r}" for name, own in alike) or "the column that holds it"
            self._note("bad header", 1, finding, f"Add it, or rename {rename}.")
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
        file = self.name
        self.problems += [Problem(severity, kind, file, line, column, cell, finding, remedy) for line, cell in where]
        if severity == "error":
            self.faulty |= bad

    def strings(self, column: str) -> np.ndarray:
        """The column's cells, object (N,)."""
        self.asked.add(column)
        return self.cells[column].to_numpy()

    def codes(self, column: str, allowed: Iterable[int]) -> np.ndarray:
        """The column as integers (N,); a cell that is none of ``allowed`` is noted and becomes :data:`UNKNOWN`."""
        known = {str(code): code for code in allowed}
        names = ", ".join(known)
        known |= {f"{name}.0": code for name, code in known.items()}  # pandas writes these beside a missing value
        values = np.array([known.get(cell.strip(), UNKNOWN) for cell in self.strings(column)], dtype=np.int64)
        self.reject(values == UNKNOWN, "bad cell", column, "It is no known code", f"Use one of {names}.")
        return values

    def image_paths(self, column: str) -> np.ndarray:
        """The column's cells, "/" between parts, relative to the image root; checked to be paths below it."""
        paths = [path.replace("\\", "/") for path in self.strings(column)]
        paths = [posixpath.normpath(path) if _ABSOLUTE.match(path) else path for path in paths]
        for root in _spellings(self.image_root):
            paths = [path.removeprefix(root) for path in paths]
        paths = np.array(paths, dtype=object)
        empty = np.array([not path.strip() for path in paths], dtype=bool)
        absolute, leaving = leaves_root(paths)
        outside = f" and not below image_root {str(self.image_root)!r}" if self.image_root else ""
        start = "the folder that it starts from as image_root (of the check: --images)"
        remedy = f"Make the path relative to the image root, or give {start}."
        below = 'Remove ".."; a manifest may only name images below its image root.'
        self.reject(empty, "bad cell", column, "There is no path", "Give the image's path relative to the image root.")
        self.reject(absolute, "path outside the root", column, f"The path is absolute{outside}", remedy)
        self.reject(leaving, "path outside the root", column, "The path can leave the image root", below)
        return paths

    def filled(self, column: str) -> np.ndarray:
        """The column's cells, none of which may be empty."""
        remedy = "Fill the cell in, or leave out the row or the whole column."
        self.reject(self.strings(column) == "", "bad cell", column, "The cell is empty", remedy)
        return self.strings(column)

    def words(self, column: str, needed: bool = True) -> np.ndarray:
        """The column's cells without blanks around them; none may be empty where they are ``needed``."""
        self.cells[column] = self.cells[column].str.strip()
        return self.filled(column) if needed else self.strings(column)


def separator_of(handle: TextIO) -> str:
    """What separates the cells of a CSV file, by its header; the file is read from its start again."""
    separator = max(",;\t|", key=handle.readline().count)
    handle.seek(0)
    return separator


def _plain(name: str) -> str:
    """A column's name without what people write differently."""
    return re.sub("[^a-z0-9]", "", name.lower())


def _spellings(image_root: str | Path) -> set[str]:
    """How an absolute path below the image root may begin."""
    if not image_root:
        return set()
    roots = {str(image_root).replace("\\", "/"), os.path.abspath(image_root), os.path.realpath(image_root)}
    return {root.rstrip("/") + "/" for root in roots if _ABSOLUTE.match(root)}


def leaves_root(paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which paths are absolute, and which climb with "..": two bool arrays (N,)."""
    absolute = np.array([_ABSOLUTE.match(path) is not None for path in paths], dtype=bool)
    return absolute, np.array([".." in path and bool(_LEAVES_ROOT.search(path)) for path in paths], dtype=bool)
