"""How well activation maps hit the objects: the pointing game and the energy inside the boxes."""

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
"""Name of a size -> side of a box, in pixels at 224 x 224, that it stays below."""


def box_mask(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels (height, width) that boxes (m, 4), x1, y1, x2, y2 as shares of the sides, touch."""
    inside = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in boxes * [width, height, width, height]:
        inside[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
    return inside


class MapScore(NamedTuple):
    """How a map stands to the boxes of its label: `hit`, `energy` and `area`, each in [0, 1]."""

    hit: float
    energy: float
    area: float


def score_map(found: np.ndarray, boxes: np.ndarray) -> MapScore:
    """The pointing game and the energy of one map.

    - `hit`: 1 where the map's largest value lies in a box, 0 where it does not; where several pixels share the largest
      value, the share of them that does.
    - `energy`: the part of the map's sum that lies in the boxes.
    - `area`: the part of the picture that the boxes cover, which both would be by chance.

    A map without any difference points nowhere and has both by chance. A pixel that a box touches counts as inside.

    Source: Zhang et al., Excitation Backprop, 2016, arXiv:1608.00507, Sec. 4.1 (pointing game, there with a tolerance
    of 15 pixels, here with none); Wang et al., Score-CAM, 2020, arXiv:1910.01279, Sec. 4.2 (energy).

    Args:
        found: a map, 0 or more.
        boxes: x1, y1, x2, y2 of each box as shares of the sides.

    Shape: found (H, W), boxes (m, 4) with m > 0.
    """
    inside = box_mask(boxes, *found.shape)
    area = float(inside.mean())
    if found.max() == found.min():
        return MapScore(area, area, area)
    return MapScore(float(inside[found == found.max()].mean()), float(found[inside].sum() / found.sum()), area)


def box_scores(
    model,
    data: MultiLabelData,
    methods: Sequence[str] = ("gradcam",),
    rows: Sequence[int] | None = None,
    *,
    layer: str | None = None,
    batch: int = 32,
) -> pd.DataFrame:
    """The score of a map for each picture and each of its labels that has a box.

    Args:
        model: any that `mlkd.analysis.cam.cam` takes.
        data: a split with boxes.
        methods: names in `mlkd.analysis.cam.METHODS`.
        rows: which pictures; all of them for None.
        layer: as in `cam`.
        batch: pictures at a time.

    Returns:
        One row per method, picture, label: `method`, `image` (its row), `label` (its name), `side` (the square root
        of the largest box's area, in pixels at 224 x 224), `size` (a name in `SIZES`), `hit`, `energy` and `area`.

    Raises:
        DataError: this data set has no boxes.
    """
    found = []
    data.normalized_boxes(0)  # without boxes the error comes before any work
    for part, images in iter_batches(model, data, rows, batch):
        boxes = [data.normalized_boxes(int(row)) for row in part]
        asked = np.zeros((len(part), len(data.classes)), np.uint8)
        for place, of_picture in enumerate(boxes):
            asked[place, of_picture[:, 0].astype(np.int64)] = 1
        for method in methods:
            maps = cam(model, images, "ground_truth", method=method, targets=asked, layer=layer)
            for place, label in np.argwhere(asked):
                own = boxes[place][boxes[place][:, 0] == label, 1:]
                side = SIDE * np.sqrt(((own[:, 2] - own[:, 0]) * (own[:, 3] - own[:, 1])).max())
                score = score_map(maps[place, label], own)
                found.append((method, part[place], data.classes[label], side, *score))
    table = pd.DataFrame(found, columns=["method", "image", "label", "side", *MapScore._fields])
    edges = [0, *SIZES.values()]
    table.insert(4, "size", pd.cut(table["side"], edges, right=False, labels=list(SIZES)))
    return table


def localization_summary(
    scores: pd.DataFrame, by: Sequence[str] = ("method",), resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean hit, energy and area per class, size, method, run or several of these, with 95 % intervals over pictures.

    Args:
        scores: one or several tables of `box_scores`, with what columns were added to tell them apart.
        by: columns that make a group.
        resamples, seed: of the bootstrap.

    Returns:
        One row per group: `by`, `n` maps, `images`, then each mean with `_low` and `_high`.
    """
    return mean_by_group(scores, by, MapScore._fields, resamples, seed)
