"""The area under the ROC curve, P(a fake scores higher than a real), of many groups at once, and how sure it is.

Ties count one half (Hanley and McNeil 1982). Everything here takes plain arrays: label (1 = fake), score, and integer
codes of the groups and clusters. Nothing is resampled: one sort says how far each cluster moves each AUC.
"""

from dataclasses import dataclass

import numpy as np

PRIOR = 2  # clusters of each class that the spread expected beforehand is worth


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where `whole` is not above zero."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def placements(segment: np.ndarray, segments: int, label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The share of the other class of its segment that each image is on the right side of: float64 (n,), ties one half.

    For a fake the reals below it, for a real the fakes above it; the mean of either class is the AUC of the segment
    (codes 0..segments-1). From one sort of all scores; NaN where a segment lacks the other class.

    Source: DeLong, DeLong and Clarke-Pearson 1988.
    """
    order = np.argsort(score)
    small = segment[order].astype(np.int16 if segment.max() < 2**15 else np.int64)  # 16 bits are sorted by radix
    order = order[np.argsort(small, kind="stable")]
    own, score, fake = segment[order], score[order], label[order] == 1
    starts = np.flatnonzero(np.append(True, (own[1:] != own[:-1]) | (score[1:] != score[:-1])))  # of runs of one score
    ends = np.append(starts[1:], len(order))
    images, fakes = np.bincount(own, minlength=segments), np.bincount(own[fake], minlength=segments)
    up_to = np.append(0, np.cumsum(fake))
    below = (starts + ends) / 2 - (np.cumsum(images) - images)[own[starts]]  # images below, and half of the run
    fakes_below = (up_to[starts] + up_to[ends]) / 2 - (np.cumsum(fakes) - fakes)[own[starts]]
    below, fakes_below = (np.repeat(each, ends - starts) for each in (below, fakes_below))
    result = np.empty(len(order))
    won = np.where(fake, below - fakes_below, fakes[own] - fakes_below)
    result[order] = ratio(won, np.where(fake, (images - fakes)[own], fakes[own]))
    return result


def segment_auc(segment: np.ndarray, segments: int, label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """AUC inside each segment (codes 0..segments-1): (segments,), NaN where one lacks a class."""
    fake = label == 1
    won = np.bincount(segment[fake], placements(segment, segments, label, score)[fake], segments)
    return ratio(won, np.bincount(segment[fake], minlength=segments))


@dataclass(frozen=True)
class ClusteredAuc:
    """The AUC of G groups of images that come in C clusters, and what is known of it; NaN where a group lacks a class.

    Under weights w (C,) of the clusters the AUC is `estimate + influence.T @ (w - 1)`, but for terms of second order.
    """

    estimate: np.ndarray  # (G,)
    influence: np.ndarray  # (C, G), adds up to zero
    clusters: np.ndarray  # (G,), harmonic mean of the numbers of those with reals and of those with fakes
    effective: np.ndarray  # (G,), its variance is AUC (1 - AUC) / effective, as that of a rate of so many images
    freedom: np.ndarray  # (G,), degrees of freedom of that variance

    def noise(self, draws: int, seed: int) -> np.ndarray:
        """Errors of the AUCs in units of their standard errors, drawn by Student's t: (draws, G)."""
        freedom = np.nan_to_num(self.freedom, nan=1.0)
        return np.random.default_rng(seed).standard_t(freedom, (draws, len(freedom)))

    def drawn_alike(self, draws: int, seed: int) -> np.ndarray:
        """AUCs of groups that are truly alike, each with the spread of its own clusters: (draws, G)."""
        known = ~np.isnan(self.estimate)
        common = np.average(self.estimate[known], weights=self.clusters[known]) if known.any() else np.nan
        alike = common + np.sqrt(common * (1 - common) / self.effective) * self.noise(draws, seed)
        return np.where(known, np.clip(alike, 0, 1), np.nan)


def clustered_auc(
    group: np.ndarray, groups: int, label: np.ndarray, score: np.ndarray, unit: np.ndarray, units: int
) -> ClusteredAuc:
    """AUC of each group (codes 0..groups-1), with the variance between whole clusters (`unit`, codes 0..units-1).

    Few clusters may look more alike than they are, so the variance of the placements of each class is drawn, by PRIOR
    clusters, towards that of clusters which are wholly on one side. Where all are on the right side they tell nothing
    of it: so a class counts for as many clusters as have losses, or wins if these are fewer.

    Source: Obuchowski 1997 (clusters); Smyth 2004 (variances of few, drawn towards an expected one).
    """
    shape = (2, units, groups)
    cell = (label * units + unit) * groups + group
    placed = placements(group, groups, label, score)
    images, won = (np.bincount(cell, what, np.prod(shape)).reshape(shape) for what in (None, placed))
    number, clusters = images.sum(1), np.maximum((images > 0).sum(1), 1)  # (class, G)
    estimate = ratio(won[1].sum(0), number[1])
    influence = (won - images * estimate) / np.maximum(number, 1)[:, None]
    influence *= np.sqrt(clusters / np.maximum(clusters - 1, 1))[:, None]
    squares, free = (influence**2).sum(1), clusters - 1 + PRIOR
    single = np.tile(estimate * (1 - estimate), (2, 1))  # variance of one image
    telling = np.minimum((won > 0).sum(1), (won < images).sum(1))
    seen = np.divide(squares, single, out=0 * single, where=single > 0) * telling / (telling + PRIOR)
    prior = PRIOR / (telling + PRIOR) / (2 * clusters)
    influence = influence.sum(0)
    together = np.nan_to_num(ratio((influence**2).sum(0), squares.sum(0)), nan=1.0)  # clusters of both classes
    freedom = ratio((seen + prior).sum(0) ** 2, ((seen + prior) ** 2 / free).sum(0))
    effective = 1 / (seen.sum(0) * together + prior.sum(0))
    return ClusteredAuc(estimate, influence, 2 / (1 / clusters).sum(0), effective, freedom)
