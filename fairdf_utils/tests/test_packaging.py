"""The two descriptions of the environment agree, and the import arrows point one way."""

import ast
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fairdf_utils"

# Lowest first: a module may import only from modules of lower rank.
ARROWS = [
    {"files", "processes", "progress", "timing"},
    {"manifests", "book", "scores"},
    {"renderer", "notebooks"},
    {"forgery", "plan"},
    {"synthetic", "reproduce"},
    {"data", "fairness", "encoders", "sam"},
    {"model", "resampling"},
    {"losses"},
    {"evaluation", "methods"},
    {"training", "released"},
    {"plots", "straightforward"},
    {"benchmark_network"},
    {"benchmark"},
    {"__main__"},
]
RANK = {module: rank for rank, level in enumerate(ARROWS) for module in level}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def test_environment_yml_repeats_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    extras = project["optional-dependencies"]
    assert f"python{project['requires-python']}" in environment
    assert sorted(pip) == sorted([*project["dependencies"], *extras["test"], *extras["book"], "--editable ."])


def imported_modules(path: Path) -> set[str]:
    """Modules of this package that a file imports when it is itself imported."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module == "fairdf_utils":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fairdf_utils."):
            names.add(node.module.split(".")[1])
    return names


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    lower = {name for name in RANK if RANK[name] < RANK[module]}
    assert imported_modules(PACKAGE / f"{module}.py") <= lower
