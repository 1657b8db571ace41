"""The words that files, tables and figures share: groups, forgeries, data sets, fidelities, canonical columns."""

from collections.abc import Iterable

import pandas as pd

GENDERS = ("male", "female")
RACES = ("asian", "white", "black", "others")
GROUPS = tuple(f"{gender}-{race}" for gender in GENDERS for race in RACES)
SIX_GROUPS = tuple(group for group in GROUPS if not group.endswith("asian"))  # codes 0..5 of Celeb-DF and DFD
SIX_GROUP_DATASETS = ("celebdf", "dfd")
TONES = ("light", "medium", "dark")
TONE_GROUPS = tuple(f"{gender}-{tone}" for gender in GENDERS[::-1] for tone in TONES)  # codes 0..5 of AI-Face's lists
FORGERIES = ("real", "Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
FIDELITIES = ("corrected", "official")  # what the paper says, what the released code computes
SAMPLING = ("natural", "balanced")  # of a training epoch's pairs
DATASETS = ("ffpp", "dfdc", "celebdf", "dfd")
COLUMNS = ("img_path", "label", "forgery", "gender", "race", "group", "video", "identity", "source_identity", "frame")


def scheme_of(groups: Iterable[str]) -> tuple[str, ...]:
    """The group scheme that names belong to: a group's code is its position, its length the demographic head's.

    The categories of a categorical column; else all eight, or AI-Face's six, where no name is outside of them; else
    the names themselves, ordered by :func:`group_order`.
    """
    if isinstance(getattr(groups, "dtype", None), pd.CategoricalDtype):
        return tuple(group_order(groups))
    names = set(groups)
    known = [scheme for scheme in (GROUPS, TONE_GROUPS) if names <= set(scheme)]
    return known[0] if known else tuple(group_order(pd.Series(list(names), dtype=object)))


def group_order(labels: pd.Series) -> list[str]:
    """The groups in a column in the project's order (male before female; asian, white, black, others).

    Forgeries and data sets have theirs too; names that the project does not know come last, by name.
    """
    if isinstance(labels.dtype, pd.CategoricalDtype):
        return list(labels.cat.categories)  # a category without images stays visible, with n = 0
    known = (*GROUPS, *GENDERS, *RACES, *FORGERIES, *DATASETS)
    return sorted(labels.unique(), key=lambda v: (known.index(v) if v in known else len(known), str(v)))


def counted(number: int, nouns: str) -> str:
    """3, "videos" -> "3 videos"; one person, two people."""
    singular = {"people": "person"}.get(nouns, nouns.removesuffix("s"))
    return f"{int(number):,} {singular if number == 1 else nouns}"
