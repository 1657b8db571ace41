"""The main numbers: how well a detector serves the group that it serves worst.

A gap between groups closes where all are served badly: who calls everything real has F_FPR = 0. The lowest AUC of a
group does not, nor does the lowest TPR at the threshold where the FPR of all real images is COMMON_FPR: who cannot see
the truth has an AUC of 1/2 and a TPR of COMMON_FPR in every group, and by chance or on purpose in the worst one less.

Groups with fewer than MINIMUM clusters of a class take no part, as in the gaps.
"""

from itertools import chain

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from fairdf_utils.fairness.auc import PRIOR, ratio, segment_auc
from fairdf_utils.fairness.metrics import fairness_metrics, metrics_of, rate_interval, rates_of
from fairdf_utils.fairness.resampling import MINIMUM, Clustered, Settings, auc_of, chunks, clustered, drawn_weights
from fairdf_utils.fairness.score_table import ScoreTableError
from fairdf_utils.fairness.thresholds import fit_threshold

COMMON_FPR = 0.1
WORST = {"worst_auc": (0, 1), "worst_tpr": (1,)}  # -> labels of which a group needs MINIMUM clusters
COLUMNS = (*WORST, "auc", "fpr_sum", "oae", "dp", "meo", "fpr", "tpr")  # of a table of results, in this order
MATCHED = ("fpr_sum", "oae", "dp")  # of COLUMNS, where all detectors raise equally many false alarms
STEPS = 500  # of the FPR between which the ROC curve of a resample is drawn straight; the table's own is exact


def tpr_at_common_fpr(data: Clustered, settings: Settings, resamples: int) -> np.ndarray:
    """TPR of each group at the threshold where the FPR of all real images is COMMON_FPR: float64 (1 + resamples, G).

    Row 0 is the table, the others are the resamples of `resampled_aucs`, each at a threshold of its own. The ROC
    curve is linear between its corners: a tied score is called fake for as many of its images as the FPR allows. NaN
    where there are no real images, or no fakes of a group.
    """
    scored, groups = data.scored, len(data.scored.names)
    reals = np.sort(scored.score[scored.label == 0])[::-1]
    known = np.unique(reals[(np.linspace(0, 1, STEPS + 1)[:-1] * len(reals)).astype(int)]) if len(reals) else reals
    # Corners of the curve: above each known score, and from it on. An image is called fake from its `corner` on.
    corners = 2 * len(known) + 1
    corner = corners - 1 - sum(np.searchsorted(known, scored.score, side) for side in ("left", "right"))
    row = np.where(scored.label == 1, scored.group, groups) * corners + corner  # all reals last
    enter = csr_array((np.ones(len(row)), (row, data.unit)), shape=((groups + 1) * corners, len(data.cells)))
    sizes, found = chunks(resamples, max(enter.shape)), []
    for weights in chain([np.ones((len(data.cells), 1))], drawn_weights(data.members, sizes, settings.seed)):
        called = (enter @ weights).reshape(groups + 1, corners, -1).cumsum(1)
        rates = np.pad(ratio(called, np.broadcast_to(called[:, -1:], called.shape)), ((0, 0), (1, 0), (0, 0)))
        beyond = np.minimum((rates[-1] <= COMMON_FPR).sum(0), corners)[None, None]  # the first corner past it
        before, after = (np.take_along_axis(rates, place, 1)[:, 0] for place in (beyond - 1, beyond))  # (G + 1, b)
        share = (COMMON_FPR - before[-1]) / (after[-1] - before[-1])
        found.append((before + (after - before) * share)[:-1].T)
    return np.concatenate(found)


def of_groups(data: Clustered, settings: Settings, auc: np.ndarray) -> dict[str, np.ndarray]:
    """What the main numbers are the lowest of: name of WORST -> float64 (1 + B, G), NaN for groups that take no part.

    `auc` (1 + B, G) are those of the groups, of the table and of B resamples.
    """
    clusters = (data.cells.sum(-1) > 0).sum(0)  # (G, label)
    both = auc, tpr_at_common_fpr(data, settings, len(auc) - 1)
    enough = [(clusters[:, labels] >= MINIMUM).all(1) for labels in WORST.values()]
    return {name: np.where(*one, np.nan) for name, one in zip(WORST, zip(enough, both, strict=True), strict=True)}


def worst(values: np.ndarray) -> np.ndarray:
    """The lowest over the groups (last axis) that are not NaN; NaN for fewer than two: one is not the worst of any."""
    judged = ~np.isnan(values)
    return np.where(judged.sum(-1) >= 2, np.where(judged, values, np.inf).min(-1), np.nan)[()]


def main_numbers(table: pd.DataFrame, by: str, settings: Settings) -> pd.Series:
    """COLUMNS of a score table, without intervals: float64 fractions, NaN where undefined."""
    data = clustered(table, by, settings)
    scored, counts = data.scored, data.cells.sum(0)
    aucs = segment_auc(scored.group, len(scored.names), scored.label, scored.score)
    values = {name: worst(groups[0]) for name, groups in of_groups(data, settings, aucs[None]).items()}
    values["auc"] = segment_auc(np.zeros_like(scored.group), 1, scored.label, scored.score)[0]
    values |= rates_of(counts.sum(0)) | metrics_of(counts, None, settings.fidelity)[0]
    return pd.Series(values, dtype=np.float64)[list(COLUMNS)]


def matched_numbers(table: pd.DataFrame, by: str, settings: Settings) -> pd.Series:
    """MATCHED at the threshold where the FPR of all real images of the table is COMMON_FPR: float64 fractions.

    Index "<metric>_matched". The threshold has seen the labels: it compares detectors, nobody can use it. NaN where
    there is none, because there are no real images or too many of them have the score 1.
    """
    values = pd.Series(np.nan, list(MATCHED))
    try:
        cut = fit_threshold(table, "fpr", COMMON_FPR, settings.fidelity)
        values = fairness_metrics(table, by, cut, settings.fidelity)[list(MATCHED)].astype(np.float64)
    except ScoreTableError:
        pass
    return values.add_suffix("_matched")


def worth_of_drawn(drawn: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Independent images that the clusters (G,) of a rate are worth, and the degrees of freedom of that: (G,) each.

    From the variance over resamples, `drawn` (1 + B, G) with the table in row 0; drawn by PRIOR clusters towards that
    of clusters which are wholly on one side, as in `auc.clustered_auc`.
    """
    single, free = drawn[0] * (1 - drawn[0]), clusters - 1.0 + PRIOR
    seen = ratio(np.nanvar(drawn[1:], axis=0), single) * clusters  # C - 1 clusters' worth
    return free / (np.where(single > 0, seen, 1 - 1 / clusters) + PRIOR / clusters), free  # no error: one image each


def interval_of_the_worst(
    estimate: np.ndarray, effective: np.ndarray, freedom: np.ndarray, level: float
) -> tuple[float, float]:
    """The interval of the lowest of several AUCs or rates, which are worth `effective` independent images: (G,) each.

    The lowest low end lies too high only if the worst group's own does. But of the high ends each may lie too low that
    belongs to a group which may be the worst one: these share the error.

    Source: Chernozhukov, Lee and Rosen 2013 (the minimum of several estimates).
    """
    low, high = rate_interval(estimate * effective, effective, level, freedom)
    maybe = low <= high.min()
    shared = rate_interval(estimate * effective, effective, 1 - (1 - level) / maybe.sum(), freedom)[1]
    return float(low.min()), float(shared[maybe].min())


def worst_groups(table: pd.DataFrame, by: str, settings: Settings) -> pd.DataFrame:
    """The main numbers with intervals.

    Index WORST; columns estimate, low, high; groups: how many take part; worst: which has the lowest; left_out: those
    that take no part.
    """
    data, rows = clustered(table, by, settings), {}
    auc, names = auc_of(data), np.array(data.scored.names, dtype=object)
    drawn = of_groups(data, settings, np.tile(auc.estimate, (1 + settings.resamples, 1)))
    fakes = (data.cells.sum(-1) > 0).sum(0)[:, 1]
    for name, values in drawn.items():
        judged = ~np.isnan(values[0])
        row = {"estimate": worst(values[0]), "low": np.nan, "high": np.nan, "groups": judged.sum(), "worst": ""}
        if judged.sum() >= 2:
            worth = auc.effective[judged], auc.freedom[judged]
            worth = worth if name == "worst_auc" else worth_of_drawn(values[:, judged], fakes[judged])
            row["low"], row["high"] = interval_of_the_worst(values[0, judged], *worth, settings.level)
            row["worst"] = names[np.nanargmin(values[0])]
        rows[name] = row | {"left_out": ", ".join(map(str, names[~judged]))}
    return pd.DataFrame.from_dict(rows, "index").rename_axis("metric")
