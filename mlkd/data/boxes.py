"""Bounding boxes: clipped to the image, turned into targets, and shown in error messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def clip_box(box: tuple[float, float, float, float], width: float, height: float) -> tuple[float, ...] | None:
    """The box x1, y1, x2, y2 clipped to the image, or None if it is invalid.

    Up to 1 px outside the image is a rounding error of real annotation files and is clipped; more is invalid. A box
    without width or height is valid (COCO has some): `MultiLabelData.from_objects` keeps its label and drops the box.
    """
    x1, y1, x2, y2 = box
    if -1 <= x1 <= x2 <= width + 1 and -1 <= y1 <= y2 <= height + 1:  # False for nan
        return max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
    return None


def format_box(box: Iterable[float]) -> str:
    """A box in an error message: (x1, y1, x2, y2)."""
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def targets_from_objects(objects: Sequence[np.ndarray], q: int) -> np.ndarray:
    """(N, q) uint8: 1 if the image has an object (first column: class index) of the class."""
    targets = np.zeros((len(objects), q), np.uint8)
    for row, image_objects in enumerate(objects):
        targets[row, image_objects[:, 0].astype(np.int64)] = 1
    return targets
