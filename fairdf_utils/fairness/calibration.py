"""Does a score of 0.8 mean that eight in ten are fake, in every group? Reliability, ECE and Brier score.

Calibration depends on the share of fakes: a test set with as many fakes as reals says what the scores mean where half
of the images are fake, and groups with different shares are not calibrated alike even if the detector is blind to
them. The share stands in each table.
"""

import numpy as np
import pandas as pd

from fairdf_utils.fairness.auc import ratio
from fairdf_utils.fairness.metrics import as_arrays


def _binned(table, by, bins, fidelity):
    """The checked table, and per group and bin: images, fakes, sum of scores, sum of squared scores, (4, G, bins)."""
    if bins < 1:
        raise ValueError(f"{bins} bins asked for; ask for at least 1.")
    scored = as_arrays(table, by, 0.5, fidelity)
    bin_ = np.minimum((scored.score * bins).astype(np.int64), bins - 1)  # the last bin holds the score 1
    cell, size = scored.group * bins + bin_, len(scored.names) * bins
    sums = [np.bincount(cell, what, size) for what in (None, scored.label, scored.score, scored.score**2)]
    return scored, np.array(sums, np.float64).reshape(4, -1, bins)


def reliability(
    table: pd.DataFrame, by: str | None = None, bins: int = 10, fidelity: str = "corrected"
) -> pd.DataFrame:
    """The reliability curve: mean score and share of fakes in bins of equal width.

    `by` None takes all images together.

    Returns
    -------
    DataFrame
        Index (group, bin). Columns low, high (edges; the upper one belongs to the next bin, except 1), n (int), score
        (mean), fake_share; NaN where n = 0. Perfectly calibrated: fake_share near score.

    Source: DeGroot and Fienberg 1983.
    """
    scored, (n, fakes, score, _) = _binned(table, by, bins, fidelity)
    index = pd.MultiIndex.from_product([scored.names, range(bins)], names=[by or "group", "bin"])
    edges, groups = np.arange(bins + 1) / bins, len(scored.names)
    columns = {"low": np.tile(edges[:-1], groups), "high": np.tile(edges[1:], groups), "n": n.ravel().astype(int)}
    columns |= {"score": ratio(score, n).ravel(), "fake_share": ratio(fakes, n).ravel()}
    return pd.DataFrame(columns, index)


def calibration(
    table: pd.DataFrame, by: str | None = None, bins: int = 10, fidelity: str = "corrected"
) -> pd.DataFrame:
    """Calibration of each group in numbers (smaller is better, except resolution).

    - ece, the expected calibration error: sum_b n_b / n |share of fakes in b - mean score in b|. Never negative, and
      with few images well above zero by chance alone: compare groups of like n, or not at all.
    - brier: mean (score - label)^2 = reliability - resolution + uncertainty + within, exactly: reliability is the
      squared miscalibration of the bins, resolution the spread of their shares of fakes, uncertainty = p (1 - p) with
      p the share of fakes of the group, and within what the bins hide (see the source).

    Returns
    -------
    DataFrame
        One row a group: n, n_real, n_fake (int), fake_share, score (means), ece, brier, reliability, resolution,
        uncertainty, within; NaN where n = 0.

    Source: Naeini, Cooper and Hauskrecht 2015 (ECE); Murphy 1973; Stephenson, Coelho and Jolliffe 2008 (within).
    """
    scored, (n, fakes, score, squares) = _binned(table, by, bins, fidelity)
    images, share = n.sum(-1), ratio(fakes.sum(-1), n.sum(-1))
    of_fakes = np.bincount(scored.group, scored.label * scored.score, len(scored.names))
    brier = ratio(squares.sum(-1) - 2 * of_fakes + fakes.sum(-1), images)
    weight = n / np.maximum(images, 1)[:, None]
    off, spread = ratio(score, n) - ratio(fakes, n), ratio(fakes, n) - share[:, None]

    def mean(values):
        return np.where(images > 0, np.nansum(weight * values, axis=-1), np.nan)

    parts = {"reliability": mean(off**2), "resolution": mean(spread**2), "uncertainty": share * (1 - share)}
    within = brier - parts["reliability"] + parts["resolution"] - parts["uncertainty"]
    sizes = {"n": images, "n_real": images - fakes.sum(-1), "n_fake": fakes.sum(-1)}
    columns = {name: size.astype(int) for name, size in sizes.items()}
    columns |= {"fake_share": share, "score": ratio(score.sum(-1), images), "ece": mean(np.abs(off)), "brier": brier}
    return pd.DataFrame({**columns, **parts, "within": within}, index=pd.Index(scored.names, name=by or "group"))
