"""Bounding boxes: clipped to the image, turned into targets, and shown in error messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def clip_boxes(
    boxes: np.ndarray, width: float | np.ndarray, height: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes clipped to their images, and which of them are valid.

    Up to 1 px outside the image is a rounding error of real annotation files and is clipped; more is invalid. A box
    without width or height is valid (COCO has some): `MultiLabelData.from_objects` keeps its label and drops the box.

    Args:
        boxes: (m, 4), x1, y1, x2, y2 in pixels.
        width, height: of the image, or (m,), of the image of each box.

    Returns:
        (m, 4) and (m,) bool.
    """
    x1, y1, x2, y2 = boxes.T
    valid = (x1 >= -1) & (x1 <= x2) & (x2 <= width + 1) & (y1 >= -1) & (y1 <= y2) & (y2 <= height + 1)  # False for nan
    clipped = [np.maximum(x1, 0), np.maximum(y1, 0), np.minimum(x2, width), np.minimum(y2, height)]
    return np.stack(clipped, axis=1), valid


def format_box(box: Iterable[float]) -> str:
    """A box in an error message: (x1, y1, x2, y2)."""
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def targets_from_objects(objects: Sequence[np.ndarray], q: int) -> np.ndarray:
    """(N, q) uint8: 1 if the image has an object (first column: class index) of the class."""
    targets = np.zeros((len(objects), q), np.uint8)
    rows = np.repeat(np.arange(len(objects)), [len(image_objects) for image_objects in objects])
    columns = np.concatenate([np.zeros(0), *(image_objects[:, 0] for image_objects in objects)])
    targets[rows, columns.astype(np.int64)] = 1
    return targets
