"""What many runs found together: means over runs, paired differences over runs, and the rule of a win.

A run is a detector, trained with one training seed on one data seed. Files of `python -m fairdf_utils results` and
tables of chapter 5 come in with one row for each run and test set. What differs between runs is the training and the
data, so the spread of runs is the error of a statement about a *method*; the interval of one run is that of a detector.
"""

import numpy as np
import pandas as pd
from scipy.stats import t as student

BETTER = {"worst_auc": 1, "fpr_sum_matched": -1, "oae_matched": -1, "auc": 1}  # sign of an improvement
NUMBERS = dict(zip(BETTER, ("worst-group AUC", "F_FPR at 10 % FPR", "F_OAE at 10 % FPR", "AUC"), strict=True))
WINNING = ("worst_auc", "fpr_sum_matched")  # by which a method may win, if its AUC is not lower
SETS = 3  # test sets on which it must be better
PAIR = ["reference", "detector"]


def plus_minus(values: pd.Series) -> str:
    """Fractions of several runs as "85.9 ± 0.9": percent, mean and standard deviation; "" where nothing is defined."""
    values = 100 * values.dropna()
    spread = f" ± {values.std():.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}" if len(values) else ""


def leaders(runs: pd.DataFrame) -> list[str]:
    """One sentence for each of the numbers that decide: on each test set the best detector, and the next one.

    `runs` has columns dataset, detector, and those of WINNING and auc as far as they are there; by the mean over runs.
    """
    said = []
    for metric in [name for name in (*WINNING, "auc") if name in runs]:
        parts = []
        for dataset, part in runs.dropna(subset=metric).groupby("dataset", sort=False):
            values = {name: one * BETTER[metric] for name, one in part.groupby("detector", sort=False)[metric]}
            best, *others = sorted(values, key=lambda name, values=values: -values[name].mean())
            text = f"{dataset} {best} {plus_minus(part.loc[part['detector'] == best, metric])}"
            for after in others[:1]:
                text += f", then {after} {plus_minus(part.loc[part['detector'] == after, metric])}"
                if min(len(values[best]), len(values[after])) > 1:
                    text += f" (runs {'apart' if values[best].min() > values[after].max() else 'overlap'})"
            parts.append(text)
        which = "Highest" if BETTER[metric] > 0 else "Lowest"
        said += [f"{which} {NUMBERS[metric]} (%): {'; '.join(parts)}."] if parts else []
    return said


def pooled(comparisons: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """The mean of paired differences over runs, with Student's interval.

    `comparisons` has columns reference, detector, dataset, metric and estimate, one row a run. Runs of one data seed
    share their test images, so the interval is that of training again rather than of new people.

    Returns
    -------
    DataFrame
        Index (reference, detector, dataset, metric); columns runs, mean, low, high (fractions; no interval of one run),
        and better, worse: whether the interval lies beyond zero on that side. Metrics of BETTER only.
    """
    comparisons = comparisons[comparisons["metric"].isin(BETTER)]
    found = comparisons.groupby([*PAIR, "dataset", "metric"], sort=False)["estimate"].agg(["count", "mean", "std"])
    half = student.ppf((1 + level) / 2, np.maximum(found["count"] - 1, 1)) * found["std"] / np.sqrt(found["count"])
    found = found.assign(low=found["mean"] - half, high=found["mean"] + half).rename(columns={"count": "runs"})
    sign = found.index.get_level_values("metric").map(BETTER).to_numpy(np.float64)
    up, down = found["low"] > 0, found["high"] < 0
    found["better"], found["worse"] = np.where(sign > 0, up, down), np.where(sign > 0, down, up)
    return found.drop(columns="std")


def wins(found: pd.DataFrame) -> pd.DataFrame:
    """The rule of the protocol: better by one of WINNING on at least SETS test sets, and the AUC lower on none.

    From `pooled`. Index (reference, detector, metric), metrics of WINNING; columns better, worse, sets, auc_lower
    (numbers of test sets) and win.
    """
    counted = found.groupby([*PAIR, "metric"], sort=False)[["better", "worse"]].sum()
    counted["sets"] = found["mean"].notna().groupby([*PAIR, "metric"], sort=False).sum()
    lower = counted["worse"].xs("auc", level="metric").rename("auc_lower")
    counted = counted[counted.index.isin(WINNING, level="metric")].join(lower)
    return counted.assign(win=(counted["better"] >= SETS) & (counted["auc_lower"] == 0))


def win_sentences(found: pd.DataFrame) -> list[str]:
    """One sentence a comparison and number: the differences, on how many sets it is better, whether that is a win."""
    said = []
    for (reference, detector, metric), row in wins(found).iterrows():
        part = found.loc[(reference, detector)].xs(metric, level="metric").dropna(subset="mean")
        sets = [
            f"{one.Index} {100 * one.mean:+.1f}"
            + ("" if np.isnan(one.low) else f" ({100 * one.low:+.1f} to {100 * one.high:+.1f})")
            for one in part.itertuples()
        ]
        text = f"{detector} against {reference}, {NUMBERS[metric]}, points: {', '.join(sets)}."
        text += f" Better on {row['better']} of {row['sets']} test sets, worse on {row['worse']}"
        text += f"; AUC lower on {row['auc_lower']}: {'a win' if row['win'] else 'no win'}."
        said.append(text)
    return said
