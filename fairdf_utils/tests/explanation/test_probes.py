"""Probes find what is planted, find nothing in noise, and never see a person twice."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.explanation.probes import embed, identity_folds, linear_probe, probes


def people(identities=80, frames=4, datasets=("ffpp",), seed=0):
    """A manifest: each identity has reals and fakes, the fakes take a face from another identity."""
    random = np.random.default_rng(seed)
    rows = []
    for dataset in datasets:
        for number in range(identities):
            group = GROUPS[number % 8]
            for frame in range(frames):
                fake = frame % 2
                forgery = ("Deepfakes", "FaceSwap")[number // 8 % 2] if fake else "real"
                source = str(random.integers(identities)) if fake else ""
                rows.append((dataset, fake, forgery, *group.split("-"), group, str(number), source))
    columns = ["dataset", "label", "forgery", "gender", "race", "group", "identity", "source_identity"]
    return pd.DataFrame(rows, columns=columns)


def one_hot(values, noise=0.1, seed=0):
    codes = pd.get_dummies(values).to_numpy(float)
    return codes + np.random.default_rng(seed).normal(0, noise, codes.shape)


@pytest.fixture(scope="module")
def frame():
    return people()


def test_a_planted_attribute_is_read_and_noise_is_at_chance(frame):
    noise = np.random.default_rng(1).normal(size=(len(frame), 16))
    table = probes({"planted": one_hot(frame["group"]), "noise": noise}, frame).set_index(["feature", "target"])
    for target, chance in (("group", 1 / 8), ("gender", 1 / 2), ("race", 1 / 4)):
        assert table.loc[("planted", target), "accuracy"] > 0.99, "every attribute of the group is linear in it"
        row = table.loc[("noise", target)]
        assert row["chance"] == chance
        assert abs(row["accuracy"] - chance) < 3 * np.sqrt(chance * (1 - chance) / row["identities"])
    assert abs(table.loc[("planted", "label"), "accuracy"] - 0.5) < 0.08, "the group says nothing of the label"


def test_a_feature_that_knows_the_person_is_at_chance_for_what_people_are_given_at_random(frame):
    # Every identity has its own vector and a random attribute. Split by image, a probe learns the people by heart.
    random = np.random.default_rng(0)
    vectors = random.normal(size=(80, 100))[frame["identity"].astype(int)]
    given = frame["identity"].map(dict(zip(map(str, range(80)), random.permutation(np.arange(80) % 2), strict=True)))
    identity = frame["identity"].to_numpy(str)
    alone = np.full(len(frame), "")
    by_person = linear_probe(vectors, given.to_numpy(), identity_folds(given.to_numpy(), identity, alone))
    each_its_own = np.arange(len(frame)).astype(str)
    by_image = linear_probe(vectors, given.to_numpy(), identity_folds(given.to_numpy(), each_its_own, alone))
    assert by_image.mean() > 0.95 and by_person.mean() < 0.65


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), folds=st.integers(2, 6))
def test_nobody_of_the_test_rows_is_seen_in_training(seed, folds):
    frame = people(identities=48, seed=seed)
    identity, source = frame["identity"].to_numpy(str), frame["source_identity"].to_numpy(str)
    splits = identity_folds(frame["gender"].to_numpy(), identity, source, folds, seed)
    assert sorted(np.concatenate([test for _, test in splits])) == list(range(len(frame)))
    for train, test in splits:
        shown = {*identity[test], *source[test]} - {""}
        assert not shown & ({*identity[train], *source[train]} - {""})
        apart = [row for row in range(len(frame)) if not shown & {identity[row], source[row]}]
        assert train.tolist() == apart, "and nobody else is left out"


def test_rows_say_on_what_they_rest(frame):
    table = probes({"planted": one_hot(frame["forgery"])}, frame, folds=4).set_index("target")
    assert list(table.index) == ["label", "forgery", "gender", "race", "group"], "one data set: nothing to tell apart"
    assert table.loc["forgery", ["classes", "n", "identities"]].tolist() == [2, 160, 80], "fakes alone"
    assert table.loc["label", ["classes", "n", "identities"]].tolist() == [2, 320, 80]
    assert table.loc["label", "accuracy"] > 0.99


def test_spread_is_that_of_the_folds(frame):
    feature, target = one_hot(frame["race"], noise=1.0), frame["race"].to_numpy()
    splits = identity_folds(target, ("ffpp/" + frame["identity"]).to_numpy(str), np.full(len(frame), ""), 5, 7)
    fold = linear_probe(feature, target, splits)
    row = probes({"x": feature}, frame.drop(columns="source_identity"), ["race"], seed=7).iloc[0]
    assert row["accuracy"] == fold.mean() and row["sd"] == np.std(fold, ddof=1)


def test_rare_classes_weigh_as_much_as_common_ones():
    # One in ten, one standard deviation apart: the middle between them is right in 69 % of both. Unweighted, hardly
    # any would be called rare (the odds of 9 put the threshold at 2.7), and the mean recall would be 52 %.
    target = np.repeat(["common"] * 9 + ["rare"], 40)
    feature = np.random.default_rng(0).normal(size=(400, 1)) + (target == "rare")[:, None]
    fold = linear_probe(feature, target, identity_folds(target, np.arange(400).astype(str), np.full(400, "")))
    assert fold.mean() == pytest.approx(0.69, abs=0.08)


def test_the_same_name_in_two_data_sets_is_two_people():
    frame = people(identities=16, datasets=("ffpp", "dfd"))
    table = probes({"planted": one_hot(frame["dataset"])}, frame, ["dataset", "gender"], folds=4).set_index("target")
    assert table.loc["dataset", "identities"] == 32
    assert table.loc["dataset", "accuracy"] > 0.99


def test_too_few_people_are_refused():
    frame = people(identities=16)
    with pytest.raises(ValueError, match="5 identities each; there are female-asian: 2"):
        probes({"x": np.zeros((len(frame), 2))}, frame, ["group"])
    with pytest.raises(ValueError, match="two classes"):
        identity_folds(np.zeros(8), np.arange(8).astype(str), np.full(8, ""))


# Embeddings


def test_pca_is_the_singular_value_decomposition():
    random = np.random.default_rng(0)
    feature = random.normal(size=(50, 6)) @ random.normal(size=(6, 6)) + 5
    standard = (feature - feature.mean(0)) / feature.std(0)
    left, sizes, _ = np.linalg.svd(standard, full_matrices=False)
    table = embed(feature, "pca")
    np.testing.assert_allclose(np.abs(table), np.abs(left[:, :2] * sizes[:2]), atol=1e-9)
    share = (sizes[:2] ** 2).sum() / (sizes**2).sum()
    assert table.attrs["words"] == f"PCA, {share:.0%} of the variance"


def test_tsne_keeps_clusters_apart_and_repeats_itself():
    random = np.random.default_rng(0)
    which = np.arange(60) % 3
    feature = random.normal(size=(60, 5)) + 20 * np.eye(5)[which]
    table = embed(feature, "tsne", seed=1)
    pd.testing.assert_frame_equal(embed(feature, "tsne", seed=1), table)
    points = table.to_numpy()
    centres = np.stack([points[which == k].mean(0) for k in range(3)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(1)
    assert (nearest == which).all()


def test_unknown_embeddings_are_refused():
    with pytest.raises(ValueError, match="'umap' is unknown; choose one of pca, tsne"):
        embed(np.zeros((9, 3)), "umap")


def test_a_fold_with_one_class_to_train_on_is_left_out_and_a_table_without_targets_has_its_columns(frame):
    feature, target = one_hot(list("aabb")), np.array(list("aabb"))
    folds = [(np.array([0, 1]), np.array([2, 3])), (np.array([0, 2]), np.array([1, 3]))]
    assert linear_probe(feature, target, folds).tolist() == [1.0]
    found = probes({"feature": one_hot(frame["group"])}, frame.head(0), [])
    assert found.empty and {"feature", "target", "accuracy", "chance"} <= {*found}
