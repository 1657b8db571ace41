"""The accuracy-fairness front: the runs than which no other is better in everything."""

import numpy as np
import pandas as pd


def undominated(
    results: pd.DataFrame, higher: tuple[str, ...] = ("auc",), lower: tuple[str, ...] = ("fpr_sum",)
) -> pd.Series:
    """Which runs (rows) no other run beats: at least as good in every column, and better in one. Series of bool.

    `higher` and `lower` name the columns in which higher, or lower, is better. False where a value is NaN; equal runs
    are both True. Estimates only: where intervals overlap, a run off the front may well belong on it.
    """
    missing = [name for name in (*higher, *lower) if name not in results.columns]
    if missing:
        raise ValueError(f"The results have no column {', '.join(missing)}; they have: {', '.join(results.columns)}.")
    signs = np.array([1] * len(higher) + [-1] * len(lower))
    goods = results[[*higher, *lower]].to_numpy(np.float64) * signs  # (runs, columns), higher is better
    as_good = (goods[:, None] >= goods).all(-1)  # [i, j]: run i is at least as good as j in everything
    beaten = (as_good & (goods[:, None] > goods).any(-1)).any(0)
    return pd.Series(~beaten & ~np.isnan(goods).any(-1), results.index, name="undominated")
