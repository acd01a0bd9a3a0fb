"""The command `mlkd`: data | train | report | export | runs."""

from __future__ import annotations

import datetime
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

import mlkd
from mlkd.analysis import results_table, runs_table
from mlkd.data.check import check as check_data
from mlkd.methods import METHODS
from mlkd.presets import Plan
from mlkd.spelling import check_one_of, nearest

cli = typer.Typer(
    help="A notebook-first workbench for multi-label knowledge distillation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_cli = typer.Typer(help="Look at a data set.", no_args_is_help=True)
cli.add_typer(data_cli, name="data")

Data = Annotated[str, typer.Option(help="scenes, voc:/path?year=2007 or coco:/path")]
Preset = Annotated[str, typer.Option(help="smoke, quick or full")]
Seeds = Annotated[int, typer.Option(help="students of each method; 0 for as many as the preset says")]
Runs = Annotated[Path, typer.Option(help="the folder of all runs")]
Backbone = Annotated[str, typer.Option(help="a timm name; empty for the preset's")]
Weights = Annotated[str, typer.Option(help="a local weight file for the backbone")]
Size = Annotated[int, typer.Option(help="side of the pictures in pixels; 0 for the preset's")]
Plugin = Annotated[str, typer.Option(help="a Python file that registers backbones or methods")]


@data_cli.command("check")
def data_check(
    data: Annotated[str, typer.Argument(help="scenes, voc:/path?year=2007 or coco:/path")],
) -> None:
    """Decode every picture and compare labels and boxes: one line for each thing that is wrong."""
    splits = mlkd.load_data(data)
    problems = check_data(splits)
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)
    sizes = ", ".join(f"{name} {len(split)}" for name, split in splits.items())
    print(f"{data}: nothing wrong with {sizes} pictures of {len(splits['train'].classes)} classes.")


@cli.command()
def train(
    method: Annotated[str, typer.Option(help="what the student trains with")] = "vanilla",
    role: Annotated[str, typer.Option(help="student, or teacher for the preset's teacher")] = "student",
    data: Data = "scenes",
    preset: Preset = "quick",
    seed: Annotated[int, typer.Option(help="the student's seed")] = 0,
    runs: Runs = Path("runs"),
    teacher_backbone: Backbone = "",
    teacher_weights: Weights = "",
    student_backbone: Backbone = "",
    student_weights: Weights = "",
    image_size: Size = 0,
    plugin: Plugin = "",
    export: Annotated[Path | None, typer.Option(help="also write the model to this .safetensors file")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="a setting of the training or the method: epochs=5")
    ] = None,
) -> None:
    """Train one model, or go on with it; a finished one is only shown."""
    plan = mlkd.plan(
        data,
        preset,
        runs=runs,
        teacher_backbone=teacher_backbone,
        teacher_weights=teacher_weights,
        student_backbone=student_backbone,
        student_weights=student_weights,
        image_size=image_size,
        plugin=plugin,
    )
    run = _train(plan, method, role, seed, dict(_setting(text) for text in set_ or []))
    scores = ", ".join(f"{split} {100 * score:.2f}" for split, score in run.mean_ap.items())
    print(f"{run.path}: mAP % {scores}")
    if export:
        _export(run, export)


@cli.command()
def report(
    data: Data = "scenes",
    preset: Preset = "quick",
    seeds: Seeds = 0,
    runs: Runs = Path("runs"),
    name: Annotated[str, typer.Option(help="the report's folder; empty for the data set's and preset's names")] = "",
    teacher_backbone: Backbone = "",
    teacher_weights: Weights = "",
    student_backbone: Backbone = "",
    student_weights: Weights = "",
    image_size: Size = 0,
    plugin: Plugin = "",
) -> None:
    """Run the notebooks in order and make reports/NAME/index.html of them; an interrupted report goes on."""
    from mlkd import report as reporting

    parameters: dict[str, Any] = {
        "data": data,
        "preset": preset,
        "seeds": seeds,
        "runs": str(runs),
        "teacher_backbone": teacher_backbone,
        "teacher_weights": teacher_weights,
        "student_backbone": student_backbone,
        "student_weights": student_weights,
        "image_size": image_size,
        "plugin": plugin,
    }
    plan = mlkd.plan(**parameters)  # wrong arguments and wrong data are told before the first notebook
    raise typer.Exit(
        reporting.run(
            name or f"{plan.data['train'].name}-{preset}",
            parameters,
            results=lambda: results_table(plan.runs, plan.data["test"]),
        )
    )


@cli.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="the folder of all runs")] = Path("runs"),
) -> None:
    """List all runs: finished ones with their scores, unfinished ones with how far they are."""
    table = runs_table(folder)
    print(table.to_string(index=False) if len(table) else f"{folder}: no runs here.")


@cli.command("export")
def export_run(
    run: Annotated[Path, typer.Argument(help="a finished run's folder")],
    file: Annotated[Path, typer.Argument(help="the model file to write, .safetensors")],
) -> None:
    """Write a run's model as one file that rebuilds it, with what made it and its scores inside."""
    _export(mlkd.Run(run), file)


def _export(run: mlkd.Run, file: Path) -> None:
    if file.suffix != ".safetensors":
        raise ValueError(f"`file` is {str(file)!r}, expected a name that ends in .safetensors.")
    notes = {"config": run.config, "metrics": run.metrics, "date": str(datetime.date.today())}
    mlkd.save_model(run.model(), file, **{name: json.dumps(note) for name, note in notes.items()})
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, from {run.path}.")


def _train(plan: Plan, method: str, role: str, seed: int, settings: dict) -> mlkd.Run:
    """The run with some settings changed, each where it belongs: in the training or in the method."""
    config = plan.teacher_config if role == "teacher" else plan.student_config.but(seed=seed)
    check_one_of("method", method, METHODS)
    known = [name for name in config.as_dict() if name != "role"]
    method_settings = [field.name for field in fields(METHODS[method]) if field.name != "teacher"]
    for name in settings:
        if name not in known and name not in method_settings:
            guess = nearest(name, [*known, *method_settings])
            raise ValueError(f"There is no setting {name!r}. Did you mean {guess!r}?")
    chosen = plan.method(method, **{name: value for name, value in settings.items() if name in method_settings})
    config = config.but(role=role, **{name: value for name, value in settings.items() if name in known})
    return mlkd.fit(chosen, plan.data, config, runs=plan.runs)


def _setting(text: str) -> tuple[str, object]:
    """`name=value`, the value a number, true, false or a word."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"`--set {text}` has no value; expected name=value.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def app() -> None:
    """The command's entry: a mistake of the caller is told in a sentence, without a traceback."""
    try:
        cli()
    except (ValueError, ImportError, mlkd.TrainingError) as error:
        sys.exit(f"mlkd: {error}")
    except SystemExit as end:  # what typer makes of Ctrl-C
        if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
            print("mlkd: interrupted; the same command goes on where it stopped.", file=sys.stderr)
        raise
