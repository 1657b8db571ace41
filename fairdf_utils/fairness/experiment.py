"""What many runs found together: means over runs, paired differences over runs, and the rule of a win.

A run is a detector, trained with one training seed on one data seed. Files of `python -m fairdf_utils results` and
tables of chapter 5 come in with one row for each run and test set. What differs between runs is the training and the
data, so the spread of runs is the error of a statement about a *method*; the interval of one run is that of a detector.
"""

from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import t as student

BETTER = {"worst_auc": 1, "fpr_sum_matched": -1, "oae_matched": -1, "auc": 1}  # sign of an improvement
NUMBERS = dict(zip(BETTER, ("worst-group AUC", "F_FPR at 10 % FPR", "F_OAE at 10 % FPR", "AUC"), strict=True))
WINNING = ("worst_auc", "fpr_sum_matched")  # by which a method may win, if its AUC is not lower
SETS, RUNS = 3, 6  # test sets on which it must be better, and runs that each of them must rest on
PAIR = ["reference", "detector"]
CLAIMS = {  # of the protocol -> candidates, one of which must win against each of the references
    "H1: the method is fairer than plain training": (["fairdf"], ["ori"]),
    "H2: the method is worth its compute": (
        ["fairdf", "fairdf-nosam", "fairdf-grouped"],
        ["balanced", "balanced-long"],  # refuted if the last wins against all candidates
    ),
    "H3: SAM helps": (["fairdf"], ["fairdf-nosam"]),
    "H4: the method gains from group-balanced pairs": (["fairdf-grouped"], ["fairdf-nosam"]),
    "H5: the demographic branch helps": (["fairdf-nosam"], ["fairdf-nobranch"]),
    "H6: the bi-level loss helps": (["fairdf-nosam"], ["fairdf-nocvar"]),
    "H7: a design of ours is fairer than balanced pairs alone": (["fairdf-plus"], ["balanced"]),
}


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

    From `pooled`; with fewer than RUNS runs a test set does not count. Index (reference, detector, metric), metrics of
    WINNING; columns runs (of the set with the fewest), better, worse, auc_lower, auc_higher (numbers of test sets),
    win, and lost: the reference wins.
    """
    found = found.assign(**{side: found[side] & (found["runs"] >= RUNS) for side in ("better", "worse")})
    counted = found.groupby([*PAIR, "metric"], sort=False).agg({"runs": "min", "better": "sum", "worse": "sum"})
    auc = counted.xs("auc", level="metric").rename(columns={"worse": "auc_lower", "better": "auc_higher"})
    auc = auc[["auc_lower", "auc_higher"]]
    counted = counted[counted.index.isin(WINNING, level="metric")].join(auc)
    win, lost = counted["better"] >= SETS, counted["worse"] >= SETS
    return counted.assign(win=win & (counted["auc_lower"] == 0), lost=lost & (counted["auc_higher"] == 0))


def win_sentences(found: pd.DataFrame) -> list[str]:
    """One sentence a reference and metric, from `pooled`: who wins against it, who loses, and who does neither."""
    said = []
    for (reference, metric), part in wins(found).groupby(["reference", "metric"], sort=False):
        names = part.index.get_level_values("detector")
        kinds = {"win": part["win"], "lose": part["lost"], "not shown": ~part["win"] & ~part["lost"]}
        words = [f"{kind}: {', '.join(names[which]) or 'nobody'}" for kind, which in kinds.items()]
        said.append(f"Against {reference} by {NUMBERS[metric]}, {'; '.join(words)}.")
    return said


def hypotheses(found: pd.DataFrame) -> dict[str, str]:
    """The claims of the protocol -> shown, refuted, not shown, or not asked where a row is missing; from `pooled`."""
    won = wins(found).groupby(PAIR)[["win", "lost"]].any()
    won = pd.concat([won, won.swaplevel().set_axis(["lost", "win"], axis=1).rename_axis(PAIR)])
    won = won[~won.index.duplicated()]
    said = {}
    for claim, (candidates, references) in CLAIMS.items():
        asked = won.reindex(product(references, candidates)).dropna().astype(bool)
        names = asked.index.get_level_values("detector").unique()
        shown = names[[asked["win"].xs(name, level=1).sum() == len(references) for name in names]]
        refuted = asked["lost"].reindex(product(references[-1:], names)).eq(True).all()
        verdict = "not asked" if asked.empty else "refuted" if refuted else "not shown"
        said[claim] = f"shown by {', '.join(shown)}" if len(shown) else verdict
    return said
