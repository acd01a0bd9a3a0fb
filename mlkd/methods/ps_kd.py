"""PS-KD: the targets are mixed with the student's predictions of the previous epoch, more and more."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from mlkd import losses
from mlkd.methods.method import Batch, Method, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import MultiLabelModel, Output
    from mlkd.models.auxiliary import LogitsBank


@register_method("ps-kd")
class PSKD(Method):
    r"""$H((1 - \alpha_t) y + \alpha_t \hat y^{t-1}, \hat y^t)$, $\alpha_t = \alpha_T t / T$.

    The past prediction of an image is that of the last step that it was part of; for a new image the targets are not
    mixed.

    Source: Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets, ICCV 2021, Sec. 3,
    arXiv:2006.12000.
    Differs from the paper: see `mlkd.losses.ps_kd`; and $t$ is the number of finished epochs, starting at 0, where it
    starts at 1 in the paper.
    """

    paper = "Kim et al., ICCV 2021"
    formula = "BCE((1 - α_t)·y + α_t·ŷ′, ŷ), α_t = α_T·t/T"

    alpha_T: float = 0.8

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> LogitsBank:
        from mlkd.models.auxiliary import LogitsBank

        return LogitsBank(num_samples, len(student.classes))

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        bank = cast("LogitsBank", batch.auxiliary)
        assert batch.sample_indices is not None
        loss = losses.ps_kd_loss(
            student.logits,
            bank.get(batch.sample_indices),
            batch.targets,
            alpha=self.alpha_T * batch.epoch_fraction,
            ignore_mask=batch.ignore_mask,
        )
        bank.update(batch.sample_indices, student.logits)
        return {"ps_kd": loss}
