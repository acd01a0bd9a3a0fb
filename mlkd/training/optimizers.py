"""The optimizer and the learning rate schedule of a configuration."""

from __future__ import annotations

import torch
from timm.optim import create_optimizer_v2
from torch import nn

from mlkd.models import MultiLabelModel
from mlkd.training.config import Config


def create_optimizer(model: MultiLabelModel, auxiliary: nn.Module, config: Config) -> torch.optim.Optimizer:
    """timm's optimizer of that name for the student and the method's auxiliary module.

    The first parameter group has the learning rate `config.lr`, the second, the backbone, that times
    `config.backbone_lr_scale`.
    """
    groups = [
        {"params": [*model.head.parameters(), *auxiliary.parameters()], "lr": config.lr},
        {"params": list(model.backbone.parameters()), "lr": config.lr * config.backbone_lr_scale},
    ]
    return create_optimizer_v2(groups, config.optimizer, lr=config.lr, weight_decay=config.weight_decay)


def create_scheduler(
    optimizer: torch.optim.Optimizer, config: Config, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate of each of the `steps` of a whole training."""
    steps = max(steps, 1)
    if config.schedule == "one_cycle":
        max_lr = [group["lr"] for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, steps + 1)
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
