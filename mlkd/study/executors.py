"""Where a sweep's runs are trained: in processes of this machine, or on a Ray cluster.

Both start the command `mlkd train` in a process of its own, so a run is the same whoever starts it.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import joblib

from mlkd.files import explain_write_errors
from mlkd.progress import PROGRESS_FILE

PROGRAM = (sys.executable, "-m", "mlkd", "train")
"""What trains a run: the command, of the Python that runs this."""

NODE_DEATHS = 5
"""How often a run is begun again elsewhere after its node died, before it is given up."""


class Job(NamedTuple):
    """One run to train.

    Attributes:
        name: the task's.
        arguments: what `mlkd train` is given.
        log: where all that it prints goes, after the command itself.
        status: where it writes how far it is.
        folder: where it is started, as paths in `arguments` may be relative.
        threads: how many it computes with.
        environment: variables it has beside those of the machine it runs on.
    """

    name: str
    arguments: Sequence[str]
    log: Path
    status: Path
    folder: Path
    threads: int
    environment: Mapping[str, str]


class Executor(Protocol):
    """What a sweep needs of the place where it runs."""

    def has_capacity(self) -> bool:
        """Whether one more job may be given to it now."""

    def start(self, job: Job) -> None:
        """Starts a job, or keeps it until there is a place for it."""

    def ended(self) -> list[tuple[str, str]]:
        """Waits a moment; the jobs that ended since the last call, each with "" or what went wrong."""

    def stop(self) -> None:
        """Ends what still runs, so that it can go on later."""


def command(arguments: Sequence[str]) -> str:
    """The line a person would type."""
    return shlex.join(["mlkd", "train", *arguments])


def begin(job: Job) -> subprocess.Popen:
    """Starts `mlkd train`; its log begins anew with the command at each start, below what was there."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), str(job.threads))
    with explain_write_errors(job.log), job.log.open("a") as log:
        job.status.write_text("starts")
        log.write(f"$ {command(job.arguments)}\n")
        log.flush()
        return subprocess.Popen(
            [*PROGRAM, *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=job.folder,
            env={**os.environ, **job.environment, **limits, PROGRESS_FILE: str(job.status)},
        )


def end(processes: Sequence[subprocess.Popen]) -> None:
    """Interrupts processes as Ctrl-C does; one that does not heed that within ten seconds is killed."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def reason(job: Job, status: int) -> str:
    """Why a process ended with that exit status: "" for 0, else its log's last line."""
    if status == 0:
        return ""
    lines = [line for line in job.log.read_text(errors="replace").splitlines() if line.strip()]
    ended = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return f"{ended}: {lines[-1].removeprefix('mlkd: ')}" if not lines[-1].startswith("$ ") else ended


class Local:
    """Processes of this machine."""

    def __init__(self, jobs: int):
        self.jobs = jobs
        self.running: list[tuple[Job, subprocess.Popen]] = []

    def has_capacity(self) -> bool:
        return len(self.running) < self.jobs

    def start(self, job: Job) -> None:
        self.running.append((job, begin(job)))

    def ended(self) -> list[tuple[str, str]]:
        with suppress(subprocess.TimeoutExpired):
            self.running[0][1].wait(0.2)
        done = [(job, process) for job, process in self.running if process.poll() is not None]
        self.running = [pair for pair in self.running if pair not in done]
        return [(job.name, reason(job, process.returncode)) for job, process in done]

    def stop(self) -> None:
        end([process for _, process in self.running])


class Ray:
    """Tasks of a Ray cluster that runs already; every node sees the same files at the same paths."""

    def __init__(self, address: str, cpus: int, gpus: float):
        try:
            import ray
        except ImportError as error:
            raise ImportError("The engine 'ray' needs the package 'ray': pip install 'mlkd[ray]'.") from error
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise ValueError(
                f"`engine` is ray, but no cluster answers at {address!r}: start one with `ray start --head`."
            ) from error
        self.ray = ray
        self.train = ray.remote(train).options(
            num_cpus=cpus, num_gpus=gpus, max_retries=NODE_DEATHS, scheduling_strategy="SPREAD"
        )
        self.running: dict[Any, Job] = {}

    def has_capacity(self) -> bool:
        return True  # Ray keeps what has no place yet

    def start(self, job: Job) -> None:
        self.running[self.train.remote(job)] = job

    def ended(self) -> list[tuple[str, str]]:
        done, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0.2)
        return [(job.name, self._reason(job, reference)) for reference in done if (job := self.running.pop(reference))]

    def _reason(self, job: Job, reference: Any) -> str:
        try:
            return reason(job, self.ray.get(reference))
        except self.ray.exceptions.RayError as error:
            return str(error).strip().splitlines()[0]

    def stop(self) -> None:
        for reference in self.running:
            self.ray.cancel(reference)
        self.ray.wait(list(self.running), num_returns=len(self.running), timeout=15)
        self.ray.shutdown()


def train(job: Job) -> int:
    """What a node of the cluster does: the exit status of `mlkd train`, which ends when the task is cancelled."""
    process = begin(job)
    try:
        return process.wait()
    finally:
        end([process])


def create_executor(name: str, cpus: int, gpus: float, jobs: int = 0) -> Executor:
    """The engine of that name.

    Args:
        name: "local", "ray" for the cluster that this machine belongs to, or "ray:ADDRESS" for another.
        cpus, gpus: what each run has, as in `mlkd.sweep.Sweep`.
        jobs: for "local" how many run at once; 0 for as many as there are cores and one GPU for.

    Raises:
        ValueError: an unknown name, `jobs` for Ray or below 0, or no cluster answers.
        ImportError: the package `ray` is missing.
    """
    kind, _, address = name.partition(":")
    if kind == "ray":
        if jobs:
            raise ValueError("`jobs` is for the engine local; on Ray `cpus` and `gpus` of the file say it.")
        return Ray(address or "auto", cpus, gpus)
    if name != "local":
        raise ValueError(f"`engine` is {name!r}, expected local, ray or ray:ADDRESS.")
    if jobs < 0:
        raise ValueError(f"`jobs` is {jobs}, expected 0 (as many as there are cores for) or more.")
    most = joblib.cpu_count() // cpus if not gpus else min(joblib.cpu_count() // cpus, int(1 / gpus))
    return Local(jobs or max(most, 1))
