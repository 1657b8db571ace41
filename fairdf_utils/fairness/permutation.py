"""How often chance alone would show a difference between groups: p-values and floors from groups that are dealt anew.

Dealing the groups out anew among the clusters of a class gives the tables of a detector that is blind to the groups.
"""

from itertools import chain

import numpy as np
import pandas as pd

from fairdf_utils.fairness import metrics
from fairdf_utils.fairness.metrics import Scored, as_arrays, cluster_codes, contingency
from fairdf_utils.fairness.resampling import Settings, auc_of, chunks, clustered, told


def permuted_tables(table: pd.DataFrame, by: str, settings: Settings) -> np.ndarray:
    """Tables of the data (row 0) and of its groups dealt out anew among the clusters of each class.

    A cluster keeps its images together; one with several labels or groups is first split into parts that have one of
    each. float64 (1 + permutations, G, 2, 2).
    """
    scored = as_arrays(table, by, settings.threshold, settings.fidelity)
    parts = np.stack([cluster_codes(table, settings.cluster), scored.label, scored.group], axis=1)
    parts, unit = np.unique(parts, axis=0, return_inverse=True)
    pooled = Scored(scored.label, scored.score, scored.predicted, np.zeros_like(scored.group), ["all"])
    cells = contingency(pooled, unit, len(parts)).reshape(-1, 4)  # (U, 4): label, predicted
    rng, counts = np.random.default_rng(settings.seed), []
    sizes = chunks(settings.permutations, len(parts))
    for size in chain([0], told(sizes, "dealing")):
        codes = np.repeat(parts[:, 2:], max(size, 1), axis=1)  # (U, b): first the table itself
        for rows in (parts[:, 1] == label for label in (0, 1) if size):
            codes[rows] = rng.permuted(codes[rows], axis=0)
        members = [(codes == code).astype(np.float64) for code in range(len(scored.names))]
        counts.append(np.stack([(m.T @ cells).reshape(-1, 2, 2) for m in members], axis=1))
    return np.concatenate(counts)


def sampling_floor(table: pd.DataFrame, by: str, settings: Settings, auc: bool = True) -> pd.DataFrame:
    """What the metrics would show, from sampling alone, if the groups made no difference.

    Group labels are permuted among clusters of the same label; a cluster keeps its images together. Gaps are never
    negative, so even a perfectly group-blind detector shows some; with few clusters a group it shows a lot. Groups can
    have the same AUC and unlike scores; theirs are drawn from a common AUC, each with the spread of its own clusters.

    Index METRICS, without auc_gap if not `auc`; columns estimate (of the table), mean and q95 (95 % quantile) of the
    permutations, p_value: share of permutations (the table itself included) with a value at least as large.
    """
    aucs = None
    if auc:
        known = auc_of(clustered(table, by, settings))
        aucs = np.concatenate([known.estimate[None], known.drawn_alike(settings.permutations, settings.seed)])
    values = pd.DataFrame(metrics.metrics_of(permuted_tables(table, by, settings), aucs, settings.fidelity)[0])
    shuffled = values.iloc[1:]
    floor = {"estimate": values.iloc[0], "mean": shuffled.mean(), "q95": shuffled.quantile(0.95)}
    return pd.DataFrame(floor | {"p_value": _share_at_least(values)}).rename_axis("metric")


def chance_against_rest(table: pd.DataFrame, by: str, settings: Settings) -> dict[str, pd.Series]:
    """p-value of each group's rates (fpr, tpr, acc, ...) against those of all others together, in the order of groups.

    The share of permutations (the table itself included) with a difference at least as large.
    """
    counts = permuted_tables(table, by, settings)
    own, rest = metrics.rates_of(counts), metrics.rates_of(counts.sum(1, keepdims=True) - counts)
    return {rate: _share_at_least(pd.DataFrame(np.abs(own[rate] - rest[rate]))) for rate in own}


def _share_at_least(values):
    """Share of all rows, the first included, that are at least as large as the first; NaN where that is undefined."""
    tolerance = 1e-12  # equal tables may differ in the last bit
    return (values >= values.iloc[0] - tolerance).mean().where(values.iloc[0].notna())


def holm(p: pd.Series | np.ndarray | list) -> pd.Series | np.ndarray:
    """p-values corrected for their number by Holm's step-down method; NaN stays NaN and is not counted.

    The chance of any false finding among all of them is at most the level at which they are read, however they
    depend on each other. Give all p-values that are read together. A Series stays one, else float64 array.

    Source: Holm 1979.
    """
    given = np.asarray(p, dtype=np.float64)
    corrected, defined = np.full(given.shape, np.nan), np.flatnonzero(~np.isnan(given))
    order = defined[np.argsort(given[defined], kind="stable")]
    steps = np.arange(len(order), 0, -1)  # m, m - 1, ..., 1
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps * given[order])) if len(order) else 0
    return pd.Series(corrected, p.index, name=p.name) if isinstance(p, pd.Series) else corrected
