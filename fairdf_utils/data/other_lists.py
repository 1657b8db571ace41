"""Lists other projects keep of the same corpora: the released follow-up CSV and DeepfakeBench's json.

Both name crops and videos in their own way; here these become the names of this package (``crop_names``).
"""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from fairdf_utils.data.crop_names import from_crop_names, video_and_frame, video_facts
from fairdf_utils.data.csv_rows import UNKNOWN, ManifestError, leaves_root
from fairdf_utils.data.vocabulary import COLUMNS, DATASETS, FORGERIES, GROUPS, RACES, SIX_GROUP_DATASETS, SIX_GROUPS

REQUIRED = ("Image Path", "Target")  # tell the form; the columns of the demographics depend on the choice
LABELS = ("cleaned", "older")

# DeepfakeBench's label names: data set, label, corpus folder (a function of the video's name for Celeb-DF's reals).
_BENCH_LABELS = {
    "FF-real": ("ffpp", 0, "youtube/"),
    "FF-DF": ("ffpp", 1, "Deepfakes/"),
    "FF-F2F": ("ffpp", 1, "Face2Face/"),
    "FF-FS": ("ffpp", 1, "FaceSwap/"),
    "FF-NT": ("ffpp", 1, "NeuralTextures/"),
    "FF-FH": ("ffpp", 1, "FaceShifter/"),
    "DFD_real": ("dfd", 0, "actors/"),
    "DFD_fake": ("dfd", 1, "DeepFakeDetection/"),
    "CelebDFv1_real": ("celebdf", 0, None),
    "CelebDFv1_fake": ("celebdf", 1, "Celeb-synthesis/"),
    "CelebDFv2_real": ("celebdf", 0, None),
    "CelebDFv2_fake": ("celebdf", 1, "Celeb-synthesis/"),
    "DFDC_Real": ("dfdc", 0, ""),
    "DFDC_Fake": ("dfdc", 1, ""),
}


def required(labels):
    """The columns the follow-up form must have for a choice of labels."""
    cleaned = ("Ground Truth Gender", "Ground Truth Race", "Intersection")
    return (*REQUIRED, *(cleaned if labels == "cleaned" else ("intersec_label",)))


def rows_of(rows, labels):
    """Translate rows of the follow-up form.

    Parameters
    ----------
    rows : csv_rows.Rows
        Has the columns of :func:`required`.
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
    rows.reject(
        ~known,
        "Image Path",
        "Its name follows no known pattern; its video is taken to be the path up to the last underscore",
        "Rename it to 0_<forgery>_<video>_<frame>.png, or judge intervals over videos with care.",
        severity="warning",
    )
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


def _cleaned_codes(rows):
    male = rows.codes("Ground Truth Gender", (0, 1))
    race = rows.codes("Ground Truth Race", range(len(RACES)))
    both = (male != UNKNOWN) & (race != UNKNOWN)
    code = np.where(both, (1 - male) * len(RACES) + race, UNKNOWN)
    coded = rows.codes("Intersection", range(2 * len(RACES)))
    rows.reject(
        both & (coded != UNKNOWN) & (coded != code),
        "Intersection",
        "It contradicts Ground Truth Gender and Ground Truth Race",
        "Correct one of them (0 male-asian, 1 male-white, .. 7 female-others).",
    )
    return code


def _older_codes(rows, dataset):
    """Positions among the eight groups; Celeb-DF and DFD count their six groups 0..5."""
    rows.reject(
        dataset == "",
        "Image Path",
        "The path names no data set, so that intersec_label may count six or eight groups",
        f'Put the images below a folder named after their data set ({", ".join(DATASETS)}), or read labels="cleaned".',
    )
    coded = rows.codes("intersec_label", range(2 * len(RACES)))
    six = np.isin(dataset, SIX_GROUP_DATASETS)
    rows.reject(six & (coded >= len(SIX_GROUPS)), "intersec_label", "It is no known code", "Use one of 0 to 5.")
    translated = np.array([GROUPS.index(group) for group in SIX_GROUPS])[np.clip(coded, 0, len(SIX_GROUPS) - 1)]
    return np.where(six & (coded != UNKNOWN), translated, coded)


def _dataset_of(paths, crop):
    """Data set by the crop's name, else by a folder of the path; "" where neither tells."""
    folders = {**{name: name for name in DATASETS}, "ff++": "ffpp"}
    return np.array(
        [
            name or next((folders[part] for part in re.split(r"[/\\]", path.lower()) if part in folders), "")
            for path, name in zip(paths, crop["dataset"], strict=True)
        ],
        dtype=object,
    )


def _forgeries(rows, label, named):
    """Method by the crop's name, else by ``Specific`` (a code 1..5 or a name), else "real" or "fake" by ``Target``."""
    rows.reject(
        (label != UNKNOWN) & (named != "") & ((named == "real") != (label == 0)),
        "Target",
        "It contradicts the kind of video in the image's name",
        "Correct the cell or the image's name.",
    )
    plain = np.where(label == 0, "real", "fake").astype(object)
    if not rows.has("Specific"):
        return np.where((named != "") & (named != "fake"), named, plain)
    meanings = {
        **{str(code): name for code, name in enumerate(FORGERIES)},
        **{name.lower(): name for name in FORGERIES},
    }
    specific = np.array([meanings.get(cell.lower(), "") for cell in rows.strings("Specific")], dtype=object)
    rows.reject(
        np.isin(named, FORGERIES) & (specific != "") & (specific != named),
        "Specific",
        "It contradicts the forgery in the image's name, which is believed",
        "Correct the cell if the name is wrong.",
        severity="warning",
    )
    specific = np.where((specific == "real") == (plain == "real"), specific, "")
    return np.where(np.isin(named, FORGERIES), named, np.where(specific != "", specific, plain))


def read_deepfakebench(path, dataset, split, compression="c23", root=""):
    """Read one split of a DeepfakeBench json list: nested data set, label name, split, compression, video, frames.

    The lists hold no demographics: give the rows to ``annotations.merge``. FF++ and DFD lists have the compression
    level, the others do not. DeepfakeBench's Celeb-DF lists have the test videos in "train" as well; take one of the
    two and split it again, or use the official test list.

    Parameters
    ----------
    path : str or Path
        For instance ``FaceForensics++.json``.
    dataset : {"ffpp", "dfdc", "celebdf", "dfd"}
        Which label names to take.
    split : {"train", "val", "test"}
    compression : str
        Used where the list has the level.
    root : str
        Taken off the front of every frame's path, so that paths are relative to the image root.

    Returns
    -------
    pandas.DataFrame
        Canonical columns without gender, race and group; ``source`` says where in the list a row stands.

    Raises
    ------
    ManifestError
        Not such a list, an unknown label name, no videos of the data set, or a path outside the image root.
    """
    path = Path(path)
    videos = [
        (name, video, entry)
        for name, entries in _bench_labels(path, dataset).items()
        for video, entry in _bench_videos(path, name, entries, split, compression).items()
    ]
    rows = []
    for name, video, entry in videos:
        if not isinstance(entry, dict) or not isinstance(entry.get("frames"), list):
            raise ManifestError(f"{path}: {name}, {split}, {video!r} has no list of frames. Make the list again.")
        frames = [str(frame).replace("\\", "/") for frame in entry["frames"]]
        where = f"{path}, {name}, {split}, {video}"
        rows += [(_below(frame, root, where), *_bench_row(name, video, frame), where) for frame in frames]
    if not rows:
        raise ManifestError(f"{path}: no {split} frames of {dataset}. Check data set, split and compression.")
    table = pd.DataFrame(rows, columns=["img_path", "label", "video", "frame", "source"])
    table = pd.concat([table, video_facts(table["video"])], axis=1)
    plain = np.where(table["label"] == 0, "real", "fake")
    table["forgery"] = np.where(table["forgery"] == "", plain, table["forgery"])
    keep = [column for column in COLUMNS if column not in ("gender", "race", "group")]
    return table[[*keep, "source"]].infer_objects()


def _bench_labels(path, dataset):
    """The label names of one data set with what is nested below them."""
    if dataset not in DATASETS:
        raise ValueError(f"dataset={dataset!r} is unknown. Use one of {', '.join(DATASETS)}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = {name: below for inner in content.values() for name, below in inner.items()}
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such list. Correct the path.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise ManifestError(f"{path}: not a DeepfakeBench list ({error}). Make the list again.") from None
    unknown = [name for name in labels if name not in _BENCH_LABELS]
    if unknown:
        raise ManifestError(f"{path}: unknown label {unknown[0]!r}. Known are {', '.join(_BENCH_LABELS)}.")
    return {name: below for name, below in labels.items() if _BENCH_LABELS[name][0] == dataset}


def _bench_videos(path, name, entries, split, compression):
    """Video name -> entry; the level of compression is stepped over where there is one."""
    videos = entries.get(split, {}) if isinstance(entries, dict) else None
    if not isinstance(videos, dict):
        raise ManifestError(f"{path}: {name} has no splits of videos. Make the list again.")
    if _BENCH_LABELS[name][0] in ("ffpp", "dfd"):
        if videos and compression not in videos:
            raise ManifestError(f"{path}: {name} has no compression {compression!r}. Use one of {', '.join(videos)}.")
        videos = videos.get(compression, {})
    return videos


def _bench_row(name, video, frame):
    """Label, video name and frame number."""
    _, label, folder = _BENCH_LABELS[name]
    if folder is None:
        folder = "Celeb-real/" if video.startswith("id") else "YouTube-real/"
    digits = re.search(r"([0-9]{1,9})\.[^./]*$", frame)
    return label, folder + video, int(digits[1]) if digits else 0


def _below(frame, root, where):
    """The path relative to the image root."""
    relative = frame.removeprefix(root.replace("\\", "/").rstrip("/") + "/") if root else frame
    absolute, leaving = leaves_root([relative])
    if not relative or absolute[0] or leaving[0]:
        raise ManifestError(
            f"{where}: {frame!r} is not below the image root. Pass the part that comes before it as root."
        )
    return relative
