"""Grad-CAM against gradients by hand, and features against what the heads see."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fairdf_utils.data.batches import to_device
from fairdf_utils.evaluation.scoring import predict
from fairdf_utils.explanation.grad_cam import answering_head, class_activation, features, final_layer, grad_cam, mean_by
from fairdf_utils.model.detectors import FairDetector, Head, PlainDetector, TwoEncoderDetector, adain
from fairdf_utils.tests.small import small

CPU = torch.device("cpu")
DETECTORS = {
    "corrected": lambda: FairDetector(small(32, initialisation="kaiming")),
    "official": lambda: FairDetector(small(32, initialisation="kaiming", fidelity="official")),
    "without groups": lambda: TwoEncoderDetector(small(32, initialisation="kaiming")),
    "ucf": lambda: TwoEncoderDetector(small(32, initialisation="kaiming", method="ucf")),
    "plain": lambda: PlainDetector(small(32, initialisation="kaiming")),
}


@pytest.fixture(scope="module")
def images():
    """Blocks of 8 pixels, because single ones leave the same mean everywhere in a map."""
    return np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), np.uint8).repeat(8, 1).repeat(8, 2)


@pytest.fixture(params=DETECTORS)
def model(request):
    """Each kind of detector with batch norms as after training, in training mode as training leaves it."""
    torch.manual_seed(121)  # of each kind every image has heat
    model = DETECTORS[request.param]()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 2)
    return model


def seen_by_hand(model, images):
    """The map before the pooling of the answer, from the parts of the network."""
    if isinstance(model, PlainDetector):
        return model.encoder(images)
    return answered(model, images, model.agnostic_split(model.forgery(images)))


def answered(model, images, agnostic):
    """The map that the answering head pools, from the agnostic map."""
    if isinstance(model, TwoEncoderDetector):
        return model.fusion(agnostic) if model.fused else agnostic
    if model.fidelity == "official":
        return agnostic
    return model.fusion(adain(model.demographic_split(model.demographic(images)), agnostic))


def test_the_final_layer_makes_the_logits_of_its_inputs(model, images):
    inputs, weight, bias = final_layer(model, images, CPU)
    assert weight.shape == (2, inputs.shape[1])
    np.testing.assert_allclose(inputs @ weight.T + bias, predict(model, images, CPU), atol=1e-5)
    assert model.training and not answering_head(model).layers[2]._forward_pre_hooks, "the detector stays as it was"


def test_of_a_head_that_pools_class_activation_is_grad_cam_by_hand():
    torch.manual_seed(0)
    head = Head(5, 7, 2).eval()
    seen = torch.randn(3, 5, 8, 8, requires_grad=True)
    first, second = head.layers[0], head.layers[2]
    hidden = seen.mean((2, 3)) @ first.weight.T + first.bias  # (3, 7)
    upwards = (second.weight[1] - second.weight[0]) * torch.where(hidden > 0, 1.0, 0.01)  # (3, 7)
    weight = upwards @ first.weight / 64  # (3, 5): of each pixel of a channel
    expected = torch.einsum("nc,nchw->nhw", weight, seen).clamp(min=0)
    torch.testing.assert_close(class_activation(head(seen).logits, seen), expected)


def test_evidence_in_a_standard_deviation_is_evidence():
    # z = std(A) of one channel: the places of an activation add up to dz(t A)/dt = std(A), all of them above 0 here.
    seen = torch.tensor([0.0, 0.0, 0.0, 4.0]).reshape(1, 1, 2, 2).requires_grad_()
    spread = seen.std((1, 2, 3))
    heat = class_activation(torch.stack([torch.zeros_like(spread), spread], 1), seen)
    torch.testing.assert_close(heat.sum((1, 2)), spread)


def test_grad_cam_of_every_detector_is_the_gradient_through_its_own_map(model, images):
    heat = grad_cam(model, images, CPU)
    model.eval()
    batch = to_device(images, CPU)
    is_plain = isinstance(model, PlainDetector)
    seen = (model.encoder(batch) if is_plain else model.agnostic_split(model.forgery(batch))).detach().requires_grad_()
    logits = answering_head(model)(seen if is_plain else answered(model, batch, seen)).logits
    slope = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), seen)[0]
    coarse = (slope * seen.detach()).sum(1, keepdim=True).relu()
    fine = nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")[:, 0]
    largest = fine.amax((1, 2), keepdim=True)
    assert largest.min() > 0, "a test of zeros"
    np.testing.assert_allclose(heat, (fine / largest).detach().numpy(), atol=2e-3)


class Shuffled(nn.Module):
    """The places of a map in another order."""

    def forward(self, maps):
        return maps.flatten(2)[..., torch.randperm(64, generator=torch.Generator().manual_seed(3))].reshape(maps.shape)


@pytest.mark.parametrize("model", ["corrected", "official"], indirect=True)
def test_the_heat_of_a_branch_goes_where_its_own_map_goes_and_nowhere_else(model, images):
    splits = {"forgery": "agnostic_split", "demographic": "demographic_split"}
    branches = list(splits) if model.fidelity == "corrected" else ["forgery"]
    heat = {branch: grad_cam(model, images, CPU, branch) for branch in branches}
    for moved, name in splits.items():
        shuffled = copy.deepcopy(model)
        setattr(shuffled, name, nn.Sequential(getattr(model, name), Shuffled()))
        np.testing.assert_allclose(predict(shuffled, images, CPU), predict(model, images, CPU), atol=1e-4)
        for branch in branches:
            change = np.abs(grad_cam(shuffled, images, CPU, branch) - heat[branch]).max()
            assert change > 0.1 if branch == moved else change < 1e-2, (moved, branch)


@pytest.mark.parametrize("model", ["official", "without groups", "ucf", "plain"], indirect=True)
def test_a_branch_that_does_not_reach_the_answer_has_no_heat(model, images):
    with pytest.raises(ValueError, match="no branch 'demographic'"):
        grad_cam(model, images, CPU, "demographic")


def test_answering_map_leads_to_the_answer(model, images):
    model.eval()
    batch = to_device(images, CPU)
    with torch.no_grad():
        answer = answering_head(model)(seen_by_hand(model, batch)).logits
        torch.testing.assert_close(answer, model.detect(batch), rtol=1e-4, atol=1e-5)


def test_maps_are_between_0_and_1_reach_1_and_do_not_depend_on_the_batch(model, images):
    heat = grad_cam(model, images, CPU)
    assert heat.shape == (7, 32, 32) and heat.dtype == np.float32
    assert heat.min() >= 0
    assert set(heat.max((1, 2)).round(5)) <= {0.0, 1.0}
    np.testing.assert_allclose(grad_cam(model, images, CPU, batch_size=2), heat, atol=1e-3)


def test_looking_changes_nothing(model, images):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grad_cam(model, images, CPU)
    features(model, images, CPU)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Corner(nn.Module):
    """An encoder that sees brightness in the upper left quarter of the image, and nothing else."""

    def __init__(self):
        super().__init__()
        self.pick = nn.Conv2d(3, 8, 1)
        nn.init.ones_(self.pick.weight)
        nn.init.zeros_(self.pick.bias)

    def forward(self, images):
        maps = nn.functional.adaptive_avg_pool2d(self.pick((images + 1) / 2), 8)
        mask = torch.zeros(8, 8)
        mask[:4, :4] = 1
        return maps * mask


def corner_detector(sign):
    model = PlainDetector(small(32, width=8))
    model.encoder = Corner()
    first, second = model.head.layers[0], model.head.layers[2]
    for layer in (first, second):
        nn.init.zeros_(layer.bias)
    nn.init.ones_(first.weight)
    with torch.no_grad():
        second.weight.copy_(sign * torch.tensor([[-1.0], [1.0]]).expand(2, 8))
    return model


def test_a_detector_that_looks_at_one_corner_lights_that_corner(images):
    heat = grad_cam(corner_detector(1), images, CPU)
    assert (heat[:, :14, :14].min((1, 2)) > 0.1).all()
    assert heat[:, 18:].max() == 0 and heat[:, :, 18:].max() == 0


def test_evidence_against_a_fake_is_no_heat(images):
    assert grad_cam(corner_detector(-1), images, CPU).max() == 0


# Features


def test_features_are_what_the_heads_pool(model, images):
    found = features(model, images[:6], CPU)
    model.eval()
    with torch.no_grad():
        outputs = model(to_device(images[:6], CPU))
    if isinstance(model, PlainDetector):
        assert set(found) == {"encoder"}
        return
    heads = {
        "domain_agnostic": outputs.agnostic,
        "domain_specific": outputs.specific,
        "demographic": outputs.demographic,
        "fused": outputs.fused,
    }
    assert set(found) == {"content"} | {name for name, head in heads.items() if head}
    for name, head in heads.items():
        if head:
            np.testing.assert_allclose(found[name], head.pooled.numpy(), atol=2e-5, err_msg=name)
    content = model.content(to_device(images[:6], CPU)).mean((2, 3))
    np.testing.assert_allclose(found["content"], content.detach().numpy(), atol=2e-5)


def test_features_and_heat_behind_a_frozen_stem():
    torch.manual_seed(0)
    stem = {"backbone": "tf_efficientnet_lite0", "weights": "embedded", "frozen_stages": 2}
    model = FairDetector(small(64, initialisation="kaiming", **stem))
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    found, heat = features(model, images, CPU), grad_cam(model, images, CPU)
    model.eval()
    with torch.no_grad():
        outputs = model(to_device(images, CPU))
    for name, head in {"domain_agnostic": outputs.agnostic, "demographic": outputs.demographic}.items():
        np.testing.assert_allclose(found[name], head.pooled.numpy(), atol=1e-4, err_msg=name)
    assert heat.max() == 1 and len(np.unique(heat)) > 64


def test_the_plain_feature_leads_to_the_answer(images):
    torch.manual_seed(0)
    model = PlainDetector(small(32)).eval()
    pooled = torch.from_numpy(features(model, images, CPU)["encoder"])
    with torch.no_grad():
        torch.testing.assert_close(model.head.layers(pooled), model(to_device(images, CPU)), rtol=1e-4, atol=1e-5)


def test_features_do_not_depend_on_the_batch(model, images):
    whole, parts = features(model, images, CPU), features(model, images, CPU, batch_size=3)
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-5)


def test_official_fidelity_hands_the_agnostic_vector_to_the_answer(images):
    torch.manual_seed(0)
    found = features(FairDetector(small(32, fidelity="official")), images, CPU)
    np.testing.assert_allclose(found["fused"], found["domain_agnostic"], atol=1e-6)


# Means


def test_means_are_those_of_each_cell_in_the_projects_order():
    frame = pd.DataFrame(
        {
            "group": ["female-white", "male-asian", "male-asian", "female-white", "male-asian"],
            "forgery": ["real", "FaceSwap", "FaceSwap", "real", "Deepfakes"],
        }
    )
    values = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2)
    means = mean_by(values, frame)
    assert means.rows == ["male-asian", "female-white"] and means.columns == ["real", "Deepfakes", "FaceSwap"]
    assert means.count.tolist() == [[0, 1, 2], [2, 0, 0]]
    np.testing.assert_allclose(means.mean[0, 2], values[1:3].mean(0))
    np.testing.assert_allclose(means.mean[1, 0], values[[0, 3]].mean(0))
    assert np.isnan(means.mean[0, 0]).all()
    with pytest.raises(ValueError, match="4 values but 5 rows"):
        mean_by(values[:4], frame)
