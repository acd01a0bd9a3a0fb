"""What the index shows of the data and the runs, as plain values for its template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlkd.analysis import group_runs
from mlkd.report.progress import format_duration
from mlkd.study.study import Study
from mlkd.training.runs import Run

MAX_CLASSES = 100


def data_card(study: Study) -> dict[str, Any]:
    """The data set: its name and address, its classes from the most frequent on, and the size of each split."""
    train = study.splits["train"]
    by_frequency = train.targets.sum(axis=0).argsort(kind="stable")[::-1]
    return {
        "name": train.name,
        "address": study.data,
        "num_classes": len(train.classes),
        "classes": [train.classes[label] for label in by_frequency[:MAX_CLASSES].tolist()],
        "splits": [
            {
                "name": name,
                "images": f"{len(split):,}",
                "labels_per_image": f"{split.targets.sum() / max(len(split), 1):.2f}",
                "boxes": "none" if split.boxes is None else f"{sum(map(len, split.boxes)):,}",
            }
            for name, split in study.splits.items()
        ],
    }


def run_cards(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One card per group of runs that differ in the seed alone, with a row per run."""
    cards = []
    for title, group in group_runs(runs).items():
        training = group[0].config["training"]
        cards.append(
            {
                "title": title,
                "method": group[0].config["method"],
                "backbone": training["backbone"],
                "epochs": training["epochs"],
                "parameters": _format_count(group[0].metrics["parameters"]),
                "runs": [
                    {
                        "seed": run.config["training"]["seed"],
                        "val": f"{100 * run.mean_ap['val']:.1f}" if "val" in run.mean_ap else "",
                        "test": f"{100 * run.mean_ap['test']:.1f}",
                        "duration": format_duration(run.metrics["seconds"]) if training["epochs"] else "",
                        "folder": run.path.name,
                    }
                    for run in group
                ],
            }
        )
    return cards


def _format_count(parameters: int) -> str:
    """A number of parameters, as in papers: "11.2 M", "78 k"."""
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else f"{parameters / 1e3:.0f} k"
