"""What an index says of the data and of the runs: plain values for its template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlkd.analysis import group_runs
from mlkd.report.screen import duration
from mlkd.study.study import Study
from mlkd.training.runs import Run

CLASSES = 100  # named at most


def data_card(study: Study) -> dict[str, Any]:
    """The data set: its name, its classes, most frequent first, and what each split has."""
    train = study.splits["train"]
    often = train.targets.sum(axis=0).argsort(kind="stable")[::-1]
    return {
        "name": train.name,
        "spec": study.data,
        "count": len(train.classes),
        "classes": [train.classes[label] for label in often[:CLASSES].tolist()],
        "splits": [
            {
                "name": name,
                "pictures": f"{len(split):,}",
                "labels": f"{split.targets.sum() / max(len(split), 1):.2f}",
                "boxes": "none" if split.boxes is None else f"{sum(map(len, split.boxes)):,}",
            }
            for name, split in study.splits.items()
        ],
    }


def run_cards(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One card for runs that differ in nothing but the seed, with a line for each of them."""
    cards = []
    for title, group in group_runs(runs).items():
        training = group[0].config["training"]
        cards.append(
            {
                "title": title,
                "method": group[0].config["method"],
                "backbone": training["backbone"],
                "epochs": training["epochs"],
                "weights": _count(group[0].metrics["parameters"]),
                "runs": [
                    {
                        "seed": run.config["training"]["seed"],
                        "val": f"{100 * run.mean_ap['val']:.1f}",
                        "test": f"{100 * run.mean_ap['test']:.1f}",
                        "took": duration(run.metrics["seconds"]) if training["epochs"] else "",
                        "folder": run.path.name,
                    }
                    for run in group
                ],
            }
        )
    return cards


def _count(weights: int) -> str:
    """A number of weights as a person says it."""
    return f"{weights / 1e6:.1f} million" if weights >= 1e6 else f"{weights / 1e3:.0f} thousand"
