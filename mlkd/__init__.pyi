from .data import DataError, MultiLabelData, load_data
from .deploy.load import load_model
from .errors import RunError, TrainingError
from .metrics import evaluate
from .models import Output, create_model, save_model
from .notebook.launch import launch
from .study import Study, create_study
from .training.config import Config
from .training.evaluate import predict
from .training.identity import find_run
from .training.loop import fit
from .training.run_files import Predictions
from .training.runs import Run, environment, iter_runs
from .training.teachers import CachedTeacher, cache_teacher_outputs

__all__ = [
    "CachedTeacher",
    "Config",
    "DataError",
    "MultiLabelData",
    "Output",
    "Predictions",
    "Run",
    "RunError",
    "Study",
    "TrainingError",
    "cache_teacher_outputs",
    "create_model",
    "create_study",
    "environment",
    "evaluate",
    "find_run",
    "fit",
    "iter_runs",
    "launch",
    "load_data",
    "load_model",
    "predict",
    "save_model",
]
