"""The command line: `python -m fairdf_utils <command>`, each command with --help."""

import argparse
import importlib
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from fairdf_utils.book import REPOSITORY, BookError


def main(arguments: list[str] | None = None) -> int:
    """Run one sub-command; the exit code is 0, or 2 for what the caller can put right, or 1 for a failure."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a letter is no reason to stop
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    except Exception as error:
        # A message meant for the caller is one of files, of this package, or of a value that its code refuses.
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        refused = isinstance(error, ValueError) and raised_in.is_relative_to(REPOSITORY / "fairdf_utils")
        if not (refused or isinstance(error, OSError) or type(error).__module__.startswith("fairdf_utils.")):
            raise
        if os.environ.get("RANK", "0") != "0":  # of several processes the first speaks,
            time.sleep(5)  # and torchrun ends it as soon as another one has ended
            return 2
        print(f"error: {error}", file=sys.stderr)
        return 2


def _later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """A command whose module is imported when it is called: no help text waits for torch."""
    return lambda options: getattr(importlib.import_module(f"fairdf_utils.{module}"), function)(options)


def _synthetic(options) -> None:
    from fairdf_utils.rendered import counterfactual, images, videos

    if options.counterfactual:
        folder = counterfactual.generate(options.out, options.size, options.bias, options.seed)
        print(f"The images, and test.csv which lists them in pairs, are in {folder}")
    elif options.videos:
        folder = videos.generate_videos(options.out, seed=options.seed)
        print(f"The videos are in {folder}; planted.csv there lists what is wrong with some of them on purpose")
    else:
        folder = images.generate(options.out, size=options.size, bias=options.bias, seed=options.seed)
        print(f"The images are in {folder}")


def _train(options) -> None:
    """Train a detector of a parameters file as chapter 3 would; under torchrun as one of several processes."""
    from dataclasses import fields

    from fairdf_utils.book.parameters import Plan, read_plan, read_plans
    from fairdf_utils.data.manifests import read_split
    from fairdf_utils.model.config import TrainingConfig
    from fairdf_utils.model.stored import choose_device
    from fairdf_utils.preflight.place import Place
    from fairdf_utils.rendered.images import image_folder
    from fairdf_utils.training import distributed
    from fairdf_utils.training.loop import train_detector

    notebooks, folder = REPOSITORY / "notebooks", Path(options.run).resolve()
    wanted = f"03_sam_training/{options.detector}-s{options.seed}"
    world = folder.name if folder.name in read_plans(options.params, notebooks) else ""
    steps = {step.folder: step for step in read_plan(options.params, notebooks, world).steps}
    if wanted not in steps:
        trained = ", ".join(name for name in steps if name.startswith("03_"))
        raise BookError(f"{options.params} does not ask for {wanted}; it asks for {trained}")
    _refuse_faults(Place(Plan([steps[wanted]], jobs=1), folder, notebooks))
    given = steps[wanted].values
    os.chdir(notebooks)  # which paths in a parameters file start from
    config = TrainingConfig(**{field.name: given[field.name] for field in fields(TrainingConfig)})
    device = distributed.init_process_group(choose_device(given["device"], given["threads"]))
    with distributed.rank_zero_first():
        drawn = given["bias"], given["data_seed"]
        images_at = image_folder(given["image_root"], given["data_dir"], config.image_size, *drawn)
    folder_of_lists = Path(given["manifests"], given["train_set"])
    sets = [read_split(folder_of_lists, split, given["image_root"]) for split in ("train", "val")]
    train_detector(config, *sets, folder / wanted, images_at, given["data_dir"], device, given["tensorboard"])


def _check(options) -> int:
    from fairdf_utils.data.checks import main_check

    if not options.faces:
        return main_check(options)
    from fairdf_utils.corpora.persons import shared_faces

    if not options.images:
        raise BookError("check --faces looks at images: give --images ROOT, the folder that image paths start from.")
    return main_check(options, lambda rows: shared_faces(rows, options.images, options.same_person))


def _speed(options) -> None:
    from fairdf_utils.tests.speed.comparison import compare

    table = compare(options.quick)
    print(f"{table.attrs['machine']}\n{table.to_string(index=False, float_format='{:.3g}'.format)}")


def _reproduce(options) -> int:
    from fairdf_utils.book.engine import StepFailed, reproduce
    from fairdf_utils.book.parameters import read_plans
    from fairdf_utils.preflight.bill import estimate
    from fairdf_utils.preflight.place import Place

    notebooks, run = Path(options.notebooks), Path(options.run)
    plans = read_plans(options.params, notebooks)
    places = [Place(plan, run / world, notebooks) for world, plan in plans.items()]
    _refuse_faults(*places, elsewhere=bool(options.profile))
    steps = [step for plan in plans.values() for step in plan.steps]
    if left_out := {name for step in steps for name in step.values.get("left_out", [])}:
        print(f"Left out, because they are not there: {', '.join(sorted(left_out))}")
    if options.estimate or not options.profile:  # a profile's machines are others
        bill = estimate(*places)
        if str(bill):
            print(bill, flush=True)
        if options.estimate:
            return 0
        if bill.too_large:
            remedy = "give a smaller micro_batch, checkpoint_activations or a smaller batch_size"
            raise BookError(f"{', '.join(bill.too_large)}: a step needs more memory than the device has; {remedy}")
    try:
        reproduce(options.params, options.run, options.notebooks, options.jobs, options.profile)
    except StepFailed as error:
        print(*(f"error: {report}" for report in error.args), sep="\n", file=sys.stderr)
        return 1
    return 0


def _results(options) -> None:
    from fairdf_utils.book.run_folder import read_manifest_of_run
    from fairdf_utils.fairness.results import main_results

    main_results(options, read_manifest_of_run)


def _refuse_faults(*places, elsewhere: bool = False) -> None:
    from fairdf_utils.preflight.faults import find_faults

    if faults := [*dict.fromkeys(fault for place in places for fault in find_faults(place, elsewhere))]:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise BookError("\n- ".join([f"{count}; nothing has been run:", *faults]))


def _notebooks(options) -> int:
    from fairdf_utils.book.pairs import check, store_outputs, update

    written = [] if options.check else update(options.notebooks)
    if options.run:
        if failed := _reproduce(options):
            return failed
        written = store_outputs(options.run, options.notebooks)
    for path in written:
        print(f"wrote {os.path.relpath(path)}")
    problems = [] if options.update else check(options.notebooks)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fairdf_utils", description="Fair deepfake detection: the book.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for add in (_add_preparation, _add_judgement, _add_book):
        add(commands)
    return parser


def _add_preparation(commands) -> None:
    made = commands.add_parser(
        "synthetic", help="render the embedded benchmark, a small corpus, or counterfactual faces"
    )
    kind = made.add_mutually_exclusive_group()
    kind.add_argument("--videos", action="store_true", help="film a small corpus in the layout of FF++")
    other = "draw FF++'s test people again with one attribute changed: skin, features, gender, exposure, capture"
    kind.add_argument("--counterfactual", action="store_true", help=other)
    made.add_argument("--size", type=int, default=64, help="side of an image in pixels (default: %(default)s)")
    made.add_argument("--bias", type=float, default=1.0, help="built-in unfairness, 0 to 1 (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, help="of the rendered identities (default: %(default)s)")
    made.add_argument("--out", required=True, help="folder that gets the folder of images or videos")
    made.set_defaults(command=_synthetic)

    made = commands.add_parser(
        "prepare",
        help="from the videos of a corpus to face crops and checked manifests",
        description="Chapter 1 without the chapter: cuts aligned faces out of every video, gives them the demographics "
        "of the annotations, splits them by persons, writes and checks manifests. Without --annotations it ends with "
        "the faces. Every video gets a row in OUT/<data set>/ledger.csv. The same call goes on with a run that was "
        "killed. The exit code is 1 if the manifests hold errors, or if there is no face.",
    )
    made.add_argument("root", help="folder of the corpus, as its owners lay it out")
    made.add_argument("--layout", required=True, choices=("ffpp", "dfd", "celebdf", "dfdc", "folder"))
    made.add_argument("--out", required=True, help="gets crops, ledger and manifests/<data set>")
    made.add_argument("--annotations", nargs="+", default=[], help="CSV files of the corpus's demographics")
    made.add_argument("--mapping", default="", help="of dfdc: CSV file from annotation ids to file names")
    made.add_argument("--split-by", default="identity", help="folder of FF++'s lists, or Celeb-DF's test list, instead")
    made.add_argument("--dataset", default="", help="name of the data set (default: the layout)")
    made.add_argument("--frames", type=_at_least_one, default=30, help="of each video (default: %(default)s)")
    made.add_argument("--size", type=_at_least_one, default=256, help="side of a crop, px (default: %(default)s)")
    made.add_argument("--margin", type=float, default=1.3, help="side of a crop in faces (default: %(default)s)")
    made.add_argument("--format", choices=("png", "jpg"), default="png", help="of crops (default: %(default)s)")
    made.add_argument("--compression", default="c23", help="of ffpp and dfd: raw, c23, c40 (default: %(default)s)")
    made.add_argument("--jobs", type=int, default=-1, help="processes; -1 takes all cores (default)")
    made.add_argument("--seed", type=int, default=0, help="of the split (default: %(default)s)")
    made.add_argument(
        "--persons", choices=("names", "faces"), default="names", help="who is who: by file names or faces"
    )
    _add_same_person(made)
    made.set_defaults(command=_later("corpora.preparation", "main_prepare"))

    check = commands.add_parser("check", help="check manifests; the exit code is 1 if they hold errors")
    check.add_argument("manifests", nargs="+", help="CSV files, or folders of them")
    check.add_argument("--images", help="folder that the image paths start from; images are looked at")
    check.add_argument("--size", type=_at_least_one, help="side that every image must have, px")
    check.add_argument("--out", help="also write all findings to this CSV file")
    check.add_argument("--faces", action="store_true", help="look for one face in two splits, in real videos' images")
    _add_same_person(check)
    check.set_defaults(command=_check)


def _add_judgement(commands) -> None:
    predict = commands.add_parser(
        "predict",
        help="score the faces of a picture, a video or a folder",
        description="Saves a score for every face, and pictures with the faces marked. Exit code 1: not all scored. A "
        "row of scores.csv is a face, a video (the mean of its largest faces) or a file that gave none: score = "
        "P(fake); above_real, above_fake = the shares of the detector's validation faces (videos) that score lower; "
        "face_score = how sure it is a face (1 and more is sure); reason = why there is no score, or not for all. "
        "Found are upright frontal faces from 80 px on; in pictures below 1280 px from a sixteenth of the longer side.",
    )
    predict.add_argument("path", help="a picture, a video, or a folder of them")
    predict.add_argument("--run", default="runs/cpu", help="run folder with the detector (default: %(default)s)")
    predict.add_argument("--detector", default="fairdf", help="its name in the run (default: %(default)s)")
    predict.add_argument("--seed", type=int, default=0, help="of its training (default: %(default)s)")
    predict.add_argument("--checkpoint", help="path of a checkpoint, instead of the three above")
    predict.add_argument("--out", default="predictions", help="folder of the results (default: %(default)s)")
    predict.add_argument("--frames", type=_at_least_one, default=30, help="of a video (default: %(default)s)")
    predict.add_argument("--aligned", action="store_true", help="the pictures are aligned face crops already")
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: %(default)s)")
    predict.set_defaults(command=_later("evaluation.pictures", "main_predict"))

    publish = commands.add_parser("publish", help="ship a finished run's detectors with the repository")
    publish.add_argument("--run", default="runs/cpu", help="a run on the embedded benchmark (default: %(default)s)")
    publish.add_argument("--seed", type=int, default=0, help="of the trainings (default: %(default)s)")
    publish.set_defaults(command=_later("evaluation.publishing", "main_publish"))

    audit = commands.add_parser(
        "audit",
        help="judge the fairness of any detector by its scores",
        description="Reads a table of scores and writes a report (index.html, findings.json and tables). Columns: "
        "label (1 = fake), score = P(fake), one or more of gender, race, group; video and dataset if there are any.",
    )
    audit.add_argument("scores", help="CSV or parquet file, one row an image")
    audit.add_argument("--out", required=True, help="folder of the report")
    audit.add_argument("--by", nargs="+", help="columns that name groups (default: gender, race, group)")
    audit.add_argument("--threshold", type=float, default=0.5, help="fake from this score on (default: %(default)s)")
    audit.add_argument("--validation", help="scores that thresholds are fitted on")
    audit.add_argument("--resamples", type=_at_least_one, default=1000, help="of intervals (default: %(default)s)")
    audit.add_argument("--level", type=float, default=0.95, help="of the intervals (default: %(default)s)")
    audit.add_argument("--cluster", default="video", help="drawn as a whole: video, identity, img_path")
    audit.add_argument("--label-noise", type=float, default=0.05, help="wrong group labels (default: %(default)s)")
    audit.add_argument("--seed", type=int, default=0, help="of draws and permutations (default: %(default)s)")
    _add_notebooks(audit)
    audit.set_defaults(command=_later("book.audit", "main_audit"))


def _add_book(commands) -> None:
    whole = commands.add_parser(
        "reproduce",
        help="run the whole book into a run folder",
        description="Snakemake runs the chapters. What is done from the same parameters, code and inputs is skipped, "
        "what was interrupted goes on, results from other inputs are replaced.",
    )
    whole.add_argument("--params", required=True, help="name of a file in notebooks/params, such as cpu, or a path")
    whole.add_argument("--run", required=True, help="the run folder, e.g. runs/cpu")
    whole.add_argument("--jobs", type=_at_least_one, help="steps at a time (default: as the file says, or 1)")
    whole.add_argument("--profile", help="a Snakemake profile that runs the steps elsewhere: notebooks/profiles/slurm")
    whole.add_argument("--estimate", action="store_true", help="say what it will take on this machine, and stop")
    _add_notebooks(whole)
    whole.set_defaults(command=_reproduce)

    results = commands.add_parser("results", help="gather the detectors of runs, and how they differ, in two tables")
    results.add_argument("runs", nargs="+", help="run folders, or folders of the worlds of a parameters file")
    results.add_argument("--out", required=True, help="path of the table; comparisons.csv is written beside it")
    results.set_defaults(command=_results)

    speed = commands.add_parser("speed", help="time the hot paths against what the libraries offer")
    speed.add_argument("--quick", action="store_true", help="seconds, at sizes whose ratios mean nothing")
    speed.set_defaults(command=_speed)

    coverage = commands.add_parser("coverage", help="simulate how often the intervals of chapter 5 hold the truth")
    coverage.add_argument("--sets", type=_at_least_one, default=40, help="of each kind (default: %(default)s)")
    default = os.path.relpath(REPOSITORY / "data_manifests" / "results" / "coverage.csv")
    coverage.add_argument("--out", default=default, help="table that is written (default: %(default)s)")
    coverage.add_argument("--seed", type=int, default=0, help="of the simulation (default: %(default)s)")
    coverage.set_defaults(command=_later("fairness.coverage", "main_coverage"))

    train = commands.add_parser(
        "train",
        help="train one detector of a parameters file, with torchrun in several processes",
        description="What chapter 3 does, without the chapter, which then finds it finished: torchrun --nproc-per-node "
        "2 -m fairdf_utils train --params gpu --run-dir runs/gpu --detector fairdf --seed 0",
    )
    train.add_argument("--params", required=True, help="name of a file in notebooks/params, or a path")
    # torchrun takes --run for one of its own options.
    train.add_argument("--run-dir", "--run", dest="run", required=True, help="the run folder, e.g. runs/gpu")
    train.add_argument("--detector", required=True, help="name of a detector in the file's grid")
    train.add_argument("--seed", type=int, default=0, help="one of the file's seeds (default: %(default)s)")
    train.set_defaults(command=_train)

    pairs = commands.add_parser(
        "notebooks",
        help="check, update or execute the committed notebooks",
        description="Each chapter is a pair of files: .py (the source) and .ipynb (the same cells with outputs).",
    )
    what = pairs.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="list where the two files of a chapter differ")
    what.add_argument("--update", action="store_true", help="write each .ipynb from its .py; equal cells keep outputs")
    what.add_argument("--run", help="update, run the book with the cpu profile into this folder, store outputs, check")
    _add_notebooks(pairs)
    pairs.set_defaults(command=_notebooks, params="cpu", jobs=None, profile=None, estimate=False)


def _add_same_person(parser) -> None:
    parser.add_argument("--same-person", type=float, default=0.5, help="distance of one person's faces (default: 0.5)")


def _at_least_one(text) -> int:
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")


def _add_notebooks(parser) -> None:
    default = os.path.relpath(REPOSITORY / "notebooks")
    parser.add_argument("--notebooks", default=default, help="folder of the chapters (default: %(default)s)")


if __name__ == "__main__":
    sys.exit(main())
