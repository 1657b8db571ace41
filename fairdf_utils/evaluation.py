"""Scores: from a detector and a manifest to the score table, the seam between detection and fairness analysis."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pandas as pd
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fairdf_utils import progress
from fairdf_utils.data import to_device
from fairdf_utils.model import score
from fairdf_utils.scores import SCORE_COLUMNS

FOLDED = (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNormAct2d)  # other kinds may do more than normalise


def predict(
    model: nn.Module,
    images: np.ndarray,
    device: torch.device,
    precision: str = "float32",
    batch_size: int = 256,
) -> np.ndarray:
    """Logits of the detector's answer for decoded images, in evaluation mode; the model stays as it is.

    Parameters
    ----------
    model : a detector with `detect(images) -> (N, 2)`, on `device`
    images : uint8 (N, H, H, 3), N >= 1
    precision : "float32", or "bfloat16" for weights and maps in bfloat16
    batch_size : images scored at once; decides speed and memory, not the logits

    Returns
    -------
    float32 array (N, 2): logit of real, logit of fake
    """
    detector = scoring_copy(model, images.shape[1], precision)
    dtype = next(detector.parameters()).dtype
    logits = []  # on the device: reading a batch back would make the host wait before it sends the next
    with torch.inference_mode():
        for start in progress.bar(range(0, len(images), batch_size), desc="score", unit="batch", leave=False):
            batch = to_device(images[start : start + batch_size], device).to(dtype)  # (b, 3, H, H), channels_last
            logits.append(detector.detect(batch).float())  # (b, 2)
        return torch.cat(logits).cpu().numpy()


def scoring_copy(model: nn.Module, image_size: int, precision: str = "float32") -> nn.Module:
    """The detector in the form that scores fastest: evaluation mode, batch norms folded, channels_last.

    A batch norm in evaluation mode is an affine map per channel. Where it directly follows a convolution whose
    result goes nowhere else, it is folded into that convolution's weights and bias.

    Parameters
    ----------
    model : a detector with `detect`; it is not changed, and shares with the copy what need not differ
    image_size : side of the images, pixels
    precision : "float32" or "bfloat16"

    Returns
    -------
    a detector with the same `detect` up to rounding, for inference only
    """
    with torch.inference_mode(False), torch.enable_grad():
        # A copy of the structure: every weight is the original's memory until it is replaced.
        shared = {id(p): nn.Parameter(p.detach()) for p in model.parameters()}
        shared |= {id(b): b for b in model.buffers()}
        detector = copy.deepcopy(model, shared).eval()
        for convolution, norm in _foldable(detector, image_size):
            _fold(detector, convolution, norm)
    detector.requires_grad_(False)
    dtype = torch.bfloat16 if precision == "bfloat16" else None
    return detector.to(dtype=dtype, memory_format=torch.channels_last)


def _foldable(detector: nn.Module, image_size: int) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Convolutions and the batch norms fed by them alone, read off the autograd graph of one scored image.

    The graph says what follows what in any backbone, whatever the names and nesting of its modules. Modules that the
    answer does not need are not in it, and a convolution whose weight is computed (standardised, say) reads no
    parameter of a module there, so both are left alone.
    """
    convolutions = {id(m.weight): m for m in detector.modules() if isinstance(m, nn.Conv2d)}
    norms = {id(m.weight): m for m in detector.modules() if type(m) in FOLDED}
    example = next(detector.parameters()).new_zeros(1, 3, image_size, image_size)
    nodes = _graph(detector.detect(example).grad_fn)
    readers = Counter(source for node in nodes for source, _ in node.next_functions)
    pairs = []
    for node in nodes:
        norm = _module_of(node, norms, readers)
        convolution = norm and _module_of(node.next_functions[0][0], convolutions, readers)
        if convolution and readers[node.next_functions[0][0]] == 1 and norm.running_mean is not None:
            pairs.append((convolution, norm))
    return pairs


def _graph(root) -> list:
    """All nodes of an autograd graph."""
    nodes, waiting = {root: None}, [root]
    while waiting:
        sources = {source: None for source, _ in waiting.pop().next_functions if source is not None}
        new = [source for source in sources if source not in nodes]
        nodes |= dict.fromkeys(new)
        waiting += new
    return list(nodes)


def _module_of(node, modules: dict[int, nn.Module], readers: Counter) -> nn.Module | None:
    """The module whose weight is the second operand of a node, if no other node uses that weight."""
    operands = [source for source, _ in getattr(node, "next_functions", ())]
    if len(operands) < 2 or not hasattr(operands[1], "variable") or readers[operands[1]] > 1:
        return None
    return modules.get(id(operands[1].variable))


def _fold(detector: nn.Module, convolution: nn.Conv2d, norm: nn.Module) -> None:
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    name = next(name for name, module in detector.named_modules() if module is norm)
    detector.set_submodule(name, nn.Sequential(*norm.children()))  # timm's norms hold their activation, others nothing


def score_table(frame: pd.DataFrame, logits: np.ndarray) -> pd.DataFrame:
    """One row an image (`SCORE_COLUMNS`): the manifest's annotations, the two logits and score = P(fake).

    `score` is the softmax whatever the detector's fidelity; the released score follows from `logit_fake`, and
    `fairness` computes it when asked for fidelity "official".
    """
    table = frame.assign(
        logit_real=logits[:, 0],
        logit_fake=logits[:, 1],
        score=score(torch.from_numpy(logits)).numpy(),
    )
    return table[list(SCORE_COLUMNS)].reset_index(drop=True)
