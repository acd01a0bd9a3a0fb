from .dataset import DataError, MultiLabelData
from .images import ImageFiles
from .index_cache import cached_index
from .load import load_data
from .readers import READERS, register_reader
from .splits import hold_out, standard_splits

__all__ = [
    "READERS",
    "DataError",
    "ImageFiles",
    "MultiLabelData",
    "cached_index",
    "hold_out",
    "load_data",
    "register_reader",
    "standard_splits",
]
