"""Runs the tasks of a sweep in the order of their dependencies, displays their progress, and finds their runs later."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mlkd.data import load_data
from mlkd.files import atomic_write, explain_write_errors
from mlkd.progress import is_interactive
from mlkd.study.executors import Executor, Job, command, create_executor
from mlkd.study.sweep import Sweep, Task, expand_tasks, load_sweep
from mlkd.training.runs import Run, is_readable

SCORES = ": mAP % "
"""The text between the run's folder and its scores in the output of `mlkd train`."""

SWEEP_FILE = "sweep.yml"
"""The file in a sweep's folder that describes it as it was run, with the options of the command line."""


def run_sweep(sweep: Sweep, executor: str = "local", jobs: int = 0) -> int:
    """Trains all runs of a sweep that are not finished, and prints their scores and the failures.

    Args:
        sweep: as `load_sweep` returns it.
        executor, jobs: as for `mlkd.study.executors.create_executor`.

    Returns:
        The exit status of the command: 0, or 1 if a run failed.

    Raises:
        ValueError, DataError: as for `expand_tasks` and `load_data`; before the first run.
    """
    from mlkd.analysis import summary_table

    tasks = expand_tasks(sweep)
    for address in dict.fromkeys(task.data for task in tasks):
        load_data(address)
    with atomic_write(sweep.folder / SWEEP_FILE) as path:
        path.write_text(sweep.to_yaml())
    statuses = run_tasks(tasks, sweep.folder, create_executor(executor, sweep.cpus, sweep.gpus, jobs), sweep.cpus)
    runs = {name: status.run for name, status in statuses.items() if status.run}
    runs = {name: run for name, run in runs.items() if is_readable(run, predictions=True)}
    for (study, data), groups in group_tasks(tasks, runs).items():
        title = data if len(sweep.study) == 1 else f"{study} on {data}"
        print(f"\n{title}\n{summary_table(groups).to_string(index=False)}")
    unfinished = {name: status for name, status in statuses.items() if not status.finished}
    if unfinished:
        failed = sum(status.state == "failed" for status in unfinished.values())
        print(f"\n{failed} of {len(tasks)} runs failed, {len(unfinished) - failed} were skipped:", file=sys.stderr)
        for name, status in unfinished.items():
            print(f"  {name}: {status.note}", file=sys.stderr)
    return int(bool(unfinished))


@dataclass
class TaskStatus:
    """The state of one task.

    Attributes:
        state: "pending" (its dependencies are not finished, or there is no capacity), "queued" (given to the
            executor), "running", "done", "cached" (finished before), "failed" or "skipped" (a dependency failed).
        note: its progress, its scores, or the reason of the failure.
        started: when it began to run, by `time.monotonic`.
        seconds: how long it has run.
        run: its run, once it is finished.
    """

    state: str = "pending"
    note: str = ""
    started: float = 0.0
    seconds: float = 0.0
    run: Run | None = None

    @property
    def finished(self) -> bool:
        return self.state in ("done", "cached")


def run_tasks(tasks: Sequence[Task], folder: Path, executor: Executor, threads: int = 1) -> dict[str, TaskStatus]:
    """Trains every task that is not finished, each after those it depends on.

    A task is cached if the last command in its log is the same as now and ended well, its run is still complete, and
    all its dependencies are cached. If one fails, those that depend on it are skipped and the others are trained.

    Args:
        tasks: each after those it depends on.
        folder: the folder of the logs. The reason of a failure is in `<task>.log`.
        executor: trains them; it is terminated at the end, and on Ctrl-C.
        threads: the number of threads of each.
    """
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    jobs = {task.name: create_job(task, folder, threads) for task in tasks}
    statuses: dict[str, TaskStatus] = {}
    for task in tasks:
        statuses[task.name] = _initial_status(task, jobs[task.name], statuses)
    cached = sum(status.state == "cached" for status in statuses.values())
    print(f"{len(statuses)} runs, {cached} of them finished before.", flush=True)
    with SweepProgress(statuses) as display:
        try:
            while any(status.state in ("pending", "queued", "running") for status in statuses.values()):
                for task in tasks:
                    if statuses[task.name].state == "pending":
                        _start_or_skip(task, jobs[task.name], statuses, executor, display)
                for name, error in executor.poll():
                    _finish(name, error, jobs[name], statuses[name], display)
                for name, status in statuses.items():
                    if status.state in ("queued", "running"):
                        display.update(name, jobs[name].status)
        finally:
            executor.terminate()
            for job in jobs.values():
                job.status.unlink(missing_ok=True)
    return statuses


def create_job(task: Task, folder: Path, threads: int) -> Job:
    """The job that trains a task in this working directory, with its log in the folder."""
    here = Path.cwd()
    log, status = here / folder / f"{task.name}.log", here / folder / f"{task.name}.status"
    environment = {name: value for name, value in os.environ.items() if name.startswith("MLKD_")}
    return Job(task.name, task.arguments, log, status, here, threads, environment)


def _initial_status(task: Task, job: Job, statuses: Mapping[str, TaskStatus]) -> TaskStatus:
    """Cached or pending; `statuses` are those of the tasks before."""
    job.status.unlink(missing_ok=True)
    run = finished_run(job)
    if run and all(statuses[name].state == "cached" for name in task.depends_on):
        return TaskStatus("cached", _scores(job), run=run)
    return TaskStatus()


def _start_or_skip(
    task: Task, job: Job, statuses: Mapping[str, TaskStatus], executor: Executor, display: SweepProgress
) -> None:
    """Starts a pending task if its dependencies are finished and there is capacity; skips it if one of them failed."""
    failed = [name for name in task.depends_on if statuses[name].state in ("failed", "skipped")]
    if failed:
        display.change(task.name, "skipped", f"depends on {failed[0]}")
    elif all(statuses[name].finished for name in task.depends_on) and executor.has_capacity():
        executor.start(job)
        statuses[task.name].state = "queued"


def _finish(name: str, error: str, job: Job, status: TaskStatus, display: SweepProgress) -> None:
    """Records the end of a task: done with its run, or failed."""
    status.run = None if error else finished_run(job)
    if status.run is None:
        display.change(name, "failed", f"{error or 'it ended well, but its log has no complete run'} ({job.log})")
    else:
        display.change(name, "done", _scores(job))


def finished_run(job: Job) -> Run | None:
    """The complete run in the log of a job, if the last command there is the same as now."""
    lines = job.log.read_text(errors="replace").splitlines() if job.log.is_file() else []
    starts = [number for number, line in enumerate(lines) if line.startswith("$ mlkd train ")]
    if not starts or lines[starts[-1]] != f"$ {command(job.arguments)}":
        return None
    results = [line for line in lines[starts[-1] :] if SCORES in line]
    path = job.folder / results[-1].partition(SCORES)[0] if results else None
    if path is None or not (path / "config.json").is_file():
        return None
    run = Run(path)
    return run if run.complete and is_readable(run) else None


def _scores(job: Job) -> str:
    return [line for line in job.log.read_text().splitlines() if SCORES in line][-1].partition(SCORES)[2]


def finished_runs(sweep: Sweep) -> tuple[list[Task], dict[str, Run]]:
    """The tasks of a sweep as it was run last, and the finished runs by task; nothing is trained.

    Without such a run there are no tasks. A run with a damaged file is left out, and a warning says what to do.
    """
    if not (sweep.folder / SWEEP_FILE).is_file():
        return [], {}
    tasks = expand_tasks(load_sweep(sweep.folder / SWEEP_FILE))
    runs = {task.name: finished_run(create_job(task, sweep.folder, threads=1)) for task in tasks}
    return tasks, {name: run for name, run in runs.items() if run and is_readable(run, predictions=True)}


def group_tasks(tasks: Iterable[Task], runs: Mapping[str, Run]) -> dict[tuple[str, str], dict[str, list[Run]]]:
    """For each study and data set the finished runs, by everything else that determines them except seeds.

    Args:
        tasks: of a sweep.
        runs: the finished runs, by the name of their task.
    """
    groups: dict[tuple[str, str], dict[str, list[Run]]] = {}
    for task in tasks:
        if task.group and task.name in runs:
            groups.setdefault((task.study, task.data), {}).setdefault(task.group, []).append(runs[task.name])
    return groups


class SweepProgress:
    """A live table in a terminal, elsewhere a line for each change; a context manager."""

    def __init__(self, statuses: dict[str, TaskStatus]):
        self.statuses, self.live = statuses, is_interactive()
        self.table = Live(console=Console(stderr=True), auto_refresh=False, get_renderable=self.render)

    def __enter__(self) -> SweepProgress:
        if self.live:
            self.table.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.table.stop()

    def update(self, name: str, file: Path) -> None:
        """Reads the progress of a started task from its status file, which is absent while the task is queued."""
        status, progress = self.statuses[name], file.read_text() if file.is_file() else ""
        if progress and status.state == "queued":
            status.started = time.monotonic()
            self.change(name, "running")
        if status.state == "running":
            status.note, status.seconds = progress.rpartition(": ")[2], time.monotonic() - status.started
        if self.live:
            self.table.refresh()

    def change(self, name: str, state: str, note: str = "") -> None:
        """Sets the state of a task and displays it."""
        status = self.statuses[name]
        status.state, status.note = state, note
        if self.live:
            self.table.refresh()
        else:
            duration = f" after {status.seconds:.0f} s" if state in ("done", "failed", "stopped") else ""
            print(f"{name}: {state}{duration}{', ' if note else ''}{note}", flush=True)

    def render(self) -> Group:
        """The running, failed and skipped tasks, and how many there are of each state."""
        table = Table("run", "state", "seconds", "", expand=True)
        for name, status in self.statuses.items():
            if status.state in ("running", "failed", "skipped"):
                seconds = f"{status.seconds:.0f}" if status.seconds else ""
                table.add_row(Text(name), status.state, seconds, Text(status.note, overflow="ellipsis", no_wrap=True))
        counts = Counter(status.state for status in self.statuses.values())
        return Group(table, Text(", ".join(f"{count} {state}" for state, count in counts.items())))
