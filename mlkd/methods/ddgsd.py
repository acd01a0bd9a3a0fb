"""DDGSD: two distortions of the same pictures teach each other."""

from __future__ import annotations

from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.ddgsd import mmd, mutual_kl
from mlkd.methods.method import Batch, Method, register_method
from mlkd.models import Output


@register_method("ddgsd")
class DDGSD(Method):
    r"""$(L_{BCE} + L'_{BCE}) / 2 + \lambda_{KL} L_{KL} + \lambda_{MMD} L_{MMD}$.

    The student runs on both distortions of the batch, one after the other. Each term belongs to a mean over pictures
    in the paper; where the BCE is a sum over the batch, the MMD is multiplied by the number of its pictures, so the
    balance stays. The training's augmentations are the distortions: without any there is nothing to learn from.

    Source: Xu and Liu, Data-Distortion Guided Self-Distillation for Deep Neural Networks, AAAI 2019. Differs from
    the print: see `mlkd.losses.ddgsd`; and the cross entropies of the two distortions are averaged.
    """

    paper = "Xu and Liu, AAAI 2019"
    needs_two_views = True

    lambda_kl: float = 1.0
    lambda_mmd: float = 5e-4
    reduction: str = "sum"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        twin: Output = batch.model(batch.second_view)
        logits = [student.logits, batch.all_gather(twin.logits)]
        hard = [bce(x, batch.targets, reduction=self.reduction, ignore_mask=batch.ignore_mask) for x in logits]
        pictures = len(student.logits) if self.reduction == "sum" else 1
        pooled = [batch.all_gather(output.features.mean(dim=(-2, -1))) for output in (student, twin)]
        return {
            "bce": (hard[0] + hard[1]) / 2,
            "kl": self.lambda_kl * mutual_kl(*logits, reduction=self.reduction),
            "mmd": self.lambda_mmd * pictures * mmd(*pooled),
        }
