"""The optimizer and the learning rate schedule of a configuration."""

from __future__ import annotations

import torch
from timm.optim import create_optimizer_v2, param_groups_weight_decay
from torch import nn
from torch.optim import lr_scheduler

from mlkd.models import MultiLabelModel
from mlkd.training.config import Config


def create_optimizer(model: MultiLabelModel, auxiliary: nn.Module, config: Config) -> torch.optim.Optimizer:
    """timm's optimizer of that name for the student and the method's auxiliary module.

    The first parameter group has the learning rate `config.lr`, the last one, the backbone, that times
    `config.backbone_lr_scale`. With `config.filter_bias_and_bn` each is two groups, without and with weight decay.
    """
    groups = []
    for modules, lr in (([model.head, auxiliary], config.lr), ([model.backbone], config.lr * config.backbone_lr_scale)):
        module = nn.ModuleList(modules)
        if config.filter_bias_and_bn:
            groups += [{**group, "lr": lr} for group in param_groups_weight_decay(module, config.weight_decay)]
        else:
            groups.append({"params": list(module.parameters()), "lr": lr})
    return create_optimizer_v2(groups, config.optimizer, lr=config.lr, weight_decay=config.weight_decay)


def create_scheduler(
    optimizer: torch.optim.Optimizer, config: Config, steps_per_epoch: int
) -> lr_scheduler.LRScheduler:
    """The learning rate of each step."""
    steps = max(steps_per_epoch * (config.schedule_epochs or config.epochs), 1)
    if config.schedule == "one_cycle":
        max_lr = [group["lr"] for group in optimizer.param_groups]
        warmup = 0.3 if config.warmup is None else config.warmup
        return lr_scheduler.OneCycleLR(optimizer, max_lr, steps + 1, pct_start=warmup)
    warmup_steps = round((config.warmup or 0.0) * steps)
    if not warmup_steps:
        return _create_main_schedule(optimizer, config, steps)
    increase = lr_scheduler.LinearLR(optimizer, 1 / (warmup_steps + 1), total_iters=warmup_steps)
    schedule = _create_main_schedule(optimizer, config, max(steps - warmup_steps, 1))
    return lr_scheduler.SequentialLR(optimizer, [increase, schedule], [warmup_steps])


def _create_main_schedule(optimizer: torch.optim.Optimizer, config: Config, steps: int) -> lr_scheduler.LRScheduler:
    """The schedule after the warm-up."""
    if config.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return lr_scheduler.ConstantLR(optimizer, 1.0)
