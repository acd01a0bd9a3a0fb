"""A report's pages in a browser, opened from disk: on a screen, on a phone, in the dark and on paper."""

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
    """The address of a report of two notebooks, the second of which fails."""
    root = tmp_path_factory.mktemp("report")
    write(root / "notebooks", "00_wide", 'data = "toy"', WIDE, markdown=f"{FORMULA}\n\n[next](01_fails.ipynb)")
    write(root / "notebooks", "01_fails", "x = 1", "raise KeyError('no such class')")
    code = report.run("night", {"data": "toy"}, notebooks=root / "notebooks", reports=root / "reports", study=toy_study)
    assert code == 1
    return (root / "reports" / "night" / "index.html").as_uri()


PAGES = ("index", "00_wide", "01_fails")


def test_every_link_leads_somewhere(visit: Callable, index: str, shots: Path) -> None:
    page, problems = visit(index)
    found, followed = {index}, set[str]()
    while waiting := found - followed:
        address = min(waiting)
        followed.add(address)
        page.goto(address)
        file, _, cell = address.partition("#")
        assert page.locator("h1").count() == 1
        assert not cell or page.locator(f"[id='{cell}']").count() == 1
        page.screenshot(path=shots / f"{Path(file).stem}.png", full_page=True)
        found |= set(page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)"))
    assert {Path(address.partition("#")[0]).stem for address in followed} == set(PAGES)
    assert any("#" in address for address in followed)  # from the error to its cell
    page.goto(index)
    page.locator("a.figure").click()
    assert page.url.endswith("/00_wide.html")
    assert problems == []


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_moving_sideways(
    name: str, scheme: str, visit: Callable, index: str, shots: Path
) -> None:
    page, problems = visit(index.replace("index", name), width=390, scheme=scheme)
    page.screenshot(path=shots / f"{name}-phone-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    paper, ink = (lightness(page, what) for what in ("backgroundColor", "color"))
    assert (paper > 200 and ink < 80) if scheme == "light" else (paper < 40 and ink > 180)
    if name == "00_wide":  # what is wider moves in a box of its own
        wider = page.eval_on_selector_all(
            ".jp-OutputArea-output", "boxes => boxes.map(box => box.scrollWidth > box.clientWidth)"
        )
        assert wider == [True, False, True]  # table, text, figure
    assert problems == []


@pytest.mark.parametrize("name", PAGES)
def test_paper_is_white_and_nothing_is_cut(name: str, visit: Callable, index: str, shots: Path) -> None:
    page, problems = visit(index.replace("index", name), width=688, scheme="dark")  # A4 less its margins
    page.emulate_media(media="print")
    assert lightness(page, "backgroundColor") > 200
    assert lightness(page, "color") < 80
    if name != "00_wide":  # its table is wider than any paper
        assert page.evaluate("document.documentElement.scrollWidth") == 688
    figures = page.eval_on_selector_all("img", "images => images.map(i => i.getBoundingClientRect().right)")
    assert all(right <= 688 for right in figures)
    page.pdf(path=shots / f"{name}.pdf", format="A4")
    assert problems == []


def lightness(page, what: str) -> float:
    """The mean of red, green and blue (0 to 255) of the text, or of the paper behind it."""
    color = page.evaluate(
        """what => {
            const set = [document.body, document.documentElement].map(one => getComputedStyle(one)[what]);
            return set.find(color => color != 'rgba(0, 0, 0, 0)') ?? 'rgb(255, 255, 255)';
        }""",
        what,
    )
    return sum(map(float, re.findall(r"[\d.]+", color)[:3])) / 3
