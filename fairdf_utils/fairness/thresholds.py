"""Fairness at other thresholds: all of them at once, at a wanted error rate, and one of its own for each group.

A threshold is fitted on one table (validation) and judged on another (test): `operating_points` does both. Thresholds
lie half-way between neighbouring scores, where small changes of the scores do least.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fairdf_utils.fairness.metrics import Scored, as_arrays, metrics_of, rates_of
from fairdf_utils.fairness.score_table import ScoreTableError

FINE = 5000  # thresholds of a curve: more than any figure can show
POINTS = {"EER": ("eer", None), "FPR 10 %": ("fpr", 0.1)}  # name -> (target, value) of `fit_threshold`


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

    `thresholds` None takes every one that decides differently (see `cuts`), and FINE of them, evenly, where there are
    more. Index threshold; columns acc, fpr, tpr (of all images), then METRICS but auc_gap, which has no threshold.
    """
    scored = as_arrays(table, by, 0.5, fidelity)
    if thresholds is None:
        thresholds = cuts(scored.score)
        thresholds = thresholds[np.unique(np.linspace(0, len(thresholds) - 1, FINE).astype(int))]
    thresholds = np.asarray(thresholds, np.float64)
    counts = counts_at(scored, thresholds)
    overall = rates_of(counts.sum(1))
    values = {name: overall[name] for name in ("acc", "fpr", "tpr")} | metrics_of(counts, None, fidelity)[0]
    return pd.DataFrame(values, pd.Index(thresholds, name="threshold"))


def fit_threshold(
    table: pd.DataFrame, target: str = "eer", value: float | None = None, fidelity: str = "corrected"
) -> float:
    """The threshold at which a table has a wanted error rate, 0..1. Fit on validation, not on the test set.

    The `target` "eer" is where FPR and FNR are closest, "fpr" the lowest threshold with FPR <= `value`, "tpr" the
    highest with TPR >= `value`.

    Raises
    ------
    ScoreTableError
        The table lacks the class that is needed, or so many reals have score 1 that no threshold reaches the FPR.
    """
    if target not in ("eer", "fpr", "tpr"):
        raise ValueError(f"target is {target!r}; use one of eer, fpr, tpr.")
    scored = as_arrays(table, None, 0.5, fidelity)
    thresholds = cuts(scored.score)
    rates = rates_of(counts_at(scored, thresholds)[:, 0])  # (K,) each
    for rate, name in (("fpr", "reals"), ("tpr", "fakes")):
        if target in ("eer", rate) and np.isnan(rates[rate][0]):
            raise ScoreTableError(f"There is no threshold for {target}: the table has no {name}.")
    if target != "eer" and (value is None or not 0 <= value <= 1):
        raise ValueError(f"target {target!r} with value {value}: give the rate wanted, from 0 to 1.")
    if target == "eer":
        return float(thresholds[np.abs(rates["fpr"] - rates["fnr"]).argmin()])
    if target == "tpr":
        return float(thresholds[rates["tpr"] >= value][-1])  # at threshold 0 the TPR is 1
    if rates["fpr"].min() > value:
        text = f"No threshold brings the FPR to {value:g}: the lowest is {rates['fpr'].min():.3g}, for so many reals"
        raise ScoreTableError(f"{text} have the score 1. Score with more digits, or ask for a higher rate.")
    return float(thresholds[rates["fpr"] <= value][0])


def fit_group_thresholds(
    table: pd.DataFrame, by: str = "group", target: str = "eer", value: float | None = None, fidelity: str = "corrected"
) -> pd.Series:
    """A threshold for each group, at which the group itself has the wanted error rate: Series group -> threshold.

    Post-processing that needs the group of a person at the time of the decision: a reference for what thresholds can
    do, rarely a remedy that one may use. A group that cannot be fitted takes the threshold of all images;
    ``.attrs["borrowed"]`` lists these groups.

    Source: Hardt, Price and Srebro 2016 (post-processing; here without randomised decisions).
    """
    scored, common = as_arrays(table, by, 0.5, fidelity), fit_threshold(table, target, value, fidelity)
    result = pd.Series(common, pd.Index(scored.names, name=by), np.float64, "threshold")
    result.attrs["borrowed"] = []
    for code, name in enumerate(scored.names):
        try:
            result[name] = fit_threshold(table[scored.group == code], target, value, fidelity)
        except ScoreTableError:
            result.attrs["borrowed"].append(name)
    return result


def operating_points(
    validation: pd.DataFrame,
    test: pd.DataFrame,
    by: str = "group",
    points: dict[str, tuple] = POINTS,
    threshold: float = 0.5,
) -> pd.DataFrame:
    """What a detector does on a test set at thresholds that were chosen on a validation set without its images.

    The `threshold` in use is listed first; `points` are as POINTS. Index point; columns threshold, acc, fpr, tpr,
    METRICS but auc_gap.
    """
    fitted = {"as given": threshold} | {point: fit_threshold(validation, *target) for point, target in points.items()}
    judged = metrics_by_threshold(test, by, [*fitted.values()])
    return judged.reset_index().set_index(pd.Index(fitted, name="point"))
