"""The index cache: the splits that a reader returned, in one file of the cache folder, until a label file changes."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from mlkd.data.dataset import MultiLabelData
from mlkd.data.images import ImageFiles, Images, parent_images, select_images
from mlkd.files import atomic_write, cache_dir

Splits = dict[str, MultiLabelData]
Read = TypeVar("Read", bound=Callable[..., Splits])

SETTLED_NS = 2 * 10**9
"""A file that was modified more recently may change again without a new modification time."""


def cached_index(label_files: Callable[..., Iterable[Path]]) -> Callable[[Read], Read]:
    """A decorator of a data reader: large label files are parsed once, and its result is then read from the cache.

    The cached result is used as long as the paths, sizes and modification times of the label files are the same, and
    those of the code that reads them. A damaged cache file is replaced. Only splits of `ImageFiles` are cached.

    Args:
        label_files: called with the reader's arguments; returns every file and folder on which the result depends.

    Example::

        @register_reader("csv")
        @cached_index(lambda root, **options: [Path(root).resolve() / "labels.csv"])
        def read(root: str | Path) -> dict[str, MultiLabelData]: ...
    """

    def decorate(read: Read) -> Read:
        @functools.wraps(read)
        def read_cached(root: str | Path, **options: Any) -> Splits:
            def file_states() -> list[tuple[str, int, int]]:
                return [_file_state(path) for path in (*label_files(root, **options), *_code_files(read))]

            started_ns = time.time_ns()
            states = file_states()
            key = hashlib.sha256(json.dumps(states).encode()).hexdigest()
            path = _cache_file(read, root, options)
            splits = _load(path, key)
            if splits is None:
                splits = read(root, **options)
                settled = all(modified_ns < started_ns - SETTLED_NS for _, _, modified_ns in states)
                if settled and file_states() == states:
                    with suppress(OSError):  # without space, or in a read-only folder, there is no cache
                        _save(path, key, splits)
            return splits

        return cast(Read, read_cached)

    return decorate


def _file_state(path: Path) -> tuple[str, int, int]:
    """Path, size and modification time; -1 if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return str(path), -1, -1
    return str(path), status.st_size, status.st_mtime_ns


def _code_files(read: Callable[..., Splits]) -> list[Path]:
    """The files of `mlkd.data`, and the reader's own."""
    return [*_package_files(), Path(inspect.getfile(read))]


@functools.cache
def _package_files() -> list[Path]:
    return sorted(Path(__file__).parent.rglob("*.py"))


def _cache_file(read: Callable[..., Splits], root: str | Path, options: Mapping[str, Any]) -> Path:
    """One file per reader, folder and options."""
    description = [read.__module__, str(Path(root).resolve()), sorted(options.items())]
    name = hashlib.sha256(json.dumps(description, default=str).encode()).hexdigest()[:24]
    return cache_dir() / "index" / f"{name}.npz"


def _save(path: Path, key: str, splits: Splits) -> None:
    files: list[ImageFiles] = []  # those of which the splits are subsets
    descriptions = []
    arrays: dict[str, np.ndarray] = {}
    for number, (name, data) in enumerate(splits.items()):
        parent, rows = parent_images(data.images)
        if not isinstance(parent, ImageFiles):
            return
        index = next((index for index, known in enumerate(files) if known is parent), len(files))
        if index == len(files):
            files.append(parent)
            arrays[f"files{index}"] = _pack(parent.names)
        descriptions.append([name, data.name, data.split, data.classes, index, str(parent.root)])
        arrays |= {f"ids{number}": _pack(data.ids), f"targets{number}": data.targets}
        if data.images is not parent:
            arrays[f"rows{number}"] = rows
        if data.boxes is not None:
            arrays[f"boxes{number}"] = np.concatenate([np.zeros((0, 5), np.float32), *data.boxes])
            arrays[f"box_counts{number}"] = np.array([len(boxes) for boxes in data.boxes], np.int64)
        if data.ignore_mask is not None:
            arrays[f"ignore_mask{number}"] = data.ignore_mask
    arrays |= {"key": _pack([key]), "splits": _pack([json.dumps(descriptions)])}
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _load(path: Path, key: str) -> Splits | None:
    """The splits in a cache file; None if it does not exist, was written for another `key`, or is damaged."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _read_splits(arrays) if _unpack(arrays["key"]) == [key] else None
    except Exception:  # the zip file, an array or a description is damaged, each with errors of its own
        return None


def _read_splits(arrays: Mapping[str, np.ndarray]) -> Splits:
    splits, files = {}, {}
    for number, description in enumerate(json.loads(_unpack(arrays["splits"])[0])):
        name, data_name, split, classes, index, root = description
        if index not in files:
            files[index] = ImageFiles(root, _unpack(arrays[f"files{index}"]))
        images: Images = files[index]
        if f"rows{number}" in arrays:
            images = select_images(images, arrays[f"rows{number}"])
        boxes = None
        if f"boxes{number}" in arrays:
            all_boxes, ends = arrays[f"boxes{number}"], arrays[f"box_counts{number}"].cumsum().tolist()
            boxes = [all_boxes[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        splits[name] = MultiLabelData(
            name=data_name,
            split=split,
            images=images,
            targets=arrays[f"targets{number}"],
            classes=tuple(classes),
            ids=tuple(_unpack(arrays[f"ids{number}"])),
            boxes=boxes,
            ignore_mask=arrays.get(f"ignore_mask{number}"),
        )
    return splits


def _pack(texts: Iterable[str]) -> np.ndarray:
    """Texts as bytes, each followed by a zero byte."""
    return np.frombuffer("".join(f"{text}\0" for text in texts).encode("utf-8", "surrogatepass"), np.uint8)


def _unpack(array: np.ndarray) -> list[str]:
    return array.tobytes().decode("utf-8", "surrogatepass").split("\0")[:-1]
