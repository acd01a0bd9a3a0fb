"""MSKD: a student whose teachers are its own crops and its own weights of the step before."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.ops import roi_align

from mlkd.errors import check_choice
from mlkd.losses.classification import bce
from mlkd.losses.mskd import l_sd, r_sd, s_sd
from mlkd.methods.method import Batch, Method, register_method
from mlkd.models import MultiLabelModel, Output

CROP_MODES = ("random", "corners")


@register_method("mskd")
class MSKD(Method):
    r"""$L_{BCE} + \iota L_{L-SD} + \sum_i (\kappa L_{R-SD}^{(i)} + \lambda L_{S-SD}^{(i)})$, without a teacher.

    Each step runs the student again on `num_crops` crops of each picture, without a graph, since they only teach; and
    on the whole pictures with the weights of the step before. Both use the statistics of their own batch and leave
    the student's running statistics alone, as these belong to whole pictures. Crops have no more detail than the
    batch's pictures. A crop's part of the feature map is brought to the size of the map and goes through the head.

    `reduction="batchmean"` divides all of Eq. (17) by the batch size, so that the weights keep their meaning.

    Source: Wang et al., Multi-Label Self Knowledge Distillation, AAAI 2025, Eqs. (1)-(17). Random crops have 0.2 to
    0.3 of the area and sides of 2:5 to 5:3, as released; "corners" are the four quarters.
    """

    paper = "Wang et al., AAAI 2025"
    equations = "(1)-(17)"

    lambda_lsd: float = 1.5
    lambda_rsd: float = 2.0
    lambda_ssd: float = 2.0
    num_crops: int = 4
    crop_mode: str = "random"
    propagation_steps: int = 2
    temperature: float = 4.0
    omega: float = 0.5
    gamma_pos: float = 0.25
    gamma_neg: float = 1.0
    as_in_paper: bool = False
    reduction: str = "sum"

    def check(self, student: MultiLabelModel) -> None:
        super().check(student)
        check_choice("crop_mode", self.crop_mode, CROP_MODES)
        if self.num_crops < 1 or (self.crop_mode == "corners" and self.num_crops != 4):
            expected = "4 with crop_mode='corners'" if self.crop_mode == "corners" else "a whole number of at least 1"
            raise ValueError(f"`num_crops` is {self.num_crops!r}, expected {expected}.")

    def build_auxiliary(self, student: MultiLabelModel, num_samples: int) -> nn.Module | None:
        return PreviousWeights(student) if self.lambda_ssd else None

    def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
        logits, targets = student.logits, batch.targets
        model = batch.model
        options = {
            name: getattr(self, name) for name in ("temperature", "omega", "gamma_pos", "gamma_neg", "as_in_paper")
        }
        options["reduction"] = self.reduction
        terms = {"bce": bce(logits, targets, reduction=self.reduction, ignore_mask=batch.ignore_mask)}
        if self.lambda_lsd or self.lambda_rsd:
            boxes = self.boxes(len(batch.images)).to(logits.device)
            if self.lambda_lsd:  # before the crops, as some versions' autocast then keeps weights cast without a graph
                roi_logits = self._of_patches(batch, model.head(roi_crop(student.features, boxes))[0])  # Eq. (2)
            images = batch.images.float() / 255 if batch.images.dtype == torch.uint8 else batch.images
            own_statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
            crop_logits = self._of_patches(batch, _logits(model, own_statistics, roi_crop(images, boxes)))
            if self.lambda_lsd:
                share = len(logits) if self.reduction == "batchmean" else 1
                terms["lsd"] = self.lambda_lsd / share * l_sd(roi_logits, crop_logits)
            if self.lambda_rsd:
                distilled = r_sd(logits, crop_logits, targets, steps=self.propagation_steps, **options)
                terms["rsd"] = self.lambda_rsd * distilled
        if self.lambda_ssd:
            previous: PreviousWeights = batch.auxiliary
            if previous.known:
                before = batch.all_gather(_logits(model, previous.weights(), batch.images))
                terms["ssd"] = self.lambda_ssd * s_sd(logits, before, targets, **options)
            else:
                terms["ssd"] = 0.0 * logits.sum()
            previous.keep(model)
        return terms  # Eq. (17), term by term

    def _of_patches(self, batch: Batch, logits: Tensor) -> Tensor:
        """Logits (b * patches, q), picture by picture, as (b, patches, q)."""
        return batch.all_gather(logits.view(-1, self.num_crops, logits.shape[1]))

    def boxes(self, b: int) -> Tensor:
        """Where the crops of b pictures lie: (b, patches, 4), x1 y1 x2 y2 as shares of the picture's sides."""
        if self.crop_mode == "corners":
            corners = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]) / 2
            return torch.cat([corners, corners + 0.5], dim=1).expand(b, -1, -1)
        random = torch.rand(4, b, self.num_crops)
        area = 0.2 + 0.1 * random[0]
        low, high = math.log(2 / 5), math.log(5 / 3)
        ratio = torch.exp(low + (high - low) * random[1])
        sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=2)
        corner = (1 - sides) * random[2:].permute(1, 2, 0)
        return torch.cat([corner, corner + sides], dim=2)


class PreviousWeights(nn.Module):
    """A copy of a student's weights, in buffers: it travels with the checkpoint and is not trained."""

    known: Tensor

    def __init__(self, student: nn.Module):
        super().__init__()
        self.register_buffer("known", torch.tensor(False))
        for name, value in student.state_dict().items():
            self.register_buffer(_without_dots(name), value.clone())
        self.names = list(student.state_dict())

    def weights(self) -> dict[str, Tensor]:
        """By the names they have in the student."""
        return {name: self.get_buffer(_without_dots(name)) for name in self.names}

    def keep(self, student: nn.Module) -> None:
        """Takes over the student's weights as they are now."""
        self.known.fill_(True)
        state = student.state_dict()
        for name, value in self.weights().items():
            value.copy_(state[name])


def roi_crop(maps: Tensor, boxes: Tensor) -> Tensor:
    """Each box (b, S, 4) of the maps (b, D, H, W), brought to the maps' size: (b * S, D, H, W), image by image."""
    height, width = maps.shape[-2:]
    scaled = boxes.to(maps) * maps.new_tensor([width, height, width, height])
    return roi_align(maps, list(scaled), (height, width), aligned=True)


@torch.no_grad()
def _logits(model: Any, weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """The model's logits with these tensors in place of its own; what it changes in them, it changes here."""
    return functional_call(model, weights, (images,)).logits.float()


def _without_dots(name: str) -> str:
    return name.replace(".", "/")  # PyTorch takes no dots in the name of a buffer
