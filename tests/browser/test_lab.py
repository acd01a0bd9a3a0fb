"""Notebooks in JupyterLab as users run them: open, run all cells, move a slider, select another label."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")


@pytest.fixture
def run_all(lab, visit: Callable) -> Callable:
    """A function that opens a notebook in JupyterLab, runs all its cells and returns the page when they have ended."""

    def run(stem: str):
        page, problems = visit(lab.address(stem))
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=120_000)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_function("/\\[\\*\\]/.test(document.querySelector('.jp-Notebook').innerText)")
        page.wait_for_function("!/\\[\\*\\]/.test(document.querySelector('.jp-Notebook').innerText)", timeout=300_000)
        page.keyboard.press("Control+s")
        return page, problems

    return run


def check(path: Path, page, problems: list[str]) -> None:
    """All cells of the saved notebook have run without an error, and the page has no problems."""
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert problems == []


def test_start_here(lab, run_all: Callable, screenshots: Path) -> None:
    page, problems = run_all("00_start_here")
    page.screenshot(path=screenshots / "lab-00.png")
    assert page.locator(".jp-OutputArea-output img").count() == 2
    check(lab.folder / "00_start_here.ipynb", page, problems)


class ShownExplorer:
    """An explorer on a page, and the images that it has shown."""

    def __init__(self, page, hook: str):
        self.page, self.explorer = page, page.locator(f".{hook}").first
        self.explorer.scroll_into_view_if_needed()
        self.image, self.caption = self.explorer.locator(".mlkd-image img"), self.explorer.locator(".mlkd-caption")
        self.source, self.screenshots = self.image.get_attribute("src"), [self.image.screenshot()]

    def menu(self, name: str):
        return self.explorer.locator(".widget-dropdown", has_text=name).locator("select")

    def check_new_image(self) -> None:
        """Waits for an image that was not shown before, without an error message."""
        arguments = [self.image.element_handle(), self.source]
        self.page.wait_for_function("([image, old]) => image.src != old && image.complete", arg=arguments)
        self.source = self.image.get_attribute("src")
        self.screenshots.append(self.image.screenshot())
        assert self.screenshots[-1] not in self.screenshots[:-1]
        assert self.explorer.locator(".mlkd-error").inner_text() == ""


@pytest.fixture
def smoke(lab) -> dict[str, object]:
    """Parameters for trainings of seconds; the runs that one notebook trains, the next one loads."""
    pytest.importorskip("mlkd.notebook.widgets", reason="no explorers")
    return {"study": "smoke", "methods": ["vanilla"], "runs": str(lab.folder / "runs")}


def test_cam_explorer(lab, smoke: dict[str, object], run_all: Callable, screenshots: Path) -> None:
    path = lab.folder / "09_cam.ipynb"
    set_parameters(path, **smoke)
    page, problems = run_all("09_cam")
    shown = ShownExplorer(page, "mlkd-cam")
    shown.image.screenshot(path=screenshots / "lab-09-before.png")

    slider = shown.explorer.locator(".widget-slider", has_text="opacity")
    assert slider.locator(".noUi-target").bounding_box()["width"] > 80  # pixels
    handle = slider.locator(".noUi-handle")
    box = handle.bounding_box()
    handle.hover()
    page.mouse.down()
    page.mouse.move(box["x"] - 30, box["y"])
    page.mouse.up()
    shown.check_new_image()

    caption = shown.caption.inner_text()
    label = shown.menu("label")
    label.select_option(index=5)
    shown.check_new_image()
    assert shown.caption.inner_text() != caption
    assert label.locator("option").nth(5).inner_text().removesuffix(" ✓") in shown.caption.inner_text()
    page.screenshot(path=screenshots / "lab-09.png")
    check(path, page, problems)


def test_click_on_a_cell_selects_its_labels(
    lab, smoke: dict[str, object], run_all: Callable, screenshots: Path
) -> None:
    path = lab.folder / "10_correlation.ipynb"
    set_parameters(path, **smoke)
    page, problems = run_all("10_correlation")
    shown = ShownExplorer(page, "mlkd-pairs")
    before = shown.menu("labels").input_value(), shown.menu("and").input_value()
    box = shown.image.bounding_box()
    shown.image.click(position={"x": 0.25 * box["width"], "y": 0.35 * box["height"]})
    shown.check_new_image()
    assert (shown.menu("labels").input_value(), shown.menu("and").input_value()) != before
    page.screenshot(path=screenshots / "lab-10.png")
    check(path, page, problems)


def set_parameters(path: Path, **parameters: object) -> None:
    """Writes other values into the parameters cell of a notebook."""
    notebook = nbformat.read(path, 4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    for name, value in parameters.items():
        cell.source, count = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", cell.source, flags=re.MULTILINE)
        assert count == 1, name
    nbformat.write(notebook, path)
