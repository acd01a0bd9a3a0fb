"""The series of notebooks: what each one is and takes, which still have to run, and what became of them."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from mlkd import __version__
from mlkd.files import written_whole
from mlkd.report import html
from mlkd.report.execute import Screen, execute
from mlkd.spelling import nearest


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


def run_series(
    name: str,
    parameters: Mapping[str, Any],
    notebooks: Path | None,
    reports: Path,
    timeout_s: int,
    results: Callable[[], pd.DataFrame] | None,
) -> int:
    """As `mlkd.report.run` describes."""
    if Path(name).name != name or name == "..":
        raise ValueError(f"`name` is {name!r}, expected the name of one folder.")
    series = read_series(notebooks)
    given: dict[str, Any] = json.loads(json.dumps(dict(parameters), default=os.fspath))
    _check_known(given, series)
    folder = reports / name
    record = _read_record(folder)
    report = html.Report(name, folder, given, series)

    running = ""
    try:
        with Screen(len(series)) as screen:
            for notebook in series:
                running = notebook.stem
                maker = {
                    "sha256": notebook.sha256,
                    "parameters": {key: given[key] for key in notebook.parameters if key in given},
                    "mlkd": __version__,
                }
                copy = folder / notebook.path.name
                if _is_done(record.get(running), maker) and copy.is_file():
                    seconds = html.duration(record[running]["seconds"])
                    screen.skip(f"{running}: done before, in {seconds}")
                else:
                    record.pop(running, None)
                    folder.mkdir(parents=True, exist_ok=True)
                    outcome = execute(
                        notebook.path,
                        copy,
                        maker["parameters"],
                        cells=notebook.cells,
                        timeout_s=timeout_s,
                        screen=screen,
                    )
                    record[running] = maker | {
                        "status": "failed" if outcome.error else "done",
                        "seconds": round(outcome.seconds, 1),
                        "error": outcome.error,
                    }
                    _write_record(folder, record, series)
                    took = html.duration(outcome.seconds)
                    screen.say(
                        f"{running}: failed after {took}. {outcome.error}"
                        if outcome.error
                        else f"{running}: done in {took}"
                    )
                report.write_page(notebook, record[running])
                report.write_index(record)
    except KeyboardInterrupt:
        print(f"\nStopped in {running}; the same command continues there.", flush=True)
        return 130

    table = None
    if results is not None:
        try:
            table = results()
        except ValueError as error:
            print(f"\nNo results table: {error}")
        else:
            print(f"\n{html.as_columns(table).to_string(index=False)}")
    index = report.write_index(record, table)
    failed = [notebook.stem for notebook in series if record[notebook.stem]["status"] == "failed"]
    if failed:
        print(f"\n{len(failed)} of {len(series)} notebooks failed: {', '.join(failed)}.")
        print("The same command runs these again.")
    print(f"\n{index}", flush=True)
    return 1 if failed else 0


def _check_known(given: Mapping[str, Any], series: Iterable[Notebook]) -> None:
    known = sorted({name for notebook in series for name in notebook.parameters})
    for name in given:
        if name not in known:
            hint = f" Did you mean {nearest(name, known)!r}?" if known else ""
            raise ValueError(f"No notebook has a parameter {name!r}.{hint}")


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


def _is_done(entry: Mapping[str, Any] | None, maker: Mapping[str, Any]) -> bool:
    return entry is not None and entry["status"] == "done" and all(entry[key] == maker[key] for key in maker)


def _read_record(folder: Path) -> dict[str, dict[str, Any]]:
    """What became of each notebook so far, by its name without the suffix."""
    path = folder / "report.json"
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())["notebooks"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it to make the report anew.") from error


def _write_record(folder: Path, record: Mapping[str, Any], series: Iterable[Notebook]) -> None:
    kept = {notebook.stem: record[notebook.stem] for notebook in series if notebook.stem in record}
    with written_whole(folder / "report.json") as unfinished:
        unfinished.write_text(json.dumps({"notebooks": kept}, indent=1) + "\n")
