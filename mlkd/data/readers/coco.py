"""COCO folders: one JSON file per split that lists its images, categories and objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from os.path import splitext
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mlkd.data.boxes import clip_box, format_box
from mlkd.data.dataset import MultiLabelData
from mlkd.data.images import ImageFiles
from mlkd.data.readers import register_reader
from mlkd.data.splits import standard_splits
from mlkd.errors import DataError, check_choice

Unlabeled = Literal["drop", "keep"]

MAX_SIDE = 1_000_000  # pixels; no side of an image is longer


@register_reader("coco")
def read(root: str | Path, *, year: int | None = None, unlabeled: Unlabeled = "drop") -> dict[str, MultiLabelData]:
    """Reads a COCO folder: every split that has an `annotations/instances_<split>.json`.

    The official names have a year, `annotations/instances_train2014.json` with the images in `train2014/`; a name
    without one, `annotations/instances_train.json` with `train/`, is read too. The images may also be in
    `images/<split>/`. An image has the label of each category of its objects, crowd regions (`iscrowd`) included, as
    in the published label lists.

    Args:
        root: the folder with `annotations`.
        year: which year to read. Required only if there are several.
        unlabeled: "drop" images without any object, as the published lists do, or "keep" them.

    Returns:
        The splits by name, among them `train`, `val` and `test`. COCO's test images have no public labels, so
        `test` is the official validation split, and `val` a tenth of the training split (see `standard_splits`).
        Classes are in the order of the category ids; ids are the file names without their suffix.

    Raises:
        ValueError: `unlabeled` is none of the two.
        DataError: a file is missing or invalid.
    """
    check_choice("unlabeled", unlabeled, get_args(Unlabeled))
    root = Path(root).resolve()
    splits = {split: _read_split(root, split, path, unlabeled) for split, path in _annotation_files(root, year).items()}
    first = next(iter(splits.values()))
    for data in splits.values():
        if data.classes != first.classes:
            raise DataError(
                f"{root}: `categories` of {data.split} and of {first.split} differ; expected the same names "
                f"in one order of ids."
            )
    return standard_splits(splits)


def _annotation_files(root: Path, year: int | None) -> dict[str, Path]:
    """The annotation files of one year, by split."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected one that contains `annotations`.")
    files: dict[str, dict[str, Path]] = {}
    for path in sorted((root / "annotations").glob("instances_*.json")):
        if match := re.fullmatch(r"instances_(\w+?)(20\d\d)?", path.stem):
            files.setdefault(match[2] or "", {})[match[1]] = path
    if year is not None:
        files = {key: splits for key, splits in files.items() if key == str(year)}
    if not files:
        expected = "<split>" if year is None else f"<split>{year}"
        raise DataError(f"{root}: no annotation file `annotations/instances_{expected}.json`.")
    if len(files) > 1:
        years = ", ".join(sorted(filter(None, files)))
        raise DataError(f"{root}: `annotations` contains several data sets; choose one with `year`, one of {years}.")
    return next(iter(files.values()))


def _read_split(root: Path, split: str, path: Path, unlabeled: Unlabeled) -> MultiLabelData:
    content = _read_json(path)
    names = {i: name for _, (i, name) in _records(content, "categories", path, id=int, name=str)}
    column = {category: index for index, category in enumerate(sorted(names))}

    images: dict[int | str, tuple[str, float, float]] = {}
    number, label = (int, float), (int, str)
    for where, (i, *image) in _records(content, "images", path, id=label, file_name=str, width=number, height=number):
        if i in images:
            raise DataError(f"{where} has the `id` {i} of an earlier image; expected each id once.")
        file, width, height = image
        if not (0 < width < MAX_SIDE and 0 < height < MAX_SIDE):
            raise DataError(f"{where} has a `width` of {width} and a `height` of {height}; expected a size in pixels.")
        images[i] = (file, width, height)

    objects: dict[int | str, list[tuple[float, ...]]] = {i: [] for i in images}
    for where, (i, category, bbox) in _records(
        content, "annotations", path, image_id=label, category_id=int, bbox=list
    ):
        if i not in images:
            raise DataError(f"{where} has the `image_id` {i}, which `images` does not list.")
        if category not in column:
            raise DataError(f"{where} has the `category_id` {category}, which `categories` does not list.")
        objects[i].append((column[category], *_corners(bbox, *images[i][1:], where)))

    kept = [i for i in images if objects[i] or unlabeled == "keep"]
    if not kept:
        raise DataError(f"{path}: the split is empty; expected at least one image with an annotation.")
    folder = path.stem.removeprefix("instances_")
    if not (root / folder).is_dir() and (root / "images" / folder).is_dir():
        folder = f"images/{folder}"
    files = [images[i][0] for i in kept]
    return MultiLabelData.from_objects(
        name=root.name,
        split=split,
        images=ImageFiles(root, [f"{folder}/{file}" for file in files]),
        classes=[names[category] for category in column],
        ids=[splitext(file)[0] for file in files],
        objects=[np.array(objects[i], np.float32) for i in kept],
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # the message of a JSON error names line and column
        raise DataError(f"{path}: broken JSON ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: contains a {type(content).__name__}; expected an object with the key `images`.")
    return content


def _records(
    content: dict[str, Any], field: str, path: Path, **kinds: type | tuple[type, ...]
) -> Iterator[tuple[str, list[Any]]]:
    """For each record of the list `field`: its position, for error messages, and its values of the keys."""
    records = content.get(field)
    if not isinstance(records, list):
        raise DataError(f"{path}: no list under the key `{field}`.")
    prefix = f"{path}: {field}"
    for k, record in enumerate(records):
        where = f"{prefix}[{k}]"
        if not isinstance(record, dict):
            raise DataError(f"{where} is a {type(record).__name__}; expected an object.")
        for key, kind in kinds.items():
            if key not in record:
                raise DataError(f"{where} has no key `{key}`.")
            if not isinstance(record[key], kind):
                expected = " or ".join(t.__name__ for t in (kind if isinstance(kind, tuple) else (kind,)))
                raise DataError(f"{where} has {record[key]!r:.40} as `{key}`; expected {expected}.")
        yield where, [record[key] for key in kinds]


def _corners(bbox: list[Any], width: float, height: float, where: str) -> tuple[float, ...]:
    """COCO's x, y, width, height as x1, y1, x2, y2."""
    if len(bbox) != 4 or not all(isinstance(value, int | float) and abs(value) < MAX_SIDE for value in bbox):
        raise DataError(f"{where} has {bbox!r:.60} as `bbox`; expected four numbers: x, y, width, height.")
    x, y, w, h = bbox
    box = clip_box((x, y, x + w, y + h), width, height)
    if box is None:
        raise DataError(
            f"{where}: `bbox` {format_box(bbox)}, as x, y, width, height, is not inside its image of {width:g} x "
            f"{height:g} pixels."
        )
    return box
