"""The real Snakefile with real kernels on a tiny book: what runs, what is skipped, what a fault leaves behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
import yaml

from fairdf_utils.__main__ import main
from fairdf_utils.book import REPOSITORY, BookError, engine, parameters
from fairdf_utils.book.engine import StepFailed, reproduce, result_table
from fairdf_utils.book.pairs import update
from fairdf_utils.book.parameters import read_plan
from fairdf_utils.book.run_folder import read_manifest_of_run
from fairdf_utils.tests.book.tiny_book import write_book

DATA, FAIRNESS = "01_data_preparation", "05_fairness_analysis"
FAIR, PLAIN = "03_sam_training fair-s0", "03_sam_training plain-s0"
SCORED, SCORED_PLAIN = "04_cross_dataset_evaluation fair-s0", "04_cross_dataset_evaluation plain-s0"
PROFILES = REPOSITORY / "notebooks" / "profiles"
ONE = "grid: [{detector: fair}]\n"
TWO = "grid: [{detector: fair}, {detector: plain}]\njobs: 2\n"


def said(output):
    """{step: what was said first of it}"""
    found = {}
    for name, words in re.findall(r"^\[\d+/\d+\] ([^:]+): ([^;\n]+)", output, re.MULTILINE):
        found.setdefault(name, words)
    return found


def epochs(run, name):
    path = run / name.replace(" ", "/") / "epochs.txt"
    return path.read_text().split() if path.exists() else []


def log_path(run, name):
    return run / "notebooks" / f"{name.replace(' ', '-')}.log"


def log_of(run, name):
    return log_path(run, name).read_text()


# --- what runs -------------------------------------------------------------------------------------------


def test_only_what_changed_runs_again(tmp_path, capfd, monkeypatch):
    book, run = write_book(tmp_path), tmp_path / "run"
    package = tmp_path / "pack"  # stands for this package when inputs are looked for
    for name in ("data/vocabulary.py", "figures/style.py"):
        (package / name).parent.mkdir(parents=True)
        (package / name).write_text("x = 1")
    path = book / "04_cross_dataset_evaluation.py"
    path.write_text(path.read_text() + "\n# %%\nif False:\n    import pack.data.vocabulary\n")
    update(book)
    monkeypatch.setattr(parameters, "PACKAGE", package)
    profile = book / "params/cpu.yaml"
    source, words = tmp_path / "source.csv", tmp_path / "words.csv"
    trained, tested, unused = (tmp_path / f"manifests/{name}/a.csv" for name in ("ffpp", "dfdc", "celebdf"))
    for path in (source, words, trained, tested, unused):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    profile.write_text(f"{profile.read_text()}source: ../source.csv\nannotations: [../words.csv]\n")

    reproduce("cpu", run, book, jobs=1)
    output = capfd.readouterr()
    names = [DATA, FAIR, PLAIN, SCORED, SCORED_PLAIN, FAIRNESS]
    assert said(output.out) == dict.fromkeys(names, "started")
    assert list(said(output.out))[:2] == [DATA, FAIR]  # the first of the grid is the first to run
    assert output.err == "" and "75.0" in output.out
    assert f"The executed chapters are in {run}/notebooks;" in output.out
    copy = nbformat.read(run / "notebooks/03_sam_training-plain-s0.ipynb", 4)
    assert copy.metadata.papermill.parameters == {"detector": "plain", "rate": 1, "seed": 0, "run_dir": "../run"}
    log = log_of(run, PLAIN)
    given = "-y '{detector: plain, rate: 1, seed: 0}' -p run_dir ../run"
    assert f"+ papermill 03_sam_training.ipynb ../run/notebooks/03_sam_training-plain-s0.ipynb {given}" in log
    assert f"epoch 1 in {book}" in log
    assert read_manifest_of_run(run)["03_sam_training/fair-s0"]["parameters"]["rate"] == 0.5
    assert {path.name for path in tmp_path.iterdir()} >= {"notebooks", "run"}
    kept = ["Snakefile", "params"]
    assert [path.name for path in sorted(book.iterdir()) if not path.name[0].isdigit()] == kept

    parse = engine.parse_args
    monkeypatch.setattr(engine, "parse_args", lambda arguments: parse([*arguments, "--dry-run"]))

    def would_run():
        reproduce("cpu", run, book)
        return [name for name, words in said(capfd.readouterr().out).items() if words == "started"]

    def edit(path, old, new):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        if path.suffix == ".py" and path.parent == book:
            update(book)
        found = would_run()
        path.write_text(text)
        update(book)
        return found

    assert would_run() == []
    assert edit(book / "01_data_preparation.py", "# # 1. Data", "# # 1. The data") == []  # prose is no input
    assert edit(book / "05_fairness_analysis.py", "0.75", "0.5") == [FAIRNESS]
    assert sorted(edit(package / "data/vocabulary.py", "1", "2")) == [SCORED, SCORED_PLAIN, FAIRNESS]
    assert edit(package / "figures/style.py", "1", "2") == []
    assert edit(source, "1", "2") == edit(words, "1", "2") == [DATA]
    assert sorted(edit(trained, "1", "2")) == names[1:]
    assert sorted(edit(tested, "1", "2")) == [SCORED, SCORED_PLAIN, FAIRNESS]
    assert edit(unused, "1", "2") == []  # no chapter names it
    assert sorted(edit(profile, "source:", "corpus_root: videos\nsource:")) == names
    assert sorted(edit(profile, "rate: 1", "rate: 2")) == [PLAIN, SCORED_PLAIN, FAIRNESS]
    assert sorted(edit(profile, "plain, rate: 1", "plain, rate: 1}, {detector: late")) == [
        "03_sam_training late-s0", "04_cross_dataset_evaluation late-s0", FAIRNESS,
    ]  # fmt: skip
    assert would_run() == []

    # What was begun from other inputs is not gone on with, but by training, which looks at its checkpoint itself.
    # That chapter 1 is to run anew as well keeps no other step from it.
    words.write_text("2")
    monkeypatch.setattr(engine, "parse_args", parse)
    for folder in ("03_sam_training", "04_cross_dataset_evaluation"):
        (run / folder / "plain-s0/stale.txt").write_text("from before")
    profile.write_text(profile.read_text().replace("rate: 1", "rate: 2, epochs: 3"))
    (book / "05_fairness_analysis.py").unlink()
    reproduce("cpu", run, book)
    assert said(capfd.readouterr().out) == {
        DATA: "started", **dict.fromkeys([PLAIN, SCORED_PLAIN], "started"),
        **dict.fromkeys([FAIR, SCORED], "done before"),
    }  # fmt: skip
    assert epochs(run, PLAIN) == ["0", "1", "2"] and "epoch 0" not in log_of(run, PLAIN)
    assert (run / "03_sam_training/plain-s0/stale.txt").exists()
    assert not (run / "04_cross_dataset_evaluation/plain-s0/stale.txt").exists()
    assert (run / "set_aside/04_cross_dataset_evaluation/plain-s0/stale.txt").read_text() == "from before"


def test_a_changed_corpus_runs_its_own_step_and_what_reads_it(tmp_path, capfd, monkeypatch):
    """All corpora come before everything else; what is trained on one of them need not run again for another."""
    corpora = [f"{{layout: {name}, corpus_root: ../{name}, frames: 2}}" for name in ("ffpp", "dfdc")]
    book, run = write_book(tmp_path, f"{ONE}corpora: [{', '.join(corpora)}]\n"), tmp_path / "run"
    ffpp, dfdc = f"{DATA} ffpp", f"{DATA} dfdc"

    def ran():
        reproduce("cpu", run, book)
        return sorted(name for name, words in said(capfd.readouterr().out).items() if words == "started")

    assert ran() == [dfdc, ffpp, FAIR, SCORED, FAIRNESS]
    assert {path.name for path in (run / "01_data_preparation").iterdir()} == {"ffpp", "dfdc"}
    assert {path.name for path in (tmp_path / "prepared/manifests").iterdir()} == {"ffpp", "dfdc"}
    parse, profile = engine.parse_args, book / "params/cpu.yaml"
    monkeypatch.setattr(engine, "parse_args", lambda arguments: parse([*arguments, "--dry-run"]))
    assert ran() == []
    before = profile.read_text()
    profile.write_text(before.replace("../dfdc, frames: 2", "../dfdc, frames: 3"))
    assert ran() == [dfdc, SCORED, FAIRNESS]
    profile.write_text(before.replace("../ffpp, frames: 2", "../ffpp, frames: 3"))
    assert ran() == [ffpp, FAIR, SCORED, FAIRNESS]


def test_a_profile_that_is_not_there_is_refused_with_those_that_are(tmp_path, monkeypatch):
    book = write_book(tmp_path, "", chapters="01")
    shutil.copytree(PROFILES, book / "profiles")
    monkeypatch.chdir(tmp_path)
    for profile in ("nope", "notebooks/profiles"):
        with pytest.raises(BookError, match=f"^{profile}: no folder .* notebooks/profiles/slurm"):
            reproduce("cpu", tmp_path / "run", book, profile=profile)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda book, run: (run / "03_sam_training/old-s0").mkdir(parents=True),
            "not ask for.*: 03_sam_training/old-s0;",
        ),
        (lambda book, run: (book / "params/cpu.yaml").write_text("epocs: 1"), "did you mean 'epochs'"),
        (lambda book, run: (book / f"{DATA}.ipynb").unlink(), f"{DATA}.ipynb is missing; .* notebooks --update"),
        (
            lambda book, run: (book / f"{DATA}.py").write_text(
                (book / f"{DATA}.py").read_text().replace("words.txt", "x.txt")
            ),
            f"{DATA}.ipynb differs from the .py in cell 3 .*; .* notebooks --update",
        ),
    ],
)
def test_what_is_refused_before_anything_runs(tmp_path, capsys, change, message):
    book, run = write_book(tmp_path, ONE, chapters="01 03"), tmp_path / "run"
    change(book, run)
    assert main(["reproduce", "--params", "cpu", "--run", str(run), "--notebooks", str(book)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and re.search(message, error)
    assert not (run / "notebooks").exists()


def test_the_result_table_is_in_percent(tmp_path):
    assert result_table(tmp_path) == ""
    (tmp_path / FAIRNESS).mkdir()
    (tmp_path / FAIRNESS / "results.csv").write_text("detector,dataset,auc,fpr_sum,meo\nfair,dfdc,0.875,1.25,\n")
    assert [line.split() for line in result_table(tmp_path).splitlines()] == [
        ["detector", "dataset", "AUC", "F_FPR", "F_MEO"],
        ["fair", "dfdc", "87.5", "125.0", "-"],
    ]


def put_program(folder, name, text):
    (folder / name).write_text(f"#!/bin/sh\n{text}")
    (folder / name).chmod(0o755)


def test_slurm_runs_the_steps(tmp_path, capfd, monkeypatch):
    """The shipped profile, with an `sbatch` that runs what is submitted at once."""
    book, run, profile = write_book(tmp_path, "", chapters="01"), tmp_path / "run", tmp_path / "profile"
    shutil.copytree(PROFILES / "slurm", profile)
    config = profile / "config.yaml"
    config.write_text(config.read_text().replace("status-checks: 10", "status-checks: 1"))
    job = f'bash "$script" > {tmp_path}/job.txt 2>&1 && echo 7\n'
    put_program(profile, "sbatch", f'echo "$@" > {tmp_path}/asked.txt\nfor script; do :; done\n{job}')
    put_program(profile, "sacct", "echo COMPLETED\n")
    monkeypatch.setenv("PATH", f"{profile}:{os.environ['PATH']}")
    reproduce("cpu", run, book, profile=str(profile))
    output = capfd.readouterr()
    assert said(output.out) == {DATA: "started"} and output.err == ""
    assert "--cpus-per-task=4 --mem=8000M --time=120 --gpus=0" in (tmp_path / "asked.txt").read_text()
    assert (run / DATA / "words.txt").read_text() == "a\nb"


def test_kubernetes_is_asked_for_a_job(tmp_path, monkeypatch):
    put_program(
        tmp_path, "kubectl", f"[ $1 = get ] && echo $STATUS || (cat > {tmp_path}/job.yaml; echo job.batch/fairdf-1)"
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def call(script, *words, **variables):
        command = ["sh", PROFILES / "kubernetes" / script, *words]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})

    assert "the image with the environment" in call("submit.sh", "4", "8000", "1", "/shared/job.sh").stderr
    shared = {"FAIRDF_IMAGE": "fairdf:1", "FAIRDF_CLAIM": "book", "FAIRDF_MOUNT": "/work"}
    assert call("submit.sh", "4", "8000", "1", "/shared/job.sh", **shared).stdout == "job.batch/fairdf-1\n"
    pod = yaml.safe_load((tmp_path / "job.yaml").read_text())["spec"]["template"]["spec"]
    (step,) = pod["containers"]
    assert step["command"] == ["bash", "/shared/job.sh"] and step["workingDir"] == os.getcwd()
    assert step["resources"]["limits"] == {"memory": "8000M", "nvidia.com/gpu": 1}
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "book"}
    words = {"1/": "success", "/1": "failed", "": "failed", "/": "running"}
    assert {status: call("status.sh", "fairdf-1", STATUS=status).stdout.strip() for status in words} == words


def test_each_world_is_a_run_of_its_own_and_of_the_chapters_asked_for(tmp_path, capfd):
    book, run = write_book(tmp_path), tmp_path / "run"
    rows = "grid: [{detector: z}, {detector: a}]\nseeds: [0, 1]\nepochs: 1\nchapters: [1, 3, 4]\n"
    (book / "params/cpu.yaml").write_text(f"{rows}worlds: [{{rate: 0.25}}, {{rate: 2.0}}]\n")
    reproduce("cpu", run, book, jobs=1)
    output = capfd.readouterr().out
    one, other = output.split("\nrate-2.0\n")
    chapters, names = (FAIR.split()[0], SCORED.split()[0]), ("z-s0", "z-s1", "a-s0", "a-s1")
    order = [DATA, *(f"{chapter} {name}" for name in names for chapter in chapters)]
    assert list(said(one)) == list(said(other)) == order and "verdict" not in output and "Results" not in output
    for world, rate in (("rate-0.25", 0.25), ("rate-2.0", 2.0)):
        made = read_manifest_of_run(run / world)
        assert {name for name in made if "/" not in name} == {DATA}
        assert {made[name]["parameters"].get("rate", rate) for name in made} == {rate} and len(made) == len(order)
        assert f"executed chapters are in {run / world}/notebooks\n" in output
    reproduce("cpu", run, book)
    assert set(said(capfd.readouterr().out).values()) == {"done before"}
    with pytest.raises(BookError, match="'rate-3.0' is none of rate-0.25, rate-2.0"):
        read_plan("cpu", book, "rate-3.0")


# --- what goes wrong -------------------------------------------------------------------------------------


def test_what_fails_is_named_and_its_neighbour_is_kept(tmp_path, capfd):
    book, run = write_book(tmp_path, chapters="01 03"), tmp_path / "run"
    (book / "params/cpu.yaml").write_text(
        """grid:
- {detector: fair, fault: error, wait_for: '03_sam_training/plain-s0/begun.txt: begun'}
- {detector: dying, fault: death, wait_for: '03_sam_training/plain-s0/begun.txt: begun'}
- {detector: plain, wait_for: 'notebooks/03_sam_training-fair-s0.log: Error'}
jobs: 3
"""
    )
    assert main(["reproduce", "--params", "cpu", "--run", str(run), "--notebooks", str(book)]) == 1
    output = capfd.readouterr()
    log, copy = log_path(run, FAIR), run / "notebooks/failed/03_sam_training-fair-s0.ipynb"
    report = (
        "error: 03_sam_training fair-s0 failed in In [4], which begins `# train`\n"
        f"  AssertionError: the loss is not finite\n  log:                 {log}\n  half-executed copy:  {copy}\n"
    )
    assert report in output.err
    assert (
        "error: 03_sam_training dying-s0 failed in In [4], which begins `# train`\n  the kernel died: out" in output.err
    )
    assert output.err.count("\n") == 8  # and no words of the engine
    assert output.out.count("failed after") == 2
    assert "epoch 0" in log.read_text() and epochs(run, FAIR) == ["0"]
    outputs = [output for cell in nbformat.read(copy, 4).cells for output in cell.get("outputs", [])]
    assert any("epoch 0" in output.get("text", "") for output in outputs)
    assert list(read_manifest_of_run(run)) == [DATA, "03_sam_training/plain-s0"]

    # The same inputs go on from the checkpoint, which here is behind the fault.
    for name in ("fair", "dying"):
        (run / f"03_sam_training/{name}-s0/epochs.txt").write_text("0\n1\n")
    reproduce("cpu", run, book)
    assert said(capfd.readouterr().out) == {
        DATA: "done before", FAIR: "started", "03_sam_training dying-s0": "started", PLAIN: "done before",
    }  # fmt: skip
    assert epochs(run, FAIR) == ["0", "1"]


def start(book, run):
    """The command in a process group of its own, once a training has written two epochs; its kernels."""
    command = [sys.executable, "-m", "fairdf_utils", "reproduce", "--params", "cpu", "--run", run, "--notebooks", book]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 90
    while len(epochs(run, FAIR)) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0].decode()
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    return process, [child for child in family if "ipykernel" in " ".join(child.cmdline())]


def ended(processes):
    return all(not process.is_running() or process.status() == psutil.STATUS_ZOMBIE for process in processes)


@pytest.mark.parametrize("killed", ["engine", "everything"])
def test_kill_9_then_the_same_command_goes_on(tmp_path, capfd, killed):
    book, run = write_book(tmp_path, f"{ONE}epochs: 40\npause: 0.3\n", chapters="01 03"), tmp_path / "run"
    process, (kernel,) = start(book, run)
    with pytest.raises(BookError, match=f"is being run by process {process.pid}"):
        reproduce("cpu", run, book)
    if killed == "engine":
        process.kill()  # its kernel goes on: the successor waits for it
    else:
        os.killpg(process.pid, signal.SIGKILL)
        psutil.wait_procs([kernel], timeout=20)
        assert ended([kernel])
    process.wait()
    done = len(epochs(run, FAIR))

    reproduce("cpu", run, book)
    assert said(capfd.readouterr().out) == {DATA: "done before", FAIR: "started"}
    assert epochs(run, FAIR) == [str(epoch) for epoch in range(40)]
    log = log_of(run, FAIR)
    assert (f"waiting for process {kernel.pid}" in log) == (killed == "engine") and "epoch 0 " not in log
    assert 2 <= done < 40 and ended([kernel])
    assert "03_sam_training/fair-s0" in read_manifest_of_run(run)


def test_an_interrupt_ends_all_kernels(tmp_path):
    book, run = write_book(tmp_path, f"{ONE}epochs: 1000\npause: 0.1\n", chapters="01 03"), tmp_path / "run"
    process, kernels = start(book, run)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 130
    assert output.endswith("Interrupted; the same command goes on from here.\n")
    assert "Traceback" not in output and "error" not in output
    assert kernels and ended(kernels)


# --- what the terminal shows -----------------------------------------------------------------------------


def event(kind, **values):
    return SimpleNamespace(event=kind, levelname="INFO", **values)


def test_the_terminal_shows_what_is_left_and_how_far_the_running_steps_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine, "ECHO_SECONDS", 0.05)
    plan = read_plan("cpu", write_book(tmp_path, TWO, chapters="01 03 05"))
    log = tmp_path / "notebooks/03_sam_training-fair-s0.log"
    said = "epoch  1/12  loss 0.3\nffpp-small 7/90 video, 02:10 left"
    log.write_text(f"+ papermill\n{said}\nEnding Cell 4----\nrate   2\n")
    progress = engine._Progress(plan, tmp_path)
    progress.hear(event("run_info", stats={"sam_training": 2, "fairness_analysis": 1, "all": 1, "total": 4}))
    progress.hear(event("job_info", jobid=3, log=["notebooks/03_sam_training-fair-s0.log"]))
    time.sleep(0.5)
    progress.hear(event("job_finished", job_id=3))
    progress.hear(event("job_info", jobid=4, log=["notebooks/03_sam_training-plain-s0.log"]))
    progress.hear(event("job_error", jobid=4))
    progress.stopped.set()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "[1/4] 01_data_preparation: done before",
        "[2/4] 03_sam_training fair-s0: started",
        "    03_sam_training-fair-s0: ffpp-small 7/90 video, 02:10 left",
    ]
    assert re.fullmatch(r"\[2/4\] 03_sam_training fair-s0: 0:00:0[01]; 2 of 4 steps left", lines[3])
    assert lines[4:] == [
        "[3/4] 03_sam_training plain-s0: started",
        "[3/4] 03_sam_training plain-s0: failed after 0:00:00",
    ]


def test_a_failure_before_any_kernel_shows_the_last_line_of_the_log(tmp_path, capfd):
    book, run = write_book(tmp_path, "", chapters="01"), tmp_path / "run"
    path = book / "Snakefile"
    path.write_text(path.read_text().replace("papermill {params", "echo no kernel; false {params"))
    with pytest.raises(StepFailed, match="01_data_preparation failed\n  no kernel\n"):
        reproduce("cpu", run, book)
    assert Path(run / "notebooks").exists() and capfd.readouterr().err == ""
