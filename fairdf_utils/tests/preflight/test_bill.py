"""Counts and bytes of the bill are exact; seconds are measured, here given or not looked at."""

import os
import time
from types import SimpleNamespace

import numpy as np
import pytest

from fairdf_utils.book import REPOSITORY
from fairdf_utils.book.parameters import read_plan
from fairdf_utils.corpora.extraction import extract, recipe_of
from fairdf_utils.data.batches import decode
from fairdf_utils.data.manifests import read_split
from fairdf_utils.preflight import bill as bills
from fairdf_utils.preflight import measure
from fairdf_utils.preflight.bill import estimate
from fairdf_utils.preflight.place import Place
from fairdf_utils.tests.corpora.tiny_videos import astronaut_clip, write_video
from fairdf_utils.tests.small import small

NOTEBOOKS = REPOSITORY / "notebooks"
TOLD = {"step": 2.0, "image": 0.5, "pairs": 4, "on": "cpu float32", "memory": 10**9, "stored": 1000}


@pytest.fixture
def plan(tmp_path, corpus):
    params = tmp_path / "params.yaml"
    params.write_text(
        f"manifests: {corpus}/manifests\nimage_root: {corpus}/images\ndata_dir: {tmp_path}/data\n"
        "test_sets: [ffpp]\nimage_size: 16\nbatch_size: 10\nepochs: 3\nseeds: [0, 1]\njobs: 2\n"
        "grid: [{detector: ori, method: ori, sam: false}, {detector: balanced, method: balanced, sam: false}]\n"
    )
    return read_plan(params, NOTEBOOKS)


def test_steps_images_and_bytes_are_counted(plan, corpus, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(measure, "measure", lambda given, limit: [calls.append(call) or TOLD for call in given])
    history = tmp_path / "run/03_sam_training/ori-s0/history.csv"  # trained for one of its three epochs
    history.parent.mkdir(parents=True)
    history.write_text("epoch,val_auc\n1,0.5\n")
    bill = estimate(Place(plan, tmp_path / "run", NOTEBOOKS))
    assert len(calls) == 1  # what takes equally long is measured once
    rows = bill.trainings.set_index("detector")
    # 32 fakes make 3 batches of 10; 32 validation images an epoch, and once more with the 32 of the test set.
    assert rows.loc["ori", ["trainings", "steps", "images"]].tolist() == [2, (2 + 3) * 3, (2 + 3) * 32 + 2 * 64]
    assert rows.loc["balanced", ["trainings", "steps", "images"]].tolist() == [2, 18, 6 * 32 + 2 * 64]
    assert rows.loc["balanced", "hours"] == pytest.approx((18 * 2.0 + 320 * 0.5) / 3600)
    bytes_of = dict(zip(bill.disk["what"], bill.disk["bytes"], strict=False))
    splits = [read_split(corpus / "manifests/ffpp", split) for split in ("train", "val", "test")]
    for split in splits:
        decode(split, corpus / "images", 16, tmp_path / "data")
    written = sum(np.load(path, mmap_mode="r").nbytes for path in (tmp_path / "data").glob("*.npy"))
    assert bytes_of["decoded images of 16 px"] == written == (64 + 32 + 32) * 16 * 16 * 3
    assert "2 at a time" in str(bill) or bill.at_a_time == 1
    assert "4 of 10 pairs were timed" in str(bill) and "Not in it" in str(bill)
    assert "decoded" not in str(estimate(Place(plan, tmp_path / "run", NOTEBOOKS))), "they are there now"


def test_the_trainings_of_all_worlds_are_added_up(plan, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(measure, "measure", lambda given, limit: [calls.append(call) or TOLD for call in given])
    places = [Place(plan, tmp_path / "run" / world, NOTEBOOKS) for world in "ab"]
    one, two = estimate(places[0]), estimate(*places)
    assert len(calls) == 2 and two.trainings["hours"].tolist() == (2 * one.trainings["hours"]).tolist()
    assert two.disk["bytes"].sum() == 2 * one.disk["bytes"].sum()
    assert set(two.disk.loc[two.disk["what"] == "checkpoints", "folder"]) == {tmp_path / "run"}


def test_a_training_that_ended_by_its_patience_costs_nothing(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "measure", lambda given, limit: [TOLD for _ in given])
    for step in plan.steps:
        step.given.update(patience=1)
    for name, aucs in (("ori-s0", "0.7\n0.6"), ("ori-s1", "0.6\n0.7")):  # flat, and still rising
        history = tmp_path / f"run/03_sam_training/{name}/history.csv"
        history.parent.mkdir(parents=True)
        history.write_text(f"val_auc\n{aucs}\n")
    rows = estimate(Place(plan, tmp_path / "run", NOTEBOOKS)).trainings.set_index("detector")
    assert rows.loc["ori", ["trainings", "steps"]].tolist() == [1, 3]


def test_what_cannot_be_measured_is_said(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "measure", lambda given, limit: [{"error": "OutOfMemoryError: CUDA"} for _ in given])
    bill = estimate(Place(plan, tmp_path / "run", NOTEBOOKS))
    said = str(bill)
    assert "ori: OutOfMemoryError: CUDA" in said and bill.too_large == ["ori", "balanced"]
    assert "trainings and scores: unknown" in said and "nan" not in said.lower()
    monkeypatch.setattr(measure, "measure", lambda given, limit: [{} for _ in given])
    monkeypatch.setattr(bills, "LIMIT", 3)
    assert "ori: not measured within the 3 s" in str(estimate(Place(plan, tmp_path / "run", NOTEBOOKS)))


def test_what_was_measured_before_an_error_or_a_death_is_kept():
    kept, refused, died = (iter, ([{"a": 1}, {"a": 2}],)), (iter, (3,)), (map, (os._exit, [9]))
    found = measure.measure([kept, refused, died, kept], limit=120)
    assert found == [{"a": 2}, {"error": "TypeError: 'int' object is not iterable"}, {}, {}]


def test_measuring_ends_at_its_limit():
    started = time.monotonic()
    assert measure.measure([(map, (time.sleep, [100]))], limit=0.1) == [{}] and time.monotonic() - started < 90


@pytest.mark.parametrize("options", [{}, {"method": "ori", "sam": False}])
def test_a_training_is_measured(options, tmp_path):
    *_, told = measure.training(small(batch_size=3, **options), "cpu", 1)
    assert told["pairs"] == 3 and told["step"] > 0 and told["image"] > 0 and told["memory"] > 10**7


def test_the_bill_says_which_video_cannot_be_read(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.mp4").write_bytes(b"no video")
    (told,) = measure.extraction(tmp_path, ["real/a.mp4"], recipe_of("folder", "c23", 3, 64, 1.3))
    assert told == {"error": "no frame of real/a.mp4 can be read"}


def test_crops_are_measured_on_videos_of_the_corpus(tmp_path):
    write_video(tmp_path / "corpus/real/a.mp4", astronaut_clip(6)[0])
    (told,) = measure.extraction(tmp_path / "corpus", ["real/a.mp4"], recipe_of("folder", "c23", 3, 64, 1.3))
    ledger = extract(tmp_path / "corpus", "folder", tmp_path / "out", frames=3, size=64, jobs=1)
    made = [path.stat().st_size for path in tmp_path.glob("out/**/*.png")]
    assert told["frame"] > 0 and told["crop"] * 3 == sum(made) and ledger["found"].tolist() == [3]

    values = {"corpus_root": str(tmp_path / "corpus"), "layout": "folder", "compression": "c23"}
    step = SimpleNamespace(corpus="corpus", values=values | {"prepared": str(tmp_path / "out")})
    for name, waiting in (("as it was", []), ("another file", ["real/a"])):
        place = Place(SimpleNamespace(steps=[step]), tmp_path / "run", NOTEBOOKS)
        assert place.waiting(*place.corpora)["video"].tolist() == waiting, name
        os.utime(tmp_path / "corpus/real/a.mp4", (0, 0))
