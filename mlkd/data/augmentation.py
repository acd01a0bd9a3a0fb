"""Augmentations of a batch of uint8 images.

The functions have no random state. Each image has `DRAWS` random numbers, which the training draws for every step;
the same numbers give the same augmented image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from mlkd.errors import check_choice

FLIP, CENTER, CROP, OPERATIONS = 0, slice(1, 3), slice(3, 6), 6
"""What each of an image's random numbers determines."""
DRAWS = 7
"""The number of random numbers in [0, 1) per image."""


def hflip(images: Tensor, draws: Tensor) -> Tensor:
    """Flips each image horizontally with probability 1/2."""
    return torch.where(is_flipped(draws).to(images.device)[:, None, None, None], images.flip(-1), images)


def is_flipped(draws: Tensor) -> Tensor:
    """Which images `hflip` flips, bool (b,)."""
    return draws[:, FLIP] < 0.5


def cutout(images: Tensor, draws: Tensor, factor: float = 0.5) -> Tensor:
    """Fills a square with gray: its side is `factor` times the image's, its center uniform, so it may be clipped.

    Source: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017,
    arXiv:1708.04552.
    """
    height, width = images.shape[-2:]
    center = draws[:, CENTER].T[..., None].to(images.device)
    rows = torch.arange(height, device=images.device) + 0.5 - center[0] * height
    columns = torch.arange(width, device=images.device) + 0.5 - center[1] * width
    hole = (rows.abs() < factor * height / 2)[:, :, None] & (columns.abs() < factor * width / 2)[:, None, :]
    return images.masked_fill(hole[:, None], 127)


def random_resized_crop(images: Tensor, draws: Tensor, min_area: float = 0.5) -> Tensor:
    """Crops a region with the image's aspect ratio and `min_area` to all of its area, and resizes it to full size.

    Source: Szegedy et al., Going Deeper with Convolutions, CVPR 2015, Sec. 6, without the change of the aspect ratio;
    there `min_area` is 0.08, with which most objects of a multi-label image would be lost.
    """
    area, top, left = draws[:, CROP].T
    side = (min_area + (1 - min_area) * area).sqrt()
    # In the coordinates of `affine_grid`, -1 to 1 along each side.
    shift = torch.stack([2 * left - 1, 2 * top - 1], dim=1) * (1 - side)[:, None]
    theta = torch.cat([torch.eye(2) * side[:, None, None], shift[..., None]], dim=2).to(images.device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    crops = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return crops.round_().to(torch.uint8)


def randaugment(images: Tensor, draws: Tensor) -> Tensor:
    """Applies two random operations of magnitude 9 to each image.

    Source: Cubuk et al., RandAugment, 2020, arXiv:1909.13719; torchvision's implementation and defaults, applied to
    Pillow images, which is twice as fast as on tensors.
    """
    operation = v2.RandAugment(fill=127)
    augmented = []
    with torch.random.fork_rng(devices=[]):
        for image, draw in zip(images, draws, strict=True):
            torch.manual_seed(int(draw[OPERATIONS] * 2**24))
            augmented.append(np.asarray(operation(Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()))))
    return torch.from_numpy(np.stack(augmented)).permute(0, 3, 1, 2)


AUGMENTATIONS = {"flip": hflip, "crop": random_resized_crop, "cutout": cutout, "randaugment": randaugment}
"""The augmentations by name, as `Config.augmentations` lists them."""


def augment(images: Tensor, names: Sequence[str], draws: Tensor) -> Tensor:
    """Applies the named augmentations in that order.

    Args:
        images: (b, 3, H, W) uint8.
        names: keys of `AUGMENTATIONS`.
        draws: (b, `DRAWS`) float32 in [0, 1), the random numbers of each image.

    Returns:
        (b, 3, H, W) uint8.

    Raises:
        ValueError: an unknown name; the closest one is given.
    """
    for name in names:
        check_choice("augmentations", name, AUGMENTATIONS)
        images = AUGMENTATIONS[name](images, draws)
    return images
