"""DFD, Celeb-DF and DFDC in small: rendered videos under their owners' names, with lists and annotations."""

import json
from pathlib import PurePosixPath

import pandas as pd

from fairdf_utils.data.vocabulary import FORGERIES, SIX_GROUPS
from fairdf_utils.files import write_text
from fairdf_utils.rendered.videos import FFPP_GROUPS, Clip, Person, annotation_rows, film

ANNOTATIONS = {"dfd": "A-DFD.csv", "celebdf": "A-Celeb-DF.csv", "dfdc": "A-DFDC.csv"}
MAPPING = "DFDC-mapping.csv"
SCENES = ("exit_phone_room", "kitchen_pan", "walking_outside_cafe_disgusted")
# Columns are spelled and ordered differently in every file, as in the wild.
_HEADERS = {
    "dfd": "Path Label MALE ASIAN WHITE BLACK EYEGLASSES",
    "celebdf": "path label Male Eyeglasses Asian White Black",
    "dfdc": "path label Asian White Black Male Eyeglasses",
}


def make_corpus(layout, root, filming):
    """Film one of the corpora into ``root / layout``, its annotations into ``root / "annotations"``; its clips."""
    clips = {"dfd": dfd_clips, "celebdf": celebdf_clips, "dfdc": dfdc_clips}[layout]()
    film(clips, filming, root)
    if layout == "celebdf":
        tested = [clip for clip in clips if clip.person.name in ("id0", "id1", "stranger0")]
        lines = [f"{int(clip.source is None)} {clip.path.split('/', 1)[1]}" for clip in tested]
        lines.append("1 Celeb-real/id99_0000.mp4")  # listed, but nowhere else
        write_text(root / layout / "List_of_testing_videos.txt", "\n".join(lines) + "\n")
    if layout == "dfdc":
        _write_dfdc_lists(root / layout, clips)
    _write_annotations(root / "annotations", layout, clips, filming)
    return clips


def dfd_clips():
    actors, clips = [Person(f"actor{n}", SIX_GROUPS[n]) for n in range(6)], []
    for number, actor in enumerate(actors):
        other = (number + 1) % len(actors)
        take = f"{number + 1:02d}__{SCENES[number % 3]}"
        clips.append(Clip(f"dfd/original_sequences/actors/c23/videos/{take}.mp4", "dfd", "real", actor, take))
        name = f"{number + 1:02d}_{other + 1:02d}__{SCENES[number % 3]}__{'ABCDEFGH'[number:]:A<8}"
        path = f"dfd/manipulated_sequences/DeepFakeDetection/c23/videos/{name}.mp4"
        clips.append(Clip(path, "dfd", ("Deepfakes", "FaceShifter")[number % 2], actor, take, actors[other]))
    return clips


def celebdf_clips():
    """Everybody is swapped with the next two, so that all persons hang together; and strangers from YouTube."""
    persons, clips = [Person(f"id{n}", SIX_GROUPS[n % 6]) for n in range(8)], []
    for number, person in enumerate(persons):
        for turn in range(2):
            other = (number + 1 + turn) % len(persons)
            take = f"id{number}_{turn:04d}"
            clips.append(Clip(f"celebdf/Celeb-real/{take}.mp4", "celebdf", "real", person, take))
            path = f"celebdf/Celeb-synthesis/id{number}_id{other}_{turn:04d}.mp4"
            clips.append(Clip(path, "celebdf", "Deepfakes", person, take, persons[other]))
    for number in range(2):
        stranger = Person(f"stranger{number}", SIX_GROUPS[number])
        clips.append(Clip(f"celebdf/YouTube-real/{number:05d}.mp4", "celebdf", "real", stranger, stranger.name))
    return clips


def dfdc_clips():
    """Two parts for training and a test folder; everybody has a real video and a fake; one name is not ASCII."""
    persons, clips = [Person(f"dfdc{n}", FFPP_GROUPS[n // 2]) for n in range(6)], []
    for number, person in enumerate(persons):
        folder = ("dfdc_train_part_0", "dfdc_train_part_1", "test")[number // 2]
        real, fake = f"aa{'bcdefg'[number]}", "vidéo_脸" if number == 0 else f"zz{'bcdefg'[number]}"
        clips.append(Clip(f"dfdc/{folder}/{real}.mp4", "dfdc", "real", person, person.name))
        path = f"dfdc/{folder}/{fake}.mp4"
        clips.append(Clip(path, "dfdc", FORGERIES[1 + number % 5], person, person.name, persons[number ^ 1]))
    return clips


def _write_dfdc_lists(folder, clips):
    parts, originals = {}, {clip.take: PurePosixPath(clip.path).name for clip in clips if not clip.source}
    for clip in clips:
        part, name = PurePosixPath(clip.path).parts[1:]
        entry = {"label": "FAKE", "original": originals[clip.take]} if clip.source else {"label": "REAL"}
        parts.setdefault(part, {})[name] = {**entry, "split": "train"}
    rows = [f"{name},{int(entry['label'] == 'FAKE')}" for name, entry in parts.pop("test").items()]
    write_text(folder / "test" / "labels.csv", "\n".join(["filename,label", *rows]) + "\n")
    for part, entries in parts.items():
        write_text(folder / part / "metadata.json", json.dumps(entries, ensure_ascii=False) + "\n")


def _write_annotations(folder, layout, clips, filming):
    tables, names = [], []
    for number, clip in enumerate(clips):
        path = PurePosixPath(clip.path).relative_to(layout).with_suffix("")
        crops = {
            "dfd": f"FaceForensics++/{PurePosixPath(*path.parts[:-3])}/raw/face_images/{path.name}",
            "celebdf": f"Celeb-DF-v2_faces_single/{path}",
            "dfdc": f"DFDC/face_images/{1000 + number}",
        }[layout]
        names.append((1000 + number, f"{path.name}.mp4"))
        tables.append(annotation_rows(clip, filming, crops))
    header = _HEADERS[layout].split()
    table = pd.concat(tables, ignore_index=True)[[name.lower() for name in header]].set_axis(header, axis="columns")
    write_text(folder / ANNOTATIONS[layout], table.to_csv())
    if layout == "dfdc":
        write_text(folder / MAPPING, pd.DataFrame(names, columns=["annotation_id", "file_name"]).to_csv(index=False))


def spoil_annotations(path):
    """Plant what is wrong with published annotations into those of the rendered FF++; returns flaw -> video."""
    table = pd.read_csv(path, index_col=0)
    folder = table["path"].str.rsplit("/", n=1).str[0]
    names = folder.str.replace("FaceForensics.*sequences/|raw/face_images/", "", regex=True)
    twice, flips, undefined = names[table["label"] == 0].unique()[:3]
    disagrees, absent = names[table["label"] == 1].unique()[:2]
    table.loc[table.index[names == flips][:1], "male"] *= -1  # one of the frames: the majority is right
    table.loc[names == undefined, ["male", "asian", "white", "black"]] = 0
    table.loc[names == disagrees, "label"] = 0
    nowhere = table[names == flips].assign(
        path=lambda rows: rows["path"].str.replace("/[0-9]{3}/", "/999/", regex=True)
    )
    repeated = table[names == twice].iloc[:1]
    write_text(path, pd.concat([table[names != absent], nowhere, repeated], ignore_index=True).to_csv())
    return {
        "group flips": flips,
        "undefined demographics": undefined,
        "label disagreement": disagrees,
        "crops without annotation": absent,
        "annotated video does not exist": "youtube/999",
    }
