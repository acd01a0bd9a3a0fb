"""MIRFLICKR-25k folders: images `im<number>.jpg`, and for each class a file with the numbers of its images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlkd.data.dataset import MultiLabelData
from mlkd.data.images import ImageFiles
from mlkd.data.index_cache import cached_index
from mlkd.data.label_files import read_lines
from mlkd.data.paths import check_folder
from mlkd.data.readers import register_reader
from mlkd.data.splits import standard_splits
from mlkd.errors import DataError, check_choice

POTENTIAL = (
    *("animals", "baby", "bird", "car", "clouds", "dog", "female", "flower", "food", "indoor", "lake", "male"),
    *("night", "people", "plant_life", "portrait", "river", "sea", "sky", "structures", "sunset", "transport"),
    *("tree", "water"),
)
RELEVANT = (
    *("baby_r1", "bird_r1", "car_r1", "clouds_r1", "dog_r1", "female_r1", "flower_r1", "male_r1", "night_r1"),
    *("people_r1", "portrait_r1", "river_r1", "sea_r1", "tree_r1"),
)
CLASSES = {
    23: tuple(name for name in POTENTIAL if name != "food"),
    24: POTENTIAL,
    38: tuple(sorted(POTENTIAL + RELEVANT)),
}
IMAGE_FOLDERS = ("mirflickr", "images", ".")
ANNOTATION_FOLDERS = ("mirflickr25k_annotations_v080", "annotations", ".", "mirflickr/annotations", "mirflickr")
NUM_IMAGES = {"train": 20_000, "test": 5_000}


def _label_files(root: str | Path, **_: Any) -> list[Path]:
    root = Path(root).resolve()
    files = [root / folder / f"{name}.txt" for folder in ANNOTATION_FOLDERS for name in CLASSES[38]]
    return [*files, *(root / folder for folder in IMAGE_FOLDERS)]


def _recognize(path: Path) -> list[str]:
    """A few files named after classes may be anything, so all have to be there."""
    folders = [path / folder for folder in ANNOTATION_FOLDERS]
    return [""] if any(all((folder / f"{name}.txt").is_file() for name in POTENTIAL) for folder in folders) else []


@register_reader("mirflickr", _recognize)
@cached_index(_label_files)
def read(root: str | Path, *, labels: int = 24) -> dict[str, MultiLabelData]:
    """Reads a MIRFLICKR-25k folder as published.

    The images `im1.jpg` to `im25000.jpg` are in `mirflickr`, `images` or the folder itself. The annotation files, such
    as `animals.txt` and `baby_r1.txt`, list the numbers of the images with that label, one per line. They are in
    `mirflickr25k_annotations_v080`, in `annotations` (here or in `mirflickr`), or beside the images.

    Args:
        root: the folder with the images and the annotations.
        labels: 24 for the "potential labels", which apply to an image in a wide sense; 38 for these and the 14
            "relevant labels" (`_r1`), which apply to it clearly; 23 for the 24 without "food", as in MSKD.

    Returns:
        The splits `train`, `val`, `test` and `trainval`: `trainval` is images 1 to 20,000, `val` a tenth of it (see
        `standard_splits`), and `test` images 20,001 to 25,000, as in MSKD. Images without any label are kept. Classes
        are in alphabetical order; ids are the file names without their suffix.

    Raises:
        ValueError: `labels` is none of the three.
        DataError: a file is missing or invalid.
    """
    check_choice("labels", str(labels), map(str, CLASSES))
    root = Path(root).resolve()
    check_folder(root, "one with the images and annotations of MIRFLICKR-25k")
    folder, classes, num_images = _find_annotations(root), CLASSES[labels], sum(NUM_IMAGES.values())
    targets = np.zeros((num_images, len(classes)), np.uint8)
    for column, name in enumerate(classes):
        numbers = _read_numbers(folder / f"{name}.txt", num_images)
        targets[np.array(numbers) - 1, column] = 1
    ids = [f"im{number}" for number in range(1, num_images + 1)]
    image_folder = _find_images(root, ids)
    splits, start = {}, 0
    for split, count in NUM_IMAGES.items():
        rows = slice(start, start + count)
        images = ImageFiles(root, [f"{image_folder}/{i}.jpg" for i in ids[rows]])
        splits[split] = MultiLabelData(root.name, split, images, targets[rows], classes, tuple(ids[rows]))
        start += count
    return standard_splits(splits)


def _find_annotations(root: Path) -> Path:
    """The folder of the annotation files."""
    for folder in ANNOTATION_FOLDERS:
        if any((root / folder / f"{name}.txt").is_file() for name in POTENTIAL):
            return root / folder
    raise DataError(f"{root}: no annotation files; expected files such as `{ANNOTATION_FOLDERS[0]}/animals.txt`.")


def _find_images(root: Path, ids: Sequence[str]) -> str:
    """The folder that contains one of a few images, otherwise as published."""
    for folder in IMAGE_FOLDERS:
        if any((root / folder / f"{i}.jpg").is_file() for i in ids[:: len(ids) // 50 + 1]):
            return folder
    return IMAGE_FOLDERS[0]


def _read_numbers(path: Path, num_images: int) -> list[int]:
    """The numbers of the images in an annotation file."""
    lines = read_lines(path, "one image number per line")
    for index, line in enumerate(lines, 1):
        if not (line.isdecimal() and len(line) < 10 and 1 <= int(line) <= num_images):
            raise DataError(f"{path}, line {index}: `{line:.40}`; expected the number of an image, 1 to {num_images}.")
    return [int(line) for line in lines]
