"""The images of a data set: files that are decoded on access, and subsets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from mlkd.data.decode import decode_file, image_size
from mlkd.data.paths import safe_join


class Images(Protocol):
    """N images; `images[i]` is one as uint8 RGB, shape (H, W, 3)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


class ImageFiles:
    """Image files of one data folder, decoded on access.

    Args:
        root: the data set's folder. Every file must lie inside it.
        names: the path of each image, relative to `root`.
        subset: for a subset of other files: which files and which indices.

    Raises:
        DataError: a path leads out of `root` (raised here); a file is missing, truncated, too large or not an image
            (raised when that image is read).
    """

    def __init__(self, root: str | Path, names: Sequence[str | Path], subset: ImageSubset | None = None):
        self.root = Path(root).resolve()
        self.names = [str(name) for name in names]
        self.subset = subset
        for name in self.names:
            if ".." in name or ":" in name or name[:1] in ("/", "\\"):  # all others are inside
                safe_join(self.root, name)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        """The file of image `index`."""
        return self.root / self.names[index]

    def __getitem__(self, index: int) -> np.ndarray:
        """Image `index` as uint8 RGB, shape (H, W, 3)."""
        return np.asarray(self.decode(index))

    def decode(self, index: int, size: int | None = None) -> Image.Image:
        """Image `index`, upright and in RGB; `decode_file` describes `size` and how each kind of image is read."""
        return decode_file(self.path(index), size)

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of the upright image `index`, from the file's header."""
        return image_size(self.path(index))


class ImageSubset:
    """The images at `indices` of `images`, in that order."""

    def __init__(self, images: Images, indices: np.ndarray):
        self.images, parent_indices = parent_images(images)
        self.indices = parent_indices[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.images[int(self.indices[index])]


def select_images(images: Images, indices: np.ndarray) -> Images:
    """The images at `indices`, in that order; a subset of files is files."""
    subset = ImageSubset(images, indices)
    if isinstance(images, ImageFiles):
        return ImageFiles(images.root, [images.names[index] for index in indices.tolist()], subset)
    return subset


def concatenate_images(first: Images, second: Images) -> Images:
    """The images of both, in this order; files stay files, others become a list."""
    if isinstance(first, ImageFiles) and isinstance(second, ImageFiles):
        root = os.path.commonpath([first.root, second.root])
        return ImageFiles(root, [files.path(index) for files in (first, second) for index in range(len(files))])
    return [images[index] for images in (first, second) for index in range(len(images))]


def parent_images(images: Images) -> tuple[Images, np.ndarray]:
    """The images that `images` is a subset of, and its indices there; all of `images` itself if it is no subset."""
    subset = images.subset if isinstance(images, ImageFiles) else images
    return (subset.images, subset.indices) if isinstance(subset, ImageSubset) else (images, np.arange(len(images)))
