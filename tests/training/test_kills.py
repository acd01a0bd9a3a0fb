"""SIGKILL at any moment, a full disk, a read-only folder: finished epochs remain, and the same command resumes."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mlkd.cli import app
from mlkd.data import MultiLabelData
from mlkd.files import WriteError
from mlkd.training import loop
from mlkd.training.config import Config
from mlkd.training.loop import fit
from mlkd.training.runs import Run, iter_runs

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL"),
]


def command(runs: Path, **settings: object) -> list[str]:
    given = {"epochs": 5, "batch_size": 16, "augmentations": json.dumps(["flip", "cutout", "randaugment"]), **settings}
    pairs = [text for name, value in given.items() for text in ("--set", f"student.{name}={value}")]
    return [sys.executable, "-m", "mlkd", "train", "--study", "smoke", "--runs", str(runs), *pairs]


def assert_same(killed: Run, whole: Run) -> None:
    mine, its = (load_file(run.path / "model.safetensors") for run in (killed, whole))
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[name], its[name]) for name in mine)
    times = ["seconds", "images_per_second"]
    assert killed.history.drop(columns=times).equals(whole.history.drop(columns=times))
    assert killed.mean_ap == whole.mean_ap
    names = [sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*")) for run in (killed, whole)]
    assert names[0] == names[1]


WRITING = """
import os, signal, torch
original, calls = torch.save, []
def deadly(*given):
    calls.append(given)
    if len(calls) == 2:  # of the second checkpoint the weights are written, the rest is not
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*given)
torch.save = deadly
"""


@pytest.mark.soak
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    """Ten at random moments, ten in the middle of a checkpoint."""
    rng, epochs = random.Random(0), 24
    (tmp_path / "writing.py").write_text(WRITING)
    started = time.monotonic()
    subprocess.run(command(tmp_path / "whole", epochs=epochs), check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    given = command(tmp_path / "killed", epochs=epochs)
    half_written = 0
    for kill in range(20):
        in_writing = ["--plugin", str(tmp_path / "writing.py")] if kill % 2 else []
        with subprocess.Popen([*given, *in_writing], stdout=subprocess.DEVNULL) as process:
            if not in_writing:
                time.sleep(rng.uniform(0.1, 0.5) * seconds)
                process.kill()
            assert process.wait() == -signal.SIGKILL, f"it was done before kill {kill + 1}"
        half_written += len(list((tmp_path / "killed").glob("*/checkpoint/.*unfinished")))
    subprocess.run(given, check=True, stdout=subprocess.DEVNULL)
    (killed,), (whole,) = iter_runs(tmp_path / "killed"), iter_runs(tmp_path / "whole")
    assert half_written >= 10
    assert_same(killed, whole)


@contextmanager
def small_files_only(size: int) -> Iterator[None]:
    """Files may grow to `size` bytes, as on a disk with little room."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


@contextmanager
def nothing_may_be_written(folder: Path) -> Iterator[None]:
    """As in someone else's folder. Root may write everywhere, so root is another user meanwhile."""
    user = os.geteuid()
    folder.chmod(0o555)
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


FULL, CLOSED = "the file would exceed the size limit", "permission denied"


@pytest.mark.parametrize(
    ("what", "why"),
    [("history.csv", FULL), ("model.safetensors", FULL), ("weights.safetensors", FULL), ("history.csv", CLOSED)],
)
def test_full_disk_or_read_only_folder_is_an_error_and_written_files_remain(
    what: str,
    why: str,
    toy_data: dict[str, MultiLabelData],
    toy_config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When epoch 2 writes one of its files there is no room, or the folder is closed; later all is well again."""
    owner, name = {
        "history.csv": (Run, "write_history"),
        "model.safetensors": (loop, "save_model"),
        "weights.safetensors": (Run, "save_checkpoint"),
    }[what]
    original, calls = getattr(owner, name), [0]

    def writing(*args, **kwargs) -> None:
        calls[0] += 1
        with trouble() if calls[0] == 2 else nullcontext():
            original(*args, **kwargs)

    def trouble() -> AbstractContextManager[None]:
        (run,) = iter_runs(tmp_path)
        return small_files_only(100) if why == FULL else nothing_may_be_written(run.path)

    monkeypatch.setattr(owner, name, writing)
    if what == "model.safetensors":  # every epoch is the best so far
        better = iter(range(100))
        monkeypatch.setattr(loop, "mean_average_precision", lambda _: next(better))
    with pytest.raises(WriteError, match=f"could not be written: {why}. Free some space"):
        fit("vanilla", toy_data, toy_config, runs=tmp_path)
    monkeypatch.undo()
    (run,) = iter_runs(tmp_path)
    assert not list(run.path.rglob("*unfinished"))
    found = run.load_checkpoint()
    assert found is not None
    assert found[1]["epoch"] == 1
    if what != "model.safetensors":  # there the scores were made up
        fit("vanilla", toy_data, toy_config, runs=tmp_path / "whole")
        (whole,) = iter_runs(tmp_path / "whole")
        assert_same(fit("vanilla", toy_data, toy_config, runs=tmp_path), whole)


DEADLY = """
import os, signal
from mlkd.training.loader import BatchDataset
parent, original = os.getpid(), BatchDataset.__getitem__
def deadly(self, step):
    if step == 8 and os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, step)
BatchDataset.__getitem__ = deadly
"""


def test_killed_loader_process_is_an_error(tmp_path: Path) -> None:
    """In the second epoch; the first one is kept."""
    (tmp_path / "deadly.py").write_text(DEADLY)
    given = [*command(tmp_path / "runs", epochs=2), "--num-workers", "1", "--plugin", str(tmp_path / "deadly.py")]
    done = subprocess.run(given, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "mlkd: A process that prepares the batches ended unexpectedly" in done.stderr
    assert "use fewer `num_workers`" in done.stderr
    assert "Traceback" not in done.stderr
    (run,) = iter_runs(tmp_path / "runs")
    found = run.load_checkpoint()
    assert found is not None
    assert found[1]["epoch"] == 1


def test_read_only_folder_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(sys, "argv", command(tmp_path / "file" / "runs")[2:])
    with pytest.raises(SystemExit) as end:
        app()
    assert end.value.code == 1
    errors = capsys.readouterr().err
    assert "could not be written: a parent folder in the path is a file" in errors
    assert "Traceback" not in errors


def test_ctrl_c_prints_how_to_resume(tmp_path: Path) -> None:
    with subprocess.Popen(
        command(tmp_path, epochs=50), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "epoch 2/50" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode not in (0, -signal.SIGINT)
    assert "mlkd: interrupted; run the same command again to resume." in errors
    assert "Traceback" not in errors
    (run,) = iter_runs(tmp_path)
    assert run.load_checkpoint() is not None
