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


def test_the_explorer_of_maps(lab, run_all: Callable, shots: Path) -> None:
    pytest.importorskip("mlkd.widgets", reason="no explorers")
    path = lab.folder / "09_cam.ipynb"
    change(path, preset="smoke", methods=["vanilla"], runs=str(lab.folder / "runs"))
    page, problems = run_all("09_cam")
    explorer = page.locator(".mlkd-cam").first
    explorer.scroll_into_view_if_needed()
    picture, said = explorer.locator(".mlkd-picture"), explorer.locator(".mlkd-said")
    seen = [picture.screenshot()]
    picture.screenshot(path=shots / "lab-09-before.png")

    def another_picture(old: str | None) -> None:
        page.wait_for_function("([one, old]) => one.src != old && one.complete", arg=[picture.element_handle(), old])
        seen.append(picture.screenshot())
        assert seen[-1] not in seen[:-1]
        assert explorer.locator(".mlkd-error").inner_text() == ""

    shown = picture.get_attribute("src")
    slider = explorer.locator(".widget-slider", has_text="opacity")
    assert slider.locator(".noUi-target").bounding_box()["width"] > 80  # pixels to move in
    handle = slider.locator(".noUi-handle")
    place = handle.bounding_box()
    handle.hover()
    page.mouse.down()
    page.mouse.move(place["x"] - 30, place["y"])
    page.mouse.up()
    another_picture(shown)

    shown, sentence = picture.get_attribute("src"), said.inner_text()
    label = explorer.locator(".widget-dropdown", has_text="label").locator("select")
    label.select_option(index=5)
    another_picture(shown)
    assert said.inner_text() != sentence
    assert label.locator("option").nth(5).inner_text().removesuffix(" ✓") in said.inner_text()
    page.screenshot(path=shots / "lab-09.png")
    check(path, page, problems)


def change(path: Path, **parameters: object) -> None:
    """Writes other values into a notebook's cell of parameters."""
    notebook = nbformat.read(path, 4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    for name, value in parameters.items():
        cell.source, found = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", cell.source, flags=re.MULTILINE)
        assert found == 1, name
    nbformat.write(notebook, path)
