"""Training in several processes from a notebook, with torchrun."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from mlkd.errors import TrainingError
from mlkd.training.runs import Run


def launch(*arguments: str, processes: int) -> Run:
    """Runs `mlkd train` in several processes of this machine, one per GPU, and waits for the run.

    The processes are started with torchrun, so that the notebook's own process uses no GPU. A progress bar follows the
    run's history.

    Args:
        arguments: the options of `mlkd train`, such as "--method", "l2d", "--data", "coco:/path".
        processes: the number of processes.

    Raises:
        TrainingError: the training failed; the message is that of `mlkd train`, or the end of its output.

    Example:
        >>> run = mlkd.launch("--study", "smoke", "--method", "vanilla", processes=2)  # doctest: +SKIP
    """
    with tempfile.TemporaryDirectory() as folder:
        log, run_file = Path(folder) / "log", Path(folder) / "run"
        with (
            log.open("w") as output,
            subprocess.Popen(
                build_command(arguments, processes, run_file), stdout=output, stderr=subprocess.STDOUT
            ) as process,
        ):
            try:
                _show_progress(process, run_file)
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            raise TrainingError(f"The training failed: {error_message(log.read_text())}")
        return Run(run_file.read_text())


def build_command(arguments: Sequence[str], processes: int, run_file: Path) -> list[str]:
    """The torchrun command of a training, which writes the run's folder to `run_file`."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*torchrun, "-m", "mlkd", "train", *arguments, "--run-file", str(run_file)]


def error_message(output: str) -> str:
    """The message of a failed `mlkd train`: its line `mlkd: ...`, or the last lines of the output without one."""
    lines = output.splitlines()
    for line in lines:
        if line.startswith("mlkd: "):
            return line.removeprefix("mlkd: ")
    return "\n".join(["", *lines[-20:]])


def _show_progress(process: subprocess.Popen[bytes], run_file: Path) -> None:
    """A progress bar over the epochs, until the process ends."""
    with tqdm(unit="epoch") as bar:
        while True:
            ended = process.poll() is not None
            if run_file.is_file():
                run = Run(run_file.read_text())
                history = run.history
                bar.total, bar.n = run.config["training"]["epochs"], len(history)
                bar.set_description(run.path.name, refresh=False)
                if "val_mAP" in history:
                    bar.set_postfix_str(f"val mAP {100 * history['val_mAP'].iloc[-1]:.1f} %", refresh=False)
                bar.refresh()
            if ended:
                return
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                continue
