"""The area under the ROC curve, P(a fake scores higher than a real): of many groups, or many weightings, at once.

Ties count one half (Hanley and McNeil 1982). Everything here takes plain arrays: label (1 = fake), score, and integer
codes of the groups or clusters.
"""

import numpy as np


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where `whole` is not above zero."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def segment_auc(segment: np.ndarray, segments: int, label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """AUC inside each segment (codes 0..segments-1), from one sort of all scores; NaN where one lacks a class.

    Source: Mann and Whitney 1947 (from the sum of the fakes' ranks, tied ones at their mean rank).
    """
    order = np.argsort(score)
    small = segment[order].astype(np.int16 if segment.max() < 2**15 else np.int64)  # 16 bits are sorted by radix
    order = order[np.argsort(small, kind="stable")]
    own, score, fake = segment[order], score[order], label[order] == 1
    starts = np.flatnonzero(np.append(True, (own[1:] != own[:-1]) | (score[1:] != score[:-1])))  # of runs of one score
    ends = np.append(starts[1:], len(order))
    rank = np.repeat((starts + ends + 1) / 2, ends - starts)  # from 1, over all segments
    images, fakes = np.bincount(own, minlength=segments), np.bincount(own[fake], minlength=segments)
    ranks = np.bincount(own[fake], rank[fake], segments) - fakes * (np.cumsum(images) - images)
    return ratio(ranks - fakes * (fakes + 1) / 2, fakes * (images - fakes).astype(np.float64))


def auc_plan(label: np.ndarray, score: np.ndarray, unit: np.ndarray, chosen: np.ndarray) -> tuple:
    """What the AUC of any weighting of the units needs, sorted once: see `weighted_auc`. `chosen` is bool (n,)."""
    fakes, reals = np.flatnonzero(chosen & (label == 1)), np.flatnonzero(chosen & (label == 0))
    fakes, reals = fakes[np.argsort(score[fakes])], reals[np.argsort(score[reals])]
    below = np.searchsorted(score[reals], score[fakes], "left")
    up_to = np.searchsorted(score[reals], score[fakes], "right")
    return unit[fakes], unit[reals], below, up_to


def weighted_auc(plan: tuple, weights: np.ndarray) -> np.ndarray:
    """AUC under B weightings of the units at once: (B,), NaN where a class has no weight. `weights` is (units, B)."""
    fake_unit, real_unit, below, up_to = plan
    fakes = weights[fake_unit]  # (n_fake, B)
    reals = np.zeros((len(real_unit) + 1, weights.shape[1]))
    np.cumsum(weights[real_unit], axis=0, out=reals[1:])  # weight of the reals up to each rank
    if np.array_equal(below, up_to):  # no ties: half the memory traffic
        wins = np.einsum("fb,fb->b", fakes, reals[below])
    else:
        wins = np.einsum("fb,fb->b", fakes, reals[below] + reals[up_to]) / 2
    return ratio(wins, fakes.sum(0) * reals[-1])
