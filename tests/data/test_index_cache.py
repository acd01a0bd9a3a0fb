"""The index cache: equal to what the reader returned, and only used if nothing has changed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlkd.data import ImageFiles, MultiLabelData, cached_index, index_cache, load_data
from mlkd.data.images import parent_images
from mlkd.data.readers import coco, voc

Splits = dict[str, MultiLabelData]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder. The code counts as unchanged, even if it was installed a moment ago."""
    monkeypatch.setenv("MLKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index_cache, "_code_files", lambda read: [])
    return tmp_path / "cache" / "index"


def age(folder: Path, seconds: int = 3600) -> Path:
    """Gives a folder, and everything in it, an old modification time."""
    modified = time.time() - seconds
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (modified, modified))
    return folder


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The annotation files that were parsed, once per parsing."""
    files: list[Path] = []
    original = coco._read_json

    def counted(path: Path) -> dict[str, Any]:
        files.append(path)
        return original(path)

    monkeypatch.setattr(coco, "_read_json", counted)
    return files


def assert_equal(splits: Splits, expected: Splits) -> None:
    assert list(splits) == list(expected)
    for name, data in splits.items():
        other = expected[name]
        for field in ("name", "split", "classes", "ids"):
            assert getattr(data, field) == getattr(other, field)
        assert data.targets.dtype == other.targets.dtype
        assert np.array_equal(data.targets, other.targets)
        assert (data.ignore_mask is None) == (other.ignore_mask is None)
        if data.ignore_mask is not None:
            assert data.ignore_mask.dtype == bool
            assert np.array_equal(data.ignore_mask, other.ignore_mask)
        assert (data.boxes is None) == (other.boxes is None)
        for boxes, other_boxes in zip(data.boxes or (), other.boxes or (), strict=True):
            assert (boxes.dtype, boxes.shape) == (other_boxes.dtype, other_boxes.shape)
            assert np.array_equal(boxes, other_boxes)
        assert isinstance(data.images, ImageFiles)
        assert (data.images.root, data.images.names) == (other.images.root, other.images.names)
        (parent, rows), (other_parent, other_rows) = parent_images(data.images), parent_images(other.images)
        assert np.array_equal(rows, other_rows)
        assert parent.names == other_parent.names


@pytest.mark.parametrize("options", ["", "?difficult=ignore", "?difficult=negative"])
def test_voc(voc_folder: Path, monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    age(voc_folder)
    address = f"voc:{voc_folder.parent}{options}"
    expected = load_data(address)
    monkeypatch.delattr(voc, "_read_xml")
    assert_equal(load_data(address), expected)


def test_coco(coco_folder: Path, parsed: list[Path]) -> None:
    """The training split that holds out `val` still shares the decoded images of `trainval`."""
    age(coco_folder)
    expected = coco.read(coco_folder)
    assert len(parsed) == 2
    for _ in range(2):
        splits = coco.read(coco_folder)
        assert_equal(splits, expected)
        for name in ("train", "val"):
            assert parent_images(splits[name].images)[0] is splits["trainval"].images
    assert len(parsed) == 2
    assert splits["test"].images[0].shape == (30, 40, 3)


def test_each_option_has_a_file(coco_folder: Path, cache: Path) -> None:
    age(coco_folder)
    for _ in range(2):
        assert len(coco.read(coco_folder)["test"]) == 2
        assert len(coco.read(coco_folder, unlabeled="keep")["test"]) == 3
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("change", ["size", "time", "new file", "folder of images"])
def test_changed_file(
    coco_folder: Path, cache: Path, parsed: list[Path], write_coco: Callable[..., Path], change: str
) -> None:
    age(coco_folder)
    coco.read(coco_folder)
    path = coco_folder / "annotations" / "instances_val2014.json"
    status = path.stat()
    if change == "size":
        path.write_text(path.read_text() + "\n")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "time":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    elif change == "new file":
        write_coco(coco_folder, "test2014", {"t.jpg": [(2, 0, 0, 10, 10)]})
        age(coco_folder / "annotations" / "instances_test2014.json")
        age(coco_folder / "test2014")
    else:
        shutil.move(coco_folder / "val2014", coco_folder / "images" / "val2014")
    splits = coco.read(coco_folder)
    assert len(parsed) == (5 if change == "new file" else 4)
    assert splits["test"].images[0].shape == (30, 40, 3)
    assert len(list(cache.iterdir())) == 1


def test_changed_code(coco_folder: Path, tmp_path: Path, parsed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "reader.py"
    code.write_text("")
    age(tmp_path)
    monkeypatch.setattr(index_cache, "_code_files", lambda read: [code])
    for expected, content in ((2, ""), (4, "changed")):
        code.write_text(content)
        age(tmp_path)
        coco.read(coco_folder)
        coco.read(coco_folder)
        assert len(parsed) == expected


def test_code_of_the_readers_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    files = index_cache._code_files(coco.read)
    assert {Path(coco.__file__), Path(index_cache.__file__)} <= set(files)


def test_recently_changed_file_is_not_cached(coco_folder: Path, cache: Path, parsed: list[Path]) -> None:
    """It could change again within the resolution of modification times."""
    age(coco_folder)
    os.utime(coco_folder / "annotations" / "instances_val2014.json")
    for _ in range(2):
        coco.read(coco_folder)
    assert len(parsed) == 4
    assert not cache.exists()


def test_file_that_changes_while_it_is_read_is_not_cached(
    coco_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(coco_folder)
    original = coco._read_json

    def change_after_reading(path: Path) -> dict[str, Any]:
        content = original(path)
        path.write_text(path.read_text() + " ")
        age(coco_folder)
        return content

    monkeypatch.setattr(coco, "_read_json", change_after_reading)
    coco.read(coco_folder)
    assert not cache.exists()


def test_damaged_cache_is_replaced(coco_folder: Path, cache: Path, parsed: list[Path]) -> None:
    """Cut or changed at many places: the splits are those of the label files, read again or not."""
    age(coco_folder)
    expected = coco.read(coco_folder)
    (file,) = cache.iterdir()
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [content[: len(content) * k // 10] for k in range(10)]
    for position in rng.integers(len(content), size=40):
        damaged.append(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
    replaced = 0
    for variant in damaged:
        file.write_bytes(variant)
        before = len(parsed)
        assert_equal(coco.read(coco_folder), expected)
        if len(parsed) > before:
            replaced += 1
            assert file.read_bytes() == content
    assert replaced > 20


def test_cache_that_cannot_be_written(coco_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLKD_CACHE", str(tmp_path / "file"))
    age(coco_folder)
    for _ in range(2):
        assert len(coco.read(coco_folder)["test"]) == 2


def test_names_with_special_characters(tmp_path: Path) -> None:
    """Ids may be empty, or contain line breaks or half of a surrogate pair."""
    labels = tmp_path / "labels.txt"
    labels.write_text("")
    age(tmp_path)
    calls = []

    @cached_index(lambda root: [root / "labels.txt"])
    def read(root: Path) -> Splits:
        calls.append(root)
        names = ["", "a\nb", "\ud800", "ä b"]
        images = ImageFiles(root, [f"{name}.jpg" for name in names])
        return {"test": MultiLabelData("toy", "test", images, np.ones((4, 1), np.uint8), ("x\ny",), tuple(names))}

    expected = read(tmp_path)
    assert_equal(read(tmp_path), expected)
    assert len(calls) == 1


def test_images_in_memory_are_not_cached(tmp_path: Path, cache: Path) -> None:
    @cached_index(lambda root: [])
    def read(root: Path) -> Splits:
        images = [np.zeros((2, 2, 3), np.uint8)]
        return {"test": MultiLabelData("toy", "test", images, np.ones((1, 1), np.uint8), ("x",), ("1",))}

    assert len(read(tmp_path)["test"]) == 1
    assert not cache.exists()
