"""Where the manifests of the embedded benchmark come from: `data_manifests/synthetic`, written with seed 0."""

from pathlib import Path

import numpy as np
import pandas as pd

from fairdf_utils.data.manifests import write_manifest
from fairdf_utils.data.vocabulary import COLUMNS, GROUPS
from fairdf_utils.rendered.images import DOMAINS, FFPP_PRIOR
from fairdf_utils.rendered.people import named_generator

FRAMES = (0, 30, 60, 90)  # of a video for validation or testing
TRAIN_FRAMES = (0, 60)  # fewer, so that small groups show more persons
TRAIN_VIDEOS = 1124  # real ones, and as many fakes
VAL_VIDEOS = 12  # real ones per group, and as many fakes
TEST_VIDEOS = 25  # real ones per group, and as many fakes
_KINDS = (("fake", 1), ("real", 0))


def write_manifests(folder: Path, seed: int = 0) -> Path:
    """Write the benchmark's manifests into ``folder``; the same seed gives the same bytes.

    FF++ gets ``ffpp/{faketrain,realtrain,fakeval,realval,test}.csv``, the other data sets ``test.csv``. The seed draws
    who is swapped with whom.
    """
    prior = {g: round(TRAIN_VIDEOS * n / sum(FFPP_PRIOR)) for g, n in zip(GROUPS, FFPP_PRIOR, strict=True)}
    for dataset, domain in DOMAINS.items():
        rng = named_generator(seed, "manifests", dataset)
        first = 0
        for split in ("train", "val", "test") if dataset == "ffpp" else ("test",):
            even = dict.fromkeys(domain.groups, VAL_VIDEOS if split == "val" else TEST_VIDEOS)
            videos, frames = (prior, TRAIN_FRAMES) if split == "train" else (even, FRAMES)
            rows = _split_rows(dataset, domain, videos, frames, first, rng)
            first += sum(videos.values())
            parts = {"test": rows} if split == "test" else {f"{k}{split}": rows[rows["label"] == n] for k, n in _KINDS}
            for name, part in parts.items():
                write_manifest(part, folder / dataset / f"{name}.csv")
    return folder


def _split_rows(dataset, domain, videos, frames, first, rng):
    """Canonical rows of one split: every identity has a real video and a fake one, whose source is another identity
    of the same group; forgeries take turns. ``videos`` maps group to number of identities, ``first`` numbers them."""
    rows = []
    for group, count in videos.items():
        numbers = list(range(first, first + count))
        first += count
        order = rng.permutation(count)
        source = {numbers[a]: numbers[b] for a, b in zip(order, np.roll(order, 1), strict=True)}
        turn = int(rng.integers(len(domain.forgeries)))
        for position, number in enumerate(numbers):
            forgery = domain.forgeries[(position + turn) % len(domain.forgeries)]
            rows += _video_rows(dataset, "real", group, number, None, frames)
            rows += _video_rows(dataset, forgery, group, number, source[number], frames)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _video_rows(dataset, forgery, group, number, source, frames):
    gender, race = group.split("-")
    name = f"{number:04d}" if source is None else f"{number:04d}_{source:04d}"
    video = f"{dataset}/{forgery}/{name}"
    identity = f"{dataset}-{number:04d}"
    source_identity = "" if source is None else f"{dataset}-{source:04d}"
    label = int(source is not None)
    return [
        (f"{video}_{frame:03d}.jpg", label, forgery, gender, race, group, video, identity, source_identity, frame)
        for frame in frames
    ]
