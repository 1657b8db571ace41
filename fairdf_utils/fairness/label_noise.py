"""Would a verdict stand if some of the group labels were wrong?

Group labels are impressions of annotators. Here whole clusters (videos, people) change, at the rate of
`Settings.label_noise`, to another group at random. Such flips mix the groups and dilute a gap: a verdict that stands in
all relabellings does not hang on a few labels. Errors that go along with those of the detector are another matter.

Source: Bross 1954 (groups that are misclassified at random differ less).
"""

import numpy as np
import pandas as pd

from fairdf_utils.fairness import permutation
from fairdf_utils.fairness.auc import ratio
from fairdf_utils.fairness.metrics import gap
from fairdf_utils.fairness.resampling import Settings, clustered

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

    Columns sum (of deviations from the rate of all images, as F_FPR), gap, and p_value of the gap as in
    `permutation.sampling_floor`, where all rows share the deals of the labels as given (NaN if not `deals`). NaN
    without images of the class.
    """
    cells = clustered(table, by, settings).cells * (np.arange(2) == label)[:, None]  # (C, G, label, predicted)
    cluster, given = np.nonzero(cells.sum((2, 3)))
    groups, units = cells.shape[1], cells[cluster, given].sum(1)  # (U, predicted)
    rng, shape = np.random.default_rng(settings.seed), (RELABELLINGS, len(units))
    others = (given + rng.integers(1, max(groups, 2), shape)) % groups
    codes = np.vstack([given, np.where(rng.random(shape) < settings.label_noise, others, given)])
    sums = np.zeros((len(codes), groups, 2, 8))
    sums[:, :, label] = permutation.summed(codes, permutation.powers(units), groups)
    rates = ratio(sums[:, :, label, 2], sums[:, :, label, 1])
    off = np.abs(rates - ratio(units[:, 1].sum(), units.sum()))
    result = pd.DataFrame({"sum": np.nansum(off, axis=1), "gap": gap(rates), "p_value": np.nan})
    if deals:
        farthest, dealt = (
            np.nanmax(np.abs(apart[label]), axis=-1)
            for apart in (permutation.studentised(sums), permutation.deals(cells, settings)[1])
        )
        result["p_value"] = permutation.chance(np.vstack([farthest, np.tile(dealt[1:, None], len(farthest))]))
    return result
