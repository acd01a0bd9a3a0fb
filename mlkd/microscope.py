"""The distillation microscope: how strongly each loss term pulls, and whether it pulls where the labels do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor


def gradients(
    terms: Mapping[str, Tensor],
    parameters: Iterable[Tensor],
    *,
    base: str = "bce",
    classes: Sequence[str] = (),
) -> pd.DataFrame:
    r"""Each loss term's share of the gradient norm, and the cosine of its gradient to the base term's.

    $$ \text{share}_t = \frac{|g_t|}{\sum_u |g_u|}, \quad
       \text{cosine}_t = \frac{\langle g_t, g_{base} \rangle}{|g_t| \, |g_{base}|}, \quad
       g_t = \frac{\partial L_t}{\partial \theta} $$

    A term may come as one number or as (q,), its part for each class, whose sum is the term. With `classes`, terms
    of the second kind have a row for each class too: shares are then among that class's parts, cosines to the base
    term's part for it. That takes one backward pass per term and class.

    Nothing is changed: the gradients that the parameters hold stay, and the graph can be run backward again.

    Args:
        terms: name -> () or (q,), weighted as they enter the sum.
        parameters: what is trained; those that need no gradient are left out.
        base: the term that the others are compared with. Without it cosines are nan.
        classes: q names, for rows per class; none for the whole terms alone.

    Returns:
        One row per term: `term`, `class` ("" for the whole), `norm`, `share` in [0, 1] and `cosine` in [-1, 1]; nan
        where a gradient is 0.

    Raises:
        ValueError: a term is neither () nor (q,), or no parameter needs a gradient.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise ValueError("`parameters` has none that needs a gradient; give those of the student in training.")
    for name, value in terms.items():
        if value.ndim > 1 or (value.ndim == 1 and classes and len(value) != len(classes)):
            raise ValueError(
                f"The term {name!r} has shape {tuple(value.shape)}, expected () or one entry for each of the "
                f"{len(classes) or 'q'} classes."
            )
    rows = _rows({name: value.sum() for name, value in terms.items()}, trained, base, "")
    by_class = {name: value for name, value in terms.items() if value.ndim == 1}
    for k, label in enumerate(classes if by_class else ()):
        rows += _rows({name: value[k] for name, value in by_class.items()}, trained, base, label)
    return pd.DataFrame(rows, columns=["term", "class", "norm", "share", "cosine"])


def _rows(terms: Mapping[str, Tensor], parameters: list[Tensor], base: str, label: str) -> list[tuple]:
    found = {name: _gradient(value, parameters) for name, value in terms.items()}
    norms = {name: found[name].norm().item() for name in found}
    total = sum(norms.values())
    rows = []
    for name, norm in norms.items():
        cosine = float("nan")
        if norm and norms.get(base):
            cosine = max(-1.0, min(1.0, torch.dot(found[name] / norm, found[base] / norms[base]).item()))
        rows.append((name, label, norm, norm / total if total else float("nan"), cosine))
    return rows


def _gradient(term: Tensor, parameters: list[Tensor]) -> Tensor:
    """The term's gradient as one vector in float32; 0 where it does not depend on a parameter."""
    if not term.requires_grad:
        return torch.zeros(sum(parameter.numel() for parameter in parameters), device=parameters[0].device)
    parts = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(parameter) if part is None else part).detach().float().flatten()
            for part, parameter in zip(parts, parameters, strict=True)
        ]
    )
