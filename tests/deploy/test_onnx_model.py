"""Models in ONNX format: their metadata, their predictions, damaged files, and no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import mlkd
from mlkd.deploy.load import load_run_model
from mlkd.deploy.onnx_model import OnnxModel
from mlkd.errors import WeightsError
from mlkd.training.runs import Run


def test_the_metadata_is_that_of_the_run(onnx_file: Path, toy_run: Run) -> None:
    model, expected = OnnxModel(onnx_file), load_run_model(toy_run)
    assert model.classes == expected.classes
    assert model.metadata == expected.metadata
    assert model.thresholds.tolist() == expected.thresholds.tolist()
    assert json.loads(model.texts["data"]) == toy_run.config["data"]
    assert json.loads(model.texts["metrics"]) == toy_run.metrics


def test_predictions_are_those_of_pytorch(onnx_file: Path, toy_run: Run, photos: Path) -> None:
    files = [photos / name for name in ("a.png", "b.JPG", "more/c.webp")]
    onnx_predictions, predictions = (mlkd.load_model(path).predict(files) for path in (onnx_file, toy_run.path))
    for onnx_prediction, prediction in zip(onnx_predictions, predictions, strict=True):
        assert onnx_prediction.labels == prediction.labels
        assert np.abs(onnx_prediction.probabilities - prediction.probabilities).max() < 1e-4


def test_an_onnx_file_predicts_without_torch(onnx_file: Path, photos: Path) -> None:
    script = f"""
import sys
for package in ("torch", "torchvision", "timm", "safetensors", "accelerate", "pandas", "scipy", "sklearn"):
    sys.modules[package] = None  # importing it is an error
sys.argv = ["mlkd", "predict", {str(onnx_file)!r}, {str(photos / "a.png")!r}, "--json"]
from mlkd.cli import app
app()
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    ((image),) = json.loads(output)
    (expected,) = OnnxModel(onnx_file).predict([photos / "a.png"])
    assert image["labels"] == list(expected.labels)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path, onnx_file: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.onnx: no such model file"):
        OnnxModel(tmp_path / "absent.onnx")
    for content in (b"", b"not a model", onnx_file.read_bytes()[:1000]):
        (tmp_path / "damaged.onnx").write_bytes(content)
        with pytest.raises(WeightsError, match=r"damaged\.onnx: "):
            OnnxModel(tmp_path / "damaged.onnx")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes", '["a", "b", "c"]', "4"),
        ("thresholds", "[0.5]", "has 1 `thresholds` for 4 classes"),
        ("preprocessing", '{"image_size": 64}', r"the graph maps \{'images': \[3, 32, 32\]\}.*expected.*64, 64"),
        ("preprocessing", "{}", "the graph maps"),
        ("classes", "", "no valid class names"),
    ],
)
def test_metadata_that_does_not_fit_the_graph_is_an_error(
    onnx_file: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    proto = onnx.load(onnx_file)
    (entry,) = (entry for entry in proto.metadata_props if entry.key == name)
    entry.value = text
    onnx.save(proto, tmp_path / "changed.onnx")
    with pytest.raises(WeightsError, match=message):
        OnnxModel(tmp_path / "changed.onnx")
