"""The benchmark runs, its two sides compute the same, and its gates notice when they do not. No time is asserted."""

import random

import numpy as np
import pandas as pd
import pytest
import torch

from fairdf_utils import benchmark, benchmark_metrics, benchmark_network, fairness, losses, straightforward, timing
from fairdf_utils.benchmark_network import QUICK, Baseline, Ours, configure, draw_batch, without_dropout
from fairdf_utils.methods import build
from fairdf_utils.model import FairDetector

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The table of a quick run, and the file it was written to."""
    out = tmp_path_factory.mktemp("benchmark") / "table.csv"
    assert benchmark.main(quick=True, out=out) == 0
    return pd.read_csv(out, comment="#"), out


def test_a_quick_run_measures_every_part(written):
    table, out = written
    assert list(table.columns) == timing.COLUMNS
    assert out.read_text().startswith("# ") and "torch" in out.read_text().splitlines()[0]
    for part in ("SAM step", "CVaR", "all losses", "SAM updates", "official", "corrected", "float32", "bfloat16",
                 "loading", "JPEG", "waiting", "group metrics", "resamples"):  # fmt: skip
        assert table["what"].str.contains(part).any(), part
    assert (table[["baseline_s", "ours_s", "ratio"]] > 0).all(axis=None)
    assert np.allclose(table["ratio"], table["baseline_s"] / table["ours_s"])


def test_every_gate_of_a_quick_run_holds(written):
    gates = written[0]["gate"].dropna()
    assert len(gates) >= 9 and not gates.str.contains("BEYOND").any()


def test_the_gates_notice_another_loss(monkeypatch):
    model, config, batch = build(configure(QUICK)), configure(QUICK), draw_batch(4, 32, CPU)
    assert "within" in benchmark_network.first_loss_gate(model, config, batch, CPU)
    monkeypatch.setattr(straightforward, "WEIGHTS", losses.WEIGHTS | {"fairness": 1.001})
    assert "BEYOND" in benchmark_network.first_loss_gate(model, config, batch, CPU)
    assert "BEYOND" in benchmark_network.gradient_gate()


def test_ratios_are_of_medians_with_the_spread_of_rounds():
    row = timing.compare("x", np.array([2.0, 4.0, 9.0]), np.array([1.0, 2.0, 3.0]), target=2)
    assert (row["baseline_s"], row["ours_s"], row["ratio"]) == (4, 2, 2)
    assert 2 <= row["ratio_p10"] <= row["ratio_p90"] <= 3


def test_calls_are_interleaved_in_rotated_order_after_a_warm_up():
    calls = []
    seconds = timing.interleave({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=3)
    assert {name: each.shape for name, each in seconds.items()} == {name: (3,) for name in "abc"}
    rounds = ["".join(calls[i : i + 3]) for i in range(0, 12, 3)]
    assert sorted(rounds[0]) == list("abc") and rounds[1:] == ["abc", "bca", "cab"]


# The straightforward form


@pytest.mark.parametrize("fidelity", ["corrected", "official"])
def test_the_straightforward_network_is_the_same_function(fidelity):
    torch.manual_seed(0)
    model = without_dropout(FairDetector("tiny", 32, 16, fidelity)).double()
    images = draw_batch(3, 32, CPU, torch.float64).images
    ours, theirs = model(images), straightforward.forward(model, images)
    for name in ("specific", "agnostic", "demographic", "fused"):
        torch.testing.assert_close(getattr(theirs, name), getattr(ours, name))
    torch.testing.assert_close(theirs.self_reconstruction, ours.self_reconstruction)
    torch.testing.assert_close(theirs.cross_reconstruction, ours.cross_reconstruction)
    model.eval()
    torch.testing.assert_close(straightforward.detect(model, images), model.detect(images))


@pytest.mark.parametrize("n, alpha", [(1, 0.9), (2, 0.9), (7, 0.5), (8, 0.5), (8, 0.9), (20, 0.3)])
def test_the_search_finds_value_and_gradient_of_cvar(n, alpha):
    values = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    sides = [values.clone().requires_grad_() for _ in range(2)]
    results = losses.cvar(sides[0], alpha), straightforward.cvar(sides[1], alpha)
    torch.testing.assert_close(*results)
    for result in results:
        result.backward()
    torch.testing.assert_close(sides[0].grad, sides[1].grad)


def test_both_updates_move_the_weights_alike():
    config = configure(QUICK)
    model, batch = without_dropout(build(config)).double(), draw_batch(4, 32, CPU, torch.float64)
    baseline, ours = Baseline(model, config, CPU), Ours(model, config, CPU)
    triplets = losses.draw_triplets(batch.label, batch.method, torch.Generator().manual_seed(benchmark_network.SEED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(straightforward, "draw_triplets", lambda *_: triplets)
        first = baseline.step(batch)
    torch.testing.assert_close(sum(ours.step(batch).values()), first)
    for (name, p), other, start in zip(
        ours.model.named_parameters(), baseline.model.parameters(), model.parameters(), strict=True
    ):
        torch.testing.assert_close(p - start, other - start, rtol=1e-6, atol=1e-12, msg=name)
    for own, other in zip(ours.model.buffers(), baseline.model.buffers(), strict=True):
        torch.testing.assert_close(own, other)


def test_straightforward_triplets_come_from_the_right_images():
    batch = draw_batch(6, 32, CPU)
    drawn = straightforward.draw_triplets(batch.label, batch.method, random.Random(0))
    assert (batch.label[drawn.agnostic_positive] == batch.label).all()
    assert (batch.label[drawn.agnostic_negative] != batch.label).all()
    assert (batch.method[drawn.specific_positive] == batch.method).all()
    assert (batch.label[drawn.specific_negative] != batch.label).all()


def test_scikit_learn_in_a_loop_gives_the_same_metrics():
    table = benchmark_metrics.draw_scores(2000, 160)
    ours = fairness.fairness_metrics(table, "group")
    theirs = pd.Series(straightforward.fairness_metrics(table))
    pd.testing.assert_series_equal(theirs, ours[theirs.index], check_names=False)
