"""RKD: how the pictures of a batch lie to each other."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.rkd import angle, distance
from mlkd.methods.method import Batch, Method, register
from mlkd.models import MultiLabelModel, Output


@register("rkd")
@dataclass
class RKD(Method):
    r"""$L_{BCE} + \lambda_D L_{RKD-D} + \lambda_A L_{RKD-A}$.

    The relations are those of the last feature map, averaged over its cells. The weights are the paper's for
    classification, where the loss against the labels is a mean over the batch.

    Source: Park et al., Relational Knowledge Distillation, CVPR 2019, Eqs. (5)-(11), arXiv:1904.05068.
    """

    paper = "Park et al., CVPR 2019"
    equations = "(5)-(11)"
    needs = ("teacher",)
    needs_features = True

    teacher: MultiLabelModel | None = None
    lambda_distance: float = 25.0
    lambda_angle: float = 50.0
    bce_reduction: str = "sum"

    def terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        mine, its = (batch.joined(said.features.mean(dim=(2, 3))) for said in (student, batch.teacher))
        return {
            "bce": bce(student.logits, batch.targets, reduction=self.bce_reduction, ignored=batch.ignored),
            "distance": self.lambda_distance * distance(mine, its),
            "angle": self.lambda_angle * angle(mine, its),
        }
