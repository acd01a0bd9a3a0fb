"""Decoded images: correct, decoded once, decoded again if a file changes, complete or absent."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlkd.data import DataError, ImageFiles, MultiLabelData, image_cache
from mlkd.data.image_cache import decoded_images

SHAPES = ((20, 31), (9, 9), (8, 8), (40, 16))  # height, width


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The index of each image, once per decoding."""
    indices: list[int] = []
    original = image_cache.resized_image

    def counted(images, index, size):
        indices.append(index)
        return original(images, index, size)

    monkeypatch.setattr(image_cache, "resized_image", counted)
    return indices


def in_memory() -> MultiLabelData:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    ids = tuple(str(k) for k in range(len(SHAPES)))
    return MultiLabelData("toy", "train", images, np.eye(4, dtype=np.uint8), ("a", "b", "c", "d"), ids)


def in_files(folder: Path, suffix: str = "png") -> MultiLabelData:
    data = in_memory()
    folder.mkdir(exist_ok=True)
    for k in range(len(data)):
        Image.fromarray(data.images[k]).save(folder / f"{k}.{suffix}")
    return replace(data, images=ImageFiles(folder, [f"{k}.{suffix}" for k in range(len(data))]))


def resized(image: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("size", [8, 13])
def test_each_image_is_resized(tmp_path: Path, size: int) -> None:
    plain = in_memory()
    for data in (plain, in_files(tmp_path / "png"), in_files(tmp_path / "bmp", "bmp")):
        images = decoded_images(data, size)
        assert len(images) == 4
        assert images[:].shape == (4, size, size, 3)
        assert images[:].dtype == np.uint8
        for k in range(4):
            assert np.array_equal(images[k], resized(plain.images[k], size))
    assert np.array_equal(decoded_images(plain, 8)[2], plain.images[2])  # has that size already


def test_jpeg_decoded_at_reduced_size_is_close(tmp_path: Path) -> None:
    """A large JPEG is decoded at a fraction of its size: nearly the same image."""
    shade = np.linspace(0, 255, 640)
    image = np.stack(np.broadcast_arrays(shade[:480, None], shade[None], 100.0), axis=-1).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "large.jpg", quality=95)
    data = replace(in_memory().subset([0]), images=ImageFiles(tmp_path, ["large.jpg"]))
    difference = np.abs(decoded_images(data, 48)[0].astype(int) - resized(image, 48))
    assert difference.mean() < 2
    assert difference.max() < 16


def test_memory_map_is_read_only(cache: Path) -> None:
    images = decoded_images(in_memory(), 8)
    assert isinstance(images.table, np.memmap)
    assert not images.table.flags.writeable
    (file,) = (cache / "pixels").iterdir()
    assert Path(images.table.filename) == file
    assert file.suffix == ".npy"


@pytest.mark.parametrize("kind", ["files", "memory"])
def test_decoded_once(tmp_path: Path, decodings: list[int], kind: str) -> None:
    data = in_memory() if kind == "memory" else in_files(tmp_path / "png")
    first = decoded_images(data, 8)
    assert sorted(decodings) == [0, 1, 2, 3]
    relabeled = replace(data, name="other", split="test", targets=1 - data.targets)
    for again in (data, relabeled):
        assert np.array_equal(decoded_images(again, 8)[:], first[:])
    assert len(decodings) == 4


def test_each_size_has_a_map(cache: Path, decodings: list[int]) -> None:
    data = in_memory()
    decoded_images(data, 8)
    assert decoded_images(data, 9)[:].shape == (4, 9, 9, 3)
    assert len(decodings) == 4 + 4
    assert len(list((cache / "pixels").iterdir())) == 2


@pytest.mark.parametrize("kind", ["files", "memory"])
@pytest.mark.parametrize("first", ["subset", "full"])
def test_subset_uses_the_map_of_the_full_split(
    tmp_path: Path, cache: Path, decodings: list[int], kind: str, first: str
) -> None:
    """So does a subset of a subset and one with selected classes, whichever is decoded first."""
    data = in_memory() if kind == "memory" else in_files(tmp_path / "png")
    subset = data.subset([3, 1, 0])
    subsets = {
        (3, 1, 0): subset,
        (0, 3): subset.select_classes([2, 1]).subset([2, 0]),
        (1, 1): subset.subset([1]).subset([0, 0]),
    }
    all_images = [resized(image, 8) for image in in_memory().images]
    for split in (data, subset) if first == "full" else (subset, data):
        decoded_images(split, 8)
    for rows, split in subsets.items():
        images = decoded_images(split, 8)
        expected = np.stack([all_images[row] for row in rows])
        assert len(images) == len(rows)
        assert np.array_equal(images[:], expected)
        assert np.array_equal(images[-1], expected[-1])
        assert np.array_equal(images[0:1], expected[0:1])
        assert np.array_equal(images[np.array([1, 0, 1])], expected[[1, 0, 1]])
    assert sorted(decodings) == [0, 1, 2, 3]
    assert len(list((cache / "pixels").iterdir())) == 1


def test_name_identifies_the_images(tmp_path: Path) -> None:
    """Files computed from the images, such as cached teacher outputs, are named after them."""
    data = in_memory()
    splits = [data, data.subset([0, 1]), data.subset([1, 0]), in_files(tmp_path / "png")]
    assert len({decoded_images(split, 8).name for split in splits} | {decoded_images(data, 9).name}) == 5
    assert decoded_images(data, 8).name == decoded_images(data.subset([0, 1, 2, 3]), 8).name


@pytest.mark.parametrize("change", ["size", "time"])
def test_changed_file(tmp_path: Path, decodings: list[int], change: str) -> None:
    data = in_files(tmp_path / "bmp", "bmp")
    before = decoded_images(data, 8)
    path = data.images.path(1)
    status = path.stat()
    other = np.full((9, 9, 3) if change == "time" else (30, 30, 3), 200, np.uint8)  # as many bytes, or more
    Image.fromarray(other).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + (10**9 if change == "time" else 0)))
    assert (path.stat().st_size == status.st_size) == (change == "time")
    after = decoded_images(data, 8)
    assert (after[1] == 200).all()
    assert np.array_equal(after[np.array([0, 2, 3])], before[np.array([0, 2, 3])])
    assert len(decodings) == 8


def test_changed_pixels_in_memory() -> None:
    data = in_memory()
    decoded_images(data, 8)
    data.images[0][:] = 7
    assert (decoded_images(data, 8)[0] == 7).all()


def test_broken_file_leaves_no_map(tmp_path: Path, cache: Path) -> None:
    data = in_files(tmp_path / "png")
    path = data.images.path(2)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"2\.png"):
        decoded_images(data, 8)
    assert list((cache / "pixels").iterdir()) == []
    path.write_bytes(content)
    assert np.array_equal(decoded_images(data, 8)[2], resized(in_memory().images[2], 8))


def test_missing_file(tmp_path: Path) -> None:
    data = in_files(tmp_path / "png")
    data.images.path(2).unlink()
    with pytest.raises(DataError, match=r"2\.png: no such file; expected an image"):
        decoded_images(data, 8)
