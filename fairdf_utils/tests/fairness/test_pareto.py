"""The accuracy-fairness front against a loop and by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdf_utils.fairness.pareto import undominated

NAMES = ["plain", "fairer", "worse", "best AUC", "unknown"]
RUNS = pd.DataFrame({"auc": [0.90, 0.88, 0.87, 0.95, 0.99], "fpr_sum": [0.30, 0.10, 0.20, 0.50, np.nan]}, index=NAMES)


def test_front_by_hand():
    assert undominated(RUNS)[lambda on: on].index.tolist() == ["plain", "fairer", "best AUC"]
    assert undominated(RUNS, lower=()).loc["unknown"]  # alone on the AUC it is the best
    assert undominated(pd.concat([RUNS, RUNS.loc[["plain"]]])).loc["plain"].all()  # equal runs do not beat each other
    with pytest.raises(ValueError, match="no column meo; they have: auc, fpr_sum"):
        undominated(RUNS, lower=("meo",))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=20))
def test_front_equals_a_loop(rows):
    runs = pd.DataFrame(rows, columns=["auc", "acc", "meo"])
    ours = undominated(runs, ("auc", "acc"), ("meo",))
    goods = [(auc, acc, -meo) for auc, acc, meo in rows]
    for own, on_front in zip(goods, ours, strict=True):
        beaten = any(all(a >= b for a, b in zip(other, own, strict=True)) and other != own for other in goods)
        assert on_front != beaten
    assert ours.any()
