"""Data readers, one per file: each registers itself under the name that comes first in a data address."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar, cast

from mlkd.data.dataset import MultiLabelData
from mlkd.registry import Registry

READERS: Registry[Callable[..., dict[str, MultiLabelData]]] = Registry("reader", __name__)
"""The readers by name. `load_data("<name>:<root>?<option>=<value>")` calls the reader of that name: its parameter
`root`, if it has one, is the path; its keyword-only parameters are the options, converted to their annotated types."""

RECOGNIZERS: dict[str, Callable[[Path], Iterable[str]]] = {}
"""For each reader that recognizes its folders: the options with which it can read a path, one text for each way."""

Read = TypeVar("Read", bound=Callable[..., dict[str, MultiLabelData]])


def register_reader(name: str, recognize: Callable[[Path], Iterable[str]] | None = None) -> Callable[[Read], Read]:
    """A decorator that registers a data reader.

    Args:
        name: what comes first in a data address.
        recognize: called with an existing file or folder; returns the options with which the reader can read it, such
            as `["year=2007", "year=2012"]` or `[""]`, or nothing. `load_data` then takes the path alone.
    """
    if recognize is not None:
        RECOGNIZERS[name] = recognize
    return cast(Callable[[Read], Read], READERS.register(name))
