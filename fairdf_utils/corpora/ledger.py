"""The ledger of an extraction: one row a video, appended as each is done, so that a killed run goes on.

While a run is on, a row is added by a single write: a reader sees whole rows, or at worst a last line without its end,
which reading leaves out. When the run ends the file is written anew, ordered by video.
"""

import csv
import io
import json
from pathlib import Path

import pandas as pd

from fairdf_utils.corpora import layouts as corpora
from fairdf_utils.corpora.layouts import CorpusError
from fairdf_utils.files import replacing, write_text

COUNTS = ("asked", "decoded", "found", "lost", "several")
TOLD = (*corpora.COLUMNS, "file")  # what is known of a video before it is opened
COLUMNS = ("video", *(name for name in TOLD if name != "video"), *COUNTS, "status", "reason", "seconds")


def read(path):
    """Rows of a ledger, ordered by video, the last one of each; none where there is no file.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`COLUMNS`: text, but int label and counts and float seconds.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace") if Path(path).exists() else ""
    lines = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    rows = [row for row in lines if len(row) == len(COLUMNS) and row[0] != COLUMNS[0]]
    table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    return _ordered(table.astype({"label": int, **dict.fromkeys(COUNTS, int), "seconds": float}))


def open_for(path, other, videos):
    """Make a ledger hold rows of these videos only; the others wait in a second file until their corpus is back.

    Parameters
    ----------
    path, other : Path
        The ledger, and the file for rows of videos that are not among ``videos``; made if there are any.
    videos : pandas.DataFrame
        Columns :data:`TOLD`.

    Returns
    -------
    done, others : pandas.DataFrame
        Rows of the ledger, and those set aside.
    """
    every = _ordered(pd.concat([read(other), read(path)], ignore_index=True))
    here = every["video"].isin(videos["video"])
    done, others = every[here].reset_index(drop=True), every[~here].reset_index(drop=True)
    write(path, every)  # so that a kill between these lines loses no row
    if len(others) or other.exists():
        write(other, others)
    write(path, done)
    return done, others


def _ordered(table):
    return table.drop_duplicates("video", keep="last").sort_values("video", ignore_index=True)


def append(path, row):
    """Add one row, a dict with the keys :data:`COLUMNS`, by one write."""
    text = _line(COLUMNS) if not Path(path).exists() else ""
    text += _line(row[name] for name in COLUMNS)
    with open(path, "ab", buffering=0) as file:
        file.write(text.encode("utf-8"))


def write(path, table):
    """Write the whole ledger anew, atomically."""
    text = _line(COLUMNS) + "".join(_line(row) for row in table[list(COLUMNS)].itertuples(index=False))
    with replacing(path) as partial:
        partial.write_bytes(text.encode("utf-8"))


def _line(cells):
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def waiting(videos, done):
    """Videos without a row, those told otherwise now (another file, say), and those that could not be read in full."""
    settled = done[(done["status"] == "ok") | (done["reason"] == "no face")]
    same = videos.merge(settled, on=list(TOLD))
    return videos[~videos["video"].isin(same["video"])]


def keep_parameters(path, parameters):
    """Note with what parameters a folder is filled.

    Raises
    ------
    CorpusError
        It was begun with others: crops of two kinds would mix.
    """
    if not path.exists():
        write_text(path, json.dumps(parameters, indent=1) + "\n")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [
        f"{name} {before.get(name)!r}, now {now!r}" for name, now in parameters.items() if before.get(name) != now
    ]
    if changed:
        raise CorpusError(
            f"{path.parent} was begun with {'; '.join(changed)}. Go on with the old values, or choose another "
            f"output folder or data set name, or delete {path.parent}."
        )
