from .gap import GapHead
from .head import HEADS, Head, create_head, register_head
from .label_wise import LabelWiseHead
from .query2label import Query2LabelHead
from .transformer import TransformerHead

__all__ = [
    "HEADS",
    "GapHead",
    "Head",
    "LabelWiseHead",
    "Query2LabelHead",
    "TransformerHead",
    "create_head",
    "register_head",
]
