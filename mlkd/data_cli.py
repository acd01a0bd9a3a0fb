"""The command `mlkd data check`."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from mlkd.errors import first_few, one_line
from mlkd.registry import load_plugin
from mlkd.text_table import WIDTH, print_table

data_cli = typer.Typer(help="Inspect a data set.", no_args_is_help=True)


@data_cli.callback()
def main() -> None:
    """Inspect a data set."""


@data_cli.command("check")
def check(
    data: Annotated[str, typer.Argument(help="a path, or an address such as voc:/path?year=2007 (docs/data.md)")],
    plugin: Annotated[list[str] | None, typer.Option("--plugin", help="a Python file that registers readers")] = None,
    write: Annotated[
        Path | None, typer.Option("--write-table", help="also write images, splits and labels to this .csv file")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="print the summary as JSON")] = False,
) -> None:
    """Summarize a data set, decode every image and compare labels and boxes: one line for each problem."""
    from mlkd.data.load import load_data, resolve_address
    from mlkd.data.summary import summarize
    from mlkd.data.write_table import write_table

    for file in plugin or []:
        load_plugin(file)
    address = resolve_address(data)
    splits = load_data(address)
    summary = summarize(splits)
    if json_:
        print(json.dumps({"address": address, **summary}, indent=1))
    else:
        _print_summary(address, summary)
    if write:
        write_table(splits, write)
    if summary["problems"]:
        raise typer.Exit(1)


def _print_summary(address: str, summary: dict[str, Any]) -> None:
    print(f"{address}: {len(summary['classes'])} classes\n")
    rows: list[tuple[str, ...]] = []
    for name, split in summary["splits"].items():
        labels = split["labels_per_image"]
        per_image = f"{labels['mean']:.2f} ({labels['min']} to {labels['max']})"
        absent = split["classes_without_positives"]
        cells = (name, split["images"], per_image, split["without_labels"], f"{100 * split['unknown_labels']:.1f}")
        rows.append((*map(str, cells), f"{len(absent)}: {one_line(first_few(absent))}" if absent else "0"))
    print_table(("split", "images", "labels per image", "without", "unknown %", "classes without positives"), rows)
    counts = sorted(summary["splits"]["train"]["class_counts"].items(), key=lambda item: -item[1])
    shown = counts if len(counts) <= 12 else [*counts[:6], *counts[-6:]]
    frequencies = ", ".join(f"{one_line(name)} {count}" for name, count in shown)
    which = "" if shown is counts else ", the 6 most and the 6 least frequent classes"
    print("\n" + textwrap.fill(f"Images of train with each class{which}: {frequencies}.", WIDTH))
    if duplicates := summary["duplicates"]:
        example = one_line(" and ".join(duplicates[0][:2]))
        print(f"{len(duplicates)} group(s) of files with the same content, such as {example}.")
    print("Suggested settings (--set):")
    for suggestion in summary["suggestions"]:
        print(f"  {one_line(suggestion)}")
    for problem in summary["problems"]:
        print(problem)
    if not summary["problems"]:
        sizes = ", ".join(f"{name} {split['images']}" for name, split in summary["splits"].items())
        print(f"{address}: no problems in {sizes} images of {len(summary['classes'])} classes.")
