"""What one must know of a score table before its results are read: sentences, made by rule, the severe ones first.

A caution is a dict: text, and severe (True where the results themselves are in doubt).
"""

import numpy as np
import pandas as pd

from fairdf_utils.fairness.uncertainty import MINIMUM, Settings

FEW_CLUSTERS = 30  # of a class in the whole data set
COPIES = 0.01  # share of rows alike from which it is no coincidence of rounded scores
UNLIKE_SHARES = 0.05  # difference between the groups' shares of fakes from which mixed metrics mislead
UNITS = {"video": "videos", "identity": "people", "img_path": "images"}


def percent(value: float) -> str:
    """0.2575 -> "25.8 %", NaN -> "undefined"."""
    return "undefined" if pd.isna(value) else f"{100 * value:.1f} %"


def counted(number: int, nouns: str) -> str:
    """3, "videos" -> "3 videos"; one person, two people."""
    singular = {"people": "person"}.get(nouns, nouns.removesuffix("s"))
    return f"{int(number):,} {singular if number == 1 else nouns}"


def cautions(
    table: pd.DataFrame, bys: list[str], settings: Settings, overall: pd.DataFrame, validation: pd.DataFrame | None
) -> list[dict]:
    """All cautions of one data set.

    Parameters
    ----------
    table, validation : DataFrame
        From `score_table.read_scores`.
    bys : list of str
        Columns that name groups.
    overall : DataFrame
        The rates of all images: index fpr, tpr, auc, ...; columns estimate, low, high.
    """
    said = _of_clusters(table, settings) + _of_classes(table, settings) + _of_copies(table)
    shared = 0 if validation is None else len(_named_videos(table) & _named_videos(validation))
    if shared:
        text = "are in validation too: thresholds are fitted on what they are judged on."
        said.append(_mind(f"{counted(shared, 'videos')} {text}"))
    said += _of_scores(table, settings, overall)
    said += [one for by in bys for one in _of_grouping(table, by)]
    if settings.resamples * (1 - settings.level) < 10:
        of_level = f"The ends of {100 * settings.level:g} % intervals"
        said.append(_mind(f"{of_level} rest on few of {settings.resamples:,} resamples: ask for more."))
    return sorted(said, key=lambda one: not one["severe"])


def _mind(text, severe=False):
    return {"text": text, "severe": severe}


def _of_clusters(table, settings):
    videos, clusters, said = table["video"].nunique(), table[settings.cluster].nunique(), []
    if (table["video"].astype(str) == table["img_path"].astype(str)).all():
        text = "The table has no column 'video', so every image counts as its own video. If several images come from "
        text += "one video, all intervals are too narrow and p-values too small: add the column."
        said.append(_mind(text, True))
    elif clusters > videos:
        text = f"Single images are resampled although they come from {counted(videos, 'videos')}: frames of one video "
        text += "are near copies, so intervals are too narrow and p-values too small. Resample videos."
        said.append(_mind(text, True))
    if settings.cluster != "identity" and "identity" in table and table["identity"].notna().all():
        people = table["identity"].nunique()
        if people < min(clusters, videos):
            text = f"The {counted(clusters, UNITS[settings.cluster])} show {counted(people, 'people')}. If a person's "
            text += "videos fail together, the intervals are too narrow: compare with --cluster identity."
            said.append(_mind(text))
    return said


def _of_classes(table, settings):
    unit, said = UNITS[settings.cluster], []
    for label, what, lost in ((0, "reals", "false alarms"), (1, "fakes", "fakes found")):
        here = table.loc[table["label"] == label, settings.cluster].nunique()
        if here == 0:
            said.append(_mind(f"There are no {what}: nothing can be said about {lost} and the AUC.", True))
        elif here < FEW_CLUSTERS:
            text = f"Only {counted(here, unit)} with {what}: little can be told from so few, and intervals are rough."
            said.append(_mind(text))
    return said


def _of_copies(table):
    """Images listed twice; without an img_path, rows that are alike in all that the user gave."""
    listed = table["img_path"].duplicated().sum()
    if listed:
        text = "repeat an img_path: an image listed twice counts twice. Remove copies."
        return [_mind(f"{counted(listed, 'rows')} {text}")]
    if not table["img_path"].astype(str).str.fullmatch(r"row-\d+").all():
        return []
    derived = [name for name in ("img_path", "video") if table[name].astype(str).equals(table["img_path"].astype(str))]
    alike = table.drop(columns=derived).duplicated().sum()
    rows = f"{counted(alike, 'rows')} {'is an exact copy' if alike == 1 else 'are exact copies'} of another row"
    advice = "An image listed twice counts twice: remove copies, or add the column to show that there are none."
    return [_mind(f"{rows}, and no img_path tells images apart. {advice}")] if alike > COPIES * len(table) else []


def _named_videos(table):
    """Data set and name of the videos, without those named after their row for lack of a name."""
    return {(a, v) for a, v in zip(table["dataset"], table["video"], strict=True) if not str(v).startswith("row-")}


def _of_scores(table, settings, overall):
    said, fpr, tpr = [], *overall.loc[["fpr", "tpr"], "estimate"]
    if table["score"].nunique() == 1:
        said.append(_mind("All scores are the same: the detector tells nothing apart.", True))
    elif table["score"].nunique() == 2:
        text = "The scores take two values at most: decisions, not scores. Thresholds, AUC and calibration say little."
        said.append(_mind(text))
    if np.nanmax([fpr, tpr, 0]) == 0 or np.nanmin([fpr, tpr, 1]) == 1:
        word = "nothing" if np.nanmax([fpr, tpr, 0]) == 0 else "everything"
        text = f"At the threshold {settings.threshold:g} {word} is called fake: gaps of FPR and TPR are zero for that "
        said.append(_mind(f"{text}reason.", True))
    auc, clusters = overall.loc["auc"], table.groupby("label")[settings.cluster].nunique()
    always = auc["estimate"] == 0 and clusters.min() >= MINIMUM  # without spread there is no interval
    if auc["high"] < 0.5 or always:
        text = "Reals score higher than fakes (AUC below one half): is the column score P(real), or label 1 = real?"
        said.append(_mind(text, True))
    return said


def _of_grouping(table, by):
    missing, said = table[by].isna(), []
    if missing.all():
        return [_mind(f"No image has a value in '{by}': not judged by it.")]
    if missing.any():
        real = table[missing & (table["label"] == 0)]
        text = f"{counted(missing.sum(), 'images')} without a value in '{by}' ({len(real):,} of them real) are left "
        said.append(_mind(f"{text}out of what is said by it; the numbers over all images keep them."))
    mixed = (table.groupby("video")[by].nunique() > 1).sum()
    if mixed:
        text = f"{counted(mixed, 'videos')} {'has' if mixed == 1 else 'have'} several values in '{by}'. If a video "
        text += "shows one person, the annotation is at fault; if not, its parts are resampled together and judged "
        said.append(_mind(f"{text}apart."))
    shares = table.groupby(by)["label"].mean()
    if len(shares) == 1:
        said.append(_mind(f"By {by} there is one group only ({shares.index[0]}): nothing to compare.", True))
    elif shares.max() - shares.min() > UNLIKE_SHARES:
        text = f"By {by}, between {percent(shares.min())} ({shares.idxmin()}) and {percent(shares.max())} "
        text += f"({shares.idxmax()}) of the images are fakes. F_OAE, F_DP and the calibration mix reals and fakes and "
        said.append(_mind(f"{text}differ for that reason alone: trust the gaps of FPR and TPR."))
    return said
