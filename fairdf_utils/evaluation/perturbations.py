"""Test-time perturbations: what a detector's AUC and fairness become when images lose quality.

Seven kinds, five severities each; severity 0 is the image as it is. Severities were chosen so that at 64 px the
mildest is hardly seen and the strongest still shows a face.

| kind | strength | with the image size |
|---|---|---|
| jpeg | quality | as it is: JPEG works in blocks of 8 px, which cover more of a small face |
| blur | standard deviation of the Gaussian, share of the side (0.01 is 0.64 px at 64 px) | scales |
| noise | standard deviation, grey levels of 255 | as it is: a sensor errs by pixel, larger images average it out |
| scaling | side after scaling down, share of the side; then up again | scales |
| brightness | gain minus 1; an image becomes darker or brighter by it, drawn by image | none |
| contrast | factor on the distance from the image's mean grey | none |
| crop | side of the part that is kept and enlarged, share of the side; its place is drawn | scales |

What is drawn at random for an image depends on its pixels and the seed alone, not on its batch or place, and is the
same at every severity: a stronger severity is more of the same damage.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from torch import nn

from fairdf_utils import progress
from fairdf_utils.evaluation.scoring import logits_of, score_table, scoring_copy
from fairdf_utils.fairness.metrics import METRICS, fairness_metrics, group_rates, overall_metrics

STRENGTHS = {
    "jpeg": (90, 70, 50, 30, 15),
    "blur": (0.005, 0.008, 0.012, 0.018, 0.028),
    "noise": (4, 8, 12, 18, 26),
    "scaling": (0.9, 0.8, 0.7, 0.5, 0.35),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.85, 0.7, 0.55, 0.4, 0.25),
    "crop": (0.97, 0.94, 0.9, 0.85, 0.75),
}
KINDS = tuple(STRENGTHS)
SEVERITIES = (0, 1, 2, 3, 4, 5)
BLOCK = 2048  # images perturbed and scored at once: bounds the memory that copies take


def perturb(images: np.ndarray, kind: str, severity: int, seed: int = 0) -> np.ndarray:
    """Images with one kind of damage.

    Parameters
    ----------
    images : uint8 (N, H, H, 3)
    kind : a key of `STRENGTHS`
    severity : 0 (unchanged, a copy) to 5
    seed : of the noise, the place of the crop and the direction of the brightness

    Returns
    -------
    uint8 (N, H, H, 3)
        Image i depends on images[i], kind, severity and seed alone.

    Raises
    ------
    ValueError
        Unknown kind or severity, or images of another form.
    """
    if kind not in STRENGTHS:
        raise ValueError(f"kind {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity is 0 (unchanged) to 5, not {severity!r}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images must be uint8 (N, H, H, 3), not {images.dtype} {images.shape}")
    if severity == 0 or not len(images):
        return np.array(images)
    apply, strength = _KINDS[kind], STRENGTHS[kind][severity - 1]

    def damage(image: np.ndarray) -> np.ndarray:
        return apply(image, strength, _generator(image, seed))

    # Pillow and numpy release the interpreter lock on larger images; for small ones a thread costs more than it saves.
    if images[0].nbytes < 2**16:
        return np.stack([damage(image) for image in images])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(damage, images)))


def _generator(image: np.ndarray, seed: int) -> np.random.Generator:
    digest = hashlib.blake2b(np.ascontiguousarray(image), digest_size=8).digest()
    return np.random.Generator(np.random.SFC64([seed, int.from_bytes(digest, "little")]))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _jpeg(image: np.ndarray, quality: int, _: np.random.Generator) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", quality=quality)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded.convert("RGB"))


def _blur(image: np.ndarray, share: float, _: np.random.Generator) -> np.ndarray:
    blurred = image.astype(np.float32)
    for axis in (0, 1):
        blurred = gaussian_filter1d(blurred, share * image.shape[0], axis, mode="nearest", truncate=3)
    return _to_bytes(blurred)


def _noise(image: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    return _to_bytes(image + np.float32(deviation) * generator.standard_normal(image.shape, np.float32))


def _scaling(image: np.ndarray, share: float, _: np.random.Generator) -> np.ndarray:
    side = image.shape[0]
    small = Image.fromarray(image).resize((max(1, round(share * side)),) * 2, Image.Resampling.BILINEAR)
    return np.asarray(small.resize((side, side), Image.Resampling.BILINEAR))


def _brightness(image: np.ndarray, change: float, generator: np.random.Generator) -> np.ndarray:
    return _to_bytes(image * np.float32(1 + change * generator.choice((-1, 1))))


def _contrast(image: np.ndarray, factor: float, _: np.random.Generator) -> np.ndarray:
    middle = image.mean(dtype=np.float64)
    return _to_bytes(middle + factor * (image - middle))


def _crop(image: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    side = image.shape[0]
    left, top = (1 - share) * side * generator.random(2)
    box = (left, top, left + share * side, top + share * side)
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=box))


_KINDS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "jpeg": _jpeg,
    "blur": _blur,
    "noise": _noise,
    "scaling": _scaling,
    "brightness": _brightness,
    "contrast": _contrast,
    "crop": _crop,
}


def subsample(frame: pd.DataFrame, count: int, seed: int = 0) -> np.ndarray:
    """Positions of at most `count` rows, as many of each group and label as there are, videos before second frames.

    Frames of one video are near copies: a small sample says most when it takes each video once.

    Parameters
    ----------
    frame : DataFrame with the columns label, group and video
    count : int
        Rows wanted; all when there are no more.

    Returns
    -------
    int64 (min(count, N),), ascending
    """
    order = np.random.default_rng(seed).permutation(len(frame))
    drawn = frame[["label", "group", "video"]].iloc[order].reset_index(drop=True)
    drawn["again"] = drawn.groupby(["group", "label", "video"]).cumcount()  # 0: first frame of its video
    drawn = drawn.sort_values("again", kind="stable")
    turn = drawn.groupby(["group", "label"]).cumcount()  # 0: first of its group and label
    return np.sort(order[turn.sort_values(kind="stable").index[:count]])


def robustness(
    model: nn.Module,
    frame: pd.DataFrame,
    images: np.ndarray,
    device: torch.device,
    kinds: Iterable[str] = KINDS,
    severities: Iterable[int] = SEVERITIES,
    bys: Iterable[str] = ("gender", "race", "group"),
    threshold: float = 0.5,
    precision: str = "float32",
    seed: int = 0,
) -> pd.DataFrame:
    """Detection and fairness of a detector under every kind and severity; nothing is written.

    Costs one scoring of all images for each kind and severity; the unchanged images are scored once. With few images
    (`subsample`) gaps between groups are wide by chance: compare them along a curve, not with a floor of another size.

    Parameters
    ----------
    model : a detector with `detect`, on `device`
    frame : canonical manifest, N rows
    images : uint8 (N, H, H, 3), in the order of the manifest
    kinds, severities : of `STRENGTHS`; 0 to 5
    bys : columns that name the groups
    threshold : float, 0..1
        Fake when score >= threshold.
    precision : as of `evaluation.predict`
    seed : as of `perturb`

    Returns
    -------
    DataFrame, one row a number
        kind, severity; by and group ("" where the number is of all groups, or of all images); metric: auc, acc, fpr,
        tpr of all images, `fairness.METRICS` for each `by`, fpr, tpr, auc of each group; value (fraction, NaN =
        undefined); n, the images that it rests on.
    """
    if len(frame) != len(images):
        raise ValueError(f"{len(frame)} rows but {len(images)} images: give the images of exactly these rows")
    kinds, bys = list(kinds), list(bys)
    cases = list(dict.fromkeys((kind if s else kinds[0], s) for kind in kinds for s in severities))
    detector, rows = scoring_copy(model, precision), {}
    for kind, severity in progress.bar(cases, desc="perturb and score", unit="case"):
        logits = [
            logits_of(detector, perturb(images[start : start + BLOCK], kind, severity, seed), device)
            for start in range(0, len(images), BLOCK)
        ]
        rows[kind, severity] = judged(score_table(frame, np.concatenate(logits)), bys, threshold)
    table = [
        rows[kind if s else kinds[0], s].assign(kind=kind, severity=s) for kind in kinds for s in sorted(severities)
    ]
    return pd.concat(table, ignore_index=True)[["kind", "severity", "by", "group", "metric", "value", "n"]]


def judged(table: pd.DataFrame, bys: Iterable[str], threshold: float = 0.5) -> pd.DataFrame:
    """A score table's numbers, one a row: by, group, metric, value, n; as in `robustness`."""
    overall = overall_metrics(table, threshold)
    reals = int((table["label"] == 0).sum())
    size = {"fpr": reals, "tpr": len(table) - reals}
    rows = [("", "", name, overall[name], size.get(name, len(table))) for name in ("auc", "acc", "fpr", "tpr")]
    for by in bys:
        unfair = fairness_metrics(table, by, threshold)
        rows += [(by, "", name, unfair[name], len(table)) for name in METRICS]
        for name, rates in group_rates(table, by, threshold).iterrows():
            sizes = {"fpr": rates["n_real"], "tpr": rates["n_fake"], "auc": rates["n"]}
            rows += [(by, name, metric, rates[metric], n) for metric, n in sizes.items()]
    return pd.DataFrame(rows, columns=["by", "group", "metric", "value", "n"])
