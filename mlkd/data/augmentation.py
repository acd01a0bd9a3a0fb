"""Augmentation of a batch of uint8 pictures. Nothing here is random: what happens to a picture follows from its own
few numbers, which the training draws for each picture of each step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from mlkd.errors import check_choice

MIRROR, CENTRE, PART, OPERATIONS = 0, slice(1, 3), slice(3, 6), 6
"""What each of a picture's numbers decides."""
DRAWS = 7
"""How many numbers in [0, 1) each picture has."""


def flip(images: Tensor, draws: Tensor) -> Tensor:
    """Mirrors each picture with probability 1/2."""
    return torch.where(is_flipped(draws).to(images.device)[:, None, None, None], images.flip(-1), images)


def is_flipped(draws: Tensor) -> Tensor:
    """Which pictures `flip` mirrors, (b,)."""
    return draws[:, MIRROR] < 0.5


def cutout(images: Tensor, draws: Tensor, factor: float = 0.5) -> Tensor:
    """Greys out a square of `factor` times the side, around a random point, so part of it may lie outside.

    Source: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017,
    arXiv:1708.04552.
    """
    height, width = images.shape[-2:]
    centre = draws[:, CENTRE].T[..., None].to(images.device)
    rows = torch.arange(height, device=images.device) + 0.5 - centre[0] * height
    columns = torch.arange(width, device=images.device) + 0.5 - centre[1] * width
    hole = (rows.abs() < factor * height / 2)[:, :, None] & (columns.abs() < factor * width / 2)[:, None, :]
    return images.masked_fill(hole[:, None], 127)


def crop(images: Tensor, draws: Tensor, smallest: float = 0.5) -> Tensor:
    """Cuts out a part of the same aspect, of `smallest` to all of the area, and enlarges it to the whole size.

    Source: Szegedy et al., Going Deeper with Convolutions, CVPR 2015, Sec. 6, without the change of aspect; there
    `smallest` is 0.08, which would cut most of a picture's labels away.
    """
    area, top, left = draws[:, PART].T
    side = (smallest + (1 - smallest) * area).sqrt()
    # In the coordinates of `affine_grid`, -1 to 1 along each side.
    shift = torch.stack([2 * left - 1, 2 * top - 1], dim=1) * (1 - side)[:, None]
    part = torch.cat([torch.eye(2) * side[:, None, None], shift[..., None]], dim=2).to(images.device)
    grid = F.affine_grid(part, list(images.shape), align_corners=False)
    cut = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return cut.round_().to(torch.uint8)


def randaugment(images: Tensor, draws: Tensor) -> Tensor:
    """Two random operations of magnitude 9 on each picture.

    Source: Cubuk et al., RandAugment, 2020, arXiv:1909.13719; torchvision's implementation and defaults, on Pillow's
    pictures, which is twice as fast as on tensors.
    """
    operation = v2.RandAugment(fill=127)
    changed = []
    with torch.random.fork_rng(devices=[]):
        for image, draw in zip(images, draws, strict=True):
            torch.manual_seed(int(draw[OPERATIONS] * 2**24))
            picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
            changed.append(np.asarray(operation(picture)))
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2)


AUGMENTATIONS = {"flip": flip, "crop": crop, "cutout": cutout, "randaugment": randaugment}


def augment(images: Tensor, names: Sequence[str], draws: Tensor) -> Tensor:
    """Applies the named augmentations in that order.

    Args:
        images: (b, 3, H, W) uint8.
        names: of `AUGMENTATIONS`.
        draws: (b, `DRAWS`) float32 in [0, 1), each picture's own numbers; the same numbers give the same picture.
    """
    for name in names:
        check_choice("augmentations", name, AUGMENTATIONS)
        images = AUGMENTATIONS[name](images, draws)
    return images
