"""Schematic faces as array operations.

A face is an analytic function of face coordinates (u, v): u to the right, v down, the chin near v = 1, with pose
undone, so a feature keeps its place whatever the pose. Layers are painted one over the other, from the backdrop to the
front hair, each with a soft edge one pixel wide.

Images are float32 (3, H, W) in [0, 1]; masks, distances and coordinates are float32 (H, W), lengths in face units.
"""

import numpy as np

from fairdf_utils.rendered.people import Face, Scene

FACE_SCALE = 0.78  # face unit in half images: a crop with a margin of about 1.3


class Grid:
    """Face coordinates of every pixel, (H, W) float32, and the soft edges drawn on them."""

    def __init__(self, face: Face, scene: Scene, size: int) -> None:
        axis = ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
        scale = FACE_SCALE * scene.zoom
        self.x, self.y = axis[None, :], axis[:, None]
        x, y = (self.x - scene.x) / scale, (self.y - scene.y) / scale
        cos, sin = float(np.cos(scene.roll)), float(np.sin(scene.roll))
        self.pixel = 2.0 / (size * scale)  # face units a pixel
        self.head_u, self.head_v = cos * x + sin * y, cos * y - sin * x  # (H, W), roll undone
        taper = face.width * (1 - face.jaw * np.clip(self.head_v, 0, 1) ** 2)
        radius = (self.head_u / taper) ** 2 + (self.head_v / 0.98) ** 2
        self.outline = (np.sqrt(radius) - 1) * face.width  # signed distance to the head's outline
        self.depth = np.sqrt(np.maximum(1 - radius, 0))  # 1 at the nose, 0 at the outline
        # Near features move further when the head turns.
        self.u = self.head_u - 0.5 * scene.yaw * self.depth
        self.v = self.head_v - 0.5 * scene.pitch * self.depth
        self.side = np.abs(self.u)

    def inside(self, distance: np.ndarray, soft: float = 0.0) -> np.ndarray:
        """Coverage in [0, 1] where a signed distance (face units) is negative; the edge is a pixel wide or softer."""
        return np.clip(0.5 - distance * (1.0 / max(soft, self.pixel)), 0, 1)

    def ellipse(
        self, u: np.ndarray, v: np.ndarray, cu: float, cv: float, a: float, b: float, soft: float = 0.0
    ) -> np.ndarray:
        """Coverage in [0, 1], (H, W), of an ellipse about (cu, cv) with half axes a and b."""
        distance = np.sqrt(((u - cu) / a) ** 2 + ((v - cv) / b) ** 2) - 1
        return self.inside(distance * min(a, b), soft)

    def bump(self, u: np.ndarray, v: np.ndarray, cu: float, cv: float, a: float, b: float) -> np.ndarray:
        """A Gaussian hill of height 1 about (cu, cv), with widths a and b."""
        return np.exp(-(((u - cu) / a) ** 2) - ((v - cv) / b) ** 2)


def rgb(colour: tuple) -> np.ndarray:
    """A colour as float32 (3, 1, 1), which spreads over a picture."""
    return np.array(colour, dtype=np.float32)[:, None, None]


def over(image: np.ndarray, mask: np.ndarray, colour: tuple | np.ndarray) -> None:
    """Paint ``colour`` (RGB tuple or (3, H, W)) over the image, in place, with coverage ``mask`` (H, W)."""
    image += mask * ((rgb(colour) if isinstance(colour, tuple) else colour) - image)


def paint(face: Face, scene: Scene, size: int, grain: np.ndarray) -> np.ndarray:
    """Paint one frame, float32 (3, size, size) in [0, 1].

    ``grain``, float32 (size, size) of unit variance, is the pattern of the skin; zeros give porcelain.
    """
    grid = Grid(face, scene, size)
    image = _backdrop(grid, scene)
    strands = _strands(grid, face)
    _back_hair(image, grid, face, strands)
    shade = _shading(grid, face, scene)
    _body(image, grid, face, scene, shade)
    skin = rgb(face.skin) * (shade * (1 + face.pores * grain))
    skin[1:] *= 1 - 0.10 * grid.bump(grid.side, grid.v, 0.36, 0.22, 0.18, 0.16)  # blush
    over(image, grid.inside(grid.outline), skin)
    _beard(image, grid, face, grain)
    _mouth(image, grid, face, scene)
    _nose(image, grid, face)
    _eyes(image, grid, face, scene)
    _front_hair(image, grid, face, strands)
    return np.clip(image, 0, 1, out=image)


def _backdrop(grid, scene):
    level = 1 + 0.15 * scene.shape[0] * grid.y + 0.15 * scene.shape[1] * grid.x
    image = rgb(scene.backdrop) * level
    panel = grid.inside((grid.x - 0.6 * scene.shape[2]) * (1 if scene.shape[3] > 0 else -1))
    image *= 1 - 0.25 * abs(scene.shape[3]) * panel
    return image


def _strands(grid, face):
    """Brightness of the hair (H, W): straight strands, or knots when curly."""
    u, v = grid.head_u, grid.head_v
    straight = np.sin(u * 34 + 5 * v * (u - face.parting)) * (1 - face.curl)
    curly = np.sin(u * 31 + 2 * np.sin(v * 17)) * np.sin(v * 29 + 2 * np.sin(u * 19)) * face.curl
    gloss = np.exp(-(((v + 0.80) / 0.13) ** 2)) * (1 - 0.7 * face.curl)
    return 1 + 0.22 * straight + 0.35 * curly + 0.55 * gloss


def _back_hair(image, grid, face, strands):
    wave = face.curl * 0.025 * np.sin(grid.head_u * 23) * np.sin(grid.head_v * 21)
    across, along = grid.head_u / (face.width + face.volume), grid.head_v / (0.98 + face.volume)
    top = (np.sqrt(across**2 + along**2) - 1) * 0.8
    if face.length > -0.5:
        flare = face.width + face.volume + 0.05 * np.clip(grid.head_v, 0, 1.3)
        curtain = np.maximum(np.abs(grid.head_u) - flare, np.maximum(-grid.head_v, grid.head_v - face.length))
        top = np.minimum(top + 0.3 * np.maximum(grid.head_v, 0), curtain)
    else:
        top = np.maximum(top, grid.head_v + 0.05)
    over(image, grid.inside(top + wave), rgb(face.hair) * (0.75 * strands))


def _shading(grid, face, scene):
    """Light on the skin (H, W): Lambert on an ellipsoid with a nose, eye sockets and a chin."""
    right, down, front = scene.light
    lambert = grid.u * (right / face.width) * 0.9 + grid.v * (0.8 * down) + grid.depth * front
    ridge = np.exp(-((grid.u / (0.8 * face.nose)) ** 2)) * np.clip((grid.v + 0.25) * 3, 0, 1) * (grid.v < face.nose_tip)
    lambert += ridge * (right * 3.0 * grid.u + 0.10)
    lambert -= 0.16 * grid.bump(grid.side, grid.v, face.eye_gap, -0.13, 0.20, 0.14)
    lambert += 0.08 * grid.bump(grid.u, grid.v, 0, 0.80, 0.16, 0.10)
    lambert -= 0.10 * grid.bump(grid.u, grid.v, 0, face.mouth + 0.15, 0.16, 0.05)
    return scene.ambient + (1.12 - scene.ambient) * np.clip(lambert, 0, 1.2)


def _body(image, grid, face, scene, shade):
    neck = np.maximum(np.abs(grid.head_u) - (0.62 - face.jaw) * 0.72, 0.5 - grid.head_v)
    over(image, grid.inside(neck), tuple(0.62 * channel for channel in face.skin))
    beyond = np.maximum(np.abs(grid.head_u) - 1.7, 0)  # shoulders; the square of an image ends before them
    collar = 1.06 + 0.10 * np.cos(np.clip(grid.head_u, -1.7, 1.7) * 2.6) + 0.4 * beyond + 2 * beyond**2 - grid.head_v
    over(image, grid.inside(collar), scene.cloth)
    ears = grid.ellipse(np.abs(grid.head_u), grid.head_v, face.width + 0.01, 0.02, 0.075, 0.16)
    over(image, ears, rgb(face.skin) * (0.45 + 0.4 * scene.ambient))


def _beard(image, grid, face, grain):
    if face.beard == 0:
        return
    hair = rgb(face.hair) * (1 + 4 * face.pores * grain)
    cheeks = np.sqrt((grid.u / 0.50) ** 2 + ((grid.v - 0.06) / 0.44) ** 2) - 1
    area = grid.inside(-cheeks * 0.45, 0.16) * grid.inside(-0.02 - grid.v, 0.3) * grid.inside(grid.outline + 0.01)
    over(image, face.beard * 0.85 * area, hair)
    lip = grid.ellipse(grid.u, grid.v, 0, face.mouth - face.lips - 0.055, face.mouth_width, 0.05, 0.04)
    over(image, face.moustache * 0.8 * lip, hair)


def _mouth(image, grid, face, scene):
    width = face.mouth_width * (1 + 0.12 * scene.smile)
    across = 1 - (grid.u / width) ** 2  # 1 in the middle, 0 at the corners
    bow = np.maximum(across, 0)
    centre = face.mouth - 0.07 * scene.smile * (1 - np.clip(across, 0, 1)) + 0.02 * scene.smile
    offset = grid.v - centre
    gap = scene.open * bow
    upper = (0.8 * face.lips) * bow + gap * 0.4
    lower = (1.2 * face.lips) * bow + gap
    shape = np.where(offset < 0, -offset - upper, offset - lower)
    light = 1.0 + 1.5 * np.clip(offset, -0.1, 0.08)  # the lower lip catches the light
    over(image, grid.inside(np.maximum(shape, -across * 0.1)), rgb(face.lip) * light)
    cavity = np.where(offset < 0, -offset - gap * 0.4, offset - gap * 0.85)
    line = 0.75 * grid.inside(np.abs(offset) - 0.010) * grid.inside(-across * 0.1)
    dark = grid.inside(np.maximum(cavity, -across * 0.1)) if scene.open > 0.005 else 0
    over(image, np.maximum(line, dark), (0.16, 0.05, 0.05))
    if scene.open > 0.02:
        teeth = np.maximum(np.maximum(cavity + 0.006, offset - 0.35 * gap), np.abs(grid.u) - 0.75 * width)
        over(image, grid.inside(teeth), (0.90, 0.88, 0.82))


def _nose(image, grid, face):
    wings = grid.bump(grid.side, grid.v, face.nose * 1.05, face.nose_tip + 0.01, 0.035, 0.055)
    under = grid.bump(grid.u, grid.v, 0, face.nose_tip + 0.065, face.nose, 0.03)
    over(image, np.minimum(0.50 * wings + 0.45 * under, 1), tuple(0.45 * channel for channel in face.skin))
    nostrils = grid.ellipse(grid.side, grid.v, 0.5 * face.nose, face.nose_tip + 0.045, 0.30 * face.nose, 0.020)
    over(image, 0.8 * nostrils, tuple(0.25 * channel for channel in face.skin))


def _eyes(image, grid, face, scene):
    along = grid.side - face.eye_gap
    across = grid.v + 0.10 + face.tilt * along
    aperture = face.aperture * (1 - scene.blink) * np.maximum(1 - (along / face.eye_width) ** 2, 0)
    corner = np.abs(along) - face.eye_width
    eye = grid.inside(np.maximum(np.abs(across) - aperture, corner))
    over(image, eye, (0.92, 0.90, 0.88))
    iris_u = along - scene.gaze * np.sign(grid.u)
    radius = np.sqrt(iris_u**2 + across**2)
    over(image, eye * grid.inside(radius - 0.066), face.iris)
    over(image, eye * grid.inside(radius - 0.030), (0.03, 0.03, 0.03))
    glint = np.sqrt((iris_u - 0.02) ** 2 + (across + 0.025) ** 2) - 0.014
    over(image, eye * grid.inside(glint), (1.0, 1.0, 1.0))
    lid = np.abs(across + aperture) - face.lashes
    over(image, 0.9 * grid.inside(np.maximum(lid, corner)), tuple(0.35 * channel for channel in face.hair))
    crease = np.maximum(np.abs(across + aperture + 0.045) - 0.010, corner)
    over(image, face.crease * grid.inside(crease), tuple(0.55 * channel for channel in face.skin))
    arch = face.brow_arch * (1 - (along / 0.2) ** 2) + scene.raised
    height = np.abs(across + face.aperture + 0.135 + arch) - face.brow * np.clip(1.15 - 2.2 * (along + 0.05), 0.3, 1)
    brow = np.maximum(height, np.abs(along - 0.01) - face.eye_width - 0.045)
    over(image, 0.85 * grid.inside(brow, 0.03), tuple(0.9 * channel for channel in face.hair))
    if face.glasses:
        rim = np.abs(np.sqrt((along / 1.2) ** 2 + (across * 1.15) ** 2) - 0.175) - face.glasses
        bridge = np.maximum(np.abs(grid.v + 0.12) - face.glasses, grid.side - 0.10)
        over(image, 0.9 * grid.inside(np.minimum(rim, bridge)), (0.10, 0.09, 0.09))


def below_hairline(grid: Grid, face: Face) -> np.ndarray:
    """Signed distance (H, W) to the front hair's lower edge: positive on the forehead and below."""
    across = grid.u - face.parting
    temples = np.maximum(np.abs(grid.head_u) - (face.width - 0.12), 0) * 9.0
    return grid.v - (face.hairline + face.fringe + 0.45 * across * across) - temples


def _front_hair(image, grid, face, strands):
    wave = face.curl * 0.02 * np.sin(grid.head_u * 29) + (1 - face.curl) * 0.008 * np.sin(grid.head_u * 47)
    volume = 0.6 * face.volume * np.clip(-grid.head_v * 2, 0, 1)
    ends = grid.head_v - (0.05 if face.length < -0.5 else 0.9)
    hair = np.maximum(np.maximum(below_hairline(grid, face) - wave, grid.outline - volume), ends)
    over(image, grid.inside(hair, 0.02), rgb(face.hair) * strands)


def blur(image: np.ndarray, sigma: float | tuple[float, float]) -> np.ndarray:
    """Gaussian blur of (..., H, W) with edges held; ``sigma`` in pixels, a number or (vertical, horizontal)."""
    for axis, width in zip((-2, -1), sigma if isinstance(sigma, tuple) else (sigma, sigma), strict=True):
        if width < 0.05:
            continue
        reach = int(np.ceil(2.5 * width))
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
        taps = (taps / taps.sum()).astype(np.float32)
        length, pad = image.shape[axis], [(0, 0)] * (image.ndim - 1) + [(reach, reach)]
        padded = np.pad(image.swapaxes(axis, -1), pad, mode="edge")
        image = sum(tap * padded[..., i : i + length] for i, tap in enumerate(taps)).swapaxes(axis, -1)
    return image


def skin_grain(rng: np.random.Generator, size: int) -> np.ndarray:
    """Unit-variance grain (H, W) float32 of about a 64 px pixel, whatever the size."""
    noise = rng.standard_normal((size, size), dtype=np.float32)
    sigma = 0.45 * size / 64
    gain = 2 * np.sqrt(np.pi) * sigma  # restores the variance that a wide blur removes
    return blur(noise, sigma) * np.float32(max(1.0, gain))
