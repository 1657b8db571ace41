"""How many videos a group needs: what frames of one video are worth, and the interval that a number of videos gives.

The m frames of a video are near copies. If their errors correlate by rho, V videos are worth V m / (1 + (m - 1) rho)
independent images; the divisor is the design effect. With rho = 1 frames add nothing, with 0 each counts.

Source: Kish 1965, section 5.4 (design effect); Donner and Klar 2000 (numbers of clusters).
"""

from bisect import bisect_left

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from fairdf_utils.fairness.auc import ratio
from fairdf_utils.fairness.metrics import rate_interval
from fairdf_utils.fairness.resampling import Settings, clustered


def design_effects(table: pd.DataFrame, by: str, settings: Settings) -> pd.DataFrame:
    """What the frames of a video are worth for the FPR and the TPR of each group, estimated from the errors.

    Index (rate, group), rate "fpr" or "tpr", and last a row "pooled" inside groups; columns as in `worth`. With few
    clusters a group's own correlation is poorly known: plan with "pooled".
    """
    data, parts = clustered(table, by, settings), {}
    for label, rate in enumerate(("fpr", "tpr")):
        errors, sizes = data.cells[:, :, label, 1], data.cells[:, :, label].sum(-1)  # (C, G)
        columns = [worth(errors[:, [g]], sizes[:, [g]]) for g in range(sizes.shape[1])] + [worth(errors, sizes)]
        parts[rate] = pd.DataFrame(columns, index=[*data.scored.names, "pooled"])
    return pd.concat(parts, names=["rate", by]).astype({"clusters": int, "images": int})


def worth(errors: np.ndarray, sizes: np.ndarray) -> dict[str, float]:
    """How many independent images those of C clusters are worth, in K groups that are kept apart.

    `errors` and `sizes`, float64 (C, K), are images called wrongly (or fake), and all images.

    clusters, images, frames (mean of a cluster, larger ones counting more), rate, correlation (0..1; of errors inside a
    cluster), design_effect, effective (independent images that these are worth). NaN where it cannot be told: fewer
    than two clusters, or one frame in each (correlation), or no error at all.

    Source: Ridout, Demetrio and Firth 1999 (analysis-of-variance estimator of the intraclass correlation).
    """
    clusters, images, groups = (sizes > 0).sum(), sizes.sum(), (sizes.sum(0) > 0).sum()
    share, mean = ratio(errors, sizes), ratio(errors.sum(0), sizes.sum(0))
    between = np.nansum(sizes * (share - mean) ** 2)
    inside = np.nansum(errors * (1 - share))
    spread = np.nansum(ratio((sizes**2).sum(0), sizes.sum(0)))
    correlation, frames = np.nan, ratio((sizes**2).sum(), images)
    if clusters > groups and images > clusters and between + inside > 0:
        mean_between, mean_inside = between / (clusters - groups), inside / (images - clusters)
        usual = (images - spread) / (clusters - groups)  # clusters' size, as far as it tells the two apart
        correlation = ratio(mean_between - mean_inside, mean_between + (usual - 1) * mean_inside)
        correlation = float(np.clip(correlation, 0, 1))
    effect = 1.0 if images == clusters > 0 else 1 + (frames - 1) * correlation
    row = {"clusters": clusters, "images": images, "frames": frames, "rate": ratio(errors.sum(), images)}
    row |= {"correlation": correlation, "design_effect": effect, "effective": images / effect}
    return {name: float(value) for name, value in row.items()}


def interval_width(
    videos: ArrayLike, rate: float, frames: float = 1, correlation: float = 1.0, level: float = 0.95
) -> np.ndarray:
    """Width of the interval of a rate from V videos: Wilson's, on the images that they are worth.

    That of `uncertainty` knows the correlation from the videos alone: hardly wider for 30, up to a quarter for ten.

    `videos` is V, int or an array, `rate` the one expected, `frames` those of a video (m), and `correlation` (0..1)
    that of errors inside a video: 1 is the careful choice, `design_effects` estimates it. A fraction, NaN where V = 0.
    """
    if not 0 <= rate <= 1 or not 0 <= correlation <= 1 or frames < 1:
        raise ValueError(f"rate {rate}, correlation {correlation}, frames {frames}: two fractions, at least one frame.")
    effective = np.asarray(videos, np.float64) * frames / (1 + (frames - 1) * correlation)
    low, high = rate_interval(rate * effective, effective, level)
    return high - low


def videos_needed(width: float, rate: float, frames: float = 1, correlation: float = 1.0, level: float = 0.95) -> int:
    """The smallest number of videos with an interval no wider than `width` (a fraction); others as `interval_width`."""
    if not 0 < width <= 1:
        raise ValueError(f"width is {width}; the width of an interval of a rate is a fraction, above 0 and at most 1.")
    narrowness = lambda videos: -interval_width(videos, rate, frames, correlation, level)  # noqa: E731 - rises
    return bisect_left(range(10**15), -width, lo=1, key=narrowness)
