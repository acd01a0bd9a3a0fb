"""The notebook series: its order, titles and links follow from the file names `NN_name.ipynb` and their headings."""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nbformat
from IPython.display import Markdown

CURRENT_NOTEBOOK = "JPY_SESSION_NAME"
"""Environment variable: the path of the notebook that a kernel runs. Jupyter sets it, and so does `mlkd report`."""


@dataclass(frozen=True)
class Notebook:
    """A notebook of the series.

    Attributes:
        path: its file.
        title: its first heading, as Markdown.
        summary: the first paragraph after the heading, as Markdown.
        parameters: the names that its cell tagged `parameters` assigns.
        cells: the number of cells.
        sha256: the hash of the file.
    """

    path: Path
    title: str
    summary: str
    parameters: tuple[str, ...]
    cells: int
    sha256: str

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        """The two digits at the beginning of the file name."""
        return self.stem[:2]

    @property
    def topic(self) -> str:
        """The title up to the first colon."""
        return self.title.partition(": ")[0]

    @property
    def question(self) -> str:
        """The title after the first colon, which is the question that the notebook answers."""
        question = self.title.partition(": ")[2]
        return question[:1].upper() + question[1:]

    @property
    def link(self) -> str:
        """A Markdown link to the notebook."""
        return f"[{self.number} {self.topic}]({self.path.name})"


def read_notebook(path: Path) -> Notebook:
    """Reads what the series shows of a notebook.

    Raises:
        ValueError: the file is not a notebook, or not exactly one cell has the tag `parameters`.
    """
    content = path.read_bytes()
    try:
        cells = nbformat.reads(content.decode(), as_version=4).cells
    except ValueError as error:
        raise ValueError(f"{path}: not a notebook ({error}).") from error
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(
            f"{path}: {len(tagged)} cells have the tag `parameters`, expected exactly one; "
            "add the tag to the first code cell, which assigns plain values."
        )
    title, summary = _heading(cell.source for cell in cells if cell.cell_type == "markdown")
    return Notebook(
        path=path,
        title=title or path.stem,
        summary=summary,
        parameters=_assigned_names(tagged[0].source, path),
        cells=len(cells),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def notebooks(folder: str | Path | None = None) -> list[Notebook]:
    """The notebooks `NN_*.ipynb` of a folder, in the order of their numbers.

    Args:
        folder: None for the first of these that has notebooks: `notebooks` in the current folder, the current folder,
            `notebooks` in mlkd's repository.

    Raises:
        ValueError: there are no notebooks, or one of them cannot be read.
    """
    defaults = [Path("notebooks"), Path(), Path(__file__).parents[2] / "notebooks"]
    for candidate in defaults if folder is None else [Path(folder)]:
        if paths := sorted(path for path in candidate.glob("*.ipynb") if re.match(r"\d\d_", path.name)):
            return [read_notebook(path) for path in paths]
    raise ValueError(
        f"{folder or defaults[0]}: no notebooks with names like 00_start_here.ipynb; "
        "run the command in the repository, or name the folder of the notebooks."
    )


def series_table(folder: str | Path | None = None) -> Markdown:
    """A table of the series, with a link to each notebook and its question."""
    rows = [f"| {notebook.link} | {notebook.question} |" for notebook in notebooks(folder)]
    return Markdown("\n".join(["| notebook | question |", "|---|---|", *rows]))


def next_link(current: str = "", folder: str | Path | None = None) -> Markdown:
    """A link to the notebook after the current one, with its question; empty after the last one.

    Args:
        current: the current notebook's file name; "" for the notebook that calls the function.
        folder: as for `notebooks`.
    """
    series = notebooks(folder)
    stem = Path(current or os.environ.get(CURRENT_NOTEBOOK, "")).stem
    for notebook, following in pairwise(series):
        if notebook.stem == stem:
            return Markdown(f"Next: {following.link}. {following.question}".rstrip())
    return Markdown("")


def _assigned_names(source: str, path: Path) -> tuple[str, ...]:
    """The names that the plain assignments of a cell define."""
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{path}: its `parameters` cell is not valid Python ({error}).") from error
    names: list[str] = []
    for statement in body:
        if isinstance(statement, ast.Assign):
            names += [target.id for target in statement.targets if isinstance(target, ast.Name)]
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.append(statement.target.id)
    return tuple(names)


def _heading(markdown_cells: Iterable[str]) -> tuple[str, str]:
    """The first heading, and the first paragraph that follows it in the same cell."""
    for source in markdown_cells:
        if heading := re.search(r"^#+\s+(.+)$", source, re.MULTILINE):
            blocks = re.split(r"\n\s*\n", source[heading.end() :].strip())
            return heading[1].strip(), next((block for block in blocks if not block.startswith("#")), "")
    return "", ""
