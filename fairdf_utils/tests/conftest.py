"""A corpus small enough to train on within a second: fakes are brighter than reals, all eight groups."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fairdf_utils.data.manifests import read_split, write_manifest
from fairdf_utils.data.vocabulary import COLUMNS, FORGERIES, GROUPS

SIZE = 16  # pixels


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Waking a second thread costs more than these small networks gain by it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Folder with `manifests/ffpp/*.csv` and `images/`: 64 training, 32 validation and 32 test images."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    for split, frames in (("train", 4), ("val", 2), ("test", 2)):
        rows = []
        for number, group in enumerate(GROUPS):
            for label in (0, 1):
                forgery = FORGERIES[1 + number % 5] if label else "real"
                video = f"ffpp/{forgery}/{split}{number}"
                for frame in range(frames):
                    path = f"{video}_{frame:03d}.png"
                    target = folder / "images" / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    pixels = np.clip(random.normal(110 + 40 * label, 30, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(target)
                    gender, race = group.split("-")
                    source = f"{split}-source{number}" if label else ""
                    person = f"{split}{number}"
                    rows.append((path, label, forgery, gender, race, group, video, person, source, frame))
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        if split == "test":
            write_manifest(table, folder / "manifests/ffpp/test.csv")
        else:
            for name, label in (("fake", 1), ("real", 0)):
                write_manifest(table[table["label"] == label], folder / f"manifests/ffpp/{name}{split}.csv")
    return folder


@pytest.fixture
def training_set(corpus):
    return read_split(corpus / "manifests/ffpp", "train")


@pytest.fixture
def validation_set(corpus):
    return read_split(corpus / "manifests/ffpp", "val")


@pytest.fixture
def test_set(corpus):
    return read_split(corpus / "manifests/ffpp", "test")
