"""Where in the image a detector finds its evidence (Grad-CAM), and the features that it answers from.

Both read the network in the form that scores (`scoring.scoring_copy`): evaluation mode, nothing changed.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairdf_utils import progress
from fairdf_utils.data.batches import to_device
from fairdf_utils.data.vocabulary import group_order
from fairdf_utils.evaluation.scoring import logits_of, scoring_copy
from fairdf_utils.model.detectors import FairDetector, Head, PlainDetector


def answering_head(model: nn.Module) -> Head:
    """The head whose logits `detect` returns: the fused one, without it (UCF) the agnostic, a plain detector's only."""
    if isinstance(model, PlainDetector):
        return model.head
    return model.fused if model.fused is not None else model.agnostic


def final_layer(model: nn.Module, images: np.ndarray, device: torch.device) -> tuple[np.ndarray, ...]:
    """Inputs float32 (N, D), weight (2, D) and bias (2,) of the last layer, for images uint8 (N, H, H, 3).

    Its outputs, inputs @ weight.T + bias, are the logits of `scoring.predict`.
    """
    detector, seen = scoring_copy(model), []
    last = answering_head(detector).layers[2]
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].cpu()))  # of the copy, which is dropped
    logits_of(detector, images, device)
    return tuple(each.detach().cpu().numpy() for each in (torch.cat(seen), last.weight, last.bias))


def answering_map(model: nn.Module, images: Tensor) -> Tensor:
    """The map (N, C, 8, 8) that the answering head pools when `detect` runs on images (N, 3, H, H).

    With fidelity "official" it is the agnostic map: AdaIN hands the head that map's mean and nothing of the
    demographic pattern, so the pattern is no evidence for the answer.
    """
    seen = []
    hook = answering_head(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        model.detect(images)
    finally:
        hook.remove()
    return seen[0]


def grad_cam(
    model: nn.Module, images: np.ndarray, device: torch.device, branch: str = "forgery", batch_size: int = 256
) -> np.ndarray:
    """Grad-CAM of the answer: where the map of a branch speaks for a fake; see `class_activation`.

    The heat is enlarged bilinearly to the image and divided by its largest value, so that every image weighs the same
    in a mean. An image without any evidence for a fake keeps a map of zeros. A cell of the 8 x 8 map has seen more of
    the image than its own eighth: the heat says roughly where, not exactly.

    Parameters
    ----------
    model : a detector of this project, on `device`
    images : uint8 (N, H, H, 3)
    branch : "forgery" or "demographic"
        Whose places are asked for. AdaIN(demographic, agnostic) has the places of the demographic map, and of the
        agnostic one a mean and a standard deviation a channel. So "forgery" takes the agnostic map, before AdaIN (of a
        plain detector that of the encoder), and "demographic" the map that the fused head pools.

    Returns
    -------
    float32 (N, H, H), 0..1

    Raises
    ------
    ValueError
        The answer has no such branch; with fidelity "official" it has no demographic one.
    """
    detector, side, seen, maps = scoring_copy(model), images.shape[1], [], []

    def keep(part: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        seen[:] = [output.detach().requires_grad_()]  # what follows is a function of this map alone
        return seen[0]

    _last_of(detector, branch).register_forward_hook(keep)  # of the copy, which is dropped
    for start in progress.bar(range(0, len(images), batch_size), desc="Grad-CAM", unit="batch", leave=False):
        with torch.enable_grad():
            logits = detector.detect(to_device(images[start : start + batch_size], device))  # (b, 2)
            heat = class_activation(logits, seen[0])  # (b, 8, 8)
        heat = F.interpolate(heat[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0]
        largest = heat.amax((1, 2), keepdim=True)  # (b, 1, 1)
        maps.append((heat / largest.clamp(min=torch.finfo(heat.dtype).tiny)).cpu())
    return torch.cat(maps).numpy()


def _last_of(model: nn.Module, branch: str) -> nn.Module:
    """The part whose output is the last map of a branch on the way to the answer."""
    if branch == "forgery":
        return model.encoder if isinstance(model, PlainDetector) else model.agnostic_split
    if branch == "demographic" and isinstance(model, FairDetector) and model.fidelity == "corrected":
        return model.fusion
    raise ValueError(f"the answer of this {type(model).__name__} has no branch {branch!r}")


def class_activation(logits: Tensor, seen: Tensor) -> Tensor:
    """The heat (N, 8, 8) >= 0 of maps A (N, C, 8, 8), from which real/fake logits (N, 2) were computed.

    With z = logit_fake - logit_real, the log odds of the score,

        heat = max(0, sum_c dz/dA_c * A_c), at each place.

    Before the maximum is taken, the places add up to dz(t A)/dt at t = 1: what the whole map, grown by a small part,
    adds to z. Where a head pools the map at once, the slope of a channel is the same at all places, and this is
    Grad-CAM (Selvaraju et al. 2017). Through AdaIN it is not: the slope through a standard deviation has mean zero over
    space, so the mean that Grad-CAM takes would lose that part.

    Source: Draelos and Carin 2020, HiResCAM.
    """
    (slope,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), seen)  # (N, C, 8, 8)
    return (slope * seen.detach()).sum(1).relu()


@dataclass(frozen=True)
class Means:
    """Means of images or maps over the rows of each cell of a table."""

    rows: list[str]  # R names
    columns: list[str]  # C names
    count: np.ndarray  # int64 (R, C)
    mean: np.ndarray  # float32 (R, C, ...), NaN where count is 0


def mean_by(values: np.ndarray, frame: pd.DataFrame, rows: str = "group", columns: str = "forgery") -> Means:
    """Means of values (N, ...), such as maps or images, over the rows of each pair of values of two columns."""
    if len(values) != len(frame):
        raise ValueError(f"{len(values)} values but {len(frame)} rows: give one value a row")
    names = [group_order(frame[name]) for name in (rows, columns)]
    shape = tuple(map(len, names))
    count, mean = np.zeros(shape, np.int64), np.full((*shape, *values.shape[1:]), np.nan, np.float32)
    for (row, column), own in frame.groupby([rows, columns], observed=True).indices.items():
        cell = names[0].index(row), names[1].index(column)
        count[cell], mean[cell] = len(own), values[own].mean(0, dtype=np.float64)
    return Means(*names, count, mean)


def features(
    model: nn.Module, images: np.ndarray, device: torch.device, batch_size: int = 256
) -> dict[str, np.ndarray]:
    """The pooled vectors, float32 (N, D), that a detector makes of images uint8 (N, H, H, 3), as its heads see them.

    They are "domain_agnostic", "domain_specific" and "content" (of twice the length) of detectors with these branches,
    "demographic" of those that have one, "fused" where there is a fused head (with fidelity "official" equal to
    "domain_agnostic"), or "encoder" alone for a plain detector.
    """
    detector = scoring_copy(model)
    batches = []
    with torch.inference_mode():
        for start in progress.bar(range(0, len(images), batch_size), desc="features", unit="batch", leave=False):
            maps = feature_maps(detector, to_device(images[start : start + batch_size], device))
            batches.append({name: each.mean((2, 3)).float().cpu() for name, each in maps.items()})
    return {name: torch.cat([batch[name] for batch in batches]).numpy() for name in batches[0]}


def feature_maps(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The maps (N, D, 8, 8) behind `features`, of images (N, 3, H, H)."""
    seen = model.stem(images)
    if isinstance(model, PlainDetector):
        return {"encoder": model.encoder(seen)}
    forgery = model.forgery(seen)  # (N, width, 8, 8)
    maps = {"domain_agnostic": model.agnostic_split(forgery), "domain_specific": model.specific_split(forgery)}
    if hasattr(model, "demographic_split"):
        maps["demographic"] = model.demographic_split(model.demographic(seen))
    maps["content"] = model.content(seen)
    if model.fused is not None:
        maps["fused"] = answering_map(model, images)
    return maps
