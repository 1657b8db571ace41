"""The speed table compares what is equal; how fast anything is, no test asserts."""

import numpy as np
import pytest
import torch

from fairdf_utils.tests.speed import comparison
from fairdf_utils.tests.speed.comparison import compare
from fairdf_utils.tests.speed.timing import COLUMNS, interleave, row


@pytest.fixture(scope="module")
def table():
    return compare(quick=True)


@pytest.mark.parametrize("chosen", ["float32", "bfloat16"])
def test_bfloat16_is_timed_only_where_the_device_is_fast_at_it(monkeypatch, chosen):
    monkeypatch.setattr(comparison, "choose_precision", lambda asked, device: chosen)
    rows = list(comparison.training_rows(comparison.QUICK, torch.device("cpu")))
    assert any("bfloat16" in row["what"] for row in rows) == (chosen == "bfloat16")


def test_every_hot_path_has_a_row_and_both_sides_agree(table):
    assert list(table.columns) == list(COLUMNS)
    for word in (
        "SAM step",
        "checkpoint_activations",
        "scoring",
        "loading",
        "group metrics",
        "all metrics",
        "fairlearn",
        "jackknife",
    ):
        assert table["what"].str.contains(word).any(), word
    assert table["equal"].str.contains("within").all(), table["equal"].tolist()
    assert (table[["library_s", "ours_s"]] > 0).all(axis=None)


def test_the_table_says_on_what_machine(table):
    assert "cores" in table.attrs["machine"] and "torch" in table.attrs["machine"]


def test_variants_take_turns():
    calls = []
    seconds = interleave({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert {name: len(each) for name, each in seconds.items()} == {"a": 3, "b": 3}
    assert calls[2:] in (list("abbaab"), list("baabba"))  # after one call of each to warm up


def test_a_row_holds_the_ratio_of_medians_and_says_when_results_differ():
    told = row("x", np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 2.0]), 1e-3, 1e-6)
    assert told["ratio"] == 2 and 2 <= told["ratio_p10"] <= told["ratio_p90"] <= 3
    assert "BEYOND" in told["equal"]
