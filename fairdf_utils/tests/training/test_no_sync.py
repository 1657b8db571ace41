"""A training step never makes the host wait for the device: nothing is read back."""

import numpy as np
import pytest
import torch

from fairdf_utils.data.batches import batches, epoch_pairs, group_sizes
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.training.loop import Training, batch_step

READING = ("item", "cpu", "tolist", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__", "__array__")


@pytest.fixture
def make_step(corpus, training_set, validation_set, tmp_path):
    """A function that takes the next step of a SAM training of the paper's method, on a batch drawn beforehand."""

    def make(device, fidelity):
        config = TrainingConfig(
            backbone="tiny", weights="", image_size=16, width=16, reconstruction_size=16, fidelity=fidelity
        )
        training = Training(
            config, training_set, validation_set, tmp_path / "run", corpus / "images", tmp_path, torch.device(device)
        )
        pairs = epoch_pairs(training_set, "natural", np.random.default_rng(0))
        batch = next(batches(training_set, training.train_images, pairs, 8, training.device))
        counts = torch.from_numpy(group_sizes(training_set)).to(device)
        return training.model, lambda: batch_step(config, training.model, training.optimizer, batch, 0, counts)

    return make


def refuse(*_, **__):
    raise AssertionError("a tensor is read back to the host")


@pytest.mark.parametrize("fidelity", ["corrected", "official"])
def test_a_step_reads_nothing_back(make_step, fidelity, monkeypatch):
    model, step = make_step("cpu", fidelity)
    before = [p.clone() for p in model.parameters()]
    with monkeypatch.context() as patch:
        for name in READING:
            patch.setattr(torch.Tensor, name, refuse)
        with pytest.raises(AssertionError, match="read back"):
            torch.rand(1).item()  # the guard notices a reading
        terms = step()
    assert len(terms) == 6 and all(term.isfinite() for term in terms.values())
    assert any(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fidelity", ["corrected", "official"])
def test_a_step_never_waits_for_the_gpu(make_step, fidelity):
    _, step = make_step("cuda", fidelity)
    step()  # warm: the first step may wait for libraries to load
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
