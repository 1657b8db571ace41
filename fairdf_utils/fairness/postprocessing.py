"""Post-processing: other decisions from the scores of a trained detector, fitted on validation, judged on other images.

Each peer turns a score table into one with new scores, whose threshold is one half, so that everything that judges a
table judges it as well. All start from the threshold in use: a peer that kept neither the false alarms nor the found
fakes of the detector as given would be another operating point, and no remedy.
"""

from bisect import bisect
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from fairdf_utils.fairness.metrics import as_arrays, overall_metrics, rates_of
from fairdf_utils.fairness.resampling import MINIMUM, Settings, large_enough
from fairdf_utils.fairness.score_table import ScoreTableError, column, log_odds, sigmoid
from fairdf_utils.fairness.thresholds import counts_at, cuts, fit_group_thresholds, fit_threshold
from fairdf_utils.fairness.uncertainty import paired_difference

HALF = 0.5
Pair = tuple[np.ndarray, np.ndarray]
SHOWN = ("worst_auc", "worst_tpr", "auc", "fpr_sum", "fpr", "tpr")


def fit_worst_group(table: pd.DataFrame, by: str = "group", threshold: float = HALF) -> pd.Series:
    """Thresholds of the groups at which the worst-off is as accurate as can be while no fewer fakes are found.

    The accuracy of a group is (TPR + TNR) / 2, as calling everything fake would win where most images are. The floor is
    the number of fakes that `threshold` finds in all groups together. Whatever accuracy the worst-off is to have, each
    group finds most fakes at its lowest threshold that reaches it: so the highest that keeps the floor is exact. What
    is left open goes to the accuracy of the others, so that none is levelled down for nothing. Series group ->
    threshold; ScoreTableError if a group has one class.

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
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """The peers that need no more than two score tables: name -> the test table with new scores; and who borrowed.

    "equal FPR": each group has the FPR that all have together in use (`fit_group_thresholds`); "best worst group":
    `fit_worst_group`. Both need a person's group for the decision. A group with fewer than MINIMUM clusters of a class
    in validation borrows the threshold of all, and is listed; ScoreTableError if all have fewer.
    """
    enough = _large_enough(validation, by, settings)
    fpr = overall_metrics(enough, settings.threshold)["fpr"]
    fitted = {
        "equal FPR": fit_group_thresholds(enough, by, "fpr", fpr),
        "best worst group": fit_worst_group(enough, by, settings.threshold),
    }
    equal = fitted["equal FPR"]
    borrowed = [str(n) for n in test[by].unique() if n not in equal.index or n in equal.attrs["borrowed"]]
    of_images = {name: test[by].map(own).astype(float).fillna(settings.threshold) for name, own in fitted.items()}
    return {name: rescored(test, at_half(test["score"], own)) for name, own in of_images.items()}, borrowed


def _large_enough(validation, by, settings):
    """The validation rows of groups that can be fitted."""
    for name in {by, settings.cluster} - set(validation.columns):
        column(validation, name)  # says what there is
    enough, _ = large_enough(validation.dropna(subset=[by]), by, (0, 1), settings.cluster)
    if enough.empty:
        text = f"Nothing can be fitted: in validation, no group of '{by}' has {MINIMUM} clusters ({settings.cluster})"
        raise ScoreTableError(f"{text} of real images and {MINIMUM} of fakes. Give more, or judge by fewer groups.")
    return enough


def prioritised(
    validation: pd.DataFrame, test: pd.DataFrame, inputs: Pair, layer: Pair, by: str, settings: Settings
) -> pd.DataFrame:
    """Fair-FLIP: the test table with scores from a final layer that heeds most what varies least inside the groups.

    With r, 0..1, the standard deviation of an input over the images called real (fake), averaged over the groups and
    scaled by the smallest and the largest of all, its weight towards real (fake) is multiplied by 2 (1 - r): the
    released rule at strength (alpha) 1, where its code does what its comments say. Groups are needed for the fit alone.

    `inputs` float (n, D) of the final layer for validation and test; `layer` its weight (2, D) and bias (2,).

    Source: Szandala et al. 2025, Fair-FLIP (arXiv 2507.08912), and its released code.
    """
    called = (validation["score"] >= settings.threshold).astype(int).to_numpy()
    spread = pd.DataFrame(inputs[0]).groupby([called, validation[by].to_numpy()]).std(ddof=0).groupby(level=0).mean()
    spread = spread.reindex([0, 1]).to_numpy()  # (2, D), NaN where nothing is called so
    lowest, highest = np.nanmin(spread), np.nanmax(spread)
    relative = np.nan_to_num((spread - lowest) / (highest - lowest or 1), nan=0.5)
    logits = [each @ (layer[0] * 2 * (1 - relative)).T + layer[1] for each in inputs]
    return _as_many_alarms(validation, test, *(sigmoid(each[:, 1] - each[:, 0]) for each in logits), settings)


def remapped(validation: pd.DataFrame, test: pd.DataFrame, embeddings: Pair, settings: Settings) -> pd.DataFrame:
    """The test table with scores that a logistic regression makes of the log odds and of a face embedding.

    No group is needed. How much the `embeddings` float (n, D), of validation and test, count is chosen by the log loss
    on validation, clusters apart. They may tell fakes from real images themselves: hold what is gained against the AUC
    of tables whose scores are all the same.

    Source: the idea of Brown and Russell 2026 (FFT, arXiv 2606.09881: a logit remapping conditioned on frozen face
    embeddings), from its abstract; the form of the calibrator is ours.
    """
    _large_enough(validation.assign(everyone="all"), "everyone", settings)
    scale, label = StandardScaler().fit(embeddings[0]), validation["label"]
    odds = [log_odds(table["score"]) for table in (validation, test)]
    unit = 10 / (odds[0].std() or 1)  # so large that the penalty spares the score
    x, other = (np.column_stack([unit * odds[i], scale.transform(embeddings[i])]) for i in (0, 1))
    folds = [*StratifiedGroupKFold(5).split(x, label, validation[settings.cluster])]
    strengths, plain = {"C": np.logspace(-5, 0, 6)}, LogisticRegression(max_iter=1000)
    best = GridSearchCV(plain, strengths, scoring="neg_log_loss", cv=folds).fit(x, label).best_estimator_
    unseen = cross_val_predict(best, x, label, cv=folds, method="predict_proba")[:, 1]
    return _as_many_alarms(validation, test, unseen, best.predict_proba(other)[:, 1], settings)


def _as_many_alarms(validation, test, of_validation, of_test, settings):
    """The test table with the second scores, moved such that at one half validation has the FPR of its own scores."""
    fpr = overall_metrics(validation, settings.threshold)["fpr"]
    return rescored(test, at_half(of_test, fit_threshold(rescored(validation, of_validation), "fpr", fpr)))


def at_half(score: np.ndarray, threshold: np.ndarray | float) -> np.ndarray:
    """Scores that decide at one half as these (N,) do at `threshold`, one for all or one an image: float64 (N,), 0..1.

    The log odds of the threshold are taken off: images with one threshold keep their order, and so a group its AUC.
    """
    with np.errstate(divide="ignore"):  # 0 and 1 stay what they are
        moved = sigmoid(np.log(score) - np.log1p(-np.asarray(score)) - log_odds(threshold))
    return np.where(score >= threshold, np.maximum(moved, HALF), np.minimum(moved, np.nextafter(HALF, 0)))


def rescored(table: pd.DataFrame, score: np.ndarray) -> pd.DataFrame:
    """The table with other scores, float64 (N,), and without logits, which would still be those of the old ones."""
    return table.drop(columns=["logit_real", "logit_fake"], errors="ignore").assign(score=score)


def changes(given: pd.DataFrame, peers: dict[str, pd.DataFrame], by: str, settings: Settings) -> pd.DataFrame:
    """What each peer changes on the test images: SHOWN, with paired intervals that take the fit as given.

    Columns peer, metric, given, processed (the two estimates), estimate (processed - given), low, high, p_value (not
    corrected: who reads several together does).
    """
    half, rows = replace(settings, threshold=HALF), {}
    for name, table in peers.items():
        rows[name] = paired_difference(table, given, by, half, threshold_b=settings.threshold).loc[list(SHOWN)]
    rows = pd.concat(rows, names=["peer", "metric"]).rename(columns={"a": "processed", "b": "given"}).reset_index()
    return rows[["peer", "metric", "given", "processed", "estimate", "low", "high", "p_value"]]
