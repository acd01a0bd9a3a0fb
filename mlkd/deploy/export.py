"""From a finished run to one file that contains its model."""

from __future__ import annotations

import datetime
import json
from importlib.metadata import version
from pathlib import Path

from mlkd.deploy.card import write_card
from mlkd.deploy.graph import save_onnx, save_pt2
from mlkd.deploy.load import load_run_model
from mlkd.models import save_model
from mlkd.training.runs import Run

FORMATS = {".safetensors": save_model, ".onnx": save_onnx, ".pt2": save_pt2}
"""How a model is written, by the ending of the file's name."""


def check_format(file: str | Path) -> None:
    """Raises ValueError unless the file's name ends in one of `FORMATS`."""
    if Path(file).suffix not in FORMATS:
        raise ValueError(f"`file` is {str(file)!r}, expected a name that ends in {', '.join(FORMATS)}.")


def export_run(run: Run, file: str | Path) -> None:
    """Writes the model of a finished run, in the format that the file's name ends in, and its card, `FILE.md`.

    Every format contains the class names, the preprocessing, the tuned thresholds (if the run has a split `val`), and
    the notes of `run_notes`.

    Args:
        run: a finished run.
        file: a name that ends in .safetensors (for mlkd), .onnx (for ONNX Runtime) or .pt2 (of `torch.export`).

    Raises:
        ValueError: another ending.
        RunError: the run is not finished.
        ImportError: a package of the ONNX format is not installed.
    """
    check_format(file)
    model = load_run_model(run)
    FORMATS[Path(file).suffix](model, file, **run_notes(run))
    write_card(run, model, file)


def run_notes(run: Run) -> dict[str, str]:
    """What a model file states about its run, as JSON: "config", "metrics", and "data" with a hash of each split."""
    config = run.config
    notes = {"config": config, "metrics": run.metrics, "data": config["data"]}
    texts = {name: json.dumps(note) for name, note in notes.items()}
    return {**texts, "date": str(datetime.date.today()), "mlkd": version("mlkd")}
