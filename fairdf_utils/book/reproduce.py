"""Execution of the whole book into a run folder: `python -m fairdf_utils reproduce --params cpu --run runs/cpu`.

What is done with the same inputs is skipped, and what was interrupted is resumed. The run folder holds, beside
what the chapters write, `notebooks/` (executed copies and their logs) and `state/` (what has been done).
"""

import logging
import os
import shutil
import sys
import threading
import time
import traceback
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import nbformat
import papermill
import psutil
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError

from fairdf_utils.book.pairs import read_chapters
from fairdf_utils.book.parameters import Progress, find_parameters, in_words, plan, shown
from fairdf_utils.book.run_folder import BookError
from fairdf_utils.files import locked

ECHO_SECONDS = 10
PERCENT = ["auc", "fpr_sum", "oae", "dp", "meo", "fpr", "tpr"]
# Kernels are started one after the other: they share what jupyter_client knows of the ports in use.
_STARTING = threading.Lock()


class ChapterFailed(Exception):
    """Cells ended in an error, each with its message; their logs and half-executed copies are kept."""


def reproduce(params, run, notebooks, jobs=None):
    """Run the book: chapter after chapter, the cells of a repeated chapter side by side.

    Parameters
    ----------
    params : str
        Name of a file in notebooks/params, e.g. "cpu", or the path of one.
    run : str or Path
        The run folder; made if it does not exist.
    notebooks : str or Path
        Folder of the chapters.
    jobs : int, optional
        How many cells run at a time; else what the parameters file says.

    Raises
    ------
    BookError
        If the parameters or the run folder cannot be used; nothing has been run.
    ChapterFailed
        If a cell ended in an error; the same command goes on from there. What ran beside it was finished.
    """
    run, notebooks = Path(run).resolve(), Path(notebooks).resolve()
    asked = plan(read_chapters(notebooks), find_parameters(params, notebooks))
    asked = replace(asked, jobs=jobs or asked.jobs)
    # Threads of several torch processes that wait by spinning slow each other down many times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    # Failures are reported below, once; an interrupt leaves tasks behind that would report themselves.
    for name in ("papermill", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        _hold(run, stack)
        progress = Progress(run, asked)
        progress.refuse_leftovers()
        kernels = _Kernels(progress)
        kernels.end()
        _run(asked, progress, kernels)
    table = result_table(run)
    if table:
        print(f"\nResults in percent\n{table}")
    print(f"\nThe executed chapters are in {shown(run / 'notebooks')}")


def _hold(run, stack):
    """Keep other calls out of the run folder until the stack closes or this process ends."""
    path = run / "state" / ".lock"
    try:
        file = stack.enter_context(locked(path, wait=False))
    except BlockingIOError:
        process = path.read_text()
        raise BookError(f"{shown(run)} is being run by process {process}: wait, or use another --run") from None
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
    names = [name for name in PERCENT if name in table]
    table[names] = 100 * table[names]
    return table.to_string(index=False, formatters={name: "{:.1f}".format for name in names}, na_rep="-")


# --- cells side by side ----------------------------------------------------------------------------------


def _run(asked, progress, kernels):
    """Run all cells; each is executed in a thread, everything else happens in this one."""
    # One pool: a thread keeps its event loop. Its exit waits for the threads, which end with their kernels.
    with ThreadPoolExecutor(asked.jobs) as pool:
        try:
            for cells in asked.batches():
                _Batch(cells, asked, progress, kernels, pool).run()
        except KeyboardInterrupt:
            kernels.interrupt()
            raise


class _Batch:
    """The cells of one chapter, which run side by side."""

    def __init__(self, cells, asked, progress, kernels, pool):
        self.waiting, self.running, self.failures = deque(cells), {}, []
        self.asked, self.progress, self.kernels, self.pool = asked, progress, kernels, pool
        self.beside, self.terminal = min(asked.jobs, len(cells)), _Terminal()

    def run(self):
        """Run what is not done; after a failure, only what is already running."""
        while self.running or (self.waiting and not self.failures):
            while self.waiting and not self.failures and len(self.running) < self.beside:
                self._start(self.waiting.popleft())
            for future in wait(self.running, return_when=FIRST_COMPLETED).done:
                self._end(future)
        if self.failures:
            raise ChapterFailed(*self.failures)

    def _start(self, cell):
        if self.progress.done(cell):
            self._say(cell, ":", "done before")
            return
        note = self.progress.prepare(cell)
        self._say(cell, " …", note, self._left())
        environment = _environment(self.beside)
        future = self.pool.submit(_execute, cell, self.progress, self.kernels, environment, self.terminal)
        self.running[future] = (cell, time.monotonic())

    def _end(self, future):
        cell, started = self.running.pop(future)
        taken = in_words(time.monotonic() - started)
        error = future.exception()
        if isinstance(error, ChapterFailed):
            self.failures += error.args
        elif error:  # not even a kernel that started: the others are still to be waited for
            self.failures.append(f"{cell} could not be run\n{''.join(traceback.format_exception(error))}")
        left = "" if self.failures else self._left()
        self._say(cell, ":", f"failed after {taken}" if error else taken, left)

    def _left(self):
        return self.progress.left({cell: time.monotonic() - started for cell, started in self.running.values()})

    def _say(self, cell, mark, *notes):
        number = f"[{self.asked.cells.index(cell) + 1}/{len(self.asked.cells)}]"
        self.terminal.say(f"{number} {cell}{mark} {'; '.join(filter(None, notes))}".rstrip())


def _environment(beside):
    """Environment of a kernel that shares the cores with others."""
    environment = dict(os.environ)
    if beside > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // beside)))
    return environment


# --- one cell --------------------------------------------------------------------------------------------


def _execute(cell, progress, kernels, environment, terminal):
    """Run a chapter's `.py` with its parameters, in a kernel of its own."""
    folder = progress.run / "notebooks"
    folder.mkdir(exist_ok=True)
    copy, log = folder / f"{cell.file}.ipynb", folder / f"{cell.file}.log"
    run_dir = Path(os.path.relpath(progress.run, progress.notebooks)).as_posix()
    progress.save(cell, status="running", digest=progress.inputs(cell), outputs=None, kernel=None)
    start = time.monotonic()
    try:
        with _Log(log, cell, terminal) as output:
            papermill.execute_notebook(
                cell.chapter.notebook,
                copy,
                parameters={**cell.given, "run_dir": run_dir},
                progress_bar=False,
                stdout_file=output,
                stderr_file=output,
                kernel_manager_class=_kernel_manager(
                    lambda kernel: kernels.register(cell, kernel),
                    cwd=str(progress.notebooks),  # papermill's own would change the folder of every cell
                    env=environment,
                    stdout=output.file,  # what a library prints while the kernel ends, too late for a message
                    stderr=output.file,
                ),
            )
    except (papermill.PapermillExecutionError, DeadKernelError) as error:
        progress.save(cell, status="failed", kernel=None)
        raise ChapterFailed(
            f"{cell} failed in {_where(error, copy)}\n"
            f"  log:                 {shown(log)}\n"
            f"  half-executed copy:  {shown(copy)}"
        ) from None
    if not progress.finished(cell, time.monotonic() - start):
        raise ChapterFailed(f"{cell} ended without recording what it did: its last cell calls run.finish(...)")


def _where(error, copy):
    """The notebook cell, its first line and the error, in words."""
    if isinstance(error, papermill.PapermillExecutionError):
        count, source, reason = error.exec_count, error.source, f"{error.ename}: {error.evalue}"
    else:
        started = [cell for cell in nbformat.read(copy, 4).cells if cell.metadata.papermill.get("start_time")]
        count, source = sum(cell.cell_type == "code" for cell in started), started[-1].source
        reason = "the kernel died; out of memory is the usual cause"
    return f"In [{count}], which begins `{source.strip().splitlines()[0]}`\n  {reason}"


class _Log:
    """What a cell prints: all of it into the log, its latest line now and then to the terminal."""

    def __init__(self, path, cell, terminal):
        self.file, self.cell, self.terminal = path.open("w", encoding="utf-8"), cell, terminal
        self.echoed = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.terminal.forget(self.cell)

    def write(self, text):
        self.file.write(text)
        lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
        if lines and time.monotonic() - self.echoed >= (0.2 if self.terminal.live else ECHO_SECONDS):
            self.echoed = time.monotonic()
            self.terminal.echo(self.cell, lines[-1])

    def flush(self):
        self.file.flush()


class _Terminal:
    """Lines that stay; in a live terminal, the latest lines of all running cells share one that does not."""

    def __init__(self):
        self.live, self.lock, self.latest = sys.stdout.isatty(), threading.Lock(), {}

    def say(self, line):
        with self.lock:
            self._print(line, "\n")

    def echo(self, cell, line):
        with self.lock:
            self.latest = {**(self.latest if self.live else {}), cell: line}
            width = (shutil.get_terminal_size().columns - 5) // len(self.latest) - 2
            lines = [f"{other.short}: {latest}"[:width] for other, latest in self.latest.items()]
            self._print("    " + "  ".join(lines), "" if self.live else "\n")

    def forget(self, cell):
        with self.lock:
            if self.latest.pop(cell, None) and self.live:
                self._print("", "")

    def _print(self, text, end):
        print(f"\r\x1b[K{text}" if self.live else text, end=end, flush=True)


# --- processes -------------------------------------------------------------------------------------------


def _kernel_manager(started, **options):
    """A manager of kernels of this very Python, which reports each kernel's process when it has started."""

    class Manager(AsyncKernelManager):
        @property
        def kernel_spec(self):
            # Another python3 kernel, installed by the user, would be found first and lack our packages.
            # Else each start prints that local connections are not encrypted, and each interrupt a traceback.
            return KernelSpec(**get_kernel_dict(extra_arguments=["--log-level=CRITICAL"]))

        async def start_kernel(self, **given):
            with _STARTING:
                await super().start_kernel(**given, **options)
            process = psutil.Process(self.provisioner.pid)
            started({"pid": process.pid, "started": process.create_time()})

    return Manager


class _Kernels:
    """The processes of the running cells, noted in their states."""

    def __init__(self, progress):
        self.progress, self.interrupted = progress, False

    def register(self, cell, kernel):
        """Note a kernel that has started; called in the cell's thread."""
        self.progress.save(cell, kernel=kernel)
        if self.interrupted:  # perhaps too late for `interrupt` to have seen it
            _end([kernel])

    def interrupt(self):
        """End all kernels, and those that are just being started."""
        self.interrupted = True
        self.end()

    def end(self):
        """End all kernels; before a run, those that a killed executor left and that may still write."""
        _end([state["kernel"] for state in self.progress.states() if state.get("kernel")])


def _end(kernels):
    """Kill kernels, given as {"pid", "started"}, and the processes they have started."""
    family = []
    for kernel in kernels:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(kernel["pid"])
            # By now, the number may belong to another process.
            if abs(process.create_time() - kernel["started"]) <= 2:
                family += [process, *process.children(recursive=True)]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + 10
    while any(map(_runs, family)) and time.monotonic() < deadline:
        time.sleep(0.02)


def _runs(process):
    # In a container nobody may collect what has ended, which psutil.wait_procs would wait for.
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
