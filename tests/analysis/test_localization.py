"""Localization scores: by hand, against loops over pixels, and errors for a data set without boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlkd.analysis import box_scores, localization_summary, score_map
from mlkd.analysis.cam import cam
from mlkd.analysis.localization import box_mask
from mlkd.data import DataError, MultiLabelData
from mlkd.models import MultiLabelModel

Data = dict[str, MultiLabelData]


def with_boxes(data: MultiLabelData) -> MultiLabelData:
    """The toy images with one random box for each label; the first image has two of its first label."""
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


def slow_score(heatmap: np.ndarray, boxes: np.ndarray) -> tuple[float, float, float]:
    height, width = heatmap.shape
    inside_sum = total = area = hits = ties = 0.0
    for y in range(height):
        for x in range(width):
            inside = any(
                x1 * width < x + 1 and x < x2 * width and y1 * height < y + 1 and y < y2 * height
                for x1, y1, x2, y2 in boxes
            )
            total += heatmap[y, x]
            inside_sum += heatmap[y, x] * inside
            area += inside / (height * width)
            if heatmap[y, x] == heatmap.max():
                ties += 1
                hits += inside
    if heatmap.max() == heatmap.min():
        return area, area, area
    return hits / ties, inside_sum / total, area


def test_score_by_hand() -> None:
    heatmap = np.array([[0, 0, 0, 0], [0, 4, 2, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    hit, energy, area = score_map(heatmap, np.array([[0.25, 0.25, 0.5, 0.75]]))  # the pixels 4 and 1
    assert (hit, energy, area) == (1, 5 / 8, 2 / 16)
    assert score_map(heatmap, np.array([[0, 0, 0.25, 1]])) == (0, 0, 4 / 16)
    two = np.array([[0.5, 0.25, 0.75, 0.5], [0.75, 0.75, 1, 1]])
    assert score_map(heatmap, two) == (0, 3 / 8, 2 / 16)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_constant_map_scores_its_area(value: float) -> None:
    assert score_map(np.full((4, 4), value), np.array([[0, 0, 0.5, 0.5]])) == (0.25, 0.25, 0.25)


def test_hit_of_tied_maxima() -> None:
    heatmap = np.zeros((2, 4))
    heatmap[0] = 1
    assert score_map(heatmap, np.array([[0, 0, 0.25, 1]])).hit == 1 / 4


def test_box_smaller_than_a_pixel() -> None:
    mask = box_mask(np.array([[0.3, 0.3, 0.31, 0.31], [0.99, 0.99, 1, 1]]), 4, 4)
    assert np.argwhere(mask).tolist() == [[1, 1], [3, 3]]


@given(st.integers(0, 10**6))
def test_score_against_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heatmap = rng.integers(0, 4, (5, 7)).astype(np.float32)
    corner = rng.uniform(0, 0.7, (2, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.01, 0.3, (2, 2))], axis=1)
    assert score_map(heatmap, boxes) == pytest.approx(slow_score(heatmap, boxes))


def test_scores_of_a_split(toy_data: Data, toy_teacher: MultiLabelModel, own_cache) -> None:
    data = with_boxes(toy_data["val"]).subset(np.arange(9))
    table = box_scores(toy_teacher, data, ("gradcam", "layercam"), batch_size=4)
    assert len(table) == 2 * data.targets.sum()
    row = table[(table["method"] == "layercam") & (table["image"] == 0)].iloc[0]
    label = data.classes.index(row["label"])
    image = torch.from_numpy(data.images[0]).permute(2, 0, 1)[None]
    heatmap = cam(toy_teacher, image, [label], method="layercam")[0, 0]
    boxes = [box[1:] / 32 for box in data.boxes[0] if box[0] == label]
    assert len(boxes) == 2
    assert (row["hit"], row["energy"], row["area"]) == pytest.approx(slow_score(heatmap, boxes), abs=1e-4)
    sides = [224 * ((x2 - x1) * (y2 - y1)) ** 0.5 for x1, y1, x2, y2 in boxes]
    assert row["side"] == pytest.approx(max(sides))
    assert row["size"] == ("small" if max(sides) < 32 else "medium" if max(sides) < 96 else "large")
    subset = box_scores(toy_teacher, data, indices=[5, 0])
    expected = table[(table["method"] == "gradcam") & table["image"].isin([0, 5])]
    assert subset.sort_values(["image", "label"])["energy"].tolist() == pytest.approx(
        expected.sort_values(["image", "label"])["energy"].tolist(), abs=1e-4
    )


def test_data_without_boxes_gives_one_line_error(toy_data: Data, toy_teacher: MultiLabelModel) -> None:
    with pytest.raises(DataError, match=r"toy val: this data set has no boxes; expected .*voc.*coco"):
        box_scores(toy_teacher, toy_data["val"])


def test_summary_resamples_images() -> None:
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(20), rng.integers(1, 5, 20))
    table = pd.DataFrame(
        {
            "method": "gradcam",
            "size": np.where(image % 2, "small", "large"),
            "image": image,
            "hit": (image % 3 == 0).astype(float),  # the same for all labels of an image
            "energy": rng.random(len(image)),
            "area": 0.1,
        }
    )
    summary = localization_summary(table, ("method", "size"))
    assert summary["size"].tolist() == ["large", "small"]
    for row in summary.itertuples():
        group = table[table["size"] == row.size]
        assert (row.n, row.images) == (len(group), group["image"].nunique())
        assert row.hit == pytest.approx(group["hit"].mean())
        assert row.energy == pytest.approx(group["energy"].mean())
        assert row.energy_low < row.energy < row.energy_high
        assert row.area_low == pytest.approx(row.area_high) == pytest.approx(0.1)
    independent = localization_summary(table.assign(image=range(len(table))), ())
    clustered = localization_summary(table, ())
    assert clustered["hit_high"][0] - clustered["hit_low"][0] > independent["hit_high"][0] - independent["hit_low"][0]


def test_summary_of_one_image_and_of_none() -> None:
    table = pd.DataFrame({"method": "cam", "image": [4, 4], "hit": [1.0, 0.0], "energy": np.nan, "area": 0.5})
    row = localization_summary(table).iloc[0]
    assert (row["n"], row["images"], row["hit"]) == (2, 1, 0.5)
    assert np.isnan([row["hit_low"], row["energy"]]).all()
    assert localization_summary(table[:0]).empty
