from .backbone import Backbone, WeightsError, load_weights, read_weights
from .heads import HEADS, Head, register_head
from .heads.gap import GapHead
from .heads.label_wise import LabelWiseHead
from .heads.ml_decoder import MLDecoderHead
from .heads.query2label import Query2LabelHead
from .heads.transformer import TransformerHead
from .image_predictor import ImagePrediction, ImagePredictor
from .merged import MergedTeacher
from .metadata import ModelMetadata
from .model import MultiLabelModel, Output, create_model, fingerprint, load_model, model_output, save_model

__all__ = [
    "HEADS",
    "Backbone",
    "GapHead",
    "Head",
    "ImagePrediction",
    "ImagePredictor",
    "LabelWiseHead",
    "MLDecoderHead",
    "MergedTeacher",
    "ModelMetadata",
    "MultiLabelModel",
    "Output",
    "Query2LabelHead",
    "TransformerHead",
    "WeightsError",
    "create_model",
    "fingerprint",
    "load_model",
    "load_weights",
    "model_output",
    "read_weights",
    "register_head",
    "save_model",
]
