"""Two steps of a training, a scored batch and a few frames, timed in a process of its own that can be ended."""

import multiprocessing
import re
import signal
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.workers import end_with_parent

PATIENCE = 6.0  # seconds that a step may take; where the whole batch would take longer, fewer pairs are timed
FRAMES = 3  # read of a video


def measure(calls: Sequence[tuple[Callable[..., Iterator[dict]], tuple]], limit: float) -> list[dict]:
    """Make each call (a function of this module, its arguments) in turn, in another process; what each said last.

    Every call yields better and better measurements. Those that have yielded none within `limit` seconds of all calls
    are empty; an error is told under "error".
    """
    found: list[dict] = [{} for _ in calls]
    if not calls:
        return found
    context, deadline = multiprocessing.get_context("spawn"), time.monotonic() + limit
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, calls), daemon=True)
    process.start()
    sender.close()  # so that the receiver sees the end
    try:
        with suppress(EOFError):
            while receiver.poll(max(0.0, deadline - time.monotonic())):
                number, result = receiver.recv()
                found[number] = result
    finally:
        process.kill()
        process.join()
    return found


def _work(sender: Connection, calls: Sequence[tuple[Callable, tuple]]) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    tqdm.set_lock(threading.RLock())  # its own is one of several processes, which a killed one would leave behind
    warnings.simplefilter("ignore")  # training says them
    for number, (function, arguments) in enumerate(calls):
        try:
            for result in function(*arguments):
                sender.send((number, result))
        except Exception as error:  # of torch, its devices, or a video: the bill has no number then, and says why
            sender.send((number, {"error": f"{type(error).__name__}: {error}".splitlines()[0]}))


def training(config: TrainingConfig, device: str, threads: int) -> Iterator[dict]:
    """Time steps on random images, then scoring.

    Yields
    ------
    dict
        `step` (seconds of one with the whole batch), `pairs` (that were timed), `on` (device and precision), `memory`
        (bytes at the peak: of the GPU, or of this process), `stored` (bytes of the checkpoints) and, last, `image`
        (seconds to score one).
    """
    import torch

    from fairdf_utils.evaluation.scoring import logits_of, scoring_copy
    from fairdf_utils.model.detectors import build
    from fairdf_utils.model.stored import choose_device, choose_precision
    from fairdf_utils.training.loop import build_optimizer

    target = choose_device(device, threads)
    config = replace(config, weights="", precision=choose_precision(config.precision, target))
    model = build(config).to(target, memory_format=torch.channels_last).train()
    optimizer, _ = build_optimizer(config, model, 1)
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    moments = 2 if config.optimizer == "adamw" else 1
    stored = weights * (1 + 2 * (1 + moments))  # best, and last and previous with their optimizer
    result = {"stored": stored, "on": f"{target.type} {config.precision}"}
    pairs, size = 1 if target.type == "cpu" else config.batch_size, 0
    while pairs > size:
        size, count = pairs, 1
        for _ in range(2):  # the first step allocates
            base, started = _peak(target, anew=True), time.perf_counter()
            for _ in range(count):
                _step(config, model, optimizer, target, size)
            took = (time.perf_counter() - started) / count
            count = max(1, min(10, int(1 / took)))
            result["step"] = took * config.batch_size / size
            result["memory"] = base + (_peak(target) - base) * config.batch_size // size
            yield result | {"pairs": size}
            if took > 2 * PATIENCE:
                break
        pairs = min(config.batch_size, int(PATIENCE * config.batch_size / result["step"]))
    result["pairs"] = size
    detector, count = scoring_copy(model, config.precision), 2
    for _ in range(3):
        images = np.random.default_rng(0).integers(256, size=(count, *2 * (config.image_size,), 3), dtype=np.uint8)
        started = time.perf_counter()
        logits_of(detector, images, target)
        yield result | {"image": (seconds := time.perf_counter() - started) / count}
        if seconds > PATIENCE / 4:
            break
        count = max(2, min(256, int(PATIENCE / 4 * count / seconds)))


def _step(config, model, optimizer, target, pairs: int) -> None:
    import torch

    from fairdf_utils.data.batches import Batch
    from fairdf_utils.data.vocabulary import FORGERIES, GROUPS
    from fairdf_utils.training.loop import batch_step

    draw = torch.Generator().manual_seed(0)
    images = torch.rand(2 * pairs, 3, config.image_size, config.image_size, generator=draw).to(target) * 2 - 1
    label = torch.arange(2 * pairs) < pairs
    forgery = torch.randint(1, len(FORGERIES), (2 * pairs,), generator=draw) * label
    group = torch.randint(len(GROUPS), (2 * pairs,), generator=draw)
    codes = [code.long().to(target) for code in (label, forgery, group)]
    batch = Batch(images, *codes, rows=np.arange(2 * pairs))
    batch_step(config, model, optimizer, batch, 0, torch.ones(len(GROUPS), device=target))
    if target.type == "cuda":
        torch.cuda.synchronize(target)


def _peak(target, anew: bool = False) -> int:
    """Most bytes held: on a GPU by tensors, on a CPU by this process; `anew` forgets what is no longer held."""
    if target.type == "cuda":
        import torch

        if anew:
            torch.cuda.reset_peak_memory_stats(target)
        return torch.cuda.max_memory_allocated(target)
    if anew:
        with suppress(OSError):  # where that is not allowed, the peak is that since the process began
            Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def extraction(root: Path, paths: Sequence[str], recipe: dict) -> Iterator[dict]:
    """Time a few frames of some videos; yields `frame` (seconds of one) and `crop` (bytes of one)."""
    from fairdf_utils.corpora.extraction import write_crops
    from fairdf_utils.corpora.layouts import locate
    from fairdf_utils.corpora.videos import VideoError

    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(paths):  # the first one loads the detector of faces
            (made := Path(folder, str(number))).mkdir()
            counts, started = Counter(), time.perf_counter()
            with suppress(VideoError):  # the ledger will say so
                write_crops(locate(root, path), made, recipe | {"frames": min(FRAMES, recipe["frames"])}, counts)
            if counts["decoded"]:
                crops = [file.stat().st_size for file in Path(folder).rglob("*.*")]
                result = {"frame": (time.perf_counter() - started) / counts["decoded"]}
                yield result | ({"crop": sum(crops) / len(crops)} if crops else {})
            elif number == 0:
                yield {"error": f"no frame of {path} can be read"}
