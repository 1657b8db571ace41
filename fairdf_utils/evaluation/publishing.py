"""Small copies of a run's detectors, to come with the repository: `python -m fairdf_utils publish --run runs/cpu`."""

import json
from argparse import Namespace
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file, save

from fairdf_utils.files import replacing, write_text
from fairdf_utils.model import stored

LARGEST = 500_000  # bytes of a file
# What the card says of each detector, and of each on each test set, by the metric and grouping of chapter 5.
TOLD = ("detector", "method", "sam", "sampling", "epoch", "seed", "data_seed", "bias", "val_auc", "commit")
NUMBERS = {("auc", "all"): "AUC", ("worst_auc", "group"): "worst-group AUC", ("fpr_sum", "group"): "F_FPR"}
BELOW = "## Numbers\n"  # from here on the card is written anew


def main_publish(options: Namespace) -> None:
    """Copy a finished run's detectors of one training seed to where they are shipped, and their numbers into the card.

    Raises DetectorError when one cannot be published; then nothing is written.
    """
    run, card, copies, rows = Path(options.run), stored.SHIPPED / "README.md", {}, []
    try:
        entries = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        judged = pd.read_csv(run / "05_fairness_analysis" / "fairness.csv").query(f"seed == {options.seed}")
        trained = [name for name in entries if name.startswith("03_") and name.endswith(f"-s{options.seed}")]
        if not trained:
            raise LookupError(f"nothing was trained with seed {options.seed}")
        for name in trained:
            copy, told = small_copy(run / name / "best.safetensors", entries[name])
            copies[told["detector"]] = copy
            rows.append({key: told.get(key) for key in TOLD} | {"bytes": len(copy)})
    except (OSError, LookupError, ValueError) as error:
        raise stored.DetectorError(f"{run} is no finished run ({error!r}): run the book into it first") from None
    for detector, copy in copies.items():
        with replacing(stored.SHIPPED / f"{detector}.safetensors") as partial:
            partial.write_bytes(copy)
    above = card.read_text(encoding="utf-8").partition(BELOW)[0]
    numbers = _numbers(judged[judged["detector"].isin(list(copies))])
    write_text(card, "\n".join([above + BELOW, *_table(rows), "", *_table(numbers), ""]))
    print(f"wrote {', '.join(copies)} and {card}")


def small_copy(best: Path, entry: dict) -> tuple[bytes, dict]:
    """A file of a detector as bytes, and what it tells besides weights; `entry` is the training's in the run's record.

    Where it would be larger than LARGEST, weights of two and more axes are in float16, which `load_detector` undoes.
    Raises DetectorError where that is not enough, and for a detector that was not trained on rendered images.
    """
    given = entry["parameters"]
    if given["image_root"]:
        raise stored.DetectorError(f"{best} was trained on images of {given['image_root']}, not on rendered ones")
    told = stored.read_config(best)[1] | {"bias": given["bias"], "data_seed": given.get("data_seed", 0)}
    history = pd.read_csv(best.with_name("history.csv"))
    told |= {"commit": entry["commit"], "val_auc": round(history["val_auc"].max(), 6)}
    weights = load_file(best)
    for halved in ((), [name for name, value in weights.items() if value.ndim > 1]):
        weights |= {name: weights[name].half() for name in halved}
        copy = save(weights, {"config": json.dumps(told)})
        if len(copy) <= LARGEST:
            return copy, told
    raise stored.DetectorError(f"{best} would take {len(copy):,} bytes, more than {LARGEST:,}: train a smaller one")


def _numbers(judged: pd.DataFrame) -> list[dict]:
    """A row a detector and test set: NUMBERS with their intervals, in percent."""
    rows = {}
    for row in judged.itertuples():
        if name := NUMBERS.get((row.metric, row.by)):
            own = rows.setdefault((row.detector, row.dataset), {"detector": row.detector, "test set": row.dataset})
            own[name] = f"{100 * row.estimate:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f})"
    return list(rows.values())


def _table(rows: list[dict]) -> list[str]:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(map(str, row.values()) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]
