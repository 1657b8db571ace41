"""The method written down as the paper describes it, one thing after the other: what `benchmark` compares with.

Every loss on its own, groups in loops, thresholds by search, four decoder calls, parameters one by one, images opened
one by one; the same weights and the same numbers as the rest of the package. Nothing but the benchmark uses it.

Source: Lin et al. 2024, "Preserving Fairness Generalization in Deepfake Detection", CVPR (arXiv 2402.17229).
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, roc_auc_score
from torch import Tensor, nn

from fairdf_utils.data import Batch
from fairdf_utils.layers import Decoder, HeadOutput
from fairdf_utils.losses import WEIGHTS, Triplets
from fairdf_utils.model import FairDetector, Outputs
from fairdf_utils.sam import frozen_batch_norm

SEARCH_STEPS = 30  # halvings of the bracket around a CVaR threshold: float32 resolves no more


# The network


def adain(x: Tensor, y: Tensor, eps: float = 1e-5) -> Tensor:
    """x (N, C, H, W) with y's per-channel mean and standard deviation over space."""
    n, channels = x.shape[:2]
    x_mean, y_mean = (each.reshape(n, channels, -1).mean(2).view(n, channels, 1, 1) for each in (x, y))
    x_var, y_var = (each.reshape(n, channels, -1).var(2).view(n, channels, 1, 1) for each in (x, y))
    return (x - x_mean) / (x_var + eps).sqrt() * (y_var + eps).sqrt() + y_mean


def encode(model: FairDetector, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (N, width, 8, 8) of all three encoders: forgery, content, demographic."""
    return model.forgery(images), model.content(images), model.demographic(images)


def heads(model: FairDetector, forgery: Tensor, demographic: Tensor) -> tuple[dict[str, HeadOutput], Tensor]:
    """Every head's output, and the forgery map (N, width, 8, 8) for the decoder."""
    specific, agnostic = model.specific_split(forgery), model.agnostic_split(forgery)  # (N, width / 2, 8, 8)
    demographic = model.demographic_split(demographic)  # (N, width / 2, 8, 8)
    fused = adain(demographic, agnostic)
    if model.fidelity == "corrected":
        fused = model.fusion(fused)
    answers = {
        "specific": model.specific(specific),
        "agnostic": model.agnostic(agnostic),
        "demographic": model.demographic_head(demographic),
        "fused": model.fused(fused),
    }
    return answers, torch.cat([specific, agnostic], 1)


def detect(model: FairDetector, images: Tensor) -> Tensor:
    """Logits (N, 2) of the fused head, after everything else has been computed too."""
    forgery, _, demographic = encode(model, images)
    return heads(model, forgery, demographic)[0]["fused"].logits


def draw(decoder: Decoder, condition: Tensor, forgery: Tensor) -> Tensor:
    """One reconstruction (N, 3, S, S) of each row."""
    for number, stage in enumerate(decoder.stages, 1):
        condition = grow(decoder, stage, adain(condition, forgery))
        if number < len(decoder.stages):
            forgery = grow(decoder, stage, forgery)
    return enlarge(decoder.to_rgb(condition), decoder.output_size).tanh()


def grow(decoder: Decoder, stage: nn.Module, maps: Tensor) -> Tensor:
    """Maps twice as large, but no larger than the images, with half the channels."""
    maps = enlarge(maps, min(2 * maps.shape[-1], decoder.output_size))
    return stage(F.dropout(maps, decoder.dropout.p, decoder.training))


def enlarge(maps: Tensor, size: int) -> Tensor:
    """Maps (N, C, size, size), bilinear."""
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=True)


def forward(model: FairDetector, images: Tensor) -> Outputs:
    """Everything that the loss needs, of B fakes and then B reals."""
    forgery, content, demographic = encode(model, images)
    answers, forgery = heads(model, forgery, demographic)
    if model.fidelity == "corrected":
        condition = model.condition(adain(content, demographic))
    else:
        condition = adain(demographic, content)
    (fake, real), (fake_style, real_style) = forgery.chunk(2), condition.chunk(2)
    own = torch.cat([draw(model.decoder, fake_style, fake), draw(model.decoder, real_style, real)])
    cross = torch.cat([draw(model.decoder, fake_style, real), draw(model.decoder, real_style, fake)])
    return Outputs(**answers, self_reconstruction=own, cross_reconstruction=cross)


# The loss


def cvar(values: Tensor, alpha: float) -> Tensor:
    """min over eta of eta + mean(max(0, values - eta)) / alpha, for values (n,), eta found by bisection."""
    low, high = values.min().item(), values.max().item()
    for _ in range(SEARCH_STEPS):
        eta = (low + high) / 2
        if (values > eta).double().mean().item() > alpha:  # the slope there, 1 - share / alpha, is negative
            low = eta
        else:
            high = eta
    eta = values[(values - high).abs().argmin()]  # the minimiser is one of the values, and moves with it
    return eta + F.relu(values - eta).mean() / alpha


def group_cvar(values: Tensor, group: Tensor, alpha_in: float = 0.9, alpha_across: float = 0.5) -> Tensor:
    """CVaR inside each group, then over the groups."""
    return cvar(torch.stack([cvar(values[group == code], alpha_in) for code in group.unique()]), alpha_across)


def draw_triplets(label: Tensor, method: Tensor, lots: random.Random) -> Triplets:
    """Rows of a random positive and negative for every anchor, both contrastive terms."""
    labels, methods = label.tolist(), method.tolist()

    def drawn(allowed) -> Tensor:
        rows = range(len(labels))
        return torch.tensor([lots.choice([j for j in rows if allowed(i, j)]) for i in rows], device=label.device)

    def same_label(i: int, j: int) -> bool:
        return labels[i] == labels[j]

    def other_label(i: int, j: int) -> bool:
        return labels[i] != labels[j]

    def same_method(i: int, j: int) -> bool:
        return methods[i] == methods[j]

    return Triplets(drawn(same_label), drawn(other_label), drawn(same_method), drawn(other_label))


def hinge(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 3.0) -> Tensor:
    """Mean triplet hinge of rows (n, D)."""
    return F.relu((anchor - positive).norm(dim=1) - (anchor - negative).norm(dim=1) + margin).mean()


def contrastive(agnostic: Tensor, specific: Tensor, triplets: Triplets) -> Tensor:
    """Four hinges: fakes and reals, agnostic and specific vectors (2B, D)."""
    total = 0
    for vectors, positive, negative in (
        (agnostic, triplets.agnostic_positive, triplets.agnostic_negative),
        (specific, triplets.specific_positive, triplets.specific_negative),
    ):
        for anchor, near, far in zip(vectors.chunk(2), positive.chunk(2), negative.chunk(2), strict=True):
            total = total + hinge(anchor, vectors[near], vectors[far])
    return total


def reconstruction(images: Tensor, own: Tensor, cross: Tensor) -> Tensor:
    """Four mean absolute errors."""
    total = 0
    for drawn in (own, cross):
        for image, copy in zip(images.chunk(2), drawn.chunk(2), strict=True):
            total = total + F.l1_loss(copy, image)
    return total


def loss(outputs: Outputs, batch: Batch, triplets: Triplets, margins: Tensor) -> Tensor:
    """The weighted sum of all terms; `margins` (G,) of the demographic loss."""
    own = F.one_hot(batch.group, len(margins)).bool()  # (2B, G)
    demographic = outputs.demographic.logits
    demographic = torch.where(own, demographic - margins[batch.group][:, None], demographic)
    errors = F.cross_entropy(outputs.fused.logits, batch.label, reduction="none")  # (2B,)
    terms = {
        "agnostic": F.cross_entropy(outputs.agnostic.logits, batch.label),
        "specific": F.cross_entropy(outputs.specific.logits, batch.method),
        "contrastive": contrastive(outputs.agnostic.pooled, outputs.specific.pooled, triplets),
        "demographic": F.cross_entropy(30 * demographic, batch.group),
        "fairness": group_cvar(errors, batch.group),
        "reconstruction": reconstruction(batch.images, outputs.self_reconstruction, outputs.cross_reconstruction),
    }
    return sum(WEIGHTS[name] * term for name, term in terms.items())


# The update


class SAM:
    """Sharpness-aware minimisation around SGD, one parameter after the other."""

    def __init__(self, parameters, rho: float = 0.05, **sgd):
        self.base, self.rho = torch.optim.SGD(parameters, **sgd), rho
        self.parameters, self.steps = self.base.param_groups[0]["params"], []

    @torch.no_grad()
    def first_step(self) -> None:
        """Uphill by rho along the gradient."""
        moved = [p for p in self.parameters if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in moved]).norm()
        for parameter in moved:
            step = self.rho / (norm + 1e-12) * parameter.grad
            parameter.add_(step)
            self.steps.append((parameter, step))

    @torch.no_grad()
    def second_step(self) -> None:
        """Back, and down by the base optimizer."""
        for parameter, step in self.steps:
            parameter.sub_(step)
        self.steps = []
        self.base.step()


def training_step(model: FairDetector, optimizer: SAM, batch: Batch, margins: Tensor, seed: int) -> Tensor:
    """One update with SAM; returns the loss before it."""
    triplets = draw_triplets(batch.label, batch.method, random.Random(seed))

    def backward() -> Tensor:
        torch.manual_seed(seed)
        optimizer.base.zero_grad()
        value = loss(forward(model, batch.images), batch, triplets, margins)
        value.backward()
        return value.detach()

    first = backward()
    optimizer.first_step()
    with frozen_batch_norm(model):
        backward()
    optimizer.second_step()
    return first


# Images


class ImageFiles(torch.utils.data.Dataset):
    """Images opened, resized and normalised one by one: float32 (3, size, size) in [-1, 1]."""

    def __init__(self, paths: list[Path], size: int):
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        with Image.open(self.paths[row]) as image:
            image = image.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, dtype=np.float32) / 255
        return torch.from_numpy((pixels - 0.5) / 0.5).permute(2, 0, 1).contiguous()


# Fairness


def fairness_metrics(table: pd.DataFrame, auc: bool = True) -> dict[str, float]:
    """The metrics of `fairness.fairness_metrics` by the column "group", with calls of scikit-learn for each group."""
    return _metrics(table, auc, _rates(table, auc=False))


def _metrics(table: pd.DataFrame, auc: bool, overall: dict[str, float]) -> dict[str, float]:
    rates = pd.DataFrame([_rates(table[table["group"] == name], auc) for name in table["group"].unique()])
    gaps = rates.max() - rates.min()
    fpr_sum = (rates["fpr"] - overall["fpr"]).abs().sum()
    metrics = {
        "fpr_sum": fpr_sum,
        "fpr_gap": gaps["fpr"],
        "oae": gaps["acc"],
        "dp": gaps["predicted_fake"],
        "meo": max(gaps["fpr"], gaps["tpr"]),
        "eo": fpr_sum + (rates["tpr"] - overall["tpr"]).abs().sum(),
    }
    return metrics | ({"auc_gap": gaps["auc"]} if auc else {})


def _rates(table: pd.DataFrame, auc: bool) -> dict[str, float]:
    predicted = (table["score"] >= 0.5).astype(int)
    tn, fp, fn, tp = confusion_matrix(table["label"], predicted, labels=[0, 1]).ravel()
    rates = {
        "fpr": fp / (tn + fp),
        "tpr": tp / (tp + fn),
        "acc": accuracy_score(table["label"], predicted),
        "predicted_fake": predicted.mean(),
    }
    return rates | ({"auc": roc_auc_score(table["label"], table["score"])} if auc else {})


def bootstrap(table: pd.DataFrame, unit: np.ndarray, draws: np.ndarray, auc: bool = True) -> pd.DataFrame:
    """Metrics of resamples, one row each: those of `fairness_metrics`, and of all images auc, acc, fpr, tpr.

    Parameters
    ----------
    unit : int array (n,), the cluster of each row of `table`
    draws : int array (resamples, clusters), how often each cluster is drawn
    """
    rows, results = np.arange(len(table)), []
    for times in draws:
        sample = table.iloc[np.repeat(rows, times[unit])]
        overall = _rates(sample, auc)
        results.append({**_metrics(sample, auc, overall), **overall})
    return pd.DataFrame(results).drop(columns="predicted_fake")
