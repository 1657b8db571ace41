"""How sure one can be of a fairness metric: cluster bootstrap, paired differences, the sampling floor.

All go through the contingency tables of `fairness`: one matrix product of drawn weights with the tables of the
clusters (videos) gives the tables of all resamples at once.
"""

import numpy as np
import pandas as pd

from fairdf_utils.fairness import (
    Scored,
    as_arrays,
    auc_plan,
    checked_level,
    cluster_codes,
    contingency,
    group_plans,
    metrics_of,
    rates_of,
    weighted_auc,
)
from fairdf_utils.scores import ScoreTableError, column


def _chunks(count, width, budget=2_000_000):
    """Sizes that add up to `count`, each so small that (size, width) float64 stays near `budget` numbers."""
    if count < 1:
        raise ValueError(f"{count} resamples or permutations asked for; ask for at least 1.")
    size = max(1, min(count, budget // width))
    return [size] * (count // size) + ([count % size] if count % size else [])


def _cluster_weights(strata, sizes, seed):
    """How often each cluster is drawn: one array (clusters, b) for each b of `sizes`.

    `strata` (clusters,) are codes 0..S-1; in every column each stratum keeps its number of clusters.
    """
    rng = np.random.default_rng(seed)
    clusters, order, members = len(strata), np.argsort(strata, kind="stable"), np.bincount(strata)
    first = (np.cumsum(members) - members)[strata]
    for size in sizes:
        drawn = order[first + rng.integers(members[strata], size=(size, clusters))]
        drawn += clusters * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters)
        yield np.ascontiguousarray(weights.T, dtype=np.float64)


def _resample(table, by, resamples, cluster, seed, threshold, fidelity):
    """Metrics of the table itself (row 0) and of its resamples, and the number of groups each rests on.

    Two DataFrames of 1 + resamples rows with METRICS + OVERALL and METRICS as columns.
    """
    scored, unit = as_arrays(table, by, threshold, fidelity), cluster_codes(table, cluster)
    units = unit.max() + 1
    cells = contingency(scored, unit, units).reshape(units, -1)  # (C, G * 4)
    strata = cells.reshape(units, -1, 2).sum(-1).argmax(-1)  # (C,): group and label of most of its images
    everyone = np.ones(len(unit), bool)
    plans = [*group_plans(scored, unit), auc_plan(scored, unit, everyone)]
    counts, auc = [], []
    sizes = _chunks(resamples, len(unit))
    for weights in (np.ones((units, 1)), *_cluster_weights(strata, sizes, seed)):
        counts.append((weights.T @ cells).reshape(-1, len(scored.names), 2, 2))
        auc.append(np.stack([weighted_auc(plan, weights) for plan in plans], axis=-1))  # (b, G + 1)
    counts, auc = np.concatenate(counts), np.concatenate(auc)
    values, groups = metrics_of(counts, auc[:, :-1], fidelity)
    overall = rates_of(counts.sum(1))
    values |= {"auc": auc[:, -1], "acc": overall["acc"], "fpr": overall["fpr"], "tpr": overall["tpr"]}
    return pd.DataFrame(values), pd.DataFrame(groups)


def _percentiles(values, level):
    """Estimate (row 0) and percentile interval (the other rows, without undefined ones) of each column."""
    draws, tail = values.iloc[1:], (1 - checked_level(level)) / 2
    summary = {"estimate": values.iloc[0], "low": draws.quantile(tail), "high": draws.quantile(1 - tail)}
    return pd.DataFrame(summary).rename_axis("metric")


def bootstrap(
    table, by="group", resamples=1000, level=0.95, cluster="video", seed=0, threshold=0.5, fidelity="corrected"
):
    """Percentile intervals of all metrics from resampling whole clusters of images.

    Frames of one video are near copies, so videos are drawn, not images: those of each group and label among
    themselves, which keeps the make-up of the test set. One matrix product of the drawn weights with the
    clusters' contingency tables gives the tables of all resamples.

    Noise widens gaps between groups: the interval of a fairness metric lies high, now and then wholly above its
    estimate. Read it beside `sampling_floor`. A group and label with one video shows no spread at all.

    Parameters
    ----------
    table, by, threshold, fidelity
        As in `fairness_metrics`.
    resamples : int
    level : float
        Coverage aimed at, 0..1 exclusive.
    cluster : str
        Column of what is drawn: "video", "identity", or "img_path" for independent images.
    seed : int

    Returns
    -------
    DataFrame
        Index METRICS + OVERALL (auc, acc, fpr, tpr of all images together). Columns estimate, low, high
        (fractions); groups: how many the estimate rests on (<NA> for OVERALL); incomplete: share of resamples
        that lost a group's rate and rest on fewer (only where clusters mix groups or labels).

    Source: Field and Welsh 2007 (cluster bootstrap).
    """
    values, groups = _resample(table, by, resamples, cluster, seed, threshold, fidelity)
    groups = groups.reindex(columns=values.columns)
    result = _percentiles(values, level)
    result["groups"] = groups.iloc[0].astype("Int64")
    result["incomplete"] = ((groups.iloc[1:] < groups.iloc[0]) | values.iloc[1:].isna()).mean()
    return result


def paired_difference(
    table_a,
    table_b,
    by="group",
    resamples=1000,
    level=0.95,
    cluster="video",
    seed=0,
    threshold=0.5,
    fidelity="corrected",
):
    """Metric of A minus metric of B, on the same images and the same resamples (negative: A is smaller).

    What both detectors find hard cancels, so the interval is narrower than those of `bootstrap` suggest.

    Parameters
    ----------
    table_a, table_b : DataFrame
        Score tables of two detectors on the same images, in any order.
    by, resamples, level, cluster, seed, threshold, fidelity
        As in `bootstrap`.

    Returns
    -------
    DataFrame
        Index METRICS + OVERALL. Columns a, b (the two estimates), estimate = a - b, low, high.

    Raises
    ------
    ScoreTableError
        The tables do not hold the same images, or disagree on label, group or cluster of one.
    """
    table_b = _aligned(table_a, table_b, ["label", by, cluster])
    settings = (by, resamples, cluster, seed, threshold, fidelity)
    a, _ = _resample(table_a, *settings)
    b, _ = _resample(table_b, *settings)
    result = _percentiles(a - b, level)
    result.insert(0, "a", a.iloc[0])
    result.insert(1, "b", b.iloc[0])
    return result


def _aligned(table_a, table_b, shared):
    """The rows of B in the order of A, matched by data set and image path."""
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


def sampling_floor(table, by="group", permutations=1000, seed=0, threshold=0.5, fidelity="corrected", cluster="video"):
    """What the metrics would show, from sampling alone, if the groups made no difference.

    Group labels are permuted among clusters of the same label; a cluster keeps its images together. A cluster
    with several labels or groups is first split into parts that have one of each. Gaps are never negative, so
    even a perfectly group-blind detector shows some; with few clusters a group it shows a lot.

    Parameters
    ----------
    table, by, threshold, fidelity, cluster
        As in `bootstrap`.
    permutations : int
    seed : int

    Returns
    -------
    DataFrame
        Index METRICS. Columns estimate (of the table), mean and q95 (95 % quantile) of the permutations,
        p_value: share of permutations (the table itself included) with a value at least as large.
    """
    scored = as_arrays(table, by, threshold, fidelity)
    parts = np.stack([cluster_codes(table, cluster), scored.label, scored.group], axis=1)
    parts, unit = np.unique(parts, axis=0, return_inverse=True)
    groups = len(scored.names)
    pooled = Scored(scored.label, scored.score, scored.predicted, np.zeros_like(scored.group), ["all"])
    cells = contingency(pooled, unit, len(parts)).reshape(-1, 4)  # (U, 4): label, predicted
    plan = auc_plan(scored, unit, np.ones(len(unit), bool))
    rng = np.random.default_rng(seed)
    counts, auc = [], []
    for size in (0, *_chunks(permutations, len(unit))):  # size 0: the table itself
        codes = np.repeat(parts[:, 2:], max(size, 1), axis=1)  # (U, b)
        for label in (0, 1) if size else ():
            rows = parts[:, 1] == label
            codes[rows] = rng.permuted(codes[rows], axis=0)
        members = [(codes == g).astype(np.float64) for g in range(groups)]
        counts.append(np.stack([(m.T @ cells).reshape(-1, 2, 2) for m in members], axis=1))
        auc.append(np.stack([weighted_auc(plan, m) for m in members], axis=1))
    values, _ = metrics_of(np.concatenate(counts), np.concatenate(auc), fidelity)
    values = pd.DataFrame(values)
    shuffled, estimate = values.iloc[1:], values.iloc[0]
    at_least = (shuffled >= estimate - 1e-12).sum() + 1  # tolerance: equal tables may differ in the last bit
    floor = {"estimate": estimate, "mean": shuffled.mean(), "q95": shuffled.quantile(0.95)}
    floor["p_value"] = (at_least / (permutations + 1)).where(estimate.notna())
    return pd.DataFrame(floor).rename_axis("metric")
