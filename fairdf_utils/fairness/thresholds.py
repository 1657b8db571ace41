"""Fairness at other thresholds: all of them at once, at a wanted error rate, and one of its own for each group.

A threshold is fitted on one table (validation) and judged on another (test): `operating_points` does both. Thresholds
lie half-way between neighbouring scores, where small changes of the scores do least.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fairdf_utils.fairness.metrics import Scored, as_arrays, fairness_metrics, metrics_of, overall_metrics, rates_of
from fairdf_utils.fairness.score_table import ScoreTableError

TARGETS = ("eer", "fpr", "tpr")


def cuts(score: np.ndarray) -> np.ndarray:
    """Every threshold that decides differently, ascending: 0 (all called fake), then between neighbouring scores.

    float64 (K,); the last one calls nothing fake, and is missing where the highest score is 1.
    """
    known = np.unique(score)
    middle = known[:-1] + np.diff(known) / 2
    middle = np.where(middle > known[:-1], middle, known[1:])  # no number lies between the two
    above = [(known[-1] + 1) / 2] if known[-1] < 1 else []
    return np.concatenate([[0.0], middle, above])


def counts_at(scored: Scored, thresholds: np.ndarray) -> np.ndarray:
    """Contingency tables at each threshold from one sort of the scores: (T, G, 2, 2) float64, as in `contingency`."""
    order = np.argsort(scored.score)
    score, cell = scored.score[order], 2 * scored.group[order] + scored.label[order]
    counts = np.zeros((len(thresholds), len(scored.names), 2, 2))
    for code in np.unique(cell):
        own = score[cell == code]
        below = np.searchsorted(own, thresholds, "left")  # fake when score >= threshold
        counts[:, code // 2, code % 2] = np.stack([below, len(own) - below], axis=-1)
    return counts


def metrics_by_threshold(
    table: pd.DataFrame, by: str = "group", thresholds: Sequence[float] | None = None, fidelity: str = "corrected"
) -> pd.DataFrame:
    """Accuracy, FPR, TPR and the fairness metrics as functions of the threshold.

    `thresholds` None takes every one that decides differently (see `cuts`).

    Returns
    -------
    DataFrame
        Index threshold; columns acc, fpr, tpr (of all images), then METRICS but auc_gap, which has no threshold.
    """
    scored = as_arrays(table, by, 0.5, fidelity)
    thresholds = cuts(scored.score) if thresholds is None else np.asarray(thresholds, np.float64)
    counts = counts_at(scored, thresholds)
    overall = rates_of(counts.sum(1))
    values = {name: overall[name] for name in ("acc", "fpr", "tpr")} | metrics_of(counts, None, fidelity)[0]
    return pd.DataFrame(values, index=pd.Index(thresholds, name="threshold"))


def fit_threshold(
    table: pd.DataFrame, target: str = "eer", value: float | None = None, fidelity: str = "corrected"
) -> float:
    """The threshold at which a table has a wanted error rate, 0..1.

    Parameters
    ----------
    table : DataFrame
        Score table to fit on: validation, not the test set.
    target : "eer", "fpr" or "tpr"
        "eer": where FPR and FNR are closest. "fpr": the lowest threshold with FPR <= value. "tpr": the highest
        threshold with TPR >= value.
    value : float, 0..1
        For "fpr" and "tpr".

    Raises
    ------
    ScoreTableError
        The table lacks the class that is needed, or so many reals have score 1 that no threshold reaches the FPR.
    """
    scored = as_arrays(table, None, 0.5, fidelity)
    return _fit(scored.label, scored.score, *_checked_target(target, value))


def _checked_target(target, value):
    if target not in TARGETS:
        raise ValueError(f"target is {target!r}; use one of {', '.join(TARGETS)}.")
    if target != "eer" and (value is None or not 0 <= value <= 1):
        raise ValueError(f"target {target!r} with value {value}: give the rate wanted, from 0 to 1.")
    return target, value


def _fit(label, score, target, value):
    """As `fit_threshold`, from arrays (n,); ScoreTableError if there is no such threshold."""
    for code, name in ((0, "reals"), (1, "fakes")):
        if target in ("eer", ("fpr", "tpr")[code]) and not (label == code).any():
            raise ScoreTableError(f"There is no threshold for {target}: the table has no {name}.")
    thresholds = cuts(score)
    everyone = Scored(label, score, np.zeros_like(label), np.zeros_like(label), ["all"])
    rates = rates_of(counts_at(everyone, thresholds)[:, 0])  # (K,) each
    if target == "eer":
        return float(thresholds[np.abs(rates["fpr"] - rates["fnr"]).argmin()])
    if target == "tpr":
        return float(thresholds[rates["tpr"] >= value][-1])  # at threshold 0 the TPR is 1
    if rates["fpr"].min() > value:
        raise ScoreTableError(
            f"No threshold brings the FPR to {value:g}: the lowest is {rates['fpr'].min():.3g}, for so many reals "
            "have the score 1. Score with more digits, or ask for a higher rate."
        )
    return float(thresholds[rates["fpr"] <= value][0])


def fit_group_thresholds(
    table: pd.DataFrame,
    by: str = "group",
    target: str = "eer",
    value: float | None = None,
    fidelity: str = "corrected",
) -> pd.Series:
    """A threshold for each group, at which the group itself has the wanted error rate.

    Post-processing that needs the group of a person at the time of the decision: a reference for what thresholds can
    do, rarely a remedy that one may use. Fit on validation, never on the test set.

    Returns
    -------
    Series
        Group -> threshold. A group that cannot be fitted takes the threshold of all images; ``.attrs["borrowed"]``
        lists these groups.

    Source: Hardt, Price and Srebro 2016 (post-processing; here without randomised decisions).
    """
    scored, target = as_arrays(table, by, 0.5, fidelity), _checked_target(target, value)
    common = _fit(scored.label, scored.score, *target)
    fitted, borrowed = {}, []
    for code, name in enumerate(scored.names):
        own = scored.group == code
        try:
            fitted[name] = _fit(scored.label[own], scored.score[own], *target)
        except ScoreTableError:
            fitted[name] = common
            borrowed.append(name)
    result = pd.Series(fitted, name="threshold", dtype=np.float64).rename_axis(by)
    result.attrs["borrowed"] = borrowed
    return result


def operating_points(
    validation: pd.DataFrame,
    test: pd.DataFrame,
    by: str = "group",
    points: dict[str, tuple] | None = None,
    threshold: float = 0.5,
    fidelity: str = "corrected",
) -> pd.DataFrame:
    """What a detector does on a test set at thresholds that were chosen on a validation set.

    Parameters
    ----------
    validation, test : DataFrame
        Score tables of one detector; they must not share images.
    by : str
    points : dict of name -> (target, value), optional
        As in `fit_threshold`; by default EER and a FPR of 10 %.
    threshold : float
        The threshold in use, listed first.

    Returns
    -------
    DataFrame
        Index (point, thresholds), thresholds "common" or "per group" (a reference, see `fit_group_thresholds`; groups
        that validation lacks take the common one). Columns threshold (NaN per group), acc, fpr, tpr, METRICS but
        auc_gap, all of the test set.
    """
    points = {"EER": ("eer", None), "FPR 10 %": ("fpr", 0.1)} if points is None else points
    names, rows = as_arrays(test, by, threshold, fidelity).names, {}

    def judged(cut):
        of_each = test[by].map(cut).to_numpy(np.float64) if isinstance(cut, pd.Series) else cut
        overall = overall_metrics(test, of_each, fidelity)[["acc", "fpr", "tpr"]]
        return {**overall, **fairness_metrics(test, by, cut, fidelity, auc=False)}

    rows["as given", "common"] = {"threshold": threshold, **judged(threshold)}
    for point, target in points.items():
        common = fit_threshold(validation, *target, fidelity)
        own = fit_group_thresholds(validation, by, *target, fidelity).reindex(names).fillna(common)
        rows[point, "common"] = {"threshold": common, **judged(common)}
        rows[point, "per group"] = {"threshold": np.nan, **judged(own)}
    return pd.DataFrame(rows).T.rename_axis(["point", "thresholds"])
