"""Swaps of a branch against the parts of the network put together by hand."""

import numpy as np
import pytest
import torch

from fairdf_utils.data.batches import to_device
from fairdf_utils.evaluation.scoring import predict
from fairdf_utils.explanation.interventions import swapped
from fairdf_utils.model.detectors import FairDetector, adain
from fairdf_utils.tests.small import small

CPU = torch.device("cpu")
STEM = {"backbone": "tf_efficientnet_lite0", "weights": "embedded", "frozen_stages": 2}


@pytest.fixture(scope="module")
def images():
    """Two of seven, blocks of 8 pixels."""
    return np.random.default_rng(0).integers(0, 256, (2, 7, 8, 8, 3), np.uint8).repeat(8, 2).repeat(8, 3)


def detector(**options):
    torch.manual_seed(0)
    return FairDetector(small(64, initialisation="kaiming", **options))


@pytest.mark.parametrize("backbone", [{}, STEM], ids=["tiny", "frozen stem"])
def test_a_branch_that_sees_other_images_gives_their_map_and_the_rest_its_own(images, backbone):
    model = detector(**backbone)
    found = {branch: swapped(model, *images, branch, CPU, batch_size=3) for branch in ("forgery", "demographic")}
    assert model.training and not any(m._forward_pre_hooks for m in model.modules()), "the detector stays as it was"
    model.eval()
    own, other = (model.stem(to_device(each, CPU)) for each in images)
    with torch.no_grad():
        for branch, (demographic, forgery) in {"demographic": (other, own), "forgery": (own, other)}.items():
            agnostic = model.agnostic_split(model.forgery(forgery))
            fused = model.fusion(adain(model.demographic_split(model.demographic(demographic)), agnostic))
            np.testing.assert_allclose(found[branch], model.fused(fused).logits, rtol=1e-4, atol=1e-5)
    assert np.abs(found["forgery"] - found["demographic"]).max() > 1e-3, "the two are told apart"


def test_what_does_not_reach_the_released_answer_changes_nothing(images):
    model = detector(fidelity="official")
    np.testing.assert_array_equal(swapped(model, *images, "demographic", CPU), predict(model, images[0], CPU))
    np.testing.assert_allclose(swapped(model, *images, "forgery", CPU), predict(model, images[1], CPU), atol=1e-5)
