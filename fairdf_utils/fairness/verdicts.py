"""The verdict on one score table: its numbers, put together by one rule for all detectors, and what is said of it.

The gap of a rate is that between groups with at least MINIMUM clusters of the class; the sums of the field take all.
`cautions` and `findings` hold the rules that turn the numbers into sentences.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from fairdf_utils.fairness import permutation, uncertainty
from fairdf_utils.fairness.cautions import cautions
from fairdf_utils.fairness.findings import GAPS, PLANNED, Verdict, findings
from fairdf_utils.fairness.label_noise import other_labels, relabelled
from fairdf_utils.fairness.metrics import OVERALL
from fairdf_utils.fairness.resampling import MINIMUM, large_enough
from fairdf_utils.fairness.sample_size import design_effects, videos_needed
from fairdf_utils.fairness.score_table import ScoreTableError, column, video_level
from fairdf_utils.fairness.thresholds import POINTS, fit_threshold
from fairdf_utils.fairness.worst_group import worst_groups

MOST_GROUPS = 50  # more values than that are a measurement or a name, not a grouping


def groupings(table: pd.DataFrame, asked: Sequence[str] = ()) -> list[str]:
    """The columns to judge by: those asked for, or what there is of gender, race and group; ScoreTableError if none."""
    bys = list(dict.fromkeys(asked)) or [by for by in ("gender", "race", "group") if by in table.columns]
    for by in bys:
        if by not in table.columns:
            column(table, by)  # says what there is
        if table[by].nunique() > MOST_GROUPS:
            text = f"Column '{by}' has {table[by].nunique():,} different values: no grouping."
            raise ScoreTableError(f"{text} Sort them into a few classes, in a column of their own.")
    if not any(table[by].notna().any() for by in bys):
        raise ScoreTableError(f"No image has a value in {', '.join(bys)}. Fill one in, or leave out these images.")
    return bys


def finest(table: pd.DataFrame, bys: Sequence[str]) -> str:
    """The grouping with most groups, of equals the last: the intersection, where the table has it."""
    return max(reversed(bys), key=lambda by: table[by].nunique())


def judge(
    table: pd.DataFrame, bys: Sequence[str], settings: uncertainty.Settings, validation: pd.DataFrame | None = None
) -> Verdict:
    """Judge one data set, from `score_table.read_scores`; ScoreTableError if a column is missing or cannot be judged.

    Rows without a value in a column of `bys` are left out of what is said by it. Thresholds are fitted on the score
    table `validation`; without it on `table` itself, and marked.
    """
    column(table, settings.cluster)
    asked, bys = bys, [by for by in groupings(table, bys) if table[by].notna().any()]
    primary = finest(table, bys)
    everyone = uncertainty.group_intervals(table.assign(everyone="all"), "everyone", settings).loc["all"]
    ends = {"estimate": "{}", "low": "{}_low", "high": "{}_high"}
    overall = pd.DataFrame({end: [everyone[of.format(m)] for m in OVERALL] for end, of in ends.items()}, list(OVERALL))
    groups, fairness = {}, {}
    for by in bys:
        known = _known(table, by)
        groups[by], fairness[by] = _groups(known, by, settings), _fairness(known, by, settings)
    groups, fairness = pd.concat(groups, names=["by", "group"]), pd.concat(fairness, names=["by", "metric"])
    gaps = fairness.index.isin([names[0] for names in GAPS.values()], level="metric")
    fairness["p_holm"] = fairness.groupby(gaps)["p_value"].transform(permutation.holm)
    groups = _with_differences(table, bys, groups, settings)
    fit_on, fitted_on = (table, "the same images") if validation is None else (validation, "validation")
    points, failures = _points(_known(table, primary), primary, settings, fit_on)
    minded = cautions(table, list(asked), settings, overall, validation)
    minded += [{"text": text, "severe": False} for text in failures]
    noise = _label_noise(table, bys, settings, fairness)
    verdict = Verdict(settings, bys, primary, fitted_on, overall, groups, fairness, points, noise, minded)
    verdict.findings.extend(findings(verdict))
    return verdict


def _known(table, by):
    return table[table[by].notna()]


def _groups(table, by, settings):
    """Rates of each group with intervals, how many clusters they rest on, and how many they need."""
    result = uncertainty.group_intervals(table, by, settings)
    few = {"fpr": result["clusters_real"] < MINIMUM, "tpr": result["clusters_fake"] < MINIMUM}
    result["few"] = [", ".join(rate for rate in few if few[rate][group]) for group in result.index]
    worth = design_effects(table, by, settings).xs("pooled", level=by)
    for rate, name in (("fpr", "needed_real"), ("tpr", "needed_fake")):
        plan = worth.loc[rate, ["rate", "frames", "correlation"]].fillna({"rate": 0.5, "frames": 1, "correlation": 1})
        result[name] = max(MINIMUM, videos_needed(PLANNED, *plan, settings.level))  # unknown: be careful
    return result


def _fairness(table, by, settings):
    """WORST and METRICS of one grouping; the gaps of FPR, TPR and AUC between the groups that are large enough."""
    whole = uncertainty.metric_intervals(table, by, settings).assign(left_out="")
    for metric, *_, labels in GAPS.values():
        part, left_out = large_enough(table, by, labels, settings.cluster)
        if left_out:
            row = pd.Series(np.nan, whole.columns, dtype=object)
            if part[by].nunique() > 1:
                row = uncertainty.metric_intervals(part, by, settings, len(labels) == 2).loc[metric].astype(object)
            row["left_out"], row["groups"] = ", ".join(map(str, left_out)), part[by].nunique()
            whole.loc[metric] = row[whole.columns]
    return pd.concat([worst_groups(table, by, settings), whole])


def _with_differences(table, bys, groups, settings):
    """`groups` with each group's FPR and TPR against all others; Holm over all groupings and both rates."""
    rows = {by: uncertainty.against_rest(_known(table, by), by, settings) for by in bys}
    rows = pd.concat(rows, names=["by", "rate", "group"])
    rows["p_holm"] = permutation.holm(rows["p_value"])
    for by in bys:
        members = groups.loc[by].index
        if len(members) == 2:  # the second mirrors the first
            other = rows.xs((by, members[0]), level=("by", "group"), drop_level=False)
            other = other.rename(index={members[0]: members[1]}, level="group")
            flipped = {"estimate": -other["estimate"], "low": -other["high"], "high": -other["low"]}
            rows = pd.concat([rows, other.assign(**flipped)])
    names = {"estimate": "off", "low": "off_low", "high": "off_high", "p_value": "off_p", "p_holm": "off_p_holm"}
    wide = rows.rename(columns=names).unstack("rate")
    wide.columns = [f"{rate}_{name}" for name, rate in wide.columns]
    return groups.join(wide)


def _label_noise(table, bys, settings, fairness):
    """F_FPR and the gaps of FPR and TPR by all labels at hand, as given and where some are wrong: `Verdict.noise`."""
    alpha, rows, beside = 1 - settings.level, {}, other_labels(table, bys)
    family = fairness["p_value"][fairness.index.isin([names[0] for names in GAPS.values()], level="metric")]
    for by, (metric, label) in product([*bys, *beside], (("fpr_sum", 0), ("fpr_gap", 0), ("tpr_gap", 1))):
        part = _known(table[table["label"] == label], by)
        part = part if metric == "fpr_sum" else large_enough(part, by, (label,), settings.cluster)[0]
        if not 2 <= part[by].nunique() <= MOST_GROUPS:
            continue
        differs = by in bys and metric != "fpr_sum" and fairness.loc[(by, metric), "p_holm"] < alpha
        found = relabelled(part, by, label, settings, differs)
        given, *values = found["sum" if metric == "fpr_sum" else "gap"]
        row = {"estimate": given, "mean": np.mean(values), "low": min(values), "high": max(values)}
        if differs:  # with all other p-values as they are
            again = [permutation.holm(family.where(family.index != (by, metric), p)) for p in found["p_value"][1:]]
            row["differs"] = sum(p[by, metric] < alpha for p in again)
        if by in beside:
            both = table[[by, beside[by]]].dropna()
            alike = (both[by] == both[beside[by]]).mean()
            row |= {"beside": beside[by], "alike": alike or np.nan}
        rows[by, metric] = row
    index = pd.MultiIndex.from_tuples(rows, names=["by", "metric"])
    columns = ["estimate", "mean", "low", "high", "differs", "beside", "alike"]
    return pd.DataFrame([*rows.values()], index, columns).astype({"differs": "Int64"})


def _points(table, by, settings, fit_on):
    """The gap of the FPR at other thresholds and for whole videos, with tests; messages for what cannot be had."""
    views, failures = {}, []
    same = fit_on["score"].nunique() == 1
    if same:
        failures.append("No operating point can be fitted where all scores are the same.")
    for point, target in ({} if same else POINTS).items():
        try:
            views[point] = (table, fit_threshold(fit_on, *target, settings.fidelity))
        except ScoreTableError as error:
            failures.append(f"The operating point {point} is left out. {error}")
    if table["video"].nunique() < len(table):
        try:
            views["videos"] = (video_level(table), settings.threshold)
        except ScoreTableError as error:
            failures.append(f"Nothing is judged video by video. {error}")
    rows, columns = {}, ["threshold", "estimate", "floor_q95", "p_value"]
    for name, (view, cut) in views.items():
        part, _ = large_enough(view, by, (0,), settings.cluster)
        rows[name] = [cut, np.nan, np.nan, np.nan]
        if part[by].nunique() > 1:
            floor = permutation.sampling_floor(part, by, replace(settings, threshold=cut), auc=False).loc["fpr_gap"]
            rows[name][1:] = floor[["estimate", "q95", "p_value"]]
    points = pd.DataFrame.from_dict(rows, "index", columns=columns, dtype=float).rename_axis("point")
    return points.assign(p_holm=permutation.holm(points["p_value"])), failures
