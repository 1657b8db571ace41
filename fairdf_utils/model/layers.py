"""The parts that the detectors are made of: AdaIN, heads, 1 x 1 blocks and the reconstruction decoder.

Source: Lin et al. 2024, "Preserving Fairness Generalization in Deepfake Detection", CVPR (arXiv 2402.17229).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairdf_utils.model.encoders import MAP_SIZE


def adain(x: Tensor, y: Tensor, eps: float = 1e-5) -> Tensor:
    """Adaptive instance normalisation: x with y's per-channel mean and standard deviation.

    x and y are (N, C, H, W), and may differ in H and W; `eps` is added to both (unbiased) variances. The result, of x's
    shape, has y's mean over space, whatever x is: pooling it at once forgets x.

    Source: Huang and Belongie 2017; Lin et al. 2024, feature fusion.
    """
    return restyle(x, *channel_statistics(y, eps), eps)


def restyle(x: Tensor, mean: Tensor, std: Tensor, eps: float = 1e-5) -> Tensor:
    """x (N, C, H, W) with the given per-channel mean and standard deviation (N, C, 1, 1)."""
    x_mean, x_std = channel_statistics(x, eps)  # (N, C, 1, 1)
    return (x - x_mean) * (std / x_std) + mean


def channel_statistics(x: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (unbiased variance + eps, square root) over space, (N, C, 1, 1) each."""
    mean = x.mean(dim=(2, 3), keepdim=True)
    squares = (x - mean).square().sum(dim=(2, 3), keepdim=True)  # on a CPU 20 times faster than torch.var_mean
    return mean, (squares / (x.shape[2] * x.shape[3] - 1) + eps).sqrt()


class HeadOutput(NamedTuple):
    """What a head returns: logits (N, K) and the pooled map it saw, (N, width / 2)."""

    logits: Tensor
    pooled: Tensor


class Head(nn.Module):
    """Global average pool, Linear, LeakyReLU, Linear, Dropout on the logits (as in the released code)."""

    def __init__(self, inputs: int, hidden: int, classes: int, dropout: float = 0.2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.LeakyReLU(0.01, inplace=True), nn.Linear(hidden, classes), nn.Dropout(dropout)
        )

    def forward(self, features: Tensor) -> HeadOutput:
        """Features (N, inputs, 8, 8)."""
        pooled = features.mean(dim=(2, 3))  # (N, inputs); not .view, which fails on channels_last
        return HeadOutput(self.layers(pooled), pooled)


def pointwise_block(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Three 1 x 1 convolutions with LeakyReLU(0.01) between them and none after the last (the "split" block)."""
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 1),
        nn.LeakyReLU(0.01, inplace=True),
        nn.Conv2d(hidden, hidden, 1),
        nn.LeakyReLU(0.01, inplace=True),
        nn.Conv2d(hidden, outputs, 1),
    )


class Decoder(nn.Module):
    """Draws images from a forgery map and a condition (the released `con_gan`).

    Three stages of AdaIN(condition, forgery), bilinear x2, Dropout and two 3 x 3 convolutions with ReLU, to width / 2,
    / 4 and / 8 channels; the forgery branch passes through the same upsampling and convolutions to lend the next stage
    its statistics. Then a 1 x 1 convolution to RGB, bilinear to `output_size` px, tanh. Stages stop doubling when they
    have reached `output_size`, so that small images are not drawn at 64 px only to be shrunk.

    All four reconstructions of a batch run as one pass. The forgery branch depends on the forgery map alone, so it is
    computed once and shared by the self and the cross reconstruction; the two therefore see one dropout mask on that
    branch, where four separate calls would draw it twice. In evaluation mode both forms are equal.

    Source: Lin et al. 2024, reconstruction; conditional decoder of Yan et al. 2023 (UCF).
    """

    def __init__(self, width: int = 512, output_size: int = 256):
        super().__init__()
        self.output_size = output_size
        self.dropout = nn.Dropout(0.3)
        widths = (width, width // 2, width // 4, width // 8)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(outputs, outputs, 3, padding=1),
                nn.ReLU(inplace=True),
            )
            for inputs, outputs in zip(widths[:-1], widths[1:], strict=True)
        )
        self.to_rgb = nn.Conv2d(widths[-1], 3, 1)

    def forward(self, condition: Tensor, forgery: Tensor) -> tuple[Tensor, Tensor]:
        """Each condition drawn with its own forgery map, and with its partner's.

        Both inputs are (2k, width, 8, 8): k fakes, then the k reals they are paired with. Both results are
        (2k, 3, output_size, output_size) in [-1, 1], in the same order.
        """
        drawn = torch.cat([condition, condition])  # (4k, width, 8, 8): self, cross
        pairs, size, last = len(forgery) // 2, MAP_SIZE, self.stages[-1]
        for stage in self.stages:
            size = min(2 * size, self.output_size)
            style = (torch.cat([own, own.roll(pairs, 0)]) for own in channel_statistics(forgery))  # own, partner's
            drawn = restyle(drawn, *style)
            both = drawn if stage is last else torch.cat([drawn, forgery])  # (6k, C, s, s)
            both = stage(self.dropout(_resize(both, size)))  # (6k, C / 2, 2s, 2s)
            drawn, forgery = both[: len(drawn)], both[len(drawn) :]
        images = _resize(self.to_rgb(drawn), self.output_size).tanh()  # (4k, 3, S, S)
        return images.chunk(2)


def _resize(maps: Tensor, size: int) -> Tensor:
    if maps.shape[-1] == size:
        return maps
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=True)
