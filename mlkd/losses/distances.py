"""Pairwise Euclidean distances within groups of rows, for the losses that compare distances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def pad_groups(tensors: Sequence[Tensor], group: Tensor, num_groups: int) -> tuple[list[Tensor], Tensor]:
    """Collects the rows of each group, padded with zeros to the size m of the largest group.

    Args:
        tensors: each (p, any d), differentiable.
        group: (p,), the group of each row, in 0..num_groups-1.
        num_groups: the number of groups; a group may be empty.

    Returns:
        Each tensor as (num_groups, m, d), with the rows of a group in their order, and a mask (num_groups, m) that is
        True where there is a row. m is at least 1.

    Example:
        >>> (rows,), mask = pad_groups([torch.tensor([[1.], [2.], [3.]])], torch.tensor([1, 0, 1]), 2)
        >>> rows.squeeze(2), mask
        (tensor([[2., 0.],
                [1., 3.]]), tensor([[ True, False],
                [ True,  True]]))
    """
    count = group.bincount(minlength=num_groups)
    size = max(int(count.max()), 1) if num_groups else 1
    order = group.argsort(stable=True)
    group = group[order]
    position = torch.arange(len(group), device=group.device) - (count.cumsum(0) - count)[group]
    slot = group * size + position
    padded = [
        rows.new_zeros(num_groups * size, rows.shape[1])
        .index_copy(0, slot, rows.index_select(0, order))
        .view(num_groups, size, rows.shape[1])
        for rows in tensors
    ]
    return padded, torch.arange(size, device=group.device) < count[:, None]


def pairwise_distances(rows: Tensor) -> Tensor:
    """Euclidean distances (..., m, m) between rows (..., m, d); a distance of 0 has gradient 0."""
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def group_distances(rows: Tensor) -> Tensor:
    """`pairwise_distances` of (groups, m, d) whose backward pass only needs memory for (groups, m, m)."""
    return _GroupDistances.apply(rows)


class _GroupDistances(torch.autograd.Function):
    """With W = G / distance, the gradient of row i is the sum over j of (W_ij + W_ji) (x_i - x_j).

    These are two matrix products, where the backward pass of `cdist` keeps every difference.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x - x[:, :1]  # the distances are the same, and close rows far from the origin keep their digits
        distances = pairwise_distances(x)
        ctx.save_for_backward(x, distances)
        return distances

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, distances = ctx.saved_tensors
        weight = (gradient / distances).masked_fill(distances == 0, 0.0)
        weight = weight + weight.mT
        with torch.autocast(x.device.type, enabled=False):
            return x * weight.sum(dim=2, keepdim=True) - weight @ x


def normalize_by_mean(distances: Tensor, num_pairs: int | None = None) -> Tensor:
    """Each matrix of distances (..., m, m) divided by the mean of its positive entries.

    Args:
        distances: non-negative. The gradient flows through the mean.
        num_pairs: the number of entries in the mean, where distances of 0 count too; None counts the positive ones.

    Example:
        >>> normalize_by_mean(torch.tensor([[0., 3.], [3., 0.]]))
        tensor([[0., 1.],
                [1., 0.]])
    """
    count = (distances > 0).sum(dim=(-2, -1), keepdim=True).clamp(min=1) if num_pairs is None else max(num_pairs, 1)
    mean = distances.sum(dim=(-2, -1), keepdim=True) / count
    return distances / mean.masked_fill(mean == 0, 1.0)
