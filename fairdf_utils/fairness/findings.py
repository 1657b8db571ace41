"""The rules that turn the numbers of a verdict into sentences. No sentence is written by hand.

With alpha = 1 - level, and p-values that Holm's method corrects:

- The main numbers come first: the lowest AUC, and TPR at a common FPR, of the groups that are large enough.
- The gap of a rate (FPR, TPR, AUC) is that between groups with at least MINIMUM clusters of the class: one group with
  three videos would hide every difference between the others. It "differs" if its p-value is below alpha; otherwise it
  cannot be told apart from sampling, and the sentence says how large a difference there may still be.
- Where a gap of FPR or TPR differs, it is said whether it still does if some group labels are wrong.
- Where a gap differs, the single groups are named that differ from all others together.
- A group with fewer clusters is too small to judge; what it needs is stated. A rate without images is undefined.
- Other thresholds, or judging whole videos, confirm or change what was found about false alarms.

A finding is a dict: kind (of KINDS), by, group, metric ("" where it does not apply), text, and the numbers in it.
"""

from dataclasses import dataclass, field
from html import escape

import numpy as np
import pandas as pd

from fairdf_utils.fairness.cautions import IMAGES, UNITS, percent, with_class
from fairdf_utils.fairness.label_noise import RELABELLINGS
from fairdf_utils.fairness.resampling import MINIMUM, Settings
from fairdf_utils.fairness.worst_group import COMMON_FPR, WORST

PLANNED = 0.2  # width of the interval that a group should have, as a fraction: plus or minus ten points
SAME = 1e-12  # a gap below that is one of rounding
GAPS = {
    "fpr": ("fpr_gap", "the share of real images called fake", "false alarms", (0,)),
    "tpr": ("tpr_gap", "the share of fakes found", "fakes found", (1,)),
    "auc": ("auc_gap", "the AUC", "AUC", (0, 1)),
}
SHARES = {"fpr": "of the real images are called fake", "tpr": "of the fakes are found"}
KINDS = {
    "detection": "Detection",
    "differs": "Differs between groups",
    "not told apart": "Cannot be told apart from sampling",
    "threshold": "At other thresholds",
    "videos": "Whole videos",
    "labels": "Under other group labels",
    "undefined": "Undefined",
    "too small": "Cannot be judged",
}


@dataclass(frozen=True)
class Verdict:
    """All that is said of one data set, and the numbers that it rests on."""

    settings: Settings
    bys: list
    primary: str  # see `finest`
    fitted_on: str
    overall: pd.DataFrame  # index OVERALL; estimate, low, high
    # Index (by, group): columns of `uncertainty.group_intervals`; few: rates on fewer than MINIMUM clusters;
    # needed_real, needed_fake: clusters for an interval of width PLANNED; for rate fpr and tpr <rate>_off, _off_low,
    # _off_high (difference from all other groups together), _off_p, _off_p_holm.
    groups: pd.DataFrame
    # Index (by, metric): columns of `uncertainty.metric_intervals`; p_holm; left_out: groups that are too small. First
    # WORST, with no floor, but the name of the worst group.
    fairness: pd.DataFrame
    # Gap of the FPR by `primary` at POINTS and for "videos": threshold, estimate, floor_q95, p_value, p_holm.
    points: pd.DataFrame
    # Index (by, metric), also for columns beside `bys` that annotate the same: estimate with the labels given; mean,
    # low, high where some are wrong; differs: in how many of the RELABELLINGS the gap does, where it does as given;
    # beside: the column of `bys`; alike: share of images that have the same value in both, NaN if none has.
    noise: pd.DataFrame
    cautions: list
    findings: list = field(default_factory=list)


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


def findings(verdict: Verdict) -> list[dict]:
    """All findings of one data set, in the order in which a reader wants them."""
    order = sorted(verdict.bys, key=lambda by: by != verdict.primary)
    gaps = [_gap(verdict, by, rate) for by in order for rate in GAPS]
    said = [*filter(None, [_worst(verdict, verdict.primary)]), _detection(verdict)]
    said += sorted(filter(None, gaps), key=lambda finding: finding["kind"] != "differs")
    said += [finding for by in order for finding in _single_groups(verdict, by)]
    said += filter(None, [_elsewhere(verdict, point) for point in verdict.points.index])
    said += _other_labels(verdict.noise)
    for by in order:
        for group, row in verdict.groups.loc[by][lambda groups: groups["undefined"] != ""].iterrows():
            text = f"By {by}, {group} has no {row['undefined']}."
            said.append(_finding("undefined", text, by, str(group), n=row["n"]))
    return said + list(filter(None, [_too_small(verdict, by) for by in order]))


def _worst(verdict, by):
    """The main numbers; None where fewer than two groups are large enough."""
    rows = verdict.fairness.loc[by].loc[list(WORST)].dropna(subset="estimate")
    words = f"where {percent(COMMON_FPR)} of all real images are called fake, the lowest share of fakes found is"
    words = {"worst_auc": "the lowest AUC is", "worst_tpr": words}
    said = [
        f"{words[name]} that of {row['worst']}, {percent(row['estimate'])}{between(row['low'], row['high'])}"
        f"{_judged(verdict, by, row['groups'])}"
        for name, row in rows.iterrows()
    ]
    numbers = rows[["estimate", "low", "high", "worst"]].to_dict("index")
    return _finding("detection", f"By {by}, {'; '.join(said)}.", by, **numbers) if said else None


def _judged(verdict, by, large):
    """How many groups a sentence speaks of, where it leaves out those that are too small."""
    of, unit = len(verdict.groups.loc[by]), UNITS[verdict.settings.cluster]
    return "" if large == of else f" (of the {large} of {of} groups with {MINIMUM} or more {unit} of a class)"


def _detection(verdict):
    """What the detector does for all together."""
    auc, at, parts = verdict.overall.loc["auc"], verdict.settings.threshold, []
    if not np.isnan(auc["estimate"]):
        guess = ": it cannot be told apart from guessing" if auc["low"] <= 0.5 <= auc["high"] else ""
        parts.append(f"The AUC over all images is {percent(auc['estimate'])}{between(auc['low'], auc['high'])}{guess}.")
    rates = verdict.overall.loc[list(SHARES)].dropna(subset="estimate").itertuples()
    doing = [f"{percent(rate.estimate)} {SHARES[rate.Index]}{between(rate.low, rate.high)}" for rate in rates]
    parts.append(f"At the threshold {at:g}, {' and '.join(doing)}.")
    numbers = verdict.overall.drop(index="acc").to_dict("index")
    return _finding("detection", " ".join(parts), **numbers, threshold=at)


def _gap(verdict, by, rate):
    """Whether a rate differs between the groups of one grouping; None where fewer than two are large enough."""
    metric, words, *_ = GAPS[rate]
    row = verdict.fairness.loc[(by, metric)]
    if np.isnan(row["p_holm"]):
        return None
    groups = _large(verdict.groups.loc[by], rate)
    low, high = groups[rate].idxmin(), groups[rate].idxmax()
    extremes = f"from {percent(groups.loc[low, rate])} ({low}) to {percent(groups.loc[high, rate])} ({high})"
    size, differs = points_of(row["estimate"]), row["estimate"] >= SAME and row["p_holm"] < 1 - verdict.settings.level
    if row["estimate"] < SAME:
        text = f"{words} is the same in all groups, {percent(groups.loc[low, rate])}."
    elif differs:
        text = f"{words} differs: {extremes}, a gap of {size}{between(row['low'], row['high'])}; {_chance(row)}."
    else:
        text = f"{words} goes {extremes}: a gap of {size} cannot be told apart from sampling ({_chance(row)})."
    room = groups.reindex(columns=[f"{rate}_off_low", f"{rate}_off_high"]).abs().max(axis=1)
    if not differs and room.notna().any():  # absence of evidence is not evidence of absence
        others = "the other" if len(verdict.groups.loc[by]) == 2 else "all others"
        text += f" The intervals leave room for {room.idxmax()} to be {points_of(room.max())} from {others}."
    numbers = {**row.to_dict(), "lowest": low, "highest": high}
    if differs and rate != "auc":
        stands = numbers["stands"] = int(verdict.noise.loc[(by, metric), "differs"])
        wrong = f"{100 * verdict.settings.label_noise:g} % of the group labels are wrong"
        depends = f"This depends on the labels: if {wrong}, it differs"
        text += f" {f'It also differs if {wrong}:' if stands == RELABELLINGS else depends}"
        text += f" in {stands} of {RELABELLINGS} random relabellings."
    return _finding(
        "differs" if differs else "not told apart",
        f"By {by}{_judged(verdict, by, len(groups))}, {text}",
        by,
        metric=metric,
        **numbers,
    )


def _chance(row):
    """The floor belongs to one test alone, p to all that are read together: said, as they may disagree."""
    return f"sampling alone shows up to {points_of(row['floor_q95'])} in one test; {p_text(row['p_holm'])}, corrected"


def _large(groups, rate):
    """The groups that are judged by a rate."""
    needs = ("fpr", "tpr") if rate == "auc" else (rate,)
    return groups[[not any(need in few for need in needs) for few in groups["few"]]]


def _single_groups(verdict, by):
    """Groups that differ from all others together, where the gap does; of two groups the gap has said it all."""
    groups, said, alpha = verdict.groups.loc[by], [], 1 - verdict.settings.level
    for rate, what in SHARES.items():
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
    by, row, videos = verdict.primary, verdict.points.loc[point], point == "videos"
    before = verdict.fairness.loc[(by, "fpr_gap"), "p_holm"]
    if np.isnan(row["p_holm"]) or np.isnan(before):
        return None
    now, before = (p < 1 - verdict.settings.level for p in (row["p_holm"], before))
    where = f"At the threshold {row['threshold']:.3f} ({point}, fitted on {verdict.fitted_on}) "
    where = "With the mean score of each video instead of single images, " if videos else where
    there = "it differs" if now else "it cannot be told apart from sampling"
    turn = f"there too {there}" if now == before else f"there {there}, other than what was found above"
    text = f"{where}the gap of false alarms by {by} is {points_of(row['estimate'])} ({_chance(row)}): {turn}."
    if row["estimate"] < SAME:
        text = f"{where}the false alarms by {by} are the same in all groups."
    kind = "videos" if videos else "threshold"
    return _finding(kind, text, by, metric="fpr_gap", point=point, **row.to_dict())


def _other_labels(noise):
    """The false alarms by columns that annotate what a grouping does, side by side with it."""
    for (by, _), row in noise[noise["beside"].notna()].query("metric == 'fpr_sum'").iterrows():
        same = "" if np.isnan(row["alike"]) else f" (alike for {percent(row['alike'])} of the images)"
        gap, total, gap_of, total_of = (
            noise["estimate"].get((name, metric)) for name in (by, row["beside"]) for metric in ("fpr_gap", "fpr_sum")
        )
        text = (
            f"By {by}, other labels than {row['beside']}{same}, the gap of false alarms is {points_of(gap)} and F_FPR "
        )
        text += f"{points_of(total)}; by {row['beside']} {points_of(gap_of)} and {points_of(total_of)}."
        text += " For a verdict, judge by this column."
        yield _finding("labels", text, by, fpr_gap=gap, fpr_sum=total)


def _too_small(verdict, by):
    """The groups of a grouping with too few clusters of a class, and how many a group needs; None if there are none."""
    cluster, groups, lacking, named = verdict.settings.cluster, verdict.groups.loc[by], {}, []
    for group, row in groups[groups["few"] != ""].iterrows():
        lacking[group] = [what for what, rate in (("real", "fpr"), ("fake", "tpr")) if rate in row["few"]]
        counts = [with_class(row[f"clusters_{what}"], cluster, what) for what in lacking[group]]
        named.append(f"{group} ({' and '.join(counts)})")
    if not lacking:
        return None
    there = dict(zip(IMAGES, verdict.overall.loc[["fpr", "tpr"], "estimate"].notna(), strict=True))  # no rate, no plan
    needed = {what: int(groups[f"needed_{what}"].iloc[0]) for what in IMAGES if there[what]}
    needs = " and ".join(f"at least {with_class(number, cluster, what)}" for what, number in needed.items())
    text = f"By {by}, fewer than {MINIMUM} {UNITS[cluster]} of a class cannot be judged: {'; '.join(named)}."
    text += f" For intervals of ±{50 * PLANNED:g} points a group needs, at the rates of all together, {needs}."
    return _finding("too small", text, by, lacking=lacking, needed=needed)


def in_short(findings: list[dict]) -> str:
    """One or two sentences that say which gaps differ and which do not."""
    said = []
    for kind in ("differs", "not told apart"):
        parts = []
        for metric, _, short, _ in GAPS.values():
            bys = [found["by"] for found in findings if found["kind"] == kind and found["metric"] == metric]
            parts += [f"{short} by {' and '.join(filter(None, [', '.join(bys[:-1]), bys[-1]]))}"] if bys else []
        said += [f"{KINDS[kind]}: {'; '.join(parts)}."] if parts else []
    lacking = [pair for found in findings for pair in found["numbers"].get("lacking", {}).items()]
    small = [f"{group} ({' and '.join(map(IMAGES.get, whats))})" for group, whats in lacking]
    said = said or ["No gap between groups can be judged."]
    return " ".join(said + ([f"{KINDS['too small']}: {', '.join(small)}."] if small else []))


def as_html(verdict: Verdict) -> str:
    """Severe cautions, what was found in short, the findings by kind, and the other cautions: HTML, names escaped."""
    severe, others = ([one["text"] for one in verdict.cautions if one["severe"] == wanted] for wanted in (True, False))
    blocks = [("severe", "Mind first", severe)]
    for kind, heading in KINDS.items():
        found = [finding["text"] for finding in verdict.findings if finding["kind"] == kind]
        blocks.append((f"finding {kind.replace(' ', '-')}", heading, found))
    parts = []
    for name, heading, texts in [*blocks, ("mind", "Mind also", others)]:
        items = "".join(f"<li>{escape(text)}</li>" for text in texts)
        parts.append(f'<div class="{name}"><strong>{heading}</strong><ul>{items}</ul></div>' if texts else "")
    parts.insert(1, f'<p class="short">{escape(in_short(verdict.findings))}</p>')
    return "\n".join(filter(None, parts))
