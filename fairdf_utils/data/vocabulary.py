"""The words that files, tables and figures share: groups, forgeries, data sets, fidelities, canonical columns."""

import pandas as pd

GENDERS = ("male", "female")
RACES = ("asian", "white", "black", "others")
GROUPS = tuple(f"{gender}-{race}" for gender in GENDERS for race in RACES)
SIX_GROUPS = tuple(group for group in GROUPS if not group.endswith("asian"))  # codes 0..5 of Celeb-DF and DFD
SIX_GROUP_DATASETS = ("celebdf", "dfd")
FORGERIES = ("real", "Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
FIDELITIES = ("corrected", "official")  # what the paper says, what the released code computes
DATASETS = ("ffpp", "dfdc", "celebdf", "dfd")
COLUMNS = ("img_path", "label", "forgery", "gender", "race", "group", "video", "identity", "source_identity", "frame")


def group_order(labels: pd.Series) -> list[str]:
    """The groups in a column in the project's order (male before female; asian, white, black, others).

    Forgeries and data sets have theirs too; names that the project does not know come last, by name.
    """
    if isinstance(labels.dtype, pd.CategoricalDtype):
        return list(labels.cat.categories)  # a category without images stays visible, with n = 0
    known = (*GROUPS, *GENDERS, *RACES, *FORGERIES, *DATASETS)
    return sorted(labels.unique(), key=lambda v: (known.index(v) if v in known else len(known), str(v)))
