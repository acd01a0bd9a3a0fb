"""The gradient of each loss term: its norm, and its direction relative to the classification loss."""

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
    r"""The fraction of each loss term in the sum of the gradient norms, and the cosine of its gradient to the base's.

    $$ \text{fraction}_t = \frac{|g_t|}{\sum_u |g_u|}, \quad
       \text{cosine}_t = \frac{\langle g_t, g_{base} \rangle}{|g_t| \, |g_{base}|}, \quad
       g_t = \frac{\partial L_t}{\partial \theta} $$

    With `outputs` there is also one row per term and class, for the gradient with respect to the network's output for
    the class, $g_{tk} = \partial L_t / \partial o_{\cdot k}$ over all images of the batch. It needs one backward pass
    per term for all classes, also for terms that couple the classes.

    The `grad` of the parameters is not changed, and the graph is retained.

    Args:
        terms: name -> (), weighted as in the loss.
        parameters: the parameters of the student; those that require no gradient are ignored.
        base: the term that the others are compared with; "" for the first, which is the classification loss in every
            method of this package.
        outputs: (b, q) logits, or (b, q, d) label-wise embeddings that the logits were computed from; in the graph of
            the terms.
        classes: the q names, for the rows of `outputs`.

    Returns:
        One row per term: `term`, `class` ("" for the gradient of the parameters), `norm`, `fraction` in [0, 1] and
        `cosine` in [-1, 1]; nan where a gradient is 0.

    Raises:
        ValueError: a term is not a scalar, there is no such `base`, no parameter requires a gradient, or `classes` are
            not q names.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise ValueError("`parameters` has none that requires a gradient; pass the parameters of the student.")
    for name, value in terms.items():
        if value.ndim:
            raise ValueError(f"The term {name!r} has shape {tuple(value.shape)}, expected a scalar.")
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
        at_outputs = {name: _gradient(value, [outputs]).view(outputs.shape) for name, value in terms.items()}
        for k, label in enumerate(classes):
            rows += _rows({name: value[:, k].flatten() for name, value in at_outputs.items()}, base, label)
    return pd.DataFrame(rows, columns=["term", "class", "norm", "fraction", "cosine"])


class GradientMonitor:
    """Records the table of `gradients` every n steps of a training.

    The rows of the classes are for the label-wise embeddings where the head has them, otherwise for the logits.

    Args:
        model: the student; its first output of each step is used.
        every: the number of steps from one record to the next.
    """

    def __init__(self, model: MultiLabelModel, every: int):
        self.model, self.every = model, every
        self.output: Output | None = None
        self.tables: list[pd.DataFrame] = []
        model.register_forward_hook(self._store_first_output)

    def _store_first_output(self, model: MultiLabelModel, images: Any, output: Output) -> None:
        if model.training and self.output is None:
            self.output = output

    def record(self, terms: Mapping[str, Tensor], step: int) -> None:
        """Call once per step, counted over all epochs, before the backward pass of its loss terms."""
        output, self.output = self.output, None
        if output is not None and step % self.every == 0:
            outputs = output.logits if output.embeddings is None else output.embeddings
            table = gradients(terms, self.model.parameters(), outputs=outputs, classes=self.model.classes)
            self.tables.append(table.assign(step=step))

    def collect(self) -> pd.DataFrame:
        """The rows recorded since the last call, with their `step`."""
        tables, self.tables = self.tables, []
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _rows(term_gradients: Mapping[str, Tensor], base: str, label: str) -> list[tuple]:
    """One row per term, from its gradient as a vector."""
    norms = {name: gradient.norm().item() for name, gradient in term_gradients.items()}
    total = sum(norms.values())
    rows = []
    for name, norm in norms.items():
        cosine = float("nan")
        if norm and norms[base]:
            cosine = torch.dot(term_gradients[name] / norm, term_gradients[base] / norms[base]).item()
            cosine = max(-1.0, min(1.0, cosine))
        rows.append((name, label, norm, norm / total if total else float("nan"), cosine))
    return rows


def _gradient(term: Tensor, inputs: list[Tensor]) -> Tensor:
    """The term's gradient as one vector in float32; 0 where it does not depend on an input."""
    if not term.requires_grad:
        return torch.zeros(sum(x.numel() for x in inputs), device=inputs[0].device)
    input_gradients = torch.autograd.grad(term, inputs, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(x) if gradient is None else gradient).detach().float().flatten()
            for gradient, x in zip(input_gradients, inputs, strict=True)
        ]
    )
