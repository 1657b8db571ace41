"""What is trained: one object that holds every choice, passed down to the network, its losses and the training."""

import math
from dataclasses import dataclass, fields

from fairdf_utils.data.vocabulary import FIDELITIES, SAMPLING

TRAINING_METHODS = {
    "ori": "plain detector, cross-entropy",
    "balanced": "plain detector, cross-entropy, group-balanced batches",
    "dag_fdd": "plain detector, CVaR over the images (Ju et al. 2024)",
    "daw_fdd": "plain detector, CVaR inside and across the groups (Ju et al. 2024)",
    "ucf": "content and forgery encoders, no groups (Yan et al. 2023)",
    "fairdf": "disentanglement and fair learning (Lin et al. 2024)",
}
CHOICES = {
    "method": tuple(TRAINING_METHODS),
    "fidelity": FIDELITIES,
    "fairness_loss": ("group_cvar", "cross_entropy"),
    "sampling": SAMPLING,
    "mixing": ("none", "across_groups"),
    "initialisation": ("default", "kaiming"),
    "optimizer": ("sgd", "adamw"),
    "schedule": ("step", "cosine"),
    "precision": ("float32", "bfloat16", "auto"),
}
TINIEST = 5e-324  # the smallest number above 0
RANGES = {
    **dict.fromkeys(("epochs", "batch_size", "width", "reconstruction_size"), (1, math.inf)),
    **dict.fromkeys(("seed", "micro_batch", "frozen_stages", "patience"), (0, math.inf)),
    **dict.fromkeys(("rho", "momentum", "weight_decay", "max_margin", "triplet_margin"), (0, math.inf)),
    **dict.fromkeys(("lr", "margin_scale"), (TINIEST, math.inf)),
    **dict.fromkeys(("alpha_in", "alpha_across"), (TINIEST, 1)),
    **dict.fromkeys(("logit_dropout", "reconstruction_share"), (0, 1)),
}
KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False, without quotes"}


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what is trained; the defaults are the paper's (Lin et al. 2024, 4.1).

    Raises
    ------
    ValueError
        A value of another type, outside its choices or outside its range; the message names field and remedy.
    """

    detector: str = "fairdf"  # name under which the result is stored and reported
    method: str = "fairdf"  # a key of TRAINING_METHODS
    seed: int = 0  # decides initial weights, pairs, dropout masks, triplets
    backbone: str = "legacy_xception"  # "tiny" or the name of a timm model
    weights: str = "imagenet"  # "" (random), "imagenet", "embedded", or the path of a state dict for the backbone
    frozen_stages: int = 0  # first stages of the backbone that keep their weights and are shared by all encoders
    image_size: int = 256  # side of the input, pixels
    width: int = 512  # channels of the encoders' feature map
    fidelity: str = "corrected"  # or "official"
    demographic_branch: bool = True  # of fairdf; without: no demographic encoder, head or loss (ablation)
    fairness_loss: str = "group_cvar"  # what trains fairdf's answer; or "cross_entropy" (ablation)
    initialisation: str = "default"  # of the 1 x 1 blocks and heads; "kaiming" lets training from scratch start
    logit_dropout: float = 0.2  # dropout rate on the heads' logits
    sam: bool = True  # use sharpness-aware minimisation
    rho: float = 0.05  # radius of its ascent step
    epochs: int = 100
    patience: int = 0  # epochs without a higher validation AUC after which training ends; 0: never before `epochs`
    batch_size: int = 16  # pairs of a fake and a real
    sampling: str = "natural"  # of the pairs; or "balanced": every group equally often, as always in method "balanced"
    mixing: str = "none"  # of each image with one of the same forgery and another group: "across_groups"
    optimizer: str = "sgd"  # or "adamw", which has no momentum parameter
    lr: float = 5e-4
    momentum: float = 0.9
    weight_decay: float = 5e-3
    schedule: str = "step"  # x 0.9 every 60 epochs; or "cosine" (to zero, every step)
    weight_specific: float = 0.1  # factors of the terms beside the agnostic cross-entropy
    weight_reconstruction: float = 0.3
    weight_contrastive: float = 0.05
    weight_demographic: float = 0.1
    weight_fairness: float = 1.0
    alpha_in: float = 0.9  # CVaR level inside a group
    alpha_across: float = 0.5  # across the groups; dag_fdd: across the images
    margin_scale: float = 30.0  # of the label-distribution-aware margin loss
    max_margin: float = 0.5  # the rarest group's
    triplet_margin: float = 3.0  # of the contrastive loss
    reconstruction_size: int = 256  # side of the reconstructions, pixels
    reconstruction_share: float = 1.0  # share of the pairs that is reconstructed
    precision: str = "float32"  # or "bfloat16" (autocast), or "auto": bfloat16 where the device is fast at it
    micro_batch: int = 0  # pairs that are encoded, and held for the backward pass, at a time; 0: the whole batch
    checkpoint_activations: bool = False  # encode again in the backward pass: one encoder's activations at a time

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is float and type(value) is int:
                value = float(value)
                object.__setattr__(self, field.name, value)
            if type(value) is not field.type:
                hint = (
                    " (YAML reads 5e-4 as a text; write 5.0e-4)" if field.type is float and type(value) is str else ""
                )
                raise ValueError(f"{field.name} is {value!r}; give {KINDS[field.type]}{hint}")
            if field.type is float and not math.isfinite(value):
                raise ValueError(f"{field.name} is {value}; give a finite number")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}")
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                bound = f"above 0 and at most {high}" if low == TINIEST else f"at least {low} and at most {high}"
                bound = bound.replace(" and at most inf", "")
                raise ValueError(f"{name} is {getattr(self, name)}; give a number {bound}")
        if self.width % 8:
            raise ValueError(f"width is {self.width}; give a multiple of 8, because the decoder divides it by 8")

    def weight(self, term: str) -> float:
        """Factor of a term of the loss; the agnostic cross-entropy and the plain detectors' only term have 1."""
        return getattr(self, f"weight_{term}", 1.0)
