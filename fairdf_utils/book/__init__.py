"""What the chapters and the command line need of the book: pairs of files, parameters, run folders, the engine."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class BookError(Exception):
    """Something the reader can put right; the message says how."""
