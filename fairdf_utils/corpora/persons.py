"""Who is who by their faces, where names do not say it.

A clip of DFDC names no person: what stands for one is the clip itself, and for a fake its original. A split without a
shared name still has actors on both sides. Here a face recognition network (dlib's: 128 numbers a face, compared by
Euclidean distance) tells the persons of real videos apart: a video is the mean of a few of its crops, and videos that
average linkage joins below a threshold show one face.

Only real videos are compared. A fake shows a mixture of two faces, near to both and equal to neither, so it follows its
original; whose face was put on it, DFDC does not say.

The network separates some groups less than others, as the page "Getting the corpora" measures on rendered persons.
Nothing was measured on real ones.
"""

from __future__ import annotations

import errno
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dlib
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import pairwise_distances_chunked
from sklearn.metrics.cluster import pair_confusion_matrix
from sklearn.neighbors import radius_neighbors_graph

from fairdf_utils.corpora.faces import canonical, find, model_file
from fairdf_utils.corpora.splits import components
from fairdf_utils.corpora.videos import positions
from fairdf_utils.data.csv_rows import ManifestError, Problem
from fairdf_utils.data.manifests import SPLIT_FILES
from fairdf_utils.data.pictures import read_picture
from fairdf_utils.data.vocabulary import counted
from fairdf_utils.files import replacing
from fairdf_utils.progress import bar
from fairdf_utils.workers import end_with_parent

SAME_PERSON = 0.5  # dlib's authors say 0.6 for two photographs; a mean of crops varies less
CROPS = 3  # of a video, evenly spaced
CACHE = "face_embeddings.parquet"  # below the image root
SAVED_EVERY = 200  # videos
NEAR = 0.1  # of the threshold: a video as near to it is doubtful
NOMINAL = (
    "WARNING: DFDC names clips, not persons, and its actors are in many clips: the split shares no clip, but may share "
    "persons. Give persons the value faces, or do not call the split identity-disjoint."
)


@dataclass(frozen=True)
class Persons:
    """Persons of real videos, and how sure they are.

    ``videos`` has a row for each real video with a readable crop: ``video``, ``name`` (its identity by the corpus),
    ``face`` (number of its cluster), ``person`` (the first of the names that names and faces connect), ``farthest``
    (distance to the farthest video of its cluster), ``nearest`` (to the nearest of another) and ``doubtful``: one of
    the two is beyond the threshold or within a tenth of it.
    """

    videos: pd.DataFrame
    threshold: float
    unseen: int  # real videos without a readable crop: they keep their names
    orphans: int  # fakes whose identity is no real video's: they keep their names

    def named(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Canonical rows with persons for names, in ``identity`` and ``source_identity``."""
        persons = self.videos.drop_duplicates("name").set_index("name")["person"]
        columns = ("identity", "source_identity")
        return rows.assign(**{name: rows[name].map(persons).fillna(rows[name]) for name in columns})

    def sentences(self) -> list[str]:
        """What was found and how sure it is."""
        videos, doubtful = self.videos, self.videos.loc[self.videos["doubtful"], "video"]
        within, between = videos["farthest"].max(), videos["nearest"].min()
        gap = "a gap, and every threshold in it gives the same" if within < between else "they overlap"
        said = [
            f"{len(videos):,} real videos with {videos['name'].nunique():,} names show {videos['face'].nunique():,} "
            f"faces at the distance {self.threshold:g}, {videos['person'].nunique():,} persons."
        ]
        if within > 0 and between < np.inf:
            said.append(f"Videos of one face are up to {within:.2f} apart, videos of two from {between:.2f} on: {gap}.")
        if len(doubtful):
            said.append(f"In doubt: {counted(len(doubtful), 'videos')}, such as {', '.join(doubtful.head(3))}.")
        (apart, joined), (torn, together) = pair_confusion_matrix(videos["name"], videos["face"]) // 2
        if together + torn:  # names of persons
            said.append(
                f"Of {together + torn:,} pairs of videos with one name {together:,} have one face; of "
                f"{apart + joined:,} pairs with two names, {joined:,}."
            )
        if self.unseen:
            said.append(f"Without a readable crop, so under their names: {counted(self.unseen, 'real videos')}.")
        if self.orphans:
            said.append(f"Without an original here, so of unknown persons: {counted(self.orphans, 'fakes')}.")
        return said


def identify(
    rows: pd.DataFrame,
    prepared: str | Path,
    dataset: str,
    layout: str,
    split_by: str | Path = "identity",
    persons: str = "names",
    threshold: float = SAME_PERSON,
    jobs: int = -1,
) -> tuple[pd.DataFrame, list[str]]:
    """Canonical rows of a corpus with the persons asked for, and sentences to be printed.

    By faces, ``<prepared>/<dataset>/persons.csv`` gets the table of :class:`Persons`, doubtful videos first.
    ``persons`` and ``split_by`` are as in `refuse_persons`, the others as in :func:`cluster_persons`.
    """
    refuse_persons(persons, split_by, threshold)
    if persons == "names":
        return rows, [NOMINAL] if layout == "dfdc" else []
    found = cluster_persons(rows, prepared, threshold, jobs)
    listed = Path(prepared, dataset, "persons.csv")
    with replacing(listed) as partial:
        found.videos.sort_values(["doubtful", "nearest"], ascending=[False, True]).to_csv(partial, index=False)
    return found.named(rows), [*found.sentences(), f"Videos and distances: {listed}"]


def refuse_persons(persons: str, split_by: str | Path = "identity", threshold: float = SAME_PERSON) -> None:
    """Raise a ManifestError unless ``persons`` is "names" (as files say), or "faces" and nothing else divides them."""
    if persons not in ("names", "faces"):
        raise ManifestError(f"persons is {persons!r}. Use names or faces.")
    if persons == "faces" and split_by != "identity":
        raise ManifestError(f"persons is 'faces', and split_by {str(split_by)!r} divides by names. Change one of them.")
    if not 0 < threshold < 2:
        raise ManifestError(f"same_person is {threshold:g}. Use a distance between 0 and 2, such as 0.5.")


def cluster_persons(
    crops: pd.DataFrame, image_root: str | Path, threshold: float = SAME_PERSON, jobs: int = -1
) -> Persons:
    """Find the persons of a corpus by the faces of its real videos.

    Too small a threshold leaves a person in two splits, too large a one joins people, so that less can be divided.
    Names are believed as well: videos of one name are one person, whatever their faces say. Memory: 16 bytes for each
    pair of videos closer than the threshold, and for each pair of the largest set that such pairs connect.

    Parameters
    ----------
    crops : pandas.DataFrame
        Rows of one corpus: ``img_path``, ``label``, ``video``, ``frame``, ``identity``.
    image_root : str or Path
        Folder that ``img_path`` starts from; `embed` says what is written there.
    threshold : float
        Distance, above 0 and below 2.
    jobs : int
        Processes; -1 for one a core.

    Raises a ManifestError if no crop of a real video can be read.
    """
    real = crops[crops["label"] == 0]
    vectors = embed(real, image_root, jobs)
    if vectors.empty:
        raise ManifestError(f"{image_root}: no crop of a real video can be read. Correct the image root.")
    face = _clusters(vectors.to_numpy(), threshold)
    videos = real.drop_duplicates("video").set_index("video")["identity"].reindex(vectors.index).rename("name")
    farthest, nearest = _margins(vectors.to_numpy(), face)
    doubtful = (farthest > (1 - NEAR) * threshold) | (nearest < (1 + NEAR) * threshold)
    videos = videos.reset_index().assign(face=face, farthest=farthest, nearest=nearest, doubtful=doubtful)
    name = pd.factorize(videos["name"])[0]
    connected = components(name, name, videos["face"], len(name))[name]
    videos["person"] = videos.groupby(connected)["name"].transform("min")
    fakes = crops[crops["label"] == 1].drop_duplicates("video")
    orphans = int((~fakes["identity"].isin(real["identity"])).sum())
    return Persons(videos, threshold, real["video"].nunique() - len(videos), orphans)


def _clusters(vectors: np.ndarray, threshold: float) -> np.ndarray:
    """Clusters 0, 1, ... of vectors (V, 128): int (V,).

    Average linkage joins only what has two members closer than the threshold. So each set that such pairs connect is
    clustered by itself, and no table of all distances is needed.
    """
    near = radius_neighbors_graph(vectors, threshold)
    part = connected_components(near, directed=False)[1]
    inside = np.zeros(len(vectors), int)
    for members in pd.Series(part).groupby(part).indices.values():
        if len(members) > 1:
            inside[members] = fcluster(linkage(vectors[members], "average"), threshold, "distance")
    return np.unique(np.stack([part, inside]), axis=1, return_inverse=True)[1].ravel()


def _margins(vectors: np.ndarray, face: np.ndarray) -> np.ndarray:
    """By video the distances to the farthest of its cluster and to the nearest of another: (2, V); inf for none."""

    def both(distances: np.ndarray, start: int) -> np.ndarray:
        same = face[start : start + len(distances), None] == face
        return np.stack([np.where(same, distances, 0).max(1), np.where(same, np.inf, distances).min(1)], axis=1)

    return np.concatenate(list(pairwise_distances_chunked(vectors, reduce_func=both, working_memory=128))).T  # MiB


def embed(crops: pd.DataFrame, image_root: str | Path, jobs: int = -1) -> pd.DataFrame:
    """Mean embedding of a few crops of each video: float (V, 128), by video; without those that cannot be read.

    ``crops`` have ``img_path`` (relative to ``image_root``), ``video`` and ``frame``. What is done stands in
    ``<image_root>/face_embeddings.parquet``, written whole every 200 videos and at the end: the same call goes on with
    one that was killed, and looks at changed files again. Where the root cannot be written to, nothing is kept. The
    face is looked for in the crop; where none is found, the crop counts as aligned with a margin of 1.3.
    """
    root, paths = Path(image_root), crops.sort_values(["video", "frame"]).groupby("video")["img_path"]
    chosen = {video: [root / part.iloc[at] for at in positions(len(part), CROPS)] for video, part in paths}
    keys = {video: _state(files) for video, files in chosen.items()}
    kept = pd.read_parquet(root / CACHE) if (root / CACHE).exists() else pd.DataFrame()
    found = dict(zip(kept.index, kept.to_numpy(), strict=True))
    waiting = [(keys[video], files) for video, files in chosen.items() if keys[video] not in found]
    parallel = Parallel(jobs if len(waiting) > 1 else 1, return_as="generator_unordered", batch_size=1)
    results = parallel(delayed(_mean_embedding)(*video) for video in waiting)
    for number, (key, vector) in enumerate(bar(results, total=len(waiting), desc="faces", unit="video"), 1):
        found[key] = vector
        if number % SAVED_EVERY == 0 or number == len(waiting):
            _save(found, root / CACHE)
    vectors = pd.DataFrame.from_dict({video: found[key] for video, key in keys.items()}, orient="index")
    return vectors.dropna().rename_axis("video")


def _state(files: Sequence[Path]) -> str:
    """What tells these files from others, and from later ones of their names."""
    told = [(str(file), (state := file.stat()).st_size, state.st_mtime_ns) for file in files if file.is_file()]
    return hashlib.sha256(repr(told).encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _save(found: dict[str, np.ndarray], path: Path) -> None:
    table = pd.DataFrame.from_dict(found, orient="index").dropna()
    try:
        with replacing(path) as partial:
            table.rename(columns=str).to_parquet(partial)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def _mean_embedding(key: str, files: Sequence[Path]) -> tuple[str, np.ndarray]:
    """The key again and the mean, float (128,), NaN where no file can be read."""
    end_with_parent()
    vectors = []
    for file in files:
        try:
            vectors.append(_embedding(read_picture(file)))
        except OSError:  # `check --images` says which and why
            continue
    return key, np.mean(vectors, axis=0) if vectors else np.full(128, np.nan)


def _embedding(image: np.ndarray) -> np.ndarray:
    """Embedding of the largest face in a picture, uint8 (H, W, 3): float (128,)."""
    if min(image.shape[:2]) < 256:  # landmarks are whole pixels
        sides = [round(side * 256 / min(image.shape[:2])) for side in image.shape[1::-1]]
        image = np.asarray(Image.fromarray(image).resize(sides, Image.BICUBIC))
    faces = find(image)
    points = faces[0].landmarks if faces else canonical(min(image.shape[:2]), 1.3)
    points = [dlib.point(*point) for point in np.rint(points).astype(int).tolist()]
    box = dlib.rectangle(0, 0, image.shape[1] - 1, image.shape[0] - 1)
    return np.array(_network().compute_face_descriptor(image, dlib.full_object_detection(box, points)))


@functools.cache
def _network() -> dlib.face_recognition_model_v1:
    return dlib.face_recognition_model_v1(model_file("dlib_face_recognition_resnet_model_v1.dat"))


def shared_faces(rows: pd.DataFrame, image_root: str | Path, threshold: float = SAME_PERSON) -> Iterator[Problem]:
    """Real videos whose face is also in an earlier split (train, val, test) of their data set, a warning for each.

    ``rows`` are as `checks.check` has them: canonical ones with ``file``, ``line``, ``dataset`` and ``split``.
    """
    refuse_persons("faces", threshold=threshold)
    remedy = "Look at both. If it is one person, keep its videos in one split; some groups are joined too often."
    for _, part in rows[(rows["label"] == 0) & (rows["split"] != "")].groupby("dataset"):
        if part["split"].nunique() < 2 or (vectors := embed(part, image_root)).empty:
            continue
        at = part.drop_duplicates("video").set_index("video").loc[vectors.index]
        order, names = at["split"].map(list(SPLIT_FILES).index).to_numpy(), pd.factorize(at["identity"])[0]

        near = radius_neighbors_graph(vectors.to_numpy(), threshold, mode="distance").tocoo()
        pairs = pd.DataFrame({"one": near.row, "other": near.col, "distance": near.data})
        # What has one name is reported as a leaked identity.
        pairs = pairs[names[pairs["one"]] != names[pairs["other"]]]
        share = len(pairs) / max(len(names) ** 2 - (np.bincount(names) ** 2).sum(), 1)
        often = f"of all pairs with two names {share:.1%} are closer than {threshold:g}"
        pairs = pairs[order[pairs["other"]] < order[pairs["one"]]].sort_values("distance", kind="stable")
        counts = pairs["one"].value_counts()
        for pair in pairs.drop_duplicates("one").itertuples():
            one, other = at.iloc[pair.one], at.iloc[pair.other]
            more = f", and {counts[pair.one] - 1:,} more are near" if counts[pair.one] > 1 else ""
            finding = (
                f"Its face in {one.split} is {pair.distance:.2f} from that of {other.name!r} in {other.split} "
                f"({other.file}, line {other.line}){more}; {often}"
            )
            yield Problem("warning", "face in two splits", one.file, one.line, "video", one.name, finding, remedy)
