"""Released checkpoints: a second, functional description of the released model, compared with what we load."""

import pytest
import torch
import torch.nn.functional as F

from fairdf_utils.model.detectors import build
from fairdf_utils.model.stored import save_detector
from fairdf_utils.released.checkpoints import load_any_detector, load_released_checkpoint
from fairdf_utils.tests.small import small

# The released model by the names of its state dict. Nothing here comes from our package or from timm.

BLOCKS = {  # of Xception: (inputs, outputs) of each separable convolution, their positions, stride of the block
    1: ([(64, 128), (128, 128)], [0, 3], 2),
    2: ([(128, 256), (256, 256)], [1, 4], 2),
    3: ([(256, 728), (728, 728)], [1, 4], 2),
    **{number: ([(728, 728)] * 3, [1, 4, 7], 1) for number in range(4, 12)},
    12: ([(728, 728), (728, 1024)], [1, 4], 2),
}
HEADS = {"head_spe": 6, "head_sha": 2, "head_fair": 8, "head_fused": 2}
ENCODERS = ("encoder_f", "encoder_c", "encoder_fair")
SPLITS = ("block_spe", "block_sha", "block_fair", "block_fused")


class StateDict(dict):
    """Random entries of the released model's layers."""

    def __init__(self, seed):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator)

    def layer(self, name, outputs, inputs, *kernel, bias=True):
        fan = inputs * torch.Size(kernel).numel()
        self[f"{name}.weight"] = self.normal(outputs, inputs, *kernel) * (2 / fan) ** 0.5
        if bias:
            self[f"{name}.bias"] = self.normal(outputs) * 0.2

    def separable(self, name, inputs, outputs):
        self.layer(f"{name}.conv1", inputs, 1, 3, 3, bias=False)
        self.layer(f"{name}.pointwise", outputs, inputs, 1, 1, bias=False)

    def norm(self, name, channels):
        self[f"{name}.weight"] = 0.5 + torch.rand(channels, generator=self.generator)
        self[f"{name}.bias"] = self.normal(channels) * 0.2
        self[f"{name}.running_mean"], self[f"{name}.running_var"] = torch.zeros(channels), torch.ones(channels)
        self[f"{name}.num_batches_tracked"] = torch.tensor(7)


def add_encoder(state, name):
    state.layer(f"{name}.conv1", 32, 3, 3, 3, bias=False)
    state.norm(f"{name}.bn1", 32)
    state.layer(f"{name}.conv2", 64, 32, 3, 3, bias=False)
    state.norm(f"{name}.bn2", 64)
    for number, (convolutions, positions, stride) in BLOCKS.items():
        block = f"{name}.block{number}"
        for (inputs, outputs), position in zip(convolutions, positions, strict=True):
            state.separable(f"{block}.rep.{position}", inputs, outputs)
            state.norm(f"{block}.rep.{position + 1}", outputs)
        if stride == 2:
            state.layer(f"{block}.skip", convolutions[-1][1], convolutions[0][0], 1, 1, bias=False)
            state.norm(f"{block}.skipbn", convolutions[-1][1])
    for number, inputs, outputs in ((3, 1024, 1536), (4, 1536, 2048)):
        state.separable(f"{name}.conv{number}", inputs, outputs)
        state.norm(f"{name}.bn{number}", outputs)
    state.layer(f"{name}.last_linear", 2, 2048)
    state.layer(f"{name}.adjust_channel.0", 512, 2048, 1, 1)
    state.norm(f"{name}.adjust_channel.1", 512)


def released_state(seed=0):
    state = StateDict(seed)
    for name in ENCODERS:
        add_encoder(state, name)
    for number, channels in ((3, 512), (2, 256), (1, 128)):
        state.layer(f"con_gan.dconv_up{number}.0", channels // 2, channels, 3, 3)
        state.layer(f"con_gan.dconv_up{number}.2", channels // 2, channels // 2, 3, 3)
    state.layer("con_gan.conv_last", 3, 64, 1, 1)
    for name, classes in HEADS.items():
        state.layer(f"{name}.mlp.0", 512, 256)
        state.layer(f"{name}.mlp.2", classes, 512)
    for name in SPLITS:
        for position, inputs in ((0, 512), (2, 256), (4, 256)):
            state.layer(f"{name}.conv2d.{position}", 256, inputs, 1, 1)
    return dict(state)


class ReleasedModel:
    """Evaluation mode of the released model as functions of its state dict.

    While `calibrating`, the running moments of every batch norm become those of its input, as after training:
    without that, activations grow from block to block.
    """

    def __init__(self, state):
        self.state = state
        self.calibrating = False

    def conv(self, x, name, **options):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), **options)

    def norm(self, x, name):
        if self.calibrating:
            self.state[f"{name}.running_mean"] = x.mean((0, 2, 3))
            self.state[f"{name}.running_var"] = x.var((0, 2, 3))
        moments = (self.state[f"{name}.{moment}"] for moment in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *moments, eps=1e-5)

    def separable(self, x, name):
        x = self.conv(x, f"{name}.conv1", padding=1, groups=x.shape[1])
        return self.conv(x, f"{name}.pointwise")

    def block(self, x, name, positions, stride):
        y = x
        for position in positions:
            y = self.separable(F.relu(y) if position else y, f"{name}.rep.{position}")
            y = self.norm(y, f"{name}.rep.{position + 1}")
        if stride == 1:
            return y + x
        shortcut = self.norm(self.conv(x, f"{name}.skip", stride=2), f"{name}.skipbn")
        return F.max_pool2d(y, 3, stride=2, padding=1) + shortcut

    def encoder(self, x, name):
        x = F.relu(self.norm(self.conv(x, f"{name}.conv1", stride=2), f"{name}.bn1"))
        x = F.relu(self.norm(self.conv(x, f"{name}.conv2"), f"{name}.bn2"))
        for number, (_, positions, stride) in BLOCKS.items():
            x = self.block(x, f"{name}.block{number}", positions, stride)
        x = F.relu(self.norm(self.separable(x, f"{name}.conv3"), f"{name}.bn3"))
        x = self.norm(self.separable(x, f"{name}.conv4"), f"{name}.bn4")  # no ReLU before the adjustment
        return F.relu(self.norm(self.conv(x, f"{name}.adjust_channel.0"), f"{name}.adjust_channel.1"))

    def split(self, x, name):
        x = F.leaky_relu(self.conv(x, f"{name}.conv2d.0"), 0.01)
        return self.conv(F.leaky_relu(self.conv(x, f"{name}.conv2d.2"), 0.01), f"{name}.conv2d.4")

    def head(self, x, name):
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        hidden, answer = ((self.state[f"{name}.mlp.{n}.weight"], self.state[f"{name}.mlp.{n}.bias"]) for n in (0, 2))
        return F.linear(F.leaky_relu(F.linear(pooled, *hidden), 0.01), *answer)

    def draw(self, forgery, condition):
        """One reconstruction; the condition is given the statistics of the forgery map."""
        for stage in ("dconv_up3", "dconv_up2", "dconv_up1"):
            condition = self.double(with_statistics_of(forgery, condition), stage)
            forgery = self.double(forgery, stage)
        image = self.conv(condition, "con_gan.conv_last")
        return torch.tanh(F.interpolate(image, scale_factor=4, mode="bilinear", align_corners=True))

    def double(self, x, stage):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        for position in (0, 2):
            x = F.relu(self.conv(x, f"con_gan.{stage}.{position}", padding=1))
        return x

    def __call__(self, images):
        """Logits by head, and reconstructions by (forgery, condition), of reals and then fakes."""
        forgery, content, fair = (self.encoder(images, f"encoder_{name}") for name in ("f", "c", "fair"))
        specific, shared = self.split(forgery, "block_spe"), self.split(forgery, "block_sha")
        demographic = self.split(fair, "block_fair")
        maps = {
            "head_spe": specific,
            "head_sha": shared,
            "head_fair": demographic,
            "head_fused": with_statistics_of(shared, demographic),
        }
        logits = {name: self.head(features, name) for name, features in maps.items()}
        real, fake = torch.cat([specific, shared], 1).chunk(2)
        real_condition, fake_condition = with_statistics_of(content, fair).chunk(2)
        images = {
            "fake by fake": self.draw(fake, fake_condition),
            "real by real": self.draw(real, real_condition),
            "fake by real": self.draw(real, fake_condition),
            "real by fake": self.draw(fake, real_condition),
        }
        return logits, images


def with_statistics_of(style, x):
    """AdaIN: x takes the mean and the unbiased standard deviation of `style`, eps inside both roots."""
    mean, own_mean = (maps.mean((2, 3), keepdim=True) for maps in (style, x))
    std, own_std = ((maps.var((2, 3), keepdim=True) + 1e-5).sqrt() for maps in (style, x))
    return (x - own_mean) / own_std * std + mean


def released_model(seed=0):
    """The released model as if trained, with random weights."""
    model = ReleasedModel(released_state(seed))
    model.calibrating = True
    with torch.no_grad():
        for name in ENCODERS:
            model.encoder(random_images(1, seed), name)
    model.calibrating = False
    return model


def random_images(count, seed):
    """Images in [-1, 1] that differ in their large patterns, not only in noise."""
    coarse = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(coarse, size=(256, 256), mode="bicubic").clamp(-1, 1)


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_logits_and_reconstructions_are_those_of_the_released_model(tmp_path):
    released, path = released_model(), tmp_path / "released.pth"
    torch.save(released.state, path)
    model = load_released_checkpoint(path)
    path.unlink()  # 280 MB
    assert model.fidelity == "official" and not any(part.training for part in model.modules())
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    fakes, reals = random_images(2, seed=1).split(1)
    with torch.no_grad():
        logits, images = released(torch.cat([reals, fakes]))
        outputs, answers = model(torch.cat([fakes, reals])), model.detect(torch.cat([reals, fakes]))
    heads = {
        "head_spe": outputs.specific,
        "head_sha": outputs.agnostic,
        "head_fair": outputs.demographic,
        "head_fused": outputs.fused,
    }
    for name, ours in heads.items():
        assert (logits[name][0] - logits[name][1]).abs().max() > 0.1  # else equality would mean little
        assert_close(ours.logits, logits[name].flip(0))
    assert_close(answers, logits["head_fused"])
    drawn = (*outputs.self_reconstruction, *outputs.cross_reconstruction)
    for name, ours in zip(("fake by fake", "real by real", "fake by real", "real by fake"), drawn, strict=True):
        assert images[name].std() > 0.1
        assert_close(ours, images[name][0])


# Files


@pytest.fixture(scope="module")
def compact():
    """Entries of one number each, spread over their shapes without being stored: a file of them is small."""
    return {
        name: torch.tensor(number, dtype=value.dtype).expand(value.shape)
        for number, (name, value) in enumerate(released_state().items())
    }


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: prefixed(state, "module."),
        lambda state: prefixed(state, "model."),
        lambda state: prefixed(state, "module._orig_mod."),
        lambda state: {"state_dict": prefixed(state, "module."), "epoch": 3},
        lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        lambda state: {"net": state, "acc": 97.5, "epoch": 3},
        lambda state: {"model_state_dict": prefixed(state, "_orig_mod."), "epoch": 3},
    ],
    ids=["module", "model.", "module._orig_mod", "state_dict", "model", "net", "model_state_dict"],
)
def test_common_wrappers_and_one_shared_prefix_are_accepted(tmp_path, compact, wrap):
    torch.save(wrap(compact), tmp_path / "wrapped.pth")
    ours = load_released_checkpoint(tmp_path / "wrapped.pth").state_dict()
    for ours_name, name in (
        ("forgery.backbone.block12.rep.4.pointwise.weight", "encoder_f.block12.rep.4.pointwise.weight"),
        ("content.adjust.1.running_var", "encoder_c.adjust_channel.1.running_var"),
        ("demographic.backbone.bn4.num_batches_tracked", "encoder_fair.bn4.num_batches_tracked"),
        ("demographic_split.4.bias", "block_fair.conv2d.4.bias"),
        ("demographic_head.layers.2.weight", "head_fair.mlp.2.weight"),
        ("decoder.stages.2.0.weight", "con_gan.dconv_up1.0.weight"),
    ):
        assert torch.equal(ours[ours_name], compact[name])
    numbers = {value.flatten()[0].item() for value in ours.values()}
    dropped = [name for name, value in compact.items() if value.flatten()[0].item() not in numbers]
    assert len(numbers) == len(ours) == len(compact) - len(dropped)  # every other entry is used, and once
    assert {name.rsplit(".", 1)[0] for name in dropped} == {
        *(f"{encoder}.last_linear" for encoder in ENCODERS),
        *(f"block_fused.conv2d.{n}" for n in (0, 2, 4)),
    }


def test_either_kind_of_file_is_opened_with_its_configuration(tmp_path, compact):
    torch.save(compact, tmp_path / "released.pth")
    model, config = load_any_detector(tmp_path / "released.pth", torch.device("cpu"))
    assert (config.image_size, config.backbone, config.fidelity) == (256, "legacy_xception", "official")
    assert model.fidelity == "official" and not model.training
    own = small(method="ori")
    save_detector(tmp_path / "own.safetensors", build(own), own, 1)
    assert load_any_detector(tmp_path / "own.safetensors", torch.device("cpu"))[1] == own


def test_counters_and_unused_parts_may_be_missing(tmp_path, compact):
    unused = ("num_batches_tracked", "last_linear", "block_fused")
    torch.save({n: v for n, v in compact.items() if not any(part in n for part in unused)}, tmp_path / "old.pth")
    ours = load_released_checkpoint(tmp_path / "old.pth").state_dict()
    assert ours["forgery.backbone.bn4.num_batches_tracked"] == 0
    assert torch.equal(ours["forgery.backbone.bn4.running_var"], compact["encoder_f.bn4.running_var"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, compact, value):
    broken = {"head_fair.mlp.2.bias": torch.full((8,), value), "encoder_c.bn1.running_var": torch.full((32,), value)}
    torch.save(compact | broken, tmp_path / "broken.pth")
    message = r"broken\.pth holds weights that are not finite: encoder_c\.bn1\.running_var, head_fair\.mlp\.2\.bias"
    with pytest.raises(ValueError, match=message):
        load_released_checkpoint(tmp_path / "broken.pth")


def test_long_lists_are_cut_after_five_names(tmp_path, compact):
    torch.save({n: v for n, v in compact.items() if not n.startswith("encoder_c.")}, tmp_path / "half.pth")
    with pytest.raises(ValueError) as caught:
        load_released_checkpoint(tmp_path / "half.pth")
    needed = [n for n in compact if n.startswith("encoder_c.") and "last_linear" not in n and "num_b" not in n]
    assert str(caught.value).endswith(f"missing: {', '.join(sorted(needed)[:5])} and {len(needed) - 5} more")


def test_everything_wrong_is_listed_in_one_error(tmp_path, compact):
    state = dict(compact)
    del state["encoder_fair.block7.rep.8.running_var"], state["block_sha.conv2d.2.weight"]
    state["head_fair.mlp.2.weight"] = torch.zeros(6, 512)
    state["encoder_f.last_linear.weight"] = torch.zeros(1000, 2048)
    state["head_extra.mlp.0.bias"] = state["encoder_f.fc.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(ValueError) as caught:
        load_released_checkpoint(tmp_path / "wrong.pth")
    assert str(caught.value).endswith(
        "wrong.pth is not a checkpoint of the released detector (Xception, 256 px). "
        "unknown: encoder_f.fc.bias, head_extra.mlp.0.bias; "
        "missing: block_sha.conv2d.2.weight, encoder_fair.block7.rep.8.running_var; "
        "misshapen: encoder_f.last_linear.weight is (1000, 2048), not (2, 2048), "
        "head_fair.mlp.2.weight is (6, 512), not (8, 512)"
    )


@pytest.mark.parametrize("moved", [["head_sha.mlp.0.bias"], ["block_sha.conv2d.0.bias", "con_gan.conv_last.bias"]])
def test_a_prefix_on_some_names_only_is_wrong(tmp_path, compact, moved):
    state = {f"module.{name}" if name in moved else name: value for name, value in compact.items()}
    torch.save(state, tmp_path / "mixed.pth")
    with pytest.raises(ValueError) as caught:
        load_released_checkpoint(tmp_path / "mixed.pth")
    unknown = ", ".join(f"module.{name}" for name in moved)
    assert f"unknown: {unknown}; missing: {', '.join(moved)}" in str(caught.value)


class Malicious:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_files_that_are_no_checkpoint(tmp_path, compact):
    with pytest.raises(FileNotFoundError, match="absent.pth"):
        load_released_checkpoint(tmp_path / "absent.pth")
    backbone = {n.removeprefix("encoder_f."): v for n, v in compact.items() if n.startswith("encoder_f.")}
    for file, content in {"empty.pth": {}, "backbone.pth": backbone}.items():
        torch.save(content, tmp_path / file)
        with pytest.raises(ValueError, match=rf"{file} is not a checkpoint.*missing: .* and \d+ more"):
            load_released_checkpoint(tmp_path / file)
    (tmp_path / "text.pth").write_text("no checkpoint")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    torch.save({"state_dict": Malicious(tmp_path / "proof")}, tmp_path / "code.pth")
    torch.save(compact, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:5000])
    for file in ("text.pth", "tensor.pth", "code.pth", "cut.pth"):
        with pytest.raises(ValueError, match=f"{file} holds no state dict"):
            load_released_checkpoint(tmp_path / file)
    assert not (tmp_path / "proof").exists()
