"""An executor for sweeps that starts no processes."""

from __future__ import annotations

from typer.testing import CliRunner

from mlkd.cli import cli
from mlkd.study.executors import Job, command


class InProcess:
    """Runs `mlkd train` in this process: importing torch again takes longer than a small training."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    def has_capacity(self) -> bool:
        return True

    def start(self, job: Job) -> None:
        result = CliRunner().invoke(cli, ["train", *job.arguments], catch_exceptions=False)
        job.log.write_text(f"$ {command(job.arguments)}\n{result.output}")
        self.done.append((job.name, "" if result.exit_code == 0 else result.output))

    def poll(self) -> list[tuple[str, str]]:
        done, self.done = self.done, []
        return done

    def terminate(self) -> None:
        pass
