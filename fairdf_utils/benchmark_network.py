"""The network's part of the benchmark: training steps and scoring, each against its straightforward form."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from fairdf_utils import losses, straightforward
from fairdf_utils.data import Batch, to_device
from fairdf_utils.evaluation import scoring_copy
from fairdf_utils.layers import HeadOutput
from fairdf_utils.manifests import GROUPS, METHODS
from fairdf_utils.methods import TrainingConfig, build, objective
from fairdf_utils.model import FairDetector
from fairdf_utils.timing import compare, gate, interleave
from fairdf_utils.training import build_optimizer, training_step

COUNTS = torch.tensor([2475, 25443, 1468, 4163, 8013, 31281, 1111, 2185])  # images a group of FF++ (Lin et al. 2024)
SEED = 0


@dataclass(frozen=True)
class Sizes:
    """What is measured: network, images a call, repetitions."""

    backbone: str = "legacy_xception"
    image_size: int = 256
    width: int = 512
    pairs: int = 4  # of a training step on a CPU
    gpu_pairs: int = 16
    scored: int = 32  # images scored at once
    files: int = 256  # images on disk
    epoch_steps: int = 3  # of the epoch whose waiting is measured
    scores: int = 25_000
    videos: int = 1_000
    resamples: int = 1_000
    looped: int = 5  # resamples that the loop really does; its time is scaled up
    rounds: int = 5


QUICK = Sizes(
    backbone="tiny",
    image_size=32,
    width=16,
    pairs=2,
    gpu_pairs=2,
    scored=8,
    files=16,
    epoch_steps=1,
    scores=800,
    videos=80,
    resamples=20,
    looped=2,
    rounds=1,
)


# Training


def configure(sizes: Sizes, precision: str = "float32") -> TrainingConfig:
    """The paper's training at these sizes, from random weights."""
    return TrainingConfig(
        weights="",
        backbone=sizes.backbone,
        image_size=sizes.image_size,
        width=sizes.width,
        reconstruction_size=sizes.image_size,
        precision=precision,
    )


def draw_batch(pairs: int, size: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Batch:
    """Random images with random annotations, fakes first."""
    random = torch.Generator().manual_seed(SEED)
    pixels = torch.randint(256, (2 * pairs, size, size, 3), dtype=torch.uint8, generator=random).numpy()
    label = torch.arange(2 * pairs) < pairs
    method = torch.randint(1, len(METHODS), (2 * pairs,), generator=random) * label
    group = torch.randint(len(GROUPS), (2 * pairs,), generator=random)
    annotations = {"label": label.long().to(device), "method": method.to(device), "group": group.to(device)}
    return Batch(to_device(pixels, device).to(dtype), rows=np.arange(2 * pairs), **annotations)


def contiguous(batch: Batch) -> Batch:
    """The batch with images in torch's default layout."""
    return replace(batch, images=batch.images.contiguous())


class Ours:
    """The package's training step, as `training.Training` takes it."""

    def __init__(self, model: FairDetector, config: TrainingConfig, device: torch.device):
        self.model = copy.deepcopy(model).to(device, memory_format=torch.channels_last)
        self.config, self.device, self.counts = config, device, COUNTS.to(device)
        self.optimizer, _ = build_optimizer(config, self.model, 1)

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One update; returns the weighted terms before it."""
        triplets = losses.draw_triplets(batch.label, batch.method, torch.Generator().manual_seed(SEED))
        return training_step(self.model, self.optimizer, lambda: self.terms(batch, triplets), SEED)

    def terms(self, batch: Batch, triplets: losses.Triplets) -> dict[str, torch.Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            return objective(self.config, self.model, batch, triplets, self.counts)


class Baseline:
    """The straightforward training step."""

    def __init__(self, model: FairDetector, config: TrainingConfig, device: torch.device):
        self.model = copy.deepcopy(model).to(device)
        self.margins = losses.ldam_margins(COUNTS).to(device)  # constants of a training set
        sgd = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
        self.optimizer = straightforward.SAM(self.model.parameters(), config.rho, **sgd)

    def step(self, batch: Batch) -> torch.Tensor:
        """One update; returns the loss before it."""
        return straightforward.training_step(self.model, self.optimizer, batch, self.margins, SEED)


def training_rows(sizes: Sizes, device: torch.device) -> list[dict]:
    """One SAM step in float32 and bfloat16, and the share of losses and updates in it."""
    pairs = sizes.gpu_pairs if device.type == "cuda" else sizes.pairs
    config, batch = configure(sizes), draw_batch(pairs, sizes.image_size, device)
    model = build(config)
    same = f"{first_loss_gate(model, config, batch, device)}; {gradient_gate()}"
    sides = {
        "baseline": Baseline(model, config, device),
        "float32": Ours(model, config, device),
        "bfloat16": Ours(model, configure(sizes, "bfloat16"), device),
    }
    inputs = {"baseline": contiguous(batch), "float32": batch, "bfloat16": batch}
    steps = {name: lambda name=name: sides[name].step(inputs[name]) for name in sides}
    seconds = interleave(steps, sizes.rounds, device)
    target = {"float32": 1.3, "bfloat16": 2.3} if device.type == "cpu" else {"bfloat16": 4.0}
    what = f"SAM step, {pairs} + {pairs} images, {device.type}"
    rows = [
        compare(
            f"{what}, {precision}",
            seconds["baseline"],
            seconds[precision],
            target.get(precision, np.nan),
            same if precision == "float32" else "",
            peak_note(steps, precision, device),
        )
        for precision in ("float32", "bfloat16")
    ]
    return rows + share_rows(what, sides, contiguous(batch), batch, seconds, sizes.rounds, device)


def peak_note(steps: dict[str, Callable], precision: str, device: torch.device) -> str:
    """Peak GPU memory beyond what the models hold, of the baseline's step and of ours."""
    if device.type != "cuda":
        return ""
    peaks = []
    for name in ("baseline", precision):
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        steps[name]()
        peaks.append((torch.cuda.max_memory_allocated(device) - held) / 2**30)
    return f"peak {peaks[0]:.1f} -> {peaks[1]:.1f} GiB"


def without_dropout(model: FairDetector) -> FairDetector:
    """A copy. Masks are drawn otherwise where maps are batched otherwise; without them both sides are one function."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return model


def losses_of_both(
    model: FairDetector, config: TrainingConfig, batch: Batch, device: torch.device
) -> Iterator[tuple[FairDetector, torch.Tensor]]:
    """Baseline's model and loss, then ours, from the same weights; the backward pass is the caller's."""
    model = without_dropout(model)
    baseline, ours = Baseline(model, config, device), Ours(model, config, device)
    triplets = losses.draw_triplets(batch.label, batch.method, torch.Generator().manual_seed(SEED))
    outputs = straightforward.forward(baseline.model, batch.images.contiguous())
    yield baseline.model, straightforward.loss(outputs, batch, triplets, baseline.margins)
    yield ours.model, torch.stack(list(ours.terms(batch, triplets).values())).sum()


def first_loss_gate(model: FairDetector, config: TrainingConfig, batch: Batch, device: torch.device) -> str:
    """The relative difference of the first losses."""
    with torch.no_grad():
        baseline, ours = (value.item() for _, value in losses_of_both(model, config, batch, device))
    return gate("first loss", abs(ours / baseline - 1), 1e-6)


def gradient_gate() -> str:
    """The relative difference of the gradients in the part that differs most: a small model in float64, on the CPU."""
    small = replace(configure(QUICK), width=64)  # narrower decoders start with dead ReLUs
    cpu, model = torch.device("cpu"), build(small).double()
    batch, sides = draw_batch(8, small.image_size, cpu, torch.float64), []
    for side, value in losses_of_both(model, small, batch, cpu):
        value.backward()
        parts = side.named_children()
        sides.append({name: torch.cat([p.grad.reshape(-1) for p in part.parameters()]) for name, part in parts})
    differences = [(sides[0][name] - sides[1][name]).norm() / sides[0][name].norm() for name in sides[0]]
    return gate("float64 gradients", torch.stack(differences).max().item(), 1e-10)


def share_rows(
    what: str, sides: dict, plain: Batch, batch: Batch, steps: dict, rounds: int, device: torch.device
) -> list[dict]:
    """What CVaR, all losses and the SAM updates take of a step in float32; losses in both passes, with gradients."""
    baseline, ours = sides["baseline"], sides["float32"]
    triplets = losses.draw_triplets(batch.label, batch.method, torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        outputs = straightforward.forward(baseline.model, plain.images)
    errors = torch.rand(len(batch.label), device=device)
    weights = losses.WEIGHTS

    def our_loss(leaf):
        annotations = batch.images, batch.label, batch.method, batch.group
        terms = losses.fairdf_terms(leaf, *annotations, triplets, ours.counts)
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()

    pairs = {
        "CVaR": (
            lambda: twice(straightforward.group_cvar, errors, plain.group),
            lambda: twice(losses.group_cvar, errors, batch.group),
        ),
        "all losses": (
            lambda: twice(straightforward.loss, outputs, plain, triplets, baseline.margins),
            lambda: twice(our_loss, outputs),
        ),
        "SAM updates": (lambda: update(baseline.optimizer), lambda: update(ours.optimizer)),
    }
    rows = []
    for part, (theirs, own) in pairs.items():
        seconds = interleave({"baseline": theirs, "ours": own}, 4 * rounds, device)
        shares = [np.median(seconds[a]) / np.median(steps[b]) for a, b in (("baseline",) * 2, ("ours", "float32"))]
        note = f"{shares[0]:.2%} -> {shares[1]:.2%} of a step"
        rows.append(compare(f"{part} of a {what}", seconds["baseline"], seconds["ours"], note=note))
    return rows


def twice(loss: Callable, given, *others) -> None:
    """A loss and its gradient with respect to the first argument, once for each pass of SAM."""
    for _ in range(2):
        loss(as_leaves(given), *others).backward()


def as_leaves(given):
    """A tensor, or the outputs of a model, cut off from what computed it."""
    if given is None:
        return None
    if isinstance(given, torch.Tensor):
        return given.detach().requires_grad_()
    if isinstance(given, HeadOutput):
        return HeadOutput(*map(as_leaves, given))
    return replace(given, **{name: as_leaves(value) for name, value in vars(given).items()})


def update(optimizer) -> None:
    """Both steps of SAM, with the gradients of the last training step."""
    optimizer.first_step()
    optimizer.second_step()


# Scoring


def scoring_rows(sizes: Sizes, device: torch.device) -> list[dict]:
    """Logits of one batch, both fidelities, float32 and bfloat16."""
    images = draw_batch(sizes.scored // 2, sizes.image_size, device).images
    plain, rows = images.contiguous(), []
    for fidelity in ("official", "corrected"):
        model = build(replace(configure(sizes), fidelity=fidelity)).to(device)
        with torch.no_grad():
            model(images[: 2 * sizes.pairs])  # batch-norm statistics of some images, not those of none
        model.eval()
        variants = {"baseline": lambda model=model: straightforward.detect(model, plain)}
        for precision in ("float32", "bfloat16"):
            fast = scoring_copy(model, sizes.image_size, precision)
            given = images.to(next(fast.parameters()).dtype)
            variants[precision] = lambda fast=fast, given=given: fast.detect(given).float()
        with torch.inference_mode():
            seconds = interleave(variants, sizes.rounds, device)
            logits = {name: variant() for name, variant in variants.items()}
        targets = {"official": (6, 11), "corrected": (3, 5.5)}[fidelity] if device.type == "cpu" else (np.nan,) * 2
        for precision, target, limit in zip(("float32", "bfloat16"), targets, (1e-4, 5e-2), strict=True):
            difference = (logits[precision] - logits["baseline"]).abs().max() / logits["baseline"].abs().max()
            what = f"scoring {sizes.scored} images, {fidelity}, {device.type}, {precision}"
            equal = gate("logits, of the largest,", difference.item(), limit)
            rows.append(compare(what, seconds["baseline"], seconds[precision], target, equal))
    return rows
