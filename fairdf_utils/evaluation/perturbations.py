"""Test-time perturbations by torchvision: what a detector answers when images lose quality.

Seven kinds, five severities each (0 is the image as it is): at 64 px the mildest is hardly seen, and the strongest
still shows a face. Strengths that are a share scale with the image's side; JPEG works in blocks of 8 px and noise on
single pixels, whatever the image's size.
"""

import zlib
from collections.abc import Iterator
from itertools import product
from math import ceil

import numpy as np
import pandas as pd
import torch
from torch import nn
from torchvision.transforms import v2

from fairdf_utils import progress
from fairdf_utils.evaluation.scoring import predict, score_table

STRENGTHS = {
    "jpeg": (90, 70, 50, 30, 15),  # quality
    "blur": (0.005, 0.008, 0.012, 0.018, 0.028),  # standard deviation of the Gaussian, share of the side
    "noise": (4, 8, 12, 18, 26),  # standard deviation, grey levels of 255
    "scaling": (0.9, 0.8, 0.7, 0.5, 0.35),  # side after scaling down, share of the side; then up again
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # gain minus 1; an image becomes darker or brighter by it
    "contrast": (0.85, 0.7, 0.55, 0.4, 0.25),  # factor on the distance from the image's mean grey
    "crop": (0.97, 0.94, 0.9, 0.85, 0.75),  # side of the part that is kept and enlarged, share of the side
}
KINDS = tuple(STRENGTHS)
SEVERITIES = (0, 1, 2, 3, 4, 5)


def transform(kind: str, severity: int, side: int) -> v2.Transform:
    """The torchvision transform of one kind and severity (1 to 5), for uint8 images (3, side, side)."""
    strength = STRENGTHS[kind][severity - 1]
    kept = round(strength * side)
    if kind == "jpeg":
        return v2.JPEG(strength)
    if kind == "blur":
        return v2.GaussianBlur(2 * ceil(3 * strength * side) + 1, strength * side)
    if kind == "noise":
        to_float, to_bytes = (v2.ToDtype(dtype, scale=True) for dtype in (torch.float32, torch.uint8))
        return v2.Compose([to_float, v2.GaussianNoise(sigma=strength / 255), to_bytes])  # on bytes it rounds to zero
    if kind == "brightness":
        return v2.RandomChoice([v2.ColorJitter(brightness=(gain, gain)) for gain in (1 - strength, 1 + strength)])
    if kind == "contrast":
        return v2.ColorJitter(contrast=(strength, strength))
    first = v2.Resize(kept) if kind == "scaling" else v2.RandomCrop(kept)
    return v2.Compose([first, v2.Resize(side)])


def perturb(images: np.ndarray, kind: str, severity: int, seed: int = 0) -> np.ndarray:
    """Images uint8 (N, H, H, 3) with one kind of damage, severity 0 (an unchanged copy) to 5.

    `seed` decides the noise, the place of the crop and the direction of the brightness. Image i of the result depends
    on images[i], kind, severity and seed alone: every detector sees the same. Raises ValueError for an unknown kind or
    severity, or images of another form.
    """
    if kind not in STRENGTHS or severity not in SEVERITIES:
        raise ValueError(f"{kind!r} at {severity!r} is unknown: kinds {', '.join(KINDS)}; severities 0 to 5")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images must be uint8 (N, H, H, 3), not {images.dtype} {images.shape}")
    changed = np.array(images)
    if severity > 0:
        damage = transform(kind, severity, images.shape[1])
        with torch.random.fork_rng(devices=[]):
            for image in changed:
                torch.default_generator.manual_seed(zlib.crc32(image.tobytes(), seed))
                image[:] = damage(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0)
    return changed


def perturbed_scores(
    model: nn.Module, frame: pd.DataFrame, images: np.ndarray, device: torch.device, precision: str = "float32"
) -> Iterator[tuple[str, int, pd.DataFrame]]:
    """(kind, severity, score table) of a detector for every kind and severity; the unchanged images are scored once.

    `frame` is the canonical manifest of the images, N rows; the rest as of `perturb` and `scoring.predict`.
    """
    if len(frame) != len(images):
        raise ValueError(f"{len(frame)} rows but {len(images)} images: give the images of exactly these rows")
    unchanged = score_table(frame, predict(model, images, device, precision))
    for kind, severity in progress.bar([*product(KINDS, SEVERITIES)], desc="perturb and score", unit="case"):
        damaged = perturb(images, kind, severity)
        found = score_table(frame, predict(model, damaged, device, precision)) if severity else unchanged
        yield kind, severity, found


def subsample(frame: pd.DataFrame, count: int, seed: int = 0) -> np.ndarray:
    """Positions of at most `count` rows, as many of each group and label as there are, videos before second frames.

    Frames of one video are near copies: a small sample says most when it takes each video once. `frame` has N rows and
    the columns label, group and video; returns int64 (min(count, N),), ascending.
    """
    shuffled = np.random.default_rng(seed).permutation(len(frame))
    drawn = frame[["label", "group", "video"]].reset_index(drop=True).iloc[shuffled]
    again = drawn.groupby(["group", "label", "video"]).cumcount()  # 0: first frame of its video
    turn = drawn.loc[again.sort_values(kind="stable").index].groupby(["group", "label"]).cumcount()  # 0: first of both
    return np.sort(turn.sort_values(kind="stable").index[:count])
