"""The manifests of the released follow-up work: other column names, other codes, two sets of demographic labels."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from fairdf_utils.data.crop_names import from_crop_names, video_and_frame
from fairdf_utils.data.csv_rows import UNKNOWN, Rows
from fairdf_utils.data.released_columns import CONTRADICTION, among_eight
from fairdf_utils.data.vocabulary import DATASETS, FORGERIES, GROUPS, RACES, SIX_GROUP_DATASETS, SIX_GROUPS

REQUIRED = ("Image Path", "Target")  # tell the form; the columns of the demographics depend on the choice
DEMOGRAPHICS = {
    "cleaned": ("Ground Truth Gender", "Ground Truth Race", "Intersection"),
    "older": ("intersec_label",),
}


def rows_of(rows: Rows, labels: str) -> dict[str, np.ndarray]:
    """Translate rows of the follow-up form.

    Parameters
    ----------
    rows : csv_rows.Rows
        Has the columns `REQUIRED` and `DEMOGRAPHICS[labels]`.
    labels : {"cleaned", "older"}
        Demographics from "Ground Truth Gender" and "Ground Truth Race", or from the noisier ``intersec_label``.

    Returns
    -------
    dict
        Arrays (N,): ``img_path``, ``label``, ``forgery``, ``code`` (0..7, position among the groups), ``video``,
        ``identity``, ``source_identity``, ``frame``. A crop whose name tells no video is noted as a warning, and its
        video is the path up to the last underscore.
    """
    paths = rows.image_paths("Image Path")
    label = rows.codes("Target", (0, 1))
    crop = from_crop_names(paths)
    known = (crop["dataset"] != "").to_numpy()
    finding = "Its name follows no known pattern; its video is taken to be the path up to the last underscore"
    remedy = "Rename it to 0_<forgery>_<video>_<frame>.png, or judge intervals over videos with care."
    rows.reject(~known, "unsure value", "Image Path", finding, remedy, severity="warning")
    own_video, own_frame = video_and_frame(paths)
    return {
        "img_path": paths,
        "label": label,
        "forgery": _forgeries(rows, label, crop["forgery"].to_numpy()),
        "code": _cleaned_codes(rows) if labels == "cleaned" else _older_codes(rows, _dataset_of(paths, crop)),
        "video": np.where(known, crop["video"], own_video),
        "identity": np.where(known, crop["identity"], own_video),
        "source_identity": crop["source_identity"].to_numpy(),
        "frame": np.where(known, crop["frame"], own_frame),
    }


def _cleaned_codes(rows: Rows) -> np.ndarray:
    male = rows.codes("Ground Truth Gender", (0, 1))
    race = rows.codes("Ground Truth Race", range(len(RACES)))
    both = (male != UNKNOWN) & (race != UNKNOWN)
    code = np.where(both, (1 - male) * len(RACES) + race, UNKNOWN)
    coded = rows.codes("Intersection", range(len(GROUPS)))
    contradicts = both & (coded != UNKNOWN) & (coded != code)
    finding = "It contradicts Ground Truth Gender and Ground Truth Race"
    remedy = "Correct one of them (0 male-asian, 1 male-white, .. 7 female-others)."
    rows.reject(contradicts, CONTRADICTION, "Intersection", finding, remedy)
    return code


def _older_codes(rows: Rows, dataset: np.ndarray) -> np.ndarray:
    """Positions among the eight groups; Celeb-DF and DFD count their six groups 0..5."""
    finding = "The path names no data set, so that intersec_label may count six or eight groups"
    known = ", ".join(DATASETS)
    remedy = f'Put the images below a folder named after their data set ({known}), or read labels="cleaned".'
    rows.reject(dataset == "", "bad cell", "Image Path", finding, remedy)
    coded = rows.codes("intersec_label", range(len(GROUPS)))
    six = np.isin(dataset, SIX_GROUP_DATASETS)
    beyond = six & (coded >= len(SIX_GROUPS))
    rows.reject(beyond, "bad cell", "intersec_label", "It is no known code", "Use one of 0 to 5.")
    return np.where(six, among_eight(coded, SIX_GROUPS), coded)


def _dataset_of(paths: np.ndarray, crop: pd.DataFrame) -> np.ndarray:
    """Data set by the crop's name, else by a folder of the path; "" where neither tells."""
    folders = {**{name: name for name in DATASETS}, "ff++": "ffpp"}
    named = [next((part for part in re.split(r"[/\\]", path.lower()) if part in folders), "") for path in paths]
    return np.where(crop["dataset"] != "", crop["dataset"], [folders.get(name, "") for name in named])


def _forgeries(rows: Rows, label: np.ndarray, named: np.ndarray) -> np.ndarray:
    """Forgery by the crop's name, else by ``Specific`` (a code 1..5 or a name), else "real" or "fake" by ``Target``."""
    contradicts = (label != UNKNOWN) & (named != "") & ((named == "real") != (label == 0))
    finding = "It contradicts the kind of video in the image's name"
    rows.reject(contradicts, CONTRADICTION, "Target", finding, "Correct the cell or the image's name.")
    plain = np.where(label == 0, "real", "fake").astype(object)
    if not rows.has("Specific"):
        return np.where((named != "") & (named != "fake"), named, plain)
    meanings = dict(enumerate(FORGERIES)) | {name: name for name in FORGERIES}
    meanings = {str(written).lower(): name for written, name in meanings.items()}
    specific = np.array([meanings.get(cell.lower(), "") for cell in rows.strings("Specific")], dtype=object)
    contradicts = np.isin(named, FORGERIES) & (specific != "") & (specific != named)
    finding = "It contradicts the forgery in the image's name, which is believed"
    remedy = "Correct the cell if the name is wrong."
    rows.reject(contradicts, "unsure value", "Specific", finding, remedy, severity="warning")
    specific = np.where((specific == "real") == (plain == "real"), specific, "")
    return np.where(np.isin(named, FORGERIES), named, np.where(specific != "", specific, plain))
