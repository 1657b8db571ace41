"""Persons by their faces: rendered persons, a cache that survives a kill, and faces in two splits."""

import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdf_utils import __main__ as command_line
from fairdf_utils.corpora import persons
from fairdf_utils.corpora.faces import align, find
from fairdf_utils.corpora.persons import CACHE, NOMINAL, Persons, cluster_persons, embed, identify
from fairdf_utils.data.csv_rows import ManifestError
from fairdf_utils.data.manifests import write_manifest
from fairdf_utils.data.vocabulary import COLUMNS
from fairdf_utils.rendered.videos import Clip, Filming, Person, frames

GROUPS = ("male-white", "female-black", "female-asian", "male-others")
SAME = 0.33  # between rendered persons; for real ones it is larger


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """Four persons with two real videos and a fake each, under DFDC's names: images and canonical rows."""
    root, rows = tmp_path_factory.mktemp("faces"), []
    for number, group in enumerate(GROUPS):
        person = Person(f"person{number}", group)
        shots = frames(Clip(f"x/{number}.mp4", "dfdc", "real", person, f"take{number}"), Filming(288, 4, 0))
        gender, race = group.split("-")
        for frame, shot in enumerate(shots):
            name = f"clip{number}{'ab'[frame % 2]}"  # two videos of one take
            path = f"dfdc/{name}/{frame:06d}.png"
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(align(shot, find(shot)[0], 128)).save(root / path)
            rows.append((path, 0, "real", gender, race, group, name, name, "", frame))
            if frame == 0:
                rows.append((path, 1, "fake", gender, race, group, f"fake{number}", name, "", frame))
    columns = list(COLUMNS)
    return root, pd.DataFrame(rows, columns=columns)


def test_rendered_persons_are_told_apart_and_fakes_follow_their_originals(filmed):
    root, rows = filmed
    orphan = rows[rows["label"] == 1].head(1).assign(video="fake9", identity="gone")
    found = cluster_persons(pd.concat([rows, orphan]), root, SAME, jobs=1)
    named = found.named(rows)
    assert named.groupby(rows["identity"].str[:5])["identity"].agg(set).tolist() == [{f"clip{n}a"} for n in range(4)]
    assert (found.videos["farthest"] < SAME).all() and (found.videos["nearest"] > SAME).all()
    said = " ".join(found.sentences())
    assert "8 real videos with 8 names show 4 faces" in said and "unknown persons: 1 fake." in said
    assert found.videos["doubtful"].sum() == len(found.videos.query("farthest > 0.297 or nearest < 0.363"))


def test_known_names_are_believed_and_the_agreement_is_measured(filmed):
    root, rows = filmed
    known = rows.assign(identity=rows["identity"].str[:5])
    agreed = cluster_persons(known, root, SAME, jobs=1)
    assert "Of 4 pairs of videos with one name 4 have one face; of 24 pairs with two names, 0." in agreed.sentences()
    apart = cluster_persons(known, root, 0.01, jobs=1)
    assert apart.videos["face"].nunique() == 8 and apart.videos["person"].nunique() == 4
    assert "4 pairs of videos with one name 0 have one face" in " ".join(apart.sentences())
    joined = cluster_persons(known, root, 1.9, jobs=1)
    assert joined.named(known)["identity"].unique().tolist() == ["clip0"]


def test_names_faces_or_nothing(filmed):
    root, rows = filmed
    same, said = identify(rows, root, "dfdc", "dfdc")
    assert same is rows and said == [NOMINAL] and identify(rows, root, "dfdc", "ffpp")[1] == []
    named, said = identify(rows, root, "dfdc", "dfdc", "identity", "faces", SAME, jobs=1)
    assert named["identity"].nunique() == 4 and "8 real videos" in said[0]
    assert len(pd.read_csv(root / "dfdc/persons.csv")) == 8
    for wrong, sentence in (
        (("identity", "face"), "Use names or faces"),
        (("splits", "faces"), "'splits' divides by names"),
        (("identity", "faces", 0.0), "same_person is 0"),
    ):
        with pytest.raises(ManifestError, match=sentence):
            identify(rows, root, "dfdc", "dfdc", *wrong)
    with pytest.raises(ManifestError, match="no crop of a real video can be read"):
        identify(rows, root / "elsewhere", "dfdc", "dfdc", "identity", "faces", jobs=1)


def test_clusters_are_those_of_the_whole_table():
    """By parts and without a table of all distances as scipy does it with one; many points on each other's borders."""
    from scipy.cluster.hierarchy import fcluster, linkage

    random = np.random.default_rng(0)
    vectors = random.normal(size=(300, 4))
    for threshold in (0.2, 0.6, 1.0):
        ours = persons._clusters(vectors, threshold)
        whole = fcluster(linkage(vectors, "average"), threshold, "distance")
        assert len(set(zip(ours, whole, strict=True))) == len(set(ours)) == len(set(whole))


def test_margins_by_hand():
    vectors, face = np.array([[0.0], [1.0], [5.0]]), np.array([0, 0, 1])
    assert persons._margins(vectors, face).tolist() == [[1, 1, 0], [5, 4, 4]]
    alone = Persons(pd.DataFrame({"video": ["a"], "name": "a", "face": 0, "person": "a", "farthest": 0.0,
                                  "nearest": np.inf, "doubtful": False}), 0.5, 0, 0)  # fmt: skip
    assert "show 1 faces" in alone.sentences()[0]


def test_embeddings_are_kept_and_a_changed_crop_is_looked_at_again(filmed, tmp_path, monkeypatch):
    root, rows = filmed
    part = rows[rows["video"].isin(["clip0a", "clip1a"])]
    for path in part["img_path"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((root / path).read_bytes())
    first = embed(part, tmp_path, jobs=1)
    looked = []
    monkeypatch.setattr(persons, "_embedding", lambda image: looked.append(1) or np.ones(128))
    assert embed(part, tmp_path, jobs=1).equals(first) and not looked
    changed = part["img_path"].iloc[0]
    os.utime(tmp_path / changed, (1, 1))
    again = embed(part, tmp_path, jobs=1)
    assert len(looked) == 2 and (again.loc["clip0a"] == 1).all() and again.loc["clip1a"].equals(first.loc["clip1a"])
    for path in part.loc[part["video"] == "clip0a", "img_path"]:
        (tmp_path / path).write_bytes(b"no picture")
    assert embed(part, tmp_path, jobs=1).index.tolist() == ["clip1a"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_root_that_nothing_can_be_written_to_is_looked_at_all_the_same(filmed, monkeypatch, number):
    root, rows = filmed

    def refuse(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(persons, "CACHE", "absent.parquet")
    monkeypatch.setattr(persons, "replacing", refuse)
    monkeypatch.setattr(persons, "_embedding", lambda image: np.ones(128))
    assert len(embed(rows.head(1), root, jobs=1)) == 1
    number = errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        embed(rows.head(1), root, jobs=1)


def test_a_killed_run_goes_on(filmed, tmp_path):
    """Killed when the first of its videos are kept; what is kept then is not looked at again."""
    root, rows = filmed
    rows[["img_path", "video", "frame"]].to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "dfdc").symlink_to(root / "dfdc")
    code = f"""
import time, pandas as pd
from fairdf_utils.corpora import persons
persons.SAVED_EVERY, slow = 1, persons._embedding
persons._embedding = lambda image: (time.sleep(0.2), slow(image))[1]
persons.embed(pd.read_csv(r"{tmp_path}/rows.csv"), r"{tmp_path}", jobs=1)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / CACHE).exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = len(pd.read_parquet(tmp_path / CACHE))
    assert 0 < kept < rows["video"].nunique()
    whole = embed(rows, tmp_path, jobs=1)
    pd.testing.assert_frame_equal(whole, embed(rows, root, jobs=1))
    assert len(pd.read_parquet(tmp_path / CACHE)) == rows["video"].nunique()


def test_check_finds_a_face_in_two_splits(filmed, tmp_path, capsys):
    root, rows = filmed
    real = rows[rows["label"] == 0]
    for split, videos in (("train", ["clip0a", "clip1a", "clip1b"]), ("test", ["clip0b", "clip2a"])):
        write_manifest(real[real["video"].isin(videos)], tmp_path / f"dfdc/real{split}.csv")
    command = ["check", str(tmp_path / "dfdc"), "--images", str(root), "--out", str(tmp_path / "found.csv")]
    command_line.main(command)
    plain = pd.read_csv(tmp_path / "found.csv")
    command_line.main([*command, "--faces", "--same-person", str(SAME)])
    assert "WARNING: face in two splits, column video, 1 finding." in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "found.csv")
    more = found[found["kind"] == "face in two splits"]
    assert len(found) == len(plain) + 1 and more["severity"].tolist() == ["warning"]
    one = more.iloc[0]
    assert one["value"] == "clip0b" and one["file"].endswith("realtest.csv") and one["line"] == 2
    assert "from that of 'clip0a' in train" in one["finding"] and "realtrain.csv, line 2" in one["finding"]
    for wrong, said in (([], "--images ROOT"), (["--images", str(root), "--same-person", "nan"], "same_person is nan")):
        assert command_line.main(["check", str(tmp_path / "dfdc"), "--faces", *wrong]) == 2
        assert said in capsys.readouterr().err
