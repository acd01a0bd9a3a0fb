"""The files of a web page; `tests/browser` opens it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image
from typer.testing import CliRunner

from mlkd.cli import cli
from mlkd.deploy import web
from mlkd.deploy.export import export_run
from mlkd.deploy.onnx_model import OnnxModel
from mlkd.training.runs import Run


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder in which onnxruntime-web is installed, with empty files."""
    dist = tmp_path / "npm" / "node_modules" / "onnxruntime-web" / "dist"
    dist.mkdir(parents=True)
    for name in web.RUNTIME:
        (dist / name).write_text(name)
    return tmp_path / "npm"


@pytest.fixture(autouse=True)
def one_export(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies the exported model in place of exporting it again."""

    def copy(run: Run, file: Path) -> None:
        shutil.copy(onnx_file, file)

    assert web.export_run is export_run
    monkeypatch.setattr(web, "export_run", copy)


def test_the_folder_is_complete(toy_run: Run, tmp_path: Path, runtime: Path) -> None:
    arguments = ["export", toy_run.path, tmp_path / "page", "--to", "web", "--runtime", runtime]
    result = CliRunner().invoke(cli, [str(text) for text in [*arguments, "--teacher", toy_run.path]])
    assert result.exit_code == 0, result.output
    assert f"copied from {runtime}" in result.output
    files = {str(file.relative_to(tmp_path / "page")) for file in (tmp_path / "page").rglob("*") if file.is_file()}
    page = {"index.html", "style.css", "app.js", "resize.js", "models.json", "student.onnx", "teacher.onnx"}
    assert files == page | {f"ort/{name}" for name in web.RUNTIME}
    content = json.loads((tmp_path / "page" / "models.json").read_text())
    assert content["runtime"] == "ort/"
    model = OnnxModel(tmp_path / "page" / "student.onnx")
    for described in content["models"]:
        assert tuple(described["classes"]) == model.classes
        assert described["thresholds"] == model.thresholds.tolist()
        assert described["image_size"] == 32
    assert web.export_web(toy_run, tmp_path / "page", runtime=runtime)  # it can be written again
    assert "<script>" not in (tmp_path / "page" / "index.html").read_text()


def test_without_onnxruntime_web_the_page_names_the_cdn(
    toy_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["export", str(toy_run.path), "page", "--to", "web"])
    assert f"loaded from {web.CDN} when the page is opened" in result.output
    content = json.loads((tmp_path / "page" / "models.json").read_text())
    assert content["runtime"] == web.CDN
    assert content["runtime_note"] == "onnxruntime-web is loaded from cdn.jsdelivr.net when this page is opened."
    assert not (tmp_path / "page" / "ort").exists()


def test_mistakes(toy_run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="has other files; expected a new or empty folder"):
        web.export_web(toy_run, tmp_path)
    with pytest.raises(ValueError, match="a file; expected a new or empty folder"):
        web.export_web(toy_run, tmp_path / "notes.txt")
    with pytest.raises(ValueError, match=r"no onnxruntime-web here, expected ort\.wasm"):
        web.export_web(toy_run, tmp_path / "page", runtime=tmp_path)
    assert not (tmp_path / "page").exists()


SIZES = [(40, 50, 32), (7, 3, 32), (1, 1, 5), (333, 222, 96), (32, 64, 32), (1000, 9, 3)]
SIZES += [(40, 48, 32), (9, 400, 3), (64, 97, 32)]  # width and height of an image, and the size of the result


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js")
def test_the_page_resizes_images_as_pillow_does(tmp_path: Path) -> None:
    """Bit for bit, larger and smaller, rows or columns first. Before version 13, Pillow resamples the rows first."""
    rng, cases = np.random.default_rng(0), []
    for width, height, size in SIZES:
        pixels = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        resized = Image.fromarray(pixels[..., :3]).resize((size, size), Image.Resampling.BILINEAR)
        case = {"width": width, "height": height, "size": size, "pixels": pixels.ravel().tolist()}
        cases.append(case | {"expected": np.asarray(resized).ravel().tolist()})
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    shutil.copy(web.PAGE / "resize.js", tmp_path / "resize.mjs")
    (tmp_path / "test.mjs").write_text(
        """
        import { readFileSync } from "node:fs";
        import { resize } from "./resize.mjs";
        for (const { width, height, size, pixels, expected } of JSON.parse(readFileSync("cases.json"))) {
          const result = resize(pixels, width, height, size);
          const differences = expected.map((value, k) => Math.abs(value - result[k]));
          console.log(Math.max(...differences), result.length === expected.length);
        }
        """
    )
    output = subprocess.run(["node", "test.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    version = int(PIL.__version__.split(".")[0])
    for line, case in zip(output.splitlines(), cases, strict=True):
        difference, same_length = line.split()
        assert same_length == "true"
        assert int(difference) <= int(version < 13 and case["height"] > case["width"])
