"""Maps against boxes: a map worked out on paper, plain loops, and what a data set without boxes says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mlkd.analysis import box_scores, localization_summary, score_map
from mlkd.analysis.cam import cam
from mlkd.analysis.localization import box_mask
from mlkd.data import DataError, MultiLabelData
from mlkd.models import MultiLabelModel

Data = dict[str, MultiLabelData]


def with_boxes(data: MultiLabelData) -> MultiLabelData:
    """The toy pictures with one random box for each label; the first picture has two of its first label."""
    rng = np.random.default_rng(3)
    boxes = []
    for row in data.targets:
        labels = np.flatnonzero(row)
        corner = rng.uniform(0, 16, (len(labels), 2))
        boxes.append(
            np.column_stack([labels, corner, corner + rng.uniform(2, 16, (len(labels), 2))]).astype(np.float32)
        )
    boxes[0] = np.concatenate([boxes[0], [[boxes[0][0, 0], 20, 20, 32, 32]]]).astype(np.float32)
    return replace(data, boxes=boxes)


def slow_score(found: np.ndarray, boxes: np.ndarray) -> tuple[float, float, float]:
    """Pixel by pixel."""
    height, width = found.shape
    inside_sum = total = area = hits = ties = 0.0
    for y in range(height):
        for x in range(width):
            inside = any(
                x1 * width < x + 1 and x < x2 * width and y1 * height < y + 1 and y < y2 * height
                for x1, y1, x2, y2 in boxes
            )
            total += found[y, x]
            inside_sum += found[y, x] * inside
            area += inside / (height * width)
            if found[y, x] == found.max():
                ties += 1
                hits += inside
    if found.max() == found.min():
        return area, area, area
    return hits / ties, inside_sum / total, area


def test_on_paper() -> None:
    found = np.array([[0, 0, 0, 0], [0, 4, 2, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    hit, energy, area = score_map(found, np.array([[0.25, 0.25, 0.5, 0.75]]))  # the pixels 4 and 1
    assert (hit, energy, area) == (1, 5 / 8, 2 / 16)
    assert score_map(found, np.array([[0, 0, 0.25, 1]])) == (0, 0, 4 / 16)
    two = np.array([[0.5, 0.25, 0.75, 0.5], [0.75, 0.75, 1, 1]])
    assert score_map(found, two) == (0, 3 / 8, 2 / 16)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_constant_map_scores_by_chance(value: float) -> None:
    assert score_map(np.full((4, 4), value), np.array([[0, 0, 0.5, 0.5]])) == (0.25, 0.25, 0.25)


def test_ties_share_the_hit() -> None:
    found = np.zeros((2, 4))
    found[0] = 1
    assert score_map(found, np.array([[0, 0, 0.25, 1]])).hit == 1 / 4


def test_a_box_smaller_than_a_pixel_is_a_pixel() -> None:
    inside = box_mask(np.array([[0.3, 0.3, 0.31, 0.31], [0.99, 0.99, 1, 1]]), 4, 4)
    assert np.argwhere(inside).tolist() == [[1, 1], [3, 3]]


def test_loops() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        found = rng.integers(0, 4, (5, 7)).astype(np.float32)
        corner = rng.uniform(0, 0.7, (2, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.01, 0.3, (2, 2))], axis=1)
        assert score_map(found, boxes) == pytest.approx(slow_score(found, boxes))


def test_scores_of_a_split(toy_data: Data, toy_teacher: MultiLabelModel, own_cache) -> None:
    data = with_boxes(toy_data["val"]).subset(np.arange(9))
    table = box_scores(toy_teacher, data, ("gradcam", "layercam"), batch=4)
    assert len(table) == 2 * data.targets.sum()
    row = table[(table["method"] == "layercam") & (table["image"] == 0)].iloc[0]
    label = data.classes.index(row["label"])
    image = torch.from_numpy(data.images[0]).permute(2, 0, 1)[None]
    found = cam(toy_teacher, image, [label], method="layercam")[0, 0]
    own = [box[1:] / 32 for box in data.boxes[0] if box[0] == label]
    assert len(own) == 2
    assert (row["hit"], row["energy"], row["area"]) == pytest.approx(slow_score(found, own), abs=1e-4)
    sides = [224 * ((x2 - x1) * (y2 - y1)) ** 0.5 for x1, y1, x2, y2 in own]
    assert row["side"] == pytest.approx(max(sides))
    assert row["size"] == ("small" if max(sides) < 32 else "medium" if max(sides) < 96 else "large")
    some = box_scores(toy_teacher, data, rows=[5, 0])
    whole = table[(table["method"] == "gradcam") & table["image"].isin([0, 5])]
    assert some.sort_values(["image", "label"])["energy"].tolist() == pytest.approx(
        whole.sort_values(["image", "label"])["energy"].tolist(), abs=1e-4
    )


def test_no_boxes(toy_data: Data, toy_teacher: MultiLabelModel) -> None:
    with pytest.raises(DataError, match=r"toy val: this data set has no boxes; expected .*voc.*coco"):
        box_scores(toy_teacher, toy_data["val"])


def test_rates_are_means_and_intervals_are_over_pictures() -> None:
    rng = np.random.default_rng(0)
    picture = np.repeat(np.arange(20), rng.integers(1, 5, 20))
    table = pd.DataFrame(
        {
            "method": "gradcam",
            "size": np.where(picture % 2, "small", "large"),
            "image": picture,
            "hit": (picture % 3 == 0).astype(float),  # the same for all labels of a picture
            "energy": rng.random(len(picture)),
            "area": 0.1,
        }
    )
    rates = localization_summary(table, ("method", "size"))
    assert rates["size"].tolist() == ["large", "small"]
    for row in rates.itertuples():
        own = table[table["size"] == row.size]
        assert (row.n, row.images) == (len(own), own["image"].nunique())
        assert row.hit == pytest.approx(own["hit"].mean())
        assert row.energy == pytest.approx(own["energy"].mean())
        assert row.energy_low < row.energy < row.energy_high
        assert row.area_low == pytest.approx(row.area_high) == pytest.approx(0.1)
    alone = localization_summary(table.assign(image=range(len(table))), ())
    together = localization_summary(table, ())
    assert together["hit_high"][0] - together["hit_low"][0] > alone["hit_high"][0] - alone["hit_low"][0]


def test_rates_of_one_picture_and_of_none() -> None:
    table = pd.DataFrame({"method": "cam", "image": [4, 4], "hit": [1.0, 0.0], "energy": np.nan, "area": 0.5})
    row = localization_summary(table).iloc[0]
    assert (row["n"], row["images"], row["hit"]) == (2, 1, 0.5)
    assert np.isnan([row["hit_low"], row["energy"]]).all()
    assert localization_summary(table[:0]).empty
