"""The chapters, the parameter files and the package speak of the same parameters."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

jupytext = pytest.importorskip("jupytext")
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


@pytest.mark.parametrize("profile", ["cpu", "seeds", "gpu", "ablation"])
def test_profile_holds_known_parameters_of_the_right_type(profile):
    given = yaml.safe_load((NOTEBOOKS / "params" / f"{profile}.yaml").read_text())
    declared = {}
    for chapter in CHAPTERS:
        declared |= parameters_of(chapter)
    settings = [given | line for line in given.pop("grid")]
    for setting in settings:
        for reserved in ("grid", "seeds", "jobs"):
            setting.pop(reserved, None)
        for name, value in setting.items():
            assert name in declared, f"{profile}.yaml: no chapter declares {name}"
            assert type(value) is type(declared[name]), f"{profile}.yaml: {name} is {value!r}"
        training = {field.name: setting.get(field.name, declared[field.name]) for field in fields(TrainingConfig)}
        TrainingConfig(**training)


def test_gpu_profile_is_the_papers_configuration():
    given = yaml.safe_load((NOTEBOOKS / "params/gpu.yaml").read_text())
    paper = TrainingConfig()
    for field in fields(TrainingConfig):
        if field.name in given and field.name != "precision":  # the paper's authors do not mention bf16
            assert given[field.name] == getattr(paper, field.name), field.name
