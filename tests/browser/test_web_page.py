"""An exported web page in a browser: its probabilities are those of PyTorch.

It needs onnxruntime-web: `npm install onnxruntime-web` in a folder, and that folder in `MLKD_ONNXRUNTIME_WEB`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlkd.deploy.load import load_run_model
from mlkd.deploy.web import export_web
from mlkd.study import Study
from mlkd.training.runs import Run, iter_runs


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def runs(toy_study: Study) -> list[Run]:
    """A student, and one of another seed in the place of the teacher."""
    return list(iter_runs(toy_study.runs))


@pytest.fixture(scope="module")
def address(runs: list[Run], browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    runtime = os.environ.get("MLKD_ONNXRUNTIME_WEB")
    if not runtime:
        pytest.skip("no onnxruntime-web: npm install onnxruntime-web, and set MLKD_ONNXRUNTIME_WEB to the folder")
    folder = tmp_path_factory.mktemp("web") / "page"
    export_web(runs[0], folder, teacher=runs[1], runtime=runtime)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    server.server_close()


def write_images(folder: Path) -> list[Path]:
    """Images of several formats and sizes: a photograph that lies sideways, transparency, gray."""
    rng = np.random.default_rng(3)
    colors = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    colors.resize((60, 40), Image.Resampling.NEAREST).save(folder / "a.png")
    colors.resize((50, 44)).save(folder / "b.jpg", exif=turned, quality=95)
    colors.resize((300, 200)).save(folder / "c.webp", lossless=True)
    colors.resize((20, 20)).convert("L").save(folder / "d.png")
    transparent = colors.resize((48, 48)).convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize((48, 48)).point(lambda value: 255 * (value > 99)))
    transparent.save(folder / "e.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("width", [1200, 390])
def test_probabilities_are_those_of_pytorch(
    visit: Callable, address: str, runs: list[Run], tmp_path: Path, screenshots: Path, width: int
) -> None:
    page, problems = visit(address, width=width)
    page.get_by_text("Ready").wait_for(timeout=60_000)
    (tmp_path / "images").mkdir()
    models = [load_run_model(run) for run in runs]
    for path in write_images(tmp_path / "images"):
        page.set_input_files("#file", path)
        page.get_by_text(path.name, exact=True).wait_for()
        for panel, model in zip(page.locator("#results article").all(), models, strict=True):
            (prediction,) = model.predict([path])
            rows = panel.locator("tr").evaluate_all("rows => rows.map(row => ({...row.dataset, bold: row.className}))")
            probabilities = {row["label"]: float(row["probability"]) for row in rows}
            assert set(probabilities) == set(model.classes)  # with `<script>` as text
            for name, expected in zip(model.classes, prediction.probabilities.tolist(), strict=True):
                assert probabilities[name] == pytest.approx(expected, abs=1e-3), (path.name, name)
            assert {row["label"] for row in rows if row["bold"]} == set(prediction.labels)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#results article").count() == 2
    assert "part of this page" in page.locator("#runtime").inner_text()
    page.screenshot(path=screenshots / f"web-page-{width}.png", full_page=True)
    assert problems == []


def test_a_file_that_is_not_an_image_is_named(visit: Callable, address: str, tmp_path: Path) -> None:
    page, problems = visit(address)
    page.get_by_text("Ready").wait_for(timeout=60_000)
    (tmp_path / "notes.png").write_text("not an image")
    page.set_input_files("#file", tmp_path / "notes.png")
    page.get_by_text("notes.png is not an image that this browser can read.").wait_for()
    assert problems == []


def test_an_image_is_dropped(visit: Callable, address: str) -> None:
    page, problems = visit(address)
    page.get_by_text("Ready").wait_for(timeout=60_000)
    page.evaluate("""async () => {
        const canvas = new OffscreenCanvas(50, 40);
        canvas.getContext("2d").fillRect(10, 10, 20, 20);
        const transfer = new DataTransfer();
        transfer.items.add(new File([await canvas.convertToBlob()], "dropped.png", { type: "image/png" }));
        document.querySelector("#drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
    }""")
    page.get_by_text("dropped.png", exact=True).wait_for()
    assert page.locator("#results tr").count() == 8
    assert problems == []
