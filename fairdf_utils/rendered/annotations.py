"""Demographic annotations of the rendered corpora, in the form of the public A-* files, flaws included.

One row a frame: an unnamed index, ``path``, ``label`` (1 = fake), attributes with 1 = has, -1 = has not, 0 =
undefined. Columns are spelled and ordered differently in every file, as in the wild; frames count from 0.
"""

from pathlib import PurePosixPath

import pandas as pd

from fairdf_utils.files import replacing
from fairdf_utils.rendered.images import _rng

FILES = {"ffpp": "A-FF++.csv", "dfdc": "A-DFDC.csv", "celebdf": "A-Celeb-DF.csv", "dfd": "A-DFD.csv"}
MAPPING = "DFDC-mapping.csv"
_HEADERS = {
    "ffpp": "path label male young asian white black bangs eyeglasses no_beard",
    "dfdc": "path label Asian White Black Young Male Bangs Eyeglasses No_Beard",
    "celebdf": "path label Male Young Bangs Eyeglasses No_Beard Asian White Black",
    "dfd": "Path Label MALE YOUNG ASIAN WHITE BLACK BANGS EYEGLASSES NO_BEARD",
}
_DEMOGRAPHICS = ["male", "asian", "white", "black"]


def write_annotations(folder, layout, clips, filming):
    """Write a layout's annotations, and the mapping of DFDC's annotation ids to file names.

    Parameters
    ----------
    folder : Path
    layout : {"ffpp", "dfdc", "celebdf", "dfd"}
    clips : list of Clip
        The videos that are annotated; those that the flaws concern come first.
    filming : Filming

    Returns
    -------
    list of tuple
        What is wrong on purpose: (file below ``folder``, video, flaw, expected).
    """
    folders = _folders(layout, clips, filming.seed)
    rows = [_clip_rows(clip, image_folder, filming) for clip, image_folder in zip(clips, folders, strict=True)]
    flaws = []
    if layout == "ffpp":
        flaws = _spoil(rows, clips)
    if layout == "dfdc":
        flaws = [_without_file_name(rows)]
        ids = [PurePosixPath(image_folder).name for image_folder in folders]
        names = [PurePosixPath(clip.path).name for clip in clips]
        _write(pd.DataFrame({"annotation_id": ids, "file_name": names}), folder / MAPPING, index=False)
    table = pd.concat(rows, ignore_index=True)
    header = _HEADERS[layout].split()
    table = table[[name.lower() for name in header]].set_axis(header, axis="columns")
    _write(table, folder / FILES[layout], index=True)
    return [(FILES[layout], *flaw) for flaw in flaws]


def _write(table, path, index):
    with replacing(path) as partial:
        table.to_csv(partial, index=index, lineterminator="\n", encoding="utf-8")


def _folders(layout, clips, seed):
    """The annotators' folder of each video's crops."""
    if layout == "dfdc":
        ids = _rng(seed, "annotation ids").permutation(9000)[: len(clips)]
        return [f"DFDC/face_images/{1000 + number}" for number in ids]
    folders = []
    for clip in clips:
        path = PurePosixPath(*PurePosixPath(clip.path).parts[1:]).with_suffix("")
        if layout == "celebdf":
            folders.append(f"Celeb-DF-v2_faces_single/{path}")
        else:
            folders.append(f"FaceForensics++/{path.parents[2]}/raw/face_images/{path.name}")
    return folders


def _clip_rows(clip, folder, filming):
    """One row a frame, columns in lower case."""
    face = clip.person.face(filming.seed)
    gender, race = clip.person.group.split("-")
    has = {
        "male": gender == "male",
        "young": _rng(filming.seed, "age", clip.person.name).uniform() < 0.6,
        **{name: race == name for name in ("asian", "white", "black")},
        "bangs": face.fringe > 0,
        "eyeglasses": face.glasses > 0,
        "no_beard": face.beard < 0.5,
    }
    table = pd.DataFrame({"path": [f"{folder}/frame{number}.png" for number in range(filming.frames)]})
    table["label"] = int(clip.forgery != "real")
    return table.assign(**{name: 1 if value else -1 for name, value in has.items()})


def _spoil(rows, clips):
    """Plant the flaws of FF++'s annotations into ``rows``, in place; one table a clip."""
    reals = [n for n, clip in enumerate(clips) if clip.forgery == "real"]
    fakes = [n for n, clip in enumerate(clips) if clip.forgery != "real"]
    twice, flips, undefined, disagrees, absent = *reals[:3], *fakes[:2]
    rows[flips].loc[: len(rows[flips]) // 4 - 1, "male"] *= -1  # a quarter of the frames, the end included
    rows[undefined][_DEMOGRAPHICS] = 0
    rows[disagrees]["label"] = 0
    rows[twice] = pd.concat([rows[twice].iloc[:1], rows[twice]], ignore_index=True)
    nowhere = rows[flips].assign(path=rows[flips]["path"].str.replace("/[0-9]{3}/", "/999/", regex=True))
    rows[absent] = nowhere.iloc[:0]
    rows.append(nowhere)
    return [
        (clips[twice].video, "frame listed twice", "its frame 0 used once"),
        (clips[flips].video, "group flips", f"settled by majority as {clips[flips].person.group}, listed"),
        (clips[undefined].video, "undefined demographics", "kept out, counted"),
        (clips[disagrees].video, "label disagreement", "listed; the video's folder says fake"),
        (clips[absent].video, "crops without annotation", "its crops listed as unmatched"),
        ("youtube/999", "annotated video does not exist", "listed as unmatched"),
    ]


def _without_file_name(rows):
    rows.append(rows[0].assign(path=rows[0]["path"].str.replace("/[0-9]+/", "/999/", regex=True)))
    return "", "annotation id without a file name", "999 listed as unmatched"
