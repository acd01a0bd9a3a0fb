"""A configuration's optimiser and learning rate schedule, from torch."""

from __future__ import annotations

import torch
from torch import nn

from mlkd.models import MultiLabelModel
from mlkd.training.config import Config


def create_optimizer(model: MultiLabelModel, parts: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Of the student and what is trained beside it, the backbone with a learning rate of its own."""
    groups = [
        {"params": [*model.head.parameters(), *parts.parameters()], "lr": config.lr},
        {"params": list(model.backbone.parameters()), "lr": config.lr * config.backbone_lr_scale},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, config.lr, weight_decay=config.weight_decay)


def create_scheduler(
    optimizer: torch.optim.Optimizer, config: Config, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Over all `steps` of a training."""
    steps = max(steps, 1)
    if config.schedule == "one_cycle":
        highest = [group["lr"] for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, steps + 1)
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
