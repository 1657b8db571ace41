"""What can be read from a feature: linear probes with their chance level, and embeddings to look at.

A probe is a logistic regression on a frozen feature. If the group can be read from the domain-agnostic feature as
well as from the demographic one, the two were not disentangled. A probe at chance says that no linear rule finds the
attribute, not that it is absent. Nothing here needs torch.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import recall_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairdf_utils import progress

TARGETS = ("label", "forgery", "gender", "race", "group", "dataset")
COUNTED = ("classes", "n", "identities")
EMBEDDINGS = ("pca", "tsne")


def identity_folds(
    target: np.ndarray, identity: np.ndarray, source: np.ndarray, folds: int = 5, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to train and to test on, such that nobody of the test rows is seen in training.

    Each fold tests on other identities, the classes spread over the folds. From its training rows go all that show
    a person of the test rows, as target or as source of a swap; the rest trains.

    `target` (N,) is the attribute to be read, `identity` (N,) the person shown, `source` (N,) the person whose face was
    put on, "" where there is none. Returns (train, test) of each fold, int64 positions. Raises ValueError if a class
    has fewer identities than folds, or there is only one class.
    """
    people = pd.Series(identity).groupby(target).nunique()
    if len(people) < 2 or people.min() < folds:
        raise ValueError(
            f"{folds} folds need at least two classes of {folds} identities each; there are "
            + ", ".join(f"{name}: {count}" for name, count in people.items())
        )
    pairs = []
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in split.split(target, target, identity):
        shown = np.array(sorted({*identity[test], *source[test]} - {""}))
        pairs.append((train[~np.isin(identity[train], shown) & ~np.isin(source[train], shown)], test))
    return pairs


def linear_probe(feature: np.ndarray, target: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """How well a linear rule reads an attribute from a feature: the balanced accuracy of each fold.

    Features are standardised by the training rows. Classes weigh the same in training, and the recalls of the classes
    present in the test rows are averaged, so that chance is 1 / classes.

    `feature` float (N, D), `target` (N,), `folds` from `identity_folds`; returns float64 (number of folds,), 0..1. A
    fold with a single class to train on is left out: one of a few people, most of whose images may not train.
    """
    accuracy = []
    for train, test in folds:
        if len(np.unique(target[train])) < 2:
            continue
        probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=300, tol=1e-3))
        called = probe.fit(feature[train], target[train]).predict(feature[test])
        accuracy.append(recall_score(target[test], called, labels=np.unique(target[test]), average="macro"))
    return np.array(accuracy)


def probes(
    features: Mapping[str, np.ndarray],
    frame: pd.DataFrame,
    targets: Iterable[str] = TARGETS,
    folds: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Every attribute read from every feature: one row a feature and target.

    The forgery is read from fakes alone, because "real" is the label. A target with a single value is left out.

    Parameters
    ----------
    features : name -> float (N, D), such as `grad_cam.features`
    frame : DataFrame, N rows
        The targets' columns and identity. If there, source_identity ("" = none) and dataset, which tells apart people
        of the same name.

    Returns
    -------
    DataFrame with feature, target, classes, n (images), identities (int); accuracy (mean balanced accuracy over the
    folds), sd (over the folds, ddof 1), chance (1 / classes): fractions
    """
    identity, source = _people(frame)
    fake = frame["label"].to_numpy() == 1
    rows = []
    for target in progress.bar(list(targets), desc="probes", unit="target"):
        used = fake if target == "forgery" else np.ones(len(frame), bool)
        values = frame[target].to_numpy()[used]
        classes = len(np.unique(values))
        if classes < 2:
            continue
        splits = identity_folds(values, identity[used], source[used], folds, seed)
        size = dict(zip(COUNTED, (classes, int(used.sum()), len(np.unique(identity[used]))), strict=True))
        for name, feature in features.items():
            fold = pd.Series(linear_probe(feature[used], values, splits))
            found = {"accuracy": fold.mean(), "sd": fold.std(), "chance": 1 / classes}
            rows.append({"feature": name, "target": target, **size, **found})
    return pd.DataFrame(rows, columns=["feature", "target", *COUNTED, "accuracy", "sd", "chance"])


def _people(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Identity and source identity of each row, (N,) each, told apart by data set; source "" where there is none."""
    prefix = frame["dataset"].astype(str) + "/" if "dataset" in frame else ""
    identity = (prefix + frame["identity"].astype(str)).to_numpy(str)
    if "source_identity" not in frame:
        return identity, np.full(len(frame), "")
    source = frame["source_identity"].fillna("").astype(str)
    return identity, (prefix + source).where(source != "", "").to_numpy(str)


def embed(feature: np.ndarray, kind: str = "pca", seed: int = 0) -> pd.DataFrame:
    """Two coordinates of each row of a feature (N, D): principal components ("pca") or t-SNE, of the standardised one.

    Distances between far points of a t-SNE, and the sizes of its clusters, mean nothing. Returns a DataFrame with the
    columns x, y and attrs["words"]: "PCA, 61% of the variance", or "t-SNE".
    """
    if kind not in EMBEDDINGS:
        raise ValueError(f"kind {kind!r} is unknown; choose one of {', '.join(EMBEDDINGS)}")
    standard = StandardScaler().fit_transform(feature)
    if kind == "pca":
        pca = PCA(2, svd_solver="full")
        points = pca.fit_transform(standard)
        words = f"PCA, {pca.explained_variance_ratio_.sum():.0%} of the variance"
    else:
        tsne = TSNE(2, perplexity=min(30, (len(feature) - 1) / 3), init="pca", random_state=seed, n_jobs=1)
        points, words = tsne.fit_transform(standard.astype(np.float32)), "t-SNE"
    table = pd.DataFrame(points, columns=["x", "y"])
    table.attrs["words"] = words
    return table
