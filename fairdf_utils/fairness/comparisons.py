"""Two detectors on the same images: the questions that are asked of them, and when an answer is a verdict.

A detector that raises fewer alarms has smaller gaps for free, so the detectors are also compared at a common FPR. The
thresholds for it are fitted on validation, and fitted thresholds need not travel: where the FPRs of the two detectors
on the test set are more than APART from each other, there is no common FPR, and no verdict at one. Thresholds that are
fitted on the test set itself give a second reading, marked as one that has seen the labels.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from fairdf_utils.fairness.cautions import percent
from fairdf_utils.fairness.metrics import overall_metrics
from fairdf_utils.fairness.permutation import holm
from fairdf_utils.fairness.resampling import Settings
from fairdf_utils.fairness.thresholds import fit_threshold
from fairdf_utils.fairness.uncertainty import paired_difference
from fairdf_utils.fairness.worst_group import COMMON_FPR

APART = 0.05  # difference of two FPRs, a fraction, up to which they are a common one
COMMON, SEEN = "common FPR", "common FPR, test labels seen"  # where thresholds are fitted: validation, or the test set
QUESTIONS = {  # (metric, at) -> words, in the order in which a reader wants them
    ("worst_auc", "threshold"): "worst-group AUC",
    ("worst_tpr", "threshold"): f"worst-group TPR at an FPR of {100 * COMMON_FPR:g} %",
    ("fpr_sum", COMMON): "F_FPR at a common FPR",
    ("fpr_sum", "threshold"): "F_FPR",
    ("auc", "threshold"): "AUC",
    ("fpr_sum", SEEN): "F_FPR at a common FPR (test labels seen)",
}
VERDICTS = {  # in the order of a sentence
    **{way: f"{way} on" for way in ("lower", "higher", "undecided")},
    "did not travel": "the thresholds did not travel to",  # from validation
    "no common FPR": "no thresholds give a common FPR on",  # scores with too few values
    "undefined": "cannot be judged on",
}


def compare(
    a: pd.DataFrame, b: pd.DataFrame, by: str, settings: Settings, validation: tuple[pd.DataFrame, ...] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Metrics of A minus those of B, score tables of the same images, at the thresholds of QUESTIONS.

    The common FPR is that of B at the threshold of the settings, on the table that thresholds are fitted on:
    `validation`, the tables of A and of B on other images (None: no such rows), or the test set.

    Columns at, metric, then those of `uncertainty.paired_difference`, and fpr_a, fpr_b: FPR of all images of the test
    set at these thresholds. Beside them messages for what cannot be had.
    """
    parts, failures = {"threshold": paired_difference(a, b, by, settings)}, []
    for at, pair in ((COMMON, validation), (SEEN, (a, b))):
        if pair is None:
            continue
        try:
            target = overall_metrics(pair[1], settings.threshold, settings.fidelity)["fpr"]
            cut_a, cut_b = (fit_threshold(table, "fpr", target, settings.fidelity) for table in pair)
        except ValueError as error:  # or ScoreTableError, which is one
            failures.append(f"Nothing is compared at a {at}. {error}")
            continue
        parts[at] = paired_difference(a, b, by, replace(settings, threshold=cut_a), False, threshold_b=cut_b)
    parts = {at: part.assign(fpr_a=part.loc["fpr", "a"], fpr_b=part.loc["fpr", "b"]) for at, part in parts.items()}
    return pd.concat(parts, names=["at", "metric"]).reset_index(), failures


def compared(differences: pd.DataFrame, level: float) -> pd.DataFrame:
    """The QUESTIONS answered, in columns question, p_holm and verdict (of VERDICTS).

    `differences` are rows of `compare` with columns detector, reference, seed and dataset. The p-values of one question
    are read together, so Holm's method corrects them together; training seeds are repetitions, which are counted, not
    pooled. Where there is no common FPR nothing is asked, and p_holm is NaN.
    """
    asked = pd.Series(list(zip(differences["metric"], differences["at"], strict=True)), differences.index, dtype=object)
    rows = differences.assign(question=pd.Categorical(asked.map(QUESTIONS), QUESTIONS.values()))
    rows = rows.dropna(subset="question").sort_values("question", kind="stable").astype({"question": str})
    apart = (rows["at"] != "threshold") & ((rows["fpr_a"] - rows["fpr_b"]).abs() > APART + 1e-12)
    families = rows["p_value"].mask(apart).groupby([rows["question"], rows["seed"]])
    rows["p_holm"] = families.transform(holm).astype(float)
    lost = np.where(rows["at"] == COMMON, "did not travel", "no common FPR")
    verdict = np.where(rows["p_holm"] < 1 - level, np.where(rows["estimate"] < 0, "lower", "higher"), "undecided")
    return rows.assign(verdict=np.select([apart, rows["estimate"].isna()], [lost, "undefined"], verdict))


def comparison_sentences(rows: pd.DataFrame) -> list[str]:
    """One sentence a pair and question, from `compared`: "fairdf against ori, AUC: lower on dfd; undecided on ffpp."

    With several seeds, in how many of them: "lower on dfd 2/3". Where there is no common FPR, the two FPRs.
    """
    several, said = rows["seed"].nunique() > 1, []
    for (base, detector, question), part in rows.groupby(["reference", "detector", "question"], sort=False):
        found, of = {}, part["dataset"].value_counts()
        for (verdict, name), some in part.groupby(["verdict", "dataset"], sort=False):
            word = f"{name} {len(some)}/{of[name]}" if several else str(name)
            if verdict in ("did not travel", "no common FPR"):
                fprs = [f"{percent(row.fpr_a)} and {percent(row.fpr_b)}" for row in some.itertuples()]
                word += f" (FPR {', '.join(fprs)})"
            found.setdefault(verdict, []).append(word)
        verdicts = [f"{words} {', '.join(found[one])}" for one, words in VERDICTS.items() if one in found]
        said.append(f"{detector} against {base}, {question}: {'; '.join(verdicts)}.")
    return said
