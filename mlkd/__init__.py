"""A notebook-first workbench for multi-label knowledge distillation."""

from mlkd.config import Config
from mlkd.data import DataError, MultiLabelData, load_data
from mlkd.metrics import evaluate
from mlkd.models import Output, create_model, load_model, save_model
from mlkd.plan import Plan, plan
from mlkd.runs import Predictions, Run, RunError, all_runs, environment
from mlkd.train import TrainingError, fit, predict

__version__ = "0.1.0"

__all__ = [
    "Config",
    "DataError",
    "MultiLabelData",
    "Output",
    "Plan",
    "Predictions",
    "Run",
    "RunError",
    "TrainingError",
    "all_runs",
    "create_model",
    "environment",
    "evaluate",
    "fit",
    "load_data",
    "load_model",
    "plan",
    "predict",
    "save_model",
]
