"""What a parameters file such as notebooks/params/cpu.yaml asks for: the cells of the book, checked.

The file holds `name: value` lines for the parameters of the chapters, and two reserved keys: `grid`, a list of
mappings that override parameters of the repeated chapters, and `seeds`, the seeds each of them is run with.
Chapters that declare the parameter `detector` are repeated over grid x seeds; the others run once.
"""

import difflib
import itertools
import re
from dataclasses import dataclass

import yaml

from fairdf_utils.book import BookError
from fairdf_utils.notebooks import Chapter


@dataclass(frozen=True, eq=False)
class Cell:
    """One execution of one chapter: `name` is its sub-folder in the run, `given` what the profile sets."""

    name: str
    chapter: Chapter
    given: dict

    @property
    def effective(self):
        return {**self.chapter.defaults, **self.given}

    @property
    def file(self):
        """Name of its files in the run folder: 03_sam_training/fairdf-s0 -> 03_sam_training-fairdf-s0."""
        return self.name.replace("/", "-", 1)

    def __str__(self):
        if "/" not in self.name:
            return self.chapter.name
        return f"{self.chapter.name} detector={self.effective['detector']} seed={self.effective['seed']}"


class _Unambiguous(yaml.SafeLoader):
    """YAML silently takes the last of two equal keys; an experiment should not."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key!r} is given twice in the mapping at line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def read_parameters(path):
    """The mapping of a parameters file."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Unambiguous) or {}
    except yaml.YAMLError as error:
        raise BookError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise BookError(f"{path} holds no `name: value` lines")
    return values


def plan(chapters, path):
    """The cells of the book in order, from the parameters file at `path`.

    Raises
    ------
    BookError
        For a parameter that no chapter declares, a value of another type than the chapter's own, a grid
        that names one detector twice.
    """
    values = read_parameters(path)
    grid, seeds = values.pop("grid", [{}]), values.pop("seeds", None)
    if not (isinstance(grid, list) and grid and all(isinstance(row, dict) for row in grid)):
        raise BookError(f"{path}: grid is a list of mappings such as {{detector: ori, method: ori}}")
    if seeds is not None and not (isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)):
        raise BookError(f"{path}: seeds is a list of whole numbers such as [0, 1, 2]")
    repeated = [chapter for chapter in chapters if "detector" in chapter.defaults]
    _check(values, chapters, path)
    for row in grid:
        _check(row, repeated, path)
    if seeds:
        grid = [{**row, "seed": seed} for row, seed in itertools.product(grid, seeds)]
    cells = []
    for chapter in chapters:
        for row in grid if chapter in repeated else [{}]:
            given = {name: value for name, value in {**values, **row}.items() if name in chapter.defaults}
            cell = Cell(chapter.name, chapter, given)
            if chapter in repeated:
                cell = Cell(f"{chapter.name}/{_repetition(cell, path)}", chapter, given)
            cells.append(cell)
    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise BookError(f"{path}: the grid asks for {name} twice; give each row its own detector name")
    return cells


def _repetition(cell, path):
    detector, seed = cell.effective["detector"], cell.effective.get("seed")
    if seed is None:
        raise BookError(f"{cell.chapter.path} declares detector but no seed; a repeated chapter needs both")
    if not re.fullmatch(r"[A-Za-z0-9][\w.]*(-[\w.]+)*", detector):
        raise BookError(f"{path}: detector {detector!r} names a folder: use letters, digits, _ . and -")
    return f"{detector}-s{seed}"


def _check(values, chapters, path):
    """Every key is declared by one of the chapters, with a default of the same type."""
    declared = sorted({name for chapter in chapters for name in chapter.defaults} - {"run_dir"})
    for key, value in values.items():
        if key == "run_dir":
            raise BookError(f"{path}: run_dir is set by --run")
        if key not in declared:
            close = difflib.get_close_matches(str(key), declared, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"declared are {', '.join(declared)}"
            raise BookError(f"{path}: no chapter it applies to declares the parameter {key!r}; {hint}")
        for chapter in chapters:
            if key in chapter.defaults and not _fits(value, chapter.defaults[key]):
                raise BookError(
                    f"{path}: {key} is {value!r}, but {chapter.name} has {key} = {chapter.defaults[key]!r}: "
                    f"{_wanted(value, chapter.defaults[key])}"
                )


def _fits(value, default):
    if default is None:
        return True
    if isinstance(default, (list, tuple)):
        return isinstance(value, list) and (not default or all(_fits(item, default[0]) for item in value))
    if isinstance(default, float):
        return type(value) in (int, float)
    return type(value) is type(default) and (value != "" or default == "")


def _wanted(value, default):
    if isinstance(default, float) and isinstance(value, str) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value):
        return f"YAML reads a number with an exponent only with a point, {value.lower().replace('e', '.0e')}"
    return f"a value of type {type(default).__name__} is needed" + (", not an empty one" if value == "" else "")
