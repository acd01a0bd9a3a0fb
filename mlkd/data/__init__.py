"""Data sets: readers of data folders, each of which returns one `MultiLabelData` per split."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
