"""The summary of a data set, as values and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mlkd.cli import cli
from mlkd.data import load_data
from mlkd.data.summary import summarize


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """30 images: images 3 and 25 are equal, image 4 has nothing known, and `rare` is on one image of train."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = ["image,dog,rare,split"]
    for k in range(30):
        shade = 3 if k == 25 else k
        Image.fromarray(np.full((40, 70 if k % 2 else 50, 3), 8 * shade, np.uint8)).save(folder / f"{k}.png")
        labels = "?,?" if k == 4 else f"{int(k != 5)},{int(k == 0)}"
        rows.append(f"{k}.png,{labels},{'train' if k < 24 else 'test'}")
    Image.fromarray(np.full((40, 70, 3), 24, np.uint8)).save(folder / "25.png")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def test_values(photos: Path) -> None:
    summary = summarize(load_data(str(photos)))
    assert summary["classes"] == ["dog", "rare"]
    split = summary["splits"]["trainval"]
    assert (split["images"], split["without_labels"], split["without_known_labels"], split["boxes"]) == (24, 2, 1, None)
    assert split["labels_per_image"] == {"mean": 23 / 24, "min": 0, "max": 2}
    assert split["unknown_labels"] == pytest.approx(1 / 24)
    assert split["class_counts"] == {"dog": 22, "rare": 1}
    assert summary["splits"]["test"]["classes_without_positives"] == ["rare"]
    assert summary["image_size"][1] == 40
    assert [[Path(path).name for path in group] for group in summary["duplicates"]] == [["3.png", "25.png"]]
    leaks = [problem for problem in summary["problems"] if "have the same content" in problem]
    assert any("1 image(s) of test and trainval have the same content" in leak and "3.png" in leak for leak in leaks)
    suggestions = " ".join(summary["suggestions"])
    assert "student.image_size=32" in suggestions
    assert "student.batch_size=8: an epoch then has" in suggestions


def test_suggestion_for_imbalanced_classes(photos: Path) -> None:
    path = photos / "labels.csv"
    splits = ["val" if k > 27 else "test" if k > 25 else "train" for k in range(30)]
    path.write_text("image,dog,rare,split\n" + "".join(f"{k}.png,1,{int(k == 0)},{s}\n" for k, s in enumerate(splits)))
    suggestions = summarize(load_data(f"table:{path}"), decode=False)["suggestions"]
    assert any("vanilla.loss=asl" in s and "has 26 images, the rarest 1 (rare)" in s for s in suggestions)
    path.write_text(path.read_text().replace(",1,0,", ",1,1,"))
    assert not any("asl" in s for s in summarize(load_data(f"table:{path}"), decode=False)["suggestions"])


def test_command(photos: Path) -> None:
    result = CliRunner().invoke(cli, ["data", "check", str(photos)])
    assert result.exit_code == 1
    assert result.output.startswith(f"table:{photos}: 2 classes\n")
    assert "have the same content, such as" in result.output
    result = CliRunner().invoke(cli, ["data", "check", str(photos), "--json"])
    assert result.exit_code == 1
    summary = json.loads(result.output)
    assert summary["address"] == f"table:{photos}"
    assert summary["splits"]["test"]["images"] == 6
    Image.new("RGB", (40, 40), "blue").save(photos / "25.png")
    result = CliRunner().invoke(cli, ["data", "check", str(photos)])
    assert result.exit_code == 0
    assert f"table:{photos}: no problems in train 22, val 2, test 6, trainval 24 images of 2 classes." in result.output
    assert "1: rare" in result.output
