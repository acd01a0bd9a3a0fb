"""What is found wrong before training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlkd.data import voc
from mlkd.data.dataset import DataError, MultiLabelData, from_objects
from mlkd.data.validate import find_problems, validate


@pytest.fixture
def data(voc_folder: Path) -> dict[str, MultiLabelData]:
    return voc.read(voc_folder)


def test_nothing_wrong(data: dict[str, MultiLabelData]) -> None:
    assert find_problems(data) == []
    validate(data)


def one_box(*values: float) -> list[np.ndarray]:
    return [np.array([values], np.float32), np.zeros((0, 5), np.float32)]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "id": ({"ids": ("1", "1")}, "id `1` stands more than once"),
    "class": ({"classes": ("cat",) * 20}, "`cat` stands more than once in `classes`"),
    "two": ({"targets": np.full((2, 20), 2, np.uint8)}, "picture `1` has 2 in `targets` for `aeroplane`"),
    "none": ({"targets": np.zeros((2, 20), np.uint8), "boxes": None}, "no picture has any label"),
    "ignore_mask": ({"ignore_mask": np.ones((2, 20), bool)}, "has `cat` both in `targets` and in `ignored`"),
    "box class": ({"boxes": one_box(20, 0, 0, 9, 9)}, "picture `1` has a box of class 20; expected 0 to 19"),
    "no label": ({"boxes": one_box(0, 0, 0, 9, 9)}, "a box of `aeroplane` but 0 in `targets`"),
    "turned": ({"boxes": one_box(7, 9, 0, 9, 9)}, r"the box \(9, 0, 9, 9\); expected 0 <= x1 < x2"),
    "negative": ({"boxes": one_box(7, -1, 0, 9, 9)}, r"the box \(-1, 0, 9, 9\)"),
    "nan": ({"boxes": one_box(7, 0, float("nan"), 9, 9)}, r"the box \(0, nan, 9, 9\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_split(data: dict[str, MultiLabelData], case: str) -> None:
    change, message = BAD[case]
    bad = {"train": replace(data["train"], **change)}
    with pytest.raises(DataError, match=message):
        validate(bad)
    assert any(problem.startswith("VOC2007 train: ") for problem in find_problems(bad, pixels=False))


def test_empty_split(data: dict[str, MultiLabelData]) -> None:
    empty = data["train"].subset([])
    assert list(empty.check()) == ["VOC2007 train: the split is empty; expected at least one picture."]
    assert check({"train": empty}) == list(empty.check())


def test_pictures(data: dict[str, MultiLabelData], voc_folder: Path) -> None:
    """One missing, one truncated, one text, one smaller than its boxes; each is said once."""
    folder = voc_folder / "JPEGImages"
    (folder / "1.jpg").unlink()
    (folder / "2.jpg").write_bytes((folder / "2.jpg").read_bytes()[:-100])
    (folder / "3.jpg").write_text("no picture")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "4.jpg")
    del data["trainval"]
    found = find_problems(data)
    assert len(found) == 4
    for name, message in {
        "1.jpg": "no such image file",
        "2.jpg": "truncated",
        "3.jpg": "no image",
        "`4`": "is 8 x 8 pixels but has the box (2, 2, 9, 9); expected x2 <= 8 and y2 <= 8.",
    }.items():
        assert any(name in problem and message in problem for problem in found)
    assert len(find_problems(data, pixels=False)) == 1
    with pytest.raises(DataError, match=r"1\.jpg: no such image file"):
        validate(data)


def test_picture_in_two_splits(data: dict[str, MultiLabelData]) -> None:
    shared = {**data, "test": replace(data["train"], split="test")}
    assert find_problems(shared, pixels=False) == [
        "VOC2007: 2 picture(s) in both train and test, such as `1`; expected splits without common ids.",
        "VOC2007: 2 picture(s) in both test and trainval, such as `1`; expected splits without common ids.",
    ]


def test_classes_differ(data: dict[str, MultiLabelData]) -> None:
    other = replace(data["val"], classes=voc.CLASSES[::-1], boxes=None)
    assert "VOC2007: `classes` of train and val differ; expected the same in one order." in find_problems(
        {"train": data["train"], "val": other}, pixels=False
    )


def test_limit() -> None:
    pictures = [np.zeros((2, 2, 3), np.uint8)] * 200
    objects = [np.array([[0, 0, 0, 5, 5]], np.float32)] * 200
    data = from_objects("made", "train", pictures, ["a"], [str(i) for i in range(200)], objects)
    found = find_problems({"train": data}, limit=7)
    assert len(found) == 8
    assert found[-1] == "Stopped after 7 findings; there are more."
    assert len(find_problems({"train": data}, limit=200)) == 200
