"""USKD: customized soft labels from the student's logits and a weak classifier on an earlier stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Reduction, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import MultiLabelModel, Output
    from mlkd.models.auxiliary import WeakClassifier


@register_method("uskd")
class USKD(BCEMethod):
    r"""$L_{BCE} + \alpha L_{target} + \beta L_{non} + \mu L_{weak}$.

    The weights are the paper's, $\alpha$ as `lambda_target`, $\beta$ as `lambda_non_target` and $\mu$ as `lambda_weak`.
    All terms are means over images. Together with the BCE, $L_{target}$ gives a present label about twice the weight of
    an absent one.

    Source: Yang et al., From Knowledge Distillation to Self-Knowledge Distillation, ICCV 2023, Sec. 3,
    arXiv:2303.13005.
    Differs from the paper: see `mlkd.losses.uskd`.
    """

    paper = "Yang et al., ICCV 2023 (USKD)"
    formula = "BCE + λ_target·TARGET + λ_non_target·NON-TARGET + λ_weak·WEAK"
    needs_whole_batch = True

    lambda_target: float = 1.0
    lambda_non_target: float = 0.1
    lambda_weak: float = 0.005
    reduction: Reduction = "batchmean"

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> WeakClassifier:
        from mlkd.models.auxiliary import WeakClassifier

        return WeakClassifier(student)

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        assert batch.auxiliary is not None
        logits, targets = student.logits, batch.targets
        weak_logits = batch.all_gather(batch.auxiliary())
        return {
            "bce": self.bce(logits, batch),
            "target": self.lambda_target * losses.target_loss(logits, targets),
            "non_target": self.lambda_non_target * losses.non_target_loss(logits, weak_logits, targets),
            "weak": self.lambda_weak * losses.weak_loss(weak_logits, targets),
        }
