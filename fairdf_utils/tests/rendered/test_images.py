"""The rendered benchmark: committed manifests, pixels that depend on nothing else, the bias knob, resumption."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdf_utils.data.manifests import ManifestError, group_table, read_split, write_manifest
from fairdf_utils.data.vocabulary import DATASETS, FORGERIES, GROUPS, SIX_GROUPS
from fairdf_utils.rendered import drawing, forgeries, images
from fairdf_utils.tests.rendered.embedded_manifests import write_manifests

SHOWN = ("identity", "source_identity")


@pytest.fixture(scope="module")
def splits():
    names = [("ffpp", "train"), ("ffpp", "val"), *((dataset, "test") for dataset in DATASETS)]
    return {f"{dataset}/{split}": read_split(images.MANIFESTS / dataset, split) for dataset, split in names}


@pytest.fixture(scope="module")
def few(splits):
    """Forty-eight rows of the FF++ test set: every group with every forgery."""
    return splits["ffpp/test"].drop_duplicates(["group", "forgery"]).reset_index(drop=True)


def test_committed_manifests_are_what_the_code_writes(tmp_path):
    write_manifests(tmp_path)
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.csv")}
    committed = {path.relative_to(images.MANIFESTS): path.read_bytes() for path in images.MANIFESTS.rglob("*.csv")}
    assert len(committed) == 8
    assert written == committed


def test_no_identity_is_shared_and_every_fake_has_another_source(splits):
    everything = pd.concat([rows.assign(split=name) for name, rows in splits.items()])
    persons = pd.concat([everything[["split", name]].set_axis(["split", "person"], axis=1) for name in SHOWN])
    assert (persons[persons["person"] != ""].groupby("person")["split"].nunique() == 1).all()
    assert everything["img_path"].is_unique
    fakes = everything[everything["label"] == 1]
    assert (fakes["source_identity"] != "").all() and (fakes["source_identity"] != fakes["identity"]).all()


def test_test_sets_are_group_balanced(splits):
    for dataset, count in zip(DATASETS, (1600, 1600, 1200, 1200), strict=True):
        frame = splits[f"{dataset}/test"]
        groups = GROUPS if count == 1600 else SIX_GROUPS
        table = group_table(frame).loc[list(groups)]
        assert len(frame) == count == table["images"].sum()
        assert (table["reals"] == 100).all() and (table["fakes"] == 100).all()
        assert (frame[frame["label"] == 0].groupby("group")["video"].nunique() == 25).all()


def test_training_set_has_the_ffpp_prior_and_no_empty_cell(splits):
    table = group_table(splits["ffpp/train"])
    prior = np.array(images.FFPP_PRIOR) / sum(images.FFPP_PRIOR)
    np.testing.assert_allclose(table["images"] / table["images"].sum(), prior, atol=0.001)
    for split in ("ffpp/train", "ffpp/val"):
        assert (group_table(splits[split])[["reals", "fakes"]] > 0).all(axis=None)
        assert set(splits[split]["forgery"]) == set(FORGERIES)
    assert 4400 < len(splits["ffpp/train"]) < 4600


@pytest.mark.parametrize("size", [64, 97, 512])
def test_any_size_gives_images(few, size):
    pictures = images.render_rows(few.iloc[[0, 7]], size, 0.5)
    assert pictures.shape == (2, size, size, 3) and pictures.dtype == np.uint8
    assert pictures.std(axis=(1, 2, 3)).min() > 10


@pytest.mark.parametrize(
    ("size", "bias", "seed"), [(32, 0.5, 0), (600, 0.5, 0), (64, -0.1, 0), (64, 1.5, 0), (64, 1, -1)]
)
def test_parameters_out_of_range_are_refused_before_anything_is_written(few, tmp_path, size, bias, seed):
    with pytest.raises(ValueError, match="use"):
        images.render_rows(few, size, bias, seed)
    with pytest.raises(ValueError, match="use"):
        images.generate(tmp_path / "out", size, bias, seed)
    assert not (tmp_path / "out").exists()


def test_images_are_ones_own_or_rendered(tmp_path, few, monkeypatch):
    monkeypatch.setattr(images, "MANIFESTS", _folder(tmp_path, few.iloc[:3]))
    rendered = images.image_folder("", tmp_path / "data", 64, 0.5)
    assert rendered == tmp_path / "data" / "64px-bias0.5-seed0" and (rendered / "complete.json").exists()
    assert images.image_folder(str(tmp_path), tmp_path / "data", 64, 0.5) == tmp_path
    with pytest.raises(FileNotFoundError, match="nowhere' is not a folder"):
        images.image_folder(tmp_path / "nowhere", tmp_path, 64, 0.5)


def test_pixels_do_not_depend_on_order_or_company(few):
    together = images.render_rows(few, 64, 0.5)
    order = np.random.default_rng(0).permutation(len(few))
    assert np.array_equal(images.render_rows(few.iloc[order], 64, 0.5), together[order])
    assert np.array_equal(images.render_rows(few.iloc[[7]], 64, 0.5)[0], together[7])
    assert not np.array_equal(images.render_rows(few.iloc[[7]], 64, 0.5, seed=1)[0], together[7])


def test_frames_of_a_video_differ_but_show_one_scene(splits):
    frame = splits["ffpp/test"]
    video = frame[frame["video"] == frame["video"].iloc[0]]
    other = frame[frame["group"] == "female-black"].iloc[:1]
    pictures = images.render_rows(pd.concat([video, other]), 64, 0).astype(float)
    inside = [np.abs(pictures[0] - image).mean() for image in pictures[1:4]]
    assert min(inside) > 0 and max(inside) < np.abs(pictures[0] - pictures[4]).mean()


def test_a_fake_differs_from_its_real_frame_inside_the_face_only(few):
    """Before the camera: a forgery leaves the surroundings untouched, and every forgery changes the face."""
    rows = few[few["label"] == 1].drop_duplicates("forgery").itertuples(index=False)
    seen = set()
    for row in rows:
        face, source = (images._face(row, name, 0) for name in (row.identity, row.source_identity))
        scene, other = (images._scene(row, name, 0) for name in (row.identity, row.source_identity))
        grain = drawing.skin_grain(np.random.default_rng(0), 64)
        real = drawing.paint(face, scene, 64, grain)
        fake = forgeries.forge(real, row.forgery, face, source, scene, other, grain, 1.6)
        changed = np.abs(fake - real).max(axis=0)
        outside = drawing.Grid(face, scene, 64).outline > 0.1
        assert changed[outside].max() < 1e-3, row.forgery
        assert (changed > 0.02).mean() > 0.03, row.forgery
        seen.add(row.forgery)
    assert seen == set(FORGERIES[1:])


def test_bias_zero_has_neither_trap(splits):
    truth = images.ground_truth(splits["ffpp/test"], bias=0)
    assert not truth["poor"].any()
    assert abs(np.corrcoef(truth["gain"], truth["melanin"])[0, 1]) < 0.1


def test_exposure_falls_with_melanin(splits):
    frame = splits["ffpp/test"]
    plain, biased = (images.ground_truth(frame, bias=bias) for bias in (0, 1))
    expected = 1 - images.EXPOSURE_LOSS * plain["melanin"]
    np.testing.assert_allclose(biased["gain"] / plain["gain"], expected, rtol=1e-12)


def test_frames_of_a_video_share_their_camera(splits):
    everything = pd.concat(splits.values(), ignore_index=True)
    truth = images.ground_truth(everything, bias=0.5)
    distinct = truth.groupby(everything["video"]).nunique()
    assert len(distinct) == 3840 and (distinct == 1).all(axis=None)
    assert truth.nunique().drop("poor").min() > 20  # no camera that all share


def test_only_the_sensor_noise_is_of_a_frame(splits, monkeypatch):
    seen = []
    monkeypatch.setattr(forgeries, "capture", lambda image, camera, rng: seen.append((camera, rng.random())) or b"")
    video = splits["ffpp/test"].iloc[:4]
    for row in video.itertuples(index=False):
        images._jpeg(row, 64, 1.0, 0)
    cameras, noise = zip(*seen, strict=True)
    assert video["video"].nunique() == len(set(cameras)) == 1 and len(set(noise)) == 4


def test_a_fake_has_the_camera_of_its_real_video_as_far_as_the_shares_allow(splits):
    """Of the rarer kind of poor capture, every one has a poor counterpart; all else is equal."""
    frame = splits["ffpp/test"].query("frame == 0")
    truth = images.ground_truth(frame, bias=1).join(frame[["identity", "label", "group"]])
    real, fake = (truth[truth["label"] == label].set_index("identity") for label in (0, 1))
    fake = fake.loc[real.index]
    assert (real["gain"] == fake["gain"]).all()
    differ = fake["poor"].astype(int) - real["poor"].astype(int)
    for name, step in ("blur", images.POOR_BLUR), ("noise", images.POOR_NOISE), ("quality", -images.POOR_QUALITY):
        np.testing.assert_allclose(fake[name] - real[name], step * differ, atol=1e-12)
    rarer = np.sign(images.POOR_FAKES - real["group"].map(images.POOR_REALS))
    assert (differ * rarer >= 0).all() and set(differ) == {-1, 0, 1}


def test_poor_captures_follow_the_stated_shares(splits):
    """Shares of videos, of which a group has 25 of each kind in one seed."""
    frame = splits["ffpp/test"].query("frame == 0")
    for bias in (0.5, 1.0):
        draws = [images.ground_truth(frame, bias=bias, seed=seed)["poor"] for seed in range(8)]
        poor = pd.concat(draws, axis=1).mean(axis=1)
        shares = poor.groupby([frame["label"], frame["group"]]).mean()
        for group in GROUPS:
            for label, share in ((0, images.POOR_REALS[group]), (1, images.POOR_FAKES)):
                spread = np.sqrt(share * bias * (1 - share * bias) / (8 * 25))
                assert abs(shares[label, group] - share * bias) < 4 * spread, (bias, label, group)


def test_the_knob_shows_in_the_pixels(splits):
    """Dark faces darken, light ones hardly; a poor capture loses detail; other pictures stay as they are."""
    reals = splits["ffpp/test"].query("label == 0").iloc[::8].reset_index(drop=True)
    truth = images.ground_truth(reals, bias=1)
    plain, biased = (images.render_rows(reals, 64, bias).astype(float) for bias in (0, 1))
    darkening = biased.mean(axis=(1, 2, 3)) / plain.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(darkening, 1 - images.EXPOSURE_LOSS * truth["melanin"], atol=0.03)
    poor = truth["poor"].to_numpy()
    scale = 1 - images.EXPOSURE_LOSS * truth["melanin"].to_numpy()[:, None, None, None]
    assert np.abs(biased - scale * plain)[~poor].mean() < 2  # grey levels: the same picture, darker

    def sharpness(pictures):
        edges = np.diff(pictures, axis=2)[:, 12:52]  # rows of the face, where edges outweigh noise
        return np.sqrt((edges**2).mean(axis=(1, 2, 3)))

    ratio = sharpness(biased) / sharpness(plain) / darkening
    assert ratio[poor].mean() < 0.9 < ratio[~poor].mean()


def _folder(tmp_path, rows):
    write_manifest(rows[rows["dataset"] == "ffpp"], tmp_path / "lists" / "ffpp" / "test.csv")
    return tmp_path / "lists"


def test_generate_stores_what_render_rows_gives_whatever_the_workers(tmp_path, few):
    lists = _folder(tmp_path, few)
    one = images.generate(tmp_path / "one", 64, 0.5, manifests=lists, workers=1)
    two = images.generate(tmp_path / "two", 64, 0.5, manifests=lists, workers=2)
    assert one == tmp_path / "one" / "64px-bias0.5-seed0"
    stored = np.stack([np.asarray(Image.open(one / path)) for path in few["img_path"]])
    assert np.array_equal(stored, images.render_rows(few, 64, 0.5))
    for path in few["img_path"]:
        assert (one / path).read_bytes() == (two / path).read_bytes()
    assert json.loads((one / "complete.json").read_text())["images"] == len(few)


def test_generate_is_cached_until_its_inputs_change(tmp_path, few, monkeypatch):
    lists = _folder(tmp_path, few.iloc[:3])
    root = images.generate(tmp_path, 64, 1, manifests=lists, workers=1)
    first = root / few["img_path"].iloc[0]
    content = first.read_bytes()
    first.write_bytes(b"stale")

    assert images.generate(tmp_path, 64, 1, manifests=lists, workers=1) == root
    assert first.read_bytes() == b"stale"  # complete: nothing was touched

    _folder(tmp_path, few.iloc[:4])
    images.generate(tmp_path, 64, 1, manifests=lists, workers=1)
    assert first.read_bytes() == content  # other manifests: nothing old is trusted
    assert (root / few["img_path"].iloc[3]).exists()


def test_of_two_calls_at_once_one_renders_and_the_other_waits(tmp_path, few, monkeypatch):
    lists, whole, calls = _folder(tmp_path, few.iloc[:40]), images._render_files, []
    monkeypatch.setattr(images, "_render_files", lambda *given: (calls.append(given), whole(*given)))
    with ThreadPoolExecutor(2) as pool:
        roots = set(pool.map(lambda _: images.generate(tmp_path, 64, 0.5, manifests=lists, workers=1), range(2)))
    assert len(roots) == len(calls) == 1
    assert len(list(roots.pop().rglob("*.jpg"))) == 40


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_goes_on_where_it_stopped(tmp_path, splits):
    rows = splits["ffpp/test"].iloc[:200]
    lists = _folder(tmp_path, rows)
    call = f"images.generate({str(tmp_path)!r}, 64, 0.5, manifests={str(lists)!r}, workers=2)"
    script = f"from fairdf_utils.rendered import images\nif __name__ == '__main__':\n    {call}\n"
    (tmp_path / "script.py").write_text(script)
    root = tmp_path / "64px-bias0.5-seed0"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, tmp_path / "script.py"], env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(root.rglob("*.jpg"))) < 20 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, "finished, or failed, before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert _all_gone(process.pid), "workers of a killed run must end by themselves"

    kept = {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")}
    assert 20 <= len(kept) < len(rows) and not (root / "complete.json").exists()
    images.generate(tmp_path, 64, 0.5, manifests=lists, workers=1)
    assert all(path.stat().st_mtime_ns == made for path, made in kept.items())
    stored = np.stack([np.asarray(Image.open(root / path)) for path in rows["img_path"]])
    assert np.array_equal(stored[::10], images.render_rows(rows.iloc[::10], 64, 0.5))
    assert (root / "complete.json").exists()


def _all_gone(group):
    """Wait until a process group is empty."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_generate_names_faulty_inputs(tmp_path, few):
    with pytest.raises(ManifestError, match="holds no manifests"):
        images.generate(tmp_path, manifests=tmp_path / "none")
    foreign = few.iloc[:1].assign(img_path="faces/1.jpg")
    with pytest.raises(ManifestError, match=r"faces/1\.jpg is of no rendered data set"):
        images.render_rows(foreign)


def test_every_fake_differs_from_its_real_and_black_faces_are_darker_than_white_ones(splits):
    persons = splits["ffpp/test"].query("label == 1").drop_duplicates("group").set_index("group").loc[list(GROUPS)]
    persons = persons.reset_index()
    faces = np.stack(
        [
            images.render_rows(persons.assign(forgery=forgery, label=int(forgery != "real")), 64, 0)[:, 16:52, 16:48]
            for forgery in FORGERIES
        ]
    ).astype(float)
    assert (np.abs(faces[1:] - faces[0]).mean(axis=(2, 3, 4)) > 1).all()  # noise and all else are equal
    brightness = faces[0].mean(axis=(1, 2, 3))
    assert brightness[[2, 6]].max() < brightness[[1, 5]].min()
