"""`MultiLabelData`: consistent shapes, subsets, selected classes and boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlkd.data import DataError, ImageFiles, MultiLabelData
from mlkd.data.validate import find_problems


@pytest.fixture
def data() -> MultiLabelData:
    """Three images x, y, z with boxes of the classes {a, c}, {b} and {c}."""
    boxes = [[[0, 0, 0, 4, 4], [2, 1, 1, 5, 5]], [[1, 0, 0, 4, 4]], [[2, 2, 2, 6, 6]]]
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(3)]
    objects = [np.array(image_boxes, np.float32) for image_boxes in boxes]
    ignore_mask = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    return MultiLabelData.from_objects("toy", "train", images, "abc", "xyz", objects, ignore_mask)


def test_objects_give_targets_and_boxes(data: MultiLabelData) -> None:
    assert data.targets.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert data.targets.dtype == np.uint8
    assert (data.classes, data.ids) == (("a", "b", "c"), ("x", "y", "z"))
    assert data.boxes is not None
    assert [len(boxes) for boxes in data.boxes] == [2, 1, 1]


def test_object_without_area_gives_a_label_but_no_box() -> None:
    objects = [np.array([[0, 1, 1, 1, 5], [1, 1, 1, 3, 3]], np.float32), np.zeros((0, 5), np.float32)]
    images = [np.zeros((8, 8, 3), np.uint8)] * 2
    data = MultiLabelData.from_objects("toy", "train", images, ["a", "b"], ["1", "2"], objects)
    assert data.targets.tolist() == [[1, 1], [0, 0]]
    assert data.boxes is not None
    assert [len(boxes) for boxes in data.boxes] == [1, 0]
    assert find_problems({"train": data}) == []


def test_subset(data: MultiLabelData) -> None:
    subset = data.subset([2, 0])
    assert subset.ids == ("z", "x")
    assert subset.targets.tolist() == [[0, 0, 1], [1, 0, 1]]
    assert [subset.images[i][0, 0, 0] for i in range(2)] == [2, 0]
    assert subset.boxes is not None
    assert subset.boxes[0].tolist() == [[2, 2, 2, 6, 6]]
    assert subset.ignore_mask is not None
    assert subset.ignore_mask.tolist() == [[False, False, False], [False, True, False]]
    assert subset.subset([1]).ids == ("x",)
    assert subset.subset([1]).images[0][0, 0, 0] == 0


def test_select_classes(data: MultiLabelData) -> None:
    selected = data.select_classes([2, 0])
    assert (selected.classes, selected.ids, selected.split) == (("c", "a"), ("x", "y", "z"), "train")
    assert selected.targets.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert selected.targets.dtype == np.uint8
    assert selected.ignore_mask is not None
    assert selected.ignore_mask.tolist() == [[False, False], [False, True], [False, False]]
    assert selected.boxes is not None
    assert [boxes.tolist() for boxes in selected.boxes] == [[[1, 0, 0, 4, 4], [0, 1, 1, 5, 5]], [], [[0, 2, 2, 6, 6]]]
    assert [boxes.shape for boxes in selected.boxes] == [(2, 5), (0, 5), (1, 5)]
    assert {boxes.dtype for boxes in selected.boxes} == {np.dtype(np.float32)}
    assert selected.images is data.images
    assert find_problems({"train": selected}, decode=False) == []
    assert data.boxes is not None
    assert data.boxes[0][:, 0].tolist() == [0, 2]  # unchanged


def test_select_classes_without_boxes(data: MultiLabelData) -> None:
    selected = replace(data, boxes=None, ignore_mask=None).select_classes(np.array([1]))
    assert (selected.boxes, selected.ignore_mask, selected.targets.tolist()) == (None, None, [[0], [1], [0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": np.zeros((2, 2), np.uint8)}, r"`targets` is uint8 \(2, 2\), expected uint8 \(3, 3\)"),
        ({"targets": np.zeros((3, 3), np.float32)}, "`targets` is float32"),
        ({"images": []}, "`images` has 0 entries for 3 ids"),
        ({"boxes": []}, "`boxes` has 0 entries for 3 ids"),
        ({"ignore_mask": np.zeros((3, 3), np.uint8)}, "`ignore_mask` is uint8"),
    ],
)
def test_wrong_shapes(data: MultiLabelData, change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(data, **change)


class TestNormalizedBoxes:
    def test_fractions_of_each_image_size(self) -> None:
        images = [np.zeros((10, 40, 3), np.uint8), np.zeros((20, 5, 3), np.uint8)]
        boxes = [np.array([[1, 10, 0, 40, 5]], np.float32), np.zeros((0, 5), np.float32)]
        targets = np.array([[0, 1], [0, 0]], np.uint8)
        data = MultiLabelData("toy", "test", images, targets, ("a", "b"), ("x", "y"), boxes)
        assert data.normalized_boxes(0).tolist() == [[1, 0.25, 0, 1, 0.5]]
        assert data.normalized_boxes(1).shape == (0, 5)

    def test_files(self, tmp_path: Path) -> None:
        Image.new("RGB", (40, 10)).save(tmp_path / "a.png")
        boxes = [np.array([[0, 0, 5, 20, 10]], np.float32)]
        files = ImageFiles(tmp_path, ["a.png"])
        data = MultiLabelData("toy", "test", files, np.ones((1, 1), np.uint8), ("a",), ("a",), boxes)
        assert data.normalized_boxes(0).tolist() == [[0, 0, 0.5, 0.5, 1]]

    def test_no_boxes(self, data: MultiLabelData) -> None:
        with pytest.raises(DataError, match="toy train: this data set has no boxes"):
            replace(data, boxes=None).normalized_boxes(0)
