"""The HTML site of the book: `make book`. It shows the committed notebooks with their stored outputs; none is run."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOTEBOOKS = HERE.parent

# Sphinx reads only what lies under this folder, and the chapters lie beside it: each build copies them.
# Unchanged copies keep their time of change, so that Sphinx reads only what is new.
CHAPTERS = HERE / "chapters"
CHAPTERS.mkdir(exist_ok=True)
for copy in CHAPTERS.glob("*.ipynb"):
    if not (NOTEBOOKS / copy.name).exists():
        copy.unlink()
for notebook in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"):
    shutil.copy2(notebook, CHAPTERS)


def draw_run(path):
    """Write a drawing of the chapters and of the order in which a run needs them, as the Snakefile has it."""
    with tempfile.TemporaryDirectory() as run:
        command = [sys.executable, "-m", "snakemake", "--rulegraph", "--snakefile", NOTEBOOKS / "Snakefile"]
        command += ["--directory", run, "--config", "params=cpu"]
        graph = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rules = dict(re.findall(r'(\d+)\[label = "(\w+)"', graph))
    needs = {rule: set() for rule in rules.values() if rule != "all"}
    for needed, rule in re.findall(r"(\d+) -> (\d+)", graph):
        needs.get(rules[rule], set()).add(rules[needed])

    def column(rule):
        return 1 + max(map(column, needs[rule]), default=-1)

    columns = {}
    chapters = {chapter.stem[3:]: chapter.stem[:2] for chapter in sorted(NOTEBOOKS.glob("[0-9]*.py"))}
    for rule in chapters:
        columns.setdefault(column(rule), []).append(rule)
    tallest = max(map(len, columns.values()))
    at = {
        rule: (215 * place, 52 * (row + (tallest - len(column)) / 2))
        for place, column in columns.items()
        for row, rule in enumerate(column)
    }
    # Through other chapters is said by them already.
    beyond = {rule: set().union(*(needs[needed] for needed in needs[rule])) for rule in chapters}
    parts = []
    for rule, (x, y) in at.items():
        for needed in needs[rule] - beyond[rule]:
            left, top = at[needed][0] + 190, at[needed][1] + 18
            parts.append(f'<path d="M{left} {top} C{left + 14} {top} {x - 14} {y + 18} {x - 2} {y + 18}"/>')
            parts.append(f'<path d="M{x - 8} {y + 14} {x - 2} {y + 18} {x - 8} {y + 22}"/>')
    for rule, (x, y) in at.items():
        parts.append(f'<rect x="{x}" y="{y}" width="190" height="36" rx="6"/>')
        parts.append(f'<text x="{x + 10}" y="{y + 22}">{int(chapters[rule])} {rule.replace("_", " ")}</text>')
    style = (
        "path{stroke:#888;stroke-width:2;fill:none}rect{fill:#e8eef5;stroke:#567}text{font:13px sans-serif;fill:#123}"
    )
    width, height = 215 * len(columns) - 20, 52 * tallest - 12
    box = f'viewBox="-2 -2 {width} {height}" width="{width}" height="{height}"'
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {box}><style>{style}</style>{"".join(parts)}</svg>\n')


draw_run(CHAPTERS / "run.svg")

project = "Fair deepfake detection"
author = "The contributors"
extensions = ["myst_nb", "sphinx-mathjax-offline"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]

nb_execution_mode = "off"
# Stored outputs hold no widgets; without this, pages would load the widgets' scripts from elsewhere.
nb_ipywidgets_js = {}
nb_merge_streams = True
nb_render_markdown_format = "myst"  # formulas in Markdown that a cell makes
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    # The side bar has the search field; a bar at the top would repeat it.
    "navbar_persistent": [],
}
