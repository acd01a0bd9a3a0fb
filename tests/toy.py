"""Data in memory, under the data address `toy:NAME`."""

from __future__ import annotations

from pathlib import Path

from mlkd.data import MultiLabelData, register_reader

TOY_SPLITS: dict[str, dict[str, MultiLabelData]] = {}
"""The splits of `toy:NAME`, by its name."""


@register_reader("toy")
def read_toy(root: Path) -> dict[str, MultiLabelData]:
    return TOY_SPLITS[str(root)]
