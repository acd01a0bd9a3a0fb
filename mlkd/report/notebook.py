"""A notebook of the series as it stands in the repository: what it is about and what it takes."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nbformat


@dataclass(frozen=True)
class Notebook:
    """A notebook of the series as it stands in the repository: `title` and `question` are Markdown."""

    path: Path
    title: str
    question: str
    parameters: tuple[str, ...]
    cells: int
    sha256: str

    @property
    def stem(self) -> str:
        return self.path.stem


def read_notebook(path: Path) -> Notebook:
    """Reads a notebook's first heading, the paragraph after it and the names its `parameters` cell assigns."""
    content = path.read_bytes()
    try:
        cells = nbformat.reads(content.decode(), as_version=4).cells
    except ValueError as error:
        raise ValueError(f"{path}: not a notebook ({error}).") from error
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(
            f"{path}: {len(tagged)} cells have the tag `parameters`, expected exactly one; "
            "tag the cell of plain values at the top."
        )
    title, question = _heading(cell.source for cell in cells if cell.cell_type == "markdown")
    return Notebook(
        path=path,
        title=title or path.stem,
        question=question,
        parameters=_assigned(tagged[0].source, path),
        cells=len(cells),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def read_series(folder: Path | None) -> list[Notebook]:
    """The notebooks `NN_*.ipynb` of a folder, in order."""
    own = [Path("notebooks"), Path(__file__).parents[2] / "notebooks"]
    for place in own if folder is None else [folder]:
        if paths := sorted(path for path in place.glob("*.ipynb") if re.match(r"\d\d_", path.name)):
            return [read_notebook(path) for path in paths]
    raise ValueError(
        f"{folder or own[0]}: no notebooks named like 00_start.ipynb here; "
        "run the command in the repository's folder, or name the folder of the notebooks."
    )


def _assigned(source: str, path: Path) -> tuple[str, ...]:
    """The names that plain assignments of a cell give a value."""
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{path}: its `parameters` cell is not Python ({error}).") from error
    names: list[str] = []
    for line in body:
        if isinstance(line, ast.Assign):
            names += [target.id for target in line.targets if isinstance(target, ast.Name)]
        elif isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            names.append(line.target.id)
    return tuple(names)


def _heading(markdown: Iterable[str]) -> tuple[str, str]:
    """The first heading and the first paragraph that follows it in the same cell."""
    for source in markdown:
        if found := re.search(r"^#+\s+(.+)$", source, re.MULTILINE):
            rest = re.split(r"\n\s*\n", source[found.end() :].strip())
            return found[1].strip(), next((part for part in rest if not part.startswith("#")), "")
    return "", ""
