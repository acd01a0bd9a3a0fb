"""DLB: consistency with the predictions of the last batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Reduction, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import MultiLabelModel, Output
    from mlkd.models.auxiliary import LogitsBank


@register_method("dlb")
class DLB(BCEMethod):
    r"""$L_{BCE} + \lambda_{DLB} L_{LB}$.

    Half of each batch was in the previous one, with another augmentation; the student's predictions there are the
    teacher's now. Both terms are means over images, as in the paper.

    Source: Shen et al., Self-Distillation from the Last Mini-Batch for Consistency Regularization, CVPR 2022,
    Sec. 3, arXiv:2203.16172.
    Differs from the paper: see `mlkd.losses.dlb`.
    """

    paper = "Shen et al., CVPR 2022"
    formula = "BCE + λ_dlb·LB"
    needs_overlapping_batches = True

    lambda_dlb: float = 1.0
    temperature: float = 3.0
    reduction: Reduction = "batchmean"

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> LogitsBank:
        from mlkd.models.auxiliary import LogitsBank

        return LogitsBank(num_samples, len(student.classes))

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        bank = cast("LogitsBank", batch.auxiliary)
        assert batch.sample_indices is not None
        consistency = losses.dlb_loss(student.logits, bank.get(batch.sample_indices), temperature=self.temperature)
        bank.reset()
        bank.update(batch.sample_indices, student.logits)
        return {
            "bce": self.bce(student.logits, batch),
            "dlb": self.lambda_dlb * consistency,
        }
