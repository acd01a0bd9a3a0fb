"""The drawn scenes: the same everywhere, boxes that fit, labels as promised, a VOC folder that reads back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from defusedxml import ElementTree
from PIL import Image

from mlkd import scenes
from mlkd.scenes import CLASSES, compose, draw, files

# sha256 of pixels and boxes of the first 20 pictures of each split. If it changes, the pictures have changed:
# raise `VERSION`, so that nobody's cached folder and nobody's published number silently means another data set.
SHA256 = {
    "train": "a7e798eb750abe89aabe9ab4ed147a4d261de6173fd5c94bfba44c471dd7f825",
    "val": "25d3a2c9476a18e1effca026390b26c440d59006f1be5e1ba3e9bde24dc8ddde",
    "test": "b5a146ec4c74b328a9d143566beb5d8cc8306ac4533d97480721dd2a41b865c1",
    "context_shift": "3f9b4aeec1ab8ac7dfbd1553ff6e43cf9a2fba94b5abb97c21a6f306d1d9e63b",
}
SMALL = {"train": 6, "test": 3, "context_shift": 3}


@pytest.mark.parametrize("split", SHA256)
def test_the_pictures_never_change(split: str) -> None:
    digest = hashlib.sha256()
    for index in range(20):
        drawing = draw(0, split, index)
        digest.update(drawing.pixels.tobytes() + drawing.boxes.astype("<f4").tobytes())
    assert digest.hexdigest() == SHA256[split]


def test_a_picture_depends_on_all_its_arguments_and_on_nothing_else() -> None:
    first = draw(0, "train", 3)
    assert np.array_equal(first.pixels, draw(0, "train", 3).pixels)
    for other in (draw(1, "train", 3), draw(0, "val", 3), draw(0, "train", 4)):
        assert not np.array_equal(first.pixels, other.pixels)
    assert draw(0, "train", 3, size=40).pixels.shape == (40, 40, 3)


@pytest.mark.parametrize("split", ["train", "context_shift"])
def test_boxes_lie_within_the_picture_and_are_not_empty(split: str) -> None:
    for index in range(100):
        pixels, boxes, truncated, place = draw(5, split, index, size=64)
        assert (pixels.dtype, pixels.shape) == (np.uint8, (64, 64, 3))
        assert (boxes.dtype, truncated.shape) == (np.float32, (len(boxes),))
        assert len(boxes) > 0
        assert place in scenes.compose.PLACES
        kind, x1, y1, x2, y2 = boxes.T
        assert set(kind) <= set(range(len(CLASSES)))
        assert ((x1 >= 0) & (x1 < x2) & (x2 <= 64) & (y1 >= 0) & (y1 < y2) & (y2 <= 64)).all()
        assert np.array_equal(boxes, np.round(boxes))


def test_a_hidden_object_is_no_label_and_a_partly_hidden_one_is_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    actors = [
        compose._Actor("apple", 0.5, 0.8, 0.2, 0.2),  # behind the bus
        compose._Actor("dog", 0.22, 0.75, 0.4, 0.3),  # half behind the bus
        compose._Actor("cat", 0.9, 0.3, 0.4, 0.2),  # half out of the picture
        compose._Actor("bus", 0.6, 0.9, 0.7, 0.5),
        compose._Actor("cup", 0.1, 0.95, 0.1, 0.1),
    ]
    monkeypatch.setattr(compose, "cast", lambda dice: ("street", []))
    monkeypatch.setattr(compose, "_stage", lambda dice, place, names: actors)
    for index in range(5):
        _, boxes, truncated, _ = draw(0, "train", index)
        found = dict(zip((CLASSES[int(k)] for k in boxes[:, 0]), truncated.tolist(), strict=True))
        assert found == {"dog": True, "cat": True, "bus": False, "cup": False}
        assert boxes[1, 3] == 96  # the cat's box ends where the picture does


@pytest.fixture(scope="module")
def labels() -> Iterator[dict[str, np.ndarray]]:
    """The labels of many pictures, drawn without the fine canvas, which moves an edge by a pixel at most."""

    def first(split: str, count: int) -> np.ndarray:
        found = np.zeros((count, len(CLASSES)), bool)
        for row, index in zip(found, range(count), strict=True):
            row[draw(0, split, index).boxes[:, 0].astype(int)] = True
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "FINE", 1)
        yield {"train": first("train", 900), "context_shift": first("context_shift", 600)}


def test_labels_are_as_many_as_promised(labels: dict[str, np.ndarray]) -> None:
    assert len(CLASSES) == 20
    for found in labels.values():
        assert found.any(0).all()  # every class occurs
        assert 2.5 < found.sum(1).mean() < 3.5
        assert found.sum(1).min() >= 1
    frequency = labels["train"].mean(0)
    assert frequency.argmax() == CLASSES.index("person")
    assert sum(frequency < 0.03) >= 3  # some classes are rare
    shifted = labels["context_shift"].mean(0)
    counts = 1 / len(labels["train"]) + 1 / len(labels["context_shift"])
    error = np.sqrt((frequency * (1 - frequency) + shifted * (1 - shifted)) / 2 * counts)
    assert (np.abs(shifted - frequency) < 4 * error).all()  # four standard errors of so small a sample


def test_companions_come_together_but_not_when_the_context_is_shifted(labels: dict[str, np.ndarray]) -> None:
    def lift(split: str, first: str, second: str) -> float:
        """How many times more probable the second class is where the first one is."""
        one, other = (labels[split][:, CLASSES.index(name)] for name in (first, second))
        return other[one].mean() / other.mean()

    assert lift("train", "laptop", "mouse") > 3
    assert lift("train", "car", "traffic light") > 1.6
    assert lift("train", "car", "bowl") < 0.75
    assert 0.4 < lift("context_shift", "laptop", "mouse") < 1.6
    assert 0.4 < lift("context_shift", "car", "traffic light") < 1.6


def test_the_written_folder_reads_back(tmp_path: Path) -> None:
    root = scenes.write(tmp_path / "scenes", seed=7, size=48, splits=SMALL)
    number = 0
    for split, count in SMALL.items():
        ids = (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
        assert ids == [f"{number + k + 1:06d}" for k in range(count)]
        number += count
        present = {name: set() for name in CLASSES}
        for index, name in enumerate(ids):
            drawing = draw(7, split, index, size=48)
            tree = ElementTree.parse(root / "Annotations" / f"{name}.xml")
            assert tree.findtext("filename") == f"{name}.jpg"
            assert [int(tree.findtext(f"size/{k}")) for k in ("width", "height", "depth")] == [48, 48, 3]
            boxes = []
            for thing in tree.findall("object"):
                present[thing.findtext("name")].add(name)
                xmin, ymin, xmax, ymax = (int(thing.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax"))
                boxes.append([CLASSES.index(thing.findtext("name")), xmin - 1, ymin - 1, xmax, ymax])
            assert np.array_equal(np.array(boxes, np.float32), drawing.boxes)
            truncated = [thing.findtext("truncated") == "1" for thing in tree.findall("object")]
            assert truncated == drawing.truncated.tolist()
            with Image.open(root / "JPEGImages" / f"{name}.jpg") as picture:
                error = np.abs(np.asarray(picture).astype(int) - drawing.pixels)
            assert error.mean() < 5  # JPEG keeps the picture, but for some of its noise
        for label in CLASSES:
            lines = (root / "ImageSets" / "Main" / f"{label}_{split}.txt").read_text().splitlines()
            assert lines == [f"{name} {' 1' if name in present[label] else '-1'}" for name in ids]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: tuple[str, str, int], **_: object) -> frozenset[int]:
        if job[0] == "000004":
            raise KeyboardInterrupt
        return whole(job, **_)

    whole = files._write_picture
    monkeypatch.setattr(files, "_write_picture", fail)
    with pytest.raises(KeyboardInterrupt):
        scenes.write(tmp_path / "scenes", size=32, splits=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        scenes.write(tmp_path, splits=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_cached_folder_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def write(root: Path, seed: int, size: int) -> Path:
        calls.append((seed, size))
        return whole(root, seed, size, SMALL)

    whole = files.write
    monkeypatch.setattr(files, "write", write)
    monkeypatch.setenv("MLKD_CACHE", str(tmp_path))
    root = scenes.folder(seed=2, size=32)
    assert root == tmp_path / f"scenes-v{scenes.VERSION}-s2-32"
    assert scenes.folder(seed=2, size=32) == root
    assert calls == [(2, 32)]
    assert (root / "ImageSets" / "Main" / "test.txt").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [root.name]
