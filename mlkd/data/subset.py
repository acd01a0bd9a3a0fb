"""A few images of a split, or a few labels of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mlkd.data.dataset import ImageFiles, MultiLabelData


def first_images(data: MultiLabelData, count: int) -> MultiLabelData:
    """The first `count` images of a split, and for every class at least one image that has it."""
    rows = set(range(min(count, len(data)))) | set(data.targets.argmax(axis=0)[data.targets.any(axis=0)].tolist())
    first = data.subset(np.array(sorted(rows)))
    if isinstance(first.images, ImageFiles):  # not a subset of the split's files, so that only these are decoded
        first = replace(first, images=ImageFiles(first.images.root, first.images.names))
    return first


def frequent_labels(splits: Mapping[str, MultiLabelData], count: int) -> dict[str, MultiLabelData]:
    """All splits with only the `count` labels that most images of `train` have, in the order of the classes.

    All images are kept, also those without any of these labels. Of equally frequent labels the first ones are taken.
    """
    frequencies = splits["train"].targets.sum(axis=0, dtype=np.int64)
    labels = np.sort(np.argsort(-frequencies, kind="stable")[:count])
    return {name: split.select_classes(labels) for name, split in splits.items()}
