"""The command `mlkd`: data | methods | recipes | train | answers | sweep | report | export | runs."""

from __future__ import annotations

import datetime
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import mlkd
from mlkd.errors import check_choice, closest_match
from mlkd.files import WriteError, atomic_write
from mlkd.training.runs import Run, iter_runs, summarize_runs

if TYPE_CHECKING:  # what takes seconds to load is loaded by the commands that use it
    from mlkd.methods import Method
    from mlkd.study.recipes import Recipe
    from mlkd.study.study import Study
    from mlkd.training.config import Config

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
    from mlkd.data.validate import find_problems

    splits = mlkd.load_data(data)
    problems = find_problems(splits)
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)
    sizes = ", ".join(f"{name} {len(split)}" for name, split in splits.items())
    print(f"{data}: nothing wrong with {sizes} pictures of {len(splits['train'].classes)} classes.")


@cli.command()
def train(
    method: Annotated[
        str, typer.Option(help="what the student trains with; empty for the recipe's, or vanilla without one")
    ] = "",
    role: Annotated[
        str, typer.Option(help="student, teacher for the preset's teacher, or part for a model of some labels")
    ] = "student",
    part: Annotated[str, typer.Option(help="with role part: which of the method's, as cgp:2 for the second")] = "",
    data: Data = "scenes",
    preset: Annotated[str, typer.Option(help="smoke, quick or full; empty for quick, or full with a recipe")] = "",
    recipe: Annotated[str, typer.Option(help="a paper's settings, one of `mlkd recipes`; empty for the preset's")] = "",
    seed: Annotated[int, typer.Option(help="the student's seed")] = 0,
    runs: Runs = Path("runs"),
    teacher_backbone: Backbone = "",
    teacher_weights: Weights = "",
    student_backbone: Backbone = "",
    student_weights: Weights = "",
    teacher_cache: Annotated[
        str, typer.Option(help="a folder of `mlkd cache-teacher`, in place of the preset's teacher")
    ] = "",
    image_size: Size = 0,
    plugin: Plugin = "",
    num_workers: Annotated[
        int | None, typer.Option(help="processes that make the batches; left out for what suits")
    ] = None,
    log_gradients_every: Annotated[
        int, typer.Option(help="steps from one look at the loss terms' gradients to the next; 0 for none")
    ] = 0,
    run_file: Annotated[Path | None, typer.Option(hidden=True, help="where to write its folder")] = None,
    export: Annotated[Path | None, typer.Option(help="also write the model to this .safetensors file")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="a setting of the training or the method: epochs=5")
    ] = None,
) -> None:
    """Train one model, or go on with it; a finished one is only shown."""
    study = mlkd.create_study(
        data,
        preset,
        recipe=recipe,
        runs=runs,
        teacher_backbone=teacher_backbone,
        teacher_weights=teacher_weights,
        student_backbone=student_backbone,
        student_weights=student_weights,
        teacher_cache=teacher_cache,
        image_size=image_size,
        plugin=plugin,
    )
    if part and role != "part":
        raise ValueError(f"`--part {part}` goes with `--role part`, not with {role!r}.")
    for option, given in (("--log-gradients-every", log_gradients_every), ("--num-workers", num_workers is not None)):
        if given and role == "part":
            raise ValueError(f"`{option}` goes with the roles student and teacher, not with 'part'.")
    taught = mlkd.RECIPES[recipe].method if recipe and role != "teacher" else "vanilla"
    settings: dict[str, Any] = dict(_setting(text) for text in set_ or [])
    if role == "part":
        run = study.train_label_subset(method or taught, *_part(part), **settings)
        _name_folder(run, run_file)
    else:
        chosen, config = _chosen(study, method or taught, role, seed, settings)
        _name_folder(mlkd.find_run(chosen, study.splits, config, runs=study.runs), run_file)
        run = mlkd.fit(
            chosen,
            study.splits,
            config,
            runs=study.runs,
            num_workers=num_workers,
            log_gradients_every=log_gradients_every,
        )
    scores = ", ".join(f"{split} {100 * score:.2f}" for split, score in run.mean_ap.items())
    print(f"{run.path}: mAP % {scores}")
    if export:
        _export(run, export)


@cli.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="a YAML file: docs/sweeps.md says what can stand in it")],
    executor: Annotated[str, typer.Option(help="local, ray, or ray:ADDRESS for a cluster elsewhere")] = "local",
    jobs: Annotated[int, typer.Option(help="local: how many runs at once; 0 for as many as there are cores for")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the runs and train nothing")] = False,
) -> None:
    """Train a grid of runs, each after the teachers it needs; finished ones are skipped, failed ones kept apart."""
    from mlkd.study.executors import command
    from mlkd.study.run_sweep import run as run_sweep
    from mlkd.study.sweep import read, tasks

    grid = read(file)
    if not dry_run:
        raise typer.Exit(run_sweep(grid, executor, jobs))
    for task in tasks(grid):
        print(task.name + (f"\n    after {', '.join(task.needs)}" if task.needs else ""))
        print(f"    {command(task.arguments)}")


@cli.command()
def answers(
    model: Annotated[str, typer.Argument(help="a model file, or mlkd:scenes_teacher")],
    folder: Annotated[Path, typer.Argument(help="a new folder for its answers")],
    data: Data = "scenes",
    image_size: Annotated[int, typer.Option(help="side of the students' pictures; 0 for the model's")] = 0,
    embeddings: Annotated[bool, typer.Option(help="keep label-wise embeddings too")] = True,
) -> None:
    """Ask a teacher about every training picture and its mirror image, so that students can do without it."""
    from mlkd.data.image_cache import decoded_images
    from mlkd.training.teachers import cache_teacher_outputs

    teacher, train_split = mlkd.load_model(model), mlkd.load_data(data)["train"]
    pixels = decoded_images(train_split, image_size or teacher.image_size)
    cache_teacher_outputs(teacher, train_split, pixels, folder, embeddings=embeddings)
    megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{folder}: what {model} says of {len(train_split)} pictures of {data}, {megabytes:.0f} MB.")


@cli.command()
def methods() -> None:
    """List all methods: what they minimise, where they come from and what they need."""
    from mlkd.methods import METHODS

    rows = [
        (
            name,
            _needs(method),
            method.paper,
            _first_paragraph(method) + (f" [{method.equations}]" if method.equations else ""),
        )
        for name, method in sorted(METHODS.items())
    ]
    _print_table(("method", "needs", "paper", "loss [and where the paper has it]"), rows)


@cli.command()
def recipes(
    name: Annotated[str, typer.Argument(help="a recipe to show in full; empty for the list")] = "",
) -> None:
    """List the papers' recipes with the mAP (%) they report, or show one with all its settings."""
    from mlkd.study.recipes import RECIPES, UNAVAILABLE, get_recipe

    if name:
        _print_recipe(get_recipe(name))
        return
    rows = [
        (
            recipe.name,
            recipe.networks,
            *(_percent(ap) for ap in (recipe.teacher_mean_ap, recipe.vanilla_mean_ap, recipe.mean_ap)),
            f"{recipe.paper}, table {recipe.table}",
        )
        for recipe in RECIPES.values()
    ]
    print("Reported mAP in %, of teacher, student alone and with the method; names begin with method and data.\n")
    _print_table(("recipe", "networks", "teacher", "alone", "method", "reported in"), rows)
    print("\nReported, but without a recipe:")
    for missing, reason in UNAVAILABLE.items():
        print(textwrap.fill(f"{missing}: {reason}", WIDTH, initial_indent="  ", subsequent_indent="    "))


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
    methods: Annotated[
        str, typer.Option(help="the students that notebooks 09 to 14 compare: vanilla,l2d,cpsd; empty for theirs")
    ] = "",
    counts: Annotated[str, typer.Option(help="an .npz of label counts that notebook 02 divides too")] = "",
    timeout: Annotated[
        int, typer.Option(min=0, help="the most minutes a notebook may take; 0 for an hour, or a day in full")
    ] = 0,
    no_train: Annotated[
        bool, typer.Option("--no-train", help="make the whole report anew from finished runs and train nothing")
    ] = False,
) -> None:
    """Run the notebooks in order and make reports/NAME/index.html of them; an interrupted report goes on."""
    from mlkd import report as reporting
    from mlkd.graphs import load_cooccurrence
    from mlkd.methods import METHODS

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
    study = mlkd.create_study(**parameters)  # wrong arguments and wrong data are told before the first notebook
    if methods:
        parameters["methods"] = methods.split(",")
        for method in parameters["methods"]:
            check_choice("methods", method, METHODS)
    if counts:
        load_cooccurrence(counts)
        parameters["counts"] = counts
    if no_train and not any(run.complete for run in iter_runs(runs)):
        raise ValueError(f"{runs}: no finished run here to make a report from; leave out --no-train to train.")
    raise typer.Exit(
        reporting.run(
            name or f"{study.splits['train'].name}-{preset}",
            parameters,
            timeout_s=60 * (timeout or (24 * 60 if preset == "full" else 60)),
            study=study,
            no_train=no_train,
        )
    )


@cli.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="the folder of all runs")] = Path("runs"),
) -> None:
    """List all runs: finished ones with their scores, unfinished ones with how far they are."""
    found = summarize_runs(folder)
    if not found:
        print(f"{folder}: no runs here.")
        return
    lines = [list(found[0]), *(list(run.values()) for run in found)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(" ".join(f"{text:>{width}}" for text, width in zip(line, widths, strict=True)))


@cli.command("export")
def export_run(
    run: Annotated[Path, typer.Argument(help="a finished run's folder")],
    file: Annotated[Path, typer.Argument(help="the model file to write, .safetensors")],
) -> None:
    """Write a run's model as one file that rebuilds it, with what made it and its scores inside."""
    _export(Run(run), file)


WIDTH = 120


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their content, the last one wrapped."""
    widths = [max(map(len, column)) for column in list(zip(header, *rows, strict=True))[:-1]]
    indent = " " * sum(width + 2 for width in widths)
    for row in (header, *rows):
        first = "".join(f"{text:{width}}  " for text, width in zip(row, widths, strict=False))
        last = textwrap.fill(row[-1], WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
        print(last.rstrip())


def _needs(method: type[Method]) -> str:
    """The models a method needs and what else: its class attributes `needs` and `needs_...`."""
    flags = [name for name in dir(method) if name.startswith("needs_") and getattr(method, name) is True]
    return ", ".join([*method.required_teachers, *(name.removeprefix("needs_") for name in flags)]) or "-"


GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "iota": "ι", "kappa": "κ", "lambda": "λ", "mu": "μ", "tau": "τ"}
SIGNS = GREEK | {"sum": "Σ", "cdot": "·"}


def _first_paragraph(method: type[Method]) -> str:
    """The first paragraph of a method's docstring, its formula as plain text."""
    paragraph = " ".join((inspect.getdoc(method) or "").split("\n\n")[0].split())
    paragraph = paragraph.replace(r"\hat y", "ŷ")
    signs = re.sub(r"\\([A-Za-z]+)", lambda command: SIGNS.get(command[1], command[1]), paragraph)
    return re.sub(r"[${}`\\]", "", signs)


def _percent(mean_ap: float | None) -> str:
    return "-" if mean_ap is None else f"{mean_ap:.2f}"


def _print_recipe(recipe: Recipe) -> None:
    from mlkd.study.recipes import DATASETS

    print(f"{recipe.name}: {recipe.networks} on {DATASETS[recipe.dataset]}, {recipe.paper}, table {recipe.table}")
    reported = {recipe.method: recipe.mean_ap, "alone": recipe.vanilla_mean_ap, "teacher": recipe.teacher_mean_ap}
    print("mAP % " + ", ".join(f"{who} {_percent(ap)}" for who, ap in reported.items() if ap is not None) + "\n")
    student, teacher = recipe.student.as_dict(), recipe.teacher.as_dict() if recipe.teacher else {}
    shown = [name for name in student if name not in ("init_from", "role", "seed")]
    rows = [(name, *(str(config[name]) for config in (teacher, student) if config)) for name in shown]
    _print_table(("setting", *(["teacher"] if teacher else []), "student"), rows)
    print()
    for method, settings in recipe.settings.items():
        given = ", ".join(f"{name}={value!r}" for name, value in settings.items()) or "its defaults"
        print(textwrap.fill(f"{method}: {given}", WIDTH, subsequent_indent="  "))
    print()
    for note in recipe.notes:
        print(textwrap.fill(note, WIDTH, initial_indent="- ", subsequent_indent="  "))
    print(f"\nmlkd train --data {recipe.dataset}:/path --recipe {recipe.name}")


def _name_folder(run: Run, file: Path | None) -> None:
    """For who waits for the run in another process."""
    if file:
        with atomic_write(file) as unfinished:
            unfinished.write_text(str(run.path))


def _export(run: Run, file: Path) -> None:
    if file.suffix != ".safetensors":
        raise ValueError(f"`file` is {str(file)!r}, expected a name that ends in .safetensors.")
    notes = {"config": run.config, "metrics": run.metrics, "date": str(datetime.date.today())}
    mlkd.save_model(run.model(), file, **{name: json.dumps(note) for name, note in notes.items()})
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, from {run.path}.")


def _chosen(study: Study, method: str, role: str, seed: int, settings: dict) -> tuple[Method, Config]:
    """What is trained, with some settings changed, each where it belongs: in the training or in the method."""
    from mlkd.methods import METHODS

    config = study.teacher if role == "teacher" else study.student.replace(seed=seed)
    check_choice("method", method, METHODS)
    known = [name for name in config.as_dict() if name != "role"]
    method_settings = [
        field.name for field in fields(METHODS[method]) if field.name not in METHODS[method].required_teachers
    ]
    for name in settings:
        if name not in known and name not in method_settings:
            guess = closest_match(name, [*known, *method_settings])
            raise ValueError(f"There is no setting {name!r}. Did you mean {guess!r}?")
    chosen = study.build_method(method, **{name: value for name, value in settings.items() if name in method_settings})
    return chosen, config.replace(role=role, **{name: value for name, value in settings.items() if name in known})


def _setting(text: str) -> tuple[str, object]:
    """`name=value`, the value a number, true, false or a word."""
    from mlkd.study.sweep import setting_value

    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"`--set {text}` has no value; expected name=value.")
    return name, setting_value(value)


def _part(text: str) -> tuple[str, int]:
    """`cgp:2`: a strategy and the number of the part, from 1."""
    strategy, _, number = text.partition(":")
    if not strategy or not number.isdecimal():
        raise ValueError(f"`--part` is {text!r}, expected a strategy and a number, as in cgp:2.")
    return strategy, int(number)


def app() -> None:
    """The command's entry: a mistake of the caller is told in a sentence, without a traceback."""
    try:
        cli()
    except SystemExit as end:  # what typer ends with, also after Ctrl-C
        if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
            print("mlkd: interrupted; the same command goes on where it stopped.", file=sys.stderr)
        raise
    except (ValueError, ImportError, WriteError, mlkd.TrainingError) as error:
        sys.exit(f"mlkd: {error}")
