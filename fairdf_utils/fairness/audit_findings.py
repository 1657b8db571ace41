"""The rules that turn an audit's numbers into sentences. No sentence is written by hand for a result.

With alpha = 1 - level, and p-values Holm corrected:

- The gap of a rate (FPR, TPR, AUC) between the groups that are large enough "differs" if its p-value is below alpha.
  Otherwise it cannot be told apart from sampling, and the sentence says how large a difference there may still be.
- Where a gap differs, the single groups are named that differ from all others together (p-value below alpha).
- A group with fewer than a minimum of clusters of a class is too small to judge; what it needs is stated.
- A rate without images is undefined, with the reason and n.
- Another threshold, or judging whole videos, confirms or changes what was found about false alarms.
"""

import numpy as np
import pandas as pd

from fairdf_utils.fairness.gaps import MINIMUM, PLANNED

GAPS = {
    "fpr": ("fpr_gap", "the share of real images called fake"),
    "tpr": ("tpr_gap", "the share of fakes found"),
    "auc": ("auc_gap", "the AUC"),
}
SAME = 1e-12  # a gap below that is one of rounding
UNITS = {"video": "videos", "identity": "people", "img_path": "images"}


class Severe(str):
    """A warning that puts the results themselves in doubt: it also stands above the findings."""


def percent(value):
    """0.2575 -> "25.8 %", NaN -> "undefined"."""
    return "undefined" if pd.isna(value) else f"{100 * value:.1f} %"


def points(value):
    return "undefined" if pd.isna(value) else f"{100 * value:.1f} points"


def signed(value):
    """0.105 -> "+10.5", with a true minus sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def between(low, high):
    """ " (25.5 to 32.0)", or nothing where there is no interval."""
    return "" if pd.isna(low) or pd.isna(high) else f" ({100 * low:.1f} to {100 * high:.1f})"


def p_text(p):
    return "undefined" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def counted(number, nouns):
    """3, "videos" -> "3 videos"; one person, two people."""
    singular = {"people": "person"}.get(nouns, nouns.removesuffix("s"))
    return f"{int(number):,} {singular if number == 1 else nouns}"


def in_short(found):
    """One or two sentences that say which gaps differ and which do not."""
    said = []
    kinds = {"differs": "Differs between groups", "not told apart": "Cannot be told apart from sampling"}
    for kind, words in kinds.items():
        parts = []
        for metric, short in (("fpr_gap", "false alarms"), ("tpr_gap", "fakes found"), ("auc_gap", "AUC")):
            bys = [finding["by"] for finding in found if finding["kind"] == kind and finding["metric"] == metric]
            parts += [f"{short} by {_list(bys)}"] if bys else []
        said += [f"{words}: {'; '.join(parts)}."] if parts else []
    small = [
        f"{group} ({' and '.join(what + 's' for what in whats)})"
        for finding in found
        if finding["kind"] == "too small"
        for group, whats in finding["numbers"]["lacking"].items()
    ]
    said = said or ["No gap between groups can be judged."]
    return " ".join(said + ([f"Too few to judge: {', '.join(small)}."] if small else []))


def _list(names):
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def findings(judged):
    """All findings of one data set, in the order in which a reader wants them.

    Returns
    -------
    list of dict
        kind ("detection", "differs", "not told apart", "undefined", "too small", "threshold", "videos"), by, group,
        metric ("" where it does not apply), text, and the numbers that the sentence was made of.
    """
    said = [_detection(judged)]
    order = sorted(judged.bys, key=lambda by: by != judged.primary)
    gaps = [_gap(judged, by, rate) for by in order for rate in GAPS]
    said += sorted(filter(None, gaps), key=lambda finding: finding["kind"] != "differs")
    said += [finding for by in order for finding in _single_groups(judged, by)]
    said += [*_other_thresholds(judged), *_as_videos(judged)]
    said += [finding for by in order for finding in _undefined(judged, by)]
    said += [finding for by in order for finding in _too_small(judged, by)]
    return said


def _finding(kind, text, by="", group="", metric="", **numbers):
    return {"kind": kind, "by": by, "group": group, "metric": metric, "text": text, "numbers": numbers}


def _detection(judged):
    auc, _, fpr, tpr = judged.images.overall.itertuples(index=False)
    s, parts = judged.settings, []
    if not np.isnan(auc.estimate):
        guess = ": it cannot be told apart from guessing" if auc.low <= 0.5 <= auc.high else ""
        parts.append(f"The AUC over all images is {percent(auc.estimate)}{between(auc.low, auc.high)}{guess}.")
    doing = []
    if not np.isnan(fpr.estimate):
        doing.append(f"{percent(fpr.estimate)} of the reals are called fake{between(fpr.low, fpr.high)}")
    if not np.isnan(tpr.estimate):
        doing.append(f"{percent(tpr.estimate)} of the fakes are found{between(tpr.low, tpr.high)}")
    parts.append(f"At the threshold {s.threshold:g}, {' and '.join(doing)}.")
    numbers = {"auc": auc._asdict(), "fpr": fpr._asdict(), "tpr": tpr._asdict(), "threshold": s.threshold}
    return _finding("detection", " ".join(parts), **numbers)


def _gap(judged, by, rate):
    """Whether a rate differs between the groups of one grouping; None where fewer than two are large enough."""
    metric, words = GAPS[rate]
    row = judged.images.fairness.loc[(by, metric)]
    if np.isnan(row["p_holm"]):
        return None
    groups = _large(judged.images.groups.loc[by], rate)
    low, high = groups[rate].idxmin(), groups[rate].idxmax()
    extremes = f"from {percent(groups.loc[low, rate])} ({low}) to {percent(groups.loc[high, rate])} ({high})"
    size = f"{points(row['estimate'])}{between(row['low'], row['high'])}"
    chance = _chance(row)
    numbers = {**row.to_dict(), "lowest": low, "highest": high}
    if row["estimate"] < SAME:
        text = f"By {by}, {words} is the same in all groups, {percent(groups.loc[low, rate])}.{_room(groups, rate)}"
        return _finding("not told apart", text, by, metric=metric, **numbers)
    if row["p_holm"] < 1 - judged.settings.level:
        text = f"By {by}, {words} differs: {extremes}, a gap of {size}; {chance}."
        return _finding("differs", text, by, metric=metric, **numbers)
    text = (
        f"By {by}, {words} goes {extremes}: a gap of {points(row['estimate'])} cannot be told apart from sampling "
        f"({chance}).{_room(groups, rate)}"
    )
    return _finding("not told apart", text, by, metric=metric, **numbers)


def _chance(row):
    """The floor belongs to one test alone, p to all that are read together: said, as they may disagree."""
    return f"sampling alone shows up to {points(row['floor_q95'])} in one test; p = {p_text(row['p_holm'])}, corrected"


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
    return f" The intervals leave room for {room.idxmax()} to be {points(room.max())} from {others}."


def _single_groups(judged, by):
    """Groups that differ from all others together, where the gap does; of two groups the gap has said it all."""
    groups, said, alpha = judged.images.groups.loc[by], [], 1 - judged.settings.level
    if len(groups) < 3:
        return []
    for rate, what in (("fpr", "of the reals are called fake"), ("tpr", "of the fakes are found")):
        if not judged.images.fairness.loc[(by, GAPS[rate][0]), "p_holm"] < alpha:
            continue
        large = _large(groups, rate)
        for group, row in large[large[f"{rate}_off_p_holm"] < alpha].iterrows():
            off = row[f"{rate}_off"]
            text = (
                f"By {by}, {group}: {percent(row[rate])} {what}, {points(abs(off))}{_signed(row, rate)} "
                f"{'more' if off > 0 else 'less'} than of all other groups together; "
                f"p = {p_text(row[f'{rate}_off_p_holm'])}."
            )
            numbers = {"rate": row[rate], "difference": off, "low": row[f"{rate}_off_low"]}
            numbers |= {"high": row[f"{rate}_off_high"], "p_holm": row[f"{rate}_off_p_holm"]}
            said.append(_finding("differs", text, by, str(group), rate, **numbers))
    return said


def _signed(row, rate):
    """The interval of a difference in the direction of its estimate."""
    low, high = row[f"{rate}_off_low"], row[f"{rate}_off_high"]
    return between(low, high) if row[f"{rate}_off"] > 0 else between(-high, -low)


def _other_thresholds(judged):
    """Does the gap of false alarms by the primary grouping stand at other thresholds?"""
    by, alpha, said = judged.primary, 1 - judged.settings.level, []
    rows = judged.points.loc[by].xs("common", level="thresholds")
    before = judged.images.fairness.loc[(by, "fpr_gap"), "p_holm"] < alpha
    for point, row in rows.drop(index="as given").iterrows():
        if np.isnan(row["p_holm"]):
            continue
        now = row["p_holm"] < alpha
        verdict = "it differs" if now else "it cannot be told apart from sampling"
        other = f"there {verdict}, other than at {judged.settings.threshold:g}"
        turn = f"there too {verdict}" if now == before else other
        text = (
            f"At the threshold {row['threshold']:.3f} ({point}, fitted on {judged.fitted_on}) the gap of false alarms "
            f"by {by} is {points(row['gap'])} ({_chance(row)}): {turn}."
        )
        if row["gap"] < SAME:
            text = f"At the threshold {row['threshold']:.3f} ({point}, fitted on {judged.fitted_on}) "
            text += f"the false alarms by {by} are the same in all groups."
        said.append(_finding("threshold", text, by, metric="fpr_gap", point=point, **row.to_dict()))
    return said


def _as_videos(judged):
    if judged.videos is None:
        return []
    by, alpha = judged.primary, 1 - judged.settings.level
    frames, videos = (view.fairness.loc[(by, "fpr_gap")] for view in (judged.images, judged.videos))
    if np.isnan(frames["p_holm"]) or np.isnan(videos["p_holm"]):
        return []
    same = (frames["p_holm"] < alpha) == (videos["p_holm"] < alpha)
    verdict = "differ" if videos["p_holm"] < alpha else "cannot be told apart from sampling"
    text = (
        f"With the mean score of each video instead of single images, the false alarms by {by} "
        f"{verdict if same else verdict + ', other than image by image'}: the gap is {points(videos['estimate'])} "
        f"({_chance(videos)})."
    )
    return [_finding("videos", text, by, metric="fpr_gap", **videos.to_dict())]


def _undefined(judged, by):
    groups = judged.images.groups.loc[by]
    return [
        _finding("undefined", f"By {by}, {group} has no {row['undefined']}.", by, str(group), n=row["n"])
        for group, row in groups.iterrows()
        if row["undefined"]
    ]


def _too_small(judged, by):
    """The groups of a grouping with too few clusters of a class, and how many a group needs."""
    unit, groups = UNITS[judged.settings.cluster], judged.images.groups.loc[by]
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
