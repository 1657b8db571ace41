"""The score table: one row an image, the seam between a detector and the analysis of its fairness.

Chapter 4 writes one, any other detector can; chapter 5 explains SCORE_COLUMNS. Nothing here needs torch.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow

from fairdf_utils.data.vocabulary import counted
from fairdf_utils.files import printable, replacing
from fairdf_utils.progress import bar

SCORE_COLUMNS = (
    *("dataset", "img_path", "video", "identity", "label", "forgery"),
    *("gender", "race", "group", "logit_real", "logit_fake", "score"),
)
NAMES = ("dataset", "img_path", "video")  # no cell may be empty
WORDS = ("identity", "forgery", "gender", "race", "group")  # a cell may be empty
OTHER_NAMES = {  # what other projects call the columns
    "label": {"label", "labels", "y_true", "y", "target", "targets", "gt", "ground_truth", "is_fake", "fake", "class"},
    "score": {"score", "scores", "y_pred", "y_prob", "y_score", "prob", "probs", "probability", "pred", "preds"}
    | {"prediction", "predictions", "p_fake", "prob_fake", "fake_prob", "output", "logit", "logits"},
}
HINTS = {
    "intersection": " The intersection of gender and race is called 'group'.",
    "identity": " Take videos instead: cluster 'video'.",
    "video": " Without videos, copy img_path into it: every image is then its own cluster.",
}
LABELS = {"real": 0, "fake": 1, "false": 0, "true": 1}  # False and True are what a column of booleans becomes
LOGIT = (np.isfinite, "A logit must be a finite number.")
NUMBERS = {  # column -> what is allowed (a function of the array), and what to do
    "label": (lambda x: (x == 0) | (x == 1), "A label is 0 (real) or 1 (fake), one of these words, or False or True."),
    "score": (
        lambda x: (x >= 0) & (x <= 1),
        "A score is P(fake), from 0 to 1: write decimal points, divide by 100 if percent, apply the sigmoid if logits.",
    ),
    "logit_real": LOGIT,
    "logit_fake": LOGIT,
    "laplacian_variance": (lambda x: (x >= 0) & (x < np.inf), "A variance is a number from 0 on."),  # see `trivial`
}
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}  # by first bytes
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "blanks"}
NO_CSV = (".xlsx", ".xls", ".ods", ".json", ".jsonl", ".npy", ".npz", ".pkl", ".pickle")


class ScoreTableError(ValueError):
    """A score table that cannot be judged: says which column and row, and what to do."""


def column(table: pd.DataFrame, name: str) -> pd.Series:
    """A column without missing values, or an error that names it."""
    if name not in table.columns:
        others = OTHER_NAMES.get(name, set()) | {name.lower()}
        alike = [own for own in table.columns if str(own).strip().lower() in others]
        hint = f" Rename '{alike[0]}' to '{name}'." if alike else HINTS.get(name, "")
        raise ScoreTableError(f"The score table has no column '{name}'; it has: {_own_columns(table)}.{hint}")
    missing = table[name].isna().to_numpy()
    if missing.any():
        where = f"in {counted(missing.sum(), 'rows')}, first in {_place(table, missing.argmax())}"
        raise ScoreTableError(f"Column '{name}' is empty {where}. Fill it in, or remove those rows on purpose.")
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
        where, value = _place(table, bad.argmax()), table[name].iloc[bad.argmax()]
        more = f" (and {counted(bad.sum() - 1, 'more rows')} likewise)" if bad.sum() > 1 else ""
        raise ScoreTableError(f"Column '{name}', {where}: {value} is not allowed{more}. {remedy}")
    return values


def _place(table, row):
    """Where a row is found: its line in the file that is being read, or its place in the table."""
    return f"line {table.index[row]}" if table.index.name == "line" else f"row {row} (counted from 0)"


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
        raise FileNotFoundError(f"no score table at {printable(path)}; chapter 4 writes one, or give your own")
    try:
        return _completed(_read_table(path), by)
    except ScoreTableError as error:
        raise ScoreTableError(f"{printable(path)}: {error}") from error


def _completed(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    table = _named(table, by)
    if "method" in table.columns and "forgery" not in table.columns:
        table = table.rename(columns={"method": "forgery"})
    if numbered := [name for name in by if name in NUMBERS]:
        raise ScoreTableError(f"by: '{numbered[0]}' is what is judged. Name columns that sort people into groups.")
    wanted = list(dict.fromkeys(["gender", "race", "group", *by]))
    if not set(wanted) & set(table.columns):
        text = f"there is none of the columns {', '.join(wanted)}; add the one to be judged by."
        raise ScoreTableError(f"{text} It has: {_own_columns(table)}.")
    if table.empty:
        raise ScoreTableError("There are no rows below the header: nothing to judge.")
    if "label" in table.columns and not pd.api.types.is_numeric_dtype(table["label"]):
        words = _words(table["label"]).str.lower()
        table["label"] = table["label"].astype(object).mask(words.isin(list(LABELS)), words.map(LABELS))
    named = [name for name in NAMES if name in table.columns]
    table = table.assign(**{name: _words(table[name]) for name in (*named, *WORDS, *by) if name in table.columns})
    known, faults = {}, []
    for name in (*NUMBERS, *named):
        try:
            if name in named:
                column(table, name)  # says where a cell is empty
            elif name in table.columns or name in ("label", "score"):
                known[name] = numbers(table, name)
        except ScoreTableError as error:
            faults.append(str(error))
    if faults:
        raise ScoreTableError(" ".join(faults))
    table = table.assign(**known).astype({"label": int})
    derived = {"dataset": "given", "img_path": [f"{table.index.name}-{number}" for number in table.index]}
    derived["video"] = table.get("img_path", derived["img_path"])
    if "logit_fake" not in table.columns:
        derived |= {"logit_real": 0.0, "logit_fake": log_odds(table["score"])}
    if {"gender", "race"} <= set(table.columns):
        derived["group"] = table["gender"] + "-" + table["race"]  # missing where one of the two is
    derived = {name: values for name, values in derived.items() if name not in table.columns}
    table = table.assign(**derived).reset_index(drop=True)
    table.attrs["derived"] = list(derived)  # for messages on what the file has
    return table


def _named(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The columns under their known names, whatever blanks and capitals the header has; none may stand there twice."""
    names = pd.Series([str(name).strip() for name in table.columns], dtype=object)
    known = names.str.lower()
    names = names.mask(known.isin([*SCORE_COLUMNS, "method"]) & ~names.isin(by), known)
    if names.duplicated().any():
        name = names[names.duplicated()].iloc[0]
        raise ScoreTableError(f"column '{name}' appears twice (capitals and blanks do not count). Keep one of them.")
    return table.set_axis(names.tolist(), axis=1)


def _words(values: pd.Series) -> pd.Series:
    """Names as text without blanks around them; None where a cell is missing or empty."""
    words = values.astype("string").str.strip()
    if words.str.fullmatch(r"(-?\d+\.0)?").all():
        words = words.str.removesuffix(".0")  # codes that became floats beside an empty cell
    return words.astype(object).where(words.notna() & (words != ""), None)


def _read_table(path: Path) -> pd.DataFrame:
    """The file as it is, indexed by "line" or "row" for messages; what it is, its first bytes say."""
    data = path.read_bytes()
    if path.suffix.lower() in NO_CSV or data.startswith(b"PK"):  # a zip archive, as workbooks are
        raise ScoreTableError("no CSV table: save it as .csv (with commas) or .parquet.")
    for magic, packing in PACKED.items():
        if data.startswith(magic):
            try:
                data = pyarrow.input_stream(io.BytesIO(data), compression=packing).read()
            except (OSError, ValueError):
                raise ScoreTableError(f"the packed file ({packing}) is damaged or cut off: copy it again.") from None
    if data.startswith(b"PAR1"):
        return _parquet(data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ScoreTableError(f"line {line} is no text in UTF-8: save it as .csv in UTF-8, or as .parquet.") from None
    return _csv(text)


def _parquet(data: bytes) -> pd.DataFrame:
    try:
        table = pd.read_parquet(io.BytesIO(data))
    except (OSError, ValueError):
        raise ScoreTableError("the parquet file is damaged or cut off: copy or write it again.") from None
    table.attrs = {}  # the file may carry what an earlier reading derived
    named = [name for name in table.index.names if name is not None and name not in table.columns]
    return (table.reset_index(named) if named else table).reset_index(drop=True).rename_axis("row")


def _csv(text: str) -> pd.DataFrame:
    """Rows with as many cells as the header, empty ones left out; what lies between commas is text or, empty, None."""
    reader, lines, rows, start = csv.reader(io.StringIO(text, newline=""), strict=True), [], [], 1
    try:
        for row in bar(reader, desc="reading", total=text.count("\n"), unit="lines", leave=False):
            if any(map(str.strip, row)):
                rows.append(row)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error:
        raise ScoreTableError(f"line {start}: a quotation mark opens a cell, and none closes it.") from None
    if not rows:
        raise ScoreTableError("the file is empty: nothing to judge.")
    header = rows.pop(0)
    _check_header(header, lines.pop(0))
    ragged = [place for place, row in enumerate(rows) if len(row) != len(header)]
    if ragged:
        where = f"line {lines[ragged[0]]} has {counted(len(rows[ragged[0]]), 'cells')}, the header has {len(header)}"
        more = f" (and {counted(len(ragged) - 1, 'more lines')} likewise)" if len(ragged) > 1 else ""
        text = "Quote names that hold a comma, write decimal points, and close every quotation mark."
        raise ScoreTableError(f"{where}{more}. {text}")
    table = pd.DataFrame(rows, pd.Index(lines, name="line"), header, dtype=object)
    return table.loc[:, [name.strip() != "" for name in header]].replace("", None)


def _check_header(header: list[str], line: int) -> None:
    """Refuse a first line that is no header with commas."""
    first = header[0].strip().lower()
    for mark, what in SEPARATORS.items():
        if len(header) == 1 and "label" in first.split(mark):
            raise ScoreTableError(f"it separates its columns with {what}: save it as .csv with commas.")
    if len(header) == 1 or first.startswith(("#", "sep=")):
        text = "the first line names the columns, with commas between them."
        raise ScoreTableError(f"line {line} ('{','.join(header)[:40]}') is no header: {text}")
