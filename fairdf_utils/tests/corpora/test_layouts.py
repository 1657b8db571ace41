"""The layouts of the corpora: what the names say, and that nothing leads out of the root."""

import json
import os

import pytest

from fairdf_utils.corpora.layouts import COLUMNS, CorpusError, find_videos, locate
from fairdf_utils.corpora.videos import VideoError
from fairdf_utils.data.vocabulary import FORGERIES


def fill(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def rows(table):
    assert list(table.columns) == list(COLUMNS)
    return {row.video: tuple(row)[3:] for row in table.itertuples(index=False)} | {"n": len(table)}


def test_faceforensics(tmp_path):
    fill(tmp_path, "original_sequences/youtube/c23/videos/071.mp4", "original_sequences/youtube/c40/videos/071.mp4")
    fill(tmp_path, *(f"manipulated_sequences/{forgery}/c23/videos/071_054.mp4" for forgery in FORGERIES[1:]))
    fill(tmp_path, "original_sequences/actors/c23/videos/01__walk.mp4")  # DFD shares the tree
    fill(tmp_path, *(f"original_sequences/youtube/c23/videos/{n}" for n in ("._071.mp4", "list.txt", "zażółć 你.MP4")))
    fakes = {f"{forgery}/071_054": (forgery, "071", "054", "c23") for forgery in FORGERIES[1:]}
    found = find_videos(tmp_path, "ffpp")
    reals = {"youtube/071": ("real", "071", "", "c23"), "youtube/zażółć 你": ("real", "zażółć 你", "", "c23")}
    assert rows(found) == {**fakes, **reals, "n": 7}
    assert (found["label"] == (found["forgery"] != "real")).all()
    assert (tmp_path / found["path"].iloc[0]).is_file() and found["path"].is_monotonic_increasing
    assert find_videos(tmp_path, "ffpp", "c40")["path"].tolist() == ["original_sequences/youtube/c40/videos/071.mp4"]


@pytest.mark.parametrize("folder", ["raw", "c0"])
@pytest.mark.parametrize("asked", ["raw", "c0"])
def test_raw_has_two_names(tmp_path, folder, asked):
    fill(tmp_path, f"original_sequences/youtube/{folder}/videos/071.mp4")
    assert find_videos(tmp_path, "ffpp", asked)["compression"].tolist() == ["raw"]


def test_dfd(tmp_path):
    fill(tmp_path, "original_sequences/actors/c23/videos/01__exit_phone_room.mp4")
    fill(tmp_path, "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4")
    fill(tmp_path, "manipulated_sequences/Deepfakes/c23/videos/071_054.mp4")  # FF++ shares the tree
    assert rows(find_videos(tmp_path, "dfd")) == {
        "actors/01__exit_phone_room": ("real", "01", "", "c23"),
        "DeepFakeDetection/01_02__exit_phone_room__YVGY8LOK": ("fake", "01", "02", "c23"),
        "n": 2,
    }


def test_celebdf(tmp_path):
    names = ("Celeb-real/id0_0001", "YouTube-real/00170", "Celeb-synthesis/id0_id16_0001")
    fill(tmp_path, *(f"{name}.mp4" for name in names), "List_of_testing_videos.txt")
    assert rows(find_videos(tmp_path, "celebdf")) == {
        names[0]: ("real", "id0", "", ""),
        names[1]: ("real", "youtube-00170", "", ""),
        names[2]: ("fake", "id0", "id16", ""),
        "n": 3,
    }


def test_dfdc(tmp_path):
    """Training parts, one of them unpacked a folder deeper, and a test set; files that a list names may be missing."""
    entries = {"abc.mp4": {"label": "FAKE", "split": "train", "original": "xyz.mp4"}, "xyz.mp4": {"label": "REAL"}}
    for part in ("dfdc_train_part_0", "dfdc_train_part_01/dfdc_train_part_1"):
        fill(tmp_path, f"{part}/abc.mp4", f"{part}/unlisted.mp4", f"{part}/metadata.json")
        (tmp_path / part / "metadata.json").write_text(json.dumps(entries))
    fill(tmp_path, "test/q.mp4", "test/labels.csv")
    (tmp_path / "test/labels.csv").write_text("label,filename\n1,q.mp4\n0,r.mp4\n")
    parts = {
        f"dfdc_train_part_{n}/{v}": (m, "xyz", "", "") for n in (0, 1) for v, m in (("abc", "fake"), ("xyz", "real"))
    }
    tested = {"test/q": ("fake", "q", "", ""), "test/r": ("real", "r", "", "")}
    assert rows(find_videos(tmp_path, "dfdc")) == {**parts, **tested, "n": 6}
    alone = find_videos(tmp_path / "dfdc_train_part_0", "dfdc")
    assert alone["video"].tolist() == ["abc", "xyz"] and alone["path"].tolist() == ["abc.mp4", "xyz.mp4"]


def test_folder(tmp_path):
    fill(tmp_path, "real/a.mp4", "real/b/c.AVI", "fake/d.png", "fake/e.jpeg", "other/f.mp4", "real/notes.txt")
    assert rows(find_videos(tmp_path, "folder")) == {
        "real/a": ("real", "real/a", "", ""),
        "real/b/c": ("real", "real/b/c", "", ""),
        "fake/d": ("fake", "fake/d", "", ""),
        "fake/e": ("fake", "fake/e", "", ""),
        "n": 4,
    }


def test_no_two_videos_share_a_name_or_a_folder_of_crops(tmp_path):
    fill(tmp_path, "real/a.mp4", "real/a.avi", "real/b.mp4", "real/b/c.mp4", "real/d.mp4")
    videos = find_videos(tmp_path, "folder")["video"]
    assert sorted(videos) == ["real/a.avi", "real/a.mp4", "real/b.mp4", "real/b/c", "real/d"]
    fill(tmp_path, "real/a.mp4.mp4")
    with pytest.raises(CorpusError, match="would share the name 'real/a.mp4'"):
        find_videos(tmp_path, "folder")


@pytest.mark.parametrize("layout", ["ffpp", "dfd", "celebdf", "dfdc", "folder"])
def test_a_wrong_root_says_what_was_expected_and_what_is_there(tmp_path, layout):
    with pytest.raises(CorpusError, match="no such folder"):
        find_videos(tmp_path / "absent", layout)
    fill(tmp_path, "somewhere/else.mp4")
    with pytest.raises(CorpusError, match=r"Expected .* found somewhere\."):
        find_videos(tmp_path, layout)


def test_unknown_words(tmp_path):
    with pytest.raises(CorpusError, match="layout 'ff'. Use one of ffpp"):
        find_videos(tmp_path, "ff")
    with pytest.raises(CorpusError, match="compression 'c32'. Use one of raw"):
        find_videos(tmp_path, "ffpp", "c32")


@pytest.mark.parametrize(
    "name", ["../x.mp4", "/etc/x.mp4", "a/../../x.mp4", "..\\x.mp4", "C:\\x.mp4", "link.mp4", "out/x.mp4", "x\0.mp4"]
)
@pytest.mark.parametrize("kind", ["metadata.json", "labels.csv"])
def test_lists_cannot_name_what_is_outside_the_root(tmp_path, name, kind):
    outside, root = fill(tmp_path / "outside", "x.mp4"), fill(tmp_path / "root", "part/good.mp4")
    os.symlink(outside / "x.mp4", root / "part/link.mp4")
    os.symlink(outside, root / "part/out")
    entries = {"good.mp4": {"label": "REAL"}, name: {"label": "FAKE", "original": "good.mp4"}}
    text = json.dumps(entries) if kind == "metadata.json" else f"filename,label\ngood.mp4,0\n{name},1\n"
    (root / "part" / kind).write_text(text)
    with pytest.raises(CorpusError, match="leaves the data root") as refused:
        find_videos(root, "dfdc")
    assert str(root / "part" / kind) in str(refused.value) and repr(name) in str(refused.value)
    assert ("entry" if kind == "metadata.json" else "line 3") in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.json", "{", "not a JSON file"),
        ("metadata.json", "[1]", "holds no object"),
        ("metadata.json", '{"a.mp4": {"label": "MAYBE"}}', "entry 'a.mp4': label is 'MAYBE'"),
        ("metadata.json", '{"a.mp4": "FAKE"}', "entry 'a.mp4': label is None"),
        ("labels.csv", "name,label\na.mp4,1\n", "line 1: missing column filename"),
        ("labels.csv", "filename,label\na.mp4,2\n", "line 2: label is '2'"),
        ("labels.csv", "filename,label\na.mp4,0\na.mp4,1\n", "listed twice with different labels"),
    ],
)
def test_broken_lists(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError, match=message):
        find_videos(tmp_path, "dfdc")


def test_links_are_listed_and_told_apart(tmp_path):
    """Loops end, a link out of the root is not opened, one that stays inside is a video as any other."""
    outside, root = fill(tmp_path / "outside", "x.mp4"), fill(tmp_path / "root", "real/good.mp4")
    for target, name in {
        ".": "again", "..": "up.mp4", "loop.mp4": "loop.mp4", str(outside): "out", str(outside / "x.mp4"): "x.mp4",
        "good.mp4": "same.mp4",
    }.items():  # fmt: skip
        os.symlink(target, root / "real" / name)
    reasons = {}
    for row in find_videos(root, "folder").itertuples():
        try:
            locate(root, row.path)
            reasons[row.path] = ""
        except VideoError as error:
            reasons[row.path] = error.reason
    assert reasons == {
        "real/again": "symlink loop",
        "real/good.mp4": "",
        "real/loop.mp4": "",  # opening it fails
        "real/out": "outside the root",
        "real/same.mp4": "",
        "real/up.mp4": "symlink loop",
        "real/x.mp4": "outside the root",
    }


def test_names_that_are_no_utf_8(tmp_path):
    fill(tmp_path, "real/" + os.fsdecode(b"caf\xe9.mp4"))
    assert find_videos(tmp_path, "folder")["path"].tolist() == [r"real/caf\xe9.mp4"]


def test_locate(tmp_path):
    root = fill(tmp_path / "root", "a/b.mp4")
    assert locate(root, "a/b.mp4") == root / "a/b.mp4"
    for path, reason in {"../x": "outside the root", "/etc/passwd": "outside the root", "a": "not a file"}.items():
        with pytest.raises(VideoError, match=reason):
            locate(root, path)
    with pytest.raises(VideoError, match="name not UTF-8"):
        locate(root, r"caf\xe9.mp4")
