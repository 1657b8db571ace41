"""The two descriptions of the environment agree, and the import arrows point one way."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fairdf_utils"

# Lowest first: a module may import only from modules of lower rank.
ARROWS = [
    {
        "alignment",
        "auc",
        "csv_rows",
        "encoders",
        "files",
        "front",
        "names",
        "partition",
        "plot_style",
        "processes",
        "progress",
        "renderer",
        "sam",
        "timing",
        "video",
        "workers",
    },
    {
        "benchmark_faces",
        "book",
        "boxes",
        "crop_names",
        "findings",
        "forgery",
        "layers",
        "plots_audit",
        "plots_scores",
        "plots_splits",
        "probes",
        "scores",
        "split_lists",
    },
    {"checks_images", "foreign", "notebooks", "seed_form"},
    {"manifests", "plan"},
    {
        "annotations",
        "checks_rows",
        "corpora",
        "fairness",
        "model",
        "released_scores",
        "reproduce",
        "splits",
        "synthetic",
    },
    {
        "calibration",
        "checks",
        "clusters",
        "data",
        "intervals",
        "ledger",
        "losses",
        "plots",
        "plots_faces",
        "released",
        "rendered_annotations",
        "rendered_clips",
        "thresholds",
    },
    {
        "evaluation",
        "faces",
        "landscape",
        "methods",
        "planted_flaws",
        "plots_explain",
        "power",
        "resampling",
        "straightforward",
    },
    {"explain", "gaps", "perturbations", "plots_fairness", "training", "video_corpus"},
    {"audit_findings", "benchmark_network", "predict"},
    {"audit_warnings", "benchmark_metrics", "report"},
    {"audit", "benchmark"},
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


def test_the_map_of_the_package_names_every_module():
    named = re.findall(r"\w+", (PACKAGE / "__init__.py").read_text().split("====\n", 1)[1])
    assert set(MODULES) - {"__main__"} <= set(named)


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
