"""Counterfactual images: the people of a manifest drawn again with one attribute changed, as files for any detector."""

from pathlib import Path

import pandas as pd

from fairdf_utils.data.manifests import read_split, write_manifest
from fairdf_utils.data.vocabulary import COLUMNS
from fairdf_utils.rendered import images

DRAWN = "as drawn"  # attribute and value of an image in which nothing is changed


def counterfactual_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of a manifest, and each once more for every value of :data:`images.ATTRIBUTES`.

    Canonical columns, of which `group` stays that of the person as drawn, and ``attribute`` and ``value``: what is
    changed to what; ``pair``: the `img_path` of the row as drawn, which all of its images share.
    """
    ladder = [(name, value) for name, values in images.ATTRIBUTES.items() for value in values]
    parts = []
    for name, value in [(DRAWN, DRAWN), *ladder]:
        place = "/as-drawn/" if name == DRAWN else f"/{name}-{value}/"
        paths = frame["img_path"].str.replace("/", place, n=1, regex=False)
        part = frame[list(COLUMNS)].assign(img_path=paths, attribute=name, value=value, pair=frame["img_path"])
        parts.append(part.assign(change=[{} if name == DRAWN else {name: value}] * len(frame)))
    return pd.concat(parts, ignore_index=True)


def generate(
    out: str | Path, size: int = 64, bias: float = 1.0, seed: int = 0, frame: pd.DataFrame | None = None,
    workers: int = -1,
) -> Path:  # fmt: skip
    """Render :func:`counterfactual_rows` once, with ``test.csv``, which lists them; the folder of both is returned.

    ``frame`` are rows of a manifest, by default the first image of each video of the rendered FF++ test set. Goes on
    where it stopped, as :func:`images.generate`, whose other parameters these are.
    """
    images.check(seed, size=(size, 64, 512), bias=(bias, 0, 1))
    if frame is None:
        frame = read_split(images.MANIFESTS / "ffpp", "test").drop_duplicates("video")
    rows = counterfactual_rows(frame)
    root = Path(out) / f"counterfactual-{size}px-bias{bias:g}-seed{seed}"
    images.rendered_once(rows, root, size, bias, seed, workers)
    if not (root / "test.csv").exists():
        write_manifest(rows.drop(columns="change"), root / "test.csv")
    return root
