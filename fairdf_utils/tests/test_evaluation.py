"""Scores do not depend on how they are computed, and survive being written."""

import numpy as np
import pandas as pd
import pytest
import torch

from fairdf_utils.data import decode
from fairdf_utils.evaluation import predict, score_table
from fairdf_utils.model import FairDetector
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
