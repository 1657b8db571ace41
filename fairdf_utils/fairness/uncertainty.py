"""How sure one can be of a fairness metric: one regime for the chapter, the audit and every figure.

- The rate of a group has a Wilson interval on the number of independent images that its images are worth: frames of
  one video err together, and the design effect says how far (`interval_of_a_rate`).
- A gap between groups has a band that holds it however small it is (`interval_of_a_gap`), and beside it the sampling
  floor: what the table would show of the gap if the groups made no difference, with a permutation p-value.
- An AUC has Wilson's interval on its effective number, from one sort of the scores (`interval_of_an_auc`).
- The difference of two detectors has a percentile interval from resampled whole videos.

All functions take a score table, the column `by` of the groups and `Settings`. `auc=False` leaves out what needs the
AUC, most of the time; `drawn` are resamples that were made before. Rates and metrics are fractions; NaN is undefined.
"""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pandas as pd
from scipy.stats import t as student

from fairdf_utils.fairness import metrics
from fairdf_utils.fairness.auc import ClusteredAuc
from fairdf_utils.fairness.permutation import chance_against_rest, holm, sampling_floor
from fairdf_utils.fairness.resampling import MINIMUM, Settings, aligned, auc_of, clustered, resampled_tables
from fairdf_utils.fairness.sample_size import worth
from fairdf_utils.fairness.worst_group import of_groups, worst

RATES = {"fpr": (0,), "tpr": (1,), "acc": (0, 1)}  # rate -> labels that it is made of


def interval_of_a_rate(errors: np.ndarray, sizes: np.ndarray, together: dict, level: float) -> dict[str, float]:
    """The rate of a group with its interval: the one place where that interval is chosen.

    `errors` and `sizes` (C, K) are images that count for the rate, and all images, of each of C clusters, in K parts
    (labels) that are kept apart. How alike errors inside a cluster are is taken from the group itself, from all groups
    `together` (their `worth`) where it has fewer than MINIMUM clusters or no error at all, and where these are too few
    as well each cluster counts as one image. estimate, low, high, effective (independent images that these are worth);
    NaN without images.

    Source: Wilson 1927; Kish 1965, section 5.4 (design effect).
    """
    own = worth(errors, sizes)
    estimate = own["rate"]
    told = [one["correlation"] for one in (own, together) if one["clusters"] >= MINIMUM]
    rho = next(value for value in (*told, 1.0) if not np.isnan(value))
    effective = own["images"] / (1 + (own["frames"] - 1) * rho) if own["images"] else np.nan
    low, high = metrics.rate_interval(estimate * effective, effective, level) if own["images"] else (np.nan, np.nan)
    return {"estimate": estimate, "low": float(low), "high": float(high), "effective": effective}


def interval_of_an_auc(known: ClusteredAuc, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of each AUC, (G,) each: Wilson's interval, with the quantile of Student's t in place of the normal.

    It never leaves 0..1 and has a width where all clusters agree.

    Source: Newcombe 2006 (Wilson's form for the AUC).
    """
    quantile = student.ppf((1 + level) / 2, known.freedom)
    effective = known.effective * (NormalDist().inv_cdf((1 + level) / 2) / quantile) ** 2
    return metrics.rate_interval(known.estimate * effective, effective, level)


def interval_of_a_gap(values: pd.DataFrame, deviations: pd.DataFrame, p_value: pd.Series, level: float) -> pd.DataFrame:
    """The band of each fairness metric: the one place where that interval is chosen.

    Noise only widens a gap, so resamples and their percentiles lie above a true gap of the size of the noise. But each
    metric F is a seminorm of the group rates, so F(estimate) is no further from F(truth) than F(estimate - truth), and
    how large that is the bootstrap tells: its `level` quantile is the half width, wide on purpose. The low end is zero
    where the permutations do not exclude that there is no gap.

    `values` (1 + B rows) are the metrics of the table and its resamples, `deviations` (B rows) those of the resampled
    minus the estimated rates, `p_value` comes from the permutations. Index metrics; columns estimate, low, high.
    """
    estimate, reach = values.iloc[0], deviations.quantile(level)
    most = pd.Series(np.where(values.columns.isin(["fpr_sum", "eo"]), np.inf, 1), values.columns)  # sums have no end
    low = (estimate - reach).clip(lower=0).mask(p_value >= 1 - level, 0).mask(estimate.isna())
    return pd.DataFrame({"estimate": estimate, "low": low, "high": (estimate + reach).clip(upper=most)})


def percentiles(values: pd.DataFrame, level: float) -> pd.DataFrame:
    """Estimate (row 0) and percentile interval of resamples (other rows): index columns; estimate, low, high."""
    tail = (1 - level) / 2
    ends = values.iloc[1:].quantile([tail, 1 - tail]).T.set_axis(["low", "high"], axis=1)
    ends.insert(0, "estimate", values.iloc[0])
    return ends.mask(ends["estimate"].isna())


def resampled(table: pd.DataFrame, by: str, settings: Settings) -> tuple[np.ndarray, ...]:
    """The resamples that `group_intervals` and `bootstrap` share, with AUCs."""
    return resampled_tables(clustered(table, by, settings), settings, auc=True)


def bootstrap(
    table: pd.DataFrame, by: str, settings: Settings, auc: bool = True, drawn: tuple | None = None
) -> pd.DataFrame:
    """All metrics with intervals, and the floor of those that compare groups.

    Index METRICS + OVERALL (of all images together); columns estimate, low, high; groups: how many
    the metric rests on; floor_mean, floor_q95, p_value: see `sampling_floor` (<NA> and NaN for OVERALL).

    Source: Field and Welsh 2007 (cluster bootstrap).
    """
    data = clustered(table, by, settings)
    counts = (drawn or resampled_tables(data, settings, auc=False))[0]
    aucs, moved = _auc_errors(data, settings) if auc else (None, None)
    values, groups = metrics.metrics_of(counts[:1], aucs, settings.fidelity)
    rates, overall = metrics.rates_and_overall(counts, settings.fidelity)  # (4, 1 + B, G), (2, 1 + B)
    deviations = metrics.metrics_of_rates(rates[:, 1:] - rates[:, :1], overall[:, 1:] - overall[:, :1], moved)
    floor = sampling_floor(table, by, settings, auc).drop(columns="estimate")
    floor = floor.rename(columns={"mean": "floor_mean", "q95": "floor_q95"})
    result = interval_of_a_gap(pd.DataFrame(values), pd.DataFrame(deviations), floor["p_value"], settings.level)
    result["groups"] = pd.DataFrame(groups, dtype="Int64").iloc[0]
    everyone = _rates(data.cells.sum(1, keepdims=True), ["all"], settings.level).xs("all", level=1)
    if auc:
        known = auc_of(data, together=True)
        everyone.loc["auc", ["estimate", "low", "high"]] = np.ravel(
            [known.estimate, *interval_of_an_auc(known, settings.level)]
        )
    everyone = everyone.reindex(metrics.OVERALL if auc else metrics.OVERALL[1:]).drop(columns="effective")
    return pd.concat([result.join(floor), everyone]).rename_axis("metric")


def _auc_errors(data, settings):
    """The AUC of each group, (1, G), and draws of its error with the spread that its interval has, (B, G)."""
    known = auc_of(data)
    low, high = interval_of_an_auc(known, settings.level)
    spread = (high - low) / 2 / student.ppf((1 + settings.level) / 2, known.freedom)
    return known.estimate[None], spread * known.noise(settings.resamples, settings.seed)


def _rates(cells: np.ndarray, names: list, level: float) -> pd.DataFrame:
    """RATES of groups with intervals: index (rate, group); columns as in `interval_of_a_rate`."""
    images = cells.sum(-1)  # (C, G, label)
    right = np.stack([cells[..., 0, 0], cells[..., 1, 1]], axis=-1)
    rows = {}
    for rate, labels in RATES.items():
        errors, sizes = (
            (right if rate == "acc" else cells[..., 1])[:, :, labels],
            images[:, :, labels],
        )  # (C, G, labels)
        together = worth(errors.reshape(len(cells), -1), sizes.reshape(len(cells), -1))
        for code, name in enumerate(names):
            rows[rate, name] = interval_of_a_rate(errors[:, code], sizes[:, code], together, level)
    return pd.DataFrame(rows).T.rename_axis(["rate", "group"])


def group_intervals(table: pd.DataFrame, by: str, settings: Settings, auc: bool = True) -> pd.DataFrame:
    """Rates of each group with intervals.

    The columns of `metrics.group_rates`, and for fpr, tpr, acc and auc: <rate>_low, <rate>_high; clusters_real,
    clusters_fake (int): how many hold such images; effective_real, effective_fake: independent images that these are
    worth.
    """
    data = clustered(table, by, settings)
    result = metrics.group_rates(table, by, settings.threshold, settings.fidelity)
    found = _rates(data.cells, data.scored.names, settings.level)
    clusters = (data.cells.sum(-1) > 0).sum(0)  # (G, label)
    for rate in RATES:
        result[[f"{rate}_low", f"{rate}_high"]] = found.loc[rate, ["low", "high"]].to_numpy()
    if auc:
        result["auc_low"], result["auc_high"] = interval_of_an_auc(auc_of(data), settings.level)
    result["clusters_real"], result["clusters_fake"] = clusters.T
    for rate, name in (("fpr", "effective_real"), ("tpr", "effective_fake")):
        result[name] = found.loc[rate, "effective"].to_numpy()
    return result


def against_rest(
    table: pd.DataFrame, by: str, settings: Settings, rates: tuple[str, ...] = ("fpr", "tpr")
) -> pd.DataFrame:
    """Each group's rates (fpr, tpr, acc) minus those of all others together, with intervals and corrected p-values.

    The interval is joined from those of the two rates, which rest on different videos. The p-value is that of a
    permutation test (`chance_against_rest`): for a group of few videos, one from resamples would find differences that
    are not there. Where the two disagree, p decides.

    Index (rate, group); columns estimate, low, high, p_value; p_holm: corrected for all rows. Of two groups only the
    first is listed: the other mirrors it.

    Source: Newcombe 1998; Zou and Donner 2008 (an interval from two others).
    """
    data, rows = clustered(table, by, settings), {}
    names, everyone = data.scored.names, data.cells.sum(1)
    chance = chance_against_rest(data.cells, settings)
    for code, name in enumerate(names[:1] if len(names) == 2 else names):
        here = data.cells[:, code]
        two = _rates(np.stack([here, everyone - here], axis=1), ["own", "rest"], settings.level)
        for rate in rates:
            p, low, high, _ = two.loc[rate].to_numpy().T
            down, up, off = (
                np.hypot(p[0] - low[0], high[1] - p[1]),
                np.hypot(high[0] - p[0], p[1] - low[1]),
                p[0] - p[1],
            )
            rows[rate, name] = [off, off - down, off + up, chance[rate][code]]
    index = pd.MultiIndex.from_tuples(rows, names=["rate", by])
    result = pd.DataFrame([*rows.values()], index, ["estimate", "low", "high", "p_value"]).loc[list(rates)]
    return result.assign(p_holm=holm(result["p_value"]))


def paired_difference(
    table_a: pd.DataFrame,
    table_b: pd.DataFrame,
    by: str,
    settings: Settings,
    auc: bool = True,
    threshold_b: float | None = None,
) -> pd.DataFrame:
    """Metric of A minus metric of B, on the same images and the same resamples (negative: A is smaller).

    What both detectors find hard cancels, so the interval is narrower than those of `bootstrap` suggest. The rows may
    stand in any order; `threshold_b` is that of B, where it is not that of the settings.

    Index WORST (not without `auc`) + METRICS + OVERALL; columns a, b (the two estimates), estimate = a - b, low, high;
    p_value: that the difference is zero, from the same resamples; p_holm: corrected for all rows of this table (who
    reads several tables together corrects the p_value of all of them, with `holm`). ScoreTableError if the tables do
    not hold the same images, or disagree on label, group or cluster of one.
    """
    table_b = aligned(table_a, table_b, ["label", by, settings.cluster])
    other = settings if threshold_b is None else replace(settings, threshold=threshold_b)
    sides = [_all_metrics(table, by, each, auc) for table, each in ((table_a, settings), (table_b, other))]
    difference = sides[0] - sides[1]
    result = pd.DataFrame({"a": sides[0].iloc[0], "b": sides[1].iloc[0]})
    result = result.join(percentiles(difference, settings.level)).assign(p_value=p_values(difference))
    return result.assign(p_holm=holm(result["p_value"])).rename_axis("metric")


def _all_metrics(table, by, settings, auc):
    """WORST (not without `auc`) + METRICS + OVERALL of the table (row 0) and its resamples."""
    data = clustered(table, by, settings)
    counts, aucs, auc_overall = resampled_tables(data, settings, auc)
    overall = metrics.rates_of(counts.sum(1)) | {"auc": auc_overall}
    values = {name: worst(one) for name, one in of_groups(data, settings, aucs).items()} if auc else {}
    values |= metrics.metrics_of(counts, aucs, settings.fidelity)[0]
    return pd.DataFrame(values | {name: overall[name] for name in (metrics.OVERALL if auc else metrics.OVERALL[1:])})


def p_values(values: pd.DataFrame) -> pd.Series:
    """Two-sided p-value of "the true value is zero" for each column of estimate (row 0) and resamples.

    The level at which the percentile interval just touches zero, so that p < 1 - level and "the interval excludes
    zero" say the same (up to half a resample). Never below 1 / (B + 1).
    """
    draws = values.iloc[1:]
    defined = draws.notna().sum()
    below = ((draws < 0).sum() + (draws == 0).sum() / 2 + 0.5) / (defined + 1)
    p = (2 * np.minimum(below, 1 - below)).clip(lower=1 / (defined + 1), upper=1)
    return p.where(values.iloc[0].notna() & (defined > 0)).rename("p_value")
