"""The commands `mlkd export` and `mlkd predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mlkd.errors import DataError, check_choice
from mlkd.progress import is_interactive
from mlkd.registry import load_plugin

Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", help="a Python file that registers the backbone or the head")
]


def export(
    run: Annotated[Path, typer.Argument(help="a finished run's folder")],
    file: Annotated[Path, typer.Argument(help=".safetensors, .onnx or .pt2; with --to web a folder")],
    int8: Annotated[bool, typer.Option("--int8", help="quantize an .onnx file to 8 bits, and measure its mAP")] = False,
    max_loss: Annotated[float, typer.Option(help="--int8: the largest accepted decrease of the mAP, in points")] = 1.0,
    calibration_images: Annotated[
        int, typer.Option(min=1, help="--int8: training images that measure the range of the activations")
    ] = 128,
    data: Annotated[str, typer.Option(help="--int8: the data address, if it is not that of the run's study")] = "",
    to: Annotated[str, typer.Option(help="web: write a folder with a page that classifies images in a browser")] = "",
    teacher: Annotated[
        Path | None, typer.Option(help="--to web: a run whose predictions are shown beside the others")
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(help="--to web: a folder with onnxruntime-web; by default ./node_modules, or else a public CDN"),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Write a run's model as one file with its thresholds and preprocessing, and a model card beside it."""
    from mlkd.training.runs import Run

    _load_plugins(plugin)
    if to:
        from mlkd.deploy.web import CDN, export_web

        check_choice("--to", to, ("web",))
        source = export_web(Run(run), file, teacher=Run(teacher) if teacher else None, runtime=runtime)
        print(f"{file}: a web page; `python -m http.server --directory {file}` shows it on http://localhost:8000.")
        print(
            f"onnxruntime-web: {f'copied from {source}' if source else f'loaded from {CDN} when the page is opened'}."
        )
        return
    if int8:
        from mlkd.deploy.int8 import export_int8

        scores = export_int8(Run(run), file, max_loss=max_loss, calibration_images=calibration_images, data=data)
        print(f"mAP % on {scores.split}: float32 {100 * scores.float32:.2f}, int8 {100 * scores.int8:.2f}")
    else:
        from mlkd.deploy.export import export_run

        export_run(Run(run), file)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, from {run}; its card is {file.name}.md.")


def predict(
    model: Annotated[str, typer.Argument(help="a run's folder, a .safetensors or .onnx file, or mlkd:scenes_teacher")],
    images: Annotated[list[Path], typer.Argument(help="image files, and folders of them")],
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="predict labels from this probability on; by default the model's thresholds"),
    ] = None,
    top: Annotated[
        int, typer.Option(min=0, help="list that many labels per image, predicted or not; 0 for those predicted")
    ] = 0,
    csv: Annotated[bool, typer.Option("--csv", help="print comma-separated values, one column per class")] = False,
    json: Annotated[bool, typer.Option("--json", help="print a list of JSON objects")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="images per forward pass")] = 32,
    plugin: Plugins = None,
) -> None:
    """Predict the labels of image files; an image that cannot be read is named and skipped, and the exit code is 1."""
    from tqdm.auto import tqdm

    from mlkd.deploy.format import to_csv, to_json, to_table
    from mlkd.deploy.image_files import find_image_files
    from mlkd.deploy.load import load_model

    if csv and json:
        raise ValueError("`--csv` and `--json` are both given; choose one of them.")
    _load_plugins(plugin)
    files = find_image_files(images)
    predictor = load_model(model)
    predictions, errors = [], []
    results = predictor.iter_predictions(files, threshold=threshold, batch_size=batch_size)
    for result in tqdm(results, "predicting", len(files), leave=False, disable=not is_interactive(), unit="image"):
        if isinstance(result, DataError):
            errors.append(result)
        else:
            predictions.append(result)
    text = (to_csv if csv else to_json if json else to_table)(predictions, predictor.classes, top)
    print(text, end="" if csv else "\n")
    for error in errors:
        print(f"mlkd: {error}", file=sys.stderr)
    if errors:
        print(f"mlkd: {len(errors)} of {len(files)} images were skipped.", file=sys.stderr)
        raise typer.Exit(1)


def _load_plugins(files: list[str] | None) -> None:
    for file in files or []:
        load_plugin(file)
