"""Notebooks in JupyterLab as a person uses them: open, run all cells, move a slider, choose another label."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

HARMLESS = (
    # JupyterLab asks for the saved workspace, and there is none in a fresh folder.
    r"/lab/api/workspaces/",
)


@pytest.fixture
def run_all(lab, visit: Callable) -> Callable:
    """A function that opens a notebook in JupyterLab, runs all its cells and gives the page when they have ended."""

    def run(stem: str):
        page, problems = visit(lab.address(f"{stem}.ipynb"))
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
    assert [said for said in problems if not any(re.search(known, said) for known in HARMLESS)] == []


def test_start_here(lab, run_all: Callable, shots: Path) -> None:
    page, problems = run_all("00_start_here")
    page.screenshot(path=shots / "lab-00.png")
    assert page.locator(".jp-OutputArea-output img").count() == 2
    check(lab.folder / "00_start_here.ipynb", page, problems)
