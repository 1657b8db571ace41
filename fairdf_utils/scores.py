"""The score table: one row an image, the seam between a detector and the analysis of its fairness.

Chapter 4 writes one; any other detector can. Nothing here needs torch.

| column | meaning |
|---|---|
| dataset, img_path | which image |
| video, identity | the clip it was cut from, the person shown |
| label, method | 0 real, 1 fake; name of the forgery |
| gender, race, group | annotation of the person; group is their intersection |
| logit_real, logit_fake | the detector's two raw outputs |
| score | P(fake), 0..1 |
"""

from pathlib import Path

import numpy as np
import pandas as pd

from fairdf_utils.files import replacing

FIDELITIES = ("corrected", "official")
SCORE_COLUMNS = (
    "dataset",
    "img_path",
    "video",
    "identity",
    "label",
    "method",
    "gender",
    "race",
    "group",
    "logit_real",
    "logit_fake",
    "score",
)


class ScoreTableError(ValueError):
    """A score table that cannot be judged: says which column and row, and what to do."""


def column(table, name):
    """A column without missing values, or an error that names it."""
    if name not in table.columns:
        hint = " The intersection of gender and race is called 'group'." if name == "intersection" else ""
        if name == "video":
            hint = " Without videos, copy img_path into it: every image is then its own cluster."
        columns = ", ".join(map(str, table.columns))
        raise ScoreTableError(f"The score table has no column '{name}'; it has: {columns}.{hint}")
    missing = table[name].isna().to_numpy()
    if missing.any():
        raise ScoreTableError(
            f"Column '{name}' is empty (NaN) in {missing.sum()} row(s), first in row {missing.argmax()} (counted "
            "from 0). Fill it in, or remove those rows on purpose."
        )
    return table[name]


def numbers(table, name, allowed, remedy):
    """A column as float64, every value of which passes `allowed` (a function of the array)."""
    values = pd.to_numeric(column(table, name), errors="coerce").to_numpy(np.float64)
    bad = ~allowed(values)
    if bad.any():
        row = bad.argmax()
        raise ScoreTableError(
            f"Column '{name}', row {row} (counted from 0): {table[name].iloc[row]} is not allowed. {remedy}"
        )
    return values


def write_scores(table, folder):
    """Write `scores.parquet` and `scores.csv` into `folder`, each whole or not at all; return the paths."""
    written = []
    for name, write in (("scores.parquet", table.to_parquet), ("scores.csv", table.to_csv)):
        with replacing(folder / name) as partial:
            write(partial, index=False)
        written.append(folder / name)
    return written


def read_scores(path):
    """Read a score table of this project or of any other detector, and fill in what can be derived.

    Needed are `label`, `score` and one of `gender`, `race`, `group`. Without `video` every image is its own video,
    without `dataset` all are of the data set "given", without logits the score's log odds stand in for them.

    Parameters
    ----------
    path : str or Path
        A .parquet file, or a .csv file.

    Returns
    -------
    DataFrame

    Raises
    ------
    FileNotFoundError, ScoreTableError
        There is no such file; a needed column is missing or holds an impossible value.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no score table at {path}; chapter 04 writes one, or give the path of your own")
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    if not {"gender", "race", "group"} & set(table.columns):
        raise ScoreTableError(f"{path} has none of the columns gender, race, group; add the one to be judged by")
    numbers(table, "label", lambda x: (x == 0) | (x == 1), "A label is 0 (real) or 1 (fake).")
    score = numbers(table, "score", lambda x: (x >= 0) & (x <= 1), "A score is P(fake), from 0 to 1.")
    odds = np.clip(score, 1e-12, 1 - 1e-12)
    derived = {"dataset": "given", "img_path": [f"row-{row}" for row in range(len(table))]}
    derived["video"] = table.get("img_path", derived["img_path"])
    if "logit_fake" not in table.columns:
        derived |= {"logit_real": 0.0, "logit_fake": np.log(odds / (1 - odds))}
    if {"gender", "race"} <= set(table.columns):
        derived["group"] = table["gender"] + "-" + table["race"]
    return table.assign(**{name: values for name, values in derived.items() if name not in table.columns})
