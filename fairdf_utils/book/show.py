"""`show`: the source of an idea on the page, exactly as it runs."""

import ast
import inspect
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from IPython.display import Markdown

from fairdf_utils.book import REPOSITORY, BookError

# A kernel loads its modules in the first cells: what is older than this moment is what was loaded.
_LOADED = time.time()


def show(obj: Callable | property, docstring: bool = True) -> Markdown:
    """The path, the line and the source of a function, class or property as it was loaded.

    Parameters
    ----------
    obj : function, class or property
        Defined at the top of a Python file, or in a class that is.
    docstring : bool
        Whether the docstring is shown too; of a class, also those of its methods.

    Raises
    ------
    BookError
        If the file was changed after the kernel's start: what would be shown may not be what runs.
    TypeError
        If `obj` is not a function or class of a Python file.
    """
    obj = inspect.unwrap(getattr(obj, "fget", None) or obj)
    path = Path(inspect.getsourcefile(obj))
    if not path.is_file() or "<locals>" in obj.__qualname__:
        raise TypeError(f"{obj.__qualname__} is not defined at the top of a Python file")
    where = _shown_path(path)
    if path.stat().st_mtime > _LOADED:
        raise BookError(
            f"{where} was changed after {obj.__qualname__} was loaded from it: restart the kernel, "
            "so that the code shown is the code that runs"
        )
    lines, first = inspect.getsourcelines(obj)
    source = textwrap.dedent("".join(lines)).rstrip()
    if not docstring:
        source = _without_docstrings(source)
    fence = "````" if "```" in source else "```"
    return Markdown(f"`{where}:{max(first, 1)}`\n\n{fence}python\n{source}\n{fence}\n")


def _shown_path(path: Path) -> str:
    """The path relative to the repository, or to the folder that another package is imported from."""
    roots = [REPOSITORY, *(Path(entry or ".").resolve() for entry in sys.path)]
    inside = [path.relative_to(root) for root in roots if path.is_relative_to(root)]
    # An environment may lie inside the repository: timm/layers/drop.py, not .venv/lib/.../drop.py.
    foreign = "site-packages" in path.parts
    return (inside[-1 if foreign else 0] if inside else Path(path.name)).as_posix()


def _without_docstrings(source: str) -> str:
    """The source without docstrings and the empty lines below them; a body of nothing else stays."""
    lines = source.splitlines()
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, defined) and ast.get_docstring(node) is not None and len(node.body) > 1:
            begin, end = node.body[0].lineno - 1, node.body[0].end_lineno
            while end < len(lines) and not lines[end]:
                end += 1
            lines[begin:end] = [None] * (end - begin)
    return "\n".join(line for line in lines if line is not None)
