"""The network: golden vectors, both fidelities, the decoder against four plain calls, backbones and their weights."""

import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from safetensors.torch import save, save_file
from torch import nn

from fairdf_utils.data.batches import Batch
from fairdf_utils.model import losses
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.model.detectors import FairDetector, PlainDetector, score
from fairdf_utils.model.encoders import Encoder
from fairdf_utils.model.layers import Decoder, adain
from fairdf_utils.tests.small import small

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "losses.npz"
ENCODERS = ("forgery", "content", "demographic")


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip(f"golden vectors are not at {GOLDEN}")
    return {name: torch.from_numpy(value) for name, value in np.load(GOLDEN).items()}


def images_of(count, size=16, seed=0, dtype=torch.float32):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def detector(fidelity="corrected", dtype=torch.float64, **options):
    """A small detector in which every part has a say: Kaiming weights, no dropout."""
    torch.manual_seed(0)
    options = {"logit_dropout": 0.0, "initialisation": "kaiming", "width": 32, **options}
    model = FairDetector(small(fidelity=fidelity, **options)).to(dtype)
    model.decoder.dropout.p = 0.0
    return model


def whole_loss(model, images):
    pairs = len(images) // 2
    label = torch.tensor([1] * pairs + [0] * pairs)
    batch = Batch(images, label, label * 3, torch.arange(2 * pairs) % 8, np.arange(2 * pairs))
    config = small(fidelity=model.fidelity)
    drawn = losses.draw_triplets(label, batch.forgery, torch.Generator().manual_seed(0))
    terms = losses.fairdf_terms(model(images), batch, drawn, [10] * 8, config)
    return sum(config.weight(name) * term for name, term in terms.items())


def gradient_norm(module):
    return torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm().item()


def variation(images):
    """Standard deviation over images and space, mean over colours."""
    return images.std(dim=(0, 2, 3)).mean()


# AdaIN, scores


def test_adain_golden(golden):
    torch.testing.assert_close(adain(golden["adain_x"], golden["adain_y"]), golden["adain_out"], rtol=0, atol=1e-6)


def test_pooling_after_adain_forgets_the_demographic_map_golden(golden):
    pooled = adain(golden["fuse_demographic"], golden["fuse_agnostic"]).mean((2, 3))
    torch.testing.assert_close(pooled, golden["fuse_pooled"], rtol=0, atol=1e-6)
    torch.testing.assert_close(pooled, golden["fuse_agnostic"].mean((2, 3)), rtol=0, atol=1e-6)


def test_adain_has_the_statistics_of_y_and_the_pattern_of_x():
    x, y = torch.randn(3, 4, 8, 8, dtype=torch.float64) * 5 + 2, torch.randn(3, 4, 16, 16, dtype=torch.float64)
    result = adain(x, y, eps=0)
    for moment in (torch.mean, torch.var):
        torch.testing.assert_close(moment(result, dim=(2, 3)), moment(y, dim=(2, 3)))
    for original, styled in zip(x.flatten(0, 1), result.flatten(0, 1), strict=True):
        assert torch.corrcoef(torch.stack([original.flatten(), styled.flatten()]))[0, 1] == pytest.approx(1)


def test_adain_gradient():
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(adain, (x, y))


def test_score_of_both_fidelities():
    logits = torch.randn(20, 2) * 4
    torch.testing.assert_close(score(logits), logits.softmax(1)[:, 1])
    torch.testing.assert_close(score(logits, "official"), logits[:, 1].sigmoid())
    assert score(logits.bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match="fidelity"):
        score(logits, "exact")


# Fidelity


def test_official_demographics_do_not_reach_the_answer():
    model, images = detector("official").eval(), images_of(8, dtype=torch.float64)
    outputs = model(images)
    agnostic_map = model.agnostic_split(model.forgery(images))
    torch.testing.assert_close(outputs.fused.logits, model.fused(agnostic_map).logits, rtol=0, atol=1e-12)
    outputs.fused.logits.square().sum().backward()
    assert gradient_norm(model.forgery) > 1e-3
    assert gradient_norm(model.demographic) < 1e-9 * gradient_norm(model.forgery)
    nn.init.normal_(model.demographic.adjust[0].weight)
    torch.testing.assert_close(model(images).fused.logits, outputs.fused.logits, rtol=0, atol=1e-12)


def test_official_content_does_not_reach_the_images():
    model, images = detector("official"), images_of(8, dtype=torch.float64)
    whole_loss(model, images).backward()
    assert gradient_norm(model.forgery) > 1e-2 and gradient_norm(model.demographic) > 1e-2
    assert gradient_norm(model.content) < 1e-4 * gradient_norm(model.forgery)  # AdaIN's eps leaves a trace
    before = model(images).self_reconstruction
    nn.init.normal_(model.content.adjust[0].weight)
    assert (model(images).self_reconstruction - before).abs().max() < 1e-3 * variation(before)


def test_corrected_gradient_reaches_all_three_encoders():
    model, images = detector(), images_of(8, dtype=torch.float64)
    model(images).fused.logits.square().sum().backward()
    assert gradient_norm(model.demographic) > 1e-2 * gradient_norm(model.forgery) > 1e-5
    model.zero_grad()
    whole_loss(model, images).backward()
    norms = {name: gradient_norm(getattr(model, name)) for name in ENCODERS}
    assert norms["demographic"] > 1e-2 * norms["forgery"] and norms["content"] > 1e-4 * norms["forgery"] > 1e-5, norms
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_corrected_answer_and_images_depend_on_every_encoder():
    model, images = detector(), images_of(8, dtype=torch.float64)
    before = model(images)
    nn.init.normal_(model.demographic.adjust[0].weight)
    assert (model(images).fused.logits - before.fused.logits).abs().max() > 1e-2
    before = model(images).self_reconstruction
    nn.init.normal_(model.content.adjust[0].weight)
    assert (model(images).self_reconstruction - before).abs().max() > variation(before)


@pytest.mark.parametrize(("fidelity", "needed"), [("corrected", ["forgery", "demographic"]), ("official", ["forgery"])])
def test_detect_is_the_fused_answer_and_runs_only_what_it_needs(fidelity, needed):
    model, images = detector(fidelity).eval(), images_of(6, dtype=torch.float64)
    expected = model(images).fused.logits
    called = []
    for name, part in model.named_children():
        part.register_forward_hook(lambda *_, name=name: called.append(name))
    torch.testing.assert_close(model.detect(images), expected, rtol=0, atol=1e-12)
    assert [name for name in called if name in ENCODERS] == needed
    assert not {"content", "specific", "specific_split", "agnostic", "demographic_head", "decoder"} & set(called)
    torch.testing.assert_close(model.detect(images[:1]), expected[:1], rtol=0, atol=1e-12)


# Outputs and the decoder


def test_outputs_have_the_documented_shapes():
    outputs = detector()(images_of(8, dtype=torch.float64))
    for name, classes in {"specific": 6, "agnostic": 2, "demographic": 8, "fused": 2}.items():
        assert getattr(outputs, name).logits.shape == (8, classes)
    assert outputs.agnostic.pooled.shape == outputs.specific.pooled.shape == (8, 16)
    assert outputs.self_reconstruction.shape == outputs.cross_reconstruction.shape == (8, 3, 16, 16)
    assert outputs.self_reconstruction.abs().max() <= 1
    with pytest.raises(ValueError, match="odd"):
        detector()(images_of(7, dtype=torch.float64))


def straightforward_decoder(decoder, condition, forgery):
    """One reconstruction, stage by stage, as the paper words it."""
    drawn, size = condition, 8
    for stage in decoder.stages:
        size = min(2 * size, decoder.output_size)
        drawn = adain(drawn, forgery)
        drawn, forgery = (
            stage(F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=True))
            for maps in (drawn, forgery)
        )
    size = (decoder.output_size,) * 2
    return F.interpolate(decoder.to_rgb(drawn), size=size, mode="bilinear", align_corners=True).tanh()


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_the_decoder_equals_four_plain_calls(size):
    torch.manual_seed(0)
    decoder = Decoder(32, size).double().eval()
    condition, forgery = (torch.randn(6, 32, 8, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    fake, real = condition.chunk(2)
    fake_forgery, real_forgery = forgery.chunk(2)
    calls = ((fake, fake_forgery), (real, real_forgery), (fake, real_forgery), (real, fake_forgery))
    expected = torch.cat([straightforward_decoder(decoder, *call) for call in calls])
    own, cross = decoder(condition, forgery)
    torch.testing.assert_close(torch.cat([own, cross]), expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(expected)
    inputs = (condition, forgery, *decoder.parameters())
    expected_grads = torch.autograd.grad((expected * weights).sum(), inputs)
    grads = torch.autograd.grad((torch.cat([own, cross]) * weights).sum(), inputs)
    torch.testing.assert_close(grads, expected_grads, rtol=1e-9, atol=1e-10)


def test_a_share_of_the_pairs_is_reconstructed_and_no_more_is_encoded():
    model, images = detector(reconstruction_share=0.3, reconstruction_size=8).eval(), images_of(8, dtype=torch.float64)
    whole = detector(reconstruction_size=8).eval()
    whole.load_state_dict(model.state_dict())
    seen = []
    model.content.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    outputs, expected = model(images), whole(images)
    first_pairs = [0, 1, 4, 5]  # 0.3 of 4 pairs, rounded up
    assert torch.equal(seen[0], images[first_pairs])
    for name in ("self_reconstruction", "cross_reconstruction"):
        torch.testing.assert_close(getattr(outputs, name), getattr(expected, name)[first_pairs], rtol=0, atol=1e-12)
    assert outputs.self_reconstruction.shape == (4, 3, 8, 8)


def test_nothing_is_reconstructed_at_share_zero():
    outputs = detector(reconstruction_share=0.0)(images_of(4, dtype=torch.float64))
    assert outputs.self_reconstruction is None and outputs.cross_reconstruction is None


def test_channels_last_and_bfloat16_give_the_same_answer():
    model, images = detector(dtype=torch.float32), images_of(8)
    expected = model(images)
    model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(images).fused.logits, expected.fused.logits, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images)
    scale = expected.fused.logits.std()
    assert (outputs.fused.logits.float() - expected.fused.logits).abs().max() < 0.1 * scale
    assert (outputs.self_reconstruction.float() - expected.self_reconstruction).abs().mean() < 0.02


def test_kaiming_initialisation_covers_blocks_and_heads_only():
    torch.manual_seed(0)
    model = FairDetector(small(width=256, initialisation="kaiming"))
    for block in (model.specific_split, model.fusion, model.condition, model.fused.layers):
        layer = block[0]
        assert layer.weight.std().item() == pytest.approx((2 / layer.weight.shape[1]) ** 0.5, rel=0.03)
        assert (layer.bias == 0).all()
    assert (model.decoder.to_rgb.bias != 0).any()


@pytest.mark.parametrize("initialisation", ["default", "kaiming"])
def test_the_seed_decides_the_weights(initialisation):
    first, again = (detector(initialisation=initialisation).state_dict() for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_plain_detector():
    model = PlainDetector(small(initialisation="kaiming")).eval()
    images = images_of(5)
    assert model(images).shape == (5, 2)
    assert torch.equal(model.detect(images), model(images))


# Backbones


def test_paper_size_with_xception():
    model = FairDetector(TrainingConfig(fidelity="official", weights=""))
    millions = {
        name: sum(p.numel() for p in part.parameters()) / 1e6
        for name, part in (("all", model), ("encoder", model.forgery), ("decoder", model.decoder))
    }
    assert millions == {
        "all": pytest.approx(69.5, rel=0.01),
        "encoder": pytest.approx(21.9, rel=0.01),
        "decoder": pytest.approx(2.3, rel=0.02),
    }
    with torch.no_grad():
        features = model.forgery.features(images_of(1, 256))
    assert features.shape == (1, 2048, 8, 8)
    assert features.min() < 0  # before the final ReLU
    with torch.no_grad():
        assert model.forgery(images_of(1, 256)).shape == (1, 512, 8, 8)


@pytest.mark.parametrize(
    ("name", "size", "channels"),
    [
        ("resnet50", 256, 2048),
        ("efficientnet_b3", 256, 1536),
        ("efficientnet_b4", 256, 1792),
        ("resnet50", 64, 512),
        ("legacy_xception", 64, 256),
        ("lcnet_050", 64, 64),
        ("convnext_atto", 64, 80),
        ("tiny", 16, 64),
        ("tiny", 64, 64),
        ("tiny", 256, 64),
    ],
)
def test_every_backbone_gives_an_8_by_8_map(name, size, channels):
    encoder = Encoder(name, size, width=24)
    with torch.no_grad():
        assert encoder.features(images_of(2, size)).shape == (2, channels, 8, 8)
        assert encoder(images_of(2, size)).shape == (2, 24, 8, 8)
    assert encoder.training and all(module.training for module in encoder.modules())


@pytest.mark.parametrize("name", ["legacy_xception", "resnet50", "efficientnet_b3", "efficientnet_b4", "tiny"])
def test_every_backbone_trains_at_paper_resolution(name):
    torch.manual_seed(0)
    model = FairDetector(small(256, backbone=name, width=64))
    outputs = model(images_of(2, 256))
    assert outputs.self_reconstruction.shape == outputs.cross_reconstruction.shape == (2, 3, 256, 256)
    heads = (outputs.specific, outputs.agnostic, outputs.demographic, outputs.fused)
    loss = sum(head.logits.square().mean() for head in heads)
    (loss + outputs.self_reconstruction.square().mean() + outputs.cross_reconstruction.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    for encoder in ENCODERS:
        first = next(getattr(model, encoder).parameters())
        assert first.ndim == 4 and first.grad.abs().max() > 0  # the gradient reaches the first convolution


def test_a_cut_backbone_equals_the_whole_one_at_its_stage():
    torch.manual_seed(0)
    whole = timm.create_model("resnet50", num_classes=0).eval()
    torch.manual_seed(0)
    encoder, images = Encoder("resnet50", 64, width=8).eval(), images_of(2, 64)
    with torch.no_grad():
        expected = whole.layer2(whole.layer1(whole.maxpool(whole.act1(whole.bn1(whole.conv1(images))))))
        torch.testing.assert_close(encoder.features(images), expected)
    assert sum(p.numel() for p in encoder.parameters()) < 2e6


def test_unusable_backbones_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match="legacy_xception"):
        Encoder("legacy_xceptoin")
    for size in (8, 100, 96):
        with pytest.raises(ValueError, match="image_size"):
            Encoder("tiny", size)
    with pytest.raises(ValueError, match=r"choose image_size from \[16, 32, 64, 128, 256\]"):
        Encoder("resnet50", 512)


@pytest.mark.parametrize(
    "name, size, message",
    [
        ("inception_v3", 256, r"its map is \(2048, 6, 6\), not .*: choose another convolutional backbone"),
        ("vit_small_patch16_224", 64, r"stages have stride 16, not 8\): choose another convolutional backbone"),
        ("swin_tiny_patch4_window7_224", 256, r"Input height .256. doesn't match model .224.*convolutional backbone"),
        ("efficientformer_l1", 256, r"choose image_size from \[32, 64, 128\]"),
        ("levit_128s", 64, "convolutional backbone"),
    ],
)
def test_backbones_with_an_input_size_of_their_own_are_refused_with_sizes_that_work(name, size, message):
    with (
        pytest.raises(ValueError, match=f'backbone "{name}" has no 8 x 8 map of {size} px images.*{message}') as caught,
        torch.device("meta"),
    ):
        Encoder(name, size)
    for advised in re.findall(r"\d+", str(caught.value).partition("choose image_size from")[2]):
        with torch.device("meta"):
            Encoder(name, int(advised))


# Weights


def xception_state():
    torch.manual_seed(3)
    return timm.create_model("legacy_xception", num_classes=10).state_dict()


def test_weights_in_timm_names_and_in_the_classic_form(tmp_path):
    state = xception_state()
    torch.save({"state_dict": state}, tmp_path / "timm.pth")
    save_file(state, tmp_path / "timm.safetensors")
    classic = {
        name: value[:, :, 0, 0] if "pointwise" in name else value
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(classic, tmp_path / "xception.pth")
    for file in ("timm.pth", "timm.safetensors", "xception.pth"):
        encoder = Encoder("legacy_xception", 64, width=8, weights=tmp_path / file)
        for name, value in encoder.backbone.state_dict().items():
            if name in state:
                assert torch.equal(value, state[name]), (file, name)
        assert torch.equal(encoder.backbone.conv1.weight, state["conv1.weight"])


def test_wrong_weights_are_listed_in_one_error(tmp_path):
    state = xception_state()
    state["surprise.weight"] = torch.zeros(1)
    del state["bn1.weight"]
    state["conv2.weight"] = torch.zeros(2, 3)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(ValueError) as caught:
        Encoder("legacy_xception", 64, weights=tmp_path / "wrong.pth")
    for part in ("wrong.pth", "unknown: surprise.weight", "missing: bn1.weight", "conv2.weight is (2, 3, 1, 1), not"):
        assert part in str(caught.value)


def test_weights_as_training_scripts_save_them(tmp_path):
    state = timm.create_model("lcnet_050", num_classes=0).state_dict()
    path = tmp_path / "saved.pth"
    beside = {"epoch": 3, "auc": np.float64(0.9), "best": np.float32(0.8), "args": Namespace(lr=0.1, gpus=[0])}
    for prefix, wrapper in (
        ("module.", "net"),
        ("backbone.", "model_state_dict"),
        ("_orig_mod.", "state_dict"),
        ("student.trunk.", "ema_weights"),
    ):
        torch.save({wrapper: {f"{prefix}{name}": value for name, value in state.items()}, **beside}, path)
        found = Encoder("lcnet_050", 64, 8, path).backbone.state_dict()
        assert found and all(torch.equal(value, state[name]) for name, value in found.items())
    torch.save({"one": state, "other": state}, path)
    with pytest.raises(ValueError, match="saved.pth holds no state dict"):
        Encoder("lcnet_050", 64, 8, path)
    torch.save(state | {"bn1.bias": state["bn1.bias"] * torch.nan}, path)
    with pytest.raises(ValueError, match="not finite: bn1.bias"):
        Encoder("lcnet_050", 64, 8, path)


def test_weights_files_that_are_absent_or_no_state_dict(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.pth"):
        Encoder("resnet50", 64, weights=tmp_path / "absent.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save({"model": PlainDetector}, tmp_path / "code.pth")  # a pickled class: never executed
    for file in ("tensor.pth", "text.pth", "text.safetensors", "code.pth"):
        with pytest.raises(ValueError, match=f"{file}.*state dict"):
            Encoder("resnet50", 64, weights=tmp_path / file)


def test_the_tiny_backbone_has_no_pretrained_weights():
    with pytest.raises(ValueError, match="tiny"):
        Encoder("tiny", 64, weights="imagenet")


def test_imagenet_weights_offline_say_what_to_put_where(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(timm, "create_model", offline)
    for name, source in (("legacy_xception", r"xception-43020ad28\.pth"), ("resnet50", r"timm/resnet50\.a1_in1k")):
        with pytest.raises(OSError, match=rf"ImageNet weights of .{name}.*{source}.*as weights\. Cause: no network"):
            Encoder(name, weights="imagenet")


def test_imagenet_weights_in_the_local_cache_need_no_network(monkeypatch, tmp_path):
    state = timm.create_model("lcnet_050").state_dict()
    folder = tmp_path / "models--timm--lcnet_050.ra2_in1k"
    for path, content in (("refs/main", b"0" * 40), (f"snapshots/{'0' * 40}/model.safetensors", save(state))):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(content)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # the hub's client refuses every request
    encoder = Encoder("lcnet_050", 64, width=8, weights="imagenet")
    loaded = encoder.backbone.state_dict()
    assert torch.equal(loaded["conv_stem.weight"], state["conv_stem.weight"])
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())
