"""The manifests of the released follow-up work: other column names, other codes.

They have two sets of demographic labels, which may contradict each other. The cleaned ones are read ("Ground Truth
...", "Intersection"); the older, noisier ``intersec_label`` is not.
"""

from __future__ import annotations

import numpy as np

from fairdf_utils.data.crop_names import from_crop_names, video_and_frame
from fairdf_utils.data.csv_rows import UNKNOWN, Rows
from fairdf_utils.data.released_columns import CONTRADICTION
from fairdf_utils.data.vocabulary import FORGERIES, GROUPS, RACES

REQUIRED = ("Image Path", "Target", "Ground Truth Gender", "Ground Truth Race", "Intersection")


def rows_of(rows: Rows) -> dict[str, np.ndarray]:
    """The canonical columns as arrays (N,); groups as ``code``, their position among the eight."""
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
        "code": _group_codes(rows),
        "video": np.where(known, crop["video"], own_video),
        "identity": np.where(known, crop["identity"], own_video),
        "source_identity": crop["source_identity"].to_numpy(),
        "frame": np.where(known, crop["frame"], own_frame),
    }


def _group_codes(rows: Rows) -> np.ndarray:
    male = rows.codes("Ground Truth Gender", (0, 1))
    race = rows.codes("Ground Truth Race", range(len(RACES)))
    both = (male != UNKNOWN) & (race != UNKNOWN)
    code = np.where(both, (1 - male) * len(RACES) + race, UNKNOWN)
    coded = rows.codes("Intersection", range(len(GROUPS)))
    contradicts = both & (coded != UNKNOWN) & (coded != code)
    remedy = "Correct one of them (0 male-asian, 1 male-white, .. 7 female-others)."
    told = "It contradicts Ground Truth Gender and Ground Truth Race"
    rows.reject(contradicts, CONTRADICTION, "Intersection", told, remedy)
    return code


def _forgeries(rows: Rows, label: np.ndarray, named: np.ndarray) -> np.ndarray:
    """Forgery by the crop's name, else by ``Specific`` (a code 1..5 or a name), else "real" or "fake" by ``Target``."""
    contradicts = (label != UNKNOWN) & (named != "") & ((named == "real") != (label == 0))
    finding = "It contradicts the kind of video in the image's name"
    rows.reject(contradicts, CONTRADICTION, "Target", finding, "Correct the cell or the image's name.")
    plain = np.where(label == 0, "real", "fake").astype(object)
    if "Specific" not in rows.cells:
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
