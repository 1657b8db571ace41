"""Scores in the files of the released implementation of Lin et al. 2024, read and written.

Its test script leaves one folder a data set with two NumPy files a group, from which its metric script works:
`<group>labels.npy`, int64 (n,), 0 real, 1 fake, and `<group>predictions.npy`, float64 (n,), the raw logit of the fake
class, of which the metric script takes the sigmoid. `<group>` is "male,asian" ... "nonmale,others"; images are in the
order of the manifest's rows. Celeb-DF and DFD have no files for the two asian groups. A group without images has two
empty files, and the metric script steps over it.

Source: the released implementation of Lin et al. 2024, "Preserving Fairness Generalization in Deepfake Detection".
"""

from pathlib import Path

import numpy as np
import pandas as pd

from fairdf_utils.data.vocabulary import FIDELITIES, GROUPS, SIX_GROUPS
from fairdf_utils.fairness.auc import ratio
from fairdf_utils.fairness.metrics import as_arrays, contingency, overall_metrics
from fairdf_utils.fairness.score_table import SCORE_COLUMNS, ScoreTableError, column, log_odds, numbers
from fairdf_utils.files import replacing

RELEASED_GROUPS = {group: group.replace("female", "nonmale").replace("-", ",") for group in GROUPS}


def write_released(table: pd.DataFrame, folder: str | Path, fidelity: str = "official") -> dict[str, Path]:
    """Write a score table as folders that the released metric script reads, `<folder>/<dataset>/`.

    All eight groups get their two files, empty ones where the data set has no such group: the script then runs with
    its list of eight groups and with its list of six.

    Files of the same name are replaced, each whole or not at all. With fidelity "official" the logit of the fake class
    is stored, as by the released test script; with "corrected" the log odds of `score`, so that the sigmoid which the
    metric script takes gives back `score`.

    Returns data set -> its folder. Raises ScoreTableError if a column of the table is missing or holds an impossible
    value, or a group that the released script does not know.
    """
    if fidelity not in FIDELITIES:
        raise ValueError(f"fidelity is {fidelity!r}; use one of {', '.join(FIDELITIES)}.")
    groups = column(table, "group").astype(str).to_numpy()
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown or not len(table):
        what = f"group {unknown[0]!r}" if unknown else "no rows"
        raise ScoreTableError(f"The score table has {what}; the released script knows {', '.join(GROUPS)}.")
    label = numbers(table, "label").astype(np.int64)
    stored = numbers(table, "logit_fake") if fidelity == "official" else log_odds(numbers(table, "score"))
    dataset = column(table, "dataset").astype(str).to_numpy()
    folders = {name: Path(folder) / name for name in dict.fromkeys(dataset)}
    for name, target in folders.items():
        for group in GROUPS:
            own = (dataset == name) & (groups == group)
            for path, values in zip(_paths(target, group), (label[own], stored[own]), strict=True):
                with replacing(path) as partial, partial.open("wb") as file:
                    np.save(file, values)
    return folders


def read_released(folder: str | Path, manifest: pd.DataFrame | None = None) -> pd.DataFrame:
    """Read the folder that the released test script wrote for one data set, as a score table.

    The files name neither images nor videos. The manifest that was tested on (canonical rows in file order) gives them
    back, since the script keeps its order; without it every image is its own video, and intervals that should rest on
    videos come out too narrow. The folder has the name of the data set.

    Returns
    -------
    DataFrame
        `SCORE_COLUMNS`; rows in the manifest's order, or group by group. `logit_real` is 0, so that `score` is the
        sigmoid of `logit_fake` in both fidelities, as in the released metric script. `group` is categorical: a group
        whose files are empty stays visible, with n = 0.

    Raises
    ------
    ScoreTableError
        Files are missing (all are named), unreadable, of unequal length or impossible content, all groups are empty,
        or the manifest lists other images.
    """
    folder = Path(folder)
    groups = _groups_in(folder)
    parts = {group: _read_group(folder, group) for group in groups}
    sizes = [len(label) for label, _ in parts.values()]
    if not sum(sizes):
        raise ScoreTableError(f"{folder}: all its groups are empty. Run the released test script again.")
    label, logit = (np.concatenate([part[i] for part in parts.values()]) for i in (0, 1))
    group = np.repeat(groups, sizes)
    if manifest is None:
        number = np.concatenate([np.arange(size) for size in sizes])
        names = [f"{folder.name}/{RELEASED_GROUPS[g]}/{i}" for g, i in zip(group, number, strict=True)]
        forgery = np.where(label == 1, "fake", "real")
        table = pd.DataFrame({"img_path": names, "video": names, "identity": names, "forgery": forgery})
    else:
        rows = _rows_by_group(folder, manifest, parts)
        table = manifest[["img_path", "video", "identity", "forgery"]].iloc[rows].reset_index(drop=True)
    table = table.assign(
        dataset=folder.name,
        label=label,
        gender=[g.split("-")[0] for g in group],
        race=[g.split("-")[1] for g in group],
        group=pd.Categorical(group, groups),
        logit_real=0.0,
        logit_fake=logit,
        score=np.exp(-np.logaddexp(0, -logit)),
    )[list(SCORE_COLUMNS)]
    return table if manifest is None else table.iloc[np.argsort(rows)].reset_index(drop=True)


def detection_rates(table: pd.DataFrame) -> pd.DataFrame:
    """How well all images and those of each group are told apart, as the released metric script counts (fractions).

    One row "overall" and one a group: n, auc, ap, acc, fpr, tpr and eer of `overall_metrics` in fidelity "official"
    (sigmoid of the fake logit, at 0.5), error = 1 - acc, and precision, the share of fakes among what is called fake
    (NaN where nothing is). Groups with one class are left out.

    Source: Lin et al. 2024, evaluation metrics; the fairness metrics are `fairness_metrics`'s.
    """
    scored = as_arrays(table, "group", 0.5, "official")
    counts = contingency(scored)[0]  # (G, label 2, predicted 2)
    both = [code for code in range(len(counts)) if counts[code].sum(1).all()]
    parts = {"overall": (counts.sum(0), table)}
    parts |= {scored.names[code]: (counts[code], table[scored.group == code]) for code in both}
    rows = {name: overall_metrics(part, fidelity="official") for name, (_, part) in parts.items()}
    result = pd.DataFrame(rows).T.rename_axis("group")
    result.insert(0, "n", [len(part) for _, part in parts.values()])
    precision = [float(ratio(cells[1, 1], cells[:, 1].sum())) for cells, _ in parts.values()]
    return result.assign(error=1 - result["acc"], precision=precision)


def _paths(folder: Path, group: str) -> list[Path]:
    return [folder / f"{RELEASED_GROUPS[group]}{ending}.npy" for ending in ("labels", "predictions")]


def _groups_in(folder: Path) -> list[str]:
    """The eight groups, or the six of a set without asian people; all their files must be there."""
    if not folder.is_dir():
        raise ScoreTableError(f"{folder}: no such folder. Give the one that the released test script wrote to.")
    asian = [path for group in GROUPS if group not in SIX_GROUPS for path in _paths(folder, group)]
    groups = GROUPS if any(path.exists() for path in asian) else SIX_GROUPS
    missing = [path.name for group in groups for path in _paths(folder, group) if not path.is_file()]
    if missing:
        raise ScoreTableError(
            f"{folder}: {len(missing)} of {2 * len(groups)} files are missing: {' '.join(missing)}. The released "
            "test script writes two a group, empty ones too; run it again for these groups."
        )
    return list(groups)


def _read_group(folder: Path, group: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 (n,) and logits float64 (n,) of a group."""
    paths = _paths(folder, group)
    label, logit = map(_load, paths)
    if len(label) != len(logit):
        raise ScoreTableError(
            f"{paths[0]} holds {len(label)} labels, {paths[1].name} {len(logit)} predictions; they must be of one "
            "test. Run the released test script again for this group."
        )
    known = (label == 0) | (label == 1), "A label is 0 (real) or 1 (fake)."
    finite = np.isfinite(logit), "A prediction is the logit of the fake class, a finite number."
    for path, values, (allowed, remedy) in zip(paths, (label, logit), (known, finite), strict=True):
        if not allowed.all():
            at = int((~allowed).argmax())
            raise ScoreTableError(f"{path}, element {at} (counted from 0): {values[at]} is not allowed. {remedy}")
    return label.astype(np.int64), logit


def _load(path: Path) -> np.ndarray:
    """The numbers of one file, float64 (n,)."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ScoreTableError(f"{path} is not a NumPy file of numbers ({error}). Write it again.") from error
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "biuf":
        found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else "an archive of arrays"
        raise ScoreTableError(f"{path} holds {found}, not one number an image (n,). Flatten it, or write it again.")
    return values.astype(np.float64)


def _rows_by_group(folder: Path, manifest: pd.DataFrame, parts: dict) -> np.ndarray:
    """Positions in the manifest of the files' images, in the files' order."""
    rows = {group: np.flatnonzero(manifest["group"] == group) for group in GROUPS}
    label = manifest["label"].to_numpy()
    for group, own in rows.items():
        theirs = parts.get(group, (np.empty(0),))[0]
        if len(own) != len(theirs) or (label[own] != theirs).any():
            raise ScoreTableError(
                f"{folder}: {group} has {len(theirs)} images, {int(theirs.sum())} of them fake; the manifest has "
                f"{len(own)}, {int(label[own].sum())} of them fake, or lists them in another order. Give the manifest "
                "that was tested on, or none."
            )
    return np.concatenate([rows[group] for group in parts])
