"""Notebooks in JupyterLab as a person uses them: open, run all cells, move a slider, choose another label."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")


@pytest.fixture
def run_all(lab, visit: Callable) -> Callable:
    """A function that opens a notebook in JupyterLab, runs all its cells and gives the page when they have ended."""

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
    """All cells of the saved notebook have run without an error, and the console has none."""
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert problems == []


def test_start_here(lab, run_all: Callable, shots: Path) -> None:
    page, problems = run_all("00_start_here")
    page.screenshot(path=shots / "lab-00.png")
    assert page.locator(".jp-OutputArea-output img").count() == 2
    check(lab.folder / "00_start_here.ipynb", page, problems)


class Shown:
    """An explorer on a page: its picture, and the picture that was there before."""

    def __init__(self, page, hook: str):
        self.page, self.explorer = page, page.locator(f".{hook}").first
        self.explorer.scroll_into_view_if_needed()
        self.picture, self.said = self.explorer.locator(".mlkd-picture img"), self.explorer.locator(".mlkd-said")
        self.source, self.seen = self.picture.get_attribute("src"), [self.picture.screenshot()]

    def menu(self, name: str):
        return self.explorer.locator(".widget-dropdown", has_text=name).locator("select")

    def check_another(self) -> None:
        """There comes a picture that was not seen yet, and no complaint."""
        given = [self.picture.element_handle(), self.source]
        self.page.wait_for_function("([one, old]) => one.src != old && one.complete", arg=given)
        self.source = self.picture.get_attribute("src")
        self.seen.append(self.picture.screenshot())
        assert self.seen[-1] not in self.seen[:-1]
        assert self.explorer.locator(".mlkd-error").inner_text() == ""


@pytest.fixture
def smoke(lab) -> dict[str, object]:
    """Parameters with which a notebook has its runs in seconds; those that one trains, the next one reads."""
    pytest.importorskip("mlkd.notebook.widgets", reason="no explorers")
    return {"preset": "smoke", "methods": ["vanilla"], "runs": str(lab.folder / "runs")}


def test_the_explorer_of_maps(lab, smoke: dict[str, object], run_all: Callable, shots: Path) -> None:
    path = lab.folder / "09_cam.ipynb"
    change(path, **smoke)
    page, problems = run_all("09_cam")
    shown = Shown(page, "mlkd-cam")
    shown.picture.screenshot(path=shots / "lab-09-before.png")

    slider = shown.explorer.locator(".widget-slider", has_text="opacity")
    assert slider.locator(".noUi-target").bounding_box()["width"] > 80  # pixels to move in
    handle = slider.locator(".noUi-handle")
    place = handle.bounding_box()
    handle.hover()
    page.mouse.down()
    page.mouse.move(place["x"] - 30, place["y"])
    page.mouse.up()
    shown.check_another()

    sentence = shown.said.inner_text()
    label = shown.menu("label")
    label.select_option(index=5)
    shown.check_another()
    assert shown.said.inner_text() != sentence
    assert label.locator("option").nth(5).inner_text().removesuffix(" ✓") in shown.said.inner_text()
    page.screenshot(path=shots / "lab-09.png")
    check(path, page, problems)


def test_a_click_on_a_cell_shows_its_labels(lab, smoke: dict[str, object], run_all: Callable, shots: Path) -> None:
    path = lab.folder / "10_correlation.ipynb"
    change(path, **smoke)
    page, problems = run_all("10_correlation")
    shown = Shown(page, "mlkd-pairs")
    before = shown.menu("labels").input_value(), shown.menu("and").input_value()
    place = shown.picture.bounding_box()
    shown.picture.click(position={"x": 0.25 * place["width"], "y": 0.35 * place["height"]})
    shown.check_another()
    assert (shown.menu("labels").input_value(), shown.menu("and").input_value()) != before
    page.screenshot(path=shots / "lab-10.png")
    check(path, page, problems)


def change(path: Path, **parameters: object) -> None:
    """Writes other values into a notebook's cell of parameters."""
    notebook = nbformat.read(path, 4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    for name, value in parameters.items():
        cell.source, found = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", cell.source, flags=re.MULTILINE)
        assert found == 1, name
    nbformat.write(notebook, path)
