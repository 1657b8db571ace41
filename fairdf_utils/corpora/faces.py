"""Faces in an image, and the similarity transform that lays each over one canonical face.

DLib's frontal detector finds the faces, its 5-point predictor their landmarks.

The canonical face is the template of the face recognition model ArcFace (Deng et al. 2019), widely used for crops of
deepfakes: in a square of side 1 the eyes' centres lie at (0.343, 0.461) and (0.657, 0.461). DLib's predictor has four
corners of eyes and the base of the nose instead of eyes, nose and mouth, so its own mean face (as in
``dlib.get_face_chip``) is laid over the template's eyes. A margin of 1.3 keeps 0.15 sides more all around: in a crop
of 256 px the eyes are 62 px apart, 120 px below the upper edge.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import dlib
import numpy as np
from PIL import Image

SIDE = 640  # pixels of a frame's longer side at which faces are looked for first
# DLib's mean face, (x, y) in the square that just holds the 68 points of a face. Source: dlib, get_face_chip_details.
_MEAN_FACE = np.array(
    [
        (0.8595674595992, 0.2134981538014),  # right in the image: outer corner of the eye
        (0.6460604764104, 0.2289674387677),  # its inner corner
        (0.1205750620789, 0.2137274526848),  # left in the image: outer corner
        (0.3340850613712, 0.2290642403242),  # inner corner
        (0.4901123135679, 0.6277975316475),  # base of the nose
    ]
)
_EYES_APART, _EYES_AT = 0.3146, (0.5, 0.4608)  # of ArcFace's template, in its side


@dataclass(frozen=True, eq=False)
class FoundFace:
    """A face in a frame.

    The box may reach over the frame's edges. Landmarks are the outer and inner corner of the eye that is right in the
    image, of the one that is left, and the base of the nose.
    """

    box: tuple[int, int, int, int]  # left, top, right, bottom, whole px
    landmarks: np.ndarray  # float (5, 2), (x, y) px
    score: float  # the detector's; about 0 is doubtful, 1 and more is sure


def find(image: np.ndarray, everywhere: bool = False) -> list[FoundFace]:
    """Find upright frontal faces in an image, uint8 (H, W, 3), the largest first.

    The detector works on a grey copy whose longer side is 640 px (smaller frames are enlarged), and where it finds
    nothing there, on copies of twice that side and so on up to the full size or 1280 px; landmarks are found at full
    size. The smallest face has about 80 px in the copy: an eighth of the longer side at first, at last a sixteenth of
    it or 80 px of the frame. At 640 px a face that takes a quarter of a 720p frame's height is found in 23 of 32
    rendered frames, in 11 ms; at full size in 30, in 43 ms. In colour hardly more are found, and it takes a third
    longer. ``everywhere`` searches all copies and adds what only a finer one shows, as the small faces of a group.
    """
    grey, longer = Image.fromarray(image).convert("L"), max(image.shape[:2])
    side, last, found = SIDE, max(longer, 2 * SIDE), []
    while True:
        size = [max(1, round(length * side / longer)) for length in grey.size]
        copy = np.asarray(grey.resize(size, Image.BILINEAR, reducing_gap=1.0))
        boxes, scores, _ = _models()[0].run(copy, 0, 0.0)
        new = [_face(image, box, longer / side, score) for box, score in zip(boxes, scores, strict=True)]
        found += [face for face in new if not any(_same(face.box, other.box) for other in found)]
        if side == last or found and not everywhere:
            return sorted(found, key=lambda face: -_area(face.box))
        side = min(2 * side, last)


def _same(box: tuple, other: tuple) -> bool:
    """Whether two boxes (left, top, right, bottom) hold one face: they share half of the smaller one."""
    shared = (*np.maximum(box[:2], other[:2]), *np.minimum(box[2:], other[2:]))
    return 2 * _area(shared) > min(_area(box), _area(other))


def _area(box: tuple) -> int:
    left, top, right, bottom = box
    return max(0, right - left) * max(0, bottom - top)


def _face(image: np.ndarray, box: dlib.rectangle, scale: float, score: float) -> FoundFace:
    corners = (box.left(), box.top(), box.right() + 1, box.bottom() + 1)  # dlib's right and bottom are inside
    left, top, right, bottom = (round(scale * corner) for corner in corners)
    points = _models()[1](image, dlib.rectangle(left, top, right - 1, bottom - 1)).parts()
    landmarks = np.array([(point.x, point.y) for point in points], float)
    return FoundFace((left, top, right, bottom), landmarks, float(score))


@functools.cache
def _models() -> tuple[dlib.fhog_object_detector, dlib.shape_predictor]:
    return dlib.get_frontal_face_detector(), dlib.shape_predictor(model_file("shape_predictor_5_face_landmarks.dat"))


def model_file(name: str) -> str:
    """The path of a file of face_recognition_models, a package that cannot be imported on every Python."""
    package = importlib.util.find_spec("face_recognition_models")
    if package is None:
        raise ModuleNotFoundError("face_recognition_models holds the networks for faces: pip install it.")
    return str(Path(package.origin).parent / "models" / name)


def canonical(size: int, margin: float) -> np.ndarray:
    """Where the five landmarks of the canonical face lie in a crop: float (5, 2), px."""
    eyes = _MEAN_FACE[:4].reshape(2, 2, 2).mean(1)  # (right, left)
    face = (_MEAN_FACE - eyes.mean(0)) * (_EYES_APART / (eyes[0, 0] - eyes[1, 0])) + _EYES_AT
    return size * (face + (margin - 1) / 2) / margin - 0.5  # pixel centres have whole coordinates


def align(image: np.ndarray, face: FoundFace, size: int = 256, margin: float = 1.3) -> np.ndarray:
    """Cut a face out so that its landmarks come closest to the canonical face (see the module): uint8 (size, size, 3).

    The similarity transform is the least-squares one. A face larger than its crop is shrunk by averaging whole pixels
    first and by cubic interpolation then, so that it is sharp and not aliased: 35 dB or more against an area average of
    a zone plate at every scale tried (``dlib.get_face_chip``, which sits half a pixel off: 23 dB). What lies outside
    the frame is black. ``size`` is the side of the crop in px, ``margin`` in sides of the template; ``image`` is uint8
    (H, W, 3).
    """
    turn, shift = similarity(canonical(size, margin), face.landmarks)
    corners = turn * _complex(np.array([(0, 0), (size, 0), (0, size), (size, size)]) - 0.5) + shift
    left, top = np.floor([corners.real.min(), corners.imag.min()]).astype(int) - 4
    right, bottom = np.ceil([corners.real.max(), corners.imag.max()]).astype(int) + 4
    part = Image.fromarray(image).crop((left, top, right, bottom))  # black outside
    reduce = max(1, int(abs(turn)))
    part, turn = part.reduce(reduce), turn / reduce
    # Pillow's coordinates are those of pixel edges: a pixel's centre lies at a half.
    shift = (shift - complex(left, top) + (0.5 + 0.5j)) / reduce - turn * (0.5 + 0.5j)
    rows = (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag)
    return np.asarray(part.transform((size, size), Image.AFFINE, rows, Image.BICUBIC))


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[complex, complex]:
    """(a, b) of the map z -> a z + b of the plane of complex numbers that takes source closest to target, (N, 2)."""
    source, target = _complex(source), _complex(target)
    centred = source - source.mean()
    a = np.vdot(centred, target - target.mean()) / np.vdot(centred, centred).real
    return a, target.mean() - a * source.mean()


def _complex(points: np.ndarray) -> np.ndarray:
    return points[..., 0] + 1j * points[..., 1]
