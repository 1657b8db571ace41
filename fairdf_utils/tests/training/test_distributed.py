"""Two processes with half of every batch each train what one process trains."""

import re
import subprocess
import sys

import pandas as pd
import pytest
import torch

from fairdf_utils.__main__ import main
from fairdf_utils.model.stored import load_detector
from fairdf_utils.tests.training.spread_training import trained
from fairdf_utils.training import distributed

CPU = torch.device("cpu")


def spread(corpus, folder, data_dir, kind):
    """Train with two processes; the history that process 0 wrote."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = ["-m", "fairdf_utils.tests.training.spread_training", str(corpus), str(folder), str(data_dir), kind]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("epoch   1/") == 1, "one process prints"
    return pd.read_csv(folder / "history.csv")


def test_two_processes_take_the_same_steps(corpus, tmp_path):
    """SAM, all losses that compare images, AUC and fairness, the two in micro-batches: equal but for float32 sums."""
    history = spread(corpus, tmp_path / "two", tmp_path / "data", "exact")
    one = trained(corpus, tmp_path / "one", tmp_path / "data", exact=True)
    expected = pd.DataFrame(one.history)
    for column in expected.columns.drop(["seconds", "images_per_second"]):
        assert history[column].to_numpy() == pytest.approx(expected[column].to_numpy(), rel=1e-4, abs=1e-5), column
    together = torch.load(tmp_path / "two/last.pt", weights_only=True)["model"]
    for name, weight in one.model.state_dict().items():
        assert torch.allclose(together[name], weight, rtol=1e-3, atol=1e-5), name


def test_two_processes_with_batch_norm_and_dropout_stay_close(corpus, tmp_path):
    """Own batch statistics and dropout masks of each half: within 15 % of the loss, 0.05 of the AUC."""
    history = spread(corpus, tmp_path / "two", tmp_path / "data", "as it is")
    expected = pd.DataFrame(trained(corpus, tmp_path / "one", tmp_path / "data", exact=False).history)
    assert history["loss"].to_numpy() == pytest.approx(expected["loss"].to_numpy(), rel=0.15)
    assert history["val_auc"].iloc[-1] == pytest.approx(expected["val_auc"].iloc[-1], abs=0.05)


def test_one_process_gathers_what_it_has():
    rows = torch.arange(6.0, requires_grad=True)
    assert distributed.all_gather(rows) is rows
    assert distributed.all_gather_object(rows) == [rows]
    assert distributed.world_size() == 1 and distributed.rank() == 0
    assert distributed.init_process_group(CPU) == CPU


def test_torchrun_trains_a_detector_of_a_parameters_file(tmp_path, corpus):
    """The command `train`, with the chapter's own parameters where the file says nothing."""
    (tmp_path / "small.yaml").write_text(
        f"""
manifests: {corpus}/manifests
image_root: {corpus}/images
data_dir: {tmp_path}/data
backbone: tiny
weights: ""
frozen_stages: 0
image_size: 16
width: 16
batch_size: 8
epochs: 1
seeds: [3]
grid:
  - {{detector: mine, method: daw_fdd, sam: false}}
"""
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "fairdf_utils", "train", "--params", str(tmp_path / "small.yaml"), "--detector", "mine"]
    command += ["--seed", "3", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    detector, config = load_detector(tmp_path / "run/03_sam_training/mine-s3/best.safetensors", CPU)
    assert (config.method, config.seed, config.epochs, config.optimizer) == ("daw_fdd", 3, 1, "adamw")


def test_a_detector_that_the_file_does_not_ask_for_is_refused(tmp_path, capsys):
    assert main(["train", "--params", "cpu", "--run", str(tmp_path), "--detector", "none"]) == 2
    assert re.search("does not ask for 03_sam_training/none-s0; it asks for .*fairdf-s0", capsys.readouterr().err)
