"""A table that keeps the splits of a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mlkd.cli import cli
from mlkd.data import DataError, load_data
from mlkd.data.write_table import write_table


def test_the_table_is_read_as_the_same_splits(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rows = ["image,labels"]
    for k in range(20):
        Image.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / "images" / f"{k}.png")
        rows.append(f"{k}.png,{'?' if k == 3 else 'a;b' if k % 3 else 'b'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    result = CliRunner().invoke(cli, ["data", "check", str(tmp_path), "--write-table", str(tmp_path / "fixed.csv")])
    assert result.exit_code == 0, result.output
    expected, splits = load_data(f"table:{tmp_path}/labels.csv"), load_data(f"table:{tmp_path}/fixed.csv")
    assert list(splits) == list(expected) == ["train", "val", "test"]
    for name, split in splits.items():
        assert split.ids == tuple(f"images/{i}" for i in expected[name].ids)
        assert np.array_equal(split.targets, expected[name].targets)
        masks = [data.ignore_mask for data in (split, expected[name])]
        assert np.array_equal(*[np.zeros(split.targets.shape) if mask is None else mask for mask in masks])


def test_refused(voc_folder: Path, tmp_path: Path) -> None:
    splits = load_data(f"voc:{voc_folder}")
    with pytest.raises(DataError, match=r"JPEGImages/1\.jpg: not an image file in .*elsewhere; write the table there"):
        write_table(splits, tmp_path / "elsewhere" / "a.csv")
    named = {name: replace(split, classes=("Label", *split.classes[1:])) for name, split in splits.items()}
    with pytest.raises(DataError, match=r"a\.csv: a class is named `Label`"):
        write_table(named, voc_folder / "a.csv")
    write_table(splits, voc_folder / "a.csv")
    assert load_data(f"table:{voc_folder / 'a.csv'}")["test"].ids == ("JPEGImages/4.jpg", "JPEGImages/5.jpg")
