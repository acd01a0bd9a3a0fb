"""The reader of the synthetic data set, and its folder in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlkd import scenes
from mlkd.data import load_data
from mlkd.data.readers.scenes import cached_folder


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """An empty cache; seed and size of each data set that is written to it."""
    calls = []

    def write(root: Path, seed: int, size: int, progress: bool) -> Path:
        calls.append((seed, size))
        return original(root, seed, size, {"train": 6, "val": 2, "test": 3, "context_shift": 3})

    original = scenes.write
    monkeypatch.setattr(scenes, "write", write)
    monkeypatch.setenv("MLKD_CACHE", str(tmp_path))
    return calls


def test_folder_is_written_once(calls: list[tuple[int, int]], tmp_path: Path) -> None:
    root = cached_folder(seed=2, size=32)
    assert root == tmp_path / f"scenes-v{scenes.VERSION}-s2-32"
    assert cached_folder(seed=2, size=32) == root
    assert calls == [(2, 32)]
    assert (root / "ImageSets" / "Main" / "test.txt").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [root.name]


def test_options(calls: list[tuple[int, int]]) -> None:
    data = load_data("scenes?size=32&seed=1")
    assert {split: len(split_data) for split, split_data in data.items()} == {
        "train": 6, "val": 2, "test": 3, "context_shift": 3,
    }  # fmt: skip
    assert (data["train"].name, data["train"].classes) == ("scenes", scenes.CLASSES)
    assert data["train"].images[0].shape == (32, 32, 3)
    assert calls == [(1, 32)]


def test_default_options(calls: list[tuple[int, int]]) -> None:
    load_data("scenes")
    assert calls == [(0, 96)]
