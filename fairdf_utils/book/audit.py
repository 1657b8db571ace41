"""The audit: chapter 5 run on one score table, and its results as one self-contained page without code.

The cells tagged `audit` make the page; those that only teach are left out. Nothing here knows fairness: numbers and
sentences are the chapter's, and so are the files beside the page.
"""

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from fairdf_utils.book import BookError
from fairdf_utils.book.pairs import read_chapter
from fairdf_utils.book.run_folder import read_manifest_of_run
from fairdf_utils.files import printable, replacing, write_text

CHAPTER = "05_fairness_analysis"
STYLE = Path(__file__).with_name("audit.css")
REFUSALS = ("ScoreTableError", "FileNotFoundError", "ValueError", "BookError")  # what the caller can put right


def main_audit(options: argparse.Namespace) -> int:
    """`python -m fairdf_utils audit`: run the chapter, write the page and its tables, print the findings.

    Parameters
    ----------
    options : argparse.Namespace
        scores, out, by (list or None), threshold, validation (path or None), resamples, level, cluster,
        label_noise, seed, notebooks (folder of the chapters).

    Raises
    ------
    BookError
        One message: file, row, remedy. Whatever was in `out` stays as it was.
    """
    out = Path(options.out)
    _check_paths(out, [path for path in (options.scores, options.validation) if path])
    chapter = read_chapter(Path(options.notebooks) / f"{CHAPTER}.py")
    parameters = {
        "scores": str(Path(options.scores).absolute()),
        "validation_scores": str(Path(options.validation).absolute()) if options.validation else "",
        **{"by": options.by or [], "resampling_seed": options.seed},
        **{name: getattr(options, name) for name in ("threshold", "resamples", "level", "cluster", "label_noise")},
    }
    settings = {"progress_bar": sys.stderr.isatty(), "extra_arguments": ["--log-level=CRITICAL"]}
    os.environ["FAIRDF_LOG"] = "-"  # the chapter says how far it is on its error stream, which is passed on to this one
    settings |= {"stderr_file": sys.stderr, "cwd": options.notebooks, "kernel_name": "python3"}
    with TemporaryDirectory(prefix="audit-") as run:
        try:
            executed = papermill.execute_notebook(chapter.notebook, None, parameters | {"run_dir": run}, **settings)
        except PapermillExecutionError as error:
            text = " ".join(str(error.evalue).split())
            if error.ename in REFUSALS:
                raise BookError(text) from None
            print(f"error: chapter 5 stopped with {error.ename}: {text}", file=sys.stderr)
            return 1
        made = _how_made(options, read_manifest_of_run(run)[CHAPTER]["versions"])
        results = Path(run) / CHAPTER
        document = {"made": made, **json.loads((results / "findings.json").read_text())}
        for path in sorted(results.glob("*.csv")):
            with replacing(out / path.name) as partial:
                shutil.copyfile(path, partial)
        write_text(out / "findings.json", json.dumps(document, indent=2) + "\n")
        write_text(out / "index.html", page(executed, made))
    for one in document["data_sets"]:
        print(f"\n{one['dataset']}" if len(document["data_sets"]) > 1 else "")
        print(*(f"- Mind: {caution['text']}" for caution in one["cautions"]), sep="\n")
        print(*(f"- {finding['text']}" for finding in one["findings"]), sep="\n")
    print(f"\nThe report is {printable(out / 'index.html')}")
    return 0


def _check_paths(out: Path, read: list[str]) -> None:
    """Refuse files that are not there and a folder that cannot be written, before anything is computed."""
    for path in read:
        if not (Path(path).is_file() and os.access(path, os.R_OK)):
            raise BookError(f"there is no file {path}, or none that may be read")
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise BookError(f"--out {out}: {there} is a file, no folder. Give another folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise BookError(f"--out {out}: nothing may be written in {there}. Give another folder.")


def _how_made(options: argparse.Namespace, versions: dict) -> dict:
    """What it takes to make the report again: command, digests of the input, versions."""
    words = ["python", "-m", "fairdf_utils", "audit", options.scores, "--out", options.out]
    words += ["--by", *options.by] if options.by else []
    words += ["--validation", options.validation] if options.validation else []
    for name in ("threshold", "resamples", "level", "cluster", "label_noise", "seed"):
        words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    files = [Path(path) for path in (options.scores, options.validation) if path]
    digests = {printable(path.name): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {"command": shlex.join(map(printable, words)), "input": digests, "versions": versions}


def page(notebook: nbformat.NotebookNode, made: dict) -> str:
    """The cells tagged `audit` as one HTML page that loads nothing: no code, no script, figures inside it."""
    notebook.cells = [cell for cell in notebook.cells if "audit" in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        cell.source = re.sub(r"^(#+) [\d.]+ ", r"\1 ", cell.source)  # numbers of sections mean nothing here
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.setdefault("metadata", {})["image/png"] = {"alt": cell.metadata.get("alt", "figure")}
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    body = exporter.from_notebook_node(notebook)[0]
    body = re.sub(r'<a class="anchor-link".*?</a>', "", body)
    name = escape(next(iter(made["input"])))
    facts = "".join(f"<li>{escape(file)}: SHA-256 {digest}</li>" for file, digest in made["input"].items())
    versions = escape(", ".join(f"{name} {version}" for name, version in made["versions"].items()))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>Fairness audit of {name}</title>\n<style>\n{STYLE.read_text()}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>Fairness audit of {name}</h1>\n{body}\n<h2>How this page was made</h2>\n"
        f'<p><code>{escape(made["command"])}</code></p>\n<ul>{facts}</ul>\n<p class="soft">{versions}</p>\n'
        "</main>\n</body>\n</html>\n"
    )
