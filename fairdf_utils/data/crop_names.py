"""What the names of crops and videos tell: corpus, forgery, persons, frame.

A video is "<folder>/<file name without suffix>" as in its corpus ("Deepfakes/000_003", "actors/01__kitchen_pan",
"Celeb-synthesis/id1_id2_0003"), for DFDC the file name alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from fairdf_utils.data.vocabulary import FORGERIES

# Names of videos: corpus, forgery ("" the folder's own name), pattern whose groups are identity and source identity.
_VIDEO_NAMES = [
    ("ffpp", "", re.compile(rf"(?:{'|'.join(FORGERIES[1:])})/([0-9]{{3}})_([0-9]{{3}})")),
    ("ffpp", "real", re.compile(r"youtube/([0-9]{3})()")),
    ("dfd", "fake", re.compile(r"DeepFakeDetection/([0-9]{2})_([0-9]{2})__.+")),
    ("dfd", "real", re.compile(r"actors/([0-9]{2})__.+()")),
    ("celebdf", "fake", re.compile(r"Celeb-synthesis/(id[0-9]+)_(id[0-9]+)_[0-9]+")),
    ("celebdf", "real", re.compile(r"Celeb-real/(id[0-9]+)_[0-9]+()")),
    ("celebdf", "real", re.compile(r"YouTube-real/([0-9]+)()")),
]
_CROP_NAME = re.compile(r"[0-9]+_(.+)_([0-9]{1,9})\.[^./\\]*")
_VIDEO_FRAME = re.compile(r"^(.*?)(?:_([0-9]{1,9}))?(?:\.[^./\\]*)?$", re.DOTALL)


def video_facts(videos: Iterable[str]) -> pd.DataFrame:
    """Read ``forgery`` ("" where it is not told), ``identity`` and ``source_identity`` off N names of videos.

    A name of no known corpus is its own identity.
    """
    codes, unique = pd.factorize(np.asarray(videos, dtype=object))
    facts = pd.DataFrame([_facts(video)[1:] for video in unique], columns=["forgery", "identity", "source_identity"])
    return facts.astype(object).iloc[codes].reset_index(drop=True)


def _facts(video: str) -> tuple[str, str, str, str]:
    """Corpus ("" none), forgery, identity, source identity."""
    for dataset, forgery, pattern in _VIDEO_NAMES:
        if match := pattern.fullmatch(video):
            folder = video.split("/")[0]
            prefix = "youtube-" if folder == "YouTube-real" else ""
            return dataset, forgery or folder, prefix + match[1], match[2]
    return "", "", video, ""


def from_crop_names(paths: Iterable[str]) -> pd.DataFrame:
    """Recover what the names of N crops tell, ``0_<forgery>_<video>_<frame>.png`` and the like.

    Columns ``dataset`` (one of :data:`DATASETS`, "" where the name follows no known pattern), ``video``, ``frame``
    (int), and those of :func:`video_facts`.
    """
    matches = [_CROP_NAME.fullmatch(re.split(r"[/\\]", path)[-1]) for path in paths]
    stems = np.array([match[1] if match else "" for match in matches], dtype=object)
    codes, unique = pd.factorize(stems)
    known = pd.DataFrame([_video_of(stem) for stem in unique], columns=["dataset", "video"]).astype(object)
    table = known.iloc[codes].reset_index(drop=True)
    table["frame"] = np.array([int(match[2]) if match else 0 for match in matches], dtype=np.int64)
    return pd.concat([table, video_facts(table["video"])], axis=1)


def _video_of(stem: str) -> tuple[str, str]:
    """Corpus and video by what stands between "0_" and "_<frame>": the folder is in it, but for DFD and DFDC."""
    for video in (stem.replace("_", "/", 1), f"DeepFakeDetection/{stem}", f"actors/{stem}"):
        if dataset := _facts(video)[0]:
            return dataset, video
    return ("dfdc", stem) if re.fullmatch("[0-9]+", stem) else ("", "")


def video_and_frame(paths: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Video and frame number, (N,) each, of paths such as ``ffpp/real/0012_030.jpg`` -> ("ffpp/real/0012", 30)."""
    parts = [_VIDEO_FRAME.match(path).groups("0") for path in paths]
    videos = np.array([video for video, _ in parts], dtype=object)
    return videos, np.array([int(frame) for _, frame in parts], dtype=np.int64)
