"""Scores do not depend on how they are computed, and survive being written."""

import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.signal import convolve2d
from timm.layers import BatchNormAct2d, StdConv2d
from torch import nn

from fairdf_utils.data.batches import decode
from fairdf_utils.data.manifests import ManifestError, read_split
from fairdf_utils.evaluation import scoring
from fairdf_utils.evaluation.scoring import logits_of, predict, score_table, score_test_sets, scoring_copy
from fairdf_utils.fairness.score_table import SCORE_COLUMNS, ScoreTableError, read_scores, write_scores
from fairdf_utils.model.detectors import FairDetector, PlainDetector, TwoEncoderDetector
from fairdf_utils.tests.small import small

CPU = torch.device("cpu")


@pytest.fixture
def scored(test_set, corpus, tmp_path):
    torch.manual_seed(0)
    model = FairDetector(small())
    images = decode(test_set, corpus / "images", 16, tmp_path)
    return model, images, predict(model, images, CPU)


def test_predictions_do_not_depend_on_the_batch_size(scored):
    model, images, logits = scored
    assert np.allclose(predict(model, images, CPU, batch_size=3), logits, atol=1e-5)


def test_predictions_are_in_evaluation_mode_and_the_mode_is_restored(scored):
    model, images, logits = scored
    assert model.training
    assert np.array_equal(predict(model, images, CPU), logits), "no dropout, no batch statistics"


def test_the_variance_of_the_laplacian_is_that_of_a_convolution(scored):
    images = scored[1]
    found = scoring.laplacian_variance(images, batch_size=3)
    kernel = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
    for image, value in zip(images[:5], found, strict=False):
        assert value == pytest.approx(convolve2d(image.mean(-1), kernel, "valid").var(), rel=1e-4)
    assert found.shape == (len(images),) and scoring.laplacian_variance(
        np.full((2, 8, 8, 3), 9, np.uint8)
    ).tolist() == [0, 0]


def test_images_are_read_a_batch_at_a_time(scored):
    model, images, logits = scored
    read = []

    class OnDisk:
        __len__ = images.__len__

        def __getitem__(self, rows):
            read.append(len(images[rows]))
            return images[rows]

    assert np.allclose(logits_of(scoring_copy(model), OnDisk(), CPU, batch_size=5), logits, atol=1e-5)
    assert read == [5] * (len(images) // 5) + [len(images) % 5]


def test_bfloat16_stays_close(scored):
    model, images, logits = scored
    assert np.allclose(predict(model, images, CPU, "bfloat16"), logits, atol=0.05)


# The fast form of a detector


def unlike_fresh(model):
    """Batch norms with the statistics and weights of a trained model, not 0 and 1; evaluation mode."""
    torch.manual_seed(1)
    for norm in norms_of(model):
        if norm.track_running_stats:
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 2)
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.1)
    return model.eval()


def norms_of(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def assert_same_logits(model, image_size, **tolerance):
    images = torch.rand(2, 3, image_size, image_size) * 2 - 1
    with torch.inference_mode():
        fast, slow = scoring_copy(model).detect(images), model.detect(images)
    torch.testing.assert_close(fast, slow, **({"rtol": 1e-4, "atol": 1e-6} | tolerance))


@pytest.mark.parametrize(
    "model",
    [
        FairDetector(small(32)),
        FairDetector(small(32, fidelity="official")),
        TwoEncoderDetector(small(32)),
        TwoEncoderDetector(small(32, method="ucf")),
        PlainDetector(small(32)),
    ],
    ids=["corrected", "official", "without groups", "ucf", "plain"],
)
def test_every_detector_keeps_its_logits(model):
    assert_same_logits(unlike_fresh(model), 32)


@pytest.mark.parametrize(
    "backbone, size",
    [
        ("legacy_xception", 256),
        ("resnet18", 64),
        ("efficientnet_b0", 256),
        ("densenet121", 128),
        ("resnetv2_18", 128),
        ("convnext_atto", 64),
    ],
)
def test_every_backbone_keeps_its_logits(backbone, size):
    model = unlike_fresh(PlainDetector(small(size, backbone=backbone)))
    assert not norms_of(scoring_copy(model).encoder.adjust)
    assert_same_logits(model, size)


class Chain(nn.Sequential):
    """A detector of some modules in a row."""

    def detect(self, images):
        return self(images).mean((2, 3))


class Branching(nn.Sequential):
    """A row of modules whose results are used again."""

    def forward(self, maps):
        for module in self:
            maps = maps + module(maps)
        return maps

    detect = Chain.detect


RELU = nn.ReLU()


@pytest.mark.parametrize(
    "model, left",
    [
        (Chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, bias=False), nn.SyncBatchNorm(2)), 0),
        (Chain(nn.Conv2d(3, 4, 3, groups=1), BatchNormAct2d(4), nn.Conv2d(4, 2, 1), RELU), 0),
        (Chain(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), nn.Conv2d(4, 2, 1)), 0),
        (Chain(RELU, nn.Conv2d(3, 2, 3), RELU, nn.BatchNorm2d(2)), 1),
        (Chain(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)), 1),
        (Chain(nn.ConvTranspose2d(3, 2, 3), nn.BatchNorm2d(2)), 1),
        (Chain(StdConv2d(3, 2, 3), nn.BatchNorm2d(2)), 1),
        (Branching(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), 1),
    ],
    ids=["plain", "with activation", "nested", "apart", "of the batch", "transposed", "standardised", "branching"],
)
def test_batch_norms_are_folded_into_the_convolution_before_them(model, left):
    unlike_fresh(model)
    assert len(norms_of(scoring_copy(model))) == left
    assert_same_logits(model, 16)


def test_a_convolution_that_serves_twice_is_folded_where_a_norm_follows():
    shared, first, second = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    model = unlike_fresh(Chain(shared, first, shared, second, shared, RELU))
    assert not norms_of(scoring_copy(model))
    assert_same_logits(model, 16)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scoring_leaves_the_model_as_it_is(scored, precision):
    model, images, _ = scored
    model(torch.rand(4, 3, 16, 16)).fused.logits.sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradient = model.forgery.adjust[0].weight.grad.clone()
    predict(model, images, CPU, precision)
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert torch.equal(model.forgery.adjust[0].weight.grad, gradient)
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name]), name


def test_frozen_weights_and_inference_mode_do_not_hinder_folding(scored):
    model, images, logits = scored
    model.requires_grad_(False)
    with torch.inference_mode():
        assert not norms_of(scoring_copy(model).forgery)
        assert np.array_equal(predict(model, images, CPU), logits)


# All test sets in one call

SETS = ("ffpp", "dfdc", "celebdf", "dfd")


def four_sets(corpus):
    """The small test set under four names, 20 images each, partly other ones."""
    frame = read_split(corpus / "manifests/ffpp", "test")
    return {name: frame.iloc[4 * i : 4 * i + 20].assign(dataset=name) for i, name in enumerate(SETS)}


def score_four(corpus, folder, cache, **changes):
    """One call on the four sets, always with the same small detector."""
    torch.manual_seed(0)
    given = {
        "model": PlainDetector(small()),
        "tests": four_sets(corpus),
        "folder": folder,
        "image_root": corpus / "images",
        "image_size": 16,
        "cache_dir": cache,
    }
    return score_test_sets(**(given | changes))


@pytest.fixture
def work(monkeypatch):
    """What was done since: the number of images of each pass, and how often a detector was folded."""
    done = {"passes": [], "folded": 0}

    def logits(detector, images, *rest):
        done["passes"].append(len(images))
        assert isinstance(images, np.memmap), "the images stay on the disk"
        return logits_of(detector, images, *rest)

    def folded(*arguments):
        done["folded"] += 1
        return scoring_copy(*arguments)

    monkeypatch.setattr(scoring, "logits_of", logits)
    monkeypatch.setattr(scoring, "scoring_copy", folded)
    return done


def test_one_call_scores_all_test_sets(corpus, tmp_path, work):
    table = score_four(corpus, tmp_path / "out", tmp_path / "cache")
    assert work == {"passes": [20] * 4, "folded": 1}
    torch.manual_seed(0)
    model = PlainDetector(small())
    for name, frame in four_sets(corpus).items():
        images = decode(frame, corpus / "images", 16, tmp_path / "cache")
        one_by_one = score_table(frame, predict(model, images, CPU))
        one_by_one["laplacian_variance"] = scoring.laplacian_variance(images)
        own = table[table["dataset"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, one_by_one, check_dtype=False)
    assert list(dict.fromkeys(table["dataset"])) == list(SETS)


def test_both_levels_are_written(corpus, tmp_path):
    table = score_four(corpus, tmp_path / "out", tmp_path / "cache")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.*")) == [
        ".parts",
        *(f"{name}.{ending}" for name in ("scores", "video_scores") for ending in ("csv", "parquet")),
    ]
    for ending in ("csv", "parquet"):
        frames, videos = (read_scores(tmp_path / "out" / f"{name}.{ending}") for name in ("scores", "video_scores"))
        pd.testing.assert_frame_equal(frames, table, check_dtype=False)
        by_hand = table.groupby(["dataset", "video"], sort=False)["score"].mean()
        assert np.allclose(videos["score"], by_hand) and len(videos) == len(by_hand) < len(table)


def test_what_was_scored_is_neither_scored_nor_decoded_again(corpus, tmp_path, work):
    first = score_four(corpus, tmp_path / "out", tmp_path / "cache")
    work.update(passes=[], folded=0)
    shutil.rmtree(tmp_path / "cache")
    again = score_four(corpus, tmp_path / "out", tmp_path / "cache")
    assert work == {"passes": [], "folded": 0} and not (tmp_path / "cache").exists()
    pd.testing.assert_frame_equal(again, first)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from fairdf_utils.evaluation import scoring
from fairdf_utils.tests.evaluation.test_scoring import score_four

torch.set_num_threads(1)
score, passes = scoring.logits_of, []
def dies_in_the_third(*arguments):
    passes.append(1)
    if len(passes) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return score(*arguments)
scoring.logits_of = dies_in_the_third
score_four(*map(Path, sys.argv[1:]))
"""


def test_a_killed_call_goes_on_with_the_next_data_set(corpus, tmp_path, work):
    folder = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, *map(str, (corpus, folder, tmp_path / "cache"))]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert not list(folder.glob("*.parquet")), "no table before all sets are scored"
    resumed = score_four(corpus, folder, tmp_path / "cache")
    assert work["passes"] == [20, 20]
    pd.testing.assert_frame_equal(resumed, score_four(corpus, tmp_path / "whole", tmp_path / "cache"))


def test_a_full_disk_loses_no_finished_data_set(corpus, tmp_path, work, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(scoring, "write_scores", full)
        score_four(corpus, tmp_path / "out", tmp_path / "cache")
    work["passes"].clear()
    score_four(corpus, tmp_path / "out", tmp_path / "cache")
    assert not work["passes"] and (tmp_path / "out/scores.csv").exists()


def other_weights():
    torch.manual_seed(1)
    return PlainDetector(small())


def other_layers():
    torch.manual_seed(0)
    model = PlainDetector(small())
    model.head.extra = nn.Identity()
    return model


def other_annotations(corpus):
    tests = four_sets(corpus)
    return tests | {"dfdc": tests["dfdc"].assign(race="others")}


@pytest.mark.parametrize(
    "changes, passes",
    [
        (lambda corpus: {"model": other_weights()}, 4),
        (lambda corpus: {"model": other_layers()}, 4),
        (lambda corpus: {"precision": "bfloat16"}, 4),
        (lambda corpus: {"tests": other_annotations(corpus)}, 1),
    ],
    ids=["weights", "layers", "precision", "annotations of one set"],
)
def test_what_decides_the_scores_decides_what_is_scored_again(corpus, tmp_path, work, changes, passes):
    score_four(corpus, tmp_path / "out", tmp_path / "cache")
    work["passes"].clear()
    score_four(corpus, tmp_path / "out", tmp_path / "cache", **changes(corpus))
    assert work["passes"] == [20] * passes
    assert len(list((tmp_path / "out/.parts").rglob("*.parquet"))) == 4, "older tables of a set are gone"


def test_a_changed_image_is_scored_again(corpus, tmp_path, work):
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own)
    before = score_four(own, tmp_path / "out", tmp_path / "cache")
    work["passes"].clear()
    path = own / "images" / before["img_path"].iloc[0]  # the first image of ffpp is in no other set
    shutil.copy(own / "images" / before["img_path"].iloc[-1], path)
    after = score_four(own, tmp_path / "out", tmp_path / "cache")
    assert work["passes"] == [20]
    assert after["score"].iloc[0] == pytest.approx(before["score"].iloc[-1], abs=1e-6)


def test_a_damaged_part_is_scored_again(corpus, tmp_path, work):
    first = score_four(corpus, tmp_path / "out", tmp_path / "cache")
    (part,) = (tmp_path / "out/.parts/celebdf").glob("*.parquet")
    part.write_bytes(part.read_bytes()[:100])
    work["passes"].clear()
    pd.testing.assert_frame_equal(score_four(corpus, tmp_path / "out", tmp_path / "cache"), first)
    assert work["passes"] == [20]


def test_a_missing_image_is_found_before_anything_is_scored(corpus, tmp_path, work):
    tests = four_sets(corpus)
    tests["dfd"] = tests["dfd"].assign(img_path="gone.png")
    with pytest.raises(ManifestError, match="gone.png"):
        score_four(corpus, tmp_path / "out", tmp_path / "cache", tests=tests)
    assert not work["passes"]


def test_score_table_has_a_row_an_image(scored, test_set):
    table = score_table(test_set, scored[2])
    assert tuple(table.columns) == SCORE_COLUMNS and len(table) == len(test_set)
    by_hand = 1 / (1 + np.exp(table["logit_real"] - table["logit_fake"]))
    assert np.allclose(table["score"], by_hand, atol=1e-6)


def test_scores_survive_both_files(scored, test_set, tmp_path):
    table = score_table(test_set, scored[2])
    for path in write_scores(table, tmp_path / "out"):
        pd.testing.assert_frame_equal(read_scores(path), table, check_dtype=False, rtol=1e-6)


def test_a_failed_write_keeps_the_old_table(scored, test_set, tmp_path, monkeypatch):
    table = score_table(test_set, scored[2])
    write_scores(table, tmp_path)

    def full(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="no room left"):
        write_scores(table.assign(score=0.0), tmp_path)
    assert len(read_scores(tmp_path / "scores.parquet")) == len(table)


def test_missing_table_names_the_chapter(tmp_path):
    with pytest.raises(FileNotFoundError, match="chapter 4 writes one"):
        read_scores(tmp_path / "scores.csv")


def test_a_foreign_table_is_completed(tmp_path):
    pd.DataFrame({"label": [0, 1], "score": [0.25, 0.75], "gender": "male", "race": "white"}).to_csv(tmp_path / "s.csv")
    table = read_scores(tmp_path / "s.csv")
    assert table["group"].tolist() == ["male-white"] * 2 and table["video"].nunique() == 2
    assert np.allclose(table["logit_fake"] - table["logit_real"], [-np.log(3), np.log(3)])


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"label": [0], "score": [0.5]}, "none of the columns gender, race, group"),
        ({"label": [2], "score": [0.5], "race": ["white"]}, "'label', line 2"),
        ({"label": [0], "score": [5], "race": ["white"]}, "'score', line 2"),
        ({"score": [0.5], "race": ["white"]}, "no column 'label'"),
    ],
)
def test_unusable_tables_are_refused(tmp_path, columns, message):
    pd.DataFrame(columns).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(ScoreTableError, match=message):
        read_scores(tmp_path / "s.csv")
