"""How often chance alone would show a difference between groups: p-values and floors from groups that are dealt anew.

Dealing the groups out anew among the clusters of a class gives the tables of a detector that is blind to the groups.
A difference counts in units of its own standard error, from the spread between clusters on either side: where frames
of a video err together in one group and not in another, the same difference means less in the first.
"""

from itertools import chain

import numpy as np
import pandas as pd
from scipy.stats import pearson3

from fairdf_utils.fairness import metrics
from fairdf_utils.fairness.auc import ratio
from fairdf_utils.fairness.resampling import MINIMUM, Settings, auc_of, chunks, clustered, told

CAREFUL = 2  # clusters that the assumption "a cluster is worth one image" counts for in the spread of a group
SURE = 10  # deals at least as extreme as the table: from fewer p is fitted
MOST, EFFORT = 20, 10_000_000  # times `permutations` that are dealt at most, and clusters in all these deals
FEW_KINDS = 100  # times as many clusters as kinds of them: then dealing out kinds is faster
CALLS = np.array([[1, 0], [0, 1], [-1, 1], [1, 1]])  # how reals and fakes called fake enter the four rates
MADE_OF = {"fpr_sum": [0], "fpr_gap": [0], "tpr_gap": [1], "oae": [2], "dp": [3], "meo": [0, 1], "eo": [0, 1]}


def powers(units: np.ndarray) -> np.ndarray:
    """What `studentised` adds up over clusters, (U, 8), of their images by how they were called, (U, predicted)."""
    n, e = units.sum(-1), units[:, 1]
    return np.stack([n**0, n, e, e**2, e * n, n**2, e > 0, e < n], axis=1)


def summed(codes: np.ndarray, units: np.ndarray, groups: int) -> np.ndarray:
    """What `units` (U, 8) add up to in each group, (B, G, 8), where `codes` (B, U) say in which each one is."""
    return np.stack([(codes == code).astype(np.float64) @ units for code in range(groups)], axis=1)


def studentised(sums: np.ndarray) -> np.ndarray:
    """FPR, TPR, accuracy and predicted-fake rate of each group minus the rest's, in standard errors: (4, ..., G).

    `sums` (..., G, label, 8) are those of `powers` over the clusters of a group. The variance is that between clusters;
    as clusters that agree in all calls do not tell how alike the images of one are, that of clusters worth one image
    each is mixed in. Accuracy and predicted-fake rate are compared for equal shares of fakes. NaN where a side has no
    images, 0 where all calls agree.

    Source: Janssen 1997, Chung and Romano 2013 (studentised permutations); Cochran 1977, section 6.3 (ratio estimate).
    """
    total, sides = sums.sum(-3, keepdims=True), []
    rate = np.nan_to_num(ratio(total[..., 2], total[..., 1]))  # (..., 1, label)
    for side in (sums, total - sums):
        clusters, n, e, ee, en, nn, *calls = np.moveaxis(side, -1, 0)
        own, telling = np.nan_to_num(ratio(e, n)), np.minimum(*calls)
        spread = np.maximum(ee - 2 * own * en + own**2 * nn, 0) * clusters / np.maximum(clusters - 1, 1)
        variance = (telling * spread + CAREFUL * rate * (1 - rate) * nn) / (telling + CAREFUL)
        shift, variance, images = (e - rate * n) @ CALLS.T, variance @ np.abs(CALLS.T), n @ np.abs(CALLS.T)
        sides.append((ratio(shift, images), ratio(variance, images**2)))  # (..., G, 4)
    (own, var_own), (rest, var_rest) = sides
    error = np.sqrt(var_own + var_rest)
    return np.moveaxis(np.divide(own - rest, error, out=0 * error, where=error > 0), -1, 0)


def dealt(held: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Clusters of K kinds dealt out to G groups that keep their numbers, from `held` (G, K): int64 (draws, G, K)."""
    left, result = np.tile(held.sum(0), (draws, 1)), np.empty((draws, *held.shape), np.int64)
    for code, members in enumerate(held.sum(1)):
        wanted, others = np.full(draws, members), left.sum(1)
        for kind in range(held.shape[1]):
            others -= left[:, kind]
            result[:, code, kind] = rng.hypergeometric(left[:, kind], others, wanted)
            wanted -= result[:, code, kind]
        left -= result[:, code]
    return result


def deals(cells: np.ndarray, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """The table of C clusters (row 0), and D deals of its groups among the clusters of each class.

    `cells` (C, G, 2, 2) are those of `Clustered`. A cluster keeps its images together; one with several labels or
    groups is first split into parts that have one of each (so the real and the fake images of a person are taken for
    independent where both count: in accuracy and predicted-fake rate). D is `permutations`, and where these cost little
    up to MOST times as many, until SURE of them are as extreme as the table.

    Tables (1 + D, G, 2, 2), `studentised` (4, 1 + D, G).

    Source: Besag and Clifford 1991 (when to stop).
    """
    cluster, group, label = np.nonzero(cells.sum(-1))
    units = cells[cluster, group, label]  # (U, predicted)
    order = np.lexsort((*units.T, group))  # so neither names of clusters nor the order of rows matter
    classes = []
    for rows in (order[label[order] == one] for one in (0, 1)):
        kinds, kind = np.unique(units[rows], axis=0, return_inverse=True)
        held = np.bincount(group[rows] * len(kinds) + kind, minlength=cells.shape[1] * len(kinds))
        classes.append((group[rows], powers(units[rows]), powers(kinds), held.reshape(cells.shape[1], len(kinds))))
    rng, tables, apart, hits = np.random.default_rng(settings.seed), [], [], 0
    most = max(settings.permutations, min(MOST * settings.permutations, EFFORT // len(group)))
    width = cells.shape[1] * sum(len(each[2]) for each in classes)
    few = FEW_KINDS * width < cells.shape[1] * len(group)
    for size in chain([0], told(chunks(most, width if few else len(group)), "dealing")):
        sums = np.empty((max(size, 1), cells.shape[1], 2, 8))  # whole numbers: equal deals are equal
        for one, (given, units, of_kinds, held) in enumerate(classes):
            if size and few:
                sums[:, :, one] = dealt(held, size, rng) @ of_kinds
                continue
            codes = np.tile(given, (len(sums), 1))  # first the table itself
            sums[:, :, one] = summed(rng.permuted(codes, axis=1) if size else codes, units, cells.shape[1])
        tables.append(np.stack([sums[..., 1] - sums[..., 2], sums[..., 2]], axis=-1))
        apart.append(studentised(sums))
        hits = hits + (np.abs(apart[-1]) >= np.abs(apart[0])).sum(1)
        if sum(map(len, tables)) > settings.permutations and (hits > SURE)[~np.isnan(apart[0][:, 0])].all():
            break
    return np.concatenate(tables), np.concatenate(apart, axis=1)


def chance(values: np.ndarray) -> np.ndarray:
    """p-value of a table (row 0) among its deals, (...), for values (1 + D, ...) that grow with a difference.

    The share of all rows that are at least as large. Where these are SURE at most, the tail of a Pearson III
    distribution with the mean, variance and skewness of the deals, down to a hundredth of a deal. NaN where the table
    is.

    Source: Phipson and Smyth 2010 (the table counts as a deal); Winkler et al. 2016 (the tail).
    """
    table, dealt = values[0], values[1:]
    share = (values >= table - 1e-9).mean(0)  # equal values may differ in the last bit
    mean, spread = dealt.mean(0), np.maximum(dealt.std(0), 1e-12)
    tail = pearson3.sf((table - mean) / spread, (((dealt - mean) / spread) ** 3).mean(0))
    rare = np.clip(tail, 0.01 / len(values), share)
    return np.where(np.isnan(table), np.nan, np.where(share * len(values) > SURE, share, rare))


def sampling_floor(table: pd.DataFrame, by: str, settings: Settings, auc: bool = True) -> pd.DataFrame:
    """What the metrics would show, from sampling alone, if the groups made no difference.

    Group labels are permuted among clusters of the same label; a cluster keeps its images together. Gaps are never
    negative, so even a perfectly group-blind detector shows some; with few clusters a group it shows a lot. Groups can
    have the same AUC and unlike scores; theirs are drawn from a common AUC, each with the spread of its own clusters.

    Index METRICS, without auc_gap if not `auc`; columns as in `floor_of_cells`.
    """
    data = clustered(table, by, settings)
    floor = floor_of_cells(data.cells, settings)
    if auc:
        known = auc_of(data)
        alike = known.drawn_alike(settings.permutations, settings.seed)
        gaps = metrics.gap(np.concatenate([known.estimate[None], alike]))
        floor.loc["auc_gap"] = _floor(gaps, gaps)
    return floor


def floor_of_cells(cells: np.ndarray, settings: Settings) -> pd.DataFrame:
    """The sampling floor of the METRICS of a threshold, from `cells` (C, G, 2, 2) of `Clustered`.

    Columns estimate (of the table), mean and q95 (95 % quantile) of the deals; p_value: how often a deal sets a group
    as far apart from the rest as the table does, the farthest in standard errors and over the rates of a metric.

    Source: Westfall and Young 1993 (the largest of several statistics).
    """
    tables, apart = deals(cells, settings)
    if settings.fidelity == "official":
        apart[..., (cells.sum((0, 3)) == 0).any(-1)] = 0  # groups that the metrics leave out
    values = metrics.metrics_of(tables, None, settings.fidelity)[0]
    farthest = {name: np.nan_to_num(np.abs(apart[rates])).max((0, 2)) for name, rates in MADE_OF.items()}
    rows = {name: _floor(each, farthest[name]) for name, each in values.items()}
    return pd.DataFrame.from_dict(rows, "index").rename_axis("metric")


def _floor(values, statistic):
    """A row of the floor, from a metric and the statistic of its test, (1 + D,) each."""
    p = np.nan if np.isnan(values[0]) else float(chance(statistic))
    return {"estimate": values[0], "mean": values[1:].mean(), "q95": np.quantile(values[1:], 0.95), "p_value": p}


def chance_against_rest(cells: np.ndarray, settings: Settings) -> dict[str, np.ndarray]:
    """p-values of the FPR, TPR and accuracy of each group against those of all others together: (G,) each.

    How often a deal of `cells` (C, G, 2, 2) sets the group as far apart from the rest, in standard errors. NaN where
    either has fewer than MINIMUM clusters of a class that the rate is made of.
    """
    apart, clusters = np.abs(deals(cells, settings)[1]), (cells.sum(-1) > 0).sum(0)  # (G, label)
    enough = np.minimum(clusters, clusters.sum(0) - clusters) >= MINIMUM
    judged = {"fpr": enough[:, 0], "tpr": enough[:, 1], "acc": enough.all(1)}
    return {rate: np.where(judged[rate], chance(each), np.nan) for rate, each in zip(judged, apart, strict=False)}


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
