"""What the reader of an audit must know before its results: sentences about the table, made by rule."""

import numpy as np

from fairdf_utils.audit_findings import UNITS, counted, percent

FEW_CLUSTERS = 30  # of a class in the whole data set
UNLIKE_SHARES = 0.05  # difference between the groups' shares of fakes from which mixed metrics mislead


def data_warnings(table, bys, settings, validation=None):
    """What the reader must know of the table before its results: sentences."""
    videos, clusters = table["video"].nunique(), table[settings.cluster].nunique()
    unit, said = UNITS[settings.cluster], []
    if (table["video"].astype(str) == table["img_path"].astype(str)).all():
        said.append(
            "The table has no column 'video', so every image counts as its own video. If several images come from "
            "one video, all intervals are too narrow and p-values too small: add the column."
        )
    elif clusters > videos:
        said.append(
            f"Single images are resampled although they come from {counted(videos, 'videos')}: frames of one video "
            "are near copies, so intervals are too narrow and p-values too small. Resample videos."
        )
    if settings.cluster != "identity" and "identity" in table and table["identity"].notna().all():
        people = table["identity"].nunique()
        if people < min(clusters, videos):
            said.append(
                f"The {counted(clusters, unit)} show {counted(people, 'people')}. If a person's videos fail together, "
                "the intervals are too narrow: compare with --cluster identity."
            )
    for label, what in ((0, "reals"), (1, "fakes")):
        here = table.loc[table["label"] == label, settings.cluster].nunique()
        if here < FEW_CLUSTERS:
            said.append(
                f"Only {counted(here, unit)} with {what}: little can be told from so few, and intervals are rough."
            )
    shared = 0 if validation is None else len(_named_videos(table) & _named_videos(validation))
    if shared:
        said.append(
            f"{counted(shared, 'videos')} are in validation too: thresholds are fitted on what they are judged on."
        )
    listed = table["img_path"].duplicated().sum()
    if listed:
        said.append(f"{counted(listed, 'rows')} repeat an img_path: an image listed twice counts twice. Remove copies.")
    if table["score"].nunique() <= 2:
        said.append(
            "The scores take two values at most: decisions, not scores. Thresholds, AUC and calibration say little."
        )
    return said + [text for by in bys for text in _grouping_warnings(table, by)]


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
    shares = table.groupby(by)["label"].mean()
    if len(shares) == 1:
        said.append(f"By {by} there is one group only ({shares.index[0]}): nothing to compare.")
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
        said.append(
            f"At the threshold {s.threshold:g} {word} is called fake: gaps of FPR and TPR are zero for that reason."
        )
    if overall.loc["auc", "high"] < 0.5:
        said.append(
            "Reals score higher than fakes (AUC below one half): is the column score P(real), or label 1 = real?"
        )
    if s.resamples * (1 - s.level) < 10:
        said.append(
            f"The ends of {100 * s.level:g} % intervals rest on few of {s.resamples:,} resamples: ask for more."
        )
    return said
