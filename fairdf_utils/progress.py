"""Progress bars where somebody looks: a terminal or JupyterLab, not a papermill log."""

import os
import sys

from tqdm.auto import tqdm


def bar(iterable=None, **options) -> tqdm:
    """A tqdm bar that is silent unless it is shown in a terminal or in a kernel that a Jupyter server started.

    tqdm's own `disable=None` looks for a terminal and so would hide the bar in JupyterLab too.
    """
    watched = sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ
    return tqdm(iterable, disable=not watched, **options)
