"""Splits in which every label is as frequent as in all images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlkd.data.dataset import MultiLabelData
from mlkd.data.duplicates import find_duplicates
from mlkd.data.images import ImageFiles


def stratify(labels: np.ndarray, sizes: np.ndarray, fractions: np.ndarray, seed: int = 0) -> np.ndarray:
    """Iterative stratification: assigns each example to one of k splits, the rarest label first.

    An example of the rarest remaining label goes to the split that lacks most examples of that label, of several such
    splits to the one that lacks most examples; ties are broken at random. Examples without labels come last.

    Source: Sechidis, Tsoumakas and Vlahavas, On the Stratification of Multi-Label Data, ECML PKDD 2011, Algorithm 1.
    There, an example is one image; here it may be a group of images that stay together.

    Args:
        labels: (n, q), how many images of each example have each label.
        sizes: (n,), how many images each example has.
        fractions: (k,), of the images in each split; their sum is 1.
        seed: breaks ties.

    Returns:
        (n,) int64, the split of each example, 0 to k - 1.
    """
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels, np.int64)
    remaining = labels.sum(axis=0)
    missing_labels = fractions[:, None] * remaining
    missing_images = fractions * sizes.sum()
    splits = np.full(len(labels), -1)

    def assign(example: np.integer, candidates: np.ndarray) -> None:
        most = candidates[missing_images[candidates] == missing_images[candidates].max()]
        split = most[0] if len(most) == 1 else rng.choice(most)
        splits[example] = split
        missing_labels[split] -= labels[example]
        missing_images[split] -= sizes[example]
        remaining[:] -= labels[example]

    while remaining.any():
        rarest = np.where(remaining > 0, remaining, np.iinfo(np.int64).max).argmin()
        for example in np.flatnonzero((splits < 0) & (labels[:, rarest] > 0)):
            missing = missing_labels[:, rarest]
            assign(example, np.flatnonzero(missing == missing.max()))
    for example in np.flatnonzero(splits < 0):
        assign(example, np.arange(len(fractions)))
    return splits


def stratified_splits(data: MultiLabelData, fractions: Mapping[str, float], seed: int = 0) -> list[str]:
    """The split of each image, by `stratify`; image files with the same content are in one split.

    The result does not depend on the order of the images.

    Args:
        data: N images.
        fractions: of the images in each split, by its name.
        seed: another seed gives other splits.
    """
    hashes = [hashlib.sha256(f"{seed}:{i}".encode("utf-8", "surrogatepass")).digest() for i in data.ids]
    order = sorted(range(len(data)), key=hashes.__getitem__)
    groups: list[Any] = list(range(len(data)))
    if isinstance(data.images, ImageFiles):
        paths = [data.images.path(row) for row in range(len(data))]
        first = {path: files[0] for files in find_duplicates(paths) for path in files}
        groups = [first.get(path, path) for path in paths]
    position = {group: k for k, group in enumerate(dict.fromkeys(groups[row] for row in order))}
    examples = np.array([position[group] for group in groups])
    labels = np.zeros((len(position), len(data.classes)), np.int64)
    np.add.at(labels, examples, data.targets)
    assigned = stratify(labels, np.bincount(examples), np.array(list(fractions.values())), seed)
    names = list(fractions)
    return [names[assigned[example]] for example in examples]
