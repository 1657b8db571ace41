"""Detectors that come with the repository: small, as good as what they were copied from, and described."""

import json
import re
import shutil
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fairdf_utils.data.batches import decode
from fairdf_utils.data.manifests import SPLIT_FILES, read_split
from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.evaluation import publishing
from fairdf_utils.evaluation.scoring import predict
from fairdf_utils.model import stored
from fairdf_utils.model.detectors import build, score
from fairdf_utils.rendered.images import MANIFESTS, generate
from fairdf_utils.tests.small import small

CPU = torch.device("cpu")
FILES = sorted(stored.SHIPPED.glob("*.safetensors"))
SETS = ("ffpp", "dfd")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run with two small detectors, and an empty place to ship them to."""
    monkeypatch.setattr(stored, "SHIPPED", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped/README.md").write_text("# Card\n\n## Numbers\n\nof before\n")
    entries = {}
    for detector in ("ori", "fairdf"):
        config = replace(small(method=detector), detector=detector)
        best = tmp_path / f"run/03_sam_training/{detector}-s0/best.safetensors"
        stored.save_detector(best, build(config), config, 2)
        pd.DataFrame({"epoch": [1, 2, 3], "val_auc": [0.5, 0.875, 0.75]}).to_csv(best.with_name("history.csv"))
        parameters = {"image_root": "", "bias": 0.5, "data_seed": 3}
        entries[f"03_sam_training/{detector}-s0"] = {"parameters": parameters, "commit": "c0ffee"}
        scored = tmp_path / f"run/04_cross_dataset_evaluation/{detector}-s0/scores.parquet"
        scored.parent.mkdir(parents=True)
        rows = [(f"{name}/{i}", name, GROUPS[i % 8], i // 8 % 2, i // 8 % 2) for name in SETS for i in range(160)]
        pd.DataFrame(rows, columns=["img_path", "dataset", "group", "label", "score"]).to_parquet(scored)
    (tmp_path / "run/manifest.json").write_text(json.dumps(entries))
    return tmp_path / "run"


def publish(run, seed=0):
    publishing.main_publish(Namespace(run=run, seed=seed))


def test_a_published_copy_answers_alike_and_is_halved_only_where_it_must_be(run, tmp_path):
    publish(run)
    images = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), np.uint8)
    for detector, halved in (("ori", False), ("fairdf", True)):
        best = run / f"03_sam_training/{detector}-s0/best.safetensors"
        copy = tmp_path / f"shipped/{detector}.safetensors"
        assert (copy.stat().st_size < 0.7 * best.stat().st_size) == halved
        (own, config), (ours, same) = (stored.load_detector(path, CPU) for path in (best, copy))
        assert config == same and {value.dtype for value in ours.parameters()} == {torch.float32}
        exact = [torch.equal(a, b) or halved and a.ndim > 1 for a, b in zip(*map(weights, (own, ours)), strict=True)]
        assert all(exact) and np.abs(predict(own, images, CPU) - predict(ours, images, CPU)).max() < 1e-2
        told = stored.read_config(copy)[1]
        assert (told["bias"], told["data_seed"], told["val_auc"], told["commit"]) == (0.5, 3, 0.875, "c0ffee")


def weights(model):
    return model.state_dict().values()


def test_the_card_keeps_its_words_and_gets_the_runs_numbers(run, tmp_path):
    for _ in range(2):
        publish(run)
        card = (tmp_path / "shipped/README.md").read_text()
        assert card.startswith("# Card\n\n## Numbers\n\n| detector |") and "of before" not in card
        assert card.count("\n| ori | ") == 1 + len(SETS) and "| 2 | 0 | 3 | 0.5 | 0.875 | c0ffee |" in card
        found = re.findall(
            r"^\| (\w+) \| (\w+) \| 100.0 \([\d.]+ to 100.0\) \| 100.0 \(.* to 100.0\) \| (.*) \|$", card, re.M
        )
        assert [row[:2] for row in found] == [(detector, name) for detector in ("ori", "fairdf") for name in SETS]


@pytest.mark.parametrize("fault", ["large", "photographs", "seed", "unfinished", "absent"])
def test_what_cannot_be_published_leaves_everything_as_it_was(run, tmp_path, monkeypatch, fault):
    says = "is no finished run"
    if fault == "large":
        monkeypatch.setattr(publishing, "LARGEST", 200_000)  # the plain detector is below
        says = "fairdf-s0/best.safetensors would take .* bytes, more than 200,000"
    elif fault == "photographs":
        entries = json.loads((run / "manifest.json").read_text())
        entries["03_sam_training/fairdf-s0"]["parameters"]["image_root"] = "/faces"
        (run / "manifest.json").write_text(json.dumps(entries))
        says = "trained on images of /faces, not on rendered ones"
    elif fault == "unfinished":
        (run / "04_cross_dataset_evaluation/fairdf-s0/scores.parquet").unlink()
    elif fault == "absent":
        shutil.rmtree(run)
    with pytest.raises(stored.DetectorError, match=says):
        publish(run, seed=7 if fault == "seed" else 0)
    assert [path.name for path in (tmp_path / "shipped").iterdir()] == ["README.md"]
    assert "of before" in (tmp_path / "shipped/README.md").read_text()


def test_shipped_detectors_are_small_and_the_card_lists_them():
    above, _, numbers = (stored.SHIPPED / "README.md").read_text().partition(publishing.BELOW)
    assert above and all(path.stat().st_size <= publishing.LARGEST for path in FILES)
    listed = set(re.findall(r"^\| ([\w.-]+) \|", numbers, re.MULTILINE)) - {"detector", "---"}
    assert listed == {path.stem for path in FILES}


@pytest.mark.skipif(not FILES, reason="no detector is shipped")
def test_shipped_detectors_are_as_good_as_when_they_were_trained(tmp_path):
    """On the validation images, rendered here: the AUC that training found, which float16 must not have changed."""
    (tmp_path / "ffpp").mkdir()
    for name in SPLIT_FILES["val"]:
        shutil.copy(MANIFESTS / "ffpp" / name, tmp_path / "ffpp")
    validation = read_split(tmp_path / "ffpp", "val")
    for path in FILES:
        model, config = stored.load_detector(path, CPU)
        told = stored.read_config(path)[1]
        images_at = generate(tmp_path, config.image_size, told["bias"], told["data_seed"], tmp_path, workers=1)
        logits = predict(model, decode(validation, images_at, config.image_size, tmp_path), CPU)
        assert path.stem == config.detector and np.isfinite(logits).all()
        auc = roc_auc_score(validation["label"], score(torch.from_numpy(logits)))
        assert auc == pytest.approx(told["val_auc"], abs=1e-3), path.name
