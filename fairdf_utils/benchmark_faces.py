"""How fast faces are extracted, and how the frames are best got: rows for `benchmark`.

The clips are made here: a rendered face, 36 % of the frame's height, moves and grows over a textured ground; H.264 as
x264 makes it by default. Everything runs on one core, as every worker of `faces.extract` does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import av
import dlib
import numpy as np
from PIL import Image

from fairdf_utils import renderer
from fairdf_utils.alignment import _models, align, canonical, find
from fairdf_utils.timing import compare, gate, interleave
from fairdf_utils.video import frames, positions

LIMIT = 8.0  # px of a crop of 256: how far the landmarks of the two ways may lie apart


def face_rows(quick: bool = False) -> list[dict]:
    """Decoding against two other ways, and extraction against a loop that searches frames at full size.

    `quick`: few frames, one round, 640 x 360 only; to see that it works.
    """
    length, count, rounds, heights = (24, 6, 1, (360,)) if quick else (120, 30, 5, (360, 1080))
    with tempfile.TemporaryDirectory() as folder:
        paths = {height: write_clip(Path(folder, f"{height}.mp4"), height, length) for height in heights}
        return [
            row
            for height, path in paths.items()
            for row in clip_rows(path, height, length, positions(length, count), rounds)
        ]


def clip_rows(path: Path, height: int, length: int, wanted: list[int], rounds: int) -> list[dict]:
    size = f"{height * 16 // 9} x {height}"
    count = len(wanted)
    ours, theirs = extract(path, count), straightforward(path, wanted)
    alike = gate("landmarks (px of the crop)", apart(ours, theirs), LIMIT)
    seconds = interleave(
        {
            "all": lambda: decode_all(path, wanted),
            "frames": lambda: list(frames(path, count)),
            "loop": lambda: straightforward(path, wanted),
            "extract": lambda: extract(path, count),
        },
        rounds,
    )
    seconds |= interleave({"seek": lambda: seek_each(path, wanted)}, 1)  # slow: once

    def row(what: str, before: str, after: str, target: float = np.nan, equal: str = "") -> dict:
        rates = (count / np.median(seconds[side]) for side in (before, after))
        note = "{:,.0f} -> {:,.0f} frames/s a core".format(*rates)
        title = f"{what}, {count} of {length} frames, {size}"
        return compare(title, seconds[before], seconds[after], target, equal, note)

    same = gate("pixels", differ(path, wanted), 0)
    return [
        row("decoding it all", "all", "frames", equal=same),
        row("seeking to each frame", "seek", "frames"),
        row("faces: decode, find, align", "loop", "extract", 3 if height == 1080 else np.nan, alike),
    ]


def write_clip(path: Path, height: int, length: int) -> Path:
    """A rendered face that moves and grows slowly over a textured ground."""
    rng, width = np.random.default_rng(5), height * 16 // 9
    side = round(0.58 * height)
    face, scene = renderer.draw_face(rng, "female", "asian"), renderer.draw_scene(rng, rng)
    painted = renderer.paint(face, scene, side, renderer.skin_grain(rng, side))
    portrait = Image.fromarray((255 * painted.transpose(1, 2, 0)).astype(np.uint8))
    coarse = rng.integers(60, 200, (height // 12, width // 12, 3), dtype=np.uint8)
    ground = Image.fromarray(coarse).resize((width, height), Image.BICUBIC)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "23", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for time in np.arange(length) / 30:
            frame = ground.copy()
            grown = round(side * (1 + 0.1 * np.sin(time)))
            at = (round(width * (0.3 + 0.05 * np.sin(2 * time))), round(height * (0.2 + 0.03 * np.cos(3 * time))))
            frame.paste(portrait.resize((grown, grown), Image.BICUBIC), at)
            noisy = np.asarray(frame) + rng.normal(0, 3, (height, width, 1))
            pixels = np.clip(noisy, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def extract(path: Path, count: int) -> list[np.ndarray]:
    """What `faces.extract` does with one video, without the files: landmarks (5, 2) of every frame with a face."""
    found = [(image, find(image)) for _, image in frames(path, count)]
    for image, faces in found:
        if faces:
            align(image, faces[0])
    return [faces[0].landmarks for _, faces in found if faces]


def straightforward(path: Path, wanted: list[int]) -> list[np.ndarray]:
    """The same as a loop: decode every frame, search the wanted ones at full size and in colour."""
    detector, predictor = _models()
    landmarks = []
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number not in wanted:
                continue
            image = frame.to_ndarray(format="rgb24")
            boxes = detector(image, 0)
            if boxes:
                shape = predictor(image, max(boxes, key=lambda box: box.area()))
                dlib.get_face_chip(image, shape, size=256, padding=0.25)
                landmarks.append(np.array([(part.x, part.y) for part in shape.parts()], float))
    return landmarks


def apart(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The largest distance between landmarks of the same frames, px of a 256 px crop; inf if one way finds fewer."""
    if len(ours) != len(theirs):
        return np.inf
    spread = np.linalg.norm(np.ptp(canonical(256, 1.3), axis=0))
    scale = [spread / np.linalg.norm(np.ptp(points, axis=0)) for points in theirs]
    gaps = (s * np.linalg.norm(a - b, axis=1).max() for s, a, b in zip(scale, ours, theirs, strict=True))
    return max(gaps, default=np.inf)


def decode_all(path: Path, wanted: list[int]) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        decoded = enumerate(container.decode(video=0))
        return [frame.to_ndarray(format="rgb24", threads=1) for number, frame in decoded if number in wanted]


def seek_each(path: Path, wanted: list[int]) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        stream, images = container.streams.video[0], []
        stream.codec_context.thread_count = 1
        times = sorted(packet.pts for packet in container.demux(stream) if packet.size)
        for number in wanted:
            container.seek(times[number], stream=stream)
            frame = next(frame for frame in container.decode(stream) if frame.pts >= times[number])
            images.append(frame.to_ndarray(format="rgb24", threads=1))
        return images


def differ(path: Path, wanted: list[int]) -> float:
    """The largest difference between pixels of `frames` and of the other two ways."""
    ours = np.stack([image for _, image in frames(path, len(wanted))]).astype(int)
    return max(float(np.abs(np.stack(way(path, wanted)) - ours).max()) for way in (decode_all, seek_each))
