"""Progress bars where somebody looks, a terminal or JupyterLab; lines in a log every ten seconds elsewhere."""

import os
import sys
from contextlib import nullcontext

import tqdm.auto
import tqdm.std

SECONDS = 10  # between two lines


def bar(iterable=None, **options) -> tqdm.std.tqdm:
    """A tqdm bar in a terminal, or in a kernel that a Jupyter server started; else lines such as `ffpp 70/900 video`.

    Under the Snakefile the lines go to the log of the step, FAIRDF_LOG, past the executed copy of the chapter; with
    "-" to the error stream, as the audit wants it; other kernels without a viewer write none.
    """
    if sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ:
        return tqdm.auto.tqdm(iterable, **options)
    log = os.environ.get("FAIRDF_LOG", "")
    if "ipykernel" in sys.modules and not log:
        return tqdm.auto.tqdm(iterable, disable=True, **options)
    shown = {"bar_format": "{desc} {n_fmt}/{total_fmt} {unit}, {remaining} left", "mininterval": SECONDS, "position": 0}
    return tqdm.std.tqdm(iterable, file=_Lines(log.removeprefix("-")), delay=SECONDS, **shown, **options)


class _Lines:
    """What tqdm writes over itself, as lines: appended to a file, or to the error stream where none is named."""

    def __init__(self, path: str):
        self.path = path

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            with open(self.path, "a", encoding="utf-8") if self.path else nullcontext(sys.stderr) as file:
                print(line, file=file)

    def flush(self) -> None:
        pass
