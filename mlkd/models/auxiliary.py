"""Modules that methods train or update beside the student; they are discarded after the training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mlkd.models.model import MultiLabelModel


class LogitsBank(nn.Module):
    """The latest logits of each training image, in a buffer (N, q); NaN for an image without any."""

    logits: Tensor

    def __init__(self, num_samples: int, num_classes: int):
        super().__init__()
        self.register_buffer("logits", torch.full((num_samples, num_classes), torch.nan))

    def get(self, sample_indices: Tensor) -> Tensor:
        """The logits (b, q) of the images with these indices (b,)."""
        return self.logits[sample_indices]

    def update(self, sample_indices: Tensor, logits: Tensor) -> None:
        """Replaces the logits of these images, without their gradient."""
        self.logits[sample_indices] = logits.detach().to(self.logits)

    def reset(self) -> None:
        """Removes the logits of all images."""
        self.logits.fill_(torch.nan)


class PreviousWeights(nn.Module):
    """A copy of a student's state dict in buffers: part of the checkpoint, and not trained.

    Attributes:
        is_set: whether `update` was called.
    """

    is_set: Tensor

    def __init__(self, student: nn.Module):
        super().__init__()
        self.register_buffer("is_set", torch.tensor(False))
        for name, value in student.state_dict().items():
            self.register_buffer(_buffer_name(name), value.clone())
        self.names = list(student.state_dict())

    def weights(self) -> dict[str, Tensor]:
        """The weights by their names in the student."""
        return {name: self.get_buffer(_buffer_name(name)) for name in self.names}

    def update(self, student: nn.Module) -> None:
        """Copies the current weights of the student."""
        self.is_set.fill_(True)
        state = student.state_dict()
        for name, value in self.weights().items():
            value.copy_(state[name])


def _buffer_name(name: str) -> str:
    return name.replace(".", "/")  # PyTorch does not allow dots in the name of a buffer


@torch.no_grad()
def logits_with_weights(model: nn.Module, weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """The model's logits (b, q), in float32, with these parameters and buffers in place of the model's.

    Buffers that the model updates, such as running statistics, are updated in `weights`.
    """
    return functional_call(model, weights, (images,)).logits.float()


class WeakClassifier(nn.Module):
    """A linear layer on the pooled output of the student's penultimate stage.

    A hook on the student keeps that output from the student's last call in training mode until it is classified. A
    copy of the student has a hook with a separate copy of this module, so the two do not interfere.

    Raises:
        ValueError: the student's backbone does not list its stages, or a stage has several outputs (when called).
    """

    def __init__(self, student: MultiLabelModel):
        super().__init__()
        stage, channels = student.backbone.penultimate_stage()
        self.classifier = nn.Linear(channels, len(student.classes))
        self.global_pool = student.backbone.global_pool  # a method, so the student is no submodule
        self.stage_output: Tensor | None = None
        stage.register_forward_hook(self._keep)

    def _keep(self, stage: nn.Module, inputs: tuple, output: Tensor | list[Tensor]) -> None:
        if not isinstance(output, Tensor):
            raise ValueError(
                f"The penultimate stage of the student's `backbone` has {len(output)} outputs, expected one for the "
                f"weak classifier of `uskd`. Use another backbone or another method."
            )
        if stage.training:
            self.stage_output = output

    def forward(self) -> Tensor:
        """Weak logits (b, q) for the images of the student's last call."""
        output, self.stage_output = self.stage_output, None
        assert output is not None, "the student was not called"
        return self.classifier(self.global_pool(output))


class CalibrationBranch(nn.Module):
    """A second classifier, two linear layers on the maximum of each channel: features (b, D, H, W) to logits (b, q)."""

    def __init__(self, in_channels: int, num_classes: int, hidden: int = 512):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features.amax(dim=(2, 3)))


class FeatureTranslation(nn.Module):
    """Translates a student's feature map to a teacher's: 1x1 and 3x3 convolution, each with batch normalization.

    Feature map (b, D, any h, any w) and the teacher's grid (H, W) to (b, out_channels, H, W). The map is first averaged
    onto the grid.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)

    def forward(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.layers(nn.functional.adaptive_avg_pool2d(features, grid))


class Projection(nn.Sequential):
    """Two linear layers on pooled features, (b, D) to (b, projection_dim), for a contrastive loss."""

    def __init__(self, in_features: int, projection_dim: int):
        super().__init__(
            nn.Linear(in_features, in_features),
            nn.BatchNorm1d(in_features),
            nn.ReLU(),
            nn.Linear(in_features, projection_dim),
        )
