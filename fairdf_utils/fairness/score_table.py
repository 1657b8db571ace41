"""The score table: one row an image, the seam between a detector and the analysis of its fairness.

Chapter 4 writes one, any other detector can; chapter 5 explains SCORE_COLUMNS. Nothing here needs torch.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fairdf_utils.files import replacing

SCORE_COLUMNS = (
    *("dataset", "img_path", "video", "identity", "label", "forgery"),
    *("gender", "race", "group", "logit_real", "logit_fake", "score"),
)
WORDS = ("identity", "forgery", "gender", "race", "group")  # a cell may be empty
OTHER_NAMES = {  # what other projects call the columns
    "label": {"label", "labels", "y_true", "y", "target", "targets", "gt", "ground_truth", "is_fake", "fake", "class"},
    "score": {"score", "scores", "y_pred", "y_prob", "y_score", "prob", "probs", "probability", "pred", "preds"}
    | {"prediction", "predictions", "p_fake", "prob_fake", "fake_prob", "output", "logit", "logits"},
}
HINTS = {
    "intersection": " The intersection of gender and race is called 'group'.",
    "video": " Without videos, copy img_path into it: every image is then its own cluster.",
}
REMEDY = "divide by 100 if percent, apply the sigmoid if logits"
LOGIT = (np.isfinite, "A logit must be a finite number.")
NUMBERS = {  # column -> what is allowed (a function of the array), and what to do
    "label": (lambda x: (x == 0) | (x == 1), "A label is 0 (real) or 1 (fake)."),
    "score": (lambda x: (x >= 0) & (x <= 1), f"A score is P(fake), from 0 to 1: {REMEDY}."),
    "logit_real": LOGIT,
    "logit_fake": LOGIT,
}
NO_CSV = (".xlsx", ".xls", ".ods", ".json", ".jsonl", ".npy", ".npz", ".pkl", ".pickle")


class ScoreTableError(ValueError):
    """A score table that cannot be judged: says which column and row, and what to do."""


def column(table: pd.DataFrame, name: str) -> pd.Series:
    """A column without missing values, or an error that names it."""
    if name not in table.columns:
        alike = [own for own in table.columns if str(own).strip().lower() in OTHER_NAMES.get(name, ())]
        hint = f" Rename '{alike[0]}' to '{name}'." if alike else HINTS.get(name, "")
        raise ScoreTableError(f"The score table has no column '{name}'; it has: {_own_columns(table)}.{hint}")
    missing = table[name].isna().to_numpy()
    if missing.any():
        where = f"in {missing.sum()} row(s), first in row {missing.argmax()} (counted from 0)"
        raise ScoreTableError(f"Column '{name}' is empty (NaN) {where}. Fill it in, or remove those rows on purpose.")
    return table[name]


def _own_columns(table):
    """The columns of the user's file, without those that `read_scores` filled in."""
    return ", ".join(str(name) for name in table.columns if name not in table.attrs.get("derived", ()))


def numbers(table: pd.DataFrame, name: str) -> np.ndarray:
    """A column of NUMBERS as float64, or an error that names the first value that is not allowed."""
    allowed, remedy = NUMBERS[name]
    values = pd.to_numeric(column(table, name), errors="coerce").to_numpy(np.float64)
    bad = ~allowed(values)
    if bad.any():
        row = bad.argmax()
        value = table[name].iloc[row]
        raise ScoreTableError(f"Column '{name}', row {row} (counted from 0): {value} is not allowed. {remedy}")
    return values


def sigmoid(logit: np.ndarray | pd.Series) -> np.ndarray | pd.Series:
    """1 / (1 + exp(-logit)), without overflow."""
    return np.exp(-np.logaddexp(0, -logit))


def write_scores(table: pd.DataFrame, folder: str | Path, name: str = "scores") -> list[Path]:
    """Write `<name>.parquet` and `<name>.csv` into `folder`, each whole or not at all; return the paths."""
    paths = [Path(folder) / f"{name}.{ending}" for ending in ("parquet", "csv")]
    for path, write in zip(paths, (table.to_parquet, table.to_csv), strict=True):
        with replacing(path) as partial:
            write(partial, index=False)
    return paths


def video_level(table: pd.DataFrame) -> pd.DataFrame:
    """One row a video: its score is the mean of its frames' scores.

    The softmax of the two new logits is that mean, the sigmoid of `logit_fake` the mean of the frames' sigmoids. Where
    the annotation (gender, race, group) changes inside a video, that of most frames holds; everything else is the first
    frame's of those. A video name used by two data sets means two videos. The result has the same columns and `frames`
    (int, images of the video), videos in the order of their first frame. ScoreTableError if a video holds both labels.
    """
    table = table.reset_index(drop=True)
    videos = [column(table, name) for name in ("dataset", "video") if name == "video" or name in table.columns]
    video = pd.Series(pd.MultiIndex.from_arrays(videos).factorize()[0], index=table.index)
    two_labels = column(table, "label").groupby(video).transform("nunique").gt(1).to_numpy()
    if two_labels.any():
        text = f"Video {table['video'].iloc[two_labels.argmax()]!r} holds reals and fakes; a video is one or the other."
        raise ScoreTableError(f"{text} Correct its labels, or name the two parts differently in the column 'video'.")
    annotation = [table[name] for name in ("gender", "race", "group") if name in table.columns]
    alike = table["score"].groupby([video, *annotation], dropna=False, observed=True).transform("size")
    mean = table["score"].astype(np.float64).groupby(video).mean()
    result = table.loc[alike.groupby(video).idxmax()].reset_index(drop=True)
    result = result.assign(score=mean, frames=video.value_counts().sort_index())
    if "logit_fake" in table.columns:
        released = sigmoid(table["logit_fake"].astype(np.float64))
        result["logit_fake"] = log_odds(released.groupby(video).mean())
        result["logit_real"] = result["logit_fake"] - log_odds(mean)
    return result


def log_odds(score: np.ndarray | pd.Series) -> np.ndarray:
    """ln(p / (1 - p)) of P(fake), finite: the logit whose sigmoid is the score, to within 1e-12."""
    inside = np.clip(np.asarray(score, np.float64), 1e-12, 1 - 1e-12)  # in float32 the upper end would be 1
    return np.log(inside / (1 - inside))


def read_scores(path: str | Path, by: Sequence[str] = ()) -> pd.DataFrame:
    """Read a score table of this project or of any other detector, and fill in what can be derived.

    Needed are `label`, `score` and a column to judge by: gender, race, group or one of `by`. Without `video` every
    image is its own video, without `dataset` all are of the data set "given", without logits the score's log odds
    stand in for them. The forgery may be called `method`. Names are text as it stands in the file (.csv or .parquet):
    0001 and 1 are two videos, "NA" is a group, and only an empty cell is missing.

    FileNotFoundError if there is no such file, ScoreTableError if a needed column is missing or impossible; both name
    the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no score table at {path}; chapter 04 writes one, or give the path of your own")
    try:
        return _completed(_read_table(path), by)
    except ScoreTableError as error:
        raise ScoreTableError(f"{path}: {error}") from error


def _completed(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    if "method" in table.columns and "forgery" not in table.columns:
        table = table.rename(columns={"method": "forgery"})
    if not {"gender", "race", "group", *by} & set(table.columns):
        text = "there is none of the columns gender, race, group; add the one to be judged by."
        raise ScoreTableError(f"{text} It has: {_own_columns(table)}.")
    if table.empty:
        raise ScoreTableError("There are no rows below the header: nothing to judge.")
    known = {name: numbers(table, name) for name in NUMBERS if name in table.columns or name in ("label", "score")}
    known["label"] = known["label"].astype(int)
    known |= {name: _words(column(table, name)) for name in ("dataset", "img_path", "video") if name in table.columns}
    known |= {name: _words(table[name]) for name in (*WORDS, *by) if name in table.columns}
    table = table.assign(**known)
    derived = {"dataset": "given", "img_path": [f"row-{row}" for row in range(len(table))]}
    derived["video"] = table.get("img_path", derived["img_path"])
    if "logit_fake" not in table.columns:
        derived |= {"logit_real": 0.0, "logit_fake": log_odds(table["score"])}
    if {"gender", "race"} <= set(table.columns):
        derived["group"] = table["gender"] + "-" + table["race"]  # missing where one of the two is
    derived = {name: values for name, values in derived.items() if name not in table.columns}
    table = table.assign(**derived)
    table.attrs["derived"] = list(derived)  # for messages on what the file has
    return table


def _words(values: pd.Series) -> pd.Series:
    """Names as text without blanks around them; None where a cell is missing or empty."""
    words = values.convert_dtypes().astype("string").str.strip()  # codes 1.0 and 2.0 of a parquet file are "1", "2"
    return words.astype(object).where(words.notna() & (words != ""), None)


def _read_table(path: Path) -> pd.DataFrame:
    """The file as it is; whatever is no table with commas is refused with a sentence."""
    if path.suffix.lower() in NO_CSV:
        raise ScoreTableError("no CSV table: save it as .csv (with commas) or .parquet.")
    if path.suffix.lower() == ".parquet":
        table = pd.read_parquet(path)
        table.attrs = {}  # the file may carry what an earlier reading derived
        return table.reset_index() if any(name is not None for name in table.index.names) else table
    text = {"dtype": str, "keep_default_na": False, "na_values": [""], "index_col": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            names = pd.read_csv(path, header=None, nrows=1, **text).iloc[0]
            table = pd.read_csv(path, **text)
    except pd.errors.ParserWarning:
        raise ScoreTableError(f"line 2 has more cells than the header, which has {len(names)}.") from None
    except (UnicodeDecodeError, EOFError, OSError, ValueError) as error:  # cut or falsely named .gz files too
        raise ScoreTableError(f"no CSV table in UTF-8 ({str(error).strip()}): save it as .csv with commas.") from error
    if names.duplicated().any():
        raise ScoreTableError(f"column '{names[names.duplicated()].iloc[0]}' appears twice. Keep one of them.")
    for mark, what in ((";", "semicolons"), ("\t", "tabs")):
        if len(table.columns) == 1 and mark in str(table.columns[0]):
            raise ScoreTableError(f"it separates its columns with {what}: save it as .csv with commas.")
    return table
