"""The distillation microscope: how strongly each loss term pulls, and whether it pulls where the labels do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from mlkd.models import MultiLabelModel, Output


def gradients(
    terms: Mapping[str, Tensor],
    parameters: Iterable[Tensor],
    *,
    base: str = "",
    outputs: Tensor | None = None,
    classes: Sequence[str] = (),
) -> pd.DataFrame:
    r"""Each loss term's share of the gradient norm, and the cosine of its gradient to the base term's.

    $$ \text{share}_t = \frac{|g_t|}{\sum_u |g_u|}, \quad
       \text{cosine}_t = \frac{\langle g_t, g_{base} \rangle}{|g_t| \, |g_{base}|}, \quad
       g_t = \frac{\partial L_t}{\partial \theta} $$

    With `outputs` there is a row per term and class too. There the gradient is that of what the network says of the
    class, $g_{tk} = \partial L_t / \partial o_{\cdot k}$ over all pictures of the batch: so a term that mixes the
    classes has one for each of them as well, and one backward pass gives them all.

    Nothing is changed: the gradients that the parameters hold stay, and the graph can be run backward again.

    Args:
        terms: name -> (), weighted as they enter the sum.
        parameters: what is trained; those that need no gradient are left out.
        base: the term that the others are compared with; "" for the first, which is that of the labels in every
            method here.
        outputs: (b, q) logits, or (b, q, d) label-wise embeddings that the logits were made from; in the graph of
            the terms.
        classes: the q names, for the rows of `outputs`.

    Returns:
        One row per term: `term`, `class` ("" for the whole), `norm`, `share` in [0, 1] and `cosine` in [-1, 1]; nan
        where a gradient is 0.

    Raises:
        ValueError: a term is not one number, there is no such `base`, no parameter needs a gradient, or `classes` are
            not q names.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise ValueError("`parameters` has none that needs a gradient; give those of the student in training.")
    for name, value in terms.items():
        if value.ndim:
            raise ValueError(f"The term {name!r} has shape {tuple(value.shape)}, expected one number.")
    base = base or next(iter(terms), "")
    if base and base not in terms:
        raise ValueError(f"`base` is {base!r}, expected one of the terms: {', '.join(terms)}.")
    rows = _rows({name: _gradient(value, trained) for name, value in terms.items()}, base, "")
    if outputs is not None:
        if outputs.ndim < 2 or len(classes) != outputs.shape[1]:
            raise ValueError(
                f"`outputs` has shape {tuple(outputs.shape)}, expected (b, {len(classes)}) or (b, {len(classes)}, d) "
                f"for {len(classes)} classes."
            )
        found = {name: _gradient(value, [outputs]).view(outputs.shape) for name, value in terms.items()}
        for k, label in enumerate(classes):
            rows += _rows({name: value[:, k].flatten() for name, value in found.items()}, base, label)
    return pd.DataFrame(rows, columns=["term", "class", "norm", "share", "cosine"])


class GradientMonitor:
    """Looks at the gradients of a training, every n steps.

    The classes' rows are those of the label-wise embeddings where the head has them, else of the logits.

    Args:
        model: the student. What it says first in a step is what is looked at.
        every: steps from one look to the next.
    """

    def __init__(self, model: MultiLabelModel, every: int):
        self.model, self.every = model, every
        self.said: Output | None = None
        self.looks: list[pd.DataFrame] = []
        model.register_forward_hook(self._heard)

    def _heard(self, model: MultiLabelModel, images: Any, output: Output) -> None:
        if model.training and self.said is None:
            self.said = output

    def step(self, terms: Mapping[str, Tensor], step: int) -> None:
        """To be called once in each step, which is counted over all epochs, before its terms are run backward."""
        said, self.said = self.said, None
        if said is not None and step % self.every == 0:
            outputs = said.logits if said.embeddings is None else said.embeddings
            table = gradients(terms, self.model.parameters(), outputs=outputs, classes=self.model.classes)
            self.looks.append(table.assign(step=step))

    def take(self) -> pd.DataFrame:
        """What was seen since it was last asked: rows of `gradients` with their `step`."""
        looks, self.looks = self.looks, []
        return pd.concat(looks, ignore_index=True) if looks else pd.DataFrame()


def _rows(found: Mapping[str, Tensor], base: str, label: str) -> list[tuple]:
    """One row per term, of its gradient as a vector."""
    norms = {name: gradient.norm().item() for name, gradient in found.items()}
    total = sum(norms.values())
    rows = []
    for name, norm in norms.items():
        cosine = float("nan")
        if norm and norms[base]:
            cosine = max(-1.0, min(1.0, torch.dot(found[name] / norm, found[base] / norms[base]).item()))
        rows.append((name, label, norm, norm / total if total else float("nan"), cosine))
    return rows


def _gradient(term: Tensor, inputs: list[Tensor]) -> Tensor:
    """The term's gradient as one vector in float32; 0 where it does not depend on an input."""
    if not term.requires_grad:
        return torch.zeros(sum(x.numel() for x in inputs), device=inputs[0].device)
    parts = torch.autograd.grad(term, inputs, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(x) if part is None else part).detach().float().flatten()
            for part, x in zip(parts, inputs, strict=True)
        ]
    )
