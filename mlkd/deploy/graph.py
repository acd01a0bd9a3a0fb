"""A model as one graph with a dynamic batch size, for ONNX Runtime or `torch.export`."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from mlkd.files import atomic_write
from mlkd.models import MultiLabelModel, model_output
from mlkd.models.model import eval_mode

METADATA = "mlkd.json"
"""The extra file of a .pt2 archive with the metadata."""

OPSET = 20


class ProbabilityNetwork(nn.Module):
    """A model from images to probabilities and logits; the normalization and the sigmoid are part of it."""

    def __init__(self, model: MultiLabelModel):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (b, 3, S, S) uint8, of the model's image size S, to probabilities and logits, both (b, q)."""
        logits = self.model(images).logits
        return torch.sigmoid(logits), logits


@torch.no_grad()
def export_graph(model: MultiLabelModel) -> torch.export.ExportedProgram:
    """The graph of `ProbabilityNetwork`, of the model in eval mode, with a dynamic batch size."""
    size = model.image_size
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8, device=model.mean.device)
    model_output(model, example)  # modules that cache tensors by size do so outside the graph
    with eval_mode(model):
        network, dynamic_shapes = ProbabilityNetwork(model), {"images": {0: torch.export.Dim("batch")}}
        network.training = False
        return torch.export.export(network, (example,), dynamic_shapes=dynamic_shapes)


def save_pt2(model: MultiLabelModel, path: str | Path, **notes: str) -> None:
    """Writes a .pt2 file of `torch.export`, with class names, preprocessing, thresholds and notes as JSON.

    `torch.export.load(path, extra_files={"mlkd.json": ""})` reads it; its module maps images to probabilities and
    logits, as `ProbabilityNetwork`.
    """
    metadata = json.dumps({**model.metadata.to_texts(), **notes})
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        torch.export.save(export_graph(model), file, extra_files={METADATA: metadata})


def save_onnx(model: MultiLabelModel, path: str | Path, **notes: str) -> None:
    """Writes an ONNX file with class names, preprocessing, thresholds and notes as its metadata.

    Its input `images` is (batch, 3, S, S) uint8, of the model's image size S; its outputs `probabilities` and `logits`
    are (batch, q) float32.

    Raises:
        ImportError: onnx or onnxscript is not installed.
    """
    require_export_packages()
    with _quiet():
        program = torch.onnx.export(
            export_graph(model),
            dynamo=True,
            input_names=["images"],
            output_names=["probabilities", "logits"],
            dynamic_shapes={"images": {0: "batch"}},
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None  # it is None without dynamo
    proto = program.model_proto
    for name, text in {**model.metadata.to_texts(), **notes}.items():
        proto.metadata_props.add(key=name, value=text)
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(proto.SerializeToString())


def require_export_packages() -> None:
    """Raises ImportError, with the command that installs them, if a package of the ONNX export is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"The ONNX format needs {error.name}: pip install 'mlkd[export]'.") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about its own optimizations."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
