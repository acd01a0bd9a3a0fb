"""Wide residual networks for small images, registered with timm under names such as `wrn40_2_cifar`.

WRN-d-k has d layers and k times the width of a residual network. 32-pixel images end in 8 x 8 cells, as in Zagoruyko
and Komodakis, Wide Residual Networks, BMVC 2016 (arXiv:1605.07146).
"""

from __future__ import annotations

import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from mlkd.models.cifar import CifarNet, create_network, init_convolutions, stem_convolution

STEM_WIDTH = 16


class PreActivationBlock(nn.Module):
    """Two 3 x 3 convolutions, each after a batch normalization and a ReLU, and a shortcut.

    If the shapes differ, the shortcut is a 1 x 1 convolution of the activated input.
    """

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return out + (x if self.shortcut is None else self.shortcut(activated))


class CifarWideResNet(CifarNet):
    """A stem and three stages; each stage after the first halves the feature map.

    Args:
        blocks: blocks in each of the three stages; depth = 6 * blocks + 4.
        factor: the widening factor k; the stages have 16 k, 32 k and 64 k channels.
        stem_stride: 1 for 32 pixels, 2 for 64, 3 for 96: all end in 8 x 8 cells.
        num_classes: 0 for no classifier, as in timm.
    """

    def __init__(self, blocks: int, factor: int, stem_stride: int = 1, num_classes: int = 0, in_chans: int = 3):
        stem = stem_convolution(in_chans, STEM_WIDTH, stem_stride)
        widths = [STEM_WIDTH * factor * 2**stage for stage in range(3)]
        stages: list[list[nn.Module]] = []
        channels = STEM_WIDTH
        for stage, width in enumerate(widths):
            strides = [1 if stage == 0 else 2] + [1] * (blocks - 1)
            stages.append(
                [PreActivationBlock(width if i else channels, width, stride) for i, stride in enumerate(strides)]
            )
            channels = width
        stages[-1] += [nn.BatchNorm2d(channels), nn.ReLU()]
        super().__init__(stem, stages, widths, [stem_stride * 2**stage for stage in range(3)], num_classes)
        init_convolutions(self)


@register_model
def wrn16_2_cifar(pretrained: bool = False, **kwargs) -> CifarNet:
    return create_network(CifarWideResNet, pretrained, **{"blocks": 2, "factor": 2, **kwargs})


@register_model
def wrn40_1_cifar(pretrained: bool = False, **kwargs) -> CifarNet:
    return create_network(CifarWideResNet, pretrained, **{"blocks": 6, "factor": 1, **kwargs})


@register_model
def wrn40_2_cifar(pretrained: bool = False, **kwargs) -> CifarNet:
    return create_network(CifarWideResNet, pretrained, **{"blocks": 6, "factor": 2, **kwargs})
