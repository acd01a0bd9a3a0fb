"""The data contract, and what the readers share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mlkd.data.dataset import (
    DataError,
    ImageFiles,
    ImageSubset,
    MultiLabelData,
    clip_box,
    from_objects,
    hold_out,
    present,
    standard_splits,
)


def made(ids: list[str], split: str = "train", q: int = 3) -> MultiLabelData:
    """A split of grey pictures; picture i has label i modulo q, and a box of it."""
    boxes = [np.array([[i % q, 0, 0, 4, 4]], np.float32) for i in range(len(ids))]
    images = [np.full((8, 8, 3), i % 256, np.uint8) for i in range(len(ids))]
    return from_objects("made", split, images, [f"c{k}" for k in range(q)], ids, boxes)


def counts(splits: dict[str, MultiLabelData]) -> dict[str, int]:
    return {name: len(split) for name, split in splits.items()}


class TestImageFiles:
    def test_decodes_to_rgb(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((4, 6), 77, np.uint8)).save(tmp_path / "grey.png")
        files = ImageFiles(tmp_path, ["grey.png"])
        assert len(files) == 1
        assert files[0].shape == (4, 6, 3)
        assert files[0].dtype == np.uint8
        assert (files[0] == 77).all()

    def test_smaller_jpeg(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((640, 960, 3), 50, np.uint8)).save(tmp_path / "big.jpg")
        small = ImageFiles(tmp_path, ["big.jpg"]).decode(0, size=100)
        assert small.size == (240, 160)  # a quarter; an eighth would be 120 x 80

    @pytest.mark.parametrize("path", ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd"])
    def test_outside_the_root(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(DataError, match="lies outside the data folder"):
            ImageFiles(tmp_path, [path])

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"gone\.jpg: no such image file"):
            ImageFiles(tmp_path, ["gone.jpg"])[0]

    def test_impossible_name(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such image file"):
            ImageFiles(tmp_path, ["a\0b.jpg"])[0]

    def test_no_image(self, tmp_path: Path) -> None:
        (tmp_path / "text.jpg").write_text("no picture")
        with pytest.raises(DataError, match=r"text\.jpg: .*no image"):
            ImageFiles(tmp_path, ["text.jpg"])[0]

    def test_truncated(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        for name in ("half.jpg", "half.png"):
            Image.fromarray(noise).save(tmp_path / name)
            whole = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(whole[: len(whole) // 2])
            with pytest.raises(DataError, match=f"{name}: .*truncated"):
                ImageFiles(tmp_path, [name])[0]

    def test_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "bomb.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(DataError, match=r"bomb\.png: .*exceeds limit"):
            ImageFiles(tmp_path, ["bomb.png"])[0]


class TestMultiLabelData:
    def test_subset(self) -> None:
        data = replace(made(["a", "b", "c"]), ignore_mask=np.eye(3, dtype=bool)[[1, 2, 0]])
        part = data.subset([2, 0])
        assert part.ids == ("c", "a")
        assert part.targets.tolist() == [[0, 0, 1], [1, 0, 0]]
        assert part.images[0][0, 0, 0] == 2
        assert part.boxes is not None
        assert part.boxes[0][0, 0] == 2
        assert part.ignore_mask is not None
        assert part.ignore_mask.tolist() == [[True, False, False], [False, True, False]]
        assert isinstance(part.images, ImageSubset)
        assert part.subset([1]).ids == ("a",)
        assert part.subset([1]).images[0][0, 0, 0] == 0

    def test_subset_of_files_is_files(self, tmp_path: Path) -> None:
        data = replace(made(["a", "b"]), images=ImageFiles(tmp_path, ["a.jpg", "b.jpg"]))
        images = data.subset([1]).images
        assert isinstance(images, ImageFiles)
        assert images.paths == [tmp_path.resolve() / "b.jpg"]

    def test_of_classes(self) -> None:
        """Three pictures with labels and boxes {0, 2}, {1} and {2}; of the classes 2 and 0, in that order."""
        boxes = [[[0, 0, 0, 4, 4], [2, 1, 1, 5, 5]], [[1, 0, 0, 4, 4]], [[2, 2, 2, 6, 6]]]
        objects = [np.array(found, np.float32) for found in boxes]
        images = [np.full((8, 8, 3), i, np.uint8) for i in range(3)]
        whole = from_objects("made", "train", images, ["a", "b", "c"], ["x", "y", "z"], objects)
        whole = replace(whole, ignore_mask=np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], bool))
        part = whole.select_classes([2, 0])
        assert (part.classes, part.ids, part.split) == (("c", "a"), ("x", "y", "z"), "train")
        assert part.targets.tolist() == [[1, 1], [0, 0], [1, 0]]
        assert part.targets.dtype == np.uint8
        assert part.ignore_mask is not None
        assert part.ignore_mask.tolist() == [[False, False], [False, True], [False, False]]
        assert part.boxes is not None
        assert [found.tolist() for found in part.boxes] == [[[1, 0, 0, 4, 4], [0, 1, 1, 5, 5]], [], [[0, 2, 2, 6, 6]]]
        assert [found.shape for found in part.boxes] == [(2, 5), (0, 5), (1, 5)]
        assert {found.dtype for found in part.boxes} == {np.dtype(np.float32)}
        assert part.images is whole.images
        assert list(part.check()) == []
        assert whole.boxes is not None
        assert whole.boxes[0][:, 0].tolist() == [0, 2]  # as it was
        bare = replace(whole, boxes=None, ignore_mask=None).select_classes(np.array([1]))
        assert (bare.boxes, bare.ignore_mask, bare.targets.tolist()) == (None, None, [[0], [1], [0]])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"targets": np.zeros((2, 2), np.uint8)},
                r"`targets` is uint8 \(2, 2\), expected uint8 \(3, 3\)",
            ),
            ({"targets": np.zeros((3, 3), np.float32)}, "`targets` is float32"),
            ({"images": []}, "`images` has 0 entries for 3 ids"),
            ({"boxes": []}, "`boxes` has 0 entries for 3 ids"),
            ({"ignore_mask": np.zeros((3, 3), np.uint8)}, "`ignored` is uint8"),
        ],
    )
    def test_shapes(self, change: dict, message: str) -> None:
        with pytest.raises(DataError, match=message):
            replace(made(["a", "b", "c"]), **change)


@given(
    st.tuples(*[st.floats(-5, 45, width=32)] * 4),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_clip_box(box: tuple[float, float, float, float], width: int, height: int) -> None:
    x1, y1, x2, y2 = box
    clipped = clip_box(box, width, height)
    ordered = x1 <= x2 and y1 <= y2
    if ordered and min(x1, y1) >= 0 and x2 <= width and y2 <= height:
        assert clipped == box
    elif not ordered or min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1:
        assert clipped is None
    else:
        assert clipped is not None
        assert all(abs(new - old) <= 1 for new, old in zip(clipped, box, strict=True))
        assert min(clipped) >= 0
        assert clipped[2] <= width
        assert clipped[3] <= height


def test_clip_box_nan() -> None:
    assert clip_box((0, float("nan"), 1, 1), 10, 10) is None


@given(st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=6))
def test_present_is_the_definition(classes: list[list[int]]) -> None:
    objects = [np.array([[k, 0, 0, 1, 1] for k in found], np.float32).reshape(-1, 5) for found in classes]
    expected = [[int(k in found) for k in range(5)] for found in classes]
    assert present(objects, 5).tolist() == expected


def test_object_without_area_gives_label_but_no_box() -> None:
    objects = [np.array([[0, 1, 1, 1, 5], [1, 1, 1, 3, 3]], np.float32), np.zeros((0, 5), np.float32)]
    data = from_objects("made", "train", [np.zeros((8, 8, 3), np.uint8)] * 2, ["a", "b"], ["1", "2"], objects)
    assert data.targets.tolist() == [[1, 1], [0, 0]]
    assert data.boxes is not None
    assert [len(boxes) for boxes in data.boxes] == [1, 0]
    assert list(data.check()) == []


class TestHoldOut:
    @given(st.sets(st.text("abcdef0123456789", min_size=1), min_size=2), st.integers(0, 5), st.randoms())
    def test_does_not_depend_on_the_order(self, ids: set[str], seed: int, random) -> None:
        ordered, shuffled = sorted(ids), sorted(ids)
        random.shuffle(shuffled)
        train, val = hold_out(made(ordered), 0.3, seed)
        other_train, other_val = hold_out(made(shuffled), 0.3, seed)
        assert set(train.ids) == set(other_train.ids)
        assert set(val.ids) == set(other_val.ids)
        assert set(train.ids) | set(val.ids) == ids
        assert not set(train.ids) & set(val.ids)
        assert list(train.ids) == [i for i in ordered if i in train.ids]
        assert len(val) == min(max(1, round(0.3 * len(ids))), len(ids) - 1)
        assert (train.split, val.split) == ("train", "val")

    def test_is_the_same_on_every_machine(self) -> None:
        _, val = hold_out(made([str(i) for i in range(40)]))
        assert val.ids == ("15", "20", "25", "36")
        assert hold_out(made([str(i) for i in range(40)]), seed=1)[1].ids != val.ids

    def test_rows_stay_together(self) -> None:
        data = made([str(i) for i in range(40)])
        for part in hold_out(data):
            for row, i in enumerate(part.ids):
                assert part.images[row][0, 0, 0] == int(i)
                assert part.targets[row, int(i) % 3] == 1

    def test_errors(self) -> None:
        with pytest.raises(ValueError, match=r"`fraction` is 1\.5"):
            hold_out(made(["a", "b"]), 1.5)
        with pytest.raises(DataError, match="needs at least 2"):
            hold_out(made(["a"]))


class TestStandardSplits:
    def splits(self, **counts: int) -> dict[str, MultiLabelData]:
        return {name: made([f"{name}{i}" for i in range(n)], name) for name, n in counts.items()}

    def test_complete_ones_stay(self) -> None:
        splits = self.splits(test=2, shifted=2, train=5, val=2)
        assert standard_splits(splits) == splits
        assert list(standard_splits(splits)) == ["train", "val", "test", "shifted"]

    def test_val_is_scored_on_where_there_is_no_test(self) -> None:
        result = standard_splits(self.splits(train=20, val=4, trainval=24))
        assert counts(result) == {"train": 18, "val": 2, "test": 4, "trainval": 20}
        assert all(split.split == name for name, split in result.items())
        assert result["test"].ids[0] == "val0"
        assert set(result["trainval"].ids) == set(result["train"].ids) | set(result["val"].ids)

    def test_only_trainval_and_test(self) -> None:
        result = standard_splits(self.splits(trainval=20, test=4))
        assert counts(result) == {"train": 18, "val": 2, "test": 4, "trainval": 20}

    def test_nothing_to_train_or_score_on(self) -> None:
        with pytest.raises(DataError, match="no split to train on; found test"):
            standard_splits(self.splits(test=2))
        with pytest.raises(DataError, match="no split to score on; found train"):
            standard_splits(self.splits(train=2))


class TestRelativeBoxes:
    def test_shares_of_the_picture_s_own_sides(self) -> None:
        images = [np.zeros((10, 40, 3), np.uint8), np.zeros((20, 5, 3), np.uint8)]
        boxes = [np.array([[1, 10, 0, 40, 5]], np.float32), np.zeros((0, 5), np.float32)]
        targets = np.array([[0, 1], [0, 0]], np.uint8)
        data = MultiLabelData("made", "test", images, targets, ("a", "b"), ("x", "y"), boxes)
        assert data.normalized_boxes(0).tolist() == [[1, 0.25, 0, 1, 0.5]]
        assert data.normalized_boxes(1).shape == (0, 5)

    def test_size_of_a_file_is_read_from_its_head(self, tmp_path: Path) -> None:
        Image.new("RGB", (40, 10)).save(tmp_path / "a.png")
        (tmp_path / "b.png").write_bytes(b"no picture")
        files = ImageFiles(tmp_path, ["a.png", "b.png", "c.png"])
        boxes = [np.array([[0, 0, 5, 20, 10]], np.float32)] * 3
        data = MultiLabelData("made", "test", files, np.ones((3, 1), np.uint8), ("a",), ("a", "b", "c"), boxes)
        assert data.normalized_boxes(0).tolist() == [[0, 0, 0.5, 0.5, 1]]
        with pytest.raises(DataError, match=r"b\.png: the image is truncated"):
            data.normalized_boxes(1)
        with pytest.raises(DataError, match=r"c\.png: no such image"):
            data.normalized_boxes(2)

    def test_no_boxes(self) -> None:
        data = MultiLabelData("made", "test", [np.zeros((4, 4, 3))], np.ones((1, 1), np.uint8), ("a",), ("x",))
        with pytest.raises(DataError, match="made test: this data set has no boxes"):
            data.normalized_boxes(0)
