"""The embedded benchmark: four rendered data sets with a bias whose ground truth is known.

``data_manifests/synthetic`` lists the images; :func:`generate` renders them. The data sets stand in for FF++, DFDC,
Celeb-DF and DFD: one to train on, three that differ in cameras, forgeries and groups. Chapter 6 explains them.

The bias knob, 0 to 1, adds two traps to the capture of an image (:func:`ground_truth` tells them for every row):

- *exposure* falls with the skin's melanin, so that fakes of dark skin drown in noise and are missed;
- *poor captures* (softer, noisier, harder JPEG) are :data:`POOR_FAKES` of the fake videos of every group, but a share
  of the real ones that depends on the group, :data:`POOR_REALS`: "poor capture means fake" becomes a shortcut that
  pays where poor real videos are rare and gives false alarms where they are common.
"""

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from PIL import Image

from fairdf_utils.data.manifests import ManifestError, read_manifest
from fairdf_utils.data.vocabulary import COLUMNS, DATASETS, FORGERIES, GENDERS, GROUPS, RACES, SIX_GROUPS
from fairdf_utils.files import locked, replacing, write_text
from fairdf_utils.progress import bar
from fairdf_utils.rendered import drawing, forgeries, people
from fairdf_utils.rendered.people import named_generator
from fairdf_utils.workers import end_with_parent

MANIFESTS = Path(__file__).resolve().parents[2] / "data_manifests" / "synthetic"
EXPOSURE_LOSS = 0.45  # of the gain, at bias 1 and melanin 1
POOR_REALS = dict(zip(GROUPS, (0.80, 0.03, 0.90, 0.60, 0.30, 0.03, 0.90, 0.75), strict=True))  # at bias 1
POOR_FAKES = 0.85  # at bias 1, every group
POOR_BLUR, POOR_NOISE, POOR_QUALITY = 0.50, 0.008, 16  # 64 px pixels, full scale, JPEG points
# Images of each group in FF++'s training set (Lin et al. 2024): the prior of our training set.
FFPP_PRIOR = (2475, 25443, 1468, 4163, 8013, 31281, 1111, 2185)


# What a counterfactual image may change, and the values of a ladder; melanin and exposure take any from 0 to 1.
ATTRIBUTES = {
    "melanin": (0.0, 0.35, 0.65, 1.0),  # the skin alone
    "features": RACES,  # a race's traits without melanin
    "gender": GENDERS,
    "exposure": (0.0, 1.0),  # the melanin that the camera's exposure is that of
    "capture": ("good", "poor"),
}


@dataclass(frozen=True)
class Domain:
    """What sets a data set apart: groups, forgeries and their quality, cameras.

    ``gain`` and ``noise`` are ranges of full scale, ``blur`` of 64 px pixels, ``quality`` of JPEG at 64 px.
    """

    groups: tuple
    forgeries: tuple
    strength: float
    gain: tuple
    noise: tuple
    blur: tuple
    quality: tuple


DOMAINS = {
    "ffpp": Domain(GROUPS, FORGERIES[1:], 1.6, (0.85, 1.10), (0.004, 0.012), (0.10, 0.50), (82, 97)),
    "dfdc": Domain(GROUPS, FORGERIES[1:], 1.3, (0.60, 0.95), (0.008, 0.020), (0.20, 0.55), (68, 95)),
    "celebdf": Domain(SIX_GROUPS, ("Deepfakes",), 0.7, (0.85, 1.10), (0.004, 0.012), (0.10, 0.50), (82, 97)),
    "dfd": Domain(SIX_GROUPS, ("Deepfakes", "FaceShifter"), 1.4, (0.80, 1.05), (0.004, 0.014), (0.15, 0.55), (75, 96)),
}


def _face(row, identity, seed, change=None):
    return people.draw_face(named_generator(seed, "face", identity), row.gender, row.race, change)


def _scene(row, identity, seed):
    """A fake shares its scene with the real frame it was made from, so that only the forgery tells them apart."""
    clip, frame = named_generator(seed, "clip", identity), named_generator(seed, "frame", identity, row.frame)
    return people.draw_scene(clip, frame)


def capture_conditions(
    row: tuple, melanin: float, size: int, bias: float, seed: int, capture: str | None = None
) -> tuple:
    """Draw the camera of a manifest's row (a named tuple) whose face has this melanin (0 to 1).

    `capture`, "good" or "poor", is what it is made to be instead of what was drawn.

    Frames of a video share it, and so does the fake made from them; only where the two shares of poor captures differ
    must some of the fakes be captured better, or worse, than what they were made from. Returns the camera, whether the
    capture is poor, and the gain without white balance.
    """
    domain = _domain(row)
    clip = named_generator(seed, "camera", row.identity)
    gain = clip.uniform(*domain.gain) * (1 - EXPOSURE_LOSS * bias * melanin)
    balance = 1 + clip.uniform(-0.04, 0.04, 3)
    blur, noise = clip.uniform(*domain.blur), clip.uniform(*domain.noise)
    share = POOR_FAKES if row.label else POOR_REALS[row.group]
    poor = bool(clip.uniform() < share * bias)
    poor = poor if capture is None else capture == "poor"
    # A larger image needs less quality for the same loss: 29 points at four times the size.
    low, high = np.array(domain.quality) - np.array([14.5, 2.5]) * min(2.0, max(0.0, math.log2(size / 64)))
    quality = max(5, round(clip.uniform(low, high)) - POOR_QUALITY * poor)
    gains, blur, noise = tuple((gain * balance).tolist()), blur + POOR_BLUR * poor, noise + POOR_NOISE * poor
    return forgeries.Camera(gains, float(blur), float(noise), quality), poor, float(gain)


def _domain(row):
    dataset = row.img_path.split("/")[0]
    if dataset not in DOMAINS:
        raise ManifestError(f"{row.img_path} is of no rendered data set: start it with one of {', '.join(DATASETS)}.")
    return DOMAINS[dataset]


def _jpeg(row, size, bias, seed, change=None):
    """The JPEG file of one manifest row, as bytes; a change is one of target and source, so that they stay alike."""
    change = change or {}
    face, scene = _face(row, row.identity, seed, change), _scene(row, row.identity, seed)
    grain = drawing.skin_grain(named_generator(seed, "grain", row.identity, row.frame), size)
    image = drawing.paint(face, scene, size, grain)
    if row.label:
        source, other = _face(row, row.source_identity, seed, change), _scene(row, row.source_identity, seed)
        image = forgeries.forge(image, row.forgery, face, source, scene, other, grain, _domain(row).strength)
    exposure = change.get("exposure", _face(row, row.identity, seed).melanin)  # that of the skin as it was
    camera, _, _ = capture_conditions(row, exposure, size, bias, seed, change.get("capture"))
    return forgeries.capture(image, camera, named_generator(seed, "shot", row.video, row.frame))


def check(seed: int, **ranges: tuple[float, float, float]) -> None:
    """Refuse a seed below 0 and values that are out of range, each given as name=(value, lowest, highest)."""
    if seed < 0:
        raise ValueError(f"seed is {seed}; use 0 or more.")
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; use {low} to {high}.")


def _refuse_impossible(change: Mapping) -> None:
    for name, value in change.items():
        if name not in ATTRIBUTES:
            raise ValueError(f"{name!r} is nothing to be changed; use {', '.join(ATTRIBUTES)}.")
        if isinstance(ATTRIBUTES[name][0], float):
            check(0, **{name: (value, 0, 1)})
        elif value not in ATTRIBUTES[name]:
            raise ValueError(f"{name} is {value!r}; use {', '.join(ATTRIBUTES[name])}.")


def render_rows(
    frame: pd.DataFrame, size: int = 64, bias: float = 1.0, seed: int = 0, change: Mapping | None = None
) -> np.ndarray:
    """Render rows of a manifest in memory: uint8 (N, size, size, 3), RGB.

    They are exactly what the files that :func:`generate` stores decode to, JPEG loss included.

    Parameters
    ----------
    frame : N canonical rows whose ``img_path`` starts with the data set
    size : 64 to 512 pixels
    bias : 0 to 1
    seed : 0 or more
    change : of :data:`ATTRIBUTES` what differs, {"melanin": 1.0}: same person, scene, forgery and noise of the sensor
    """
    check(seed, size=(size, 64, 512), bias=(bias, 0, 1))
    _refuse_impossible(change or {})
    files = (io.BytesIO(_jpeg(row, size, bias, seed, change)) for row in frame.itertuples(index=False))
    return np.array([np.asarray(Image.open(file)) for file in files], dtype=np.uint8).reshape(-1, size, size, 3)


def ground_truth(frame: pd.DataFrame, size: int = 64, bias: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Tell how each row was captured: what the bias knob did. Parameters as in :func:`render_rows`.

    Returns index and rows of ``frame`` with ``melanin`` (0 to 1), ``gain`` (exposure, 1 = nominal), ``poor`` (bool),
    ``blur`` (64 px pixels), ``noise`` (full scale) and ``quality`` (JPEG).
    """
    check(seed, size=(size, 64, 512), bias=(bias, 0, 1))
    rows = []
    for row in frame.itertuples(index=False):
        melanin = _face(row, row.identity, seed).melanin
        camera, poor, gain = capture_conditions(row, melanin, size, bias, seed)
        rows.append((melanin, gain, poor, camera.blur, camera.noise, camera.quality))
    return pd.DataFrame(rows, index=frame.index, columns=["melanin", "gain", "poor", "blur", "noise", "quality"])


def generate(
    out: str | Path, size: int = 64, bias: float = 1.0, seed: int = 0, manifests: str | Path = "", workers: int = -1
) -> Path:
    """Render every image of the manifests, once.

    A run that was killed goes on where it stopped; a finished folder is not touched again unless the manifests or the
    renderer change. On two cores the benchmark's 10,864 images take about 20 s at 64 px and, extrapolated from 48
    images, 5 minutes at 256 px. Raises ManifestError for a manifest that is missing or faulty.

    Parameters
    ----------
    out : images go to ``out/<size>px-bias<bias>-seed<seed>/`` + ``img_path``; that folder is returned
    size, bias, seed : as for :func:`render_rows`
    manifests : folder of manifests, by default the repository's ``data_manifests/synthetic``
    workers : processes, as joblib counts: -1 for every core
    """
    check(seed, size=(size, 64, 512), bias=(bias, 0, 1))
    files = sorted(Path(manifests or MANIFESTS).rglob("*.csv"))
    if not files:
        raise ManifestError(f"{manifests}: holds no manifests. Give the folder that holds ffpp/test.csv and so on.")
    rows = pd.concat([read_manifest(file)[list(COLUMNS)] for file in files], ignore_index=True)
    return rendered_once(rows, Path(out) / f"{size}px-bias{bias:g}-seed{seed}", size, bias, seed, workers)


def rendered_once(rows: pd.DataFrame, root: Path, size: int, bias: float, seed: int, workers: int) -> Path:
    """The folder ``root`` with the images of rows, each changed as its ``change`` says where there is that column."""
    digest = hashlib.sha256(rows[list(COLUMNS)].to_csv(index=False, lineterminator="\n").encode()).hexdigest()
    parameters = {"size": size, "bias": float(bias), "seed": seed, "images": len(rows), "digest": digest}
    return made_once(root, parameters, partial(_render_files, rows, root, (size, bias, seed), workers))


def made_once(root: Path, parameters: dict, make: Callable[[], None]) -> Path:
    """Let ``make`` fill the folder ``root``, unless this code filled it with these parameters before.

    What an interrupted call with the same parameters left stays for ``make`` to go on with; what other parameters left
    is removed. Of calls at the same time one works and the others wait for it.
    """
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    wanted = json.dumps(parameters | {"code": hashlib.sha256(code).hexdigest()}, indent=1)
    started, complete = root / "started.json", root / "complete.json"

    def found(path):
        return path.exists() and path.read_text() == wanted

    if found(complete):
        return root
    with locked(root.parent / f".{root.name}.lock"):
        if not found(complete):
            if not found(started):
                shutil.rmtree(root, ignore_errors=True)
            write_text(started, wanted)
            make()
            os.replace(started, complete)
    return root


def image_folder(image_root: str | Path, data_dir: str | Path, image_size: int, bias: float, seed: int = 0) -> Path:
    """The folder that ``img_path`` is relative to: ``image_root``, or if that is empty the rendered benchmark's.

    The benchmark is made below ``data_dir`` where it is missing, see :func:`generate`. Raises FileNotFoundError where
    ``image_root`` is not a folder.
    """
    if not image_root:
        return generate(data_dir, image_size, bias, seed)
    if not Path(image_root).is_dir():
        raise FileNotFoundError(f"image_root '{image_root}' is not a folder; give the one that img_path starts from.")
    return Path(image_root)


def in_processes(make: Callable, pieces: list, jobs: int, **words: str) -> None:
    """Call ``make(piece)`` for all pieces in worker processes, in any order, with a bar that ``words`` describe."""
    tasks = [joblib.delayed(make)(piece) for piece in pieces]
    for _ in bar(joblib.Parallel(jobs, return_as="generator_unordered")(tasks), total=len(tasks), **words):
        pass


def _render_files(rows, root, parameters, workers):
    pending = rows[[not (root / path).exists() for path in rows["img_path"]]]
    chunks = [pending.iloc[start : start + 32] for start in range(0, len(pending), 32)]
    render = partial(_render_chunk, root=root, parameters=parameters)
    in_processes(render, chunks, workers, desc="rendering", unit="32 images")


def _render_chunk(chunk, root, parameters):
    end_with_parent()
    for row in chunk.itertuples(index=False):
        with replacing(root / row.img_path) as path:
            path.write_bytes(_jpeg(row, *parameters, getattr(row, "change", None)))
