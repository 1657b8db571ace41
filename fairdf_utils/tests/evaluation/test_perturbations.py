"""Perturbations do the damage that they name, the same for an image wherever it stands."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from fairdf_utils.data.batches import decode
from fairdf_utils.data.manifests import read_split
from fairdf_utils.evaluation.perturbations import KINDS, STRENGTHS, perturb, perturbed_scores, subsample
from fairdf_utils.evaluation.scoring import predict, score_table
from fairdf_utils.model.detectors import PlainDetector
from fairdf_utils.tests.small import small

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    """Twelve textured images of 64 px: detail over soft shapes, in all three channels."""
    random = np.random.default_rng(0)
    soft = gaussian_filter(random.normal(size=(12, 64, 64, 3)), (0, 6, 6, 0)) * 900
    fine = gaussian_filter(random.normal(size=(12, 64, 64, 3)), (0, 0.8, 0.8, 0)) * 40
    return np.clip(127 + soft + fine, 0, 255).astype(np.uint8)


def error(images, kind, severity):
    changed = perturb(images, kind, severity).astype(np.float64)
    return ((changed - images) ** 2).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_severity_0_is_a_copy_of_the_image(images, kind):
    same = perturb(images, kind, 0)
    assert np.array_equal(same, images) and not np.shares_memory(same, images)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_grows_with_the_severity(images, kind):
    before = images.copy()
    errors = [error(images, kind, severity) for severity in range(6)]
    assert errors[0] == 0 and (np.diff(errors) > 0).all(), errors
    assert np.array_equal(images, before), "the images given are not changed"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(12)), severity=st.integers(1, 5), seed=st.integers(0, 9), cut=st.integers(0, 12))
def test_an_image_is_damaged_the_same_in_any_batch(images, kind, order, severity, seed, cut):
    whole = perturb(images, kind, severity, seed)
    shuffled = images[list(order)]
    parts = np.concatenate([perturb(part, kind, severity, seed) for part in (shuffled[:cut], shuffled[cut:])])
    assert whole.dtype == np.uint8 and whole.shape == images.shape
    assert np.array_equal(parts, whole[list(order)])


def test_the_seed_decides_what_is_drawn_and_nothing_else(images):
    for kind in KINDS:
        differ = not np.array_equal(perturb(images, kind, 3, seed=0), perturb(images, kind, 3, seed=1))
        assert differ == (kind in ("noise", "brightness", "crop")), kind


def test_images_of_one_batch_get_different_noise(images):
    grey = np.full((2, 64, 64, 3), 128, np.uint8)
    grey[1, 0, 0, 0] = 127
    first, second = perturb(grey, "noise", 2).astype(int) - 128
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05


# What each kind does, measured


@pytest.mark.parametrize("side", [64, 256])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_blur_has_the_stated_width_at_every_image_size(side, severity):
    line = np.zeros((1, side, side, 3), np.uint8)
    line[:, :, side // 2] = 255
    profile = perturb(line, "blur", severity)[0, side // 2, :, 0].astype(float)
    at = np.arange(side) - side // 2
    width = np.sqrt((profile * at**2).sum() / profile.sum()) / side
    kernel = np.exp(-0.5 * (at / (STRENGTHS["blur"][severity - 1] * side)) ** 2)  # sampled at pixels, as it is applied
    assert width == pytest.approx(np.sqrt((kernel * at**2).sum() / kernel.sum()) / side, rel=0.06)


@pytest.mark.parametrize("severity", [1, 5])
def test_noise_has_the_stated_deviation(severity):
    grey = np.full((1, 256, 256, 3), 128, np.uint8)
    noise = perturb(grey, "noise", severity).astype(float) - 128
    assert noise.std() == pytest.approx(STRENGTHS["noise"][severity - 1], rel=0.02)
    assert abs(noise.mean()) < 0.2


def test_brightness_multiplies_half_of_the_images_up_and_half_down():
    images = np.full((200, 16, 16, 3), 100, np.uint8) + np.arange(200, dtype=np.uint8)[:, None, None, None] // 4
    gain = perturb(images, "brightness", 3).mean((1, 2, 3)) / images.mean((1, 2, 3))
    strength = STRENGTHS["brightness"][2]
    images = images[:, 0, 0, 0]
    brighter = gain > 1
    assert np.allclose(gain, np.where(brighter, 1 + strength, 1 - strength), atol=0.015)  # rounded down
    distinct = brighter[::4]  # equal images draw equally
    assert 10 < distinct.sum() < 40


def test_contrast_keeps_the_mean_grey_and_shrinks_the_distances(images):
    changed, grey = perturb(images, "contrast", 4).astype(float), (0.299, 0.587, 0.114)
    assert np.allclose((changed @ grey).mean((1, 2)), (images @ grey).mean((1, 2)), atol=1)  # torchvision rounds down
    assert np.allclose(changed.std((1, 2)) / images.std((1, 2)), STRENGTHS["contrast"][3], atol=0.01)


def test_crop_enlarges_a_part_of_the_stated_size():
    ramp = np.broadcast_to(2 * np.arange(64, dtype=np.uint8)[:, None], (64, 64, 3))
    changed = perturb(np.stack([ramp]), "crop", 5)[0].astype(float)
    across = np.polyfit(np.arange(8, 56), changed[32, 8:56, 0], 1)[0]
    down = np.polyfit(np.arange(8, 56), changed[8:56, 32, 0], 1)[0]
    assert across == pytest.approx(2 * STRENGTHS["crop"][4], rel=0.03)
    assert down == pytest.approx(0, abs=0.02)


def test_scaling_takes_away_what_the_smaller_side_cannot_hold():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255  # the finest pattern of 64 px; 22 px hold none of it
    assert perturb(stripes, "scaling", 5)[:, 8:-8, 8:-8].std() < 5
    smooth = np.broadcast_to(np.linspace(50, 200, 64)[:, None], (1, 64, 64, 3)).astype(np.uint8)
    assert np.abs(perturb(smooth, "scaling", 5)[:, 8:-8, 8:-8].astype(int) - smooth[:, 8:-8, 8:-8]).max() < 8


def test_jpeg_is_a_jpeg_of_the_stated_quality(images):
    buffer = io.BytesIO()
    Image.fromarray(images[5]).save(buffer, "jpeg", quality=STRENGTHS["jpeg"][1])
    assert np.array_equal(perturb(images, "jpeg", 2)[5], np.asarray(Image.open(buffer)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("fog", 1), "'fog' at 1 is unknown: kinds jpeg, blur"),
        (("blur", 6), "severities 0 to 5"),
        (("blur", -1), "severities 0"),
        (("blur", 1.5), "severities 0"),
    ],
)
def test_unknown_perturbations_are_refused(images, arguments, message):
    with pytest.raises(ValueError, match=message):
        perturb(images, *arguments)


def test_other_images_are_refused(images):
    for wrong in (images / 255, images[0], images[..., :1]):
        with pytest.raises(ValueError, match="uint8"):
            perturb(wrong, "blur", 1)
    assert perturb(images[:0], "blur", 1).shape == (0, 64, 64, 3)


# The sample


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=60),
       count=st.integers(1, 70), seed=st.integers(0, 3))  # fmt: skip
def test_a_sample_is_even_over_groups_and_labels_and_takes_each_video_first(rows, count, seed):
    frame = pd.DataFrame(rows, columns=["group", "label", "video"])
    at = subsample(frame, count, seed)
    assert len(at) == min(count, len(frame)) == len(set(at)) and (np.diff(at) > 0).all()
    taken = frame.iloc[at]
    sizes, available = (each.groupby(["group", "label"]).size() for each in (taken, frame))
    sizes = sizes.reindex(available.index, fill_value=0)
    left = sizes < available  # a cell that has more to give has at most one less than the fullest
    assert (sizes[left] >= sizes.max() - 1).all()
    cells, videos = ["group", "label"], ["group", "label", "video"]
    repeated = taken.groupby(videos).size().groupby(cells).max()
    missing = frame.groupby(cells)["video"].nunique() - taken.groupby(cells)["video"].nunique()
    assert (missing[repeated[repeated > 1].index] == 0).all(), "a second frame although another video was left"


# Scores of perturbed images


@pytest.fixture(scope="module")
def trial(corpus, tmp_path_factory):
    frame = read_split(corpus / "manifests/ffpp", "test")
    images = decode(frame, corpus / "images", 16, tmp_path_factory.mktemp("decoded"))
    torch.manual_seed(0)
    return PlainDetector(small()).eval(), frame, images


def test_each_case_is_perturbed_and_scored(trial):
    model, frame, images = trial
    cases = list(perturbed_scores(model, frame, images, CPU))
    assert [case[:2] for case in cases] == [(kind, severity) for kind in KINDS for severity in range(6)]
    for kind, severity, table in cases:
        by_hand = score_table(frame, predict(model, perturb(images, kind, severity), CPU))
        pd.testing.assert_frame_equal(table, by_hand)


def test_images_of_other_rows_are_refused(trial):
    model, frame, images = trial
    with pytest.raises(ValueError, match="32 rows but 31 images"):
        next(perturbed_scores(model, frame, images[1:], CPU))
