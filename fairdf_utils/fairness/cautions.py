"""What one must know of a score table before its results are read: sentences, made by rule, the severe ones first.

A caution is a dict: text, and severe (True where the results themselves are in doubt).
"""

import unicodedata

import numpy as np
import pandas as pd

from fairdf_utils.data.vocabulary import counted
from fairdf_utils.fairness.resampling import MINIMUM, Settings

FEW_CLUSTERS = 30  # of a class in the whole data set
COPIES = 0.01  # share of rows alike from which it is no coincidence of rounded scores
UNLIKE_SHARES = 0.05  # difference between the groups' shares of fakes from which mixed metrics mislead
UNITS = {"video": "videos", "identity": "people", "img_path": "images"}
IMAGES = {"real": "real images", "fake": "fakes"}
NAMELESS = r"(line|row)-\d+"  # what the reader calls an image that has no name
COUNT_TWICE = "An image listed twice counts twice: remove copies"


def with_class(number: int, cluster: str, what: str) -> str:
    """(2, "video", "real") -> "2 videos with real images"; of single images "2 real images"."""
    if cluster == "img_path":
        return counted(number, IMAGES[what])
    return f"{counted(number, UNITS[cluster])} with {IMAGES[what]}"


def percent(value: float) -> str:
    """0.2575 -> "25.8 %", NaN -> "undefined"."""
    return "undefined" if pd.isna(value) else f"{100 * value:.1f} %"


def cautions(
    table: pd.DataFrame, bys: list[str], settings: Settings, overall: pd.DataFrame, validation: pd.DataFrame | None
) -> list[dict]:
    """All cautions of one data set, from `score_table.read_scores`; `overall` as in `verdicts.Verdict`."""
    said = [*_of_clusters(table, settings), *_of_copies(table)]
    said += _of_scores(table, settings, overall, validation)
    said += [one for by in bys for one in _of_grouping(table, by)]
    if settings.resamples * (1 - settings.level) < 10:
        text = f"The ends of {100 * settings.level:g} % intervals rest on few of {settings.resamples:,} resamples"
        said.append((False, f"{text}: ask for more."))
    return [{"text": text, "severe": severe} for severe, text in sorted(said, key=lambda one: not one[0])]


def _of_clusters(table, settings):
    videos, clusters, unit = table["video"].nunique(), table[settings.cluster].nunique(), UNITS[settings.cluster]
    if (table["video"].astype(str) == table["img_path"].astype(str)).all():
        text = "The table has no column 'video', so every image counts as its own video. If several images come from"
        yield True, f"{text} one video, all intervals are too narrow and p-values too small: add the column."
    elif clusters > videos:
        text = f"Single images are taken for independent although they come from {counted(videos, 'videos')}: frames of"
        text += " one video are near copies, so intervals are too narrow and p-values too small. Judge by videos."
        yield True, text
    if settings.cluster != "identity" and "identity" in table and table["identity"].notna().all():
        people = table["identity"].nunique()
        if people < min(clusters, videos):
            text = f"The {counted(clusters, unit)} show {counted(people, 'people')}."
            text += " If a person's videos fail together,"
            yield False, f"{text} the intervals are too narrow: compare with --cluster identity."
    for label, what, lost in ((0, "real", "false alarms"), (1, "fake", "fakes found")):
        here = table.loc[table["label"] == label, settings.cluster].nunique()
        only = f"Only {with_class(here, settings.cluster, what)}"
        if here == 0:
            yield True, f"There are no {IMAGES[what]}: nothing can be said about {lost} and the AUC."
        elif here < MINIMUM:
            yield True, f"{only}: {lost} and the AUC cannot be judged from fewer than {MINIMUM}."
        elif here < FEW_CLUSTERS:
            yield False, f"{only}: little can be told from so few, and intervals are rough."


def _of_copies(table):
    """Images listed twice; without an img_path, rows that are alike in all that the user gave."""
    paths = table["img_path"].astype(str)
    if paths.duplicated().any():
        yield False, f"An img_path is repeated in {counted(paths.duplicated().sum(), 'rows')}. {COUNT_TWICE}."
    elif paths.str.fullmatch(NAMELESS).all():
        derived = [name for name in ("img_path", "video") if table[name].astype(str).equals(paths)]
        alike = table.drop(columns=derived).duplicated().sum()
        if alike > COPIES * len(table):
            text = f"{counted(alike, 'rows')} {'is an exact copy' if alike == 1 else 'are exact copies'} of another row"
            text += f", and no img_path tells images apart. {COUNT_TWICE}"
            yield False, f"{text}, or add the column to show that there are none."


def _of_scores(table, settings, overall, validation):
    if table["score"].nunique() == 1:
        yield True, "All scores are the same: the detector tells nothing apart."
    elif table["score"].nunique() == 2:
        text = "The scores take two values at most: decisions, not scores."
        yield False, f"{text} Thresholds, AUC and calibration say little."
    rates = overall.loc[["fpr", "tpr"], "estimate"].dropna()
    for word, rate in (("nothing", 0), ("everything", 1)):
        if (rates == rate).all():
            text = f"At the threshold {settings.threshold:g} {word} is called fake"
            yield True, f"{text}: gaps of FPR and TPR are zero for that reason."
    if overall.loc["auc", "high"] < 0.5:
        text = "Real images score higher than fakes (AUC below one half)"
        yield True, f"{text}: is the column score P(real), or label 1 = real?"
    if validation is not None:
        own, other = (part[["dataset", "video"]].drop_duplicates() for part in (table, validation))
        shared = own.merge(other)["video"].astype(str)
        shared = (~shared.str.fullmatch(NAMELESS)).sum()
        if shared:
            text = f"Validation holds {counted(shared, 'videos')} of the table that is judged"
            yield False, f"{text}: thresholds are fitted on what they are judged on."


def _of_grouping(table, by):
    missing, shares = table[by].isna(), table.groupby(by)["label"].mean()
    if missing.all():
        yield False, f"No image has a value in '{by}': not judged by it."
        return
    if missing.any():
        real = (table["label"][missing] == 0).sum()
        text = (
            f"By {by}, nothing is said of {counted(missing.sum(), 'images')} without a value in '{by}' ({real:,} real; "
        )
        text += f"the first is {table['img_path'][missing].iloc[0]})."
        yield False, f"{text} The numbers over all images keep them."
    for names in _alike(shares.index):
        text = f"By {by}, {' and '.join(map(repr, names))} differ only in capitals, blanks or forms of letters, and are"
        yield True, f"{text} judged as different groups: write them alike."
    mixed = (table.groupby("video")[by].nunique() > 1).sum()
    if mixed:
        text = f"{counted(mixed, 'videos')} {'has' if mixed == 1 else 'have'} several values in '{by}'. If a video"
        text += " shows one person, the annotation is at fault; if not, its parts count as one cluster and are judged"
        yield False, f"{text} apart."
    if len(shares) == 1:
        yield True, f"By {by} there is one group only ({shares.index[0]}): nothing to compare."
    elif np.ptp(shares) > UNLIKE_SHARES:
        text = f"By {by}, between {percent(shares.min())} ({shares.idxmin()}) and {percent(shares.max())} "
        text += f"({shares.idxmax()}) of the images are fakes. F_OAE, F_DP and the calibration mix the two classes and "
        yield False, f"{text}may differ for that reason alone: trust the gaps of FPR and TPR."


def _alike(names):
    """Lists of names that a reader would take for one."""
    folded = pd.Series([" ".join(unicodedata.normalize("NFKC", str(name)).casefold().split()) for name in names])
    return [[names[place] for place in places] for places in folded.groupby(folded).groups.values() if len(places) > 1]
