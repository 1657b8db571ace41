"""Small videos for tests: frames that carry their number, the one real face, and files that are no whole video."""

import math
from fractions import Fraction

import av
import numpy as np
from PIL import Image
from skimage.data import astronaut

EYES = ((203.7, 102.35), (246.65, 104.55))  # centres in the photograph, (x, y) px: left and right in the image


def write_video(
    path, images, codec="libx264", pixels="yuv420p", rotation=0, flips=None, aspect=None, times=None, container=None,
    kind=None, **options,
):  # fmt: skip
    """Encode uint8 (H, W, 3) images at 25 a second, or at the given times in milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=kind, options=container or {}) as file:
        stream = file.add_stream(codec, rate=25, options={"threads": "1", **options})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation or flips:
            stream.set_display_rotation(rotation, **(flips or {}))
        for place, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[place], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def write_sound(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        for _ in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate = 44100
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def numbered(count, height=64, width=128):
    """Images that show their number as eight bars, white for a set bit, over a moving gradient."""
    images = []
    for number in range(count):
        image = np.add.outer(np.arange(height) * 2 + 3 * number, np.arange(width)) % 200 + 20
        image = np.repeat(image[..., None], 3, 2).astype(np.uint8)
        for bit in range(8):
            image[: height // 2, bit * width // 8 : (bit + 1) * width // 8] = 255 * (number >> bit & 1)
        images.append(image)
    return images


def number_in(image):
    """The number that a decoded frame shows."""
    height, width = image.shape[:2]
    bars = image[: height // 2, : width // 8 * 8].reshape(height // 2, 8, -1).mean((0, 2))
    return sum(int(bar > 127) << bit for bit, bar in enumerate(bars))


def astronaut_frame(height, width, scale, x, y, degrees=0.0):
    """The photograph, enlarged, turned and with its face's middle at (x, y), and where the eyes are, (2, 2)."""
    turn = scale * np.exp(1j * math.radians(degrees))
    eyes = np.array([complex(*eye) for eye in EYES])
    middle = complex(224, 130)
    back = 1 / turn  # frame -> photograph, of pixel edges
    shift = middle - back * complex(x, y)
    rows = (back.real, -back.imag, shift.real, back.imag, back.real, shift.imag)
    photograph = Image.fromarray(astronaut())
    image = photograph.transform((width, height), Image.AFFINE, rows, Image.BICUBIC, fillcolor=(120, 130, 140))
    places = turn * (eyes + (0.5 + 0.5j) - middle) + complex(x, y) - (0.5 + 0.5j)
    return np.asarray(image), np.stack([places.real, places.imag], 1)


def astronaut_clip(count, height=360, width=480):
    """A slow zoom and shift over the astronaut: images and the eyes' places (count, 2, 2)."""
    steps = np.linspace(0, 1, count)
    made = [
        astronaut_frame(height, width, 1.3 + 0.3 * t, width * (0.45 + 0.1 * t), height * (0.5 - 0.05 * t), 5 - 10 * t)
        for t in steps
    ]
    return [image for image, _ in made], np.stack([eyes for _, eyes in made])


def cut(source, target, share=0.6):
    """The first part of a file's bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(share * len(data))])
    return target
