"""COCO folders: one JSON file per split that lists its images, categories and objects."""

from __future__ import annotations

import codecs
import gc
import re
from contextlib import suppress
from os.path import splitext
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from pydantic_core import from_json

from mlkd.data.boxes import clip_boxes, format_box
from mlkd.data.dataset import MultiLabelData
from mlkd.data.images import ImageFiles
from mlkd.data.index_cache import cached_index
from mlkd.data.paths import check_folder, read_file
from mlkd.data.readers import register_reader
from mlkd.data.splits import standard_splits
from mlkd.errors import DataError, check_choice

Unlabeled = Literal["drop", "keep"]

MAX_SIDE = 1_000_000  # pixels; no side of an image is longer
POLYGONS = re.compile(rb'"segmentation"\s*:\s*\[\s*(?:\[[^]]*\][,\s]*)*\]')
"""The outlines of objects, which are not used and take most of the time and memory of parsing."""


def _label_files(root: str | Path, *, year: int | None = None, **_: Any) -> list[Path]:
    root = Path(root).resolve()
    files = _annotation_files(root, year).values()
    folders = [path.stem.removeprefix("instances_") for path in files]
    return [*files, *(root / parent / folder for parent in (".", "images") for folder in folders)]


def _recognize(path: Path) -> list[str]:
    years = sorted(_years(path))
    return [f"year={year}" for year in years if year] if len(years) > 1 else [""] * len(years)


@register_reader("coco", _recognize)
@cached_index(_label_files)
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


def _years(root: Path) -> dict[str, dict[str, Path]]:
    """The annotation files by year, "" if their names have none, and split."""
    files: dict[str, dict[str, Path]] = {}
    for path in sorted((root / "annotations").glob("instances_*.json")):
        if match := re.fullmatch(r"instances_(\w+?)(20\d\d)?", path.stem):
            files.setdefault(match[2] or "", {})[match[1]] = path
    return files


def _annotation_files(root: Path, year: int | None) -> dict[str, Path]:
    """The annotation files of one year, by split."""
    check_folder(root, "one that contains `annotations`")
    files = _years(root)
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
    number, label = (int, float), (int, str)

    category_ids, names = _columns(content, "categories", path, id=(int,), name=(str,))
    _check_unique(category_ids, "categories", path)
    classes = dict(sorted(zip(category_ids, names, strict=True)))
    column = {category: index for index, category in enumerate(classes)}

    image_ids, files, widths, heights = _columns(
        content, "images", path, id=label, file_name=(str,), width=number, height=number
    )
    _check_unique(image_ids, "images", path)
    row = {i: k for k, i in enumerate(image_ids)}
    for k, (width, height) in enumerate(zip(widths, heights, strict=True)):
        if not (0 < width < MAX_SIDE and 0 < height < MAX_SIDE):
            raise DataError(
                f"{path}: images[{k}] has a `width` of {width} and a `height` of {height}; expected a size in pixels."
            )

    image_column, category_column, bboxes = _columns(
        content, "annotations", path, image_id=label, category_id=(int,), bbox=(list,)
    )
    rows = _indices(image_column, row, path, "image_id", "images")
    columns = _indices(category_column, column, path, "category_id", "categories")
    boxes = _boxes(bboxes, np.array(widths)[rows], np.array(heights)[rows], path)

    objects = np.column_stack([columns, boxes]).astype(np.float32)[np.argsort(rows, kind="stable")]
    ends = np.bincount(rows, minlength=len(files)).cumsum().tolist()
    image_objects = [objects[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    kept = [k for k in range(len(files)) if len(image_objects[k]) or unlabeled == "keep"]
    if not kept:
        raise DataError(f"{path}: the split is empty; expected at least one image with an annotation.")
    folder = path.stem.removeprefix("instances_")
    if not (root / folder).is_dir() and (root / "images" / folder).is_dir():
        folder = f"images/{folder}"
    return MultiLabelData.from_objects(
        name=root.name,
        split=split,
        images=ImageFiles(root, [f"{folder}/{files[k]}" for k in kept]),
        classes=list(classes.values()),
        ids=[splitext(files[k])[0] for k in kept],
        objects=[image_objects[k] for k in kept],
    )


def _read_json(path: Path) -> dict[str, Any]:
    text = read_file(path, "a JSON file with `images`, `annotations` and `categories`").removeprefix(codecs.BOM_UTF8)
    try:
        content = _parse(text)
    except ValueError as error:  # its message names line and column
        raise DataError(f"{path}: broken JSON ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: contains a {type(content).__name__}; expected an object with the key `images`.")
    return content


def _parse(text: bytes) -> Any:
    """The JSON value, without polygons."""
    enabled = gc.isenabled()
    gc.disable()  # it would visit the millions of new objects again and again
    try:
        with suppress(ValueError):
            return from_json(POLYGONS.sub(b'"segmentation":[]', text))
        return from_json(text)  # the positions in its error message are those of the file
    finally:
        if enabled:
            gc.enable()


def _columns(content: dict[str, Any], field: str, path: Path, **kinds: tuple[type, ...]) -> list[list[Any]]:
    """For each key, its values in the records of the list `field`."""
    records = content.get(field)
    if not isinstance(records, list):
        raise DataError(f"{path}: no list under the key `{field}`.")
    if not set(map(type, records)) <= {dict}:
        k, record = next((k, record) for k, record in enumerate(records) if not isinstance(record, dict))
        raise DataError(f"{path}: {field}[{k}] is a {type(record).__name__}; expected an object.")
    columns = []
    for key, types in kinds.items():
        try:
            column = [record[key] for record in records]
        except KeyError:
            k = next(k for k, record in enumerate(records) if key not in record)
            raise DataError(f"{path}: {field}[{k}] has no key `{key}`.") from None
        if not set(map(type, column)) <= set(types):
            k, value = next((k, value) for k, value in enumerate(column) if type(value) not in types)
            expected = " or ".join(t.__name__ for t in types)
            raise DataError(f"{path}: {field}[{k}] has {value!r:.40} as `{key}`; expected {expected}.")
        columns.append(column)
    return columns


def _check_unique(ids: list[Any], field: str, path: Path) -> None:
    if len(set(ids)) < len(ids):
        first: dict[Any, int] = {}
        for k, i in enumerate(ids):
            if first.setdefault(i, k) != k:
                raise DataError(f"{path}: {field}[{k}] has the `id` {i} of {field}[{first[i]}]; expected each id once.")


def _indices(values: list[Any], index: dict[Any, int], path: Path, key: str, field: str) -> np.ndarray:
    """The index of each annotation's value of `key`, one of the ids of the list `field`."""
    indices = np.array([index.get(value, -1) for value in values], np.int64)
    for k in np.flatnonzero(indices < 0):
        raise DataError(f"{path}: annotations[{k}] has the `{key}` {values[k]}, which `{field}` does not list.")
    return indices


def _boxes(bboxes: list[list[Any]], widths: np.ndarray, heights: np.ndarray, path: Path) -> np.ndarray:
    """COCO's x, y, width, height as x1, y1, x2, y2, (m, 4) float64."""
    try:
        array = np.array(bboxes).reshape(-1, 4)
        valid = len(array) == len(bboxes) and array.dtype.kind in "bif" and bool((np.abs(array) < MAX_SIDE).all())
    except ValueError:  # not equally many numbers
        valid = False
    if not valid:
        for k, bbox in enumerate(bboxes):
            if len(bbox) != 4 or not all(isinstance(value, int | float) and abs(value) < MAX_SIDE for value in bbox):
                raise DataError(
                    f"{path}: annotations[{k}] has {bbox!r:.60} as `bbox`; expected four numbers: x, y, width, height."
                )
    x, y, w, h = array.T
    boxes, inside = clip_boxes(np.stack([x, y, x + w, y + h], axis=1), widths, heights)
    for index in np.flatnonzero(~inside):
        raise DataError(
            f"{path}: annotations[{index}]: `bbox` {format_box(bboxes[index])}, as x, y, width, height, is not inside "
            f"its image of {widths[index]:g} x {heights[index]:g} pixels."
        )
    return boxes
