"""What the caller can put right is one line and exit code 2; a fault of the program keeps its traceback."""

import io
import sys

import pytest

from fairdf_utils import __main__ as command_line
from fairdf_utils.book import BookError

COMMANDS = ("synthetic", "prepare", "check", "predict", "audit", "reproduce", "results", "train", "notebooks", "speed")
COMMANDS += ("publish",)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_text(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main([command, "--help"])
    assert ended.value.code == 0 and f"fairdf_utils {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["synthetic", "--seed", "-1", "--out", "x"], "seed is -1"),
        (["synthetic", "--out", "/proc/none"], "/proc/none"),
        (["predict", "none.png"], "none.png: no such file"),
        (["prepare", "none", "--layout", "ffpp", "--out", "x"], "none: no such folder"),
        (["train", "--params", "cpu", "--run", "x", "--detector", "none"], "does not ask for 03_sam_training/none-s0"),
        (["reproduce", "--params", "none", "--run", "x"], "no parameters file none"),
        (["reproduce", "--params", "cpu", "--run", "x", "--notebooks", "none"], "none holds no chapter"),
        (["audit", __file__, "--out", "y", "--notebooks", "none"], "05_fairness_analysis.py: no such chapter"),
    ],
)
def test_what_the_caller_can_put_right_is_one_line(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command_line.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


@pytest.mark.parametrize(("error", "code"), [(BookError("x"), 2), (KeyboardInterrupt(), 130), (KeyError("x"), None)])
def test_exit_codes(error, code, monkeypatch, capsys):
    def fail(options):
        raise error

    monkeypatch.setattr(command_line, "_synthetic", fail)
    if code is None:
        with pytest.raises(KeyError):
            command_line.main(["synthetic", "--out", "x"])
    else:
        assert command_line.main(["synthetic", "--out", "x"]) == code


def test_a_terminal_that_lacks_letters_shows_the_rest(monkeypatch, tmp_path):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", screen)
    assert command_line.main(["predict", str(tmp_path / "für.png")]) == 2
    screen.flush()
    assert b"f?r.png: no such file" in screen.buffer.getvalue()
