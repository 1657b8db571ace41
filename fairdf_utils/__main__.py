"""The command line: `python -m fairdf_utils synthetic | reproduce | notebooks | benchmark`, each with --help."""

import argparse
import os
import sys

from fairdf_utils.book import REPOSITORY, BookError


def main(arguments=None) -> int:
    """Run one sub-command; the exit code is 0, or 2 for what the caller can put right, or 1 for a failure."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except BookError as error:
        return _refuse(error)
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
        return 130


def _refuse(error) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _synthetic(options) -> int:
    from fairdf_utils.manifests import ManifestError
    from fairdf_utils.synthetic import generate

    try:
        folder = generate(options.out, size=options.size, bias=options.bias, seed=options.seed)
    except (ManifestError, ValueError) as error:
        return _refuse(error)
    print(f"The images are in {folder}")
    return 0


def _reproduce(options) -> int:
    from fairdf_utils.reproduce import ChapterFailed, reproduce

    try:
        reproduce(options.params, options.run, options.notebooks, options.jobs)
    except ChapterFailed as error:
        for failure in error.args:
            print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


def _notebooks(options) -> int:
    from fairdf_utils.notebooks import check, store_outputs

    if not options.check:
        failed = _reproduce(options)
        if failed:
            return failed
        for path in store_outputs(options.run, options.notebooks):
            print(f"wrote {os.path.relpath(path)}")
    problems = check(options.notebooks)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _benchmark(options) -> int:
    from fairdf_utils.benchmark import main as measure

    return measure(quick=options.quick, out=options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fairdf_utils", description="Fair deepfake detection: the book.")
    commands = parser.add_subparsers(required=True, metavar="command")

    made = commands.add_parser("synthetic", help="render the embedded benchmark")
    made.add_argument("--size", type=int, default=64, help="side of an image in pixels (default: %(default)s)")
    made.add_argument(
        "--bias", type=float, default=0.5, help="strength of the built-in unfairness, 0 to 1 (default: %(default)s)"
    )
    made.add_argument("--seed", type=int, default=0, help="of the rendered identities (default: %(default)s)")
    made.add_argument("--out", required=True, help="folder that gets the folder of images")
    made.set_defaults(command=_synthetic)

    whole = commands.add_parser(
        "reproduce",
        help="run the whole book into a run folder",
        description="Run the chapters in order. What is done with the same inputs is skipped, what was interrupted is "
        "resumed, results from other inputs are replaced.",
    )
    whole.add_argument("--params", required=True, help="name of a file in notebooks/params, such as cpu, or a path")
    whole.add_argument("--run", required=True, help="the run folder, e.g. runs/cpu")
    whole.add_argument(
        "--jobs",
        type=_at_least_one,
        help="cells of a repeated chapter that run at a time (default: `jobs` of the parameters file, or 1)",
    )
    _add_notebooks(whole)
    whole.set_defaults(command=_reproduce)

    speed = commands.add_parser(
        "benchmark",
        help="measure training, scoring, loading and metrics against a straightforward form, side by side",
    )
    speed.add_argument("--quick", action="store_true", help="small sizes: to see that it works, not to learn ratios")
    speed.add_argument("--out", help="also write the table to this CSV file")
    speed.set_defaults(command=_benchmark)

    pairs = commands.add_parser(
        "notebooks",
        help="check the committed notebooks, or store outputs in them",
        description="Each chapter is a pair of files: .py (the source) and .ipynb (the same cells with outputs).",
    )
    what = pairs.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="list where the two files of a chapter differ")
    what.add_argument("--run", help="run the book with the cpu profile into this folder, then write every .ipynb")
    _add_notebooks(pairs)
    pairs.set_defaults(command=_notebooks, params="cpu", jobs=None)
    return parser


def _at_least_one(text) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _add_notebooks(parser) -> None:
    default = os.path.relpath(REPOSITORY / "notebooks")
    parser.add_argument("--notebooks", default=default, help="folder of the chapters (default: %(default)s)")


if __name__ == "__main__":
    sys.exit(main())
