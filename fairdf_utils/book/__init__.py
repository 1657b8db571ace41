"""What the chapters and the command line need of the book: pairs of files, parameters, run folders, the engine."""


class BookError(Exception):
    """Something the reader can put right; the message says how."""
