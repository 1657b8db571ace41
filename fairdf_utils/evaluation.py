"""Scores: from a detector and a manifest to the score table, the seam between detection and fairness analysis."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from fairdf_utils import progress
from fairdf_utils.data import to_device
from fairdf_utils.model import score
from fairdf_utils.scores import SCORE_COLUMNS


@torch.inference_mode()
def predict(
    model: torch.nn.Module,
    images: np.ndarray,
    device: torch.device,
    precision: str = "float32",
    batch_size: int = 256,
) -> np.ndarray:
    """Logits of the detector's answer for decoded images, in evaluation mode; the model's mode is restored.

    Parameters
    ----------
    model : a detector with `detect(images) -> (N, 2)`
    images : uint8 (N, H, H, 3)
    precision : "float32" or "bfloat16" (autocast)

    Returns
    -------
    float32 array (N, 2): logit of real, logit of fake
    """
    was_training = model.training
    model.eval()
    logits = []
    starts = range(0, len(images), batch_size)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        for start in progress.bar(starts, desc="score", unit="batch", leave=False):
            logits.append(model.detect(to_device(images[start : start + batch_size], device)).float().cpu())
    model.train(was_training)
    return torch.cat(logits).numpy()


def score_table(frame: pd.DataFrame, logits: np.ndarray, fidelity: str = "corrected") -> pd.DataFrame:
    """One row an image (`SCORE_COLUMNS`): the manifest's annotations, the two logits and score = P(fake)."""
    table = frame.assign(
        logit_real=logits[:, 0],
        logit_fake=logits[:, 1],
        score=score(torch.from_numpy(logits), fidelity).numpy(),
    )
    return table[list(SCORE_COLUMNS)].reset_index(drop=True)
