"""A data reader as a plugin: images and labels from one CSV file.

    mlkd data check csv:photos --plugin examples/csv_reader.py
    mlkd report --data csv:photos --plugin examples/csv_reader.py

The folder `photos` contains the images and `labels.csv` with one line per image:

    split,image,labels
    train,images/0001.jpg,dog;person
    test,images/0002.jpg,cat
"""

import csv
from pathlib import Path

import numpy as np

from mlkd.data import ImageFiles, MultiLabelData, register_reader, standard_splits


@register_reader("csv")
def read(root: str | Path, *, file: str = "labels.csv") -> dict[str, MultiLabelData]:
    """Reads the splits of a CSV file; the classes are in alphabetical order.

    Args:
        root: the folder of the images and of the CSV file.
        file: the name of the CSV file, `csv:photos?file=other.csv` in a data address.
    """
    root = Path(root).resolve()
    with (root / file).open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    labels = [set(filter(None, row["labels"].split(";"))) for row in rows]
    classes = sorted(set().union(*labels))
    targets = np.array([[name in present for name in classes] for present in labels], np.uint8)
    splits = {}
    for split in dict.fromkeys(row["split"] for row in rows):
        indices = [index for index, row in enumerate(rows) if row["split"] == split]
        names = [rows[index]["image"] for index in indices]
        splits[split] = MultiLabelData(
            root.name, split, ImageFiles(root, names), targets[indices], tuple(classes), tuple(names)
        )
    return standard_splits(splits)
