"""The area under the ROC curve, P(a fake scores higher than a real): of many groups, or many weightings, at once.

Ties count one half (Hanley and McNeil 1982). Everything here takes plain arrays: label (1 = fake), score, and integer
codes of the groups or clusters.
"""

import numpy as np

BLOCK = 100_000  # images whose numbers stay in a core's cache


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


def rankings(label: np.ndarray, score: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Weights and orders of the images by score, int (<= n,): what is won in them adds up to ties that count half.

    The first order is of all images, fakes before reals of their score; the others, of those that tie alone, say how
    much more is won if the reals come first.
    """
    fakes_first, reals_first = (np.lexsort((last, score)) for last in (label == 0, label == 1))
    run = np.unique(score, return_inverse=True)[1]
    share = np.bincount(run, label) / np.bincount(run)
    tied = ((share > 0) & (share < 1))[run]
    return [(1.0, fakes_first), (0.5, reals_first[tied[reals_first]]), (-0.5, fakes_first[tied[fakes_first]])]


def dealt_auc(ranked: list[tuple[float, np.ndarray]], cells: np.ndarray, groups: int) -> np.ndarray:
    """AUC of each group under B ways to deal units out to groups: (B, G), NaN where one lacks a class.

    `ranked` are weights and the units of the images in the order of `rankings`; `cells` (units, B) are 2 * group +
    label. BLOCK images at a time, which stay in the cache, are sorted by group and counted in whole numbers.
    """
    cells = cells.T.astype(np.min_scalar_type(2 * groups))  # (B, units)
    result, deals = np.empty((len(cells), groups)), max(1, BLOCK // len(ranked[0][1]))
    for first in range(0, len(cells), deals):
        some = cells[first : first + deals]
        row, wins, pairs = 2 * groups * np.arange(len(some))[:, None], 0.0, None
        for weight, unit in ranked:
            reals, fakes = np.zeros((2, len(some), groups), np.int64)  # of the blocks before
            for start in range(0, len(unit), BLOCK):
                dealt = np.take(some, unit[start : start + BLOCK], axis=1)  # (deals, images)
                sizes = np.bincount((dealt + row).ravel(), minlength=2 * groups * len(some)).reshape(-1, groups, 2)
                order = np.argsort(dealt >> 1, axis=1, kind="stable")  # a radix sort
                fake = np.take_along_axis(dealt, order, axis=1).ravel() & 1  # deal by deal, group by group
                below = np.cumsum(fake == 0, dtype=np.int32)  # reals of this block up to each image
                won = np.append(0, np.cumsum(below * fake, dtype=np.int64))
                ends = np.cumsum(sizes.sum(-1)).reshape(sizes.shape[:2])
                more, hits = sizes[..., 0], sizes[..., 1]
                before = np.cumsum(more).reshape(more.shape) - more  # those of other groups and deals
                wins = wins + weight * (won[ends] - won[ends - more - hits] + hits * (reals - before))
                reals, fakes = reals + more, fakes + hits
            pairs = (fakes * reals).astype(np.float64) if pairs is None else pairs  # of all images
        result[first : first + deals] = ratio(wins, pairs)
    return result
