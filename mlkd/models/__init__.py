"""Backbones and heads: `create_model(...)` -> a model whose call gives `Output(logits, embeddings, features)`."""

from mlkd.models.backbone import Backbone, WeightsError, load_weights, read_weights
from mlkd.models.heads import HEADS, GapHead, LabelWiseHead
from mlkd.models.model import MultiLabelModel, Output, create_model, fingerprint, load_model, save_model

__all__ = [
    "HEADS",
    "Backbone",
    "GapHead",
    "LabelWiseHead",
    "MultiLabelModel",
    "Output",
    "WeightsError",
    "create_model",
    "fingerprint",
    "load_model",
    "load_weights",
    "read_weights",
    "save_model",
]
