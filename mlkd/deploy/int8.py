"""A run's model in ONNX format with weights and activations in 8 bits, and its loss of mAP."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from mlkd.data import MultiLabelData
from mlkd.data.image_cache import decoded_images
from mlkd.deploy.card import write_card
from mlkd.deploy.export import run_notes
from mlkd.deploy.graph import require_export_packages, save_onnx
from mlkd.deploy.load import load_run_model
from mlkd.deploy.onnx_model import OnnxModel
from mlkd.deploy.run_data import load_run_data
from mlkd.deploy.thresholds import tune
from mlkd.files import atomic_write
from mlkd.metrics import average_precision
from mlkd.training.runs import Run

BATCH_SIZE = 32

SETTINGS: dict[str, Any] = {
    "op_types_to_quantize": ["Conv", "MatMul", "Gemm"],
    "per_channel": True,
    "reduce_range": True,  # 7 bits of the weights: processors without VNNI would saturate with 8
    "extra_options": {"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},  # such as the logits
}


class Int8Result(NamedTuple):
    """The mAP of a model in float32 and in int8, as fractions, on a split, and the number of calibration images."""

    split: str
    float32: float
    int8: float
    calibration_images: int

    @property
    def loss(self) -> float:
        """By how many percentage points int8 lowers the mAP; negative if it raises it."""
        return 100 * (self.float32 - self.int8)


def export_int8(
    run: Run, file: str | Path, *, max_loss: float = 1.0, calibration_images: int = 128, data: str = ""
) -> Int8Result:
    """Writes the model of a finished run in int8 and its card, `FILE.md`, if that costs little mAP.

    Convolutions and matrix products are quantized statically by ONNX Runtime (QDQ format): the weights per output
    channel, the activations by their range on training images. The mAP of both models is measured on `val`, or on
    `test` if there is no `val`; the thresholds are tuned again on the int8 model's outputs for `val`.

    Args:
        run: a finished run.
        file: a name that ends in .onnx.
        max_loss: the largest accepted decrease of the mAP in percentage points.
        calibration_images: how many training images the activations' ranges are measured on, drawn with a fixed seed.
        data: the data address, if it is not that of the run's study.

    Raises:
        ValueError: another ending, or int8 lowers the mAP by more than `max_loss`; then no file is written.
        DataError: the data is not that of the run.
        ImportError: a package of the ONNX format is not installed.
    """
    if Path(file).suffix != ".onnx":
        raise ValueError(f"`file` is {str(file)!r}, expected a name that ends in .onnx: int8 exists for ONNX only.")
    if calibration_images < 1:
        raise ValueError(f"`calibration_images` is {calibration_images}, expected a number of at least 1.")
    require_export_packages()
    splits, model = load_run_data(run, data), load_run_model(run)
    train, split = splits["train"], splits["val" if "val" in splits else "test"]
    count = min(calibration_images, len(train))
    images = train.subset(np.sort(np.random.default_rng(0).permutation(len(train))[:count]))
    with tempfile.TemporaryDirectory() as folder:
        float_file, int8_file = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        save_onnx(model, float_file, **run_notes(run))
        _quantize(float_file, int8_file, images, model.image_size)
        float_logits, logits = (_logits(OnnxModel(path), split) for path in (float_file, int8_file))
        result = Int8Result(split.split, _mean_ap(split, float_logits), _mean_ap(split, logits), count)
        if result.loss > max_loss:
            raise ValueError(
                f"{file}: not written, since int8 lowers the mAP on {result.split} from {100 * result.float32:.2f} to "
                f"{100 * result.int8:.2f} %, by more than `max_loss` = {max_loss:g} points. Use more calibration "
                f"images, accept a larger loss, or export the model in float32."
            )
        if split.split == "val":
            model.thresholds = tune(split.targets, logits, split.ignore_mask)
        write_card(run, model, file, result._asdict())
        _write(int8_file, file, {**model.metadata.to_texts(), "int8": json.dumps(result._asdict())})
    return result


def _quantize(source: Path, target: Path, images: MultiLabelData, image_size: int) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """The calibration images in batches."""

        def __init__(self) -> None:
            self.batches = _batches(images, image_size)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    logging.disable(logging.WARNING)  # it recommends a preprocessing, which the export has done
    try:
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            **SETTINGS,
        )
    finally:
        logging.disable(logging.NOTSET)


def _batches(data: MultiLabelData, image_size: int) -> Iterator[np.ndarray]:
    """The images of a split in batches, (b, 3, S, S) uint8."""
    pixels = decoded_images(data, image_size)
    for start in range(0, len(data), BATCH_SIZE):
        yield np.ascontiguousarray(pixels[start : start + BATCH_SIZE].transpose(0, 3, 1, 2))


def _logits(model: OnnxModel, data: MultiLabelData) -> np.ndarray:
    """The model's logits for every image of a split, (N, q)."""
    return np.concatenate([model.logits(images) for images in _batches(data, model.image_size)])


def _mean_ap(data: MultiLabelData, logits: np.ndarray) -> float:
    return float(np.nanmean(average_precision(data.targets, logits, data.ignore_mask)))


def _write(source: Path, file: str | Path, texts: dict[str, str]) -> None:
    """Copies an ONNX file and replaces texts of its metadata."""
    proto = onnx.load(source)
    entries = {entry.key: entry.value for entry in proto.metadata_props} | texts
    del proto.metadata_props[:]
    for name, text in entries.items():
        proto.metadata_props.add(key=name, value=text)
    with atomic_write(file) as unfinished:
        unfinished.write_bytes(proto.SerializeToString())
