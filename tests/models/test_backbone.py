"""Backbones: every layout gives (b, D, H, W) with its cells in order; weights fit or the error says why not."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import register_model
from torch import nn

from mlkd.models import (
    HEADS,
    Backbone,
    WeightsError,
    create_model,
    fingerprint,
    load_model,
    read_weights,
    save_model,
)
from mlkd.models.heads import create_head

# name, image size, settings, prefix tokens (None: no tokens), shape of the features of two images
NETWORKS = {
    "convolutions": ("test_resnet", 128, {}, None, (2, 96, 4, 4)),
    "swin": (
        "swin_tiny_patch4_window7_224",
        64,
        {"embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4},
        None,
        (2, 32, 8, 8),
    ),
    "vit": ("test_vit", 64, {}, 1, (2, 64, 4, 4)),
    "vit with two prefix tokens": (
        "deit_tiny_distilled_patch16_224",
        64,
        {"embed_dim": 24, "depth": 2, "num_heads": 2},
        2,
        (2, 24, 4, 4),
    ),
    "vit without a prefix": (
        "vit_tiny_patch16_224",
        64,
        {"embed_dim": 24, "depth": 2, "num_heads": 2, "class_token": False, "global_pool": "avg"},
        0,
        (2, 24, 4, 4),
    ),
}


# Small members of many families, and the image size.
FAMILIES = {
    "resnet": (64, ["resnet18", "resnet18d", "resnet26d", "resnet26t", "resnet34", "seresnet50"]),
    "resnet50": (64, ["resnet50", "wide_resnet50_2", "resnest26d", "ecaresnet26t", "skresnet18"]),
    "resnext": (64, ["resnext26ts", "resnext50_32x4d", "resnext50_32x4d.fb_swsl_ig1b_ft_in1k", "seresnext26d_32x4d"]),
    "pre-activation": (64, ["resnetv2_18", "resnetv2_50", "test_nfnet"]),
    "small residual": (32, ["resnet8_cifar", "resnet20_cifar", "resnet14x2_cifar"]),
    "tresnet": (64, ["tresnet_m"]),
    "regnet": (64, ["regnetx_002", "regnety_002", "regnety_004", "regnetz_005"]),
    "efficientnet": (64, ["efficientnet_b0", "efficientnet_lite0", "tinynet_e", "mixnet_s"]),
    "mobilenet": (64, ["mobilenetv2_050", "mobilenetv2_100", "mobilenetv1_100", "mnasnet_small"]),
    "mobilenetv3": (64, ["mobilenetv3_small_050", "mobilenetv3_large_100", "lcnet_050", "mobilenetv4_conv_small"]),
    "ghostnet": (64, ["ghostnet_050", "ghostnet_100"]),
    "repvgg": (64, ["repvgg_a0", "mobileone_s0", "repvit_m0_9"]),
    "densenet": (64, ["densenet121"]),
    "vgg": (64, ["vgg11", "vgg11_bn"]),
    "inception": (96, ["inception_v3", "xception41", "inception_next_atto"]),
    "dla": (64, ["dla34", "dla46_c", "hrnet_w18_small", "cs3darknet_focus_s"]),
    "convnext": (64, ["convnext_atto", "convnextv2_atto", "test_convnext"]),
    "hybrid": (64, ["edgenext_xx_small", "mobilevit_xxs", "mobilevitv2_050", "fastvit_t8"]),
    "poolformer": (64, ["poolformer_s12", "poolformerv2_s12", "convformer_s18"]),
    "swin": (64, ["swin_tiny_patch4_window7_224"]),
    "swinv2": (64, ["swinv2_cr_tiny_224", "swinv2_tiny_window8_256"]),
    "maxvit": (64, ["maxvit_pico_rw_256", "coatnet_pico_rw_224", "test_coatnet"]),
    "vit": (64, ["vit_tiny_patch16_224", "vit_medium_patch16_gap_240", "test_vit2"]),
    "deit": (64, ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224"]),
    "vit with more tokens": (56, ["vit_small_patch14_reg4_dinov2", "test_vit3", "vit_wee_patch16_reg1_gap_256"]),
    "cait": (64, ["cait_xxs24_224", "convit_tiny"]),
    "pvt": (64, ["pvt_v2_b0", "twins_pcpvt_small"]),
    "mixer": (224, ["mixer_s32_224", "resmlp_12_224", "xcit_nano_12_p16_224"]),
}
SEED = int(os.environ.get("MLKD_SEED", "0"))
RNG = random.Random(SEED)
CASES = [(RNG.choice(names), side, RNG.choice(list(HEADS))) for side, names in FAMILIES.values()]


@register_model
def user_defined_network(pretrained: bool = False, **kwargs) -> nn.Module:
    """The smallest possible backbone: no configuration, one convolution."""

    class Net(nn.Module):
        num_features = 6

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 4, 4)

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    return Net()


@register_model
def mobilenetv1_025_keras(pretrained: bool = False, **kwargs) -> nn.Module:
    """MobileNetV1 with a quarter of the width, as in Keras; timm has no name for it."""
    settings = {name: kwargs[name] for name in ("num_classes",) if name in kwargs}
    build: Any = timm.models.efficientnet._gen_mobilenet_v1
    return build("mobilenetv1_100", 0.25, pad_type="same", bn_eps=1e-3, **settings)


@pytest.fixture(params=NETWORKS, ids=lambda name: name.replace(" ", "_"))
def network(request: pytest.FixtureRequest) -> tuple[Backbone, int, int | None, tuple[int, ...]]:
    name, side, settings, prefix, shape = NETWORKS[request.param]
    torch.manual_seed(0)
    return Backbone(name, image_size=side, **settings).eval(), side, prefix, shape


class TestLayout:
    @torch.no_grad()
    def test_shape(self, network) -> None:
        backbone, side, _, shape = network
        assert tuple(backbone(torch.rand(2, 3, side, side)).shape) == shape
        assert backbone.width == shape[1]

    @torch.no_grad()
    def test_cells_equal_the_network_s_features(self, network) -> None:
        """Row by row: token `prefix + r * W + c` is cell (r, c)."""
        backbone, side, prefix, (_, _, rows, columns) = network
        images = torch.rand(2, 3, side, side)
        features, raw = backbone(images), backbone.net.forward_features(images)
        for r in range(rows):
            for c in range(columns):
                if prefix is not None:
                    expected = raw[:, prefix + r * columns + c]
                else:
                    expected = raw[:, r, c] if "Swin" in type(backbone.net).__name__ else raw[:, :, r, c]
                assert torch.equal(features[:, :, r, c], expected)

    @torch.no_grad()
    @pytest.mark.parametrize("cell", [(0, 2), (3, 1)])
    def test_cells_correspond_to_image_regions(self, network, cell: tuple[int, int]) -> None:
        """A change in one region of the image changes the features of that cell the most."""
        backbone, side, _, (_, _, rows, columns) = network
        at = (cell[0] * rows // 4, cell[1] * columns // 4)
        step = side // rows
        image = torch.zeros(1, 3, side, side)
        other = image.clone()
        other[:, :, at[0] * step : (at[0] + 1) * step, at[1] * step : (at[1] + 1) * step] = 3.0
        change = (backbone(other) - backbone(image)).norm(dim=1)[0]
        assert divmod(int(change.argmax()), columns) == at

    def test_finding_the_layout_does_not_change_the_network(self) -> None:
        """The blank image leaves the training mode and the running statistics unchanged."""
        backbone = Backbone("test_resnet", image_size=64)
        assert backbone.net.training
        fresh = timm.create_model("test_resnet", num_classes=0).state_dict()
        for name, value in backbone.net.state_dict().items():
            if "running" in name or "num_batches" in name:
                assert torch.equal(value, fresh[name])

    def test_gradients_reach_the_image(self, network) -> None:
        backbone, side, _, _ = network
        images = torch.rand(1, 3, side, side, requires_grad=True)
        backbone(images).square().sum().backward()
        assert images.grad is not None
        assert images.grad.isfinite().all()
        assert images.grad.abs().sum() > 0

    @pytest.mark.parametrize("name", ["mixer_s32_224", "xcit_nano_12_p16_224"])
    def test_tokens_without_a_grid(self, name: str) -> None:
        """These have no `patch_embed.grid_size`; the number of tokens is a square."""
        with torch.no_grad():
            assert Backbone(name, image_size=224)(torch.zeros(1, 3, 224, 224)).ndim == 4


class TestStages:
    @pytest.mark.parametrize("name", NETWORKS)
    @torch.no_grad()
    def test_pooled_penultimate_stage(self, name: str) -> None:
        """The mean over (b, D, H, W), (b, H, W, D) or tokens, per channel."""
        torch.manual_seed(0)
        backbone_name, side, settings, prefix, _ = NETWORKS[name]
        backbone = Backbone(backbone_name, image_size=side, **settings).eval()
        stage, channels = backbone.penultimate_stage()
        outputs: list[torch.Tensor] = []
        handle = stage.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        backbone(torch.rand(2, 3, side, side))
        handle.remove()
        pooled = backbone.global_pool(outputs[0])
        assert pooled.shape == (2, channels)
        if prefix is not None:
            cells = outputs[0]
        else:
            cells = (outputs[0] if "Swin" in type(backbone.net).__name__ else outputs[0].permute(0, 2, 3, 1)).flatten(
                1, 2
            )
        assert cells.shape[1] > 1
        torch.testing.assert_close(pooled, cells.mean(dim=1))

    @pytest.mark.parametrize(("name", "blocks"), [("resnet8_cifar", 1), ("resnet20_cifar", 3)])
    @pytest.mark.parametrize("stride", [1, 2])
    @torch.no_grad()
    def test_stages_of_the_small_networks(self, name: str, blocks: int, stride: int) -> None:
        side = 8 * 4 * stride
        net = Backbone(name, image_size=side, widths=(4, 6, 8), stem_stride=stride).net.eval()
        x = torch.rand(1, 3, side, side)
        x = net.stem(x)
        for stage, info in enumerate(net.feature_info):
            module = net.get_submodule(info["module"])
            assert module is net.blocks[(stage + 1) * blocks - 1]
            x = net.blocks[stage * blocks : (stage + 1) * blocks](x)
            assert x.shape == (1, info["num_chs"], side // info["reduction"], side // info["reduction"])

    def test_network_without_a_list_of_stages(self) -> None:
        with pytest.raises(ValueError, match="`backbone` is a Net, which does not list its stages"):
            Backbone("user_defined_network", image_size=16).penultimate_stage()


class TestFamilies:
    """One network of each family, chosen by `MLKD_SEED` (0), with every head; small ones are saved with one head."""

    @pytest.mark.parametrize(
        ("name", "side", "saved"), CASES, ids=[f"seed{SEED}-{name}-{saved}" for name, _, saved in CASES]
    )
    def test_every_head(self, name: str, side: int, saved: str, tmp_path: Path) -> None:
        torch.manual_seed(SEED)
        model = create_model(name, ("cat", "dog", "sheep"), saved, image_size=side, embed_dim=8)
        images = torch.rand(2, 3, side, side)
        normalized = ((images - model.mean) / model.std).requires_grad_()
        features = model.backbone(normalized)
        b, width, rows, columns = features.shape
        assert (b, width) == (2, model.backbone.width)
        assert rows == columns >= 1
        first = next(module for module in model.backbone.net.modules() if isinstance(module, nn.Conv2d))
        for kind in HEADS:
            head = create_head(kind, width, model.classes, 8, {})
            logits, embeddings = head(features)
            assert logits.shape == (2, 3)
            assert (embeddings is not None) == head.has_embeddings
            assert embeddings is None or embeddings.shape == (2, 3, 8)
            gradients = torch.autograd.grad(logits.square().sum(), [normalized, first.weight], retain_graph=True)
            for gradient in gradients:
                assert gradient.isfinite().all()
                assert gradient.abs().max() > 0

        if sum(parameter.numel() for parameter in model.parameters()) > 12e6:
            return
        save_model(model, tmp_path / "model.safetensors")
        loaded = load_model(tmp_path / "model.safetensors")
        assert fingerprint(loaded) == fingerprint(model)
        with torch.no_grad():
            for output, expected in zip(loaded(images), model.eval()(images), strict=True):
                assert output is expected is None or torch.equal(output, expected)

    @pytest.mark.parametrize(("name", "default_size"), [("halonet_h1", 256), ("efficientformer_l1", 224)])
    def test_unsupported_image_size(self, name: str, default_size: int) -> None:
        with pytest.raises(
            ValueError, match=f"`image_size` is 96, which the backbone .* does not accept .*default is {default_size}"
        ):
            Backbone(name, image_size=96)

    @pytest.mark.parametrize("name", ["coat_tiny", "pit_ti_224", "pit_ti_distilled_224"])
    def test_no_feature_map(self, name: str) -> None:
        """CoaT has maps of several sizes, PiT only class tokens, which are not a feature map of one cell."""
        with pytest.raises(ValueError, match=r"`backbone` is a .*, whose `forward_features` returns neither"):
            Backbone(name, image_size=64)

    @torch.no_grad()
    def test_class_token_without_num_prefix_tokens(self) -> None:
        """VOLO has a class token before its cells, but no `num_prefix_tokens`."""
        backbone, images = Backbone("volo_d1_224", image_size=64).eval(), torch.rand(1, 3, 64, 64)
        assert torch.equal(backbone(images).flatten(2).mT, backbone.net.forward_features(images)[:, 1:])

    @torch.no_grad()
    def test_each_model_normalizes_its_input(self) -> None:
        """Teacher and student get the same tensor; each resizes and normalizes it."""
        images = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
        models = [
            create_model("lcnet_050", ("cat", "dog"), "query2label", image_size=64, embed_dim=8).eval(),
            create_model("resnet8_cifar", ("cat", "dog"), image_size=32, embed_dim=8).eval(),
        ]
        assert not torch.equal(models[0].mean, models[1].mean)
        for model, side in zip(models, (64, 32), strict=True):
            resized = nn.functional.interpolate(images / 255, size=(side, side), mode="bilinear", antialias=True)
            features = model.backbone((resized - model.mean) / model.std)
            assert torch.equal(model(images).features, features)
            assert model(images).logits.shape == (2, 2)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "match"), [("resnet20cifar", "resnet20_cifar"), ("ResNet50", "resnet50"), ("swin_tiny", "swin")]
    )
    def test_unknown(self, name: str, match: str) -> None:
        with pytest.raises(ValueError, match=f"`backbone` is '{name}', which is not a model of timm.*{match}"):
            Backbone(name)

    def test_unknown_without_a_close_match(self) -> None:
        with pytest.raises(ValueError, match="list_models"):
            Backbone("?!")

    def test_user_defined_network(self) -> None:
        model = create_model("user_defined_network", ("cat", "dog"), image_size=16, embed_dim=8)
        out = model(torch.rand(2, 3, 16, 16))
        assert out.logits.shape == (2, 2)
        assert out.features.shape == (2, 6, 4, 4)

    def test_normalization(self) -> None:
        assert Backbone("resnet8_cifar", image_size=16).mean == (0.5, 0.5, 0.5)
        assert Backbone("resnet8_cifar", image_size=16).std == (0.25, 0.25, 0.25)
        config = timm.get_pretrained_cfg("test_convnext")
        assert Backbone("test_convnext", image_size=64).mean == config.mean
        assert Backbone("test_convnext", image_size=64).std == config.std


class TestDownload:
    def test_download_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*args, **kwargs):
            raise ConnectionError("no route to host")

        monkeypatch.setattr(timm, "create_model", fails)
        with pytest.raises(
            WeightsError, match=r"(?s)resnet34.*ConnectionError.*local file.*pretrained='/path/resnet34"
        ):
            Backbone("resnet34", pretrained=True)

    def test_offline(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The hub's client in offline mode."""
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(WeightsError, match="use a local file"):
            Backbone("test_resnet", pretrained=True, image_size=64)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A small network with weights and running statistics that differ from the initial ones."""
    torch.manual_seed(1)
    net = timm.create_model("resnet8_cifar", num_classes=0)
    net.train()(torch.rand(4, 3, 16, 16))
    return net.eval()


def small(path: Path) -> Backbone:
    return Backbone("resnet8_cifar", pretrained=path, image_size=16).eval()


class TestFiles:
    @pytest.mark.parametrize("wrapped", ["", "state_dict", "model"])
    @pytest.mark.parametrize("prefix", ["", "module."])
    @pytest.mark.parametrize("suffix", [".pth", ".bin"])
    @torch.no_grad()
    def test_state_dict(self, trained: nn.Module, tmp_path: Path, wrapped: str, prefix: str, suffix: str) -> None:
        state: dict = {prefix + name: value for name, value in trained.state_dict().items()}
        path = tmp_path / f"weights{suffix}"
        torch.save({wrapped: state, "epoch": 3} if wrapped else state, path)
        images = torch.rand(2, 3, 16, 16)
        assert torch.equal(small(path)(images), trained.forward_features(images))

    @torch.no_grad()
    def test_safetensors(self, trained: nn.Module, tmp_path: Path) -> None:
        save_file(trained.state_dict(), tmp_path / "weights.safetensors")
        images = torch.rand(2, 3, 16, 16)
        for path in (tmp_path / "weights.safetensors", str(tmp_path / "weights.safetensors")):
            assert torch.equal(small(path)(images), trained.forward_features(images))

    def test_missing_batch_counters(self, trained: nn.Module, tmp_path: Path) -> None:
        state = {name: value for name, value in trained.state_dict().items() if "num_batches" not in name}
        save_file(state, tmp_path / "weights.safetensors")
        assert torch.equal(small(tmp_path / "weights.safetensors").net.stem[0].weight, state["stem.0.weight"])

    @pytest.mark.parametrize("classifier", ["fc", "head", "classifier"])
    def test_classifier_is_not_loaded(self, trained: nn.Module, tmp_path: Path, classifier: str) -> None:
        state = {**trained.state_dict(), f"{classifier}.weight": torch.ones(5, 64), f"{classifier}.bias": torch.ones(5)}
        save_file(state, tmp_path / "weights.safetensors")
        small(tmp_path / "weights.safetensors")  # a warning would be an error here

    def test_unused_tensors_are_named(self, trained: nn.Module, tmp_path: Path) -> None:
        save_file({**trained.state_dict(), "blocks.7.conv1.weight": torch.ones(2)}, tmp_path / "weights.safetensors")
        with pytest.warns(UserWarning, match=r"weights\.safetensors: .*has no blocks\.7\.conv1\.weight; not loaded"):
            small(tmp_path / "weights.safetensors")

    def test_tensors_that_do_not_fit_are_named(self, trained: nn.Module, tmp_path: Path) -> None:
        state = trained.state_dict()
        del state["stem.0.weight"]
        state["blocks.0.conv1.weight"] = torch.ones(16, 8, 3, 3)
        save_file(state, tmp_path / "weights.safetensors")
        with pytest.raises(
            WeightsError,
            match=r"does not fit the backbone CifarResNet: it lacks stem\.0\.weight and has "
            r"blocks\.0\.conv1\.weight \(16, 8, 3, 3\) instead of \(16, 16, 3, 3\)\.",
        ):
            small(tmp_path / "weights.safetensors")

    def test_first_tensors_are_named(self, tmp_path: Path) -> None:
        save_file({"unrelated": torch.ones(1)}, tmp_path / "weights.safetensors")
        with pytest.raises(WeightsError, match=r"lacks stem\.0\.weight, .* and \d+ more\."):
            small(tmp_path / "weights.safetensors")

    @pytest.mark.parametrize("content", [[1, 2], {"a": 1}, torch.ones(2), {"state_dict": {"a": "text"}}])
    def test_not_a_mapping_to_tensors(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(WeightsError, match=r"weights\.pth: expected a mapping from names to tensors"):
            read_weights(tmp_path / "weights.pth")

    @pytest.mark.parametrize("name", ["missing.pth", "missing.safetensors", "."])
    def test_missing(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(WeightsError, match="no such weights file"):
            read_weights(tmp_path / name)

    @pytest.mark.parametrize("name", ["text.pth", "text.safetensors"])
    def test_text(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("not weights\n")
        with pytest.raises(WeightsError, match=name):
            read_weights(tmp_path / name)

    @pytest.mark.parametrize("name", ["truncated.pth", "truncated.safetensors"])
    def test_truncated_file(self, trained: nn.Module, tmp_path: Path, name: str) -> None:
        (save_file if "safe" in name else torch.save)(trained.state_dict(), tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(WeightsError, match=rf"{name}: not a readable weights file \(\w+"):
            read_weights(tmp_path / name)

    def test_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "empty.pth").touch()
        with pytest.raises(WeightsError, match=r"empty\.pth: not a readable weights file"):
            read_weights(tmp_path / "empty.pth")


class Malicious:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_not_executed(tmp_path: Path, suffix: str, form: str) -> None:
    marker, path = tmp_path / "executed", tmp_path / f"weights{suffix}"
    content = {"stem.0.weight": torch.ones(1), "extra": Malicious(marker)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(Malicious(marker)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match=r"contains more than tensors|not a readable"):
        small(path)
    assert not marker.exists()


class TestRealWeights:
    """MobileNetV1 0.25 from Keras."""

    @pytest.fixture
    def path(self, real_data: Path) -> Path:
        path = real_data / "weights" / "mobilenetv1_025.imagenet.safetensors"
        if not path.is_file():
            pytest.skip(f"no real weights: {path.name} is not in MLKD_TEST_DATA")
        return path

    @torch.no_grad()
    def test_load(self, path: Path) -> None:
        torch.manual_seed(0)
        settings = {"head": "gap", "image_size": 224}
        model = create_model("mobilenetv1_025_keras", ("cat", "dog"), pretrained=path, **settings).eval()
        untrained = create_model("mobilenetv1_025_keras", ("cat", "dog"), **settings).eval()
        for name, value in load_file(path).items():
            assert torch.equal(model.backbone.net.state_dict()[name], value)
        assert model.mean.flatten().tolist() == model.std.flatten().tolist() == [0.5, 0.5, 0.5]

        shades = np.linspace(0, 255, 224)
        image = np.stack([shades + 0 * shades[:, None], 0 * shades + shades[:, None], np.full((224, 224), 90)], -1)
        images = torch.from_numpy(image.astype(np.uint8)).permute(2, 0, 1)[None]
        features = model(images).features
        assert features.shape == (1, 256, 7, 7)
        assert features.isfinite().all()
        assert features.std() > 0.1
        assert not torch.allclose(features, untrained(images).features, atol=0.1)

    @torch.no_grad()
    def test_input_statistics_match_the_weights(self, path: Path, real_coco: Path) -> None:
        """The input of the first batch norm matches its running mean: channels, scaling and padding are correct."""
        files = sorted((real_coco / "test").glob("*.jpg"))[::40]
        arrays = [np.asarray(Image.open(file).convert("RGB").resize((224, 224))) for file in files]
        images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        model = create_model("mobilenetv1_025_keras", ("cat",), head="gap", pretrained=path).eval()
        net = model.backbone.net
        activations: list[torch.Tensor] = []
        handle = net.bn1.register_forward_pre_hook(lambda module, inputs: activations.append(inputs[0]))
        model(images)
        handle.remove()
        mean = activations[0].mean(dim=(0, 2, 3))
        assert torch.corrcoef(torch.stack([mean, net.bn1.running_mean]))[0, 1] > 0.95
