"""The HTML site of the book: `make book`. It shows the committed notebooks with their stored outputs; none is run."""

import shutil
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
