"""Takes the README's pictures and the scores out of an executed report: `make figures`."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import mlkd
from mlkd.analysis import group_runs, runs_on, score_table
from mlkd.files import written_whole

HERE = Path(__file__).parent


def pictures(report: Path) -> None:
    """Every cell tagged `figure:NAME` of the report's notebooks becomes figures/NAME.png."""
    for path in sorted(report.glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            for tag in cell["metadata"].get("tags", []):
                if tag.startswith("figure:"):
                    target = HERE / f"{tag.removeprefix('figure:')}.png"
                    images = [output["data"]["image/png"] for output in cell["outputs"] if "data" in output]
                    with written_whole(target) as unfinished:
                        unfinished.write_bytes(base64.b64decode(images[-1]))
                    print(f"{target}, from {path}")


def scores(runs: Path, split: str) -> None:
    """Mean and spread over seeds of every score of the finished runs, under every protocol."""
    test = mlkd.load_data("scenes")[split]
    table = score_table(group_runs(runs_on(runs, test)), split)
    target = HERE / f"scenes-full-{split}.csv"
    with written_whole(target) as unfinished:
        table.round(5).to_csv(unfinished, index=False)
    print(target)


if __name__ == "__main__":
    pictures(Path(sys.argv[1]))
    for split in ("test", "context_shift"):
        scores(Path(sys.argv[2]), split)
