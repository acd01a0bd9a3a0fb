"""MulSupCon: a contrastive loss between images that share labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlkd import losses
from mlkd.methods.labels import BCEMethod
from mlkd.methods.method import Batch, Reduction, register_method

if TYPE_CHECKING:
    from torch import Tensor

    from mlkd.models import MultiLabelModel, Output
    from mlkd.models.auxiliary import Projection


@register_method("mulsupcon")
class MulSupCon(BCEMethod):
    r"""$L_{BCE} + \lambda_{MulSupCon} L_{MulSupCon}$.

    Both views of each image are passed through the student and a projection of two layers, and each of these 2b
    embeddings is contrasted with the others. The contrastive loss is a mean over them, the BCE a mean over the images.

    Source: Zhang and Wu, Multi-Label Supervised Contrastive Learning, AAAI 2024.
    Differs from the paper, which trains the network with the contrastive loss only, with a momentum encoder and a
    queue, and the classifier afterwards. Here both are trained together, as in the comparison of MSKD, and the contrast
    is within the batch; larger batches are closer to the paper. The weight 1 is our choice; the temperature and the
    dimension of the projection are those of the official code.
    """

    paper = "Zhang and Wu, AAAI 2024"
    formula = "BCE + λ_mulsupcon·MulSupCon"
    needs_two_views = True
    needs_whole_batch = True

    lambda_mulsupcon: float = 1.0
    temperature: float = 0.1
    projection_dim: int = 256
    reduction: Reduction = "batchmean"

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> Projection:
        from mlkd.models.auxiliary import Projection

        return Projection(student.backbone.width, self.projection_dim)

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        import torch

        assert batch.model is not None
        assert batch.auxiliary is not None
        second: Output = batch.model(batch.second_view)
        features = torch.cat([student.features, second.features]).mean(dim=(-2, -1))
        embeddings = torch.cat([batch.all_gather(view) for view in batch.auxiliary(features).chunk(2)])
        targets = torch.cat([batch.targets, batch.targets])
        return {
            "bce": self.bce(student.logits, batch),
            "mulsupcon": self.lambda_mulsupcon
            * losses.mulsupcon_loss(embeddings, targets, temperature=self.temperature),
        }
