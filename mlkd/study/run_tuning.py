"""Runs the trials of a tuning, and writes their table, their figure and the study with the best settings."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import yaml

from mlkd.data import load_data
from mlkd.files import atomic_write
from mlkd.study.executors import Executor, Job, create_executor
from mlkd.study.read import nested
from mlkd.study.run_sweep import SweepProgress, TaskStatus, create_job, run_tasks
from mlkd.study.search import Search
from mlkd.study.study import Study
from mlkd.study.tune import Tuning

TUNED_FILE = "tuned.yml"
"""The file in a tuning's folder that is the study with the best settings."""


def run_tuning(tuning: Tuning, executor: str = "local", jobs: int = 0) -> int:
    """Runs all trials that are not finished, and writes `trials.csv`, `trials.png` and `tuned.yml` to its folder.

    The trials of one method run one after the other, and those of several methods at the same time.

    Args:
        tuning: as `load_tuning` returns it.
        executor, jobs: as for `mlkd.study.executors.create_executor`.

    Returns:
        The exit status of the command: 0, or 1 if a teacher or all trials of a method failed.

    Raises:
        ValueError, DataError: as for `create_study` and `load_data`; before the first run.
        ImportError: the package `optuna` is missing.
    """
    load_data(tuning.study_at({}).data)
    resources = (executor, tuning.cpus, tuning.gpus, jobs)
    ended: list[Search] = []
    for methods in tuning.stages():
        best = {key: value for search in ended for key, value in search.best.items()}
        searches = [Search(tuning, method, fixed=best) for method in methods]
        tasks = {task.name: task for each in searches for task in tuning.tasks(each.method, best)[:-1]}
        teachers = run_tasks(list(tasks.values()), tuning.folder, create_executor(*resources), tuning.cpus)
        failed = [name for name, status in teachers.items() if not status.finished]
        if failed:
            print(f"{failed[0]}: {teachers[failed[0]].note}", file=sys.stderr)
            return 1
        run_searches(searches, ended, create_executor(*resources))
        ended += searches
    without = [search.method for search in ended if not search.best]
    if without:
        print(f"All trials of {', '.join(without)} failed; their logs are in {tuning.folder}.", file=sys.stderr)
    print(f"\n{tuning.folder / TUNED_FILE}: the study with the best settings.")
    return int(bool(without))


def run_searches(searches: Sequence[Search], ended: Sequence[Search], executor: Executor) -> None:
    """Runs the trials of several methods to their ends.

    Args:
        searches: of one stage.
        ended: those of the stages before, for the results.
        executor: trains them; it is terminated at the end, and on Ctrl-C.
    """
    running: dict[str, tuple[Search, Job]] = {}
    statuses: dict[str, TaskStatus] = {}
    with SweepProgress(statuses) as display:
        try:
            while any(search.trial for search in searches):
                num_ended = sum(len(search.rows) for search in searches)
                for search in searches:
                    if search not in [other for other, _ in running.values()]:
                        _start_next(search, running, executor, display)
                for title, error in executor.poll():
                    search, _ = running.pop(title)
                    _end(search, search.state() or "failed", display, error)
                for title, (search, job) in list(running.items()):
                    display.update(title, job.status)
                    if search.state() == "stopped":
                        executor.stop(title)
                        del running[title]
                        _end(search, "stopped", display)
                if sum(len(search.rows) for search in searches) > num_ended:
                    write_results([*ended, *searches])
        finally:
            executor.terminate()
            for _, job in running.values():
                job.status.unlink(missing_ok=True)


def _start_next(
    search: Search, running: dict[str, tuple[Search, Job]], executor: Executor, display: SweepProgress
) -> None:
    """Records the trials that were finished or stopped before, and starts the next one if there is capacity."""
    while search.trial:
        if search.title not in display.statuses:
            display.statuses[search.title] = TaskStatus()
        if not search.state():
            break
        _end(search, search.state(), display)
    if search.trial and executor.has_capacity():
        task = replace(search.tuning.tasks(search.method, search.point)[-1], name=search.title.replace(" ", "-"))
        job = create_job(task, search.tuning.folder, search.tuning.cpus)._replace(name=search.title)
        executor.start(job)
        running[search.title] = search, job
        display.statuses[search.title].state = "queued"


def _end(search: Search, state: str, display: SweepProgress, error: str = "") -> None:
    """Records the end of a trial and displays it."""
    title = search.title
    search.end_trial(state)
    row = search.rows[-1]
    settings = " ".join(f"{key.split('.')[1]}={row[key]}" for key in search.space)
    score = f"mAP on validation {100 * row['val_mAP']:.2f} after {row['epochs']} epochs"
    display.change(title, "done" if state == "complete" else state, f"{settings}: {error or score}")


def trials_table(searches: Iterable[Search]) -> pd.DataFrame:
    """One row per trial that has ended: method, trial, state, epochs, val_mAP, run, and the settings by dotted key."""
    return pd.DataFrame([row for search in searches for row in search.rows])


def write_results(searches: Sequence[Search]) -> None:
    """Writes the trials as a table and as a figure, and the study with the best settings."""
    from mlkd.plots import tuning_trials

    tuning, table = searches[0].tuning, trials_table(searches)
    with atomic_write(tuning.folder / "trials.csv") as path:
        table.to_csv(path, index=False)
    with atomic_write(tuning.folder / "trials.png") as path:
        tuning_trials(table).savefig(path, format="png")
    with atomic_write(tuning.folder / TUNED_FILE) as path:
        path.write_text(tuned_study(searches))


def tuned_study(searches: Sequence[Search]) -> str:
    """The study with the best settings of each method, as a YAML file."""
    tuning = searches[0].tuning
    best = {key: value for search in searches for key, value in search.best.items()}
    content: dict[str, Any] = {"base": tuning.study, **({"data": tuning.data} if tuning.data else {})}
    if tuning.plugins:
        content["plugins"] = list(tuning.plugins)
    content |= nested(best, Study.model_fields)
    note = f"# The settings with the highest mAP on validation of {tuning.trials} trials per method (`mlkd tune`).\n"
    return note + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
