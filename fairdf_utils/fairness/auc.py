"""The area under the ROC curve, P(a fake scores higher than a real): of many groups, or many weightings, at once.

Ties count one half (Hanley and McNeil 1982). Everything here takes plain arrays: label (1 = fake), score, and integer
codes of the groups or clusters.
"""

import numpy as np


def ratio(part, whole):
    """part / whole, NaN where `whole` is not above zero."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _sorted_runs(segment, score):
    """Order of the images by segment and score, and where runs of one score in one segment start and end."""
    order = np.argsort(score)
    small = segment[order].astype(np.int16 if segment.max() < 2**15 else np.int64)  # 16 bits are sorted by radix
    order = order[np.argsort(small, kind="stable")]
    segment, score = segment[order], score[order]
    fresh = np.append(True, (segment[1:] != segment[:-1]) | (score[1:] != score[:-1]))
    starts = np.flatnonzero(fresh)
    return order, starts, np.append(starts[1:], len(order))


def segment_auc(segment, segments, label, score):
    """AUC inside each segment, (segments,), from one sort of all scores; NaN where a segment lacks a class.

    Parameters
    ----------
    segment : int (n,)
        Codes 0..segments-1: comparisons never leave a segment.
    label : int (n,), 1 = fake
    score : float (n,)

    Source: Mann and Whitney 1947 (from the sum of the fakes' ranks, tied ones at their mean rank).
    """
    order, starts, ends = _sorted_runs(segment, score)
    rank = np.repeat((starts + ends + 1) / 2, ends - starts)  # from 1, over all segments
    own, fake = segment[order], label[order] == 1
    images, fakes = np.bincount(own, minlength=segments), np.bincount(own[fake], minlength=segments)
    ranks = np.bincount(own[fake], rank[fake], segments) - fakes * (np.cumsum(images) - images)
    return ratio(ranks - fakes * (fakes + 1) / 2, fakes * (images - fakes).astype(np.float64))


def placements(segment, label, score):
    """How many images of the other class in its own segment each image is on the right side of: float64 (n,).

    A fake counts the reals that score lower, a real the fakes that score higher; a tie counts one half. Parameters
    as in `segment_auc`.

    Source: DeLong, DeLong and Clarke-Pearson 1988 (the "placement values", here times the size of the other class).
    """
    order, starts, ends = _sorted_runs(segment, score)
    segment, fake = segment[order], label[order] == 1
    reals = np.append(0, np.cumsum(~fake))  # among the first 0..n images
    reals_to_middle = (reals[starts] + reals[ends]) / 2  # of a run: half of its ties count
    fakes_to_middle = (starts + ends) / 2 - reals_to_middle
    new_segment = np.append(True, segment[1:] != segment[:-1])
    edges, own = np.append(np.flatnonzero(new_segment), len(order)), np.cumsum(new_segment)[starts] - 1
    below = reals_to_middle - reals[edges[own]]
    above = (edges[own + 1] - reals[edges[own + 1]]) - fakes_to_middle
    run = np.repeat(np.arange(len(starts)), ends - starts)
    placed = np.empty(len(order))
    placed[order] = np.where(fake, below[run], above[run])
    return placed


def leave_one_out_auc(unit, units, segment, segments, label, score):
    """AUC inside each segment without each cluster in turn, (units, segments), from two sorts in all.

    A cluster takes its own comparisons with it: those of its fakes, those of its reals, and once too often those
    between the two, which are given back.
    """
    key = unit * segments + segment
    fake, shape = label == 1, (units, segments)
    _, cell = np.unique(key, return_inverse=True)
    placed, inside = placements(segment, label, score), placements(cell, label, score)
    lost = np.bincount(key, placed, units * segments) - np.bincount(key[fake], inside[fake], units * segments)
    fakes = np.bincount(key[fake], minlength=units * segments).reshape(shape)
    reals = np.bincount(key[~fake], minlength=units * segments).reshape(shape)
    wins = np.bincount(segment[fake], placed[fake], segments) - lost.reshape(shape)
    return ratio(wins, (fakes.sum(0) - fakes) * (reals.sum(0) - reals).astype(np.float64))


def auc_plan(label, score, unit, chosen):
    """What the AUC of any weighting of the units needs, sorted once: see `weighted_auc`. `chosen` is bool (n,)."""
    fakes, reals = np.flatnonzero(chosen & (label == 1)), np.flatnonzero(chosen & (label == 0))
    fakes, reals = fakes[np.argsort(score[fakes])], reals[np.argsort(score[reals])]
    below = np.searchsorted(score[reals], score[fakes], "left")
    up_to = np.searchsorted(score[reals], score[fakes], "right")
    return unit[fakes], unit[reals], below, up_to


def weighted_auc(plan, weights):
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
