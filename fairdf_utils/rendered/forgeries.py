"""Five forgeries and a camera, on the faces of :mod:`fairdf_utils.rendered.drawing`.

A forgery paints another face (or another expression) with the target's scene and composites it through a mask given in
the target's face coordinates; no warping is needed. Blur is given in pixels of a 64 px image, so that one setting
serves every size.
"""

import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from fairdf_utils.rendered.drawing import Grid, below_hairline, blur, over, paint, rgb
from fairdf_utils.rendered.people import Face, Scene

# What a swap leaves as it was: the target's head and hair.
_KEPT = ("width", "jaw", "hairline", "fringe", "parting", "volume", "curl", "length")


@dataclass(frozen=True)
class Camera:
    """The last steps of capture. ``blur`` in pixels of a 64 px image, ``noise`` in units of full scale."""

    gain: tuple  # per colour channel
    blur: float
    noise: float
    quality: int  # JPEG


def forge(
    image: np.ndarray, forgery: str, face: Face, source: Face, scene: Scene, other: Scene, grain: np.ndarray,
    strength: float,
) -> np.ndarray:  # fmt: skip
    """Forge a frame: a new float32 (3, H, W) in [0, 1].

    Parameters
    ----------
    image : float32 (3, H, W), the untouched frame of ``face`` in ``scene``
    forgery : one of the five of :data:`fairdf_utils.data.vocabulary.FORGERIES`
    face, source : target and source identity
    scene, other : the frame, and the source's frame that drives a re-enactment
    grain : float32 (H, W), the skin's grain in the frame
    strength : how visible the artefacts are: about 1 for a good forgery, 1.6 for a plain one
    """
    size = image.shape[-1]
    grid, result = Grid(face, scene, size), image.copy()
    if forgery in ("Deepfakes", "FaceSwap", "FaceShifter"):
        fitted = replace(source, **{name: getattr(face, name) for name in _KEPT})
        swapped = paint(fitted, scene, size, grain * (forgery != "FaceShifter"))
        bare = grid.inside(0.06 - below_hairline(grid, face), 0.10)  # the target's front hair stays in front
        _SWAPS[forgery](result, grid, bare, swapped, rgb(face.skin) / rgb(source.skin), strength)
    else:
        driven = replace(scene, open=other.open, smile=other.smile, raised=other.raised)
        _REENACTMENTS[forgery](result, grid, face, paint(face, driven, size, grain), strength)
    return np.clip(result, 0, 1, out=result)


def _deepfakes(result, grid, bare, swapped, matching, strength):
    """Inner face from a low-resolution decoder: blurred, a little flat, with a soft rim."""
    mask = bare * grid.ellipse(grid.u, grid.v, 0, 0.14, 0.52, 0.60, 0.16)
    inner = blur(swapped * matching, 0.72 * strength * result.shape[-1] / 64)
    over(result, mask, inner * (1 - 0.06 * strength) + 0.045 * strength)


def _face_swap(result, grid, bare, swapped, matching, strength):
    """Landmark-shaped mask with a sharp edge, the source's own colours and a dark seam."""
    jawline = np.sqrt((grid.u / 0.54) ** 2 + ((grid.v - 0.08) / 0.66) ** 2) - 1
    distance = np.maximum(jawline * 0.54, -0.36 - grid.v + 0.10 * np.cos(grid.u * 11))
    over(result, bare * grid.inside(distance), swapped * rgb((1.05, 0.98, 0.92)) ** np.float32(strength))
    result *= 1 - 0.42 * strength * grid.inside(np.abs(distance) - 0.018, 0.03)  # the seam


def _face_shifter(result, grid, bare, swapped, matching, strength):
    """The whole face from a generator: grain gone, porcelain smooth, with a slight glow."""
    mask = grid.inside(grid.outline + 0.06, 0.10) * bare
    smooth = blur(swapped * matching, 0.30 * strength * result.shape[-1] / 64)
    over(result, mask, smooth * (1 - 0.06 * strength) + 0.14 * strength * smooth.mean(axis=0))


def _face2face(result, grid, face, driven, strength):
    """Re-enacted mouth and brows, smeared along the warp and lit differently."""
    pixels = result.shape[-1] / 64
    mouth = grid.ellipse(grid.u, grid.v, 0, face.mouth + 0.03, face.mouth_width + 0.16, 0.27, 0.03)
    brows = grid.ellipse(grid.u, grid.v, 0, -0.24, 0.56, 0.17, 0.03)
    smeared = blur(driven, (0.2 * strength * pixels, 1.6 * strength * pixels))
    over(result, np.maximum(mouth, brows), smeared * (1 + 0.10 * strength))


def _neural_textures(result, grid, face, driven, strength):
    """Mouth region from a neural renderer, with the checkerboard of its transposed convolutions."""
    size = result.shape[-1]
    mask = grid.ellipse(grid.u, grid.v, 0, face.mouth + 0.06, face.mouth_width + 0.20, 0.32, 0.08)
    cell = np.arange(size) // max(1, round(size / 64)) % 2
    board = np.where(cell[:, None] == cell[None, :], 1.0, -1.0).astype(np.float32)
    over(result, mask, driven * (1 + 0.07 * strength * board))


_SWAPS = {"Deepfakes": _deepfakes, "FaceSwap": _face_swap, "FaceShifter": _face_shifter}
_REENACTMENTS = {"Face2Face": _face2face, "NeuralTextures": _neural_textures}


def capture(image: np.ndarray, camera: Camera, rng: np.random.Generator) -> bytes:
    """Photograph an image (3, H, W) in [0, 1]: exposure, lens blur, shot and read noise; a JPEG file (4:4:4)."""
    seen = blur(image, camera.blur * image.shape[-1] / 64) * rgb(camera.gain)
    sigma = np.sqrt(camera.noise**2 + 0.0002 * seen)
    seen = seen + sigma * rng.standard_normal(seen.shape, dtype=np.float32)
    pixels = np.rint(np.clip(seen, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=camera.quality, subsampling=0)
    return buffer.getvalue()
