"""Contingency tables of clusters (videos, identities), of all their resamples, and of all but one of them.

Frames of one video are near copies, so whole clusters are drawn. One matrix product of how often each cluster is
drawn with the clusters' tables gives the tables of all resamples at once.
"""

from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd

from fairdf_utils.fairness.auc import auc_plan, leave_one_out_auc, weighted_auc
from fairdf_utils.fairness.metrics import Scored, as_arrays, cluster_codes, contingency
from fairdf_utils.fairness.score_table import ScoreTableError, column

CACHED = 64_000  # float64 numbers that stay in a core's cache: drawing is then twice as fast


@dataclass(frozen=True)
class Clustered:
    """A checked score table in C clusters, which are numbered stratum by stratum."""

    scored: Scored
    unit: np.ndarray  # int64 (n,), cluster of each image
    cells: np.ndarray  # float64 (C, G, 2, 2): counts[cluster, group, label, predicted]
    members: np.ndarray  # int64 (S,), clusters in each stratum, none of them empty

    @property
    def strata(self):
        """Stratum of each cluster, (C,)."""
        return np.repeat(np.arange(len(self.members)), self.members)


def clustered(table, by, threshold, fidelity, cluster):
    """Check a score table and sort its clusters into strata: the group and label of most of their images."""
    scored, unit = as_arrays(table, by, threshold, fidelity), cluster_codes(table, cluster)
    cells = contingency(scored, unit, unit.max() + 1)
    strata = cells.sum(-1).reshape(len(cells), -1).argmax(-1)
    order = np.argsort(strata, kind="stable")
    members = np.bincount(strata)
    return Clustered(scored, np.argsort(order)[unit], cells[order], members[members > 0])


def aligned(table_a, table_b, shared):
    """The rows of B in the order of A, matched by data set and image path; ScoreTableError if they do not match.

    `shared` are columns in which both must agree.
    """
    keys = ["dataset", "img_path"] if "dataset" in table_a.columns else ["img_path"]
    indexes = []
    for name, table in (("first", table_a), ("second", table_b)):
        index = pd.MultiIndex.from_arrays([column(table, key) for key in keys])
        if index.has_duplicates:
            row = index.duplicated().argmax()
            raise ScoreTableError(
                f"The {name} table lists {index[row][-1]} twice (row {row}, counted from 0): keep one row."
            )
        indexes.append(index)
    rows = indexes[1].get_indexer(indexes[0])
    if (rows < 0).any() or len(table_a) != len(table_b):
        only = indexes[0][rows < 0] if (rows < 0).any() else indexes[1].difference(indexes[0])
        raise ScoreTableError(
            f"The two tables do not hold the same images: {only[0][-1]} is in one only. "
            "Score one test set with both detectors."
        )
    table_b = table_b.iloc[rows]
    for name in shared:
        differs = column(table_a, name).to_numpy() != column(table_b, name).to_numpy()
        if differs.any():
            row = differs.argmax()
            raise ScoreTableError(
                f"Column '{name}' of {indexes[0][row][-1]} differs between the two tables "
                f"({table_a[name].iloc[row]}, {table_b[name].iloc[row]}): score both from one manifest."
            )
    return table_b


def chunks(count, width, budget=1_000_000):
    """Sizes that add up to `count`, each so small that (size, width) float64 stays near `budget` numbers."""
    if count < 1:
        raise ValueError(f"{count} resamples or permutations asked for; ask for at least 1.")
    size = max(1, min(count, budget // width))
    return [size] * (count // size) + ([count % size] if count % size else [])


def drawn_weights(members, sizes, seed):
    """How often each cluster is drawn: one float64 (clusters, b) for each b of `sizes`.

    `members` (S,) are the clusters of each stratum, in order; in every column each stratum keeps its number. The
    draws do not depend on how they are cut into sizes.
    """
    rng, clusters = np.random.default_rng(seed), members.sum()
    span = np.repeat(members, members).astype(np.float64)
    first = np.repeat(np.cumsum(members) - members, members)
    for size in sizes:
        place = (rng.random((size, clusters)) * span).astype(np.int64)  # inside the stratum
        place *= size
        place += first * size + np.arange(size)[:, None]  # of (cluster, column)
        yield np.bincount(place.ravel(), minlength=clusters * size).reshape(clusters, size).astype(np.float64)


def resampled_tables(data, resamples, seed, auc):
    """Tables of the data (row 0) and of its resamples.

    Parameters
    ----------
    data : Clustered
    resamples : int, B
    auc : bool

    Returns
    -------
    counts : float64 (1 + B, G, 2, 2)
    auc : float64 (1 + B, G + 1), last that of all images together; None if not asked for

    Source: Field and Welsh 2007 (cluster bootstrap).
    """
    cells = data.cells.reshape(len(data.cells), -1)  # (C, G * 4)
    plans = _plans(data) if auc else []
    sizes = chunks(resamples, len(data.unit)) if auc else chunks(resamples, len(cells), CACHED)
    counts, aucs = [], []
    for weights in chain([np.ones((len(cells), 1))], drawn_weights(data.members, sizes, seed)):
        counts.append((weights.T @ cells).reshape(-1, *data.cells.shape[1:]))
        if auc:
            aucs.append(np.stack([weighted_auc(plan, weights) for plan in plans], axis=-1))
    return np.concatenate(counts), np.concatenate(aucs) if auc else None


def _plans(data):
    """For the AUC of each group and of all images."""
    scored = data.scored
    chosen = [*(scored.group == code for code in range(len(scored.names))), np.ones(len(data.unit), bool)]
    return [auc_plan(scored.label, scored.score, data.unit, rows) for rows in chosen]


def tables_without_one(data, auc):
    """Tables without each cluster in turn (jackknife): counts (C, G, 2, 2), AUC (C, G + 1) or None."""
    counts = data.cells.sum(0) - data.cells
    if not auc:
        return counts, None
    scored, units = data.scored, len(data.cells)
    groups = leave_one_out_auc(data.unit, units, scored.group, len(scored.names), scored.label, scored.score)
    whole = leave_one_out_auc(data.unit, units, np.zeros_like(scored.group), 1, scored.label, scored.score)
    return counts, np.concatenate([groups, whole], axis=1)
