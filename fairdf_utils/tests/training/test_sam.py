"""SAM: the golden trajectory, its definition written out, and everything a training loop relies on."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fairdf_utils.training.sam import SAM

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "sam.npz"
OPTIONS = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-3}


def small_problem(seed=0, dtype=torch.float64):
    """A network with batch norm and a loss closure factory."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)
    inputs, target = torch.randn(20, 6, dtype=dtype), torch.randint(0, 2, (20,))

    def closure():
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), target)
        loss.backward()
        return loss

    return model, closure


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_golden_trajectory():
    if not GOLDEN.exists():
        pytest.skip(f"golden vectors are not at {GOLDEN}")
    golden = np.load(GOLDEN)
    matrix, offset = torch.from_numpy(golden["A"]), torch.from_numpy(golden["b"])
    weights = nn.Parameter(torch.from_numpy(golden["w0"]).clone())
    options = {name: float(golden[name]) for name in ("rho", "lr", "momentum", "weight_decay")}
    optimizer = SAM([weights], torch.optim.SGD, **options)

    def closure():
        optimizer.zero_grad()
        loss = (matrix @ weights - offset).square().mean()
        loss.backward()
        return loss

    for expected in golden["trajectory"]:
        optimizer.step(closure)
        np.testing.assert_allclose(weights.detach().numpy(), expected, rtol=0, atol=1e-6)


def test_equals_two_passes_written_by_hand():
    rho = 0.3
    model, closure = small_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=rho, **OPTIONS)
    reference, reference_closure = small_problem()
    params, velocity = list(reference.parameters()), None
    for _ in range(4):
        optimizer.step(closure)

        reference_closure()
        origin = [p.detach().clone() for p in params]
        norm = torch.sqrt(sum(p.grad.square().sum() for p in params))
        with torch.no_grad():
            for p in params:
                p += rho * p.grad / (norm + 1e-12)
        reference_closure()
        with torch.no_grad():
            slopes = [p.grad + OPTIONS["weight_decay"] * w for p, w in zip(params, origin, strict=True)]
            velocity = (
                slopes
                if velocity is None
                else [OPTIONS["momentum"] * v + g for v, g in zip(velocity, slopes, strict=True)]
            )
            for p, w, v in zip(params, origin, velocity, strict=True):
                p.copy_(w - OPTIONS["lr"] * v)
        torch.testing.assert_close(flat(model), flat(reference), rtol=1e-12, atol=1e-13)


def test_the_uphill_step_has_length_rho():
    model, closure = small_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.07, **OPTIONS)
    closure()
    before = flat(model)
    optimizer.first_step()
    assert (flat(model) - before).norm().item() == pytest.approx(0.07, rel=1e-9)


def test_rho_zero_is_the_base_optimizer():
    model, closure = small_problem()
    plain, plain_closure = small_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.0, **OPTIONS)
    base = torch.optim.SGD(plain.parameters(), **OPTIONS)
    for _ in range(3):
        optimizer.step(closure)
        base.step(plain_closure)
    assert torch.equal(flat(model), flat(plain))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_returns_bit_for_bit_to_where_it_was(dtype):
    model, closure = small_problem(dtype=dtype)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.123, lr=0.0)
    before = flat(model)
    for _ in range(3):
        optimizer.step(closure)
    assert torch.equal(flat(model), before)


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
def test_saved_state_continues_identically(tmp_path, base):
    options = OPTIONS if base is torch.optim.SGD else {"lr": 1e-2}
    model, closure = small_problem()
    optimizer = SAM(model.parameters(), base, **options)
    for _ in range(3):
        optimizer.step(closure)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")

    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed, resumed_closure = small_problem()
    resumed.load_state_dict(saved["model"])
    second = SAM(resumed.parameters(), base, **options)
    second.load_state_dict(saved["optimizer"])
    for _ in range(3):
        optimizer.step(closure)
        second.step(resumed_closure)
    assert torch.equal(flat(model), flat(resumed))


def test_schedulers_act_on_the_base_also_after_loading_and_without_warnings():
    model, closure = small_problem()
    optimizer = SAM(model.parameters(), torch.optim.SGD, **OPTIONS)
    optimizer.load_state_dict(optimizer.state_dict())  # what Accelerate's prepare() does
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        closure()
        optimizer.first_step()
        closure()
        optimizer.second_step()
        schedule.step()
    assert optimizer.base.param_groups[0]["lr"] == OPTIONS["lr"] / 2
    assert optimizer.param_groups[0] is optimizer.base.param_groups[0]


def test_groups_have_their_own_rho_and_learning_rate():
    model, closure = small_problem()
    first, last = model[0], model[3]
    optimizer = SAM(
        [{"params": first.parameters(), "rho": 0.0}, {"params": last.parameters(), "lr": 0.0}],
        torch.optim.SGD,
        rho=0.1,
        **OPTIONS,
    )
    before = flat(first), flat(last)
    closure()
    optimizer.first_step()
    assert torch.equal(flat(first), before[0]) and not torch.equal(flat(last), before[1])
    closure()
    optimizer.second_step()
    assert not torch.equal(flat(first), before[0]) and torch.equal(flat(last), before[1])


def test_parameters_without_gradient_stay_put():
    model, closure = small_problem()
    idle = nn.Parameter(torch.ones(3))
    optimizer = SAM([idle, *model.parameters()], torch.optim.SGD, **OPTIONS)
    optimizer.step(closure)
    assert torch.equal(idle.detach(), torch.ones(3))


def test_misuse_is_refused():
    model, closure = small_problem()
    with pytest.raises(ValueError, match="rho"):
        SAM(model.parameters(), torch.optim.SGD, rho=-1, **OPTIONS)
    optimizer = SAM(model.parameters(), torch.optim.SGD, **OPTIONS)
    with pytest.raises(RuntimeError, match="without first_step"):
        optimizer.second_step()
    with pytest.raises(RuntimeError, match="backward"):
        optimizer.first_step()
    with pytest.raises(TypeError, match="closure"):
        optimizer.step(None)
    closure()
    optimizer.first_step()
    with pytest.raises(RuntimeError, match="twice"):
        optimizer.first_step()


def test_bfloat16_autocast():
    model, _ = small_problem(dtype=torch.float32)
    inputs, target = torch.randn(16, 6), torch.randint(0, 2, (16,))
    optimizer = SAM(model.parameters(), torch.optim.SGD, **OPTIONS)

    def closure():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(inputs).float(), target)
        loss.backward()
        return loss

    first = optimizer.step(closure).item()
    for _ in range(30):
        last = optimizer.step(closure).item()
    assert last < first and all(p.dtype == torch.float32 for p in model.parameters())


def test_gradient_clipping_limits_the_update_not_the_ascent():
    torch.manual_seed(0)
    network = torch.nn.Linear(6, 1)
    optimizer = SAM(network.parameters(), torch.optim.SGD, rho=0.05, lr=1.0)
    before = [p.detach().clone() for p in network.parameters()]
    inputs = 100 * torch.randn(8, 6)
    network(inputs).square().mean().backward()
    optimizer.first_step()
    optimizer.zero_grad()
    network(inputs).square().mean().backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 0.1)
    optimizer.second_step()
    moved = torch.cat([(p - old).flatten() for p, old in zip(network.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.1, rel=1e-4)


def test_works_under_accelerate_with_a_schedule():
    """Accelerate's prepare() loads the optimizer's state: groups must stay shared with the base."""
    from accelerate import Accelerator

    torch.manual_seed(0)
    network, inputs = torch.nn.Linear(6, 1), torch.randn(8, 6)
    optimizer = SAM(network.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    accelerator = Accelerator(cpu=True)
    network, prepared = accelerator.prepare(network, optimizer)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def closure():
        prepared.zero_grad()
        loss = network(inputs).square().mean()
        accelerator.backward(loss)
        return loss

    losses = []
    for _ in range(3):
        losses.append(prepared.step(closure) or closure().item())
        schedule.step()
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.1 / 8)
    assert closure().item() < losses[0]
