"""Papermill with real kernels on a tiny book: what runs, what is skipped, what a fault leaves behind."""

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

from fairdf_utils import reproduce as executor
from fairdf_utils.__main__ import main
from fairdf_utils.book import BookError, Run, read_manifest_of_run
from fairdf_utils.notebooks import read_chapters
from fairdf_utils.plan import plan
from fairdf_utils.reproduce import ChapterFailed, reproduce, result_table
from fairdf_utils.tests.tiny_book import write_book

FAIR = "03_training/fair-s0"
ONE = "grid: [{detector: fair}]\n"


@pytest.fixture(autouse=True)
def package(monkeypatch):
    """The package's files count as inputs; while it is being edited, tests need a fixed answer."""
    monkeypatch.setattr(executor, "_package_digest", lambda: "package")


@pytest.fixture
def book(tmp_path):
    return write_book(tmp_path, ONE)


def cells_of(folder, profile):
    path = folder / "params" / "cpu.yaml"
    path.write_text(profile)
    return plan(read_chapters(folder), path)


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
        ("[", "cpu.yaml"),
    ],
)
def test_a_profile_that_asks_for_something_else_is_refused(book, profile, message):
    with pytest.raises(BookError, match=message):
        cells_of(book, profile)


@pytest.mark.parametrize("line", ["rate = 1 / 2", "seed = other = 1", "import os", "names[0] = 1"])
def test_a_parameters_cell_holds_only_plain_values(book, line):
    path = book / "03_training.py"
    path.write_text(path.read_text().replace("epochs: int = 2", f"epochs: int = 2\n{line}"))
    with pytest.raises(BookError, match=r"03_training.py: the parameters cell holds"):
        read_chapters(book)


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


def test_what_counts_as_done(book, tmp_path, capfd, monkeypatch):
    run, outside = tmp_path / "run", tmp_path / "outside.csv"
    outside.write_text("1")
    (book / "params/cpu.yaml").write_text(f"{ONE}source: {outside}\n")
    reproduce("cpu", run, book)
    cells = plan(read_chapters(book), book / "params/cpu.yaml")

    def done():
        progress = executor.Progress(run, cells)
        return [progress.done(cell) for cell in cells]

    assert done() == [True, True, True]
    chapter = book / "01_data.py"
    text = chapter.read_text()
    chapter.write_text(text.replace("# # 1. Data", "# # 1. The data"))
    cells = plan(read_chapters(book), book / "params/cpu.yaml")
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

    monkeypatch.setattr(executor, "_package_digest", lambda: "edited")
    assert done() == [False, False, False]
    monkeypatch.setattr(executor, "_package_digest", lambda: "package")

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


def test_a_kernel_that_dies_is_named(book, tmp_path):
    (book / "params/cpu.yaml").write_text(f"{ONE}fault: death\n")
    with pytest.raises(ChapterFailed, match=r"In \[4\], which begins `# train`\n  the kernel died"):
        reproduce("cpu", tmp_path / "run", book)


def test_a_chapter_that_records_nothing_has_failed(book, tmp_path):
    chapter = book / "01_data.py"
    chapter.write_text(chapter.read_text().split("# %%\nrun.finish")[0])
    with pytest.raises(ChapterFailed, match=r"01_data ended without recording .*run.finish"):
        reproduce("cpu", tmp_path / "run", book)


def start(book, run, profile):
    """The executor in a process group of its own, once the training has written two more epochs."""
    (book / "params/cpu.yaml").write_text(profile)
    code = (
        "import sys, fairdf_utils.reproduce as r, fairdf_utils.__main__ as m;"
        "r._package_digest = lambda: 'package'; sys.exit(m.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "reproduce", "--params", "cpu", "--run", run, "--notebooks", book]
    written = Path(run, FAIR, "epochs.txt")

    def epochs():
        return len(written.read_text().split()) if written.exists() else 0

    enough = epochs() + 2
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while epochs() < enough:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0].decode()
        time.sleep(0.02)
    return process


def test_kill_9_in_the_middle_of_a_chapter_then_the_same_command_finishes(book, tmp_path):
    run = tmp_path / "run"
    process = start(book, run, f"{ONE}epochs: 12\npause: 0.1\n")
    state = json.loads((run / "state/03_training-fair-s0.json").read_text())
    assert state["status"] == "running"
    kernel = psutil.Process(state["kernel"]["pid"])
    kernel.suspend()  # one that cannot notice that its parent has died, as in a long computation without Python
    with pytest.raises(BookError, match=f"is being run by process {process.pid}"):
        reproduce("cpu", run, book)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert kernel.is_running()

    reproduce("cpu", run, book)
    assert not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE
    assert (run / FAIR / "epochs.txt").read_text().split() == [str(epoch) for epoch in range(12)]
    assert "epoch 0 " not in (run / "notebooks/03_training-fair-s0.log").read_text()  # resumed, not started anew
    assert read_manifest_of_run(run)["05_fairness_analysis"]


def test_an_orphaned_kernel_ends_by_itself_and_an_interrupt_is_clean(book, tmp_path):
    run = tmp_path / "run"
    process = start(book, run, f"{ONE}epochs: 1000\npause: 0.1\n")
    kernel = psutil.Process(json.loads((run / "state/03_training-fair-s0.json").read_text())["kernel"]["pid"])
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs([kernel], timeout=20)
    assert not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE

    process = start(book, run, f"{ONE}epochs: 1000\npause: 0.1\n")
    kernel = psutil.Process(json.loads((run / "state/03_training-fair-s0.json").read_text())["kernel"]["pid"])
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 130
    assert "Interrupted; the same command goes on from here." in output and "Traceback" not in output
    assert not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE
