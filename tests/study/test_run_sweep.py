"""The order of a sweep, its failures, and cached runs: with a program that trains nothing."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlkd.files import WriteError
from mlkd.study import executors
from mlkd.study.executors import Local, create_executor
from mlkd.study.run_sweep import TaskStatus, run_tasks
from mlkd.study.sweep import Task

PROGRAM = """
import json, os, sys, time
from pathlib import Path

name, *options = sys.argv[1:]
with open("started", "a") as file:
    file.write(name + "\\n")
Path(os.environ["MLKD_PROGRESS_FILE"]).write_text(f"vanilla student, seed 0: epoch 1/2, bce 0.5")
run = Path("runs") / name
run.mkdir(parents=True, exist_ok=True)
(run / "config.json").write_text('{"method": "", "training": {"role": "", "backbone": "", "seed": 0, "epochs": 2}}')
if "fails" in options and not Path("repaired").exists():
    sys.exit("mlkd: The loss is nan.")
if "dies" in options:
    os.kill(os.getpid(), 9)
if "long" in options:
    time.sleep(60)
(run / "metrics.json").write_text(json.dumps({"test": {"mAP": 0.5}, "threads": os.environ["OMP_NUM_THREADS"]}))
print(f"{run}: mAP % test 50.00")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and a program in place of `mlkd train`."""
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setattr(executors, "PROGRAM", (sys.executable, "-S", str(tmp_path / "program.py")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


LOGS = Path("runs/sweeps/mine")
TASKS = [
    Task("teacher", ("teacher",)),
    Task("a", ("a",), ("teacher",)),
    Task("b", ("b",)),
    Task("c", ("c",), ("a", "b")),
]


def sweep(tasks: list[Task] = TASKS, jobs: int = 2) -> dict[str, TaskStatus]:
    return run_tasks(tasks, LOGS, Local(jobs), threads=3)


def states(statuses: dict[str, TaskStatus]) -> dict[str, str]:
    return {name: status.state for name, status in statuses.items()}


def started_runs() -> list[str]:
    path = Path("started")
    names = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return names


def test_each_run_starts_after_its_dependencies(capsys: pytest.CaptureFixture) -> None:
    assert set(states(sweep()).values()) == {"done"}
    order = started_runs()
    assert sorted(order) == ["a", "b", "c", "teacher"]
    assert order.index("teacher") < order.index("a") < order.index("c")
    assert order.index("b") < order.index("c")
    assert json.loads(Path("runs/a/metrics.json").read_text())["threads"] == "3"
    assert (LOGS / "a.log").read_text() == "$ mlkd train a\nruns/a: mAP % test 50.00\n"
    assert not list(LOGS.glob("*.status"))
    out = capsys.readouterr().out
    assert out.startswith("4 runs, 0 of them finished before.\n")
    assert "c: done after 0 s, test 50.00\n" in out


def test_a_folder_that_cannot_be_written_is_named() -> None:
    Path("file").write_text("no folder")
    with pytest.raises(WriteError, match="could not be written: a parent folder in the path is a file"):
        run_tasks(TASKS, Path("file/logs"), Local(1), threads=1)


def test_finished_runs_are_cached() -> None:
    sweep()
    started_runs()
    again = sweep()
    assert set(states(again).values()) == {"cached"}
    assert again["a"].run.path == Path.cwd() / "runs" / "a"
    assert not started_runs()
    Path("runs/a/metrics.json").unlink()  # no longer complete: it and what depends on it run again
    assert states(sweep()) == {"teacher": "cached", "a": "done", "b": "cached", "c": "done"}
    assert started_runs() == ["a", "c"]
    other = [*TASKS[:2], Task("b", ("b", "--lr", "2")), TASKS[3]]  # another command under the same name
    assert states(sweep(other)) == {"teacher": "cached", "a": "cached", "b": "done", "c": "done"}


def test_after_a_failure_the_other_runs_continue(capsys: pytest.CaptureFixture) -> None:
    tasks = [Task("teacher", ("teacher", "fails")), *TASKS[1:3], Task("d", ("d", "dies")), TASKS[3]]
    progress = sweep(tasks)
    assert states(progress) == {"teacher": "failed", "a": "skipped", "b": "done", "d": "failed", "c": "skipped"}
    log = Path.cwd() / LOGS / "teacher.log"
    assert progress["teacher"].note == f"exit status 1: The loss is nan. ({log})"
    assert progress["d"].note.startswith("ended by SIGKILL (")
    assert (progress["a"].note, progress["c"].note) == ("depends on teacher", "depends on a")
    assert log.read_text() == "$ mlkd train teacher fails\nmlkd: The loss is nan.\n"
    assert sorted(started_runs()) == ["b", "d", "teacher"]
    Path("repaired").touch()
    assert states(sweep(tasks[:3])) == {"teacher": "done", "a": "done", "b": "cached"}
    assert log.read_text().count("$ mlkd train teacher fails\n") == 2  # the first attempt's log is still there


def test_no_more_than_jobs_run_at_once() -> None:
    class Counting(Local):
        most = 0

        def start(self, job):
            super().start(job)
            self.most = max(self.most, len(self.running))

    executor = Counting(2)
    run_tasks([Task(f"t{number}", (f"t{number}",)) for number in range(6)], LOGS, executor)
    assert executor.most == 2


def test_ctrl_c_interrupts_and_the_same_call_resumes() -> None:
    def press_ctrl_c() -> None:
        while len(list(LOGS.glob("*.log"))) < 2 or not Path("runs/x").exists():
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    tasks = [Task("b", ("b",)), Task("x", ("x", "long"), ("b",)), Task("y", ("y",), ("x",))]
    threading.Thread(target=press_ctrl_c, daemon=True).start()
    started, executor = time.monotonic(), Local(2)
    with pytest.raises(KeyboardInterrupt):
        run_tasks(tasks, LOGS, executor)
    assert time.monotonic() - started < 30
    assert all(process.poll() is not None for _, process in executor.running)
    assert "KeyboardInterrupt" in (LOGS / "x.log").read_text()  # it was interrupted, not killed
    assert sorted(started_runs()) == ["b", "x"]
    tasks[1] = Task("x", ("x",), ("b",))
    assert states(sweep(tasks)) == {"b": "cached", "x": "done", "y": "done"}


def test_the_live_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("mlkd.study.run_sweep.is_interactive", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    sweep([*TASKS, Task("f", ("f", "fails"))])
    output = capsys.readouterr()
    assert output.out == "5 runs, 0 of them finished before.\n"
    assert "4 done, 1 failed" in output.err
    assert "The loss is nan." in output.err


MISTAKES: dict[str, tuple[Callable, str]] = {
    "executor": (lambda: create_executor("lokal", 1, 0), "`executor` is 'lokal', expected local, ray or ray:ADDRESS"),
    "jobs": (lambda: create_executor("local", 1, 0, -1), "`jobs` is -1"),
    "ray's jobs": (lambda: create_executor("ray", 1, 0, 2), "`jobs` belongs to the executor local"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_invalid_executors(case: str) -> None:
    work, message = MISTAKES[case]
    with pytest.raises(ValueError, match=message):
        work()


def test_capacity_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    found = [
        create_executor("local", *numbers).jobs for numbers in ((1, 0), (3, 0), (16, 0), (1, 1), (1, 0.25), (4, 0, 3))
    ]
    assert found == [8, 2, 1, 1, 4, 3]


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"requires the package 'ray': pip install 'mlkd\[ray\]'"):
        create_executor("ray", 1, 0)
