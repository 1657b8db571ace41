"""Tables of whole clusters (videos, identities), and the AUCs of all their resamples at once.

Frames of one video are near copies, so whole clusters are drawn. One matrix product of how often each cluster is
drawn with the clusters' influence gives the AUCs of all resamples, of which `uncertainty` makes intervals.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd

from fairdf_utils.data.vocabulary import FIDELITIES
from fairdf_utils.fairness.auc import ClusteredAuc, clustered_auc
from fairdf_utils.fairness.metrics import Scored, as_arrays, checked_level, cluster_codes, contingency
from fairdf_utils.fairness.score_table import ScoreTableError, column
from fairdf_utils.progress import bar

MINIMUM = 10  # clusters of a class: fewer tell neither how alike their images are nor the interval of an AUC
CLUSTERS = ("video", "identity", "img_path")
CACHED = 64_000  # float64 numbers that stay in a core's cache: drawing is then twice as fast


@dataclass(frozen=True)
class Settings:
    """How a score table is judged: the same for every interval, p-value and sentence. ValueError if impossible."""

    threshold: float = 0.5  # an image is called fake when its score reaches it, 0..1
    resamples: int = 1000  # rates that may be true, or test sets, drawn for an interval
    permutations: int = 1000  # deals of the groups
    level: float = 0.95  # coverage that the intervals aim at; p-values are compared with 1 - level
    cluster: str = "video"  # what is drawn as a whole: video, identity, or img_path (images taken for independent)
    seed: int = 0  # of resamples, permutations and flips
    fidelity: str = "corrected"  # or "official", see `metrics`
    label_noise: float = 0.05  # share of group labels that may be wrong, 0..1

    def __post_init__(self):
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it is compared with P(fake), so it lies in 0..1.")
        if not 0 <= self.label_noise <= 1:
            raise ValueError(f"label_noise is {self.label_noise}; the share of wrong group labels lies in 0..1.")
        checked_level(self.level)
        for name, allowed in (("cluster", CLUSTERS), ("fidelity", FIDELITIES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(allowed)}.")
        for name, least in (("resamples", 1), ("permutations", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; give a whole number, at least {least}.")


@dataclass(frozen=True)
class Clustered:
    """A checked score table in C clusters, which are numbered stratum by stratum."""

    scored: Scored
    unit: np.ndarray  # int64 (n,), cluster of each image
    cells: np.ndarray  # float64 (C, G, 2, 2): counts[cluster, group, label, predicted]
    members: np.ndarray  # int64 (S,), clusters in each stratum, none of them empty


def clustered(table: pd.DataFrame, by: str | None, settings: Settings) -> Clustered:
    """Check a score table and sort its clusters into strata: the group and label of most of their images."""
    scored = as_arrays(table, by, settings.threshold, settings.fidelity)
    unit = cluster_codes(table, settings.cluster)
    cells = contingency(scored, unit, unit.max() + 1)
    strata = cells.sum(-1).reshape(len(cells), -1).argmax(-1)
    order = np.argsort(strata, kind="stable")
    members = np.bincount(strata)
    return Clustered(scored, np.argsort(order)[unit], cells[order], members[members > 0])


def aligned(table_a: pd.DataFrame, table_b: pd.DataFrame, shared: list[str]) -> pd.DataFrame:
    """The rows of B in the order of A, matched by data set and path; ScoreTableError unless they agree in `shared`."""
    keys = ["dataset", "img_path"] if "dataset" in table_a.columns else ["img_path"]
    a, b = (pd.MultiIndex.from_arrays([column(table, key) for key in keys]) for table in (table_a, table_b))
    for name, index in (("first", a), ("second", b)):
        if index.has_duplicates:
            row = index.duplicated().argmax()
            where = f"{index[row][-1]} twice (row {row}, counted from 0)"
            raise ScoreTableError(f"The {name} table lists {where}: keep one row.")
    only = a.symmetric_difference(b)
    if len(only):
        text = f"{only[0][-1]} is in one only. Score one test set with both detectors."
        raise ScoreTableError(f"The two tables do not hold the same images: {text}")
    table_b = table_b.iloc[b.get_indexer(a)]
    for name in shared:
        differs = column(table_a, name).to_numpy() != column(table_b, name).to_numpy()
        if differs.any():
            path, *values = a[differs][0][-1], *(table[name].iloc[differs.argmax()] for table in (table_a, table_b))
            text = "differs between the two tables ({}, {}): score both from one manifest.".format(*values)
            raise ScoreTableError(f"Column '{name}' of {path} {text}")
    return table_b


def large_enough(table: pd.DataFrame, by: str, labels: Sequence[int], cluster: str) -> tuple[pd.DataFrame, list]:
    """The rows that a gap is made of, and the groups left out: those with fewer than MINIMUM clusters of a class."""
    counts = table.groupby([by, "label"])[cluster].nunique().unstack().reindex(columns=labels).fillna(0)
    enough = (counts >= MINIMUM).all(axis=1)
    return table[table[by].isin(enough.index[enough]) & table["label"].isin(labels)], list(enough.index[~enough])


def chunks(count: int, width: int, budget: int = 1_000_000) -> list[int]:
    """Sizes that add up to `count`, each so small that (size, width) float64 stays near `budget` numbers."""
    size = max(1, min(count, budget // width))
    return [size] * (count // size) + ([count % size] if count % size else [])


def drawn_weights(members: np.ndarray, sizes: Iterable[int], seed: int) -> Iterator[np.ndarray]:
    """How often each cluster is drawn: one float64 (clusters, b) for each b of `sizes`, which do not change the draws.

    `members` (S,) are the clusters of each stratum, in order; in every column each stratum keeps its number.
    """
    rng, clusters = np.random.default_rng(seed), members.sum()
    span = np.repeat(members, members).astype(np.float64)
    first = np.repeat(np.cumsum(members) - members, members)
    for size in sizes:
        place = (rng.random((size, clusters)) * span).astype(np.int64)  # inside the stratum
        place *= size
        place += first * size + np.arange(size)[:, None]  # of (cluster, column)
        yield np.bincount(place.ravel(), minlength=clusters * size).reshape(clusters, size).astype(np.float64)


def told(sizes: list[int], what: str) -> Iterator[int]:
    """The sizes, with a bar or lines in a log where that takes long."""
    with bar(total=sum(sizes), desc=what, unit="tables", leave=False) as shown:
        for size in sizes:
            yield size
            shown.update(size)


def auc_of(data: Clustered, together: bool = False) -> ClusteredAuc:
    """The AUC of each group, or of all images together, with what is known of it."""
    scored = data.scored
    group, groups = (np.zeros_like(scored.group), 1) if together else (scored.group, len(scored.names))
    return clustered_auc(group, groups, scored.label, scored.score, data.unit, len(data.cells))


def resampled_aucs(data: Clustered, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """AUCs of the data (row 0) and of its B resamples, from the influence of the clusters that were drawn.

    Those of the groups, float64 (1 + B, G), and of all images together, (1 + B,).

    Source: Field and Welsh 2007 (cluster bootstrap).
    """
    known = [auc_of(data), auc_of(data, together=True)]
    influence = np.concatenate([one.influence for one in known], axis=1)  # (C, G + 1)
    sizes = chunks(settings.resamples, len(influence), CACHED if len(influence) < CACHED / 8 else len(influence))
    weights = drawn_weights(data.members, told(sizes, "resampling"), settings.seed)
    moved = np.concatenate([one.T @ influence for one in chain([np.ones((len(influence), 1))], weights)])
    aucs = np.concatenate([one.estimate for one in known]) + moved
    return aucs[:, :-1], aucs[:, -1]
