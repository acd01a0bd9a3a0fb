"""PKT: which pictures of a batch are neighbours."""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.pkt import pkt
from mlkd.methods.method import Batch, Method, Teacher, register_method
from mlkd.models import Output


@register_method("pkt")
class PKT(Method):
    r"""$L_{BCE} + \lambda_{PKT} L_{PKT}$.

    The neighbours are those in the last feature map, averaged over its cells. The paper prints no weight beside a
    loss against labels; 30,000 is that of the benchmark of Tian et al., Contrastive Representation Distillation,
    ICLR 2020, where the loss against the labels is a mean over the batch.

    Source: Passalis and Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer, ECCV 2018,
    arXiv:1803.10837.
    """

    paper = "Passalis and Tefas, ECCV 2018"
    equations = "cosine kernel"
    required_teachers = ("teacher",)
    needs_features = True

    teacher: Teacher | None = None
    lambda_pkt: float = 30_000.0
    reduction: str = "sum"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        mine, its = (batch.all_gather(said.features.mean(dim=(2, 3))) for said in (student, batch.teacher))
        return {
            "bce": bce(student.logits, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask),
            "pkt": self.lambda_pkt * pkt(mine, its),
        }
