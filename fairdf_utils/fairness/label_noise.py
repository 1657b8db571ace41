"""Would a verdict stand if some of the group labels were wrong?

Group labels are impressions of annotators. Here whole clusters (videos, people) change, at the rate of
`Settings.label_noise`, to another group at random. Such flips mix the groups and dilute a gap: a verdict that stands in
all relabellings does not hang on a few labels. Errors that go along with those of the detector are another matter.

Source: Bross 1954 (groups that are misclassified at random differ less).
"""

import numpy as np
import pandas as pd

from fairdf_utils.fairness.auc import ratio
from fairdf_utils.fairness.resampling import Settings, chunks, clustered

RELABELLINGS = 20
ANNOTATIONS = (("gender", "sex"), ("race", "ethnic", "skin"), ("group",))  # how names of columns of one kind begin


def other_labels(table: pd.DataFrame, bys: list[str]) -> dict[str, str]:
    """Columns beside `bys` that annotate the same thing (race_2, skin), each with the first of `bys` that does."""
    kinds = {name: [kind for kind in ANNOTATIONS if str(name).lower().startswith(kind)] for name in table.columns}
    return {
        name: by
        for name, kind in kinds.items()
        for by in [by for by in bys if kind and kinds[by] == kind][:1]
        if name not in bys
    }


def relabelled(table: pd.DataFrame, by: str, label: int, settings: Settings, deals: bool) -> pd.DataFrame:
    """FPR (`label` 0) or TPR (1) of groups whose labels are wrong in part: row 0 as given, then RELABELLINGS rows.

    Columns sum (of deviations from the rate of all images, as F_FPR), gap, and p_value of the gap, from permutations as
    in `permutation.sampling_floor` that all rows share (NaN if not `deals`). NaN without images of the class.
    """
    cells = clustered(table, by, settings).cells[:, :, label]  # (C, G, predicted)
    cluster, given = np.nonzero(cells.sum(-1))
    units, groups = cells[cluster, given].astype(np.float32), cells.shape[1]  # whole numbers, exact
    rng, shape = np.random.default_rng(settings.seed), (RELABELLINGS, len(units))
    others = (given + rng.integers(1, max(groups, 2), shape)) % groups
    codes = np.vstack([given, np.where(rng.random(shape) < settings.label_noise, others, given)])
    members = (codes[:, None] == np.arange(groups)[:, None]).reshape(-1, len(units)).astype(np.float32)
    overall = ratio(*np.cumsum(units.sum(0)[::-1]))

    def judged(units):  # (U, b, 2) -> sum and gap, (labellings, b) each
        totals = (members @ units.reshape(len(units), -1)).reshape(-1, groups, units.shape[1], 2).astype(np.float64)
        rates = ratio(totals[..., 1], totals.sum(-1))
        return np.nansum(np.abs(rates - overall), 1), np.fmax.reduce(rates, 1) - np.fmin.reduce(rates, 1)

    result = pd.DataFrame(np.concatenate(judged(units[:, None]), 1), columns=["sum", "gap"])
    larger, gaps = np.ones(len(result)), result[["gap"]].to_numpy()
    for size in chunks(settings.permutations, 2 * len(units)) if deals else ():
        places = rng.permuted(np.repeat(np.arange(len(units))[:, None], size, axis=1), axis=0)
        larger += (judged(units[places])[1] >= gaps - 1e-12).sum(1)
    return result.assign(p_value=larger / (1 + settings.permutations) if deals else np.nan)
