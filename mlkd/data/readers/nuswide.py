"""NUS-WIDE folders: lists of images, and for each concept a file with a 0 or 1 for every image of a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os.path import isfile
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mlkd.data.dataset import MultiLabelData
from mlkd.data.images import ImageFiles
from mlkd.data.index_cache import cached_index
from mlkd.data.label_files import read_lines
from mlkd.data.paths import check_folder, read_file
from mlkd.data.readers import register_reader
from mlkd.data.splits import standard_splits
from mlkd.errors import DataError, check_choice

Unlabeled = Literal["keep", "drop"]

CONCEPT_FILES = ("ConceptsList/Concepts81.txt", "Concepts81.txt")
IMAGE_FOLDERS = ("Flickr", "images", "image", ".")
IMAGE_NAMES: tuple[Callable[[str], str], ...] = (
    lambda name: name,  # as listed: actor/0001_2124494179.jpg
    lambda name: name.rpartition("/")[2],  # 0001_2124494179.jpg
    lambda name: name.rpartition("_")[2],  # the Flickr id: 2124494179.jpg
)


def _label_files(root: str | Path, **_: Any) -> list[Path]:
    root = Path(root).resolve()
    files = [*root.glob("ImageList/*.txt"), *root.glob("Groundtruth/*/*.txt")]
    return [*sorted(files), *(root / name for name in (*CONCEPT_FILES, *IMAGE_FOLDERS))]


def _recognize(path: Path) -> list[str]:
    return [""] if (path / "ImageList").is_dir() and (path / "Groundtruth").is_dir() else []


@register_reader("nuswide", _recognize)
@cached_index(_label_files)
def read(root: str | Path, *, unlabeled: Unlabeled = "keep") -> dict[str, MultiLabelData]:
    r"""Reads a NUS-WIDE folder as published.

    `ImageList/TrainImagelist.txt` and `ImageList/TestImagelist.txt` list the images, such as
    `actor\0001_2124494179.jpg`, and `ConceptsList/Concepts81.txt`, or `Concepts81.txt`, the classes. For each class,
    `Groundtruth/TrainTestLabels` has the files `Labels_<class>_Train.txt` and `Labels_<class>_Test.txt`, with a 0 or 1
    per line of the list. Without that folder, `Groundtruth/AllLabels/Labels_<class>.txt` is read, whose lines belong to
    those of `ImageList/Imagelist.txt`.

    The images are in `Flickr`, `images`, `image` or the folder itself, either as listed, or without their folder
    (`0001_2124494179.jpg`), or under their Flickr id (`2124494179.jpg`). Where a few listed images are found decides;
    `mlkd data check` reports the images that are missing.

    Args:
        root: the folder with `ImageList` and `Groundtruth`.
        unlabeled: "keep" images without any label, as in the official split (161,789 and 107,859 images), or "drop"
            them (125,449 and 83,898 images, as in CPSD).

    Returns:
        The splits `train`, `val`, `test` and `trainval`: `trainval` is the list of training images, and `val` a tenth
        of it (see `standard_splits`). Classes are in the order of `Concepts81.txt`; ids are the listed paths without
        `.jpg`.

    Raises:
        ValueError: `unlabeled` is none of the two.
        DataError: a file is missing or invalid.
    """
    check_choice("unlabeled", unlabeled, get_args(Unlabeled))
    root = Path(root).resolve()
    check_folder(root, "one with `ImageList` and `Groundtruth`")
    lists = {split: root / "ImageList" / f"{split.title()}Imagelist.txt" for split in ("train", "test")}
    names = {split: _read_names(path) for split, path in lists.items()}
    concepts = _find_concepts(root)
    classes = read_lines(concepts, "one class per line")
    if not any((root / "Groundtruth" / folder).is_dir() for folder in ("TrainTestLabels", "AllLabels")):
        raise DataError(f"{root}: no labels; expected `Groundtruth/TrainTestLabels` or `Groundtruth/AllLabels`.")
    if (root / "Groundtruth" / "TrainTestLabels").is_dir():
        targets = {split: _read_targets(root, classes, concepts, lists[split], len(names[split])) for split in lists}
    else:
        all_images = root / "ImageList" / "Imagelist.txt"
        rows = {name: row for row, name in enumerate(_read_names(all_images))}
        all_targets = _read_targets(root, classes, concepts, all_images, len(rows))
        targets = {split: all_targets[_find_rows(names[split], rows, lists[split], all_images)] for split in lists}
    files = _image_paths(root, names)
    splits = {}
    for split in lists:
        kept = np.flatnonzero(targets[split].any(axis=1) | (unlabeled == "keep")).tolist()
        splits[split] = MultiLabelData(
            name=root.name,
            split=split,
            images=ImageFiles(root, [files[split][row] for row in kept]),
            targets=targets[split][kept],
            classes=tuple(classes),
            ids=tuple(names[split][row].removesuffix(".jpg") for row in kept),
        )
    return standard_splits(splits)


def _find_concepts(root: Path) -> Path:
    """The list of classes."""
    for name in CONCEPT_FILES:
        if (root / name).is_file():
            return root / name
    raise DataError(f"{root}: no list of classes; expected {' or '.join(f'`{name}`' for name in CONCEPT_FILES)}.")


def _read_names(path: Path) -> list[str]:
    """The images of a list, with slashes."""
    names = [line.replace("\\", "/") for line in read_lines(path, "one image per line")]
    if len(set(names)) < len(names) or "" in names:
        lines: dict[str, int] = {}
        for number, name in enumerate(names, 1):
            if not name:
                raise DataError(f"{path}, line {number}: the line is empty; expected an image.")
            if name in lines:
                raise DataError(f"{path}, line {number}: `{name}` is in line {lines[name]}, too; expected it once.")
            lines[name] = number
    return names


def _find_rows(names: Sequence[str], rows: dict[str, int], path: Path, all_images: Path) -> list[int]:
    """The positions of a split's images in the list of all images."""
    for number, name in enumerate(names, 1):
        if name not in rows:
            raise DataError(f"{path}, line {number}: `{name}` is not in {all_images}; expected an image of that list.")
    return [rows[name] for name in names]


def _read_targets(root: Path, classes: Sequence[str], concepts: Path, images: Path, count: int) -> np.ndarray:
    """(N, q) uint8: the labels of the N images of a list."""
    split = images.name.removesuffix("Imagelist.txt")  # "Train", "Test", or "" for all images
    folder, suffix = ("TrainTestLabels", f"_{split}.txt") if split else ("AllLabels", ".txt")
    files = [root / "Groundtruth" / folder / f"Labels_{name}{suffix}" for name in classes]
    for file in sorted((root / "Groundtruth" / folder).glob(f"Labels_*{suffix}")):
        if file not in files:
            raise DataError(f"{file}: {concepts} does not list this class; expected one label file per listed class.")
    targets = np.empty((count, len(classes)), np.uint8)
    for column, file in enumerate(files):
        content = read_file(file, f"the labels of the class in {concepts}, line {column + 1}")
        targets[:, column] = _parse_labels(content, file, images, count)
    return targets


def _parse_labels(content: bytes, path: Path, images: Path, count: int) -> np.ndarray:
    """(N,) uint8: the labels of one class, from the content of its file."""
    content = content.rstrip()
    text = np.frombuffer(content.replace(b"\r", b"").replace(b" ", b""), np.uint8)  # a digit, then a line feed
    labels = text[::2] - ord("0")
    if len(text) == 2 * count - 1 and (text[1::2] == ord("\n")).all() and (labels <= 1).all():
        return labels
    lines = [line.strip() for line in content.decode(errors="replace").split("\n")]
    for number, line in enumerate(lines, 1):
        if line not in ("0", "1"):
            raise DataError(f"{path}, line {number}: `{line:.40}`; expected 0 or 1.")
    raise DataError(
        f"{path}, line {len(lines)}: the last of {len(lines)} labels, but {images} lists {count} images; expected one "
        f"label per image."
    )


def _image_paths(root: Path, names: dict[str, list[str]]) -> dict[str, list[str]]:
    """The paths of the images below `root`: where one of a few listed images is found, otherwise as published."""
    sample = [name for split in names.values() for name in split[:: len(split) // 50 + 1]]
    folders = [folder for folder in IMAGE_FOLDERS if (root / folder).is_dir()]
    for folder in folders:
        for image_name in IMAGE_NAMES:
            if any(isfile(root / folder / image_name(name)) for name in sample):
                return {split: [f"{folder}/{image_name(name)}" for name in names[split]] for split in names}
    folder = folders[0] if len(folders) > 1 else IMAGE_FOLDERS[0]
    return {split: [f"{folder}/{name}" for name in names[split]] for split in names}
