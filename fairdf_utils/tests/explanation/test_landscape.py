"""Loss landscapes with known answers; the model stays bit for bit."""

import numpy as np
import pytest
import torch
from torch import nn

from fairdf_utils.evaluation.scoring import predict
from fairdf_utils.explanation.landscape import answer_loss, landscape, normalised, random_direction, sharpness
from fairdf_utils.model.detectors import FairDetector, PlainDetector
from fairdf_utils.tests.small import small

CPU = torch.device("cpu")


class Bowl(nn.Module):
    """Weights (5 filters, 3, 2) and a bias, which the loss must not move."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(5, 3, 2, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.ones(5, dtype=torch.float64))


def quadratic(steepness):
    return lambda bowl: [steepness / 2 * bowl.weight.square().sum(), 100 * (bowl.bias - 1).square().sum()]


@pytest.fixture
def scored():
    torch.manual_seed(0)
    model = FairDetector(small())
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 2)
    random = np.random.default_rng(0)
    return model, random.integers(0, 256, (10, 16, 16, 3), np.uint8), random.integers(0, 2, 10)


@pytest.mark.parametrize("steepness, radius", [(1.0, 0.1), (7.0, 0.1), (2.0, 0.5)])
def test_sharpness_of_a_quadratic_is_known(steepness, radius):
    # The gradient is a multiple of each filter, so n(g) = w: the loss grows as (1 + r)^2. A random direction has the
    # length of w, and opposite steps leave half the curvature.
    bowl = Bowl()
    squares = float(bowl.weight.detach().square().sum())
    found = sharpness(bowl, quadratic(steepness), radius, directions=3)
    assert found["loss"] == pytest.approx(steepness / 2 * squares)
    assert found["ascent"] == pytest.approx(steepness / 2 * squares * ((1 + radius) ** 2 - 1))
    assert found["random"] == pytest.approx(steepness / 2 * squares * radius**2)
    assert found["random_sd"] == pytest.approx(0, abs=1e-9)


def test_ascent_is_the_largest_first_order_rise():
    # Of a linear loss it is radius * sum over filters of |g_f| |w_f|, and no direction of that size rises more.
    bowl = Bowl()
    slope = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def linear(model):
        return [(slope * model.weight).sum()]

    found = sharpness(bowl, linear, 0.1, directions=50)
    lengths = torch.linalg.vector_norm(slope, dim=(1, 2)) * torch.linalg.vector_norm(bowl.weight.detach(), dim=(1, 2))
    assert found["ascent"] == pytest.approx(0.1 * float(lengths.sum()))
    assert found["random"] == pytest.approx(0, abs=1e-12), "a slope alone has no curvature"
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        (step,) = random_direction([bowl.weight.detach()], generator)
        assert 0.1 * float((slope * step).sum()) <= found["ascent"]


def test_without_directions_there_is_the_ascent_alone():
    found = sharpness(Bowl(), quadratic(1), directions=0)
    assert np.isnan(found["random"]) and np.isnan(found["random_sd"]) and found["ascent"] > 0


def test_every_filter_of_a_direction_has_the_filters_length():
    weights = [torch.randn(4, 3, 3, 3), torch.randn(2, 7), torch.zeros(3, 2)]
    directions = random_direction(weights, torch.Generator().manual_seed(0))
    for step, weight in zip(directions, weights, strict=True):
        torch.testing.assert_close(step.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1))
    still = normalised([torch.zeros(4, 3, 3, 3)], weights[:1])[0]
    assert (still == 0).all(), "a filter without a gradient stays, and is not divided by zero"


def test_the_plane_is_the_loss_at_each_point():
    bowl, loss = Bowl(), quadratic(3)
    plane = landscape(bowl, loss, span=0.4, steps=5, seed=2)
    generator = torch.Generator().manual_seed(2)
    weight = bowl.weight.detach()
    first, second = (random_direction([weight], generator)[0] for _ in range(2))
    by_hand = [[float(1.5 * (weight + x * first + y * second).square().sum()) for x in plane.x] for y in plane.y]
    np.testing.assert_allclose(plane.loss, by_hand, rtol=1e-12)
    assert plane.x.tolist() == plane.y.tolist() == pytest.approx([-0.4, -0.2, 0, 0.2, 0.4])


def test_an_even_number_of_steps_has_no_centre():
    with pytest.raises(ValueError, match="odd"):
        landscape(Bowl(), quadratic(1), steps=4)


# On a detector


def test_the_centre_is_the_cross_entropy_of_the_scores(scored):
    model, images, label = scored
    logits = predict(model, images, CPU).astype(np.float64)
    by_hand = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(label)), label])
    loss = answer_loss(images, label, CPU, batch_size=4)
    plane = landscape(model, loss, span=0.5, steps=3)
    assert plane.loss[1, 1] == pytest.approx(by_hand, rel=1e-4)
    assert sharpness(model, loss, directions=1)["loss"] == pytest.approx(by_hand, rel=1e-4)
    assert len(np.unique(plane.loss)) == 9, "every other point moves"


def test_the_size_of_the_parts_changes_nothing(scored):
    model, images, label = scored
    whole, parts = (sharpness(model, answer_loss(images, label, CPU, size), directions=2) for size in (10, 3))
    assert parts == pytest.approx(whole, rel=1e-3, abs=1e-6)


def snapshot(model):
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [weight.grad is not None and weight.grad.clone() for weight in model.parameters()]
    graded = [weight.requires_grad for weight in model.parameters()]
    return tensors, gradients, graded, [module.training for module in model.modules()]


def assert_unchanged(model, before):
    for old, new in zip(before[0].items(), model.state_dict().items(), strict=True):
        assert old[0] == new[0] and torch.equal(old[1], new[1]), old[0]
    for old, new in zip(before[1], snapshot(model)[1], strict=True):
        assert old is new is False or torch.equal(old, new)
    assert before[2:] == snapshot(model)[2:]


@pytest.mark.parametrize("explore", [landscape, sharpness])
def test_the_model_stays_bit_for_bit(scored, explore):
    model, images, label = scored
    model.forgery.eval()  # modes differ between modules, some weights are frozen, some have gradients
    model.content.requires_grad_(False)
    model.agnostic(model.agnostic_split(model.forgery(torch.rand(2, 3, 16, 16)))).logits.sum().backward()
    before = snapshot(model)
    explore(model, answer_loss(images, label, CPU))
    assert_unchanged(model, before)


@pytest.mark.parametrize("explore", [lambda *given: landscape(*given, steps=3), sharpness])
def test_a_frozen_stem_does_not_move(explore):
    model = PlainDetector(small(64, backbone="tf_efficientnet_lite0", weights="embedded", frozen_stages=2))
    stem = [value.clone() for value in model.stem.state_dict().values()]

    def loss(moved):
        assert all(map(torch.equal, moved.stem.state_dict().values(), stem)) and not moved.stem.training
        seen.append(float(moved.head.layers[0].weight.detach().sum()))
        yield sum(weight.square().sum() for weight in moved.parameters())

    seen = []
    explore(model, loss)
    assert len(set(seen)) > 1, "the rest moves"


def test_a_rescaling_that_batch_norm_undoes_changes_nothing(scored):
    _, images, label = scored
    torch.manual_seed(0)
    model = PlainDetector(small())
    loss = answer_loss(images, label, CPU)
    before = landscape(model, loss, steps=3).loss, sharpness(model, loss, directions=2)
    convolution, norm = model.encoder.backbone[0], model.encoder.backbone[1]
    with torch.no_grad():
        scale = torch.linspace(0.1, 10, len(convolution.weight))
        convolution.weight *= scale[:, None, None, None]
        norm.running_mean *= scale
        norm.running_var = norm.running_var * scale**2 + norm.eps * (scale**2 - 1)  # the same with eps
    np.testing.assert_allclose(landscape(model, loss, steps=3).loss, before[0], rtol=1e-4)
    after = sharpness(model, loss, directions=2)
    assert after == pytest.approx(before[1], rel=1e-3, abs=1e-6)


def test_the_seed_decides_the_directions(scored):
    model, images, label = scored
    loss = answer_loss(images, label, CPU)
    first, again, other = (landscape(model, loss, steps=3, seed=seed).loss for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.allclose(first, other)
