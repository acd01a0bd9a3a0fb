"""Executors of a sweep: processes of this machine, or tasks of a Ray cluster.

Both start `mlkd train` in a separate process, so a run does not depend on the executor.
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
"""The command that trains a run, with the Python interpreter of this process."""

NODE_DEATHS = 5
"""How often a run is restarted on another node after its node died."""


class Job(NamedTuple):
    """One run to train.

    Attributes:
        name: the task's.
        arguments: those of `mlkd train`.
        log: the file that receives its output, after the command itself.
        status: the file it writes its progress to.
        folder: the working directory, since paths in `arguments` may be relative.
        threads: the number of threads it computes with.
        environment: environment variables in addition to those of the machine it runs on.
    """

    name: str
    arguments: Sequence[str]
    log: Path
    status: Path
    folder: Path
    threads: int
    environment: Mapping[str, str]


class Executor(Protocol):
    """Runs the jobs of a sweep."""

    def has_capacity(self) -> bool:
        """Whether another job may be started now."""

    def start(self, job: Job) -> None:
        """Starts a job, or queues it until there is capacity for it."""

    def poll(self) -> list[tuple[str, str]]:
        """Waits a moment; the jobs that ended since the last call, each with "" or the reason of its failure."""

    def stop(self, name: str) -> None:
        """Stops one running or queued job, which `poll` does not return then; it can be resumed later."""

    def terminate(self) -> None:
        """Stops the running jobs; they can be resumed later."""


def command(arguments: Sequence[str]) -> str:
    """The command line that trains the run."""
    return shlex.join(["mlkd", "train", *arguments])


def start_process(job: Job) -> subprocess.Popen:
    """Starts `mlkd train`; the command and its output are appended to the log."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), str(job.threads))
    with explain_write_errors(job.log), job.log.open("a") as log:
        job.status.write_text("starting")
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


def interrupt(processes: Sequence[subprocess.Popen]) -> None:
    """Interrupts processes as Ctrl-C does; those that still run after ten seconds are killed."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def failure_reason(job: Job, status: int) -> str:
    """Why a process ended with this exit status: "" for 0, else the last line of its log."""
    if status == 0:
        return ""
    lines = [line for line in job.log.read_text(errors="replace").splitlines() if line.strip()]
    ended = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return f"{ended}: {lines[-1].removeprefix('mlkd: ')}" if not lines[-1].startswith("$ ") else ended


class Local:
    """Processes of this machine, at most `jobs` at once."""

    def __init__(self, jobs: int):
        self.jobs = jobs
        self.running: list[tuple[Job, subprocess.Popen]] = []

    def has_capacity(self) -> bool:
        return len(self.running) < self.jobs

    def start(self, job: Job) -> None:
        self.running.append((job, start_process(job)))

    def poll(self) -> list[tuple[str, str]]:
        if not self.running:
            return []
        with suppress(subprocess.TimeoutExpired):
            self.running[0][1].wait(0.2)
        done = [(job, process) for job, process in self.running if process.poll() is not None]
        self.running = [pair for pair in self.running if pair not in done]
        return [(job.name, failure_reason(job, process.returncode)) for job, process in done]

    def stop(self, name: str) -> None:
        interrupt([process for job, process in self.running if job.name == name])
        self.running = [(job, process) for job, process in self.running if job.name != name]

    def terminate(self) -> None:
        interrupt([process for _, process in self.running])


class Ray:
    """Tasks of a running Ray cluster; every node has the same files at the same paths."""

    def __init__(self, address: str, cpus: int, gpus: float):
        try:
            import ray
        except ImportError as error:
            raise ImportError("The executor 'ray' requires the package 'ray': pip install 'mlkd[ray]'.") from error
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise ValueError(
                f"`executor` is ray, but no cluster is reachable at {address!r}: start one with `ray start --head`."
            ) from error
        self.ray = ray
        self.train = ray.remote(train).options(
            num_cpus=cpus, num_gpus=gpus, max_retries=NODE_DEATHS, scheduling_strategy="SPREAD"
        )
        self.running: dict[Any, Job] = {}

    def has_capacity(self) -> bool:
        return True  # Ray queues what it cannot run yet

    def start(self, job: Job) -> None:
        self.running[self.train.remote(job)] = job

    def poll(self) -> list[tuple[str, str]]:
        if not self.running:
            return []
        done, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0.2)
        return [(job.name, self._reason(job, reference)) for reference in done if (job := self.running.pop(reference))]

    def _reason(self, job: Job, reference: Any) -> str:
        try:
            return failure_reason(job, self.ray.get(reference))
        except self.ray.exceptions.RayError as error:
            return str(error).strip().splitlines()[0]

    def stop(self, name: str) -> None:
        for reference in [reference for reference, job in self.running.items() if job.name == name]:
            self.ray.cancel(reference)
            self.ray.wait([reference], timeout=15)
            del self.running[reference]

    def terminate(self) -> None:
        for reference in self.running:
            self.ray.cancel(reference)
        self.ray.wait(list(self.running), num_returns=len(self.running), timeout=15)
        self.ray.shutdown()


def train(job: Job) -> int:
    """Runs on a node of the cluster: the exit status of `mlkd train`; a cancelled task interrupts it."""
    process = start_process(job)
    try:
        return process.wait()
    finally:
        interrupt([process])


def create_executor(name: str, cpus: int, gpus: float, jobs: int = 0) -> Executor:
    """The executor of that name.

    Args:
        name: "local", "ray" for the cluster that this machine belongs to, or "ray:ADDRESS" for another one.
        cpus, gpus: the resources of each run, as in `mlkd.study.sweep.Sweep`.
        jobs: for "local", the number of simultaneous runs; 0 for as many as the cores and one GPU allow.

    Raises:
        ValueError: an unknown name, `jobs` for Ray or below 0, or no reachable cluster.
        ImportError: the package `ray` is missing.
    """
    kind, _, address = name.partition(":")
    if kind == "ray":
        if jobs:
            raise ValueError(
                "`jobs` belongs to the executor local; on Ray, `cpus` and `gpus` in the file determine it."
            )
        return Ray(address or "auto", cpus, gpus)
    if name != "local":
        raise ValueError(f"`executor` is {name!r}, expected local, ray or ray:ADDRESS.")
    if jobs < 0:
        raise ValueError(f"`jobs` is {jobs}, expected 0 (as many as the cores allow) or more.")
    most = joblib.cpu_count() // cpus if not gpus else min(joblib.cpu_count() // cpus, int(1 / gpus))
    return Local(jobs or max(most, 1))
