"""Image files, subsets of images and safe paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlkd.data.images import ImageFiles, ImageSubset, parent_images, select_images
from mlkd.errors import DataError


def test_gray_files_are_decoded_to_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 6), 77, np.uint8)).save(tmp_path / "gray.png")
    files = ImageFiles(tmp_path, ["gray.png"])
    assert len(files) == 1
    assert (files[0].shape, files[0].dtype) == ((4, 6, 3), np.uint8)
    assert (files[0] == 77).all()


def test_jpeg_is_decoded_at_reduced_size(tmp_path: Path) -> None:
    Image.fromarray(np.full((640, 960, 3), 50, np.uint8)).save(tmp_path / "large.jpg")
    image = ImageFiles(tmp_path, ["large.jpg"]).decode(0, size=100)
    assert image.size == (240, 160)  # a quarter; an eighth would be 120 x 80


@pytest.mark.parametrize("path", ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd", Path("../secret.jpg")])
def test_path_outside_the_root(tmp_path: Path, path: str | Path) -> None:
    with pytest.raises(DataError, match="lies outside the data folder"):
        ImageFiles(tmp_path, [path])


@pytest.mark.parametrize("name", ["missing.jpg", "a\0b.jpg"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="no such file; expected an image"):
        ImageFiles(tmp_path, [name])[0]


def test_file_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"text\.jpg: .*not an image"):
        ImageFiles(tmp_path, ["text.jpg"])[0]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"truncated.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=f"{path.name}: .*truncated"):
        ImageFiles(tmp_path, [path.name])[0]


def test_size_is_read_from_the_header(tmp_path: Path) -> None:
    Image.new("RGB", (40, 10)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"not an image")
    files = ImageFiles(tmp_path, ["a.png", "b.png", "c.png"])
    assert files.size(0) == (40, 10)
    with pytest.raises(DataError, match=r"b\.png: the file is truncated, broken or not an image"):
        files.size(1)
    with pytest.raises(DataError, match=r"c\.png: no such file"):
        files.size(2)


def test_subset_of_a_subset_refers_to_the_parent() -> None:
    images = [np.full((2, 2, 3), i, np.uint8) for i in range(4)]
    subset = select_images(select_images(images, np.array([3, 1, 0])), np.array([2, 0]))
    assert isinstance(subset, ImageSubset)
    assert [subset[i][0, 0, 0] for i in range(len(subset))] == [0, 3]
    parent, indices = parent_images(subset)
    assert parent is images
    assert indices.tolist() == [0, 3]


def test_subset_of_files_is_files(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path, ["a.jpg", "b.jpg"])
    subset = select_images(files, np.array([1]))
    assert isinstance(subset, ImageFiles)
    assert [subset.path(index) for index in range(len(subset))] == [tmp_path.resolve() / "b.jpg"]
    assert parent_images(subset)[0] is files
