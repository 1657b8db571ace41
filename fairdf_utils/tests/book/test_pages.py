"""What the pages tell to type can be typed, and the numbers of their examples are those that the package computes."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import yaml

from fairdf_utils import __main__ as command_line
from fairdf_utils.book import REPOSITORY
from fairdf_utils.book.pairs import read_chapters
from fairdf_utils.book.parameters import RESERVED
from fairdf_utils.fairness import metrics, worst_group
from fairdf_utils.fairness.resampling import Settings

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


def markdown_tables(page: str, heading: str) -> list[list[str]]:
    """Cells of the rows of every table whose heading line begins like this, in order."""
    text = Path(REPOSITORY, page).read_text(encoding="utf-8")
    bodies = re.findall(rf"^{re.escape(heading)}.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for body in bodies for row in body.splitlines()]


def test_the_examples_of_which_metric_when_are_computed():
    page = "notebooks/book/which_metric.md"
    counts = {}
    for detector, group, *cells in markdown_tables(page, "| detector | group | fakes found"):
        (found, fakes), (alarms, real) = (map(int, cell.split(" of ")) for cell in cells[:2])
        exact = found / fakes, alarms / real, found / (found + alarms)
        assert [float(cell.removesuffix(" %")) / 100 for cell in cells[2:]] == pytest.approx(exact, abs=5e-4)
        odds = fakes / real * (1 - exact[2]) / exact[2] * exact[0]  # Chouldechova's identity
        assert odds == pytest.approx(exact[1])
        rows = (1, 1.0, found), (1, 0.0, fakes - found), (0, 1.0, alarms), (0, 0.0, real - alarms)
        counts.setdefault(detector, []).extend((group, label, score) for label, score, n in rows for _ in range(n))
    stated = markdown_tables(page, "| detector | FPR gap")
    assert [row[0] for row in stated] == list(counts) == ["1", "2", "before", "lowered", "raised"]
    for detector, *cells in stated:
        table = pd.DataFrame(counts[detector], columns=["group", "label", "score"])
        table["video"] = range(len(table))
        values, rates = metrics.fairness_metrics(table), metrics.group_rates(table)
        names = ["fpr_gap", "tpr_gap", "fpr_sum", "oae", "dp", "meo"]
        computed = [*values[names], rates["tpr"].min(), rates["fpr"].max()]
        assert list(map(float, cells)) == pytest.approx([100 * value for value in computed], abs=0.051), detector
    constant = table.assign(score=1.0)  # "Scores that trivial models win"
    assert (metrics.fairness_metrics(constant) == 0).all()
    assert worst_group.main_numbers(constant, "group", Settings())[
        ["worst_auc", "worst_tpr"]
    ].tolist() == pytest.approx([0.5, 0.1])
