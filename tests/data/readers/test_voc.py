"""Pascal VOC folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlkd.data import DataError
from mlkd.data.readers import voc
from mlkd.data.validate import find_problems

COLUMN = {name: column for column, name in enumerate(voc.CLASSES)}


def labels(data, i: str) -> set[str]:
    return {data.classes[k] for k in np.flatnonzero(data.targets[data.ids.index(i)])}


def test_splits_and_labels(voc_folder: Path) -> None:
    splits = voc.read(voc_folder)
    assert {name: split.ids for name, split in splits.items()} == {
        "train": ("1", "2"), "val": ("3",), "test": ("4", "5"), "trainval": ("1", "2", "3"),
    }  # fmt: skip
    train = splits["train"]
    assert (train.name, train.split, train.classes) == ("VOC2007", "train", voc.CLASSES)
    assert labels(train, "1") == {"cat", "dog"}
    assert labels(train, "2") == {"person"}
    assert train.images[0].shape == (30, 40, 3)
    assert train.ignore_mask is None
    assert find_problems(splits) == []


def test_boxes_count_from_zero(voc_folder: Path) -> None:
    """A VOC box counts pixels from 1 and includes the last: 11..40 covers x from 10 to 40."""
    boxes = voc.read(voc_folder)["train"].boxes
    assert boxes is not None
    cat, dog, person = COLUMN["cat"], COLUMN["dog"], COLUMN["person"]
    assert boxes[0].tolist() == [[cat, 0, 0, 10, 10], [cat, 4, 4, 20, 20], [dog, 10, 5, 40, 30]]
    assert boxes[1].tolist() == [[person, 1, 2, 4, 5]]


@pytest.mark.parametrize(
    ("difficult", "present", "ignore_mask"),
    [
        ("positive", [{"cat", "dog"}, {"cat", "person"}, {"car"}], None),
        ("ignore", [{"cat", "dog"}, {"person"}, set()], [set(), {"cat"}, {"car"}]),
        ("negative", [{"cat", "dog"}, {"person"}, set()], None),
    ],
)
def test_difficult(voc_folder: Path, difficult, present: list[set], ignore_mask: list[set] | None) -> None:
    splits = voc.read(voc_folder, difficult=difficult)
    assert [labels(splits["train"], "1"), *(labels(splits["test"], i) for i in "45")] == present
    for split in splits.values():
        assert split.boxes is not None
        for row, boxes in enumerate(split.boxes):  # every label has a box
            assert {split.classes[int(k)] for k in boxes[:, 0]} == labels(split, split.ids[row])
    if ignore_mask is None:
        assert splits["test"].ignore_mask is None
    else:
        rows = [*splits["train"].ignore_mask[:1], *splits["test"].ignore_mask]
        assert [{voc.CLASSES[k] for k in np.flatnonzero(row)} for row in rows] == ignore_mask


def test_unknown_difficult(voc_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"`difficult` is 'ignored', expected .* Did you mean 'ignore'\?"):
        voc.read(voc_folder, difficult="ignored")  # type: ignore[arg-type]


class TestFolders:
    def test_parent_folders(self, voc_folder: Path) -> None:
        for root in (voc_folder, voc_folder.parent, voc_folder.parent.parent):
            assert voc.read(root)["test"].ids == ("4", "5")
            assert voc.read(root, year=2007)["test"].ids == ("4", "5")

    def test_year(self, voc_folder: Path) -> None:
        shutil.copytree(voc_folder, voc_folder.with_name("VOC2012"))
        with pytest.raises(DataError, match="choose one with `year`, one of 2007, 2012"):
            voc.read(voc_folder.parent)
        assert voc.read(voc_folder.parent, year=2012)["train"].name == "VOC2012"

    def test_errors(self, voc_folder: Path) -> None:
        with pytest.raises(DataError, match="nowhere: no such folder"):
            voc.read(voc_folder / "nowhere")
        with pytest.raises(DataError, match="no VOC folder with `ImageSets/Main`"):
            voc.read(voc_folder / "JPEGImages")
        with pytest.raises(DataError, match="no folder `VOC2012`"):
            voc.read(voc_folder, year=2012)

    def test_val_becomes_test_if_there_is_no_test(self, voc_folder: Path) -> None:
        (voc_folder / "ImageSets/Main/test.txt").unlink()
        splits = voc.read(voc_folder)
        assert splits["test"].ids == ("3",)
        assert {*splits["train"].ids, *splits["val"].ids} == {"1", "2"}


class TestClasses:
    def test_class_lists(self, tmp_path: Path, write_voc: Callable[..., Path]) -> None:
        objects = {i: [("mug", 1, 1, 9, 9, 0), ("traffic light", 1, 1, 9, 9, 0)] for i in "123"}
        lists = {"train": ["1"], "val": ["2"], "test": ["3"], "context_shift": ["3"]}
        lists |= {f"{name}_{split}": ["1  1"] for name in ("mug", "traffic light") for split in lists}
        splits = voc.read(write_voc(tmp_path / "custom", lists, objects))
        assert splits["train"].classes == ("mug", "traffic light")
        assert list(splits) == ["train", "val", "test", "context_shift"]

    def test_argument_in_that_order(self, tmp_path: Path, write_voc: Callable[..., Path]) -> None:
        objects = {i: [("mug", 1, 1, 9, 9, 0)] for i in "123"}
        folder = write_voc(tmp_path / "custom", {"train": ["1"], "val": ["2"], "test": ["3"]}, objects)
        train = voc.read(folder, classes=["spoon", "mug"])["train"]
        assert train.classes == ("spoon", "mug")
        assert train.targets.tolist() == [[0, 1]]

    def test_class_lists_of_voc_give_all_its_classes(self, voc_folder: Path) -> None:
        (voc_folder / "ImageSets/Main/cat_train.txt").write_text("1  1\n2 -1\n")
        assert voc.read(voc_folder)["train"].classes == voc.CLASSES


BAD_XML = {
    "broken": (
        "</annotation>",
        "</annotatio>",
        r"1\.xml: broken or forbidden XML \(mismatched tag: line 13, column",
    ),
    "entities": (
        "<annotation>",
        '<!DOCTYPE a [<!ENTITY e "x">]><annotation>',
        "forbidden XML .*EntitiesForbidden",
    ),
    "no width": ("<width>40</width>", "", r"1\.xml: no `size/width` in <annotation>"),
    "no name": ("<name>cat</name>", "", "no `name` in <object>"),
    "no xmin": ("<xmin>1</xmin><ymin>1<", "<ymin>1<", "no `bndbox/xmin` in <object>"),
    "not a number": ("<ymax>10<", "<ymax>ten<", "`bndbox/ymax` in <object> is `ten`; expected a number"),
    "class": ("<name>cat</name>", "<name>cats</name>", "unknown class `cats` .* did you mean `cat`"),
    "wide": ("<xmax>40<", "<xmax>42<", r"`bndbox` \(11, 6, 42, 30\) of `dog` is not a box .* xmax <= 40"),
    "early": ("<xmin>11<", "<xmin>-1<", "of `dog` is not a box"),
    "reversed": ("<xmin>11<", "<xmin>41<", "of `dog` is not a box"),
    "nan": ("<xmin>11<", "<xmin>nan<", "`bndbox/xmin` in <object> is `nan`; expected a number"),
    "path": ("<filename>1.jpg", "<filename>../../1.jpg", "lies outside the data folder"),
}


@pytest.mark.parametrize("case", BAD_XML)
def test_bad_xml(voc_folder: Path, case: str) -> None:
    good, bad, message = BAD_XML[case]
    path = voc_folder / "Annotations" / "1.xml"
    text = path.read_text()
    assert good in text
    path.write_text(text.replace(good, bad))
    with pytest.raises(DataError, match=message):
        voc.read(voc_folder)


def test_one_pixel_outside_is_clipped(voc_folder: Path) -> None:
    path = voc_folder / "Annotations" / "1.xml"
    path.write_text(path.read_text().replace("<xmax>40<", "<xmax>41<").replace("<xmin>1<", "<xmin>0<"))
    boxes = voc.read(voc_folder)["train"].boxes
    assert boxes is not None
    assert boxes[0][[0, 2], 1:].tolist() == [[0, 0, 10, 10], [10, 5, 40, 30]]


class TestBadLists:
    def test_missing_annotation(self, voc_folder: Path) -> None:
        (voc_folder / "Annotations/4.xml").unlink()
        with pytest.raises(
            DataError, match=r"4\.xml: no such file; expected an annotation file, since a split has the id `4`"
        ):
            voc.read(voc_folder)

    def test_no_list(self, voc_folder: Path) -> None:
        for path in (voc_folder / "ImageSets/Main").iterdir():
            path.unlink()
        with pytest.raises(DataError, match=r"no list of a split; expected files such as `ImageSets/Main/train\.txt`"):
            voc.read(voc_folder)

    def test_empty_list(self, voc_folder: Path) -> None:
        (voc_folder / "ImageSets/Main/val.txt").write_text("\n")
        with pytest.raises(DataError, match=r"val\.txt: the list is empty"):
            voc.read(voc_folder)

    def test_id_outside_the_folder(self, voc_folder: Path) -> None:
        (voc_folder / "ImageSets/Main/val.txt").write_text("../../../1\n")
        with pytest.raises(DataError, match="lies outside the data folder"):
            voc.read(voc_folder)


@pytest.mark.parametrize("difficult", ["positive", "ignore", "negative"])
def test_real_labels(real_data: Path, tmp_path: Path, write_voc: Callable[..., Path], difficult) -> None:
    """Boxes of 200 real images give the labels of VOC's lists: 1 present, 0 only difficult, -1 absent."""
    path = real_data / "labels" / "voc2007_labels.npz"
    if not path.is_file():
        pytest.skip("no real VOC labels")
    real = dict(np.load(path))
    lists, objects, sizes, expected = {}, {}, {}, {}
    for split in ("trainval", "test"):
        only_difficult = np.flatnonzero((real[f"{split}_labels"] == 0).any(axis=1))
        rows = np.union1d(only_difficult[:30], np.arange(0, len(real[f"{split}_ids"]), 70))
        expected[split] = real[f"{split}_labels"][rows]
        lists[split] = [f"{real[f'{split}_ids'][row]:06d}" for row in rows]
        for row, i in zip(rows, lists[split], strict=True):
            sizes[i] = tuple(real[f"{split}_image_wh"][row])
            boxes = np.flatnonzero(real[f"{split}_box_image"] == row)
            objects[i] = [
                (real["class_names"][real[f"{split}_box_class"][k]], *real[f"{split}_box_xyxy"][k],
                 real[f"{split}_box_difficult"][k])
                for k in boxes
            ]  # fmt: skip
    splits = voc.read(write_voc(tmp_path / "VOC2007", lists, objects, sizes), difficult=difficult)
    for split, signs in expected.items():
        assert len(signs) >= 100
        assert splits[split].ids == tuple(lists[split])
        assert (splits[split].targets == ((signs >= 0) if difficult == "positive" else (signs == 1))).all()
        if difficult == "ignore":
            assert (splits[split].ignore_mask == (signs == 0)).all()
            assert (signs == 0).any()
