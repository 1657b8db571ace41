"""The chapters as files: each `.py` is the source, its `.ipynb` the same cells with their outputs.

Conversion goes one way, from `.py` to `.ipynb`. `jupytext --sync` is never used: it trusts file times and can
turn an edit of the `.py` back.
"""

import ast
import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import jupytext
import nbformat

from fairdf_utils.book import BookError
from fairdf_utils.files import write_text

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
FORMATS = "ipynb,py:percent"
MOST_BYTES = 3_000_000

_WIDGET = "application/vnd.jupyter.widget-view+json"
# A path from the root of a file system: at the start of a word, with two names or more.
_MACHINE_PATH = re.compile(r"(?:^|(?<=[\s\"'(=:<>\[]))(?:/[\w.+-]+){2,}|\b[A-Za-z]:\\\\?\w+", re.MULTILINE)


@dataclass(frozen=True, eq=False)
class Chapter:
    """A chapter read from its `.py`: cells without outputs, and the parameters with their own values."""

    name: str
    path: Path
    notebook: nbformat.NotebookNode
    defaults: dict

    @property
    def code(self):
        """Sources of the code cells that hold something, in order."""
        return _code(self.notebook)


def read_chapters(folder):
    """The chapters of a folder in order: every `NN_name.py`.

    Raises
    ------
    BookError
        If there is none, or one has no parameters cell of plain values.
    """
    paths = sorted(Path(folder).glob("[0-9][0-9]_*.py"))
    if not paths:
        raise BookError(f"{folder} holds no chapter (a file such as 01_data_preparation.py)")
    return [read_chapter(path) for path in paths]


def read_chapter(path):
    """Read one py:percent file; cell ids are the chapter's number and the cell's place, e.g. 03-007."""
    source = jupytext.read(path, fmt="py:percent")
    cells = []
    for place, cell in enumerate(source.cells, start=1):
        made = getattr(nbformat.v4, f"new_{cell.cell_type}_cell")
        # jupytext keeps its own notes, such as the number of blank lines, beside the author's.
        noted = {key: value for key, value in cell.metadata.items() if key != "lines_to_next_cell"}
        cells.append(made(cell.source, id=f"{path.stem[:2]}-{place:03d}", metadata=noted))
    kernel = dict(source.metadata.get("kernelspec", {}))
    about = {"jupytext": {"formats": FORMATS}, "kernelspec": kernel, "language_info": LANGUAGE}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=about)
    return Chapter(path.stem, path, notebook, _defaults(path, notebook))


def _defaults(path, notebook):
    """The values assigned in the cell tagged `parameters`."""
    tagged = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise BookError(f'{path} has {len(tagged)} cells that begin `# %% tags=["parameters"]`; a chapter has one')
    found = {}
    for part in ast.parse(tagged[0]).body:
        targets = part.targets if isinstance(part, ast.Assign) else [getattr(part, "target", None)]
        try:
            if not (len(targets) == 1 and isinstance(targets[0], ast.Name)):
                raise ValueError
            found[targets[0].id] = ast.literal_eval(part.value)
        except ValueError:
            raise BookError(
                f"{path}: the parameters cell holds `{ast.unparse(part)}`; each line there must be `name = value` "
                "with a plain value, because a value computed there would not follow the parameters it is made of"
            ) from None
    return found


def _code(notebook):
    cells = (cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip())
    return [cell.source for cell in cells if "injected-parameters" not in cell.metadata.get("tags", [])]


# --- writing ---------------------------------------------------------------------------------------------


def update(folder: str | Path) -> list[Path]:
    """Write each chapter's `.ipynb` from its `.py`; code cells whose source is unchanged keep their outputs.

    Returns
    -------
    list of Path
        The notebooks written: those that differed.
    """
    written = []
    for chapter in read_chapters(folder):
        path, kept = chapter.path.with_suffix(".ipynb"), {}
        before = nbformat.read(path, as_version=4) if path.exists() else None
        if before and not list(_differences(chapter.notebook, before)):
            continue
        for cell in before.cells if before else []:
            kept.setdefault(cell.source, []).append(cell)
        for cell in chapter.notebook.cells:
            same = kept.get(cell.source) if cell.cell_type == "code" else None
            if same:
                cell.outputs, cell.execution_count = same[0].get("outputs", []), same.pop(0).get("execution_count")
        written.append(_write(chapter.notebook, path))
    return written


def refuse_differences(folder: Path) -> None:
    """Raise BookError unless every `.ipynb`, which papermill runs, holds the cells of its `.py`."""
    for chapter in read_chapters(folder):
        path = chapter.path.with_suffix(".ipynb")
        problems = _differences(chapter.notebook, nbformat.read(path, 4)) if path.exists() else ["is missing"]
        for problem in problems:
            raise BookError(f"{path.name}: {problem}; `python -m fairdf_utils notebooks --update` writes it anew")


def _write(notebook, path: Path) -> Path:
    nbformat.validate(notebook)
    write_text(path, nbformat.writes(notebook).rstrip("\n") + "\n")
    return path


def store_outputs(run, folder):
    """Write each chapter's `.ipynb` from its `.py` and the copy that was executed in the run folder.

    Of a chapter that was repeated, the copy with the notebook's own parameter values is taken.

    Returns
    -------
    list of Path
        The notebooks written.
    """
    written = []
    for chapter in read_chapters(folder):
        notebook = _with_outputs(chapter, _executed_with_defaults(chapter, Path(run)), Path(folder).resolve())
        written.append(_write(notebook, chapter.path.with_suffix(".ipynb")))
    return written


def _executed_with_defaults(chapter, run):
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


def _with_outputs(chapter, executed, folder):
    if _code(executed) != chapter.code:
        raise BookError(f"{chapter.path} was changed after it was executed: run the book again")
    ran = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    ran = [cell for cell in ran if cell.cell_type == "code" and cell.source.strip()]
    if any(cell.execution_count is None for cell in ran):
        raise BookError(f"the executed copy of {chapter.name} is not complete: run the book again")
    notebook = nbformat.from_dict(chapter.notebook)
    into = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for count, (cell, done) in enumerate(zip(into, ran, strict=True), start=1):
        cell.execution_count = count
        cell.outputs = _clean(done.outputs, folder)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    return notebook


def _clean(outputs, folder):
    """Outputs that read the same wherever and whenever they were made: no progress bars, no machine paths."""
    kept = []
    for output in outputs:
        if output.get("name") == "stderr" or _WIDGET in output.get("data", {}):
            continue
        if output.output_type == "stream":
            output.text = _relative(output.text, folder)
            # How a stream is cut into pieces depends on timing.
            if kept and kept[-1].get("name") == output.name:
                kept[-1].text += output.text
                continue
        for kind, value in output.get("data", {}).items():
            if isinstance(value, str) and _is_text(kind):
                output.data[kind] = _relative(value, folder)
        kept.append(output)
    return kept


def _relative(text, folder):
    """Machine paths as seen from the notebooks folder; the home folder as ~."""
    for root, shown in ((folder, ""), (folder.parent, "../"), (Path.home(), "~/")):
        if root != Path(root.anchor):
            text = text.replace(f"{root}/", shown)
    return text


def _is_text(kind):
    return kind.startswith("text/") or kind in ("image/svg+xml", "application/json")


# --- checking --------------------------------------------------------------------------------------------


def check(folder):
    """What is wrong with the pairs of a folder, one sentence each; empty if nothing is.

    Both files hold the same cells, tags and kernel; the `.ipynb` was executed from top to bottom without an
    error, holds neither standard error nor paths of a machine, and is under 3 MB.
    """
    folder = Path(folder)
    sources = {path.stem for path in folder.glob("[0-9][0-9]_*.py")}
    problems = [
        f"{path.name} has no .py beside it" for path in sorted(folder.glob("*.ipynb")) if path.stem not in sources
    ]
    for chapter in read_chapters(folder):
        path = chapter.path.with_suffix(".ipynb")
        if not path.exists():
            problems.append(f"{path.name} is missing: `make notebooks` writes it")
            continue
        notebook = nbformat.read(path, as_version=4)
        found = [*_differences(chapter.notebook, notebook), *_faults(notebook)]
        if path.stat().st_size >= MOST_BYTES:
            found.append(f"{path.stat().st_size / 1e6:.1f} MB; {MOST_BYTES / 1e6:.0f} MB at most")
        problems += [f"{path.name}: {problem}" for problem in found]
    return problems


def _differences(source, notebook):
    """Where the `.ipynb` differs from the `.py` in what the author writes."""
    for name, given in (("the .py", source), ("the .ipynb", notebook)):
        if given.metadata.get("kernelspec") != KERNEL:
            yield f"kernelspec of {name} is {dict(given.metadata.get('kernelspec', {}))}, not {KERNEL}"
    if notebook.metadata.get("jupytext", {}).get("formats") != FORMATS:
        yield f"is not paired: metadata lacks jupytext formats {FORMATS}"
    for place, (ours, theirs) in enumerate(zip_longest(source.cells, notebook.cells), start=1):
        if ours is None or theirs is None:
            yield f"{len(notebook.cells)} cells, but the .py has {len(source.cells)}"
            return
        for what, one, other in (
            ("type", ours.cell_type, theirs.cell_type),
            ("source", ours.source, theirs.source),
            ("tags", ours.metadata.get("tags", []), theirs.metadata.get("tags", [])),
        ):
            if one != other:
                yield f"cell {place} ({_first_line(ours)}) differs from the .py in its {what}"
                break


def _faults(notebook):
    """What is wrong with the outputs."""
    count = 0
    for place, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        count += 1
        where = f"cell {place} ({_first_line(cell)})"
        if cell.execution_count != count:
            yield f"{where} has execution count {cell.execution_count}, not {count}: not run from top to bottom"
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{where} ended in {output.ename}: {output.evalue}"
            elif output.get("name") == "stderr":
                yield f"{where} holds standard error: {output.text.strip()[:80]}"
            for found in sorted(set(_MACHINE_PATH.findall(_text(output)))):
                yield f"{where} holds a path of a machine: {found}"
    if "widgets" in notebook.metadata:
        yield "holds the state of widgets, which no page shows"


def _text(output):
    shown = [value for kind, value in output.get("data", {}).items() if _is_text(kind) and isinstance(value, str)]
    return "\n".join([output.get("text", ""), *shown])


def _first_line(cell):
    return (cell.source.strip().splitlines() or ["empty"])[0][:60]
