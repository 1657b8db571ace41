"""Post-processing: other decisions from the scores of a trained detector, fitted on validation, judged on other images.

Each peer turns a score table into one with new scores, whose threshold is one half, so that everything that judges a
table judges it as well. All start from the threshold in use: a peer that kept neither the false alarms nor the found
fakes of the detector as given would be another operating point, and no remedy.
"""

from bisect import bisect
from dataclasses import replace

import numpy as np
import pandas as pd

from fairdf_utils.fairness.metrics import as_arrays, overall_metrics, rates_of
from fairdf_utils.fairness.resampling import Settings
from fairdf_utils.fairness.score_table import ScoreTableError, log_odds, sigmoid
from fairdf_utils.fairness.thresholds import counts_at, cuts, fit_group_thresholds
from fairdf_utils.fairness.uncertainty import MINIMUM, paired_difference
from fairdf_utils.fairness.verdicts import large_enough

HALF = 0.5


def fit_worst_group(table: pd.DataFrame, by: str = "group", threshold: float = HALF) -> pd.Series:
    """Thresholds of the groups at which the worst-off is as accurate as can be while no fewer fakes are found.

    The accuracy of a group is (TPR + TNR) / 2: otherwise, calling everything fake wins where most images are. The floor
    is the number of fakes that `threshold` finds in all groups together. What the worst-off group leaves open goes to
    the accuracy of the others, so that none is levelled down for nothing. Series group -> threshold; ScoreTableError if
    a group has one class.

    Exact for the worst-off group: whatever accuracy it is to have, every group finds most fakes at its lowest threshold
    that reaches it, and the highest accuracy with which the floor is kept is found by bisection.

    Source: Delaney et al. 2024 (OxonFair: an objective and a constraint, by a threshold for each group).
    """
    scored = as_arrays(table, by, threshold, "corrected")
    floor, found = (scored.predicted * scored.label).sum(), []
    for code, name in enumerate(scored.names):
        grid = cuts(scored.score[scored.group == code])
        counts = counts_at(scored, grid)[:, code]
        rates = rates_of(counts)
        accuracy = (rates["tpr"] + rates["tnr"]) / 2
        if np.isnan(accuracy).any():
            raise ScoreTableError(f"Group {name} of '{by}' has one class only, and no accuracy of both. Leave it out.")
        found.append((grid, counts[:, 1, 1], accuracy))
    levels = np.unique(np.concatenate([accuracy for *_, accuracy in found]))
    levels = levels[levels <= min(accuracy.max() for *_, accuracy in found)]

    def too_high(level):
        return sum(hits[(accuracy >= level).argmax()] for _, hits, accuracy in found) < floor

    best = levels[bisect(levels, False, key=too_high) - 1]

    def chosen(price):  # what a fake found is worth in accuracy
        return [np.where(each >= best, each + price * hits, -np.inf).argmax() for _, hits, each in found]

    low, high = 0.0, 2.0  # at two, no accuracy outweighs a fake
    for _ in range(50):
        price = (low + high) / 2
        kept = sum(hits[at] for (_, hits, _), at in zip(found, chosen(price), strict=True)) >= floor
        low, high = (low, price) if kept else (price, high)
    values = [grid[at] for (grid, *_), at in zip(found, chosen(high), strict=True)]
    return pd.Series(values, pd.Index(scored.names, name=by), np.float64, "threshold")


def table_peers(
    validation: pd.DataFrame, test: pd.DataFrame, by: str, settings: Settings
) -> tuple[dict[str, pd.DataFrame], list]:
    """The peers that need no more than two score tables: name -> the test table with new scores; and what was borrowed.

    "equal FPR": each group has the FPR that all have together in use (`fit_group_thresholds`); "best worst group":
    `fit_worst_group`. Both need the group of a person at the time of the decision. A group of the test table with fewer
    than MINIMUM clusters of a class in validation borrows the threshold in use, and is named.

    ScoreTableError if that holds for every group: nothing can be fitted.
    """
    enough, _ = large_enough(validation, by, (0, 1), settings.cluster)
    if not enough[by].isin(test[by]).any():
        raise ScoreTableError(
            f"No group of '{by}' has {MINIMUM} real and {MINIMUM} fake clusters ({settings.cluster}) in validation: "
            "thresholds of groups cannot be fitted. Give more validation images, or judge by fewer groups."
        )
    fpr = overall_metrics(enough, settings.threshold)["fpr"]
    fitted = {
        "equal FPR": fit_group_thresholds(enough, by, "fpr", fpr),
        "best worst group": fit_worst_group(enough, by, settings.threshold),
    }
    borrowed = [name for name in test[by].unique() if name not in set(enough[by])]
    borrowed += fitted["equal FPR"].attrs["borrowed"]
    cuts_of_images = {name: test[by].map(own).fillna(settings.threshold).to_numpy() for name, own in fitted.items()}
    return {name: rescored(test, at_half(test["score"], own)) for name, own in cuts_of_images.items()}, borrowed


def at_half(score: np.ndarray, threshold: np.ndarray | float) -> np.ndarray:
    """Scores that decide at one half as these (N,) do at `threshold`, one for all or one an image: float64 (N,), 0..1.

    The log odds of the threshold are taken off: images with one threshold keep their order, and so a group its AUC.
    """
    moved = sigmoid(log_odds(score) - log_odds(threshold))
    return np.where(score >= threshold, np.maximum(moved, HALF), np.minimum(moved, np.nextafter(HALF, 0)))


def rescored(table: pd.DataFrame, score: np.ndarray) -> pd.DataFrame:
    """The table with other scores, float64 (N,), and without logits, which would still be those of the old ones."""
    return table.drop(columns=["logit_real", "logit_fake"], errors="ignore").assign(score=score)


def compared(as_given: pd.DataFrame, peers: dict[str, pd.DataFrame], by: str, settings: Settings) -> pd.DataFrame:
    """What each peer changes on the test images, with paired intervals; the fit itself is taken as given.

    Index (peer, metric), as in `paired_difference`; columns given, processed (the two estimates), difference
    (processed - given), low, high, p_value (not corrected: who reads several together does).
    """
    half = replace(settings, threshold=HALF)
    rows = {
        name: paired_difference(table, as_given, by, half, threshold_b=settings.threshold)
        for name, table in peers.items()
    }
    words = {"a": "processed", "b": "given", "estimate": "difference"}
    rows = pd.concat(rows, names=["peer"]).rename(columns=words)
    return rows[["given", "processed", "difference", "low", "high", "p_value"]]
