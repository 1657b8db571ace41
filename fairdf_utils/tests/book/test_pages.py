"""What the README and the page on one's own data tell to type can be typed: commands, flags, parameters."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from fairdf_utils import __main__ as command_line
from fairdf_utils.book import REPOSITORY
from fairdf_utils.book.pairs import read_chapters
from fairdf_utils.book.parameters import RESERVED

PAGES = ("README.md", "notebooks/book/your_data.md")


def blocks(page: str, language: str) -> list[str]:
    text = Path(REPOSITORY, page).read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def lines(page: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in blocks(page, "shell") for line in block.splitlines()]


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page):
    typed = [line[line.index("fairdf_utils") + 1 :] for line in lines(page) if "fairdf_utils" in line]
    assert len(typed) > 3
    for arguments in typed:
        command_line._parser().parse_args(arguments)  # an unknown flag exits


def test_parameters_exist():
    """Those of papermill calls in the chapter that is called, those of parameters files in any."""
    chapters = {chapter.name: set(chapter.defaults) for chapter in read_chapters(REPOSITORY / "notebooks")}
    calls = [line for page in PAGES for line in lines(page) if any(word.endswith("papermill") for word in line)]
    assert calls
    for line in calls:
        given = {line[place + 1] for place, word in enumerate(line) if word == "-p"}
        assert given <= chapters[next(Path(word).stem for word in line if word.endswith(".ipynb"))], line
    for block in blocks(PAGES[1], "yaml"):
        values = yaml.safe_load(block)
        assert set(values) <= set().union(*chapters.values()) | set(RESERVED)
        for corpus in values.get("corpora", []):
            assert set(corpus) <= chapters["01_data_preparation"]


@pytest.mark.parametrize("page", PAGES)
def test_flags_in_sentences_are_some_commands(page):
    text = Path(REPOSITORY, page).read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```|^\| `--.*$", "", text, flags=re.DOTALL | re.MULTILINE)
    source = Path(command_line.__file__).read_text(encoding="utf-8")
    assert all(f'"{flag}"' in source for flag in re.findall(r"`(--[a-z-]+)", prose))
