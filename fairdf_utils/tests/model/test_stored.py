"""Published detectors: equal bytes, rebuilt as they were, foreign files and absent devices refused."""

import json
import warnings
from dataclasses import asdict, replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.model import stored
from fairdf_utils.model.detectors import build
from fairdf_utils.model.stored import DetectorError, choose_device, choose_precision, load_detector, save_detector
from fairdf_utils.tests.small import small

CPU = torch.device("cpu")
SMALL = small(method="ori")


def test_equal_detectors_have_equal_bytes(tmp_path):
    written = set()
    for attempt in range(8):  # two orders of two metadata entries would show up
        save_detector(tmp_path / f"{attempt}.safetensors", build(SMALL), SMALL, 3)
        written.add((tmp_path / f"{attempt}.safetensors").read_bytes())
    assert len(written) == 1


def test_a_published_detector_is_rebuilt(tmp_path):
    model = build(SMALL)
    save_detector(tmp_path / "best.safetensors", model, SMALL, 3)
    rebuilt, config = load_detector(tmp_path / "best.safetensors", CPU)
    assert config == SMALL and not rebuilt.training
    assert all(torch.equal(value, rebuilt.state_dict()[name]) for name, value in model.state_dict().items())
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        assert json.loads(file.metadata()["config"]) == asdict(SMALL) | {"epoch": 3, "groups": list(GROUPS)}


def test_a_detector_published_before_a_field_was_there_takes_its_default(tmp_path):
    told = {name: value for name, value in asdict(SMALL).items() if name != "micro_batch"}
    save_file(build(SMALL).state_dict(), tmp_path / "old.safetensors", {"config": json.dumps(told)})
    assert load_detector(tmp_path / "old.safetensors", CPU)[1] == SMALL


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(DetectorError, match="is not a detector published by this project"):
        load_detector(path, CPU)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(DetectorError, match="is not a detector published by this project"):
        load_detector(path, CPU)
    save_detector(path, build(SMALL), SMALL, 3)
    weights = load_file(path)
    weights["head.layers.0.bias"] = torch.zeros(3)
    save_file(weights, path, {"config": json.dumps(asdict(SMALL))})
    with pytest.raises(DetectorError, match=r"misshapen: head.layers.0.bias is \(3,\), not \(16,\)"):
        load_detector(path, CPU)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "xpu"])
def test_absent_devices_are_refused(device):
    with pytest.raises(DetectorError, match=f"device '{device}' is not there"):
        choose_device(device)
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize(
    "amx, avx512, chosen",
    [
        *[(1, 0, "bfloat16"), (0, 1, "bfloat16"), (0, 0, "float32")],
        *[(None, 1, "bfloat16"), (1, None, "bfloat16"), (0, None, "float32"), (None, None, "float32")],
    ],
)
def test_automatic_precision_is_bfloat16_only_where_a_cpu_has_instructions_for_it(
    monkeypatch, tmp_path, amx, avx512, chosen
):
    for name, has in (("_is_amx_tile_supported", amx), ("_is_avx512_bf16_supported", avx512)):
        if has is None:  # a torch without the question
            monkeypatch.delattr(torch.cpu, name, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, name, lambda has=has: bool(has), raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_precision("auto", CPU) == chosen
        assert choose_precision("float32", CPU) == "float32"
        save_detector(tmp_path / "d.safetensors", build(SMALL), replace(SMALL, precision="bfloat16"), 1)
        assert load_detector(tmp_path / "d.safetensors", CPU)[1].precision == chosen
    if chosen == "float32":
        with pytest.warns(UserWarning, match="no bfloat16 instructions.*ten times as long.*use precision auto"):
            assert choose_precision("bfloat16", CPU) == "bfloat16"


@pytest.mark.parametrize("native, chosen", [(True, "bfloat16"), (False, "float32")])
def test_automatic_precision_on_a_gpu_asks_for_real_support(monkeypatch, native, chosen):
    monkeypatch.setattr(torch.cuda, "device", lambda device: warnings.catch_warnings())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert choose_precision("auto", torch.device("cuda:1")) == chosen


def test_a_run_without_a_detector_of_that_name_gets_the_shipped_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stored, "SHIPPED", tmp_path / "shipped")
    config = replace(SMALL, detector="ori", seed=2)
    save_detector(tmp_path / "shipped/ori.safetensors", build(config), config, 3)
    own = tmp_path / "run/03_sam_training/ori-s2/best.safetensors"
    path = stored.shipped_instead(own)
    assert path.samefile(tmp_path / "shipped/ori.safetensors") and load_detector(path, CPU)[1] == config
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and str(own.parent) in said and str(path) in said and "README.md" in said
    for other in ("ori-s0", "fairdf-s2", "a.name-with-s"):
        assert stored.shipped_instead(own.parent.with_name(other) / own.name) is None, "another seed or name"
    assert stored.shipped_instead(own, image_root="/faces") is None, "it was trained on rendered faces"
    save_detector(own, build(config), config, 3)
    assert stored.shipped_instead(own) is None and capsys.readouterr().out == ""
