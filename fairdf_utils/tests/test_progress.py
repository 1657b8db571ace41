"""Who does not look at a bar reads lines: in the log of a step, or on the error stream."""

import re
import sys

import pytest

from fairdf_utils import progress
from fairdf_utils.fairness import uncertainty
from fairdf_utils.tests.fairness.score_tables import video_table


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    for name in ("JPY_SESSION_NAME", "FAIRDF_LOG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


def test_a_log_has_lines(capsys):
    assert list(progress.bar("abc", desc="dfdc", unit="video")) == list("abc")
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("dfdc 3/3 video, ") and not any("\r" in line for line in lines)


def test_a_kernel_writes_into_the_log_of_its_step_and_else_nowhere(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert list(progress.bar("abc", desc="dfdc")) == list("abc")
    log = tmp_path / "step.log"
    log.write_text("+ papermill\n")
    monkeypatch.setenv("FAIRDF_LOG", str(log))
    assert list(progress.bar("abc", desc="dfdc")) == list("abc")
    assert capsys.readouterr() == ("", "")
    first, *lines = log.read_text().splitlines()
    assert first == "+ papermill" and lines[-1].startswith("dfdc 3/3 ")


def test_an_audit_says_on_its_error_stream_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setenv("FAIRDF_LOG", "-")
    for _ in progress.bar("a", desc="tables"):
        uncertainty.metric_intervals(video_table(), "group", uncertainty.Settings(resamples=4000, permutations=4000))
    lines = capsys.readouterr().err.splitlines()
    assert {line.split()[0] for line in lines} == {"tables", "dealing"}
    assert all(re.fullmatch(r"\w+ \d+/\d+ \w+, [\d:?]+ left", line) for line in lines), "no marks of a terminal"
