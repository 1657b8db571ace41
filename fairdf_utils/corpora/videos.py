"""Frames of a video: evenly spaced, exact and upright.

A first pass reads the packets without decoding them (some 20 ms): their times give every frame its number. A second
pass decodes from the beginning to the last wanted frame. Seeking to each frame would decode a group of pictures again
for each of them: 12 times as long for 30 frames of a 640 x 360 clip with two key frames. Threads inside the decoder
gain nothing where every core decodes a video of its own.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import av
import numpy as np

from fairdf_utils.data.pictures import UnreadablePicture, read_picture

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".ogv")
# Play lists and scripts, which FFmpeg would open too, name further files: anywhere on the disk, or in a network.
_FORMATS = "mov,avi,matroska,webm,mpeg,mpegts,flv,asf,ogg,m4v,mp3,aac,wav,flac"


class VideoError(Exception):
    """A video that cannot be read, or not to its end; ``reason`` says why in one or two words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_frames(path: str | Path, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Decode ``count`` frames evenly spaced over a video, in the order in which they are shown.

    A shorter video gives all it has, a still image one.

    Yields
    ------
    number : int
        Place among all frames of the video in the order in which they are shown, from 0.
    image : uint8 (H, W, 3)
        RGB, upright: turned as the video's metadata say.

    Raises
    ------
    VideoError
        After the last frame that could be decoded. Its reason is "empty file", "no such file", "not a file", "symlink
        loop", "unreadable" (no permission, no decoder), what `read_picture` says, "not a video", "no video stream", "truncated" (the end is
        missing) or "damaged" (packets that do not decode). What a codec conceals without a word is not noticed, nor
        is a missing end where the container does not declare the number of frames (Matroska, MPEG-TS).
    """
    path = Path(path)
    with _reasons(path):
        if path.stat().st_size == 0:
            raise VideoError("empty file")
        if path.suffix.lower() in IMAGES:
            yield 0, read_picture(path)
            return
        with _opened(path) as (container, stream):
            packets = [(packet.pts, packet.is_discard) for packet in _demux(container, stream)]
            missing = max(0, stream.frames - len(packets))
        times = [time for time, hidden in packets if not hidden]  # an edit list hides frames that others need
        wanted = positions(len(times) + missing, count)
        decoded = 0
        with _opened(path) as (container, stream):
            for number, frame in _numbered(container, stream, times):
                if number in wanted and not frame.is_corrupt:
                    image = frame.to_ndarray(format="rgb24", threads=1)
                    yield number, np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
                    decoded += 1
                if number >= wanted[-1]:
                    break
        if missing or not times:
            raise VideoError("truncated")
        if decoded < len(wanted):
            raise VideoError("damaged")


def positions(total: int, count: int) -> list[int]:
    """Numbers of ``count`` frames in the middles of as many equal parts of ``total`` frames; all if there are fewer."""
    count = min(total, count)
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


@contextmanager
def _reasons(path: Path) -> Iterator[None]:
    """Turn what PyAV, the reader of pictures and the file system raise into a VideoError."""
    try:
        yield
    except UnreadablePicture as error:
        raise VideoError(str(error)) from error
    except OSError as error:  # some of PyAV's errors are OSErrors too
        known = {errno.ENOENT: "no such file", errno.EISDIR: "not a file", errno.ELOOP: "symlink loop"}
        raise VideoError(known.get(error.errno, "unreadable")) from error
    except (av.error.InvalidDataError, av.error.ArgumentError) as error:  # no format, or none of the allowed ones
        # An MP4 file whose writer was interrupted has its first box but not its table of contents, the last.
        with path.open("rb") as file:
            begun = file.read(12)[4:8] == b"ftyp"
        raise VideoError("truncated" if begun else "not a video") from error
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError("unreadable") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and its video stream, decoded in one thread."""
    with av.open(str(path), options={"format_whitelist": _FORMATS}) as container:
        covers = av.stream.Disposition.attached_pic  # pictures of a sound file
        streams = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not streams:
            raise VideoError("no video stream")
        streams[0].codec_context.thread_count = 1
        yield container, streams[0]


def _demux(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """All whole packets of the stream, in the order of the file, which is that of decoding."""
    try:
        yield from (packet for packet in container.demux(stream) if packet.size and not packet.is_corrupt)
    except av.error.FFmpegError:
        return  # the file ends in the middle of a packet; the count of packets tells


def _numbered(
    container: av.container.InputContainer, stream: av.VideoStream, times: list[int | None]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode from the beginning: every frame that is shown, with its place among the times of all that should be."""
    known = sorted(time for time in times if time is not None)
    number = {time: place for place, time in enumerate(known)}
    # AVI has no times of presentation: frames are counted as they come out.
    counted = container.format.name == "avi" or len(number) < len(times)
    packets = chain(_demux(container, stream), [None])  # None asks for what the decoder still holds
    frames = (frame for packet in packets for frame in _decode(stream.codec_context, packet))
    for place, frame in enumerate(frames):
        if counted or frame.pts in number:
            yield place if counted else number[frame.pts], frame


def _decode(context: av.VideoCodecContext, packet: av.Packet | None) -> list[av.VideoFrame]:
    try:
        return context.decode(packet)
    except av.error.FFmpegError:
        return []  # frames after a damaged packet may still decode
