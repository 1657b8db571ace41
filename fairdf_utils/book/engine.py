"""The whole book into a run folder: Snakemake runs `notebooks/Snakefile`, and the terminal shows what matters of it."""

import io
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import redirect_stderr
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
from snakemake.cli import args_to_api, parse_args
from snakemake.exceptions import CliException
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

from fairdf_utils.book import BookError
from fairdf_utils.book.pairs import refuse_differences
from fairdf_utils.book.parameters import Plan, Step, find_parameters, read_plan
from fairdf_utils.book.run_folder import read_manifest_of_run
from fairdf_utils.files import locked

ECHO_SECONDS = 10
PERCENT = ("auc", "fpr_sum", "oae", "dp", "meo", "fpr", "tpr")
# Lines of papermill's log that say nothing about the chapter.
_PAPERMILL = re.compile(
    r"(Executing|Ending) Cell \d+-+$|(In|Out)put Notebook: |Executing notebook |\[IPKernelApp\]|<[\w.]+ |\++ "
)


class StepFailed(Exception):
    """Steps ended in an error, each with a report; their logs and half-executed copies are kept."""


def reproduce(
    params: str, run: str | Path, notebooks: str | Path, jobs: int | None = None, profile: str | None = None
) -> None:
    """Run the book; what is done from the same inputs is skipped, what was interrupted goes on.

    Parameters
    ----------
    params : str
        Name of a file in notebooks/params, e.g. "cpu", or the path of one.
    run : str or Path
        The run folder; made if it does not exist.
    notebooks : str or Path
        Folder of the chapters and of the Snakefile.
    jobs : int, optional
        How many steps run at a time; else what the parameters file says.
    profile : str, optional
        A Snakemake profile, e.g. notebooks/profiles/slurm, whose executor runs the steps.

    Raises
    ------
    BookError
        If the parameters or the run folder cannot be used; nothing has been run.
    StepFailed
        If a step ended in an error; the same command goes on from there. What ran beside it was finished.
    KeyboardInterrupt
        If the user interrupted; all steps have ended.
    """
    run, notebooks = Path(run).resolve(), Path(notebooks).resolve()
    params = find_parameters(params, notebooks).resolve()
    plan = read_plan(params, notebooks)
    refuse_differences(notebooks)
    _refuse_leftovers(plan, run)
    jobs = jobs or plan.jobs
    threads = max(1, (os.cpu_count() or 1) // jobs)
    options = {
        "--snakefile": notebooks / "Snakefile",
        "--directory": run,
        "--runtime-source-cache-path": run / ".snakemake" / "sources",
        "--max-checksum-file-size": 10**9,  # a file that was only touched is no reason to run
        **({"--profile": profile, "--jobs": jobs} if profile else {"--cores": threads * jobs}),
    }
    arguments = ["--rerun-incomplete", "--nolock", "--logger", "book", "--scheduler", "greedy"]
    arguments += [str(word) for option in options.items() for word in option]
    arguments += ["--config", f"params={params}", *([] if profile else [f"threads={threads}"])]
    # A file names the longest training first, so that it does not run alone at the end.
    first = next((step.repetition for step in plan.steps if step.repetition), None)
    copies = [f"notebooks/{step.name}.ipynb" for step in plan.steps if step.repetition == first and first]
    arguments += ["--prioritize", *copies] if copies else []
    _prepare_environment()
    if profile:
        os.environ["FAIRDF_PROFILE"] = str(Path(profile).resolve())  # its scripts lie there
    lock = run / ".lock"
    try:
        with locked(lock, wait=False):
            _run(arguments, plan, run, jobs)
    except BlockingIOError:
        raise BookError(
            f"{shown(run)} is being run by process {lock.read_text()}: wait, or use another --run"
        ) from None
    if table := result_table(run):
        print(f"\nResults in percent\n{table}")
    print(f"\nThe executed chapters are in {shown(run / 'notebooks')}")


def _refuse_leftovers(plan: Plan, run: Path) -> None:
    """Chapter 5 compares every detector it finds: results that are not asked for must not be among them."""
    repeated = {step.chapter.name for step in plan.steps if step.repetition}
    found = {path.relative_to(run).as_posix() for name in repeated for path in run.glob(f"{name}/*") if path.is_dir()}
    extra = sorted(found - {step.folder for step in plan.steps})
    if extra:
        raise BookError(
            f"{shown(run)} holds results that the parameters do not ask for, and chapter 5 would compare them too: "
            f"{', '.join(extra)}; choose another --run, or delete them"
        )


def _prepare_environment() -> None:
    """What the steps' processes inherit."""
    # Threads of several torch processes that wait by spinning slow each other down many times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    # papermill and the kernel of this very environment, whatever else the user has installed.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"


def _run(arguments: list[str], plan: Plan, run: Path, jobs: int) -> None:
    progress, interrupted = _Progress(plan, run, jobs), []

    def interrupt(*_):
        interrupted.append(True)
        raise KeyboardInterrupt

    handler = type("LogHandler", (_Events,), {"emit": lambda self, record: progress.hear(record)})
    registry = LoggerPluginRegistry()
    registry.plugins.pop("book", None)
    registry.register_plugin("book", SimpleNamespace(LogHandler=handler))
    before, folder = signal.signal(signal.SIGINT, interrupt), Path.cwd()
    try:
        with redirect_stderr(io.StringIO()) as refusal:  # which profile is used is said there, too
            parser, options = parse_args(arguments)
        done = args_to_api(options, parser)
    except (SystemExit, CliException) as error:
        raise BookError(" ".join((refusal.getvalue().rpartition("Error: ")[2] or str(error)).split())) from None
    finally:
        signal.signal(signal.SIGINT, before)
        os.chdir(folder)
        progress.stop()
    if interrupted:
        raise KeyboardInterrupt
    if progress.failures:
        raise StepFailed(*(_report(step, run) for step in progress.failures))
    if not done:
        raise BookError("\n".join(progress.errors) or f"Snakemake ended early; see {shown(run / '.snakemake/log')}")
    progress.say_done_before()


def result_table(run: Path) -> str:
    """The table that chapter 5 writes, in percent with one digit; empty if there is none."""
    path = run / "05_fairness_analysis" / "results.csv"
    if not path.exists():
        return ""
    table = pd.read_csv(path)
    names = [name for name in PERCENT if name in table]
    table[names] = 100 * table[names]
    return table.to_string(index=False, formatters=dict.fromkeys(names, "{:.1f}".format), na_rep="-")


def _report(step: Step, run: Path) -> str:
    """Where and why a step failed, in four lines."""
    log, copy = run / "notebooks" / f"{step.name}.log", run / "notebooks" / "failed" / f"{step.name}.ipynb"
    words = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    where, reason = "", _last_line(log)
    if copy.exists():
        code = [cell for cell in nbformat.read(copy, 4).cells if cell.cell_type == "code"]
        begun = [cell for cell in code if cell.metadata.get("papermill", {}).get("start_time")]
        failed = [(cell, out) for cell in begun for out in cell.outputs if out.output_type == "error"]
        if "DeadKernelError" in words:
            failed = [(begun[-1], SimpleNamespace(ename="the kernel died", evalue="out of memory is the usual cause"))]
        for cell, error in failed[:1]:
            where = f" in In [{code.index(cell) + 1}], which begins `{cell.source.strip().splitlines()[0]}`"
            reason = f"{error.ename}: {error.evalue}"
    return (
        f"{step} failed{where}\n  {reason}\n  log:                 {shown(log)}\n  half-executed copy:  {shown(copy)}"
    )


class _Events(LogHandlerBase):
    """Takes the place of all that Snakemake would print."""

    writes_to_stream = True
    writes_to_file = has_filter = has_formatter = needs_rulegraph = False


class _Progress:
    """Turns Snakemake's events into one line per step, and shows the latest line of what runs now and then."""

    def __init__(self, plan: Plan, run: Path, jobs: int):
        self.run, self.jobs, self.total = run, jobs, len(plan.steps)
        self.waiting = {step.name: step for step in plan.steps}
        self.numbers = {step.name: number for number, step in enumerate(plan.steps, start=1)}
        self.jobids, self.running, self.failures, self.errors = {}, {}, [], []
        # By rule: jobs that have not started, that have not ended, and how long such jobs took.
        self.to_start, self.to_end, self.seconds = Counter(), Counter(), _past_durations(run)
        self.live, self.lock, self.stopped = sys.stdout.isatty(), threading.Lock(), threading.Event()
        threading.Thread(target=self._echo, daemon=True).start()

    def hear(self, record) -> None:
        """One record of Snakemake's log."""
        event = getattr(record, "event", None)
        if event == "run_info":
            self.to_start = Counter(record.stats)
            self.to_end = self.to_start - Counter(all=1, total=record.stats["total"])
            self.say_done_before()
        elif event == "job_info" and record.log:
            step = self.waiting.pop(Path(record.log[0]).stem)
            self.jobids[record.jobid] = step
            self.running[step] = time.monotonic()
            self.to_start[step.rule] -= 1
            self._say(step, "started", self._left())
            self.say_done_before()
        elif event == "job_finished" and record.job_id in self.jobids:
            step, taken = self._end(record.job_id)
            self.seconds[step.rule].append(taken)
            self._say(step, in_words(taken), self._left())
        elif event == "job_error" and record.jobid in self.jobids:
            step, taken = self._end(record.jobid)
            self.failures.append(step)
            self._say(step, f"failed after {in_words(taken)}")
        elif record.levelname == "ERROR":
            self.errors.append(record.getMessage())

    def _end(self, jobid: int) -> tuple[Step, float]:
        step = self.jobids.pop(jobid)
        self.to_end[step.rule] -= 1
        return step, time.monotonic() - self.running.pop(step)

    def say_done_before(self) -> None:
        """Name the steps that no job is left for."""
        for name, step in list(self.waiting.items()):
            if not self.to_start[step.rule]:
                self._say(self.waiting.pop(name), "done before")

    def _left(self) -> str:
        """Words for what is left: steps, and the time if that of each such chapter is known."""
        left = +self.to_end
        if not left:
            return ""
        times = [
            count * sum(self.seconds[rule]) / len(self.seconds[rule])
            for rule, count in left.items()
            if self.seconds[rule]
        ]
        about = f", about {in_words(sum(times) / self.jobs)}" if len(times) == len(left) else ""
        return f"{left.total()} of {self.total} steps left{about}"

    def _say(self, step: Step, *notes: str) -> None:
        with self.lock:
            self._print(f"[{self.numbers[step.name]}/{self.total}] {step}: {'; '.join(filter(None, notes))}", "\n")

    def _echo(self) -> None:
        """Until all has ended: a live terminal has one line that shows the latest words of all running steps."""
        before = ""
        while not self.stopped.wait(0.5 if self.live else ECHO_SECONDS):
            with self.lock:
                words = {step: _last_line(self.run / "notebooks" / f"{step.name}.log") for step in [*self.running]}
                width = (shutil.get_terminal_size().columns - 5) // max(1, len(words)) - 2
                shown = "  ".join(f"{step.repetition or step.rule}: {line}"[:width] for step, line in words.items())
                if shown != before:
                    self._print(f"    {shown}", "" if self.live else "\n")
                before = shown

    def stop(self) -> None:
        """Show no more lines."""
        self.stopped.set()
        if self.live:
            self._print("", "")

    def _print(self, text: str, end: str) -> None:
        print(f"\r\x1b[K{text}" if self.live else text, end=end, flush=True)


def _last_line(log: Path) -> str:
    """The last line that a chapter printed, or else the cell that it is in."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4000))
        words = file.read().decode("utf-8", "replace")
    cells = re.findall(r"Executing (Cell \d+)", words)
    lines = [line.strip() for line in re.split(r"[\r\n]+", words) if line.strip() and not _PAPERMILL.match(line)]
    return (lines or cells or [""])[-1]


def _past_durations(run: Path) -> dict[str, list[float]]:
    """Seconds that the steps of each rule took in this run folder."""
    seconds = defaultdict(list)
    for name, entry in read_manifest_of_run(run).items():
        started, ended = (datetime.fromisoformat(entry[key]) for key in ("started", "ended"))
        seconds[name.partition("/")[0][3:]].append((ended - started).total_seconds())
    return seconds


def in_words(seconds: float) -> str:
    """A duration, e.g. 1 h 5 min."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def shown(path: Path) -> str:
    """A path as the reader would type it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
