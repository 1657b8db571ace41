"""The losses of the paper, as pure functions of tensors.

Per-image losses and every logarithm are computed in at least float32, so that all of them may be called under bf16
autocast. Nothing here reads a tensor back to the host.

Source: Lin et al. 2024, "Preserving Fairness Generalization in Deepfake Detection", CVPR (arXiv 2402.17229).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairdf_utils.data.batches import Batch
from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.model.detectors import Outputs, first_pairs


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Per-image cross-entropy (N,), nats, of logits (N, K) and int64 targets (N,)."""
    return F.cross_entropy(_at_least_float32(logits), target, reduction="none")


def ldam_margins(counts: Tensor | Sequence[int], max_margin: float = 0.5) -> Tensor:
    """Margin of every group: proportional to n^(-1/4), the rarest group's being `max_margin`.

    `counts` (G,) are the training images of every group; the result is float32 (G,). A group without any image gets
    margin 0 and does not scale the others.

    Source: Cao et al. 2019, label-distribution-aware margin; Lin et al. 2024, demographic loss.
    """
    counts = torch.as_tensor(counts, dtype=torch.float32)
    rarity = torch.where(counts > 0, counts.clamp(min=1) ** -0.25, 0.0)
    return max_margin * rarity / rarity.max()


def ldam(
    logits: Tensor, group: Tensor, counts: Tensor | Sequence[int], scale: float = 30.0, max_margin: float = 0.5
) -> Tensor:
    """Label-distribution-aware margin loss: mean cross-entropy of scale * (z - margin_g e_g) with g.

    Parameters
    ----------
    logits : Tensor (N, G)
    group : int64 tensor (N,)
    counts : as of `ldam_margins`; a tensor on the device of the logits saves a copy a step
    scale : 30 in the paper; from scratch 5 learns where 30 stalls

    Source: Cao et al. 2019; Lin et al. 2024, demographic loss.
    """
    logits = _at_least_float32(logits)
    margins = ldam_margins(counts, max_margin).to(logits.device)  # (G,)
    own = F.one_hot(group, logits.shape[1])  # (N, G)
    return F.cross_entropy(scale * (logits - margins * own), group)


def cvar(values: Tensor, alpha: float) -> Tensor:
    """Conditional value at risk: mean of the worst alpha * n values, the last one counted fractionally.

    Equal to min over eta of eta + mean(max(0, values - eta)) / alpha (Rockafellar and Uryasev 2000), whose minimiser
    is an order statistic; one sort gives value and gradient. For alpha in (0, 1], 1 is the mean, towards 0 the maximum.
    """
    _check_alpha(alpha)
    values = _at_least_float32(values).sort(descending=True).values  # (n,)
    rank = torch.arange(len(values), device=values.device)
    return (worst_weights(rank, torch.full_like(rank, len(values)), alpha, values.dtype) * values).sum()


def worst_weights(rank: Tensor, count: Tensor, alpha: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """CVaR's weight of the value of a given rank (0 = worst) among `count` values; they sum to 1 over the ranks.

    1 / (alpha * count) for the worst alpha * count values, the remaining fraction for the one after them, 0 beyond.
    """
    tail = alpha * count.to(dtype)
    return (tail - rank).clamp(0, 1) / tail.clamp(min=alpha)


def group_cvar(
    losses: Tensor, group: Tensor, alpha_in: float = 0.9, alpha_across: float = 0.5, groups: int = len(GROUPS)
) -> Tensor:
    """Bi-level CVaR: of the losses inside each group, then of those values over the groups present.

    Parameters
    ----------
    losses : Tensor (N,), one an image
    group : int64 tensor (N,), codes below `groups`
    alpha_in, alpha_across : float in (0, 1]

    Source: Lin et al. 2024, fairness loss; Ju et al. 2024 (DAW-FDD).
    """
    _check_alpha(alpha_in)
    _check_alpha(alpha_across)
    losses, member, rank, count = _sort_in_groups(losses, group, groups)
    weights = worst_weights(rank, count, alpha_in, losses.dtype) * member  # (G, N)
    values = (weights * losses).sum(1)  # (G,), 0 for absent groups; autocast would run a matrix product in bf16
    order = values.detach().masked_fill(count[:, 0] == 0, -torch.inf).argsort(descending=True)  # absent ones last
    present = (count > 0).sum()
    ranks = torch.arange(len(values), device=values.device)
    return (worst_weights(ranks, present, alpha_across, values.dtype) * values[order]).sum()


def official_group_cvar(
    losses: Tensor, group: Tensor, alpha_in: float = 0.9, alpha_across: float = 0.5, groups: int = len(GROUPS)
) -> Tensor:
    """The released form of `group_cvar`: every threshold a constant, the outer level smoothed and cut short.

    Outer level: min over eta of eta + t2 eta^2 / (2 a) + t1 mean(log(1 + exp((L_g - eta) / t1))) / a with t1 = 1e-3 and
    t2 = 1e-4. In float32 that exponential overflows 88.7 t1 below the largest L_g and the released search never goes
    past it, so with groups further apart only the worst one gets gradient. Inside a group the threshold sits just
    below the order statistic that minimises, hence a group of one image gets gradient (the released search ends on
    either side of it, by chance).

    Source: behaviour of the released implementation of Lin et al. 2024, for comparison with its numbers.
    """
    _check_alpha(alpha_in)
    _check_alpha(alpha_across)
    losses, member, rank, count = _sort_in_groups(losses, group, groups)
    absent, tail = count[:, 0] == 0, alpha_in * count  # (G,), (G, 1)
    above = member & (rank <= tail.floor())  # (G, N), up to and with the order statistic
    threshold = torch.where(above, losses.detach(), torch.inf).amin(1, keepdim=True)  # (G, 1)
    excess = torch.where(above, losses - threshold, 0)  # (G, N)
    values = (threshold + excess.sum(1, keepdim=True) / tail)[:, 0].masked_fill(absent, -torch.inf)  # (G,)
    return _official_outer_cvar(values, alpha_across)


def _official_outer_cvar(values: Tensor, alpha: float, sharpness: float = 1e-3, damping: float = 1e-4) -> Tensor:
    """Smoothed CVaR over group values (G,), -inf where absent; see `official_group_cvar`."""
    present = (values > -torch.inf).sum()
    worst = values.detach().max()
    overflow = sharpness * math.log(torch.finfo(torch.float32).max)
    below, width = -overflow, overflow + 0.02  # eta - worst; at +0.02 the slope is 1 for certain
    offset = torch.full_like(worst, below)
    steps = torch.arange(1, 65, device=values.device, dtype=values.dtype) / 64
    for _ in range(5):  # the slope rises with eta: count the grid points where it is negative, then refine
        grid = offset + width * steps  # (64,)
        active = ((values.detach() - worst - grid[:, None]) / sharpness).sigmoid().sum(1)  # (64,)
        slope = 1 + damping / alpha * (worst + grid) - active / (alpha * present)
        offset, width = offset + width / 64 * (slope < 0).sum(), width / 64
    eta = worst + offset
    smooth = sharpness * F.softplus((values - eta) / sharpness)  # (G,), 0 for absent groups
    return eta + damping / (2 * alpha) * eta**2 + smooth.sum() / (alpha * present)


def _sort_in_groups(losses: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Losses (N,) worst first, membership (G, N), rank inside the group (G, N), images of the group (G, 1)."""
    losses, order = _at_least_float32(losses).sort(descending=True)
    member = torch.arange(groups, device=group.device)[:, None] == group[order]  # (G, N)
    return losses, member, member.cumsum(1) - 1, member.sum(1, keepdim=True)


class Triplets(NamedTuple):
    """Row numbers (N,) into the batch for every anchor: positives and negatives of both contrastive terms."""

    agnostic_positive: Tensor
    agnostic_negative: Tensor
    specific_positive: Tensor
    specific_negative: Tensor


def draw_triplets(label: Tensor, forgery: Tensor, generator: torch.Generator | None = None) -> Triplets:
    """For every image a random positive and negative, drawn once a step so that both SAM passes share them.

    Positives are of the same class (agnostic) or of the same forgery (specific), negatives of the other class.
    A positive may be the anchor itself. `label` and `forgery` are int64 (N,), with both classes present. The lots are
    drawn on the CPU, so that a generator gives the same ones on every device.
    """
    same_label = label[:, None] == label  # (N, N)
    same_forgery = forgery[:, None] == forgery  # (N, N)
    allowed = torch.stack([same_label, ~same_label, same_forgery, ~same_label])  # (4, N, N)
    lots = torch.rand(allowed.shape, generator=generator).to(label.device, non_blocking=True)
    return Triplets(*lots.masked_fill(~allowed, -1).argmax(2))  # the highest lot: uniform over the allowed


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 3.0) -> Tensor:
    """Mean hinge max(0, |a - p| - |a - n| + margin), Euclidean, of rows (N, D).

    Source: Lin et al. 2024, contrastive loss.
    """
    near = torch.linalg.vector_norm(_at_least_float32(anchor) - _at_least_float32(positive), dim=1)  # (N,)
    far = torch.linalg.vector_norm(_at_least_float32(anchor) - _at_least_float32(negative), dim=1)  # (N,)
    return F.relu(near - far + margin).mean()


def contrastive(agnostic: Tensor, specific: Tensor, triplets: Triplets, margin: float = 3.0) -> Tensor:
    """Four triplet hinges: real and fake anchors, agnostic and specific pooled vectors (2B, D).

    Fakes and reals being equally many, the sum of a mean over fakes and a mean over reals is twice the mean over all.

    Source: Lin et al. 2024, contrastive loss.
    """
    like, unlike = agnostic[triplets.agnostic_positive], agnostic[triplets.agnostic_negative]
    same, other = specific[triplets.specific_positive], specific[triplets.specific_negative]
    return 2 * (triplet(agnostic, like, unlike, margin) + triplet(specific, same, other, margin))


def reconstruction(images: Tensor, own: Tensor, cross: Tensor) -> Tensor:
    """Four mean absolute errors: fakes and reals, drawn with their own and with their partner's forgery map.

    Parameters
    ----------
    images : Tensor (2B, 3, H, H) in [-1, 1], fakes first
    own, cross : Tensor (2k, 3, S, S)
        Reconstructions of the first k fakes and the first k reals; for S below H the target is area-averaged.

    Source: Lin et al. 2024, reconstruction loss.
    """
    target = first_pairs(images, len(own) // 2)  # (2k, 3, H, H)
    if target.shape[-1] != own.shape[-1]:
        target = F.interpolate(target, size=own.shape[-2:], mode="area")  # (2k, 3, S, S)
    own, cross = _at_least_float32(own), _at_least_float32(cross)
    return 2 * (F.l1_loss(own, target.to(own.dtype)) + F.l1_loss(cross, target.to(cross.dtype)))  # mean over halves


def fairdf_terms(
    outputs: Outputs, batch: Batch, triplets: Triplets, group_counts: Tensor | Sequence[int], config: TrainingConfig
) -> dict[str, Tensor]:
    """The six terms of the paper's loss, unweighted; `TrainingConfig.weight` gives the weights by the same names.

    `outputs` are those for the images of the batch; `group_counts` (G,) are the training images of every group. A term
    whose outputs are None is left out. "fairness" is the bi-level CVaR, exact or as released, or the plain mean.

    Source: Lin et al. 2024, overall objective.
    """
    agnostic, specific = outputs.agnostic, outputs.specific
    terms = {
        "agnostic": cross_entropy(agnostic.logits, batch.label).mean(),
        "specific": cross_entropy(specific.logits, batch.forgery).mean(),
        "contrastive": contrastive(agnostic.pooled, specific.pooled, triplets, config.triplet_margin),
    }
    if outputs.demographic is not None:
        margin = config.margin_scale, config.max_margin
        terms["demographic"] = ldam(outputs.demographic.logits, batch.group, group_counts, *margin)
    if outputs.fused is not None:
        errors = cross_entropy(outputs.fused.logits, batch.label)
        if config.fairness_loss == "cross_entropy":
            terms["fairness"] = errors.mean()
        else:
            form = group_cvar if config.fidelity == "corrected" else official_group_cvar
            terms["fairness"] = form(errors, batch.group, config.alpha_in, config.alpha_across, batch.groups)
    if outputs.self_reconstruction is not None:
        drawn = outputs.self_reconstruction, outputs.cross_reconstruction
        terms["reconstruction"] = reconstruction(batch.images, *drawn)
    return terms


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must lie in (0, 1], not {alpha}")
