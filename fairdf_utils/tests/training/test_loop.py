"""Training is deterministic, resumes exactly after a kill, and refuses what it cannot go on with."""

import copy
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from fairdf_utils.data.batches import batches, epoch_pairs, to_device
from fairdf_utils.evaluation.scoring import predict, score_test_sets
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.model.losses import cross_entropy, group_cvar
from fairdf_utils.model.stored import load_detector
from fairdf_utils.training import loop as training
from fairdf_utils.training.loop import Training, TrainingError

CPU = torch.device("cpu")
SMALL = TrainingConfig(
    backbone="tiny", weights="", image_size=16, width=16, reconstruction_size=16, epochs=3, batch_size=8,
    optimizer="adamw", lr=1e-2, schedule="cosine", logit_dropout=0.2, initialisation="kaiming", margin_scale=5.0,
)  # fmt: skip
TIMES = ["seconds", "images_per_second"]


@pytest.fixture
def start(corpus, training_set, validation_set, tmp_path):
    """Set a training up; `folder` keeps runs apart."""

    def set_up(config=SMALL, folder="a"):
        image_root = corpus / "images"
        return Training(config, training_set, validation_set, tmp_path / folder, image_root, tmp_path / "data", CPU)

    return set_up


def assert_same_weights(a, b):
    for (name, one), other in zip(a.model.state_dict().items(), b.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


FAIR_TERMS = {"agnostic", "specific", "reconstruction", "contrastive", "demographic", "fairness"}


@pytest.mark.parametrize(
    "options, terms",
    [
        ({"method": "ori", "sam": False}, {"detection"}),
        ({"method": "balanced", "sam": False}, {"detection"}),
        ({"method": "dag_fdd", "sam": False}, {"detection"}),
        ({"method": "daw_fdd", "sam": False}, {"detection"}),
        ({"method": "ucf", "sam": False}, FAIR_TERMS - {"demographic", "fairness"}),
        ({"sam": False, "sampling": "balanced", "mixing": "across_groups"}, FAIR_TERMS),
        ({"sam": False}, FAIR_TERMS),
        ({"sam": True}, FAIR_TERMS),
        ({"fidelity": "official"}, FAIR_TERMS),
        ({"demographic_branch": False}, FAIR_TERMS - {"demographic"}),
        ({"fairness_loss": "cross_entropy"}, FAIR_TERMS),
        ({"reconstruction_share": 0.0}, FAIR_TERMS - {"reconstruction"}),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_every_method_and_ablation_learns_the_easy_corpus(start, options, terms):
    attempt = start(replace(SMALL, epochs=4, **options))
    history = attempt.run()
    assert {name.removeprefix("loss_") for name in history if name.startswith("loss_")} == terms
    assert history["val_auc"].max() > 0.95
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    published, _ = load_detector(attempt.folder / "best.safetensors", CPU)
    assert type(published) is type(attempt.model)


@pytest.mark.parametrize("options", [{}, {"fidelity": "official"}, {"method": "daw_fdd", "sam": False}])
@pytest.mark.parametrize("scheme", [("old", "young", "younger"), tuple("abcdefghijkl")])
def test_groups_of_ones_own_are_trained_and_stored(corpus, training_set, validation_set, tmp_path, scheme, options):
    """A scheme without gender and race, shorter or longer than the eight."""
    sets = [
        frame.drop(columns=["gender", "race"]).assign(group=[scheme[row % len(scheme)] for row in range(len(frame))])
        for frame in (training_set, validation_set)
    ]
    config = replace(SMALL, epochs=1, **options)
    attempt = Training(config, *sets, tmp_path / "own", corpus / "images", tmp_path / "data", CPU)
    assert np.isfinite(attempt.run().iloc[0]["loss"])
    published, _ = load_detector(attempt.folder / "best.safetensors", CPU)
    with safe_open(attempt.folder / "best.safetensors", "pt") as file:
        assert json.loads(file.metadata()["config"])["groups"] == list(scheme)
    if config.method == "fairdf":
        assert published.demographic_head(torch.zeros(1, 8, 8, 8)).logits.shape == (1, len(scheme))
    scores = score_test_sets(
        published, {"ffpp": sets[1].assign(age="7", dataset="ffpp")}, tmp_path, corpus / "images", 16, tmp_path / "data"
    )
    assert set(scores["group"]) == set(scheme) and set(scores["age"]) == {"7"} and "race" not in scores


def test_validation_groups_outside_the_training_scheme_are_refused(corpus, training_set, validation_set, tmp_path):
    other = validation_set.assign(group="old")
    with pytest.raises(TrainingError, match=r"lacks: old; give both sets groups of one scheme"):
        Training(SMALL, training_set, other, tmp_path / "own", corpus / "images", tmp_path / "data", CPU)


def test_plain_peers_minimise_their_own_risk(start):
    """On one batch: dag_fdd is the mean of the worst half, daw_fdd the worst half of the groups' worst nine tenths."""
    values = {}
    for method in ("ori", "dag_fdd", "daw_fdd"):
        attempt = start(replace(SMALL, method=method, logit_dropout=0.0), method)
        pairs = epoch_pairs(attempt.train, "natural", np.random.default_rng(0))
        batch = next(batches(attempt.train, attempt.train_images, pairs, 32, CPU))
        errors = cross_entropy(attempt.model(batch.images), batch.label)
        values[method] = training.objective(attempt.config, attempt.model, batch, None, None)["detection"].item()
    assert values["ori"] == pytest.approx(errors.mean().item(), rel=1e-5)
    assert values["dag_fdd"] == pytest.approx(errors.sort(descending=True).values[:32].mean().item(), rel=1e-5)
    assert values["daw_fdd"] == pytest.approx(group_cvar(errors, batch.group).item(), rel=1e-5)


def test_the_six_terms_and_their_weights_make_the_loss(start):
    row = start().train_epoch()
    terms = {name for name in row if name.startswith("loss_")}
    names = ("agnostic", "specific", "reconstruction", "contrastive", "demographic", "fairness")
    assert terms == {f"loss_{name}" for name in names}
    assert row["loss"] == pytest.approx(sum(row[name] for name in terms))
    without = start(replace(SMALL, weight_fairness=0.0), "b").train_epoch()
    assert without["loss_fairness"] == 0


def test_same_seed_same_history_other_seed_another(start):
    first, again, other = (start(replace(SMALL, seed=seed), folder) for seed, folder in ((0, "a"), (0, "b"), (1, "c")))
    histories = [attempt.run().drop(columns=TIMES) for attempt in (first, again, other)]
    pd.testing.assert_frame_equal(histories[0], histories[1], check_exact=True)
    assert_same_weights(first, again)
    assert not histories[0].equals(histories[2])


def test_resume_between_epochs_is_exact(start):
    straight, stopped = start(folder="straight"), start(folder="stopped")
    history = straight.run()
    stopped.run(stop_after=1)
    resumed = start(folder="stopped")
    assert resumed.run().drop(columns=TIMES).equals(history.drop(columns=TIMES))
    assert_same_weights(straight, resumed)


KILLED = """
import sys
from fairdf_utils.training import loop as training
from fairdf_utils.tests.training.test_loop import CPU, SMALL
from fairdf_utils.data.manifests import read_split
from pathlib import Path

corpus, folder, data_dir = map(Path, sys.argv[1:])
step = training.training_step
steps = 0

def announce(*arguments):
    global steps
    steps += 1
    print("step", steps, flush=True)
    return step(*arguments)

training.training_step = announce
sets = [read_split(corpus / "manifests/ffpp", split) for split in ("train", "val")]
training.Training(SMALL, *sets, folder, corpus / "images", data_dir, CPU).run()
"""


def test_a_killed_run_continues_bit_for_bit(start, corpus, tmp_path):
    command = [sys.executable, "-c", KILLED, str(corpus), str(tmp_path / "killed"), str(tmp_path / "data")]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | threads)
    for line in process.stdout:
        if line.strip() == "step 7":  # the second step but one of the second epoch's four
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    straight, resumed = start(folder="straight"), start(folder="killed")
    history = straight.run()
    resumed.resume()
    assert resumed.epoch == 1, "the first epoch was saved, the second was cut short"
    assert resumed.run().drop(columns=TIMES).equals(history.drop(columns=TIMES))
    assert_same_weights(straight, resumed)


def test_published_detector_is_the_best_epoch(start, tmp_path):
    attempt = start()
    history = attempt.run()
    model, config = load_detector(tmp_path / "a/best.safetensors", CPU)
    assert config == SMALL and not model.training
    logits = predict(model, attempt.validation_images, CPU)
    auc = training.roc_auc_score(attempt.validation["label"], logits[:, 1] - logits[:, 0])
    assert auc == pytest.approx(history["val_auc"].max())


def test_history_file_holds_every_epoch(start, tmp_path):
    history = start().run()
    written = pd.read_csv(tmp_path / "a/history.csv")
    assert written.columns.tolist() == history.columns.tolist() and len(written) == SMALL.epochs


def test_a_training_of_another_configuration_is_set_aside(start, tmp_path, capsys):
    start().run(stop_after=1)
    held = (tmp_path / "a/last.pt").read_bytes()
    history = start(replace(SMALL, lr=0.02)).run()
    (aside,) = (tmp_path / "a/set_aside").iterdir()
    assert {path.name for path in aside.iterdir()} >= {"best.safetensors", "last.pt", "history.csv"}
    assert (aside / "last.pt").read_bytes() == held
    lines = [line for line in capsys.readouterr().out.splitlines() if "starts anew" in line]
    assert len(lines) == 1 and "lr 0.01 (now 0.02)" in lines[0] and str(aside) in lines[0]
    expected = start(replace(SMALL, lr=0.02), "b").run()
    pd.testing.assert_frame_equal(history.drop(columns=TIMES), expected.drop(columns=TIMES), check_exact=True)
    assert (tmp_path / "a/best.safetensors").read_bytes() == (tmp_path / "b/best.safetensors").read_bytes()


def test_a_training_by_other_code_is_set_aside(start, tmp_path, capsys, monkeypatch):
    start(SMALL, "a").run(stop_after=1)
    monkeypatch.setattr(training, "_digest_of_code", lambda: "changed since")
    assert len(start(SMALL, "a").run(stop_after=1)) == 1
    assert "other code" in capsys.readouterr().out
    assert len(list((tmp_path / "a/set_aside").iterdir())) == 1


def test_a_training_on_other_data_is_set_aside(start, training_set, validation_set, corpus, tmp_path):
    start().run(stop_after=1)
    others = training_set.iloc[:-1]
    Training(SMALL, others, validation_set, tmp_path / "a", corpus / "images", tmp_path / "data", CPU).run(1)
    assert len(list((tmp_path / "a/set_aside").iterdir())) == 1


def test_published_weights_that_are_gone_come_back_from_the_last_checkpoint_or_are_missed(start, tmp_path, monkeypatch):
    aucs = iter([0.6, 0.9, 0.7])
    monkeypatch.setattr(Training, "validate", lambda self: {"val_auc": next(aucs), "val_fpr_sum": 0.0, "val_oae": 0.0})
    published = tmp_path / "a/best.safetensors"
    start().run(stop_after=2)
    held = published.read_bytes()
    published.unlink()
    start().run(stop_after=2)
    assert published.read_bytes() == held
    start().run()
    published.unlink()
    with pytest.raises(TrainingError, match="best.safetensors is gone: it held epoch 2, last.pt holds 3. Bring it"):
        start().run()


@pytest.mark.parametrize("method", ["fairdf", "ucf", "ori"])
def test_fakes_of_unknown_forgery_are_refused_by_methods_that_name_it(corpus, training_set, tmp_path, method):
    unnamed = training_set.assign(forgery=training_set["forgery"].where(training_set["label"] == 0, "fake"))
    config, rest = replace(SMALL, method=method), (tmp_path / "a", corpus / "images", tmp_path / "data", CPU)
    if method == "ori":
        assert Training(config, unnamed, training_set, *rest).epoch == 0
        return
    with pytest.raises(TrainingError, match=rf"{method} learns to tell forgeries apart.*\(fake\).*another method"):
        Training(config, unnamed, training_set, *rest)


def truncate(path):
    path.write_bytes(path.read_bytes()[:1000])


def replace_by_text(path):
    path.write_bytes(b"not a checkpoint")


def replace_by_weights(path):
    torch.save({"weight": torch.zeros(3)}, path)


@pytest.mark.parametrize("damage", [truncate, replace_by_text, replace_by_weights])
def test_damaged_checkpoint_is_refused_and_the_older_one_offered(start, tmp_path, damage):
    start().run(stop_after=1)
    last, previous = tmp_path / "a/last.pt", tmp_path / "a/previous.pt"
    damage(last)
    with pytest.raises(TrainingError, match=r"last.pt is not a whole checkpoint .*delete it to train from the start"):
        start().run()
    last.unlink()
    start().run(stop_after=2)
    damage(last)
    with pytest.raises(TrainingError, match=r"replace it by .*previous.pt, one epoch older"):
        start().run()
    previous.replace(last)
    resumed = start()
    resumed.resume()
    assert resumed.epoch == 1


def test_full_disk_keeps_the_last_checkpoint(start, monkeypatch):
    attempt = start()
    attempt.run(stop_after=1)
    save = torch.save

    def full(state, path):
        save({"half": 1}, path)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(torch, "save", full)
        with pytest.raises(OSError, match="no room left"):
            attempt.run()
    resumed = start()
    resumed.resume()
    assert resumed.epoch == 1


def test_non_finite_loss_names_epoch_step_term_and_images(start, monkeypatch, tmp_path):
    attempt = start()
    attempt.run(stop_after=1)
    objective, calls = training.objective, []

    def poisoned(config, model, batch, *rest):
        terms = objective(config, model, batch, *rest)
        calls.append(batch)
        if len(calls) == 3:  # SAM calls twice a step: the first pass of step 2
            terms["fairness"] = terms["fairness"] * float("nan")
        return terms

    monkeypatch.setattr(training, "objective", poisoned)
    with pytest.raises(TrainingError, match=r"epoch 2, step 2; the checkpoint of epoch 1 is kept in") as caught:
        attempt.run()
    assert "the loss term 'fairness' became nan" in str(caught.value)
    first_image = attempt.train["img_path"].iloc[calls[2].rows[0]]
    assert first_image in str(caught.value)
    assert torch.load(tmp_path / "a/last.pt", weights_only=True)["history"][-1]["epoch"] == 1


def test_non_finite_loss_in_the_first_epoch_promises_no_checkpoint(start, monkeypatch):
    monkeypatch.setattr(
        training, "objective", lambda config, model, *_: {"detection": next(model.parameters()).sum() * np.nan}
    )
    with pytest.raises(TrainingError, match=r"'detection' became nan in epoch 1, step 1\. Lower lr"):
        start().run()


def test_tensorboard_holds_the_history_when_asked(corpus, training_set, validation_set, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sets = (training_set, validation_set, tmp_path / "run", corpus / "images", tmp_path / "data", CPU)
    history = Training(replace(SMALL, epochs=2), *sets, tensorboard=True).run()
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    written = [event.value for event in events.Scalars("val_auc")]
    assert written == pytest.approx(history["val_auc"].tolist())


def test_bfloat16_and_sgd_with_steps_train(start):
    history = start(replace(SMALL, precision="bfloat16", optimizer="sgd", schedule="step", lr=0.02)).run()
    assert history["lr"].tolist() == [0.02] * 3, "the first 60 epochs keep the learning rate"
    assert np.isfinite(history["loss"]).all() and history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_encoding_again_trains_the_same_detector(start):
    """Both passes of SAM, dropout, running statistics; the file says how it was trained."""
    plain, again = start(), start(replace(SMALL, checkpoint_activations=True), "b")
    histories = [attempt.run(stop_after=2).drop(columns=TIMES) for attempt in (plain, again)]
    pd.testing.assert_frame_equal(*histories)
    assert_same_weights(plain, again)
    assert load_detector(again.folder / "best.safetensors", CPU)[1].checkpoint_activations


def test_micro_batches_train(start):
    """Batch norms see other images, so that nothing but learning can be asked for; bfloat16 as well."""
    history = start(replace(SMALL, micro_batch=3, precision="bfloat16")).run()
    assert history["val_auc"].max() > 0.95


def test_cosine_schedule_ends_at_zero(start):
    attempt = start()
    attempt.run()
    assert attempt.optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_unknown_backbone_names_close_matches(start):
    with pytest.raises(ValueError, match="legacy_xception"):
        start(replace(SMALL, backbone="legacy_xceptoin"))


EMBEDDED = {"backbone": "tf_efficientnet_lite0", "weights": "embedded", "frozen_stages": 2, "image_size": 64}


@pytest.mark.parametrize("options", [{}, {"demographic_branch": False}, {"method": "ori", "sam": False}])
def test_a_frozen_stem_is_shared_left_alone_and_computed_once(start, options, monkeypatch):
    config = replace(SMALL, epochs=1, **EMBEDDED, **options)
    attempt = start(config)
    stem = attempt.model.stem
    before = {name: value.clone() for name, value in stem.state_dict().items()}
    images = to_device(attempt.train_images[:5], CPU)
    torch.testing.assert_close(
        torch.from_numpy(attempt.stem_maps[:5]).permute(0, 3, 1, 2).float(), stem(images), rtol=2e-3, atol=2e-3
    )  # float16 on disk
    learnt = copy.deepcopy(attempt.model.state_dict())
    attempt.run()
    assert all(torch.equal(before[name], value) for name, value in stem.state_dict().items())
    changed = [name for name, value in attempt.model.state_dict().items() if not torch.equal(value, learnt[name])]
    assert changed and not any(name.startswith("stem.") for name in changed)
    monkeypatch.setattr(type(stem), "forward", None)  # a second training reads the map
    again = start(config, "b")
    assert np.array_equal(again.stem_maps, attempt.stem_maps)


def test_known_stem_maps_give_the_gradients_of_the_images(start):
    attempt = start(replace(SMALL, **EMBEDDED))
    pairs = epoch_pairs(attempt.train, "natural", np.random.default_rng(0))
    batch = next(batches(attempt.train, attempt.train_images, pairs, 4, CPU))
    model, known = attempt.model.eval(), attempt.model.stem(batch.images)
    for one, other in zip(vars(model(batch.images)).values(), vars(model(batch.images, known)).values(), strict=True):
        for a, b in zip(*(each if isinstance(each, tuple) else (each,) for each in (one, other)), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("found, patience, epochs", [([0.6, 0.8, 0.8, 0.7, 0.9], 2, 4), ([0.6, 0.8, 0.7, 0.9], 0, 4)])
def test_training_ends_when_the_validation_auc_is_flat(start, monkeypatch, found, patience, epochs):
    attempt = start(replace(SMALL, epochs=len(found), patience=patience, sam=False, method="ori"))
    known = {"val_fpr_sum": 0.0, "val_oae": 0.0}
    monkeypatch.setattr(attempt, "validate", lambda: {"val_auc": found[attempt.epoch], **known})
    assert len(attempt.run()) == epochs and attempt.finished
    assert len(start(attempt.config).run()) == epochs  # and once more is no more


def test_any_method_may_see_balanced_pairs(start, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "epoch_pairs", lambda *args: seen.append(args[1]) or epoch_pairs(*args))
    for options in ({}, {"sampling": "balanced"}, {"method": "balanced"}):
        start(replace(SMALL, epochs=1, sam=False, **{"method": "daw_fdd", **options}), str(options)).run()
    assert seen == ["natural", "balanced", "balanced"]
