"""Tables of images and labels: CSV, TSV, JSONL and Parquet files, columns found by their names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import isfile
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mlkd.data.boxes import format_box
from mlkd.data.dataset import MultiLabelData
from mlkd.data.images import ImageFiles
from mlkd.data.paths import check_file
from mlkd.data.readers import register_reader
from mlkd.data.splits import standard_splits
from mlkd.data.stratify import stratified_splits
from mlkd.data.tables import SUFFIXES, Table, read_table
from mlkd.errors import DataError, check_choice, closest_match, first_few

Empty = Literal["unknown", "none"]
Absent = Literal["0", "-1"]

IMAGE_COLUMNS = ("image", "image_path", "file_name", "filename", "file", "filepath", "path", "img", "image_id")
LABEL_COLUMNS = ("labels", "label", "tags", "classes", "categories", "class", "category")
SPLIT_COLUMNS = ("split", "subset")
BOX_COLUMNS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"))
SPLIT_NAMES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
METADATA = tuple(f"metadata{suffix}" for suffix in SUFFIXES)
SEPARATORS = (";", "|", ",")
IMAGE_FOLDERS = ("", "images/", "image/")
IMAGE_SUFFIXES = ("", ".jpg", ".jpeg", ".png", ".webp")

CELLS = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0}
UNKNOWN = ("?", "-1", "-1.0")
"""A label that is neither known to be present nor to be absent; so is an empty cell."""


@dataclass
class Columns:
    """The names of a table's columns, by what they contain; empty if there are none."""

    image: str
    labels: str
    classes: tuple[str, ...]
    split: str
    boxes: tuple[str, ...]


@dataclass
class Sample:
    """An image: where the table lists it, its file, its split, its labels and boxes."""

    place: str
    file: str
    split: str
    present: set[str]
    unknown: set[str] | None  # None: all that are not present
    boxes: list[tuple[str, list[float]]]


def _recognize(path: Path) -> list[str]:
    """A table file, or a folder with tables; of several, `read` lists them."""
    if path.is_dir():
        return [""] if _list_tables(path) or _list_metadata(path) else []
    return [""] if path.suffix.lower() in SUFFIXES else []


@register_reader("table", _recognize)
def read(
    root: str | Path,
    *,
    image: str = "",
    labels: str = "",
    classes: str = "",
    split: str = "",
    separator: str = "",
    images: str = "",
    empty: Empty = "unknown",
    absent: Absent = "0",
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
) -> dict[str, MultiLabelData]:
    """Reads a table with one row per image: its path, its labels and, optionally, its split.

    The labels are in one column, separated by `;`, `|` or `,` (in JSONL and Parquet they may be lists), or there is a
    column of 0 and 1 for each class. An empty cell, `?` or `-1` is unknown, and so is a single label with `?` before
    it (`dog;?cat`): it counts neither as present nor as absent (`ignore_mask`).

    With the columns x1, y1, x2, y2 (or xmin, ymin, xmax, ymax; pixels of the upright image from 0, the end excluded), a
    row is one object with one label, and an image may have several rows.

    Args:
        root: the table, or a folder with one table, or a folder with `metadata.csv` or the like in a subfolder for each
            split.
        image, labels, split: the names of these columns; by default the first of `IMAGE_COLUMNS`, `LABEL_COLUMNS` and
            `SPLIT_COLUMNS`, in small or capital letters.
        classes: the columns of the classes, separated by commas. By default, without a column of labels, all columns
            that contain a 0 or 1.
        separator: between two labels; by default the first of `;`, `|` and `,` that occurs in the column.
        images: the folder of the images in the table's folder. By default the paths belong to the table's folder or to
            `images` in it, and may lack their suffix: where one of a few listed images is found decides.
        empty: an empty cell is an "unknown" label (all labels of an image in a column of labels), or "none" is present.
        absent: the value of an absent label in the columns of classes, "0" or "-1".
        val, test: the fractions of the images in these splits, if the table has no split. The splits are stratified and
            are the same for the same table and `seed` (`stratified_splits`).
        seed: of these splits.

    Returns:
        The splits by name, among them `train`, `val` and `test` (see `standard_splits`). Classes are in alphabetical
        order, or in that of their columns; ids are the paths as in the table.

    Raises:
        ValueError: an option is invalid.
        DataError: a file is missing or invalid.
    """
    check_choice("empty", empty, get_args(Empty))
    check_choice("absent", absent, get_args(Absent))
    if min(val, test) <= 0 or val + test >= 1:
        raise ValueError(f"`val` is {val} and `test` is {test}; expected positive fractions with a sum below 1.")
    root = Path(root).resolve()
    tables = find_tables(root)
    folder = root if root.is_dir() else root.parent
    samples: dict[str, Sample] = {}
    names: dict[str, None] = {}
    for subfolder, path in tables.items():
        table = read_table(path)
        columns = _find_columns(table, image, labels, classes, split)
        names |= dict.fromkeys(columns.classes)
        for name, sample in _read_rows(table, columns, folder, subfolder, images, separator, empty, absent):
            earlier = samples.setdefault(name, sample)
            if earlier is not sample:
                _merge(earlier, sample, name, is_object=bool(columns.boxes))
    named = set().union(*(sample.present | (sample.unknown or set()) for sample in samples.values()))
    names |= dict.fromkeys(sorted(named - set(names)))
    if not names:
        raise DataError(f"{next(iter(tables.values()))}: no image has a label; expected at least one class.")
    return _make_splits(folder, samples, tuple(names), {"val": val, "test": test}, seed)


def find_tables(root: Path) -> dict[str, Path]:
    """The table `root`, the only table in the folder `root`, or the metadata files of its subfolders, by split.

    Raises:
        DataError: there is none, or there are several in one folder.
    """
    if not root.is_dir():
        check_file(root, f"a table ({', '.join(SUFFIXES)}) or a folder with one")
        return {"": root}
    tables = _list_tables(root)
    if len(tables) > 1:
        raise DataError(
            f"{root}: contains several tables, {first_few([path.name for path in tables])}; "
            f"choose one, as in `table:{tables[0]}`."
        )
    if tables:
        return {"": tables[0]}
    metadata = _list_metadata(root)
    if not metadata:
        raise DataError(f"{root}: no table; expected a file such as `labels.csv`, or `metadata.csv` in each subfolder.")
    return metadata


def _list_tables(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _list_metadata(folder: Path) -> dict[str, Path]:
    """The metadata files by their subfolder, which is the split."""
    return {path.parent.name: path for name in METADATA for path in sorted(folder.glob(f"*/{name}"))}


def _find_columns(table: Table, image: str, labels: str, classes: str, split: str) -> Columns:
    lower = {name.lower(): name for name in table.columns}

    def find(option: str, chosen: str, known: Iterable[str]) -> str:
        if chosen and chosen not in table.columns:
            raise DataError(
                f"{table.path}: no column `{chosen}`, which `{option}` names; "
                f"did you mean `{closest_match(chosen, table.columns)}`?"
            )
        return chosen or next((lower[name] for name in known if name in lower), "")

    columns = Columns(
        image=find("image", image, IMAGE_COLUMNS),
        labels="" if classes else find("labels", labels, LABEL_COLUMNS),
        classes=tuple(find("classes", name, ()) for name in classes.split(",")) if classes else (),
        split=find("split", split, SPLIT_COLUMNS),
        boxes=next((tuple(lower[n] for n in names) for names in BOX_COLUMNS if set(names) <= lower.keys()), ()),
    )
    shown = first_few([f"`{name:.60}`" for name in table.columns], 10)
    if not columns.image:
        raise DataError(f"{table.path}: no column of images among {shown}; name it, as in `?image=<column>`.")
    if not columns.labels and not classes:
        used = {columns.image, columns.split, *columns.boxes}
        columns.classes = tuple(
            name
            for name, values in table.columns.items()
            if name not in used and any(_text(value).lower() in CELLS for value in values)
        )
        if not columns.classes:
            raise DataError(
                f"{table.path}: no column of labels and none of 0 and 1 among {shown}; name it, as in "
                f"`?labels=<column>` or `?classes=<column>,<column>`."
            )
    if columns.boxes and not columns.labels:
        raise DataError(f"{table.path}: has boxes but no column of labels; expected the label of each box.")
    return columns


def _read_rows(
    table: Table,
    columns: Columns,
    folder: Path,
    subfolder: str,
    images: str,
    separator: str,
    empty: str,
    absent: str,
) -> Iterator[tuple[str, Sample]]:
    """The id and the content of each row."""
    listed = [_text(value).replace("\\", "/") for value in table.columns[columns.image]]
    prefix, suffix = _find_images(folder, f"{subfolder}/" if subfolder else "", images, listed)
    if columns.classes:
        _check_signs(table, columns, absent)
    separator = separator or _find_separator(table.columns.get(columns.labels, ()))
    for row, name in enumerate(listed):
        place = table.place(row)
        if not name:
            raise DataError(f"{place}: nothing in the column `{columns.image}`; expected the path of an image.")
        split = ""
        if subfolder or columns.split:
            split = _split_name(subfolder or _text(table.columns[columns.split][row]), place)
        unknown: set[str] | None
        if columns.classes:
            cells = {name: table.columns[name][row] for name in columns.classes}
            present, unknown = _read_cells(cells, place, empty, absent)
        else:
            present, unknown = _read_labels(table.columns[columns.labels][row], separator, empty)
        boxes = []
        if columns.boxes and (box := _read_box([table.columns[name][row] for name in columns.boxes], place)):
            if len(present) != 1:
                raise DataError(f"{place}: {len(present)} labels for one box; expected one.")
            boxes = [(next(iter(present)), box)]
        i = f"{subfolder}/{name}" if subfolder else name
        yield i, Sample(place, f"{prefix}{name}{suffix}", split, present, unknown, boxes)


def _find_images(folder: Path, subfolder: str, images: str, listed: Sequence[str]) -> tuple[str, str]:
    """What comes before and after the listed names: where one of a few images is found, otherwise nothing."""
    prefixes = [f"{subfolder}{name}" for name in ([f"{images.strip('/')}/"] if images else IMAGE_FOLDERS)]
    for prefix in prefixes:
        for suffix in IMAGE_SUFFIXES:
            if any(isfile(folder / f"{prefix}{name}{suffix}") for name in listed[:: len(listed) // 50 + 1]):
                return prefix, suffix
    return prefixes[0], ""


def _find_separator(values: Iterable[Any]) -> str:
    texts = [value for value in values if isinstance(value, str)]
    return next((separator for separator in SEPARATORS if any(separator in text for text in texts)), "")


def _split_name(text: str, place: str) -> str:
    name = SPLIT_NAMES.get(text.lower(), text.lower())
    if not re.fullmatch(r"\w[\w-]*", name):
        raise DataError(f"{place}: {text!r:.60} is the split; expected a name such as train, val or test.")
    return name


def _read_labels(value: Any, separator: str, empty: str) -> tuple[set[str], set[str] | None]:
    """The present and the unknown labels in a cell; None for all that are not present."""
    text = _text(value)
    if isinstance(value, list | tuple):
        items = [_text(item) for item in value]
    elif not text or text in UNKNOWN:
        return set(), set() if not text and empty == "none" else None
    else:
        items = [item.strip() for item in (text.split(separator) if separator else [text])]
    items = [item for item in items if item]
    return {item for item in items if item[0] != "?"}, {item[1:].strip() for item in items if item[0] == "?"} - {""}


def _read_cells(cells: Mapping[str, Any], place: str, empty: str, absent: str) -> tuple[set[str], set[str]]:
    """The present and the unknown labels of a row with one column per class."""
    present: set[str] = set()
    unknown: set[str] = set()
    for name, value in cells.items():
        text = _text(value).lower()
        if CELLS.get(text) == 1:
            present.add(name)
        elif text in UNKNOWN[1:] and absent == "-1":
            continue
        elif text in UNKNOWN or (not text and empty == "unknown"):
            unknown.add(name)
        elif text and text not in CELLS:
            raise DataError(
                f"{place}: {value!r:.60} in the column `{name:.60}`; expected 1, 0, or ? for unknown. If it is no "
                f"class, name the columns that are, as in `?classes=<column>,<column>`."
            )
    return present, unknown


def _check_signs(table: Table, columns: Columns, absent: str) -> None:
    """Raises DataError if -1 seems to mean absent: there is no 0."""
    values = {_text(value).lower() for name in columns.classes for value in table.columns[name]}
    if absent == "0" and values & set(UNKNOWN[1:]) and not any(CELLS.get(text) == 0 for text in values):
        raise DataError(
            f"{table.path}: the classes have 1 and -1 but no 0, and -1 means unknown. If it is to mean absent, write "
            f"`?absent=-1`; otherwise replace -1 by ?."
        )


def _read_box(values: Sequence[Any], place: str) -> list[float] | None:
    """x1, y1, x2, y2; None if all are empty."""
    texts = [_text(value) for value in values]
    if not any(texts):
        return None
    try:
        box = [float(text) for text in texts]
    except ValueError:
        raise DataError(f"{place}: {', '.join(texts)!r:.60} is no box; expected four numbers.") from None
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 < math.inf and 0 <= y1 < y2 < math.inf):
        raise DataError(f"{place}: the box {format_box(box)}; expected 0 <= x1 < x2 and 0 <= y1 < y2.")
    return box


def _merge(sample: Sample, other: Sample, name: str, *, is_object: bool) -> None:
    """Adds another object of the same image."""
    if not is_object:
        raise DataError(f"{other.place}: `{name:.60}` is also at {sample.place}; expected each image once.")
    if other.split != sample.split:
        raise DataError(f"{other.place}: `{name:.60}` is in {other.split}, but at {sample.place} in {sample.split}.")
    sample.present |= other.present
    sample.boxes += other.boxes
    unknowns = [unknown for unknown in (sample.unknown, other.unknown) if unknown is not None]
    sample.unknown = set().union(*unknowns) if unknowns else None


def _make_splits(
    folder: Path, samples: Mapping[str, Sample], classes: tuple[str, ...], fractions: Mapping[str, float], seed: int
) -> dict[str, MultiLabelData]:
    column = {name: k for k, name in enumerate(classes)}
    targets = np.zeros((len(samples), len(classes)), np.uint8)
    ignore_mask = np.zeros(targets.shape, bool)
    objects = []
    for row, sample in enumerate(samples.values()):
        targets[row, [column[name] for name in sample.present]] = 1
        ignore_mask[row, slice(None) if sample.unknown is None else [column[name] for name in sample.unknown]] = True
        objects.append(np.array([[column[name], *box] for name, box in sample.boxes], np.float32).reshape(-1, 5))
    ignore_mask &= targets == 0
    data = MultiLabelData(
        name=folder.name,
        split="all",
        images=ImageFiles(folder, [sample.file for sample in samples.values()]),
        targets=targets,
        classes=classes,
        ids=tuple(samples),
        boxes=objects if any(map(len, objects)) else None,
        ignore_mask=ignore_mask if ignore_mask.any() else None,
    )
    names = [sample.split for sample in samples.values()]
    if not all(names):
        names = stratified_splits(data, {"train": 1 - sum(fractions.values()), **fractions}, seed)
    splits = {}
    for split in dict.fromkeys(names):
        splits[split] = replace(data.subset([row for row, name in enumerate(names) if name == split]), split=split)
    return standard_splits(splits)


def _text(value: Any) -> str:
    """A value as text; empty for a missing one."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()
