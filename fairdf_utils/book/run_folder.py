"""`Run`: a chapter's access to the run folder, and the record of what was made from what.

A run folder holds one sub-folder a chapter, to which alone it writes, `manifest.json` and the executed `notebooks/`.
"""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath

from fairdf_utils.book import REPOSITORY, BookError
from fairdf_utils.files import locked, write_text

# Locks of this kernel: a set-up cell that is executed again finds its own.
_HELD: dict[Path, ExitStack] = {}


class MissingResult(BookError, FileNotFoundError):
    """A chapter needs a file that another chapter writes."""


class Run:
    """A chapter's access to the run folder; until the kernel ends, no other kernel writes the same results.

    Parameters
    ----------
    run_dir : the run folder, e.g. "../runs/cpu" seen from notebooks/
    chapter : name of the chapter's file without ending, e.g. "03_sam_training"
    repetition : which repetition of the chapter this is, e.g. "fairdf-s0"; empty for a chapter that runs once
    """

    def __init__(self, run_dir: str | Path, chapter: str, repetition: str = ""):
        self.run_dir = Path(run_dir)
        self.chapter = chapter
        self.name = f"{chapter}/{repetition}" if repetition else chapter
        self.folder = self.run_dir / self.name
        self.started = _now()
        self._read = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._hold():
            self._start_anew_if_inputs_changed()

    def _hold(self) -> bool:
        """Hold the folder until this process ends, however that happens; False if it did already."""
        path = (self.folder / ".lock").resolve()
        if path in _HELD:
            return False
        _HELD[path] = stack = ExitStack()
        try:
            stack.enter_context(locked(path, wait=False))
        except BlockingIOError:
            print(f"waiting for process {path.read_text()}, which writes into {self.folder}", flush=True)
            stack.enter_context(locked(path))
        return True

    def _start_anew_if_inputs_changed(self) -> None:
        """Under the Snakefile, a chapter goes on only with what was begun from the same inputs."""
        inputs, noted = os.environ.get("FAIRDF_INPUTS"), self.folder / ".inputs"
        if inputs and noted.exists() and noted.read_text(encoding="utf-8") != inputs:
            aside = self.run_dir / "set_aside" / self.name
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            for path in self.folder.iterdir():
                if path.name != ".lock":
                    shutil.move(path, aside)
            print(f"inputs changed, starting anew; the results of before are in {aside}", flush=True)
        if inputs:
            write_text(noted, inputs)

    def path(self, name: str) -> Path:
        """A path under this chapter's own sub-folder, whose folders are made; the file is not."""
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or not parts.parts:
            raise BookError(f"{name!r}: a chapter writes only under its own folder, {self.folder}")
        path = self.folder / parts
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def require(self, name: str) -> Path:
        """The path of another chapter's result, e.g. "03_sam_training/fairdf-s0/best.safetensors"."""
        path = self.run_dir / name
        if not path.exists():
            chapter, *rest = PurePosixPath(name).parts
            which = f" ({rest[0]})" if len(rest) > 1 and rest[0] != "*" else ""
            which += ", which needs no training on the embedded benchmark," if chapter.startswith("04") else ""
            raise MissingResult(
                f"{path} is missing: run chapter {chapter}{which} with the same run_dir first, "
                "or the whole book with `make reproduce`"
            )
        self._read[name] = path
        return path

    def require_all(self, pattern: str) -> list[Path]:
        """Sorted paths that match, e.g. "04_cross_dataset_evaluation/*/scores.parquet"; at least one."""
        names = sorted(path.relative_to(self.run_dir).as_posix() for path in self.run_dir.glob(pattern))
        return [self.require(name) for name in names or [pattern]]

    def finish(self, device: str = "", read: Iterable[str | Path] = ()) -> None:
        """Write this chapter's entry in manifest.json; call it in the last cell that writes files.

        The entry holds the present values of the names in the chapter's `parameters` cell, the `device` in words, and
        digests of what the chapter wrote, of what `require` gave and of the files and folders outside that it `read`.
        """
        parameters = self._parameters(sys._getframe(1).f_globals)
        needs = [need for need in metadata.requires("fairdf_utils") or [] if "extra ==" not in need]
        needed = sorted(re.match(r"[\w.-]+", need)[0] for need in needs)
        read = self._read | {Path(path).as_posix(): Path(path) for path in read}
        inside = {path.relative_to(self.run_dir).as_posix(): path for path in sorted(self.folder.rglob("*"))}
        wrote = {name: path for name, path in inside.items() if path.is_file() and "/." not in name}
        entry = {
            "parameters": parameters,
            "seed": parameters.get("seed"),
            "device": device,
            "started": self.started,
            "ended": _now(),
            "commit": _commit(),
            "versions": {"python": sys.version.split()[0], **{name: metadata.version(name) for name in needed}},
            "read": {name: _describe(path) for name, path in read.items()},
            "wrote": {name: _describe(path) for name, path in wrote.items()},
        }
        with locked(self.run_dir / ".manifest.lock"):
            manifest = read_manifest_of_run(self.run_dir)
            manifest[self.name] = entry
            write_text(self.run_dir / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def _parameters(self, values: dict) -> dict:
        """The values that the calling notebook has under the names of its `parameters` cell."""
        path = Path(f"{self.chapter}.py").absolute()
        path = path if path.is_file() else REPOSITORY / "notebooks" / path.name
        if not path.is_file():
            raise BookError(f"{path} is missing: its parameters cell says what there is to record")
        # Not read by jupytext, whose import would take every kernel a second.
        cell = re.search(r'^# %%.*"parameters".*\n((?:(?!# %%).*\n)*)', path.read_text(encoding="utf-8"), re.MULTILINE)
        names = [getattr(part, "target", None) or part.targets[0] for part in ast.parse(cell[1]).body]
        found = {name.id: values[name.id] for name in names if name.id in values}
        try:
            return json.loads(json.dumps(found))
        except TypeError as error:
            raise BookError(f"{path.name} gives one of its parameters another value later on: {error}") from None


def read_manifest_of_run(run_dir: str | Path) -> dict:
    """The entries of `manifest.json` by chapter or chapter/repetition; empty if there is none yet."""
    path = Path(run_dir) / "manifest.json"
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BookError(f"{path} is not readable JSON ({error}): delete it and run the book again") from None


def _describe(path: Path) -> dict:
    """What identifies a file, its content, or a folder, the names and sizes of its files."""
    if path.is_file():
        with path.open("rb") as file:
            return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}
    files = [item for item in sorted(path.rglob("*")) if item.is_file()]
    listing = [(item.relative_to(path).as_posix(), item.stat().st_size) for item in files]
    digest = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    return {"sha256": digest, "bytes": sum(size for _, size in listing), "files": len(files)}


def _commit() -> str | None:
    """The repository's commit, with "-dirty" if tracked files differ from it; None in an archive of the repository."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
