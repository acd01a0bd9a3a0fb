"""Small notebooks for reports that take seconds."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


def write(folder: Path, name: str, parameters: str, *cells: str, markdown: str = "") -> Path:
    """Writes a notebook with a title, a summary, a parameters cell, optional Markdown, and code cells."""
    folder.mkdir(parents=True, exist_ok=True)
    notebook = new_notebook(
        cells=[
            new_markdown_cell(f"# About {name}\n\nWhat is **{name}**?\n\nMore of it."),
            new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            *([new_markdown_cell(markdown)] if markdown else []),
            *[new_code_cell(cell) for cell in cells],
        ]
    )
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"
