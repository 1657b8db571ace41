"""Post-processing against brute force and fairlearn; fitted on validation alone, whatever the test table holds."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from fairlearn.postprocessing import ThresholdOptimizer
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator

from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.fairness import metrics, postprocessing, thresholds
from fairdf_utils.fairness.resampling import Settings
from fairdf_utils.fairness.score_table import ScoreTableError
from fairdf_utils.fairness.uncertainty import paired_difference
from fairdf_utils.tests.fairness.score_tables import planted_table, score_table, video_table

USED = Settings(resamples=50, threshold=0.4)
PEERS = ["equal FPR", "best worst group"]
unit = st.floats(0, 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(unit | st.sampled_from([1e-30, 1e-20]), min_size=1, max_size=20), unit)
def test_scores_moved_to_one_half_decide_and_rank_as_before(score, threshold):
    score = np.sort(score)
    moved = postprocessing.at_half(score, threshold)
    np.testing.assert_array_equal(moved >= 0.5, score >= threshold)
    assert (np.diff(moved) >= 0).all() and ((moved >= 0) & (moved <= 1)).all()
    if 1e-6 < threshold < 1 - 1e-6:  # beyond, moved scores are closer than numbers can be
        assert (np.diff(moved)[np.diff(score) > 1e-6] > 0).all()


def test_a_threshold_of_one_half_changes_no_score():
    score = np.linspace(0, 1, 21)
    np.testing.assert_allclose(postprocessing.at_half(score, 0.5), score, atol=1e-11)


three_groups = st.lists(st.tuples(st.sampled_from(GROUPS[:3]), st.integers(0, 1), st.integers(0, 10)), max_size=12).map(
    lambda rows: rows + [(group, label, 4 + label) for group in GROUPS[:3] for label in (0, 1)]
)


@settings(max_examples=60, deadline=None)
@given(three_groups, st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]))
def test_the_worst_group_is_the_best_of_all_thresholds(rows, threshold):
    group, label, score = zip(*rows, strict=True)
    table = score_table(group, label, np.array(score) / 10)
    fakes = table["label"] == 1
    options = {}  # group -> (fakes found, accuracy) at each threshold
    for name, part in table.groupby("group"):
        curve = thresholds.metrics_by_threshold(part)
        hits = curve["tpr"] * (part["label"] == 1).sum()
        options[name] = list(zip(hits.round(), (curve["tpr"] + 1 - curve["fpr"]) / 2, strict=True))
    floor = (fakes & (table["score"] >= threshold)).sum()
    every = [np.array(each) for each in product(*options.values())]
    allowed = [each for each in every if each[:, 0].sum() >= floor]

    fitted = postprocessing.fit_worst_group(table, "group", threshold)
    rates = metrics.group_rates(table, "group", fitted)
    accuracy, hits = (rates["tpr"] + rates["tnr"]) / 2, (rates["tpr"] * rates["n_fake"]).sum().round()
    assert hits >= floor
    assert accuracy.min() == pytest.approx(max(each[:, 1].min() for each in allowed))
    # as many fakes for as little worse an answer, nothing else is more accurate in sum
    alike = [each for each in every if each[:, 0].sum() >= hits and each[:, 1].min() >= accuracy.min() - 1e-12]
    assert accuracy.sum() == pytest.approx(max(each[:, 1].sum() for each in alike))


def test_a_group_of_one_class_has_no_accuracy():
    table = score_table(["male-white"] * 2 + ["male-black"] * 2, [0, 1, 0, 0], [0.1, 0.9, 0.2, 0.3])
    with pytest.raises(ScoreTableError, match="male-black.*one class"):
        postprocessing.fit_worst_group(table)


class AsScored(BaseEstimator):
    """What fairlearn takes for a fitted model whose scores are its only column."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def predict(self, X):
        return np.asarray(X)[:, 0]


@pytest.mark.filterwarnings("ignore:.*prefit.*")  # fairlearn fits a copy and then doubts it
def test_equal_alarms_are_those_of_fairlearn_where_it_draws_no_lots():
    """Ten real images in each group and a concave ROC curve: a FPR of k / 10 is a corner of every curve."""
    real, parts = np.arange(10) / 10, []
    for group, lift, count in zip(GROUPS[:3], (0.02, 0.07, 0.04), (20, 30, 40), strict=True):
        fake = np.repeat(real[::-1] + lift, np.linspace(0, count, 10).astype(int)[::-1] + 1)
        parts.append(score_table([group] * 10, [0] * 10, real))
        parts.append(score_table([group] * len(fake), [1] * len(fake), fake))
    table = pd.concat(parts, ignore_index=True)
    optimizer = ThresholdOptimizer(
        estimator=AsScored(), constraints="false_positive_rate_parity", objective="balanced_accuracy_score",
        grid_size=10, predict_method="predict",
    )  # fmt: skip
    features = table[["score"]].to_numpy()
    optimizer.fit(features, table["label"], sensitive_features=table["group"])
    called = optimizer._pmf_predict(features, sensitive_features=table["group"])[:, 1]
    at = called[table["label"] == 0].mean()
    own = thresholds.fit_group_thresholds(table, "group", "fpr", at + 1e-9)
    assert 0 < at < 1
    np.testing.assert_allclose(called, table["score"] >= table["group"].map(own))


@pytest.fixture(scope="module")
def two_tables():
    counts = dict.fromkeys(GROUPS, (15, 15))
    raised = GROUPS[:2]
    return planted_table(counts, raised, 1), planted_table(counts, raised, 2).assign(
        img_path=lambda each: each.index.astype(str), dataset="ffpp"
    )


def test_the_labels_of_the_test_table_decide_nothing(two_tables):
    validation, test = two_tables
    peers, borrowed = postprocessing.table_peers(validation, test, "group", USED)
    turned, _ = postprocessing.table_peers(validation, test.assign(label=1 - test["label"]), "group", USED)
    assert list(peers) == PEERS and borrowed == []
    for name, peer in peers.items():
        np.testing.assert_array_equal(peer["score"], turned[name]["score"])
        part, _ = postprocessing.table_peers(validation, test.iloc[::7], "group", USED)
        np.testing.assert_array_equal(peer["score"].iloc[::7], part[name]["score"])


def test_peers_decide_at_one_half_as_their_thresholds_do(two_tables):
    validation, test = two_tables
    peers, _ = postprocessing.table_peers(validation, test, "group", USED)
    fpr = metrics.overall_metrics(validation, USED.threshold)["fpr"]
    fitted = {
        "equal FPR": thresholds.fit_group_thresholds(validation, "group", "fpr", fpr),
        "best worst group": postprocessing.fit_worst_group(validation, "group", USED.threshold),
    }
    for name, own in fitted.items():
        expected, found = metrics.group_rates(test, "group", own), metrics.group_rates(peers[name], "group")
        pd.testing.assert_frame_equal(found, expected)  # the AUC of a group, too


def test_groups_that_validation_lacks_keep_the_threshold_in_use_and_are_named(two_tables):
    validation, test = two_tables
    few = validation["video"].str.startswith(f"{GROUPS[1]}/1/") & ~validation["video"].str.fullmatch(".*/1/[0-8]")
    validation = validation[(validation["group"] != GROUPS[0]) & ~few]  # none of one group, nine fake videos of another
    peers, borrowed = postprocessing.table_peers(validation, test, "group", USED)
    assert borrowed == list(GROUPS[:2])
    for peer in peers.values():
        kept = test["group"].isin(borrowed)
        np.testing.assert_array_equal((peer["score"] >= 0.5)[kept], (test["score"] >= 0.4)[kept])
    _, of_all = postprocessing.table_peers(validation.assign(group="x"), test.assign(group="x"), "group", USED)
    assert of_all == []


def test_nothing_is_fitted_where_every_group_is_too_small(two_tables):
    with pytest.raises(ScoreTableError, match="no group of 'group' has 10 clusters .video.*Give more"):
        postprocessing.table_peers(video_table(9), two_tables[1], "group", USED)


def test_equal_scores_stay_equal_decisions(two_tables):
    validation, test = (table.assign(score=0.7) for table in two_tables)
    for peer in postprocessing.table_peers(validation, test, "group", USED)[0].values():
        assert peer["score"].between(0.5, 1).all(), "at one half all were called fake, and still are"


def test_what_a_peer_changes_is_a_paired_difference(two_tables):
    validation, test = two_tables
    peers, _ = postprocessing.table_peers(validation, test, "group", USED)
    found = postprocessing.changes(test, peers, "group", USED).set_index(["peer", "metric"])
    assert list(found.index.unique("peer")) == PEERS
    for name, peer in peers.items():
        expected = paired_difference(peer, test, "group", replace(USED, threshold=0.5), threshold_b=0.4)
        assert found.loc[name, "estimate"].equals(expected["estimate"].loc[list(postprocessing.SHOWN)])
        given = metrics.overall_metrics(test, 0.4)[["auc", "fpr", "tpr"]]
        np.testing.assert_allclose(found.loc[name, "given"][given.index], given)
    assert found["estimate"].equals((found["processed"] - found["given"]).rename("estimate"))
    assert found.loc[("equal FPR", "fpr_sum"), "high"] < 0, "a planted difference of many videos is mended"


def released_weights(inputs, called, group, weight):
    """Fair-FLIP at strength 1, written out: a loop over classes, groups and inputs."""
    spread = np.array(
        [
            [np.mean([np.std(inputs[(called == c) & (group == g), d]) for g in np.unique(group)]) for d in range(4)]
            for c in (0, 1)
        ]
    )
    relative = (spread - spread.min()) / (spread.max() - spread.min())
    return weight * (1 + 1 - 2 * relative)


def test_fair_flip_scales_the_final_layer_by_what_varies_inside_groups(two_tables):
    validation, test = two_tables
    rng = np.random.default_rng(0)
    inputs = tuple(rng.normal(table[["label"]], [0.1, 1, 2, 3], (len(table), 4)) for table in two_tables)
    layer = rng.normal(size=(2, 4)), rng.normal(size=2)
    found = postprocessing.prioritised(validation, test, inputs, layer, "group", USED)
    called = (validation["score"] >= 0.4).astype(int).to_numpy()
    logits = inputs[1] @ released_weights(inputs[0], called, validation["group"].to_numpy(), layer[0]).T + layer[1]
    expected = (logits[:, 1] - logits[:, 0]).argsort()
    assert (np.diff(found["score"].to_numpy()[expected]) >= 0).all(), "one threshold was moved, no more"
    of_itself = postprocessing.prioritised(validation, validation, (inputs[0],) * 2, layer, "group", USED)
    fpr = [metrics.overall_metrics(validation, 0.4)["fpr"], metrics.overall_metrics(of_itself)["fpr"]]
    assert 0 <= fpr[0] - fpr[1] < 2 / 360, "as many false alarms on validation, to one image of 360"


def test_an_input_that_varies_most_is_ignored_and_equal_ones_stay(two_tables):
    validation, test = two_tables
    alike = tuple(np.repeat(table[["score"]].to_numpy(), 2, axis=1) for table in two_tables)
    layer = np.array([[0.0, 0.0], [3.0, 3.0]]), np.zeros(2)
    for inputs in (alike, tuple(each * [1, 0] for each in alike), tuple(0 * each for each in alike)):
        found = postprocessing.prioritised(validation.assign(score=0.0), test, inputs, layer, "group", USED)
        assert found["score"].between(0, 1).all(), "a class that nothing is called, inputs that are constant"


@pytest.mark.parametrize("informed", [False, True])
def test_a_remapping_mends_what_the_embedding_tells_and_nothing_else(two_tables, informed):
    rng, (validation, test) = np.random.default_rng(0), two_tables
    codes = [np.eye(8)[[list(GROUPS).index(group) for group in table["group"]]] for table in two_tables]
    noise = [rng.normal(size=each.shape) for each in codes]
    embeddings = [each + 0.1 * other if informed else other for each, other in zip(codes, noise, strict=True)]
    found = postprocessing.remapped(validation, test, embeddings, USED)
    rows = postprocessing.changes(test, {"remapped": found}, "group", USED).set_index("metric")
    assert abs(rows.loc["fpr", "estimate"]) < 0.05, "as many false alarms as the detector as given"
    gap = rows.loc["fpr_sum"]
    assert gap["high"] < 0 and rows.loc["auc", "estimate"] > 0 if informed else gap["low"] < 0 < gap["high"]
    turned = postprocessing.remapped(validation, test.assign(label=1 - test["label"]), embeddings, USED)
    np.testing.assert_array_equal(turned["score"], found["score"])


def test_a_remapping_needs_clusters_of_both_classes(two_tables):
    validation = two_tables[0].query("label == 0 or video.str.endswith('/1')")
    with pytest.raises(ScoreTableError, match="Nothing can be fitted: in validation"):
        postprocessing.remapped(validation, two_tables[1], (np.zeros((len(validation), 2)), np.zeros((720, 2))), USED)
