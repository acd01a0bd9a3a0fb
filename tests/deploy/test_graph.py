"""Exported graphs: the outputs of PyTorch for every batch size, head and kind of backbone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mlkd.deploy.graph import export_graph, save_onnx, save_pt2
from mlkd.deploy.onnx_model import OnnxModel
from mlkd.models import HEADS, MultiLabelModel, create_model

BACKBONES = {
    "cnn": ("resnet8_cifar", 32, {"widths": [8, 16, 16]}),
    "swin": ("swin_tiny_patch4_window7_224", 64, {"depths": (1, 1), "num_heads": (1, 2), "window_size": 4}),
    "vit": ("test_vit", 64, {}),
}
GRID = [(backbone, head) for backbone in BACKBONES for head in sorted(HEADS)]
SHORT = {("cnn", "label_wise"), ("vit", "gap")}  # an export takes two seconds
ONNX_GRID = [pytest.param(*case, marks=[] if case in SHORT else pytest.mark.soak) for case in GRID]


def build(backbone: str, head: str) -> MultiLabelModel:
    name, image_size, settings = BACKBONES[backbone]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        embed_dim = None if head == "gap" else 16
        model = create_model(name, ("a", "b", "c"), head, image_size=image_size, embed_dim=embed_dim, **settings)
    return model.eval()


def images_of(model: MultiLabelModel, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    shape = (count, 3, model.image_size, model.image_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("backbone", "head"), ONNX_GRID)
@torch.no_grad()
def test_onnx_runtime_gives_the_outputs_of_pytorch(backbone: str, head: str, tmp_path: Path) -> None:
    model = build(backbone, head)
    save_onnx(model, tmp_path / "model.onnx")
    onnx_model = OnnxModel(tmp_path / "model.onnx")
    for batch_size in (1, 8):
        images = images_of(model, batch_size)
        logits = model(images).logits
        assert np.abs(onnx_model.logits(images.numpy()) - logits.numpy()).max() < 1e-4
        assert np.abs(onnx_model.probabilities(images.numpy()) - logits.sigmoid().numpy()).max() < 1e-4


@pytest.mark.parametrize("head", sorted(HEADS))
@torch.no_grad()
def test_the_batch_size_of_a_graph_is_dynamic_for_every_head(head: str) -> None:
    model = build("cnn", head)
    graph = export_graph(model).module()
    for batch_size in (1, 8):
        images = images_of(model, batch_size)
        probabilities, logits = graph(images)
        torch.testing.assert_close(logits, model(images).logits, atol=1e-4, rtol=0)
        torch.testing.assert_close(probabilities, logits.sigmoid())


@torch.no_grad()
def test_pt2_file(tmp_path: Path) -> None:
    model = build("cnn", "label_wise")
    model.thresholds = np.array([0.1, 0.2, 0.3])
    save_pt2(model, tmp_path / "model.pt2", date="2030-01-02")
    files = {"mlkd.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=files)
    metadata = json.loads(files["mlkd.json"])
    assert json.loads(metadata["thresholds"]) == [0.1, 0.2, 0.3]
    assert json.loads(metadata["classes"]) == ["a", "b", "c"]
    assert metadata["date"] == "2030-01-02"
    images = images_of(model, 8)
    torch.testing.assert_close(program.module()(images)[1], model(images).logits, atol=1e-4, rtol=0)


def test_a_model_in_training_mode_is_exported_in_eval_mode_and_stays_in_training_mode() -> None:
    model = build("cnn", "ml_decoder").train()
    graph, images = export_graph(model).module(), images_of(model, 2)
    assert model.training
    assert torch.equal(graph(images)[1], graph(images)[1])  # without dropout
