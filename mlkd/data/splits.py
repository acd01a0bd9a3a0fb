"""The splits of a data set: a held-out validation split, those that every reader returns, and those of the papers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mlkd.data.dataset import MultiLabelData
from mlkd.data.images import concatenate_images
from mlkd.errors import DataError


def hold_out(train: MultiLabelData, fraction: float = 0.1, seed: int = 0) -> tuple[MultiLabelData, MultiLabelData]:
    """Partitions `train` into a smaller training split and a `val` split with `fraction` of the images.

    The images with the smallest hash of seed and id are held out, so the partition does not depend on the order of
    a file and is the same on every machine.

    Raises:
        ValueError: `fraction` is not between 0 and 1.
        DataError: there are fewer than two images.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"`fraction` is {fraction}; expected a number between 0 and 1.")
    if len(train) < 2:
        raise DataError(f"{train.name} {train.split}: {len(train)} image(s); holding out needs at least 2.")
    hashes = [hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in train.ids]
    count = min(max(1, round(fraction * len(train))), len(train) - 1)
    held_out = np.zeros(len(train), bool)
    held_out[sorted(range(len(train)), key=hashes.__getitem__)[:count]] = True
    rest, val = train.subset(np.flatnonzero(~held_out)), train.subset(np.flatnonzero(held_out))
    return replace(rest, split="train"), replace(val, split="val")


def standard_splits(splits: Mapping[str, MultiLabelData]) -> dict[str, MultiLabelData]:
    """The splits that every reader returns: at least `train`, `val` (for model selection) and `test`.

    - Without a `test` split, `val` is what papers evaluate on (COCO, VOC 2012) and becomes `test`.
    - Without a `val` split, a tenth of the training images is held out (`hold_out`, seed 0), and the full training
      split is kept as `trainval`, which is what papers train on.
    - All other splits stay as they are.

    Raises:
        DataError: there is no split to train on, or none to evaluate on.
    """
    result = dict(splits)
    name = next(iter(result.values())).name
    if "test" not in result and "val" in result:
        result["test"] = replace(result.pop("val"), split="test")
        result.pop("trainval", None)  # it contains the images of `test`
    if "train" not in result and "val" not in result and "trainval" in result:
        result["train"] = replace(result["trainval"], split="train")
    if "train" not in result:
        raise DataError(f"{name}: no split to train on; the splits are {', '.join(splits)}, expected `train`.")
    if "test" not in result:
        raise DataError(f"{name}: no split to evaluate on; the splits are {', '.join(splits)}, expected `test`.")
    if "val" not in result:
        result.setdefault("trainval", replace(result["train"], split="trainval"))
        result["train"], result["val"] = hold_out(result["train"])
    first = ("train", "val", "test")
    return {split: result[split] for split in (*first, *(split for split in result if split not in first))}


def train_on_trainval(splits: Mapping[str, MultiLabelData]) -> dict[str, MultiLabelData]:
    """The splits of the papers' protocol: `train` has the images of `trainval`, and there is no `val`.

    Without a split `trainval`, the images are those of `train` and `val`. As there is no validation split, the number
    of epochs must be fixed before the training: `Config(select="last")`.
    """
    trainval = splits["trainval"] if "trainval" in splits else _concatenate(splits["train"], splits["val"])
    others = {name: split for name, split in splits.items() if name not in ("train", "val", "trainval")}
    return {"train": replace(trainval, split="train"), **others}


def _concatenate(first: MultiLabelData, second: MultiLabelData) -> MultiLabelData:
    """The images of two splits with the same classes."""
    masks = [split.ignore_mask for split in (first, second) if split.ignore_mask is not None]
    return replace(
        first,
        images=concatenate_images(first.images, second.images),
        targets=np.concatenate([first.targets, second.targets]),
        ids=(*first.ids, *second.ids),
        boxes=None if first.boxes is None or second.boxes is None else [*first.boxes, *second.boxes],
        ignore_mask=np.concatenate(masks) if len(masks) == 2 else None,
    )
