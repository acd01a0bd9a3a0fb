"""PS-KD: the student's own predictions of the epoch before, trusted more and more."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlkd.losses.ps_kd import ps_kd
from mlkd.methods.method import Batch, Method, register_method
from mlkd.models import MultiLabelModel, Output


class LogitsBank(nn.Module):
    """What the student said of each training picture; NaN for a picture of which nothing is remembered."""

    logits: Tensor

    def __init__(self, num_samples: int, labels: int):
        super().__init__()
        self.register_buffer("logits", torch.full((num_samples, labels), torch.nan))

    def recall(self, rows: Tensor) -> Tensor:
        return self.logits[rows]

    def remember(self, rows: Tensor, logits: Tensor) -> None:
        self.logits[rows] = logits.detach().to(self.logits)

    def forget(self) -> None:
        self.logits.fill_(torch.nan)


@register_method("ps-kd")
class PSKD(Method):
    r"""$H((1 - \alpha_t) y + \alpha_t \hat y^{t-1}, \hat y^t)$, $\alpha_t = \alpha_T t / T$.

    The past prediction of a picture is the one made when it was last trained on; a picture not yet seen has its
    labels alone.

    Source: Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets, ICCV 2021, Sec. 3,
    arXiv:2006.12000. Differs from the print: see `mlkd.losses.ps_kd`; and $t$ counts the epochs that are done, from
    0, where the print counts from 1.
    """

    paper = "Kim et al., ICCV 2021"

    alpha_T: float = 0.8
    reduction: str = "sum"

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> LogitsBank:
        return LogitsBank(num_samples, len(student.classes))

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        loss = ps_kd(
            student.logits,
            batch.auxiliary.recall(batch.sample_indices),
            batch.targets,
            alpha=self.alpha_T * batch.epoch_fraction,
            reduction=self.reduction,
            ignore_mask=batch.ignore_mask,
        )
        batch.auxiliary.remember(batch.sample_indices, student.logits)
        return {"ps_kd": loss}
