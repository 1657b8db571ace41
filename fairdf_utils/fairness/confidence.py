"""What the videos of one group tell of its rate: a curve of confidence, from which every interval of rates is read.

Frames of one video err together, nobody knows beforehand how much, and few videos hardly tell. So no one correlation
is taken for true: each is weighed by how well it explains the group's own videos. Nothing is borrowed from other
groups, whose frames may be more or less alike. `coverage` is the study that chose this.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import betainc, gammaln

from fairdf_utils.fairness.sample_size import worth

CORRELATIONS = np.linspace(0.05, 0.99, 11) ** 1.5  # 0.01 to 0.98: all of them may be true
POINTS = 121  # rates at which the curve is known
TINY = 1e-12  # of a hit: the beta distribution of none is the limit


@dataclass(frozen=True)
class Confidence:
    """How sure one can be that the rate is below each of K values: `below` rises from 0 to 1 over `rates`."""

    rates: np.ndarray  # float64 (K,)
    below: np.ndarray  # float64 (K,)
    effective: float  # independent images that the images are worth

    def quantile(self, chance: np.ndarray | float) -> np.ndarray:
        return np.interp(chance, self.below, self.rates)


def confidence(errors: np.ndarray, sizes: np.ndarray) -> Confidence:
    """`curve`, kept: an interval, a band and a difference ask for the same ones."""
    return _kept(np.ascontiguousarray(errors).tobytes(), np.ascontiguousarray(sizes).tobytes())


@lru_cache(maxsize=256)
def _kept(*given: bytes) -> Confidence:
    return curve(*map(np.frombuffer, given))


def curve(errors: np.ndarray, sizes: np.ndarray) -> Confidence:
    """The curve of one rate from `errors` among `sizes` images, float64 (C,), of each of C clusters that has images.

    If frames correlate by rho, the images are worth n of them, of which k err, and the confidence that the rate is
    below p is the mid-p-value of k or more among n. It is averaged over the CORRELATIONS, weighed at each p by the
    beta-binomial likelihood of the errors; none counts for less than the correlation that was measured.

    Source: Berry and Armitage 1995 (mid-p); Korn and Graubard 1998 (effective number); Skellam 1948 (beta-binomial).
    """
    known = worth(errors[:, None], sizes[:, None])
    images, frames, rate = known["images"], known["frames"], known["rate"]
    middle, reach = np.arcsin(np.sqrt(rate)), 3 * np.sqrt(frames / images)  # six standard errors, at the least
    rates = np.sin(np.linspace(max(middle - reach, 0), min(middle + reach, np.pi / 2), POINTS)) ** 2
    p = np.clip(rates, 1e-300, 1 - 1e-16)[:, None]
    fit = log_likelihood(errors, sizes, p, CORRELATIONS)  # (K, correlations)
    weight = np.exp(fit - fit.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    rho = np.maximum(CORRELATIONS, np.nan_to_num(known["correlation"]))
    n = images / (1 + (frames - 1) * rho)
    k, misses = np.maximum(rate * n, TINY), np.maximum(n - rate * n, TINY)
    below = (weight * (betainc(k, misses + 1, p) + betainc(k + 1, misses, p)) / 2).sum(1)
    likely = weight[np.abs(rates - rate).argmin()] @ rho
    return Confidence(rates, np.maximum.accumulate(below), images / (1 + (frames - 1) * likely))


def log_likelihood(errors: np.ndarray, sizes: np.ndarray, p: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Log-likelihood of errors in clusters under the beta-binomial with rates `p` (K, 1) and correlations `rho` (R,).

    (K, R), up to what depends on neither. The rates of the clusters are beta distributed with mean p and variance
    rho p (1 - p).
    """
    strength = 1 / rho - 1
    total = 0.0
    for counts, shape, sign in ((errors, p * strength, 1), (sizes - errors, (1 - p) * strength, 1),
                                (sizes, strength[None], -1)):  # fmt: skip
        values, times = np.unique(counts, return_counts=True)
        total = total + sign * ((gammaln(shape[..., None] + values) - gammaln(shape)[..., None]) @ times)
    return total


def drawn_tables(cells: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Tables of the clusters `cells` (C, G, 2, 2) together (row 0), and B that may be the truth: (1 + B, G, 2, 2).

    Their sizes are those of row 0, the shares called fake those of which the curves are as sure as the uniform numbers
    `chance` (label 2, B, G) say.
    """
    images, counts = cells.sum(-1), np.repeat(cells.sum(0)[None], 1 + chance.shape[1], axis=0)
    for label, group in zip(*np.nonzero(images.sum(0).T), strict=True):
        own = images[:, group, label] > 0
        curve = confidence(cells[own, group, label, 1], images[own, group, label])
        fake = images[:, group, label].sum() * curve.quantile(chance[label, :, group])
        counts[1:, group, label] = np.stack([images[:, group, label].sum() - fake, fake], axis=-1)
    return counts
