"""How well CAMs localize the objects: the pointing game and the fraction of energy inside the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mlkd.analysis.cam import cam
from mlkd.analysis.recall import SIDE
from mlkd.analysis.tables import mean_by_group
from mlkd.data import MultiLabelData
from mlkd.training.evaluate import iter_batches

SIZES = {"small": 32, "medium": 96, "large": np.inf}
"""Size category -> upper limit of a box's side in pixels at 224 x 224."""


def box_mask(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels, (height, width) bool, that overlap boxes (m, 4), x1, y1, x2, y2 as fractions of the sides."""
    mask = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in boxes * [width, height, width, height]:
        mask[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
    return mask


class MapScore(NamedTuple):
    """How well a map localizes the boxes of its label: `hit`, `energy` and `area`, each in [0, 1]."""

    hit: float
    energy: float
    area: float


def score_map(heatmap: np.ndarray, boxes: np.ndarray) -> MapScore:
    """The pointing game and the energy inside the boxes for one map.

    - `hit`: 1 where the maximum of the map lies in a box, else 0; where several pixels share the maximum, the fraction
      of them that lies in a box.
    - `energy`: the fraction of the sum of the map that lies in the boxes.
    - `area`: the fraction of the image that the boxes cover, the expected value of both for a random map.

    For a constant map both are `area`. Pixels that overlap a box count as inside.

    Source: Zhang et al., Excitation Backprop, 2016, arXiv:1608.00507, Sec. 4.1 (pointing game, there with a tolerance
    of 15 pixels, here with none); Wang et al., Score-CAM, 2020, arXiv:1910.01279, Sec. 4.2 (energy).

    Args:
        heatmap: a map with values >= 0.
        boxes: x1, y1, x2, y2 of each box as fractions of the sides.

    Shape: heatmap (H, W), boxes (m, 4) with m > 0.
    """
    inside = box_mask(boxes, *heatmap.shape)
    area = float(inside.mean())
    if heatmap.max() == heatmap.min():
        return MapScore(area, area, area)
    hit = float(inside[heatmap == heatmap.max()].mean())
    energy = float(heatmap[inside].sum() / heatmap.sum())
    return MapScore(hit, energy, area)


def box_scores(
    model,
    data: MultiLabelData,
    methods: Sequence[str] = ("gradcam",),
    indices: Sequence[int] | None = None,
    *,
    layer: str | None = None,
    batch_size: int = 32,
) -> pd.DataFrame:
    """The score of the map of each image and each of its labels that has a box.

    Args:
        model: as for `mlkd.analysis.cam.cam`.
        data: a split with boxes.
        methods: names in `mlkd.analysis.cam.METHODS`.
        indices: images of the split; None for all.
        layer: as for `cam`.
        batch_size: images per batch.

    Returns:
        One row per method, image and label: `method`, `image` (its index), `label` (its name), `side` (the square root
        of the largest box's area, in pixels at 224 x 224), `size` (a name in `SIZES`), `hit`, `energy` and `area`.

    Raises:
        DataError: the data set has no boxes.
    """
    rows = []
    data.normalized_boxes(0)  # raises before any computation if the data has no boxes
    for batch, images in iter_batches(model, data, indices, batch_size):
        boxes = [data.normalized_boxes(int(index)) for index in batch]
        has_box = np.zeros((len(batch), len(data.classes)), np.uint8)
        for i, image_boxes in enumerate(boxes):
            has_box[i, image_boxes[:, 0].astype(np.int64)] = 1
        for method in methods:
            maps = cam(model, images, "ground_truth", method=method, targets=has_box, layer=layer)
            for i, label in np.argwhere(has_box):
                label_boxes = boxes[i][boxes[i][:, 0] == label, 1:]
                x1, y1, x2, y2 = label_boxes.T
                side = SIDE * np.sqrt(((x2 - x1) * (y2 - y1)).max())
                score = score_map(maps[i, label], label_boxes)
                rows.append((method, batch[i], data.classes[label], side, *score))
    table = pd.DataFrame(rows, columns=["method", "image", "label", "side", *MapScore._fields])
    size = pd.cut(table["side"], [0, *SIZES.values()], right=False, labels=list(SIZES))
    table.insert(4, "size", size)
    return table


def localization_summary(
    scores: pd.DataFrame, by: Sequence[str] = ("method",), resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean hit, energy and area per group, with 95 % bootstrap intervals over images.

    Args:
        scores: one or several tables of `box_scores`; columns such as `run` may be added to tell them apart.
        by: columns that define the groups, such as "label", "size", "method" or "run".
        resamples, seed: of the bootstrap.

    Returns:
        One row per group: `by`, `n` maps, `images`, then each mean with `_low` and `_high`.
    """
    return mean_by_group(scores, by, MapScore._fields, resamples, seed)
