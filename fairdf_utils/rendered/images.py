"""The embedded benchmark: four rendered data sets with a bias whose ground truth is known.

``data_manifests/synthetic`` lists the images; :func:`generate` renders them. The data sets stand in for FF++, DFDC,
Celeb-DF and DFD: one to train on, three that differ in cameras, forgeries and groups. Identities are shared
neither between splits nor between data sets, sources of fakes included.

The bias knob, 0 to 1, adds two traps to the capture of an image (:func:`ground_truth` tells them for every row):

- *exposure* falls with the skin's melanin, so that fakes of dark skin drown in noise and are missed;
- *poor captures* (softer, noisier, harder JPEG) are :data:`POOR_FAKES` of the fakes of every group, but a share of
  the reals that depends on the group, :data:`POOR_REALS`: "poor capture means fake" becomes a shortcut that pays
  where poor reals are rare and gives false alarms where they are common.

The demographic prior of FF++ in the training manifests is there whatever the knob says.
"""

import hashlib
import io
import json
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fairdf_utils.data.manifests import ManifestError, read_manifest, write_manifest
from fairdf_utils.data.vocabulary import COLUMNS, DATASETS, FORGERIES, GROUPS, SIX_GROUPS
from fairdf_utils.files import replacing, write_text
from fairdf_utils.progress import bar
from fairdf_utils.rendered import drawing, forgeries
from fairdf_utils.workers import end_with_parent

MANIFESTS = Path(__file__).resolve().parents[2] / "data_manifests" / "synthetic"
EXPOSURE_LOSS = 0.30  # of the gain, at bias 1 and melanin 1
POOR_REALS = dict(zip(GROUPS, (0.80, 0.03, 0.90, 0.60, 0.30, 0.03, 0.90, 0.75), strict=True))  # at bias 1
POOR_FAKES = 0.45  # at bias 1, every group
POOR_BLUR, POOR_NOISE, POOR_QUALITY = 0.30, 0.005, 12  # 64 px pixels, full scale, JPEG points
# Images of each group in FF++'s training set (Lin et al. 2024): the prior of our training set.
FFPP_PRIOR = (2475, 25443, 1468, 4163, 8013, 31281, 1111, 2185)
FRAMES = (0, 30, 60, 90)  # of a video for validation or testing
TRAIN_FRAMES = (0, 60)  # fewer, so that small groups show more persons
TRAIN_VIDEOS = 1124  # real ones, and as many fakes
VAL_VIDEOS = 12  # real ones a group, and as many fakes
TEST_VIDEOS = 25  # real ones a group, and as many fakes


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


def write_manifests(folder=MANIFESTS, seed=0):
    """Write the benchmark's manifests; the same seed gives the same bytes.

    Parameters
    ----------
    folder : str or Path
        Gets ``ffpp/{faketrain,realtrain,fakeval,realval,test}.csv`` and ``test.csv`` for the other data sets.
    seed : int
        Draws who is swapped with whom.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    total = sum(FFPP_PRIOR)
    prior = {group: round(TRAIN_VIDEOS * n / total) for group, n in zip(GROUPS, FFPP_PRIOR, strict=True)}
    for dataset, domain in DOMAINS.items():
        rng = _rng(seed, "manifests", dataset)
        first = 0
        for split in ("train", "val", "test") if dataset == "ffpp" else ("test",):
            even = dict.fromkeys(domain.groups, VAL_VIDEOS if split == "val" else TEST_VIDEOS)
            videos = prior if split == "train" else even
            frames = TRAIN_FRAMES if split == "train" else FRAMES
            rows = _split_rows(dataset, domain, videos, frames, first, rng)
            first += sum(videos.values())
            if split == "test":
                write_manifest(rows, folder / dataset / "test.csv")
            else:
                for name, label in (("fake", 1), ("real", 0)):
                    write_manifest(rows[rows["label"] == label], folder / dataset / f"{name}{split}.csv")
    return folder


def _split_rows(dataset, domain, videos, frames, first, rng):
    """Canonical rows of one split: every identity has a real video and a fake one, whose source is another identity
    of the same group; forgeries take turns. ``videos`` maps group to number of identities, ``first`` numbers them."""
    rows = []
    for group, count in videos.items():
        numbers = list(range(first, first + count))
        first += count
        order = rng.permutation(count)
        source = {numbers[a]: numbers[b] for a, b in zip(order, np.roll(order, 1), strict=True)}
        turn = int(rng.integers(len(domain.forgeries)))
        for position, number in enumerate(numbers):
            forgery = domain.forgeries[(position + turn) % len(domain.forgeries)]
            rows += _video_rows(dataset, "real", group, number, None, frames)
            rows += _video_rows(dataset, forgery, group, number, source[number], frames)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _video_rows(dataset, forgery, group, number, source, frames):
    gender, race = group.split("-")
    name = f"{number:04d}" if source is None else f"{number:04d}_{source:04d}"
    video = f"{dataset}/{forgery}/{name}"
    identity = f"{dataset}-{number:04d}"
    source_identity = "" if source is None else f"{dataset}-{source:04d}"
    label = int(source is not None)
    return [
        (f"{video}_{frame:03d}.jpg", label, forgery, gender, race, group, video, identity, source_identity, frame)
        for frame in frames
    ]


def _rng(seed, *names):
    """A generator that depends on the seed and the names only: never on order, process or Python's hash."""
    digest = hashlib.sha256("\n".join(map(str, names)).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], dtype="<u4").tolist()])


def _face(row, identity, seed):
    return drawing.draw_face(_rng(seed, "face", identity), row.gender, row.race)


def _scene(row, identity, seed):
    """A fake shares its scene with the real frame it was made from, so that only the forgery tells them apart."""
    return drawing.draw_scene(_rng(seed, "clip", identity), _rng(seed, "frame", identity, row.frame))


def _capture_conditions(row, melanin, size, bias, seed):
    """Draw a row's camera. Returns (Camera, whether the capture is poor, gain without white balance, generator)."""
    domain = _domain(row)
    clip = _rng(seed, "camera", row.identity)
    gain = clip.uniform(*domain.gain) * (1 - EXPOSURE_LOSS * bias * melanin)
    balance = 1 + clip.uniform(-0.04, 0.04, 3)
    blur, noise = clip.uniform(*domain.blur), clip.uniform(*domain.noise)
    shot = _rng(seed, "shot", row.video, row.frame)
    share = POOR_FAKES if row.label else POOR_REALS[row.group]
    poor = bool(shot.uniform() < share * bias)
    # A larger image needs less quality for the same loss: 29 points at four times the size.
    low, high = np.array(domain.quality) - np.array([14.5, 2.5]) * min(2.0, max(0.0, math.log2(size / 64)))
    quality = round(shot.uniform(low, high)) - POOR_QUALITY * poor
    camera = forgeries.Camera(
        gain=tuple((gain * balance).tolist()),
        blur=float(blur + POOR_BLUR * poor),
        noise=float(noise + POOR_NOISE * poor),
        quality=max(5, quality),
    )
    return camera, poor, float(gain), shot


def _domain(row):
    dataset = row.img_path.split("/")[0]
    if dataset not in DOMAINS:
        raise ManifestError(
            f"{row.img_path}: no rendered data set has this name. Start img_path with one of {', '.join(DATASETS)}."
        )
    return DOMAINS[dataset]


def _jpeg(row, size, bias, seed):
    """The JPEG file of one manifest row, as bytes."""
    face, scene = _face(row, row.identity, seed), _scene(row, row.identity, seed)
    grain = drawing.skin_grain(_rng(seed, "grain", row.identity, row.frame), size)
    image = drawing.paint(face, scene, size, grain)
    if row.label:
        source, other = _face(row, row.source_identity, seed), _scene(row, row.source_identity, seed)
        image = forgeries.forge(image, row.forgery, face, source, scene, other, grain, _domain(row).strength)
    camera, _, _, shot = _capture_conditions(row, face.melanin, size, bias, seed)
    return forgeries.capture(image, camera, shot)


def _check(size, bias, seed):
    if seed < 0:
        raise ValueError(f"seed is {seed}; use 0 or more.")
    if not 64 <= size <= 512:
        raise ValueError(f"size is {size}; use 64 to 512 pixels.")
    if not 0 <= bias <= 1:
        raise ValueError(f"bias is {bias}; use 0 (none) to 1.")


def render_rows(frame, size=64, bias=0.5, seed=0):
    """Render rows of a manifest in memory.

    Parameters
    ----------
    frame : pandas.DataFrame
        Canonical rows whose ``img_path`` starts with the data set.
    size : int
        64 to 512 pixels.
    bias : float
        0 to 1.
    seed : int

    Returns
    -------
    ndarray (N, size, size, 3) uint8
        RGB; exactly what the files that :func:`generate` stores decode to, JPEG loss included.
    """
    _check(size, bias, seed)
    images = np.empty((len(frame), size, size, 3), dtype=np.uint8)
    for position, row in enumerate(frame.itertuples(index=False)):
        images[position] = np.asarray(Image.open(io.BytesIO(_jpeg(row, size, bias, seed))))
    return images


def ground_truth(frame, size=64, bias=0.5, seed=0):
    """Tell how each row was captured: what the bias knob did.

    Returns
    -------
    pandas.DataFrame
        Index and rows of ``frame``; ``melanin`` (0 to 1), ``gain`` (exposure, 1 = nominal), ``poor`` (bool),
        ``blur`` (64 px pixels), ``noise`` (full scale), ``quality`` (JPEG).
    """
    _check(size, bias, seed)
    rows = []
    for row in frame.itertuples(index=False):
        melanin = _face(row, row.identity, seed).melanin
        camera, poor, gain, _ = _capture_conditions(row, melanin, size, bias, seed)
        rows.append((melanin, gain, poor, camera.blur, camera.noise, camera.quality))
    return pd.DataFrame(rows, index=frame.index, columns=["melanin", "gain", "poor", "blur", "noise", "quality"])


def contact_sheet(size=128, bias=0.5, seed=0, dataset="ffpp"):
    """Render one identity a group, as a real and as each forgery.

    Returns
    -------
    ndarray (8 * size, 6 * size, 3) uint8
        Rows in the order of ``GROUPS``, columns in the order of ``FORGERIES``; no text.
    """
    rows = []
    for number, group in enumerate(GROUPS):
        for forgery in FORGERIES:
            source = None if forgery == "real" else 9100 + number  # numbers that no manifest uses
            rows += _video_rows(dataset, forgery, group, 9000 + number, source, FRAMES[:1])
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    images = render_rows(frame, size, bias, seed).reshape(len(GROUPS), len(FORGERIES), size, size, 3)
    return images.transpose(0, 2, 1, 3, 4).reshape(len(GROUPS) * size, len(FORGERIES) * size, 3)


def generate(out, size=64, bias=0.5, seed=0, manifests=None, workers=None):
    """Render every image of the manifests, once.

    Files are written whole or not at all, so a run that was killed goes on where it stopped. A finished folder
    carries ``complete.json``; the next call with the same parameters returns at once. Files made by other manifests
    or by another version of the renderer are replaced. On two cores the benchmark's 10,864 images take about 20 s at
    64 px and, extrapolated from 48 images, 5 minutes at 256 px.

    Parameters
    ----------
    out : str or Path
        Images go to ``out/<size>px-bias<bias>-seed<seed>/`` + ``img_path``.
    size : int
        64 to 512 pixels.
    bias : float
        0 to 1.
    seed : int
    manifests : str or Path, optional
        Folder of manifests, by default the repository's ``data_manifests/synthetic``.
    workers : int, optional
        Processes, by default one for each core.

    Returns
    -------
    Path
        The image root that ``img_path`` is relative to.

    Raises
    ------
    ManifestError
        A manifest is missing or faulty.
    """
    _check(size, bias, seed)
    manifests = MANIFESTS if manifests is None else Path(manifests)
    rows = _all_rows(manifests)
    root = Path(out) / f"{size}px-bias{bias:g}-seed{seed}"
    parameters = json.dumps(
        {"size": size, "bias": float(bias), "seed": seed, "images": len(rows), "digest": _digest(rows)}, indent=1
    )
    started, complete = root / "started.json", root / "complete.json"
    if complete.exists() and complete.read_text() == parameters:
        return root
    resumable = started.exists() and started.read_text() == parameters
    pending = rows[[not (resumable and (root / path).exists()) for path in rows["img_path"]]]
    complete.unlink(missing_ok=True)
    write_text(started, parameters)
    _render_files(pending, root, (size, bias, seed), workers or os.cpu_count() or 1, len(rows))
    write_text(complete, parameters)
    started.unlink(missing_ok=True)
    return root


def image_folder(image_root: str | Path, data_dir: str | Path, image_size: int, bias: float, seed: int = 0) -> Path:
    """Find the folder that ``img_path`` is relative to.

    Parameters
    ----------
    image_root : str or Path
        A folder of images; if empty, the benchmark is rendered, where it is missing, into a folder below ``data_dir``.
    data_dir : str or Path
    image_size : int
        64 to 512 pixels.
    bias : float
        0 to 1.
    seed : int
        Of the rendered identities.

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        ``image_root`` is not a folder.
    """
    if not image_root:
        return generate(data_dir, image_size, bias, seed)
    if not Path(image_root).is_dir():
        raise FileNotFoundError(
            f"image_root {str(image_root)!r} is not a folder; give the folder that img_path starts from."
        )
    return Path(image_root)


def _all_rows(manifests):
    files = sorted(manifests.rglob("*.csv"))
    if not files:
        raise ManifestError(
            f"{manifests}: holds no manifests. Write them with fairdf_utils.rendered.images.write_manifests."
        )
    return pd.concat([read_manifest(file) for file in files], ignore_index=True)


def _digest(rows):
    """SHA-256 of the rows and of the code that renders them."""
    digest = hashlib.sha256(rows[list(COLUMNS)].to_csv(index=False, lineterminator="\n").encode())
    for file in (drawing.__file__, forgeries.__file__, __file__):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _render_files(pending, root, parameters, workers, total):
    chunks = [pending.iloc[start : start + 32] for start in range(0, len(pending), 32)]
    with bar(total=total, initial=total - len(pending), desc="rendering", unit="image") as shown:
        for done in _rendered(chunks, root, parameters, min(workers, len(chunks))):
            shown.update(done)


def _rendered(chunks, root, parameters, workers):
    """Render chunks of rows, here or in worker processes; yields the number of images of each."""
    if workers <= 1:
        yield from (_render_chunk(chunk, root, parameters) for chunk in chunks)
        return
    # "spawn" because forking a notebook's kernel, full of threads, may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=end_with_parent) as pool:
        yield from pool.map(partial(_render_chunk, root=root, parameters=parameters), chunks)


def _render_chunk(chunk, root, parameters):
    for row in chunk.itertuples(index=False):
        with replacing(root / row.img_path) as partial:
            partial.write_bytes(_jpeg(row, *parameters))
    return len(chunk)
