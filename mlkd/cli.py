"""The command `mlkd`: data | study | methods | recipes | train | cache-teacher | report | runs, with those of
`sweep_cli`: sweep | table, and of `deploy_cli`: export | predict."""

from __future__ import annotations

import shlex
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import mlkd
from mlkd import data_cli, deploy_cli, sweep_cli
from mlkd.cli_errors import log_to_stdout, report_error, set_debug
from mlkd.errors import check_choice, printable
from mlkd.files import atomic_write
from mlkd.registry import plugin_location
from mlkd.text_table import WIDTH, print_table

if TYPE_CHECKING:  # what takes seconds to import is imported by the commands that use it
    from mlkd.study import Study
    from mlkd.study.study import Reported
    from mlkd.training.runs import Run

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
study_cli = typer.Typer(help="Inspect a study.", no_args_is_help=True)
cli.add_typer(data_cli.data_cli, name="data")
cli.add_typer(study_cli, name="study")

ADDRESS = "scenes, voc:/path?year=2007, coco:/path, nuswide:/path, mirflickr:/path or table:/path"
StudyName = Annotated[
    str, typer.Option("--study", help="smoke, quick, full, a recipe of `mlkd recipes` or a YAML file")
]
Data = Annotated[str, typer.Option(help=f"{ADDRESS}; the study's by default")]
Seeds = Annotated[int, typer.Option(min=0, help="students of each method; 0 for as many as the study has")]
Runs = Annotated[Path, typer.Option(help="the folder of all runs")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="a setting of the study: student.epochs=5, l2d.lambda_cd=0.1")
]
Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", help="a Python file that registers methods, readers, heads or backbones")
]


def _create_study(
    study: str, data: str, runs: Path, overrides: list[str] | None, plugins: list[str] | None, seeds: int = 0
) -> Study:
    """The study that the options describe."""
    from mlkd.study.read import parse_override

    changes: dict[str, Any] = dict(parse_override(text) for text in overrides or [])
    if plugins:
        changes["plugins"] = plugins
    return mlkd.create_study(study, data, seeds, runs, changes)


def _load_plugins(files: list[str] | None) -> None:
    from mlkd.registry import load_plugin

    for file in files or []:
        load_plugin(file)


@study_cli.command("show")
def study_show(
    study: Annotated[
        str, typer.Argument(help="smoke, quick, full, a recipe of `mlkd recipes` or a YAML file")
    ] = "quick",
    data: Data = "",
    set_: Overrides = None,
    plugin: Plugins = None,
) -> None:
    """Print the resolved study as YAML: a file that --study accepts."""
    print(_create_study(study, data, Path("runs"), set_, plugin).to_yaml(), end="")


@cli.command()
def methods(plugin: Plugins = None) -> None:
    """List all methods: what they require, their source and their loss."""
    from mlkd.methods import METHODS

    _load_plugins(plugin)
    rows = []
    for name, method in METHODS.items():
        flags = [flag for flag in dir(method) if flag.startswith("needs_") and getattr(method, flag) is True]
        requirements = [*method.required_teachers, *(flag.removeprefix("needs_").replace("_", " ") for flag in flags)]
        equations = f" [{method.equations}]" if method.equations else ""
        rows.append((name, ", ".join(requirements) or "-", method.paper, method.formula + equations))
    print_table(("method", "requires", "paper", "loss [equations]"), rows)


@cli.command()
def recipes(
    name: Annotated[str, typer.Argument(help="a recipe to show; empty for the list")] = "",
) -> None:
    """List the papers' recipes with the mAP (%) they report, or show one with its settings and notes."""
    from mlkd.study.read import recipe_files, unavailable_recipes

    if name:
        study = mlkd.create_study(name)
        print(study.replace(reported=None).to_yaml(), end="")
        if study.reported:
            _print_reported(study.reported, name)
        return
    rows, last_epoch = [], []
    for recipe in recipe_files():
        study = mlkd.create_study(recipe)
        if reported := study.reported:
            scores = (reported.score(row) for row in ("teacher", "vanilla", reported.method))
            shown = ("-" if score is None else f"{score:.2f}" for score in scores)
            rows.append((recipe, reported.networks, *shown, f"{reported.paper}, table {reported.table}"))
            if study.student.select == "last":
                last_epoch.append(recipe)
    print("Reported mAP in % of the teacher, of the student without distillation (vanilla) and with the method.\n")
    print_table(("recipe", "networks", "teacher", "vanilla", "method", "reported in"), rows)
    print("\nThe epoch that is kept: the best on val (`select: best`), except")
    print(textwrap.fill(f"the last (`select: last`): {', '.join(last_epoch)}", WIDTH, initial_indent="  "))
    print("\nReported, without a recipe:")
    for recipe, reason in unavailable_recipes().items():
        print(textwrap.fill(f"{recipe}: {reason}", WIDTH, initial_indent="  ", subsequent_indent="    "))
    print(
        "\n`mlkd recipes NAME` prints a recipe and its command; docs/papers.md has a command for each table and figure."
    )


@cli.command()
def train(
    method: Annotated[str, typer.Option(help="the method; by default the recipe's, or vanilla")] = "",
    role: Annotated[str, typer.Option(help="student or teacher")] = "student",
    label_subset: Annotated[
        str, typer.Option(help="train a network on one of the method's label subsets instead: cgp:2 for the second")
    ] = "",
    study: StudyName = "quick",
    data: Data = "",
    seed: Annotated[int, typer.Option(min=0, help="the student's seed")] = 0,
    runs: Runs = Path("runs"),
    set_: Overrides = None,
    plugin: Plugins = None,
    num_workers: Annotated[int | None, typer.Option(help="processes that load batches; automatic by default")] = None,
    log_gradients_every: Annotated[
        int, typer.Option(help="measure the gradients of the loss terms every so many steps; 0 for never")
    ] = 0,
    run_file: Annotated[Path | None, typer.Option(hidden=True, help="a file to write the run's folder to")] = None,
    export: Annotated[
        Path | None, typer.Option(help="also write the model to this file: .safetensors, .onnx or .pt2")
    ] = None,
) -> None:
    """Train one model, or resume its training; a finished run is not trained again."""
    from mlkd.study.paper_table import reported_lines

    check_choice("role", role, ("student", "teacher"))
    if export:
        from mlkd.deploy.export import check_format, export_run

        check_format(export)
    resolved = _create_study(study, data, runs, set_, plugin)
    default = resolved.reported.method if resolved.reported and role == "student" else "vanilla"
    name = method or default
    if role == "teacher" and (method or label_subset):
        raise ValueError("`--role teacher` trains the study's teacher; leave out `--method` and `--label-subset`.")
    if label_subset:
        for option, given in (
            ("--log-gradients-every", log_gradients_every),
            ("--num-workers", num_workers is not None),
        ):
            if given:
                raise ValueError(f"`{option}` does not apply to `--label-subset`.")
        run = resolved.train_label_subset(name, *_parse_label_subset(label_subset))
        _write_run_file(run, run_file)
    else:
        config = resolved.teacher_config() if role == "teacher" else resolved.student.replace(seed=seed)
        trained = resolved.build_method(name)
        _write_run_file(mlkd.find_run(trained, resolved.splits, config, runs=runs), run_file)
        run = resolved.fit(trained, config, num_workers=num_workers, log_gradients_every=log_gradients_every)
    scores = ", ".join(f"{split} {100 * score:.2f}" for split, score in run.mean_ap.items())
    print(f"{run.path}: mAP % {scores}")
    if not label_subset:
        for line in reported_lines(resolved, "teacher" if role == "teacher" else name, run):
            print(line)
    if export:
        export_run(run, export)
        print(f"{export}: the model of {run.path}; its card is {export.name}.md.")


@cli.command("cache-teacher")
def cache_teacher(
    model: Annotated[str, typer.Argument(help="a model file, or mlkd:scenes_teacher")],
    folder: Annotated[Path, typer.Argument(help="a new folder for its outputs")],
    study: StudyName = "quick",
    data: Data = "",
    set_: Overrides = None,
    plugin: Plugins = None,
    embeddings: Annotated[bool, typer.Option(help="store label-wise embeddings too")] = True,
) -> None:
    """Evaluate a teacher on every training image of a study and its horizontal flip, for students without a teacher."""
    from mlkd.data.image_cache import decoded_images
    from mlkd.models import load_model

    resolved = _create_study(study, data, Path("runs"), set_, plugin)
    teacher, train_split = load_model(model), resolved.splits["train"]
    images = decoded_images(train_split, resolved.student.image_size)
    mlkd.cache_teacher_outputs(teacher, train_split, images, folder, embeddings=embeddings)
    megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"{folder}: the outputs of {model} for {len(train_split)} images of {resolved.data}, {megabytes:.0f} MB.")


cli.command()(sweep_cli.sweep)
cli.command()(sweep_cli.table)
cli.command()(sweep_cli.tune)


@cli.command()
def report(
    study: StudyName = "quick",
    data: Data = "",
    seeds: Seeds = 0,
    runs: Runs = Path("runs"),
    set_: Overrides = None,
    plugin: Plugins = None,
    methods: Annotated[
        str, typer.Option(help="the students that notebooks 09 to 14 compare: vanilla,l2d,cpsd; by default theirs")
    ] = "",
    name: Annotated[str, typer.Option(help="the report's folder; by default the data set and the study")] = "",
    counts: Annotated[str, typer.Option(help="an .npz of label counts that notebook 02 partitions as well")] = "",
    timeout: Annotated[
        int,
        typer.Option(min=0, help="minutes that a notebook may take; 0 for an hour in smoke and quick, else a day"),
    ] = 0,
    no_train: Annotated[
        bool, typer.Option("--no-train", help="rebuild the report from finished runs without training")
    ] = False,
) -> None:
    """Run the notebooks in order and write reports/NAME/index.html; an interrupted report is resumed."""
    from mlkd import report as reporting
    from mlkd.graphs import load_cooccurrence
    from mlkd.methods import METHODS
    from mlkd.study.read import parse_override
    from mlkd.training.runs import iter_runs

    resolved = _create_study(study, data, runs, set_, plugin, seeds)  # mistakes are reported before the first notebook
    overrides: dict[str, Any] = dict(parse_override(text) for text in set_ or [])
    parameters: dict[str, Any] = {
        "study": study,
        "data": resolved.data,
        "seeds": seeds,
        "runs": str(runs),
        "overrides": {**overrides, "plugins": plugin} if plugin else overrides,
    }
    if methods:
        parameters["methods"] = methods.split(",")
        for method in parameters["methods"]:
            check_choice("methods", method, METHODS)
    if counts:
        load_cooccurrence(counts)
        parameters["counts"] = counts
    if no_train and not any(run.complete for run in iter_runs(runs)):
        raise ValueError(f"{runs}: no finished run to make a report from; leave out --no-train to train.")
    raise typer.Exit(
        reporting.run(
            name or f"{resolved.splits['train'].name}-{resolved.name}",
            parameters,
            timeout_s=60 * (timeout or (60 if resolved.name in ("smoke", "quick") else 24 * 60)),
            study=resolved,
            no_train=no_train,
        )
    )


@cli.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="the folder of all runs")] = Path("runs"),
) -> None:
    """List all runs: finished ones with their scores, unfinished ones with their progress."""
    from mlkd.training.runs import summarize_runs

    rows = summarize_runs(folder)
    if not rows:
        print(f"{folder}: no runs here.")
        return
    lines = [list(rows[0]), *(list(map(printable, run.values())) for run in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(" ".join(f"{text:>{width}}" for text, width in zip(line, widths, strict=True)))


cli.command()(deploy_cli.export)
cli.command()(deploy_cli.predict)


def _print_reported(reported: Reported, recipe: str) -> None:
    """Prints the scores that a recipe's paper reports, and the command that trains the recipe."""
    from mlkd.data.readers import READERS

    metrics = list(dict.fromkeys(metric for row in reported.scores.values() for metric in row))
    rows = [
        (row, *(f"{values[metric]:.2f}" if metric in values else "-" for metric in metrics))
        for row, values in reported.scores.items()
    ]
    print(f"\nReported in {reported.paper}, table {reported.table}, in % on {reported.dataset}; {reported.networks};")
    print(f"protocol {reported.protocol} (mlkd.evaluate):\n")
    print_table(("", *metrics), rows)
    if reported.dataset in READERS:
        print(f"\nmlkd train --study {recipe} --data {shlex.quote(reported.data_address('/path'))}")
    else:
        print(f"\nThere is no data reader for {reported.dataset}; a plugin can add one (`mlkd train --plugin FILE`).")


def _write_run_file(run: Run, file: Path | None) -> None:
    """Writes the run's folder to `file`, for a process that waits for it."""
    if file:
        with atomic_write(file) as unfinished:
            unfinished.write_text(str(run.path))


def _parse_label_subset(text: str) -> tuple[str, int]:
    """`cgp:2`: a strategy and the number of the label subset, from 1."""
    strategy, _, number = text.partition(":")
    if not strategy or not number.isdecimal():
        raise ValueError(f"`--label-subset` is {text!r}, expected a strategy and a number, as in cgp:2.")
    return strategy, int(number)


@cli.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="print the traceback of an error")] = False,
) -> None:
    """A notebook-first workbench for multi-label knowledge distillation."""
    if debug:
        set_debug()


def app() -> None:
    """The entry point: mistakes of the caller become one line on standard error, without a traceback."""
    log_to_stdout()
    try:
        cli()
    except SystemExit as end:  # raised by typer, also after Ctrl-C
        if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
            print("mlkd: interrupted; run the same command again to resume.", file=sys.stderr)
        if plugin_location(end):
            sys.exit(report_error(end))
        raise
    except Exception as error:
        if (code := report_error(error)) is None:
            raise
        sys.exit(code)
