"""Do the intervals hold the truth as often as they say? A simulation on the group sizes of real test lists.

Every video has a rate of its own, drawn from a beta distribution around that of its group, so that its frames err
together; for the AUC a video shifts all of its scores. The intervals are those of `uncertainty`, at the seam where it
takes the tables of clusters, and beside them Wilson's, which takes images for independent.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import betaincinv, ndtri

from fairdf_utils.fairness.auc import clustered_auc
from fairdf_utils.fairness.metrics import metrics_of, rate_interval
from fairdf_utils.fairness.permutation import chance_against_rest, floor_of_cells
from fairdf_utils.fairness.resampling import MINIMUM, Clustered, Settings
from fairdf_utils.fairness.uncertainty import (
    difference_of,
    gaps_of,
    interval_of_a_gap,
    interval_of_a_rate,
    interval_of_an_auc,
)
from fairdf_utils.files import write_text
from fairdf_utils.progress import bar

LISTS = {"Celeb-DF": (31, 24, 2, 132, 3), "FF++": (13, 88, 7, 12, 23, 109, 6, 9)}  # real videos of each group
FRAMES = (10, 30)  # of a video
CORRELATIONS = ("0.3", "0.6", "0.2 to 0.8", "small 0.8, large 0.2")  # of errors inside a video
RATES = {"0.02": [0.02], "0.1": [0.1], "0.5": [0.5], "different": [0.05, 0.3, 0.15, 0.1, 0.4]}  # of the groups in turn
OTHER = {"0.02": 0.3, "0.1": 0.1, "0.5": 0.2, "different": 0.2}  # of a second detector, alike in all groups
SIZES = {"1-3": 3, "4-9": 9, "10-35": 35, "36 and more": np.inf}  # classes of groups by videos -> the most
COLUMNS = ["list", "frames", "correlation", "rate"]


def correlations(kind: str, videos: np.ndarray) -> np.ndarray:
    """Of each group, by its number of videos: (G,)."""
    if kind == "0.2 to 0.8":
        return np.linspace(0.2, 0.8, len(videos))
    return np.where(videos < MINIMUM, 0.8, 0.2) if kind.startswith("small") else np.full(len(videos), float(kind))


def simulated(rng, videos, frames: int, correlation: np.ndarray, rates: list[np.ndarray]) -> list[Clustered]:
    """Real videos as detectors with these `rates` (G,) call them; half of the videos are as hard for all of them."""
    group = np.repeat(np.arange(len(videos)), videos)
    sizes = rng.integers(round(0.8 * frames), frames + 1, len(group))  # some frames show no face
    luck, sides = rng.random(len(group)), []
    for rate in rates:
        own = np.where(rng.random(len(group)) < 0.5, luck, rng.random(len(group)))
        strength = (1 / correlation - 1)[group]
        fake = rng.binomial(sizes, betaincinv(rate[group] * strength, (1 - rate[group]) * strength, own))
        cells = np.zeros((len(group), len(videos), 2, 2))
        cells[np.arange(len(group)), group, 0] = np.stack([sizes - fake, fake], axis=-1)
        sides.append(Clustered(None, None, cells, None))
    return sides


def of_rates(rng, videos, frames, correlation, rates, settings) -> Iterator[tuple]:
    """One simulated test set: (method, metric, class of sizes, whether the truth is held, width) of each interval.

    Last, where all groups are alike, whether their tests say so.
    """
    sides = simulated(rng, videos, frames, correlation, rates)
    cells, rate = sides[0].cells, rates[0]
    share = cells[:, :, 0].sum((0, 2)) / cells.sum()
    parts = [("fpr", size, rate[code], cells[:, code, 0]) for code, size in enumerate(_classes(videos))]
    for metric, size, truth, part in [*parts, ("overall fpr", "all", share @ rate, cells[:, :, 0].sum(1))]:
        found = interval_of_a_rate(part[:, 1], part.sum(1), settings.level)
        yield "videos", metric, size, *_held(truth, found["low"], found["high"])
        naive = rate_interval(part[:, 1].sum(), part.sum(), settings.level)
        yield "independent images", metric, size, *_held(truth, *naive)
    one, two = (_true(share, each) for each in rates)
    for size, some in (("all", videos > 0), (f"from {MINIMUM}", videos >= MINIMUM)):
        values, deviations = gaps_of(Clustered(None, None, cells[:, some], None), settings)
        band = interval_of_a_gap(values, deviations, pd.Series(0.0, values.columns), settings.level)
        truth = _true(share[some], rate[some])
        for metric in ("fpr_gap", "fpr_sum"):
            yield "videos", metric, size, *_held(truth[metric], *band.loc[metric, ["low", "high"]])
    found = difference_of(sides, (settings, settings), auc=False)
    for metric in ("fpr", "fpr_gap", "fpr_sum"):
        truth = one[metric] - two[metric]
        yield "videos", f"{metric} of two", "all", *_held(truth, *found.loc[metric, ["low", "high"]])
    if np.ptp(rate) == 0:
        for size, p in zip(_classes(videos), chance_against_rest(cells, settings)["fpr"], strict=True):
            if not np.isnan(p):  # too few videos to be judged
                yield "videos", "test against the rest", size, p >= 1 - settings.level, np.nan
        p = floor_of_cells(cells[:, videos >= MINIMUM], settings).loc["fpr_gap", "p_value"]
        yield "videos", "test of the gap", f"from {MINIMUM}", p >= 1 - settings.level, np.nan


def _classes(videos):
    return np.array(list(SIZES))[np.searchsorted(list(SIZES.values()), videos)]


def _held(truth, low, high):
    return low <= truth <= high, high - low


def _true(share, rate):
    """The metrics of groups with these shares of the real images and these rates, (G,) each, and their overall FPR."""
    table = np.zeros((len(rate), 2, 2))
    table[:, 0] = np.stack([share * (1 - rate), share * rate], axis=-1)
    return metrics_of(table, None, "corrected")[0] | {"fpr": share @ rate / share.sum()}


def of_aucs(rng, videos, frames, correlation, auc, settings) -> Iterator[tuple]:
    """As `of_rates`, for the AUC of each group, of as many videos of each class."""
    group = np.tile(np.repeat(np.arange(len(videos)), videos), 2)
    label = np.repeat([0, 1], len(group) // 2)
    unit = np.repeat(np.arange(len(group)), frames)
    alike = np.sqrt(correlation)[group]
    score = np.sqrt(2) * ndtri(auc)[group] * label + alike * rng.standard_normal(len(group))
    score = score[unit] + np.sqrt(1 - alike**2)[unit] * rng.standard_normal(len(unit))
    for method, clusters in (("videos", unit), ("independent images", np.arange(len(unit)))):
        known = clustered_auc(group[unit], len(videos), label[unit], score, clusters, clusters.max() + 1)
        for size, *ends in zip(_classes(videos), auc, *interval_of_an_auc(known, settings.level), strict=True):
            yield method, "auc", size, *_held(*ends)


def study(sets: int = 40, seed: int = 0, kinds: tuple = (LISTS, FRAMES, CORRELATIONS, RATES)) -> pd.DataFrame:
    """Coverage of all intervals, from `sets` test sets of every combination of the `kinds`.

    COLUMNS, then method, metric, size (class of the group, by videos), sets, coverage with its standard error, width
    (mean); fractions.
    """
    rows = []
    for each in bar(list(product(*kinds)), desc="coverage", unit="kinds"):
        rng = np.random.default_rng([seed, *"".join(map(str, each)).encode()])  # of this kind, whatever the others
        videos, frames = np.array(LISTS[each[0]]), each[1]
        correlation, rate = correlations(each[2], videos), np.resize(RATES[each[3]], len(videos))
        rates, found = [rate, np.full(len(videos), OTHER[each[3]])], defaultdict(list)
        for place in range(sets):
            settings, here = Settings(resamples=400, permutations=50, seed=place), defaultdict(list)
            intervals = chain(of_rates(rng, videos, frames, correlation, rates, settings),
                              of_aucs(rng, videos, frames, correlation, 1 - rate, settings))  # fmt: skip
            for *name, held, width in intervals:
                here[tuple(name)].append((held, width))
            for name, values in here.items():
                found[name].append(np.mean(values, axis=0))
        for name, values in found.items():
            (held, width), spread = np.mean(values, axis=0), np.std([value[0] for value in values])
            rows.append([*each, *name, sets, held, spread / np.sqrt(sets), width])
    return pd.DataFrame(rows, columns=[*COLUMNS, "method", "metric", "size", "sets", "coverage", "error", "width"])


def main_coverage(options) -> None:
    """The study at full size, written as one table."""
    table = study(options.sets, options.seed)
    write_text(Path(options.out), table.to_csv(index=False, lineterminator="\n", float_format="%.4f"))
    ours = table[table["method"] == "videos"]
    print(ours.groupby(["metric", "size"], sort=False)["coverage"].agg(["mean", "min"]).round(3).to_string())
    print(f"The table is in {options.out}")
