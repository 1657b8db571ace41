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

# The part of a crop's name between "0_" and "_<frame>": pattern, data set, the corpus folder (None: the first group).
_CROP_STEMS = [
    (re.compile(rf"({'|'.join(FORGERIES[1:])})_([0-9]{{3}}_[0-9]{{3}})"), "ffpp", None),
    (re.compile(r"(youtube)_([0-9]{3})"), "ffpp", None),
    (re.compile(r"(Celeb-synthesis)_(id[0-9]+_id[0-9]+_[0-9]+)"), "celebdf", None),
    (re.compile(r"(Celeb-real)_(id[0-9]+_[0-9]+)"), "celebdf", None),
    (re.compile(r"(YouTube-real)_([0-9]+)"), "celebdf", None),
    (re.compile(r"()([0-9]{2}_[0-9]{2}__.+__[A-Z0-9]+)"), "dfd", "DeepFakeDetection"),
    (re.compile(r"()([0-9]{2}__.+)"), "dfd", "actors"),
    (re.compile(r"()([0-9]+)"), "dfdc", ""),
]
_CROP_NAME = re.compile(r"[0-9]+_(.+)_([0-9]{1,9})\.[^./\\]*")

# Video name -> forgery ("" the folder's own name), then the groups are identity and source identity.
_VIDEO_NAMES = [
    (re.compile(rf"(?:{'|'.join(FORGERIES[1:])})/([0-9]{{3}})_([0-9]{{3}})"), ""),
    (re.compile(r"youtube/([0-9]{3})()"), "real"),
    (re.compile(r"DeepFakeDetection/([0-9]{2})_([0-9]{2})__.+"), "fake"),
    (re.compile(r"actors/([0-9]{2})__.+()"), "real"),
    (re.compile(r"Celeb-synthesis/(id[0-9]+)_(id[0-9]+)_[0-9]+"), "fake"),
    (re.compile(r"Celeb-real/(id[0-9]+)_[0-9]+()"), "real"),
    (re.compile(r"YouTube-real/([0-9]+)()"), "real"),
]
_VIDEO_FRAME = re.compile(r"^(.*?)(?:_([0-9]{1,9}))?(?:\.[^./\\]*)?$", re.DOTALL)


def video_facts(videos: Iterable[str]) -> pd.DataFrame:
    """Read forgery and persons off the names of videos.

    Parameters
    ----------
    videos : iterable of str, (N,)
        For instance "FaceSwap/000_003"; a name of no known corpus is its own identity.

    Returns
    -------
    pandas.DataFrame
        Columns ``forgery`` ("" where the name does not tell), ``identity``, ``source_identity``; N rows.
    """
    codes, unique = pd.factorize(np.asarray(videos, dtype=object))
    facts = pd.DataFrame([_facts(video) for video in unique], columns=["forgery", "identity", "source_identity"])
    return facts.astype(object).iloc[codes].reset_index(drop=True)


def _facts(video: str) -> tuple[str, str, str]:
    for pattern, forgery in _VIDEO_NAMES:
        if match := pattern.fullmatch(video):
            identity, source = match.groups()
            prefix = "youtube-" if video.startswith("YouTube-real/") else ""
            return forgery or video.split("/")[0], prefix + identity, source
    return "", video, ""


def from_crop_names(paths: Iterable[str]) -> pd.DataFrame:
    """Recover what the name of a crop tells, ``0_<forgery>_<video>_<frame>.png`` and the like.

    Parameters
    ----------
    paths : sequence of str, (N,)

    Returns
    -------
    pandas.DataFrame
        N rows; ``dataset`` (one of :data:`DATASETS`, "" where the name follows no known pattern), ``video``,
        ``frame`` (int), and the columns of :func:`video_facts`.
    """
    matches = [_CROP_NAME.fullmatch(re.split(r"[/\\]", path)[-1]) for path in paths]
    stems = np.array([match[1] if match else "" for match in matches], dtype=object)
    codes, unique = pd.factorize(stems)
    known = pd.DataFrame([_video_of(stem) for stem in unique], columns=["dataset", "video"]).astype(object)
    table = known.iloc[codes].reset_index(drop=True)
    table["frame"] = np.array([int(match[2]) if match else 0 for match in matches], dtype=np.int64)
    return pd.concat([table, video_facts(table["video"])], axis=1)


def _video_of(stem: str) -> tuple[str, str]:
    for pattern, dataset, folder in _CROP_STEMS:
        if match := pattern.fullmatch(stem):
            folder = match[1] if folder is None else folder
            return dataset, f"{folder}/{match[2]}" if folder else match[2]
    return "", ""


def video_and_frame(paths: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Video and frame number, (N,) each, of paths such as ``ffpp/real/0012_030.jpg`` -> ("ffpp/real/0012", 30)."""
    parts = [_VIDEO_FRAME.match(path).groups("0") for path in paths]
    videos = np.array([video for video, _ in parts], dtype=object)
    return videos, np.array([int(frame) for _, frame in parts], dtype=np.int64)
