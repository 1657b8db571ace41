"""Frames of a video: evenly spaced, exact, upright, and decoded with as little work as that takes.

A first pass reads the packets without decoding them (some 20 ms): their times give every frame its
number. A second pass decodes, from one key frame before a wanted frame to that frame; other groups of pictures are
not decoded, nor are H.264 pictures that no other picture needs. Both leave every pixel as in a full decode.

Seeking was measured against this. 30 frames in RGB, H.264 as x264 makes it, CPU milliseconds of one thread on a busy
two-core machine (`python -m fairdf_utils benchmark` compares on clips of its own):

=====================================  =============  ==================  ===========
clip                                   decode it all  seek to each frame  this module
=====================================  =============  ==================  ===========
640 x 360, 300 frames, 2 key frames              175                2083          155
640 x 360, 900 frames, 4 key frames              532                2148          363
1080p, 300 frames, 2 key frames                 1369               14788         1059
1080p, 300 frames, 25 key frames                1822                1979         1388
=====================================  =============  ==================  ===========

Seeking to every frame decodes a group of pictures again for each of them. Threads inside the decoder gain nothing
where every core decodes a video of its own.
"""

import errno
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".ogv")
# Play lists and scripts, which FFmpeg would open too, name further files: anywhere on the disk, or in a network.
_FORMATS = "mov,avi,matroska,webm,mpeg,mpegts,flv,asf,ogg,m4v,mp3,aac,wav,flac"


class VideoError(Exception):
    """A video that cannot be read, or not to its end; ``reason`` says why in one or two words."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


def frames(path, count) -> Iterator[tuple[int, np.ndarray]]:
    """Decode frames evenly spaced over a video, in the order in which they are shown.

    Parameters
    ----------
    path : str or Path
        A video, or a still image (a video of one frame).
    count : int
        Frames asked for; a shorter video gives all it has.

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
        loop", "unreadable" (no permission, no decoder), "not a video", "no video stream", "truncated" (the end is
        missing) or "damaged" (packets that do not decode). What a codec conceals without a word is not noticed, nor
        is a missing end where the container does not declare the number of frames (Matroska, MPEG-TS).
    """
    path = Path(path)
    with _reasons(path):
        if path.stat().st_size == 0:
            raise VideoError("empty file")
        if path.suffix.lower() in IMAGES:
            yield 0, _still(path)
            return
        with _opened(path) as (container, stream):
            packets = _packets(container, stream)
            missing = max(0, stream.frames - len(packets))
        shown = [packet for packet in packets if packet.shown]
        wanted = positions(len(shown) + missing, count)
        decoded = 0
        with _opened(path) as (container, stream):
            for number, frame in _numbered(container, stream, packets, set(wanted)):
                if not frame.is_corrupt:
                    yield number, _upright(frame)
                    decoded += 1
        if missing or not shown:
            raise VideoError("truncated")
        if decoded < len(wanted):
            raise VideoError("damaged")


def positions(total, count):
    """Numbers of ``count`` frames in the middles of as many equal parts of ``total`` frames; all if there are fewer."""
    count = min(total, count)
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


@contextmanager
def _reasons(path):
    """Turn what PyAV, Pillow and the file system raise into a VideoError."""
    try:
        yield
    except FileNotFoundError:
        raise VideoError("no such file") from None
    except IsADirectoryError:
        raise VideoError("not a file") from None
    except OSError as error:  # Pillow's errors and some of PyAV's are OSErrors too
        raise VideoError("symlink loop" if error.errno == errno.ELOOP else "unreadable") from error
    except (av.error.InvalidDataError, av.error.ArgumentError) as error:  # no format, or none of the allowed ones
        # An MP4 file whose writer was interrupted has its first box but not its table of contents, the last.
        with path.open("rb") as file:
            begun = file.read(12)[4:8] == b"ftyp"
        raise VideoError("truncated" if begun else "not a video") from error
    except (av.error.FFmpegError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError("unreadable") from error


def _still(path):
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@contextmanager
def _opened(path):
    """The container and its video stream, decoded in one thread."""
    with av.open(str(path), options={"format_whitelist": _FORMATS}) as container:
        covers = av.stream.Disposition.attached_pic  # pictures of a sound file
        streams = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not streams:
            raise VideoError("no video stream")
        streams[0].codec_context.thread_count = 1
        yield container, streams[0]


class _Packet:
    """What the plan needs to know of a packet."""

    def __init__(self, packet):
        self.time, self.key = packet.pts, packet.is_keyframe
        self.shown = not packet.is_discard  # an edit list hides frames that others need


def _packets(container, stream):
    """All whole packets of the stream, in the order of the file, which is that of decoding."""
    return [_Packet(packet) for packet in _demux(container, stream)]


def _demux(container, stream):
    try:
        yield from (packet for packet in container.demux(stream) if packet.size and not packet.is_corrupt)
    except av.error.FFmpegError:
        return  # the file ends in the middle of a packet; the count of packets tells


def _numbered(container, stream, packets, wanted):
    """Decode the wanted frames and whatever they need: (number, frame) of the wanted ones, in order."""
    times = sorted(packet.time for packet in packets if packet.shown and packet.time is not None)
    number = {time: place for place, time in enumerate(times)}
    if container.format.name == "avi" or len(number) < sum(packet.shown for packet in packets):
        # AVI has no times of presentation: frames are counted as they come out.
        counted = enumerate(islice(_all_frames(container, stream), max(wanted, default=-1) + 1))
        yield from ((place, frame) for place, frame in counted if place in wanted)
        return
    chosen = {time for time, place in number.items() if place in wanted}
    for frame in _chosen_frames(container, stream, _needed(packets, chosen), chosen):
        if frame.pts in chosen:
            yield number[frame.pts], frame


def _all_frames(container, stream):
    for packet in _demux(container, stream):
        yield from _decode(stream.codec_context, packet)
    yield from _decode(stream.codec_context, None)


def _needed(packets, chosen):
    """Places of the packets to decode: for each chosen one all from a key frame on that comes before it in both orders.

    A picture may follow a key frame in the file and yet be shown before it; it needs the group before.
    """
    keys = [place for place, packet in enumerate(packets) if packet.key] or [0]
    needed = set()
    for place, packet in enumerate(packets):
        if packet.time in chosen:
            nearest = max(0, bisect_right(keys, place) - 1)
            while nearest and packets[keys[nearest]].time > packet.time:
                nearest -= 1
            needed.update(range(min(keys[nearest], place), place + 1))
    return needed


def _chosen_frames(container, stream, needed, chosen):
    context, skips = stream.codec_context, stream.codec_context.name == "h264"
    last, final = -1, max(needed, default=-1)
    for place, packet in enumerate(islice(_demux(container, stream), final + 1)):
        if place not in needed:
            continue
        if -1 < last < place - 1:  # a new start
            yield from _decode(context, None)
            context.flush_buffers()
        last = place
        context.skip_frame = "NONREF" if skips and packet.pts not in chosen else "DEFAULT"
        yield from _decode(context, packet)
    yield from _decode(context, None)


def _decode(context, packet):
    try:
        return context.decode(packet)
    except av.error.FFmpegError:
        return []  # frames after a damaged packet may still decode


def _upright(frame):
    image = frame.to_ndarray(format="rgb24", threads=1)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
