"""`load_model`: a model that predicts the labels of image files, from any place that mlkd stores one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the ONNX format is loaded without torch
    from mlkd.deploy.onnx_model import OnnxModel
    from mlkd.models import MultiLabelModel
    from mlkd.training.runs import Run


def load_model(path: str | Path) -> MultiLabelModel | OnnxModel:
    """Loads a model of a run, a model file or an ONNX file, on the CPU and in eval mode.

    Its method `predict` returns the labels of image files. A model of PyTorch is a `MultiLabelModel` with all it can
    do; that of an ONNX file has `predict` only, and requires onnxruntime in place of PyTorch.

    Args:
        path: the folder of a finished run, a .safetensors or .onnx file of `mlkd export`, or "mlkd:NAME" for a model
            that is part of the package ("mlkd:scenes_teacher").

    Raises:
        WeightsError: no such file, or not one that mlkd wrote.
        RunError: the run is not finished.
        ImportError: onnxruntime is not installed.

    Example::

        model = mlkd.load_model("student.onnx")
        for image in model.predict(["a.jpg", "b.jpg"]):
            print(image.path, image.labels)
    """
    if Path(path).suffix == ".onnx":
        from mlkd.deploy.onnx_model import OnnxModel

        return OnnxModel(path)
    if Path(path).is_dir():
        from mlkd.training.runs import Run

        return load_run_model(Run(path))
    from mlkd.models import load_model as load_file

    return load_file(path)


def load_run_model(run: Run) -> MultiLabelModel:
    """The model of a finished run with its tuned thresholds.

    The plugins that the run names are not loaded, since a run of somebody else could name any file.

    Raises:
        RunError: the run is not finished.
        ValueError: the network is of a plugin that is not loaded.
    """
    from mlkd.deploy.thresholds import tuned_thresholds

    model = run.model()
    model.thresholds = tuned_thresholds(run, model.classes)
    return model
