"""Executes the notebooks of a report that are not up to date, and writes its pages."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mlkd.analysis import group_runs, runs_on, summary_table
from mlkd.errors import closest_match
from mlkd.files import atomic_write, explain_write_errors
from mlkd.notebook.series import Notebook
from mlkd.notebook.series import notebooks as read_notebooks
from mlkd.report import html
from mlkd.report.cards import data_card, run_cards
from mlkd.report.execute import execute
from mlkd.report.progress import NotebookProgress
from mlkd.study.study import Study


def build_report(
    name: str,
    parameters: Mapping[str, Any],
    study: Study | None,
    notebooks: Path | None,
    reports: Path,
    timeout_s: int,
    no_train: bool,
) -> int:
    """See `mlkd.report.run`."""
    if Path(name).name != name or name == "..":
        raise ValueError(f"`name` is {name!r}, expected the name of one folder.")
    series = read_notebooks(notebooks)
    values: dict[str, Any] = json.loads(json.dumps(dict(parameters), default=os.fspath))
    _check_parameters(values, series)
    folder = reports / name
    with _locked(folder), _exit_when_terminated():
        if study is not None:
            with atomic_write(folder / "study.yml") as unfinished:
                unfinished.write_text(study.to_yaml())
        report, record = html.Report(name, folder, values, series), _read_record(folder)
        data = None if study is None else data_card(study)
        interrupted = _execute_notebooks(report, record, data, study, timeout_s, no_train)
        if interrupted:
            effect = "restarts the report" if no_train else "resumes there"
            print(f"\nInterrupted in {interrupted}; the same command {effect}.", flush=True)
            return 130
        return _write_results(report, record, data, study, no_train)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Creates the report's folder and locks it for this process.

    Raises:
        ValueError: another process holds the lock.
    """
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.with_name(f".{folder.name}.lock")
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise ValueError(
                f"{folder}: another process writes this report; wait for it to end, or choose another `name`."
            ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def _exit_when_terminated() -> Iterator[None]:
    """SIGTERM ends the block as an exception does, so that kernels are shut down and temporary files removed."""
    if threading.current_thread() is not threading.main_thread():  # no other thread may set a signal handler
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _execute_notebooks(
    report: html.Report,
    record: dict[str, dict[str, Any]],
    data: Mapping[str, Any] | None,
    study: Study | None,
    timeout_s: int,
    no_train: bool,
) -> str:
    """Executes the notebooks that are not up to date and updates `record`, their pages and the index.

    Returns:
        The notebook in which the user interrupted the report, or "".
    """
    earlier = {stem: entry["seconds"] for stem, entry in record.items() if entry.get("no_train", False) == no_train}
    stem = ""
    try:
        with NotebookProgress([notebook.stem for notebook in report.series], earlier) as progress:
            for notebook in report.series:
                stem, executed = notebook.stem, report.folder / notebook.path.name
                inputs = _inputs(notebook, report.parameters, study)
                if _is_current(record.get(stem), inputs) and executed.is_file() and not no_train:
                    progress.skip(stem, record[stem]["seconds"])
                else:
                    record.pop(stem, None)
                    outcome = execute(
                        notebook.path,
                        executed,
                        inputs["parameters"],
                        cells=notebook.cells + bool(inputs["parameters"]),  # papermill adds one
                        timeout_s=timeout_s,
                        progress=progress,
                        no_train=no_train,
                    )
                    record[stem] = inputs | {
                        "status": "failed" if outcome.error else "done",
                        "seconds": round(outcome.seconds, 1),
                        "error": outcome.error,
                        "no_train": no_train,
                    }
                    _write_record(report, record)
                    progress.end(stem, outcome.seconds, outcome.error)
                report.write_page(notebook, record[stem])
                report.write_index(record, data)
    except KeyboardInterrupt:
        return stem
    return ""


def _inputs(notebook: Notebook, parameters: Mapping[str, Any], study: Study | None) -> dict[str, Any]:
    """Everything that the outputs of a notebook depend on."""
    inputs = {
        "sha256": notebook.sha256,
        "parameters": {name: parameters[name] for name in notebook.parameters if name in parameters},
        "mlkd": version("mlkd"),
    }
    if study is not None and "study" in notebook.parameters:  # `parameters` may name a file, which can change
        inputs["study"] = hashlib.sha256(study.to_yaml().encode()).hexdigest()
    return inputs


def _write_results(
    report: html.Report,
    record: Mapping[str, Mapping[str, Any]],
    data: Mapping[str, Any] | None,
    study: Study | None,
    no_train: bool,
) -> int:
    """Writes the index with the runs and their scores, prints the scores and returns the exit code."""
    cards, results, message = [], None, ""
    if study is not None:
        try:
            runs = runs_on(study.runs, study.splits["test"])
            cards, results = run_cards(runs), summary_table(group_runs(runs))
            message = html.as_columns(results).to_string(index=False)
        except ValueError as error:  # a damaged run folder
            message = f"No results table: {error}"
    index = report.write_index(record, data, cards, results)
    if message:
        print(f"\n{message}")
    failed = [notebook.stem for notebook in report.series if record[notebook.stem]["status"] == "failed"]
    if failed:
        print(f"\n{len(failed)} of {len(report.series)} notebooks failed: {', '.join(failed)}.")
        print(f"The same command{', without --no-train,' * no_train} executes them again.")
    print(f"\n{index}", flush=True)
    return 1 if failed else 0


def _check_parameters(values: Mapping[str, Any], series: Iterable[Notebook]) -> None:
    """Raises ValueError if no notebook has a parameter of one of these names."""
    known = sorted({name for notebook in series for name in notebook.parameters})
    for name in values:
        if name not in known:
            hint = f" Did you mean {closest_match(name, known)!r}?" if known else ""
            raise ValueError(f"No notebook has a parameter {name!r}.{hint}")


def _is_current(entry: Mapping[str, Any] | None, inputs: Mapping[str, Any]) -> bool:
    """Whether a notebook was executed without an error from the same inputs."""
    return entry is not None and entry["status"] == "done" and all(entry.get(key) == inputs[key] for key in inputs)


def _read_record(folder: Path) -> dict[str, dict[str, Any]]:
    """The outcome of each executed notebook, by its file name without the suffix."""
    path = folder / "report.json"
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text())["notebooks"]
        for entry in record.values():
            if not isinstance(entry["status"] + entry["error"], str) or not math.isfinite(entry["seconds"]):
                raise ValueError("an entry is of the wrong kind")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged ({error}); delete it to rebuild the report.") from error
    return record


def _write_record(report: html.Report, record: Mapping[str, Any]) -> None:
    entries = {notebook.stem: record[notebook.stem] for notebook in report.series if notebook.stem in record}
    with atomic_write(report.folder / "report.json") as unfinished:
        unfinished.write_text(json.dumps({"notebooks": entries}, indent=1) + "\n")
