"""From resampled values to intervals and p-values: percentile, BCa, Holm.

Values are a DataFrame with one column a metric: row 0 is the estimate, the other rows are resamples. Undefined values
(NaN) are left out of every count.
"""

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from fairdf_utils.fairness.metrics import checked_level

INTERVALS = ("percentile", "bca")


def bias_and_acceleration(values, without_one=None, strata=None):
    """The two constants of BCa, float64 (columns,) each: z0 (median bias) and a (acceleration).

    Parameters
    ----------
    values : DataFrame (1 + B rows)
        Estimate and resamples.
    without_one : DataFrame (C rows), or None
        The metrics without each cluster in turn (jackknife); None sets both constants to zero: percentile intervals.
    strata : int (C,)
        Which clusters were drawn among themselves. Each of them is a sample of its own.

    Notes
    -----
    With z0 from resamples of which all, or none, lie below the estimate BCa has no interval. The share is therefore
    kept half a resample away from 0 and 1. A cluster alone in its stratum is never left out by the bootstrap and
    has no influence here either.

    Source: Efron 1987, sections 3 and 6; for several samples Efron and Tibshirani 1993, chapter 14.
    """
    if without_one is None:
        return np.zeros(values.shape[1]), np.zeros(values.shape[1])
    estimate, draws = values.to_numpy()[0], values.to_numpy()[1:]
    z0 = ndtri(_share_below(draws, estimate))
    members = np.bincount(strata)
    influence = pd.DataFrame(without_one.to_numpy())
    influence = (influence.groupby(strata).transform("mean") - influence) * (members[strata] - 1)[:, None]
    influence = influence.to_numpy() / members[strata][:, None]
    influence = np.where((members[strata] == 1)[:, None], 0, influence)
    spread = np.nansum(influence**2, axis=0) ** 1.5
    skew = np.nansum(influence**3, axis=0)
    return z0, np.divide(skew, 6 * spread, out=np.zeros(len(spread)), where=spread > 0)


def _share_below(draws, value):
    """Share of resamples below `value`, ties one half, at least half a resample away from 0 and 1."""
    defined = np.maximum((~np.isnan(draws)).sum(0), 1)
    below = (draws < value).sum(0) + (draws == value).sum(0) / 2
    return np.clip(below, 0.5, defined - 0.5) / defined


def interval(values, level=0.95, without_one=None, strata=None):
    """Estimate and interval of each column: DataFrame with columns estimate, low, high.

    Percentile interval without `without_one`, BCa with it; parameters as in `bias_and_acceleration`. NaN where the
    estimate or all resamples are undefined.
    """
    z0, a = bias_and_acceleration(values, without_one, strata)
    draws, summary = values.to_numpy()[1:], {"estimate": values.to_numpy()[0]}
    draws = np.where(np.isnan(summary["estimate"]), np.nan, draws)
    ordered, last = np.sort(draws, axis=0), (~np.isnan(draws)).sum(0) - 1  # NaN is sorted to the end
    tail = (1 - checked_level(level)) / 2
    for name, share in (("low", tail), ("high", 1 - tail)):
        z = z0 + ndtri(share)
        at = (ndtr(z0 + z / (1 - a * z)) if without_one is not None else share) * np.maximum(last, 0)
        low, column = np.floor(at).astype(int), np.arange(len(z0))
        high = np.minimum(low + 1, np.maximum(last, 0))
        summary[name] = ordered[low, column] + (at - low) * (ordered[high, column] - ordered[low, column])
    return pd.DataFrame(summary, index=values.columns)


def band(values, deviations, level=0.95):
    """Intervals that a metric leaves no more often than 1 - level, however small it is: as `interval`.

    A gap between groups is never negative, and noise only widens it. Where the true gap is of the size of the noise,
    the resamples therefore lie above it, and neither percentiles nor BCa bring it back. But each metric F is a
    seminorm of the group rates r, so F(estimate) is no further from F(truth) than F(estimate - truth), and how large
    that is the bootstrap tells: its `level` quantile is the half width. Wide on purpose.

    Parameters
    ----------
    values : DataFrame (1 + B rows)
        Estimate and resamples.
    deviations : DataFrame (B rows)
        For a metric, its value for the resampled minus the estimated rates; for a rate, the absolute difference.
    level : float
    """
    estimate, reach = values.iloc[0], deviations.quantile(checked_level(level))
    sums = values.columns.isin(["fpr_sum", "eo"])  # of any size; all else is a fraction
    high = (estimate + reach).clip(upper=pd.Series(np.where(sums, np.inf, 1), values.columns))
    return pd.DataFrame({"estimate": estimate, "low": (estimate - reach).clip(lower=0), "high": high})


def p_values(values, without_one=None, strata=None):
    """Two-sided p-value of "the true value is zero" for each column: Series.

    The level at which the interval of the same kind just touches zero, so that p < 1 - level and "the interval
    excludes zero" say the same (up to half a resample). Never below 1 / (B + 1).

    Source: Efron and Tibshirani 1993, section 15.4 (achieved level of a BCa interval).
    """
    z0, a = bias_and_acceleration(values, without_one, strata)
    draws = values.to_numpy()[1:]
    defined = (~np.isnan(draws)).sum(0)
    below = ((draws < 0).sum(0) + (draws == 0).sum(0) / 2 + 0.5) / (defined + 1)
    off = ndtri(below) - z0
    z = off / (1 + a * off) - z0
    p = np.where(defined > 0, np.minimum(1, 2 * ndtr(-np.abs(z))), np.nan)
    p = np.maximum(p, 1 / (defined + 1))
    return pd.Series(np.where(np.isnan(values.to_numpy()[0]), np.nan, p), values.columns, name="p_value")


def holm(p):
    """p-values corrected for their number by Holm's step-down method; NaN stays NaN and is not counted.

    The chance of any false finding among all of them is at most the level at which they are read, however they
    depend on each other. Give all p-values that are read together.

    Parameters
    ----------
    p : Series or sequence of float, 0..1

    Returns
    -------
    The same type (Series, else float64 array): max over the j smallest of (m - j + 1) p_(j), at most 1.

    Source: Holm 1979.
    """
    given = np.asarray(p, dtype=np.float64)
    corrected, defined = np.full(given.shape, np.nan), np.flatnonzero(~np.isnan(given))
    order = defined[np.argsort(given[defined], kind="stable")]
    steps = np.arange(len(order), 0, -1)  # m, m - 1, ..., 1
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps * given[order])) if len(order) else 0
    return pd.Series(corrected, p.index, name=p.name) if isinstance(p, pd.Series) else corrected
