"""A static web page that classifies images with exported models, in the reader's browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from mlkd.deploy.export import export_run
from mlkd.deploy.onnx_model import OnnxModel
from mlkd.files import atomic_write
from mlkd.training.runs import Run

PAGE = Path(__file__).parent / "page"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""The files of onnxruntime-web that the page loads."""
VERSION = "1.30.0"
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist/"
"""Where the page loads them from when it is viewed, if they are not part of it."""


def export_web(
    run: Run, folder: str | Path, *, teacher: Run | None = None, runtime: str | Path | None = None
) -> Path | None:
    """Writes a static page that classifies a dropped image or the camera's on the reader's own device.

    The folder has `index.html` with its scripts, `models.json`, the models in ONNX format with their cards, and
    onnxruntime-web if it is found. It is served by any web server, and needs https or localhost for the camera.

    Args:
        run: the finished run of the student.
        folder: a new or empty folder, or one that this function wrote.
        teacher: a run whose predictions are shown beside the student's.
        runtime: a folder with onnxruntime-web: its `dist`, or one in which `npm install onnxruntime-web` was run. By
            default the current folder, if it was run there; else the page loads onnxruntime-web from a public CDN.

    Returns:
        The folder that onnxruntime-web was copied from, or None if the page loads it from the CDN.

    Raises:
        ValueError: `folder` has other files, or `runtime` has no onnxruntime-web.
        RunError: a run is not finished.
        ImportError: a package of the ONNX format is not installed.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: a file; expected a new or empty folder for the page.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "models.json").is_file():
        raise ValueError(f"{folder}: has other files; expected a new or empty folder for the page.")
    source = _find_runtime(runtime)
    folder.mkdir(parents=True, exist_ok=True)
    models = []
    for name, model_run in (("student", run), ("teacher", teacher)):
        if model_run is not None:
            export_run(model_run, folder / f"{name}.onnx")
            models.append(_describe(model_run, name, folder))
    for file in PAGE.iterdir():
        shutil.copy(file, folder / file.name)
    if source:
        (folder / "ort").mkdir(exist_ok=True)
        for file_name in RUNTIME:
            shutil.copy(source / file_name, folder / "ort" / file_name)
    origin = "part of this page" if source else f"loaded from {CDN.split('/')[2]} when this page is opened"
    content = {
        "description": f"Networks trained on {run.config['data']['name']}.",
        "runtime": "ort/" if source else CDN,
        "runtime_note": f"onnxruntime-web is {origin}.",
        "models": models,
    }
    with atomic_write(folder / "models.json") as unfinished:
        unfinished.write_text(json.dumps(content, indent=1))
    return source


def _describe(run: Run, name: str, folder: Path) -> dict[str, object]:
    """A model of the page: its file, title, classes, thresholds and image size."""
    model = OnnxModel(folder / f"{name}.onnx")
    megabytes, training = model.path.stat().st_size / 1e6, run.config["training"]
    method = f" ({run.config['method']})" if name == "student" else ""
    return {
        "file": model.path.name,
        "title": f"{name.capitalize()}{method}: {training['backbone']}, {megabytes:.1f} MB",
        "classes": model.classes,
        "thresholds": [0.5] * len(model.classes) if model.thresholds is None else model.thresholds.tolist(),
        "image_size": model.image_size,
    }


def _find_runtime(folder: str | Path | None) -> Path | None:
    """The folder with the files of onnxruntime-web in or below `folder`, or None.

    Raises:
        ValueError: `folder` is given and has no such files.
    """
    root = Path(folder or ".")
    candidates = (root / "node_modules" / "onnxruntime-web" / "dist", root / "dist", root)
    for candidate in candidates:
        if all((candidate / name).is_file() for name in RUNTIME):
            return candidate
    if folder:
        raise ValueError(
            f"{folder}: no onnxruntime-web here, expected {', '.join(RUNTIME)}. Run `npm install onnxruntime-web` in a "
            f"folder and give that folder."
        )
    return None
