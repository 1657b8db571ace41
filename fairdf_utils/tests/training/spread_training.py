"""Run by torchrun in test_distributed.py: one training on the small corpus."""

import sys
from dataclasses import replace
from pathlib import Path

from torch import nn

from fairdf_utils.data.manifests import read_split
from fairdf_utils.model.detectors import build
from fairdf_utils.tests.training.test_loop import CPU, SMALL
from fairdf_utils.training import loop as training

EXACT = replace(SMALL, logit_dropout=0.0, reconstruction_share=0.0, optimizer="sgd", lr=1e-2, epochs=2)
"""No dropout: masks are drawn by each process for its own share."""


def build_without_batch_norms(config, groups):
    """Every batch norm is a norm of each image by itself: on CPUs a process would normalise by its own share only."""
    model = build(config, groups)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            model.set_submodule(name, nn.GroupNorm(1, module.num_features))
    return model


def trained(corpus, folder, data_dir, exact, **options):
    sets = [read_split(corpus / "manifests/ffpp", split) for split in ("train", "val")]
    training.build = build_without_batch_norms if exact else build
    config = replace(EXACT if exact else SMALL, **options)
    attempt = training.Training(config, *sets, folder, corpus / "images", data_dir, CPU)
    training.build = build
    attempt.run()
    return attempt


if __name__ == "__main__":
    exact = sys.argv[4] == "exact"
    trained(*map(Path, sys.argv[1:4]), exact, micro_batch=3 * exact)  # of 4 pairs that each process has
