"""How a table of terms, one per image and label, becomes one number; and the checks all losses share."""

from __future__ import annotations

from torch import Tensor

from mlkd.spelling import check_one_of

REDUCTIONS = ("sum", "batchmean", "none")


def reduce(terms: Tensor, reduction: str) -> Tensor:
    """Terms (b, ...) to their "sum", their sum divided by b ("batchmean"), or themselves ("none")."""
    check_one_of("reduction", reduction, REDUCTIONS)
    if reduction == "none":
        return terms
    return terms.sum() if reduction == "sum" else terms.sum() / len(terms)


def check_same_shape(**tensors: Tensor) -> None:
    """Raises ValueError naming both arguments when a later one has another shape than the first."""
    (first, expected), *others = tensors.items()
    for name, tensor in others:
        if tensor.shape != expected.shape:
            raise ValueError(
                f"`{name}` has shape {tuple(tensor.shape)} but `{first}` has {tuple(expected.shape)}; both are "
                f"{'(b, q)' if expected.ndim == 2 else 'the same'}. Was the head built for another data set?"
            )


def at_least_float32(tensor: Tensor) -> Tensor:
    """Losses are computed in float32 also under autocast; float64 stays."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor
