"""A data set as a table with one column per class, which the reader `table` reads: splits that stay as they are."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from mlkd.data.dataset import MultiLabelData
from mlkd.data.images import ImageFiles
from mlkd.data.readers.table import BOX_COLUMNS, IMAGE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS
from mlkd.errors import DataError
from mlkd.files import atomic_write

RESERVED = {*IMAGE_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS, *(name for names in BOX_COLUMNS for name in names)}


def write_table(splits: Mapping[str, MultiLabelData], path: Path) -> None:
    """Writes a CSV file with the image, the split, and 1, 0 or ? for each class; boxes are not written.

    Args:
        splits: the splits, as `load_data` returns them. `trainval` is left out if there is `train`.
        path: the file, in the folder of the images or above it.

    Raises:
        DataError: an image is no file below the folder of `path`, or a class has the name of another column.
        WriteError: the file could not be written.
    """
    path = path.resolve()
    classes = splits["train"].classes
    if reserved := [name for name in classes if name.lower() in RESERVED]:
        raise DataError(f"{path}: a class is named `{reserved[0]}`, as a column of another kind; rename it.")
    rows = [["image", "split", *classes]]
    for split, data in splits.items():
        for row in range(len(data)) if split != "trainval" else ():
            image = data.images.path(row) if isinstance(data.images, ImageFiles) else None
            if image is None or not image.is_relative_to(path.parent):
                raise DataError(f"{image or data.ids[row]}: not an image file in {path.parent}; write the table there.")
            cells = [str(value) for value in data.targets[row]]
            if data.ignore_mask is not None:
                cells = ["?" if ignored else cell for ignored, cell in zip(data.ignore_mask[row], cells, strict=True)]
            rows.append([str(image.relative_to(path.parent)), split, *cells])
    with atomic_write(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
