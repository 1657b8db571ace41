"""Decoding, pairing and batching."""

import numpy as np
import pytest
import torch
from PIL import Image

from fairdf_utils.data import batches as data
from fairdf_utils.data.manifests import ManifestError
from fairdf_utils.data.vocabulary import FORGERIES, GROUPS

CPU = torch.device("cpu")


def test_decoded_pixels_are_the_files(training_set, corpus, tmp_path):
    images = data.decode(training_set, corpus / "images", 16, tmp_path)
    assert images.shape == (len(training_set), 16, 16, 3) and images.dtype == np.uint8
    for i in (0, len(training_set) - 1):
        assert np.array_equal(images[i], np.asarray(Image.open(corpus / "images" / training_set["img_path"][i])))


def test_decoding_happens_once_and_again_when_an_image_changes(training_set, corpus, tmp_path, monkeypatch):
    import shutil

    root = shutil.copytree(corpus / "images", tmp_path / "images")
    data.decode(training_set, root, 16, tmp_path / "cache")
    with monkeypatch.context() as forbidden:
        forbidden.setattr(data, "load_image", lambda *_: pytest.fail("decoded a second time"))
        data.decode(training_set, root, 16, tmp_path / "cache")
    Image.new("RGB", (16, 16), (1, 2, 3)).save(root / training_set["img_path"][0])
    again = data.decode(training_set, root, 16, tmp_path / "cache")
    assert (again[0] == (1, 2, 3)).all()


def test_other_sizes_are_resized(training_set, corpus, tmp_path):
    assert data.decode(training_set[:2], corpus / "images", 32, tmp_path).shape == (2, 32, 32, 3)


def test_missing_image_names_manifest_line_and_remedy(training_set, corpus, tmp_path):
    lost = training_set.assign(img_path=["gone.png", *training_set["img_path"][1:]])
    with pytest.raises(ManifestError, match=r"1 of 64 images are missing .*faketrain.csv, line 2: gone.png.*remove"):
        data.decode(lost, corpus / "images", 16, tmp_path)


def test_unreadable_image_names_manifest_line_and_leaves_nothing(training_set, corpus, tmp_path):
    import shutil

    root = shutil.copytree(corpus / "images", tmp_path / "images")
    (root / training_set["img_path"][3]).write_bytes(b"not an image")
    with pytest.raises(ManifestError, match=r"faketrain.csv, line 5: .*cannot be read as an image"):
        data.decode(training_set, root, 16, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_normalisation_maps_bytes_to_minus_one_and_one():
    pixels = np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1, 1).repeat(3, axis=3)
    assert data.to_device(pixels, CPU).flatten().tolist() == [-1, -1, -1, 1, 1, 1]


def test_natural_epoch_shows_every_fake_once(training_set):
    pairs = data.epoch_pairs(training_set, "natural", np.random.default_rng(0))
    labels = training_set["label"].to_numpy()
    assert (labels[pairs[:, 0]] == 1).all() and (labels[pairs[:, 1]] == 0).all()
    assert np.array_equal(np.sort(pairs[:, 0]), np.flatnonzero(labels == 1))


def test_balanced_epoch_draws_rare_groups_as_often(training_set):
    common = training_set["group"] == GROUPS[0]
    skewed = training_set.loc[np.repeat(training_set.index, np.where(common, 50, 1))].reset_index(drop=True)
    pairs = data.epoch_pairs(skewed, "balanced", np.random.default_rng(0))
    for column in (0, 1):
        share = skewed["group"].iloc[pairs[:, column]].value_counts(normalize=True)
        assert share.max() < 0.25, "the common group is 88 % of the images"
        assert len(share) == 8


def test_epoch_needs_both_classes(training_set):
    with pytest.raises(ManifestError, match="32 fakes, 0 reals"):
        data.epoch_pairs(training_set[training_set["label"] == 1], "natural", np.random.default_rng(0))


def test_unknown_sampling_is_refused(training_set):
    with pytest.raises(ValueError, match="'fair' is unknown; choose one of natural, balanced"):
        data.epoch_pairs(training_set, "fair", np.random.default_rng(0))


def test_batches_hold_fakes_first_and_their_annotations(training_set, corpus, tmp_path):
    images = data.decode(training_set, corpus / "images", 16, tmp_path)
    pairs = data.epoch_pairs(training_set, "natural", np.random.default_rng(0))
    drawn = list(data.batches(training_set, images, pairs, 5, CPU))
    assert len(drawn) == 6, "32 pairs: six whole batches of five, the rest dropped"
    for batch in drawn:
        assert batch.label.tolist() == [1] * 5 + [0] * 5
        assert [GROUPS[g] for g in batch.group] == training_set["group"].iloc[batch.rows].tolist()
        assert torch.equal(batch.images, data.to_device(images[batch.rows], CPU))


def test_processes_share_the_images_of_a_batch(training_set, corpus, tmp_path):
    images = data.decode(training_set, corpus / "images", 16, tmp_path)
    pairs = data.epoch_pairs(training_set, "natural", np.random.default_rng(0))
    whole = next(data.batches(training_set, images, pairs, 6, CPU))
    shares = [next(data.batches(training_set, images, pairs, 6, CPU, (rank, 3))) for rank in range(3)]
    assert all(torch.equal(share.label, whole.label) and np.array_equal(share.rows, whole.rows) for share in shares)
    halves = torch.stack([share.images.unflatten(0, (2, 2)) for share in shares], dim=1)  # (2, processes, b, ...)
    assert torch.equal(halves.flatten(0, 2), whole.images)


def test_partners_show_the_same_forgery_on_a_face_of_another_group(training_set):
    common = training_set["group"] == GROUPS[0]
    skewed = training_set.loc[np.repeat(training_set.index, np.where(common, 50, 1))].reset_index(drop=True)
    pairs = data.epoch_pairs(skewed, "natural", np.random.default_rng(0))
    partners, share = data.epoch_partners(skewed, pairs, np.random.default_rng(1))
    assert partners.shape == share.shape == pairs.shape and 0 <= share.min() < 0.05 and 0.95 < share.max() <= 1
    one, other = (skewed.iloc[rows.reshape(-1)].reset_index(drop=True) for rows in (pairs, partners))
    assert one["forgery"].equals(other["forgery"])
    alone = one["forgery"].map(skewed.groupby("forgery")["group"].nunique() == 1).to_numpy()  # known in one group only
    assert alone.any() and ((one["group"] == other["group"]) == alone).all()
    assert np.array_equal(partners.reshape(-1)[alone], pairs.reshape(-1)[alone])
    met = other.loc[(one["label"] == 0) & (one["group"] == GROUPS[0]), "group"].value_counts(normalize=True)
    assert set(met.index) == set(GROUPS[1:]) and met.max() < 0.3, "each of seven other groups is as likely"


def test_partners_are_mixed_into_images_and_stem_maps_but_not_into_annotations(training_set):
    images = np.random.default_rng(0).integers(0, 256, (len(training_set), 4, 4, 3), dtype=np.uint8)
    maps = np.arange(len(training_set), dtype=np.float16)[:, None, None, None]
    pairs, partners = np.array([[0, 40], [1, 41]]), np.array([[8, 60], [1, 50]])  # fakes 0..31, reals 32..63
    share = np.array([[0.25, 1.0], [0.5, 0.0]], dtype=np.float32)
    batch = next(data.batches(training_set, images, pairs, 2, CPU, stem_maps=maps, partners=(partners, share)))
    assert batch.stem_maps.flatten().tolist() == [0.25 * 0 + 0.75 * 8, 1, 40, 50]
    by_hand = 0.25 * data.to_device(images[:1], CPU) + 0.75 * data.to_device(images[8:9], CPU)
    assert torch.allclose(batch.images[:1], by_hand, atol=1e-6)
    plain = next(data.batches(training_set, images, pairs, 2, CPU))
    assert torch.equal(batch.group, plain.group) and batch.rows.tolist() == [0, 1, 40, 41]
    second = next(data.batches(training_set, images, pairs, 2, CPU, (1, 2), maps, (partners, share)))
    assert second.stem_maps.flatten().tolist() == [1, 50], "a process mixes its own share of the images"


def test_a_fake_of_unknown_forgery_has_no_code(training_set):
    names = ["fake", "someone's own", *training_set["forgery"][2:]]
    codes = data.codes(training_set.assign(forgery=names))["forgery"]
    assert codes[:2].tolist() == [-1, -1]
    assert [FORGERIES[code] for code in codes[2:]] == names[2:]


def test_group_sizes_count_images(training_set):
    assert data.group_sizes(training_set).tolist() == [8] * 8
