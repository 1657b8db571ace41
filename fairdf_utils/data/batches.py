"""From manifest rows to training batches.

Images are decoded once into a uint8 memory map (`decode`) and normalised on the device, so that an epoch
costs no decoding. A training epoch pairs each fake with one real (`epoch_pairs`), as in Lin et al. 2024.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fairdf_utils import progress
from fairdf_utils.data import pictures
from fairdf_utils.data.manifests import ManifestError
from fairdf_utils.data.vocabulary import FORGERIES, GROUPS, SAMPLING, scheme_of
from fairdf_utils.files import replacing


@dataclass(frozen=True)
class Batch:
    """One training batch: B fakes first, then the B reals that they are paired with."""

    images: torch.Tensor  # float32 (2b, 3, H, H) in [-1, 1]; b = B, or with several processes this one's share of it
    label: torch.Tensor  # int64 (2B,), 1 = fake
    forgery: torch.Tensor  # int64 (2B,), position in `vocabulary.FORGERIES`, 0 = real, -1 = fake of unknown forgery
    group: torch.Tensor  # int64 (2B,), position in the manifest's `vocabulary.scheme_of`
    rows: np.ndarray  # int64 (2B,), positions in the manifest that the batch was drawn from
    groups: int = len(GROUPS)  # of the scheme
    stem_maps: torch.Tensor | None = None  # float32 (2b, C, h, w): what a frozen stem makes of the images, if computed


def check_images(frame: pd.DataFrame, image_root: Path) -> None:
    """Raise `ManifestError` naming the first rows whose image file does not exist."""
    missing = frame[[not (image_root / path).is_file() for path in frame["img_path"]]]
    if len(missing):
        first = "; ".join(f"{row.source}: {row.img_path}" for row in missing.head(3).itertuples())
        raise ManifestError(
            f"{len(missing)} of {len(frame)} images are missing under {image_root} ({first}); "
            "check image_root, or remove these rows from the manifest"
        )


def decode(frame: pd.DataFrame, image_root: Path, size: int, cache_dir: str | Path) -> np.ndarray:
    """All N images of a manifest as one memory map in `cache_dir`, uint8 (N, size, size, 3), decoded at most once.

    The map's name is a digest of the paths, file sizes, file times and `size`: a changed image or manifest makes
    a new map, an unchanged one is opened in milliseconds. Images of other sizes are resized bilinearly (Lin et al.
    2024, 4.1).

    Raises a ManifestError if an image is missing or cannot be read; nothing is left behind.
    """
    check_images(frame, image_root)
    target = Path(cache_dir) / f"{digest_of_images(frame, image_root, size)}.npy"
    if not target.exists():
        paths = [image_root / path for path in frame["img_path"]]
        sources, shape = frame["source"].tolist(), (len(paths), size, size, 3)
        # Pillow releases the interpreter lock while it decodes, so threads use every core.
        with replacing(target) as partial, ThreadPoolExecutor(os.cpu_count()) as pool:
            pixels = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            with partial.open("r+b") as file:  # a map without room behind it kills the process, not the call
                os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)

            def fill(i: int) -> None:
                pixels[i] = load_image(paths[i], size, sources[i])

            list(progress.bar(pool.map(fill, range(len(paths))), total=len(paths), desc="decode", unit="image"))
            pixels.flush()
    return np.load(target, mmap_mode="c")  # copy on write: torch asks for a writable array, the file stays as it is


def digest_of_images(frame: pd.DataFrame, image_root: Path, size: int) -> str:
    """What decides the pixels that `decode` gives: paths, sizes and times of the image files, `size`, the reader."""
    digest = hashlib.sha256(f"{size}|{pictures.READER}".encode())
    for path in (image_root / path for path in frame["img_path"]):
        status = path.stat()
        digest.update(f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def load_image(path: Path, size: int, source: str = "") -> np.ndarray:
    """One image file as uint8 (size, size, 3); `source` (manifest file and line) is named in the error."""
    try:
        pixels = pictures.read_picture(path)
    except OSError as error:
        source = source or path
        raise ManifestError(f"{source}: {path} cannot be read as an image ({error}); replace or remove it") from error
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))


def to_device(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 (N, H, H, 3) to float32 (N, 3, H, H) in [-1, 1]; the bytes travel, the arithmetic is the device's."""
    return channels_first(pixels, device).div_(127.5).sub_(1.0)


def channels_first(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Values (N, H, W, C) of any type as float32 (N, C, H, W) on the device, which converts them."""
    return torch.from_numpy(values).to(device).permute(0, 3, 1, 2).float()


def codes(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """`label`, `forgery` and `group` of a manifest as int64 codes (N,); -1 for a fake of unknown forgery."""
    forgery, group = (
        {name: code for code, name in enumerate(names)} for names in (FORGERIES, scheme_of(frame["group"]))
    )
    return {
        "label": frame["label"].to_numpy(np.int64),
        "forgery": np.array([forgery.get(name, -1) for name in frame["forgery"]], dtype=np.int64),
        "group": np.array([group[name] for name in frame["group"]], dtype=np.int64),
    }


def group_sizes(frame: pd.DataFrame) -> np.ndarray:
    """Images of each group of the scheme, int64 (G,), G = 8 for gender and race: the n_g of the margin loss."""
    return np.bincount(codes(frame)["group"], minlength=len(scheme_of(frame["group"])))


def epoch_pairs(frame: pd.DataFrame, sampling: str, generator: np.random.Generator) -> np.ndarray:
    """The pairs of one epoch: int64 (n_fakes, 2), manifest positions of a fake and of its real.

    `natural`: every fake once, in random order, each with a real drawn at random (Lin et al. 2024).
    `balanced`: as many pairs, but fakes and reals are drawn so that every group present is equally likely.

    Raises a ManifestError if there are no fakes, or no reals, to pair.
    """
    fakes, reals = (np.flatnonzero(frame["label"].to_numpy() == label) for label in (1, 0))
    if not len(fakes) or not len(reals):
        raise ManifestError(f"training needs fakes and reals; the manifest has {len(fakes)} fakes, {len(reals)} reals")
    if sampling == "natural":
        return np.stack([generator.permutation(fakes), generator.choice(reals, len(fakes))], axis=1)
    if sampling == "balanced":
        group = frame["group"].to_numpy()
        return np.stack([_balanced_draw(rows, group, len(fakes), generator) for rows in (fakes, reals)], axis=1)
    raise ValueError(f"sampling {sampling!r} is unknown; choose one of {', '.join(SAMPLING)}")


def _balanced_draw(rows: np.ndarray, group: np.ndarray, number: int, generator: np.random.Generator) -> np.ndarray:
    _, code, count = np.unique(group[rows], return_inverse=True, return_counts=True)
    weight = 1.0 / count[code]
    return generator.choice(rows, number, p=weight / weight.sum())


def epoch_partners(
    frame: pd.DataFrame, pairs: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What the images of pairs (n, 2) are mixed with: manifest positions int64 and their own shares, 0..1, (n, 2) each.

    A partner shows the same forgery (or none, too) on a face of another group, each of these equally likely: so labels
    stay true, while what goes with a group no longer goes with the label. An image without one is its own partner.

    Source: Yao et al. 2022, "Improving out-of-distribution robustness via selective augmentation", ICML (LISA).
    """
    forgery, group = (codes(frame)[name] for name in ("forgery", "group"))
    partners = pairs.copy()
    for kind, own in set(zip(forgery[pairs].flat, group[pairs].flat, strict=True)):
        others = np.flatnonzero((forgery == kind) & (group != own))
        here = (forgery[pairs] == kind) & (group[pairs] == own)
        if len(others):
            partners[here] = _balanced_draw(others, group, here.sum(), generator)
    return partners, generator.random(pairs.shape, dtype=np.float32)


def batches(
    frame: pd.DataFrame,
    images: np.ndarray,
    pairs: np.ndarray,
    batch_size: int,
    device: torch.device,
    share: tuple[int, int] = (0, 1),
    stem_maps: np.ndarray | None = None,
    partners: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[Batch]:
    """Batches of `batch_size` pairs; a short last batch is dropped unless it is the only one.

    A handful of images gives noisy batch-norm statistics and hardly any group twice. Of several processes (`share`:
    number of this one, from 0, and of all) each loads the images of its own pairs only; the annotations are those of
    the whole batch. `images` uint8 (N, H, H, 3) are from `decode`, `pairs` int64 (n, 2) from `epoch_pairs`, `stem_maps`
    float (N, h, w, C) what a frozen stem made of the images, if that was computed before; with `partners` from
    `epoch_partners` images and stem maps are mixed with their partners'.
    """
    rank, count = share
    labels, groups = codes(frame), len(scheme_of(frame["group"]))
    full = len(pairs) // batch_size * batch_size or len(pairs)
    for start in range(0, full, batch_size):
        part = slice(start, start + batch_size)
        rows = pairs[part].T.reshape(-1)  # fakes, then reals
        own = [np.array_split(each[part], count)[rank].T.reshape(-1) for each in (pairs, *(partners or ()))]
        yield Batch(
            images=_load(images, to_device, device, *own),
            rows=rows,
            groups=groups,
            stem_maps=None if stem_maps is None else _load(stem_maps, channels_first, device, *own),
            **{name: torch.from_numpy(code[rows]).to(device) for name, code in labels.items()},
        )


def _load(
    values: np.ndarray,
    convert: Callable[[np.ndarray, torch.device], torch.Tensor],
    device: torch.device,
    rows: np.ndarray,
    partners: np.ndarray | None = None,
    share: np.ndarray | None = None,
) -> torch.Tensor:
    """These rows of values (N, h, w, C), converted; with partners mixed with those, `share` (n,) being their own."""
    loaded = convert(values[rows], device)
    if partners is None:
        return loaded
    weight = torch.from_numpy(share).to(device)[:, None, None, None]
    return torch.lerp(convert(values[partners], device), loaded, weight)
