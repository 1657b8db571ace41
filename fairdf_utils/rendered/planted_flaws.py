"""What is wrong on purpose in the rendered corpora: broken and unusual videos, one file each.

Everything here is what people met in downloaded corpora. :data:`VIDEOS` says what a pipeline must report.
"""

import itertools
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np

from fairdf_utils.files import replacing, write_text
from fairdf_utils.rendered import clips as rendered_clips
from fairdf_utils.rendered.clips import Clip, Person, write_video
from fairdf_utils.rendered.images import _rng

MISSING_TEST = "Celeb-real/id99_0000"  # in Celeb-DF's test list, but nowhere else


# mp4's display matrix of a quarter turn to the left: 16.16 fixed point, the last entry 2.30.
_TURN_LEFT = struct.pack(">9i", 0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 0, 1 << 30)


@dataclass(frozen=True)
class Flaw:
    """A planted file, given relative to the corpora, and what a pipeline must report of it."""

    layout: str
    file: str
    flaw: str
    expected: str
    make: Callable
    group: str = ""  # of the person to be seen; "" where there is nobody

    def clip(self):
        return Clip(self.file, self.layout, "real", Person(self.file, self.group or "female-others"), self.file)


def make(flaw, filming, root):
    """Make a planted file below the folder ``root``, unless it is there."""
    path = Path(root) / flaw.file
    if not path.exists() and not path.is_symlink():
        path.parent.mkdir(parents=True, exist_ok=True)
        flaw.make(path, flaw.clip(), filming)


def _truncated(path, clip, filming):
    """Cut at 60 %: the index, at the end of the file, is lost."""
    _sound(path, clip, filming)
    content = path.read_bytes()
    _write(path, content[: int(0.6 * len(content))])


def _cut_short(path, clip, filming):
    """Cut in the middle of a frame past the middle, with the index in front: what comes before can be decoded."""
    write_video(path, rendered_clips.frames(clip, filming), filming.rate, options={"movflags": "faststart"})
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    start, size = packets[len(packets) // 2 + 1]
    _write(path, path.read_bytes()[: start + size // 2])


def _write(path, content):
    with replacing(path) as partial:
        partial.write_bytes(content)


def _empty(path, clip, filming):
    _write(path, b"")


def _not_a_video(path, clip, filming):
    write_text(path, "<html><body>404: the video you asked for has moved.</body></html>\n")


def _audio_only(path, clip, filming):
    """A second of a 440 Hz tone, no picture."""
    with replacing(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        container.flags |= av.container.Flags.bitexact.value
        stream = container.add_stream("aac", rate=16000)
        tone = (0.3 * np.sin(2 * np.pi * 440 / 16000 * np.arange(16384))).astype(np.float32)
        for start in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _damaged(path, clip, filming):
    """The index is whole, the pictures are noise."""
    _sound(path, clip, filming)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    end = content.index(b"moov") - 4
    content[start:end] = _rng(filming.seed, "damage").bytes(end - start)
    _write(path, content)


def _nobody(path, clip, filming):
    """The room without a person."""
    room, camera = rendered_clips.background(clip.take, filming), rendered_clips.camera(clip, filming.seed)
    images = (rendered_clips.film(room, camera, filming, (clip.take, n)) for n in range(filming.frames))
    write_video(path, images, filming.rate)


def _several(path, clip, filming):
    """A second, smaller person beside the first."""
    room, camera = rendered_clips.background(clip.take, filming), rendered_clips.camera(clip, filming.seed)
    guest = Clip(clip.path, clip.dataset, "real", Person(f"{clip.take} guest", "male-asian"), f"{clip.take} guest")
    behind = room.mean(axis=(1, 2))
    pairs = zip(
        rendered_clips.heads(guest, replace(filming, head=0.72 * filming.head), behind),
        rendered_clips.heads(clip, filming, behind),
        strict=True,
    )
    width, height = filming.width, filming.height

    def images():
        for number, (second, first) in enumerate(pairs):
            picture = room.copy()
            rendered_clips.put(picture, second, (round(0.06 * width), round(0.26 * height)))
            rendered_clips.put(picture, first, (round(0.52 * width) + number % 3, round(0.12 * height)))
            yield rendered_clips.film(picture, camera, filming, (clip.take, number))

    write_video(path, images(), filming.rate)


def _variable_rate(path, clip, filming):
    """Frames shown for 20 to 400 ms each, as telephones record."""
    gaps = _rng(filming.seed, "gaps").integers(20, 400, size=filming.frames - 1)
    times = [0, *itertools.accumulate(gaps.tolist())]
    write_video(path, rendered_clips.frames(clip, filming), filming.rate, times=times)


def _turned(path, clip, filming):
    """Stored lying on its side, with metadata that tell a player to turn it left by 90 degrees."""
    images = (np.rot90(image, -1) for image in rendered_clips.frames(clip, filming))
    write_video(path, images, filming.rate)
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44  # the track's display matrix
    content[start : start + len(_TURN_LEFT)] = _TURN_LEFT
    _write(path, content)


def _odd(path, clip, filming):
    """Odd height and width, which only 4:4:4 can hold."""
    images = (image[:-1, :-1] for image in rendered_clips.frames(clip, filming))
    write_video(path, images, filming.rate, pixel_format="yuv444p")


def _sound(path, clip, filming):
    write_video(path, rendered_clips.frames(clip, filming), filming.rate)


def _own_link(path, clip, filming):
    path.symlink_to(path.name)


def _parent_link(path, clip, filming):
    path.symlink_to("..", target_is_directory=True)


def _folder(path, clip, filming):
    path.mkdir()


def _youtube(number, flaw, expected, make, group=""):
    file = f"ffpp/original_sequences/youtube/c23/videos/{number}.mp4"
    return Flaw("ffpp", file, flaw, expected, make, group)


_PART = "dfdc/dfdc_train_part_0"
VIDEOS = (
    _youtube(900, "truncated", "failed: the file ends before its index", _truncated, "male-black"),
    _youtube(901, "cut short", "fewer frames decoded than asked, the rest used", _cut_short, "female-white"),
    _youtube(902, "empty", "failed: empty file", _empty),
    _youtube(903, "audio only", "failed: no video stream", _audio_only),
    _youtube(904, "not a video", "failed: not a video", _not_a_video),
    _youtube(905, "damaged", "failed: no frame can be decoded", _damaged, "female-asian"),
    _youtube(906, "no face", "failed: no face in any frame", _nobody),
    _youtube(907, "several faces", "ok: the largest face used, several counted", _several, "female-white"),
    _youtube(908, "variable frame rate", "ok", _variable_rate, "female-others"),
    _youtube(909, "rotation", "ok: faces found upright", _turned, "male-white"),
    _youtube(910, "odd size", "ok", _odd, "male-others"),
    _youtube(911, "symlink loop", "failed: a link that leads to itself", _own_link),
    _youtube(912, "unreadable", "failed: a folder under a video's name", _folder),
    Flaw("dfdc", f"{_PART}/vidéo_脸_лицо.mp4", "non-ASCII name", "ok", _sound, "female-asian"),
    Flaw("dfdc", f"{_PART}/loop", "folder loop", "not followed: every video is found once", _parent_link),
)


def plant_escape(dfdc):
    """Add an entry that leaves the root, ``../x.mp4``, to a DFDC layout: the whole layout must then be refused.

    Parameters
    ----------
    dfdc : str or Path
        The layout's folder, whose ``dfdc_train_part_0/metadata.json`` is changed.
    """
    path = Path(dfdc) / "dfdc_train_part_0" / "metadata.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    entries["../x.mp4"] = {"label": "REAL", "split": "train"}
    write_text(path, json.dumps(entries, ensure_ascii=False) + "\n")
