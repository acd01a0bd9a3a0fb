"""Small residual networks: depth, size and downsampling."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from torch import nn

from mlkd.models.cifar_resnet import BasicBlock


@pytest.mark.parametrize(("side", "stride", "cells"), [(32, 1, 8), (64, 2, 8), (96, 3, 8), (96, 2, 12)])
@torch.no_grad()
def test_feature_map_size(side: int, stride: int, cells: int) -> None:
    net = timm.create_model("resnet8_cifar", stem_stride=stride)
    assert net.forward_features(torch.zeros(1, 3, side, side)).shape == (1, 64, cells, cells)


@pytest.mark.parametrize("name", timm.list_models("*_cifar"))
def test_depth_equals_the_name(name: str) -> None:
    """6n + 2 layers (He et al.): the stem, n blocks of two convolutions in each of three stages, the output."""
    depth, wide = re.fullmatch(r"resnet(\d+)(x2)?_cifar", name).groups()
    net = timm.create_model(name, num_classes=10)
    blocks = [module for module in net.modules() if isinstance(module, BasicBlock)]
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    shortcuts = sum(isinstance(block.shortcut, nn.Sequential) for block in blocks)
    assert len(convolutions) - shortcuts + 1 == int(depth) == 6 * (len(blocks) // 3) + 2
    assert net.num_features == (128 if wide else 64)


def test_size_of_resnet20() -> None:
    """0.27 million in the paper's Table 6: 269 722 for ten classes, and here the 1 x 1 shortcuts."""
    net = timm.create_model("resnet20_cifar", num_classes=10)
    shortcuts = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert sum(parameter.numel() for parameter in net.parameters()) == 269_722 + shortcuts


@torch.no_grad()
def test_classifier() -> None:
    net = timm.create_model("resnet8_cifar", num_classes=5).eval()
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(net(images), net.fc(net.forward_features(images).mean(dim=(-2, -1))))
