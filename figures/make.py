"""Extracts the README's figures from an executed report, or the scores from its runs: `make figures`."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import mlkd
from mlkd.analysis import group_runs, runs_on, score_table
from mlkd.files import atomic_write

HERE = Path(__file__).parent


def images(report: Path, names: list[str]) -> None:
    """Writes the figure of each cell tagged `figure:NAME`, for these names, as figures/NAME.png."""
    for path in sorted(report.glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            for tag in cell["metadata"].get("tags", []):
                if tag.startswith("figure:") and tag.removeprefix("figure:") in names:
                    target = HERE / f"{tag.removeprefix('figure:')}.png"
                    outputs = [output["data"]["image/png"] for output in cell["outputs"] if "data" in output]
                    with atomic_write(target) as unfinished:
                        unfinished.write_bytes(base64.b64decode(outputs[-1]))
                    print(f"{target}, from {path}")


def scores(runs: Path) -> None:
    """Writes mean and standard deviation over seeds of every score of the finished runs, for every protocol."""
    data = mlkd.load_data("scenes")
    groups = group_runs(runs_on(runs, data["test"]))
    for split in ("test", "context_shift"):
        target = HERE / f"scenes-full-{split}.csv"
        with atomic_write(target) as unfinished:
            score_table(groups, split).round(5).to_csv(unfinished, index=False)
        print(target)


if __name__ == "__main__":
    what, source, *names = sys.argv[1:]
    if what == "scores":
        scores(Path(source))
    else:
        images(Path(source), names)
