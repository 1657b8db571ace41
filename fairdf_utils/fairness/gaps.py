"""Gaps between groups and how single groups differ, with tests and intervals that hold for small groups too.

What `resampling` gives, put together by rules that are the same for every detector:

- Intervals of rates are BCa intervals from whole clusters. Below `MINIMUM` clusters a bootstrap sees too little
  spread: a rate then has the Wilson interval that it would have if each cluster were one image.
- p-values come from permuting the groups among the clusters of a class, which stays valid for small groups, where
  the bootstrap finds differences that are not there.
- The gaps of FPR, TPR and AUC are those between groups with at least `MINIMUM` clusters of the class: one group with
  three videos would otherwise hide every difference between the others. The sums of the field take all groups.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fairdf_utils.fairness.intervals import holm
from fairdf_utils.fairness.metrics import OVERALL, checked_level, rate_interval
from fairdf_utils.fairness.resampling import bootstrap, group_against_rest, group_intervals, sampling_floor
from fairdf_utils.fairness.sample_size import design_effects, videos_needed

MINIMUM = 10  # clusters of a class; intervals from fewer cover too seldom, and no group is judged on fewer
PLANNED = 0.2  # width of the interval that a group should have, as a fraction: plus or minus ten points
CLUSTERS = ("video", "identity", "img_path")
GAPS = ("fpr_gap", "tpr_gap", "auc_gap")  # between groups that are large enough
SUMS = ("fpr_sum", "oae", "dp", "meo", "eo")  # over all groups
SHOWN = ["estimate", "low", "high", "groups"]
FLOOR = {"mean": "floor_mean", "q95": "floor_q95", "p_value": "p_value"}


@dataclass(frozen=True)
class Settings:
    """How a table is judged; the names of the functions of `resampling`."""

    threshold: float = 0.5
    resamples: int = 1000
    level: float = 0.95
    cluster: str = "video"
    seed: int = 0

    def __post_init__(self):
        if self.cluster not in CLUSTERS:
            raise ValueError(f"cluster is {self.cluster!r}; use one of {', '.join(CLUSTERS)}.")
        checked_level(self.level)

    @property
    def at(self):
        """Keywords of everything that resamples."""
        return {"threshold": self.threshold, "cluster": self.cluster, "seed": self.seed}

    @property
    def intervals(self):
        return {**self.at, "resamples": self.resamples, "level": self.level, "kind": "bca"}

    def permutations(self, tests):
        """So many that the smallest p-value, corrected for `tests` tests, lies well under 1 - level."""
        return max(self.resamples, math.ceil(5 * tests / (1 - self.level)))


def known(table, by):
    """The rows that have a value in the column `by`."""
    return table[table[by].notna()]


def group_table(table, by, settings):
    """Rates of each group with intervals, how many clusters they rest on, and how many they need."""
    result = group_intervals(table, by, **settings.intervals)
    few = {"fpr": result["clusters_real"], "tpr": result["clusters_fake"]}
    few["acc"] = few["auc"] = np.minimum(*few.values())
    for rate, clusters in few.items():
        trials = clusters if rate in ("fpr", "tpr") else 0 * clusters  # no such interval for accuracy and AUC
        wilson = rate_interval(result[rate].fillna(0) * trials, trials, settings.level)
        for name, bound in zip(("low", "high"), wilson, strict=True):
            result[f"{rate}_{name}"] = result[f"{rate}_{name}"].mask(clusters < MINIMUM, bound)
    sparse = pd.DataFrame({rate: few[rate] < MINIMUM for rate in ("fpr", "tpr")})
    result["few"] = [", ".join(sparse.columns[row]) for row in sparse.to_numpy()]
    worth = design_effects(table, by, settings.threshold, cluster=settings.cluster).xs("pooled", level=by)
    for rate, name in (("fpr", "needed_real"), ("tpr", "needed_fake")):
        result[name] = _needed(worth.loc[rate], settings.level)
    return result


def overall_table(table, settings):
    """OVERALL of all images together: index OVERALL; estimate, low, high, with the intervals of `group_table`."""
    row = group_table(table.assign(everyone="all"), "everyone", settings).loc["all"]
    columns = {"estimate": "{}", "low": "{}_low", "high": "{}_high"}
    return pd.DataFrame({name: [row[of.format(m)] for m in OVERALL] for name, of in columns.items()}, list(OVERALL))


def _needed(worth, level):
    """Clusters for an interval of width PLANNED at the rate of all groups; NaN without any image of the class."""
    if np.isnan(worth["rate"]):
        return np.nan
    correlation = 1.0 if np.isnan(worth["correlation"]) else worth["correlation"]  # unknown: the careful choice
    return videos_needed(PLANNED, worth["rate"], worth["frames"], correlation, level)


def fairness_table(table, by, settings, permutations):
    """GAPS and SUMS of one grouping, with intervals and sampling floor."""
    rows = [gap(table, by, metric, settings, permutations) for metric in GAPS]
    sums = above_zero(table, by, SUMS, False, settings, permutations).assign(left_out="")
    return pd.concat([pd.DataFrame(rows, index=list(GAPS)), sums]).rename_axis("metric").astype({"groups": "Int64"})


def gap(table, by, metric, settings, permutations):
    """One of GAPS between the groups that are large enough, with interval and floor: a dict.

    In the reals alone F_DP is the gap of the FPR, in the fakes alone that of the TPR.
    """
    part, left_out = large_enough(table, by, metric, settings.cluster)
    names = {"left_out": ", ".join(map(str, left_out)), "groups": part[by].nunique()}
    if names["groups"] < 2:
        return dict.fromkeys([*SHOWN, *FLOOR.values()], np.nan) | names
    auc = metric == "auc_gap"
    return above_zero(part, by, ["auc_gap" if auc else "dp"], auc, settings, permutations).iloc[0].to_dict() | names


def above_zero(table, by, metrics, auc, settings, permutations):
    """Metrics that are never negative, with floor and an interval that holds near zero too.

    Noise widens gaps, the more the more groups there are: percentile and BCa intervals of the gap between several
    groups lie above the true one about as often as not. Three or more groups therefore get the interval of
    `intervals.band`. Of two groups the percentile interval of a small gap lies too high, and the BCa interval of one
    that happens to be small ends too early: low is taken from BCa, high from whichever is higher. Low is zero where
    the permutations do not exclude that there is no difference.
    """
    several = table[by].nunique() > 2
    kinds = {"kind": "band"} if several else {}
    shown = bootstrap(table, by, auc=auc, **settings.intervals | kinds).loc[list(metrics), SHOWN]
    if not several:
        percentile = bootstrap(table, by, auc=auc, **settings.intervals | {"kind": "percentile"}).loc[list(metrics)]
        shown["high"] = np.maximum(shown["high"], percentile["high"])
    floor = sampling_floor(table, by, permutations, auc=auc, **settings.at).loc[list(metrics), list(FLOOR)]
    shown["low"] = shown["low"].mask(floor["p_value"] >= 1 - settings.level, 0)
    return shown.join(floor.rename(columns=FLOOR))


def large_enough(table, by, metric, cluster):
    """The rows that a gap is made of, and the groups left out: those with fewer than MINIMUM clusters of a class."""
    labels = {"fpr_gap": (0,), "tpr_gap": (1,), "auc_gap": (0, 1)}[metric]
    counts = table.groupby([by, "label"])[cluster].nunique().unstack().reindex(columns=labels).fillna(0)
    enough = (counts >= MINIMUM).all(axis=1)
    return table[table[by].map(enough) & table["label"].isin(labels)], list(enough.index[~enough])


def with_differences(table, bys, groups, settings, permutations):
    """`groups` with each group's FPR and TPR against all others; Holm over all groupings and both rates."""
    rows = {}
    for by in bys:
        part = known(table, by)
        shown = group_against_rest(part, by, ("fpr", "tpr"), **settings.intervals, permutations=permutations)
        for (rate, group), difference in shown[["estimate", "low", "high", "p_value"]].iterrows():
            row, difference = groups.loc[(by, group)], difference.rename({"p_value": "p"}).to_dict()
            if rate in row["few"] or rate in row["collapsed"]:
                own = part.assign(own=(part[by] == group).map({True: "own", False: "rest"}))
                difference |= _joined(group_table(own, "own", settings), rate)
            rows[by, group, rate] = difference
    rows = pd.DataFrame(rows).T.rename_axis(["by", "group", "rate"])
    rows["p_holm"] = holm(rows["p"])
    return groups.join(_one_row_a_group(rows, groups.index))


def _joined(two, rate):
    """Interval of own rate minus rest rate from the two rates' own intervals.

    Source: Newcombe 1998; Zou and Donner 2008 (MOVER).
    """
    if len(two) < 2:
        return {"low": np.nan, "high": np.nan}
    p, low, high = (two[name].to_numpy() for name in (rate, f"{rate}_low", f"{rate}_high"))
    down = np.hypot(p[0] - low[0], high[1] - p[1])
    up = np.hypot(high[0] - p[0], p[1] - low[1])
    return {"low": p[0] - p[1] - down, "high": p[0] - p[1] + up}


def _one_row_a_group(rows, index):
    """Differences with a row a group; of two groups the second mirrors the first."""
    names = {"estimate": "off", "low": "off_low", "high": "off_high", "p": "off_p", "p_holm": "off_p_holm"}
    wide = rows.rename(columns=names).unstack("rate")
    wide.columns = [f"{rate}_{name}" for name, rate in wide.columns]
    wide = wide.reindex(index)
    for by in index.unique("by"):
        members = index[index.get_loc(by)]
        if len(members) == 2:
            first = wide.loc[members[0]]
            for rate in ("fpr", "tpr"):
                signed = [-first[f"{rate}_off"], -first[f"{rate}_off_high"], -first[f"{rate}_off_low"]]
                values = [*signed, first[f"{rate}_off_p"], first[f"{rate}_off_p_holm"]]
                wide.loc[members[1], [f"{rate}_{name}" for name in names.values()]] = values
    return wide
