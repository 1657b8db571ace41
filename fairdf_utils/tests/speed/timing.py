"""Timing two ways side by side: interleaved calls, ratios of medians with their spread."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

COLUMNS = ("what", "library_s", "ours_s", "ratio", "ratio_p10", "ratio_p90", "equal")


def machine() -> str:
    """One line: processor, cores, threads, torch, GPU."""
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.+)", cpuinfo.read_text() if cpuinfo.exists() else "")
    processor = named[1] if named else platform.processor() or platform.machine()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = torch.get_num_threads()
    return f"{processor}, {os.cpu_count()} cores, {threads} threads, torch {torch.__version__}, {gpu}"


def interleave(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of every call, (rounds,) for each variant, after one call of each to warm up.

    Within a round every variant runs once; the next round starts with the next one, so that whatever else the machine
    does falls on all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(-1, rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            _wait()
            started = time.perf_counter()
            variants[name]()
            _wait()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: np.array(each) for name, each in seconds.items()}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def row(what: str, library: np.ndarray, ours: np.ndarray, difference: float, limit: float) -> dict:
    """A row of the table from the seconds of both sides, (rounds,) each, and how far their results lie apart."""
    low, high = np.quantile(library / ours, [0.1, 0.9])
    middle = np.median(library), np.median(ours)
    equal = f"{difference:.0e} {'within' if difference <= limit else 'BEYOND'} {limit:.0e}"
    return dict(zip(COLUMNS, [what, *middle, middle[0] / middle[1], low, high, equal], strict=True))
