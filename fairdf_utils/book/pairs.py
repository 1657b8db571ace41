"""The chapters as files: each `.py` is the source, its `.ipynb` the same cells with their outputs.

Conversion goes one way, from `.py` to `.ipynb`. `jupytext --sync` is never used: it trusts file times and can
turn an edit of the `.py` back.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from fairdf_utils.book import BookError
from fairdf_utils.files import write_text

METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
MOST_BYTES = 3_000_000

_WIDGET = "application/vnd.jupyter.widget-view+json"
_MACHINE_PATH = re.compile(r"(?<![\w./:<~})])(?:/[\w.+-]+){2,}|\b[A-Za-z]:\\+\w+")  # from a root, two names or more


@dataclass(frozen=True, eq=False)
class Chapter:
    """A chapter read from its `.py`: cells without outputs, and the parameters with their own values."""

    path: Path
    notebook: NotebookNode
    defaults: dict

    @property
    def name(self) -> str:
        """Of the file, e.g. 03_sam_training."""
        return self.path.stem

    @property
    def pair(self) -> Path:
        """The `.ipynb` beside it."""
        return self.path.with_suffix(".ipynb")

    @property
    def code(self) -> list[str]:
        """Sources of the code cells that hold something, in order."""
        return [cell.source for cell in _code(self.notebook)]


def read_chapters(folder: str | Path) -> list[Chapter]:
    """The chapters of a folder in order, every `NN_name.py`; BookError if there is none, or see `read_chapter`."""
    paths = sorted(Path(folder).glob("[0-9][0-9]_*.py"))
    if not paths:
        raise BookError(f"{folder} holds no chapter (a file such as 01_data_preparation.py); correct --notebooks")
    return [read_chapter(path) for path in paths]


def read_chapter(path: Path) -> Chapter:
    """Read one py:percent file; cell ids are the chapter's number and the cell's place, e.g. 03-007.

    Raises BookError if it is missing, or has not one parameters cell of plain values.
    """
    if not path.is_file():
        raise BookError(f"{path}: no such chapter; --notebooks is the folder that the chapters lie in")
    source = jupytext.read(path, fmt="py:percent")
    cells = []
    for place, cell in enumerate(source.cells, start=1):
        cell.metadata.pop("lines_to_next_cell", None)  # a note of jupytext's own
        made = getattr(nbformat.v4, f"new_{cell.cell_type}_cell")
        cells.append(made(cell.source, id=f"{path.stem[:2]}-{place:03d}", metadata=cell.metadata))
    metadata = {**METADATA, "kernelspec": dict(source.metadata.get("kernelspec", {}))}
    return Chapter(path, nbformat.v4.new_notebook(cells=cells, metadata=metadata), _defaults(path, cells))


def _defaults(path: Path, cells: list[NotebookNode]) -> dict:
    tagged = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise BookError(f'{path} has {len(tagged)} cells that begin `# %% tags=["parameters"]`; a chapter has one')
    found = {}
    for part in ast.parse(tagged[0]).body:
        try:
            (name,) = part.targets if isinstance(part, ast.Assign) else [part.target]
            found[name.id] = ast.literal_eval(part.value)
        except (AttributeError, ValueError):
            raise BookError(
                f"{path}: the parameters cell holds `{ast.unparse(part)}`; each line there must be `name = value` "
                "with a plain value, because a value computed there would not follow the parameters it is made of"
            ) from None
    return found


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    """Code cells that hold something, without the one that papermill adds."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip())
    return [cell for cell in cells if "injected-parameters" not in cell.metadata.get("tags", [])]


def update(folder: str | Path) -> list[Path]:
    """Write each `.ipynb` that differs from its `.py` anew; code cells whose source is the same keep their outputs."""
    changed = [chapter for chapter in read_chapters(folder) if any(_differences(chapter))]
    for chapter in changed:
        before = _code(nbformat.read(chapter.pair, as_version=4)) if chapter.pair.exists() else []
        for cell in _code(chapter.notebook):
            same = next((old for old in before if old.source == cell.source), None)
            if same:
                before.remove(same)
                cell.outputs, cell.execution_count = same.outputs, same.execution_count
        _write(chapter)
    return [chapter.pair for chapter in changed]


def store_outputs(run: str | Path, folder: str | Path) -> list[Path]:
    """Write each chapter's `.ipynb` from its `.py` and the copy that was executed in the run folder.

    Of a chapter that was repeated, the copy with the notebook's own parameter values is taken.
    """
    chapters = read_chapters(folder)
    for chapter in chapters:
        ran = _code(_executed_with_defaults(chapter, Path(run)))
        if [cell.source for cell in ran] != chapter.code:
            raise BookError(f"{chapter.path} was changed after it was executed: run the book again")
        if any(cell.execution_count is None for cell in ran):
            raise BookError(f"the executed copy of {chapter.name} is not complete: run the book again")
        for count, (cell, done) in enumerate(zip(_code(chapter.notebook), ran, strict=True), start=1):
            cell.execution_count, cell.outputs = count, _clean(done.outputs, Path(folder).resolve())
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
        _write(chapter)
    return [chapter.pair for chapter in chapters]


def _executed_with_defaults(chapter: Chapter, run: Path) -> NotebookNode:
    """The executed copy whose parameters are the chapter's own, but for the run folder."""
    differs = "there is none"
    for path in sorted((run / "notebooks").glob(f"{chapter.name}*.ipynb")):
        copy = nbformat.read(path, as_version=4)
        given = copy.metadata.get("papermill", {}).get("parameters", {})
        other = [name for name, value in given.items() if name != "run_dir" and chapter.defaults.get(name) != value]
        if not other:
            return copy
        differs = f"{path.name} differs in {', '.join(other)}"
    raise BookError(
        f"{run / 'notebooks'} holds no copy of {chapter.name} with the notebook's own parameter values ({differs}): "
        "the profile must leave one repetition as the notebook has it"
    )


def _write(chapter: Chapter) -> None:
    nbformat.validate(chapter.notebook)
    write_text(chapter.pair, nbformat.writes(chapter.notebook).rstrip("\n") + "\n")


def _clean(outputs: list[NotebookNode], folder: Path) -> list[NotebookNode]:
    """Outputs that read the same wherever and whenever they were made: no progress bars, no machine paths."""
    kept = []
    for output in outputs:
        if output.get("name") == "stderr" or _WIDGET in output.get("data", {}):
            continue
        for holder, kind in _texts(output):
            for root, shown in ((folder, ""), (folder.parent, "../"), (Path.home(), "~/")):
                if root != Path(root.anchor):
                    holder[kind] = holder[kind].replace(f"{root}/", shown)
        # How a stream is cut into pieces depends on timing.
        if kept and output.output_type == "stream" and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def _texts(output: NotebookNode) -> list[tuple[dict, str]]:
    """Where an output holds text, as (mapping, key)."""
    if output.output_type == "stream":
        return [(output, "text")]
    data = output.get("data", {})
    kinds = [kind for kind in data if kind.startswith("text/") or kind in ("image/svg+xml", "application/json")]
    return [(data, kind) for kind in kinds if isinstance(data[kind], str)]


def check(folder: str | Path) -> list[str]:
    """What is wrong with the pairs of a folder, one sentence each; empty if nothing is.

    Both files hold the same cells, tags and kernel; the `.ipynb` was executed from top to bottom without an
    error, holds neither standard error nor paths of a machine, and is under 3 MB.
    """
    pairs, there = {chapter.pair for chapter in read_chapters(folder)}, set(Path(folder).glob("*.ipynb"))
    alone = [f"{path.name} has no .py beside it" for path in sorted(there - pairs)]
    faults = [f"{path.name} {fault}" for path in sorted(there & pairs) for fault in _faults(path)]
    return alone + differences(folder) + faults


def differences(folder: str | Path) -> list[str]:
    """Where an `.ipynb`, which papermill runs, is not the cells of its `.py`, one sentence each."""
    return [f"{chapter.pair.name} {problem}" for chapter in read_chapters(folder) for problem in _differences(chapter)]


def _differences(chapter: Chapter) -> Iterator[str]:
    """Where the `.ipynb` differs from the `.py` in what the author writes."""
    if not chapter.pair.exists():
        yield "is missing"
        return
    notebook = nbformat.read(chapter.pair, as_version=4)
    for ending, given in ((".py", chapter.notebook), (".ipynb", notebook)):
        for key in ("jupytext", "kernelspec"):
            if given.metadata.get(key) != METADATA[key]:
                yield f"has not {METADATA[key]} as {key} in its {ending}"
    for place, (ours, theirs) in enumerate(zip_longest(chapter.notebook.cells, notebook.cells), start=1):
        sides = [cell and (cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in (ours, theirs)]
        if sides[0] != sides[1]:
            yield f"differs from the .py in cell {place} ({_first_line(ours or theirs)})"
            return


def _faults(path: Path) -> Iterator[str]:
    notebook = nbformat.read(path, as_version=4)
    for count, cell in enumerate(_code(notebook), start=1):
        where = f"in the cell `{_first_line(cell)}`"
        if cell.execution_count != count:
            yield f"{where} has execution count {cell.execution_count}, not {count}: not run from top to bottom"
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{where} ended in {output.ename}: {output.evalue}"
            elif output.get("name") == "stderr":
                yield f"{where} holds standard error: {output.text.strip()[:80]}"
            paths = {found for holder, kind in _texts(output) for found in _MACHINE_PATH.findall(holder[kind])}
            yield from (f"{where} holds a path of a machine: {found}" for found in sorted(paths))
    if "widgets" in notebook.metadata:
        yield "holds the state of widgets, which no page shows"
    if path.stat().st_size >= MOST_BYTES:
        yield f"has {path.stat().st_size / 1e6:.1f} MB; {MOST_BYTES / 1e6:.0f} MB at most"


def _first_line(cell: NotebookNode) -> str:
    return (cell.source.strip().splitlines() or ["empty"])[0][:60]
