"""`run(read("sweep.yml"))` trains a sweep's runs in the order of their needs, and tells how they go."""

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

from mlkd.analysis import summary_table
from mlkd.files import explain_write_errors
from mlkd.progress import is_interactive
from mlkd.study.executors import Executor, Job, command, create_executor
from mlkd.study.sweep import Sweep, Task, tasks
from mlkd.training.runs import Run

SCORES = ": mAP % "
"""What stands between the run's folder and its scores in the last line of `mlkd train`."""


def run(sweep: Sweep, executor: str = "local", jobs: int = 0) -> int:
    """Trains all runs of a sweep that are not finished, and prints their scores and what failed.

    Args:
        sweep: as `read` gives it.
        engine, jobs: as for `mlkd.study.executors.create_engine`.

    Returns:
        The command's exit status: 0, or 1 where a run failed.
    """
    todo = tasks(sweep)
    progress = run_tasks(todo, sweep.folder, create_executor(executor, sweep.cpus, sweep.gpus, jobs), sweep.cpus)
    for data, groups in _groups(todo, progress).items():
        print(f"\n{data}\n{summary_table(groups).to_string(index=False)}")
    undone = {name: one for name, one in progress.items() if not one.done}
    if undone:
        failed = sum(one.state == "failed" for one in undone.values())
        print(f"\n{failed} of {len(todo)} runs failed, {len(undone) - failed} were not begun:", file=sys.stderr)
        for name, one in undone.items():
            print(f"  {name}: {one.note}", file=sys.stderr)
    return int(bool(undone))


@dataclass
class Progress:
    """Where one task is.

    Attributes:
        state: "waits" (for what it needs, or for a place), "runs", "done", "found" (finished before), "failed" or
            "not run" (what it needs failed).
        note: how far it is, its scores, or what went wrong.
        seconds: how long it ran.
        run: where it was trained, once it is.
    """

    state: str = "waits"
    note: str = ""
    started: float = 0.0
    seconds: float = 0.0
    run: Run | None = None

    @property
    def done(self) -> bool:
        return self.state in ("done", "found")


def run_tasks(todo: Sequence[Task], folder: Path, executor: Executor, threads: int = 1) -> dict[str, Progress]:
    """Trains every task that is not finished, each after those it needs.

    A task is finished where its log's last command is the same as now, ended well, its run is still complete, and all
    it needs is finished. A failed one leaves the others as they are, except those that need it.

    Args:
        todo: each after those it needs.
        folder: the logs' folder. What failed has its reason there, in `<task>.log`.
        engine: where they run; it is stopped at the end, and on Ctrl-C.
        threads: how many each computes with.
    """
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    jobs = {task.name: _job(task, folder, threads) for task in todo}
    progress = {task.name: Progress() for task in todo}
    for task in todo:
        found = finished(jobs[task.name])
        if found and all(progress[name].state == "found" for name in task.needs):
            progress[task.name] = Progress("found", _scores(jobs[task.name]), run=found)
        jobs[task.name].status.unlink(missing_ok=True)
    waiting = [task for task in todo if not progress[task.name].done]
    running: set[str] = set()
    with SweepProgress(progress) as screen:
        try:
            while waiting or running:
                for task in list(waiting):
                    needed = [progress[name] for name in task.needs]
                    if any(other.state in ("failed", "not run") for other in needed):
                        failed = next(name for name in task.needs if progress[name].state in ("failed", "not run"))
                        screen.change(task.name, "not run", f"needs {failed}")
                        waiting.remove(task)
                    elif all(other.done for other in needed) and executor.has_capacity():
                        executor.start(jobs[task.name])
                        waiting.remove(task)
                        running.add(task.name)
                for name, error in executor.ended() if running else []:
                    running.remove(name)
                    ended = None if error else finished(jobs[name])
                    if ended is None:
                        error = error or "it ended well, but its log names no complete run"
                        screen.change(name, "failed", f"{error} ({jobs[name].log})")
                    else:
                        progress[name].run = ended
                        screen.change(name, "done", _scores(jobs[name]))
                for name in running:
                    screen.look(name, jobs[name].status)
        finally:
            executor.stop()
            for job in jobs.values():
                job.status.unlink(missing_ok=True)
    return progress


def _job(task: Task, folder: Path, threads: int) -> Job:
    here = Path.cwd()
    log, status = here / folder / f"{task.name}.log", here / folder / f"{task.name}.status"
    told = {name: value for name, value in os.environ.items() if name.startswith("MLKD_")}
    return Job(task.name, task.arguments, log, status, here, threads, told)


def finished(job: Job) -> Run | None:
    """The complete run that the log of a job tells of, if its last command was the same as now."""
    lines = job.log.read_text(errors="replace").splitlines() if job.log.is_file() else []
    starts = [number for number, line in enumerate(lines) if line.startswith("$ mlkd train ")]
    if not starts or lines[starts[-1]] != f"$ {command(job.arguments)}":
        return None
    told = [line for line in lines[starts[-1] :] if SCORES in line]
    path = job.folder / told[-1].partition(SCORES)[0] if told else None
    if path is None or not (path / "config.json").is_file():
        return None
    run = Run(path)
    return run if run.complete else None


def _scores(job: Job) -> str:
    return [line for line in job.log.read_text().splitlines() if SCORES in line][-1].partition(SCORES)[2]


class SweepProgress:
    """A live table in a terminal, elsewhere a line for each change; as a context manager."""

    def __init__(self, progress: Mapping[str, Progress]):
        self.progress, self.live = progress, is_interactive()
        self.console = Console(stderr=True)
        self.table = Live(console=self.console, auto_refresh=False, get_renderable=self.show)

    def __enter__(self) -> SweepProgress:
        found = sum(one.state == "found" for one in self.progress.values())
        print(f"{len(self.progress)} runs, {found} of them finished before.", flush=True)
        if self.live:
            self.table.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.table.stop()

    def look(self, name: str, status: Path) -> None:
        """What a task that was started says of itself; nothing as long as it waits for a place."""
        one, said = self.progress[name], status.read_text() if status.is_file() else ""
        if said and one.state == "waits":
            one.started = time.monotonic()
            self.change(name, "runs")
        if one.state == "runs":
            one.note, one.seconds = said.rpartition(": ")[2], time.monotonic() - one.started
        if self.live:
            self.table.refresh()

    def change(self, name: str, state: str, note: str = "") -> None:
        one = self.progress[name]
        one.state, one.note = state, note
        if self.live:
            self.table.refresh()
        else:
            took = f" after {one.seconds:.0f} s" if state in ("done", "failed") else ""
            print(f"{name}: {state}{took}{', ' if note else ''}{note}", flush=True)

    def show(self) -> Group:
        """The tasks that run or failed, and how many there are of each state."""
        table = Table("run", "state", "seconds", "", expand=True)
        for name, one in self.progress.items():
            if one.state in ("runs", "failed", "not run"):
                seconds = f"{one.seconds:.0f}" if one.seconds else ""
                table.add_row(Text(name), one.state, seconds, Text(one.note, overflow="ellipsis", no_wrap=True))
        counts = Counter(one.state for one in self.progress.values())
        return Group(table, Text(", ".join(f"{count} {state}" for state, count in counts.items())))


def _groups(tasks: Iterable[Task], progress: Mapping[str, Progress]) -> dict[str, dict[str, list[Run]]]:
    """For each data set the runs that are done, by what made them except the seed."""
    found: dict[str, dict[str, list[Run]]] = {}
    for task in tasks:
        run = progress[task.name].run
        if task.group and run:
            found.setdefault(task.data, {}).setdefault(task.group, []).append(run)
    return found
