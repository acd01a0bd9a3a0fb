"""DLB: consistency with the last mini-batch."""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.dlb import dlb
from mlkd.methods.method import Batch, Method, register_method
from mlkd.methods.ps_kd import LogitsBank
from mlkd.models import MultiLabelModel, Output


@register_method("dlb")
class DLB(Method):
    r"""$L_{BCE} + \alpha L_{LB}$.

    Half of each batch was in the one before, augmented otherwise; what the student said of it then teaches it now.
    Each term is a mean over num_samples in the paper; where the BCE is a sum over the batch, $L_{LB}$ is multiplied by
    the number of its num_samples, so the balance stays.

    Source: Shen et al., Self-Distillation from the Last Mini-Batch for Consistency Regularization, CVPR 2022, Sec.
    3, arXiv:2203.16172. Differs from the print: see `mlkd.losses.dlb`.
    """

    paper = "Shen et al., CVPR 2022"
    needs_overlapping_batches = True

    alpha: float = 1.0
    temperature: float = 3.0
    reduction: str = "sum"

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> LogitsBank:
        return LogitsBank(num_samples, len(student.classes))

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        weight = self.alpha * (len(student.logits) if self.reduction == "sum" else 1)
        consistency = dlb(student.logits, batch.auxiliary.recall(batch.sample_indices), temperature=self.temperature)
        batch.auxiliary.forget()
        batch.auxiliary.remember(batch.sample_indices, student.logits)
        return {
            "bce": bce(student.logits, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask),
            "dlb": weight * consistency,
        }
