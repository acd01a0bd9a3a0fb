"""A finished run and its exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlkd.deploy.export import export_run
from mlkd.study import Study
from mlkd.training.runs import Run, iter_runs


@pytest.fixture(scope="session")
def toy_run(toy_study: Study) -> Run:
    """A student of the data `toy`, trained for an epoch."""
    return next(iter(iter_runs(toy_study.runs)))


@pytest.fixture(scope="session")
def onnx_file(toy_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student in ONNX format."""
    path = tmp_path_factory.mktemp("onnx") / "student.onnx"
    export_run(toy_run, path)
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three image files, one of them in a subfolder."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    rng = np.random.default_rng(5)
    for name, size in (("a.png", (40, 50)), ("b.JPG", (200, 300)), ("more/c.webp", (32, 32))):
        colors = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colors).resize(size).save(folder / name, format={".JPG": "JPEG"}.get(name[-4:]))
    (folder / "notes.txt").write_text("not an image")
    return folder
