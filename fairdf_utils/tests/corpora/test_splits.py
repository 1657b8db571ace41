"""Splits: nobody in two of them, nothing lost silently, shares within bounds, the official lists, what is written."""

import itertools
import json
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdf_utils.corpora import splits
from fairdf_utils.corpora.partition import partition
from fairdf_utils.corpora.splits import celebdf_test_list, identity_graph, official_ffpp, split, write_splits
from fairdf_utils.data.csv_rows import ManifestError
from fairdf_utils.data.manifests import SPLIT_FILES, read_manifest, read_split
from fairdf_utils.data.vocabulary import COLUMNS, GROUPS


def _rows(*videos):
    """Rows of videos (video, identity, source identity, group, frames)."""
    rows = []
    for video, identity, source, group, frames in videos:
        forgery = "FaceSwap" if source else "real"
        gender, race = group.split("-")
        for frame in range(frames):
            path = f"{video}/{frame}.png"
            rows.append((path, int(source != ""), forgery, gender, race, group, video, identity, source, frame))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _paired(pairs, frames=1, groups=GROUPS):
    """FF++-like: two reals and two fakes a pair, both persons of one group."""
    videos = []
    for pair in range(pairs):
        a, b, group = f"{2 * pair:03d}", f"{2 * pair + 1:03d}", groups[pair % len(groups)]
        videos += [(f"youtube/{a}", a, "", group, frames), (f"youtube/{b}", b, "", group, frames)]
        videos += [(f"FaceSwap/{a}_{b}", a, b, group, frames), (f"FaceSwap/{b}_{a}", b, a, group, frames)]
    return _rows(*videos)


def _persons(rows):
    return set(rows["identity"]) | set(rows["source_identity"]) - {""}


def _cells(result):
    """Images by group and label (rows) and split (columns), with ``dropped``."""
    every = pd.concat([result.rows, result.dropped.assign(split="dropped")], ignore_index=True)
    counts = pd.crosstab([every["group"], every["label"]], every["split"])
    index = pd.MultiIndex.from_product([GROUPS, (0, 1)])
    return counts.reindex(index=index, columns=[*SPLIT_FILES, "dropped"], fill_value=0)


def _check(rows, result):
    """The invariants of any split."""
    parts = {name: part for name, part in result.rows.groupby("split")}
    for one, other in itertools.combinations(parts.values(), 2):
        assert _persons(one).isdisjoint(_persons(other)) and set(one["video"]).isdisjoint(other["video"])
    whole = pd.concat([result.rows, result.dropped])[list(COLUMNS)]
    assert sorted(whole.itertuples(index=False, name=None)) == sorted(
        rows[list(COLUMNS)].itertuples(index=False, name=None)
    )
    assert (result.dropped["reason"].str.len() > 0).all()
    assert result.shares()["images"].sum() + result.losses()["images"].sum() == len(rows)
    assert _cells(result).to_numpy().sum() == len(rows)


_PERSON = st.integers(0, 12).map("p{}".format)
_VIDEO = st.tuples(_PERSON, st.one_of(st.just(""), _PERSON), st.sampled_from(GROUPS), st.integers(1, 5))


@given(videos=st.lists(_VIDEO, min_size=1, max_size=30), shared=st.booleans(), seed=st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_nobody_is_in_two_splits_and_nothing_is_lost(videos, shared, seed):
    """Any swaps, a person swapped with himself included; ``shared``: two videos of a name show different persons."""
    count = max(1, len(videos) // 2) if shared else len(videos)
    rows = _rows(*((f"v{n % count}", *video) for n, video in enumerate(videos)))
    rows["img_path"] = [f"{n}.png" for n in range(len(rows))]
    result = split(rows, seed=seed)
    _check(rows, result)
    assert set(result.rows["split"]) <= set(SPLIT_FILES)


@given(
    sizes=st.lists(st.integers(1, 4), min_size=60, max_size=120),
    groups=st.lists(st.sampled_from(GROUPS[:3]), min_size=120, max_size=120),
    shares=st.sampled_from([(0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (0.34, 0.33, 0.33)]),
)
@settings(max_examples=25, deadline=None)
def test_small_components_stay_whole_and_meet_the_shares(sizes, groups, shares):
    """No component holds 4 % of the images: the whole is within 2 points, large cells are within 6."""
    videos = []
    for n, (size, group) in enumerate(zip(sizes, groups, strict=False)):
        videos += [(f"r{n}", f"a{n}", "", group, size), (f"f{n}", f"a{n}", f"b{n}", group, size)]
    rows = _rows(*videos)
    result = split(rows, shares)
    _check(rows, result)
    assert result.dropped.empty and result.notes == (f"All {len(sizes)} components stay whole.",)
    assert np.abs(result.shares()["share"].to_numpy() - shares).max() <= 0.02
    cells = _cells(result).drop(columns="dropped")
    cells = cells[cells.sum(axis=1) >= 25 * max(sizes)]
    assert np.abs(cells.div(cells.sum(axis=1), axis=0).to_numpy() - shares).max(initial=0) <= 0.06


def test_groups_and_labels_are_divided_alike():
    """Each group has 10 pairs of one size, so 6, 2 and 2 of them fit exactly, and are found."""
    result = split(_paired(80))
    assert _cells(result).to_numpy().tolist() == [[12, 4, 4, 0]] * 16
    assert result.shares()["share"].tolist() == [0.6, 0.2, 0.2]


@given(seed=st.integers(0, 5), shuffle=st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_the_seed_decides_and_the_order_of_rows_does_not(seed, shuffle):
    rows = _paired(13, frames=2)
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    one, other = split(rows, seed=seed).rows, split(rows.iloc[order], seed=seed).rows
    assert dict(zip(one["img_path"], one["split"], strict=True)) == dict(
        zip(other["img_path"], other["split"], strict=True)
    )


def test_other_seeds_give_other_splits():
    rows = _paired(20)
    ways = {tuple(split(rows, seed=seed).rows["split"]) for seed in range(4)}
    assert len(ways) > 1


def _connected(persons=20, frames=2):
    """Celeb-DF-like: everyone is swapped with the next three."""
    ids = [f"id{n}" for n in range(persons)]
    videos = [(f"Celeb-real/{i}_0000", i, "", GROUPS[n % 2], 3 * frames) for n, i in enumerate(ids)]
    for n, i in enumerate(ids):
        for step in (1, 2, 3):
            other = ids[(n + step) % persons]
            videos.append((f"Celeb-synthesis/{i}_{other}_0000", i, other, GROUPS[n % 2], frames))
    return _rows(*videos)


def test_a_component_that_is_too_large_is_broken_up_and_the_loss_is_counted():
    rows = _connected()
    result = split(rows)
    _check(rows, result)
    assert "1 of 1 components" in result.notes[0] and "20 persons" in result.notes[0]
    losses = result.losses()
    assert losses.index.tolist() == [splits.ACROSS]
    assert losses.loc[splits.ACROSS].tolist() == [len(result.dropped), result.dropped["video"].nunique()]
    assert (result.dropped["label"] == 1).all()  # a real shows one person: it always has a place
    assert len(result.dropped) < 0.5 * (rows["label"] == 1).sum()
    assert np.abs(result.shares()["share"].to_numpy() - (0.6, 0.2, 0.2)).max() <= 0.1


def test_every_split_gets_reals_and_fakes_where_that_can_be():
    """Six persons in a ring: two each is the only way, though it is far from 60/20/20."""
    result = split(_connected(6))
    _check(_connected(6), result)
    counts = result.shares()[["reals", "fakes"]].to_numpy()
    assert (counts > 0).all() and result.shares()["identities"].tolist() == [2, 2, 2]


def test_small_components_beside_a_large_one_stay_whole():
    rows = pd.concat([_connected(), _paired(10)], ignore_index=True)
    result = split(rows)
    _check(rows, result)
    assert "1 of 11 components" in result.notes[0]
    assert not result.dropped["video"].str.startswith("FaceSwap/").any()


def test_a_large_component_stays_whole_where_that_is_fair():
    """60 % of the images hang together: they are the training set."""
    small = _paired(10, groups=GROUPS[:2])  # 40 images
    rows = pd.concat([_connected(10, frames=1), small], ignore_index=True)  # 30 reals and 30 fakes
    result = split(rows)
    assert identity_graph(rows).persons["component"].nunique() == 11
    assert result.dropped.empty and result.shares()["images"].tolist() == [60, 20, 20]


def test_the_graph_names_components_by_size():
    rows = _rows(
        ("v1", "a", "b", GROUPS[0], 2),
        ("v2", "c", "", GROUPS[0], 3),
        ("v3", "b", "d", GROUPS[0], 2),
        ("v4", "a", "b", GROUPS[0], 1),
        ("v5", "e", "", GROUPS[0], 1),
        ("v5", "f", "", GROUPS[0], 1),  # the same video: e and f cannot be told apart
    )
    graph = identity_graph(rows)
    assert graph.persons.values.tolist() == [
        ["a", 0, 3],
        ["b", 0, 2],
        ["d", 0, 0],
        ["c", 1, 3],
        ["e", 2, 1],
        ["f", 2, 1],
    ]
    assert graph.swaps.values.tolist() == [["a", "b", 2, 3], ["b", "d", 1, 2]]


@given(
    sizes=st.lists(st.integers(1, 20), min_size=3, max_size=7), shares=st.sampled_from([(0.6, 0.2, 0.2), (0.5, 0.5)])
)
@settings(max_examples=25, deadline=None)
def test_units_of_one_kind_are_divided_nearly_as_well_as_possible(sizes, shares):
    """Against all assignments: the sum over splits of |share - wanted| is at most 0.15 more than the least."""
    units = np.repeat(np.arange(len(sizes)), sizes)
    kind = np.zeros(len(units), dtype=int)

    def off(place):
        held = np.bincount(np.asarray(place)[units], minlength=len(shares)) / len(units)
        return np.abs(held - shares).sum()

    best = min(off(place) for place in itertools.product(range(len(shares)), repeat=len(sizes)))
    assert off(partition(units, units, kind, kind, shares, 0)) <= best + 0.15


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.6, 0.2, 0.3), (1.0, 0.0, 0.0), (1.2, -0.1, -0.1)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match="three positive numbers that add up to 1"):
        split(_paired(2), shares)


def test_no_rows_are_refused():
    with pytest.raises(ManifestError, match="no rows to split"):
        split(_rows())


def test_crops_without_demographics_are_refused():
    with pytest.raises(ManifestError, match=r"no column group\. .*annotations\.merge first"):
        split(_paired(4).drop(columns="group"))


def test_a_corpus_that_knows_no_persons_is_told():
    rows = _paired(10).assign(source_identity="")
    assert splits.NAMELESS not in split(rows).notes
    rows["identity"] = rows["video"]
    assert splits.NAMELESS in split(rows).notes


def _ffpp_json(folder, **pairs):
    for name in SPLIT_FILES:
        (folder / f"{name}.json").write_text(json.dumps(pairs.get(name, [])))
    return folder


def test_the_official_split_of_ffpp(tmp_path):
    rows = pd.concat([_paired(4), _rows(("FaceSwap/000_002", "000", "002", GROUPS[0], 2))], ignore_index=True)
    _ffpp_json(tmp_path, train=[["001", "000"], ["800", "801"]], val=[["002", "003"]], test=[["004", "005"]])
    result = official_ffpp(rows, tmp_path)
    _check(rows, result)
    where = result.rows.groupby("split")["identity"].unique().map(sorted).to_dict()
    assert where == {"train": ["000", "001"], "val": ["002", "003"], "test": ["004", "005"]}
    assert result.losses().loc[splits.UNLISTED, "images"] == 6  # the pair 006, 007, and the fake of no pair
    assert result.notes == ("2 of 8 listed identities have no rows.",)
    assert result.shares()["wanted"].isna().all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "not a list of pairs"),
        ('[["071"]]', "is no pair"),
        ("[[71, 54]]", "is no pair"),
        ("[", "not a json file"),
        ('[["000", "002"]]', "000 is in train as well"),
        (None, "cannot be read"),
    ],
)
def test_faulty_official_splits_are_refused(tmp_path, content, message):
    _ffpp_json(tmp_path, train=[["000", "001"]])
    (tmp_path / "val.json").unlink()
    if content is not None:
        (tmp_path / "val.json").write_text(content)
    with pytest.raises(ManifestError, match=rf"val\.json: .*{message}"):
        official_ffpp(_paired(2), tmp_path)


def test_the_official_split_of_another_data_set_is_refused(tmp_path):
    _ffpp_json(tmp_path, train=[["000", "001"]])
    with pytest.raises(ManifestError, match="lists none of the rows' identities .there is 'id0'"):
        official_ffpp(_connected(), tmp_path)


def _list(tmp_path, *lines):
    path = tmp_path / "List_of_testing_videos.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_test_list_of_celebdf_counts_1_as_real(tmp_path):
    strangers = [(f"YouTube-real/{n:05d}", f"youtube-{n:05d}", "", GROUPS[n % 2], 2) for n in range(20)]
    rows = pd.concat([_connected(), _rows(*strangers)], ignore_index=True)
    path = _list(
        tmp_path,
        "1 Celeb-real/id0_0000.mp4",
        "0 Celeb-synthesis/id0_id1_0000.mp4",
        "1 YouTube-real/00003.mp4",
        "1 Celeb-real/id99_0000.mp4",
    )
    result = celebdf_test_list(rows, path)
    _check(rows, result)
    parts = dict(list(result.rows.groupby("split")))
    assert set(parts["test"]["video"]) == {"Celeb-real/id0_0000", "Celeb-synthesis/id0_id1_0000", "YouTube-real/00003"}
    assert {"id0", "id1"}.isdisjoint(_persons(parts["train"]) | _persons(parts["val"]))
    tested = result.dropped[result.dropped["reason"] == splits.TESTED]
    shows = tested["identity"].isin(["id0", "id1"]) | tested["source_identity"].isin(["id0", "id1"])
    assert shows.all() and "Celeb-real/id1_0000" in set(tested["video"])
    assert result.notes[0] == "1 of 4 listed videos have no rows."
    left = len(parts["train"]) + len(parts["val"])
    assert abs(len(parts["val"]) / left - 0.25) < 0.1


def test_a_test_list_that_shows_everyone_leaves_nothing_to_train_on(tmp_path):
    rows = _connected(3)
    lines = [f"1 {video}.mp4" for video in rows.loc[rows["label"] == 0, "video"].unique()]
    result = celebdf_test_list(rows, _list(tmp_path, *lines))
    _check(rows, result)
    assert set(result.rows["split"]) == {"test"} and "Nothing is left to train on" in result.notes[-1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 Celeb-real/id0_0000.mp4", "line 2: Celeb-real/id0_0000 has label 0 .*the list makes it 1"),
        ("2 Celeb-real/id0_0000.mp4", "line 2: '2 Celeb-real/id0_0000.mp4' is not like"),
        ("1 Celeb-real/../id0_0000.mp4", "line 2: .* is not like"),
        ("Celeb-real/id0_0000.mp4", "line 2: .* is not like"),
    ],
)
def test_faulty_lines_of_the_test_list_are_refused(tmp_path, line, message):
    with pytest.raises(ManifestError, match=message):
        celebdf_test_list(_connected(), _list(tmp_path, "1 Celeb-real/id1_0000.mp4", line))


def test_a_test_list_of_other_videos_or_none_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="lists none of the rows' videos .there is 'youtube/000'"):
        celebdf_test_list(_paired(1), _list(tmp_path, "1 Celeb-real/id1_0000.mp4"))
    with pytest.raises(ManifestError, match="cannot be read"):
        celebdf_test_list(_paired(1), tmp_path / "none.txt")


def test_what_is_written_reads_back(tmp_path):
    result = split(_paired(16, frames=2))
    written = write_splits(result, tmp_path / "ffpp")
    assert [path.name for path in written] == [name for names in SPLIT_FILES.values() for name in names]
    assert sorted(path.name for path in (tmp_path / "ffpp").iterdir()) == sorted(path.name for path in written)
    for name in SPLIT_FILES:
        wanted = result.rows[result.rows["split"] == name].sort_values("label", ascending=False, kind="stable")
        again = read_split(tmp_path / "ffpp", name)
        if name == "test":
            again = again.sort_values("label", ascending=False, kind="stable")
        assert again["img_path"].tolist() == wanted["img_path"].tolist()


@pytest.mark.parametrize(("groups", "six"), [(GROUPS[1:3], True), (GROUPS[:3], False)])
def test_celebdf_is_written_in_six_groups_where_they_suffice(tmp_path, groups, six):
    write_splits(split(_paired(30, groups=groups)), tmp_path / "celebdf")
    path = tmp_path / "celebdf" / "test.csv"
    assert ("isasian" not in path.read_text().splitlines()[0]) == six
    assert set(read_manifest(path)["group"]) == set(groups)


def test_a_split_of_one_class_or_beside_older_files_is_not_written(tmp_path):
    rows = _paired(10)
    whole = split(rows)
    fakes = whole.rows[(whole.rows["split"] != "val") | (whole.rows["label"] == 1)]
    with pytest.raises(ManifestError, match=r"val has no reals\. Take another seed, or add videos"):
        write_splits(splits.Split(fakes, whole.dropped, whole.wanted, ()), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    write_splits(whole, tmp_path / "b")
    before = {path: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    test_only = splits.Split(whole.rows[whole.rows["split"] == "test"], whole.dropped, whole.wanted, ())
    with pytest.raises(ManifestError, match=r"faketrain\.csv: is of an earlier split"):
        write_splits(test_only, tmp_path / "b")
    assert {path: path.read_bytes() for path in (tmp_path / "b").iterdir()} == before
    assert [path.name for path in write_splits(test_only, tmp_path / "c")] == ["test.csv"]


def test_what_a_list_took_away_is_named(tmp_path):
    """Not the seed: the test list shows everybody who is in a swap."""
    rows = _connected(3)
    stranger = _rows(*((f"YouTube-real/{n}", f"youtube-{n}", "", GROUPS[0], 2) for n in range(8)))
    lines = [f"1 {video}.mp4" for video in rows.loc[rows["label"] == 0, "video"].unique()]
    result = celebdf_test_list(pd.concat([rows, stranger]), _list(tmp_path, *lines))
    lost = f"shows a person of the test list: {(rows['label'] == 1).sum()} images"
    with pytest.raises(ManifestError, match=f"train has no fakes. Rows were dropped .*{lost}.* given by a list"):
        write_splits(result, tmp_path / "celebdf")


def test_a_failed_write_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    write_splits(split(_paired(10)), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    rows = split(_paired(10), seed=1).rows
    rows.loc[rows.index[-1], "img_path"] = "/etc/passwd"
    with pytest.raises(ManifestError, match="'/etc/passwd'"):
        write_splits(splits.Split(rows, rows[:0].assign(reason=""), (np.nan,) * 3, ()), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    def full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_splits(split(_paired(10), seed=1), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_groups_of_ones_own_are_divided_and_written_as_one_scheme(tmp_path):
    """One file may hold only names of the eight: it is written in the same columns as the others."""
    videos = [(f"v{n}", f"p{n}", "", "male-white" if n % 3 else "male-hispanic", 2) for n in range(30)]
    videos += [(f"f{n}", f"p{n}", f"p{n}", "male-white", 2) for n in range(30)]
    rows = _rows(*videos).drop(columns=["gender", "race"])
    write_splits(split(rows), tmp_path / "own")
    read = pd.concat([read_split(tmp_path / "own", name) for name in ("train", "val", "test")])
    assert sorted(read["img_path"]) == sorted(rows["img_path"])
    assert read["group"].value_counts().to_dict() == rows["group"].value_counts().to_dict()
