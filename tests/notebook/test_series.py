"""The notebook series follows from file names and headings."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nbformat")
pytest.importorskip("IPython")

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from tiny_notebooks import write

from mlkd.notebook import series
from mlkd.notebook.series import CURRENT_NOTEBOOK, next_link, notebooks, read_notebook, series_table


def write_notebook(folder: Path, name: str, heading: str) -> None:
    folder.mkdir(exist_ok=True)
    parameters = new_code_cell('data = "scenes"\nseeds: int = 0\nx[0] = 1', metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(heading), parameters]
    nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three notebooks, written in another order than that of their numbers, and one that is not in the series."""
    folder = tmp_path / "notebooks"
    write_notebook(folder, "10_last", "# The last one")
    write_notebook(folder, "01_data", "Text.\n\n## Data: what is $x$ in: it?\n\n### More\n\nA *summary*.\n\nMore.")
    write_notebook(folder, "00_start", "# Start here: which notebooks exist?\n\nA summary of\ntwo lines.")
    (folder / "notes.ipynb").write_text("not in the series")
    return folder


def test_order_and_titles(folder: Path) -> None:
    start, data, last = notebooks(folder)
    assert [notebook.number for notebook in (start, data, last)] == ["00", "01", "10"]
    assert (data.title, data.summary) == ("Data: what is $x$ in: it?", "A *summary*.")
    assert (data.topic, data.question) == ("Data", "What is $x$ in: it?")
    assert (last.topic, last.question, last.summary) == ("The last one", "", "")
    assert data.parameters == ("data", "seeds")
    assert (data.cells, data.stem) == (2, "01_data")


def test_table(folder: Path) -> None:
    assert series_table(folder).data.splitlines() == [
        "| notebook | question |",
        "|---|---|",
        "| [00 Start here](00_start.ipynb) | Which notebooks exist? |",
        "| [01 Data](01_data.ipynb) | What is $x$ in: it? |",
        "| [10 The last one](10_last.ipynb) |  |",
    ]


def test_next_link(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert next_link("00_start.ipynb", folder).data == "Next: [01 Data](01_data.ipynb). What is $x$ in: it?"
    assert next_link("10_last", folder).data == ""
    assert next_link("other", folder).data == ""
    monkeypatch.setenv(CURRENT_NOTEBOOK, "notebooks/01_data.ipynb")
    assert next_link(folder=folder).data == "Next: [10 The last one](10_last.ipynb)."


def test_default_folders(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for current in (folder.parent, folder):
        monkeypatch.chdir(current)
        assert [notebook.stem for notebook in notebooks()] == ["00_start", "01_data", "10_last"]
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert notebooks()[0].path == Path(series.__file__).parents[2] / "notebooks" / "00_start_here.ipynb"


def test_invalid_notebooks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no notebooks with names like 00_start_here"):
        notebooks(tmp_path)
    (tmp_path / "00_text.ipynb").write_text("text")
    with pytest.raises(ValueError, match=r"00_text.ipynb: not a notebook"):
        notebooks(tmp_path)
    with pytest.raises(ValueError, match=r"01_code.ipynb: its `parameters` cell is not valid Python"):
        read_notebook(write(tmp_path, "01_code", "data ="))
