"""The whole path of chapter 1 on a small rendered corpus: film, extract, merge, split, write, check, train."""

import numpy as np
import pandas as pd
import pytest
import torch

from fairdf_utils.corpora import annotations, extraction, splits
from fairdf_utils.data import checks
from fairdf_utils.data.manifests import find_leaks, read_split
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
    assert find_leaks(read).empty
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
    ledger = extraction.extract(tmp_path / layout, layout, tmp_path / "out", frames=2, size=64)
    assert set(ledger["video"]) == {clip.video for clip in clips}
    mapping = tmp_path / "annotations" / MAPPING if layout == "dfdc" else None
    told = annotations.read_annotations(tmp_path / "annotations" / ANNOTATIONS[layout], layout, mapping)
    merged = annotations.merge(extraction.crops(tmp_path / "out", layout), told)
    assert len(merged.rows) == ledger["found"].sum() >= 0.8 * 2 * len(clips)
    shown = merged.rows.drop_duplicates("video").set_index("video")
    for clip in clips:
        if clip.video in shown.index:
            assert shown.loc[clip.video, "group"] == clip.person.group
            assert shown.loc[clip.video, "label"] == (clip.source is not None)
    if layout == "celebdf":
        parts = splits.celebdf_test_list(merged.rows, tmp_path / layout / "List_of_testing_videos.txt")
        assert {"Celeb-real/id0_0000", "YouTube-real/00000"} <= set(parts.rows.query("split == 'test'")["video"])
    else:
        parts = splits.split(merged.rows)
    assert find_leaks(dict(list(parts.rows.groupby("split")))).empty
    splits.write_splits(parts, tmp_path / "out" / "manifests" / layout)
    assert checks.check([tmp_path / "out" / "manifests" / layout], images=tmp_path / "out", size=64).errors.empty
