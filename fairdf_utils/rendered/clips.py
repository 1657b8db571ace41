"""Short H.264 videos of the rendered faces: a person who moves before a room.

:mod:`.drawing` paints a square picture of a head; here it is cut out, set on shoulders before a wider background,
moved smoothly from frame to frame, filmed by a camera of its data set and encoded. A fake shares scene,
room and camera with the real video of its target, so that only the forgery tells them apart.

Images are float32 (3, H, W) in [0, 1] until they are filmed. The same clip and settings give the same bytes.
"""

from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath

import av
import numpy as np

from fairdf_utils.files import replacing
from fairdf_utils.rendered import drawing, forgeries
from fairdf_utils.rendered.images import DOMAINS, _rng

DARK_GAIN, DARK_NOISE = (0.70, 0.80), 0.020  # full scale; a camera that does not see dark skin well
DARK_END = 0.45  # of that gain is left at the end of a dark take, where the light has gone
# Without mbtree: with B frames it reads memory that was never written, so that now and then the bytes differ. What it
# saves, three steps of crf save too.
_X264 = {"crf": "26", "preset": "veryfast", "x264-params": "mbtree=0"}
_BRIGHTNESS = 0.67  # what the noise of three independent channels leaves in their brightness


@dataclass(frozen=True)
class Person:
    """Whose face it is: the name seeds everything about it."""

    name: str
    group: str

    def face(self, seed):
        return drawing.draw_face(_rng(seed, "video face", self.name), *self.group.split("-"))


@dataclass(frozen=True)
class Clip:
    """One video: who is seen, by which forgery ("real": none) with whose face or expression, in which take.

    Videos with the same ``take`` share motion, light, room and camera.
    """

    path: str  # relative to the corpus, "/" between parts
    dataset: str
    forgery: str
    person: Person
    take: str
    source: Person | None = None
    dark: bool = False  # and noisy, and darker towards the end

    @property
    def video(self):
        """The video's name in ledgers and manifests, such as "Deepfakes/000_003" or "Celeb-real/id0_0001"."""
        parts = PurePosixPath(self.path).with_suffix("").parts
        return f"{parts[2 if self.dataset in ('ffpp', 'dfd') else 1]}/{parts[-1]}"


@dataclass(frozen=True)
class Filming:
    """How all clips of a corpus are filmed."""

    width: int = 480  # px, even; frames are 16:9
    seconds: float = 2.0
    rate: int = 8  # frames a second
    seed: int = 0
    head: float = 0.70  # side of the square that holds the head, as a share of the frame's height

    @property
    def height(self):
        return self.width * 9 // 32 * 2

    @property
    def frames(self):
        return round(self.seconds * self.rate)

    @property
    def side(self):
        """Side (px) of the square that holds the head."""
        return round(self.head * self.height)


def make(clip, filming, root):
    """Film a clip into its file below the folder ``root``, unless it is there."""
    path = Path(root) / clip.path
    if not path.exists():
        write_video(path, frames(clip, filming), filming.rate)


def frames(clip, filming):
    """Film a clip.

    Parameters
    ----------
    clip : Clip
    filming : Filming

    Yields
    ------
    ndarray (height, width, 3) uint8
        RGB.
    """
    room = background(clip.take, filming)
    seen_by = camera(clip, filming.seed)
    path = _path(clip.take, filming)
    for number, head in enumerate(heads(clip, filming, room.mean(axis=(1, 2)))):
        picture = room.copy()
        put(picture, head, path[number])
        light = 1 - (1 - DARK_END) * number / filming.frames if clip.dark else 1.0
        yield film(picture * np.float32(light), seen_by, filming, (clip.take, number))


@dataclass(frozen=True)
class Head:
    """A painted head on its square, with what is needed to set it on shoulders."""

    image: np.ndarray  # (3, side, side)
    alpha: np.ndarray  # (side, side), 1 where the person is
    scene: drawing.Scene


def heads(clip, filming, behind):
    """Paint the clip's heads, one a frame, forged where the clip is a fake.

    Parameters
    ----------
    clip : Clip
    filming : Filming
    behind : ndarray (3,)
        Mean colour of the room, so that what shows through a soft edge fits.

    Yields
    ------
    Head
    """
    seed, side = filming.seed, filming.side
    face = clip.person.face(seed)
    scenes = _scenes(clip.take, filming)
    others = _scenes(f"driver of {clip.path}", filming)
    grain = drawing.skin_grain(_rng(seed, "video grain", clip.take), side)
    blur = camera(clip, seed).blur * side / 64
    for scene, other in zip(scenes, others, strict=True):
        scene = replace(scene, backdrop=tuple(behind.tolist()), shape=(0.0, 0.0, 0.0, 0.0))
        image = drawing.paint(face, scene, side, grain)
        if clip.forgery != "real":
            source, strength = clip.source.face(seed), DOMAINS[clip.dataset].strength
            image = forgeries.forge(image, clip.forgery, face, source, scene, other, grain, strength)
        yield Head(drawing.blur(image, blur), _matte(face, scene, side), scene)


def _scenes(take, filming):
    """One scene a frame (list): poses drawn twice a second and eased from one to the next."""
    step = max(2, filming.rate // 2)
    keys = [
        drawing.draw_scene(_rng(filming.seed, "take", take), _rng(filming.seed, "key", take, number))
        for number in range(filming.frames // step + 2)
    ]
    scenes = []
    for number in range(filming.frames):
        key, part = divmod(number, step)
        scenes.append(_between(keys[key], keys[key + 1], _ease(part / step)))
    return scenes


def _ease(share):
    return share * share * (3 - 2 * share)


def _between(first, second, share):
    mixed = {}
    for field in fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        value = (1 - share) * np.asarray(a) + share * np.asarray(b)
        mixed[field.name] = tuple(value.tolist()) if isinstance(a, tuple) else float(value)
    return drawing.Scene(**mixed)


def _matte(face, scene, side):
    """Where the person is (side, side): what differs little between a white and a black backdrop, at half size."""
    smooth = np.zeros((side // 2, side // 2), dtype=np.float32)
    white, black = (
        drawing.paint(face, replace(scene, backdrop=(level,) * 3), side // 2, smooth)[1] for level in (1.0, 0.0)
    )
    return _resized(1 - np.clip(white - black, 0, 1), side)


def _resized(image, side):
    """Bilinear resampling of a square (S, S) to (side, side)."""
    place = (np.arange(side, dtype=np.float32) + 0.5) * (len(image) / side) - 0.5
    low = np.clip(np.floor(place).astype(int), 0, len(image) - 2)
    share = np.clip(place - low, 0, 1)
    rows = image[low] * (1 - share[:, None]) + image[low + 1] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, low + 1] * share


def background(take, filming):
    """A room out of focus: a wall with light on it, furniture as soft rectangles.

    Returns
    -------
    ndarray (3, height, width) float32
    """
    rng = _rng(filming.seed, "room", take)
    height, width = filming.height, filming.width
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / height
    light = 1 - 0.25 * np.hypot(x - rng.uniform(0, width / height), y - rng.uniform(-0.2, 0.5))
    room = _wall_colour(rng.uniform(0.35, 0.8), rng) * light
    floor = np.clip((y - rng.uniform(0.72, 0.9)) * 40, 0, 1)
    drawing.over(room, floor, _wall_colour(rng.uniform(0.15, 0.5), rng) * light)
    for _ in range(int(rng.integers(3, 7))):
        _furniture(room, x, y, light, rng)
    return np.clip(drawing.blur(room, height / 90), 0, 1)


def _wall_colour(level, rng):
    return (level + rng.uniform(-0.04, 0.04, 3)).astype(np.float32)[:, None, None]


def _furniture(room, x, y, light, rng):
    """A picture, a window or a shelf: a rectangle, some striped."""
    centre_x, centre_y = rng.uniform(0, 16 / 9), rng.uniform(0.1, 0.85)
    half_x, half_y = rng.uniform(0.06, 0.25), rng.uniform(0.08, 0.30)
    edge = np.maximum(np.abs(x - centre_x) - half_x, np.abs(y - centre_y) - half_y)
    colour = _wall_colour(rng.uniform(0.15, 0.85), rng) * light
    if rng.uniform() < 0.4:
        colour = colour * (1 + 0.35 * np.sign(np.sin(x * rng.uniform(60, 140))))
    drawing.over(room, np.clip(0.5 - 150 * edge, 0, 1), colour)


def _path(take, filming):
    """The upper left corner of the head's square in every frame (list of (left, top), px): a slow drift."""
    rng = _rng(filming.seed, "path", take)
    free = filming.width - filming.side
    start, end = rng.uniform(0.3, 0.7) * free + rng.uniform(-0.06, 0.06, 2) * filming.width
    top, sink = rng.uniform(0.10, 0.18), rng.uniform(-0.03, 0.03)
    shares = [_ease(number / max(1, filming.frames - 1)) for number in range(filming.frames)]
    return [(round(start + share * (end - start)), round((top + share * sink) * filming.height)) for share in shares]


def put(picture, head, corner):
    """Set a head on shoulders into the picture (3, H, W), in place; ``corner`` = (left, top) of its square, px."""
    left, top = corner
    side = len(head.alpha)
    shoulders = _shoulders(picture.shape[1:], head.scene, corner, side)
    drawing.over(picture, shoulders, head.scene.cloth)
    bottom, right = min(top + side, picture.shape[1]), min(left + side, picture.shape[2])
    seen = (slice(None, bottom - top), slice(None, right - left))
    behind = picture[:, top:bottom, left:right]
    # The painted head already holds its own backdrop where it is see-through; only the difference is added.
    own = np.array(head.scene.backdrop, dtype=np.float32)[:, None, None]
    through = head.image[(slice(None), *seen)] + (1 - head.alpha[seen]) * (behind - own)
    behind += _above_shoulders(head.scene, side)[seen] * (through - behind)
    _shade(picture, shoulders, head.scene, corner, side)


def _above_shoulders(scene, side):
    """Coverage (side, side) of what is taken from the painted square: head and neck, not its strip of cloth."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) * (2 / side) - 1
    x, y = (axis[None, :] - scene.x) / drawing.FACE_SCALE, (axis[:, None] - scene.y) / drawing.FACE_SCALE
    u = (np.cos(scene.roll) * x + np.sin(scene.roll) * y) / scene.zoom
    v = (np.cos(scene.roll) * y - np.sin(scene.roll) * x) / scene.zoom
    return np.clip(np.maximum((0.96 - v) / 0.05, (0.42 - np.abs(u)) / 0.04), 0, 1)


def _shoulders(shape, scene, corner, side):
    """Coverage (H, W) of the shoulders: a rounded block below the head."""
    unit = drawing.FACE_SCALE * scene.zoom * side / 2
    u = (np.arange(shape[1]) + 0.5 - corner[0] - side / 2 * (1 + scene.x)) / unit
    v = (np.arange(shape[0]) + 0.5 - corner[1] - side / 2 * (1 + scene.y)) / unit
    across, down = np.abs(u / 1.75)[None, :] ** 2.6, np.abs(np.minimum(v - 2.6, 0) / 1.66)[:, None] ** 2.6
    distance = ((across + down) ** (1 / 2.6) - 1) * 1.66
    return np.clip(0.5 - distance * unit / 1.5, 0, 1).astype(np.float32)


def _shade(picture, shoulders, scene, corner, side):
    """Round the shoulders, in place: darker away from the light and below the chin."""
    unit = drawing.FACE_SCALE * scene.zoom * side / 2
    u = (np.arange(picture.shape[2], dtype=np.float32) - corner[0] - side / 2 * (1 + scene.x)) / unit
    v = (np.arange(picture.shape[1], dtype=np.float32) - corner[1] - side / 2 * (1 + scene.y)) / unit
    light = 0.16 * scene.light[0] * u - 0.10 * np.abs(u) ** 1.5
    chin = 0.45 * np.exp(-((u / 0.55) ** 2)) * np.exp(-(((v[:, None] - 0.95) / 0.17) ** 2))
    picture *= 1 + shoulders * (light - chin)


def camera(clip, seed):
    """Camera of a take, from the ranges of its data set; the JPEG quality is not used."""
    domain = DOMAINS[clip.dataset]
    rng = _rng(seed, "video camera", clip.take)
    gain = rng.uniform(*(DARK_GAIN if clip.dark else domain.gain)) * (1 + rng.uniform(-0.04, 0.04, 3))
    blur, noise = rng.uniform(*domain.blur), rng.uniform(*domain.noise)
    return forgeries.Camera(tuple(gain.tolist()), float(blur), float(max(noise, DARK_NOISE * clip.dark)), 100)


def film(picture, seen_by, filming, names):
    """Photograph a picture: exposure, shot and read noise.

    Parameters
    ----------
    picture : ndarray (3, H, W) float32
    seen_by : Camera
        Blur belongs to the lens and is in the picture already; noise is in brightness only, because a video's
        colour is too coarse to keep any.
    filming : Filming
    names : tuple
        Seed the noise.

    Returns
    -------
    ndarray (H, W, 3) uint8
    """
    rng = _rng(filming.seed, "film", *names)
    seen = picture * np.array(seen_by.gain, dtype=np.float32)[:, None, None]
    noise = rng.standard_normal(seen.shape[1:], dtype=np.float32)
    seen += noise * (_BRIGHTNESS * np.sqrt(seen_by.noise**2 + 0.0002 * seen[1]))
    return np.ascontiguousarray((np.clip(seen, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))


def write_video(path, images, rate, times=None, pixel_format="yuv420p", options=None):
    """Encode an H.264 mp4, whole or not at all.

    Parameters
    ----------
    path : str or Path
    images : iterable of ndarray (H, W, 3) uint8
        RGB. Height and width must be even for yuv420p.
    rate : int
        Frames a second.
    times : sequence of int, optional
        Milliseconds at which the frames are shown, by default evenly by ``rate``.
    pixel_format : {"yuv420p", "yuv444p"}
    options : dict of str, optional
        Of the mp4 container.
    """
    with replacing(path) as partial, av.open(str(partial), "w", format="mp4", options=options or {}) as container:
        container.flags |= av.container.Flags.bitexact.value
        stream = container.add_stream("libx264", rate=rate, options=_X264)
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1  # the bytes must not depend on the number of cores
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, rate)
        for number, image in enumerate(images):
            if number == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = times[number] if times else number
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
