"""A few images of a split, for a quick look at whether something runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mlkd.data.dataset import ImageFiles, MultiLabelData


def first_images(data: MultiLabelData, count: int) -> MultiLabelData:
    """The first `count` images of a split, and for every class at least one image that has it."""
    rows = set(range(min(count, len(data)))) | set(data.targets.argmax(axis=0)[data.targets.any(axis=0)].tolist())
    first = data.subset(np.array(sorted(rows)))
    if isinstance(first.images, ImageFiles):  # not a subset of the split's files, so that only these are decoded
        first = replace(first, images=ImageFiles(first.images.root, first.images.paths))
    return first
