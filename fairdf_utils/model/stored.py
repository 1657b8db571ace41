"""Detectors on disk, and the device that they are put on.

A published detector is one safetensors file: its weights, and in the metadata the configuration that rebuilds it.
Small copies of detectors of the rendered benchmark come with the repository, in SHIPPED.
"""

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.files import replacing
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.model.detectors import build
from fairdf_utils.model.encoders import list_misfits, read_state_dict

SHIPPED = Path(__file__).resolve().parents[2] / "data_manifests" / "detectors"  # README.md there is their card


class DetectorError(RuntimeError):
    """A detector or its device cannot be used; the message says why and what to do."""


def choose_device(device: str = "auto", threads: int = 0) -> torch.device:
    """The device of that name; "auto" is the first GPU when there is one, else the CPU.

    `threads` > 0 also sets the number of CPU threads: waking a second one costs more than it brings while a step
    takes a tenth of a second, and sums are the same on every machine only for the same number.

    Raises
    ------
    DetectorError
        There is no such device here.
    """
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        if target.type == "cuda":  # asked for without a tensor on it: each process of several has a GPU of its own
            there = torch.cuda.is_available() and (target.index or 0) < torch.cuda.device_count()
        else:
            there = torch.empty(0, device=target).device.type == target.type
    except (RuntimeError, AssertionError, ImportError):  # what torch raises depends on the name and its build
        there = False
    if not there:
        raise DetectorError(f"device {device!r} is not there. Use auto, cpu, or cuda where there is an NVIDIA GPU.")
    return target


def choose_precision(precision: str, device: torch.device) -> str:
    """What training computes in on that device: "auto" is "bfloat16" where it has instructions for it, else "float32".

    Warns where "bfloat16" is asked for and has none: it is emulated there, up to ten times slower than float32.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # private: another torch may lack them
        fast = device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in asked)
    if precision == "bfloat16" and not fast:
        what = f"this {device.type} device has no bfloat16 instructions that torch names (on a CPU AMX or AVX512-BF16)"
        warnings.warn(f"{what}: a step can take ten times as long as in float32; use precision auto", stacklevel=2)
    return ("bfloat16" if fast else "float32") if precision == "auto" else precision


def save_detector(
    path: Path, model: nn.Module, config: TrainingConfig, epoch: int, groups: Sequence[str] = GROUPS
) -> None:
    """Publish the detector that `config` built, at the end of `epoch` (from 1), in a file that is replaced as a whole.

    `groups` are those of its training set, in the order of their codes. Equal arguments give equal bytes.
    """
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    stored = json.dumps(asdict(config) | {"epoch": epoch, "groups": list(groups)})
    with replacing(path) as partial:
        safetensors.torch.save_file(weights, partial, {"config": stored})  # one entry: several have no fixed order


def read_config(path: str | Path) -> tuple[TrainingConfig, dict]:
    """The configuration of a published detector, and all that its file tells; raises what reading a file raises."""
    with safetensors.safe_open(path, "pt") as file:
        stored = json.loads((file.metadata() or {})["config"])
    known = {field.name for field in fields(TrainingConfig)}  # older files lack later fields, which have defaults
    return TrainingConfig(**{name: value for name, value in stored.items() if name in known}), stored


def load_detector(path: str | Path, device: torch.device) -> tuple[nn.Module, TrainingConfig]:
    """Rebuild a published detector, in evaluation mode.

    One that was trained in bfloat16 is to be scored in float32 (`precision`) by a device that is not fast at bfloat16.

    Raises
    ------
    DetectorError
        The file is not a detector published by `save_detector`.
    """
    try:
        config, stored = read_config(path)
        groups = len(stored.get("groups", GROUPS))
        model = build(replace(config, weights=""), groups)  # the backbone's own weights are about to be overwritten
        weights = read_state_dict(Path(path), model.state_dict().keys())
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise DetectorError(f"{path} is not a detector published by this project ({error!r})") from error
    misfits = list_misfits(weights, {name: value.shape for name, value in model.state_dict().items()})
    if misfits:
        raise DetectorError(f"{path} does not hold the weights of its own configuration. {misfits}")
    model.load_state_dict(weights)
    if config.precision == "bfloat16":
        config = replace(config, precision=choose_precision("auto", device))
    return model.to(device, memory_format=torch.channels_last).eval(), config


def shipped_instead(own: Path, image_root: str = "") -> Path | None:
    """What SHIPPED has in place of a run's `own`, .../<detector>-s<seed>/best.safetensors, said in a printed line.

    None where `own` is there, where nothing of its name and seed is shipped, or where an `image_root` is given: then
    the images are not the rendered ones.
    """
    detector, _, seed = own.parent.name.rpartition("-s")
    path = Path(os.path.relpath(SHIPPED / f"{detector}.safetensors"))
    if image_root or own.exists() or not path.is_file() or read_config(path)[0].seed != int(seed):
        return None
    print(f"{own.parent} holds no trained detector. In its place: {path}, described in {path.with_name('README.md')}")
    return path
