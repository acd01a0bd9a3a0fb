"""A summary of a data set: counts, duplicates, problems and the settings that suit it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from mlkd.data.dataset import MultiLabelData
from mlkd.data.duplicates import find_duplicates
from mlkd.data.images import ImageFiles
from mlkd.data.validate import find_problems
from mlkd.errors import DataError, first_few

IMAGE_SIZES = (32, 64, 96, 128, 160, 224, 320, 448)
BATCH_SIZES = (8, 16, 32, 64)
STEPS_PER_EPOCH = 50
"""The suggested batch size is the largest of `BATCH_SIZES` with at least as many steps per epoch."""
IMBALANCE = 20
"""The ratio of the most and the least frequent class from which on another loss is suggested."""
SAMPLE = 500
"""The number of images whose size is read."""


def summarize(data: Mapping[str, MultiLabelData], *, decode: bool = True) -> dict[str, Any]:
    """What is in a data set and what is wrong with it, as plain values for text and JSON.

    Args:
        data: the splits, as `load_data` returns them.
        decode: also decode every image (`find_problems`).

    Returns:
        `name` and `classes`; `splits`: for each one `images`, `labels_per_image` (mean, min, max), `without_labels`,
        `unknown_labels` (fraction), `without_known_labels`, `boxes`, `class_counts` and `classes_without_positives`;
        `image_size`: median width and height of a sample; `duplicates`: groups of files with the same content;
        `problems`: sentences; `suggestions`: settings that suit the data set.
    """
    train = data["train"]
    duplicates = find_duplicates(path for split in data.values() for path in _paths(split))
    size = _median_size(train)
    return {
        "name": train.name,
        "classes": list(train.classes),
        "splits": {name: _summarize_split(split) for name, split in data.items()},
        "image_size": size,
        "duplicates": [[str(path) for path in group] for group in duplicates],
        "problems": [*find_problems(data, decode=decode), *_leakage(data, duplicates)],
        "suggestions": list(_suggestions(train, size)),
    }


def _summarize_split(split: MultiLabelData) -> dict[str, Any]:
    per_image = split.targets.sum(axis=1, dtype=np.int64)
    counts = split.targets.sum(axis=0, dtype=np.int64)
    unknown = np.zeros(split.targets.shape, bool) if split.ignore_mask is None else split.ignore_mask
    return {
        "images": len(split),
        "labels_per_image": {
            "mean": float(per_image.mean()) if len(split) else 0.0,
            "min": int(per_image.min(initial=len(split.classes))),
            "max": int(per_image.max(initial=0)),
        },
        "without_labels": int((per_image == 0).sum()),
        "unknown_labels": float(unknown.mean()) if unknown.size else 0.0,
        "without_known_labels": int(unknown.all(axis=1).sum()),
        "boxes": None if split.boxes is None else sum(map(len, split.boxes)),
        "class_counts": dict(zip(split.classes, counts.tolist(), strict=True)),
        "classes_without_positives": [split.classes[k] for k in np.flatnonzero(counts == 0)],
    }


def _paths(split: MultiLabelData) -> list[Path]:
    return [split.images.path(row) for row in range(len(split))] if isinstance(split.images, ImageFiles) else []


def _leakage(data: Mapping[str, MultiLabelData], duplicates: list[list[Path]]) -> Iterator[str]:
    """Sentences about files of one split with the same content as files of another one."""
    group = {path: k for k, paths in enumerate(duplicates) for path in paths}
    files = {name: {group[path]: path for path in _paths(split) if path in group} for name, split in data.items()}
    for first, second in combinations(data, 2):
        if "trainval" in (first, second) and {first, second} & {"train", "val"}:
            continue
        shared = [k for k in files[first] if k in files[second] and files[first][k] != files[second][k]]
        if shared:
            yield (
                f"{data[first].name}: {len(shared)} image(s) of {first} and {second} have the same content, such as "
                f"{files[first][shared[0]]} and {files[second][shared[0]]}; expected splits without common images."
            )


def _median_size(split: MultiLabelData) -> tuple[int, int] | None:
    """Median width and height of a sample of image files; those that cannot be read are reported as problems."""
    sizes = []
    for row in range(0, len(split), len(split) // SAMPLE + 1) if isinstance(split.images, ImageFiles) else ():
        try:
            sizes.append(split.images.size(row))  # type: ignore[attr-defined]
        except DataError:
            continue
    if not sizes:
        return None
    width, height = np.median(sizes, axis=0).astype(int).tolist()
    return width, height


def _suggestions(train: MultiLabelData, size: tuple[int, int] | None) -> Iterator[str]:
    if size:
        side = max((s for s in IMAGE_SIZES if s <= min(size)), default=IMAGE_SIZES[0])
        yield f"student.image_size={side}: the images have a median size of {size[0]} x {size[1]} pixels."
    batch_size = max((b for b in BATCH_SIZES if b * STEPS_PER_EPOCH <= len(train)), default=BATCH_SIZES[0])
    yield f"student.batch_size={batch_size}: an epoch then has {-(-len(train) // batch_size)} steps."
    counts = train.targets.sum(axis=0, dtype=np.int64)
    positive = counts[counts > 0]
    if len(positive) and positive.max() >= IMBALANCE * positive.min():
        rare = [
            train.classes[k] for k in np.argsort(counts, kind="stable") if 0 < counts[k] * IMBALANCE <= counts.max()
        ]
        yield (
            f"vanilla.loss=asl, or class weights (class_weights): the most frequent class has {positive.max()} images, "
            f"the rarest {positive.min()} ({first_few(rare)})."
        )
