"""Checks of image files: there, below the image root, whole, and of the right size."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd

from fairdf_utils import progress
from fairdf_utils.data.csv_rows import Problem
from fairdf_utils.data.pictures import opened, read_picture

# A whole file has this near its end; in the pixels of a JPEG 0xFF is never followed by 0xD9.
_END = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
_TAIL = 64  # bytes searched for the mark: some programs add a few of their own

_REMEDIES = {
    "image outside the root": "Copy the file below the image root; a link may not leave it.",
    "missing image": "Check the image root; otherwise remove the row, or extract the image again.",
    "unreadable image": "Extract the image again, or remove the row.",
    "wrong size": "Extract the image again at this size, or check with the size it was made for.",
}


def image_problems(rows: pd.DataFrame, root: str | Path, size: int | None = None) -> list[Problem]:
    """Open every image of the rows once, in threads, and say which cannot be used, at the first row that lists it.

    Of a PNG or JPEG file the header and the end are read, which tells its size and whether it was cut off; pixels are
    decoded only where the end is missing, and for other formats. Damage inside a whole file is not seen.

    ``rows`` have the columns ``img_path``, relative to ``root``, ``file`` and ``line``; ``size`` is the side, px, that
    every image must have. Raises a FileNotFoundError if the root is not a folder.
    """
    if not Path(root).is_dir():
        raise FileNotFoundError(f"image root {str(root)!r} is not a folder; give the folder that img_path starts from")
    rows = rows.drop_duplicates("img_path")
    with ThreadPoolExecutor() as pool:  # the threads wait for the disk together
        verdicts = pool.map(partial(_inspect, os.path.realpath(root), size), rows["img_path"])
        verdicts = list(progress.bar(verdicts, total=len(rows), desc="images", unit="image"))
    places = zip(rows["file"], rows["line"], rows["img_path"], verdicts, strict=True)
    return [
        Problem("error", kind, file, line, "img_path", path, finding, _REMEDIES[kind])
        for file, line, path, (kind, finding) in places
        if kind
    ]


def _inspect(root: str, size: int | None, path: str) -> tuple[str, str]:
    """Kind and finding for one image, both "" where it is good."""
    real = os.path.realpath(os.path.join(root, path))
    if not real.startswith(os.path.join(root, "")):
        return "image outside the root", f"It is {real}"
    try:
        width, height = _measure(real)
    except FileNotFoundError:
        return "missing image", f"Not below {root}"
    except OSError as error:
        return "unreadable image", error.strerror or str(error)
    if size is not None and (width, height) != (size, size):
        return "wrong size", f"It has {width} x {height} pixels instead of {size} x {size}"
    return "", ""


def _measure(path: str) -> tuple[int, int]:
    """Width and height of an image, pixels; raises what `read_picture` raises if it cannot be read."""
    with open(path, "rb") as handle:
        handle.seek(max(0, os.fstat(handle.fileno()).st_size - _TAIL))
        tail = handle.read()
        handle.seek(0)
        if not tail:
            raise OSError("The file is empty")
        with opened(handle) as image:
            mark = _END.get(image.format)
            if mark is not None and mark in tail:
                return image.size
    height, width, _ = read_picture(path).shape
    return width, height
