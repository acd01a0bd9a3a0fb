"""The series of notebooks, run in order: which still have to, and what became of each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mlkd.analysis import group_runs, runs_on, summary_table
from mlkd.errors import closest_match
from mlkd.files import atomic_write, explain_write_errors
from mlkd.report import html
from mlkd.report.cards import data_card, run_cards
from mlkd.report.execute import execute
from mlkd.report.notebook import Notebook, read_series
from mlkd.report.screen import NotebookProgress, duration
from mlkd.study.study import Study


def run_series(
    name: str,
    parameters: Mapping[str, Any],
    notebooks: Path | None,
    reports: Path,
    timeout_s: int,
    study: Study | None,
    no_train: bool,
) -> int:
    """As `mlkd.report.run` describes."""
    if Path(name).name != name or name == "..":
        raise ValueError(f"`name` is {name!r}, expected the name of one folder.")
    series = read_series(notebooks)
    given: dict[str, Any] = json.loads(json.dumps(dict(parameters), default=os.fspath))
    _check_known(given, series)
    folder = reports / name
    with _alone(folder):
        return _run(name, folder, given, series, timeout_s, study, no_train)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two processes that write one report would mix their notebooks."""
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.with_name(f".{folder.name}.lock")
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise ValueError(
                f"{folder}: another process makes this report; wait for it to end, or choose another `name`."
            ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _run(
    name: str,
    folder: Path,
    given: dict[str, Any],
    series: list[Notebook],
    timeout_s: int,
    study: Study | None,
    no_train: bool,
) -> int:
    record = _read_record(folder)
    report = html.Report(name, folder, given, series)
    data = None if study is None else data_card(study)

    running = ""
    before = {stem: entry["seconds"] for stem, entry in record.items() if entry.get("no_train", False) == no_train}
    try:
        with NotebookProgress([notebook.stem for notebook in series], before) as screen:
            for notebook in series:
                running = notebook.stem
                maker: dict[str, Any] = {
                    "sha256": notebook.sha256,
                    "parameters": {key: given[key] for key in notebook.parameters if key in given},
                    "mlkd": version("mlkd"),
                }
                copy = folder / notebook.path.name
                if _is_done(record.get(running), maker) and copy.is_file() and not no_train:
                    screen.skip(running, f"{running}: done before, in {duration(record[running]['seconds'])}")
                else:
                    record.pop(running, None)
                    outcome = execute(
                        notebook.path,
                        copy,
                        maker["parameters"],
                        cells=notebook.cells + bool(maker["parameters"]),  # papermill adds one
                        timeout_s=timeout_s,
                        screen=screen,
                        no_train=no_train,
                    )
                    record[running] = maker | {
                        "status": "failed" if outcome.error else "done",
                        "seconds": round(outcome.seconds, 1),
                        "error": outcome.error,
                        "no_train": no_train,
                    }
                    _write_record(folder, record, series)
                    took = duration(outcome.seconds)
                    screen.say(
                        f"{running}: failed after {took}. {outcome.error}"
                        if outcome.error
                        else f"{running}: done in {took}"
                    )
                report.write_page(notebook, record[running])
                report.write_index(record, data)
    except KeyboardInterrupt:
        on = "begins anew" if no_train else "continues there"
        print(f"\nStopped in {running}; the same command {on}.", flush=True)
        return 130

    cards, results, told = [], None, ""
    if study is not None:
        try:
            runs = runs_on(study.runs, study.splits["test"])
            cards, results = run_cards(runs), summary_table(group_runs(runs))
            told = html.as_columns(results).to_string(index=False)
        except ValueError as error:  # a run folder that is damaged
            told = f"No results table: {error}"
    index = report.write_index(record, data, cards, results)
    if told:
        print(f"\n{told}")
    failed = [notebook.stem for notebook in series if record[notebook.stem]["status"] == "failed"]
    if failed:
        print(f"\n{len(failed)} of {len(series)} notebooks failed: {', '.join(failed)}.")
        print(f"The same command{', without --no-train,' * no_train} runs these again.")
    print(f"\n{index}", flush=True)
    return 1 if failed else 0


def _check_known(given: Mapping[str, Any], series: Iterable[Notebook]) -> None:
    known = sorted({name for notebook in series for name in notebook.parameters})
    for name in given:
        if name not in known:
            hint = f" Did you mean {closest_match(name, known)!r}?" if known else ""
            raise ValueError(f"No notebook has a parameter {name!r}.{hint}")


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
    with atomic_write(folder / "report.json") as unfinished:
        unfinished.write_text(json.dumps({"notebooks": kept}, indent=1) + "\n")
