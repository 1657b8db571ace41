"""The manifests of the released follow-up works: other column names, other codes.

Those with a race have two sets of demographic labels, which may contradict each other. The cleaned ones are read
("Ground Truth ...", "Intersection"); the older, noisier ``intersec_label`` is not. Those of AI-Face's second release
have a skin tone in place of the race, and six groups, women first: "Intersection" 0 female-light to 5 male-dark.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fairdf_utils.data.crop_names import from_crop_names, video_and_frame
from fairdf_utils.data.csv_rows import UNKNOWN, Rows
from fairdf_utils.data.released_columns import CONTRADICTION, names_of
from fairdf_utils.data.vocabulary import FORGERIES, GROUPS, RACES, TONE_GROUPS, TONES

FIRST = "Image Path"


def required(header: Iterable[str]) -> tuple[str, ...]:
    """The columns that a file with this header must have; it may call the gender "Gender" or "Predicted Gender"."""
    attributes = ["Gender"] if any(name.endswith("Skin Tone") for name in header) else ["Gender", "Race"]
    forms = [[prefix + name for prefix in ("Ground Truth ", "Predicted ", "")] for name in attributes]
    return (FIRST, "Target", *(next((n for n in names if n in header), names[0]) for names in forms), "Intersection")


def rows_of(rows: Rows) -> dict[str, np.ndarray]:
    """The canonical columns as arrays (N,), with ``skin_tone`` in place of ``race`` where the file has it."""
    paths = rows.image_paths(FIRST)
    label = rows.codes("Target", (0, 1))
    crop = from_crop_names(paths)
    known = (crop["dataset"] != "").to_numpy()
    finding = "Its name follows no known pattern; its video is taken to be the path up to the last underscore"
    remedy = "Rename it to 0_<forgery>_<video>_<frame>.png, or judge intervals over videos with care."
    rows.reject(~known, "unsure value", FIRST, finding, remedy, severity="warning")
    own_video, own_frame = video_and_frame(paths)
    return {
        "img_path": paths,
        "label": label,
        "forgery": _forgeries(rows, label, crop["forgery"].to_numpy()),
        **_groups(rows),
        "video": np.where(known, crop["video"], own_video),
        "identity": np.where(known, crop["identity"], own_video),
        "source_identity": crop["source_identity"].to_numpy(),
        "frame": np.where(known, crop["frame"], own_frame),
    }


def _groups(rows: Rows) -> dict[str, np.ndarray]:
    """``group``, ``gender``, and ``race`` or ``skin_tone``."""
    _, _, gender, *race, _ = required(rows.cells)
    scheme, second = (GROUPS, "race") if race else (TONE_GROUPS, "skin_tone")
    male = rows.codes(gender, (0, 1))
    raced = rows.codes(race[0], range(len(RACES))) if race else np.zeros_like(male)
    coded = rows.codes("Intersection", range(len(scheme)))
    told = (1 - male) * len(RACES) + raced if race else male * len(TONES) + coded % len(TONES)
    contradicts = (male != UNKNOWN) & (raced != UNKNOWN) & (coded != UNKNOWN) & (coded != told)
    remedy = f"Correct one of them ({', '.join(scheme)}, from 0)."
    rows.reject(contradicts, CONTRADICTION, "Intersection", f"It contradicts {' and '.join([gender, *race])}", remedy)
    return names_of(coded, scheme, second)


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
