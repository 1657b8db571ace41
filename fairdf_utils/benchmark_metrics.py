"""How much faster group metrics and cluster bootstrap are than scikit-learn in loops: rows of the benchmark's table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from fairdf_utils import straightforward
from fairdf_utils.benchmark_network import SEED, Sizes
from fairdf_utils.clusters import clustered, drawn_weights
from fairdf_utils.fairness import Scored, as_arrays, contingency, fairness_metrics, metrics_of
from fairdf_utils.manifests import GROUPS
from fairdf_utils.resampling import bootstrap
from fairdf_utils.timing import compare, gate, interleave


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
    return [*rows_of_metrics(table, sizes), *rows_of_bootstrap(table, sizes)]


def row(
    sizes: Sizes, what: str, sides: tuple[Callable, Callable], target: float, equal: str, scale: float = 1, note=""
) -> dict:
    """A row from a straightforward call and ours; `scale` multiplies the seconds of the first."""
    seconds = interleave(dict(zip(("baseline", "ours"), sides, strict=True)), 2 * sizes.rounds)
    return compare(what, scale * seconds["baseline"], seconds["ours"], target, equal, note)


def rows_of_metrics(table: pd.DataFrame, sizes: Sizes) -> list[dict]:
    """From the frame, which is checked each time, and from arrays that have been checked."""
    ours, theirs = fairness_metrics(table), straightforward.fairness_metrics(table)
    equal = gate("metrics", max(abs(theirs[name] - ours[name]) for name in theirs), 1e-9)
    coded, scored = table.astype({"group": "category"}), as_arrays(table, "group", 0.5, "corrected")

    def measure(what: str, ours: Callable, target: float, auc: bool = False, note: str = "") -> dict:
        sides = (lambda: straightforward.fairness_metrics(table, auc), ours)
        return row(sizes, f"group metrics, {len(table):,} scores, {what}", sides, target, equal, note=note)

    return [
        measure("with AUC", lambda: fairness_metrics(table), 20, auc=True),
        measure("without AUC", lambda: fairness_metrics(table, auc=False), 300, note="ours checks the table each time"),
        measure("without AUC", lambda: fairness_metrics(coded, auc=False), 300, note="ours, groups as a categorical"),
        measure("without AUC", lambda: rates(scored), 300, note="ours from a table already checked"),
    ]


def rates(scored: Scored) -> dict[str, np.ndarray]:
    """The group metrics that need no AUC."""
    return metrics_of(contingency(scored)[0], None, "corrected")[0]


def rows_of_bootstrap(table: pd.DataFrame, sizes: Sizes) -> list[dict]:
    """Intervals of the same metrics from the same draws; the loop does a few of them and is scaled up."""
    data = clustered(table, "group", 0.5, "corrected", "video")
    draws = next(drawn_weights(data.members, [sizes.looped], SEED)).T.astype(int)  # as `bootstrap` draws them
    looped = straightforward.bootstrap(table, data.unit, draws)
    intervals = bootstrap(table, resamples=sizes.looped, seed=SEED).loc[looped.columns]
    difference = looped.quantile([0.025, 0.975]).T.to_numpy() - intervals[["low", "high"]].to_numpy()
    equal = gate("intervals", np.abs(difference).max(), 1e-9)

    def measure(auc: bool, target: float) -> dict:
        sides = (
            lambda: straightforward.bootstrap(table, data.unit, draws, auc),
            lambda: bootstrap(table, resamples=sizes.resamples, auc=auc),
        )
        what = f"{sizes.resamples:,} resamples of {sizes.videos:,} videos, with{'' if auc else 'out'} AUC"
        note = f"the loop did {sizes.looped} and is scaled up"
        return row(sizes, what, sides, target, equal, sizes.resamples / sizes.looped, note)

    return [measure(True, 200), measure(False, 3000)]
