"""PKT: distillation of the neighbor distributions of the images of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Reduction, Teacher, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import Output


@register_method("pkt")
class PKT(BCEMethod):
    r"""$L_{BCE} + \lambda_{PKT} L_{PKT}$.

    The features are the last feature map, averaged over its grid. The paper gives no weight beside a loss against
    labels; 30,000 is that of the benchmark of Tian et al., Contrastive Representation Distillation, ICLR 2020, where
    the loss against the labels is a mean over the batch.

    Source: Passalis and Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer, ECCV 2018,
    arXiv:1803.10837.
    """

    paper = "Passalis and Tefas, ECCV 2018"
    equations = "cosine kernel"
    formula = "BCE + λ_pkt·PKT"
    required_teachers = ("teacher",)
    needs_features = True

    teacher: Teacher | None = None
    lambda_pkt: float = 30_000.0
    reduction: Reduction = "batchmean"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        features = [batch.all_gather(output.features.mean(dim=(2, 3))) for output in (student, batch.teacher)]
        return {
            "bce": self.bce(student.logits, batch),
            "pkt": self.lambda_pkt * losses.pkt_loss(*features),
        }
