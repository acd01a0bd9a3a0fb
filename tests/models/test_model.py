"""Models: outputs, saved files and fingerprints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from mlkd.models import (
    HEADS,
    MultiLabelModel,
    WeightsError,
    create_model,
    fingerprint,
    load_model,
    save_model,
)

CLASSES = ("cat", "dog", "sheep")


def model_of(head: str = "label_wise", seed: int = 0, **changes) -> MultiLabelModel:
    torch.manual_seed(seed)
    return create_model("resnet8_cifar", CLASSES, head, **{"image_size": 16, **changes}).eval()


class TestModel:
    def test_shapes(self) -> None:
        images = torch.rand(4, 3, 16, 16)
        out = model_of()(images)
        assert out.logits.shape == (4, 3)
        assert out.embeddings.shape == (4, 3, 64)  # the backbone's width
        assert out.features.shape == (4, 64, 4, 4)
        assert model_of(embed_dim=12)(images).embeddings.shape == (4, 3, 12)
        out = model_of("gap")(images)
        assert out.logits.shape == (4, 3)
        assert out.embeddings is None
        assert out.features.shape == (4, 64, 4, 4)

    def test_embed_dim_is_at_most_512_by_default(self) -> None:
        model = create_model("resnet8_cifar", CLASSES, image_size=8, widths=(4, 4, 640))
        assert model(torch.zeros(1, 3, 8, 8)).embeddings.shape == (1, 3, 512)

    @torch.no_grad()
    def test_uint8(self) -> None:
        images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
        for output, expected in zip(model_of()(images), model_of()(images.float() / 255), strict=True):
            assert torch.equal(output, expected)

    @torch.no_grad()
    def test_input_is_normalized(self) -> None:
        images = torch.rand(2, 3, 64, 64)
        for name in ("resnet8_cifar", "test_convnext"):
            torch.manual_seed(0)
            model = create_model(name, CLASSES, image_size=64).eval()
            config = model.backbone.net.pretrained_cfg
            config = config if isinstance(config, dict) else config.to_dict()
            normalized = torch.stack([(images[:, c] - config["mean"][c]) / config["std"][c] for c in range(3)], dim=1)
            expected = model.backbone.net.forward_features(normalized)
            torch.testing.assert_close(model(images).features, expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    @torch.no_grad()
    def test_other_image_sizes_are_resized(self, dtype: torch.dtype) -> None:
        model = model_of()
        images = (255 * torch.rand(2, 3, 24, 40)).to(torch.uint8)
        converted = images if dtype == torch.uint8 else images.float() / 255
        resized = nn.functional.interpolate(images.float() / 255, size=(16, 16), mode="bilinear", antialias=True)
        assert torch.equal(model(converted).logits, model(resized).logits)

    def test_unknown_head(self) -> None:
        with pytest.raises(ValueError, match=r"`head` is 'labelwise'.*Did you mean 'label_wise'"):
            create_model("resnet8_cifar", CLASSES, "labelwise")

    def test_unknown_backbone_setting(self) -> None:
        with pytest.raises((TypeError, ValueError), match="stem_strid"):
            model_of(stem_strid=2)

    @pytest.mark.parametrize("head", HEADS)
    def test_every_parameter_has_a_gradient(self, head: str) -> None:
        model = model_of(head, embed_dim=16).train()
        out = model(torch.rand(4, 3, 16, 16))
        out.logits.square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


class TestSaving:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"head": "gap"},
            {"embed_dim": 12, "stem_stride": 2, "image_size": 24},
            {"widths": (4, 8, 8)},
            {"head": "transformer", "embed_dim": 8, "head_settings": {"layers": 1, "heads": 2, "word_vectors": 5}},
            {"head": "query2label", "head_settings": {"layers": 1}},
        ],
    )
    @torch.no_grad()
    def test_round_trip(self, tmp_path: Path, changes: dict) -> None:
        model = model_of(**changes)
        model.train()(torch.rand(4, 3, 16, 16))  # changes the running statistics
        model.eval()
        save_model(model, tmp_path / "folder" / "model.safetensors", note="mAP 57.1", by="ü")
        torch.manual_seed(99)
        loaded = load_model(tmp_path / "folder" / "model.safetensors")
        assert not loaded.training
        assert loaded.classes == CLASSES
        assert json.dumps(loaded.settings) == json.dumps(model.settings)
        assert fingerprint(loaded) == fingerprint(model)
        images = torch.rand(2, 3, 20, 20)
        assert torch.equal(loaded(images).logits, model(images).logits)
        with safe_open(tmp_path / "folder" / "model.safetensors", "pt") as file:
            metadata = file.metadata()
        assert metadata["note"] == "mAP 57.1"
        assert metadata["by"] == "ü"
        assert [path.name for path in (tmp_path / "folder").iterdir()] == ["model.safetensors"]

    def test_loading_needs_no_pretrained_weights(self, tmp_path: Path) -> None:
        """The file of the initial weights may be deleted."""
        state = timm.create_model("resnet8_cifar", num_classes=0).state_dict()
        save_file(state, tmp_path / "start.safetensors")
        model = model_of(pretrained=tmp_path / "start.safetensors")
        save_model(model, tmp_path / "model.safetensors")
        (tmp_path / "start.safetensors").unlink()
        assert fingerprint(load_model(tmp_path / "model.safetensors")) == fingerprint(model)

    def test_file_without_settings(self, tmp_path: Path) -> None:
        save_file(model_of().state_dict(), tmp_path / "plain.safetensors")
        with pytest.raises(WeightsError, match=r"plain\.safetensors: has no settings and class names.*create_model"):
            load_model(tmp_path / "plain.safetensors")

    def test_state_dict(self, tmp_path: Path) -> None:
        torch.save(model_of().state_dict(), tmp_path / "plain.pth")
        with pytest.raises(WeightsError, match=r"plain\.pth"):
            load_model(tmp_path / "plain.pth")

    @pytest.mark.parametrize("name", ["missing.safetensors", "mlkd:no_such_teacher"])
    def test_missing(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(WeightsError, match="no such weights file"):
            load_model(name if name.startswith("mlkd:") else tmp_path / name)


class TestFingerprint:
    def test_same_model(self) -> None:
        assert fingerprint(model_of()) == fingerprint(model_of())
        assert re.fullmatch(r"[0-9a-f]{16}", fingerprint(model_of()))

    @torch.no_grad()
    @pytest.mark.parametrize("tensor", ["backbone.net.stem.0.weight", "head.bias", "backbone.net.stem.1.running_mean"])
    def test_depends_on_every_tensor(self, tensor: str) -> None:
        model = model_of()
        model.state_dict()[tensor].view(-1)[-1] += 1e-3
        assert fingerprint(model) != fingerprint(model_of())

    def test_depends_on_class_names_and_order(self) -> None:
        fingerprints = set()
        for classes in (CLASSES, CLASSES[::-1], ("cat", "dog", "horse")):
            torch.manual_seed(0)
            fingerprints.add(fingerprint(create_model("resnet8_cifar", classes, image_size=16)))
        assert len(fingerprints) == 3

    @pytest.mark.parametrize("change", [{"stem_stride": 2}, {"image_size": 24}])
    def test_depends_on_settings(self, change: dict) -> None:
        """With equal weights, another stride or input size changes the outputs."""
        assert fingerprint(model_of(**change)) != fingerprint(model_of())
