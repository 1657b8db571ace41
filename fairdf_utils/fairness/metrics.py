"""Group fairness of a detector, from its score table alone (see `score_table`), in fractions.

Everything rests on one object, the contingency table counts[group, label, predicted]: an estimate, its resamples and
its permutations are such tables with other axes in front, and go through the same few lines. Two fidelities:

- ``corrected``: `score` as it stands; a group with one class counts with the rates it has.
- ``official`` (the released script): score = sigmoid(logit_fake); a group with one class is left out of every metric,
  but not of the overall rates.

A rate without images is undefined (NaN): never zero, never dropped in silence (see `undefined_rates`).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import t as student
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fairdf_utils.data.vocabulary import FIDELITIES, group_order
from fairdf_utils.fairness.auc import ratio, segment_auc
from fairdf_utils.fairness.score_table import ScoreTableError, column, numbers, sigmoid

METRICS = ("fpr_sum", "fpr_gap", "tpr_gap", "oae", "dp", "meo", "eo", "auc_gap")
OVERALL = ("auc", "acc", "fpr", "tpr")
RATES = ("fpr", "fnr", "tpr", "tnr", "acc", "predicted_fake", "auc")
Threshold = float | pd.Series | np.ndarray  # one for all, group -> threshold, or one an image (N,)


@dataclass(frozen=True)
class Scored:
    """The columns of a checked score table as arrays: all (n,), `names` the G groups in order."""

    label: np.ndarray  # int64, 1 = fake
    score: np.ndarray  # float64, 0..1
    predicted: np.ndarray  # int64, 1 = called fake
    group: np.ndarray  # int64, 0..G-1
    names: list


def _group_codes(table, by):
    """Code of each image's group, int64 (n,), and the names of the groups in order; one pass over the column."""
    values = table[by] if by in table.columns else column(table, by)
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes, names = values.cat.codes.to_numpy(), group_order(values)
    else:
        codes, found = pd.factorize(values)
        names = group_order(found)
        codes = np.array([names.index(name) for name in found] + [-1])[codes]  # a missing one stays -1
    if codes.min() < 0:
        column(table, by)  # says in which row a group is missing
    return codes.astype(np.int64), names


def as_arrays(table: pd.DataFrame, by: str | None, threshold: Threshold, fidelity: str) -> Scored:
    """Check a score table and return it as arrays; `by` None puts every image into one group."""
    if len(table) == 0:
        raise ScoreTableError("The score table is empty: nothing to judge. Check the filter that made it.")
    if fidelity not in FIDELITIES:
        raise ValueError(f"fidelity is {fidelity!r}; use one of {', '.join(FIDELITIES)}.")
    label = numbers(table, "label").astype(np.int64)
    score = numbers(table, "score") if fidelity == "corrected" else sigmoid(numbers(table, "logit_fake"))
    group, names = (np.zeros(len(table), np.int64), ["all"]) if by is None else _group_codes(table, by)
    return Scored(label, score, (score >= _cuts(threshold, by, group, names)).astype(np.int64), group, names)


def _cuts(threshold, by, group, names):
    """The threshold of each image: float64 () or (n,)."""
    if isinstance(threshold, pd.Series):
        if by is None:
            raise ValueError("A threshold for each group is given, but no column of the groups (by).")
        missing = [str(names[code]) for code in np.unique(group) if names[code] not in threshold.index]
        if missing:
            raise ScoreTableError(f"No threshold for {', '.join(missing)} of column '{by}': give every group one.")
        threshold = threshold.reindex(names).to_numpy(np.float64)[group]
    cuts = np.asarray(threshold, np.float64)
    if cuts.shape not in ((), group.shape):
        raise ValueError(f"{cuts.size} thresholds for {len(group)} images: give one, one a group, or one an image.")
    outside = cuts[~((cuts >= 0) & (cuts <= 1))]
    if outside.size:
        raise ValueError(f"threshold is {outside.flat[0]:g}; it is compared with P(fake), so it lies in 0..1.")
    return cuts


def cluster_codes(table: pd.DataFrame, cluster: str) -> np.ndarray:
    """Codes 0..C-1 of the clusters, (n,); a video name used by two data sets means two clusters."""
    codes, names = pd.factorize(column(table, cluster))
    if "dataset" in table.columns:
        sets, datasets = pd.factorize(column(table, "dataset"))
        if len(datasets) > 1:
            codes = pd.factorize(sets * len(names) + codes)[0]
    return codes


def contingency(scored: Scored, unit: np.ndarray | int = 0, units: int = 1) -> np.ndarray:
    """counts[unit, group, label, predicted] in one pass: (units, G, 2, 2) float64. `unit` int (n,), or 0 for all."""
    shape = (units, len(scored.names), 2, 2)
    cell = ((unit * shape[1] + scored.group) * 2 + scored.label) * 2 + scored.predicted
    return np.bincount(cell, minlength=np.prod(shape)).reshape(shape).astype(np.float64)


def _shares(counts):
    """Numerators and denominators of FPR, TPR, accuracy and predicted-fake rate, float64 (4, ...) each."""
    images, fake = counts.sum(-1), counts[..., 1]  # (..., label 2): all, and those called fake
    (reals, fakes), (fp, tp) = np.moveaxis(images, -1, 0), np.moveaxis(fake, -1, 0)
    everyone = reals + fakes
    return np.stack([fp, tp, reals - fp + tp, fp + tp]), np.stack([reals, fakes, everyone, everyone])


def rates_of(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Rates of contingency tables (..., label 2, predicted 2), each (...); NaN where there are no images."""
    fpr, tpr, acc, predicted_fake = ratio(*_shares(counts))
    return {"fpr": fpr, "fnr": 1 - tpr, "tpr": tpr, "tnr": 1 - fpr, "acc": acc, "predicted_fake": predicted_fake}


def gap(values: np.ndarray) -> np.ndarray:
    """Largest minus smallest over the defined groups (last axis); NaN if fewer than two are defined."""
    defined = ~np.isnan(values)
    high, low = np.where(defined, values, -np.inf).max(-1), np.where(defined, values, np.inf).min(-1)
    return np.subtract(high, low, out=np.full(high.shape, np.nan), where=defined.sum(-1) >= 2)


def _sum(values):
    """Sum over the defined groups (last axis); NaN if fewer than two are defined."""
    defined = ~np.isnan(values)
    return np.where(defined.sum(-1) >= 2, np.where(defined, values, 0).sum(-1), np.nan)


def metrics_of_rates(rates: np.ndarray, overall: np.ndarray, auc: np.ndarray | None) -> dict[str, np.ndarray]:
    """The metrics, (...) each, from the rates of the groups (FPR, TPR, accuracy, predicted-fake rate): (4, ..., G).

    `overall` (2, ...) are FPR and TPR of all images; `auc` is (..., G), or None for the metrics of the threshold alone.
    Each metric is a seminorm: scaled rates scale it, and it never exceeds the sum of those of two summands. So the
    metrics of two sets of rates differ by no more than the metric of their difference.
    """
    fpr_gap, tpr_gap, acc_gap, predicted_gap = gap(rates)
    fpr_sum, tpr_sum = _sum(np.abs(rates[:2] - overall[..., None]))
    values = {
        "fpr_sum": fpr_sum,
        "fpr_gap": fpr_gap,
        "tpr_gap": tpr_gap,
        "oae": acc_gap,
        "dp": predicted_gap,
        "meo": np.maximum(fpr_gap, tpr_gap),  # TNR = 1 - FPR and FNR = 1 - TPR have the same gaps
        "eo": fpr_sum + tpr_sum,
    }
    return values if auc is None else values | {"auc_gap": gap(auc)}


def rates_and_overall(counts: np.ndarray, fidelity: str) -> tuple[np.ndarray, np.ndarray]:
    """What `metrics_of_rates` takes, from contingency tables (..., G, 2, 2)."""
    part, whole = _shares(counts)  # (4, ..., G)
    overall = ratio(part[:2].sum(-1), whole[:2].sum(-1))
    if fidelity == "official":  # a group with one class disappears, after the overall rates have used it
        whole = whole * (whole[:2].min(0) > 0)
    return ratio(part, whole), overall


def metrics_of(counts: np.ndarray, auc: np.ndarray | None, fidelity: str) -> tuple[dict, dict]:
    """Fairness metrics of tables counts (..., group, label, predicted), and the number of groups each rests on.

    `auc` is (..., G), or None for the metrics of the threshold alone. Two dicts of float64 (...) and int64 (...).
    """
    rates, overall = rates_and_overall(counts, fidelity)
    values = metrics_of_rates(rates, overall, auc)
    reals, fakes, images, _ = (~np.isnan(rates)).sum(-1)
    both = np.minimum(reals, fakes)
    groups = dict(zip(values, (reals, reals, fakes, images, images, both, both), strict=False))
    return values, groups if auc is None else groups | {"auc_gap": (~np.isnan(auc)).sum(-1)}


def group_rates(
    table: pd.DataFrame, by: str = "group", threshold: Threshold = 0.5, fidelity: str = "corrected"
) -> pd.DataFrame:
    """Rates of each group of the column `by`; a categorical one also shows its categories without images.

    An image is called fake when its score reaches the threshold (0..1): one for all, one a group, or one an image.
    `fidelity` says which score that is; no group is left out here.

    One row a group: n, n_real, n_fake, n_videos (int), fpr, fnr, tpr, tnr, acc, predicted_fake, auc (fractions, NaN =
    undefined), undefined: "" or which rates are, why, and on how many images. ScoreTableError if the table is empty,
    or a column lacks or holds an impossible value.
    """
    scored = as_arrays(table, by, threshold, fidelity)
    video = cluster_codes(table, "video")
    of_groups = np.unique(video * len(scored.names) + scored.group) % len(scored.names)  # of each video's groups
    counts, auc = contingency(scored)[0], segment_auc(scored.group, len(scored.names), scored.label, scored.score)
    n_real, n_fake = counts.sum(-1).astype(int).T
    sizes = {"n": n_real + n_fake, "n_real": n_real, "n_fake": n_fake}
    sizes["n_videos"] = np.bincount(of_groups, minlength=len(scored.names))
    rates = pd.DataFrame({**sizes, **rates_of(counts), "auc": auc}, pd.Index(scored.names, name=by))
    rates["undefined"] = ""
    for lacks, others, rest in ((n_real, n_fake, "FPR, TNR and AUC: no reals (n = {}, all fake)"),
                                (n_fake, n_real, "FNR, TPR and AUC: no fakes (n = {}, all real)")):  # fmt: skip
        rates.loc[lacks == 0, "undefined"] = [rest.format(n) for n in others[lacks == 0]]
    rates.loc[rates["n"] == 0, "undefined"] = "all rates: no images (n = 0)"
    return rates


def undefined_rates(table: pd.DataFrame, by: str = "group") -> list[str]:
    """Plain sentences, one a group with undefined rates: which, why, and on how many images; [] if none."""
    reasons = group_rates(table, by)["undefined"]
    return [f"{by} {name}: undefined {reason}." for name, reason in reasons.items() if reason]


def fairness_metrics(
    table: pd.DataFrame, by: str = "group", threshold: Threshold = 0.5, fidelity: str = "corrected", auc: bool = True
) -> pd.Series:
    """Fairness metrics over the groups of a column (smaller is fairer).

    With g over the groups, and FPR, TPR those of all images together:

    - fpr_sum (F_FPR) = sum_g |FPR_g - FPR|; fpr_gap = max_g FPR_g - min_g FPR_g, tpr_gap likewise;
    - oae (F_OAE) = gap (largest minus smallest) of the accuracies;
    - dp (F_DP) = gap of the predicted-fake rates, equal to that of the predicted-real rates;
    - meo (F_MEO) = the largest of the gaps of FPR, FNR, TPR and TNR;
    - eo (F_EO) = sum_g |FPR_g - FPR| + |TPR_g - TPR|; auc_gap = gap of the AUCs.

    The arguments are as in `group_rates`; without `auc`, auc_gap and the sorting of scores, most of the time, are left
    out. METRICS as fractions, NaN where fewer than two groups have the rate. ``.attrs["groups"]``: metric -> number of
    groups it rests on (for meo and eo the smaller of the two, those with FPR and with TPR).

    Source: Lin et al. 2024, evaluation metrics.
    """
    scored = as_arrays(table, by, threshold, fidelity)
    of_groups = segment_auc(scored.group, len(scored.names), scored.label, scored.score) if auc else None
    values, groups = metrics_of(contingency(scored)[0], of_groups, fidelity)
    result = pd.Series({name: float(value) for name, value in values.items()}, name=by)
    result.attrs["groups"] = {name: int(count) for name, count in groups.items()}
    return result


def overall_metrics(table: pd.DataFrame, threshold: Threshold = 0.5, fidelity: str = "corrected") -> pd.Series:
    """Metrics over all images: auc, ap (average precision), acc, fpr, tpr, eer (fractions).

    eer is the error rate where FPR = FNR, linear between the two neighbouring points of the ROC curve. auc, ap and
    eer are NaN when a class is missing, fpr or tpr when its own is. `threshold` is one for all, or an array (N,).
    """
    scored = as_arrays(table, None, threshold, fidelity)
    rates = rates_of(contingency(scored)[0, 0])
    result = pd.Series(rates, ["auc", "ap", "acc", "fpr", "tpr", "eer"], np.float64, "overall")
    if 0 < scored.label.sum() < len(scored.label):
        result["auc"] = roc_auc_score(scored.label, scored.score)
        result["ap"] = average_precision_score(scored.label, scored.score)
        fpr, tpr, _ = roc_curve(scored.label, scored.score)
        result["eer"] = np.interp(0, fpr + tpr - 1, fpr)  # FPR - FNR rises along the curve; zero where they are equal
    return result


def rate_interval(
    k: ArrayLike, n: ArrayLike, level: float = 0.95, freedom: ArrayLike = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson score interval (low, high) of a rate k / n, for independent images; NaN where n = 0.

    Hits and trials, 0 <= k <= n, need not be whole: images may be worth less than one each. Where n was estimated, from
    a variance with so many degrees of `freedom`, the quantile of Student's t takes the place of the normal.

    Source: Wilson 1927; Brown, Cai and DasGupta 2001; Newcombe 2006 (Wilson's form for the AUC).
    """
    k, n = np.broadcast_arrays(np.asarray(k, np.float64), np.asarray(n, np.float64))
    if ((k < 0) | (k > n)).any():
        raise ValueError("rate_interval needs 0 <= k <= n: k counts hits among n trials.")
    z2 = student.ppf((1 + checked_level(level)) / 2, freedom) ** 2
    p, trials = ratio(k, n), np.where(n > 0, n, np.nan)
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (p * (1 - p) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    low, high = np.where(k == 0, 0 * centre, centre - half), np.where(k == n, 0 * centre + 1, centre + half)
    return low[()], high[()]


def checked_level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; a confidence level lies strictly between 0 and 1, such as 0.95.")
    return level
