"""Group fairness of a detector, from its score table alone.

A score table holds one row an image: dataset, img_path, video, identity, label (1 = fake), method, gender,
race, group, logit_real, logit_fake, score = P(fake). Any detector can write one; nothing here needs torch.

Everything rests on one object, the contingency table counts[group, label, predicted]: an estimate, 2,000
resamples and 1,000 permutations are such tables with other axes in front, and go through the same few lines.
All metrics are fractions, not percent. Two fidelities (Lin et al. 2024, Evaluation; the released script):

- ``corrected``: `score` as it stands; a group with one class counts with the rates it has.
- ``official``: score = sigmoid(logit_fake); a group with one class is left out of every metric, but not of
  the overall rates. The released script prints F_FPR and F_EO as fractions and the gaps in percent.

A rate without images is undefined (NaN): never zero, never dropped in silence (see `undefined_rates`).
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from .manifests import GENDERS, GROUPS, RACES

METRICS = ("fpr_sum", "fpr_gap", "oae", "dp", "meo", "eo", "auc_gap")
OVERALL = ("auc", "acc", "fpr", "tpr")
FIDELITIES = ("corrected", "official")


class ScoreTableError(ValueError):
    """A score table that cannot be judged: says which column and row, and what to do."""


@dataclass(frozen=True)
class _Scored:
    """The columns of a checked score table as arrays: all (n,), `names` the G groups in order."""

    label: np.ndarray  # int64, 1 = fake
    score: np.ndarray  # float64, 0..1
    predicted: np.ndarray  # int64, 1 = called fake
    group: np.ndarray  # int64, 0..G-1
    names: list


def _column(table, name):
    """A column without missing values, or an error that names it."""
    if name not in table.columns:
        hint = " The intersection of gender and race is called 'group'." if name == "intersection" else ""
        if name == "video":
            hint = " Without videos, copy img_path into it: every image is then its own cluster."
        columns = ", ".join(map(str, table.columns))
        raise ScoreTableError(f"The score table has no column '{name}'; it has: {columns}.{hint}")
    missing = table[name].isna().to_numpy()
    if missing.any():
        raise ScoreTableError(
            f"Column '{name}' is empty (NaN) in {missing.sum()} row(s), first in row {missing.argmax()} (counted "
            "from 0). Fill it in, or remove those rows on purpose."
        )
    return table[name]


def _numbers(table, name, allowed, remedy):
    """A column as float64, every value of which passes `allowed` (a function of the array)."""
    column = pd.to_numeric(_column(table, name), errors="coerce").to_numpy(np.float64)
    bad = ~allowed(column)
    if bad.any():
        row = bad.argmax()
        raise ScoreTableError(
            f"Column '{name}', row {row} (counted from 0): {table[name].iloc[row]} is not allowed. {remedy}"
        )
    return column


def _scores(table, fidelity):
    """P(fake), (n,): the column `score`, or sigmoid(logit_fake) for fidelity "official"."""
    if fidelity not in FIDELITIES:
        raise ValueError(f"fidelity is {fidelity!r}; use one of {', '.join(FIDELITIES)}.")
    if fidelity == "corrected":
        return _numbers(
            table,
            "score",
            lambda x: (x >= 0) & (x <= 1),
            "A score is P(fake), from 0 to 1: apply softmax to the two logits and keep the fake one.",
        )
    logit = _numbers(table, "logit_fake", np.isfinite, "The logit of the fake class must be a finite number.")
    return np.exp(-np.logaddexp(0, -logit))  # the sigmoid, without overflow


def group_order(column):
    """The groups in a column, in the project's order (male before female; asian, white, black, others)."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return list(column.cat.categories)  # a category without images stays visible, with n = 0
    known = (*GROUPS, *GENDERS, *RACES)
    return sorted(column.unique(), key=lambda v: (known.index(v) if v in known else len(known), str(v)))


def _read(table, by, threshold, fidelity):
    """Check a score table and return it as arrays; `by` None puts every image into one group."""
    if len(table) == 0:
        raise ScoreTableError("The score table is empty: nothing to judge. Check the filter that made it.")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it is compared with P(fake), so it lies in 0..1.")
    allowed = "A label is 0 (real) or 1 (fake)."
    label = _numbers(table, "label", lambda x: (x == 0) | (x == 1), allowed).astype(np.int64)
    score = _scores(table, fidelity)
    names, group = ["all"], np.zeros(len(table), np.int64)
    if by is not None:
        column = _column(table, by)
        names = group_order(column)
        group = pd.Index(names).get_indexer(column).astype(np.int64)
    return _Scored(label, score, (score >= threshold).astype(np.int64), group, names)


def _clusters(table, cluster):
    """Codes 0..C-1 of the clusters, (n,); a video name used by two data sets means two clusters."""
    keys = _column(table, cluster)
    if "dataset" in table.columns:
        keys = pd.MultiIndex.from_arrays([_column(table, "dataset"), keys])
    return pd.factorize(keys)[0]


def _count(scored, unit, units):
    """counts[unit, group, label, predicted] in one pass: (units, G, 2, 2) float64."""
    shape = (units, len(scored.names), 2, 2)
    cell = np.ravel_multi_index((unit, scored.group, scored.label, scored.predicted), shape)
    return np.bincount(cell, minlength=np.prod(shape)).reshape(shape).astype(np.float64)


def _ratio(part, whole):
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _rates(counts):
    """Rates of contingency tables (..., label 2, predicted 2), each (...); NaN where there are no images."""
    (tn, fp), (fn, tp) = np.moveaxis(counts, (-2, -1), (0, 1))
    n = tn + fp + fn + tp
    return {
        "fpr": _ratio(fp, tn + fp),
        "fnr": _ratio(fn, fn + tp),
        "tpr": _ratio(tp, fn + tp),
        "tnr": _ratio(tn, tn + fp),
        "acc": _ratio(tn + tp, n),
        "predicted_fake": _ratio(fp + tp, n),
    }


def _gap(values):
    """Largest minus smallest over the defined groups (last axis); NaN if fewer than two are defined."""
    defined = ~np.isnan(values)
    high, low = np.where(defined, values, -np.inf).max(-1), np.where(defined, values, np.inf).min(-1)
    return np.subtract(high, low, out=np.full(high.shape, np.nan), where=defined.sum(-1) >= 2)


def _sum(values):
    """Sum over the defined groups (last axis); NaN if fewer than two are defined."""
    return np.where((~np.isnan(values)).sum(-1) >= 2, np.nansum(values, -1), np.nan)


def _metrics(counts, auc, fidelity):
    """Fairness metrics and the number of groups each rests on.

    Parameters
    ----------
    counts : float64 (..., G, 2, 2)
        counts[..., group, label, predicted].
    auc : float64 (..., G)
    fidelity : "corrected" or "official"

    Returns
    -------
    values, groups : dict of float64 (...), dict of int64 (...)
    """
    overall = _rates(counts.sum(-3))
    if fidelity == "official":  # a group with one class disappears, after the overall rates have used it
        counts = counts * (counts.sum(-1).min(-1) > 0)[..., None, None]
    rates = _rates(counts)
    fpr, tpr = rates["fpr"], rates["tpr"]
    fpr_off = np.abs(fpr - overall["fpr"][..., None])
    tpr_off = np.abs(tpr - overall["tpr"][..., None])
    values = {
        "fpr_sum": _sum(fpr_off),
        "fpr_gap": _gap(fpr),
        "oae": _gap(rates["acc"]),
        "dp": _gap(rates["predicted_fake"]),
        "meo": np.maximum(_gap(fpr), _gap(tpr)),  # TNR = 1 - FPR and FNR = 1 - TPR have the same gaps
        "eo": _sum(fpr_off) + _sum(tpr_off),
        "auc_gap": _gap(auc),
    }
    defined = {name: (~np.isnan(x)).sum(-1) for name, x in {**rates, "auc": auc}.items()}
    both = np.minimum(defined["fpr"], defined["tpr"])
    rests_on = (defined["fpr"], defined["fpr"], defined["acc"], defined["acc"], both, both, defined["auc"])
    return values, dict(zip(METRICS, rests_on, strict=True))


def _auc_plan(scored, unit, chosen):
    """What the AUC of any weighting of units needs, sorted once: see `_weighted_auc`."""
    fakes = np.flatnonzero(chosen & (scored.label == 1))
    reals = np.flatnonzero(chosen & (scored.label == 0))
    fakes, reals = fakes[np.argsort(scored.score[fakes])], reals[np.argsort(scored.score[reals])]
    below = np.searchsorted(scored.score[reals], scored.score[fakes], "left")
    up_to = np.searchsorted(scored.score[reals], scored.score[fakes], "right")
    return unit[fakes], unit[reals], below, up_to


def _weighted_auc(plan, weights):
    """AUC under B weightings of the units at once: P(a fake scores higher than a real), ties one half.

    `weights` is (units, B); returns (B,), NaN where one class has no weight.
    """
    fake_unit, real_unit, below, up_to = plan
    fakes = weights[fake_unit]  # (n_fake, B)
    reals = np.zeros((len(real_unit) + 1, weights.shape[1]))
    np.cumsum(weights[real_unit], axis=0, out=reals[1:])  # weight of the reals up to each rank
    if np.array_equal(below, up_to):  # no ties: half the memory traffic
        wins = np.einsum("fb,fb->b", fakes, reals[below])
    else:
        wins = np.einsum("fb,fb->b", fakes, reals[below] + reals[up_to]) / 2
    return _ratio(wins, fakes.sum(0) * reals[-1])


def _group_plans(scored, unit):
    return [_auc_plan(scored, unit, scored.group == g) for g in range(len(scored.names))]


def _group_auc(scored):
    """AUC of every group, (G,)."""
    unit = np.zeros(len(scored.label), np.int64)
    return np.concatenate([_weighted_auc(plan, np.ones((1, 1))) for plan in _group_plans(scored, unit)])


def group_rates(table, by="group", threshold=0.5, fidelity="corrected"):
    """Rates of each group.

    Parameters
    ----------
    table : DataFrame
        Score table (see the module's head).
    by : str
        Column that names the group of an image: "gender", "race", "group" (their intersection) or any other.
        A categorical column also shows its categories without images.
    threshold : float, 0..1
        Fake when score >= threshold.
    fidelity : "corrected" or "official"
        Which score is used; no group is left out here.

    Returns
    -------
    DataFrame
        One row a group: n, n_real, n_fake, n_videos (int), fpr, fnr, tpr, tnr, acc, predicted_fake, auc
        (fractions, NaN = undefined), undefined: "" or which rates are, why, and on how many images.

    Raises
    ------
    ScoreTableError
        Missing column, missing or impossible value (names column and row), empty table.
    """
    scored = _read(table, by, threshold, fidelity)
    videos = pd.Series(_clusters(table, "video")).groupby(scored.group).nunique()
    counts = _count(scored, np.zeros(len(table), np.int64), 1)[0]
    n_real, n_fake = counts.sum(-1).astype(int).T
    sizes = {
        "n": n_real + n_fake,
        "n_real": n_real,
        "n_fake": n_fake,
        "n_videos": videos.reindex(range(len(scored.names)), fill_value=0).to_numpy(),
    }
    rates = pd.DataFrame({**sizes, **_rates(counts), "auc": _group_auc(scored)}, index=pd.Index(scored.names, name=by))
    rates["undefined"] = [_why_undefined(*row) for row in zip(n_real, n_fake, strict=True)]
    return rates


def _why_undefined(n_real, n_fake):
    if n_real and n_fake:
        return ""
    if not n_real and not n_fake:
        return "all rates: no images (n = 0)"
    if not n_real:
        return f"FPR, TNR and AUC: no reals (n = {n_fake}, all fake)"
    return f"FNR, TPR and AUC: no fakes (n = {n_real}, all real)"


def undefined_rates(table, by="group"):
    """Plain sentences, one a group with undefined rates: which, why, and on how many images; [] if none."""
    reasons = group_rates(table, by)["undefined"]
    return [f"{by} {name}: undefined {reason}." for name, reason in reasons.items() if reason]


def fairness_metrics(table, by="group", threshold=0.5, fidelity="corrected"):
    """Fairness metrics over the groups of a column (smaller is fairer).

    With g over the groups, and FPR, TPR those of all images together:

    - fpr_sum (F_FPR) = sum_g |FPR_g - FPR|; fpr_gap = max_g FPR_g - min_g FPR_g;
    - oae (F_OAE) = gap (largest minus smallest) of the accuracies;
    - dp (F_DP) = gap of the predicted-fake rates, equal to that of the predicted-real rates;
    - meo (F_MEO) = the largest of the gaps of FPR, FNR, TPR and TNR;
    - eo (F_EO) = sum_g |FPR_g - FPR| + |TPR_g - TPR|; auc_gap = gap of the AUCs.

    Parameters
    ----------
    table, by, threshold
        As in `group_rates`.
    fidelity : "corrected" or "official"
        "corrected": a group counts in every metric whose rate it has. "official": see the module's head.

    Returns
    -------
    Series
        METRICS as fractions; NaN where fewer than two groups have the rate. ``.attrs["groups"]``: metric ->
        number of groups it rests on (for meo and eo the smaller of the two, those with FPR and with TPR).

    Raises
    ------
    ScoreTableError
        As in `group_rates`.

    Source: Lin et al. 2024, Evaluation metrics; oae, dp, meo after Wang et al. 2022.
    """
    scored = _read(table, by, threshold, fidelity)
    counts = _count(scored, np.zeros(len(table), np.int64), 1)[0]
    values, groups = _metrics(counts, _group_auc(scored), fidelity)
    result = pd.Series({name: float(value) for name, value in values.items()}, name=by)
    result.attrs["groups"] = {name: int(count) for name, count in groups.items()}
    return result


def overall_metrics(table, threshold=0.5, fidelity="corrected"):
    """Metrics over all images: auc, ap (average precision), acc, fpr, tpr, eer (fractions).

    eer: the error rate where FPR = FNR, linear between the two neighbouring points of the ROC curve.
    auc, ap and eer are NaN when a class is missing, fpr or tpr when its own is.
    """
    scored = _read(table, None, threshold, fidelity)
    rates = _rates(_count(scored, scored.group, 1)[0, 0])
    auc = ap = eer = np.nan
    if 0 < scored.label.sum() < len(scored.label):
        auc = roc_auc_score(scored.label, scored.score)
        ap = average_precision_score(scored.label, scored.score)
        fpr, tpr, _ = roc_curve(scored.label, scored.score)
        eer = np.interp(0, fpr + tpr - 1, fpr)  # FPR - FNR rises along the curve; zero where they are equal
    result = {"auc": auc, "ap": ap, "acc": rates["acc"], "fpr": rates["fpr"], "tpr": rates["tpr"], "eer": eer}
    return pd.Series({name: float(value) for name, value in result.items()}, name="overall")


def rate_interval(k, n, level=0.95):
    """Wilson score interval of a rate k / n, for independent images.

    Parameters
    ----------
    k, n : int or array of int
        Hits and trials, 0 <= k <= n.
    level : float, 0..1 exclusive

    Returns
    -------
    low, high : float or float64 arrays; NaN where n = 0

    Source: Wilson 1927; Brown, Cai and DasGupta 2001.
    """
    k, n = np.broadcast_arrays(np.asarray(k, np.float64), np.asarray(n, np.float64))
    if ((k < 0) | (k > n)).any():
        raise ValueError("rate_interval needs 0 <= k <= n: k counts hits among n trials.")
    z2 = NormalDist().inv_cdf((1 + _checked_level(level)) / 2) ** 2
    p, trials = _ratio(k, n), np.where(n > 0, n, np.nan)
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (p * (1 - p) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return np.clip(centre - half, 0, 1)[()], np.clip(centre + half, 0, 1)[()]


def _checked_level(level):
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; a confidence level lies strictly between 0 and 1, such as 0.95.")
    return level


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
    scored, unit = _read(table, by, threshold, fidelity), _clusters(table, cluster)
    units = unit.max() + 1
    cells = _count(scored, unit, units).reshape(units, -1)  # (C, G * 4)
    strata = cells.reshape(units, -1, 2).sum(-1).argmax(-1)  # (C,): group and label of most of its images
    everyone = np.ones(len(unit), bool)
    plans = [*_group_plans(scored, unit), _auc_plan(scored, unit, everyone)]
    counts, auc = [], []
    sizes = _chunks(resamples, len(unit))
    for weights in (np.ones((units, 1)), *_cluster_weights(strata, sizes, seed)):
        counts.append((weights.T @ cells).reshape(-1, len(scored.names), 2, 2))
        auc.append(np.stack([_weighted_auc(plan, weights) for plan in plans], axis=-1))  # (b, G + 1)
    counts, auc = np.concatenate(counts), np.concatenate(auc)
    values, groups = _metrics(counts, auc[:, :-1], fidelity)
    overall = _rates(counts.sum(1))
    values |= {"auc": auc[:, -1], "acc": overall["acc"], "fpr": overall["fpr"], "tpr": overall["tpr"]}
    return pd.DataFrame(values), pd.DataFrame(groups)


def _percentiles(values, level):
    """Estimate (row 0) and percentile interval (the other rows, without undefined ones) of each column."""
    draws, tail = values.iloc[1:], (1 - _checked_level(level)) / 2
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
        index = pd.MultiIndex.from_arrays([_column(table, key) for key in keys])
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
        differs = _column(table_a, name).to_numpy() != _column(table_b, name).to_numpy()
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
    scored = _read(table, by, threshold, fidelity)
    parts = np.stack([_clusters(table, cluster), scored.label, scored.group], axis=1)
    parts, unit = np.unique(parts, axis=0, return_inverse=True)
    groups = len(scored.names)
    pooled = _Scored(scored.label, scored.score, scored.predicted, np.zeros_like(scored.group), ["all"])
    cells = _count(pooled, unit, len(parts)).reshape(-1, 4)  # (U, 4): label, predicted
    plan = _auc_plan(scored, unit, np.ones(len(unit), bool))
    rng = np.random.default_rng(seed)
    counts, auc = [], []
    for size in (0, *_chunks(permutations, len(unit))):  # size 0: the table itself
        codes = np.repeat(parts[:, 2:], max(size, 1), axis=1)  # (U, b)
        for label in (0, 1) if size else ():
            rows = parts[:, 1] == label
            codes[rows] = rng.permuted(codes[rows], axis=0)
        members = [(codes == g).astype(np.float64) for g in range(groups)]
        counts.append(np.stack([(m.T @ cells).reshape(-1, 2, 2) for m in members], axis=1))
        auc.append(np.stack([_weighted_auc(plan, m) for m in members], axis=1))
    values, _ = _metrics(np.concatenate(counts), np.concatenate(auc), fidelity)
    values = pd.DataFrame(values)
    shuffled, estimate = values.iloc[1:], values.iloc[0]
    at_least = (shuffled >= estimate - 1e-12).sum() + 1  # tolerance: equal tables may differ in the last bit
    floor = {"estimate": estimate, "mean": shuffled.mean(), "q95": shuffled.quantile(0.95)}
    floor["p_value"] = (at_least / (permutations + 1)).where(estimate.notna())
    return pd.DataFrame(floor).rename_axis("metric")
