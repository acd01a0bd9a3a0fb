"""The synthetic scenes: same images everywhere, valid boxes, label statistics, a VOC folder that reads back."""

from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from defusedxml import ElementTree
from PIL import Image

from mlkd import scenes
from mlkd.scenes import CLASSES, compose, draw_scene, files

# sha256 of pixels and boxes of the first 20 images of each split. If it changes, the images have changed: increase
# `VERSION`, so that cached folders and published numbers do not silently refer to another data set.
SHA256 = {
    "train": "a7e798eb750abe89aabe9ab4ed147a4d261de6173fd5c94bfba44c471dd7f825",
    "val": "25d3a2c9476a18e1effca026390b26c440d59006f1be5e1ba3e9bde24dc8ddde",
    "test": "b5a146ec4c74b328a9d143566beb5d8cc8306ac4533d97480721dd2a41b865c1",
    "context_shift": "3f9b4aeec1ab8ac7dfbd1553ff6e43cf9a2fba94b5abb97c21a6f306d1d9e63b",
}
SMALL = {"train": 6, "test": 3, "context_shift": 3}


@pytest.mark.parametrize("split", SHA256)
def test_images_never_change(split: str) -> None:
    digest = hashlib.sha256()
    for index in range(20):
        scene = draw_scene(0, split, index)
        digest.update(scene.pixels.tobytes() + scene.boxes.astype("<f4").tobytes())
    assert digest.hexdigest() == SHA256[split]


def test_image_is_a_function_of_its_arguments() -> None:
    first = draw_scene(0, "train", 3)
    assert np.array_equal(first.pixels, draw_scene(0, "train", 3).pixels)
    for other in (draw_scene(1, "train", 3), draw_scene(0, "val", 3), draw_scene(0, "train", 4)):
        assert not np.array_equal(first.pixels, other.pixels)
    assert draw_scene(0, "train", 3, size=40).pixels.shape == (40, 40, 3)


@pytest.mark.parametrize("split", ["train", "context_shift"])
def test_boxes_are_valid(split: str) -> None:
    for index in range(100):
        pixels, boxes, truncated, layout = draw_scene(5, split, index, size=64)
        assert (pixels.dtype, pixels.shape) == (np.uint8, (64, 64, 3))
        assert (boxes.dtype, truncated.shape) == (np.float32, (len(boxes),))
        assert len(boxes) > 0
        assert layout in compose.LAYOUTS
        kind, x1, y1, x2, y2 = boxes.T
        assert set(kind) <= set(range(len(CLASSES)))
        assert ((x1 >= 0) & (x1 < x2) & (x2 <= 64) & (y1 >= 0) & (y1 < y2) & (y2 <= 64)).all()
        assert np.array_equal(boxes, np.round(boxes))


def test_hidden_object_is_absent_and_partly_hidden_object_is_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [
        compose._Object("apple", 0.5, 0.8, 0.2, 0.2),  # behind the bus
        compose._Object("dog", 0.22, 0.75, 0.4, 0.3),  # half behind the bus
        compose._Object("cat", 0.9, 0.3, 0.4, 0.2),  # half outside the image
        compose._Object("bus", 0.6, 0.9, 0.7, 0.5),
        compose._Object("cup", 0.1, 0.95, 0.1, 0.1),
    ]
    monkeypatch.setattr(compose, "sample_classes", lambda rng: ("street", []))
    monkeypatch.setattr(compose, "_place_objects", lambda rng, layout, names: objects)
    for index in range(5):
        _, boxes, truncated, _ = draw_scene(0, "train", index)
        by_class = dict(zip((CLASSES[int(k)] for k in boxes[:, 0]), truncated.tolist(), strict=True))
        assert by_class == {"dog": True, "cat": True, "bus": False, "cup": False}
        assert boxes[1, 3] == 96  # the cat's box ends at the border of the image


@pytest.fixture(scope="module")
def labels() -> Iterator[dict[str, np.ndarray]]:
    """The labels of many images, drawn at a coarse scale, which moves an edge by a pixel at most."""

    def first(split: str, count: int) -> np.ndarray:
        targets = np.zeros((count, len(CLASSES)), bool)
        for index, row in enumerate(targets):
            row[draw_scene(0, split, index).boxes[:, 0].astype(int)] = True
        return targets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "SCALE", 1)
        yield {"train": first("train", 900), "context_shift": first("context_shift", 600)}


def test_label_frequencies(labels: dict[str, np.ndarray]) -> None:
    assert len(CLASSES) == 20
    for targets in labels.values():
        assert targets.any(0).all()  # every class occurs
        assert 2.5 < targets.sum(1).mean() < 3.5
        assert targets.sum(1).min() >= 1
    frequency = labels["train"].mean(0)
    assert frequency.argmax() == CLASSES.index("person")
    assert sum(frequency < 0.03) >= 3  # some classes are rare
    shifted = labels["context_shift"].mean(0)
    counts = 1 / len(labels["train"]) + 1 / len(labels["context_shift"])
    error = np.sqrt((frequency * (1 - frequency) + shifted * (1 - shifted)) / 2 * counts)
    assert (np.abs(shifted - frequency) < 4 * error).all()  # four standard errors


def test_labels_co_occur_except_in_context_shift(labels: dict[str, np.ndarray]) -> None:
    def lift(split: str, first: str, second: str) -> float:
        """P(second | first) / P(second)."""
        first_present, second_present = (labels[split][:, CLASSES.index(name)] for name in (first, second))
        return second_present[first_present].mean() / second_present.mean()

    assert lift("train", "laptop", "mouse") > 3
    assert lift("train", "car", "traffic light") > 1.6
    assert lift("train", "car", "bowl") < 0.75
    assert 0.4 < lift("context_shift", "laptop", "mouse") < 1.6
    assert 0.4 < lift("context_shift", "car", "traffic light") < 1.6


def test_written_folder_reads_back(tmp_path: Path) -> None:
    root = scenes.write(tmp_path / "scenes", seed=7, size=48, splits=SMALL)
    number = 0
    for split, count in SMALL.items():
        ids = (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
        assert ids == [f"{number + k + 1:06d}" for k in range(count)]
        number += count
        present = {name: set() for name in CLASSES}
        for index, name in enumerate(ids):
            scene = draw_scene(7, split, index, size=48)
            tree = ElementTree.parse(root / "Annotations" / f"{name}.xml")
            assert tree.findtext("filename") == f"{name}.jpg"
            assert [int(tree.findtext(f"size/{k}")) for k in ("width", "height", "depth")] == [48, 48, 3]
            boxes = []
            for element in tree.findall("object"):
                present[element.findtext("name")].add(name)
                x1, y1, x2, y2 = (int(element.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax"))
                boxes.append([CLASSES.index(element.findtext("name")), x1 - 1, y1 - 1, x2, y2])
            assert np.array_equal(np.array(boxes, np.float32), scene.boxes)
            truncated = [element.findtext("truncated") == "1" for element in tree.findall("object")]
            assert truncated == scene.truncated.tolist()
            with Image.open(root / "JPEGImages" / f"{name}.jpg") as image:
                error = np.abs(np.asarray(image).astype(int) - scene.pixels)
            assert error.mean() < 5  # JPEG changes the noise only
        for label in CLASSES:
            lines = (root / "ImageSets" / "Main" / f"{label}_{split}.txt").read_text().splitlines()
            assert lines == [f"{name} {' 1' if name in present[label] else '-1'}" for name in ids]


def test_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: tuple[str, str, int], **_: object) -> frozenset[int]:
        if job[0] == "000004":
            raise KeyboardInterrupt
        return original(job, **_)

    original = files._write_image
    monkeypatch.setattr(files, "_write_image", fail)
    with pytest.raises(KeyboardInterrupt):
        scenes.write(tmp_path / "scenes", size=32, splits=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_folder_with_files_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(FileExistsError, match="exists already"):
        scenes.write(tmp_path, splits=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_package_imports_nothing_else_of_mlkd() -> None:
    script = "import sys, mlkd.scenes; print(sorted(name for name in sys.modules if name.startswith('mlkd.')))"
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(name.startswith("mlkd.scenes") for name in ast.literal_eval(process.stdout))
