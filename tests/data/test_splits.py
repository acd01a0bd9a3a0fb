"""A held-out validation split, the standard splits, and training on all of them as in the papers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlkd.data import DataError, ImageFiles, MultiLabelData, hold_out, standard_splits
from mlkd.data.splits import train_on_trainval
from mlkd.data.subset import frequent_labels


def data(ids: list[str], split: str = "train") -> MultiLabelData:
    """Gray images; image i has the value i and the label i modulo 3."""
    images = [np.full((8, 8, 3), i % 256, np.uint8) for i in range(len(ids))]
    targets = np.eye(3, dtype=np.uint8)[[i % 3 for i in range(len(ids))]]
    return MultiLabelData("toy", split, images, targets, ("c0", "c1", "c2"), tuple(ids))


def splits(**counts: int) -> dict[str, MultiLabelData]:
    return {name: data([f"{name}{i}" for i in range(n)], name) for name, n in counts.items()}


def counts(splits: dict[str, MultiLabelData]) -> dict[str, int]:
    return {name: len(split) for name, split in splits.items()}


class TestHoldOut:
    @given(st.sets(st.text("abcdef0123456789", min_size=1), min_size=2), st.integers(0, 5), st.randoms())
    def test_partition_does_not_depend_on_the_order(self, ids: set[str], seed: int, random) -> None:
        ordered, shuffled = sorted(ids), sorted(ids)
        random.shuffle(shuffled)
        train, val = hold_out(data(ordered), 0.3, seed)
        other_train, other_val = hold_out(data(shuffled), 0.3, seed)
        assert set(train.ids) == set(other_train.ids)
        assert set(val.ids) == set(other_val.ids)
        assert set(train.ids) | set(val.ids) == ids
        assert not set(train.ids) & set(val.ids)
        assert list(train.ids) == [i for i in ordered if i in train.ids]
        assert len(val) == min(max(1, round(0.3 * len(ids))), len(ids) - 1)
        assert (train.split, val.split) == ("train", "val")

    def test_same_on_every_machine(self) -> None:
        ids = [str(i) for i in range(40)]
        assert hold_out(data(ids))[1].ids == ("15", "20", "25", "36")
        assert hold_out(data(ids), seed=1)[1].ids != ("15", "20", "25", "36")

    def test_images_keep_their_targets(self) -> None:
        for split in hold_out(data([str(i) for i in range(40)])):
            for index, i in enumerate(split.ids):
                assert split.images[index][0, 0, 0] == int(i)
                assert split.targets[index, int(i) % 3] == 1

    def test_errors(self) -> None:
        with pytest.raises(ValueError, match=r"`fraction` is 1\.5"):
            hold_out(data(["a", "b"]), 1.5)
        with pytest.raises(DataError, match="needs at least 2"):
            hold_out(data(["a"]))


class TestStandardSplits:
    def test_complete_splits_are_unchanged(self) -> None:
        complete = splits(test=2, shifted=2, train=5, val=2)
        assert standard_splits(complete) == complete
        assert list(standard_splits(complete)) == ["train", "val", "test", "shifted"]

    def test_val_becomes_test_if_there_is_no_test(self) -> None:
        result = standard_splits(splits(train=20, val=4, trainval=24))
        assert counts(result) == {"train": 18, "val": 2, "test": 4, "trainval": 20}
        assert all(split.split == name for name, split in result.items())
        assert result["test"].ids[0] == "val0"
        assert set(result["trainval"].ids) == set(result["train"].ids) | set(result["val"].ids)

    def test_only_trainval_and_test(self) -> None:
        result = standard_splits(splits(trainval=20, test=4))
        assert counts(result) == {"train": 18, "val": 2, "test": 4, "trainval": 20}

    def test_errors(self) -> None:
        with pytest.raises(DataError, match="no split to train on; the splits are test"):
            standard_splits(splits(test=2))
        with pytest.raises(DataError, match="no split to evaluate on; the splits are train"):
            standard_splits(splits(train=2))


class TestTrainOnTrainval:
    def test_trainval_is_the_training_split(self) -> None:
        standard = standard_splits(splits(train=20, test=4, shifted=2))
        result = train_on_trainval(standard)
        assert counts(result) == {"train": 20, "test": 4, "shifted": 2}
        assert result["train"] == replace(standard["trainval"], split="train")

    def test_train_and_val_are_concatenated_without_trainval(self) -> None:
        parts = splits(train=3, val=2, test=1)
        mask = np.zeros((3, 3), bool)
        mask[0, 1] = True
        boxes = [np.full((1, 5), float(index), np.float32) for index in range(5)]
        parts["train"] = replace(parts["train"], ignore_mask=mask, boxes=boxes[:3])
        parts["val"] = replace(parts["val"], ignore_mask=~mask[:2] & False, boxes=boxes[3:])
        train = train_on_trainval(parts)["train"]
        assert (train.split, train.ids) == ("train", ("train0", "train1", "train2", "val0", "val1"))
        assert [int(train.images[index][0, 0, 0]) for index in range(5)] == [0, 1, 2, 0, 1]
        assert train.targets.argmax(axis=1).tolist() == [0, 1, 2, 0, 1]
        assert train.boxes is not None
        assert all(a is b for a, b in zip(train.boxes, boxes, strict=True))
        assert train.ignore_mask is not None
        assert np.argwhere(train.ignore_mask).tolist() == [[0, 1]]

    def test_image_files_stay_files(self, tmp_path: Path) -> None:
        parts = splits(train=2, val=1, test=1)
        parts["train"] = replace(parts["train"], images=ImageFiles(tmp_path / "a", ["0.jpg", "1.jpg"]))
        parts["val"] = replace(parts["val"], images=ImageFiles(tmp_path / "b", ["0.jpg"]))
        images = train_on_trainval(parts)["train"].images
        assert isinstance(images, ImageFiles)
        expected = [tmp_path / "a" / "0.jpg", tmp_path / "a" / "1.jpg", tmp_path / "b" / "0.jpg"]
        assert [images.path(index) for index in range(len(images))] == expected


def test_frequent_labels_keep_all_images_and_the_order_of_the_classes() -> None:
    targets = np.array([[0, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1]], np.uint8)
    images = np.zeros((3, 4, 4, 3), np.uint8)
    train = MultiLabelData("d", "train", images, targets, ("a", "b", "c", "d"), ("1", "2", "3"))
    test = replace(train, split="test", targets=1 - targets)
    splits = frequent_labels({"train": train, "test": test}, 2)
    assert splits["train"].classes == splits["test"].classes == ("b", "d")
    assert splits["train"].targets.tolist() == targets[:, [1, 3]].tolist()
    assert splits["test"].targets.tolist() == (1 - targets[:, [1, 3]]).tolist()
    assert frequent_labels({"train": train}, 3)["train"].classes == ("a", "b", "d")  # a before c, as frequent
    assert frequent_labels({"train": train}, 9)["train"].classes == train.classes
