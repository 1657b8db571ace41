"""What is to do: the cells of the book that a parameters file asks for, and which of them a run folder holds.

A parameters file such as notebooks/params/cpu.yaml holds `name: value` lines for the parameters of the chapters, and
three reserved keys: `grid`, a list of mappings that override parameters of the repeated chapters, `seeds`, the seeds
each of them is run with, and `jobs`, how many cells of one chapter run at a time. Chapters that declare the parameter
`detector` are repeated over grid x seeds; the others run once.
"""

import ast
import difflib
import hashlib
import heapq
import itertools
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from fairdf_utils.book.pairs import Chapter
from fairdf_utils.book.run_folder import BookError, _describe, _now, read_manifest_of_run
from fairdf_utils.files import locked, write_text

PACKAGE = Path(__file__).resolve().parents[1]


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

    @property
    def short(self):
        """Its name among the cells of its chapter: fairdf-s0."""
        return self.name.rpartition("/")[2]

    def __str__(self):
        if "/" not in self.name:
            return self.chapter.name
        return f"{self.chapter.name} detector={self.effective['detector']} seed={self.effective['seed']}"


@dataclass(frozen=True)
class Plan:
    """The cells of the book in order, and how many cells of one chapter run at a time."""

    cells: list[Cell]
    jobs: int = 1

    def batches(self):
        """The cells of each chapter: those of one chapter do not depend on each other, chapters do."""
        return [list(cells) for _, cells in itertools.groupby(self.cells, lambda cell: cell.chapter)]


def time_side_by_side(seconds, jobs):
    """Seconds until the last cell ends, if each starts in turn as soon as one of `jobs` places is free."""
    places = [0.0] * jobs
    for needed in seconds:
        heapq.heapreplace(places, places[0] + needed)
    return max(places)


class _Unambiguous(yaml.SafeLoader):
    """YAML silently takes the last of two equal keys; an experiment should not."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key!r} is given twice in the mapping at line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def find_parameters(params, notebooks):
    """The file of a profile of notebooks/params given by name, or of a path."""
    named = notebooks / "params" / f"{params}.yaml"
    path = named if named.is_file() else Path(params)
    if not path.is_file():
        names = ", ".join(sorted(found.stem for found in named.parent.glob("*.yaml")))
        raise BookError(f"no parameters file {params}: give a path, or one of these names: {names}")
    return path


def read_parameters(path):
    """The mapping of a parameters file."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Unambiguous) or {}
    except yaml.YAMLError as error:
        raise BookError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise BookError(f"{path} holds no `name: value` lines")
    return values


def plan(chapters, path):
    """What the parameters file at `path` asks for.

    Returns
    -------
    Plan
        The cells of the book in order, and how many run at a time.

    Raises
    ------
    BookError
        For a parameter that no chapter declares, a value of another type than the chapter's own, a grid
        that names one detector twice.
    """
    values = read_parameters(path)
    grid, seeds, jobs = values.pop("grid", [{}]), values.pop("seeds", None), values.pop("jobs", 1)
    if not (isinstance(grid, list) and grid and all(isinstance(row, dict) for row in grid)):
        raise BookError(f"{path}: grid is a list of mappings such as {{detector: ori, method: ori}}")
    if seeds is not None and not (isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)):
        raise BookError(f"{path}: seeds is a list of whole numbers such as [0, 1, 2]")
    if type(jobs) is not int or jobs < 1:
        raise BookError(f"{path}: jobs is a whole number from 1: how many cells of a chapter run at a time")
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
    return Plan(cells, jobs)


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


# --- what is done ----------------------------------------------------------------------------------------


class Progress:
    """What has been done in a run folder: one state file a cell, and the manifest that the chapters write."""

    def __init__(self, run, asked):
        self.run, self.asked, self.cells = run, asked, asked.cells
        self.notebooks = self.cells[0].chapter.path.parent
        self.package = {chapter: _package_digest(chapter.code) for chapter in {cell.chapter for cell in self.cells}}

    def state(self, cell):
        path = self._state_path(cell)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def save(self, cell, **changes):
        text = json.dumps({"cell": cell.name, **self.state(cell), **changes}, indent=1) + "\n"
        write_text(self._state_path(cell), text)

    def _state_path(self, cell):
        return self.run / "state" / f"{cell.file}.json"

    def entry(self, cell):
        return read_manifest_of_run(self.run).get(cell.name)

    def inputs(self, cell):
        """Digest of the chapter's code, its parameters, the modules it uses and the results it builds on."""
        before = itertools.takewhile(lambda other: other.chapter is not cell.chapter, self.cells)
        _, _, mine = cell.name.partition("/")
        upstream = {}
        for other in before:
            _, _, theirs = other.name.partition("/")
            if not mine or not theirs or mine == theirs:
                upstream[other.name] = self.state(other).get("outputs")
        parameters = {name: value for name, value in cell.effective.items() if name != "run_dir"}
        return _digest([cell.chapter.code, parameters, self.package[cell.chapter], upstream])

    def done(self, cell):
        """Whether the cell was finished from these inputs and its files are still what it read and wrote."""
        entry = self.entry(cell)
        if not self._noted_done(cell) or entry is None:
            return False
        return self.state(cell)["outputs"] == _digest_of_outputs(entry) and all(
            self._unchanged(name, recorded) for name, recorded in {**entry["read"], **entry["wrote"]}.items()
        )

    def _noted_done(self, cell):
        state = self.state(cell)
        return state.get("status") == "done" and state["digest"] == self.inputs(cell)

    def _unchanged(self, name, recorded):
        # Names of results are seen from the run folder, others from the folder that the chapter ran in.
        path = self.run / name if (self.run / name).exists() else self.notebooks / name
        return path.exists() and _describe(path, {str(path): recorded})["sha256"] == recorded["sha256"]

    def refuse_leftovers(self):
        """Chapter 05 compares every detector it finds: results that are not asked for must not be among them."""
        extra = {state["cell"] for state in self.states()} - {cell.name for cell in self.cells}
        if extra:
            raise BookError(
                f"{shown(self.run)} holds results that the parameters no longer ask for: {', '.join(sorted(extra))}; "
                "choose another --run, or delete that folder"
            )

    def states(self):
        """All that is noted in the folder, whether these parameters ask for it or not."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((self.run / "state").glob("*.json"))]

    def prepare(self, cell):
        """Make the cell's sub-folder fit to start: resumed, cleared, or set aside if made by hand."""
        folder, state, digest = self.run / cell.name, self.state(cell), self.inputs(cell)
        if state.get("status") in ("running", "failed") and state["digest"] == digest:
            return "resumed" if (self.run / cell.name).exists() else ""
        entry, note = self.entry(cell), ""
        if folder.exists() and any(folder.iterdir()):
            by_hand = not state or (entry and state.get("outputs") not in (None, _digest_of_outputs(entry)))
            if by_hand:
                aside = self.run / "set_aside" / f"{cell.file}-{_now().replace(':', '')}"
                aside.parent.mkdir(exist_ok=True)
                folder.rename(aside)
                note = f"results made by hand are now in {shown(aside)}"
            else:
                shutil.rmtree(folder)
                note = "inputs changed, starting anew"
        if entry:
            self._forget(cell)
        return note

    def _forget(self, cell):
        with locked(self.run / ".manifest.lock"):
            manifest = read_manifest_of_run(self.run)
            manifest.pop(cell.name, None)
            write_text(self.run / "manifest.json", json.dumps(manifest, indent=1) + "\n")

    def finished(self, cell, seconds):
        """Note the end of a cell; whether it recorded in the manifest what it did."""
        entry = self.entry(cell)
        if entry is None:
            self.save(cell, status="failed", kernel=None)
            return False
        self.save(cell, status="done", outputs=_digest_of_outputs(entry), seconds=seconds, kernel=None)
        return True

    def left(self, running):
        """Words for the time until all cells are done, from past durations of their chapters.

        `running` maps the cells that are being executed to the seconds since their start.
        """
        known, unknown = 0, False
        for cells in self.asked.batches():
            past = {cell: self.state(cell).get("seconds") for cell in cells}
            timed = [seconds for seconds in past.values() if seconds is not None]
            expected = []
            for cell in cells:
                if cell in running or not self._noted_done(cell):
                    whole = past[cell] or (sum(timed) / len(timed) if timed else 0)
                    expected.append(max(0, whole - running.get(cell, 0)))
                    unknown |= not timed
            known += time_side_by_side(expected, self.asked.jobs)
        return f"{'at least' if unknown else 'about'} {in_words(known)} left" if known else ""


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _digest_of_outputs(entry):
    return _digest({name: item["sha256"] for name, item in entry["wrote"].items()})


def _package_digest(code):
    """Digest of the modules of this package that a chapter uses, those included that they use."""
    modules, waiting = {}, set().union(*map(_imported, code))
    while waiting:
        name = waiting.pop()
        modules[name] = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
        waiting |= _imported(modules[name]) - set(modules)
    return _digest(modules)


def _imported(code):
    """Modules of this package that code imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= set(re.findall(rf"^{PACKAGE.name}\.(\w+)$", node.module))
        elif isinstance(node, ast.Import):
            names |= set(re.findall(rf"\b{PACKAGE.name}\.(\w+)", " ".join(alias.name for alias in node.names)))
    return {name for name in names if (PACKAGE / f"{name}.py").exists()}


def in_words(seconds):
    """A duration, e.g. 1 h 5 min."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def shown(path):
    """A path as the reader would type it."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else str(path)
