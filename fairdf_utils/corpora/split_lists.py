"""The lists that say officially which videos train and which test: FF++'s pairs and Celeb-DF's test videos."""

import json
import re
from pathlib import Path

from fairdf_utils.data.csv_rows import ManifestError

_TESTED = re.compile(r"([01])\s+((?:Celeb-real|YouTube-real|Celeb-synthesis)/[^/\\]+)\.\w+\s*")


def read_pairs(folder, splits):
    """FF++'s ``train.json``, ``val.json``, ``test.json``.

    Returns
    -------
    placed : dict of str to str
        Number of a real video, "071" -> its split.
    pairs : set of (str, str)
        Target and source of the fakes, in both directions.
    """
    placed, pairs = {}, set()
    for name in splits:
        path = Path(folder) / f"{name}.json"
        for pair in _pairs(path):
            for number in pair:
                other = placed.setdefault(number, name)
                if other != name:
                    raise ManifestError(f"{path}: {number} is in {other} as well. Get the official files anew.")
            pairs |= {tuple(pair), tuple(pair[::-1])}
    return placed, pairs


def _pairs(path):
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}). Correct the path.") from None
    except ValueError as error:
        raise ManifestError(f"{path}: not a json file ({error}). Get the official file anew.") from None
    if not isinstance(pairs, list):
        raise ManifestError(f"{path}: not a list of pairs. Get the official file anew.")
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(number, str) for number in pair)):
            raise ManifestError(f'{path}: {pair!r} is no pair such as ["071", "054"]. Get the official file anew.')
    return pairs


def read_test_list(path):
    """Celeb-DF's ``List_of_testing_videos.txt``: video name -> (label, 1 fake as everywhere here; line)."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read ({error}). Correct the path.") from None
    listed = {}
    for number, line in enumerate(lines, start=1):
        match = _TESTED.fullmatch(line)
        if match:
            listed[match[2]] = (1 - int(match[1]), number)
        elif line.strip():
            raise ManifestError(f"{path}, line {number}: {line!r} is not like '1 YouTube-real/00170.mp4'. Correct it.")
    return listed
