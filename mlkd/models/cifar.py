"""The common part of the small networks for small images: a stem, stages of blocks, and one linear layer.

A network for 224-pixel images downsamples five times, so a 96-pixel image ends in 3 x 3 cells. The small networks
downsample two or three times after the stem. Larger images are downsampled in the stem (`stem_stride`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain

from torch import Tensor, nn

CONFIG = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "input_size": (3, 32, 32)}
"""The input normalization and size of these networks, as timm stores them."""


class CifarNet(nn.Module):
    """A stem, the blocks of all stages in one sequence, and a classifier on the average of the feature map.

    Args:
        stem: from images (b, in_chans, H, W) to the first feature map.
        stages: the blocks of each stage.
        widths: the output channels of each stage.
        strides: the number of pixels per cell after each stage, as timm's "reduction".
        num_classes: 0 for no classifier, as in timm.
    """

    pretrained_cfg = CONFIG

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Sequence[nn.Module]],
        widths: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
    ):
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(*chain.from_iterable(stages))
        ends = accumulate(len(stage) for stage in stages)
        self.feature_info = [  # as timm lists the stages
            {"num_chs": width, "reduction": stride, "module": f"blocks.{end - 1}"}
            for width, stride, end in zip(widths, strides, ends, strict=True)
        ]
        self.num_features = widths[-1]
        self.num_classes = num_classes
        self.fc = nn.Linear(widths[-1], num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.forward_features(x).mean(dim=(-2, -1)))


def stem_convolution(in_chans: int, channels: int, stride: int, kernel_size: int = 3) -> nn.Conv2d:
    """The first convolution. A stride of 2 or 3 downsamples images of 64 or 96 pixels to 32 x 32 cells."""
    if stride > 1:
        kernel_size = 3 if stride < 3 else 5
    return nn.Conv2d(in_chans, channels, kernel_size, stride, min(kernel_size // 2, 1), bias=False)


def init_convolutions(net: nn.Module) -> None:
    """Initializes every convolution as in He et al., ICCV 2015, with the fan of its outputs."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def create_network(network: type[CifarNet], pretrained: bool, **settings) -> CifarNet:
    """The network with these settings; `timm.create_model` passes further ones, which have no meaning here.

    Raises:
        RuntimeError: pretrained weights, of which there are none.
    """
    if pretrained:
        raise RuntimeError("The small networks have no published weights. Train one or use a local file.")
    added = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")  # by `timm.create_model`
    return network(**{name: value for name, value in settings.items() if name not in added})
