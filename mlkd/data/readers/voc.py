"""Pascal VOC folders: one XML file per image, one list of ids per split."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args
from xml.etree.ElementTree import ParseError

import numpy as np
from defusedxml import ElementTree

from mlkd.data.boxes import clip_boxes, format_box, targets_from_objects
from mlkd.data.dataset import MultiLabelData
from mlkd.data.images import ImageFiles
from mlkd.data.index_cache import cached_index
from mlkd.data.paths import check_folder, read_file, safe_join
from mlkd.data.readers import register_reader
from mlkd.data.splits import standard_splits
from mlkd.errors import DataError, check_choice, closest_match

Difficult = Literal["positive", "ignore", "negative"]

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def _label_files(root: str | Path, *, year: int | None = None, **_: Any) -> list[Path]:
    folder = _find_folder(Path(root).resolve(), year)
    return [path for pattern in ("ImageSets/Main/*.txt", "Annotations/*.xml") for path in sorted(folder.glob(pattern))]


def _recognize(path: Path) -> list[str]:
    folders = _folders(path)
    return [f"year={folder.name[3:]}" for folder in folders] if len(folders) > 1 else [""] * len(folders)


@register_reader("voc", _recognize)
@cached_index(_label_files)
def read(
    root: str | Path,
    *,
    year: int | None = None,
    difficult: Difficult = "positive",
    classes: Sequence[str] | None = None,
) -> dict[str, MultiLabelData]:
    """Reads a VOC folder: every split that has a list `ImageSets/Main/<split>.txt`.

    VOC's boxes count pixels from 1 and include both ends. They become x1 = xmin - 1, y1 = ymin - 1, x2 = xmax,
    y2 = ymax.

    Args:
        root: the folder with `Annotations`, `ImageSets` and `JPEGImages`, or a folder above it with `VOC<year>` or
            `VOCdevkit/VOC<year>`.
        year: which `VOC<year>` to read. Required only if there are several.
        difficult: how objects marked as difficult are treated. "positive": like all other objects, as most published
            data loaders do. "ignore": a class of which the image has only difficult objects is neither present nor
            absent (`ignore_mask`), as in the VOC task. "negative": difficult objects are dropped.
        classes: names in the order of the columns of `targets`. By default the 20 of Pascal VOC or, if the folder's
            class lists (`<class>_<split>.txt`) name other classes, those in alphabetical order.

    Returns:
        The splits by name, among them `train`, `val` and `test` (see `standard_splits`). With "ignore" and
        "negative", `boxes` are without difficult objects.

    Raises:
        ValueError: `difficult` is none of the three.
        DataError: a file is missing or invalid.
    """
    check_choice("difficult", difficult, get_args(Difficult))
    folder = _find_folder(Path(root).resolve(), year)
    lists, class_files = _split_lists(folder)
    names = tuple(classes) if classes is not None else _class_names(class_files, lists)
    class_index = {name: column for column, name in enumerate(names)}
    ids = {split: _read_list(path) for split, path in lists.items()}
    unique_ids = dict.fromkeys(i for split_ids in ids.values() for i in split_ids)
    annotations = {i: _read_xml(folder, i, class_index) for i in unique_ids}

    splits = {}
    for split, split_ids in ids.items():
        objects = [annotations[i][1] for i in split_ids]
        counted = objects if difficult == "positive" else [array[array[:, 5] == 0] for array in objects]
        ignore_mask = None
        if difficult == "ignore":
            all_targets, targets = (targets_from_objects(arrays, len(names)) for arrays in (objects, counted))
            ignore_mask = (all_targets > targets).astype(bool)
        images = ImageFiles(folder, [annotations[i][0] for i in split_ids])
        boxes = [array[:, :5] for array in counted]
        splits[split] = MultiLabelData.from_objects(folder.name, split, images, names, split_ids, boxes, ignore_mask)
    return standard_splits(splits)


def _folders(root: Path) -> list[Path]:
    """The VOC folders: `root`, or those in it or in its `VOCdevkit`."""
    candidates = [root, *sorted(root.glob("VOC20*")), *sorted(root.glob("VOCdevkit/VOC20*"))]
    return [folder for folder in candidates if (folder / "ImageSets" / "Main").is_dir()]


def _find_folder(root: Path, year: int | None) -> Path:
    check_folder(root, "a VOC folder or one that contains `VOCdevkit`")
    folders = _folders(root)
    if year is not None:
        folders = [folder for folder in folders if folder.name == f"VOC{year}"]
    if not folders:
        expected = "VOC folder" if year is None else f"folder `VOC{year}`"
        raise DataError(f"{root}: no {expected} with `ImageSets/Main`, here or in `VOCdevkit`.")
    if len(folders) > 1:
        years = ", ".join(folder.name.removeprefix("VOC") for folder in folders)
        raise DataError(f"{root}: contains several VOC folders; choose one with `year`, one of {years}.")
    return folders[0]


def _split_lists(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """The lists of the splits (a line is an id), by split, and those of the classes (a line is an id and a sign)."""
    order = {"train": 0, "val": 1, "trainval": 2, "test": 3}
    files = sorted((folder / "ImageSets" / "Main").glob("*.txt"), key=lambda f: (order.get(f.stem, 4), f.stem))
    lists, class_files = {}, []
    for path in files:
        columns = next((len(line.split()) for line in _read_text(path).splitlines() if line.strip()), 0)
        if columns == 1 or (columns == 0 and not path.stem.endswith(tuple(f"_{split}" for split in order))):
            lists[path.stem] = path
        else:
            class_files.append(path)
    if not lists:
        raise DataError(f"{folder}: no list of a split; expected files such as `ImageSets/Main/train.txt`.")
    return lists, class_files


def _class_names(class_files: Iterable[Path], splits: Iterable[str]) -> tuple[str, ...]:
    names = set()
    for path in class_files:
        # The longest split first: `mug_context_shift` is a list of `mug`, even if there is a split `shift`.
        for split in sorted(splits, key=len, reverse=True):
            if path.stem.endswith(f"_{split}"):
                names.add(path.stem.removesuffix(f"_{split}"))
                break
    return CLASSES if names <= set(CLASSES) else tuple(sorted(names))


def _read_text(path: Path) -> str:
    return read_file(path, "a list of image ids").decode("utf-8", "replace")


def _read_list(path: Path) -> list[str]:
    ids = _read_text(path).split()
    if not ids:
        raise DataError(f"{path}: the list is empty; expected one image id per line.")
    return ids


def _read_xml(folder: Path, i: str, class_index: dict[str, int]) -> tuple[str, np.ndarray]:
    """The image's path, and its objects (m, 6): class index, x1, y1, x2, y2, difficult."""
    path = safe_join(folder, f"Annotations/{i}.xml")
    text = read_file(path, f"an annotation file, since a split has the id `{i:.60}`")
    try:
        root = ElementTree.fromstring(text)
    except (ParseError, ValueError, LookupError) as error:  # ValueError: what defusedxml forbids, such as entities
        raise DataError(f"{path}: broken or forbidden XML ({error}).") from error
    image = root.findtext("filename", "").strip() or f"{i}.jpg"
    width, height = (_number(root, f"size/{side}", path) for side in ("width", "height"))
    labels, objects = [], []
    for element in root.iterfind("object"):
        name = _text(element, "name", path)
        if name not in class_index:
            raise DataError(
                f"{path}: unknown class `{name}` in `object/name`; did you mean `{closest_match(name, class_index)}`? "
                f"Other classes than those of VOC are given by `classes` or by lists `<class>_<split>.txt`."
            )
        box = [_number(element, f"bndbox/{end}", path) for end in ("xmin", "ymin", "xmax", "ymax")]
        labels.append(name)
        objects.append([class_index[name], *box, element.findtext("difficult", "0").strip() == "1"])
    array = np.array(objects, np.float64).reshape(-1, 6)
    boxes, valid = clip_boxes(array[:, 1:5] - (1, 1, 0, 0), width, height)
    valid &= (array[:, 1:3] <= array[:, 3:5]).all(axis=1)
    for k in np.flatnonzero(~valid):
        raise DataError(
            f"{path}: `bndbox` {format_box(array[k, 1:5])} of `{labels[k]}` is not a box in the image; "
            f"expected 1 <= xmin <= xmax <= {width:g} and 1 <= ymin <= ymax <= {height:g}."
        )
    array[:, 1:5] = boxes
    return f"JPEGImages/{image}", array.astype(np.float32)


def _text(element: Any, field: str, path: Path) -> str:
    text = (element.findtext(field) or "").strip()
    if not text:
        raise DataError(f"{path}: no `{field}` in <{element.tag}>.")
    return text


def _number(element: Any, field: str, path: Path) -> float:
    text = _text(element, field, path)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{path}: `{field}` in <{element.tag}> is `{text}`; expected a number.")
    return number
