"""How sure one can be of a fairness metric: cluster bootstrap, paired differences, the sampling floor.

All go through the contingency tables of `fairness`, those of all resamples at once (see `clusters`). Settings that
the functions share:

- `resamples`: how many test sets are drawn; `seed` of the draws.
- `cluster`: column of what is drawn: "video", "identity", or "img_path" for independent images.
- `level`: coverage aimed at, 0..1 exclusive.
- `kind`: "percentile", or "bca" (Efron 1987), which corrects for bias and skewness; `bootstrap` also knows "band".
- `auc`: False leaves out whatever needs the AUC, most of the time.
"""

from itertools import chain

import numpy as np
import pandas as pd

from fairdf_utils.fairness.auc import auc_plan, weighted_auc
from fairdf_utils.fairness.clusters import aligned, chunks, clustered, resampled_tables, tables_without_one
from fairdf_utils.fairness.intervals import INTERVALS, band, holm, interval, p_values
from fairdf_utils.fairness.metrics import (
    METRICS,
    Scored,
    as_arrays,
    cluster_codes,
    contingency,
    group_rates,
    metrics_of,
    metrics_of_rates,
    rate_interval,
    rates_and_overall,
    rates_of,
)


def _metrics(counts, auc, fidelity):
    """METRICS + OVERALL of tables (b, G, 2, 2) and AUCs (b, G + 1) or None; the number of groups each rests on.

    Two DataFrames of b rows, with METRICS + OVERALL and METRICS as columns (without auc those that need it are left
    out).
    """
    values, groups = metrics_of(counts, None if auc is None else auc[:, :-1], fidelity)
    overall = rates_of(counts.sum(1))
    values |= {} if auc is None else {"auc": auc[:, -1]}
    values |= {name: overall[name] for name in ("acc", "fpr", "tpr")}
    return pd.DataFrame(values).rename_axis(columns="metric"), pd.DataFrame(groups)


def _deviations(counts, auc, fidelity):
    """What `intervals.band` takes: METRICS of the resampled minus the estimated rates, OVERALL as differences."""
    rates, overall = rates_and_overall(counts, fidelity)  # (4, 1 + B, G), (2, 1 + B)
    aucs = None if auc is None else (auc[1:] - auc[0])[:, :-1]
    moved = metrics_of_rates(rates[:, 1:] - rates[:, :1], overall[:, 1:] - overall[:, :1], aucs)
    values = _metrics(counts, auc, fidelity)[0].drop(columns=[name for name in METRICS if name in moved])
    return pd.concat([pd.DataFrame(moved), (values - values.iloc[0]).abs()[1:].reset_index(drop=True)], axis=1)


def _rates(counts, auc, rates):
    """The named rates of every group: DataFrame of b rows, columns (rate, code of the group)."""
    values = rates_of(counts) | ({} if auc is None else {"auc": auc[:, :-1]})
    return pd.concat({rate: pd.DataFrame(values[rate]) for rate in rates}, axis=1)


def _against_rest(counts, auc, rates):
    """The named rates of every group minus those of all other groups: as `_rates`."""
    own, rest = rates_of(counts), rates_of(counts.sum(1, keepdims=True) - counts)
    return pd.concat({rate: pd.DataFrame(own[rate] - rest[rate]) for rate in rates}, axis=1)


def _jackknife(data, kind, statistic, auc):
    """Keywords of `interval` and `p_values`: nothing for percentile, what BCa needs of a statistic of tables."""
    if kind not in INTERVALS:
        raise ValueError(f"kind is {kind!r}; use one of {', '.join(INTERVALS)} (`bootstrap` also knows band).")
    if kind == "percentile":
        return {}
    return {"without_one": statistic(*tables_without_one(data, auc)), "strata": data.strata}


def bootstrap(
    table,
    by="group",
    resamples=1000,
    level=0.95,
    cluster="video",
    seed=0,
    threshold=0.5,
    fidelity="corrected",
    kind="percentile",
    auc=True,
):
    """Intervals of all metrics from resampling whole clusters of images.

    Frames of one video are near copies, so videos are drawn, not images: those of each group and label among
    themselves, which keeps the make-up of the test set. One matrix product of the drawn weights with the
    clusters' contingency tables gives the tables of all resamples.

    Noise widens gaps between groups: the percentile interval of a fairness metric lies high, now and then wholly
    above its estimate, and may miss a true gap that is smaller than the noise. BCa takes part of that back; "band" is
    wide and holds the truth (see `intervals.band`). Read any of them beside `sampling_floor`. A group and label with
    one video shows no spread at all.

    Parameters
    ----------
    table, by, threshold, fidelity
        As in `fairness_metrics`.
    resamples, level, cluster, seed, kind, auc
        See the module's head. Of `kind`, percentile and bca say how far the number would move on another test set;
        "band" where the true one lies.

    Returns
    -------
    DataFrame
        Index METRICS + OVERALL (auc, acc, fpr, tpr of all images together), without auc_gap and auc if not `auc`.
        Columns estimate, low, high (fractions); groups: how many the estimate rests on (<NA> for OVERALL);
        incomplete: share of resamples that lost a group's rate and rest on fewer (only where clusters mix groups or
        labels).

    Source: Field and Welsh 2007 (cluster bootstrap); Efron 1987 (BCa).
    """
    data = clustered(table, by, threshold, fidelity, cluster)
    tables = resampled_tables(data, resamples, seed, auc)
    values, groups = _metrics(*tables, fidelity)
    if kind == "band":
        result = band(values, _deviations(*tables, fidelity), level)
    else:
        result = interval(values, level, **_jackknife(data, kind, lambda *t: _metrics(*t, fidelity)[0], auc))
    groups = groups.reindex(columns=values.columns)
    result["groups"] = groups.iloc[0].astype("Int64")
    result["incomplete"] = ((groups.iloc[1:] < groups.iloc[0]) | values.iloc[1:].isna()).mean()
    return result


def group_intervals(
    table,
    by="group",
    resamples=1000,
    level=0.95,
    cluster="video",
    seed=0,
    threshold=0.5,
    fidelity="corrected",
    kind="percentile",
    auc=True,
):
    """Rates of each group with intervals from whole clusters.

    Where all of a group's clusters err alike, as with no error at all, the bootstrap shows no spread, which is not
    certainty. Such a rate gets the Wilson interval that it would have if each cluster were one image (wide on
    purpose); an AUC gets none. The column `collapsed` names these rates.

    Parameters
    ----------
    table, by, resamples, level, cluster, seed, threshold, fidelity, kind, auc
        As in `bootstrap`.

    Returns
    -------
    DataFrame
        The columns of `group_rates`, and for fpr, tpr, acc and auc: <rate>_low, <rate>_high (NaN = undefined);
        clusters_real, clusters_fake (int): how many hold such images; collapsed: "" or names of rates.
    """
    data = clustered(table, by, threshold, fidelity, cluster)
    rates = ["fpr", "tpr", "acc"] + ["auc"] * auc
    values = _rates(*resampled_tables(data, resamples, seed, auc), rates)
    summary = interval(values, level, **_jackknife(data, kind, lambda *t: _rates(*t, rates), auc))
    result = group_rates(table, by, threshold, fidelity)
    present = data.cells.sum(-1) > 0  # (C, G, 2)
    clusters = present.sum(0)
    result["clusters_real"], result["clusters_fake"] = clusters.T
    trials = {"fpr": clusters[:, 0], "tpr": clusters[:, 1], "acc": present.any(-1).sum(0), "auc": 0 * clusters[:, 0]}
    flat = (values.max() - values.min() < 1e-12).to_numpy().reshape(len(rates), -1)  # False where undefined
    for rate, alike in zip(rates, flat, strict=True):
        part = summary.loc[rate]
        wilson = rate_interval(result[rate].fillna(0).to_numpy() * trials[rate], trials[rate], level)
        for name, bound in zip(("low", "high"), wilson, strict=True):
            result[f"{rate}_{name}"] = np.where(alike, bound, part[name])
    result["collapsed"] = [", ".join(np.array(rates)[alike]) for alike in flat.T]
    return result


def group_against_rest(
    table,
    by="group",
    rates=("fpr", "tpr", "acc"),
    resamples=1000,
    level=0.95,
    cluster="video",
    seed=0,
    threshold=0.5,
    fidelity="corrected",
    kind="percentile",
    permutations=1000,
):
    """Each group's rates minus those of all other groups together, with intervals and corrected p-values.

    The p-value is that of a permutation test, as in `sampling_floor`: for a group of few videos, one from the resamples
    would find differences that are not there.

    Parameters
    ----------
    rates : sequence of str
        Any of RATES but auc.
    permutations : int
    others
        As in `bootstrap`.

    Returns
    -------
    DataFrame
        Index (rate, group). Columns estimate, low, high (fractions, NaN = undefined), p_value: share of permutations
        (the table itself included) with a difference at least as large; p_holm: corrected for all rows. A difference
        without any spread among the resamples has no interval. Of two groups only the first is listed: the other
        mirrors it.
    """
    data = clustered(table, by, threshold, fidelity, cluster)
    values = _against_rest(*resampled_tables(data, resamples, seed, False), rates)
    extra = _jackknife(data, kind, lambda *t: _against_rest(*t, rates), False)
    result = interval(values, level, **extra)
    result.loc[(values.max() - values.min() < 1e-12).to_numpy(), ["low", "high"]] = np.nan
    dealt = _dealt_tables(table, by, permutations, seed, threshold, fidelity, cluster, False)
    result["p_value"] = _share_at_least(_against_rest(*dealt, rates).abs())
    result.index = pd.MultiIndex.from_product([list(rates), data.scored.names], names=["rate", by])
    if len(data.scored.names) == 2:
        result = result[::2]
    return result.assign(p_holm=holm(result["p_value"]))


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
    kind="percentile",
    auc=True,
):
    """Metric of A minus metric of B, on the same images and the same resamples (negative: A is smaller).

    What both detectors find hard cancels, so the interval is narrower than those of `bootstrap` suggest.

    Parameters
    ----------
    table_a, table_b : DataFrame
        Score tables of two detectors on the same images, in any order.
    by, resamples, level, cluster, seed, threshold, fidelity, kind, auc
        As in `bootstrap`.

    Returns
    -------
    DataFrame
        Index METRICS + OVERALL. Columns a, b (the two estimates), estimate = a - b, low, high; p_value: that the
        difference is zero, from the same resamples; p_holm: corrected for all rows of this table. Whoever reads
        several tables together corrects the p_value of all of them, with `intervals.holm`.

    Raises
    ------
    ScoreTableError
        The tables do not hold the same images, or disagree on label, group or cluster of one.
    """
    table_b = aligned(table_a, table_b, ["label", by, cluster])
    sides = [clustered(table, by, threshold, fidelity, cluster) for table in (table_a, table_b)]
    a, b = (_metrics(*resampled_tables(data, resamples, seed, auc), fidelity)[0] for data in sides)
    extra, other = (_jackknife(data, kind, lambda *t: _metrics(*t, fidelity)[0], auc) for data in sides)
    if extra:
        extra["without_one"] = extra["without_one"] - other["without_one"]
    result = interval(a - b, level, **extra)
    result.insert(0, "a", a.iloc[0])
    result.insert(1, "b", b.iloc[0])
    result["p_value"] = p_values(a - b, **extra)
    result["p_holm"] = holm(result["p_value"])
    return result


def sampling_floor(
    table,
    by="group",
    permutations=1000,
    seed=0,
    threshold=0.5,
    fidelity="corrected",
    cluster="video",
    auc=True,
):
    """What the metrics would show, from sampling alone, if the groups made no difference.

    Group labels are permuted among clusters of the same label; a cluster keeps its images together. A cluster
    with several labels or groups is first split into parts that have one of each. Gaps are never negative, so
    even a perfectly group-blind detector shows some; with few clusters a group it shows a lot.

    Parameters
    ----------
    table, by, threshold, fidelity, cluster, auc
        As in `bootstrap`.
    permutations : int
    seed : int

    Returns
    -------
    DataFrame
        Index METRICS, without auc_gap if not `auc`. Columns estimate (of the table), mean and q95 (95 % quantile) of
        the permutations, p_value: share of permutations (the table itself included) with a value at least as large.
    """
    counts, aucs = _dealt_tables(table, by, permutations, seed, threshold, fidelity, cluster, auc)
    values = pd.DataFrame(metrics_of(counts, aucs, fidelity)[0])
    shuffled = values.iloc[1:]
    floor = {"estimate": values.iloc[0], "mean": shuffled.mean(), "q95": shuffled.quantile(0.95)}
    return pd.DataFrame(floor | {"p_value": _share_at_least(values)}).rename_axis("metric")


def _share_at_least(values):
    """Share of all rows, the first included, that are at least as large as the first; NaN where that is undefined."""
    tolerance = 1e-12  # equal tables may differ in the last bit
    return (values >= values.iloc[0] - tolerance).mean().where(values.iloc[0].notna())


def _dealt_tables(table, by, deals, seed, threshold, fidelity, cluster, auc):
    """Tables (1 + deals, G, 2, 2) of a score table and of deals of its groups, and AUCs (1 + deals, G) if `auc`."""
    scored = as_arrays(table, by, threshold, fidelity)
    parts = np.stack([cluster_codes(table, cluster), scored.label, scored.group], axis=1)
    parts, unit = np.unique(parts, axis=0, return_inverse=True)
    pooled = Scored(scored.label, scored.score, scored.predicted, np.zeros_like(scored.group), ["all"])
    cells = contingency(pooled, unit, len(parts)).reshape(-1, 4)  # (U, 4): label, predicted
    plan = auc_plan(scored.label, scored.score, unit, np.ones(len(unit), bool))
    counts, aucs = [], []
    sizes = chunks(deals, len(unit) if auc else len(parts))
    for codes in chain([parts[:, 2:]], _permuted(parts, sizes, seed)):  # (U, b)
        members = [(codes == code).astype(np.float64) for code in range(len(scored.names))]
        counts.append(np.stack([(m.T @ cells).reshape(-1, 2, 2) for m in members], axis=1))
        if auc:
            aucs.append(np.stack([weighted_auc(plan, m) for m in members], axis=1))
    return np.concatenate(counts), np.concatenate(aucs) if auc else None


def _permuted(parts, sizes, seed):
    """Groups dealt out anew among the parts (cluster, label, group) of each label: (U, b) codes for each b."""
    rng = np.random.default_rng(seed)
    for size in sizes:
        codes = np.repeat(parts[:, 2:], size, axis=1)
        for label in (0, 1):
            rows = parts[:, 1] == label
            codes[rows] = rng.permuted(codes[rows], axis=0)
        yield codes
