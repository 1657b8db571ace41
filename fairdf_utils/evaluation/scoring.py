"""Scores: from a detector and a manifest to the score table, the seam between detection and fairness analysis."""

import copy
import hashlib
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fairdf_utils import progress
from fairdf_utils.data.batches import check_images, decode, digest_of_images, to_device
from fairdf_utils.data.vocabulary import COLUMNS
from fairdf_utils.fairness.score_table import SCORE_COLUMNS, video_level, write_scores
from fairdf_utils.files import replacing
from fairdf_utils.model.detectors import score

FOLDED = (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNormAct2d)  # other kinds may do more than normalise


def predict(
    model: nn.Module, images: np.ndarray, device: torch.device, precision: str = "float32", batch_size: int = 256
) -> np.ndarray:
    """Logits of the detector's answer, float32 (N, 2): of real, of fake; in evaluation mode, the model stays as it is.

    Parameters
    ----------
    model : a detector with `detect(images) -> (N, 2)`, on `device`
    images : uint8 (N, H, H, 3), N >= 1
    precision : "float32", or "bfloat16" for weights and maps in bfloat16
    batch_size : images scored at once; decides speed and memory, not the logits
    """
    return logits_of(scoring_copy(model, precision), images, device, batch_size)


def logits_of(detector: nn.Module, images: np.ndarray, device: torch.device, batch_size: int = 256) -> np.ndarray:
    """`predict` with a detector that is already in the form that `scoring_copy` gives it."""
    dtype = next(detector.parameters()).dtype
    logits = []  # on the device: reading a batch back would make the host wait before it sends the next
    with torch.inference_mode():
        for start in progress.bar(range(0, len(images), batch_size), desc="score", unit="batch", leave=False):
            batch = to_device(images[start : start + batch_size], device).to(dtype)  # (b, 3, H, H), channels_last
            logits.append(detector.detect(batch).float())  # (b, 2)
        return torch.cat(logits).cpu().numpy()


def laplacian_variance(images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """How sharp each image is: the variance of the Laplacian of its mean over the colours, float64 (N,).

    `images` are uint8 (N, H, H, 3), read a batch at a time.

    Source: Pech-Pacheco et al. 2000 (a measure of focus).
    """
    found = [np.empty(0)]
    for start in range(0, len(images), batch_size):
        grey = images[start : start + batch_size].mean(-1, dtype=np.float32)  # (b, H, H)
        middle, rows, columns = grey[:, 1:-1, 1:-1], grey[:, :, 1:-1], grey[:, 1:-1]
        laplacian = rows[:, :-2] + rows[:, 2:] + columns[..., :-2] + columns[..., 2:] - 4 * middle
        found.append(laplacian.var((1, 2), dtype=np.float64))
    return np.concatenate(found)


def score_test_sets(
    model: nn.Module,
    tests: Mapping[str, pd.DataFrame],
    folder: Path,
    image_root: Path,
    image_size: int,
    cache_dir: str | Path,
    precision: str = "float32",
) -> pd.DataFrame:
    """Score whole test sets and write the score table, frame by frame and video by video.

    A data set that was scored is kept in `folder`/.parts at once: an interrupted call goes on with the next one, and
    what has the same weights, layers, images, annotations and precision as before is neither decoded nor scored.
    Raises ManifestError for an image that is missing (before anything is scored) or cannot be read.

    Parameters
    ----------
    model : a detector with `detect`, on the device that is to score
    tests : name -> canonical manifest with the column `dataset`
    folder : gets `scores.*` (one row per image) and `video_scores.*` (one row per video), parquet and csv
    image_root, image_size, cache_dir : see `batches.decode`; the images stay on the disk, a batch at a time is read
    precision : see `predict`

    Returns
    -------
    DataFrame, one row per image: the columns of `score_table` and `laplacian_variance`, data sets in the order given
    """
    for frame in tests.values():
        check_images(frame, image_root)
    identity = _digest_of_model(model) + precision
    detector, tables = None, []
    for name, frame in progress.bar(tests.items(), desc="score", unit="test set"):
        pixels = digest_of_images(frame, image_root, image_size)
        part = folder / ".parts" / name / f"{_digest_of_set(frame, pixels, identity)}.parquet"
        table = _read_part(part)
        if table is None:  # only then anything is decoded and folded
            detector = detector or scoring_copy(model, precision)
            images = decode(frame, image_root, image_size, cache_dir)
            logits = logits_of(detector, images, next(model.parameters()).device)
            table = _write_part(part, score_table(frame.assign(laplacian_variance=laplacian_variance(images)), logits))
        tables.append(table)
    scores = pd.concat(tables, ignore_index=True)
    write_scores(scores, folder)
    write_scores(video_level(scores), folder, "video_scores")
    return scores


def _digest_of_model(model: nn.Module) -> str:
    """What decides a detector's logits: its weights and buffers, its layers and the code of their classes."""
    digest = hashlib.sha256(repr(model).encode())
    for name in sorted({type(module).__module__ for module in model.modules()} | {__name__, decode.__module__}):
        source = getattr(sys.modules[name], "__file__", None)  # a class defined in a notebook has none
        digest.update(Path(source).read_bytes() if source else b"")
    for name, value in model.state_dict().items():
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}".encode())
        digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _digest_of_set(frame: pd.DataFrame, pixels: str, identity: str) -> str:
    rows = frame[[name for name in (*SCORE_COLUMNS, *_others(frame)) if name in frame.columns]].to_csv(index=False)
    return hashlib.sha256("|".join((identity, pixels, rows)).encode()).hexdigest()[:24]


def _read_part(path: Path) -> pd.DataFrame | None:
    """A data set's table as it was kept; None if there is none, or none that can be read."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError):  # not there, or damaged: pyarrow's error is a ValueError
        return None


def _write_part(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Keep a data set's table in the place of older ones; as read back, so that first and later calls agree."""
    with replacing(path) as partial:
        table.to_parquet(partial, index=False)
    for older in set(path.parent.glob("*.parquet")) - {path}:
        older.unlink()
    return pd.read_parquet(path)


def scoring_copy(model: nn.Module, precision: str = "float32") -> nn.Module:
    """The detector in the form that scores fastest: evaluation mode, batch norms folded, channels_last.

    `model` has `detect`; it is not changed, and shares with the copy what need not differ. `precision` is "float32" or
    "bfloat16". The result has the same `detect` up to rounding, and serves for inference only.
    """
    with torch.inference_mode(False):
        # A copy of the structure: every weight is the original's memory until it is replaced.
        shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
        shared |= {id(b): b for b in model.buffers()}
        detector = copy.deepcopy(model, shared).eval()
        fold_batch_norms(detector)
    dtype = torch.bfloat16 if precision == "bfloat16" else None
    return detector.to(dtype=dtype, memory_format=torch.channels_last)


def fold_batch_norms(detector: nn.Module) -> None:
    """Fold each batch norm that follows a convolution inside an nn.Sequential into that convolution, in place.

    In evaluation mode a batch norm is an affine map per channel, which the convolution's weights and bias can do too.
    """
    # A forward of their own may use the convolution's result elsewhere, too.
    chains = [module for module in detector.modules() if type(module).forward is nn.Sequential.forward]
    for chain in chains:
        for i, (convolution, norm) in enumerate(pairwise(list(chain))):
            if type(convolution) is nn.Conv2d and type(norm) in FOLDED and norm.running_mean is not None:
                chain[i] = fuse_conv_bn_eval(convolution, norm)
                chain[i + 1] = nn.Sequential(*norm.children())  # timm's norms hold their activation, others nothing


def score_table(frame: pd.DataFrame, logits: np.ndarray) -> pd.DataFrame:
    """One row per image: the manifest's annotations, the two logits, score = P(fake), and the manifest's other columns.

    Gender and race are left out where the manifest, with groups of its own, has none: see `SCORE_COLUMNS`.
    `score` is the softmax whatever the detector's fidelity; the released score follows from `logit_fake`, and
    `fairness` computes it when asked for fidelity "official".
    """
    numbers = {"logit_real": logits[:, 0], "logit_fake": logits[:, 1], "score": score(torch.from_numpy(logits)).numpy()}
    told = [name for name in SCORE_COLUMNS if name not in ("gender", "race") or name in frame]
    return frame.assign(**numbers)[[*told, *_others(frame)]].reset_index(drop=True)


def _others(frame: pd.DataFrame) -> list[str]:
    """Columns of a manifest that are none of the project's."""
    return [name for name in frame if name not in (*COLUMNS, *SCORE_COLUMNS, "source")]
