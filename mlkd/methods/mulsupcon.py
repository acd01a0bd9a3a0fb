"""MulSupCon: a contrast in which each label draws its own pictures together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlkd.losses.classification import bce
from mlkd.losses.mulsupcon import mulsupcon
from mlkd.methods.method import Batch, Method, register_method
from mlkd.models import MultiLabelModel, Output


@register_method("mulsupcon")
class MulSupCon(Method):
    r"""$L_{BCE} + \lambda L_{MulSupCon}$.

    Both augmentations of each picture go through the student and a projection of two layers, and every one of these
    2b embeddings is contrasted with the others. The contrast is a mean over them; where the BCE is a sum over the
    batch, it is multiplied by the number of pictures.

    Source: Zhang and Wu, Multi-Label Supervised Contrastive Learning, AAAI 2024.
    Differs from the print, which trains the network by the contrast alone, with a momentum encoder and a queue, and
    the classifier afterwards: here both are trained at once, as MSKD's tables compare it, and the contrast is with
    the batch; larger batches are closer to the print. The weight 1 is ours; the temperature and the width of the
    projection are the released code's.
    """

    paper = "Zhang and Wu, AAAI 2024"
    needs_two_views = True

    weight: float = 1.0
    temperature: float = 0.1
    projection: int = 256
    reduction: str = "sum"

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> nn.Module:
        width = student.backbone.width
        return nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, self.projection)
        )

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        twin: Output = batch.model(batch.second_view)
        features = torch.cat([student.features, twin.features]).mean(dim=(-2, -1))
        projected = torch.cat([batch.all_gather(rows) for rows in batch.auxiliary(features).chunk(2)])
        contrast = mulsupcon(projected, torch.cat([batch.targets, batch.targets]), temperature=self.temperature)
        pictures = len(student.logits) if self.reduction == "sum" else 1
        return {
            "bce": bce(student.logits, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask),
            "mulsupcon": self.weight * pictures * contrast,
        }
