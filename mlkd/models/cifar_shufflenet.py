"""ShuffleNet V2 for small images, registered with timm as `shufflenetv2_cifar`.

Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, ECCV 2018 (arXiv:1807.11164), with
the widths of 1x, in the form in which distillation methods are compared on CIFAR-100: a stem of one 1 x 1 convolution
and no pooling, so that 32-pixel images end in 4 x 4 cells.
"""

from __future__ import annotations

import torch
from timm.models import register_model
from torch import Tensor, nn

from mlkd.models.cifar import CifarNet, create_network, stem_convolution

STEM_WIDTH, WIDTHS, LAST_WIDTH = 24, (116, 232, 464), 1024
BASIC_UNITS = (3, 7, 3)


def pointwise(in_channels: int, channels: int) -> list[nn.Module]:
    """A 1 x 1 convolution, batch normalization and ReLU."""
    return [nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]


def depthwise(channels: int, stride: int) -> list[nn.Module]:
    """A 3 x 3 convolution of each channel, and batch normalization."""
    return [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels)]


def shuffle(left: Tensor, right: Tensor) -> Tensor:
    """Two maps (b, D, H, W) as one (b, 2 D, H, W) that takes its channels from them in turn."""
    return torch.stack([left, right], dim=2).flatten(1, 2)


class BasicUnit(nn.Module):
    """Half of the channels pass unchanged, the others pass three convolutions; then the channels are shuffled."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(*pointwise(half, half), *depthwise(half, 1), *pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return shuffle(left, self.branch(right))


class DownsamplingUnit(nn.Module):
    """Two branches of the full input, each of which halves the feature map; then the channels are shuffled."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        half = channels // 2
        self.left = nn.Sequential(*depthwise(in_channels, 2), *pointwise(in_channels, half))
        self.right = nn.Sequential(*pointwise(in_channels, half), *depthwise(half, 2), *pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        return shuffle(self.left(x), self.right(x))


class CifarShuffleNetV2(CifarNet):
    """A stem, three stages that each halve the feature map, and a 1 x 1 convolution.

    Args:
        stem_stride: 1 for 32 pixels, 2 for 64, 3 for 96: all end in 4 x 4 cells.
        num_classes: 0 for no classifier, as in timm.
    """

    def __init__(self, stem_stride: int = 1, num_classes: int = 0, in_chans: int = 3):
        convolution = stem_convolution(in_chans, STEM_WIDTH, stem_stride, kernel_size=1)
        stem = nn.Sequential(convolution, nn.BatchNorm2d(STEM_WIDTH), nn.ReLU())
        stages: list[list[nn.Module]] = []
        channels = STEM_WIDTH
        for width, units in zip(WIDTHS, BASIC_UNITS, strict=True):
            stages.append([DownsamplingUnit(channels, width), *(BasicUnit(width) for _ in range(units))])
            channels = width
        stages[-1].append(nn.Sequential(*pointwise(channels, LAST_WIDTH)))
        widths = (*WIDTHS[:-1], LAST_WIDTH)
        super().__init__(stem, stages, widths, [stem_stride * 2**stage for stage in (1, 2, 3)], num_classes)


@register_model
def shufflenetv2_cifar(pretrained: bool = False, **kwargs) -> CifarNet:
    return create_network(CifarShuffleNetV2, pretrained, **kwargs)
