"""The identity of a run: equal for the same content wherever it is, different as soon as the content changes."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlkd.data import ImageFiles, MultiLabelData
from mlkd.methods import create_method
from mlkd.methods.vanilla import Vanilla
from mlkd.models import create_model, save_model
from mlkd.training import identity
from mlkd.training.config import Config
from mlkd.training.identity import describe_run

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def data(tmp_path: Path) -> dict[str, MultiLabelData]:
    """Three image files in each split."""
    rng = np.random.default_rng(0)
    for index in range(6):
        path = tmp_path / "images" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return {split: read(tmp_path / "images", split) for split in ("train", "val")}


def read(folder: Path, split: str) -> MultiLabelData:
    ids = ("0", "1", "2") if split == "train" else ("3", "4", "5")
    files = ImageFiles(folder, [f"{name}.png" for name in ids])
    return MultiLabelData("toy", split, files, np.eye(3, 2, dtype=np.uint8), ("a", "b"), ids)


def describe(data: dict[str, MultiLabelData], config: Config | None = None, method: str = "vanilla") -> dict:
    return describe_run(create_method(method), data, config or Config())


def test_a_replaced_image_gives_another_run(data: dict[str, MultiLabelData], tmp_path: Path) -> None:
    before = describe(data)
    assert describe(data) == before
    path = tmp_path / "images" / "1.png"
    status = path.stat()
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after = describe(data)
    assert after["data"]["splits"]["train"] != before["data"]["splits"]["train"]
    assert after["data"]["splits"]["val"] == before["data"]["splits"]["val"]


def test_a_moved_data_folder_gives_the_same_run(data: dict[str, MultiLabelData], tmp_path: Path) -> None:
    before = describe(data)
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    assert describe({split: read(tmp_path / "elsewhere", split) for split in data}) == before


def test_labels_and_ignored_labels_give_another_run(data: dict[str, MultiLabelData]) -> None:
    before = describe(data)
    targets = data["train"].targets.copy()
    targets[0, 1] = 1
    ignored = np.zeros((3, 2), bool)
    ignored[0, 1] = True
    changes: list[dict] = [{"targets": targets}, {"ignore_mask": ignored}]
    for change in changes:
        assert describe({**data, "train": replace(data["train"], **change)}) != before


def test_a_weight_file_is_known_by_its_content(
    data: dict[str, MultiLabelData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = create_model("resnet8_cifar", ("a", "b"), image_size=16, embed_dim=8, widths=(8, 8, 8))
    save_model(model, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    for setting in ("pretrained", "init_from"):
        relative, absolute = (
            describe(data, Config(**{setting: path}))
            for path in ("model.safetensors", str(tmp_path / "model.safetensors"))
        )
        assert relative == absolute
        (tmp_path / "copy").mkdir(exist_ok=True)
        shutil.copy("model.safetensors", "copy/model.safetensors")
        assert describe(data, Config(**{setting: "copy/model.safetensors"})) == relative
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    save_model(model, tmp_path / "model.safetensors")
    for setting in ("pretrained", "init_from"):
        changed, copied = (
            describe(data, Config(**{setting: path})) for path in ("model.safetensors", "copy/model.safetensors")
        )
        assert changed != copied


def test_the_version_of_the_code_and_of_the_method_are_part_of_it(
    data: dict[str, MultiLabelData], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, other = describe(data), describe(data, method="tf-kd")
    with monkeypatch.context() as context:
        context.setattr(Vanilla, "version", 2)
        assert describe(data) != before
        assert describe(data, method="tf-kd") == other
    monkeypatch.setattr(identity, "VERSION", identity.VERSION + 1)
    assert describe(data) != before
    assert describe(data, method="tf-kd") != other
