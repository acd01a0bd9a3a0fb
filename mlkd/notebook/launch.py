"""Several processes from a notebook: torchrun as a subprocess, followed by the history it writes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm.auto import tqdm

from mlkd.training.runs import Run


def launch(*arguments: str, processes: int) -> Run:
    """Trains as `mlkd train ARGUMENTS` does, in several processes of this machine, one on each of its GPUs.

    Nothing is forked and this process touches no GPU. Its bar follows the run's history; what the processes say is
    shown where they fail.

    Args:
        arguments: of `mlkd train`, such as "--method", "l2d", "--data", "coco:/path".
        processes: how many.

    Raises:
        RuntimeError: the training failed; the message has what it said.

    Example:
        >>> run = launch("--method", "vanilla", "--preset", "smoke", processes=2)  # doctest: +SKIP
    """
    with tempfile.TemporaryDirectory() as folder:
        log, named = Path(folder) / "log", Path(folder) / "run"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += ["-m", "mlkd", "train", *arguments, "--run-file", str(named)]
        with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as job:
            try:
                _follow(job, named)
            except BaseException:
                job.terminate()
                raise
        if job.returncode:
            lines = log.read_text().splitlines()
            told = [line for line in lines if line.startswith("mlkd: ")] or lines[-20:]
            raise RuntimeError("\n".join([f"The training in {processes} processes failed:", *dict.fromkeys(told)]))
        return Run(named.read_text())


def _follow(job: subprocess.Popen[bytes], named: Path) -> None:
    """A bar over the epochs until the job ends."""
    with tqdm(unit="epoch") as bar:
        while True:
            ended = job.poll() is not None
            if named.is_file():
                run = Run(named.read_text())
                history = run.history
                bar.total, bar.n = run.config["training"]["epochs"], len(history)
                bar.set_description(run.path.name, refresh=False)
                if len(history):
                    bar.set_postfix_str(f"val mAP {100 * history['val_mAP'].iloc[-1]:.1f} %", refresh=False)
                bar.refresh()
            if ended:
                return
            try:
                job.wait(1)
            except subprocess.TimeoutExpired:
                continue
