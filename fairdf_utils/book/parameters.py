"""What a parameters file asks for: the steps of a run, each one chapter with the values it is given.

A parameters file such as notebooks/params/cpu.yaml holds `name: value` lines for the parameters of the chapters, and
three reserved keys: `grid`, a list of mappings that override parameters of the repeated chapters, `seeds`, the seeds
each of them is run with, and `jobs`, how many steps run at a time. Chapters that declare the parameter `detector` are
repeated over grid x seeds; the others run once.
"""

import ast
import difflib
import hashlib
import itertools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

from fairdf_utils.book import BookError
from fairdf_utils.book.pairs import Chapter, read_chapters

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, eq=False)
class Step:
    """One execution of one chapter: which repetition it is, and the values that the parameters file sets."""

    chapter: Chapter
    repetition: str
    given: dict

    @property
    def name(self) -> str:
        """Of its files in `notebooks/` of the run folder, e.g. 03_sam_training-fairdf-s0."""
        return self.folder.replace("/", "-")

    @property
    def folder(self) -> str:
        """Where the chapter writes in the run folder, e.g. 03_sam_training/fairdf-s0."""
        return "/".join(filter(None, [self.chapter.name, self.repetition]))

    def __str__(self):
        return self.folder.replace("/", " ")

    @property
    def values(self) -> dict:
        """All parameters of the chapter: its own values, and over them the given ones."""
        return {**self.chapter.defaults, **self.given}

    @property
    def text(self) -> str:
        """The given values as one line of YAML, for papermill's option -y."""
        return yaml.safe_dump(self.given, default_flow_style=True, width=float("inf"), sort_keys=False).strip()

    @property
    def code(self) -> str:
        """Digest of the chapter's code cells: prose is no input."""
        return hashlib.sha256("\n\n".join(self.chapter.code).encode()).hexdigest()

    def inputs(self, manifests: bool = True) -> list[Path]:
        """Files that it depends on besides other steps: package modules, files that a parameter names, and, if wanted,
        the manifests of the data sets that it names (of all, if it names none)."""
        folder, values = self.chapter.path.parent, self.values
        named = [folder / value for value in values.values() if isinstance(value, str) and value]
        sets = {*values.get("test_sets", []), values.get("train_set")} - {None}
        manifests = manifests and "manifests" in values
        tables = (folder / values["manifests"]).glob("*/*.csv") if manifests else []
        return [
            *imported_modules("\n".join(self.chapter.code)),
            *filter(Path.is_file, named),
            *(path for path in sorted(tables) if path.parent.name in sets or not sets),
        ]


@dataclass(frozen=True)
class Plan:
    """The steps of a run in the order of the chapters, and how many run at a time."""

    steps: list[Step]
    jobs: int

    def step(self, *folder: str) -> Step:
        """The step of a chapter's name and repetition."""
        return next(step for step in self.steps if step.folder == "/".join(folder))


def read_plan(params: str | Path, notebooks: Path) -> Plan:
    """What a parameters file, given as in `find_parameters`, asks of the chapters of a folder.

    Raises BookError for a parameter that no chapter declares, a value of another type than the chapter's own, a grid
    that names one detector twice.
    """
    chapters = read_chapters(notebooks)
    path = find_parameters(params, notebooks)
    values = _read(path)
    grid, seeds, jobs = values.pop("grid", [{}]), values.pop("seeds", None), values.pop("jobs", 1)
    if not (isinstance(grid, list) and grid and all(isinstance(row, dict) for row in grid)):
        raise BookError(f"{path}: grid is a list of mappings such as {{detector: ori, method: ori}}")
    if seeds is not None and not (isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)):
        raise BookError(f"{path}: seeds is a list of whole numbers such as [0, 1, 2]")
    if type(jobs) is not int or jobs < 1:
        raise BookError(f"{path}: jobs is a whole number from 1: how many steps run at a time")
    if seeds and any("seed" in row for row in grid):
        raise BookError(f"{path}: a row of the grid sets `seed`, but `seeds` sets it for every row; keep one of them")
    repeated = [chapter for chapter in chapters if "detector" in chapter.defaults]
    _check(values, chapters, path)
    for row in grid:
        _check(row, repeated, path)
    rows = [{**row, "seed": seed} for row, seed in itertools.product(grid, seeds)] if seeds else grid
    steps = []
    for chapter in chapters:
        for row in rows if chapter in repeated else [{}]:
            given = {name: value for name, value in {**values, **row}.items() if name in chapter.defaults}
            steps.append(Step(chapter, _repetition(chapter, given, path) if chapter in repeated else "", given))
    for name, count in Counter(step.folder for step in steps).items():
        if count > 1:
            raise BookError(f"{path}: the grid asks for {name} twice; give each row its own detector name")
    return Plan(steps, jobs)


def find_parameters(params: str | Path, notebooks: Path) -> Path:
    """The file of a profile in notebooks/params given by name, or of a path."""
    named = notebooks / "params" / f"{params}.yaml"
    path = named if named.is_file() else Path(params)
    if not path.is_file():
        names = ", ".join(sorted(found.stem for found in named.parent.glob("*.yaml")))
        raise BookError(f"no parameters file {params}: give a path, or one of these names: {names}")
    return path


class _Unambiguous(yaml.SafeLoader):
    """YAML silently takes the last of two equal keys; an experiment should not."""

    def construct_mapping(self, node, deep=False):
        keys = Counter(str(key.value) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge")
        for key in (key for key, count in keys.items() if count > 1):
            raise yaml.YAMLError(f"{key!r} is given twice in the mapping at line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Unambiguous) or {}
    except UnicodeDecodeError:
        raise BookError(f"{path} is not UTF-8 text: save it again as UTF-8") from None
    except yaml.YAMLError as error:
        raise BookError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise BookError(f"{path} holds no `name: value` lines")
    return values


def _repetition(chapter: Chapter, given: dict, path: Path) -> str:
    values = {**chapter.defaults, **given}
    if "seed" not in values:
        raise BookError(f"{chapter.path} declares detector but no seed; a repeated chapter needs both")
    if not re.fullmatch(r"[A-Za-z0-9][\w.]*(-[\w.]+)*", values["detector"]):
        raise BookError(f"{path}: detector {values['detector']!r} names a folder: use letters, digits, _ . and -")
    return f"{values['detector']}-s{values['seed']}"


def _check(values: dict, chapters: list[Chapter], path: Path) -> None:
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


def _fits(value, default) -> bool:
    if isinstance(default, (list, tuple)):
        return isinstance(value, list) and (not default or all(_fits(item, default[0]) for item in value))
    kinds = (int, float) if isinstance(default, float) else (type(default),)
    return default is None or type(value) in kinds and (value != "" or default == "")


def _wanted(value, default) -> str:
    if isinstance(default, float) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", str(value)):
        return f"YAML reads a number with an exponent only with a point, {value.lower().replace('e', '.0e')}"
    return f"a value of type {type(default).__name__} is needed" + (", not an empty one" if value == "" else "")


def imported_modules(code: str) -> list[Path]:
    """Modules of this package that code imports, those included that they import; `book` makes no results."""
    found, waiting = set(), _imported(code)
    while waiting:
        path = waiting.pop()
        if path not in found and path.parent.name != "book":
            found.add(path)
            waiting |= _imported(path.read_text(encoding="utf-8"))
    return sorted(found)


def _imported(code: str) -> set[Path]:
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = [name.split(".")[1:] for name in names if name.startswith(f"{PACKAGE.name}.")]
    return {path for parts in ours if (path := PACKAGE.joinpath(*parts).with_suffix(".py")).is_file()}
