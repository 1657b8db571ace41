"""A run folder records what was done, and is written by one kernel at a time."""

import hashlib
import json
import subprocess
import sys

import pytest

from fairdf_utils.book import BookError
from fairdf_utils.book.run_folder import MissingResult, Run, read_manifest_of_run
from fairdf_utils.files import write_text
from fairdf_utils.tests.book.tiny_book import write_book


@pytest.fixture(autouse=True)
def chapters(tmp_path_factory, monkeypatch):
    """Run as a kernel does: in the folder of the chapters."""
    folder = write_book(tmp_path_factory.mktemp("book"))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", ["../01_other/x", "/x", "", "a/../../x"])
def test_a_chapter_writes_only_under_its_own_folder(tmp_path, name):
    with pytest.raises(BookError, match="only under its own folder"):
        Run(tmp_path, "03_sam_training", "fair-s0").path(name)


def test_path_makes_folders_but_no_file(tmp_path):
    path = Run(tmp_path, "03_sam_training", "fair-s0").path("figures/loss.png")
    assert path == tmp_path / "03_sam_training/fair-s0/figures/loss.png"
    assert path.parent.is_dir() and not path.exists()


def test_require_names_the_chapter_to_run(tmp_path):
    run = Run(tmp_path, "03_sam_training", "fair-s0")
    with pytest.raises(MissingResult, match=r"run chapter 03_sam_training \(fair-s0\)") as raised:
        run.require("03_sam_training/fair-s0/best.safetensors")
    assert isinstance(raised.value, FileNotFoundError)
    with pytest.raises(MissingResult, match="run chapter 03_sam_training with the same run_dir"):
        run.require_all("03_sam_training/*/best.safetensors")
    with pytest.raises(MissingResult, match="run chapter 04_cross_dataset_evaluation, which needs no training"):
        run.require_all("04_cross_dataset_evaluation/*/scores.parquet")


def test_finish_records_what_was_read_and_written(tmp_path):
    first = Run(tmp_path / "run", "01_data_preparation")
    first.path("words.txt").write_text("words")
    first.finish()
    outside = tmp_path / "outside.csv"
    outside.write_text("1,2")
    run = Run(tmp_path / "run", "03_sam_training", "fair-s0")
    assert run.require_all("01_data_preparation/*.txt") == [tmp_path / "run/01_data_preparation/words.txt"]
    run.path("deep/model.bin").write_bytes(b"weights")
    values = {"run": run, "outside": outside, "seed": 4, "rate": 0.25, "run_dir": "x", "other": object()}
    exec('run.finish(device="one GPU", read=[outside])', values)  # as the cells of a notebook

    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert sorted(manifest) == ["01_data_preparation", "03_sam_training/fair-s0"]
    entry = manifest["03_sam_training/fair-s0"]
    assert (
        entry["parameters"] == {"run_dir": "x", "seed": 4, "rate": 0.25}
        and entry["seed"] == 4
        and entry["device"] == "one GPU"
    )
    assert entry["started"] <= entry["ended"]
    assert entry["versions"]["python"] == sys.version.split()[0] and "numpy" in entry["versions"]
    wrote = {name: item["sha256"] for name, item in entry["wrote"].items()}
    assert wrote == {"03_sam_training/fair-s0/deep/model.bin": hashlib.sha256(b"weights").hexdigest()}
    read = {name: item["sha256"] for name, item in entry["read"].items()}
    assert read == {
        "01_data_preparation/words.txt": hashlib.sha256(b"words").hexdigest(),
        outside.as_posix(): hashlib.sha256(b"1,2").hexdigest(),
    }


def test_finish_does_not_record_hidden_files(tmp_path):
    run = Run(tmp_path, "03_sam_training", "fair-s0")
    for name in (".parts/ffpp.parquet", "validation/.parts/ffpp/a.parquet", "validation/scores.csv"):
        run.path(name).write_text("1")
    run.finish()
    (entry,) = read_manifest_of_run(tmp_path).values()
    assert list(entry["wrote"]) == ["03_sam_training/fair-s0/validation/scores.csv"]


def test_a_folder_that_was_read_is_recorded_by_names_and_sizes(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    digests = []
    for content in ("one", "two", "three"):  # of 3, 3 and 5 bytes
        for number in range(3):
            (images / f"{number}.png").write_text(content)
        Run(tmp_path, "01_data_preparation").finish(read=[images])
        ((name, item),) = read_manifest_of_run(tmp_path)["01_data_preparation"]["read"].items()
        assert (name, item["files"]) == (images.as_posix(), 3)
        digests.append(item["sha256"])
    assert digests[0] == digests[1] != digests[2]


def test_chapters_that_finish_at_the_same_time_lose_no_entry(tmp_path):
    code = (
        "import sys; from fairdf_utils.book.run_folder import Run\n"
        "for i in range(10): Run(sys.argv[1], '03_sam_training', f'{sys.argv[2]}{i}').finish()"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, tmp_path, name]) for name in ("a", "b")]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(read_manifest_of_run(tmp_path)) == 20


def test_an_unreadable_manifest_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BookError, match=r"manifest.json is not readable.*delete it"):
        read_manifest_of_run(tmp_path)


def test_a_parameter_that_became_something_else_is_named(tmp_path):
    with pytest.raises(BookError, match="01_data_preparation.py gives one of its parameters another value.*set"):
        exec("run.finish()", {"run": Run(tmp_path, "01_data_preparation"), "words": {1, 2}})


def test_a_run_of_no_chapter_is_refused(tmp_path):
    with pytest.raises(BookError, match="07_else.py is missing"):
        Run(tmp_path, "07_else").finish()


def test_a_folder_is_written_by_one_kernel_at_a_time(tmp_path):
    code = (
        "import sys, time; from fairdf_utils.book.run_folder import Run\n"
        "run = Run(sys.argv[1], '03_sam_training', 'fair-s0'); run = Run(sys.argv[1], '03_sam_training', 'fair-s0')\n"
        "print('mine', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = []
    try:
        for said in ("mine", "waiting for process"):
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            assert processes[-1].stdout.readline().startswith(said)
        orphan, successor = processes
        orphan.kill()
        orphan.wait()
        assert successor.stdout.readline() == "mine\n"
        assert (tmp_path / "03_sam_training/fair-s0/.lock").read_text() == str(successor.pid)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
