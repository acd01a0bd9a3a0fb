"""The commands `mlkd sweep`, `mlkd table` and `mlkd tune`, which train many runs or read them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

File = Annotated[Path, typer.Argument(help="a YAML file; docs/sweeps.md describes its keys")]
StudyName = Annotated[str, typer.Option("--study", help="in place of the file's studies: smoke, quick, ...")]
ExecutorName = Annotated[str, typer.Option(help="local, ray, or ray:ADDRESS for another cluster")]
Jobs = Annotated[int, typer.Option(help="local: simultaneous runs; 0 for as many as the cores allow")]
Runs = Annotated[str, typer.Option(help="the folder of all runs, in place of the file's")]


def sweep(
    file: File,
    study: StudyName = "",
    data: Annotated[
        list[str] | None, typer.Option(help="a data address, in place of the file's; once for each data set")
    ] = None,
    seeds: Annotated[int, typer.Option(min=0, help="students of each row, in place of the file's number")] = 0,
    runs: Runs = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="a key of the grid with one value or a list of values")
    ] = None,
    executor: ExecutorName = "local",
    jobs: Jobs = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the runs and train nothing")] = False,
) -> None:
    """Train a grid of runs, each after the teachers it requires; finished runs are skipped, failures are listed."""
    from mlkd.study.executors import command
    from mlkd.study.read import parse_override
    from mlkd.study.run_sweep import SWEEP_FILE, run_sweep
    from mlkd.study.sweep import expand_tasks, load_sweep

    overrides: dict[str, Any] = dict(parse_override(text) for text in set_ or [])
    grid = load_sweep(file, study=study, data=data or (), seeds=seeds, runs=runs, overrides=overrides)
    if not dry_run:
        status = run_sweep(grid, executor, jobs)
        print(f"\nThe table: mlkd table {grid.folder / SWEEP_FILE}")
        raise typer.Exit(status)
    for task in expand_tasks(grid):
        print(task.name + (f"\n    after {', '.join(task.depends_on)}" if task.depends_on else ""))
        print(f"    {command(task.arguments)}")


def tune(
    file: Annotated[Path, typer.Argument(help="a YAML file; docs/tuning.md describes its keys")],
    study: StudyName = "",
    data: Annotated[str, typer.Option(help="a data address, in place of the file's")] = "",
    trials: Annotated[int, typer.Option(min=0, help="trials of each method, in place of the file's number")] = 0,
    runs: Runs = "",
    executor: ExecutorName = "local",
    jobs: Jobs = 0,
) -> None:
    """Choose the settings of methods on validation, with the same number of trials for each; it resumes."""
    from mlkd.study.run_tuning import run_tuning
    from mlkd.study.tune import load_tuning

    tuning = load_tuning(file, study=study, data=data, trials=trials, runs=runs)
    raise typer.Exit(run_tuning(tuning, executor, jobs))


def table(
    file: File,
    study: StudyName = "",
    runs: Runs = "",
    resamples: Annotated[
        int, typer.Option(min=0, help="of the bootstrap interval of each gain; 0 for none, which is fast")
    ] = 200,
    csv: Annotated[bool, typer.Option("--csv", help="print comma-separated values")] = False,
    json: Annotated[bool, typer.Option("--json", help="print a list of JSON objects")] = False,
    plot: Annotated[Path | None, typer.Option(help="draw mAP against each varying setting to this image file")] = None,
) -> None:
    """Print a sweep's finished runs in the layout of the paper's table, beside the scores that the paper reports."""
    from mlkd.study.paper_table import format_table, sensitivity_figure, sweep_table
    from mlkd.study.sweep import load_sweep

    if csv and json:
        raise ValueError("`--csv` and `--json` are both given; choose one of them.")
    grid = load_sweep(file, study=study, runs=runs)
    scores = sweep_table(grid, resamples)
    if csv:
        print(scores.to_csv(index=False), end="")
    elif json:
        print(scores.to_json(orient="records", indent=1, force_ascii=False))
    else:
        print(format_table(grid, scores, width=max(shutil.get_terminal_size().columns, 120)))
    if plot:
        sensitivity_figure(grid).savefig(plot)
