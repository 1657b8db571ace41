"""What is trained: the configuration of a detector, its network and its loss, for every method that is compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from fairdf_utils.data.batches import Batch
from fairdf_utils.data.vocabulary import FIDELITIES
from fairdf_utils.model import losses
from fairdf_utils.model.detectors import FairDetector, Outputs, PlainDetector, TwoEncoderDetector
from fairdf_utils.model.layers import HeadOutput
from fairdf_utils.training import distributed as processes

TRAINING_METHODS = {
    "ori": "plain detector, cross-entropy",
    "balanced": "plain detector, cross-entropy, group-balanced batches",
    "dag_fdd": "plain detector, CVaR over the images (Ju et al. 2024)",
    "daw_fdd": "plain detector, CVaR inside and across the groups (Ju et al. 2024)",
    "ucf": "content and forgery encoders, no groups (Yan et al. 2023)",
    "fairdf": "disentanglement and fair learning (Lin et al. 2024)",
}


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what is trained; the defaults are the paper's (Lin et al. 2024, 4.1).

    Attributes
    ----------
    detector : name under which the result is stored and reported
    method : a key of `TRAINING_METHODS`
    seed : decides initial weights, pairs, dropout masks, triplets
    backbone : "tiny" or the name of a timm model
    weights : "" (random), "imagenet", or the path of a state dict for the backbone
    image_size : side of the input, pixels
    width : channels of the encoders' feature map
    fidelity : "corrected" or "official"
    demographic_branch : of fairdf; without it there is no demographic encoder, head or loss (ablation)
    fairness_loss : what trains fairdf's answer, "group_cvar" or "cross_entropy" (ablation)
    initialisation : of the 1 x 1 blocks and heads, "default" or "kaiming"
    logit_dropout : dropout rate on the heads' logits
    sam, rho : use sharpness-aware minimisation; radius of its ascent step
    epochs, batch_size : batch_size counts pairs of a fake and a real
    optimizer, lr, momentum, weight_decay : "sgd" or "adamw" (no momentum parameter)
    schedule : "step" (x 0.9 every 60 epochs) or "cosine" (to zero, every step)
    weight_* : factors of the terms beside the agnostic cross-entropy
    alpha_in, alpha_across : CVaR levels inside a group and across the groups (dag_fdd: across the images)
    margin_scale, max_margin : of the label-distribution-aware margin loss
    triplet_margin : of the contrastive loss
    reconstruction_size, reconstruction_share : side of the reconstructions, pixels; share of the pairs reconstructed
    precision : "float32" or "bfloat16" (autocast)
    """

    detector: str = "fairdf"
    method: str = "fairdf"
    seed: int = 0
    backbone: str = "legacy_xception"
    weights: str = "imagenet"
    image_size: int = 256
    width: int = 512
    fidelity: str = "corrected"
    demographic_branch: bool = True
    fairness_loss: str = "group_cvar"
    initialisation: str = "default"
    logit_dropout: float = 0.2
    sam: bool = True
    rho: float = 0.05
    epochs: int = 100
    batch_size: int = 16
    optimizer: str = "sgd"
    lr: float = 5e-4
    momentum: float = 0.9
    weight_decay: float = 5e-3
    schedule: str = "step"
    weight_specific: float = losses.WEIGHTS["specific"]
    weight_reconstruction: float = losses.WEIGHTS["reconstruction"]
    weight_contrastive: float = losses.WEIGHTS["contrastive"]
    weight_demographic: float = losses.WEIGHTS["demographic"]
    weight_fairness: float = losses.WEIGHTS["fairness"]
    alpha_in: float = 0.9
    alpha_across: float = 0.5
    margin_scale: float = 30.0
    max_margin: float = 0.5
    triplet_margin: float = 3.0
    reconstruction_size: int = 256
    reconstruction_share: float = 1.0
    precision: str = "float32"

    def __post_init__(self) -> None:
        allowed = {
            "method": TRAINING_METHODS,
            "fidelity": FIDELITIES,
            "fairness_loss": losses.FAIRNESS_LOSSES,
            "optimizer": ("sgd", "adamw"),
            "schedule": ("step", "cosine"),
            "precision": ("float32", "bfloat16"),
        }
        for name, choices in allowed.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


def build(config: TrainingConfig) -> FairDetector | TwoEncoderDetector | PlainDetector:
    """The untrained detector of a configuration; the same seed gives the same weights."""
    torch.manual_seed(config.seed)
    shared = {
        "backbone": config.backbone,
        "image_size": config.image_size,
        "width": config.width,
        "weights": config.weights or None,
        "initialisation": config.initialisation,
        "logit_dropout": config.logit_dropout,
    }
    if config.method not in ("fairdf", "ucf"):
        return PlainDetector(**shared)
    shared |= {
        "reconstruction_size": config.reconstruction_size,
        "reconstruction_share": config.reconstruction_share,
    }
    if config.method == "ucf" or not config.demographic_branch:
        return TwoEncoderDetector(**shared, fused_head=config.method == "fairdf")
    return FairDetector(**shared, fidelity=config.fidelity)


def objective(
    config: TrainingConfig, model: torch.nn.Module, batch: Batch, triplets: losses.Triplets, group_counts: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Terms of the loss, weighted: scalars whose sum is minimised (Lin et al. 2024, overall objective).

    With several processes, `batch.images` is this process's share; the logits of all are brought together.
    """
    if config.method in ("fairdf", "ucf"):
        terms = losses.fairdf_terms(
            gather_outputs(model(batch.images)),
            batch.images,
            batch.label,
            batch.forgery,
            batch.group,
            triplets,
            group_counts,
            fidelity=config.fidelity,
            fairness_loss=config.fairness_loss,
            alpha_in=config.alpha_in,
            alpha_across=config.alpha_across,
            margin_scale=config.margin_scale,
            max_margin=config.max_margin,
            triplet_margin=config.triplet_margin,
        )
        return {name: value * getattr(config, f"weight_{name}", 1.0) for name, value in terms.items()}
    errors = losses.cross_entropy(processes.gather(model(batch.images)), batch.label)  # (2B,)
    if config.method == "dag_fdd":
        return {"detection": losses.cvar(errors, config.alpha_across)}
    if config.method == "daw_fdd":
        return {"detection": losses.group_cvar(errors, batch.group, config.alpha_in, config.alpha_across)}
    return {"detection": errors.mean()}


def gather_outputs(outputs: Outputs) -> Outputs:
    """Logits and pooled vectors of all processes; reconstructions stay where they are, their loss is a mean."""
    heads = {name: getattr(outputs, name) for name in ("specific", "agnostic", "demographic", "fused")}
    return replace(outputs, **{name: head and HeadOutput(*map(processes.gather, head)) for name, head in heads.items()})
