"""Files that are whole or not there, and locks."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def needing_room(folder: Path) -> Iterator[None]:
    """Raise an OSError that names `folder` and the remedy where the block fails because the disk is full."""
    try:
        yield
    except Exception as error:  # torch and safetensors have errors of their own
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or shutil.disk_usage(folder).free < 2**16
        if not full:
            raise
        what = f"no room left in {folder}. What was finished is kept: make room, and the same command goes on"
        raise OSError(errno.ENOSPC, what) from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """The path of a temporary file that takes the place of `path` when the block ends.

    When the block fails, the temporary file is removed and `path` stays as it was; an OSError says so where the disk is
    full. Missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with needing_room(path.parent):
            yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file with "\\n" line ends; a reader sees the old content or the new, never a part."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def printable(path: str | Path) -> str:
    """A path as text that any file and terminal takes: bytes that are no UTF-8 become \\x.. ."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[TextIO]:
    """Hold an exclusive lock; the system frees it when the process ends, however it ends. The file names the process.

    Raises
    ------
    BlockingIOError
        If another process holds it and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file
