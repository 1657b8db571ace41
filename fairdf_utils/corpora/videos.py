"""Frames of a video: evenly spaced, exact and upright.

A first pass reads the packets without decoding them (some 20 ms): their times give every frame its number. A second
pass decodes from the beginning to the last wanted frame. Seeking to each frame would decode a group of pictures again
for each of them: 12 times as long for 30 frames of a 640 x 360 clip with two key frames. Threads inside the decoder
gain nothing where every core decodes a video of its own.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import av
import numpy as np

from fairdf_utils.data.pictures import UnreadablePicture, opened, read_picture

IMAGES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".avif")
VIDEOS = (".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".vob")
VIDEOS += (".ts", ".mts", ".m2ts", ".flv", ".asf", ".wmv", ".ogv")
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
        RGB, as a player shows it: turned and mirrored as the video's metadata say, with square pixels (by stretching).
        Of several pictures in one file it is the one of the most pixels.

    Raises
    ------
    VideoError
        After the last frame that could be decoded. Its reason is "empty file", "no such file", "not a file", "symlink
        loop", "unreadable" (no permission, no decoder), "not a video", "no video stream", "truncated" (the end is
        missing) or "damaged" (packets that do not decode); for a picture it is what `read_picture` says. What a codec
        conceals without a word is not noticed, nor is a missing end where the container does not declare the number of
        frames (Matroska, MPEG-TS).
    """
    path = Path(path)
    with _reasons(path):
        if path.stat().st_size == 0:
            raise VideoError("empty file")
        if is_picture(path):
            yield 0, read_picture(path)
            return
        with _opened(path) as (container, stream):
            codec, shape = stream.codec_context.name, _shape(stream)
            packets = [
                (packet.pts, packet.is_discard or not _shows(codec, packet)) for packet in _demux(container, stream)
            ]
            missing = max(0, stream.frames - len(packets))
        times = [time for time, hidden in packets if not hidden]  # an edit list hides frames that others need
        wanted = positions(len(times) + missing, count)
        decoded = 0
        with _opened(path) as (container, stream):
            for number, frame in _numbered(container, stream, times):
                if number in wanted and not frame.is_corrupt:
                    yield number, _upright(frame.to_ndarray(format="rgb24", threads=1, **shape), frame.side_data)
                    decoded += 1
                if number >= wanted[-1]:
                    break
        if missing or not times:
            raise VideoError("truncated")
        if decoded < len(wanted):
            raise VideoError("damaged")


def is_picture(path: Path) -> bool:
    """Whether a file is a still picture: by its suffix, or where that says nothing by its content."""
    suffix = path.suffix.lower()
    if suffix in IMAGES + VIDEOS:
        return suffix in IMAGES
    try:
        with opened(path):
            return True
    except OSError:
        return False


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
    with av.open(str(path.absolute()), options={"format_whitelist": _FORMATS}) as container:  # "a:b" would be a URL
        covers = av.stream.Disposition.attached_pic  # pictures of a sound file
        streams = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not streams:
            raise VideoError("no video stream")
        # FFmpeg's own choice may be the preview of a camera, or a cover that is not marked as one.
        best = max(streams, key=lambda stream: (stream.frames != 1, stream.width * stream.height))
        best.codec_context.thread_count = 1
        yield container, best


def _shape(stream: av.VideoStream) -> dict[str, int]:
    """The size of frames with square pixels, where theirs are not: the shorter side of a pixel is stretched."""
    ratio = float(stream.sample_aspect_ratio or 1)
    if ratio == 1 or not 1 / 8 <= ratio <= 8:  # beyond that it is a slip, and might fill the memory
        return {}
    return {"width": round(stream.width * max(1, ratio)), "height": round(stream.height * max(1, 1 / ratio))}


def _upright(image: np.ndarray, side_data: Mapping) -> np.ndarray:
    """Turn and mirror a frame, uint8 (H, W, 3), as its display matrix says.

    The matrix takes a stored place (x, y) to (a x + c y, b x + d y), its first rows being (a, b) and (c, d).
    """
    data = side_data.get("DISPLAYMATRIX")
    if data is None:
        return image
    (a, b), (c, d) = np.frombuffer(data, np.int32).reshape(3, 3)[:2, :2].tolist()
    if abs(b) > abs(a):  # lying on its side
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _shows(codec: str, packet: av.Packet) -> bool:
    """Whether a packet gives a frame; VP8 and VP9 may send one that others only refer to (an alternate reference).

    The flags lie in the first byte (RFC 6386, 9.1; VP9 bitstream specification, 6.2). A VP9 packet of several frames,
    which ends in an index between two equal bytes (annex B), shows one of them, as every packet of other codecs does.
    """
    if codec not in ("vp8", "vp9"):
        return True
    data = memoryview(packet)
    first, last = data[0], data[-1]
    if codec == "vp8":
        return bool(first & 0b10000)
    index = 2 + ((last >> 3 & 0b11) + 1) * ((last & 0b111) + 1)  # bytes
    if last >> 5 == 0b110 and data[-index:][0] == last:
        return True
    profile_3 = first & 0b110000 == 0b110000  # has one more bit before "show an existing frame" and "show frame"
    return bool(first & (0b0101 if profile_3 else 0b1010))


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
