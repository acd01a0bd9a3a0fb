"""The commands `mlkd export` and `mlkd predict`."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from timm.models import _registry as timm_registry
from typer.testing import CliRunner, Result

from mlkd.cli import cli
from mlkd.deploy.load import load_model, load_run_model
from mlkd.registry import load_plugin
from mlkd.study import Study
from mlkd.training.runs import Run


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_the_table_lists_the_predicted_labels(toy_run: Run, photos: Path) -> None:
    result = call("predict", toy_run.path, photos)
    assert result.exit_code == 0, result.output
    model = load_run_model(toy_run)
    files = [photos / "a.png", photos / "b.JPG", photos / "more" / "c.webp"]
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["image", "labels"]
    for line, prediction in zip(lines, model.predict(files), strict=True):
        assert line.startswith(str(prediction.path))
        probabilities = dict(zip(model.classes, prediction.probabilities, strict=True))
        labels = ", ".join(f"{name} {probabilities[name]:.2f}" for name in prediction.labels) or "-"
        assert line.endswith(f"  {labels}")


def test_json_csv_threshold_and_top(onnx_file: Path, photos: Path) -> None:
    (prediction,) = load_model(onnx_file).predict([photos / "a.png"])
    classes = load_model(onnx_file).classes
    everything = call("predict", onnx_file, photos / "a.png", "--json", "--threshold", "0")
    (image,) = json.loads(everything.stdout)
    assert image["image"] == str(photos / "a.png")
    assert set(image["labels"]) == set(classes)
    assert list(image["probabilities"]) == list(classes)
    assert np.allclose(list(image["probabilities"].values()), prediction.probabilities, atol=1e-5)
    assert (
        json.loads(call("predict", onnx_file, photos / "a.png", "--json", "--threshold", "1").stdout)[0]["labels"] == []
    )

    table = call("predict", onnx_file, photos / "a.png", "--csv", "--top", "2")
    (row,) = csv.DictReader(io.StringIO(table.stdout))
    best = [classes[k] for k in np.argsort(-prediction.probabilities)[:2]]
    assert row["labels"].split("|") == best
    assert float(row[best[0]]) == pytest.approx(prediction.probabilities.max(), abs=1e-5)


def test_broken_images_are_named_and_skipped(onnx_file: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not an image")
    result = call("predict", onnx_file, tmp_path / "broken.png", photos / "a.png", tmp_path / "absent.png", "--json")
    assert result.exit_code == 1
    assert [image["image"] for image in json.loads(result.stdout)] == [str(photos / "a.png")]
    assert f"mlkd: {tmp_path / 'broken.png'}: the file is truncated, broken or not an image" in result.stderr
    assert "absent.png: no such file" in result.stderr
    assert "2 of 3 images were skipped" in result.stderr


def test_mistakes(toy_run: Run, onnx_file: Path, photos: Path, tmp_path: Path) -> None:
    assert "choose one of them" in str(call("predict", onnx_file, photos, "--csv", "--json").exception)
    assert "no image files in this folder" in str(call("predict", onnx_file, tmp_path).exception)
    assert call("predict", onnx_file, photos, "--threshold", "2").exit_code == 2
    assert "expected a name that ends in .safetensors, .onnx, .pt2" in str(
        call("export", toy_run.path, "student.pth").exception
    )


def test_a_safetensors_export_predicts_as_its_run(toy_run: Run, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "student.safetensors"
    result = call("export", toy_run.path, file)
    assert result.exit_code == 0, result.output
    assert "student.safetensors: " in result.stdout
    expected, predictions = (load_model(path).predict([photos / "a.png"]) for path in (toy_run.path, file))
    assert predictions[0].labels == expected[0].labels
    assert np.array_equal(predictions[0].probabilities, expected[0].probabilities)


PLUGIN = """
from mlkd.models.cifar_resnet import CifarResNet
from timm.models import register_model


@register_model
def net_to_export(pretrained=False, **settings):
    return CifarResNet(blocks=1, widths=(8, 8, 12))
"""


def test_a_backbone_of_a_plugin(
    toy_study: Study, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs the option, also for a run: a plugin is a program, and a run of somebody else could name any."""
    (tmp_path / "plugin.py").write_text(PLUGIN)
    load_plugin(tmp_path / "plugin.py")
    config = toy_study.student.replace(backbone="net_to_export", backbone_settings={}, epochs=0)
    study = toy_study.replace(student=config, plugins=(str(tmp_path / "plugin.py"),), runs=tmp_path / "runs")
    run = study.train_student("vanilla")
    expected = call("predict", run.path, photos / "a.png", "--json")
    forget_plugin("net_to_export", monkeypatch)

    plugin = ("--plugin", tmp_path / "plugin.py")
    without = call("export", run.path, tmp_path / "student.safetensors")
    assert "A backbone of a plugin needs the plugin's file: `--plugin FILE`" in str(without.exception)
    assert call("export", run.path, tmp_path / "student.safetensors", *plugin).exit_code == 0
    forget_plugin("net_to_export", monkeypatch)
    without = call("predict", tmp_path / "student.safetensors", photos / "a.png")
    assert "A backbone of a plugin needs the plugin's file: `--plugin FILE`" in str(without.exception)
    again = call("predict", tmp_path / "student.safetensors", photos / "a.png", "--json", *plugin)
    assert again.stdout == expected.stdout


def forget_plugin(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not loaded the plugin."""
    for name in [name for name in sys.modules if name.startswith("mlkd_plugin_")]:
        monkeypatch.delitem(sys.modules, name)
    for models in (timm_registry._model_entrypoints, timm_registry._model_to_module):
        models.pop(backbone)
