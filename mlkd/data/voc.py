"""Pascal VOC folders: one XML file per picture, one list of ids per split."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args
from xml.etree.ElementTree import ParseError

import numpy as np
from defusedxml import ElementTree

from mlkd.data.dataset import (
    DataError,
    ImageFiles,
    MultiLabelData,
    clip_box,
    from_objects,
    present,
    register_reader,
    safe_join,
    show,
    standard_splits,
)
from mlkd.errors import check_choice, closest_match

Difficult = Literal["positive", "ignore", "negative"]

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *(
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
)


@register_reader("voc")
def read(
    root: str | Path,
    *,
    year: int | None = None,
    difficult: Difficult = "positive",
    classes: Sequence[str] | None = None,
) -> dict[str, MultiLabelData]:
    """Read a VOC folder: every split that has a list `ImageSets/Main/<split>.txt`.

    Boxes turn from VOC's 1-based pixels, both ends included, into x1 = xmin - 1, y1 = ymin - 1, x2 = xmax,
    y2 = ymax.

    Args:
        root: the folder that holds `Annotations`, `ImageSets` and `JPEGImages`, or a folder above it that
            holds `VOC<year>` or `VOCdevkit/VOC<year>`.
        year: which `VOC<year>` to read. Needed only where there are several.
        difficult: what an object marked difficult counts as. "positive": a label like any other, as in the
            field's published loaders. "ignore": a class present only as difficult objects is neither
            present nor absent (`ignored`), as in the VOC task. "negative": as if it were not there.
        classes: names in the order of the columns of `targets`. By default the 20 of Pascal VOC; in a folder
            whose class lists (`<class>_<split>.txt`) name others, those in alphabetical order.

    Returns:
        The splits by name, among them `train`, `val` and `test` (see `standard_splits`). With "ignore" and
        "negative" the boxes of difficult objects are left out.

    Raises:
        ValueError: `difficult` is none of the three.
        DataError: a file is missing or broken, or says something impossible.
    """
    check_choice("difficult", difficult, get_args(Difficult))
    folder = _find_folder(Path(root).resolve(), year)
    lists, class_files = _split_lists(folder)
    names = tuple(classes) if classes is not None else _class_names(class_files, lists)
    index = {name: column for column, name in enumerate(names)}
    ids = {split: _read_list(path) for split, path in lists.items()}
    pictures = {i: _read_xml(folder, i, index) for i in dict.fromkeys(i for split in ids.values() for i in split)}

    splits = {}
    for split, members in ids.items():
        objects = [pictures[i][1] for i in members]
        counted = objects if difficult == "positive" else [found[found[:, 5] == 0] for found in objects]
        ignore_mask = None
        if difficult == "ignore":
            ignore_mask = (present(objects, len(names)) > present(counted, len(names))).astype(bool)
        images = ImageFiles(folder, [pictures[i][0] for i in members])
        boxes = [found[:, :5] for found in counted]
        splits[split] = from_objects(folder.name, split, images, names, members, boxes, ignore_mask)
    return standard_splits(splits)


def _find_folder(root: Path, year: int | None) -> Path:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected a VOC folder or one that holds `VOCdevkit`.")
    candidates = [root, *sorted(root.glob("VOC20*")), *sorted(root.glob("VOCdevkit/VOC20*"))]
    found = [folder for folder in candidates if (folder / "ImageSets" / "Main").is_dir()]
    if year is not None:
        found = [folder for folder in found if folder.name == f"VOC{year}"]
    if not found:
        wanted = "VOC folder" if year is None else f"folder `VOC{year}`"
        raise DataError(f"{root}: no {wanted} with `ImageSets/Main` here or under `VOCdevkit`.")
    if len(found) > 1:
        years = ", ".join(folder.name.removeprefix("VOC") for folder in found)
        raise DataError(f"{root}: holds several VOC folders; choose one by `year`, one of {years}.")
    return found[0]


def _split_lists(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """The lists of splits (a line is an id), by split, and those of classes (a line is an id and a sign)."""
    order = {"train": 0, "val": 1, "trainval": 2, "test": 3}
    files = sorted((folder / "ImageSets" / "Main").glob("*.txt"), key=lambda f: (order.get(f.stem, 4), f.stem))
    lists, class_files = {}, []
    for path in files:
        with path.open(encoding="utf-8", errors="replace") as lines:
            columns = next((len(line.split()) for line in lines if line.strip()), 0)
        if columns == 1 or (columns == 0 and not path.stem.endswith(tuple(f"_{split}" for split in order))):
            lists[path.stem] = path
        else:
            class_files.append(path)
    if not lists:
        raise DataError(f"{folder}: no list of a split such as `ImageSets/Main/train.txt`.")
    return lists, class_files


def _class_names(class_files: Iterable[Path], splits: Iterable[str]) -> tuple[str, ...]:
    names = set()
    for path in class_files:
        # The longest split first: `mug_context_shift` is a list of `mug`, whatever else is a split.
        for split in sorted(splits, key=len, reverse=True):
            if path.stem.endswith(f"_{split}"):
                names.add(path.stem.removesuffix(f"_{split}"))
                break
    return CLASSES if names <= set(CLASSES) else tuple(sorted(names))


def _read_list(path: Path) -> list[str]:
    ids = path.read_text(encoding="utf-8", errors="replace").split()
    if not ids:
        raise DataError(f"{path}: the list is empty; expected one picture id on each line.")
    return ids


def _read_xml(folder: Path, i: str, index: dict[str, int]) -> tuple[str, np.ndarray]:
    """The image's path, and its objects (m, 6): class index, x1, y1, x2, y2, difficult."""
    path = safe_join(folder, f"Annotations/{i}.xml")
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation file, though the id `{i}` stands in a list.") from None
    except (
        ParseError,
        ValueError,
        LookupError,
    ) as error:  # ValueError: what defusedxml forbids, such as entities
        raise DataError(f"{path}: broken or forbidden XML ({error}).") from error
    image = root.findtext("filename", "").strip() or f"{i}.jpg"
    width, height = (_number(root, f"size/{side}", path) for side in ("width", "height"))
    objects = []
    for found in root.iterfind("object"):
        name = _text(found, "name", path)
        if name not in index:
            near = closest_match(name, index)
            raise DataError(
                f"{path}: unknown class `{name}` in `object/name`; the nearest known one is `{near}`. "
                f"Classes other than VOC's come from `classes` or the lists `<class>_<split>.txt`."
            )
        xmin, ymin, xmax, ymax = (_number(found, f"bndbox/{end}", path) for end in ("xmin", "ymin", "xmax", "ymax"))
        box = clip_box((xmin - 1, ymin - 1, xmax, ymax), width, height)
        if box is None or xmin > xmax or ymin > ymax:
            raise DataError(
                f"{path}: `bndbox` {show((xmin, ymin, xmax, ymax))} of `{name}` is no box in the picture; "
                f"expected 1 <= xmin <= xmax <= {width:g} and 1 <= ymin <= ymax <= {height:g}."
            )
        objects.append((index[name], *box, found.findtext("difficult", "0").strip() == "1"))
    return f"JPEGImages/{image}", np.array(objects, np.float32).reshape(-1, 6)


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
