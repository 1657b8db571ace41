"""How much faster the package is than the same method written straightforwardly, on this machine.

Every row of the table is a ratio of two things timed side by side: their calls are interleaved in rotated order, so
that whatever else the machine does falls on both. Gates say that both compute the same. See `straightforward` for the
other side. Nothing is downloaded: images and scores are made here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fairdf_utils import fairness, progress, resampling, straightforward, synthetic
from fairdf_utils.benchmark_network import QUICK, SEED, Ours, Sizes, configure, draw_batch, scoring_rows, training_rows
from fairdf_utils.data import Batch, batches, decode
from fairdf_utils.files import replacing
from fairdf_utils.manifests import GROUPS, read_split
from fairdf_utils.methods import build
from fairdf_utils.timing import COLUMNS, compare, gate, interleave, machine, wait


def main(quick: bool = False, out: str | Path | None = None) -> int:
    """Measure, print the table under a line about the machine, and write it to `out` (CSV) if that is given."""
    table = run_benchmark(quick)
    print(table.attrs["machine"])
    print(table.to_string(index=False, float_format="{:.4g}".format, na_rep=""))
    if out:
        with replacing(out) as partial:
            partial.write_text(f"# {table.attrs['machine']}\n{table.to_csv(index=False)}", encoding="utf-8")
    return 0


def run_benchmark(quick: bool = False) -> pd.DataFrame:
    """Measure everything; minutes on a CPU (`quick`: seconds, at sizes whose ratios mean nothing).

    Returns
    -------
    DataFrame
        One row a comparison. what; baseline_s, ours_s: medians, seconds; ratio: of the medians, above 1 = ours is
        faster; ratio_p10, ratio_p90: of the ratios of single rounds; target: the ratio aimed at, NaN = none; gate:
        how equal the two results are; note. `attrs["machine"]` describes the machine.
    """
    sizes = QUICK if quick else Sizes()
    devices = [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available()
    measurements = [
        *(lambda d=d, f=f: f(sizes, d) for d in devices for f in (training_rows, scoring_rows)),
        lambda: loader_rows(sizes, devices[-1]),
        lambda: metric_rows(sizes),
    ]
    rows = [row for measure in progress.bar(measurements, desc="benchmark", unit="part") for row in measure()]
    table = pd.DataFrame(rows, columns=COLUMNS)
    table.attrs["machine"] = machine()
    return table


# Loading


def write_images(folder: Path, sizes: Sizes) -> pd.DataFrame:
    """A manifest of rendered faces, each stored as PNG and as JPEG: `img_path` names the PNG."""
    manifest = read_split(synthetic.MANIFESTS / "ffpp", "train")
    halves = [manifest[manifest["label"] == label].iloc[: sizes.files // 2] for label in (1, 0)]
    frame = pd.concat(halves, ignore_index=True)
    pixels = synthetic.render_rows(frame, max(64, sizes.image_size))
    for row, image in enumerate(pixels):
        for kind, options in (("png", {}), ("jpg", {"quality": 90})):
            Image.fromarray(image).save(folder / f"{row:04}.{kind}", **options)
    return frame.assign(img_path=[f"{row:04}.png" for row in range(len(frame))])


def loader_rows(sizes: Sizes, device: torch.device) -> list[dict]:
    """An epoch of batches from the decoded memory map against opening every image again."""
    with tempfile.TemporaryDirectory() as folder:
        frame = write_images(Path(folder), sizes)
        pngs = [Path(folder, name) for name in frame["img_path"]]
        pairs = np.arange(len(frame)).reshape(2, -1).T  # the fakes are first
        mapped = MemoryMap(frame, decode(frame, Path(folder), sizes.image_size, folder), pairs, sizes.pairs, device)
        loaders = {
            "PIL, PNG": read_files(pngs, sizes, pairs),
            "DataLoader, 2 workers, PNG": read_files(pngs, sizes, pairs, 2),
            "DataLoader, 2 workers, JPEG": read_files([png.with_suffix(".jpg") for png in pngs], sizes, pairs, 2),
        }
        both = zip(loaders["PIL, PNG"], mapped, strict=True)
        difference = max((theirs - ours.images.cpu()).abs().max().item() for theirs, ours in both)
        variants = {name: lambda loader=loader: exhaust(loader, device) for name, loader in loaders.items()}
        variants |= {"batches": lambda: exhaust(mapped, device), "bytes": lambda: read_bytes(mapped)}
        seconds = interleave(variants, sizes.rounds, device)

        def row(name: str, ours: str, what: str, target=np.nan, equal="") -> dict:
            before, after = (len(frame) / np.median(seconds[side]) for side in (name, ours))
            note = f"{before:,.0f} -> {after:,.0f} images/s"
            return compare(f"{what}, {name}", seconds[name], seconds[ours], target, equal, note)

        return [
            row("PIL, PNG", "bytes", "loading up to the device", 100),  # which normalises
            row("PIL, PNG", "batches", "loading", equal=gate("pixels", difference, 1e-6)),
            *(row(name, "batches", "loading") for name in list(loaders)[1:]),
            idle_row(sizes, loaders["PIL, PNG"], mapped, device),
        ]


@dataclass(frozen=True)
class MemoryMap:
    """The package's batches, as often as one likes."""

    frame: pd.DataFrame
    images: np.ndarray
    pairs: np.ndarray
    batch_size: int
    device: torch.device

    def __iter__(self) -> Iterator[Batch]:
        return batches(self.frame, self.images, self.pairs, self.batch_size, self.device)


def read_bytes(mapped: MemoryMap) -> None:
    """What a training's host does for an epoch of batches: the device normalises the bytes."""
    for start in range(0, len(mapped.pairs), mapped.batch_size):
        torch.from_numpy(mapped.images[mapped.pairs[start : start + mapped.batch_size].T.reshape(-1)])


def read_files(paths: list[Path], sizes: Sizes, pairs: np.ndarray, workers: int = 0) -> torch.utils.data.DataLoader:
    """The same batches from image files: float32 (2B, 3, H, H), fakes first."""
    full = len(pairs) // sizes.pairs * sizes.pairs
    drawn = [pairs[start : start + sizes.pairs].T.reshape(-1).tolist() for start in range(0, full, sizes.pairs)]
    return torch.utils.data.DataLoader(
        straightforward.ImageFiles(paths, sizes.image_size),
        batch_sampler=drawn,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def exhaust(loader: Iterable, device: torch.device) -> None:
    """Take every batch to the device."""
    for batch in loader:
        (batch.images if isinstance(batch, Batch) else batch).to(device)


def idle_row(sizes: Sizes, files: Iterable, mapped: Iterable, device: torch.device) -> dict:
    """How long a training epoch in bfloat16 waits for its batches (on a GPU, that works meanwhile, at most)."""
    config = configure(sizes, "bfloat16")
    ours = Ours(build(config), config, device)
    example = draw_batch(sizes.pairs, sizes.image_size, device)
    ours.step(example)
    waiting, shares = {}, {}
    for name, loader in (("baseline", files), ("ours", mapped)):
        waited, started, drawn = [], time.perf_counter(), iter(loader)
        for _ in range(sizes.epoch_steps):
            asked = time.perf_counter()
            batch = next(drawn)
            batch = batch if isinstance(batch, Batch) else replace(example, images=batch.to(device))
            waited.append(time.perf_counter() - asked)
            ours.step(batch)
        wait(device)
        waiting[name], shares[name] = np.array(waited), sum(waited) / (time.perf_counter() - started)
    note = f"{shares['baseline']:.2%} -> {shares['ours']:.3%} of the epoch, {device.type}"
    return compare("waiting for a batch in training", waiting["baseline"], waiting["ours"], note=note)


# Fairness


def draw_scores(images: int, videos: int) -> pd.DataFrame:
    """A score table: every video of one label and one of the eight groups, scores somewhat better for some."""
    random, video = np.random.default_rng(SEED), np.arange(images) % videos
    group, label = video % len(GROUPS), video // len(GROUPS) % 2
    logit = random.normal(2.0 * label - 1 + 0.1 * group, 1.5)
    columns = {"dataset": "made", "img_path": [f"{row}.png" for row in range(images)]}
    columns |= {"video": [f"video{number}" for number in video], "label": label, "group": np.array(GROUPS)[group]}
    return pd.DataFrame({**columns, "score": 1 / (1 + np.exp(-logit))})


def metric_rows(sizes: Sizes) -> list[dict]:
    """Group metrics and cluster bootstrap, with and without AUC."""
    table = draw_scores(sizes.scores, sizes.videos)
    what = f"group metrics, {len(table):,} scores"
    ours, theirs = fairness.fairness_metrics(table, "group"), straightforward.fairness_metrics(table)
    alike = gate("metrics", max(abs(theirs[name] - ours[name]) for name in theirs), 1e-9)
    scored = checked(table)

    def row(title: str, baseline: Callable, ours: Callable, target: float, equal: str, scale=1.0, note="") -> dict:
        seconds = interleave({"baseline": baseline, "ours": ours}, 2 * sizes.rounds)
        return compare(title, scale * seconds["baseline"], seconds["ours"], target, equal, note)

    def loop(auc: bool) -> dict:
        return straightforward.fairness_metrics(table, auc)

    rows = [
        row(f"{what}, with AUC", lambda: loop(True), lambda: fairness.fairness_metrics(table, "group"), 20, alike),
        row(f"{what}, without AUC", lambda: loop(False), lambda: rates(checked(table)), np.nan, alike),
        row(f"{what}, without AUC", lambda: loop(False), lambda: rates(scored), 300, alike,
            note="ours from a table already checked"),
    ]  # fmt: skip

    unit, strata = videos_of(table, scored)
    draws = next(resampling._cluster_weights(strata, [sizes.looped], SEED)).T.astype(int)  # as `bootstrap` draws them
    looped = straightforward.bootstrap(table, unit, draws)
    intervals = resampling.bootstrap(table, resamples=sizes.looped, seed=SEED).loc[looped.columns]
    difference = looped.quantile([0.025, 0.975]).T.to_numpy() - intervals[["low", "high"]].to_numpy()
    alike = gate("intervals", np.abs(difference).max(), 1e-9)
    scale, note = sizes.resamples / sizes.looped, f"the loop did {sizes.looped} and is scaled up"
    what = f"{sizes.resamples:,} resamples of {sizes.videos:,} videos"
    return rows + [
        row(f"{what}, with AUC", lambda: straightforward.bootstrap(table, unit, draws),
            lambda: resampling.bootstrap(table, resamples=sizes.resamples), 200, alike, scale, note),
        row(f"{what}, without AUC", lambda: straightforward.bootstrap(table, unit, draws, auc=False),
            lambda: resampled_rates(table, sizes.resamples), 3000, alike, scale, note),
    ]  # fmt: skip


def checked(table: pd.DataFrame) -> fairness.Scored:
    return fairness.as_arrays(table, "group", 0.5, "corrected")


def rates(scored: fairness.Scored) -> dict[str, np.ndarray]:
    """The group metrics that need no AUC."""
    counts = fairness.contingency(scored, np.zeros(len(scored.label), np.int64), 1)[0]
    return fairness.metrics_of(counts, np.full(len(scored.names), np.nan), "corrected")[0]


def videos_of(table: pd.DataFrame, scored: fairness.Scored) -> tuple[np.ndarray, np.ndarray]:
    """The video of each image (n,), and of each video (C,) the stratum: its group and label."""
    unit = fairness.cluster_codes(table, "video")
    strata = np.zeros(unit.max() + 1, np.int64)
    strata[unit] = 2 * scored.group + scored.label
    return unit, strata


def resampled_rates(table: pd.DataFrame, resamples: int) -> dict[str, np.ndarray]:
    """The group metrics that need no AUC, of resamples of the videos: (resamples,) each."""
    scored = checked(table)
    unit, strata = videos_of(table, scored)
    cells = fairness.contingency(scored, unit, len(strata)).reshape(len(strata), -1)  # (C, G * 4)
    weights = next(resampling._cluster_weights(strata, [resamples], SEED))  # (C, resamples)
    counts = (weights.T @ cells).reshape(-1, len(scored.names), 2, 2)
    return fairness.metrics_of(counts, np.full(len(scored.names), np.nan), "corrected")[0]
