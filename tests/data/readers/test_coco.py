"""COCO folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlkd.data import DataError, MultiLabelData
from mlkd.data.readers import coco
from mlkd.data.validate import find_problems


def counts(splits: dict[str, MultiLabelData]) -> dict[str, int]:
    return {name: len(split) for name, split in splits.items()}


def test_official_layout(coco_folder: Path) -> None:
    """val2014 is the test split; a tenth of train2014 is held out; images without objects are dropped."""
    splits = coco.read(coco_folder)
    assert counts(splits) == {"train": 18, "val": 2, "test": 2, "trainval": 20}
    test = splits["test"]
    assert (test.name, test.split, test.classes) == ("coco", "test", ("zebra", "bus", "apple"))
    assert test.ids == ("v1", "v3")
    assert test.targets.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert test.boxes is not None
    assert test.boxes[0].tolist() == [[2, 1.5, 2, 31.5, 22.25], [1, 0, 0, 40, 30], [2, 3, 3, 7, 7]]
    assert test.images[0].shape == (30, 40, 3)
    assert find_problems(splits) == []


def test_unlabeled(coco_folder: Path) -> None:
    splits = coco.read(coco_folder, unlabeled="keep")
    assert len(splits["trainval"]) == 21
    assert splits["test"].ids == ("v1", "v2", "v3")
    assert splits["test"].targets.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert splits["test"].boxes is not None
    assert splits["test"].boxes[1].shape == (0, 5)
    assert find_problems(splits) == []
    with pytest.raises(ValueError, match=r"`unlabeled` is 'kept', .* Did you mean 'keep'\?"):
        coco.read(coco_folder, unlabeled="kept")  # type: ignore[arg-type]


def test_plain_layout(tmp_path: Path, write_coco: Callable[..., Path]) -> None:
    for split in ("train", "val", "test"):
        write_coco(tmp_path, split, {f"{split}.jpg": [(2, 0, 0, 10, 10)]})
    splits = coco.read(tmp_path)
    assert {name: split.ids for name, split in splits.items()} == {
        "train": ("train",), "val": ("val",), "test": ("test",),
    }  # fmt: skip
    assert find_problems(splits) == []


def test_images_in_a_common_folder(coco_folder: Path) -> None:
    for split in ("train2014", "val2014"):
        shutil.move(coco_folder / split, coco_folder / "images" / split)
    assert find_problems(coco.read(coco_folder)) == []


def test_years(coco_folder: Path, write_coco: Callable[..., Path]) -> None:
    for split in ("train2017", "val2017"):
        write_coco(coco_folder, split, {f"{split}_{k}.jpg": [(2, 0, 0, 10, 10)] for k in range(2)})
    with pytest.raises(DataError, match="choose one with `year`, one of 2014, 2017"):
        coco.read(coco_folder)
    assert coco.read(coco_folder, year=2014)["test"].ids == ("v1", "v3")
    assert coco.read(coco_folder, year=2017)["test"].ids == ("val2017_0", "val2017_1")


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def val_file(coco_folder: Path) -> Path:
    return coco_folder / "annotations" / "instances_val2014.json"


def test_crowd_regions_are_labels(coco_folder: Path, val_file: Path) -> None:
    edit(val_file, lambda content: content["annotations"][0].update(iscrowd=1))
    assert coco.read(coco_folder)["test"].targets[0].tolist() == [0, 1, 1]


def test_box_without_height_gives_a_label_but_no_box(coco_folder: Path, val_file: Path) -> None:
    """COCO 2017 has two such boxes."""
    edit(val_file, lambda content: content["annotations"][1].update(bbox=[1, 1, 5, 0]))
    test = coco.read(coco_folder)["test"]
    assert test.targets[0].tolist() == [0, 1, 1]
    assert test.boxes is not None
    assert test.boxes[0][:, 0].tolist() == [2, 2]


def test_one_pixel_outside_is_clipped(coco_folder: Path, val_file: Path) -> None:
    edit(val_file, lambda content: content["annotations"][1].update(bbox=[-0.5, 0, 41, 30.9]))
    test = coco.read(coco_folder)["test"]
    assert test.boxes is not None
    assert test.boxes[0][1].tolist() == [1, 0, 0, 40, 30]


MASKS = {
    "polygons": [[1.5, 2, 3e1, -4], [5, 6, 7, 8]],
    "no polygon": [],
    "run lengths": {"counts": [1, 2, 3], "size": [30, 40]},
    "text": [["]]", 1]],
    "nested": [[[1, 2], [3]], "[["],
    "none": None,
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("mask", MASKS)
def test_masks_are_not_read(coco_folder: Path, val_file: Path, mask: str, indent: int | None) -> None:
    expected = coco.read(coco_folder)["test"]
    content = json.loads(val_file.read_text())
    for k, annotation in enumerate(content["annotations"]):
        content["annotations"][k] = {"segmentation": MASKS[mask], **annotation, 'a "segmentation': [[1]]}
    val_file.write_text(json.dumps(content, indent=indent))
    test = coco.read(coco_folder)["test"]
    assert (test.targets == expected.targets).all()
    assert test.boxes is not None
    assert expected.boxes is not None
    assert [boxes.tolist() for boxes in test.boxes] == [boxes.tolist() for boxes in expected.boxes]


def test_byte_order_mark(coco_folder: Path, val_file: Path) -> None:
    val_file.write_text(val_file.read_text(), encoding="utf-8-sig")
    assert coco.read(coco_folder)["test"].ids == ("v1", "v3")


BAD_RECORD: dict[str, tuple[str, dict, str]] = {
    "category": (
        "annotations",
        {"category_id": 3},
        r"annotations\[1\] has the `category_id` 3, which `categories`",
    ),
    "image": (
        "annotations",
        {"image_id": 7},
        r"annotations\[1\] has the `image_id` 7, which `images` does not list",
    ),
    "outside": (
        "annotations",
        {"bbox": [20, 0, 22, 9]},
        r"annotations\[1\]: `bbox` \(20, 0, 22, 9\).* 40 x 30 pixels",
    ),
    "negative": ("annotations", {"bbox": [20, 0, -3, 9]}, "is not inside its image"),
    "three": ("annotations", {"bbox": [1, 2, 3]}, r"has \[1, 2, 3\] as `bbox`; expected four numbers"),
    "not a number": ("annotations", {"bbox": [1, 2, 3, "4"]}, "expected four numbers"),
    "no list": ("annotations", {"bbox": None}, "has None as `bbox`; expected list"),
    "id": ("images", {"id": 100}, r"images\[1\] has the `id` 100 of images\[0\]; expected each id once"),
    "category id": (
        "categories",
        {"id": 9},
        r"categories\[1\] has the `id` 9 of categories\[0\]; expected each id once",
    ),
    "kind": ("images", {"width": "40"}, r"images\[1\] has '40' as `width`; expected int or float"),
    "size": (
        "images",
        {"height": 0},
        r"images\[1\] has a `width` of 40 and a `height` of 0; expected a size in pixels",
    ),
    "nan": ("annotations", {"bbox": [1, 2, 3, float("nan")]}, "expected four numbers"),
    "name": ("categories", {"name": 3}, r"categories\[1\] has 3 as `name`; expected str"),
}


@pytest.mark.parametrize("case", BAD_RECORD)
def test_bad_record(coco_folder: Path, val_file: Path, case: str) -> None:
    field, values, message = BAD_RECORD[case]
    edit(val_file, lambda content: content[field][1].update(values))
    with pytest.raises(DataError, match=message):
        coco.read(coco_folder)


@pytest.mark.parametrize(
    ("field", "key"),
    [(field, key) for field, keys in {
        "images": ("id", "file_name", "width", "height"),
        "annotations": ("image_id", "category_id", "bbox"),
        "categories": ("id", "name"),
    }.items() for key in keys],
)  # fmt: skip
def test_missing_key(coco_folder: Path, val_file: Path, field: str, key: str) -> None:
    edit(val_file, lambda content: content[field][1].pop(key))
    with pytest.raises(DataError, match=rf"instances_val2014\.json: {field}\[1\] has no key `{key}`"):
        coco.read(coco_folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), JSON)
def test_any_value_is_read_or_a_data_error(coco_folder: Path, val_file: Path, data: st.DataObject, value) -> None:
    """Any change of a value gives a valid data set or a `DataError`."""
    original = val_file.read_text()
    content = json.loads(original)
    field = data.draw(st.sampled_from(sorted(content)))
    record = data.draw(st.sampled_from(content[field]))
    record[data.draw(st.sampled_from(sorted(record)))] = value
    val_file.write_text(json.dumps(content))
    with suppress(DataError):
        assert list(coco.read(coco_folder)) == ["train", "val", "test", "trainval"]
    val_file.write_text(original)


class TestBadFiles:
    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="nowhere: no such folder"):
            coco.read(tmp_path / "nowhere")

    def test_missing_annotation_file(self, coco_folder: Path) -> None:
        with pytest.raises(DataError, match=r"no annotation file `annotations/instances_<split>2017\.json`"):
            coco.read(coco_folder, year=2017)
        with pytest.raises(DataError, match=r"no annotation file `annotations/instances_<split>\.json`"):
            coco.read(coco_folder / "val2014")

    def test_no_split_to_evaluate_on(self, coco_folder: Path, val_file: Path) -> None:
        val_file.unlink()
        with pytest.raises(DataError, match="no split to evaluate on; the splits are train"):
            coco.read(coco_folder)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"images": [\n{"id": 1,}]}', r"instances_val2014\.json: broken JSON \(.*line 2 column"),
            ('{"segmentation": [[1,\n2]], "images": [\n{"id": 1,}]}', r"broken JSON \(.*line 3 column"),
            ("[" * 100_000, "broken JSON"),
            ("[]", "contains a list; expected an object"),
            ('{"categories": []}', "no list under the key `images`"),
            (
                '{"categories": [], "images": [3], "annotations": []}',
                r"images\[0\] is a int; expected an object",
            ),
            ('{"categories": [], "images": [], "annotations": []}', "the split is empty"),
        ],
    )
    def test_broken(self, coco_folder: Path, val_file: Path, text: str, message: str) -> None:
        val_file.write_text(text)
        with pytest.raises(DataError, match=message):
            coco.read(coco_folder)

    def test_file_name_outside_the_folder(self, coco_folder: Path, val_file: Path) -> None:
        edit(val_file, lambda content: content["images"][0].update(file_name="../../v1.jpg"))
        with pytest.raises(DataError, match="lies outside the data folder"):
            coco.read(coco_folder)

    def test_categories_differ(self, coco_folder: Path, val_file: Path) -> None:
        edit(val_file, lambda content: content["categories"][0].update(name="pear"))
        with pytest.raises(DataError, match="`categories` of val and of train differ"):
            coco.read(coco_folder)


class TestReal:
    def test_counts(self, real_coco: Path) -> None:
        splits = coco.read(real_coco)
        assert counts(splits) == {"train": 2047, "val": 228, "test": 954, "trainval": 2275}
        assert len(coco.read(real_coco, unlabeled="keep")["trainval"]) == 2279
        assert splits["trainval"].boxes is not None
        assert splits["test"].boxes is not None
        assert sum(map(len, splits["trainval"].boxes)) == 20780
        assert sum(map(len, splits["test"].boxes)) == 9186

    def test_labels_equal_an_independent_list(self, real_data: Path, real_coco: Path) -> None:
        path = real_data / "labels" / "coco2014_labels.npz"
        if not path.is_file():
            pytest.skip("no real COCO labels")
        real = np.load(path)
        known = {
            int(i): row for part in ("train", "val")
            for i, row in zip(real[f"{part}_ids"], real[f"{part}_labels"], strict=True)
        }  # fmt: skip
        splits = coco.read(real_coco)
        for split in (splits["trainval"], splits["test"]):
            assert split.classes == tuple(real["class_names"])
            assert (split.targets == np.stack([known[int(i)] for i in split.ids])).all()

    def test_images(self, real_coco: Path) -> None:
        test = coco.read(real_coco)["test"]
        assert find_problems({"test": test.subset(range(0, len(test), 20))}) == []
        assert find_problems({"test": test}, decode=False) == []
