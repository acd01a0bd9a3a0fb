"""Data readers, one per file: each registers itself under the name that comes first in a data address."""

from __future__ import annotations

from collections.abc import Callable

from mlkd.data.dataset import MultiLabelData
from mlkd.registry import Registry

READERS: Registry[Callable[..., dict[str, MultiLabelData]]] = Registry("reader", __name__)
"""The readers by name. `load_data("<name>:<root>?<option>=<value>")` calls the reader of that name: its parameter
`root`, if it has one, is the path; its keyword-only parameters are the options, converted to their annotated types."""

register_reader = READERS.register
