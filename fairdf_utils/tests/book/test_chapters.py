"""The chapters, the parameter files and the package speak of the same parameters."""

from dataclasses import fields
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")
from fairdf_utils.book.parameters import read_plan, read_plans  # noqa: E402
from fairdf_utils.model.config import TrainingConfig  # noqa: E402

NOTEBOOKS = Path(__file__).parents[3] / "notebooks"
CHAPTERS = sorted(NOTEBOOKS.glob("0*.py"))


def parameters_of(chapter):
    """The values of a chapter's `parameters` cell."""
    cells = [c for c in jupytext.read(chapter).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1, f"{chapter.name} has {len(cells)} parameters cells"
    namespace = {}
    exec(cells[0].source, namespace)
    return {name: value for name, value in namespace.items() if not name.startswith("__")}


def test_the_five_chapters_of_the_paper_come_first_and_no_number_twice():
    numbers = [chapter.stem[:2] for chapter in CHAPTERS]
    assert numbers[:5] == ["01", "02", "03", "04", "05"] and len(set(numbers)) == len(numbers)


def test_training_chapter_declares_every_field_of_the_configuration():
    declared = parameters_of(NOTEBOOKS / "03_sam_training.py")
    assert {field.name for field in fields(TrainingConfig)} <= set(declared)
    TrainingConfig(**{field.name: declared[field.name] for field in fields(TrainingConfig)})


def test_a_parameter_has_one_default_in_all_chapters():
    seen = {}
    for chapter in CHAPTERS:
        for name, value in parameters_of(chapter).items():
            assert seen.setdefault(name, value) == value, f"{name} in {chapter.name}"


def configurations(params):
    """Of every training that a shipped parameters file asks for, by its folder."""
    names, found = [field.name for field in fields(TrainingConfig)], {}
    for world, plan in read_plans(params, NOTEBOOKS).items():
        for step in plan.steps:
            if step.chapter.name == "03_sam_training":
                found[world, step.repetition] = TrainingConfig(**{name: step.values[name] for name in names})
    return found


@pytest.mark.parametrize("path", sorted((NOTEBOOKS / "params").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_parameters_file_asks_for_trainings_that_are_accepted(path):
    assert configurations(path)


@pytest.mark.parametrize(
    ("params", "fidelity", "precision"), [("gpu", "corrected", "auto"), ("paper", "official", "float32")]
)
def test_the_parameters_for_real_corpora_are_the_papers(params, fidelity, precision):
    for config in configurations(params).values():
        given = {"fidelity": fidelity, "precision": precision}
        free = ("detector", "method", "seed", "sam", "checkpoint_activations")  # the last changes memory alone
        given |= {name: getattr(config, name) for name in free}
        assert config == TrainingConfig(**given)
    steps = read_plan(params, NOTEBOOKS).steps
    assert [step.corpus for step in steps if step.corpus] == ["ffpp", "dfdc", "celebdf", "dfd"]


def test_the_papers_peers_are_those_it_compares_with():
    assert {config.detector: (config.method, config.sam) for config in configurations("paper").values()} == {
        **{name: (name, False) for name in ("ori", "dag_fdd", "daw_fdd", "ucf")},
        "fairdf-nosam": ("fairdf", False), "fairdf": ("fairdf", True),
    }  # fmt: skip
