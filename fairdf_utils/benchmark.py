"""How much faster the package is than the same method written straightforwardly, on this machine.

Every row of the table is a ratio of two things timed side by side: their calls are interleaved in rotated order, so
that whatever else the machine does falls on both. Gates say that both compute the same. See `straightforward` for the
other side. Nothing is downloaded: images and scores are made here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fairdf_utils import progress, straightforward, synthetic
from fairdf_utils.benchmark_faces import face_rows
from fairdf_utils.benchmark_metrics import metric_rows
from fairdf_utils.benchmark_network import QUICK, Ours, Sizes, configure, draw_batch, scoring_rows, training_rows
from fairdf_utils.data import Batch, batches, decode
from fairdf_utils.files import replacing
from fairdf_utils.manifests import read_split
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
        lambda: face_rows(quick),
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
