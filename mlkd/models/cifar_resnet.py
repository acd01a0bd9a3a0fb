"""Small residual networks for small images, registered with timm under names such as `resnet20_cifar`.

A network for 224-pixel images downsamples five times, so a 96-pixel image ends in 3 x 3 cells. These networks
downsample twice after the stem: 32-pixel images end in 8 x 8 cells, as in He et al., Deep Residual Learning for
Image Recognition, CVPR 2016, Sec. 4.2 (arXiv:1512.03385). Larger images are downsampled in the stem (`stem_stride`).
"""

from __future__ import annotations

import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, which is a 1 x 1 convolution if the shapes differ."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


CONFIG = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "input_size": (3, 32, 32)}
"""The input normalization and size of these networks, as timm stores them."""


class CifarResNet(nn.Module):
    """A stem and three stages; each stage after the first halves the feature map.

    Args:
        blocks: basic blocks in each of the three stages; depth = 6 * blocks + 2.
        widths: channels of the three stages.
        stem_stride: 1 for 32 pixels, 2 for 64, 3 for 96: all end in 8 x 8 cells.
        num_classes: 0 for no classifier, as in timm.
    """

    pretrained_cfg = CONFIG

    def __init__(
        self,
        blocks: int,
        widths: tuple[int, int, int] = (16, 32, 64),
        stem_stride: int = 1,
        num_classes: int = 0,
        in_chans: int = 3,
    ):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, widths[0], 3 if stem_stride < 3 else 5, stem_stride, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        stages, channels = [], widths[0]
        self.feature_info = [  # as timm lists the stages
            {"num_chs": width, "reduction": stem_stride * 2**stage, "module": f"blocks.{(stage + 1) * blocks - 1}"}
            for stage, width in enumerate(widths)
        ]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stages.append(BasicBlock(channels, width, 2 if stage > 0 and block == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*stages)
        self.num_features = channels
        self.num_classes = num_classes
        self.fc = nn.Linear(channels, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.forward_features(x).mean(dim=(-2, -1)))


def _create(pretrained: bool, **settings) -> CifarResNet:
    if pretrained:
        raise RuntimeError("The small residual networks have no published weights. Train one or use a local file.")
    added = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")  # by `timm.create_model`
    return CifarResNet(**{name: value for name, value in settings.items() if name not in added})


@register_model
def resnet8_cifar(pretrained: bool = False, **kwargs) -> CifarResNet:
    return _create(pretrained, **{"blocks": 1, **kwargs})


@register_model
def resnet14_cifar(pretrained: bool = False, **kwargs) -> CifarResNet:
    return _create(pretrained, **{"blocks": 2, **kwargs})


@register_model
def resnet20_cifar(pretrained: bool = False, **kwargs) -> CifarResNet:
    return _create(pretrained, **{"blocks": 3, **kwargs})


@register_model
def resnet32_cifar(pretrained: bool = False, **kwargs) -> CifarResNet:
    return _create(pretrained, **{"blocks": 5, **kwargs})


@register_model
def resnet56_cifar(pretrained: bool = False, **kwargs) -> CifarResNet:
    return _create(pretrained, **{"blocks": 9, **kwargs})


@register_model
def resnet14x2_cifar(pretrained: bool = False, **kwargs) -> CifarResNet:
    """Twice the width of `resnet14_cifar`."""
    return _create(pretrained, **{"blocks": 2, "widths": (32, 64, 128), **kwargs})


@register_model
def resnet20x2_cifar(pretrained: bool = False, **kwargs) -> CifarResNet:
    """Twice the width of `resnet20_cifar`."""
    return _create(pretrained, **{"blocks": 3, "widths": (32, 64, 128), **kwargs})
