"""Timing two ways side by side: interleaved calls, ratios of medians with their spread."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

COLUMNS = ["what", "baseline_s", "ours_s", "ratio", "ratio_p10", "ratio_p90", "target", "gate", "note"]


def machine() -> str:
    """One line: processor, cores, threads, torch, GPU."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    processor = names[0] if names else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{processor}, {os.cpu_count()} cores, {threads} threads, torch {torch.__version__}, {gpu}"


def interleave(
    variants: dict[str, Callable[[], object]], rounds: int, device: torch.device | None = None
) -> dict[str, np.ndarray]:
    """Seconds of every call, (rounds,) for each variant, after one call of each to warm up.

    Within a round every variant runs once; the next round starts with the next one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(-1, rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            wait(device)
            started = time.perf_counter()
            variants[name]()
            wait(device)
            if turn >= 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: np.array(each) for name, each in seconds.items()}


def wait(device: torch.device | None) -> None:
    """Until the device has done all it was asked to."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(
    what: str, baseline: np.ndarray, ours: np.ndarray, target: float = np.nan, gate: str = "", note: str = ""
) -> dict:
    """A row of the table from the seconds of both sides, (rounds,) each."""
    low, high = np.quantile(baseline / ours, [0.1, 0.9])
    middle = np.median(baseline), np.median(ours)
    return dict(zip(COLUMNS, [what, *middle, middle[0] / middle[1], low, high, target, gate, note], strict=True))


def gate(label: str, difference: float, limit: float) -> str:
    """Whether two results agree, in words."""
    return f"{label} {difference:.1e} ({'within' if difference <= limit else 'BEYOND'} {limit:.0e})"
