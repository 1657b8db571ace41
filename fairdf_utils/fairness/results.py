"""The files of an experiment: runs gathered into a row for each detector, training seed, world and test set.

A world is a data seed and a bias of the embedded benchmark. `experiment` reads what is written here.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from fairdf_utils.fairness.experiment import BETTER
from fairdf_utils.fairness.resampling import Settings, auc_of, clustered
from fairdf_utils.fairness.score_table import ScoreTableError, read_scores
from fairdf_utils.fairness.thresholds import fit_threshold
from fairdf_utils.fairness.trivial import trivial_tables
from fairdf_utils.fairness.uncertainty import interval_of_an_auc, paired_difference
from fairdf_utils.fairness.worst_group import COLUMNS, COMMON_FPR, MATCHED, main_numbers, matched_numbers, worst_groups
from fairdf_utils.files import write_text
from fairdf_utils.progress import bar

TRAINED, SCORED = "03_sam_training", "04_cross_dataset_evaluation"  # folders of a run
REFERENCES = ("balanced", "balanced-long", "ori", "fairdf-nosam")
WORLD = ["data_seed", "bias"]
SHARED = [*WORLD, "seed"]  # by detectors that are compared
GIVEN = ["method", "seed", "fidelity", "sam", "sampling", "demographic_branch", "fairness_loss"]  # to a training
COST = ["epochs", "best_epoch", "seconds"]
ENDS = [f"{name}_{end}" for name in ("worst_auc", "auc") for end in ("low", "high")]
NUMBERS = [*COLUMNS, *(f"{name}_matched" for name in MATCHED), *ENDS]
ROW = [*WORLD, "detector", *GIVEN, *COST, "dataset", *NUMBERS, "commit"]
PAIR = [*WORLD, "detector", "reference", "seed", "dataset", "metric", "estimate", "low", "high"]
SETTINGS = Settings(resamples=500)


def numbers(table: pd.DataFrame, by: str, settings: Settings) -> pd.Series:
    """`main_numbers` and `matched_numbers` of a score table, with the intervals ENDS: fractions."""
    worst = worst_groups(table, by, replace(settings, resamples=1)).loc["worst_auc"]  # it needs none
    low, high = interval_of_an_auc(auc_of(clustered(table, by, settings), together=True), settings.level)
    ends = pd.Series([worst["low"], worst["high"], low[0], high[0]], ENDS, np.float64)
    return pd.concat([main_numbers(table, by, settings), matched_numbers(table, by, settings), ends])


def differences(a: pd.DataFrame, b: pd.DataFrame, by: str, settings: Settings) -> pd.DataFrame:
    """Numbers of A minus those of B on the same images, each at its own threshold with an FPR of COMMON_FPR.

    Index BETTER; columns estimate, low, high. NaN where there is no such threshold, see `matched_numbers`.
    """
    try:
        cuts = [fit_threshold(table, "fpr", COMMON_FPR, settings.fidelity) for table in (a, b)]
    except ScoreTableError:
        cuts = []
    cut_a, cut_b = cuts or (settings.threshold, None)
    found = paired_difference(a, b, by, replace(settings, threshold=cut_a), threshold_b=cut_b)
    found = found.rename({name: f"{name}_matched" for name in MATCHED if cuts})
    return found.reindex(list(BETTER))[["estimate", "low", "high"]].rename_axis("metric")


def _scored(folder: Path, manifest: dict) -> Iterator[tuple[dict, Path]]:
    """What is known of each detector that a run has scored, and the folder of its scores."""
    for name in (name.partition("/")[2] for name in manifest if name.startswith("04_")):
        scored, trained = (manifest.get(f"{chapter}/{name}", {}) for chapter in (SCORED, TRAINED))
        row = {"data_seed": 0} | scored["parameters"] | trained.get("parameters", {})
        row["commit"] = (trained or scored)["commit"]
        if row.get("method") == "balanced":  # the plain detector's other name for this
            row["sampling"] = "balanced"
        if (history := folder / TRAINED / name / "history.csv").exists():
            epochs = pd.read_csv(history)
            best = epochs.loc[epochs["val_auc"].idxmax(), "epoch"]  # the first of the highest
            row |= dict(zip(COST, (len(epochs), best, epochs["seconds"].sum()), strict=True))
        else:
            row.pop("epochs", None)
        yield row, folder / SCORED / name


@cache
def _tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The score tables of a folder by test set, without images whose group is not known."""
    return dict([*read_scores(folder / "scores.parquet").dropna(subset="group").groupby("dataset", sort=False)])


def _trivial(row: dict, path: Path) -> Iterator[dict]:
    """Rows of the trivial predictors, on the images that a detector has scored."""
    held_out = path / "validation"
    validation = pd.concat(_tables(held_out).values()) if held_out.exists() else None
    known = {name: row[name] for name in (*WORLD, "commit")} | {"seed": SETTINGS.seed}
    for dataset, table in _tables(path).items():
        for name, blind in trivial_tables(table, SETTINGS.seed, validation).items():
            yield known | {"detector": f"({name})", "dataset": dataset, **numbers(blind, "group", SETTINGS)}


def _compared(row: dict, path: Path, scored: list[tuple[dict, Path]]) -> Iterator[dict]:
    """Rows of a detector's differences from the REFERENCES of its world and seed: of its run, else of the one other."""
    same = [(other["detector"], place) for other, place in scored if all(other[name] == row[name] for name in SHARED)]
    for reference in REFERENCES:
        found = [place for name, place in same if name == reference]
        found = [place for place in found if place.parent == path.parent] or found
        if len(found) == 1 and reference != row["detector"]:
            for dataset, table in _tables(path).items():
                if dataset in (others := _tables(found[0])):
                    for one in differences(table, others[dataset], "group", SETTINGS).reset_index().to_dict("records"):
                        yield {**row, "reference": reference, "dataset": dataset, **one}


def gather(folders: Iterable[Path], read_manifest: Callable[[Path], dict]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All detectors that runs, or the worlds below them, have scored, and their paired differences.

    The first table has the columns ROW; trivial predictors, once a world, are called "(coin)" and so on. The second, of
    the columns PAIR, compares each detector with the REFERENCES. `read_manifest` gives the entries of a run folder's
    manifest. FileNotFoundError for a folder without scores.
    """
    scored = {}
    for folder in folders:
        runs = [path.parent for place in ("", "*/") for path in sorted(folder.glob(f"{place}manifest.json"))]
        if not (found := [one for run in runs for one in _scored(run, read_manifest(run))]):
            raise FileNotFoundError(f"{folder} holds no run with scores: give a run folder, or one that holds worlds")
        scored |= {path.resolve(): (row, path) for row, path in found}
    scored, rows, compared = [*scored.values()], [], []
    firsts = {(row["data_seed"], row["bias"]): (row, path) for row, path in scored[::-1]}
    for row, path in [*firsts.values()][::-1]:
        rows += _trivial(row, path)
    for row, path in bar(scored, desc="results", unit="detectors"):
        for dataset, table in _tables(path).items():
            rows.append({**row, "dataset": dataset, **numbers(table, "group", SETTINGS)})
        compared += _compared(row, path, scored)
    return pd.DataFrame(rows).reindex(columns=ROW), pd.DataFrame(compared, columns=PAIR)


def main_results(options, read_manifest: Callable[[Path], dict]) -> None:
    """The two tables as files: NAME.csv, and comparisons.csv beside experiment.csv, else NAME-comparisons.csv."""
    out = Path(options.out)
    beside = out.with_name(f"{out.stem}-comparisons.csv".removeprefix("experiment-"))
    for path, table in zip((out, beside), gather(map(Path, options.runs), read_manifest), strict=True):
        write_text(path, table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
        print(f"{path}: {len(table)} rows")
