"""A pair of files holds the same cells, and the stored outputs read the same on any machine."""

import re
import sys

import nbformat
import pytest

from fairdf_utils.__main__ import main
from fairdf_utils.book import BookError
from fairdf_utils.book.pairs import METADATA, check, read_chapter, read_chapters, store_outputs
from fairdf_utils.tests.book.tiny_book import write_book


def pretend_executed(folder, run, change=lambda copy: None, repetition="", **parameters):
    """Copies as papermill leaves them, with an injected cell and one line of output a cell."""
    (run / "notebooks").mkdir(parents=True, exist_ok=True)
    for chapter in read_chapters(folder):
        copy = nbformat.from_dict(chapter.notebook)
        place = next(i for i, cell in enumerate(copy.cells) if "parameters" in cell.metadata.get("tags", []))
        injected = nbformat.v4.new_code_cell("run_dir = 'x'", metadata={"tags": ["injected-parameters"]})
        copy.cells.insert(place + 1, injected)
        copy.metadata.papermill = {"parameters": {"run_dir": "x", **parameters}, "duration": 1.5}
        count = 0
        for cell in copy.cells:
            cell.metadata.papermill = {"duration": 0.5}
            if cell.cell_type == "code":
                count += 1
                cell.execution_count = count
                cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"line of cell {count}\n")]
        change(copy)
        nbformat.write(copy, run / "notebooks" / f"{chapter.name}{repetition}.ipynb")


def paired(folder, name):
    return nbformat.read(folder / f"{name}.ipynb", 4)


@pytest.fixture
def book(tmp_path):
    return write_book(tmp_path)


@pytest.fixture
def stored(book, tmp_path):
    pretend_executed(book, tmp_path / "run")
    store_outputs(tmp_path / "run", book)
    return book


def edit_notebook(folder, name, change):
    notebook = paired(folder, name)
    change(notebook)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def test_a_chapter_is_read_with_its_parameters_and_stable_ids(book):
    chapter = read_chapter(book / "03_sam_training.py")
    assert chapter.defaults == {
        "run_dir": "../runs/tiny", "detector": "fair", "seed": 0, "rate": 0.5, "epochs": 2,
        "manifests": "../manifests", "train_set": "ffpp", "pause": 0.0, "fault": "",
        "wait_for": "",
    }  # fmt: skip
    assert [cell.id for cell in chapter.notebook.cells] == ["03-001", "03-002", "03-003", "03-004", "03-005"]
    assert chapter.notebook.metadata.kernelspec == METADATA["kernelspec"]


@pytest.mark.parametrize("number", [0, 2])
def test_a_chapter_has_one_parameters_cell(book, number):
    path = book / "01_data_preparation.py"
    start = '# %% tags=["parameters"]\n'
    path.write_text(path.read_text().replace(start, start + "x = 1\n\n" + start if number else "# %%\n"))
    with pytest.raises(BookError, match=f"01_data_preparation.py has {number} cells that begin"):
        read_chapter(path)


def test_stored_pairs_pass_the_check(stored):
    assert check(stored) == []
    notebook = paired(stored, "03_sam_training")
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4]
    # The injected cell was the second to run: outputs stay with their sources.
    assert [cell.outputs[0].text for cell in code] == [f"line of cell {count}\n" for count in (1, 3, 4, 5)]
    assert "papermill" not in str(notebook)
    assert set(notebook.metadata) == {"jupytext", "kernelspec", "language_info"}


def test_an_update_keeps_the_outputs_of_cells_that_did_not_change(stored, capsys):
    assert main(["notebooks", "--update", "--notebooks", str(stored)]) == 0
    assert capsys.readouterr().out == ""
    path = stored / "03_sam_training.py"
    path.write_text(path.read_text().replace("time.sleep(pause)", "time.sleep(2 * pause)"))
    assert main(["notebooks", "--update", "--notebooks", str(stored)]) == 0
    assert "03_sam_training.ipynb" in capsys.readouterr().out
    code = [cell for cell in paired(stored, "03_sam_training").cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, None, 4]
    assert [bool(cell.outputs) for cell in code] == [True, True, False, True]
    assert len(check(stored)) == 1


def test_storing_twice_gives_the_same_bytes(stored, tmp_path):
    before = (stored / "03_sam_training.ipynb").read_bytes()
    store_outputs(tmp_path / "run", stored)
    assert (stored / "03_sam_training.ipynb").read_bytes() == before


def test_the_copy_with_the_notebooks_own_parameters_is_taken(book, tmp_path):
    def mark(text):
        def change(copy):
            copy.cells[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]

        return change

    pretend_executed(book, tmp_path / "run", mark("other"), "-a", seed=4)
    with pytest.raises(
        BookError, match=r"no copy of 01_data_preparation .*01_data_preparation-a.ipynb differs in seed"
    ):
        store_outputs(tmp_path / "run", book)
    pretend_executed(book, tmp_path / "run", mark("own"), "-b")
    store_outputs(tmp_path / "run", book)
    assert paired(book, "03_sam_training").cells[-1].outputs[0].text == "own"


def test_outputs_lose_what_depends_on_machine_and_moment(book, tmp_path):
    def change(copy):
        stream = nbformat.v4.new_output
        widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "  0%|"}
        page = {"text/plain": f"'{tmp_path}/run/x.csv'", "text/html": f"<p>{book}/params</p>", "image/png": "/9j/4AA/x"}
        copy.cells[-1].outputs = [
            stream("stream", name="stdout", text=f"in {book}/x\n"),
            stream("stream", name="stderr", text="a warning"),
            stream("stream", name="stdout", text="rest\n"),
            stream("display_data", data=widget),
            stream("execute_result", data=page, execution_count=9),
        ]
        copy.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {}}

    pretend_executed(book, tmp_path / "run", change)
    store_outputs(tmp_path / "run", book)
    assert check(book) == []
    cell = paired(book, "03_sam_training").cells[-1]
    text, result = cell.outputs
    assert text == {"output_type": "stream", "name": "stdout", "text": "in x\nrest\n"}
    assert result.execution_count == cell.execution_count == 4
    assert result.data == {"text/plain": "'../run/x.csv'", "text/html": "<p>params</p>", "image/png": "/9j/4AA/x"}


def test_outputs_of_other_code_are_refused(stored, tmp_path):
    path = stored / "03_sam_training.py"
    before = (stored / "03_sam_training.ipynb").read_bytes()
    path.write_text(path.read_text().replace("time.sleep(pause)", "time.sleep(2 * pause)"))
    with pytest.raises(BookError, match="03_sam_training.py was changed after it was executed"):
        store_outputs(tmp_path / "run", stored)
    assert (stored / "03_sam_training.ipynb").read_bytes() == before


def test_an_incomplete_copy_is_refused(book, tmp_path):
    pretend_executed(book, tmp_path / "run", lambda copy: copy.cells[-1].update(execution_count=None))
    with pytest.raises(BookError, match="copy of 01_data_preparation is not complete"):
        store_outputs(tmp_path / "run", book)


def set_output(*outputs):
    return lambda notebook: notebook.cells[-1].update(outputs=list(outputs))


OUTPUT = nbformat.v4.new_output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n.cells[0].update(source="# Else"), r"differs from the .py in cell 1 \(# 3. Training\)"),
        (lambda n: n.cells[1].metadata.update(tags=[]), "differs from the .py in cell 2"),
        (lambda n: n.cells.pop(), "differs from the .py in cell 5"),
        (lambda n: n.cells.append(nbformat.v4.new_markdown_cell("x")), "differs from the .py in cell 6"),
        (lambda n: n.metadata.kernelspec.update(display_name="venv"), "as kernelspec in its .ipynb"),
        (lambda n: n.metadata.pop("jupytext"), "as jupytext in its .ipynb"),
        (lambda n: n.metadata.update(widgets={}), "state of widgets"),
        (lambda n: n.cells[-1].update(execution_count=9), "execution count 9, not 4"),
        (lambda n: n.cells[-1].update(execution_count=None), "execution count None, not 4"),
        (set_output(OUTPUT("error", ename="ValueError", evalue="bad")), "ended in ValueError: bad"),
        (set_output(OUTPUT("stream", name="stderr", text="careful")), "holds standard error: careful"),
        (set_output(OUTPUT("stream", text="in /home/someone/x.csv")), "path of a machine: /home/someone/x.csv"),
        (set_output(OUTPUT("display_data", data={"text/plain": "PosixPath('/srv/data')"})), "machine: /srv/data"),
        (set_output(OUTPUT("stream", text=r"in C:\Users\someone")), "path of a machine"),
        (set_output(OUTPUT("stream", text="x" * 3_000_000)), "3.0 MB; 3 MB at most"),
    ],
)
def test_the_check_finds(stored, change, message):
    edit_notebook(stored, "03_sam_training", change)
    problems = check(stored)
    assert problems and all(problem.startswith("03_sam_training.ipynb ") for problem in problems)
    assert any(re.search(message, problem) for problem in problems), problems


@pytest.mark.parametrize(
    "text", ["and/or 1/2 a / b", "see https://example.org/a/b", "../runs/cpu/x.csv", "<td></td></tr>"]
)
def test_the_check_leaves_other_slashes_alone(stored, text):
    edit_notebook(stored, "03_sam_training", set_output(OUTPUT("stream", text=text)))
    assert check(stored) == []


def test_the_check_finds_missing_files_and_the_command_fails(stored, capsys):
    (stored / "01_data_preparation.ipynb").unlink()
    (stored / "03_sam_training.py").unlink()
    assert main(["notebooks", "--check", "--notebooks", str(stored)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "03_sam_training.ipynb has no .py beside it",
        "01_data_preparation.ipynb is missing",
    ]


def test_one_command_runs_the_book_and_stores_its_outputs(tmp_path, capfd):
    book = write_book(tmp_path, "grid: [{detector: fair}]", chapters="01 03")
    assert main(["notebooks", "--run", str(tmp_path / "run"), "--notebooks", str(book)]) == 0
    assert capfd.readouterr().err == ""
    assert main(["notebooks", "--check", "--notebooks", str(book)]) == 0
    training = paired(book, "03_sam_training")
    (text,) = training.cells[3].outputs  # standard output only, in one piece
    assert text.text.split("\n", 1)[1] == "epoch 0 in ../notebooks\nepoch 1 in ../notebooks\n"
    assert training.cells[4].outputs[0].data == {"text/plain": "2"}
    shown = paired(book, "01_data_preparation").cells[3].outputs[0].data["text/markdown"]
    assert "def path(self, name: str) -> Path:" in shown and sys.prefix not in shown


def test_a_refusal_is_one_line(tmp_path, capsys):
    assert main(["notebooks", "--check", "--notebooks", str(tmp_path)]) == 2
    refusal = f"{tmp_path} holds no chapter (a file such as 01_data_preparation.py); correct --notebooks"
    assert capsys.readouterr().err == f"error: {refusal}\n"
