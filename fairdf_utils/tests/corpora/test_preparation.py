"""The whole path of chapter 1 on a small rendered corpus: film, extract, merge, split, write, check, train."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fairdf_utils.__main__ import main
from fairdf_utils.corpora import annotations, extraction, splits
from fairdf_utils.corpora.preparation import prepare
from fairdf_utils.data import checks
from fairdf_utils.data.manifests import read_split
from fairdf_utils.data.vocabulary import COLUMNS
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.rendered.videos import Filming, generate_videos
from fairdf_utils.tests.corpora.rendered_corpora import ANNOTATIONS, MAPPING, make_corpus, spoil_annotations
from fairdf_utils.training.loop import Training


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    return generate_videos(tmp_path_factory.mktemp("corpora"), identities=16, frames=4)


@pytest.fixture(scope="module")
def flaws(corpora):
    return spoil_annotations(corpora / "annotations/A-FF++.csv")


@pytest.fixture(scope="module")
def prepared(corpora, flaws, tmp_path_factory):
    """The folder of crops, the ledger, and the crops with their demographics."""
    out = tmp_path_factory.mktemp("prepared")
    ledger = extraction.extract(corpora / "ffpp", "ffpp", out, frames=3, size=64)
    told = annotations.read_annotations(corpora / "annotations/A-FF++.csv", "ffpp")
    return out, ledger, annotations.merge(extraction.crops(out, "ffpp"), told), told


def test_every_planted_flaw_is_reported_as_expected(corpora, flaws, prepared):
    _, ledger, merged, _ = prepared
    planted = pd.read_csv(corpora / "planted.csv")
    outcome = planted.merge(ledger, on="video", how="left").set_index("flaw")
    clear = outcome.drop(index="dark")
    assert (clear["status"] == clear["expected"].str.split(":").str[0]).all()
    assert 0 < outcome.loc["truncated", "found"] < outcome.loc["truncated", "asked"]
    assert clear["reason"].to_dict() == {"truncated": "truncated", "empty": "empty file", "no face": "no face"}
    assert flaws["group flips"] in set(merged.conflicts["video"])
    assert flaws["undefined demographics"] in set(merged.undefined["video"])
    assert flaws["label disagreement"] in set(merged.disagreements["video"])
    assert flaws["crops without annotation"] in set(merged.unmatched["video"])
    assert flaws["annotated video does not exist"] in set(merged.unused["video"])
    assert len(merged.repeated) == 1


def test_no_crop_is_lost_silently(prepared):
    out, ledger, merged, told = prepared
    assert len(merged.rows) + len(merged.unmatched) + len(merged.undefined) == ledger["found"].sum()
    assert all((out / path).is_file() for path in merged.rows["img_path"])
    lost = annotations.lost_by_group(ledger, told)
    assert lost["videos"].sum() == len(ledger)
    assert lost["lost"].sum() == lost["asked"].sum() - ledger["found"].sum()


def test_the_manifests_are_clean_and_train(prepared, tmp_path):
    out, _, merged, _ = prepared
    parts = splits.split(merged.rows)
    folder = out / "manifests" / "ffpp"
    splits.write_splits(parts, folder)
    report = checks.check([folder], images=out, size=64)
    assert report.errors.empty, report
    read = {name: read_split(folder, name) for name in ("train", "val", "test")}
    written = pd.concat(read.values())[list(COLUMNS)].sort_values("img_path", ignore_index=True)
    kept = parts.rows[list(COLUMNS)].sort_values("img_path", ignore_index=True)
    pd.testing.assert_frame_equal(written, kept, check_dtype=False)

    config = TrainingConfig(
        detector="first", method="fairdf", backbone="tiny", weights="", image_size=64, width=32, epochs=1, batch_size=8,
        initialisation="kaiming", logit_dropout=0.0, optimizer="adamw", lr=1e-3, precision="float32",
        reconstruction_size=16,
    )  # fmt: skip
    training = Training(
        config, read["train"], read["val"], tmp_path / "run", out, tmp_path / "data", torch.device("cpu")
    )
    history = training.run()
    assert len(history) == 1 and np.isfinite(history["loss"]).all() and (tmp_path / "run/best.safetensors").is_file()


@pytest.mark.parametrize("layout", ["dfd", "celebdf", "dfdc"])
def test_the_other_layouts_go_the_same_way(tmp_path, layout):
    """Names, lists and annotations of three more owners, from videos to manifests that pass every check."""
    clips = make_corpus(layout, tmp_path, Filming(frames=4))
    tested = tmp_path / layout / "List_of_testing_videos.txt"
    made = prepare(
        tmp_path / layout, layout, tmp_path / "out", annotations=[tmp_path / "annotations" / ANNOTATIONS[layout]],
        mapping=tmp_path / "annotations" / MAPPING if layout == "dfdc" else "",
        split_by=tested if layout == "celebdf" else "identity", frames=2, crop_size=64,
        persons="faces" if layout == "dfdc" else "names", same_person=0.33,
    )  # fmt: skip
    assert (tmp_path / "out/dfdc/persons.csv").exists() == (layout == "dfdc")
    assert set(made.ledger["video"]) == {clip.video for clip in clips}
    assert len(made.merged.rows) == made.ledger["found"].sum() >= 0.8 * 2 * len(clips)
    shown = made.merged.rows.drop_duplicates("video").set_index("video")
    for clip in clips:
        if clip.video in shown.index:
            assert shown.loc[clip.video, "group"] == clip.person.group
            assert shown.loc[clip.video, "label"] == (clip.source is not None)
    rows = made.split.rows
    if layout == "celebdf":
        assert {"Celeb-real/id0_0000", "YouTube-real/00000"} <= set(rows.query("split == 'test'")["video"])
    assert made.report.errors.empty and set(made.report.files["dataset"]) == {str(tmp_path / "out/manifests" / layout)}


# --- the command -----------------------------------------------------------------------------------------


def command(corpora, out, *more):
    told = corpora / "annotations/A-FF++.csv"
    words = [corpora / "ffpp", "--layout", "ffpp", "--out", out, "--annotations", told, "--frames", 2, "--size", 64]
    return ["prepare", *map(str, [*words, *more])]


def test_the_command_goes_on_after_a_kill(corpora, flaws, tmp_path, capsys):
    words = [sys.executable, "-m", "fairdf_utils", *command(corpora, tmp_path / "out", "--jobs", "1")]
    process, ledger = subprocess.Popen(words), tmp_path / "out/ffpp/ledger.csv"
    while not ledger.exists() or len(extraction.read_ledger(ledger)) < 5:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = set(extraction.read_ledger(ledger)["video"])
    assert main(command(corpora, tmp_path / "out")) == 0
    text = capsys.readouterr().out
    reused = int(re.search(r"(\d+) videos? reused", text)[1])
    assert 0 < reused <= len(before) < len(extraction.read_ledger(ledger))
    for part in (
        "failed: ",
        "crops with demographics",
        "Frames without a face, by group",
        "components",
        "Verdict: 0 errors",
        "image_root:",
    ):
        assert part in text
    assert len(list((tmp_path / "out/manifests/ffpp").glob("*.csv"))) == 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--annotations", "none.csv"], "none.csv: cannot be read"),
        (["--layout", "dfdc"], "Pass mapping"),
        (["--split-by", "nowhere"], "nowhere/train.json: cannot be read"),
        (["--layout", "dfd", "--annotations", "dfd.csv", "--split-by", "."], "layout 'dfd' has no official lists"),
        (["--layout", "celebdf", "--annotations", "celebdf.csv"], "holds no videos in the layout 'celebdf'"),
    ],
)
def test_what_cannot_be_used_is_refused_before_the_first_video(corpora, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    for name, folder in (("dfd", "original_sequences/actors"), ("celebdf", "Celeb-real")):
        row = f"0,{folder}/id0_0000/frame1.png,real,1,0,1,0"
        Path(f"{name}.csv").write_text(f",path,label,male,asian,white,black\n{row}\n")
    assert main(command(corpora, "out", *more)) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("error: ") and message in error[-1] and not Path("out").exists()


def test_manifests_with_errors_are_exit_code_1(tmp_path, capsys):
    """A test list that names reals only leaves a test set on which nothing can be judged."""
    make_corpus("celebdf", tmp_path, Filming(frames=2))
    (tmp_path / "list.txt").write_text("1 Celeb-real/id0_0000.mp4\n")
    words = ["prepare", tmp_path / "celebdf", "--layout", "celebdf", "--out", tmp_path / "out", "--frames", 1]
    words += [
        "--size",
        64,
        "--annotations",
        tmp_path / "annotations/A-Celeb-DF.csv",
        "--split-by",
        tmp_path / "list.txt",
    ]
    assert main(list(map(str, words))) == 1
    text = capsys.readouterr().out
    assert "ERROR: one-class split" in text and "it shows a person of the test list" in text
