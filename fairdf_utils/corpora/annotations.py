"""Public demographic annotations (A-FF++, A-Celeb-DF, A-DFD, A-DFDC) joined to face crops.

The files annotate frames: 1 has the attribute, -1 has it not, 0 undefined. A person's gender and race do not change
within a video, so the annotated frames of a video vote, and all its crops get the majority, whether or not their very
frame is annotated. An attribute whose vote is a tie, or that no frame defines, stays undefined: such crops are kept
out. Every crop is in exactly one of ``rows``, ``unmatched`` and ``undefined`` of the :class:`Merged` result.

Source: Xu et al. 2022, "A Comprehensive Analysis of AI Biases in DeepFake Detection With Massively Annotated
Databases".
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fairdf_utils.data.csv_rows import ManifestError, separator_of
from fairdf_utils.data.vocabulary import COLUMNS, GENDERS, GROUPS, RACES, SIX_GROUP_DATASETS

MAPPING_COLUMNS = ("annotation_id", "file_name")  # of the user's list for DFDC
_ATTRIBUTES = ("male", "asian", "white", "black")
_VALUES = {**{str(value): value for value in (1, -1, 0)}, "1.0": 1, "-1.0": -1, "0.0": 0}
_KINDS = {"0": 0, "1": 1, "real": 0, "fake": 1, "0.0": 0, "1.0": 1}

# The folder of an annotated frame -> the video's name in its corpus.
_FF_TREE = re.compile(r"(?:.*/)?(?:original|manipulated)_sequences/([^/]+)/(?:.*/)?([^/]+)")
_FOLDERS = {
    "ffpp": _FF_TREE,
    "dfd": _FF_TREE,
    "celebdf": re.compile(r"(?:.*/)?(Celeb-real|YouTube-real|Celeb-synthesis)/(?:.*/)?([^/]+)"),
    "dfdc": re.compile(r"(?:.*/)?()([^/]+)"),
    "folder": re.compile(r"(?:.*/)?(real|fake)/(.+)"),
}


@dataclass(frozen=True)
class Merged:
    """Crops with demographics, and everything that has none or is in doubt."""

    rows: pd.DataFrame  # canonical rows
    unmatched: pd.DataFrame  # crops of videos that no annotation names
    undefined: pd.DataFrame  # crops whose video's gender or race is undefined, with ``reason``
    conflicts: pd.DataFrame  # one row a video and attribute with votes for several values; "" chosen in a tie
    disagreements: pd.DataFrame  # videos that are real for one side and fake for the other; the corpus is believed
    unused: pd.DataFrame  # annotated videos without a crop
    repeated: pd.DataFrame  # annotations that say the same of the same frame again; they vote once
    by_frame: int  # crops, among the rows, whose very frame is annotated

    def summary(self) -> pd.DataFrame:
        """What became of the crops and the annotations, one count a line; the first three add up to all crops."""
        counts = {
            "crops with demographics": len(self.rows),
            "crops of videos without annotation": len(self.unmatched),
            "crops with undefined demographics": len(self.undefined),
            "crops whose very frame is annotated": self.by_frame,
            "attributes that change within a video": len(self.conflicts),
            "of those, ties": int((self.conflicts["chosen"] == "").sum()),
            "videos real here and fake there": len(self.disagreements),
            "annotated videos without a crop": len(self.unused),
            "annotations given twice": len(self.repeated),
        }
        return pd.DataFrame({"count": counts}).rename_axis("what")


def read_annotations(
    paths: str | Path | Iterable[str | Path], dataset: str, mapping: str | Path | None = None, first: int | None = None
) -> pd.DataFrame:
    """Read annotation files of one data set.

    More than one race that is 1, or none while one is undefined, leaves the race undefined.

    Parameters
    ----------
    paths : str, Path or sequence of them
        CSV files with ``path``, ``label`` (0 or real, 1 or fake), male, asian, white, black, in any case and order.
        Celeb-DF's and DFD's may do without asian.
    dataset : {"ffpp", "dfdc", "celebdf", "dfd", "folder"}
        How a path names its video.
    mapping : str or Path, optional
        For DFDC, a CSV with columns ``annotation_id`` (the folder of the annotated frames) and ``file_name`` (the
        public name, "abc.mp4" or "dfdc_train_part_0/abc.mp4"). Ids it lacks keep their id as the video's name.
    first : int, optional
        Rows to read of each file; by default all.

    Returns
    -------
    pandas.DataFrame
        One row a frame: ``video``, ``frame``, ``label`` (0, 1), ``gender``, ``race`` ("" undefined), ``source``.

    Raises a ManifestError for a missing file or column, an unknown value or path, and DFDC without a mapping.
    """
    if dataset not in _FOLDERS:
        raise ValueError(f"dataset={dataset!r} is unknown. Use one of {', '.join(_FOLDERS)}.")
    if dataset == "dfdc" and mapping is None:
        raise ManifestError(
            "The annotations of DFDC name videos by ids of their own, and no public list says which file an id is. "
            f"Pass mapping, a CSV with columns {' and '.join(MAPPING_COLUMNS)}, obtained from the annotations' authors."
        )
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if not paths:
        raise ManifestError("No annotation file was given. Pass at least one.")
    table = pd.concat([_read_one(Path(path), dataset, first) for path in paths], ignore_index=True)
    if dataset == "dfdc":
        names = _mapping(Path(mapping))
        lacking = sorted(set(table["video"]) - set(names))
        if lacking:
            warnings.warn(f"{mapping}: {len(lacking)} annotated ids are not listed, such as {lacking[0]}", stacklevel=2)
        table["video"] = table["video"].map(lambda video: names.get(video, video))
    return table


def _cells(path: Path, needed: Sequence[str], without_asian: bool = False, first: int | None = None) -> pd.DataFrame:
    """The ``needed`` columns of a CSV file as strings, in any case and order; line n + 2 is row n."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            table = pd.read_csv(
                handle,
                sep=separator_of(handle),
                usecols=lambda name: name.strip().lower() in needed,
                dtype=str,
                keep_default_na=False,
                skip_blank_lines=False,  # so that row n stands on line n + 2
                nrows=first,
            )
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}). Correct the path.") from None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ManifestError(f"{path}: not a UTF-8 CSV file ({error}). Export it again as CSV.") from None
    table.columns = table.columns.str.strip().str.lower()
    if without_asian and "asian" not in table.columns:
        warnings.warn(f"{path}: has no column asian; Asian persons count among others", stacklevel=4)
        table["asian"] = "-1"
    if missing := [column for column in needed if column not in table.columns]:
        raise ManifestError(f"{path}, line 1: missing column {', '.join(missing)}. Add it, or rename what holds it.")
    if table.columns.has_duplicates:
        doubled = table.columns[table.columns.duplicated()][0]
        raise ManifestError(f"{path}, line 1: column {doubled} appears twice. Keep one of them.")
    if table.empty:
        raise ManifestError(f"{path}: holds no rows. Export it again.")
    return table


def _refuse(bad: np.ndarray, cells: pd.Series, path: Path, finding: str) -> None:
    """Name the first of the cells (N,) that is ``bad`` (N,)."""
    if bad.any():
        row = int(bad.argmax())
        raise ManifestError(f"{path}, line {row + 2}, column {cells.name}: {cells.iloc[row]!r} {finding}")


def _read_one(path: Path, dataset: str, first: int | None) -> pd.DataFrame:
    table = _cells(path, ("path", "label", *_ATTRIBUTES), dataset in SIX_GROUP_DATASETS, first)
    video, frame = _video_and_frame(table["path"], path, dataset)
    male, *races = (_coded(table[name], _VALUES, path) for name in _ATTRIBUTES)
    return pd.DataFrame(
        {
            "video": video,
            "frame": frame,
            "label": _coded(table["label"].str.strip().str.lower(), _KINDS, path),
            "gender": np.array([*GENDERS, ""], dtype=object)[np.select([male == 1, male == -1], [0, 1], 2)],
            "race": _races(np.stack(races)),
            "source": [f"{path}, line {line}" for line in range(2, len(table) + 2)],
        }
    )


def _coded(cells: pd.Series, meanings: Mapping[str, int], path: Path) -> np.ndarray:
    values = cells.map(meanings)
    _refuse(values.isna().to_numpy(), cells, path, f"is no known value. Use one of {', '.join(meanings)}.")
    return values.to_numpy(np.int64)


def _races(flags: np.ndarray) -> np.ndarray:
    """Race names (N,) of flags (3, N): the one that is 1; others if all are -1; else undefined."""
    one = (flags == 1).sum(axis=0) == 1
    code = np.select([one, (flags == -1).all(axis=0)], [flags.argmax(axis=0), RACES.index("others")], len(RACES))
    return np.array([*RACES, ""], dtype=object)[code]


def _video_and_frame(cells: pd.Series, path: Path, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Video names and frame numbers (N,) of paths such as ``.../Deepfakes/raw/face_images/000_003/frame101.png``."""
    parts = cells.str.replace("\\", "/", regex=False).str.extract(r"^(?:(.*)/)?[^/]*?([0-9]{1,9})\.[^./]*$")
    codes, folders = pd.factorize(parts[0])
    matches = [_FOLDERS[dataset].fullmatch(folder) for folder in folders]
    videos = np.array([f"{m[1]}/{m[2]}".lstrip("/") if m else "" for m in [*matches, None]], dtype=object)[codes]
    bad = (videos == "") | parts[1].isna().to_numpy()
    _refuse(bad, cells, path, f"names no video and frame of {dataset}. Check that the file is of this data set.")
    return videos, parts[1].to_numpy().astype(np.int64)


def _mapping(path: Path) -> dict[str, str]:
    """Annotation id -> video name."""
    table = _cells(path, MAPPING_COLUMNS)
    ids = table["annotation_id"]
    _refuse(ids.duplicated().to_numpy(), ids, path, "appears twice. Keep one of them.")
    names = table["file_name"].str.replace("\\", "/", regex=False).str.replace(r"\.[^./]*$", "", regex=True)
    return dict(zip(ids, names, strict=True))


def merge(crops: pd.DataFrame, annotations: pd.DataFrame) -> Merged:
    """Give crops (of ``extraction.crops``) the demographics of their videos (of :func:`read_annotations`).

    An annotated video named without a folder ("abc") matches crops of any folder ("part/abc").

    Warns if no crop's video is annotated: most likely the two are of different data sets.
    """
    crops = crops.reset_index(drop=True)
    again = annotations.duplicated(["video", "frame", "label", "gender", "race"])
    repeated, annotations = annotations[again].reset_index(drop=True), annotations[~again]
    key = _matching(crops["video"], annotations["video"])
    settled, conflicts = vote(annotations)
    found = settled.reindex(key).reset_index(drop=True)
    matched = key.notna().to_numpy()
    if len(crops) and len(annotations) and not matched.any():
        warnings.warn(
            f"None of the {len(crops):,} crops is of an annotated video: crops are of videos such as "
            f"{crops['video'].iloc[0]!r}, annotations of videos such as {annotations['video'].iloc[0]!r}. Check that "
            "both are of one data set.",
            stacklevel=2,
        )
    defined = matched & (found["gender"].fillna("") != "").to_numpy() & (found["race"].fillna("") != "").to_numpy()
    rows = crops.assign(gender=found["gender"], race=found["race"], group=found["gender"] + "-" + found["race"])
    rows = rows[defined].reset_index(drop=True)
    annotated = pd.MultiIndex.from_frame(annotations[["video", "frame"]])
    very_frame = pd.MultiIndex.from_arrays([key[defined], crops.loc[defined, "frame"]]).isin(annotated)
    unused = annotations[~annotations["video"].isin(key)].groupby("video", as_index=False, sort=False)
    unused = unused.agg(frames=("frame", "size"), source=("source", "first"))
    return Merged(
        rows=rows[list(COLUMNS)],
        unmatched=crops[~matched].reset_index(drop=True),
        undefined=crops.assign(reason=found["reason"])[matched & ~defined].reset_index(drop=True),
        conflicts=conflicts,
        disagreements=_disagreements(crops, key, annotations),
        unused=unused,
        repeated=repeated,
        by_frame=int(very_frame.sum()),
    )


def _matching(videos: pd.Series, annotated: pd.Series) -> pd.Series:
    """The annotated video (N,) that each video is: the same name, or the same without its folder; NaN for none."""
    names = videos.where(videos.isin(annotated), videos.astype(str).str.replace(r".*/", "", regex=True)).astype(object)
    return names.where(names.isin(annotated))


def vote(annotations: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Gender, race and the reason why one is undefined, by video; and the votes that were not unanimous."""
    settled, conflicts, reasons = {}, [], []
    for attribute, values in (("gender", GENDERS), ("race", RACES)):
        votes = pd.crosstab(annotations["video"], annotations[attribute]).reindex(columns=list(values), fill_value=0)
        counts = votes.to_numpy()
        best = counts.max(axis=1)
        winners = (counts == best[:, None]).sum(axis=1)
        chosen = np.where((best > 0) & (winners == 1), np.array(values, dtype=object)[counts.argmax(axis=1)], "")
        settled[attribute] = pd.Series(chosen, index=votes.index)
        texts = [", ".join(f"{name} {n}" for name, n in zip(values, line, strict=True) if n) for line in counts]
        table = pd.DataFrame({"video": votes.index, "attribute": attribute, "votes": texts, "chosen": chosen})
        conflicts.append(table[(counts > 0).sum(axis=1) > 1])
        why = [f"{attribute}: tie, {text}" if text else f"{attribute} undefined in every frame" for text in texts]
        reasons.append(np.where(chosen == "", np.array(why, dtype=object), ""))
    settled["reason"] = ["; ".join(filter(None, both)) for both in zip(*reasons, strict=True)]
    return pd.DataFrame(settled), pd.concat(conflicts, ignore_index=True)


def _disagreements(crops: pd.DataFrame, key: pd.Series, annotations: pd.DataFrame) -> pd.DataFrame:
    """Videos whose crops and annotations differ in label; a video annotated as both is listed as well."""
    here = crops.assign(key=key).dropna(subset="key").groupby("video", sort=False)
    table = here.agg(label=("label", "first"), crops=("label", "size"), key=("key", "first")).reset_index()
    fakes = annotations.groupby("video")["label"].agg(["sum", "size"]).reindex(table["key"])
    opposite = np.where(table["label"] == 1, fakes["size"] - fakes["sum"], fakes["sum"])
    table = table.drop(columns="key").assign(opposite_frames=opposite, annotated_frames=fakes["size"].to_numpy())
    return table[table["opposite_frames"] > 0].astype({"opposite_frames": int}).reset_index(drop=True)


def lost_by_group(ledger: pd.DataFrame, annotations: pd.DataFrame) -> pd.DataFrame:
    """How many faces the detector lost, for whom.

    ``ledger`` is from ``extraction.extract``. A video that could not be read lost all frames it was asked for, a
    partial one those that gave no crop.

    The table's index is :data:`GROUPS`, then "undefined" and "not annotated", so that every video is counted; its
    columns are ``videos``, ``failed`` (videos that gave nothing), ``asked``, ``lost`` (frames) and ``share`` (lost /
    asked, NaN where nothing was asked for).
    """
    key = _matching(ledger["video"], annotations["video"])
    found = vote(annotations)[0].reindex(key)
    group = found["gender"] + "-" + found["race"]
    group = np.where(key.isna(), "not annotated", np.where(group.isin(GROUPS), group, "undefined"))
    failed, asked = (ledger["status"] == "failed").astype(int), ledger["asked"].astype(int)
    lost = asked - ledger["found"].astype(int)
    table = pd.DataFrame({"group": group, "videos": 1, "failed": failed, "asked": asked, "lost": lost})
    table = table.groupby("group").sum().reindex([*GROUPS, "undefined", "not annotated"], fill_value=0)
    return table.assign(share=(table["lost"] / table["asked"].where(table["asked"] > 0))).rename_axis("group")
