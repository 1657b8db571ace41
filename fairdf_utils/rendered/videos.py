"""A small video corpus in the layout of FaceForensics++, so that the path from videos to manifests runs everywhere.

``ffpp`` holds videos and ``splits``; ``annotations/A-FF++.csv`` one row per frame, in the form of the public
annotations; ``planted.csv`` (file, video, flaw, expected) what is wrong on purpose and what a pipeline must report.
A fake shares motion, light and camera with the real video of its target, so that only the forgery tells them apart.
"""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import av
import numpy as np
import pandas as pd
from PIL import Image

from fairdf_utils.data.vocabulary import FORGERIES
from fairdf_utils.files import replacing, write_text
from fairdf_utils.rendered import drawing, forgeries, images, people
from fairdf_utils.rendered.people import Face, Scene, named_generator
from fairdf_utils.workers import end_with_parent

RATE = 8  # frames a second
# Groups of the pairs, in turn: mostly white as FF++ is, every group present from eight pairs on.
FFPP_GROUPS = (
    "female-white", "male-white", "female-asian", "male-black", "male-white", "female-black", "female-others",
    "male-asian", "female-white", "male-others", "male-white", "female-white",
)  # fmt: skip
FAKES_PER_PERSON = 2  # the five forgeries take turns
FAR = 0.55  # size of the head against that in an image: about a third of the frame's width
DARK_GAIN, DARK_NOISE = (0.70, 0.80), 0.020  # full scale; a camera that does not see dark skin well
DARK_END = 0.45  # of that gain is left at the end of a dark take, where the light has gone
FAULTS = {
    "dark": "ok: faces lost where dark skin meets noise and little light",
    "truncated": "partial: the file breaks off, what comes before is used",
    "empty": "failed: empty file",
    "no face": "failed: no face in any frame",
}
_REALS = "ffpp/original_sequences/youtube/c23/videos"
# Without mbtree: with B frames it reads memory that was never written, so that now and then the bytes differ. What it
# saves, three steps of crf save too.
_X264 = {"crf": "26", "preset": "veryfast", "x264-params": "mbtree=0"}


@dataclass(frozen=True)
class Person:
    """Whose face it is: the name seeds everything about it."""

    name: str
    group: str

    def face(self, seed: int) -> Face:
        return people.draw_face(named_generator(seed, "video face", self.name), *self.group.split("-"))


@dataclass(frozen=True)
class Clip:
    """One video: who is seen, by which forgery ("real": none) with whose face or expression, in which take.

    Videos with the same ``take`` share motion, light and camera; ``fault`` is one of :data:`FAULTS` or empty.
    """

    path: str  # relative to the corpora, "/" between parts
    dataset: str
    forgery: str
    person: Person
    take: str
    source: Person | None = None
    fault: str = ""

    @property
    def video(self) -> str:
        """The video's name in ledgers and manifests, such as "Deepfakes/000_003" or "Celeb-real/id0_0001"."""
        path = PurePosixPath(self.path)
        folder = path.parents[2] if path.parent.name == "videos" else path.parent
        return f"{folder.name}/{path.stem}"


@dataclass(frozen=True)
class Filming:
    """How all clips of a corpus are filmed; see :func:`generate_videos`."""

    size: int = 288
    frames: int = 12
    seed: int = 0


def generate_videos(
    out: str | Path, identities: int = 24, frames: int = 12, size: int = 288, seed: int = 0, jobs: int = -1
) -> Path:
    """Film the corpus, once.

    A run that was killed goes on where it stopped; a finished folder is not touched again unless the code changes.
    The same seed gives the same bytes. The default corpus of 75 videos costs about 50 CPU-seconds. Raises ValueError
    for a parameter that is out of range.

    Parameters
    ----------
    out : the corpus goes to a folder below it that is named after the parameters; that folder is returned
    identities : persons, an even number from 6 to 800
    frames : of a video, 4 to 480, at 8 per second
    size : side of a frame, 240 to 640 pixels and even; a face is about 0.3 of it
    seed : 0 or more
    jobs : processes, as joblib counts: -1 for every core
    """
    images.check(seed, identities=(identities, 6, 800), frames=(frames, 4, 480), size=(size, 240, 640))
    for name, value in (("identities", identities), ("size", size)):
        if value % 2:
            raise ValueError(f"{name} is {value}; use an even number.")
    filming = Filming(size, frames, seed)
    root = Path(out) / f"ffpp-{identities}persons-{frames}frames-{size}px-seed{seed}"
    make = partial(_make_corpus, root, identities, filming, jobs)
    return images.made_once(root, {"identities": identities, **asdict(filming)}, make)


def _make_corpus(root, identities, filming, jobs):
    clips = ffpp_clips(identities)
    film(clips, filming, root, jobs)
    _write_split_lists(root / "ffpp", clips, filming.seed)
    annotations = [annotation_rows(clip, filming) for clip in clips if clip.fault not in ("empty", "no face")]
    write_text(root / "annotations" / "A-FF++.csv", pd.concat(annotations, ignore_index=True).to_csv())
    planted = [(clip.path, clip.video, clip.fault, FAULTS[clip.fault]) for clip in clips if clip.fault]
    table = pd.DataFrame(planted, columns=["file", "video", "flaw", "expected"])
    write_text(root / "planted.csv", table.to_csv(index=False))


def ffpp_clips(identities: int = 24) -> list[Clip]:
    """The videos of the corpus, real ones and fakes, those with a fault of the file last."""
    pairs = identities // 2
    persons = [Person(f"ffpp-{n:03d}", FFPP_GROUPS[n % pairs % len(FFPP_GROUPS)]) for n in range(identities)]
    clips = []
    for number, person in enumerate(persons):
        # The first of two black persons is filmed too dark: what detectors drop first.
        fault = "dark" if number < pairs and person.group.endswith("black") else ""
        other = (number + pairs) % identities
        take = f"ffpp/{number:03d}"
        clips.append(Clip(f"{_REALS}/{number:03d}.mp4", "ffpp", "real", person, take, fault=fault))
        for turn in range(FAKES_PER_PERSON):
            forgery = FORGERIES[1 + (FAKES_PER_PERSON * number + turn) % 5]
            path = f"ffpp/manipulated_sequences/{forgery}/c23/videos/{number:03d}_{other:03d}.mp4"
            clips.append(Clip(path, "ffpp", forgery, person, take, persons[other], fault))
    for number, fault in enumerate(("truncated", "empty", "no face"), start=900):
        path = f"{_REALS}/{number}.mp4"
        clips.append(Clip(path, "ffpp", "real", Person(path, "male-black"), path, fault=fault))
    return clips


def film(clips: list[Clip], filming: Filming, root: Path, jobs: int = -1) -> None:
    """Make the video files that are not there, below ``root``, in worker processes."""
    images.in_processes(partial(_film, filming=filming, root=root), clips, jobs, desc="filming", unit="video")


def _film(clip, filming, root):
    end_with_parent()
    path = Path(root) / clip.path
    if path.exists():
        return
    with replacing(path) as unfinished:
        write_video(unfinished, frames(clip, filming))
        share = {"empty": 0.0, "truncated": 0.6}.get(clip.fault, 1.0)
        unfinished.write_bytes(unfinished.read_bytes()[: round(share * unfinished.stat().st_size)])


def frames(clip: Clip, filming: Filming) -> Iterator[np.ndarray]:
    """Film a clip: uint8 (size, size, 3), RGB, one after the other."""
    seed, size = filming.seed, filming.size
    face = clip.person.face(seed)
    grain = drawing.skin_grain(named_generator(seed, "video grain", clip.take), size)
    scenes, others = _scenes(clip.take, filming), _scenes(f"driver of {clip.path}", filming)
    for number, (scene, other) in enumerate(zip(scenes, others, strict=True)):
        if clip.fault == "no face":
            scene = replace(scene, y=4.0)  # the person is below the frame
        image = drawing.paint(face, scene, size, grain)
        if clip.source:
            # Blur is relative to the frame, of which a face is a smaller part than of an image.
            strength = FAR * images.DOMAINS[clip.dataset].strength
            source = clip.source.face(seed)
            image = forgeries.forge(image, clip.forgery, face, source, scene, other, grain, strength)
        noise = named_generator(seed, "film", clip.take, number)
        yield np.asarray(Image.open(io.BytesIO(forgeries.capture(image, _camera(clip, filming, number), noise))))


def _scenes(take: str, filming: Filming) -> list[Scene]:
    """One scene per frame: the head sways and the face moves slowly about what the take began with."""
    first = people.draw_scene(*(named_generator(filming.seed, kind, take) for kind in ("take", "key")))
    phase, speed = named_generator(filming.seed, "sway", take).uniform([[0], [1]], [[6.3], [3]], (2, 6))  # rad, rad/s
    scenes = []
    for number in range(filming.frames):
        sway = np.sin(phase + speed * number / RATE).tolist()
        scene = replace(first, zoom=FAR * first.zoom, x=first.x + 0.05 * sway[0], y=first.y - 0.12)
        scene = replace(scene, yaw=first.yaw + 0.12 * sway[1], pitch=first.pitch + 0.08 * sway[2])
        scene = replace(scene, roll=first.roll + 0.05 * sway[3], smile=first.smile + 0.3 * sway[4])
        scenes.append(replace(scene, open=max(0.0, 0.01 + 0.06 * sway[5])))
    return scenes


def _camera(clip, filming, number):
    """The camera of a take, from the ranges of its data set, at a frame."""
    domain, rng = images.DOMAINS[clip.dataset], named_generator(filming.seed, "video camera", clip.take)
    dark = clip.fault == "dark"
    light = 1 - (1 - DARK_END) * number / filming.frames if dark else 1.0
    gain = light * rng.uniform(*(DARK_GAIN if dark else domain.gain)) * (1 + rng.uniform(-0.04, 0.04, 3))
    blur, noise = rng.uniform(*domain.blur), rng.uniform(*domain.noise)
    return forgeries.Camera(tuple(gain.tolist()), float(blur), float(max(noise, DARK_NOISE * dark)), quality=97)


def write_video(path: Path, pictures: Iterable[np.ndarray]) -> None:
    """Encode uint8 (H, W, 3) frames, RGB, H and W even, as an H.264 mp4; equal frames give equal bytes."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        container.flags |= av.container.Flags.bitexact.value
        stream = container.add_stream("libx264", rate=RATE, options=_X264)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the bytes must not depend on the number of cores
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _write_split_lists(folder, clips, seed):
    """The official split files: pairs, 60/20/20."""
    pairs = sorted({tuple(sorted(PurePosixPath(clip.path).stem.split("_"))) for clip in clips if clip.source})
    held = max(1, len(pairs) // 5)
    order = [pairs[n] for n in named_generator(seed, "ffpp splits").permutation(len(pairs))]
    for name, share in ("val", order[:held]), ("test", order[held : 2 * held]), ("train", order[2 * held :]):
        write_text(folder / "splits" / f"{name}.json", json.dumps(sorted(share), indent=1) + "\n")


def annotation_rows(clip: Clip, filming: Filming, folder: str = "") -> pd.DataFrame:
    """What annotators wrote about a clip, one row per frame: 1 = has the attribute, -1 = has not.

    ``folder`` is the annotators' name for the clip's crops, by default as for FF++.
    """
    path = PurePosixPath(clip.path).relative_to(clip.dataset)
    folder = folder or f"FaceForensics++/{path.parents[2]}/raw/face_images/{path.stem}"
    gender, race = clip.person.group.split("-")
    has = {"male": gender == "male"} | {name: race == name for name in ("asian", "white", "black")}
    has["eyeglasses"] = clip.person.face(filming.seed).glasses > 0
    table = pd.DataFrame({"path": [f"{folder}/frame{number}.png" for number in range(filming.frames)]})
    table["label"] = int(clip.source is not None)
    return table.assign(**{name: 1 if value else -1 for name, value in has.items()})
