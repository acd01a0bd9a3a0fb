"""A report's pages in a browser, opened from disk: on a screen, on a phone, in a dark color scheme and printed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("papermill")
pytest.importorskip("nbformat")

from tiny_notebooks import write

from mlkd import report
from mlkd.study.study import Study

WIDE = """
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
display(pd.DataFrame([[0.123456789] * 30]))
print("long " * 100)
plt.figure(figsize=(12, 3))
plt.plot([1, 2])
plt.show()
"""
FORMULA = (
    r"$$ L = \sum_{i=1}^{b} \sum_{k=1}^{q} KL\big([y_{ik}, 1 - y_{ik}] \,\|\, [z_{ik}, 1 - z_{ik}]\big) + x_1 + x_2 $$"
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, toy_study: Study) -> str:
    """The address of a report of two notebooks; the second one fails."""
    root = tmp_path_factory.mktemp("report")
    write(root / "notebooks", "00_wide", 'data = "toy"', WIDE, markdown=f"{FORMULA}\n\n[next](01_fails.ipynb)")
    write(root / "notebooks", "01_fails", "x = 1", "raise KeyError('no such class')")
    code = report.run("night", {"data": "toy"}, notebooks=root / "notebooks", reports=root / "reports", study=toy_study)
    assert code == 1
    return (root / "reports" / "night" / "index.html").as_uri()


PAGES = ("index", "00_wide", "01_fails")


def test_all_links_work(visit: Callable, index: str, screenshots: Path) -> None:
    page, problems = visit(index)
    found, visited = {index}, set[str]()
    while pending := found - visited:
        address = min(pending)
        visited.add(address)
        page.goto(address)
        file, _, cell = address.partition("#")
        assert page.locator("h1").count() == 1
        assert not cell or page.locator(f"[id='{cell}']").count() == 1
        page.screenshot(path=screenshots / f"{Path(file).stem}.png", full_page=True)
        links = page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
        found |= {link for link in links if ".html" in link}  # study.yml is downloaded
    assert {Path(address.partition("#")[0]).stem for address in visited} == set(PAGES)
    assert any("#" in address for address in visited)  # from the error message to its cell
    page.goto(index)
    page.locator("a.figure").click()
    assert page.url.endswith("/00_wide.html")
    assert problems == []


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_layout_has_no_horizontal_scrolling(
    name: str, scheme: str, visit: Callable, index: str, screenshots: Path
) -> None:
    page, problems = visit(index.replace("index", name), width=390, scheme=scheme)
    page.screenshot(path=screenshots / f"{name}-phone-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    background, text = (lightness(page, style) for style in ("backgroundColor", "color"))
    assert (background > 200 and text < 80) if scheme == "light" else (background < 40 and text > 180)
    if name == "00_wide":  # wide outputs scroll in their own box
        scrolls = page.eval_on_selector_all(
            ".jp-OutputArea-output", "boxes => boxes.map(box => box.scrollWidth > box.clientWidth)"
        )
        assert scrolls == [True, False, True]  # table, text, figure
    assert problems == []


@pytest.mark.parametrize("name", PAGES)
def test_printed_pages_are_white_and_complete(name: str, visit: Callable, index: str, screenshots: Path) -> None:
    page, problems = visit(index.replace("index", name), width=688, scheme="dark")  # the width of A4 without margins
    page.emulate_media(media="print")
    assert lightness(page, "backgroundColor") > 200
    assert lightness(page, "color") < 80
    if name != "00_wide":  # its table is wider than the paper
        assert page.evaluate("document.documentElement.scrollWidth") == 688
    figures = page.eval_on_selector_all("img", "images => images.map(i => i.getBoundingClientRect().right)")
    assert all(right <= 688 for right in figures)
    page.pdf(path=screenshots / f"{name}.pdf", format="A4")
    assert problems == []


def lightness(page, style: str) -> float:
    """The mean of red, green and blue (0 to 255) of the text color or the background color."""
    color = page.evaluate(
        """style => {
            const colors = [document.body, document.documentElement].map(element => getComputedStyle(element)[style]);
            return colors.find(color => color != 'rgba(0, 0, 0, 0)') ?? 'rgb(255, 255, 255)';
        }""",
        style,
    )
    return sum(map(float, re.findall(r"[\d.]+", color)[:3])) / 3
