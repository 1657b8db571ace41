"""Rendered video corpora on disk as their owners lay them out, with demographic annotations and planted flaws.

FF++, DFDC, Celeb-DF and DFD cannot be shipped; these stand-ins have their folders, names and files, so that the whole
path from videos to manifests runs and is tested without a download. What is wrong on purpose is in
:mod:`fairdf_utils.rendered.planted_flaws` and listed in ``planted.csv``.

=====================  ==============================================================================================
``ffpp/``              ``original_sequences``, ``manipulated_sequences``; ``splits/{train,val,test}.json``
``dfd/``               the same two folders, with ``actors`` and ``DeepFakeDetection``
``celebdf/``           ``Celeb-real``, ``YouTube-real``, ``Celeb-synthesis``; ``List_of_testing_videos.txt`` (1 = real)
``dfdc/``              ``dfdc_train_part_N`` with ``metadata.json``; ``test`` with ``labels.csv``
``annotations/``       ``A-FF++.csv``, ``A-DFDC.csv``, ``A-Celeb-DF.csv``, ``A-DFD.csv``, ``DFDC-mapping.csv``
``planted.csv``        layout, file, video, flaw, expected
=====================  ==============================================================================================
"""

import hashlib
import json
import shutil
import string
from dataclasses import asdict
from pathlib import Path

import joblib
import pandas as pd

from fairdf_utils.data.vocabulary import DATASETS, FORGERIES, SIX_GROUPS
from fairdf_utils.files import replacing, write_text
from fairdf_utils.progress import bar
from fairdf_utils.rendered import annotations as rendered_annotations
from fairdf_utils.rendered import clips as rendered_clips
from fairdf_utils.rendered import drawing, forgeries, planted_flaws
from fairdf_utils.rendered import images as synthetic
from fairdf_utils.rendered.clips import Clip, Filming, Person
from fairdf_utils.rendered.images import _rng

# Groups of FF++'s pairs, in turn: mostly white as FF++ is, every group present from eight pairs on.
FFPP_GROUPS = (
    "female-white", "male-white", "female-asian", "male-black", "male-white", "female-black", "female-others",
    "male-asian", "female-white", "male-others", "male-white", "female-white",
)  # fmt: skip
FAKES_A_PERSON = 2  # of FF++; its five forgeries take turns
DARK = "ok: faces lost where dark skin meets noise and little light"
SCENES = ("exit_phone_room", "kitchen_pan", "podium_speech_happy", "walking_outside_cafe_disgusted")
TESTED = 1 / 3  # share of the persons, and of the strangers on YouTube, in Celeb-DF's test list


def generate_videos(out, layouts=DATASETS, identities=24, seconds=2.0, width=480, seed=0, jobs=-1):
    """Film the corpora, once.

    Files are written whole or not at all, so a run that was killed goes on where it stopped. A finished folder carries
    ``complete.json``; the next call with the same parameters returns at once. A folder made by another version of the
    code is made anew. The default corpus, 150 sound videos of 16 frames
    and the planted ones, is 7 MB and costs 55 CPU-seconds.

    Parameters
    ----------
    out : str or Path
        The corpora go to a folder below it that is named after the parameters.
    layouts : sequence of {"ffpp", "dfdc", "celebdf", "dfd"}
    identities : int
        Persons in FF++, an even number from 6 to 800; the others have a quarter to a half as many.
    seconds : float
        Length of a video, at 8 frames a second.
    width : int
        Width of a frame in pixels, 320 to 640 and even; frames are 16:9 and a face is about 0.2 of the width.
    seed : int
        The same seed gives the same bytes.
    jobs : int
        Processes, as joblib counts: -1 for every core.

    Returns
    -------
    Path
        The folder with one sub-folder a layout, ``annotations`` and ``planted.csv``.

    Raises
    ------
    ValueError
        An unknown layout or a parameter out of range.
    """
    layouts = _checked(layouts, identities, seconds, width)
    filming = Filming(width=width, seconds=float(seconds), seed=seed)
    root = Path(out) / f"{'-'.join(layouts)}-{identities}persons-{seconds:g}s-{width}px-seed{seed}"
    parameters = json.dumps(
        {"layouts": layouts, "identities": identities, **asdict(filming), "code": _digest()}, indent=1
    )
    started, complete = root / "started.json", root / "complete.json"
    if complete.exists() and complete.read_text() == parameters:
        return root
    if not (started.exists() and started.read_text() == parameters):
        shutil.rmtree(root, ignore_errors=True)  # another version's files may have other names
    write_text(started, parameters)
    clips = [clip for layout in layouts for clip in corpus_clips(layout, identities, seed)]
    flaws = [flaw for flaw in planted_flaws.VIDEOS if flaw.layout in layouts]
    _film(clips, flaws, filming, root, jobs)
    for layout in layouts:
        if layout in _LISTS:
            _LISTS[layout](root / layout, [clip for clip in clips if clip.dataset == layout], seed)
    _write_annotations(root, layouts, clips, flaws, filming)
    write_text(complete, parameters)
    started.unlink()
    return root


def main_videos(options):
    """``python -m fairdf_utils synthetic --videos``: film the corpora into ``options.out`` with ``options.seed``.

    Returns
    -------
    int
        Exit code 0; parameters that cannot be used raise ValueError.
    """
    root = generate_videos(options.out, seed=options.seed)
    planted = pd.read_csv(root / "planted.csv")
    print(f"The videos are in {root}; {len(planted)} flaws were planted, see planted.csv there")
    return 0


def _checked(layouts, identities, seconds, width):
    unknown = [layout for layout in layouts if layout not in DATASETS]
    if unknown or not layouts:
        raise ValueError(f"layouts is {list(layouts)}; use one or more of {', '.join(DATASETS)}.")
    if not 6 <= identities <= 800 or identities % 2:
        raise ValueError(f"identities is {identities}; use an even number from 6 to 800, FF++ swaps in pairs.")
    if not 320 <= width <= 640 or width % 2:
        raise ValueError(f"width is {width}; use an even number from 320 to 640 pixels.")
    if not 0.5 <= seconds <= 60:
        raise ValueError(f"seconds is {seconds}; use 0.5 to 60.")
    return [layout for layout in DATASETS if layout in layouts]


def _digest():
    """SHA-256 of the code that makes the files."""
    digest = hashlib.sha256()
    for module in (drawing, forgeries, synthetic, rendered_clips, rendered_annotations, planted_flaws):
        digest.update(Path(module.__file__).read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


def _film(clips, flaws, filming, root, jobs):
    """Make the video files that are not there, in worker processes."""
    tasks = [joblib.delayed(rendered_clips.make)(clip, filming, root) for clip in clips]
    tasks += [joblib.delayed(planted_flaws.make)(flaw, filming, root) for flaw in flaws]
    with bar(total=len(tasks), desc="filming", unit="video") as shown:
        for _ in joblib.Parallel(jobs, return_as="generator_unordered")(tasks):
            shown.update()


def _write_annotations(root, layouts, clips, flaws, filming):
    """Write ``annotations/`` and the list of everything that is wrong on purpose."""
    planted = [(flaw.layout, flaw.file, flaw.clip().video, flaw.flaw, flaw.expected) for flaw in flaws]
    planted += [(clip.dataset, clip.path, clip.video, "dark", DARK) for clip in clips if clip.dark]
    for layout in layouts:
        shown = [clip for clip in clips if clip.dataset == layout]
        shown += [flaw.clip() for flaw in flaws if flaw.layout == layout and flaw.group]
        spoilt = rendered_annotations.write_annotations(root / "annotations", layout, shown, filming)
        planted += [(layout, f"annotations/{file}", *rest) for file, *rest in spoilt]
    if "celebdf" in layouts:
        file, expected = "celebdf/List_of_testing_videos.txt", "listed as missing"
        planted.append(("celebdf", file, planted_flaws.MISSING_TEST, "listed video missing", expected))
    table = pd.DataFrame(planted, columns=["layout", "file", "video", "flaw", "expected"])
    with replacing(root / "planted.csv") as partial:
        table.to_csv(partial, index=False, lineterminator="\n", encoding="utf-8")


def corpus_clips(layout, identities=24, seed=0):
    """The sound videos of a layout.

    Returns
    -------
    list of Clip
        Reals and fakes, paths relative to the corpora's root.
    """
    return _CLIPS[layout](identities, seed)


def _ffpp_clips(identities, seed):
    pairs = identities // 2
    people = [
        Person(f"ffpp-{number:03d}", FFPP_GROUPS[number % pairs % len(FFPP_GROUPS)]) for number in range(identities)
    ]
    clips = []
    for number, person in enumerate(people):
        # The first of two black persons is filmed too dark: what detectors drop first.
        dark = number < pairs and person.group.endswith("black")
        other = (number + pairs) % identities
        take = f"ffpp/{number:03d}"
        path = f"ffpp/original_sequences/youtube/c23/videos/{number:03d}.mp4"
        clips.append(Clip(path, "ffpp", "real", person, take, dark=dark))
        for turn in range(FAKES_A_PERSON):
            forgery = FORGERIES[1 + (FAKES_A_PERSON * number + turn) % 5]
            path = f"ffpp/manipulated_sequences/{forgery}/c23/videos/{number:03d}_{other:03d}.mp4"
            clips.append(Clip(path, "ffpp", forgery, person, take, people[other], dark))
    return clips


def _dfd_clips(identities, seed):
    count = max(4, identities // 4)
    rng = _rng(seed, "dfd names")
    actors = [Person(f"dfd-{n + 1:02d}", SIX_GROUPS[n % 6]) for n in range(count)]
    clips = []
    for number, actor in enumerate(actors):
        other = (number + 1) % count
        for scene in (SCENES[number % 4], SCENES[(number + 1) % 4]):
            take = f"{number + 1:02d}__{scene}"
            path = f"dfd/original_sequences/actors/c23/videos/{take}.mp4"
            clips.append(Clip(path, "dfd", "real", actor, f"dfd/{take}"))
            code = _letters(rng, 8, string.ascii_uppercase + string.digits)
            name = f"{number + 1:02d}_{other + 1:02d}__{scene}__{code}"
            path = f"dfd/manipulated_sequences/DeepFakeDetection/c23/videos/{name}.mp4"
            forgery = ("Deepfakes", "FaceShifter")[len(clips) // 2 % 2]
            clips.append(Clip(path, "dfd", forgery, actor, f"dfd/{take}", actors[other]))
    return clips


def _letters(rng, count, alphabet=string.ascii_lowercase):
    return "".join(alphabet[n] for n in rng.integers(len(alphabet), size=count))


def _celebdf_clips(identities, seed):
    count = max(4, identities // 4)
    people = [Person(f"celebdf-id{n}", SIX_GROUPS[n % 6]) for n in range(count)]
    clips = []
    for number, person in enumerate(people):
        for turn in range(2):
            other = (number + 1 + turn) % count  # to the next and the one after: all persons hang together
            take = f"celebdf/id{number}_{turn:04d}"
            clips.append(Clip(f"celebdf/Celeb-real/id{number}_{turn:04d}.mp4", "celebdf", "real", person, take))
            path = f"celebdf/Celeb-synthesis/id{number}_id{other}_{turn:04d}.mp4"
            clips.append(Clip(path, "celebdf", "Deepfakes", person, take, people[other]))
    for number in range(count):
        stranger = Person(f"celebdf-youtube-{number:05d}", SIX_GROUPS[(number + 3) % 6])
        name = f"celebdf/YouTube-real/{number:05d}"
        clips.append(Clip(f"{name}.mp4", "celebdf", "real", stranger, name))
    return clips


def _dfdc_clips(identities, seed):
    """Two parts for training and a test folder; a person has a real video and a fake, by another of their group."""
    rng = _rng(seed, "dfdc names")
    count = max(6, identities // 4 * 2)
    people = [Person(f"dfdc-{n:03d}", FFPP_GROUPS[n // 2 % len(FFPP_GROUPS)]) for n in range(count)]
    clips = []
    for number, person in enumerate(people):
        folder = ("dfdc_train_part_0", "dfdc_train_part_1", "test")[number // 2 % 3]
        take = f"dfdc/{number:03d}"
        dark = number % 2 == 0 and person.group.endswith("black")
        clips.append(Clip(f"dfdc/{folder}/{_letters(rng, 10)}.mp4", "dfdc", "real", person, take, dark=dark))
        path = f"dfdc/{folder}/{_letters(rng, 10)}.mp4"
        clips.append(Clip(path, "dfdc", FORGERIES[1 + number % 5], person, take, people[number ^ 1], dark))
    return clips


def _write_ffpp_lists(folder, clips, seed):
    """The official split files: pairs, 60/20/20."""
    pairs = sorted({tuple(sorted(Path(clip.path).stem.split("_"))) for clip in clips if clip.forgery != "real"})
    held = max(1, len(pairs) // 5)
    order = [pairs[n] for n in _rng(seed, "ffpp splits").permutation(len(pairs))]
    shares = {"val": order[:held], "test": order[held : 2 * held], "train": order[2 * held :]}
    for name, share in shares.items():
        write_text(folder / "splits" / f"{name}.json", json.dumps(sorted(share), indent=1) + "\n")


def _write_celebdf_list(folder, clips, seed):
    """Persons one after the other, who are swapped with each other: the swaps of the others are left to train on."""
    rng, chosen = _rng(seed, "celebdf list"), set()
    for strangers in (False, True):
        names = list(dict.fromkeys(clip.person.name for clip in clips if ("YouTube" in clip.path) == strangers))
        start = rng.integers(len(names))
        chosen |= {names[(start + n) % len(names)] for n in range(max(2, round(TESTED * len(names))))}
    tested = [clip for clip in clips if {clip.person.name, (clip.source or clip.person).name} <= chosen]
    lines = [f"{int(clip.forgery == 'real')} {clip.path.split('/', 1)[1]}" for clip in tested]
    lines.append(f"1 {planted_flaws.MISSING_TEST}.mp4")
    write_text(folder / "List_of_testing_videos.txt", "\n".join(lines) + "\n")


def _write_dfdc_lists(folder, clips, seed):
    parts = {}
    originals = {clip.take: Path(clip.path).name for clip in clips if clip.forgery == "real"}
    for clip in clips:
        part, name = Path(clip.path).parts[1:]
        fake = clip.forgery != "real"
        entry = {"label": "FAKE" if fake else "REAL", "split": "train"}
        parts.setdefault(part, {})[name] = entry | ({"original": originals[clip.take]} if fake else {})
    for flaw in planted_flaws.VIDEOS:
        if flaw.layout == "dfdc" and flaw.file.endswith(".mp4"):
            part, name = Path(flaw.file).parts[1:]
            parts.setdefault(part, {})[name] = {"label": "REAL", "split": "train"}
    for part, entries in parts.items():
        if part == "test":
            rows = [f"{name},{int(entry['label'] == 'FAKE')}" for name, entry in sorted(entries.items())]
            write_text(folder / part / "labels.csv", "\n".join(["filename,label", *rows]) + "\n")
        else:
            write_text(folder / part / "metadata.json", json.dumps(entries, ensure_ascii=False) + "\n")


_CLIPS = {"ffpp": _ffpp_clips, "dfdc": _dfdc_clips, "celebdf": _celebdf_clips, "dfd": _dfd_clips}
_LISTS = {"ffpp": _write_ffpp_lists, "dfdc": _write_dfdc_lists, "celebdf": _write_celebdf_list}
