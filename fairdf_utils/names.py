"""The names that files, tables and figures speak in: groups, forgery methods, data sets, canonical columns."""

GENDERS = ("male", "female")
RACES = ("asian", "white", "black", "others")
GROUPS = tuple(f"{gender}-{race}" for gender in GENDERS for race in RACES)
SIX_GROUPS = tuple(group for group in GROUPS if not group.endswith("asian"))  # codes 0..5 of Celeb-DF and DFD
SIX_GROUP_DATASETS = ("celebdf", "dfd")
METHODS = ("real", "Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
DATASETS = ("ffpp", "dfdc", "celebdf", "dfd")
COLUMNS = (
    "img_path",
    "label",
    "method",
    "gender",
    "race",
    "group",
    "video",
    "identity",
    "source_identity",
    "frame",
)
