"""The loss around a detector's weights: a picture on two directions, and how sharp the minimum is.

Every direction is filter-normalised (Li et al. 2018): each filter's part (a row of a linear layer, an output channel
of a convolution) has the norm of that filter, so 1 on an axis moves each filter by its own length. Without this, a
network whose weights are larger by a factor that its batch norms take out again would look flatter. Biases, batch
norms and a frozen stem stay as they are, in evaluation mode: the centre is the detector as it scores.

Source: Li et al. 2018, "Visualizing the loss landscape of neural nets", NeurIPS; Foret et al. 2021 (sharpness).
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairdf_utils import progress
from fairdf_utils.data.batches import to_device

# Of a model, the scalars whose sum is its loss: parts, so that a gradient needs the memory of one part only.
Loss = Callable[[nn.Module], Iterable[Tensor]]
Direction = list[Tensor]  # one tensor a weight that moves


@dataclass(frozen=True)
class Landscape:
    """A loss on a plane in weight space; (0, 0) is the trained detector."""

    x: np.ndarray  # float64 (K,), steps along the first direction, in lengths of a filter
    y: np.ndarray  # float64 (K,), along the second
    loss: np.ndarray  # float64 (K, K), loss[j, i] at (x[i], y[j])


def answer_loss(images: np.ndarray, label: np.ndarray, device: torch.device, batch_size: int = 64) -> Loss:
    """The mean cross-entropy of a detector's answer on fixed images, as a function of the detector.

    Every detector has it, so it compares runs. SAM flattens the loss of the training images: take these to see what it
    did. `images` uint8 (N, H, H, 3), `label` int (N,), 1 = fake; `batch_size` images are a part of the loss.
    """
    target = torch.as_tensor(np.array(label, np.int64), device=device)

    def loss(model: nn.Module) -> Iterator[Tensor]:
        for start in range(0, len(images), batch_size):
            logits = model.detect(to_device(images[start : start + batch_size], device)).float()  # (b, 2)
            yield F.cross_entropy(logits, target[start : start + batch_size], reduction="sum") / len(images)

    return loss


def landscape(model: nn.Module, loss: Loss, span: float = 0.5, steps: int = 11, seed: int = 0) -> Landscape:
    """The loss on the plane of two random filter-normalised directions; a copy moves, the model stays as it is.

    Parameters
    ----------
    loss : parts of the model's loss, such as `answer_loss`
    span : largest step along each direction, in lengths of a filter
    steps : points an axis; odd, so that the centre is the model itself
    seed : of the directions; the same seed gives networks of one architecture the same draw
    """
    if steps % 2 == 0:
        raise ValueError(f"steps is {steps}: an odd number puts the trained weights in the centre")
    generator = torch.Generator().manual_seed(seed)
    at = np.linspace(-span, span, steps)
    at[steps // 2] = 0.0
    weights = _filters(model)
    first, second = (random_direction(weights, generator) for _ in range(2))
    loss_at = _walker(model, loss)
    rows = progress.bar(at, desc="landscape", unit="row", leave=False)
    return Landscape(at, at.copy(), np.array([[loss_at((x, first), (y, second)) for x in at] for y in rows]))


def sharpness(
    model: nn.Module, loss: Loss, radius: float = 0.05, directions: int = 8, seed: int = 0
) -> dict[str, float]:
    """How much the loss rises when every filter moves by `radius` of its own length; the model stays as it is.

    - ascent: L(w + radius n(g)) - L(w), n(g) the filter-normalised gradient. To first order the largest rise that
      moving each filter by that much can cause: the quantity that SAM's ascent step looks for, in relative lengths.
    - random: the mean over filter-normalised random directions d of (L(w + radius d) + L(w - radius d)) / 2 - L(w).
      Opposite steps take the slope out, what remains is curvature: for a small radius, radius^2 d'Hd / 2.

    Comparable between networks of one architecture, because a rescaling of filters that batch norm undoes changes
    neither. Read it beside the loss: a detector that has learnt less is often flatter for that reason alone.

    `model`, `loss` and `seed` are those of `landscape`; without random directions (0) there is the ascent alone.
    Returns "loss" at the weights, "ascent", "random", and "random_sd" over the directions (ddof 1); NaN without them.
    """
    generator = torch.Generator().manual_seed(seed)
    weights, loss_at = _filters(model), _walker(model, loss)
    centre, slopes = _loss_and_gradient(model, loss)
    ascent = loss_at((radius, normalised(slopes, weights))) - centre
    drawn = (random_direction(weights, generator) for _ in range(directions))
    rises = [(loss_at((radius, each)) + loss_at((-radius, each))) / 2 - centre for each in drawn]
    return {
        "loss": centre,
        "ascent": ascent,
        "random": float(np.mean(rises)) if rises else np.nan,
        "random_sd": float(np.std(rises, ddof=1)) if len(rises) > 1 else np.nan,
    }


def random_direction(weights: list[Tensor], generator: torch.Generator) -> Direction:
    """A Gaussian direction, filter-normalised; drawn on the CPU, so that it is the same on every device."""
    drawn = [torch.randn(weight.shape, generator=generator).to(weight) for weight in weights]
    return normalised(drawn, weights)


def normalised(direction: Direction, weights: list[Tensor]) -> Direction:
    """Each filter of the direction with the norm of that filter of the weights; a filter of zeros stays zero."""
    scaled = []
    for step, weight in zip(direction, weights, strict=True):
        dims = tuple(range(1, weight.ndim))
        length = torch.linalg.vector_norm(step, dim=dims, keepdim=True)
        target = torch.linalg.vector_norm(weight, dim=dims, keepdim=True)
        scaled.append(step * torch.where(length > 0, target / length, 0.0))
    return scaled


def _filters(model: nn.Module) -> list[Tensor]:
    """The weights that move, without gradients: of convolutions and linear layers that are trained, no other."""
    return [weight.detach() for weight in model.parameters() if weight.ndim > 1 and weight.requires_grad]


def _walker(model: nn.Module, loss: Loss) -> Callable[..., float]:
    """A function of pairs (step, direction): the loss of a copy of the model at the weights plus their products."""
    origin, moved = _filters(model), copy.deepcopy(model).eval()

    @torch.no_grad()
    def loss_at(*steps: tuple[float, Direction]) -> float:
        torch._foreach_copy_(_filters(moved), origin)
        for step, direction in steps:
            torch._foreach_add_(_filters(moved), direction, alpha=step)
        return float(sum(loss(moved)))

    return loss_at


def _loss_and_gradient(model: nn.Module, loss: Loss) -> tuple[float, Direction]:
    still = copy.deepcopy(model).eval()
    weights = [weight for weight in still.parameters() if weight.ndim > 1 and weight.requires_grad]
    total, slopes = 0.0, [torch.zeros_like(weight) for weight in weights]
    with torch.enable_grad():
        for part in loss(still):
            torch._foreach_add_(slopes, torch.autograd.grad(part, weights, allow_unused=True, materialize_grads=True))
            total = total + part.detach()
    return float(total), slopes
