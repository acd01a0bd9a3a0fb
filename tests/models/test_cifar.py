"""The small networks for small images: parameters, depth, downsampling, blocks, and use with heads."""

from __future__ import annotations

import re

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from mlkd.losses import bce
from mlkd.models import Backbone, create_model
from mlkd.models.cifar_resnet import BasicBlock
from mlkd.models.cifar_shufflenet import BasicUnit, DownsamplingUnit, shuffle
from mlkd.models.cifar_wide_resnet import PreActivationBlock

PARAMETERS = {  # for 100 classes, in the comparisons of distillation methods on CIFAR-100
    "resnet20_cifar": 278_324,
    "resnet56_cifar": 861_620,
    "resnet32x4_cifar": 7_433_860,
    "wrn16_2_cifar": 703_284,
    "wrn40_1_cifar": 569_780,
    "wrn40_2_cifar": 2_255_156,
    "shufflenetv2_cifar": 1_355_528,
}
WIDTHS = {
    "resnet56_cifar": (16, 32, 64),
    "resnet20x2_cifar": (32, 64, 128),
    "resnet32x4_cifar": (64, 128, 256),
    "wrn16_2_cifar": (32, 64, 128),
    "wrn40_1_cifar": (16, 32, 64),
    "wrn40_2_cifar": (32, 64, 128),
    "shufflenetv2_cifar": (116, 232, 1024),
}
NAMES = timm.list_models("*_cifar")

each = pytest.mark.parametrize("name", NAMES)


def test_number_of_parameters() -> None:
    for name, expected in PARAMETERS.items():
        net = timm.create_model(name, num_classes=100)
        assert sum(parameter.numel() for parameter in net.parameters()) == expected, name


def test_size_of_resnet20() -> None:
    """0.27 million in Table 6 of He et al.: 269 722 for ten classes, and here the 1 x 1 shortcuts."""
    net = timm.create_model("resnet20_cifar", num_classes=10)
    shortcuts = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert sum(parameter.numel() for parameter in net.parameters()) == 269_722 + shortcuts


@each
def test_depth_equals_the_name(name: str) -> None:
    """6n + 2 layers (He et al.) or 6n + 4 (WRN, which counts the 1 x 1 shortcuts): n blocks in each of three stages."""
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=10)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in net.modules())
    if name == "shufflenetv2_cifar":
        units = [DownsamplingUnit if count == 0 else BasicUnit for last in (3, 7, 3) for count in range(last + 1)]
        assert [type(module) for module in net.blocks][:-1] == units
        assert convolutions == 1 + 3 * 5 + 13 * 3 + 1
    elif name.startswith("wrn"):
        depth, factor = map(int, re.fullmatch(r"wrn(\d+)_(\d)_cifar", name).groups())
        blocks = sum(isinstance(module, PreActivationBlock) for module in net.modules())
        shortcuts = 2 if factor == 1 else 3
        assert convolutions - shortcuts + 3 == depth == 2 * blocks + 4
        assert net.num_features == 64 * factor
    else:
        depth, factor = re.fullmatch(r"resnet(\d+)(?:x(\d))?_cifar", name).groups()
        blocks = [module for module in net.modules() if isinstance(module, BasicBlock)]
        shortcuts = sum(isinstance(block.shortcut, nn.Sequential) for block in blocks)
        assert convolutions - shortcuts + 1 == int(depth) == 2 * len(blocks) + 2
        assert net.num_features == 64 * int(factor or 1)


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize(("side", "stride"), [(32, 1), (96, 3)])
@torch.no_grad()
def test_stages_are_listed(name: str, side: int, stride: int) -> None:
    net = timm.create_model(name, stem_stride=stride)
    outputs: dict[str, torch.Tensor] = {}
    for module_name, module in net.named_modules():
        module.register_forward_hook(lambda _, __, output, key=module_name: outputs.setdefault(key, output))
    features = net.forward_features(torch.zeros(1, 3, side, side))
    maps = [outputs[stage["module"]] for stage in net.feature_info]
    assert tuple(features.shape[1] for features in maps) == WIDTHS[name]
    assert tuple(stage["num_chs"] for stage in net.feature_info) == WIDTHS[name]
    assert [side // features.shape[2] for features in maps] == [stage["reduction"] for stage in net.feature_info]
    assert features is maps[-1]
    assert features.shape[1:] == (net.num_features, *((4, 4) if name == "shufflenetv2_cifar" else (8, 8)))


@pytest.mark.parametrize(
    ("name", "cells"), [("resnet8_cifar", 8), ("wrn16_2_cifar", 8), ("wrn40_1_cifar", 8), ("shufflenetv2_cifar", 4)]
)
@torch.no_grad()
def test_feature_map_size(name: str, cells: int) -> None:
    for side, stride, factor in ((64, 2, 1), (96, 2, 1.5), (96, 1, 3)):
        net = timm.create_model(name, stem_stride=stride)
        features = net.forward_features(torch.zeros(1, 3, side, side))
        assert features.shape == (1, net.num_features, factor * cells, factor * cells)


@torch.no_grad()
def test_penultimate_stage_of_the_backbone() -> None:
    for name in ("wrn16_2_cifar", "shufflenetv2_cifar"):
        backbone = Backbone(name, image_size=32)
        stage, channels = backbone.penultimate_stage()
        outputs: list[torch.Tensor] = []
        stage.register_forward_hook(lambda _, __, output: outputs.append(output))  # noqa: B023
        backbone(torch.zeros(2, 3, 32, 32))
        assert backbone.global_pool(outputs[0]).shape == (2, channels)
        assert channels == WIDTHS[name][1]


@each
@torch.no_grad()
def test_classifier(name: str) -> None:
    net = timm.create_model(name, num_classes=5).eval()
    images = torch.rand(2, 3, 16, 16)
    logits = net(images)
    assert logits.shape == (2, 5)
    assert torch.equal(logits, net.fc(net.forward_features(images).mean(dim=(-2, -1))))


def test_pretrained_weights_are_refused() -> None:
    with pytest.raises(RuntimeError, match="have no published weights"):
        timm.create_model("wrn40_2_cifar", pretrained=True)


@torch.no_grad()
@pytest.mark.parametrize(("in_channels", "channels", "stride"), [(8, 8, 1), (8, 16, 1), (8, 16, 2)])
def test_pre_activation_block(in_channels: int, channels: int, stride: int) -> None:
    block = PreActivationBlock(in_channels, channels, stride)
    x = torch.randn(2, in_channels, 6, 6)
    nn.init.zeros_(block.conv2.weight)
    mean, variance = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
    activated = ((x - mean) / torch.sqrt(variance + 1e-5)).clamp(min=0)
    shortcut = x if in_channels == channels else F.conv2d(activated, block.shortcut.weight, stride=stride)
    torch.testing.assert_close(block(x), shortcut)
    nn.init.ones_(block.conv2.weight)
    assert not torch.allclose(block(x), shortcut)


@torch.no_grad()
def test_units_of_shufflenet() -> None:
    left, right = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    shuffled = shuffle(left, right)
    assert torch.equal(shuffled[:, ::2], left)
    assert torch.equal(shuffled[:, 1::2], right)
    unit, x = BasicUnit(16), torch.randn(2, 16, 4, 4)
    assert torch.equal(unit(x)[:, ::2], x[:, :8])
    assert torch.equal(unit(x)[:, 1::2], unit.branch(x[:, 8:]))
    down = DownsamplingUnit(16, 24)
    assert torch.equal(down(x)[:, ::2], down.left(x))
    assert torch.equal(down(x)[:, 1::2], down.right(x))


@pytest.mark.parametrize(
    "name",
    ["resnet8_cifar", "resnet32x4_cifar", "wrn16_2_cifar", "wrn40_1_cifar", "wrn40_2_cifar", "shufflenetv2_cifar"],
)
@pytest.mark.parametrize("head", ["label_wise", "gap"])
def test_training_step_lowers_the_loss(name: str, head: str) -> None:
    torch.manual_seed(0)
    embed_dim = 8 if head == "label_wise" else None
    model = create_model(name, ("cat", "dog", "sheep"), head, image_size=16, embed_dim=embed_dim)
    images, targets = torch.rand(4, 3, 16, 16), torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    first = bce(model(images).logits, targets)
    first.backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    optimizer.step()
    with torch.no_grad():
        output = model(images)
        assert bce(output.logits, targets) < first
    assert output.logits.shape == (4, 3)
    assert output.features.shape[:2] == (4, model.backbone.width)
    assert (output.embeddings is None) == (head == "gap")
