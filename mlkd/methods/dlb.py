"""DLB: consistency with the last mini-batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.dlb import dlb
from mlkd.methods.method import Batch, Method, register
from mlkd.methods.ps_kd import PastLogits
from mlkd.models import MultiLabelModel, Output


@register("dlb")
@dataclass
class DLB(Method):
    r"""$L_{BCE} + \alpha L_{LB}$.

    Half of each batch was in the one before, augmented otherwise; what the student said of it then teaches it now.
    Each term is a mean over pictures in the paper; where the BCE is a sum over the batch, $L_{LB}$ is multiplied by
    the number of its pictures, so the balance stays.

    Source: Shen et al., Self-Distillation from the Last Mini-Batch for Consistency Regularization, CVPR 2022, Sec.
    3, arXiv:2203.16172. Differs from the print: see `mlkd.losses.dlb`.
    """

    paper = "Shen et al., CVPR 2022"
    needs_overlap = True

    alpha: float = 1.0
    temperature: float = 3.0
    bce_reduction: str = "sum"

    def parts(self, student: MultiLabelModel, pictures: int) -> PastLogits:
        return PastLogits(pictures, len(student.classes))

    def terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        weight = self.alpha * (len(student.logits) if self.bce_reduction == "sum" else 1)
        consistency = dlb(student.logits, batch.parts.recall(batch.rows), temperature=self.temperature)
        batch.parts.forget()
        batch.parts.remember(batch.rows, student.logits)
        return {
            "bce": bce(student.logits, batch.targets, reduction=self.bce_reduction, ignored=batch.ignored),
            "dlb": weight * consistency,
        }
