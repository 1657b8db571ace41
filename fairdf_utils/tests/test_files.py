"""A disk that is full: one sentence with the folder and the remedy, and what was there stays."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from fairdf_utils import files
from fairdf_utils.data.batches import decode


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed")])
def test_a_full_disk_is_named_and_the_file_stays_as_it_was(tmp_path, monkeypatch, error):
    path = tmp_path / "last.pt"
    files.write_text(path, "before")
    if isinstance(error, RuntimeError):  # torch does not say why
        monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(OSError, match=f"no room left in {tmp_path}.*the same command goes on"), files.replacing(path):
        raise error
    assert [found.name for found in tmp_path.iterdir()] == ["last.pt"] and path.read_text() == "before"


def test_other_failures_are_raised_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="^other$"), files.replacing(tmp_path / "file"):
        raise RuntimeError("other")
    assert not list(tmp_path.iterdir())


def test_images_are_not_decoded_into_a_map_without_room(corpus, training_set, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(OSError, match=f"no room left in {tmp_path}"):
            decode(training_set, corpus / "images", 16, tmp_path)
    assert not list(Path(tmp_path).iterdir())
    assert decode(training_set, corpus / "images", 16, tmp_path).any()
