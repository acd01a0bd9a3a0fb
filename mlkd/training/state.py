"""The state of a training, which is its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
from timm.utils import ModelEmaV3

from mlkd.errors import RunError
from mlkd.training.distributed import StudentWithAuxiliary
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
            RunError: the checkpoint has other entries, as those of another version of mlkd.
        """
        if (checkpoint := run.load_checkpoint()) is None:
            return
        weights, state = checkpoint
        expected = {entry.name for entry in fields(self)} - {"networks"}
        if state.keys() != expected:
            raise RunError(
                f"{run.checkpoints[-1]}: the checkpoint has the entries {', '.join(sorted(state))}, expected "
                f"{', '.join(sorted(expected))}; remove {run.path} to restart the training."
            )
        self.networks.load_state_dict(weights)
        for name, value in state.items():
            if name in STATEFUL and value is not None:
                getattr(self, name).load_state_dict(value)
            else:
                setattr(self, name, value)
