"""A trained model's outputs on the images of a split, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mlkd.data import MultiLabelData
from mlkd.data.image_cache import decoded_images
from mlkd.errors import first_few
from mlkd.metrics import average_precision
from mlkd.models import MergedTeacher, MultiLabelModel, model_output
from mlkd.training.distributed import create_accelerator, gather_arrays, rank_slice
from mlkd.training.precision import ComputeFormat
from mlkd.training.run_files import Predictions

if TYPE_CHECKING:
    from accelerate import Accelerator


def iter_batches(
    model: MultiLabelModel | MergedTeacher,
    data: MultiLabelData,
    indices: Sequence[int] | np.ndarray | None = None,
    batch_size: int = 128,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """The images of a split in batches, at the model's image size and on its device.

    Args:
        indices: (n,) which images of the split, in this order; None for all.
        batch_size: images per batch; the last batch may be smaller.

    Yields:
        The indices of the batch, (b,) int64, and its images, (b, 3, H, W) uint8.
    """
    pixels = decoded_images(data, model.image_size)
    indices = np.arange(len(data)) if indices is None else np.asarray(indices, np.int64)
    device = next(model.parameters()).device
    for start in range(0, len(indices), batch_size):
        batch_indices = indices[start : start + batch_size]
        yield batch_indices, torch.from_numpy(np.array(pixels[batch_indices])).permute(0, 3, 1, 2).to(device)


def predict(model: MultiLabelModel, data: MultiLabelData, *, batch_size: int = 256) -> Predictions:
    """A model's logits for every image of a split, in the order of the split, computed in float32.

    `batch_size` is the number of images per forward pass.

    Raises:
        ValueError: the model has other labels than the data.
    """
    check_labels(model, data)
    accelerator = create_accelerator()
    return predict_split(accelerator, model.to(accelerator.device), data, ComputeFormat("float32"), batch_size)


def predict_split(
    accelerator: Accelerator,
    model: MultiLabelModel,
    data: MultiLabelData,
    compute_format: ComputeFormat,
    batch_size: int = 256,
) -> Predictions:
    """As `predict`; each process evaluates its slice of the split and receives the logits of all of it."""
    shard = rank_slice(accelerator, len(data))
    logits = [np.zeros((0, len(data.classes)), np.float32)]
    for _, images in iter_batches(model, data, range(shard.start, shard.stop), batch_size):
        with compute_format.autocast(accelerator.device):
            logits.append(model_output(model, images).logits.float().cpu().numpy())
    all_logits = gather_arrays(accelerator, np.concatenate(logits))
    return Predictions(np.array(data.ids), data.targets, all_logits, data.classes, data.ignore_mask)


def mean_average_precision(predictions: Predictions) -> float:
    """mAP, the mean over the classes that have a positive, as a fraction."""
    return float(np.nanmean(average_precision(predictions.targets, predictions.logits, predictions.ignore_mask)))


def check_labels(model: MultiLabelModel, data: MultiLabelData) -> None:
    """Raises ValueError, with the difference, when the model has other labels than the data, or in another order."""
    if model.classes != data.classes:
        raise ValueError(
            f"The labels of the model are not those of {data.name}: {_difference(model.classes, data.classes)}. Both "
            f"must have the same names in the same order. Was the model of `init_from` trained on other data?"
        )


def _difference(model: Sequence[str], data: Sequence[str]) -> str:
    """What is different between the labels of a model and those of the data."""
    only_model, only_data = [n for n in model if n not in data], [n for n in data if n not in model]
    parts = [f"only the model has {first_few(only_model)}"] * bool(only_model)
    parts += [f"only the data has {first_few(only_data)}"] * bool(only_data)
    if parts:
        return ", ".join(parts)
    k = next(k for k in range(len(model)) if model[k] != data[k])
    return f"label {k + 1} is {model[k]!r} in the model and {data[k]!r} in the data"
