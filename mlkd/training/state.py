"""The state of a training, which is its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor

from mlkd.errors import first_few
from mlkd.training.distributed import StudentWithAuxiliary
from mlkd.training.run_files import damaged
from mlkd.training.runs import Run

STATEFUL = ("ema", "optimizer", "scheduler", "scaler")


@dataclass
class TrainState:
    """The state that a training resumes from; its checkpoint is exactly this.

    Attributes:
        networks: the student and the method's auxiliary module.
        ema: the moving average of the student's weights, or None.
        optimizer, scheduler, scaler: of the networks.
        epoch: the number of finished epochs.
        best_score: the highest mAP on `val` so far.
        selected_epoch: the epoch whose weights are the run's model.
        history: one row per epoch.
    """

    networks: StudentWithAuxiliary
    ema: ModelEmaV3 | None
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    epoch: int = 0
    best_score: float = -1.0
    selected_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def save(self, run: Run) -> None:
        """Writes the checkpoint."""
        names = [entry.name for entry in fields(self) if entry.name != "networks"]
        values = {name: getattr(self, name) for name in names}
        stateful = {name for name in STATEFUL if values[name] is not None}
        state = {name: value.state_dict() if name in stateful else value for name, value in values.items()}
        run.save_checkpoint(self.epoch, self.networks.state_dict(), state)

    def load(self, run: Run) -> None:
        """Reads the checkpoint, if there is one.

        Raises:
            RunError: the checkpoint does not fit the training, as that of another version of mlkd.
        """
        if (checkpoint := run.load_checkpoint()) is None:
            return
        weights, state = checkpoint
        try:
            self._check(state)
            self.networks.load_state_dict(weights)
            for name, value in state.items():
                if name in STATEFUL and value is not None:
                    getattr(self, name).load_state_dict(value)
                else:
                    setattr(self, name, value)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[0].rstrip(":.")
            raise damaged(run.path, run.checkpoints[-1], f"the checkpoint does not fit ({reason})") from error

    def _check(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError if the entries of a checkpoint are not those that `save` writes for this training."""
        _check_keys("state", state, {entry.name for entry in fields(self)} - {"networks"})
        for name in ("epoch", "selected_epoch", "best_score"):
            _check_form(name, state[name], getattr(self, name))
        history, epoch = state["history"], state["epoch"]
        if not isinstance(history, list) or len(history) != epoch or not 0 <= state["selected_epoch"] <= epoch:
            raise ValueError(f"`history` or `selected_epoch` is of another training than `epoch`, {epoch}")
        for number, row in enumerate(history, 1):
            numeric = isinstance(row, dict) and all(isinstance(value, int | float) for value in row.values())
            if not numeric or row.get("epoch") != number or "seconds" not in row:
                raise ValueError(f"row {number} of `history` is {row!r}")
        for name in STATEFUL:
            current = getattr(self, name)
            expected: Any = None if current is None else current.state_dict()
            if name == "optimizer":
                expected["state"] = _optimizer_form(state[name], self.optimizer)
            _check_form(name, state[name], expected)


def _optimizer_form(stored: Any, optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """The optimizer's state after the first step, as far as `stored` has the parameters: before it there is none."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = ("momentum_buffer",) if "momentum" in optimizer.defaults else ("exp_avg", "exp_avg_sq")
    step = {} if "momentum" in optimizer.defaults else {"step": torch.tensor(0.0)}
    known = stored.get("state") if isinstance(stored, dict) else None
    return {
        index: {**step, **dict.fromkeys(names, parameter)}
        for index, parameter in enumerate(parameters)
        if isinstance(known, dict) and index in known  # a parameter without a gradient has no state
    }


def _check_form(name: str, value: Any, expected: Any) -> None:
    """Raises ValueError if a nested value has other entries, types or shapes than expected."""
    if isinstance(expected, Tensor):
        if not isinstance(value, Tensor) or value.shape != expected.shape:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"`{name}` is {shape}, expected a tensor of shape {tuple(expected.shape)}")
    elif isinstance(expected, Mapping):
        _check_keys(name, value, expected.keys())
        for key in expected:
            _check_form(f"{name}.{key}", value[key], expected[key])
    elif isinstance(expected, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(expected):
            raise ValueError(f"`{name}` is {type(value).__name__}, expected a list of {len(expected)} entries")
        for index, pair in enumerate(zip(value, expected, strict=True)):
            _check_form(f"{name}.{index}", *pair)
    elif type(value) is not type(expected) and not (type(value) is int and type(expected) is float):
        raise ValueError(f"`{name}` is {type(value).__name__}, expected {type(expected).__name__}")


def _check_keys(name: str, value: Any, expected: Set[Any]) -> None:
    """Raises ValueError if `value` is no mapping with exactly these keys."""
    if not isinstance(value, Mapping):
        raise ValueError(f"`{name}` is {type(value).__name__}, expected a mapping")
    missing, unknown = sorted(map(str, expected - value.keys())), sorted(map(str, value.keys() - expected))
    if missing or unknown:
        problems = [f"lacks {first_few(missing)}"] * bool(missing) + [f"has {first_few(unknown)}"] * bool(unknown)
        raise ValueError(f"`{name}` {' and '.join(problems)}")
