"""What every chapter needs of the book: `show` the real source of an idea, and the `Run` folder.

A run is a folder, `runs/<name>/`: one sub-folder a chapter, `manifest.json` with what was done and from
what, and `notebooks/` with the executed copies. A chapter writes only under its own sub-folder.
"""

import ast
import hashlib
import inspect
import json
import re
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath

from fairdf_utils.files import locked, write_text

REPOSITORY = Path(__file__).resolve().parents[2]

# A folder with more than this is recorded by the list of its files, not by their content.
MOST_FILES_HASHED = 200
MOST_BYTES_HASHED = 100_000_000


class BookError(Exception):
    """Something the reader can put right; the message says how."""


class MissingResult(BookError, FileNotFoundError):
    """A chapter needs a file that another chapter writes."""


# --- the source of an idea -------------------------------------------------------------------------------


def show(obj):
    """Render the source of a function or class as it was loaded.

    Parameters
    ----------
    obj : function or class
        Defined at the top of a Python file, or a method of a class that is.

    Returns
    -------
    IPython.display.Markdown
        The path and line, then the source in a fenced block.

    Raises
    ------
    BookError
        If the file on disk no longer matches the loaded code: what would be shown is not what runs.
    TypeError
        If `obj` is not a function or class of a Python file.
    """
    from IPython.display import Markdown

    obj = inspect.unwrap(obj)
    path = Path(inspect.getsourcefile(obj))
    if not path.is_file() or "<locals>" in obj.__qualname__:
        raise TypeError(f"{obj.__qualname__} is not defined at the top of a Python file")
    text = path.read_text(encoding="utf-8")
    where = _shown_path(path)
    node, on_disk = _define_again(text, obj)
    if on_disk is None or not _same(obj, on_disk):
        raise BookError(
            f"{where} was changed after {obj.__qualname__} was loaded from it: restart the kernel, "
            "so that the code shown is the code that runs"
        )
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    source = textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))
    fence = "`" * max(3, *(len(ticks) + 1 for ticks in re.findall("`+", source)), 3)
    return Markdown(f"`{where}:{first}`\n\n{fence}python\n{source}\n{fence}\n")


def _shown_path(path):
    """The path relative to the repository, or to the folder that a foreign package is imported from."""
    roots = [REPOSITORY, *(Path(entry or ".").resolve() for entry in sys.path)]
    inside = [path.relative_to(root) for root in roots if path.is_relative_to(root)]
    # An environment may lie inside the repository: timm/layers/drop.py, not .venv/lib/.../drop.py.
    foreign = "site-packages" in path.parts
    return (inside[-1 if foreign else 0] if inside else Path(path.name)).as_posix()


def _define_again(text, obj):
    """The definition on disk, as (syntax tree, object made by running it); (None, None) if it is gone.

    Only the definition runs, in a copy of its module's names: neither the module nor `obj` change.
    """
    top, *rest = obj.__qualname__.split(".")
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return None, None
    names = dict(vars(sys.modules[obj.__module__]))
    node = next((part for part in reversed(body) if getattr(part, "name", None) == top), None)
    if node is None:
        return None, None
    futures = [part for part in body if isinstance(part, ast.ImportFrom) and part.module == "__future__"]
    # The rest of the file is compiled too, but does not run: Python's bytecode depends on the imports.
    others = [part for part in body if part is not node and part not in futures]
    not_run = ast.If(ast.Constant(False), [*others, ast.Pass()], [])
    module = ast.fix_missing_locations(ast.Module([*futures, not_run, node], []))
    exec(compile(module, inspect.getsourcefile(obj), "exec", dont_inherit=True), names)
    again = names[top]
    for name in rest:
        node = next((part for part in node.body if getattr(part, "name", None) == name), None)
        if node is None:
            return None, None
        again = inspect.getattr_static(again, name)
    return node, _bare(again)


def _bare(value):
    """The function inside a property, a class method or a decorated function."""
    value = getattr(value, "fget", None) or getattr(value, "__func__", value)
    return inspect.unwrap(value) if callable(value) else value


def _same(loaded, on_disk):
    """Whether two objects have the same code, line numbers, default values and class attributes."""
    loaded, on_disk = _bare(loaded), _bare(on_disk)
    if type(loaded) is not type(on_disk):
        return False
    if inspect.isfunction(loaded):
        defaults = [(item.__defaults__ or (), item.__kwdefaults__ or {}) for item in (loaded, on_disk)]
        return loaded.__code__ == on_disk.__code__ and repr(defaults[0]) == repr(defaults[1])
    if inspect.isclass(loaded) and loaded.__qualname__ == on_disk.__qualname__:
        mine, others = _attributes(loaded), _attributes(on_disk)
        return mine.keys() == others.keys() and all(_same(mine[name], others[name]) for name in mine)
    # Objects that are told apart by their address alone cannot be compared.
    return type(loaded).__repr__ is object.__repr__ or repr(loaded) == repr(on_disk)


def _attributes(cls):
    """What the body of a class defines, without what Python adds to every class."""
    return {
        name: value
        for name, value in vars(cls).items()
        if not name.startswith("__") or name == "__annotations__" or inspect.isfunction(value)
    }


# --- the run folder --------------------------------------------------------------------------------------


class Run:
    """A chapter's access to the run folder.

    Parameters
    ----------
    run_dir : str or Path
        The run folder, e.g. "../runs/cpu" seen from notebooks/.
    chapter : str
        Name of the chapter's file without ending, e.g. "03_sam_training".
    cell : str
        Which repetition of the chapter this is, e.g. "fairdf-s0"; empty for a chapter that runs once.
    """

    def __init__(self, run_dir, chapter, cell=""):
        self.run_dir = Path(run_dir)
        self.name = f"{chapter}/{cell}" if cell else chapter
        self.folder = self.run_dir / self.name
        self.started = now()
        self._read = {}
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name):
        """A path under this chapter's own sub-folder, whose folders are made; the file is not."""
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or not parts.parts:
            raise BookError(f"{name!r}: a chapter writes only under its own folder, {self.folder}")
        path = self.folder / parts
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def require(self, name):
        """The path of another chapter's result, e.g. "03_sam_training/fairdf-s0/best.safetensors"."""
        path = self.run_dir / name
        if not path.exists():
            raise self._missing(name)
        self._read[name] = path
        return path

    def require_all(self, pattern):
        """Sorted paths that match, e.g. "04_cross_dataset_evaluation/*/scores.parquet"; at least one."""
        names = sorted(path.relative_to(self.run_dir).as_posix() for path in self.run_dir.glob(pattern))
        if not names:
            raise self._missing(pattern)
        return [self.require(name) for name in names]

    def _missing(self, name):
        chapter, *rest = PurePosixPath(name).parts
        which = f" ({rest[0]})" if len(rest) > 1 else ""
        return MissingResult(
            f"{self.run_dir / name} is missing: run chapter {chapter}{which} with the same run_dir first, "
            "or the whole book with `make reproduce`"
        )

    def finish(self, parameters, device="", read=()):
        """Write this chapter's entry in manifest.json; call it in the last cell that writes files.

        Everything under the chapter's own sub-folder is recorded as written, and what `require` gave as
        read. A file is recorded by the SHA-256 of its content; a folder of more than 200 files or 100 MB by
        that of the sorted list of its files' names and sizes.

        Parameters
        ----------
        parameters : dict
            The chapter's parameters, values that JSON can hold.
        device : str
            The device in words, e.g. "cpu" or the name of the GPU.
        read : iterable of str or Path
            Files and folders read from outside the run folder, e.g. the manifests.
        """
        known = self._recorded()
        outside = {Path(path).as_posix(): Path(path) for path in read}
        reading = {name: describe(path, known) for name, path in {**self._read, **outside}.items()}
        wrote = {f"{self.name}/{name}": describe(path, known) for name, path in _contents(self.folder)}
        entry = {
            "parameters": dict(parameters),
            "seed": parameters.get("seed"),
            "device": device,
            "started": self.started,
            "ended": now(),
            **_commit(),
            "versions": _versions(),
            "read": reading,
            "wrote": wrote,
        }
        with locked(self.run_dir / ".manifest.lock"):
            manifest = read_manifest_of_run(self.run_dir)
            manifest[self.name] = entry
            text = json.dumps(dict(sorted(manifest.items())), indent=1) + "\n"
            write_text(self.run_dir / "manifest.json", text)

    def _recorded(self):
        """Digests this run has already made, by (size, time of change): a big file is hashed once."""
        known = {}
        for entry in read_manifest_of_run(self.run_dir).values():
            for name, item in {**entry["read"], **entry["wrote"]}.items():
                known[str(self.run_dir / name)] = known[name] = item
        return known


def read_manifest_of_run(run_dir):
    """The entries of `manifest.json` by chapter or chapter/cell; empty if there is none yet."""
    path = Path(run_dir) / "manifest.json"
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BookError(f"{path} is not readable JSON ({error}): delete it and run the book again") from None


def _contents(folder):
    """(name, path) of every file under `folder`, and of sub-folders too full to list, sorted; nothing hidden."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            names = [item.relative_to(path) for item in sorted(path.rglob("*")) if item.is_file()]
            inside = [path / name for name in names if not any(part.startswith(".") for part in name.parts)]
            found += inside if len(inside) <= MOST_FILES_HASHED else [path]
        else:
            found.append(path)
    return [(path.relative_to(folder).as_posix(), path) for path in found]


def describe(path, known):
    """What identifies a file or folder: {"sha256", "bytes", "changed"} or {"sha256", "bytes", "files"}.

    `known` maps paths to earlier descriptions: a file of the same size and time of change is not read again.
    """
    if path.is_dir():
        files = [item for item in sorted(path.rglob("*")) if item.is_file()]
        sizes = [item.stat().st_size for item in files]
        if len(files) <= MOST_FILES_HASHED and sum(sizes) <= MOST_BYTES_HASHED:
            marks = [describe(item, known)["sha256"] for item in files]
        else:
            marks = sizes
        listing = [(item.relative_to(path).as_posix(), mark) for item, mark in zip(files, marks, strict=True)]
        digest = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
        return {"sha256": digest, "bytes": sum(sizes), "files": len(files)}
    status = path.stat()
    stamp = {"bytes": status.st_size, "changed": status.st_mtime_ns}
    before = known.get(str(path), {})
    if stamp.items() <= before.items():
        return before
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), **stamp}


def _commit():
    """The repository's commit, and whether tracked files differ from it."""

    def git(*arguments):
        command = ["git", "-C", str(REPOSITORY), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None  # not a checkout: an archive of the repository
        return done.stdout.strip()

    commit = git("rev-parse", "--verify", "HEAD")
    return {"commit": commit, "uncommitted_changes": commit and bool(git("status", "--porcelain", "-uno"))}


def _versions():
    """Versions of Python and of the packages that pyproject.toml asks for."""
    needs = [need for need in metadata.requires("fairdf_utils") or [] if "extra ==" not in need]
    names = sorted(re.match(r"[\w.-]+", need)[0] for need in needs)
    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in names}}


def now():
    return datetime.now(UTC).isoformat(timespec="seconds")
