"""Manifests: one CSV row an image, the contract between data preparation, training and the fairness audit.

Files keep the columns of the released fair-deepfake-detection manifests; inside this package every row has the
*canonical* columns below, with groups and methods as names. Nothing but :func:`read_manifest` knows file codes.

=================  ======================================================================================
``img_path``       str, relative to the image root, "/" between parts
``label``          int, 0 real, 1 fake
``method``         str, one of :data:`METHODS`, or "fake" where the file does not say which forgery it is
``gender``         str, "male" or "female"
``race``           str, "asian", "white", "black" or "others"
``group``          str, one of :data:`GROUPS`: gender and race, the intersection
``video``          str, the cluster for confidence intervals
``identity``       str, the person in front of the camera
``source_identity``  str, the person a fake takes its face or expression from; "" where there is none
``frame``          int >= 0, the frame's number in its video
=================  ======================================================================================
"""

import csv
import re
from pathlib import Path

import pandas as pd

from fairdf_utils.files import replacing

GENDERS = ("male", "female")
RACES = ("asian", "white", "black", "others")
GROUPS = tuple(f"{gender}-{race}" for gender in GENDERS for race in RACES)
SIX_GROUPS = tuple(group for group in GROUPS if not group.endswith("asian"))  # codes 0..5 of Celeb-DF and DFD
SIX_GROUP_DATASETS = ("celebdf", "dfd")
METHODS = ("real", "Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
DATASETS = ("ffpp", "dfdc", "celebdf", "dfd")
COLUMNS = (
    "img_path",
    "label",
    "method",
    "gender",
    "race",
    "group",
    "video",
    "identity",
    "source_identity",
    "frame",
)
SPLIT_FILES = {
    "train": ("faketrain.csv", "realtrain.csv"),
    "val": ("fakeval.csv", "realval.csv"),
    "test": ("test.csv",),
}


class ManifestError(ValueError):
    """A manifest that cannot be used; the message names file, line, column, value and remedy."""


class _Rows:
    """The cells of one CSV file as strings, with the line each row came from, so that errors can point at it."""

    def __init__(self, path):
        self.path = Path(path)
        try:
            with open(self.path, newline="", encoding="utf-8-sig") as handle:
                reader = csv.reader(handle)
                header = next(reader, [])
                rows = [(reader.line_num, row) for row in reader if row]
        except FileNotFoundError:
            raise ManifestError(
                f"{self.path}: no such manifest. Prepare the data set first (chapter 01) or correct the path."
            ) from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise ManifestError(f"{self.path}: not a UTF-8 CSV file ({error}). Export it again as CSV.") from None
        if not rows:
            raise ManifestError(f"{self.path}: holds no rows. Write the manifest again; an empty set has no use.")
        for line, row in rows:
            if len(row) != len(header):
                raise ManifestError(
                    f"{self.path}, line {line}: {len(row)} cells where the header has {len(header)}. "
                    "Quote values that contain a comma, or add the missing cells."
                )
        self.lines = [line for line, _ in rows]
        self.cells = pd.DataFrame([row for _, row in rows], columns=header, dtype=object)

    def has(self, column):
        return column in self.cells.columns

    def require(self, columns):
        missing = [column for column in columns if not self.has(column)]
        if missing:
            raise ManifestError(
                f"{self.path}, line 1: missing column {', '.join(missing)} (found: {', '.join(self.cells.columns)}). "
                "Add it, or rename the column that holds it."
            )
        doubled = self.cells.columns[self.cells.columns.duplicated()]
        if len(doubled):
            raise ManifestError(f"{self.path}, line 1: column {doubled[0]} appears twice. Keep one of them.")

    def reject(self, bad, column, remedy):
        """Raise for the first row where ``bad`` (N,) is true."""
        if bad.any():
            row = int(bad.to_numpy().argmax())
            raise ManifestError(
                f"{self.path}, line {self.lines[row]}, column {column}: {self.cells[column].iloc[row]!r}. {remedy}"
            )

    def codes(self, column, allowed):
        """The column as integers; every cell must be one of ``allowed``."""
        known = {str(code): code for code in allowed}
        values = self.cells[column].map(known)
        self.reject(values.isna(), column, f"Use one of {', '.join(known)}.")
        return values.astype(int)


def read_manifest(path):
    """Read one manifest in the seed form and translate it to canonical columns.

    Columns are found by name, never by position. A file without ``isasian`` is in the six-group form of Celeb-DF and
    DFD, whose ``intersec_label`` counts 0..5. Where ``video``, ``identity``, ``source_identity`` or ``frame`` are
    absent (a foreign file), video and frame come from an image name ``<video>_<frame>.png`` and identity is the video.

    Parameters
    ----------
    path : str or Path
        A CSV file.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`COLUMNS` and ``source`` (file and line, for error messages), rows in file order.

    Raises
    ------
    ManifestError
        A missing or empty file, a missing column, an unknown code, columns that contradict each other, or an image
        path that is absolute or leaves the image root. A group with one class only is no error here.
    """
    rows = _Rows(path)
    rows.require(["img_path", "label", "ismale", "iswhite", "isblack", "intersec_label"])
    paths = _image_paths(rows)
    label = rows.codes("label", (0, 1))
    gender, race = _gender_race(rows)
    default_video, default_frame = _video_and_frame(paths)
    video = _names(rows, "video", default_video)
    frame = rows.cells["frame"] if rows.has("frame") else default_frame
    if rows.has("frame"):
        rows.reject(~frame.str.fullmatch(r"[0-9]{1,9}"), "frame", "Use a whole number of 0 or more.")
    table = {
        "img_path": paths,
        "label": label,
        "method": _methods(rows, label),
        "gender": gender,
        "race": race,
        "group": gender + "-" + race,
        "video": video,
        "identity": _names(rows, "identity", video),
        "source_identity": rows.cells["source_identity"] if rows.has("source_identity") else "",
        "frame": frame.astype(int),
        "source": [f"{rows.path}, line {line}" for line in rows.lines],
    }
    return pd.DataFrame(table, columns=[*COLUMNS, "source"]).infer_objects()


def _image_paths(rows):
    paths = rows.cells["img_path"]
    rows.reject(paths.str.strip() == "", "img_path", "Give the image's path relative to the image root.")
    rows.reject(
        paths.str.match(r"[/\\]|[A-Za-z]:"), "img_path", "Make the path relative to the image root, not absolute."
    )
    rows.reject(
        paths.str.split(r"[/\\]", regex=True).map(lambda parts: ".." in parts),
        "img_path",
        'Remove ".."; a manifest may only name images below its image root.',
    )
    return paths


def _gender_race(rows):
    """Gender and race names (N,), after checking that flags and ``intersec_label`` tell one story."""
    six = not rows.has("isasian")
    male = rows.codes("ismale", (-1, 1))
    flags = {race: rows.codes(f"is{race}", (-1, 1)) for race in RACES[:3] if rows.has(f"is{race}")}
    rows.reject(
        sum((flag == 1).astype(int) for flag in flags.values()) > 1,
        "iswhite",
        "More than one of isasian, iswhite and isblack is 1; set the others to -1.",
    )
    gender = male.map({1: "male", -1: "female"}).astype(object)
    race = pd.Series("others", index=gender.index, dtype=object)
    for name, flag in flags.items():
        race[flag == 1] = name
    groups = SIX_GROUPS if six else GROUPS
    coded = rows.codes("intersec_label", range(len(groups))).map(lambda code: groups[code])
    rows.reject(
        coded != gender + "-" + race,
        "intersec_label",
        f"It contradicts ismale and is<race>; correct one of them (codes: {', '.join(groups)}, from 0).",
    )
    return gender, race


def _methods(rows, label):
    """Method names (N,) from ``spe_label`` or ``method``; "fake" where the file has neither."""
    methods = label.map({0: "real", 1: "fake"}).astype(object)
    if rows.has("spe_label"):
        methods = rows.codes("spe_label", range(1, len(METHODS))).map(lambda code: METHODS[code])
        rows.reject(label != 1, "spe_label", "Only fakes have a forgery method; set label to 1 or move the row.")
    if rows.has("method"):
        named = rows.cells["method"]
        rows.reject(~named.isin([*METHODS, "fake"]), "method", f"Use one of {', '.join(METHODS)}, or fake.")
        rows.reject((named == "real") != (label == 0), "method", "It contradicts label; correct one of them.")
        if rows.has("spe_label"):
            rows.reject(named != methods, "method", "It contradicts spe_label; keep one of the two columns.")
        methods = named
    return methods


def _video_and_frame(paths):
    """Video names and frame numbers (N,) from paths such as ``ffpp/real/0012_030.jpg`` -> ("ffpp/real/0012", 30)."""
    parts = paths.str.extract(re.compile(r"^(.*?)(?:_([0-9]{1,9}))?(?:\.[^./\\]*)?$", re.DOTALL))
    return parts[0].astype(object), parts[1].fillna("0")


def _names(rows, column, default):
    if not rows.has(column):
        return default
    rows.reject(rows.cells[column] == "", column, "Fill the cell in, or leave the whole column out.")
    return rows.cells[column]


def write_manifest(frame, path):
    """Write canonical rows in the seed form; the same rows give the same bytes.

    Celeb-DF and DFD (known by the folder's name) are written in their six-group form. A file of fakes whose methods
    are all known gets ``spe_label``; a file of fakes and reals together gets ``method``.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns :data:`COLUMNS`, others are ignored.
    path : str or Path
        Written atomically; missing folders are made.

    Raises
    ------
    ManifestError
        No rows, a canonical column is missing, or a row could not be read back.
    """
    path = Path(path)
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing or frame.empty:
        what = f"column {', '.join(missing)} is missing" if missing else "there are no rows"
        raise ManifestError(f"{path}: cannot be written, {what}. Pass the canonical columns, at least one row.")
    groups = SIX_GROUPS if path.parent.name in SIX_GROUP_DATASETS else GROUPS
    for position, row in enumerate(frame[list(COLUMNS)].itertuples(index=False)):
        good_method = row.method == "real" if row.label == 0 else row.method in (*METHODS[1:], "fake")
        if row.group not in groups or row.group != f"{row.gender}-{row.race}" or not good_method:
            raise ManifestError(
                f"{path}: cannot be written, row {position} has group {row.group!r}, gender {row.gender!r}, race "
                f"{row.race!r}, label {row.label!r}, method {row.method!r}. Make them agree (groups of this file: "
                f"{', '.join(groups)})."
            )
    table = _seed_form(frame, groups)
    with replacing(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n", encoding="utf-8")


def _seed_form(frame, groups):
    flag = {True: 1, False: -1}
    table = {
        "img_path": frame["img_path"],
        "label": frame["label"].astype(int),
        "ismale": (frame["gender"] == "male").map(flag),
    }
    for race in RACES[:3] if groups == GROUPS else RACES[1:3]:
        table[f"is{race}"] = (frame["race"] == race).map(flag)
    table["intersec_label"] = frame["group"].map(groups.index)
    if frame["method"].isin(METHODS[1:]).all():
        table["spe_label"] = frame["method"].map(METHODS.index)
    elif (frame["label"] == 1).any():
        table["method"] = frame["method"]
    for column in ("video", "identity", "source_identity", "frame"):
        table[column] = frame[column]
    return pd.DataFrame(table)


def read_split(folder, split):
    """Read one split of a data set's folder of manifests.

    Parameters
    ----------
    folder : str or Path
        For instance ``data_manifests/synthetic/ffpp``; its name becomes the column ``dataset``.
    split : {"train", "val", "test"}
        Training and validation are a file of fakes and a file of reals, a test set is one file.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`COLUMNS` and ``dataset``; fakes first.

    Raises
    ------
    ManifestError
        A file of the split is missing or faulty, or the split is unknown.
    """
    if split not in SPLIT_FILES:
        raise ManifestError(f"{folder}: unknown split {split!r}. Use one of {', '.join(SPLIT_FILES)}.")
    folder = Path(folder)
    frames = [read_manifest(folder / name) for name in SPLIT_FILES[split]]
    return pd.concat(frames, ignore_index=True).assign(dataset=folder.name)


def find_leaks(splits):
    """Find images, videos and identities that more than one split uses.

    Parameters
    ----------
    splits : dict of str to pandas.DataFrame
        Canonical rows by split name.

    Returns
    -------
    pandas.DataFrame
        One row a leak: ``kind`` ("image", "video" or "identity"), ``value``, ``splits`` (names joined by ", "). A
        fake counts for its identity and for its source identity. No rows when the splits are disjoint.
    """
    uses = []
    for kind, columns in (("image", ["img_path"]), ("video", ["video"]), ("identity", ["identity", "source_identity"])):
        for name, frame in splits.items():
            values = pd.unique(pd.concat([frame[column] for column in columns]))
            uses += [(kind, value, name) for value in values if value != ""]
    table = pd.DataFrame(uses, columns=["kind", "value", "splits"])
    shared = table[table.duplicated(["kind", "value"], keep=False)]
    return shared.groupby(["kind", "value"], as_index=False, sort=False)["splits"].agg(", ".join)


def group_table(frame):
    """Count what each group rests on.

    Returns
    -------
    pandas.DataFrame
        Index :data:`GROUPS` (absent groups as zeros); columns ``images``, ``reals``, ``fakes``, ``videos``,
        ``identities`` (of the persons shown, without sources).
    """
    grouped = frame.groupby("group")
    table = pd.DataFrame(
        {
            "images": grouped.size(),
            "reals": grouped["label"].agg(lambda label: (label == 0).sum()),
            "fakes": grouped["label"].agg(lambda label: (label == 1).sum()),
            "videos": grouped["video"].nunique(),
            "identities": grouped["identity"].nunique(),
        }
    )
    return table.reindex(list(GROUPS), fill_value=0).astype(int).rename_axis("group")
