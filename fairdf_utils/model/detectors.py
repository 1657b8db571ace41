"""The detectors: three encoders, disentanglement, AdaIN fusion, four heads and the reconstruction decoder.

Images are float tensors in [-1, 1], (N, 3, H, H).

Source: Lin et al. 2024, "Preserving Fairness Generalization in Deepfake Detection", CVPR (arXiv 2402.17229).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fairdf_utils.data.vocabulary import FIDELITIES, FORGERIES, GROUPS
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.model.encoders import Encoder, Stem, build_stem
from fairdf_utils.model.layers import Decoder, Head, HeadOutput, adain, pointwise_block


def build(config: TrainingConfig, groups: int = len(GROUPS)) -> "FairDetector | TwoEncoderDetector | PlainDetector":
    """The untrained detector of a configuration and a number of groups; the same seed gives the same weights."""
    torch.manual_seed(config.seed)
    if config.method not in ("fairdf", "ucf"):
        return PlainDetector(config)
    if config.method == "ucf" or not config.demographic_branch:
        return TwoEncoderDetector(config)
    return FairDetector(config, groups)


def score(logits: Tensor, fidelity: str = "corrected") -> Tensor:
    """P(fake), (...,), at least float32, in [0, 1], of real/fake logits (..., 2): column 0 real, column 1 fake.

    "corrected" is softmax over both logits; "official" is what the released test script reports, the sigmoid of the
    fake logit alone, which ignores the real logit and is not calibrated to a threshold of one half.
    """
    if fidelity not in FIDELITIES:
        raise ValueError(f"fidelity {fidelity!r} is unknown; choose one of {', '.join(FIDELITIES)}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if fidelity == "official":
        return logits[..., 1].sigmoid()
    return (logits[..., 1] - logits[..., 0]).sigmoid()  # softmax of two logits


@dataclass(frozen=True)
class Outputs:
    """One training forward pass; rows in the order of the images.

    `specific` (forgery, 6 classes), `agnostic` (real/fake), `demographic` (the groups) and `fused` (real/fake, the
    detector's answer) hold logits and pooled vector of their head. `self_reconstruction` and `cross_reconstruction`
    (2k, 3, S, S) are the first k fakes, then the first k reals; None when no pair is reconstructed. A detector without
    a demographic branch or a fused head has None there.
    """

    specific: HeadOutput
    agnostic: HeadOutput
    demographic: HeadOutput | None
    fused: HeadOutput | None
    self_reconstruction: Tensor | None
    cross_reconstruction: Tensor | None


class FairDetector(nn.Module):
    """The paper's detector.

    Fidelity "official" follows the released code, in which neither the demographic nor the content encoder touches
    what it should: the fused head pools right after AdaIN, which leaves the agnostic map's mean, and the decoder
    normalises away the statistics that were all the condition kept of the content. "corrected" puts 1 x 1 convolutions
    between AdaIN and pooling, and conditions the decoder on AdaIN(content, demographic) through such a block.
    `reconstruction_share` of the pairs, rounded up, is reconstructed; the content encoder sees only these.

    Source: Lin et al. 2024, method.
    """

    def __init__(self, config: TrainingConfig, groups: int = len(GROUPS)):
        super().__init__()
        self.fidelity, self.reconstruction_share = config.fidelity, config.reconstruction_share
        width, half = config.width, config.width // 2
        self.stem = build_stem(config.backbone, config.image_size, config.weights, config.frozen_stages)
        self.forgery, self.content, self.demographic = (_encoder(config) for _ in range(3))
        self.specific_split = pointwise_block(width, half, half)
        self.agnostic_split = pointwise_block(width, half, half)
        self.demographic_split = pointwise_block(width, half, half)
        self.specific = Head(half, width, len(FORGERIES), config.logit_dropout)
        self.agnostic = Head(half, width, 2, config.logit_dropout)
        self.demographic_head = Head(half, width, groups, config.logit_dropout)
        self.fused = Head(half, width, 2, config.logit_dropout)
        self.decoder = Decoder(width, config.reconstruction_size)
        if self.fidelity == "corrected":
            self.fusion = pointwise_block(half, half, half)
            self.condition = pointwise_block(width, half, width)
        _initialise(self, config)

    def forward(self, images: Tensor, stem_maps: Tensor | None = None) -> Outputs:
        """Everything that the loss needs, of images (2B, 3, H, H): B fakes, then the B reals they are paired with.

        `stem_maps` (2B, C, h, w) are those of the images under `stem`, where they are known.
        """
        if len(images) % 2:
            raise ValueError(f"a training batch is B fakes, then B reals; {len(images)} images is odd")
        seen = self.stem(images) if stem_maps is None else stem_maps
        forgery = self.forgery(seen)  # (2B, width, 8, 8)
        demographic = self.demographic(seen)  # (2B, width, 8, 8)
        specific_map = self.specific_split(forgery)  # (2B, width / 2, 8, 8)
        agnostic_map = self.agnostic_split(forgery)  # (2B, width / 2, 8, 8)
        demographic_map = self.demographic_split(demographic)  # (2B, width / 2, 8, 8)
        fused_map = self._fuse(demographic_map, agnostic_map)  # (2B, width / 2, 8, 8)
        own, cross = self._reconstruct(seen, demographic, torch.cat([specific_map, agnostic_map], 1))
        heads = self.specific(specific_map), self.agnostic(agnostic_map), self.demographic_head(demographic_map)
        return Outputs(*heads, self.fused(fused_map), own, cross)

    def detect(self, images: Tensor) -> Tensor:
        """Logits (N, 2) of the fused head for images (N, 3, H, H) of any composition, and nothing else.

        Two encoders in "corrected"; in "official" the forgery encoder alone, because AdaIN keeps the mean that the
        head pools.
        """
        seen = self.stem(images)
        agnostic_map = self.agnostic_split(self.forgery(seen))  # (N, width / 2, 8, 8)
        if self.fidelity == "official":
            return self.fused(agnostic_map).logits
        demographic_map = self.demographic_split(self.demographic(seen))  # (N, width / 2, 8, 8)
        return self.fused(self._fuse(demographic_map, agnostic_map)).logits

    def _fuse(self, demographic_map: Tensor, agnostic_map: Tensor) -> Tensor:
        """The map that the fused head pools, (N, width / 2, 8, 8) like both others."""
        fused_map = adain(demographic_map, agnostic_map)
        return self.fusion(fused_map) if self.fidelity == "corrected" else fused_map

    def _reconstruct(
        self, seen: Tensor, demographic: Tensor, forgery: Tensor
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Self and cross reconstruction of the first pairs; forgery is (2B, width, 8, 8), as is demographic."""
        pairs = math.ceil(self.reconstruction_share * (len(seen) // 2))
        if pairs == 0:
            return None, None
        seen, demographic, forgery = (first_pairs(each, pairs) for each in (seen, demographic, forgery))
        content = self.content(seen)  # (2k, width, 8, 8)
        if self.fidelity == "official":
            condition = adain(demographic, content)
        else:
            condition = self.condition(adain(content, demographic))  # (2k, width, 8, 8)
        return self.decoder(condition, forgery)


class TwoEncoderDetector(nn.Module):
    """The method without its demographic branch; without a fused head too it is UCF (Yan et al. 2023).

    The decoder's condition is the content map itself. The answer comes from the fused head, which here looks at the
    agnostic map through the same 1 x 1 convolutions as in `FairDetector`; with the method "ucf" from the agnostic head.

    Source: Yan et al. 2023; Lin et al. 2024, ablation.
    """

    def __init__(self, config: TrainingConfig):
        super().__init__()
        self.reconstruction_share = config.reconstruction_share
        width, half, has_fused_head = config.width, config.width // 2, config.method != "ucf"
        self.stem = build_stem(config.backbone, config.image_size, config.weights, config.frozen_stages)
        self.forgery, self.content = _encoder(config), _encoder(config)
        self.specific_split = pointwise_block(width, half, half)
        self.agnostic_split = pointwise_block(width, half, half)
        self.specific = Head(half, width, len(FORGERIES), config.logit_dropout)
        self.agnostic = Head(half, width, 2, config.logit_dropout)
        self.fusion = pointwise_block(half, half, half) if has_fused_head else None
        self.fused = Head(half, width, 2, config.logit_dropout) if has_fused_head else None
        self.decoder = Decoder(width, config.reconstruction_size)
        _initialise(self, config)

    def forward(self, images: Tensor, stem_maps: Tensor | None = None) -> Outputs:
        """Everything that the loss needs, of B fakes and then the B reals they are paired with; see `FairDetector`."""
        seen = self.stem(images) if stem_maps is None else stem_maps
        forgery = self.forgery(seen)  # (2B, width, 8, 8)
        specific_map, agnostic_map = self.specific_split(forgery), self.agnostic_split(forgery)  # (2B, width / 2, 8, 8)
        fused = self.fused(self.fusion(agnostic_map)) if self.fused else None
        own, cross = None, None
        pairs = math.ceil(self.reconstruction_share * (len(images) // 2))
        if pairs:
            content = self.content(first_pairs(seen, pairs))  # (2k, width, 8, 8)
            own, cross = self.decoder(content, first_pairs(torch.cat([specific_map, agnostic_map], 1), pairs))
        return Outputs(self.specific(specific_map), self.agnostic(agnostic_map), None, fused, own, cross)

    def detect(self, images: Tensor) -> Tensor:
        """Logits (N, 2) of the answer for images (N, 3, H, H) of any composition, from the forgery encoder alone."""
        agnostic_map = self.agnostic_split(self.forgery(self.stem(images)))  # (N, width / 2, 8, 8)
        return (self.fused(self.fusion(agnostic_map)) if self.fused else self.agnostic(agnostic_map)).logits


class PlainDetector(nn.Module):
    """The same encoder and head alone: the baseline of every comparison (cross-entropy, CVaR or balanced)."""

    def __init__(self, config: TrainingConfig):
        super().__init__()
        self.stem = build_stem(config.backbone, config.image_size, config.weights, config.frozen_stages)
        self.encoder = _encoder(config)
        self.head = Head(config.width, config.width, 2, config.logit_dropout)
        _initialise(self, config)

    def forward(self, images: Tensor, stem_maps: Tensor | None = None) -> Tensor:
        """Real/fake logits (N, 2) of images (N, 3, H, H); `stem_maps` as in `FairDetector`."""
        return self.head(self.encoder(self.stem(images) if stem_maps is None else stem_maps)).logits

    detect = forward


def first_pairs(batch: Tensor, pairs: int) -> Tensor:
    """The first `pairs` fakes and the first `pairs` reals of a batch (2B, ...): (2 pairs, ...)."""
    if 2 * pairs == len(batch):
        return batch
    reals = len(batch) // 2
    return torch.cat([batch[:pairs], batch[reals : reals + pairs]])


def _encoder(config: TrainingConfig) -> Encoder:
    memory = config.checkpoint_activations, config.micro_batch
    return Encoder(config.backbone, config.image_size, config.width, config.weights, *memory, config.frozen_stages)


def _initialise(detector: nn.Module, config: TrainingConfig) -> None:
    """Draw the 1 x 1 blocks and heads, in order (the seed decides the weights); encoders and decoder stay."""
    if config.initialisation == "kaiming":
        drawn = (part for part in detector.children() if not isinstance(part, Stem | Encoder | Decoder))
        for layer in (layer for part in drawn for layer in part.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, a=0.01, nonlinearity="leaky_relu")
                nn.init.zeros_(layer.bias)
