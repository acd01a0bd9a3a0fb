"""Validation of data sets: every problem gives one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlkd.data import DataError, MultiLabelData
from mlkd.data.readers import voc
from mlkd.data.validate import find_problems, validate


@pytest.fixture
def data(voc_folder: Path) -> dict[str, MultiLabelData]:
    return voc.read(voc_folder)


def test_no_problems(data: dict[str, MultiLabelData]) -> None:
    assert find_problems(data) == []
    validate(data)


def one_box(*values: float) -> list[np.ndarray]:
    return [np.array([values], np.float32), np.zeros((0, 5), np.float32)]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "id": ({"ids": ("1", "1")}, "id `1` occurs more than once"),
    "class": ({"classes": ("cat",) * 20}, "`cat` occurs more than once in `classes`"),
    "two": ({"targets": np.full((2, 20), 2, np.uint8)}, "image `1` has 2 in `targets` for `aeroplane`"),
    "none": ({"targets": np.zeros((2, 20), np.uint8), "boxes": None}, "no image has any label"),
    "ignore_mask": ({"ignore_mask": np.ones((2, 20), bool)}, "has `cat` both in `targets` and in `ignore_mask`"),
    "box class": ({"boxes": one_box(20, 0, 0, 9, 9)}, "image `1` has a box of class 20; expected 0 to 19"),
    "no label": ({"boxes": one_box(0, 0, 0, 9, 9)}, "a box of `aeroplane` but 0 in `targets`"),
    "reversed": ({"boxes": one_box(7, 9, 0, 9, 9)}, r"the box \(9, 0, 9, 9\); expected 0 <= x1 < x2"),
    "negative": ({"boxes": one_box(7, -1, 0, 9, 9)}, r"the box \(-1, 0, 9, 9\)"),
    "nan": ({"boxes": one_box(7, 0, float("nan"), 9, 9)}, r"the box \(0, nan, 9, 9\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_split(data: dict[str, MultiLabelData], case: str) -> None:
    change, message = BAD[case]
    invalid = {"train": replace(data["train"], **change)}
    with pytest.raises(DataError, match=message):
        validate(invalid)
    assert any(problem.startswith("VOC2007 train: ") for problem in find_problems(invalid, decode=False))


def test_empty_split(data: dict[str, MultiLabelData]) -> None:
    empty = data["train"].subset([])
    assert find_problems({"train": empty}) == ["VOC2007 train: the split is empty; expected at least one image."]


def test_images(data: dict[str, MultiLabelData], voc_folder: Path) -> None:
    """A missing file, a truncated one, a text file, and an image smaller than its boxes; each is reported once."""
    folder = voc_folder / "JPEGImages"
    (folder / "1.jpg").unlink()
    (folder / "2.jpg").write_bytes((folder / "2.jpg").read_bytes()[:-100])
    (folder / "3.jpg").write_text("not an image")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "4.jpg")
    del data["trainval"]
    problems = find_problems(data)
    assert len(problems) == 4
    for name, message in {
        "1.jpg": "no such file; expected an image",
        "2.jpg": "truncated",
        "3.jpg": "not an image",
        "`4`": "has 8 x 8 pixels but the box (2, 2, 9, 9); expected x2 <= 8 and y2 <= 8.",
    }.items():
        assert any(name in problem and message in problem for problem in problems)
    assert len(find_problems(data, decode=False)) == 1
    with pytest.raises(DataError, match=r"1\.jpg: no such file; expected an image"):
        validate(data)


def test_image_in_two_splits(data: dict[str, MultiLabelData]) -> None:
    shared = {**data, "test": replace(data["train"], split="test")}
    assert find_problems(shared, decode=False) == [
        "VOC2007: 2 image(s) in both train and test, such as `1`; expected splits without common ids.",
        "VOC2007: 2 image(s) in both test and trainval, such as `1`; expected splits without common ids.",
    ]


def test_different_classes(data: dict[str, MultiLabelData]) -> None:
    other = replace(data["val"], classes=voc.CLASSES[::-1], boxes=None)
    assert "VOC2007: `classes` of train and val differ; expected the same in one order." in find_problems(
        {"train": data["train"], "val": other}, decode=False
    )


def test_limit() -> None:
    images = [np.zeros((2, 2, 3), np.uint8)] * 200
    objects = [np.array([[0, 0, 0, 5, 5]], np.float32)] * 200
    data = MultiLabelData.from_objects("toy", "train", images, ["a"], [str(i) for i in range(200)], objects)
    problems = find_problems({"train": data}, limit=7)
    assert len(problems) == 8
    assert problems[-1] == "Stopped after 7 problems; there are more."
    assert len(find_problems({"train": data}, limit=200)) == 200


def test_missing_image_of_two_splits_is_reported_once(data: dict[str, MultiLabelData], voc_folder: Path) -> None:
    """Image 1 is in train and in trainval."""
    (voc_folder / "JPEGImages" / "1.jpg").unlink()
    (problem,) = find_problems(data)
    assert "1.jpg: no such file" in problem
