"""The whole book into a run folder: Snakemake runs `notebooks/Snakefile`, and the terminal shows what matters of it."""

import io
import os
import re
import signal
import sys
import threading
import time
from contextlib import redirect_stderr
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
from snakemake.cli import args_to_api, parse_args
from snakemake.exceptions import CliException
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

from fairdf_utils.book import BookError
from fairdf_utils.book.pairs import differences
from fairdf_utils.book.parameters import Plan, Step, find_parameters, read_plans
from fairdf_utils.files import locked

ECHO_SECONDS = 10
_FIRST = "data_preparation"  # rule of chapter 1
# A line that says how far a chapter is: `epoch   3/12  loss 0.4`, `ffpp 70/900 video, 12:00 left`.
_FAR = re.compile(r"^[A-Za-z][\w. -]* \d+/\d+\b.*$", re.MULTILINE)

_HEADERS = {"worst_auc": "worst-group AUC", "worst_tpr": "worst-group TPR", "auc": "AUC"}
_HEADERS |= {"fpr_sum": "F_FPR", "oae": "F_OAE", "dp": "F_DP", "meo": "F_MEO", "fpr": "FPR", "tpr": "TPR"}
_FLAGS = ("writes_to_file", "has_filter", "has_formatter", "needs_rulegraph")


class StepFailed(Exception):
    """Steps ended in an error, each with a report; their logs and half-executed copies are kept."""


def reproduce(
    params: str, run: str | Path, notebooks: str | Path, jobs: int | None = None, profile: str | None = None
) -> None:
    """Run the book; what is done from the same inputs is skipped, what was interrupted goes on.

    Parameters
    ----------
    params : name of a file in notebooks/params, e.g. "cpu", or the path of one
    run : the run folder; made if it does not exist. It gets a sub-folder for each of the parameters' worlds
    notebooks : folder of the chapters and of the Snakefile
    jobs : how many steps run at a time; else what the parameters file says
    profile : a Snakemake profile, e.g. notebooks/profiles/slurm, whose executor runs the steps

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
    plans = read_plans(params, notebooks)
    if differing := differences(notebooks):
        raise BookError(f"{differing[0]}; `python -m fairdf_utils notebooks --update` writes it anew")
    for world, plan in plans.items():
        _refuse_leftovers(plan, run / world)
    # Threads of several torch processes that wait by spinning slow each other down many times over.
    os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")
    # papermill and the kernel of this very environment, whatever else the user has installed.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    if profile:
        if not any(Path(profile, name).is_file() for name in ("config.yaml", "profile.yaml")):
            there = ", ".join(shown(path) for path in sorted(notebooks.glob("profiles/*")))
            raise BookError(f"{profile}: no folder of a Snakemake profile, with a config.yaml; there are {there}")
        os.environ["FAIRDF_PROFILE"] = str(Path(profile).resolve())  # its scripts lie there
    for world, plan in plans.items():
        config = [f"params={params}", *([f"world={world}"] if world else [])]
        if world:
            print(f"\n{world}", flush=True)
        _reproduce(plan, run / world, notebooks, jobs or plan.jobs, profile, config)


def _reproduce(plan: Plan, run: Path, notebooks: Path, jobs: int, profile: str | None, config: list[str]) -> None:
    """Run the book once; Snakefile's `config` says with what."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    where = ["--profile", profile, "--jobs", jobs] if profile else ["--cores", threads * jobs]
    # A file that was only touched is no reason to run: files of up to 1 GB are compared by content.
    where += ["--snakefile", notebooks / "Snakefile", "--directory", run, "--max-checksum-file-size", 10**9]
    where += ["--runtime-source-cache-path", run / ".snakemake" / "sources", "--scheduler", "greedy"]
    where += ["--rerun-incomplete", "--nolock", "--logger", "book", "--config", *config]
    where += [] if profile else [f"threads={threads}"]
    lock = run / ".lock"
    try:
        with locked(lock, wait=False):
            _run([str(word) for word in where], plan, run)
    except BlockingIOError:
        owner = lock.read_text()
        raise BookError(f"{shown(run)} is being run by process {owner}: wait, or use another --run") from None
    judged = any(step.chapter.name.startswith("05") for step in plan.steps)
    if table := result_table(run) if judged else "":
        print(f"\nResults in percent\n{table}")
    verdict = "; the verdict is in 5.2 of chapter 5" if judged else ""
    print(f"\nThe executed chapters are in {shown(run / 'notebooks')}{verdict}")


def _refuse_leftovers(plan: Plan, run: Path) -> None:
    """Chapter 5 compares every detector it finds: results that are not asked for must not be among them."""
    repeated = {step.chapter.name for step in plan.steps if "detector" in step.values}
    found = {path.relative_to(run).as_posix() for name in repeated for path in run.glob(f"{name}/*") if path.is_dir()}
    if extra := sorted(found - {step.folder for step in plan.steps}):
        raise BookError(
            f"{shown(run)} holds results that the parameters do not ask for, and chapter 5 would compare them too: "
            f"{', '.join(extra)}; choose another --run, or delete them"
        )


def _run(arguments: list[str], plan: Plan, run: Path, ran: tuple[Step, ...] = ()) -> None:
    """Call Snakemake; the steps `ran` were run by a call just before."""
    progress = _Progress(plan, run, ran)

    def interrupt(*_):
        progress.interrupted = True
        raise KeyboardInterrupt

    # Takes the place of all that Snakemake would print.
    flags = {"writes_to_stream": True, **dict.fromkeys(_FLAGS, False)}
    handler = type("LogHandler", (LogHandlerBase,), {**flags, "emit": lambda self, record: progress.hear(record)})
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
        progress.stopped.set()
    if progress.interrupted:
        raise KeyboardInterrupt
    if progress.failures:
        raise StepFailed(*(_report(step, run) for step in progress.failures))
    if not done:
        raise BookError("\n".join(progress.errors) or f"Snakemake ended early; see {shown(run / '.snakemake/log')}")
    # While chapter 1 is to run anew, Snakemake does not look whether steps that only come after it (`ancient`) have
    # other reasons to run: it is asked once more.
    if not ran and progress.waiting and _FIRST in {step.chapter.name[3:] for step in progress.ran}:
        _run(arguments, plan, run, tuple(progress.ran))
    else:
        progress.say_done_before()


def result_table(run: Path) -> str:
    """The table that chapter 5 writes, in percent with one digit; empty if there is none."""
    path = run / "05_fairness_analysis" / "results.csv"
    if not path.exists():
        return ""
    table = pd.read_csv(path)
    measured = table.select_dtypes("float").columns
    absent = table.loc[table[measured].isna().all(axis=1), "dataset"].unique()
    table[measured] *= 100
    words = [table.rename(columns=_HEADERS).to_string(index=False, float_format="{:.1f}".format, na_rep="-")]
    words += [f"not tested, because they are not there: {', '.join(absent)}"] if len(absent) else []
    return "\n".join(words)


def _report(step: Step, run: Path) -> str:
    """Where and why a step failed, in four lines."""
    log, copy = run / "notebooks" / f"{step.name}.log", run / "notebooks" / "failed" / f"{step.name}.ipynb"
    words = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    said = [line for line in words.splitlines() if line.strip() and not line.startswith("+")]  # +: a command
    where, reason = "", said[-1] if said else ""
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


class _Progress:
    """Turns Snakemake's events into one line per step, and now and then tells how far the running steps are."""

    def __init__(self, plan: Plan, run: Path, ran: tuple[Step, ...] = ()):
        self.run, self.total, self.left = run, len(plan.steps), 0
        self.waiting = {step.name: step for step in plan.steps if step not in ran}
        self.numbers = {step.name: number for number, step in enumerate(plan.steps, start=1)}
        self.jobids, self.running, self.ran, self.failures, self.errors = {}, {}, [], [], []
        self.stopped, self.interrupted = threading.Event(), False
        threading.Thread(target=self._echo, daemon=True).start()

    def hear(self, record) -> None:
        """One record of Snakemake's log."""
        event, job = getattr(record, "event", None), getattr(record, "job_id", getattr(record, "jobid", None))
        if event == "run_info":
            self.left = record.stats["total"] - record.stats.get("all", 0)
            if _FIRST not in record.stats:
                self.say_done_before(but=record.stats)
        elif event == "job_info" and record.log and Path(record.log[0]).stem in self.waiting:
            self.jobids[job] = step = self.waiting.pop(Path(record.log[0]).stem)
            self.ran.append(step)
            self.running[step] = time.monotonic()
            self._say(step, "started")
        elif event in ("job_finished", "job_error") and job in self.jobids:
            step = self.jobids.pop(job)
            taken = timedelta(seconds=round(time.monotonic() - self.running.pop(step)))
            if event == "job_error":
                self.failures.append(step)
                self._say(step, f"{'interrupted' if self.interrupted else 'failed'} after {taken}")
            else:
                self.left -= 1
                self._say(step, f"{taken}; {self.left} of {self.total} steps left")
        elif record.levelname == "ERROR":
            self.errors.append(record.getMessage())

    def say_done_before(self, but=()) -> None:
        """Name the steps that have not run, but for those of some rules, whose turn may come."""
        for name, step in list(self.waiting.items()):
            if step.chapter.name[3:] not in but:  # a chapter's rule
                self._say(self.waiting.pop(name), "done before")

    def _say(self, step: Step, note: str) -> None:
        print(f"[{self.numbers[step.name]}/{self.total}] {step}: {note}", flush=True)

    def _echo(self) -> None:
        """Until all has ended, print what each running step said last of how far it is, if it is news."""
        before = {}
        while not self.stopped.wait(ECHO_SECONDS):
            for step in list(self.running):
                log = self.run / "notebooks" / f"{step.name}.log"
                said = _FAR.findall(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else []
                if said and said[-1] != before.get(step):
                    before[step] = said[-1]
                    print(f"    {step.name}: {said[-1]}", flush=True)


def shown(path: Path) -> str:
    """A path as the reader would type it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
