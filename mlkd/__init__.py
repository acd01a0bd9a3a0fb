"""A notebook-first workbench for multi-label knowledge distillation.

The names below are loaded when they are first used, so `import mlkd` and the command line start at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlkd.answers import KeptTeacher, keep_answers
    from mlkd.config import Config
    from mlkd.data import DataError, MultiLabelData, load_data
    from mlkd.launch import launch
    from mlkd.metrics import evaluate
    from mlkd.models import Output, create_model, load_model, save_model
    from mlkd.presets import Plan, plan
    from mlkd.recipes import RECIPES, Recipe
    from mlkd.runs import Predictions, Run, RunError, all_runs, environment
    from mlkd.train import TrainingError, find_run, fit, predict

__version__ = "0.1.0"

__all__ = [
    "RECIPES",
    "Config",
    "DataError",
    "KeptTeacher",
    "MultiLabelData",
    "Output",
    "Plan",
    "Predictions",
    "Recipe",
    "Run",
    "RunError",
    "TrainingError",
    "all_runs",
    "create_model",
    "environment",
    "evaluate",
    "find_run",
    "fit",
    "keep_answers",
    "launch",
    "load_data",
    "load_model",
    "plan",
    "predict",
    "save_model",
]

_HOME = {
    "answers": ("KeptTeacher", "keep_answers"),
    "config": ("Config",),
    "data": ("DataError", "MultiLabelData", "load_data"),
    "launch": ("launch",),
    "metrics": ("evaluate",),
    "models": ("Output", "create_model", "load_model", "save_model"),
    "presets": ("Plan", "plan"),
    "recipes": ("RECIPES", "Recipe"),
    "runs": ("Predictions", "Run", "RunError", "all_runs", "environment"),
    "train": ("TrainingError", "find_run", "fit", "predict"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            globals()[name] = getattr(importlib.import_module(f"mlkd.{module}"), name)
            return globals()[name]
    raise AttributeError(f"module 'mlkd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
