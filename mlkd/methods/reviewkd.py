"""ReviewKD: the student's last feature map, translated, follows the teacher's at several sizes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.losses.classification import bce
from mlkd.losses.reviewkd import hcl
from mlkd.methods.method import Batch, Method, Teacher, register_method
from mlkd.models import MultiLabelModel, Output


@register_method("reviewkd")
class ReviewKD(Method):
    r"""$L_{BCE} + \lambda_{HCL} L_{HCL}$.

    After two convolutions the student's last feature map follows the teacher's. They are trained with the student
    and left behind with the training: 1x1 to `width` channels, 3x3 to the teacher's, each with batch normalisation.

    Source: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021, arXiv:2104.09044.
    Differs from the print in having one level: L2D and MDKD distil feature-based methods on the last feature map
    alone, so there is no deeper map to fuse with and the fusion module is left with its two convolutions. Where the
    grids differ, the student's map is first averaged onto the teacher's. `width` is what L2D's released code has.
    """

    paper = "Chen et al., CVPR 2021"
    equations = "one level, HCL"
    required_teachers = ("teacher",)
    needs_features = True

    teacher: Teacher | None = None
    lambda_hcl: float = 1.0
    width: int = 256
    reduction: str = "sum"

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> nn.Module:
        assert self.teacher is not None  # because of `check`
        translation = nn.Sequential(
            nn.Conv2d(student.backbone.width, self.width, 1, bias=False),
            nn.BatchNorm2d(self.width),
            nn.Conv2d(self.width, self.teacher.backbone.width, 3, padding=1, bias=False),
            nn.BatchNorm2d(self.teacher.backbone.width),
        )
        for layer in translation:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)
        return translation

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        its = batch.teacher.features
        height, width = its.shape[2:]
        mine = batch.auxiliary(F.adaptive_avg_pool2d(student.features, (height, width)))
        return {
            "bce": bce(student.logits, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask),
            "hcl": self.lambda_hcl * hcl(batch.all_gather(mine), batch.all_gather(its)),
        }
