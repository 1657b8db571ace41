"""How sure one can be of a fairness metric: one regime for the chapter, the audit and every figure.

- The rate of a group has an interval that knows how alike frames of one video may be (`interval_of_a_rate`, from the
  curves of `confidence`).
- A gap between groups has a band that holds it however small it is (`interval_of_a_gap`), and beside it the sampling
  floor: what the table would show of the gap if the groups made no difference, with a permutation p-value.
- An AUC has Wilson's interval on its effective number, from one sort of the scores (`interval_of_an_auc`).
- The difference of two detectors has an interval that holds it whether the groups differ or not
  (`interval_of_a_difference`); what an AUC has a part in rests on resampled whole videos there.

All functions take a score table, the column `by` of the groups and `Settings`. `auc=False` leaves out what needs the
AUC, most of the time. Rates and metrics are fractions; NaN is undefined.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import ndtr
from scipy.stats import t as student

from fairdf_utils.fairness import metrics
from fairdf_utils.fairness.auc import ClusteredAuc
from fairdf_utils.fairness.confidence import confidence, drawn_tables
from fairdf_utils.fairness.permutation import chance_against_rest, holm, sampling_floor
from fairdf_utils.fairness.resampling import Clustered, Settings, aligned, auc_of, clustered, resampled_aucs
from fairdf_utils.fairness.worst_group import of_groups, worst


def interval_of_a_rate(errors: np.ndarray, sizes: np.ndarray, level: float) -> dict[str, float]:
    """The rate of a group with its interval: the one place where that interval is chosen.

    `errors` and `sizes` (C,) are images that count for the rate, and all images, of each of C clusters. estimate, low,
    high, effective (independent images that these are worth); NaN without images.
    """
    errors, sizes = errors[sizes > 0], sizes[sizes > 0]
    if not len(sizes):
        return dict.fromkeys(("estimate", "low", "high", "effective"), np.nan)
    curve = confidence(errors, sizes)
    low, high = curve.quantile((1 - level) / 2), curve.quantile((1 + level) / 2)
    return {"estimate": errors.sum() / sizes.sum(), "low": low, "high": high, "effective": curve.effective}


def _joined(shares: np.ndarray, rates: pd.DataFrame, more: float = 0.0) -> dict[str, float]:
    """`more` and `shares` of rates of different images, each with its interval, summed: estimate, low, high.

    Source: Newcombe 1998; Zou and Donner 2008 (an interval from others).
    """
    used = np.flatnonzero(shares)
    ends = np.asarray(shares)[used, None] * rates[["estimate", "low", "high"]].to_numpy(np.float64)[used]
    down, up = np.sqrt((np.sort(ends[:, 1:] - ends[:, :1], axis=1) ** 2).sum(0))
    estimate = more + ends[:, 0].sum()
    return {"estimate": estimate, "low": estimate - down, "high": estimate + up}


def interval_of_an_auc(known: ClusteredAuc, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of each AUC, (G,) each: it never leaves 0..1 and has a width where all clusters agree."""
    return metrics.rate_interval(known.estimate * known.effective, known.effective, level, known.freedom)


def interval_of_a_gap(values: pd.DataFrame, deviations: pd.DataFrame, p_value: pd.Series, level: float) -> pd.DataFrame:
    """The band of each fairness metric: the one place where that interval is chosen.

    Noise widens gaps, so the gaps of rates that may be the truth lie above a true gap of the size of the noise. But
    each metric F is a seminorm of the group rates, so F(estimate) is no further from F(truth) than F(estimate - truth):
    the `level` quantile of that is the half width, wide on purpose. The low end is zero where the permutations do not
    exclude that there is no gap.

    `values` (first row) are the metrics of the table, `deviations` (B rows) those of the possible minus the estimated
    rates, `p_value` comes from the permutations. Index metrics; columns estimate, low, high.
    """
    estimate, reach = values.iloc[0], deviations.quantile(level)
    most = pd.Series(np.where(values.columns.isin(["fpr_sum", "eo"]), np.inf, 1), values.columns)  # sums have no end
    low = (estimate - reach).clip(lower=0).mask(p_value >= 1 - level, 0).mask(estimate.isna())
    return pd.DataFrame({"estimate": estimate, "low": low, "high": (estimate + reach).clip(upper=most)})


def interval_of_a_difference(
    estimate: pd.Series, errors: list[pd.DataFrame], most: pd.DataFrame, level: float
) -> pd.DataFrame:
    """The interval of metric of A minus metric of B: the one place where that interval is chosen.

    How noise moves a gap depends on the truth: a gap of zero it only widens, a large one it moves either way. The
    `errors` (B rows each) are those of the difference with each detector's gaps taken for zero, where they may be, and
    for what they seem; the interval holds the truth in all of these cases. But the gaps of two detectors cannot differ
    by more than the gap of the differences of their rates, of which `most` are draws: next to nothing if the detectors
    are much alike.

    Index metrics; columns estimate, low, high, p_value (the level at which the interval just touches zero).
    """
    each = [pd.concat([estimate.to_frame().T, estimate - error], ignore_index=True) for error in errors]
    ends = [percentiles(values, level) for values in each]
    end = most.quantile((1 + level) / 2).clip(lower=estimate.abs()).reindex(estimate.index).fillna(np.inf)
    low, high = np.min([one["low"] for one in ends], axis=0), np.max([one["high"] for one in ends], axis=0)
    p = np.max([p_values(values) for values in each], axis=0)
    return pd.DataFrame(
        {"estimate": estimate, "low": np.maximum(low, -end), "high": np.minimum(high, end), "p_value": p}
    )


def percentiles(values: pd.DataFrame, level: float) -> pd.DataFrame:
    """Estimate (row 0) and percentile interval of resamples (other rows): index columns; estimate, low, high."""
    tail = (1 - level) / 2
    ends = values.iloc[1:].quantile([tail, 1 - tail]).T.set_axis(["low", "high"], axis=1)
    ends.insert(0, "estimate", values.iloc[0])
    return ends.mask(ends["estimate"].isna())


def metric_intervals(table: pd.DataFrame, by: str, settings: Settings, auc: bool = True) -> pd.DataFrame:
    """The fairness metrics with bands and sampling floors.

    Index METRICS; columns estimate, low, high; groups: how many it rests on; floor_mean, floor_q95, p_value: see
    `sampling_floor`.
    """
    data = clustered(table, by, settings)
    aucs = _auc_draws(data, settings) if auc else None
    values, deviations = gaps_of(data, settings, aucs)
    floor = sampling_floor(table, by, settings, auc).drop(columns="estimate")
    floor = floor.rename(columns={"mean": "floor_mean", "q95": "floor_q95"})
    result = interval_of_a_gap(values, deviations, floor["p_value"], settings.level)
    groups = metrics.metrics_of(data.cells.sum(0), aucs[0] if auc else None, settings.fidelity)[1]
    result["groups"] = pd.Series(groups, dtype="Int64")
    return result.join(floor).rename_axis("metric")


def gaps_of(data: Clustered, settings: Settings, aucs: np.ndarray | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """METRICS of the clusters, one row, and of the differences of B rates that may be the truth from the estimated.

    `aucs` (1 + B, G) are the AUCs of the groups and draws of them; without them there is no auc_gap.
    """
    here, drawn = _possible(data, settings, _chances([data], settings)[0], aucs)
    return _metrics(here), _metrics(_minus(drawn, here))


def _auc_draws(data, settings):
    """The AUC of each group (row 0), and draws with the spread that its interval has: (1 + B, G)."""
    known = auc_of(data)
    low, high = interval_of_an_auc(known, settings.level)
    spread = (high - low) / 2 / student.ppf((1 + settings.level) / 2, known.freedom)
    noise = known.noise(settings.resamples, settings.seed)
    return known.estimate + spread * np.concatenate([np.zeros_like(noise[:1]), noise])


def _chances(sides: Sequence[Clustered], settings: Settings) -> list[np.ndarray]:
    """Uniform numbers (label 2, B, G) for each detector, as alike as its and the first one's errors in the clusters."""
    images, found = sides[0].cells.sum(-1), []
    clusters, groups = images.shape[:2]
    called = [each.cells[..., 1] for each in sides]
    off = [each - images * metrics.ratio(each.sum(0), images.sum(0)) for each in called]
    off = [np.nan_to_num(each).reshape(clusters * groups, 2) for each in off]
    rng, shape = np.random.default_rng(settings.seed), (2, settings.resamples, groups)
    first = rng.standard_normal(shape)
    for each in off:
        alike = metrics.ratio((off[0] * each).sum(0), np.sqrt((off[0] ** 2).sum(0) * (each**2).sum(0)))
        alike = np.where((off[0] == each).all(0), 1, np.clip(np.nan_to_num(alike), -1, 1))[:, None, None]
        found.append(ndtr(alike * first + np.sqrt(1 - alike**2) * rng.standard_normal(shape)))
    return found


def _rates(cells: np.ndarray, names: list, level: float) -> pd.DataFrame:
    """fpr, tpr, acc of groups with intervals: index (rate, group); columns as in `interval_of_a_rate`."""
    images, rows = cells.sum(-1), {}  # (C, G, label)
    for code, name in enumerate(names):
        own = [interval_of_a_rate(cells[:, code, k, 1], images[:, code, k], level) for k in (0, 1)]
        share = metrics.ratio(images[:, code].sum(0), np.full(2, images[:, code].sum()))
        rows["fpr", name], rows["tpr", name] = own
        rows["acc", name] = _joined(share * [-1, 1], pd.DataFrame(own), share[0])
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
    for rate in ("fpr", "tpr", "acc"):
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
    are not there. Where the two disagree, p decides; groups too small to be judged have none.

    Index (rate, group); columns estimate, low, high, p_value; p_holm: corrected for all rows. Of two groups only the
    first is listed: the other mirrors it.
    """
    data, rows = clustered(table, by, settings), {}
    names, everyone = data.scored.names, data.cells.sum(1)
    chance = chance_against_rest(data.cells, settings)
    for code, name in enumerate(names[:1] if len(names) == 2 else names):
        here = data.cells[:, code]
        two = _rates(np.stack([here, everyone - here], axis=1), ["own", "rest"], settings.level)
        for rate in rates:
            rows[rate, name] = [*_joined([1, -1], two.loc[rate]).values(), chance[rate][code]]
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
    """Metric of A minus metric of B, on the same images (negative: A is smaller).

    What both detectors find hard cancels, so the interval is narrower than the two of `metric_intervals` suggest. The
    rows may stand in any order; `threshold_b` is that of B, where it is not that of the settings.

    Index WORST (not without `auc`) + METRICS + OVERALL; columns a, b (the two estimates), estimate = a - b, low, high;
    p_value: that the difference is zero, see `interval_of_a_difference`; p_holm: corrected for all rows of this table
    (who reads several tables together corrects the p_value of all of them, with `holm`). ScoreTableError if the tables
    do not hold the same images, or disagree on label, group or cluster of one.
    """
    table_b = aligned(table_a, table_b, ["label", by, settings.cluster])
    other = settings if threshold_b is None else replace(settings, threshold=threshold_b)
    data = [clustered(table, by, each) for table, each in ((table_a, settings), (table_b, other))]
    return difference_of(data, (settings, other), auc).rename_axis("metric")


def difference_of(sides: Sequence[Clustered], settings: Sequence[Settings], auc: bool) -> pd.DataFrame:
    """`paired_difference` of two detectors in the same clusters, at settings of their own."""
    chances = _chances(sides, settings[0])
    given = zip(sides, settings, chances, strict=True)
    (a, errors_a, drawn_a, groups_a), (b, errors_b, drawn_b, groups_b) = (_errors(*each, auc) for each in given)
    errors = [of_a - of_b for of_a in errors_a for of_b in errors_b]
    most = _metrics(_minus(drawn_a, drawn_b))
    for name in groups_a:  # two lowest differ by no more than some group does
        most[name] = np.fmax.reduce(np.abs(groups_a[name] - groups_b[name])[1:], axis=1)
    result = interval_of_a_difference(a - b, errors, most, settings[0].level)
    return pd.DataFrame({"a": a, "b": b}).join(result).assign(p_holm=holm(result["p_value"]))


def _errors(data, settings, chance, auc):
    """WORST (not without `auc`) + METRICS + OVERALL of the table, and how far they may be from the truth (B rows).

    Those of METRICS twice: if gaps that may be none were none, and if all were what they seem; so those of WORST, if
    one group is far below the others, and if several are alike. Then the draws, and those that WORST is the lowest of.
    """
    aucs, auc_overall = resampled_aucs(data, settings) if auc else (None, None)
    everyone = drawn_tables(data.cells.sum(1, keepdims=True), chance[..., :1])[:, 0]
    single = metrics.rates_of(everyone) | {"auc": auc_overall}
    single = {name: single[name] for name in (metrics.OVERALL if auc else metrics.OVERALL[1:])}
    groups = of_groups(data, settings, aucs) if auc else {}
    worst_of = {name: worst(one) for name, one in groups.items()}
    single = pd.DataFrame(worst_of | single)
    # A rate that may be the truth is as far from the estimate as that from it, the other way; noise only widens gaps.
    single, off = single.iloc[0], single.iloc[0] - single.iloc[1:].reset_index(drop=True)
    here, drawn = _possible(data, settings, chance, aucs)
    gaps, noise = _metrics(here).iloc[0], _metrics(_minus(drawn, here))
    seeming = _metrics(drawn) - gaps
    sure = gaps > noise.quantile(settings.level)
    noise.loc[:, sure] = seeming.loc[:, sure]  # a gap that is sure is not taken for zero
    order = [*worst_of, *gaps.index, *single.index.difference([*worst_of], sort=False)]
    # Noise lowers the lowest of groups that are alike, in the table as in its draws.
    other_way = off.assign(**{name: -off[name] for name in worst_of})
    return pd.concat([single, gaps])[order], [noise.join(off)[order], seeming.join(other_way)[order]], drawn, groups


def _possible(data, settings, chance, aucs):
    """Rates (4, b, G), overall rates (2, b) and AUCs (b, G), if any: of the table (b = 1), and B that may be true."""
    rates, overall = metrics.rates_and_overall(drawn_tables(data.cells, chance), settings.fidelity)
    parts = slice(0, 1), slice(1, None)
    return [(rates[:, part], overall[:, part], None if aucs is None else aucs[part]) for part in parts]


def _minus(these, those):
    return [None if a is None else a - b for a, b in zip(these, those, strict=True)]


def _metrics(rates):
    return pd.DataFrame(metrics.metrics_of_rates(*rates))


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
