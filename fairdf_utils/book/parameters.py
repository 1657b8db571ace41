"""What a parameters file asks for: the steps of a run, each one chapter with the values it is given.

A parameters file such as notebooks/params/cpu.yaml holds `name: value` lines for the parameters of the chapters, and
reserved keys:

- `grid`, a list of mappings that override parameters, and `seeds`: chapters that declare `detector` are repeated over
  grid x seeds.
- `corpora`, a list of mappings too: the chapter that declares `dataset` prepares each of these corpora, and shows the
  book's own benchmark beside it; the other chapters read what it prepares.
- `missing`, "refuse" or "skip": whether to go on without corpora that are not there, and test sets without manifests.
- `jobs`, how many steps run at a time.
- `chapters`, the numbers of those that are run, if not all; and `worlds`, a list of mappings that are laid over the
  parameters: the whole book is run once for each, in a sub-folder with its name, such as data_seed-11.
"""

import ast
import difflib
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from fairdf_utils.book import BookError
from fairdf_utils.book.pairs import Chapter, read_chapters

PACKAGE = Path(__file__).resolve().parents[1]
RESERVED = {"grid": [{}], "seeds": None, "jobs": 1, "corpora": None, "missing": "refuse", "chapters": None}
# A chapter and the other one, besides chapter 1, that it waits for.
WAITS_FOR = {4: 3, 5: 4, 6: 4, 7: 4, 8: 4, 9: 3}
# What one corpus cannot have for itself; the chapter that prepares it is not even given those of the benchmark.
_BENCHMARK = ("manifests", "image_root", "image_size")
_SHARED = ("prepared", "data_dir", *_BENCHMARK)


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

    @property
    def data_sets(self) -> set[str]:
        """The data sets that its values name; a chapter that names none may read any."""
        return {*self.values.get("test_sets", []), self.values.get("train_set")} - {None}

    @property
    def corpus(self) -> str:
        """Name of the data set that it prepares from a corpus; empty if it is given none."""
        values = self.values
        return (values["dataset"] or values["layout"]) if values.get("corpus_root") else ""

    def inputs(self, manifests: bool = True) -> list[Path]:
        """Files that it depends on besides other steps: package modules, files that a parameter names, and, if wanted,
        the manifests of the data sets that it names (of all, if it names none)."""
        folder, values = self.chapter.path.parent, self.values
        texts = [text for value in values.values() for text in (value if isinstance(value, list) else [value])]
        named = [folder / text for text in texts if isinstance(text, str) and text]
        sets = self.data_sets
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


def read_plan(params: str | Path, notebooks: Path, world: str = "") -> Plan:
    """One of the `read_plans`; BookError if there is none of this name."""
    plans = read_plans(params, notebooks)
    if world not in plans:
        raise BookError(f"{params}: the world {world!r} is none of {', '.join(plans)}; give the run folder of one")
    return plans[world]


def read_plans(params: str | Path, notebooks: Path) -> dict[str, Plan]:
    """What a parameters file, given as in `find_parameters`, asks of the chapters of a folder: {world: plan}.

    A world has the name of its folder in the run folder; without `worlds` there is one, "".

    Raises BookError for a parameter that no chapter declares, a value of another type than the chapter's own, a
    detector, corpus or world that is asked for twice, a data set to be skipped whose name resembles a corpus, and
    chapters without those that they wait for.
    """
    chapters, path = read_chapters(notebooks), find_parameters(params, notebooks)
    values = _read(path)
    worlds = _worlds(values.pop("worlds", None), path)
    return {name: _plan(values, world, chapters, path) for name, world in worlds.items()}


def _plan(values: dict, world: dict, chapters: list[Chapter], path: Path) -> Plan:
    grid, seeds, jobs, corpora, missing, numbers = (values.get(name, usual) for name, usual in RESERVED.items())
    _refuse_malformed(grid, seeds, jobs, corpora, missing, path)
    values = {name: value for name, value in values.items() if name not in RESERVED}
    repeated = [chapter for chapter in chapters if "detector" in chapter.defaults]
    preparing = [chapter for chapter in chapters if corpora and "dataset" in chapter.defaults]
    faults = [fault for given in (values, world) for fault in _unfit(given, chapters)]
    faults += [fault for row in grid for fault in _unfit(row, repeated, set(world))]
    faults += [fault for corpus in corpora or [] for fault in _unfit(corpus, preparing, {*_SHARED, *world})]
    if faults := list(dict.fromkeys(faults)):
        raise BookError(f"{path}: {faults[0]}" if len(faults) == 1 else "\n- ".join([f"{path}:", *faults]))
    values |= world
    if corpora:
        prepared = values.get("prepared", preparing[0].defaults["prepared"])
        values = _reading(values, prepared, path)
    rows = [{**row, "seed": seed} for row, seed in itertools.product(grid, seeds)] if seeds else grid
    steps = []
    for chapter in _asked_for(numbers, chapters, path):
        for row in corpora if chapter in preparing else rows if chapter in repeated else [{}]:
            given = {name: value for name, value in {**values, **row}.items() if name in chapter.defaults}
            name = ""
            if chapter in preparing:
                given = {key: value for key, value in given.items() if key not in _BENCHMARK}
                name = given["dataset"] = _dataset(chapter, row, path)
            elif chapter in repeated:
                own = chapter.defaults | given
                _refuse_unusual("detector", own["detector"], path)
                name = f"{own['detector']}-s{own['seed']}"
            steps.append(Step(chapter, name, given))
    for name, count in Counter(step.folder for step in steps).items():
        if count > 1:
            raise BookError(f"{path} asks for {name} twice; give each row its own detector or dataset name")
    return Plan(_without_missing(steps, path) if missing == "skip" else steps, jobs)


def _refuse_malformed(grid, seeds, jobs, corpora, missing, path: Path) -> None:
    for name, rows, example in (
        ("grid", grid, "{detector: ori, method: ori}"),
        ("corpora", [{}] if corpora is None else corpora, "{layout: ffpp, corpus_root: /data/FF++}"),
    ):
        if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
            raise BookError(f"{path}: {name} is a list of mappings such as {example}")
    if seeds is not None and not (isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)):
        raise BookError(f"{path}: seeds is a list of whole numbers such as [0, 1, 2]")
    if type(jobs) is not int or jobs < 1:
        raise BookError(f"{path}: jobs is a whole number from 1: how many steps run at a time")
    if missing not in ("refuse", "skip"):
        raise BookError(f"{path}: missing is {missing!r}; use refuse, or skip to go on without what is not there")
    if seeds and any("seed" in row for row in grid):
        raise BookError(f"{path}: a row of the grid sets `seed`, but `seeds` sets it for every row; keep one of them")


def _worlds(worlds: list[dict] | None, path: Path) -> dict[str, dict]:
    if worlds is None:
        return {"": {}}
    if not (isinstance(worlds, list) and worlds and all(isinstance(world, dict) and world for world in worlds)):
        raise BookError(f"{path}: worlds is a list of mappings such as {{data_seed: 11}}")
    names = ["-".join(f"{name}-{value}" for name, value in world.items()) for world in worlds]
    for name, count in Counter(names).items():
        _refuse_unusual("world", name, path)
        if count > 1:
            raise BookError(f"{path} asks for the world {name} twice; give each its own values")
    return dict(zip(names, worlds, strict=True))


def _asked_for(numbers: list[int] | None, chapters: list[Chapter], path: Path) -> list[Chapter]:
    """The chapters with these numbers; all if there are none."""
    there = {int(chapter.name[:2]): chapter for chapter in chapters}
    if numbers is None:
        return chapters
    if not (isinstance(numbers, list) and numbers and all(number in there for number in numbers)):
        raise BookError(f"{path}: chapters is {numbers!r}; give a list of some of {', '.join(map(str, there))}")
    needed = [(number, other) for number in numbers for other in (1, WAITS_FOR.get(number, 1))]
    if lacking := [f"{other}, which {number} waits for" for number, other in needed if other not in numbers]:
        raise BookError(f"{path}: chapters leaves out {lacking[0]}: ask for both, or for neither")
    return [chapter for number, chapter in there.items() if number in numbers]


def _reading(values: dict, prepared: str, path: Path) -> dict:
    """The values with `manifests` and `image_root` where corpora are prepared; other ones are refused."""
    for name, place in (("manifests", f"{prepared.rstrip('/')}/manifests"), ("image_root", prepared)):
        if values.get(name, place).rstrip("/") != place.rstrip("/"):
            raise BookError(
                f"{path}: {name} is {values[name]!r}, but the corpora are prepared in {place}: leave it out, or change "
                "`prepared`"
            )
        values = {**values, name: place}
    return values


def _dataset(chapter: Chapter, corpus: dict, path: Path) -> str:
    if not corpus.get("corpus_root"):
        raise BookError(f"{path}: one of the corpora has no corpus_root, the folder that its owners' layout begins in")
    name = corpus.get("dataset") or corpus.get("layout", chapter.defaults["layout"])
    _refuse_unusual("dataset", name, path)
    return name


def _without_missing(steps: list[Step], path: Path) -> list[Step]:
    """Skip corpora and test sets that are not there; the chapters that declare `left_out` are told which test sets.

    What is trained on is never skipped. A data set that is likely misspelt is refused.
    """
    corpora, left_out = {step.corpus for step in steps if step.corpus}, {}
    trained = {step.values.get("train_set") for step in steps}
    gone = {s.corpus for s in steps if s.corpus and not (s.chapter.path.parent / s.values["corpus_root"]).is_dir()}
    steps = [step for step in steps if step.corpus not in gone - trained]
    for step in steps:
        sets = step.values.get("test_sets", [])
        unknown = sorted(name for name in step.data_sets - corpora if not _listed(step, name))
        for name in unknown:
            if close := difflib.get_close_matches(name, corpora - step.data_sets, n=1):
                raise BookError(f"{path}: no corpus and no manifests are named {name!r}; did you mean {close[0]!r}?")
        absent = [name for name in sets if name in unknown or name in gone - trained and not _listed(step, name)]
        if sets:
            step.given["test_sets"] = [name for name in sets if name not in absent]
        left_out |= dict.fromkeys(absent)
    for step in steps:
        if left_out and "left_out" in step.chapter.defaults:
            step.given["left_out"] = list(left_out)
    return steps


def _listed(step: Step, dataset: str) -> bool:
    return any((step.chapter.path.parent / step.values["manifests"] / dataset).glob("*.csv"))


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


def _refuse_unusual(parameter: str, name: str, path: Path) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.]*(-[\w.]+)*", name):
        raise BookError(f"{path}: {parameter} {name!r} names a folder: use letters, digits, _ . and -")


def _unfit(values: dict, chapters: list[Chapter], shared: Collection[str] = ()) -> Iterator[str]:
    """What is said to keys that no chapter declares with a default of the same type, or that are among the shared."""
    declared = sorted({name for chapter in chapters for name in chapter.defaults} - {"run_dir", *shared})
    for key, value in values.items():
        random = (key, value) == ("weights", "")  # the one text that may be empty though its default is not
        unfit = [c for c in chapters if key in c.defaults and not (random or _fits(value, c.defaults[key]))]
        if key == "run_dir":
            yield "run_dir is set by --run"
        elif key in shared:
            yield f"a row of the grid or corpora sets {key!r}, which is the same for all; set it outside"
        elif key not in declared:
            close = difflib.get_close_matches(str(key), declared, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"declared are {', '.join(declared)}"
            yield f"no chapter it applies to declares the parameter {key!r}; {hint}"
        elif unfit:
            default = unfit[0].defaults[key]
            yield f"{key} is {value!r}, but {unfit[0].name} has {key} = {default!r}: {_wanted(value, default)}"


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
