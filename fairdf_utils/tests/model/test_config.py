"""The configuration refuses in one sentence what it cannot mean."""

from dataclasses import asdict, replace

import pytest

from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.tests.small import small


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("method", "fair", "choose one of ori, balanced, dag_fdd, daw_fdd, ucf, fairdf"),
        ("optimizer", "adam", "choose one of sgd, adamw"),
        ("fidelity", "exact", "choose one of corrected, official"),
        ("initialisation", "zeros", "choose one of default, kaiming"),
        ("fairness_loss", "mean", "choose one of group_cvar, cross_entropy"),
        ("precision", "fp16", "choose one of float32, bfloat16, auto"),
        ("micro_batch", -1, "micro_batch is -1; give a number at least 0"),
        ("epochs", 0, "epochs is 0; give a number at least 1"),
        ("lr", "5e-4", r"lr is '5e-4'; give a number \(YAML reads 5e-4 as a text; write 5.0e-4\)"),
        ("lr", float("nan"), "lr is nan; give a finite number"),
        ("lr", 0.0, "lr is 0.0; give a number above 0"),
        ("alpha_in", 0.0, "alpha_in is 0.0; give a number above 0 and at most 1"),
        ("logit_dropout", 1.5, "logit_dropout is 1.5; give a number at least 0 and at most 1"),
        ("reconstruction_share", 1.5, "reconstruction_share is 1.5; give a number at least 0 and at most 1"),
        ("epochs", 2.5, "epochs is 2.5; give a whole number"),
        ("epochs", True, "epochs is True; give a whole number"),
        ("sam", "yes", "sam is 'yes'; give True or False, without quotes"),
        ("weights", None, "weights is None; give a text"),
        ("width", 20, "width is 20; give a multiple of 8"),
    ],
)
def test_wrong_values_are_refused_with_a_remedy(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(small(), **{field: value})


def test_whole_numbers_are_numbers():
    assert repr(small(rho=1).rho) == "1.0"


def test_defaults_are_the_papers():
    paper = asdict(TrainingConfig())
    assert (paper["lr"], paper["momentum"], paper["weight_decay"], paper["rho"]) == (5e-4, 0.9, 5e-3, 0.05)
    assert (paper["epochs"], paper["batch_size"], paper["image_size"]) == (100, 16, 256)


def test_weights_of_the_terms_are_the_papers():
    terms = ("agnostic", "specific", "reconstruction", "contrastive", "demographic", "fairness", "detection")
    assert [TrainingConfig().weight(term) for term in terms] == [1.0, 0.1, 0.3, 0.05, 0.1, 1.0, 1.0]
    assert small(weight_fairness=0.0).weight("fairness") == 0
