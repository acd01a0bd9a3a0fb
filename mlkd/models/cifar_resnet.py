"""Residual networks for small images, registered with timm under names such as `resnet20_cifar`.

They downsample twice after the stem: 32-pixel images end in 8 x 8 cells, as in He et al., Deep Residual Learning for
Image Recognition, CVPR 2016, Sec. 4.2 (arXiv:1512.03385).
"""

from __future__ import annotations

import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from mlkd.models.cifar import CifarNet, create_network, init_convolutions, stem_convolution


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


class CifarResNet(CifarNet):
    """A stem and three stages; each stage after the first halves the feature map.

    Args:
        blocks: basic blocks in each of the three stages; depth = 6 * blocks + 2.
        widths: channels of the three stages.
        stem_width: channels of the stem; None for those of the first stage.
        stem_stride: 1 for 32 pixels, 2 for 64, 3 for 96: all end in 8 x 8 cells.
        num_classes: 0 for no classifier, as in timm.
    """

    def __init__(
        self,
        blocks: int,
        widths: tuple[int, int, int] = (16, 32, 64),
        stem_width: int | None = None,
        stem_stride: int = 1,
        num_classes: int = 0,
        in_chans: int = 3,
    ):
        channels = widths[0] if stem_width is None else stem_width
        convolution = stem_convolution(in_chans, channels, stem_stride)
        stem = nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())
        stages: list[list[nn.Module]] = []
        for stage, width in enumerate(widths):
            strides = [1 if stage == 0 else 2] + [1] * (blocks - 1)
            stages.append([BasicBlock(width if i else channels, width, stride) for i, stride in enumerate(strides)])
            channels = width
        super().__init__(stem, stages, widths, [stem_stride * 2**stage for stage in range(3)], num_classes)
        init_convolutions(self)


@register_model
def resnet8_cifar(pretrained: bool = False, **kwargs) -> CifarNet:
    return create_network(CifarResNet, pretrained, **{"blocks": 1, **kwargs})


@register_model
def resnet14_cifar(pretrained: bool = False, **kwargs) -> CifarNet:
    return create_network(CifarResNet, pretrained, **{"blocks": 2, **kwargs})


@register_model
def resnet20_cifar(pretrained: bool = False, **kwargs) -> CifarNet:
    return create_network(CifarResNet, pretrained, **{"blocks": 3, **kwargs})


@register_model
def resnet32_cifar(pretrained: bool = False, **kwargs) -> CifarNet:
    return create_network(CifarResNet, pretrained, **{"blocks": 5, **kwargs})


@register_model
def resnet56_cifar(pretrained: bool = False, **kwargs) -> CifarNet:
    return create_network(CifarResNet, pretrained, **{"blocks": 9, **kwargs})


@register_model
def resnet14x2_cifar(pretrained: bool = False, **kwargs) -> CifarNet:
    """Twice the width of `resnet14_cifar`."""
    return create_network(CifarResNet, pretrained, **{"blocks": 2, "widths": (32, 64, 128), **kwargs})


@register_model
def resnet20x2_cifar(pretrained: bool = False, **kwargs) -> CifarNet:
    """Twice the width of `resnet20_cifar`."""
    return create_network(CifarResNet, pretrained, **{"blocks": 3, "widths": (32, 64, 128), **kwargs})


@register_model
def resnet32x4_cifar(pretrained: bool = False, **kwargs) -> CifarNet:
    """Four times the width of `resnet32_cifar`, behind a stem of twice its width."""
    settings = {"blocks": 5, "widths": (64, 128, 256), "stem_width": 32}
    return create_network(CifarResNet, pretrained, **{**settings, **kwargs})
