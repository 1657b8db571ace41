"""What would stop a run later on is said before it starts: everything at once, once, with its remedy."""

import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
import yaml

from fairdf_utils.__main__ import main
from fairdf_utils.book import REPOSITORY
from fairdf_utils.book.parameters import read_plan
from fairdf_utils.data.manifests import read_split
from fairdf_utils.data.vocabulary import DATASETS
from fairdf_utils.preflight.faults import find_faults
from fairdf_utils.preflight.place import Place

NOTEBOOKS = REPOSITORY / "notebooks"
GRID = [{"detector": "ori", "method": "ori", "sam": False}, {"detector": "fairdf"}]
ANNOTATED = "path,label,male,asian,white,black\n{},0,1,-1,1,-1\n"


@pytest.fixture
def faults_of(tmp_path):
    """The faults of the real chapters with the given parameters, whose paths start from their folder."""

    def find(**values):
        path = tmp_path / "params.yaml"
        here = {"data_dir": str(tmp_path / "data"), "prepared": str(tmp_path / "prepared"), "grid": GRID}
        path.write_text(yaml.safe_dump(here | values))
        return find_faults(Place(read_plan(path, NOTEBOOKS), tmp_path / "run", NOTEBOOKS))

    return find


@pytest.fixture
def ffpp(tmp_path):
    """Parameters of a corpus in the layout of FF++, whose videos are empty files: nobody opens them."""
    for name in ("original_sequences/youtube/c23/videos/000", "manipulated_sequences/Deepfakes/c23/videos/000_003"):
        path = tmp_path / f"corpus/{name}.mp4"
        path.parent.mkdir(parents=True)
        path.touch()
    annotations = tmp_path / "A-FF++.csv"
    annotations.write_text(ANNOTATED.format("original_sequences/youtube/raw/face_images/000/frame1.png"))
    return {
        "corpus_root": str(tmp_path / "corpus"),
        "annotations": [str(annotations)],
        "manifests": str(tmp_path / "prepared/manifests"),
        "image_root": str(tmp_path / "prepared"),
        "test_sets": ["ffpp"],
    }


def test_what_needs_no_data_has_no_fault(tmp_path):
    assert find_faults(Place(read_plan("cpu", NOTEBOOKS), tmp_path, NOTEBOOKS)) == []


def test_ten_faults_are_one_list_and_nothing_is_run(tmp_path, capsys):
    (tmp_path / "file").touch()
    wrong = {
        "corpus_root": "/nosuch/corpus",
        "test_sets": ["ffpp", "nosuch", "ffpp"],
        "device": "cuda:99",
        "image_size": 65,
        "backbone": "xcepton",
        "epochs": 0,
        "threshold": 1.5,
        "data_dir": str(tmp_path / "file/data"),
        "seeds": [0, 1, 2],
        "grid": [*GRID, {"detector": "last", "method": "balancd", "lr": float("nan"), "weights": "imagnet"}],
    }
    params = tmp_path / "ten.yaml"
    params.write_text(yaml.safe_dump(wrong))
    assert main(["reproduce", "--params", str(params), "--run", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    for words in (
        "corpus_root: /nosuch/corpus: no such folder",
        "test_sets names ffpp twice",
        "test_sets names 'nosuch', which has no manifests in",
        "device 'cuda:99' is not there",
        "image_size must be 8 times a power of two",
        'unknown backbone "xcepton"; close matches: xception',
        "epochs is 0; give a number at least 1 [03_sam_training ori-s0, 03_sam_training ori-s1 and 7 more]",
        "threshold is 1.5",
        "data_dir",
        "method 'balancd' is unknown",
        "lr is nan; give a finite number [03_sam_training last-s0, 03_sam_training last-s1 and 1 more]",
        "weights: there is no file",
    ):
        assert said.count(words) == 1, words
    assert said.startswith("error: 13 faults; nothing has been run:\n- ") and said.count("\n- ") == 13
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "ten.yaml"]


def test_each_value_is_judged(faults_of):
    wrong = {
        "test_sets": [],
        "train_set": "dfd",
        "precision": "fp16",
        "bias": 2.0,
        "cluster": "person",
        "pair_count": 4,
        "benchmark_size": 16,
        "same_person": 3.0,
        "processes": 3,
        "checkpoint": "nosuch.pth",
        "checkpoint_file": "elsewhere.pth",
        "image_root": "nosuch",
        "micro_batch": -1,
        "by": ["group", "gendr"],
    }
    said = "\n".join(faults_of(**wrong))
    for words in (
        "test_sets is empty",
        "faketrain.csv: no such manifest",
        "precision 'fp16' is unknown",
        "bias is 2.0: give a number from 0 to 1",
        "cluster is 'person'; use one of video",
        "pair_count is 4: give a number from 8",
        "benchmark_size is 16: give a number from 64 to 512",
        "same_person is 3. Use a distance between 0 and 2",
        "batch_size 32 must be a multiple of the 3 processes",
        "checkpoint: there is no file",
        "image_root 'nosuch' is no folder",
        "checkpoint_file is for chapter 4 alone",
        "micro_batch is -1",
        "by names 'gendr', a column of no manifest; did you mean 'gender'",
    ):
        assert said.count(words) == 1, words
    said = "\n".join(faults_of(manifests="/nosuch", backbone="vit_small_patch16_224", image_size=128))
    assert "train_set names 'ffpp', which has no manifests in" in said and "vit_small_patch16_224" in said


def test_manifests_of_other_images_need_their_folder(faults_of, corpus):
    given = {"manifests": str(corpus / "manifests"), "test_sets": ["ffpp"]}
    training, testing = faults_of(**given)
    assert "is the embedded benchmark, and it has not 96 images" in training and "32 images" in testing
    assert faults_of(**given, image_root=str(corpus / "images")) == []
    assert faults_of(**given, image_root=str(corpus))[0].startswith("96 of 96 images are missing under")


def test_embedded_weights_are_there_and_of_one_backbone(faults_of):
    embedded = {"weights": "embedded", "frozen_stages": 2}
    assert faults_of(backbone="tf_efficientnet_lite0", **embedded) == []
    for backbone in ("resnet18", "tf_efficientnet_lite1"):
        (fault,) = faults_of(backbone=backbone, **embedded)
        assert f'those of tf_efficientnet_lite0, not of "{backbone}"; give weights "imagenet"' in fault


def test_frozen_stages_have_to_be_below_the_map(faults_of):
    (fault,) = faults_of(backbone="tf_efficientnet_lite0", weights="embedded", frozen_stages=3)
    assert "frozen_stages is 3" in fault


def test_weights_have_to_fit_the_backbone(faults_of, tmp_path):
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    wanted = {"backbone": "resnet18", "weights": str(tmp_path / "other.pth")}
    (fault,) = faults_of(**wanted)
    assert "other.pth does not hold the weights of this backbone. missing: bn1" in fault


def test_what_a_corpus_will_make_is_not_missing(faults_of, ffpp):
    assert faults_of(**ffpp) == []
    (fault,) = faults_of(**ffpp | {"test_sets": ["ffpp", "dfdc"]})
    assert "test_sets names 'dfdc'" in fault
    corpora = [{name: ffpp.pop(name) for name in ("corpus_root", "annotations")}]
    (fault,) = faults_of(corpora=corpora, test_sets=["ffp"])
    assert "test_sets names 'ffp', which has no manifests in" in fault and "did you mean 'ffpp'" in fault


def test_a_corpus_is_looked_at(faults_of, ffpp):
    assert "corpus_root: Unknown layout 'ffp'" in "".join(faults_of(**ffpp | {"layout": "ffp"}))
    wrong = {"compression": "c40", "frames": 0, "annotations": ["/nosuch.csv"], "split_by": "/nosuch"}
    said = faults_of(**ffpp | wrong)
    for words, fault in zip(
        (
            "holds no videos in the layout 'ffpp'",
            "use at least 1 frame",
            "annotations: there is no file /nosuch.csv",
            "/nosuch/train.json: cannot be read",
        ),
        said,
        strict=True,
    ):
        assert words in fault


def test_annotations_of_another_corpus(faults_of, ffpp, tmp_path):
    (tmp_path / "A-FF++.csv").write_text(ANNOTATED.format("Celeb-real/id0_0000/frame1.png"))
    (fault,) = faults_of(**ffpp)
    assert "names no video and frame of ffpp" in fault


def test_a_corpus_of_unknown_forgeries_trains_only_what_needs_none(faults_of, ffpp, tmp_path):
    shutil.rmtree(tmp_path / "corpus")
    for kind in ("real", "fake"):
        (tmp_path / "corpus" / kind).mkdir(parents=True)
        (tmp_path / "corpus" / kind / "000.mp4").touch()
    (tmp_path / "A-FF++.csv").write_text(ANNOTATED.format("real/000/1.png"))
    (fault,) = faults_of(**ffpp | {"layout": "folder", "train_set": "folder", "test_sets": ["folder"]})
    assert fault.startswith("train_set 'folder' has fakes of unknown forgery (fake), and method 'fairdf'")
    assert "03_sam_training fairdf-s0" in fault and "ori-s0" not in fault


def test_crops_that_were_begun_otherwise(faults_of, ffpp, tmp_path):
    begun = tmp_path / "prepared/ffpp/parameters.json"
    begun.parent.mkdir(parents=True)
    begun.write_text('{"frames": 5}')
    (fault,) = faults_of(**ffpp)
    assert "was begun with" in fault and "frames 5, now 6" in fault


def test_a_fault_of_one_world_keeps_all_from_running(tmp_path, capsys):
    params, run = tmp_path / "params.yaml", tmp_path / "run"
    params.write_text("worlds: [{bias: 0.5}, {bias: 2.0}]\nchapters: [1, 3, 4]\n")
    train = ["train", "--params", str(params), "--detector", "fairdf", "--run"]
    for words, said in (
        (["reproduce", "--params", str(params), "--run", str(run)], "1 fault; nothing has been run:\n- bias is 2.0"),
        ([*train, str(run / "bias-2.0")], "bias is 2.0: give a number from 0 to 1 [03_sam_training fairdf-s0]"),
        ([*train, str(run)], "is none of bias-0.5, bias-2.0"),
    ):
        assert main(words) == 2 and said in capsys.readouterr().err
    assert not run.exists()


def test_a_disk_that_is_too_small(faults_of, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**7, 10**7))
    (fault,) = faults_of()
    assert "0.01 GB free, and the run needs about 0.133 GB of decoded images of 64 px" in fault
    (tmp_path / "data").mkdir()
    manifests = NOTEBOOKS / "../data_manifests/synthetic"
    splits = [("ffpp", "train"), ("ffpp", "val"), *((name, "test") for name in DATASETS)]
    for count in {len(read_split(manifests / name, split)) for name, split in splits}:  # decoded before
        np.lib.format.open_memmap(tmp_path / f"data/{count}.npy", mode="w+", dtype=np.uint8, shape=(count, 64, 64, 3))
    assert faults_of() == []


def test_of_several_processes_the_first_speaks(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    params = tmp_path / "params.yaml"
    params.write_text("epochs: 0\nimage_root: /nosuch\nmanifests: /nosuch\n")
    train = ["train", "--params", str(params), "--run", str(tmp_path), "--detector", "fairdf"]
    monkeypatch.setenv("RANK", "1")
    assert main(train) == 2 and capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "0")
    assert main(train) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: 3 faults; nothing has been run:") and "epochs is 0" in said


def test_groups_of_ones_own_that_are_validated_but_not_trained(faults_of, tmp_path):
    """The images are named by absolute paths, and found."""
    for name in ("faketrain", "realtrain", "fakeval", "realval"):
        (tmp_path / f"{name}.png").touch()
        (tmp_path / "own").mkdir(exist_ok=True)
        row = f"{tmp_path}/{name}.png,{int('fake' in name)},{'old' if name == 'fakeval' else 'young'}"
        (tmp_path / f"own/{name}.csv").write_text(f"img_path,label,group\n{row}\n")
    own = {"manifests": str(tmp_path), "image_root": str(tmp_path), "train_set": "own", "grid": GRID[:1]}
    found = [fault for fault in faults_of(**own) if "test_sets" not in fault]
    assert len(found) == 1 and "training groups, young, lack: old; give both groups of one scheme" in found[0]


def test_a_training_set_of_one_class(faults_of, tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "own").mkdir()
    for name in ("faketrain", "realtrain", "fakeval", "realval"):
        (tmp_path / f"own/{name}.csv").write_text("img_path,label,group\na.png,0,young\n")
    own = {"manifests": str(tmp_path), "image_root": str(tmp_path), "train_set": "own", "grid": GRID[:1]}
    found = [fault for fault in faults_of(**own) if "test_sets" not in fault]
    assert len(found) == 1 and found[0].startswith("train_set 'own' has 2 reals and 0 fakes to train on")
