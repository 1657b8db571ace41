"""Score tables for tests: labels, groups, videos and scores drawn at random."""

import numpy as np
import pandas as pd

from fairdf_utils.data.vocabulary import GROUPS


def score_table(group, label, score, video=None):
    """A score table with the columns that the metrics read."""
    group, label, score = np.asarray(group), np.asarray(label), np.asarray(score, np.float64)
    with np.errstate(divide="ignore"):
        logit = np.log(score) - np.log1p(-score)
    paths = [f"{i}.png" for i in range(len(label))]
    table = pd.DataFrame({"img_path": paths, "video": paths if video is None else video, "label": label})
    table["group"] = group
    table["gender"] = table["group"].str.split("-").str[0]
    table["race"] = table["group"].str.split("-").str[1]
    return table.assign(dataset="ffpp", logit_real=0.0, logit_fake=logit, score=score)


def random_table(seed, n=400, groups=GROUPS, ties=True, videos=None):
    rng = np.random.default_rng(seed)
    label = rng.integers(2, size=n)
    score = 1 / (1 + np.exp(-rng.normal(label * 1.5 - 0.7, 1)))
    score = score.round(2) if ties else score
    return score_table(
        rng.choice(groups, n), label, score, None if videos is None else [f"v{v}" for v in rng.integers(videos, size=n)]
    )


def video_table(seed=0, per_cell=4, frames=5):
    """per_cell videos of each group and label; a video has one group and one label."""
    rng = np.random.default_rng(seed)
    cells = [(g, y, f"{g}/{y}/{v}") for g in GROUPS for y in (0, 1) for v in range(per_cell) for _ in range(frames)]
    group, label, video = zip(*cells, strict=True)
    score = 1 / (1 + np.exp(-rng.normal(np.array(label) * 1.5 - 0.7, 1)))
    return score_table(group, label, score, video)


def planted_table(videos, raised=(), seed=0, frames=3, shift=1.2):
    """Scores of a detector: `videos` {"male-white": (real, fake)}; reals of the groups in `raised` score higher."""
    rng, parts = np.random.default_rng(seed), []
    for group, counts in videos.items():
        for label, count in enumerate(counts):
            centre = rng.normal(1.2 if label else -1.2 + shift * (group in raised), 0.9, (count, 1))
            score = 1 / (1 + np.exp(-centre - rng.normal(0, 0.4, (count, frames))))
            names = [f"{group}/{label}/{video}" for video in range(count)]
            part = {"video": np.repeat(names, frames), "label": label, "group": group, "score": score.ravel().round(4)}
            parts.append(pd.DataFrame(part))
    table = pd.concat(parts, ignore_index=True)
    table[["gender", "race"]] = table["group"].str.split("-", expand=True)
    return table
