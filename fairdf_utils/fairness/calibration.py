"""Does a score of 0.8 mean that eight in ten are fake, in every group? Reliability, ECE and Brier score.

Calibration depends on the share of fakes: a test set with as many fakes as reals says what the scores mean where half
of the images are fake, and groups with different shares are not calibrated alike even if the detector is blind to
them. The share stands in each table. `by` None takes all images together.
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


def reliability(table: pd.DataFrame, by: str | None = None, bins: int = 10) -> pd.DataFrame:
    """The reliability curve: mean score and share of fakes in bins of equal width.

    Index (group, bin); columns low, high (edges; the upper one belongs to the next bin, except 1), n (int), score
    (mean), fake_share; NaN where n = 0. Perfectly calibrated: fake_share near score.

    Source: DeGroot and Fienberg 1983.
    """
    scored, (n, fakes, score, _) = _binned(table, by, bins, "corrected")
    index = pd.MultiIndex.from_product([scored.names, range(bins)], names=[by or "group", "bin"])
    bin_ = index.get_level_values("bin")
    columns = {"low": bin_ / bins, "high": (bin_ + 1) / bins, "n": n.ravel().astype(int)}
    return pd.DataFrame({**columns, "score": ratio(score, n).ravel(), "fake_share": ratio(fakes, n).ravel()}, index)


def calibration(
    table: pd.DataFrame, by: str | None = None, bins: int = 10, fidelity: str = "corrected"
) -> pd.DataFrame:
    """Calibration of each group in numbers (smaller is better, except resolution).

    - ece, the expected calibration error: sum_b n_b / n |share of fakes in b - mean score in b|. Never negative, and
      with few images well above zero by chance alone: compare groups of like n, or not at all.
    - brier: mean (score - label)^2 = reliability - resolution + uncertainty + within, exactly: reliability is the
      squared miscalibration of the bins, resolution the spread of their shares of fakes, uncertainty = p (1 - p) with
      p the share of fakes of the group, and within what the bins hide (see the source).

    One row a group; before these n, n_real, n_fake (int), fake_share and score (means). NaN where n = 0.

    Source: Naeini, Cooper and Hauskrecht 2015 (ECE); Murphy 1973; Stephenson, Coelho and Jolliffe 2008 (within).
    """
    scored, sums = _binned(table, by, bins, fidelity)
    (n, fakes, score, _), (images, all_fakes, scores, squares) = sums, sums.sum(-1)
    of_fakes = np.bincount(scored.group, scored.label * scored.score, len(scored.names))
    share, brier = ratio(all_fakes, images), ratio(squares - 2 * of_fakes + all_fakes, images)
    weight = n / np.maximum(images, 1)[:, None]
    off, spread = ratio(score, n) - ratio(fakes, n), ratio(fakes, n) - share[:, None]
    ece, reliable, resolved = (
        np.where(images > 0, np.nansum(weight * values, axis=-1), np.nan) for values in (np.abs(off), off**2, spread**2)
    )
    uncertainty = share * (1 - share)
    sizes = {"n": images, "n_real": images - all_fakes, "n_fake": all_fakes}
    columns = {name: size.astype(int) for name, size in sizes.items()}
    columns |= {"fake_share": share, "score": ratio(scores, images), "ece": ece, "brier": brier}
    columns |= {"reliability": reliable, "resolution": resolved, "uncertainty": uncertainty}
    columns["within"] = brier - reliable + resolved - uncertainty
    return pd.DataFrame(columns, index=pd.Index(scored.names, name=by or "group"))
