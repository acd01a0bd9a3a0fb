"""The loss of MulSupCon: Zhang and Wu, Multi-Label Supervised Contrastive Learning, AAAI 2024."""

from __future__ import annotations

import torch
from torch import Tensor

from mlkd.losses.reduction import check_temperature, force_float32


@force_float32
def mulsupcon_loss(embeddings: Tensor, targets: Tensor, *, temperature: float = 0.1) -> Tensor:
    r"""Multi-label supervised contrastive loss: each label of an anchor has its own set of positives.

    $$ L = \frac{1}{|A|} \sum_{(i, k) \in A} \frac{-1}{|P_{ik}|} \sum_{p \in P_{ik}} \log
       \frac{\exp(z_i \cdot z_p / \tau)}{\sum_{a \neq i} \exp(z_i \cdot z_a / \tau)} $$

    where $z$ are the embeddings with length 1, $P_{ik}$ the other embeddings whose images have label $k$ too, and
    $A$ the pairs of an anchor $i$ and one of its labels $k$ for which there are any. The attraction of two images grows
    with the number of labels that they share.

    Source: Zhang and Wu, Multi-Label Supervised Contrastive Learning, AAAI 2024.
    Differs from the paper: anchors are contrasted with the current batch, not with a queue of earlier embeddings from
    a momentum encoder.

    Args:
        embeddings: any finite real, of any length; one of length 0 stays 0. Gradients flow into all of them.
        targets: 0 or 1, of any dtype.
        temperature: above 0.

    Shape: embeddings (n, d), targets (n, q); output (). Range: >= 0; 0, with a graph, where no two images share a
    label.

    Raises:
        ValueError: the shapes do not fit, or `temperature` is not above 0.

    Example:
        >>> embeddings = torch.tensor([[1., 0.], [2., 0.], [0., 1.]])
        >>> mulsupcon_loss(embeddings, torch.tensor([[1], [1], [0]]), temperature=1.0)
        tensor(0.3133)
    """
    if embeddings.ndim != 2 or targets.ndim != 2 or len(embeddings) != len(targets):
        raise ValueError(
            f"`embeddings` has shape {tuple(embeddings.shape)} and `targets` {tuple(targets.shape)}; expected (n, d) "
            f"and (n, q) with one n."
        )
    check_temperature(temperature)
    diagonal = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    length = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
    z = embeddings / length.masked_fill(length == 0, 1.0)
    log_probs = (z @ z.T / temperature).masked_fill(diagonal, -torch.inf).log_softmax(dim=1).masked_fill(diagonal, 0.0)

    present = (targets > 0).to(z)
    positives = present * (present.sum(dim=0) - 1)  # |P_ik|
    weight = torch.where(positives > 0, 1 / positives, 0.0) @ present.T  # sum over the labels that i and p share
    anchors = (positives > 0).sum().clamp(min=1)  # |A|
    return -(weight * log_probs).sum() / anchors
