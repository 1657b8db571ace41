"""The audit is chapter 5 on any table: it needs no torch, its page loads nothing, and its files say what it says."""

import base64
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from fairdf_utils.fairness import metrics
from fairdf_utils.fairness.worst_group import COLUMNS
from fairdf_utils.tests.fairness.score_tables import planted_table

NASTY = '<b>&"x $\\frac{$'
ODD = os.fsdecode(b"my \xff scores.csv")  # a byte that is no text
SHOWN = r"my \xff scores.csv"
NO_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "accelerate"):
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, NoTorch())
"""


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of the style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.inside = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside != "style":
            self.text.append(data)

    def handle_endtag(self, tag):
        self.inside = ""

    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def two_sets():
    first = planted_table({"male-黑人": (14, 14), f"male-{NASTY}": (14, 14), "female-white": (4, 0)}, frames=2)
    second = planted_table({"male-white": (12, 12), "female-white": (12, 12)}, seed=1, frames=1)
    return pd.concat([first.assign(dataset="first set"), second.assign(dataset=NASTY)])


def audit(folder, *arguments):
    """The command in a process, and a kernel, in which torch cannot be imported."""
    (folder / "sitecustomize.py").write_text(NO_TORCH)
    paths = [str(folder), str(Path(__file__).parents[3])]
    command = [sys.executable, "-m", "fairdf_utils", "audit", *map(str, arguments), "--resamples", "40"]
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=given)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Folder of a report on two data sets with ugly names, its page, and what was printed."""
    folder = tmp_path_factory.mktemp("audit")
    two_sets().drop(columns="video").to_csv(folder / ODD, index=False)
    done = audit(folder, ODD, "--out", "out", "--by", "gender", "group")
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder / "out", Page((folder / "out/index.html").read_text()), done.stdout


def test_the_page_loads_nothing(report):
    folder, page, _ = report
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    text = (folder / "index.html").read_text()
    assert "@import" not in text and "url(" not in text and not re.findall(r"https?://", text)
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_figures_have_words_beside_them(report):
    images = [attributes for tag, attributes in report[1].tags if tag == "img"]
    assert len(images) == 7, "the main figure; intervals, thresholds and calibration of two data sets"
    for image in images:
        assert len(image["alt"]) > 40
        kind, data = image["src"].split(",", 1)
        assert kind == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG")


def test_severe_cautions_come_first_then_what_was_found_and_no_code(report):
    folder, page, printed = report
    words = page.words()
    found = json.loads((folder / "findings.json").read_text())
    for one in found["data_sets"]:
        said = [one["in_short"], *(entry["text"] for entry in one["cautions"] + one["findings"])]
        assert all(re.sub(r"\s+", " ", text) in words for text in said)
        assert all(entry["text"] in printed for entry in one["cautions"] + one["findings"])
    severe, first = "no column 'video'", found["data_sets"][0]
    for text in (words, re.sub(r"\s+", " ", printed)):
        assert text.index(severe) < text.index(re.sub(r"\s+", " ", first["findings"][0]["text"]))
    assert words.index(first["in_short"][:40]) < words.index("Groups and their intervals")
    assert "import" not in words and "By hand" not in words and NASTY in page.words()
    assert "<b>" not in (folder / "index.html").read_text()
    assert "(1) male-黑人" in words and SHOWN in words, "what no figure or file can show as it is"


def test_findings_json_is_strict_and_says_how_it_was_made(report):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    found = json.loads((report[0] / "findings.json").read_text(), parse_constant=refuse)
    made = found["made"]
    assert made["command"].startswith("python -m fairdf_utils audit 'my \\xff scores.csv' --out out --by gender group ")
    assert made["command"].endswith(
        "--threshold 0.5 --resamples 40 --level 0.95 --cluster video --label-noise 0.05 --seed 0"
    )
    assert re.fullmatch("[0-9a-f]{64}", made["input"][SHOWN]) and "numpy" in made["versions"]
    assert [one["dataset"] for one in found["data_sets"]] == ["first set", NASTY]
    assert {"kind", "by", "group", "metric", "text", "numbers"} == set(found["data_sets"][0]["findings"][0])


def test_the_tables_hold_the_numbers(report):
    names = ("groups", "fairness", "thresholds", "calibration", "results")
    groups, fairness, thresholds, calibration, results = (pd.read_csv(report[0] / f"{name}.csv") for name in names)
    table = two_sets()
    images = groups[groups["by"] == "gender"].set_index(["dataset", "group"])
    for (name, gender), rows in table.groupby(["dataset", "gender"]):
        reals = rows[rows["label"] == 0]
        assert images.loc[(name, gender), "fpr"] == pytest.approx((reals["score"] >= 0.5).mean(), abs=1e-6)
    assert set(fairness["by"]) == {"all", "gender", "group"}
    assert list(results.columns) == ["detector", "seed", "dataset", *COLUMNS]
    for name, rows in table.groupby("dataset"):
        row, *trivial = (row for _, row in results[results["dataset"] == name].iterrows())
        assert [one["detector"] for one in trivial] == ["always real", "always fake", "coin", "shuffled scores"]
        assert trivial[0]["fpr_sum"] == 0 and trivial[0]["auc"] == 0.5
        expected = metrics.fairness_metrics(rows.assign(video=range(len(rows))), "group")
        assert row["fpr_sum"] == pytest.approx(expected["fpr_sum"], abs=1e-6)
    points = thresholds[thresholds["point"] == "as given"]
    assert (points["threshold"] == 0.5).all() and points["fitted_on"].eq("the same images").all()
    assert calibration["brier"].between(0, 1).all()


def test_the_same_input_gives_the_same_files_and_a_failed_audit_leaves_them(report):
    folder = report[0].parent
    files = {path.name: path.read_bytes() for path in report[0].iterdir()}
    assert {"index.html", "findings.json", "groups.csv", "fairness.csv"} <= set(files)
    again = audit(folder, ODD, "--out", "out", "--by", "gender", "group")
    assert again.returncode == 0 and files == {path.name: path.read_bytes() for path in report[0].iterdir()}
    (folder / "bad.csv").write_text("label,score,gender\n0,7,male\n")
    bad = audit(folder, "bad.csv", "--out", "out")
    assert bad.returncode == 2 and bad.stdout == ""
    assert re.fullmatch(r"error: .*bad.csv: Column 'score', line 2: .*P\(fake\).*\n", bad.stderr)
    assert files == {path.name: path.read_bytes() for path in report[0].iterdir()}


def test_people_may_be_the_clusters(tmp_path):
    table = planted_table({"male-white": (12, 12), "female-white": (12, 12)}, frames=1)
    table["identity"] = "person " + table.groupby(["group", "label"]).cumcount().astype(str) + table["group"]
    table.to_csv(tmp_path / "scores.csv", index=False)
    done = audit(tmp_path, "scores.csv", "--out", "out", "--cluster", "identity")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/findings.json").read_text())["settings"]["cluster"] == "identity"
    assert pd.read_csv(tmp_path / "out/groups.csv")["clusters_real"].min() == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scores.csv", "--out", "file"], "is a file, no folder"),
        (["none.csv", "--out", "new"], "no file none.csv"),
        (["scores.csv", "--out", "new", "--level", "1.0"], "level is 1.0"),
        (["scores.csv", "--out", "new", "--by", "skin"], "no column 'skin'; it has: label, score, gender"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(tmp_path, arguments, said):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "scores.csv").write_text("label,score,gender\n0,0.1,male\n")
    done = audit(tmp_path, *arguments)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert (tmp_path / "file").read_text() == "kept" and not (tmp_path / "new").exists()
