"""The source shown is the source that runs, and a run folder records what was done."""

import hashlib
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fairdf_utils.book import run_folder as book
from fairdf_utils.book.run_folder import BookError, MissingResult, Run, read_manifest_of_run, show
from fairdf_utils.files import write_text

MODULE = '''\
import functools
from dataclasses import dataclass


def double(x, factor=2):
    """Twice `x`; a fence of ``` in the text."""
    return factor * x


def other(x):
    return x + 1


@functools.lru_cache
def remembered(x):
    return double(x)


@dataclass(frozen=True)
class Pair:
    """Two numbers."""

    left: int
    right: int = 1

    @property
    def sum(self):
        return self.left + self.right


def outer():
    def inner():
        return 1

    return inner
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "shown_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("shown_module")
    del sys.modules["shown_module"]


def edit(module, old, new):
    path = Path(module.__file__)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_show_renders_path_line_and_source(module):
    shown = show(module.double).data
    assert shown.startswith("`shown_module.py:5`\n\n````python\ndef double(x, factor=2):\n")
    assert shown.endswith("    return factor * x\n````\n")


def test_show_names_files_of_the_repository_from_its_root():
    assert show(Run).data.startswith("`fairdf_utils/book.py:")


def test_show_includes_decorators_and_dedents_methods(module):
    assert "@functools.lru_cache\ndef remembered(x):" in show(module.remembered).data
    assert "@dataclass(frozen=True)\nclass Pair:" in show(module.Pair).data
    assert "\n```python\ndef path(self, name):" in show(Run.path).data


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("double", "return factor * x", "return factor + x"),
        ("double", "factor=2", "factor=3"),
        ("double", "import functools\n", "import functools\n\n"),
        ("double", "def double", "def treble"),
        ("double", "factor * x", "factor * x)"),
        ("remembered", "return double(x)", "return other(x)"),
        ("Pair", "right: int = 1", "right: int = 2"),
        ("Pair", "    left: int\n", "    left: str\n"),
        ("Pair", "self.left + self.right", "self.left - self.right"),
    ],
)
def test_show_refuses_code_that_was_edited(module, name, old, new):
    edit(module, old, new)
    with pytest.raises(BookError, match=f"shown_module.py was changed.*{name}.*restart the kernel"):
        show(getattr(module, name))


def test_show_accepts_an_edit_elsewhere_in_the_file(module):
    edit(module, "return x + 1", "return x + 2")
    assert "def double" in show(module.double).data


def test_show_leaves_the_module_alone(module):
    before = dict(vars(module))
    show(module.Pair)
    assert vars(module) == before


def test_show_refuses_what_has_no_definition_in_a_file(module):
    with pytest.raises(TypeError, match="top of a Python file"):
        show(module.outer())
    with pytest.raises(TypeError):
        show(len)


# --- the run folder --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../01_other/x", "/x", "", "a/../../x"])
def test_a_chapter_writes_only_under_its_own_folder(tmp_path, name):
    with pytest.raises(BookError, match="only under its own folder"):
        Run(tmp_path, "03_training", "fair-s0").path(name)


def test_path_makes_folders_but_no_file(tmp_path):
    path = Run(tmp_path, "03_training", "fair-s0").path("figures/loss.png")
    assert path == tmp_path / "03_training/fair-s0/figures/loss.png"
    assert path.parent.is_dir() and not path.exists()


def test_require_names_the_chapter_to_run(tmp_path):
    run = Run(tmp_path, "04_evaluation", "fair-s0")
    with pytest.raises(MissingResult, match=r"run chapter 03_training \(fair-s0\)") as raised:
        run.require("03_training/fair-s0/best.safetensors")
    assert isinstance(raised.value, FileNotFoundError)
    with pytest.raises(MissingResult, match="run chapter 03_training"):
        run.require_all("03_training/*/best.safetensors")


def test_finish_records_what_was_read_and_written(tmp_path):
    first = Run(tmp_path / "run", "01_data")
    first.path("words.txt").write_text("words")
    first.finish({"seed": 3}, device="cpu")
    outside = tmp_path / "outside.csv"
    outside.write_text("1,2")
    run = Run(tmp_path / "run", "03_training", "fair-s0")
    assert run.require_all("01_data/*.txt") == [tmp_path / "run/01_data/words.txt"]
    run.path("deep/model.bin").write_bytes(b"weights")
    run.finish({"seed": 4, "sam": True}, device="one GPU", read=[outside])

    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert sorted(manifest) == ["01_data", "03_training/fair-s0"]
    entry = manifest["03_training/fair-s0"]
    assert entry["parameters"] == {"seed": 4, "sam": True} and entry["seed"] == 4 and entry["device"] == "one GPU"
    assert entry["started"] <= entry["ended"]
    assert entry["versions"]["python"] == sys.version.split()[0] and "numpy" in entry["versions"]
    wrote = {name: item["sha256"] for name, item in entry["wrote"].items()}
    assert wrote == {"03_training/fair-s0/deep/model.bin": hashlib.sha256(b"weights").hexdigest()}
    read = {name: item["sha256"] for name, item in entry["read"].items()}
    assert read == {
        "01_data/words.txt": hashlib.sha256(b"words").hexdigest(),
        outside.as_posix(): hashlib.sha256(b"1,2").hexdigest(),
    }


def test_finish_does_not_record_hidden_files(tmp_path):
    run = Run(tmp_path, "04_evaluation", "fair-s0")
    for name in (".parts/ffpp.parquet", "validation/.parts/ffpp/a.parquet", "validation/scores.csv"):
        run.path(name).write_text("1")
    run.finish({})
    (entry,) = read_manifest_of_run(tmp_path).values()
    assert list(entry["wrote"]) == ["04_evaluation/fair-s0/validation/scores.csv"]


def test_finish_hashes_an_unchanged_file_once_and_a_changed_one_again(tmp_path, monkeypatch):
    hashed = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: hashed.append(file.name) or digest(file, kind))
    for content in (b"big", b"big", b"bigger"):
        run = Run(tmp_path, "01_data")
        path = run.path("file.bin")
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
        run.finish({})
    assert len(hashed) == 2
    recorded = read_manifest_of_run(tmp_path)["01_data"]["wrote"]["01_data/file.bin"]
    assert recorded["sha256"] == hashlib.sha256(b"bigger").hexdigest()


def test_a_full_folder_is_recorded_by_its_listing(tmp_path, monkeypatch):
    monkeypatch.setattr(book, "MOST_FILES_HASHED", 2)
    run = Run(tmp_path, "01_data")
    digests = []
    for content in ("one", "two", "three"):  # of 3, 3 and 5 bytes
        for number in range(3):
            run.path(f"images/{number}.png").write_text(content)
        run.finish({})
        (name, item), *rest = read_manifest_of_run(tmp_path)["01_data"]["wrote"].items()
        assert (name, item["files"], rest) == ("01_data/images", 3, [])
        digests.append(item["sha256"])
    assert digests[0] == digests[1] != digests[2]


def test_a_small_folder_read_is_recorded_by_content(tmp_path):
    outside = tmp_path / "manifests"
    outside.mkdir()
    digests = set()
    for content in ("one", "two"):
        (outside / "test.csv").write_text(content)
        Run(tmp_path / "run", "01_data").finish({}, read=[outside])
        digests.add(read_manifest_of_run(tmp_path / "run")["01_data"]["read"][outside.as_posix()]["sha256"])
    assert len(digests) == 2


def test_chapters_that_finish_at_the_same_time_lose_no_entry(tmp_path):
    code = (
        "import sys; from fairdf_utils.book.run_folder import Run\n"
        "for i in range(10): Run(sys.argv[1], f'{sys.argv[2]}{i}').finish({})"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, tmp_path, name]) for name in ("a", "b")]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(read_manifest_of_run(tmp_path)) == 20


def test_an_unreadable_manifest_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BookError, match=r"manifest.json is not readable.*delete it"):
        read_manifest_of_run(tmp_path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
