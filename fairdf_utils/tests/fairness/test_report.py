"""The report is one page that loads nothing, reads well by machine, and says what the numbers say."""

import argparse
import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from fairdf_utils.fairness import audit, report
from fairdf_utils.fairness.audit_findings import between, counted, p_text, percent, points, signed
from fairdf_utils.tests.fairness.test_audit import made_table, options

NASTY = '<b>&"x'
VOID = {"meta", "br", "img", "line", "rect", "circle", "link", "hr"}


class Page(HTMLParser):
    """Tags with their attributes, text by tag, and whether all that was opened was closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.unclosed = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def two_sets():
    first = made_table({"male-white": (14, 14), f"male-{NASTY}": (14, 14), "female-white": (4, 0)}, frames=2)
    second = made_table({"male-white": (12, 12), "female-white": (12, 12)}, seed=1, frames=1)
    return pd.concat([first.assign(dataset="first set"), second.assign(dataset=NASTY)])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder of a report on two data sets with an ugly name, and its page."""
    folder = tmp_path_factory.mktemp("report")
    two_sets().to_csv(folder / "scores.csv", index=False)
    assert audit.main_audit(options(folder / "scores.csv", folder / "out", resamples=40)) == 0
    return folder / "out", Page((folder / "out/index.html").read_text())


def test_the_page_loads_nothing(written):
    folder, page = written
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    text = (folder / "index.html").read_text()
    assert "@import" not in text and "url(" not in text
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert not addresses


def test_figures_are_svg_with_words_instead(written):
    images = written[1].all("img")
    assert len(images) == 4, "thresholds and calibration of two data sets"
    for image in images:
        assert len(image["alt"]) > 40
        kind, data = image["src"].split(",", 1)
        assert kind == "data:image/svg+xml;base64" and b"<svg" in base64.b64decode(data)


def test_tables_have_headers_and_captions(written):
    page = written[1]
    assert not page.unclosed and not page.open
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert len(page.all("table")) == len(page.all("caption")) > 10
    assert page.all("html")[0]["lang"] == "en" and len(page.all("h1")) == 1
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for a in page.all("a")] + [s["aria-labelledby"] for s in page.all("section")]
    assert set(targets) <= set(ids) and len(page.all("a")) >= 6, "the summary leads to each data set"


def test_levels_of_headings_are_not_skipped(written):
    levels = [int(tag[1]) for tag, _ in written[1].tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_names_are_escaped(written):
    folder, page = written
    assert "<b>" not in (folder / "index.html").read_text() and NASTY in page.words()


def test_every_finding_and_warning_is_on_the_page(written):
    folder, page = written
    words = page.words()
    for one in json.loads((folder / "findings.json").read_text())["data_sets"]:
        for text in [one["in_short"], *one["warnings"], *(finding["text"] for finding in one["findings"])]:
            assert re.sub(r"\s+", " ", text) in words


def test_findings_json_is_strict_and_says_how_it_was_made(written):
    folder, _ = written

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    found = json.loads((folder / "findings.json").read_text(), parse_constant=refuse)
    made = found["made"]
    assert made["command"].startswith("python -m fairdf_utils audit ") and "--seed 0" in made["command"]
    assert re.fullmatch("[0-9a-f]{64}", made["input"]["scores"]["sha256"])
    assert set(made["versions"]) == {"python", *report.LIBRARIES}
    assert [one["name"] for one in found["data_sets"]] == ["first set", NASTY]
    assert all(
        {"kind", "by", "group", "metric", "text", "numbers"} == set(f) for f in found["data_sets"][0]["findings"]
    )


def test_the_tables_hold_the_numbers(written):
    folder, _ = written
    groups, fairness, thresholds, calibration = (
        pd.read_csv(folder / f"{name}.csv") for name in ("groups", "fairness", "thresholds", "calibration")
    )
    table = two_sets()
    images = groups[(groups["level"] == "image") & (groups["by"] == "gender")].set_index(["dataset", "group"])
    for (name, gender), rows in table.groupby(["dataset", "gender"]):
        reals = rows[rows["label"] == 0]
        assert images.loc[(name, gender), "fpr"] == pytest.approx((reals["score"] >= 0.5).mean(), rel=1e-5)
    assert set(groups["level"][groups["dataset"] == "first set"]) == {"image", "video"}
    assert set(groups["level"][groups["dataset"] == NASTY]) == {"image"}, "its videos have one image"
    assert set(fairness["by"]) == {"all", "gender", "race", "group"}
    points = thresholds[thresholds["point"] == "as given"]
    assert (points["threshold"] == 0.5).all() and points["fitted_on"].eq("the same images").all()
    grid = thresholds[(thresholds["point"] == "grid") & (thresholds["by"] == "gender")]
    assert (grid.groupby("dataset")["fpr"].diff().fillna(0) <= 1e-9).all(), "fewer alarms at higher thresholds"
    assert calibration["brier"].between(0, 1).all()


def test_the_same_input_gives_the_same_files(tmp_path):
    made_table({"male-white": (12, 12), "female-white": (12, 12)}, frames=2).to_csv(
        tmp_path / "scores.csv", index=False
    )
    given, files = options(tmp_path / "scores.csv", tmp_path / "out", by=["gender"], resamples=20), []
    for _ in range(2):
        audit.main_audit(given)
        files.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    assert files[0] == files[1]
    names = {"index.html", "findings.json", "groups.csv", "fairness.csv", "thresholds.csv", "calibration.csv"}
    assert set(files[0]) == names, "and nothing half-written beside them"


def test_a_failed_audit_leaves_the_last_report(written, tmp_path):
    before = {path.name: path.read_bytes() for path in written[0].iterdir()}
    bad = tmp_path / "bad.csv"
    bad.write_text("label,score,gender\n0,7,male\n")
    with pytest.raises(ValueError, match="P\\(fake\\)"):
        audit.main_audit(options(bad, written[0]))
    assert {path.name: path.read_bytes() for path in written[0].iterdir()} == before


def test_no_finding_is_lost_or_repeated_in_the_blocks(tmp_path):
    table = made_table({"a-x": (30, 12), "b-x": (30, 12), "c-x": (30, 12)}, raised=("a-x",), shift=2.5)
    table.to_csv(tmp_path / "scores.csv", index=False)
    read, _ = audit.read(tmp_path / "scores.csv")
    one = audit.judge("given", read, ["group"], audit.Settings(resamples=40))
    blocks = report.finding_blocks(one.findings)
    shown = [f for _, _, entries in blocks for finding, below in entries for f in (finding, *below)]
    assert sorted(f["text"] for f in shown) == sorted(f["text"] for f in one.findings)
    below = [f for _, _, entries in blocks for _, under in entries for f in under]
    assert "a-x" in {f["group"] for f in below}, "a group that explains a gap stands under it"
    assert report.in_short(one.findings).startswith("Differs between groups: false alarms by group")


def test_warnings_come_before_the_findings(tmp_path, capsys):
    table = made_table({"male-white": (12, 12), "female-white": (12, 12)}, frames=1)
    table["score"] = 1 - table["score"]
    table.drop(columns="video").to_csv(tmp_path / "scores.csv", index=False)
    audit.main_audit(options(tmp_path / "scores.csv", tmp_path / "out", by=["gender"], resamples=20))
    page = Page((tmp_path / "out/index.html").read_text()).words()
    printed = capsys.readouterr().out
    finding = json.loads((tmp_path / "out/findings.json").read_text())["data_sets"][0]["findings"][0]["text"]
    for severe in ("no column 'video'", "Reals score higher than fakes"):
        assert severe in printed and printed.index(severe) < printed.index(finding)
        assert page.index(severe) < page.index(finding)
    small = "little can be told from so few"
    assert printed.index(small) < printed.index(finding) and page.index(small) > page.index(finding)


def test_the_page_says_that_p_decides_where_an_interval_disagrees(written):
    words = written[1].words()
    assert "an interval may leave out zero where p finds no difference: p decides" in words
    assert "take back only a part" not in words, "intervals of gaps hold, as the top of the page says"


def test_numbers_are_written_as_people_read_them():
    assert percent(0.257) == "25.7 %" and percent(np.nan) == "undefined" and points(0.031) == "3.1 points"
    assert between(0.1, 0.25) == " (10.0 to 25.0)" and between(np.nan, 0.1) == ""
    assert signed(-0.105) == "−10.5" and signed(0.2) == "+20.0"
    assert p_text(0.0004) == "< 0.001" and p_text(0.0312) == "0.031"
    assert counted(1, "people") == "1 person" and counted(2500, "videos") == "2,500 videos"


def test_the_command_is_one_that_makes_the_report_again():
    given = argparse.Namespace(
        scores="my scores.csv", out="report", by=["gender", "age"], validation="val.csv",
        threshold=0.7, resamples=500, level=0.9, cluster="identity", seed=3,
    )  # fmt: skip
    with pytest.raises(FileNotFoundError):
        report.how_made([], given)
    words = report.command(given)
    assert words.startswith("python -m fairdf_utils audit 'my scores.csv' --out report --by gender age ")
    assert words.endswith("--threshold 0.7 --resamples 500 --level 0.9 --cluster identity --seed 3")
