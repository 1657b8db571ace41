"""The source shown is the source that runs."""

import importlib
import os
import sys
import time
from pathlib import Path

import pytest

from fairdf_utils.book import BookError
from fairdf_utils.book.run_folder import Run
from fairdf_utils.book.show import show

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
    path = tmp_path / "shown_module.py"
    path.write_text(MODULE)
    os.utime(path, (1e9, 1e9))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("shown_module")
    del sys.modules["shown_module"]


def test_show_renders_path_line_and_source(module):
    shown = show(module.double).data
    assert shown.startswith("`shown_module.py:5`\n\n````python\ndef double(x, factor=2):\n")
    assert shown.endswith("    return factor * x\n````\n")


def test_show_names_files_of_the_repository_from_its_root():
    assert show(Run).data.startswith("`fairdf_utils/book/run_folder.py:")


def test_show_includes_decorators_and_dedents_methods(module):
    assert "@functools.lru_cache\ndef remembered(x):" in show(module.remembered).data
    assert "@dataclass(frozen=True)\nclass Pair:" in show(module.Pair).data
    assert "\n```python\ndef path(self, name: str) -> Path:" in show(Run.path).data


def test_show_refuses_a_file_that_was_changed_since(module):
    path = Path(module.__file__)
    os.utime(path, (time.time() + 1, time.time() + 1))
    with pytest.raises(BookError, match="shown_module.py was changed.*double.*restart the kernel"):
        show(module.double)


def test_show_leaves_docstrings_out(module):
    assert show(module.double, docstring=False).data.endswith(
        "```python\ndef double(x, factor=2):\n    return factor * x\n```\n"
    )
    assert "class Pair:\n    left: int\n" in show(module.Pair, docstring=False).data


def test_show_leaves_the_module_alone(module):
    before = dict(vars(module))
    show(module.Pair)
    assert vars(module) == before


def test_show_refuses_what_has_no_definition_in_a_file(module):
    with pytest.raises(TypeError, match="top of a Python file"):
        show(module.outer())
    with pytest.raises(TypeError):
        show(len)
