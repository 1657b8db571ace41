"""The shipped parameters files for real corpora, each by one command: from videos to the table of results.

The corpora are filmed, a few videos each; of a file only places, the network's size, the epochs and the detectors are
changed. Killed twice on the way, the command goes on.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from fairdf_utils.book import REPOSITORY
from fairdf_utils.rendered import images
from fairdf_utils.rendered.videos import Filming, generate_videos
from fairdf_utils.tests.corpora.rendered_corpora import ANNOTATIONS, MAPPING, make_corpus

pytestmark = pytest.mark.walk
SETS = ["ffpp", "dfdc", "celebdf", "dfd"]
TRIVIAL = ["always real", "always fake", "coin", "shuffled scores", "blur meter"]
SMALL = {"backbone": "tiny", "weights": "", "frozen_stages": 0, "width": 16, "epochs": 1, "device": "cpu", "frames": 2}
SMALL |= {"threads": 1, "seeds": [0], "jobs": 2}
MINUTES = 15  # on two busy cores


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four corpora, and a `data` folder in which the embedded benchmark is already rendered."""
    folder = tmp_path_factory.mktemp("walk")
    small = generate_videos(folder, identities=12, frames=4)
    (folder / "ffpp").symlink_to(small / "ffpp")
    for layout in ANNOTATIONS:
        make_corpus(layout, folder, Filming(frames=4))
    (folder / "annotations/A-FF++.csv").symlink_to(small / "annotations/A-FF++.csv")
    rendered = images.image_folder("", REPOSITORY / "runs/data", 64, 0.5)
    (folder / "data").mkdir()
    (folder / "data" / rendered.name).symlink_to(rendered)
    return folder


def write_parameters(folder, shipped, detectors, absent="", **changes):
    """A shipped file on the filmed corpora, with some of its detectors; they share what is prepared."""
    values = yaml.safe_load((REPOSITORY / f"notebooks/params/{shipped}.yaml").read_text(encoding="utf-8"))
    assert [corpus["layout"] for corpus in values["corpora"]] == SETS == values["test_sets"]
    for corpus in values["corpora"]:
        corpus["corpus_root"] = str(folder / ("nowhere" if corpus["layout"] == absent else corpus["layout"]))
        annotations = {"ffpp": "A-FF++.csv"} | ANNOTATIONS
        corpus["annotations"] = [str(folder / "annotations" / annotations[corpus["layout"]])]
        corpus |= {"mapping": str(folder / "annotations" / MAPPING)} if "mapping" in corpus else {}
    prepared = str(folder / "prepared")
    places = {"prepared": prepared, "manifests": f"{prepared}/manifests", "image_root": prepared}
    grid = [row for row in values["grid"] if row["detector"] in detectors]
    values |= {**SMALL, **places, "data_dir": str(folder / "data"), "grid": grid, **changes}
    path = folder / f"{shipped}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def start(parameters, run):
    command = [sys.executable, "-m", "fairdf_utils", "reproduce", "--params", parameters, "--run", run]
    with open(f"{run}.log", "ab") as log:
        return subprocess.Popen(command, start_new_session=True, stdout=log, stderr=subprocess.STDOUT)


def said(run):
    return Path(f"{run}.log").read_text(encoding="utf-8")


def finish(parameters, run):
    """Run to the end; the table of results, without the predictors that see no face."""
    process = start(parameters, run)
    assert process.wait(timeout=60 * MINUTES) == 0, said(run)
    results = pd.read_csv(run / "05_fairness_analysis/results.csv")
    return results[~results["detector"].isin(TRIVIAL)]


def kill_when(parameters, run, reached):
    """Start, and kill everything as soon as `reached` is true."""
    process, deadline = start(parameters, run), time.monotonic() + 60 * MINUTES
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline, said(run)
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=60)  # kernels have process groups of their own, and end with their parents


def chapters_of(run):
    return {path.name[:2] for path in (run / "notebooks").glob("*.ipynb")}


def read_in_full(folder):
    """Folders of the crops of all videos that the ledgers, which may lack the end of a line, call ok."""
    rows = [(ledger, row.split(",")) for ledger in folder.glob("prepared/*/ledger.csv") for row in ledger.open()]
    return [ledger.parent / "faces" / cells[0] for ledger, cells in rows if "ok" in cells]


def times(paths):
    return {path: path.stat().st_mtime_ns for path in paths}


def test_gpu_yaml_from_corpora_to_results_killed_while_extracting_and_while_training(folder):
    parameters, run = write_parameters(folder, "gpu", ["balanced", "fairdf"]), folder / "gpu"
    kill_when(parameters, run, lambda: len(read_in_full(folder)) > 5)
    cut = times(crop for video in read_in_full(folder) for crop in video.glob("*.png"))
    kill_when(parameters, run, lambda: list(run.glob("03_sam_training/*/last.pt")))
    trained = times(run.glob("03_sam_training/*/last.pt"))
    assert not (run / "05_fairness_analysis").exists()

    results = finish(parameters, run)
    assert sorted(zip(results["detector"], results["dataset"], strict=True)) == sorted(
        (detector, dataset) for detector in ("balanced", "fairdf") for dataset in SETS
    )
    assert results["auc"].dropna().between(0, 1).all()
    assert chapters_of(run) == {f"{number:02d}" for number in range(1, 10)}
    assert len(cut) > 5 and times(cut) == cut, "a video that the ledger has is not read again"
    assert trained and times(trained) == trained, "nor is a detector trained again"


def test_paper_yaml_from_corpora_to_results(folder):
    run = folder / "paper"
    results = finish(write_parameters(folder, "paper", ["dag_fdd", "daw_fdd", "ucf"]), run)
    assert len(results) == 3 * len(SETS) and set(results["dataset"]) == set(SETS)
    assert chapters_of(run) == {f"{number:02d}" for number in range(1, 10)}


def test_a_corpus_that_is_not_there_is_skipped_and_the_result_says_so(folder):
    shutil.rmtree(folder / "prepared/manifests/dfd", ignore_errors=True)
    run = folder / "skip"
    results = finish(write_parameters(folder, "gpu", ["ori"], absent="dfd", missing="skip"), run)
    assert results.set_index("dataset")["auc"].isna().to_dict() == {name: name == "dfd" for name in SETS}
    assert "not tested, because they are not there: dfd" in said(run)
