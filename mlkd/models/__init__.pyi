from .backbone import Backbone, WeightsError, load_weights, read_weights
from .heads import HEADS, GapHead, Head, LabelWiseHead, Query2LabelHead, TransformerHead, register_head
from .merged import MergedTeacher
from .model import MultiLabelModel, Output, create_model, fingerprint, load_model, save_model

__all__ = [
    "HEADS",
    "Backbone",
    "GapHead",
    "Head",
    "LabelWiseHead",
    "MergedTeacher",
    "MultiLabelModel",
    "Output",
    "Query2LabelHead",
    "TransformerHead",
    "WeightsError",
    "create_model",
    "fingerprint",
    "load_model",
    "load_weights",
    "read_weights",
    "register_head",
    "save_model",
]
