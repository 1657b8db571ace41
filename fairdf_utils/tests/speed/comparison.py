"""How fast the program's hot paths are against what its libraries offer for the same: `python -m fairdf_utils speed`.

Every row is a ratio of two things timed side by side (above 1: ours is faster), and says how equal their results are.
The other side is written as one would write it with the library alone: torch in its default layout, a `DataLoader`
that opens image files, scikit-learn in a loop over groups and resamples, fairlearn's own bootstrap. Nothing is
downloaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fairlearn.metrics import MetricFrame, false_positive_rate, true_positive_rate
from PIL import Image
from sklearn.metrics import confusion_matrix, roc_auc_score

from fairdf_utils import progress
from fairdf_utils.data.batches import Batch, batches, decode, to_device
from fairdf_utils.data.vocabulary import FORGERIES, GROUPS
from fairdf_utils.evaluation.scoring import scoring_copy
from fairdf_utils.fairness.metrics import fairness_metrics
from fairdf_utils.fairness.resampling import Settings, auc_of, clustered
from fairdf_utils.fairness.uncertainty import group_intervals, metric_intervals
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.model.detectors import build
from fairdf_utils.model.losses import draw_triplets
from fairdf_utils.model.stored import choose_precision
from fairdf_utils.tests.speed.timing import COLUMNS, interleave, machine, row
from fairdf_utils.training.loop import build_optimizer, objective, training_step


@dataclass(frozen=True)
class Sizes:
    """What is measured: the network, images per call, repetitions."""

    backbone: str = "legacy_xception"
    image_size: int = 256
    width: int = 512
    pairs: int = 4  # of a training step
    scored: int = 32  # images scored at once
    files: int = 256  # images on disk
    scores: int = 25_000
    videos: int = 1_000
    resamples: int = 1_000
    looped: int = 5  # resamples that the loop really does; its time is scaled up
    rounds: int = 5


QUICK = Sizes("tiny", 32, 16, pairs=2, scored=8, files=16, scores=800, videos=80, resamples=20, looped=2, rounds=1)


def compare(quick: bool = False) -> pd.DataFrame:
    """Measure everything: minutes on a CPU (`quick`: seconds, at sizes whose ratios mean nothing).

    Returns
    -------
    DataFrame
        One row per comparison: what; library_s, ours_s (median seconds); ratio of the medians; ratio_p10, ratio_p90 of
        the ratios of single rounds; equal: the difference of the two results, and whether it is within its limit.
        `attrs["machine"]` describes the machine.
    """
    sizes, device = QUICK if quick else Sizes(), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parts = (training_rows, scoring_rows, loader_rows, metric_rows)
    rows = [row for part in progress.bar(parts, desc="speed", unit="part") for row in part(sizes, device)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table.attrs["machine"] = machine()
    return table


# --- training and scoring --------------------------------------------------------------------------------


def configure(sizes: Sizes, **changes) -> TrainingConfig:
    """The paper's training at these sizes, from random weights."""
    config = TrainingConfig(
        backbone=sizes.backbone, weights="", image_size=sizes.image_size, width=sizes.width,
        reconstruction_size=sizes.image_size,
    )  # fmt: skip
    return replace(config, **changes)


def draw_batch(pairs: int, size: int, device: torch.device) -> Batch:
    """Random images with random annotations, fakes first."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (2 * pairs, size, size, 3), dtype=torch.uint8, generator=random).numpy()
    label = (torch.arange(2 * pairs) < pairs).long()
    forgery = torch.randint(1, len(FORGERIES), (2 * pairs,), generator=random) * label
    group = torch.randint(len(GROUPS), (2 * pairs,), generator=random)
    annotations = {"label": label.to(device), "forgery": forgery.to(device), "group": group.to(device)}
    return Batch(to_device(pixels, device), rows=np.arange(2 * pairs), **annotations)


def one_step(config: TrainingConfig, batch: Batch, memory_format: torch.memory_format) -> Callable[[], float]:
    """A function that takes the next SAM step and returns the loss before it."""
    device = batch.images.device
    model = build(config).to(device, memory_format=memory_format)
    optimizer, _ = build_optimizer(config, model, 1)
    batch = replace(batch, images=batch.images.contiguous(memory_format=memory_format))
    counts = torch.bincount(batch.group, minlength=len(GROUPS)).clamp(min=1)
    triplets = draw_triplets(batch.label, batch.forgery, torch.Generator().manual_seed(0))

    def terms() -> dict[str, torch.Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            return objective(config, model, batch, triplets, counts)

    return lambda: torch.stack(list(training_step(model, optimizer, terms, 0).values())).sum().item()


def training_rows(sizes: Sizes, device: torch.device) -> Iterator[dict]:
    """One SAM step, channels_last, against torch's default layout in float32: plain, with less memory, in bfloat16.

    bfloat16 only where the device has instructions for it: emulated, a step can take minutes.
    """
    batch = draw_batch(sizes.pairs, sizes.image_size, device)
    forms = {"float32": ({}, 1e-5), "checkpoint_activations": ({"checkpoint_activations": True}, 1e-5)}
    if choose_precision("auto", device) == "bfloat16":
        forms["bfloat16"] = {"precision": "bfloat16"}, 5e-2
    variants = {"library": one_step(configure(sizes), batch, torch.contiguous_format)}
    for name, (options, _) in forms.items():
        variants[name] = one_step(configure(sizes, **options), batch, torch.channels_last)
    first = {name: step() for name, step in variants.items()}
    seconds = interleave(variants, sizes.rounds)
    for name, (_, limit) in forms.items():
        what = f"SAM step, {sizes.pairs} + {sizes.pairs} images, {name}, against float32 in torch's layout"
        yield row(what, seconds["library"], seconds[name], abs(first[name] / first["library"] - 1), limit)


def scoring_rows(sizes: Sizes, device: torch.device) -> Iterator[dict]:
    """Logits of one batch: only what the answer needs, folded, against the whole forward pass in evaluation mode."""
    images = draw_batch(sizes.scored // 2, sizes.image_size, device).images
    plain = images.contiguous()
    for fidelity in ("official", "corrected"):
        model = build(configure(sizes, fidelity=fidelity)).to(device)
        with torch.no_grad():
            model(plain[: 2 * sizes.pairs])  # batch-norm statistics of some images, not those of none
        model.eval()
        fast = scoring_copy(model)
        variants = {
            "library": lambda model=model: model(plain).fused.logits,
            "ours": lambda fast=fast: fast.detect(images),
        }
        with torch.inference_mode():
            seconds = interleave(variants, sizes.rounds)
            theirs, ours = (variant() for variant in variants.values())
        difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
        what = f"scoring {sizes.scored} images, {fidelity}, against the whole forward pass"
        yield row(what, seconds["library"], seconds["ours"], difference, 1e-4)


# --- loading ---------------------------------------------------------------------------------------------


class ImageFiles(torch.utils.data.Dataset):
    """Image files opened each time they are asked for: float32 (3, H, H) in [-1, 1]."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            pixels = np.asarray(image.convert("RGB"))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1


def loader_rows(sizes: Sizes, device: torch.device) -> Iterator[dict]:
    """An epoch of batches from the decoded memory map against a `DataLoader` that opens the files again."""
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        frame = pd.DataFrame({"img_path": [f"{n:04}.png" for n in range(sizes.files)]}).assign(source="made")
        frame["label"] = (np.arange(sizes.files) < sizes.files // 2).astype(int)
        frame["forgery"], frame["group"] = np.where(frame["label"] == 1, "Deepfakes", "real"), GROUPS[0]
        paths = [Path(folder, name) for name in frame["img_path"]]
        for path in paths:
            shape = (sizes.image_size // 8, sizes.image_size // 8, 3)
            noise = Image.fromarray(random.integers(256, size=shape, dtype=np.uint8))
            noise.resize((sizes.image_size, sizes.image_size), Image.Resampling.BILINEAR).save(path)
        images = decode(frame, Path(folder), sizes.image_size, folder)
        pairs = np.arange(sizes.files).reshape(2, -1).T  # the fakes are first
        drawn = [rows.T.reshape(-1).tolist() for rows in np.split(pairs, range(sizes.pairs, len(pairs), sizes.pairs))]
        files = torch.utils.data.DataLoader(ImageFiles(paths), batch_sampler=drawn)
        variants = {
            "library": lambda: [batch.to(device) for batch in files],
            "ours": lambda: [batch.images for batch in batches(frame, images, pairs, sizes.pairs, device)],
        }
        both = zip(*(variant() for variant in variants.values()), strict=True)
        difference = max((theirs - ours).abs().max().item() for theirs, ours in both)
        seconds = interleave(variants, sizes.rounds)
        what = f"loading {sizes.files} images of {sizes.image_size} px, against a DataLoader on PNG files"
        yield row(what, seconds["library"], seconds["ours"], difference, 1e-6)


# --- metrics and resampling ------------------------------------------------------------------------------


def draw_scores(images: int, videos: int) -> pd.DataFrame:
    """A score table: every video of one label and one of the eight groups, scores somewhat better for some."""
    random, video = np.random.default_rng(0), np.arange(images) % videos
    group, label = video % len(GROUPS), video // len(GROUPS) % 2
    logit = random.normal(2.0 * label - 1 + 0.1 * group, 1.5)
    columns = {"dataset": "made", "img_path": [f"{row}.png" for row in range(images)]}
    columns |= {"video": [f"video{number}" for number in video], "label": label, "group": np.array(GROUPS)[group]}
    return pd.DataFrame({**columns, "score": 1 / (1 + np.exp(-logit))})


def library_metrics(table: pd.DataFrame) -> dict[str, float]:
    """F_FPR, F_OAE and the gap of the AUC with scikit-learn, group by group."""
    overall = confusion_matrix(table["label"], table["score"] >= 0.5, labels=[0, 1], normalize="true")[0, 1]
    fpr, acc, auc = [], [], []
    for _, part in table.groupby("group"):
        matrix = confusion_matrix(part["label"], part["score"] >= 0.5, labels=[0, 1])
        fpr.append(matrix[0, 1] / matrix[0].sum())
        acc.append(np.trace(matrix) / matrix.sum())
        auc.append(roc_auc_score(part["label"], part["score"]))
    return {"fpr_sum": np.abs(np.array(fpr) - overall).sum(), "oae": np.ptp(acc), "auc_gap": np.ptp(auc)}


def metric_rows(sizes: Sizes, _: torch.device) -> Iterator[dict]:
    """Group metrics, and how sure they are, against scikit-learn in loops and fairlearn's bootstrap of images."""
    table = draw_scores(sizes.scores, sizes.videos)
    theirs, ours = library_metrics(table), fairness_metrics(table, "group")
    difference = max(abs(theirs[name] - ours[name]) for name in theirs)
    variants = {"library": lambda: library_metrics(table), "ours": lambda: fairness_metrics(table, "group")}
    seconds, what = (
        interleave(variants, sizes.rounds),
        f"group metrics of {sizes.scores:,} scores, against scikit-learn for each group",
    )
    yield row(what, seconds["library"], seconds["ours"], difference, 1e-9)

    rows_of, videos = (
        table.groupby("video").indices,
        table.drop_duplicates("video").groupby(["group", "label"])["video"],
    )

    def loop() -> None:
        for seed in range(sizes.looped):
            drawn = videos.sample(frac=1, replace=True, random_state=seed)
            library_metrics(table.iloc[np.concatenate([rows_of[video] for video in drawn])])

    settings = Settings(resamples=sizes.resamples)
    seconds = interleave({"library": loop, "ours": lambda: metric_intervals(table, "group", settings)}, sizes.rounds)
    scaled = seconds["library"] * sizes.resamples / sizes.looped
    what = f"intervals and tests of all metrics, {sizes.videos:,} videos, against {sizes.resamples:,} loops over them"
    estimate = metric_intervals(table, "group", settings)["estimate"]
    yield row(what, scaled, seconds["ours"], max(abs(theirs[name] - estimate[name]) for name in theirs), 1e-9)

    single = replace(settings, cluster="img_path")
    given = {"y_true": table["label"], "y_pred": table["score"] >= 0.5, "sensitive_features": table["group"]}
    rates = {"fpr": false_positive_rate, "tpr": true_positive_rate}
    variants = {
        "library": lambda: MetricFrame(metrics=rates, **given, n_boot=sizes.looped, ci_quantiles=[0.025, 0.975]),
        "ours": lambda: group_intervals(table, "group", single, auc=False),
    }
    theirs, ours = variants["library"]().by_group, variants["ours"]()
    difference = max((theirs[name] - ours[name]).abs().max() for name in rates)
    seconds = interleave(variants, sizes.rounds)
    what = f"intervals of FPR and TPR, {sizes.scores:,} images, against fairlearn with n_boot={sizes.resamples}"
    yield row(what, seconds["library"] * sizes.resamples / sizes.looped, seconds["ours"], difference, 1e-9)

    rows = table.groupby("group")[["label", "score"]]
    parts = {name: rows.get_group(name).to_numpy() for name in GROUPS}

    def left_out() -> list[float]:
        return [roc_auc_score(*np.delete(parts[name], row, 0).T) for name in GROUPS for row in range(sizes.looped)]

    known = auc_of(clustered(table, "group", single))
    seconds = interleave({"library": left_out, "ours": lambda: auc_of(clustered(table, "group", single))}, sizes.rounds)
    whole = [roc_auc_score(*part.T) for part in parts.values()]
    what = f"variance of the AUC of each group, {sizes.scores:,} images, against a jackknife of scikit-learn's"
    factor = sizes.scores / (len(parts) * sizes.looped)
    yield row(what, seconds["library"] * factor, seconds["ours"], np.abs(known.estimate - whole).max(), 1e-9)
