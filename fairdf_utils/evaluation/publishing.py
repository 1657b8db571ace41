"""Small copies of a run's detectors, to come with the repository: `python -m fairdf_utils publish --run runs/cpu`."""

import json
from argparse import Namespace
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file, save

from fairdf_utils.fairness.results import SETTINGS, numbers
from fairdf_utils.fairness.score_table import read_scores
from fairdf_utils.files import replacing, write_text
from fairdf_utils.model import stored

LARGEST = 500_000  # bytes of a file
# What the card tells of each.
TOLD = ("detector", "method", "sam", "epoch", "seed", "data_seed", "bias", "val_auc", "commit")
BELOW = "## Numbers\n"  # from here on the card is written anew


def main_publish(options: Namespace) -> None:
    """Copy a finished run's detectors of one training seed to where they are shipped, and their numbers into the card.

    Raises DetectorError when one cannot be published; then nothing is written.
    """
    run, card, copies, rows, measured = Path(options.run), stored.SHIPPED / "README.md", {}, [], []
    try:
        entries = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        trained = [name for name in entries if name.startswith("03_") and name.endswith(f"-s{options.seed}")]
        if not trained:
            raise LookupError(f"nothing was trained with seed {options.seed}")
        for name in trained:
            copy, told = small_copy(run / name / "best.safetensors", entries[name])
            copies[told["detector"]] = copy
            rows.append({key: told[key] for key in TOLD} | {"bytes": len(copy)})
            measured += measure(told["detector"], run / "04_cross_dataset_evaluation" / name.partition("/")[2])
    except (OSError, LookupError, ValueError) as error:
        raise stored.DetectorError(f"{run} is no finished run ({error!r}): run the book into it first") from None
    for detector, copy in copies.items():
        with replacing(stored.SHIPPED / f"{detector}.safetensors") as partial:
            partial.write_bytes(copy)
    above = card.read_text(encoding="utf-8").partition(BELOW)[0]
    write_text(card, "\n".join([above + BELOW, *_table(rows), "", *_table(measured), ""]))
    print(f"wrote {', '.join(copies)} and {card}")


def small_copy(best: Path, entry: dict) -> tuple[bytes, dict]:
    """A file of a detector as bytes, and what it tells besides weights; `entry` is the training's in the run's record.

    Where it would be larger than LARGEST, weights of two and more axes are in float16, which `load_detector` undoes.
    Raises DetectorError where that is not enough, and for a detector that was not trained on rendered images.
    """
    given = entry["parameters"]
    if given["image_root"]:
        raise stored.DetectorError(f"{best} was trained on images of {given['image_root']}, not on rendered ones")
    told = stored.read_config(best)[1] | {"data_seed": given["data_seed"], "bias": given["bias"]}
    history = pd.read_csv(best.with_name("history.csv"))
    told |= {"val_auc": round(history["val_auc"].max(), 6), "commit": entry["commit"]}
    weights = load_file(best)
    for halved in ((), [name for name, value in weights.items() if value.ndim > 1]):
        weights |= {name: weights[name].half() for name in halved}
        copy = save(weights, {"config": json.dumps(told)})
        if len(copy) <= LARGEST:
            return copy, told
    raise stored.DetectorError(f"{best} would take {len(copy):,} bytes, more than {LARGEST:,}: train a smaller one")


def measure(detector: str, scored: Path) -> list[dict]:
    """A row for each test set in a folder of chapter 4: AUC and worst-group AUC with intervals, F_FPR; in percent."""
    rows = []
    for name, table in read_scores(scored / "scores.parquet").groupby("dataset", sort=False):
        found = 100 * numbers(table, "group", SETTINGS)
        row = {"detector": detector, "test set": name}
        for key, words in (("auc", "AUC"), ("worst_auc", "worst-group AUC")):
            row[words] = f"{found[key]:.1f} ({found[f'{key}_low']:.1f} to {found[f'{key}_high']:.1f})"
        rows.append(row | {"F_FPR at 10 % FPR": f"{found['fpr_sum_matched']:.1f}"})
    return rows


def _table(rows: list[dict]) -> list[str]:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(map(str, row.values()) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]
