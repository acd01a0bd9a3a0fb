"""DDGSD: two augmented views of the same images distill each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Reduction, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import Output


@register_method("ddgsd")
class DDGSD(BCEMethod):
    r"""$(L_{BCE} + L'_{BCE}) / 2 + \lambda_{KL} L_{KL} + \lambda_{MMD} L_{MMD}$.

    The student is evaluated on both views of the batch, and all terms are means over images, as in the paper. The views
    are made by the training's augmentations; without any, they are equal and the two distillation terms are 0.

    Source: Xu and Liu, Data-Distortion Guided Self-Distillation for Deep Neural Networks, AAAI 2019.
    Differs from the paper: see `mlkd.losses.ddgsd`; and the cross entropies of the two views are averaged.
    """

    paper = "Xu and Liu, AAAI 2019"
    formula = "(BCE + BCE′)/2 + λ_kl·KL + λ_mmd·MMD"
    needs_two_views = True
    needs_whole_batch = True

    lambda_kl: float = 1.0
    lambda_mmd: float = 5e-4
    reduction: Reduction = "batchmean"

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        assert batch.model is not None
        second: Output = batch.model(batch.second_view)
        logits = [student.logits, batch.all_gather(second.logits)]
        features = [batch.all_gather(view.features.mean(dim=(-2, -1))) for view in (student, second)]
        bce, second_bce = (self.bce(x, batch) for x in logits)
        return {
            "bce": (bce + second_bce) / 2,
            "kl": self.lambda_kl * losses.mutual_kl(*logits, reduction="batchmean"),
            "mmd": self.lambda_mmd * losses.mmd(*features),
        }
