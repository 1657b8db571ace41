"""What the reader of an audit must know before its results: sentences about the table, made by rule."""

import numpy as np

from fairdf_utils.fairness.audit_findings import UNITS, Severe, counted, percent
from fairdf_utils.fairness.gaps import MINIMUM

FEW_CLUSTERS = 30  # of a class in the whole data set
COPIES = 0.01  # share of rows alike from which it is no coincidence of rounded scores
UNLIKE_SHARES = 0.05  # difference between the groups' shares of fakes from which mixed metrics mislead


def data_warnings(table, bys, settings, validation=None):
    """What the reader must know of the table before its results: sentences."""
    videos, clusters = table["video"].nunique(), table[settings.cluster].nunique()
    unit, said = UNITS[settings.cluster], []
    if (table["video"].astype(str) == table["img_path"].astype(str)).all():
        text = "The table has no column 'video', so every image counts as its own video. If several images come from "
        said.append(Severe(f"{text}one video, all intervals are too narrow and p-values too small: add the column."))
    elif clusters > videos:
        text = f"Single images are resampled although they come from {counted(videos, 'videos')}: frames of one video "
        said.append(
            Severe(f"{text}are near copies, so intervals are too narrow and p-values too small. Resample videos.")
        )
    if settings.cluster != "identity" and "identity" in table and table["identity"].notna().all():
        people = table["identity"].nunique()
        if people < min(clusters, videos):
            said.append(
                f"The {counted(clusters, unit)} show {counted(people, 'people')}. If a person's videos fail together, "
                "the intervals are too narrow: compare with --cluster identity."
            )
    for label, what, lost in ((0, "reals", "false alarms"), (1, "fakes", "fakes found")):
        here = table.loc[table["label"] == label, settings.cluster].nunique()
        if here == 0:
            said.append(Severe(f"There are no {what}: nothing can be said about {lost} and the AUC."))
        elif here < FEW_CLUSTERS:
            said.append(
                f"Only {counted(here, unit)} with {what}: little can be told from so few, and intervals are rough."
            )
    shared = 0 if validation is None else len(_named_videos(table) & _named_videos(validation))
    if shared:
        said.append(
            f"{counted(shared, 'videos')} are in validation too: thresholds are fitted on what they are judged on."
        )
    said += _copy_warnings(table)
    if table["score"].nunique() == 1:
        said.append(Severe("All scores are the same: the detector tells nothing apart."))
    elif table["score"].nunique() == 2:
        said.append(
            "The scores take two values at most: decisions, not scores. Thresholds, AUC and calibration say little."
        )
    return said + [text for by in bys for text in _grouping_warnings(table, by)]


def _copy_warnings(table):
    """Images listed twice; without an img_path, rows that are alike in all that the user gave."""
    listed = table["img_path"].duplicated().sum()
    if listed:
        return [f"{counted(listed, 'rows')} repeat an img_path: an image listed twice counts twice. Remove copies."]
    if not table["img_path"].astype(str).str.fullmatch(r"row-\d+").all():
        return []
    derived = [name for name in ("img_path", "video") if table[name].astype(str).equals(table["img_path"].astype(str))]
    alike = table.drop(columns=derived).duplicated().sum()
    rows = f"{counted(alike, 'rows')} {'is an exact copy' if alike == 1 else 'are exact copies'} of another row"
    advice = "An image listed twice counts twice: remove copies, or add the column to show that there are none."
    return [f"{rows}, and no img_path tells images apart. {advice}"] if alike > COPIES * len(table) else []


def _named_videos(table):
    """Data set and name of the videos, without those named after their row for lack of a name."""
    return {(a, v) for a, v in zip(table["dataset"], table["video"], strict=True) if not str(v).startswith("row-")}


def _grouping_warnings(table, by):
    missing, said = table[by].isna(), []
    if missing.all():
        return [f"No image has a value in '{by}': not judged by it."]
    if missing.any():
        real = table[missing & (table["label"] == 0)]
        said.append(
            f"{counted(missing.sum(), 'images')} without a value in '{by}' ({len(real):,} of them real) are left out "
            "of what is said by it; the numbers over all images keep them."
        )
    mixed = (table.groupby("video")[by].nunique() > 1).sum()
    if mixed:
        said.append(
            f"{counted(mixed, 'videos')} {'has' if mixed == 1 else 'have'} several values in '{by}'. If a video shows "
            "one person, the annotation is at fault; if not, its parts are resampled together and judged apart."
        )
    shares = table.groupby(by)["label"].mean()
    if len(shares) == 1:
        said.append(Severe(f"By {by} there is one group only ({shares.index[0]}): nothing to compare."))
    elif shares.max() - shares.min() > UNLIKE_SHARES:
        said.append(
            f"By {by}, between {percent(shares.min())} ({shares.idxmin()}) and {percent(shares.max())} "
            f"({shares.idxmax()}) of the images are fakes. F_OAE, F_DP and the calibration mix reals and fakes and "
            "differ for that reason alone: trust the gaps of FPR and TPR."
        )
    return said


def result_warnings(judged):
    """What the numbers themselves warn of: sentences."""
    overall, s, said = judged.images.overall, judged.settings, []
    fpr, tpr = overall.loc[["fpr", "tpr"], "estimate"]
    if np.nanmax([fpr, tpr, 0]) == 0 or np.nanmin([fpr, tpr, 1]) == 1:
        word = "nothing" if np.nanmax([fpr, tpr, 0]) == 0 else "everything"
        text = f"At the threshold {s.threshold:g} {word} is called fake: gaps of FPR and TPR are zero for that reason."
        said.append(Severe(text))
    auc, clusters = overall.loc["auc"], judged.table.groupby("label")[s.cluster].nunique()
    always = auc["estimate"] == 0 and clusters.min() >= MINIMUM  # without spread there is no interval
    if auc["high"] < 0.5 or always:
        text = "Reals score higher than fakes (AUC below one half): is the column score P(real), or label 1 = real?"
        said.append(Severe(text))
    if s.resamples * (1 - s.level) < 10:
        said.append(
            f"The ends of {100 * s.level:g} % intervals rest on few of {s.resamples:,} resamples: ask for more."
        )
    return said
