"""Scores do not depend on how they are computed, and survive being written."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fairdf_utils.data import decode
from fairdf_utils.evaluation import predict, score_table, scoring_copy
from fairdf_utils.model import FairDetector, PlainDetector, TwoEncoderDetector
from fairdf_utils.scores import SCORE_COLUMNS, ScoreTableError, read_scores, write_scores

CPU = torch.device("cpu")


@pytest.fixture
def scored(test_set, corpus, tmp_path):
    torch.manual_seed(0)
    model = FairDetector(backbone="tiny", image_size=16, width=16)
    images = decode(test_set, corpus / "images", 16, tmp_path)
    return model, images, predict(model, images, CPU)


def test_predictions_do_not_depend_on_the_batch_size(scored):
    model, images, logits = scored
    assert np.allclose(predict(model, images, CPU, batch_size=3), logits, atol=1e-5)


def test_predictions_are_in_evaluation_mode_and_the_mode_is_restored(scored):
    model, images, logits = scored
    assert model.training
    assert np.array_equal(predict(model, images, CPU), logits), "no dropout, no batch statistics"


def test_bfloat16_stays_close(scored):
    model, images, logits = scored
    assert np.allclose(predict(model, images, CPU, "bfloat16"), logits, atol=0.05)


# The fast form of a detector


def unlike_fresh(model):
    """Batch norms with the statistics and weights of a trained model, not 0 and 1; evaluation mode."""
    torch.manual_seed(1)
    for norm in norms_of(model):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.1)
    return model.eval()


def norms_of(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def assert_same_logits(model, image_size, **tolerance):
    images = torch.rand(2, 3, image_size, image_size) * 2 - 1
    with torch.inference_mode():
        fast, slow = scoring_copy(model, image_size).detect(images), model.detect(images)
    torch.testing.assert_close(fast, slow, **({"rtol": 1e-4, "atol": 1e-6} | tolerance))


@pytest.mark.parametrize(
    "model",
    [
        FairDetector("tiny", 32, 16),
        FairDetector("tiny", 32, 16, fidelity="official"),
        TwoEncoderDetector(True, "tiny", 32, 16),
        TwoEncoderDetector(False, "tiny", 32, 16),
        PlainDetector("tiny", 32, 16),
    ],
    ids=["corrected", "official", "without groups", "ucf", "plain"],
)
def test_every_detector_keeps_its_logits(model):
    assert_same_logits(unlike_fresh(model), 32)


# Up to stride 16, DenseNet has 6 + 12 + 24 layers and 2 transitions that normalise a concatenation; the 6 blocks of
# a pre-activation ResNet normalise a sum.
@pytest.mark.parametrize(
    "backbone, size, left",
    [
        ("legacy_xception", 256, 0),
        ("resnet18", 64, 0),
        ("efficientnet_b0", 256, 0),
        ("densenet121", 128, 6 + 12 + 24 + 2),
        ("resnetv2_18", 128, 6),
        ("convnext_atto", 64, 0),
    ],
)
def test_batch_norms_of_any_backbone_are_folded_where_they_can_be(backbone, size, left):
    model = unlike_fresh(PlainDetector(backbone, size, 16))
    assert len(norms_of(scoring_copy(model, size))) == left
    assert_same_logits(model, size)


def test_only_the_encoders_that_answer_are_prepared():
    model = FairDetector("tiny", 16, 16, fidelity="official")
    fast = scoring_copy(model, 16)
    assert not norms_of(fast.forgery) and norms_of(fast.content) and norms_of(fast.demographic)


class Odd(nn.Module):
    """A detector none of whose batch norms may be folded."""

    def __init__(self):
        super().__init__()
        self.twice, self.after_twice = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.shared, self.norm = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)
        self.bare, self.batch = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)
        self.between = nn.BatchNorm2d(2)

    def detect(self, images):
        maps = self.after_twice(self.twice(self.twice(images)))
        maps = self.shared(maps)
        maps = maps + self.norm(maps)  # the convolution's own result is needed too
        maps = self.batch(self.bare(maps))
        return self.between(maps.relu()).mean((2, 3))


def test_a_batch_norm_that_cannot_be_folded_stays():
    torch.manual_seed(0)
    model = Odd()
    for norm in (model.after_twice, model.norm, model.between):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    model.eval()
    assert len(norms_of(scoring_copy(model, 16))) == 4
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
        assert not norms_of(scoring_copy(model, 16).forgery)
        assert np.array_equal(predict(model, images, CPU), logits)


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
    with pytest.raises(OSError, match="No space left"):
        write_scores(table.assign(score=0.0), tmp_path)
    assert len(read_scores(tmp_path / "scores.parquet")) == len(table)


def test_missing_table_names_the_chapter(tmp_path):
    with pytest.raises(FileNotFoundError, match="chapter 04 writes one"):
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
        ({"label": [2], "score": [0.5], "race": ["white"]}, "'label', row 0"),
        ({"label": [0], "score": [5], "race": ["white"]}, "'score', row 0"),
        ({"score": [0.5], "race": ["white"]}, "no column 'label'"),
    ],
)
def test_unusable_tables_are_refused(tmp_path, columns, message):
    pd.DataFrame(columns).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(ScoreTableError, match=message):
        read_scores(tmp_path / "s.csv")
