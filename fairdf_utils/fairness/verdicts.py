"""The verdict on one score table, and the rules that turn its numbers into sentences. No sentence is written by hand.

With alpha = 1 - level, and p-values that Holm's method corrects:

- The gap of a rate (FPR, TPR, AUC) is that between groups with at least MINIMUM clusters of the class: one group with
  three videos would hide every difference between the others. It "differs" if its p-value is below alpha; otherwise it
  cannot be told apart from sampling, and the sentence says how large a difference there may still be.
- Where a gap differs, the single groups are named that differ from all others together.
- A group with fewer clusters is too small to judge; what it needs is stated. A rate without images is undefined.
- Other thresholds, or judging whole videos, confirm or change what was found about false alarms.

A finding is a dict: kind (of KINDS), by, group, metric ("" where it does not apply), text, and the numbers in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape

import numpy as np
import pandas as pd

from fairdf_utils.fairness.cautions import UNITS, cautions, counted, percent
from fairdf_utils.fairness.metrics import METRICS, OVERALL
from fairdf_utils.fairness.sample_size import design_effects, videos_needed
from fairdf_utils.fairness.score_table import ScoreTableError, column, video_level
from fairdf_utils.fairness.thresholds import fit_threshold
from fairdf_utils.fairness.uncertainty import (
    MINIMUM,
    Settings,
    against_rest,
    bootstrap,
    group_intervals,
    holm,
    sampling_floor,
)

PLANNED = 0.2  # width of the interval that a group should have, as a fraction: plus or minus ten points
MOST_GROUPS = 50  # more values than that are a measurement or a name, not a grouping
SAME = 1e-12  # a gap below that is one of rounding
POINTS = {"EER": ("eer", None), "FPR 10 %": ("fpr", 0.1)}
GAPS = {
    "fpr": ("fpr_gap", "the share of real images called fake", "false alarms", (0,)),
    "tpr": ("tpr_gap", "the share of fakes found", "fakes found", (1,)),
    "auc": ("auc_gap", "the AUC", "AUC", (0, 1)),
}
QUESTIONS = {
    ("fpr_sum", "threshold"): "F_FPR",
    ("fpr_sum", "common FPR"): "F_FPR at a common FPR",
    ("auc", "threshold"): "AUC",
}
KINDS = {
    "detection": "Detection",
    "differs": "Differs between groups",
    "not told apart": "Cannot be told apart from sampling",
    "threshold": "At other thresholds",
    "videos": "Whole videos",
    "undefined": "Undefined",
    "too small": "Too small to judge",
}


@dataclass(frozen=True)
class Verdict:
    """All that is said of one data set, and the numbers that it rests on."""

    settings: Settings
    bys: list
    primary: str  # see `finest`
    fitted_on: str
    # Index OVERALL; estimate, low, high.
    overall: pd.DataFrame
    # Index (by, group): columns of `uncertainty.group_intervals`; few: rates on fewer than MINIMUM clusters;
    # needed_real, needed_fake: clusters for an interval of width PLANNED; for rate fpr and tpr <rate>_off, _off_low,
    # _off_high (difference from all other groups together), _off_p, _off_p_holm.
    groups: pd.DataFrame
    # Index (by, metric): columns of `uncertainty.bootstrap`; p_holm; left_out: groups that are too small for a gap.
    fairness: pd.DataFrame
    # Gap of the FPR by `primary` at POINTS and for "videos": threshold, estimate, floor_q95, p_value, p_holm.
    points: pd.DataFrame
    cautions: list
    findings: list = field(default_factory=list)


def groupings(table: pd.DataFrame, asked: Sequence[str] = ()) -> list[str]:
    """The columns to judge by: those asked for, or what there is of gender, race and group; ScoreTableError if none."""
    bys = list(dict.fromkeys(asked)) or [by for by in ("gender", "race", "group") if by in table.columns]
    for by in bys:
        if by not in table.columns:
            column(table, by)  # says what there is
        if table[by].nunique() > MOST_GROUPS:
            raise ScoreTableError(
                f"Column '{by}' has {table[by].nunique():,} different values: no grouping. Sort them into a few "
                "classes, in a column of their own."
            )
    if not any(table[by].notna().any() for by in bys):
        raise ScoreTableError(f"No image has a value in {', '.join(bys)}. Fill one in, or leave out these images.")
    return bys


def finest(table: pd.DataFrame, bys: Sequence[str]) -> str:
    """The grouping with most groups, of equals the last: the intersection, where the table has it."""
    return max(reversed(bys), key=lambda by: table[by].nunique())


def judge(
    table: pd.DataFrame, bys: Sequence[str], settings: Settings, validation: pd.DataFrame | None = None
) -> Verdict:
    """Judge one data set.

    Parameters
    ----------
    table : DataFrame
        Rows of one data set, from `score_table.read_scores`.
    bys : sequence of str
        Columns that name groups; rows without a value in one are left out of what is said by it.
    validation : DataFrame, optional
        Score table that thresholds are fitted on; without it they are fitted on `table` itself, and marked.

    Raises
    ------
    ScoreTableError
        A column is missing, or holds what cannot be judged.
    """
    column(table, settings.cluster)
    asked, bys = bys, [by for by in groupings(table, bys) if table[by].notna().any()]
    primary = finest(table, bys)
    tests = 2 * sum(table[by].nunique() for by in bys)  # as many permutations as a corrected p needs to reach alpha
    enough = max(settings.permutations, math.ceil(5 * tests / (1 - settings.level)))
    settings = replace(settings, permutations=enough)
    everyone = group_intervals(table.assign(everyone="all"), "everyone", settings).loc["all"]
    ends = {"estimate": "{}", "low": "{}_low", "high": "{}_high"}
    overall = pd.DataFrame({end: [everyone[of.format(m)] for m in OVERALL] for end, of in ends.items()}, list(OVERALL))
    groups = pd.concat({by: _groups(_known(table, by), by, settings) for by in bys}, names=["by", "group"])
    fairness = pd.concat({by: _fairness(_known(table, by), by, settings) for by in bys}, names=["by", "metric"])
    gaps = fairness.index.isin([names[0] for names in GAPS.values()], level="metric")
    fairness["p_holm"] = holm(fairness["p_value"].where(gaps)).fillna(holm(fairness["p_value"].where(~gaps)))
    points, failures = _points(_known(table, primary), primary, settings, table if validation is None else validation)
    minded = cautions(table, list(asked), settings, overall, validation)
    minded += [{"text": text, "severe": False} for text in failures]
    fitted_on = "the same images" if validation is None else "validation"
    with_rest = _with_differences(table, bys, groups, settings)
    verdict = Verdict(settings, bys, primary, fitted_on, overall, with_rest, fairness, points, minded)
    verdict.findings.extend(_findings(verdict))
    return verdict


def _known(table, by):
    return table[table[by].notna()]


def _groups(table, by, settings):
    """Rates of each group with intervals, how many clusters they rest on, and how many they need."""
    result = group_intervals(table, by, settings)
    few = {"fpr": result["clusters_real"] < MINIMUM, "tpr": result["clusters_fake"] < MINIMUM}
    result["few"] = [", ".join(rate for rate in few if few[rate][group]) for group in result.index]
    worth = design_effects(table, by, settings).xs("pooled", level=by)
    for rate, name in (("fpr", "needed_real"), ("tpr", "needed_fake")):
        row = worth.loc[rate].fillna({"correlation": 1.0})  # unknown: the careful choice
        known = not np.isnan(row["rate"])
        result[name] = (
            videos_needed(PLANNED, *row[["rate", "frames", "correlation"]], settings.level) if known else np.nan
        )
    return result


def _fairness(table, by, settings):
    """METRICS of one grouping; the gaps of FPR, TPR and AUC between the groups that are large enough."""
    whole = bootstrap(table, by, settings).loc[list(METRICS)].assign(left_out="")
    for metric, *_, labels in GAPS.values():
        part, left_out = _large_enough(table, by, labels, settings.cluster)
        if left_out:
            row = pd.Series(np.nan, whole.columns, dtype=object)
            if part[by].nunique() > 1:
                row = bootstrap(part, by, settings, len(labels) == 2).loc[metric].astype(object)
            row["left_out"], row["groups"] = ", ".join(map(str, left_out)), part[by].nunique()
            whole.loc[metric] = row[whole.columns]
    return whole


def _large_enough(table, by, labels, cluster):
    """The rows that a gap is made of, and the groups left out: those with fewer than MINIMUM clusters of a class."""
    counts = table.groupby([by, "label"])[cluster].nunique().unstack().reindex(columns=labels).fillna(0)
    enough = (counts >= MINIMUM).all(axis=1)
    return table[table[by].map(enough) & table["label"].isin(labels)], list(enough.index[~enough])


def _with_differences(table, bys, groups, settings):
    """`groups` with each group's FPR and TPR against all others; Holm over all groupings and both rates."""
    rows = pd.concat(
        {by: against_rest(_known(table, by), by, settings) for by in bys}, names=["by", "rate", "group"]
    ).drop(columns="p_holm")
    rows["p_holm"] = holm(rows["p_value"])
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


def _points(table, by, settings, fit_on):
    """The gap of the FPR at other thresholds and for whole videos, with tests; messages for what cannot be had.

    Thresholds of each group's own are not among them: fitted on the same images they would close every gap by
    construction, and on others they are a reference, not a claim about the detector.
    """
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
        part, _ = _large_enough(view, by, (0,), settings.cluster)
        rows[name] = [cut, np.nan, np.nan, np.nan]
        if part[by].nunique() > 1:
            floor = sampling_floor(part, by, replace(settings, threshold=cut), auc=False).loc["fpr_gap"]
            rows[name][1:] = floor[["estimate", "q95", "p_value"]]
    points = pd.DataFrame.from_dict(rows, "index", columns=columns, dtype=float).rename_axis("point")
    return points.assign(p_holm=holm(points["p_value"])), failures


def points_of(value: float) -> str:
    """0.031 -> "3.1 points"."""
    return "undefined" if pd.isna(value) else f"{100 * value:.1f} points"


def between(low: float, high: float) -> str:
    """ " (25.5 to 32.0)", or nothing where there is no interval."""
    return "" if pd.isna(low) or pd.isna(high) else f" ({100 * low:.1f} to {100 * high:.1f})"


def p_text(p: float) -> str:
    """0.0312 -> "p = 0.031"."""
    return "p undefined" if pd.isna(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _finding(kind, text, by="", group="", metric="", **numbers):
    return {"kind": kind, "by": by, "group": group, "metric": metric, "text": text, "numbers": numbers}


def _findings(verdict):
    """All findings of one data set, in the order in which a reader wants them."""
    order = sorted(verdict.bys, key=lambda by: by != verdict.primary)
    gaps = [_gap(verdict, by, rate) for by in order for rate in GAPS]
    said = [_detection(verdict), *sorted(filter(None, gaps), key=lambda finding: finding["kind"] != "differs")]
    said += [finding for by in order for finding in _single_groups(verdict, by)]
    said += filter(None, [_elsewhere(verdict, point) for point in verdict.points.index])
    for by in order:
        for group, row in verdict.groups.loc[by].iterrows():
            if row["undefined"]:
                text = f"By {by}, {group} has no {row['undefined']}."
                said.append(_finding("undefined", text, by, str(group), n=row["n"]))
    return said + [finding for by in order for finding in _too_small(verdict, by)]


def _detection(verdict):
    auc, _, fpr, tpr = verdict.overall.itertuples(index=False)
    at, parts, doing = verdict.settings.threshold, [], []
    if not np.isnan(auc.estimate):
        guess = ": it cannot be told apart from guessing" if auc.low <= 0.5 <= auc.high else ""
        parts.append(f"The AUC over all images is {percent(auc.estimate)}{between(auc.low, auc.high)}{guess}.")
    for rate, what in ((fpr, "of the reals are called fake"), (tpr, "of the fakes are found")):
        if not np.isnan(rate.estimate):
            doing.append(f"{percent(rate.estimate)} {what}{between(rate.low, rate.high)}")
    parts.append(f"At the threshold {at:g}, {' and '.join(doing)}.")
    numbers = {"auc": auc._asdict(), "fpr": fpr._asdict(), "tpr": tpr._asdict(), "threshold": at}
    return _finding("detection", " ".join(parts), **numbers)


def _gap(verdict, by, rate):
    """Whether a rate differs between the groups of one grouping; None where fewer than two are large enough."""
    metric, words, *_ = GAPS[rate]
    row = verdict.fairness.loc[(by, metric)]
    if np.isnan(row["p_holm"]):
        return None
    groups = _large(verdict.groups.loc[by], rate)
    low, high = groups[rate].idxmin(), groups[rate].idxmax()
    extremes = f"from {percent(groups.loc[low, rate])} ({low}) to {percent(groups.loc[high, rate])} ({high})"
    kind = "differs" if row["p_holm"] < 1 - verdict.settings.level else "not told apart"
    if row["estimate"] < SAME:
        kind = "not told apart"
        text = f"By {by}, {words} is the same in all groups, {percent(groups.loc[low, rate])}."
    elif kind == "differs":
        size = f"{points_of(row['estimate'])}{between(row['low'], row['high'])}"
        text = f"By {by}, {words} differs: {extremes}, a gap of {size}; {_chance(row)}."
    else:
        text = f"By {by}, {words} goes {extremes}: a gap of {points_of(row['estimate'])} cannot be told apart from "
        text += f"sampling ({_chance(row)})."
    room = _room(groups, rate) if kind == "not told apart" else ""
    return _finding(kind, text + room, by, metric=metric, **row.to_dict(), lowest=low, highest=high)


def _chance(row):
    """The floor belongs to one test alone, p to all that are read together: said, as they may disagree."""
    return f"sampling alone shows up to {points_of(row['floor_q95'])} in one test; {p_text(row['p_holm'])}, corrected"


def _large(groups, rate):
    """The groups that are judged by a rate."""
    needs = ("fpr", "tpr") if rate == "auc" else (rate,)
    return groups[[not any(need in few for need in needs) for few in groups["few"]]]


def _room(groups, rate):
    """How far a group may still be from the others: absence of evidence is not evidence of absence."""
    if f"{rate}_off_low" not in groups or groups[f"{rate}_off_low"].isna().all():
        return ""
    room = groups[[f"{rate}_off_low", f"{rate}_off_high"]].abs().max(axis=1)
    others = "the other" if len(groups) == 2 else "all others"
    return f" The intervals leave room for {room.idxmax()} to be {points_of(room.max())} from {others}."


def _single_groups(verdict, by):
    """Groups that differ from all others together, where the gap does; of two groups the gap has said it all."""
    groups, said, alpha = verdict.groups.loc[by], [], 1 - verdict.settings.level
    for rate, what in (("fpr", "of the reals are called fake"), ("tpr", "of the fakes are found")):
        if len(groups) < 3 or not verdict.fairness.loc[(by, GAPS[rate][0]), "p_holm"] < alpha:
            continue
        large = _large(groups, rate)
        for group, row in large[large[f"{rate}_off_p_holm"] < alpha].iterrows():
            off, low, high, p = (row[f"{rate}_off{name}"] for name in ("", "_low", "_high", "_p_holm"))
            span, word = (between(low, high), "more") if off > 0 else (between(-high, -low), "less")
            text = f"By {by}, {group}: {percent(row[rate])} {what}, {points_of(abs(off))}{span} {word} than of all "
            text += f"other groups together; {p_text(p)}."
            numbers = {"rate": row[rate], "difference": off, "low": low, "high": high, "p_holm": p}
            said.append(_finding("differs", text, by, str(group), rate, **numbers))
    return said


def _elsewhere(verdict, point):
    """Does the gap of false alarms by the primary grouping stand at another threshold, and for whole videos?"""
    by, row = verdict.primary, verdict.points.loc[point]
    before = verdict.fairness.loc[(by, "fpr_gap"), "p_holm"]
    if np.isnan(row["p_holm"]) or np.isnan(before):
        return None
    now, before = (p < 1 - verdict.settings.level for p in (row["p_holm"], before))
    where = f"At the threshold {row['threshold']:.3f} ({point}, fitted on {verdict.fitted_on}) "
    if point == "videos":
        where = "With the mean score of each video instead of single images, "
    verdict_there = "it differs" if now else "it cannot be told apart from sampling"
    if row["estimate"] < SAME:
        text = f"{where}the false alarms by {by} are the same in all groups."
    else:
        turn = (
            f"there too {verdict_there}" if now == before else f"there {verdict_there}, other than what was found above"
        )
        text = f"{where}the gap of false alarms by {by} is {points_of(row['estimate'])} ({_chance(row)}): {turn}."
    kind = "videos" if point == "videos" else "threshold"
    return _finding(kind, text, by, metric="fpr_gap", point=point, **row.to_dict())


def _too_small(verdict, by):
    """The groups of a grouping with too few clusters of a class, and how many a group needs."""
    unit, groups = UNITS[verdict.settings.cluster], verdict.groups.loc[by]
    lacking = {
        group: [what for what, rate in (("real", "fpr"), ("fake", "tpr")) if rate in row["few"].split(", ")]
        for group, row in groups.iterrows()
        if row["few"]
    }
    if not lacking:
        return []
    named = [
        f"{group} ({' and '.join(counted(groups.loc[group, f'clusters_{w}'], unit) + f' with {w}s' for w in whats)})"
        for group, whats in lacking.items()
    ]
    needed = groups[["needed_real", "needed_fake"]].iloc[0].dropna().rename(lambda name: name.removeprefix("needed_"))
    needs = " and ".join(f"about {counted(number, unit)} with {what}s" for what, number in needed.items())
    text = f"By {by}, too few to judge (under {MINIMUM}): {'; '.join(named)}."
    text += f" For intervals of ±{50 * PLANNED:g} points a group needs {needs}."
    return [_finding("too small", text, by, lacking=lacking, needed=needed.to_dict())]


def in_short(findings: list[dict]) -> str:
    """One or two sentences that say which gaps differ and which do not."""
    said = []
    for kind in ("differs", "not told apart"):
        parts = []
        for metric, _, short, _ in GAPS.values():
            bys = [found["by"] for found in findings if found["kind"] == kind and found["metric"] == metric]
            parts += [f"{short} by {' and '.join(filter(None, [', '.join(bys[:-1]), bys[-1]]))}"] if bys else []
        said += [f"{KINDS[kind]}: {'; '.join(parts)}."] if parts else []
    small = [
        f"{group} ({' and '.join(what + 's' for what in whats)})"
        for found in findings
        if found["kind"] == "too small"
        for group, whats in found["numbers"]["lacking"].items()
    ]
    said = said or ["No gap between groups can be judged."]
    return " ".join(said + ([f"Too few to judge: {', '.join(small)}."] if small else []))


def as_html(verdict: Verdict) -> str:
    """Severe cautions, what was found in short, the findings by kind, and the other cautions: HTML, names escaped."""

    def items(texts):
        return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"

    severe, others = ([one["text"] for one in verdict.cautions if one["severe"] == wanted] for wanted in (True, False))
    parts = [f'<div class="severe"><strong>Mind first</strong>{items(severe)}</div>'] if severe else []
    parts.append(f'<p class="short">{escape(in_short(verdict.findings))}</p>')
    for kind, heading in KINDS.items():
        found = [finding["text"] for finding in verdict.findings if finding["kind"] == kind]
        name = kind.replace(" ", "-")
        parts += [f'<div class="finding {name}"><strong>{heading}</strong>{items(found)}</div>'] if found else []
    parts += [f'<div class="mind"><strong>Mind also</strong>{items(others)}</div>'] if others else []
    return "\n".join(parts)


def compared(differences: pd.DataFrame, level: float) -> pd.DataFrame:
    """The questions that are asked of two detectors, answered in columns question, p_holm and verdict.

    `differences` are rows of `uncertainty.paired_difference` with columns detector, reference, seed, dataset, metric
    and at ("threshold" or "common FPR"). The p-values of one question are read together, so Holm's method corrects
    them together; training seeds are repetitions, which are counted, not pooled.
    """
    asked = [QUESTIONS.get(key, "") for key in zip(differences["metric"], differences["at"], strict=True)]
    rows = differences.assign(question=asked)[np.array(asked, object) != ""].copy()
    rows["p_holm"] = rows.groupby(["question", "seed"])["p_value"].transform(holm).astype(float)
    way = np.where(rows["estimate"] < 0, "lower", "higher")
    return rows.assign(verdict=np.where(rows["p_holm"] < 1 - level, way, "undecided"))


def comparison_sentences(rows: pd.DataFrame) -> list[str]:
    """One sentence a pair and question, from `compared`: "fairdf against ori, AUC: lower on dfd; undecided on ffpp."

    With several seeds, in how many of them: "lower on dfd 2/3".
    """
    several, said = rows["seed"].nunique() > 1, []
    for (base, detector, question), part in rows.groupby(["reference", "detector", "question"], sort=False):
        found, of = [], part["dataset"].value_counts()
        for verdict in ("lower", "higher", "undecided"):
            counts = part.loc[part["verdict"] == verdict, "dataset"].value_counts(sort=False)
            names = [f"{name} {count}/{of[name]}" if several else str(name) for name, count in counts.items()]
            found += [f"{verdict} on {', '.join(names)}"] if names else []
        said.append(f"{detector} against {base}, {question}: {'; '.join(found)}.")
    return said
