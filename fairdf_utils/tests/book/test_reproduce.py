"""Papermill with real kernels on a tiny book: what runs, what is skipped, what a fault leaves behind."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from fairdf_utils.__main__ import main
from fairdf_utils.book import parameters as planning
from fairdf_utils.book import reproduce as executor
from fairdf_utils.book.pairs import read_chapters
from fairdf_utils.book.parameters import Progress, plan, time_side_by_side
from fairdf_utils.book.reproduce import ChapterFailed, reproduce, result_table
from fairdf_utils.book.run_folder import BookError, Run, read_manifest_of_run
from fairdf_utils.tests.book.tiny_book import write_book

FAIR = "03_training/fair-s0"
PLAIN = "03_training/plain-s0"
ONE = "grid: [{detector: fair}]\n"
TWO = "grid: [{detector: fair}, {detector: plain}]\njobs: 2\n"


@pytest.fixture(autouse=True)
def package(monkeypatch):
    """The package's files count as inputs; while it is being edited, tests need a fixed answer."""
    monkeypatch.setattr(planning, "_package_digest", lambda code: "package")


@pytest.fixture
def book(tmp_path):
    return write_book(tmp_path, ONE)


def cells_of(folder, profile):
    path = folder / "params" / "cpu.yaml"
    path.write_text(profile)
    return plan(read_chapters(folder), path).cells


def statuses(output):
    """{chapter or repetition: "done before" or what was said at its start} from the progress lines."""
    found = {}
    for line in output.splitlines():
        if not line.startswith("["):
            continue
        label = line.split("] ", 1)[1]
        if label.endswith(": done before"):
            found[label.removesuffix(": done before")] = "done before"
        elif " …" in label:
            found[label.split(" …")[0]] = label.split("…")[1].strip() or "run"
    return found


# --- the plan --------------------------------------------------------------------------------------------


def test_chapters_with_a_detector_are_repeated_over_grid_and_seeds(book):
    cells = cells_of(book, "epochs: 3\ngrid: [{detector: fair}, {detector: plain-2, rate: 1}]\nseeds: [0, 4]\n")
    assert [(cell.name, cell.given) for cell in cells] == [
        ("01_data", {}),
        ("03_training/fair-s0", {"epochs": 3, "detector": "fair", "seed": 0}),
        ("03_training/fair-s4", {"epochs": 3, "detector": "fair", "seed": 4}),
        ("03_training/plain-2-s0", {"epochs": 3, "detector": "plain-2", "rate": 1, "seed": 0}),
        ("03_training/plain-2-s4", {"epochs": 3, "detector": "plain-2", "rate": 1, "seed": 4}),
        ("05_fairness_analysis", {}),
    ]


def test_without_a_grid_the_notebooks_own_values_run(book):
    assert [cell.name for cell in cells_of(book, "")] == ["01_data", FAIR, "05_fairness_analysis"]


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("epocs: 3", r"cpu.yaml: .*'epocs'; did you mean 'epochs'\?"),
        ("grid: [{detectr: fair}]", r"'detectr'; did you mean 'detector'\?"),
        ("grid: [{words: [x]}]", "'words'"),  # declared, but by no repeated chapter
        ("epochs: '3'", "epochs is '3', but 03_training has epochs = 2: a value of type int"),
        ("epochs: 3.0", "a value of type int"),
        ("epochs: true", "a value of type int"),
        ("epochs: ", "epochs is None"),
        ("rate: 1e-3", r"rate is '1e-3'.* 1.0e-3"),
        ("detector: ''", "not an empty one"),
        ("words: [a, 1]", "words is"),
        ("words: a", "a value of type list"),
        ("run_dir: x", "run_dir is set by --run"),
        ("epochs: 1\nepochs: 2", "'epochs' is given twice"),
        ("grid: [{detector: a, detector: b}]", "'detector' is given twice"),
        ("grid: [{detector: a}, {detector: a, rate: 1.0}]", "asks for 03_training/a-s0 twice"),
        ("grid: [{detector: ../a}]", "names a folder"),
        ("grid: {detector: a}", "grid is a list"),
        ("seeds: 0", "seeds is a list"),
        ("jobs: 0", "jobs is a whole number from 1"),
        ("jobs: true", "jobs is a whole number from 1"),
        ("[", "cpu.yaml"),
    ],
)
def test_a_profile_that_asks_for_something_else_is_refused(book, profile, message):
    with pytest.raises(BookError, match=message):
        cells_of(book, profile)


def test_jobs_is_one_unless_the_profile_says_more(book):
    path = book / "params" / "cpu.yaml"
    assert plan(read_chapters(book), path).jobs == 1
    path.write_text(TWO)
    asked = plan(read_chapters(book), path)
    assert asked.jobs == 2
    assert [[cell.name for cell in batch] for batch in asked.batches()] == [
        ["01_data"], [FAIR, PLAIN], ["05_fairness_analysis"],
    ]  # fmt: skip
    assert not any("jobs" in cell.given for cell in asked.cells)


@pytest.mark.parametrize(
    ("seconds", "jobs", "whole"),
    [([], 2, 0), ([3, 2, 2], 1, 7), ([3, 2, 2], 2, 4), ([1, 1, 4], 2, 5), ([3, 2, 2], 8, 3)],
)
def test_time_side_by_side(seconds, jobs, whole):
    assert time_side_by_side(seconds, jobs) == whole


@pytest.mark.parametrize("line", ["rate = 1 / 2", "seed = other = 1", "import os", "names[0] = 1"])
def test_a_parameters_cell_holds_only_plain_values(book, line):
    path = book / "03_training.py"
    path.write_text(path.read_text().replace("epochs: int = 2", f"epochs: int = 2\n{line}"))
    with pytest.raises(BookError, match=r"03_training.py: the parameters cell holds"):
        read_chapters(book)


def test_a_chapter_depends_on_the_modules_it_uses_and_on_no_others(tmp_path, monkeypatch):
    for name, text in (("top", "def f():\n    from pack import low"), ("low", "x = 1"), ("other", "import pack.low")):
        (tmp_path / "pack").mkdir(exist_ok=True)
        (tmp_path / f"pack/{name}.py").write_text(text)
    monkeypatch.undo()
    monkeypatch.setattr(planning, "PACKAGE", tmp_path / "pack")
    forms = ["from pack import top", "from pack.top import f", "import pack.top", "import numpy, pack.top as t"]
    before = [planning._package_digest([form, "y = 2"]) for form in forms]
    assert len(set(before)) == 1
    (tmp_path / "pack/other.py").write_text("x = 3")
    assert [planning._package_digest([form, "y = 2"]) for form in forms] == before
    (tmp_path / "pack/low.py").write_text("x = 3")
    assert not set(before) & {planning._package_digest([form, "y = 2"]) for form in forms}


def test_an_unknown_profile_names_the_known_ones(book, tmp_path):
    with pytest.raises(BookError, match="no parameters file gpuu: .* names: cpu"):
        reproduce("gpuu", tmp_path / "run", book)


def test_the_result_table_is_in_percent(tmp_path):
    assert result_table(tmp_path) == ""
    run = Run(tmp_path, "05_fairness_analysis")
    run.path("results.csv").write_text("detector,dataset,auc,fpr_sum,meo\nfair,dfdc,0.875,1.25,\n")
    assert [line.split() for line in result_table(tmp_path).splitlines()] == [
        ["detector", "dataset", "auc", "fpr_sum", "meo"],
        ["fair", "dfdc", "87.5", "125.0", "-"],
    ]


# --- execution -------------------------------------------------------------------------------------------


def test_the_book_runs_once_and_only_what_changed_runs_again(tmp_path, capfd, monkeypatch):
    book, run = write_book(tmp_path), tmp_path / "run"
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)

    reproduce("cpu", run, book)
    output = capfd.readouterr()
    names = ["01_data", "03_training detector=fair seed=0", "03_training detector=plain seed=0", "05_fairness_analysis"]
    assert list(statuses(output.out)) == names
    assert "[4/4] 05_fairness_analysis:" in output.out and "75.0" in output.out
    assert output.err == ""
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    copy = nbformat.read(run / "notebooks/03_training-plain-s0.ipynb", 4)
    assert copy.metadata.papermill.parameters == {"detector": "plain", "rate": 1, "seed": 0, "run_dir": "../run"}
    assert f"epoch 1 in {book}" in (run / "notebooks/03_training-plain-s0.log").read_text()
    assert sorted(path.name for path in book.iterdir()) == [
        "01_data.py", "03_training.py", "05_fairness_analysis.py", "params",
    ]  # fmt: skip
    assert [entry["seed"] for name, entry in read_manifest_of_run(run).items() if name.startswith("03")] == [0, 0]

    reproduce("cpu", run, book)
    assert set(statuses(capfd.readouterr().out).values()) == {"done before"}

    # One detector's parameter: that detector and the comparison run again, the other does not.
    (run / "03_training/plain-s0/stale.txt").write_text("from before")
    state = run / "state/03_training-plain-s0.json"
    manifest = json.loads((run / "manifest.json").read_text())
    profile = book / "params/cpu.yaml"
    profile.write_text(profile.read_text().replace("rate: 1", "rate: 2, epochs: 3"))
    reproduce("cpu", run, book)
    said = statuses(capfd.readouterr().out)
    assert [said[name] for name in names[:2]] == ["done before", "done before"]
    assert said[names[2]].startswith("inputs changed, starting anew; about")
    assert said[names[3]].startswith("inputs changed")
    assert (run / "03_training/plain-s0/epochs.txt").read_text() == "0\n1\n2\n"
    assert not (run / "03_training/plain-s0/stale.txt").exists()
    assert json.loads(state.read_text())["status"] == "done"
    assert read_manifest_of_run(run)[FAIR] == manifest[FAIR]

    # A smaller grid would leave the other detector among the results that chapter 05 compares.
    profile.write_text(ONE)
    with pytest.raises(BookError, match="no longer ask for: 03_training/plain-s0"):
        reproduce("cpu", run, book)


def test_what_a_kernel_prints_past_its_messages_goes_into_the_log(book, tmp_path, capfd):
    """Libraries do so while the kernel ends, on the stream that it was started with: that must be the log."""
    chapter = book / "05_fairness_analysis.py"
    find = "[f for f in os.listdir('/proc/self/fd') if os.path.realpath(f'/proc/self/fd/{f}').endswith('analysis.log')]"
    write = "os.write(int(found[0]), b'a last word')"
    chapter.write_text(f"{chapter.read_text()}\n# %%\nimport os\n\nfound = {find}\n{write}\n")
    reproduce("cpu", tmp_path / "run", book)
    assert capfd.readouterr().err == ""
    assert "a last word" in (tmp_path / "run/notebooks/05_fairness_analysis.log").read_text()


def test_what_counts_as_done(book, tmp_path, capfd, monkeypatch):
    run, outside = tmp_path / "run", tmp_path / "outside.csv"
    outside.write_text("1")
    (book / "params/cpu.yaml").write_text(f"{ONE}source: {outside}\n")
    reproduce("cpu", run, book)

    def done():
        asked = plan(read_chapters(book), book / "params/cpu.yaml")
        return [Progress(run, asked).done(cell) for cell in asked.cells]

    assert done() == [True, True, True]
    chapter = book / "01_data.py"
    text = chapter.read_text()
    chapter.write_text(text.replace("# # 1. Data", "# # 1. The data"))
    assert done() == [True, True, True]  # prose is no input

    outside.write_text("2")
    assert done() == [False, True, True]  # the others wait for what chapter 01 makes of it
    outside.write_text("1")
    assert done() == [True, True, True]
    (run / FAIR / "epochs.txt").unlink()
    assert done() == [True, False, False]  # neither what wrote the file nor what read it
    (run / FAIR / "epochs.txt").write_text("0\n1\n")
    assert done() == [True, True, True]
    (run / FAIR / "epochs.txt").write_text("0\n7\n")
    assert done() == [True, False, False]

    monkeypatch.setattr(planning, "_package_digest", lambda code: "edited")
    assert done() == [False, False, False]
    monkeypatch.setattr(planning, "_package_digest", lambda code: "package")

    # A chapter run by hand in the same folder is set aside, not deleted.
    by_hand = Run(run, "03_training", "fair-s0")
    by_hand.path("epochs.txt").write_text("0\n1\n2\n3\n")
    by_hand.finish({})
    capfd.readouterr()
    reproduce("cpu", run, book)
    assert "results made by hand are now in" in statuses(capfd.readouterr().out)["03_training detector=fair seed=0"]
    (kept,) = (run / "set_aside").iterdir()
    assert (kept / "epochs.txt").read_text() == "0\n1\n2\n3\n"
    assert (run / FAIR / "epochs.txt").read_text() == "0\n1\n"


def test_a_chapter_that_fails_is_named_and_resumed(book, tmp_path, capfd):
    run, profile = tmp_path / "run", book / "params/cpu.yaml"
    profile.write_text(f"{ONE}fault: error\n")
    assert main(["reproduce", "--params", "cpu", "--run", str(run), "--notebooks", str(book)]) == 1
    error = capfd.readouterr().err
    log, copy = run / "notebooks/03_training-fair-s0.log", run / "notebooks/03_training-fair-s0.ipynb"
    assert error.splitlines() == [
        "error: 03_training detector=fair seed=0 failed in In [4], which begins `# train`",
        "  AssertionError: the loss is not finite",
        f"  log:                 {log}",
        f"  half-executed copy:  {copy}",
    ]
    assert "epoch 0" in log.read_text()
    outputs = [output for cell in nbformat.read(copy, 4).cells for output in cell.get("outputs", [])]
    assert any("epoch 0" in output.get("text", "") for output in outputs)
    assert (run / FAIR / "epochs.txt").read_text() == "0\n"
    assert FAIR not in read_manifest_of_run(run)

    # The same inputs go on from the checkpoint, which here is behind the fault.
    (run / FAIR / "epochs.txt").write_text("0\n1\n")
    reproduce("cpu", run, book)
    said = statuses(capfd.readouterr().out)
    assert said["01_data"] == "done before"
    assert said["03_training detector=fair seed=0"].startswith("resumed")
    assert (run / FAIR / "epochs.txt").read_text() == "0\n1\n"


def test_a_chapter_that_records_nothing_has_failed(book, tmp_path):
    chapter = book / "01_data.py"
    chapter.write_text(chapter.read_text().split("# %%\nrun.finish")[0])
    with pytest.raises(ChapterFailed, match=r"01_data ended without recording .*run.finish"):
        reproduce("cpu", tmp_path / "run", book)


def test_a_cell_that_cannot_be_run_is_named(book, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(executor, "_kernel_manager", broken)
    with pytest.raises(ChapterFailed, match="(?s)01_data could not be run.*Traceback.*RuntimeError: no kernel"):
        reproduce("cpu", tmp_path / "run", book)


# --- several at a time -----------------------------------------------------------------------------------


def test_the_cells_of_a_chapter_run_side_by_side(book, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(executor, "ECHO_SECONDS", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run, folder = tmp_path / "run", os.getcwd()
    (book / "params/cpu.yaml").write_text(
        f"grid: [{{detector: fair, wait_for: '{PLAIN}/begun.txt: begun'}},"
        f" {{detector: plain, wait_for: 'state/03_training-fair-s0.json: done'}}]\njobs: 1\n"
    )
    command = ["reproduce", "--params", "cpu", "--run", str(run), "--notebooks", str(book)]
    assert main([*command, "--jobs", "2"]) == 0  # each waits for the other: one at a time, this could not end
    output = capfd.readouterr().out
    lines = [line for line in output.splitlines() if line.startswith("[")]
    fair, plain = "03_training detector=fair seed=0", "03_training detector=plain seed=0"
    assert [line.split(" …")[0].split(": ")[0] for line in lines] == [
        "[1/4] 01_data", "[1/4] 01_data", f"[2/4] {fair}", f"[3/4] {plain}",
        f"[2/4] {fair}", f"[3/4] {plain}", "[4/4] 05_fairness_analysis", "[4/4] 05_fairness_analysis",
    ]  # fmt: skip
    assert "\n    fair-s0: " in output and "\n    plain-s0: " in output
    for name in (FAIR, PLAIN):
        assert (run / name / "epochs.txt").read_text() == "0\n1\n"
        # A kernel has its share of the cores, its own log, copy and state.
        log = (run / "notebooks" / f"{name.replace('/', '-')}.log").read_text()
        assert "threads 3" in log and f"epoch 1 in {book}" in log
    assert os.getcwd() == folder

    assert main([*command, "--jobs", "3"]) == 0  # not an input
    assert set(statuses(capfd.readouterr().out).values()) == {"done before"}


@pytest.mark.parametrize(
    ("before", "cores", "beside", "threads"),
    [(None, 8, 2, "4"), (None, 2, 4, "1"), (None, 8, 1, None), ("5", 8, 2, "5"), ("5", 8, 1, "5")],
)
def test_a_kernel_has_its_share_of_the_cores(monkeypatch, before, cores, beside, threads):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if before:
        monkeypatch.setenv("OMP_NUM_THREADS", before)
    assert executor._environment(beside).get("OMP_NUM_THREADS") == threads
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_what_fails_is_named_and_its_neighbour_is_kept(book, tmp_path, capfd):
    run = tmp_path / "run"
    (book / "params/cpu.yaml").write_text(
        f"""grid:
- {{detector: fair, fault: error, wait_for: '{PLAIN}/begun.txt: begun'}}
- {{detector: dying, fault: death, wait_for: '{PLAIN}/begun.txt: begun'}}
- {{detector: plain, wait_for: 'state/03_training-fair-s0.json: failed'}}
- {{detector: late}}
jobs: 3
"""
    )
    assert main(["reproduce", "--params", "cpu", "--run", str(run), "--notebooks", str(book)]) == 1
    output = capfd.readouterr()
    for detector in ("fair", "dying"):
        assert output.err.count(f"error: 03_training detector={detector} seed=0 failed in In [4]") == 1
        assert f"03_training-{detector}-s0.log" in output.err and f"03_training-{detector}-s0.ipynb" in output.err
        assert f"detector={detector} seed=0: failed" in output.out
    assert "AssertionError: the loss is not finite" in output.err
    assert "the kernel died; out of memory is the usual cause" in output.err
    states = {path.stem: json.loads(path.read_text())["status"] for path in (run / "state").glob("*.json")}
    assert states == {
        "01_data": "done", "03_training-fair-s0": "failed", "03_training-dying-s0": "failed",
        "03_training-plain-s0": "done",
    }  # fmt: skip
    assert read_manifest_of_run(run)[PLAIN]["wrote"]


def test_the_time_left_counts_what_runs_side_by_side(book, tmp_path):
    path = book / "params/cpu.yaml"
    path.write_text("grid: [{detector: a}, {detector: b}, {detector: c}, {detector: d}]\njobs: 2\n")
    progress = Progress(tmp_path / "run", plan(read_chapters(book), path))
    data, a, b, c, _, fairness = progress.cells
    assert progress.left({}) == ""
    progress.save(data, seconds=60)
    assert progress.left({}) == "at least 1 min 0 s left"
    progress.save(a, seconds=600)
    progress.save(b, seconds=300)
    progress.save(c, seconds=300)
    progress.save(fairness, seconds=30)
    # a (600 s) beside b and c (300 s each); d, never timed, takes the mean, 400 s; then the last chapter.
    assert progress.left({}) == "about 18 min 10 s left"
    progress.save(data, status="done", digest=progress.inputs(data))
    # Of a 500 s are left; b takes longer than expected, then c and d one after the other: 700 s, and 30 s.
    assert progress.left({a: 100.0, b: 400.0}) == "about 12 min 10 s left"


def test_a_terminal_shows_the_latest_line_of_every_cell(book, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", screen)
    _, fair, plain, _ = cells_of(book, TWO)
    terminal = executor._Terminal()
    terminal.say("[2/4] begins")
    terminal.echo(fair, "epoch 1")
    terminal.echo(plain, "epoch 2 " + 200 * "x")
    terminal.forget(fair)
    terminal.echo(plain, "epoch 3")
    shown = screen.getvalue().split("\r\x1b[K")
    assert shown[1] == "[2/4] begins\n"
    assert shown[2] == "    fair-s0: epoch 1"
    assert shown[3].startswith("    fair-s0: epoch 1  plain-s0: epoch 2 xx") and len(shown[3]) < 80
    assert shown[-1] == "    plain-s0: epoch 3"


# --- kills and interrupts --------------------------------------------------------------------------------


def start(book, run, profile):
    """The executor in a process group of its own, once both trainings have written two more epochs; kernels."""
    (book / "params/cpu.yaml").write_text(profile)
    code = (
        "import sys, fairdf_utils.book.parameters as p, fairdf_utils.__main__ as m;"
        "p._package_digest = lambda code: 'package'; sys.exit(m.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "reproduce", "--params", "cpu", "--run", run, "--notebooks", book]
    written = [Path(run, name, "epochs.txt") for name in (FAIR, PLAIN)]

    def epochs():
        return [len(path.read_text().split()) if path.exists() else 0 for path in written]

    enough = [count + 2 for count in epochs()]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while any(count < least for count, least in zip(epochs(), enough, strict=True)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0].decode()
        time.sleep(0.02)
    states = [json.loads(path.read_text()) for path in sorted((run / "state").glob("03*.json"))]
    assert [state["status"] for state in states] == ["running", "running"]
    return process, [psutil.Process(state["kernel"]["pid"]) for state in states]


def ended(kernels):
    return all(not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE for kernel in kernels)


def test_kill_9_in_the_middle_of_two_cells_then_the_same_command_finishes(book, tmp_path):
    run = tmp_path / "run"
    process, (frozen, other) = start(book, run, f"{TWO}epochs: 8\npause: 0.1\n")
    frozen.suspend()  # one that cannot notice that its parent has died, as in a long computation without Python
    with pytest.raises(BookError, match=f"is being run by process {process.pid}"):
        reproduce("cpu", run, book)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs([other], timeout=20)
    assert ended([other]) and frozen.is_running()

    reproduce("cpu", run, book)
    assert ended([frozen])
    for name in (FAIR, PLAIN):
        assert (run / name / "epochs.txt").read_text().split() == [str(epoch) for epoch in range(8)]
        # Resumed, not started anew.
        assert "epoch 0 " not in (run / "notebooks" / f"{name.replace('/', '-')}.log").read_text()
    assert read_manifest_of_run(run)["05_fairness_analysis"]


def test_an_interrupt_ends_all_kernels(book, tmp_path):
    process, kernels = start(book, tmp_path / "run", f"{TWO}epochs: 1000\npause: 0.1\n")
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 130
    assert output.endswith("Interrupted; the same command goes on from here.\n")
    assert "Traceback" not in output and "error" not in output
    assert ended(kernels)
