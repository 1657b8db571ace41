"""Where the four corpora keep their videos, and what the names say: label, forgery, persons, compression.

``ffpp``, ``dfd``
    ``original_sequences/{youtube,actors}/<compression>/videos/*`` and
    ``manipulated_sequences/<forgery>/<compression>/videos/*``, as FaceForensics++ is handed out; ``raw`` may be ``c0``.
``celebdf``
    ``Celeb-real/*``, ``YouTube-real/*``, ``Celeb-synthesis/*``.
``dfdc``
    ``metadata.json`` (or ``labels.csv`` of the test set) beside the videos it lists: in the root or up to two folders
    below it.
``folder``
    Anything below ``real/`` and ``fake/``: videos, or images as videos of one frame.

Nothing outside the root is ever opened: a list that names such a path is refused, a link that leads there is a video
that fails (see :func:`locate`).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import pandas as pd

from fairdf_utils.corpora.videos import IMAGES, VIDEOS, VideoError
from fairdf_utils.data.crop_names import video_facts
from fairdf_utils.data.csv_rows import leaves_root
from fairdf_utils.data.vocabulary import FORGERIES
from fairdf_utils.files import printable

COLUMNS = ("path", "video", "label", "forgery", "identity", "source_identity", "compression")
COMPRESSIONS = {"raw": ("raw", "c0"), "c0": ("raw", "c0"), "c23": ("c23",), "c40": ("c40",)}
_FFPP = {"original_sequences/youtube": "real"} | {f"manipulated_sequences/{name}": name for name in FORGERIES[1:]}
_DFD = {"original_sequences/actors": "real", "manipulated_sequences/DeepFakeDetection": "fake"}
_CELEBDF = {"Celeb-real": "real", "YouTube-real": "real", "Celeb-synthesis": "fake"}
_EXPECTED = {
    "ffpp": "original_sequences/youtube/{0}/videos/*.mp4 or manipulated_sequences/Deepfakes/{0}/videos/*.mp4",
    "dfd": "original_sequences/actors/{0}/videos/*.mp4 or manipulated_sequences/DeepFakeDetection/{0}/videos/*.mp4",
    "celebdf": "Celeb-real/*.mp4, YouTube-real/*.mp4 or Celeb-synthesis/*.mp4",
    "dfdc": "metadata.json or labels.csv beside the videos, in folders such as dfdc_train_part_0",
    "folder": "real/ and fake/ with videos or images",
}
Found = tuple[Path, str, str, str]  # file, video, forgery, identity where the name does not tell it


class CorpusError(ValueError):
    """A corpus that cannot be used as asked; the message names folder or file, entry and remedy."""


def find_videos(root: str | Path, layout: str, compression: str = "c23") -> pd.DataFrame:
    """List the videos of a corpus, whose root holds the folders of the layout (see the module), without opening them.

    ``compression`` ("raw" or "c0", "c23", "c40") is of FaceForensics++ and DFD, and not read for the others.

    Returns
    -------
    pandas.DataFrame
        One row a video, ordered by path: ``path`` (relative to the root, "/" between parts), ``video`` (its name in
        the data set: folder and stem; with the suffix where two files would share a name), ``label`` (1 fake),
        ``forgery`` ("fake" where the corpus does not say), ``identity`` (of the person shown; the name's stem where it
        does not follow the corpus), ``source_identity`` ("" where there is none) and ``compression`` ("" where there
        is one only). Hidden files, and those without a video's suffix (or in ``folder`` an image's), are left out.

    Raises a CorpusError if the root is missing, holds no video in this layout, or has a list that is broken or names a
    path outside it.
    """
    root = Path(root)
    if layout not in LAYOUTS:
        raise CorpusError(f"Unknown layout {layout!r}. Use one of {', '.join(LAYOUTS)}.")
    if compression not in COMPRESSIONS:
        raise CorpusError(f"Unknown compression {compression!r}. Use one of {', '.join(COMPRESSIONS)}.")
    kind = COMPRESSIONS[compression][0]
    expected = _EXPECTED[layout].format(kind)
    if not root.is_dir():
        raise CorpusError(f"{root}: no such folder. Give the folder that holds {expected}.")
    found = [(file.relative_to(root).as_posix(), *told) for file, *told in LAYOUTS[layout](root, compression)]
    if not found:
        names = sorted(entry.name for entry in root.iterdir())
        raise CorpusError(
            f"{root}: holds no videos in the layout {layout!r}. Expected {expected} below it; found "
            f"{', '.join(names[:5]) or 'nothing'}{' ...' if len(names) > 5 else ''}. Correct the root, the layout or "
            "the compression."
        )
    # Bytes that are no UTF-8 become \x.., so that any file can hold the name; the video fails later.
    rows = [[printable(cell) for cell in row] for row in found]
    table = pd.DataFrame(rows, columns=["path", "video", "forgery", "identity"]).drop_duplicates()
    table = table.sort_values("path", ignore_index=True)
    facts = video_facts(table["video"])
    by_name = (table["identity"] == "") & (facts["forgery"] != "")
    stem = table["path"].map(lambda path: PurePosixPath(path).stem)
    table["identity"] = table["identity"].mask(table["identity"] == "", facts["identity"].where(by_name, stem))
    table["source_identity"] = facts["source_identity"].where(by_name, "")
    table["label"] = (table["forgery"] != "real").astype(int)
    table["compression"] = kind if layout in ("ffpp", "dfd") else ""
    return _named_apart(table[list(COLUMNS)].infer_objects())


def locate(root: str | Path, path: str | Path) -> Path:
    """The file behind a row's ``path``, once it is sure to lie below the root.

    Raises a VideoError: "outside the root" (through ``..`` or a link), "symlink loop", "not a file", or "name not
    UTF-8" (no manifest could hold it).
    """
    root, file = Path(root), Path(root, path)
    real = Path(os.path.realpath(file))  # which also ends on a loop
    if not real.is_relative_to(os.path.realpath(root)):
        raise VideoError("outside the root")
    if "\\" in str(path) and not os.path.lexists(file):  # as `find_videos` writes other bytes
        raise VideoError("name not UTF-8")
    if file.is_dir():
        loop = file.is_symlink() and Path(os.path.realpath(file.parent)).is_relative_to(real)
        raise VideoError("symlink loop" if loop else "not a file")
    return file


def _has_suffix(file: Path, suffixes: Sequence[str]) -> bool:
    return file.suffix.lower() in suffixes and not file.name.startswith(".")  # "._000.mp4" is left by macOS


def _grouped(groups: Mapping[str, str], below: str, root: Path, compression: str) -> Iterator[Found]:
    """Videos in the folders ``groups``, or in each one's folders ``below`` of a compression."""
    places = [below.format(name) for name in COMPRESSIONS[compression]] if below else [""]
    folders = [(group, root / group / place) for group in groups for place in places]
    for group, folder in folders:
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            if _has_suffix(file, VIDEOS):
                yield file, f"{PurePosixPath(group).name}/{file.stem}", groups[group], ""


def _dfdc(root: Path, _: str) -> Iterator[Found]:
    listed = [file for name in _LISTS for depth in ("", "*/", "*/*/") for file in root.glob(depth + name)]
    for folder in sorted({file.parent for file in listed}):
        source = next(folder / name for name in _LISTS if (folder / name).is_file())
        for place, name, label, original in _LISTS[source.name](source):
            _refuse_outside(root, source, place, name)
            if _has_suffix(Path(name), VIDEOS):
                group = "" if folder == root else f"{folder.name}/"
                identity = Path(str(original or name)).stem
                yield folder / name, group + Path(name).stem, ("real", "fake")[label], identity


def _refuse_outside(root: Path, source: Path, place: str, name: str) -> None:
    escapes = not name or any(map(any, leaves_root([name]))) or "\0" in name
    if escapes or not Path(os.path.realpath(source.parent / name)).is_relative_to(os.path.realpath(root)):
        raise CorpusError(f"{source}, {place}: {name!r} leaves the data root {root}. Remove the entry.")


def _metadata(source: Path) -> Iterator[tuple]:
    """(place, name, label, original) of every entry of a metadata.json."""
    try:
        entries = json.loads(source.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorpusError(f"{source}: not a JSON file ({error}). Get it anew.") from None
    if not isinstance(entries, dict):
        raise CorpusError(f"{source}: holds no object of file names. Get it anew from the corpus.")
    for name, entry in entries.items():
        label = entry.get("label") if isinstance(entry, dict) else None
        if label not in ("REAL", "FAKE"):
            raise CorpusError(f"{source}, entry {name!r}: label is {label!r}. It has to be REAL or FAKE.")
        yield f"entry {name!r}", name, int(label == "FAKE"), entry.get("original")


def _labels(source: Path) -> Iterator[tuple]:
    """(place, name, label, None) of every row of a labels.csv."""
    with source.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = {"filename", "label"} - set(reader.fieldnames or [])
        if missing:
            raise CorpusError(f"{source}, line 1: missing column {', '.join(sorted(missing))}. Add or rename it.")
        for row in reader:
            place = f"line {reader.line_num}"
            if row["label"] not in ("0", "1"):
                raise CorpusError(f"{source}, {place}: label is {row['label']!r}. It has to be 0 (real) or 1 (fake).")
            yield place, row["filename"], int(row["label"]), None


_LISTS = {"labels.csv": _labels, "metadata.json": _metadata}


def _folder(root: Path, _: str) -> Iterator[Found]:
    for group in ("real", "fake"):
        for folder, folders, files in os.walk(root / group):  # links to folders are not followed
            links = [name for name in folders if Path(folder, name).is_symlink()]
            for file in (Path(folder, name) for name in sorted(files + links)):
                if file.name in links or _has_suffix(file, VIDEOS + IMAGES):
                    video = file.relative_to(root).with_suffix("").as_posix()
                    yield file, video, group, video


LAYOUTS = {
    "ffpp": partial(_grouped, _FFPP, "{}/videos"),
    "dfd": partial(_grouped, _DFD, "{}/videos"),
    "celebdf": partial(_grouped, _CELEBDF, ""),
    "dfdc": _dfdc,
    "folder": _folder,
}


def _named_apart(table: pd.DataFrame) -> pd.DataFrame:
    """Give videos their suffix where two share a name, or where one's name is a folder of another's."""
    folders = {str(parent) for video in table["video"] for parent in PurePosixPath(video).parents}
    clash = table["video"].duplicated(keep=False) | table["video"].isin(folders)
    suffixes = table["path"].map(lambda path: PurePosixPath(path).suffix)
    table = table.assign(video=table["video"] + suffixes.where(clash, ""))
    again = table[table["video"].duplicated(keep=False)].sort_values("video")
    if len(again):
        first, second = again["path"].iloc[:2]
        if first == second:
            raise CorpusError(f"{first} is listed twice with different labels. Remove one of the entries.")
        raise CorpusError(f"{first} and {second} would share the name {again['video'].iloc[0]!r}. Rename one of them.")
    return table
