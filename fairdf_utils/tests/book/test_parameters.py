"""What a parameters file asks for, and what is refused before anything runs."""

import subprocess
import sys

import pytest
import yaml

from fairdf_utils.book import BookError, parameters
from fairdf_utils.book.pairs import read_chapters
from fairdf_utils.book.parameters import imported_modules, read_plan, read_plans
from fairdf_utils.tests.book.tiny_book import write_book

FAIR, SCORED = "03_sam_training/fair-s0", "04_cross_dataset_evaluation/fair-s0"
ONCE = ["01_data_preparation", "05_fairness_analysis"]


@pytest.fixture
def book(tmp_path):
    return write_book(tmp_path)


def steps_of(folder, profile):
    (folder / "params" / "cpu.yaml").write_text(profile)
    return read_plan("cpu", folder).steps


def test_chapters_with_a_detector_are_repeated_over_grid_and_seeds(book):
    steps = steps_of(book, "epochs: 3\ngrid: [{detector: fair}, {detector: plain-2, rate: 1}]\nseeds: [0, 4]\n")
    assert [(step.folder, step.given) for step in steps[:5]] == [
        ("01_data_preparation", {}),
        ("03_sam_training/fair-s0", {"epochs": 3, "detector": "fair", "seed": 0}),
        ("03_sam_training/fair-s4", {"epochs": 3, "detector": "fair", "seed": 4}),
        ("03_sam_training/plain-2-s0", {"epochs": 3, "detector": "plain-2", "rate": 1, "seed": 0}),
        ("03_sam_training/plain-2-s4", {"epochs": 3, "detector": "plain-2", "rate": 1, "seed": 4}),
    ]
    assert steps[5].given == {"detector": "fair", "seed": 0}  # only what the chapter declares
    assert steps[3].name == "03_sam_training-plain-2-s0" and str(steps[3]) == "03_sam_training plain-2-s0"
    assert steps[3].text == "{epochs: 3, detector: plain-2, rate: 1, seed: 0}"
    assert steps[3].values["pause"] == 0.0


def test_without_a_grid_the_notebooks_own_values_run(book):
    assert [step.folder for step in steps_of(book, "")] == [ONCE[0], FAIR, SCORED, ONCE[1]]


def test_rows_may_share_values_by_a_merge_key(book):
    steps = steps_of(
        book, "grid:\n- &base {detector: fair, rate: 1, epochs: 3}\n- {<<: *base, detector: plain, rate: 2}\n"
    )
    assert steps[2].given == {"detector": "plain", "rate": 2, "epochs": 3}


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("epocs: 3", r"cpu.yaml: .*'epocs'; did you mean 'epochs'\?"),
        ("grid: [{detectr: fair}]", r"'detectr'; did you mean 'detector'\?"),
        ("grid: [{words: [x]}]", "'words'"),  # declared, but by no repeated chapter
        ("epochs: '3'", "epochs is '3', but 03_sam_training has epochs = 2: a value of type int"),
        ("epochs: 3.0", "a value of type int"),
        ("epochs: true", "a value of type int"),
        ("epochs: ", "epochs is None"),
        ("rate: 1e-3", r"rate is '1e-3'.* 1.0e-3"),
        ("detector: ''", "not an empty one"),
        ("words: [a, 1]", "words is"),
        ("words: a", "a value of type list"),
        ("run_dir: x", "run_dir is set by --run"),
        ("epochs: 1\nepochs: 2", "'epochs' is given twice"),
        ("grid: [{detector: a, detector: b}]", "'detector' is given twice"),
        ("grid: [{detector: a}, {detector: a, rate: 1.0}]", "asks for 03_sam_training/a-s0 twice"),
        ("grid: [{detector: a, seed: 1}]\nseeds: [0]", "a row of the grid sets `seed`, but `seeds`"),
        ("grid: [{detector: ../a}]", "names a folder"),
        ("grid: {detector: a}", "grid is a list"),
        ("seeds: 0", "seeds is a list"),
        ("jobs: 0", "jobs is a whole number from 1"),
        ("jobs: true", "jobs is a whole number from 1"),
        ("missing: ignore", "missing is 'ignore'; use refuse, or skip"),
        ("corpora: {layout: ffpp}", "corpora is a list"),
        ("corpora: []", "corpora is a list"),
        ("corpora: [{layout: ffpp}]", "one of the corpora has no corpus_root"),
        ("corpora: [{corpus_root: x, layot: dfdc}]", r"'layot'; did you mean 'layout'\?"),
        ("corpora: [{corpus_root: x, rate: 0.1}]", "'rate'"),  # declared, but not by the chapter that prepares
        ("corpora: [{corpus_root: x, frames: '3'}]", "frames is '3'.* a value of type int"),
        ("corpora: [{corpus_root: x, annotations: a.csv}]", "annotations is 'a.csv'.* a value of type list"),
        ("corpora: [{corpus_root: x, prepared: y}]", "sets 'prepared', which is the same for all"),
        ("corpora: [{corpus_root: x, dataset: a/b}]", "dataset 'a/b' names a folder"),
        ("corpora: [{corpus_root: x}, {corpus_root: y}]", "asks for 01_data_preparation/ffpp twice"),
        ("corpora: [{corpus_root: x}]\nmissing: skip\ntest_sets: [fpp]", r"are named 'fpp'; did you mean 'ffpp'\?"),
        ("corpora: [{corpus_root: x}]\nmissing: skip\ntrain_set: fpp", r"did you mean 'ffpp'\?"),
        ("corpora: [{corpus_root: x}]\nmanifests: ../own", "manifests is '../own', .* prepared in ../prepared/man"),
        ("worlds: {rate: 1.0}", "worlds is a list of mappings such as {data_seed: 11}"),
        ("worlds: []", "worlds is a list"),
        ("worlds: [{}]", "worlds is a list"),
        ("worlds: [{rat: 1.0}]", r"'rat'; did you mean 'rate'\?"),
        ("worlds: [{words: [a]}]", "world .* names a folder"),
        ("worlds: [{rate: 1.0}, {rate: 1.0}]", "asks for the world rate-1.0 twice"),
        ("chapters: 3", "chapters is 3; give a list of some of 1, 3, 4, 5"),
        ("chapters: []", "chapters is .*; give a list"),
        ("chapters: [1, 2]", "give a list of some of 1, 3, 4, 5"),
        ("chapters: [3]", "chapters leaves out 1, which 3 waits for"),
        ("chapters: [1, 3, 5]", "chapters leaves out 4, which 5 waits for"),
        ("[", "cpu.yaml"),
    ],
)
def test_a_profile_that_asks_for_something_else_is_refused(book, profile, message):
    with pytest.raises(BookError, match=message) as refused:
        steps_of(book, profile)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("worlds: [{rate: 1.0, epocs: 3}]", r"'epocs'; did you mean 'epochs'\?"),
        ("worlds: [{rate: 1.0, epochs: x}]", "epochs is 'x'.* a value of type int"),
        ("worlds: [{rate: 1.0, jobs: 2}]", "'jobs'"),
        ("worlds: [{rate: 1.0}]\ngrid: [{rate: 0.5}]", "a row .* sets 'rate', which is the same for all"),
        ("worlds: [{frames: 5}]\ncorpora: [{corpus_root: x, frames: 3}]", "a row .* sets 'frames'"),
    ],
)
def test_a_world_is_refused_as_a_row_is(book, profile, message):
    (book / "params" / "cpu.yaml").write_text(profile)
    with pytest.raises(BookError, match=message):
        read_plans("cpu", book)


def test_a_world_lies_over_all_values_and_chapters_limits_the_steps(book):
    text = "rate: 0.5\nepochs: 3\nworlds: [{rate: 1.0}, {rate: 2.0, seed: 4}]\nchapters: [4, 1, 3]\n"
    (book / "params" / "cpu.yaml").write_text(text)
    plans = {"rate-1.0": {"rate": 1.0}, "rate-2.0-seed-4": {"rate": 2.0, "seed": 4}}
    assert list(read_plans("cpu", book)) == list(plans)
    for world, given in plans.items():
        steps = read_plan("cpu", book, world).steps
        assert [step.chapter.name[:2] for step in steps] == ["01", "03", "04"]
        assert steps[1].given == {"epochs": 3, **given}
    with pytest.raises(BookError, match="the world '' is none of rate-1.0, rate-2.0-seed-4; give the run folder of"):
        read_plan("cpu", book)


def corpus(layout, **more):
    return {"layout": layout, "corpus_root": f"../{layout}", **more}


def given_of(folder, values):
    return {step.folder: step.given for step in steps_of(folder, yaml.safe_dump(values))}


def test_the_first_chapter_is_repeated_over_the_corpora_and_the_others_read_them(book):
    values = {"corpora": [corpus("ffpp", frames=3), corpus("dfdc", dataset="dfdc-small")], "frames": 5}
    values |= {"test_sets": ["ffpp", "dfdc-small"], "prepared": "../made/"}
    given = given_of(book, values)
    assert list(given)[:3] == ["01_data_preparation/ffpp", "01_data_preparation/dfdc-small", FAIR]
    shared = {"prepared": "../made/"}
    assert given["01_data_preparation/ffpp"] == {**corpus("ffpp"), "dataset": "ffpp", "frames": 3, **shared}
    assert given["01_data_preparation/dfdc-small"] == {**corpus("dfdc"), "dataset": "dfdc-small", "frames": 5, **shared}
    assert given[FAIR]["manifests"] == given[SCORED]["manifests"] == "../made/manifests"
    # The same place may be said, for those who give the file to papermill.
    assert given_of(book, {**values, "manifests": "../made/manifests"}) == given


def test_what_is_missing_may_be_skipped_and_is_told(book):
    for folder in ("ffpp", "prepared/manifests/dfd"):
        (book.parent / folder).mkdir(parents=True)
    (book.parent / "prepared/manifests/dfd/test.csv").write_text("")
    sets = ["ffpp", "dfdc", "dfd", "celebdf"]
    values = {"corpora": [corpus(name) for name in ("ffpp", "dfdc", "dfd")], "test_sets": sets, "missing": "skip"}
    given = given_of(book, values)
    assert list(given) == ["01_data_preparation/ffpp", FAIR, SCORED, ONCE[1]]
    assert given[SCORED]["test_sets"] == ["ffpp", "dfd"]  # prepared once, and its corpus put away
    assert given[SCORED]["left_out"] == ["dfdc", "celebdf"]
    assert "left_out" not in given[FAIR]
    (book.parent / "ffpp").rmdir()  # what is trained on stays: the preflight will miss it
    assert "01_data_preparation/ffpp" in given_of(book, values)
    few = {
        "corpora": values["corpora"][:2],
        "prepared": "../other",
    }  # dfd is not taken for dfdc, which is tested on, too
    assert given_of(book, {**values, **few})[SCORED]["left_out"] == ["dfdc", "dfd", "celebdf"]
    given = given_of(book, {**values, "missing": "refuse"})
    assert given[SCORED]["test_sets"] == sets and list(given)[:3] == [f"01_data_preparation/{n}" for n in sets[:3]]


def test_a_file_that_is_not_text_is_refused(book):
    (book / "params" / "cpu.yaml").write_bytes("# für\nepochs: 3".encode("latin-1"))
    with pytest.raises(BookError, match="cpu.yaml is not UTF-8 text"):
        read_plan("cpu", book)


def test_an_unknown_profile_names_the_known_ones(book):
    with pytest.raises(BookError, match="no parameters file gpuu: .* names: cpu"):
        read_plan("gpuu", book)


def test_jobs_is_one_unless_the_profile_says_more(book):
    assert read_plan("cpu", book).jobs == 1
    assert not any("jobs" in step.given for step in steps_of(book, "jobs: 2"))
    assert read_plan("cpu", book).jobs == 2


@pytest.mark.parametrize("line", ["rate = 1 / 2", "seed = other = 1", "import os", "names[0] = 1"])
def test_a_parameters_cell_holds_only_plain_values(book, line):
    path = book / "03_sam_training.py"
    path.write_text(path.read_text().replace("epochs: int = 2", f"epochs: int = 2\n{line}"))
    with pytest.raises(BookError, match=r"03_sam_training.py: the parameters cell holds"):
        read_chapters(book)


def test_a_chapter_depends_on_the_modules_it_uses_and_on_no_others(tmp_path, monkeypatch):
    package = tmp_path / "pack"
    files = {"top/a.py": "def f():\n    from pack.low import b", "low/b.py": "x = 1", "other.py": "import pack.low.b",
             "book/show.py": "import pack.other"}  # fmt: skip
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    monkeypatch.setattr(parameters, "PACKAGE", package)
    wanted = [package / "low/b.py", package / "top/a.py"]
    for form in (
        "from pack.top import a",
        "from pack.top.a import f",
        "import pack.top.a",
        "import numpy, pack.top.a as t",
    ):
        assert imported_modules(f"{form}\nfrom pack.book.show import show") == wanted


def test_modules_that_real_chapters_import_are_found():
    code = "from fairdf_utils.training import loop"
    listed = "print(*(name for name in sys.modules if name.startswith('fairdf_utils.')))"
    loaded = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\n{listed}"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    found = {
        ".".join(path.relative_to(parameters.PACKAGE.parent).with_suffix("").parts) for path in imported_modules(code)
    }
    modules = {name for name in loaded if name.count(".") > 1 and ".book." not in name}
    assert modules <= found


def test_all_unknown_names_and_wrong_types_are_told_at_once(book):
    with pytest.raises(BookError) as refusal:
        steps_of(book, "frames: four\nepoch: 16\ngrid: [{detector: a, rate: 5e-4}, {detector: b, epochs: 2.5}]\n")
    told = str(refusal.value)
    assert told.count("\n- ") == 4 and told.count("cpu.yaml") == 1
    assert all(word in told for word in ("frames is 'four'", "'epochs'", "5.0e-4", "epochs is 2.5"))
