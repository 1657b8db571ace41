"""Execution of the whole book into a run folder: `python -m fairdf_utils reproduce --params cpu --run runs/cpu`.

What is done with the same inputs is skipped, and what was interrupted is resumed. The run folder holds, beside
what the chapters write, `notebooks/` (executed copies and their logs) and `state/` (what has been done).
"""

import hashlib
import itertools
import json
import logging
import os
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import nbformat
import papermill
import psutil
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError

from fairdf_utils.book import BookError, describe, locked, now, read_manifest_of_run
from fairdf_utils.files import write_text
from fairdf_utils.notebooks import read_chapters
from fairdf_utils.plan import plan

PACKAGE = Path(__file__).resolve().parent
# These run the book; they do not change what a chapter computes.
MACHINERY = {"plan", "reproduce", "notebooks", "__main__"}
ECHO_SECONDS = 10
PERCENT = ["auc", "fpr_sum", "oae", "dp", "meo"]


class ChapterFailed(Exception):
    """A chapter ended in an error; its log and its half-executed copy are kept."""


def reproduce(params, run, notebooks):
    """Run the book.

    Parameters
    ----------
    params : str
        Name of a file in notebooks/params, e.g. "cpu", or the path of one.
    run : str or Path
        The run folder; made if it does not exist.
    notebooks : str or Path
        Folder of the chapters.

    Raises
    ------
    BookError
        If the parameters or the run folder cannot be used; nothing has been run.
    ChapterFailed
        If a chapter ended in an error; the same command goes on from there.
    """
    run, notebooks = Path(run).resolve(), Path(notebooks).resolve()
    cells = plan(read_chapters(notebooks), _parameters_file(params, notebooks))
    # Threads of several torch processes that wait by spinning slow each other down many times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    # Failures are reported below, once; an interrupt leaves tasks behind that would report themselves.
    for name in ("papermill", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        _hold(run, stack)
        progress = Progress(run, cells)
        progress.refuse_leftovers()
        progress.end_orphans()
        for number, cell in enumerate(cells, start=1):
            label = f"[{number}/{len(cells)}] {cell}"
            if progress.done(cell):
                print(f"{label}: done before", flush=True)
                continue
            started = "; ".join(filter(None, [progress.prepare(cell), progress.left(cells[number - 1 :])]))
            print(f"{label} … {started}".rstrip(), flush=True)
            ended = "; ".join(filter(None, [_minutes(_execute(cell, progress)), progress.left(cells[number:])]))
            print(f"{label}: {ended}", flush=True)
    table = result_table(run)
    if table:
        print(f"\nResults in percent\n{table}")
    print(f"\nThe executed chapters are in {_shown(run / 'notebooks')}")


def _parameters_file(params, notebooks):
    named = notebooks / "params" / f"{params}.yaml"
    path = named if named.is_file() else Path(params)
    if not path.is_file():
        names = ", ".join(sorted(found.stem for found in named.parent.glob("*.yaml")))
        raise BookError(f"no parameters file {params}: give a path, or one of these names: {names}")
    return path


def _hold(run, stack):
    """Keep other calls out of the run folder until the stack closes or this process ends."""
    path = run / "state" / ".lock"
    try:
        file = stack.enter_context(locked(path, wait=False))
    except BlockingIOError:
        process = path.read_text()
        raise BookError(f"{_shown(run)} is being run by process {process}: wait, or use another --run") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()


def result_table(run):
    """The table that chapter 05 writes, in percent with one digit; empty if there is none."""
    path = Path(run) / "05_fairness_analysis" / "results.csv"
    if not path.exists():
        return ""
    import pandas as pd

    table = pd.read_csv(path)
    shown = [name for name in PERCENT if name in table]
    table[shown] = 100 * table[shown]
    return table.to_string(index=False, formatters={name: "{:.1f}".format for name in shown}, na_rep="-")


# --- one chapter -----------------------------------------------------------------------------------------


def _execute(cell, progress):
    """Run a chapter's `.py` with its parameters; seconds taken."""
    folder = progress.run / "notebooks"
    folder.mkdir(exist_ok=True)
    copy, log = folder / f"{cell.file}.ipynb", folder / f"{cell.file}.log"
    run_dir = Path(os.path.relpath(progress.run, progress.notebooks)).as_posix()
    progress.save(cell, status="running", digest=progress.inputs(cell), outputs=None, kernel=None)
    start = time.monotonic()
    try:
        with _Log(log) as output:
            papermill.execute_notebook(
                cell.chapter.notebook,
                copy,
                parameters={**cell.given, "run_dir": run_dir},
                cwd=progress.notebooks,
                progress_bar=False,
                stdout_file=output,
                stderr_file=output,
                kernel_manager_class=_kernel_manager(lambda kernel: progress.save(cell, kernel=kernel)),
            )
        seconds = time.monotonic() - start
        progress.finished(cell, seconds)
    except (papermill.PapermillExecutionError, DeadKernelError) as error:
        progress.save(cell, status="failed", kernel=None)
        raise ChapterFailed(
            f"{cell} failed in {_where(error, copy)}\n"
            f"  log:                 {_shown(log)}\n"
            f"  half-executed copy:  {_shown(copy)}"
        ) from None
    return seconds


def _where(error, copy):
    """The notebook cell, its first line and the error, in words."""
    if isinstance(error, papermill.PapermillExecutionError):
        count, source, reason = error.exec_count, error.source, f"{error.ename}: {error.evalue}"
    else:
        started = [cell for cell in nbformat.read(copy, 4).cells if cell.metadata.papermill.get("start_time")]
        count, source = sum(cell.cell_type == "code" for cell in started), started[-1].source
        reason = "the kernel died; out of memory is the usual cause"
    return f"In [{count}], which begins `{source.strip().splitlines()[0]}`\n  {reason}"


def _kernel_manager(started):
    """A manager of kernels of this very Python, which reports each kernel's process when it has started."""

    class Manager(AsyncKernelManager):
        @property
        def kernel_spec(self):
            # Another python3 kernel, installed by the user, would be found first and lack our packages.
            # Else each start prints that local connections are not encrypted, and each interrupt a traceback.
            return KernelSpec(**get_kernel_dict(extra_arguments=["--log-level=CRITICAL"]))

        async def start_kernel(self, **options):
            await super().start_kernel(**options)
            process = psutil.Process(self.provisioner.pid)
            started({"pid": process.pid, "started": process.create_time()})

    return Manager


class _Log:
    """What a chapter prints: all of it into the log, its latest line now and then to the terminal."""

    def __init__(self, path):
        self.file = path.open("w", encoding="utf-8")
        self.live = sys.stdout.isatty()
        self.echoed = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        if self.live:
            print("\r\x1b[K", end="", flush=True)

    def write(self, text):
        self.file.write(text)
        lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
        if not lines or time.monotonic() - self.echoed < (0.2 if self.live else ECHO_SECONDS):
            return
        self.echoed = time.monotonic()
        line = lines[-1][: shutil.get_terminal_size().columns - 5]
        print(f"\r\x1b[K    {line}" if self.live else f"    {line}", end="" if self.live else "\n", flush=True)

    def flush(self):
        self.file.flush()


# --- what is done ----------------------------------------------------------------------------------------


class Progress:
    """What has been done in a run folder: one state file a cell, and the manifest that the chapters write."""

    def __init__(self, run, cells):
        self.run, self.cells = run, cells
        self.notebooks = cells[0].chapter.path.parent
        self.package = _package_digest()

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
        """Digest of the chapter's code, its parameters, the package and the results it builds on."""
        before = itertools.takewhile(lambda other: other.chapter is not cell.chapter, self.cells)
        _, _, mine = cell.name.partition("/")
        upstream = {}
        for other in before:
            _, _, theirs = other.name.partition("/")
            if not mine or not theirs or mine == theirs:
                upstream[other.name] = self.state(other).get("outputs")
        parameters = {name: value for name, value in cell.effective.items() if name != "run_dir"}
        return _digest([cell.chapter.code, parameters, self.package, upstream])

    def done(self, cell):
        """Whether the cell was finished from these inputs and its files are still what it read and wrote."""
        state, entry = self.state(cell), self.entry(cell)
        if state.get("status") != "done" or state["digest"] != self.inputs(cell) or entry is None:
            return False
        return state["outputs"] == _digest_of_outputs(entry) and all(
            self._unchanged(name, recorded) for name, recorded in {**entry["read"], **entry["wrote"]}.items()
        )

    def _unchanged(self, name, recorded):
        # Names of results are seen from the run folder, others from the folder that the chapter ran in.
        path = self.run / name if (self.run / name).exists() else self.notebooks / name
        return path.exists() and describe(path, {str(path): recorded})["sha256"] == recorded["sha256"]

    def refuse_leftovers(self):
        """Chapter 05 compares every detector it finds: results that are not asked for must not be among them."""
        states = [json.loads(path.read_text(encoding="utf-8")) for path in self._state_paths()]
        extra = {state["cell"] for state in states} - {cell.name for cell in self.cells}
        if extra:
            raise BookError(
                f"{_shown(self.run)} holds results that the parameters no longer ask for: {', '.join(sorted(extra))}; "
                "choose another --run, or delete that folder"
            )

    def end_orphans(self):
        """End kernels of an executor that was killed, before two of them write into one folder."""
        for path in self._state_paths():
            kernel = json.loads(path.read_text(encoding="utf-8")).get("kernel")
            if kernel is None or not psutil.pid_exists(kernel["pid"]):
                continue
            try:
                process = psutil.Process(kernel["pid"])
                if abs(process.create_time() - kernel["started"]) > 2:
                    continue  # the number now belongs to another process
                family = [process, *process.children(recursive=True)]
                for member in family:
                    member.kill()
            except psutil.NoSuchProcess:
                continue
            psutil.wait_procs(family, timeout=10)

    def _state_paths(self):
        return sorted((self.run / "state").glob("*.json"))

    def prepare(self, cell):
        """Make the cell's sub-folder fit to start: resumed, cleared, or set aside if made by hand."""
        folder, state, digest = self.run / cell.name, self.state(cell), self.inputs(cell)
        if state.get("status") in ("running", "failed") and state["digest"] == digest:
            return "resumed" if (self.run / cell.name).exists() else ""
        entry, note = self.entry(cell), ""
        if folder.exists() and any(folder.iterdir()):
            by_hand = not state or (entry and state.get("outputs") not in (None, _digest_of_outputs(entry)))
            if by_hand:
                aside = self.run / "set_aside" / f"{cell.file}-{now().replace(':', '')}"
                aside.parent.mkdir(exist_ok=True)
                folder.rename(aside)
                note = f"results made by hand are now in {_shown(aside)}"
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
        entry = self.entry(cell)
        if entry is None:
            self.save(cell, status="failed", kernel=None)
            raise ChapterFailed(f"{cell} ended without recording what it did: its last cell calls run.finish(...)")
        self.save(cell, status="done", outputs=_digest_of_outputs(entry), seconds=seconds, kernel=None)

    def left(self, cells):
        """Words for the time that the unfinished among `cells` take, from past durations of their chapters."""
        past = {cell: self.state(cell).get("seconds") for cell in self.cells}
        known, unknown = [], 0
        for cell in cells:
            state = self.state(cell)
            if state.get("status") == "done" and state["digest"] == self.inputs(cell):
                continue
            same = [past[other] for other in self.cells if other.chapter is cell.chapter and past[other] is not None]
            if past[cell] is None and not same:
                unknown += 1
            else:
                known.append(sum(same) / len(same) if past[cell] is None else past[cell])
        if not known:
            return ""
        return f"{'at least' if unknown else 'about'} {_minutes(sum(known))} left"


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _digest_of_outputs(entry):
    return _digest({name: item["sha256"] for name, item in entry["wrote"].items()})


def _package_digest():
    files = sorted(path for path in PACKAGE.glob("*.py") if path.stem not in MACHINERY)
    return _digest([(path.name, path.read_text(encoding="utf-8")) for path in files])


def _minutes(seconds):
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _shown(path):
    """A path as the reader would type it."""
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else str(path)
