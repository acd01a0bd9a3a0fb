"""The reduction of a loss over images and labels, and the shape check and the precision that all losses share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec

import torch
from torch import Tensor

from mlkd.errors import check_choice

P = ParamSpec("P")

REDUCTIONS = ("sum", "batchmean", "none")


def reduce(terms: Tensor, reduction: str) -> Tensor:
    """Terms (b, ...) to their "sum", their sum divided by b ("batchmean"), or unchanged ("none").

    Raises:
        ValueError: `reduction` is unknown.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    if reduction == "none":
        return terms
    return terms.sum() if reduction == "sum" else terms.sum() / len(terms)


def check_same_shape(**tensors: Tensor) -> None:
    """Raises ValueError, naming both arguments, when a later tensor's shape differs from the first's."""
    (first, expected), *others = tensors.items()
    for name, tensor in others:
        if tensor.shape != expected.shape:
            raise ValueError(
                f"`{name}` has shape {tuple(tensor.shape)} but `{first}` has {tuple(expected.shape)}; both are "
                f"{'(b, q)' if expected.ndim == 2 else 'the same'}. Was the head built for another data set?"
            )


def check_temperature(temperature: float) -> None:
    """Raises ValueError unless the temperature is finite and above 0."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"`temperature` is {temperature}, expected a number above 0.")


def force_float32(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A decorator: the loss is computed in float32 on half-precision tensors and under autocast. float64 is kept."""

    @functools.wraps(loss)
    def computed(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        tensors: list[Any] = [_upcast(value) for value in args]
        device = next((value.device.type for value in args if isinstance(value, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            return loss(*tensors, **{name: _upcast(value) for name, value in kwargs.items()})

    return computed


def _upcast(value: Any) -> Any:
    is_half = isinstance(value, Tensor) and value.is_floating_point() and value.dtype.itemsize < 4
    return value.float() if is_half else value
