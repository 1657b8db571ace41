"""What an attribute of a face does to a detector's scores, from counterfactual images.

The same image is scored with and without a change, so what is compared differs in nothing else. Persons are drawn, not
images: the differences of a person's images are averaged first, and Student's t over persons gives the interval.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.stats import t as student

from fairdf_utils.fairness.score_table import ScoreTableError, column

LEVEL = 0.95  # coverage of the intervals


def interval_of_means(values: np.ndarray, less: np.ndarray | None = None) -> dict[str, float]:
    """The mean of values (n,), one a person, or the mean of values minus that of other persons, `less` (m,).

    estimate, low, high, p_value (that it is zero); NaN but for the estimate where a sample has fewer than two persons.
    Where no value differs from another, low and high are the estimate.

    Source: Student 1908; Welch 1947 (two samples).
    """
    samples = [np.asarray(sample, dtype=np.float64) for sample in (values, less) if sample is not None]
    sizes, means = np.array([len(sample) for sample in samples]), [sample.mean() for sample in samples]
    estimate = means[0] - sum(means[1:])
    if sizes.min() < 2:
        return {"estimate": estimate, "low": np.nan, "high": np.nan, "p_value": np.nan}
    parts = np.array([sample.var(ddof=1) / len(sample) for sample in samples])
    error = np.sqrt(parts.sum())
    if error == 0:
        return {"estimate": estimate, "low": estimate, "high": estimate, "p_value": float(estimate == 0)}
    freedom = parts.sum() ** 2 / (parts**2 / (sizes - 1)).sum()
    reach = student.ppf((1 + LEVEL) / 2, freedom) * error
    p_value = 2 * student.sf(abs(estimate) / error, freedom)
    return {"estimate": estimate, "low": estimate - reach, "high": estimate + reach, "p_value": p_value}


def paired_effects(table: pd.DataFrame, of: str = "score") -> pd.DataFrame:
    """The paired difference that each change makes, real and fake images apart, with intervals over persons.

    `table` holds scored rows of `rendered.counterfactual`: pair, identity, label, attribute, value, and `of`, what is
    compared. The difference is that from the first value of the attribute.

    Index (label, attribute, value); columns persons and those of `interval_of_means`. ScoreTableError where a column,
    or an image of a pair, is missing.
    """
    rows = {}
    for name in ("pair", "identity", "label", "attribute", "value", of):
        column(table, name)
    for (label, attribute), part in table.groupby(["label", "attribute"], sort=False):
        first, *others = dict.fromkeys(part["value"])
        wide = part.pivot(index=["identity", "pair"], columns="value", values=of)
        if wide.isna().any(axis=None):
            gap = wide.isna().stack().idxmax()
            raise ScoreTableError(f"{gap[1]} has no row with {attribute} = {gap[2]}: score all images of a pair.")
        for value in others:
            persons = (wide[value] - wide[first]).groupby("identity").mean().to_numpy()
            rows[label, attribute, value] = {"persons": len(persons), **interval_of_means(persons)}
    return pd.DataFrame(rows).T.rename_axis(["label", "attribute", "value"])


def decomposition(table: pd.DataFrame, states: Sequence[str], reference: str) -> pd.DataFrame:
    """Where the gap between each group and the `reference` comes from, when all are made alike step by step.

    `table` has a row for each image of one label, with `group`, `identity`, and the scores in each of `states`: the
    first as drawn, and each next one with one attribute more that is the same for everybody. A step's part of the gap
    is what it takes away from the group less what it takes away from the reference; "rest" is the gap that the last
    state leaves. The parts add up to "gap" exactly, in whatever order; how large each is depends on the order.

    Index (group, part): parts are states[1:], "rest", "gap"; columns those of `interval_of_means`.
    """
    scores = table.groupby(["group", "identity"], sort=False)[list(states)].mean()
    parts = {later: scores[earlier] - scores[later] for earlier, later in pairwise(states)}
    parts |= {"rest": scores[states[-1]], "gap": scores[states[0]]}
    persons = pd.DataFrame(parts)
    rows = {
        (group, part): interval_of_means(own[part], persons.loc[reference, part])
        for group, own in persons.groupby(level="group", sort=False)
        if group != reference
        for part in parts
    }
    return pd.DataFrame(rows).T.rename_axis(["group", "part"])
