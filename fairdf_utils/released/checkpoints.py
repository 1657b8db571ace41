"""Checkpoints of the released implementation of Lin et al. 2024, read into our detector.

The released model is `FairDetector` in "official" fidelity under other names, plus a few parts that it never calls.

Source: Lin et al. 2024, "Preserving Fairness Generalization in Deepfake Detection", CVPR (arXiv 2402.17229).
"""

from pathlib import Path

import torch
from torch import nn

from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.model.detectors import FairDetector
from fairdf_utils.model.encoders import list_misfits, read_state_dict
from fairdf_utils.model.layers import pointwise_block
from fairdf_utils.model.stored import load_detector

ENCODERS = {"forgery": "encoder_f", "content": "encoder_c", "demographic": "encoder_fair"}
SPLITS = {"specific_split": "block_spe", "agnostic_split": "block_sha", "demographic_split": "block_fair"}
HEADS = {"specific": "head_spe", "agnostic": "head_sha", "demographic_head": "head_fair", "fused": "head_fused"}
DECODER = {"stages.0": "dconv_up3", "stages.1": "dconv_up2", "stages.2": "dconv_up1", "to_rgb": "conv_last"}

# Our name of a part -> its released name. Below these, both number and name the layers alike.
PARTS = {
    **{f"{ours}.backbone": theirs for ours, theirs in ENCODERS.items()},
    **{f"{ours}.adjust": f"{theirs}.adjust_channel" for ours, theirs in ENCODERS.items()},
    **{ours: f"{theirs}.conv2d" for ours, theirs in SPLITS.items()},
    **{f"{ours}.layers": f"{theirs}.mlp" for ours, theirs in HEADS.items()},
    **{f"decoder.{ours}": f"con_gan.{theirs}" for ours, theirs in DECODER.items()},
}


RELEASED = TrainingConfig(detector="released", fidelity="official", weights="")


def load_any_detector(path: str | Path, device: torch.device) -> tuple[nn.Module, TrainingConfig]:
    """A detector that this project published (.safetensors), or that of a released checkpoint, in evaluation mode.

    Raises what `load_detector` and `load_released_checkpoint` raise.
    """
    if Path(path).suffix == ".safetensors":
        return load_detector(path, device)
    return load_released_checkpoint(path).to(device, memory_format=torch.channels_last), RELEASED


def load_released_checkpoint(path: str | Path) -> FairDetector:
    """The detector of a released checkpoint, whose logits and reconstructions are those of the released model.

    It has "official" fidelity and is in evaluation mode, on the CPU, float32. A batch there begins with the reals, here
    with the fakes. The file is a state dict (Xception, 256 px), as `read_state_dict` takes it; parts that the released
    code never uses, and the step counters of its batch norms, may be missing.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        No state dict, weights that are not finite, or one message with the unknown, missing and misshapen entries.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no released checkpoint at {path}: pass the path of the file that its training wrote")
    with torch.device("meta"):  # shapes only: no weights are drawn in vain
        model = FairDetector(RELEASED)
    ours = {released_name(name): (name, value) for name, value in model.state_dict().items()}
    unused = unused_shapes()
    shapes = {theirs: value.shape for theirs, (_, value) in ours.items()} | unused
    found = read_state_dict(path, shapes.keys())
    counters = {name for name in ours if name.endswith("num_batches_tracked")}
    misfits = list_misfits(found, shapes, optional=counters | unused.keys())
    if misfits:
        raise ValueError(f"{path} is not a checkpoint of the released detector (Xception, 256 px). {misfits}")
    absent = dict.fromkeys(counters - found.keys(), torch.tensor(0))
    model.to_empty(device="cpu").load_state_dict({name: (found | absent)[theirs] for theirs, (name, _) in ours.items()})
    return model.eval()


def released_name(name: str) -> str:
    """The released name of one of our entries: "fused.layers.0.bias" is "head_fused.mlp.0.bias"."""
    part = next(part for part in PARTS if name.startswith(f"{part}."))
    return PARTS[part] + name.removeprefix(part)


def unused_shapes() -> dict[str, torch.Size]:
    """Entries of a released checkpoint that never reach its outputs, and that we drop.

    The encoders keep the backbone's classifier although only its map is used, and the block meant to follow the
    fusion is never called: its 512 inputs do not even fit the 256 channels of the fused map.
    """
    sizes = {"weight": torch.Size([2, 2048]), "bias": torch.Size([2])}
    shapes = {f"{encoder}.last_linear.{name}": size for encoder in ENCODERS.values() for name, size in sizes.items()}
    block = pointwise_block(512, 256, 256).state_dict()
    return shapes | {f"block_fused.conv2d.{name}": value.shape for name, value in block.items()}
