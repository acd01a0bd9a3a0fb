"""The training loop: `fit(method, data, config)` trains a student and returns its `Run`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn

from mlkd.data.dataset import DataError, MultiLabelData
from mlkd.data.image_cache import decoded_images
from mlkd.data.validate import validate
from mlkd.errors import TrainingError, first_few
from mlkd.methods import Batch, Method, create_method
from mlkd.models import MultiLabelModel, create_model, load_model, save_model
from mlkd.progress import Progress
from mlkd.training.config import Config
from mlkd.training.distributed import (
    StudentWithAuxiliary,
    all_gather,
    all_gather_output,
    broadcast_buffers,
    create_accelerator,
    even_rank_slice,
    set_seed,
    translate_errors,
)
from mlkd.training.evaluate import check_labels, mean_average_precision, predict_split
from mlkd.training.gradients import GradientMonitor
from mlkd.training.identity import find_run
from mlkd.training.loader import AugmentedBatch, BatchDataset
from mlkd.training.memory import peak_memory_gb, reset_peak_memory
from mlkd.training.optimizers import create_optimizer, create_scheduler
from mlkd.training.precision import choose_compute_format
from mlkd.training.run_files import Predictions
from mlkd.training.runs import Run
from mlkd.training.state import TrainState
from mlkd.training.teachers import prepare_teachers

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)


def fit(
    method: str | Method,
    data: Mapping[str, MultiLabelData],
    config: Config,
    *,
    runs: str | Path = "runs",
    study: str = "",
    num_workers: int | None = None,
    log_gradients_every: int = 0,
) -> Run:
    """Trains a model and evaluates the weights of one epoch on every split but the training images.

    With `config.select="best"` that is the epoch with the highest mAP on `val`, the first of several; with "last" it is
    the last one, and a split `val` is not required. No other split has an influence.

    The same method, data and config give the same run. A complete run is returned as it is. An interrupted run resumes
    after its last finished epoch with the same result as without the interruption (bit for bit on the CPU), because
    the random numbers of a step depend on the seed and the step only. If another process trains the run, `fit` waits
    for it.

    Under torchrun each process takes a slice of every batch, and the losses are those of the whole batch; see
    `mlkd.training.distributed`.

    Args:
        method: a `Method`, or the name of one that requires no teacher.
        data: "train", "val" and "test", and any other splits, as `mlkd.load_data` returns them; without "val" if
            `select="last"` (`mlkd.data.splits.train_on_trainval`).
        config: network, schedule, augmentation and seed.
        runs: the folder of all runs.
        study: the study that the run belongs to, as YAML, kept in `study.yml`; for information.
        num_workers: processes that prepare the batches in advance; 0 for none, None for an automatic choice by device
            and augmentation. The batches do not depend on it.
        log_gradients_every: record the gradients of the loss terms every n steps (`Run.gradients`); 0 for never. The
            weights do not depend on it; each record takes two more backward passes per term. It requires one process
            and `compile=False`.

    Raises:
        DataError: the data is invalid; raised before the first step.
        ValueError: a teacher of the method is missing or does not fit, or the method and the configuration do not.
        TrainingError: a loss term is not finite, or a process of the training was killed.
        WriteError: the disk is full or read-only, or the like.
    """
    if log_gradients_every < 0:
        raise ValueError(f"`log_gradients_every` is {log_gradients_every}, expected a number of steps, or 0 for never.")
    method = create_method(method) if isinstance(method, str) else method
    _check_arguments(method, data, config)
    run = find_run(method, data, config, runs=runs)
    accelerator = create_accelerator()
    single_process = accelerator.num_processes == 1
    if log_gradients_every and (config.compile or not single_process):
        raise ValueError(
            f"`log_gradients_every` is {log_gradients_every}, but gradients are recorded with one process and "
            f"compile=False only."
        )
    trainer = Trainer(
        run, method, data, config, accelerator, num_workers=num_workers, log_gradients_every=log_gradients_every
    )
    # Several processes do not wait for the lock: the others would exceed the time limit of their barrier.
    with run.locked(wait=single_process) if accelerator.is_main_process and not run.complete else nullcontext():
        accelerator.wait_for_everyone()
        if run.complete:
            if accelerator.is_main_process:
                missing = log_gradients_every and run.gradients.empty
                note = " Its gradients were not recorded." if missing else ""
                logger.info("%s: found complete in %s, not trained again.%s", trainer.title, run.path, note)
            return run
        with torch.random.fork_rng(), translate_errors(accelerator):
            if study and accelerator.is_main_process:
                run.write_text("study.yml", study)
            trainer.train()
    accelerator.wait_for_everyone()
    return run


class Trainer:
    """The training of one student.

    `train` calls `setup` and `resume`, then `train_step` for each step and `end_epoch` for each epoch, and `finish`.

    Args:
        run: where the training is stored.
        method, data, config, num_workers, log_gradients_every: as for `fit`.
        accelerator: device and process group.

    Attributes:
        state: the networks, optimizer and progress of the training.
        model: the student.
        student: the same as one module with the method's auxiliary, wrapped for several processes.
        evaluated_model: what is validated, saved and tested: the student, or the moving average of its weights.
    """

    state: TrainState
    batches: Iterator[AugmentedBatch]
    progress: Progress

    def __init__(
        self,
        run: Run,
        method: Method,
        data: Mapping[str, MultiLabelData],
        config: Config,
        accelerator: Accelerator,
        *,
        num_workers: int | None = None,
        log_gradients_every: int = 0,
    ):
        self.run, self.method, self.data, self.config, self.accelerator = run, method, data, config, accelerator
        self.num_workers, self.log_gradients_every = num_workers, log_gradients_every
        role = f"label subset ({first_few(data['train'].classes, 3)})" if config.role == "label_subset" else config.role
        self.title = f"{method.name} {role}, seed {config.seed}"
        self.memory_gb = 0.0

    def train(self) -> None:
        """Trains the remaining epochs and evaluates the selected one."""
        self.setup()
        self.resume()
        config, steps, batch_size = self.config, self.dataset.steps, self.dataset.batch_size
        silent = not self.accelerator.is_main_process
        with Progress(self.title, config.epochs, steps, batch_size, self.state.epoch, silent) as self.progress:
            while self.state.epoch < config.epochs:
                started, sums = time.monotonic(), dict[str, float]()
                self.model.train()
                for step in range(steps):
                    terms = self.train_step(self.state.epoch * steps + step)
                    sums = {name: sums.get(name, 0.0) + value for name, value in terms.items()}
                    self.progress.step(self.state.epoch, {name: value / (step + 1) for name, value in sums.items()})
                seconds = time.monotonic() - started
                self.memory_gb = self.memory_gb or peak_memory_gb(self.accelerator.device)  # without that of `predict`
                self.end_epoch({name: value / steps for name, value in sums.items()}, seconds)
        self.finish()

    def setup(self) -> None:
        """Creates student, optimizer, schedule and batches, and prepares the images and the teachers."""
        reset_peak_memory(self.accelerator.device)
        config, accelerator, train_split = self.config, self.accelerator, self.data["train"]
        set_seed(config.seed, 0)
        self.model = load_model(config.init_from) if config.init_from else _create_student(config, train_split.classes)
        check_labels(self.model, train_split)
        self.method.check(self.model)
        self.compute_format = choose_compute_format(accelerator, self.run, self.model, config)
        self.model.to(accelerator.device).to(memory_format=self.compute_format.layout)
        ema = ModelEmaV3(self.model, config.ema_decay) if config.ema_decay else None
        self.evaluated_model: MultiLabelModel = ema.module if ema else self.model
        if config.compile:
            self.model.compile()
        self.auxiliary = self.method.build_auxiliary(self.model, len(train_split))
        auxiliary = nn.Identity() if self.auxiliary is None else self.auxiliary
        networks = StudentWithAuxiliary(self.model, auxiliary, config.grad_accum_steps)
        self.dataset = BatchDataset(
            train_split,
            config,
            overlap=self.method.needs_overlapping_batches,
            second_view=self.method.needs_two_views,
            rank_slice=even_rank_slice(accelerator, min(config.batch_size, len(train_split))),
        )
        optimizer = create_optimizer(self.model, networks.auxiliary, config)
        scheduler = create_scheduler(optimizer, config, self.dataset.steps)
        scaler = self.compute_format.grad_scaler(accelerator.device)
        self.state = TrainState(networks, ema, optimizer, scheduler, scaler)
        self.student = accelerator.prepare(networks)
        self.gradient_monitor = GradientMonitor(self.model, n) if (n := self.log_gradients_every) else None
        for name, split in self.data.items():
            if name != "trainval":
                decoded_images(split, self.model.image_size)  # an unreadable image is an error before the first step
        self.teachers = prepare_teachers(accelerator, self.method, train_split, config, self.compute_format)

    def resume(self) -> None:
        """Loads the checkpoint, if there is one, and starts with the batches after its last epoch."""
        self.state.load(self.run)
        first_step = self.state.epoch * self.dataset.steps
        self.batches = self.dataset.make_loader(first_step, self.num_workers, self.accelerator.device)

    def train_step(self, step: int) -> dict[str, float]:
        """One optimizer step on the next batch; returns the loss terms. `step` is counted over all epochs."""
        state = self.state
        set_seed(self.config.seed, 1 + step, self.accelerator.process_index)
        augmented = next(self.batches)
        with self.compute_format.autocast(self.accelerator.device):
            batch = self.make_batch(augmented, epoch_fraction=step // self.dataset.steps / self.config.epochs)
            student_output = all_gather_output(self.accelerator, self.student(batch.images))
            loss_terms = self.method.reduced_loss_terms(student_output, batch)
        losses = torch.stack([term.float() for term in loss_terms.values()])
        values = dict(zip(loss_terms, losses.tolist(), strict=True))
        self.check_finite(values, augmented, step)
        if self.gradient_monitor:
            self.gradient_monitor.record(loss_terms, step)

        loss = losses.sum()
        state.optimizer.zero_grad()
        state.scaler.scale(loss).backward()
        if self.config.max_grad_norm:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.networks.parameters(), self.config.max_grad_norm)
        scale = state.scaler.get_scale()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.scaler.get_scale() >= scale:  # otherwise a gradient overflowed in fp16 and the step was skipped
            state.scheduler.step()
        if state.ema:
            state.ema.update(self.model)
        return values

    def make_batch(self, augmented: AugmentedBatch, epoch_fraction: float) -> Batch:
        """The step's data on the device, with the teachers' outputs."""
        device, layout, split = self.accelerator.device, self.compute_format.layout, self.data["train"]
        indices = augmented.sample_indices.numpy()
        images, second_view = (
            views.to(device, non_blocking=True, memory_format=layout)
            for views in (augmented.images, augmented.second_view)
        )
        ignore_mask = None if split.ignore_mask is None else torch.from_numpy(split.ignore_mask[indices]).to(device)
        return Batch(
            images=images,
            targets=torch.from_numpy(split.targets[indices]).float().to(device),
            ignore_mask=ignore_mask,
            teachers={
                role: all_gather_output(self.accelerator, teacher(augmented, images))
                for role, teacher in self.teachers.items()
            },
            model=self.model,
            auxiliary=self.auxiliary,
            second_view=second_view,
            sample_indices=augmented.sample_indices.to(device),
            epoch_fraction=epoch_fraction,
            all_gather=partial(all_gather, self.accelerator),
        )

    def check_finite(self, losses: Mapping[str, float], augmented: AugmentedBatch, step: int) -> None:
        """Raises TrainingError when a loss term is not finite, and writes the ids of the batch's images to the run."""
        if np.isfinite(list(losses.values())).all():
            return
        epoch, epoch_step = divmod(step, self.dataset.steps)
        if self.accelerator.is_main_process:
            ids = [self.data["train"].ids[index] for index in augmented.sample_indices.tolist()]
            terms = {name: str(value) for name, value in losses.items()}
            self.run.write_json(
                "not_finite.json", {"epoch": epoch + 1, "step": epoch_step + 1, "terms": terms, "ids": ids}
            )
        name, value = next((name, value) for name, value in losses.items() if not np.isfinite(value))
        raise TrainingError(
            f"The loss term {name!r} is {value} at epoch {epoch + 1}, step {epoch_step + 1}: lower `lr` or the term's "
            f"weight, or use precision='float32'. {self.run.path / 'not_finite.json'} names the images of the batch; "
            f"the last finished epoch is kept."
        )

    def end_epoch(self, losses: Mapping[str, float], seconds: float) -> None:
        """Evaluates the student on `val`, and writes weights (if they are selected), history and checkpoint."""
        state, main, select = self.state, self.accelerator.is_main_process, self.config.select
        for model in dict.fromkeys((self.model, self.evaluated_model)):
            broadcast_buffers(self.accelerator, model)
        state.epoch += 1
        scores = {}
        if "val" in self.data:
            scores["val_mAP"] = mean_average_precision(self.predict("val", self.evaluated_model))
        selected = scores["val_mAP"] > state.best_score if select == "best" else state.epoch == self.config.epochs
        state.history.append(
            {
                "epoch": state.epoch,
                "lr": float(state.scheduler.get_last_lr()[0]),
                **losses,
                **scores,
                "selected": int(selected),
                "seconds": seconds,
                "images_per_second": self.dataset.steps * self.dataset.batch_size / seconds,
            }
        )
        if selected:
            state.best_score, state.selected_epoch = scores.get("val_mAP", 0.0), state.epoch
            if main:
                notes = {name: f"{score:.6f}" for name, score in scores.items()}
                self.save_weights(epoch=str(state.epoch), select=select, **notes)
        if main:
            self.run.write_history(state.history)
            if self.gradient_monitor:
                self.run.write_gradients(state.epoch, self.gradient_monitor.collect())
            state.save(self.run)
        self.progress.epoch(state.epoch - 1, state.history[-1])

    def finish(self) -> None:
        """Evaluates the selected weights on every split but the training images, and completes the run."""
        if not self.config.epochs and self.accelerator.is_main_process:
            self.save_weights(epoch="0")
        metrics: dict[str, Any] = {
            "select": self.config.select,
            "selected_epoch": self.state.selected_epoch,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "seconds": sum(row["seconds"] for row in self.state.history),
            "memory_gb": round(self.memory_gb, 3),
        }
        self.accelerator.wait_for_everyone()
        model = load_model(self.run.path / "model.safetensors").to(self.accelerator.device)
        for name in self.data:
            if name not in ("train", "trainval"):
                predictions = self.predict(name, model)
                if self.accelerator.is_main_process:
                    self.run.write_predictions(name, predictions)
                metrics[name] = {"mAP": mean_average_precision(predictions)}
        if self.accelerator.is_main_process:
            self.run.finish(metrics)

    def predict(self, split: str, model: MultiLabelModel) -> Predictions:
        """A model's predictions for a split.

        Raises:
            TrainingError: a logit is not finite.
        """
        data, batch_size = self.data[split], self.config.eval_batch_size
        predictions = predict_split(self.accelerator, model, data, self.compute_format, batch_size)
        if not np.isfinite(predictions.logits).all():
            raise TrainingError(
                f"The model's logits on `{split}` are not finite after epoch {self.state.epoch}: lower `lr`, or use "
                f"precision='float32'."
            )
        return predictions

    def save_weights(self, **notes: str) -> None:
        """Writes the evaluated model as the model of the run."""
        save_model(self.evaluated_model, self.run.path / "model.safetensors", **notes)


def _check_arguments(method: Method, data: Mapping[str, MultiLabelData], config: Config) -> None:
    """Raises the errors that `fit` promises for splits and settings which do not go together."""
    for name in ("train", "val", "test"):
        if name not in data and (name != "val" or (config.select == "best" and config.epochs)):
            reason = ', which select="best" chooses the epoch on' if name == "val" else ""
            raise DataError(f"The split {name!r} is missing{reason}; found {', '.join(data)}.")
    validate(data)
    if config.grad_accum_steps > 1 and method.needs_whole_batch:
        raise ValueError(
            f"`grad_accum_steps` is {config.grad_accum_steps}, expected 1: the method {method.name!r} needs all images "
            f"of a batch in one forward pass of the student."
        )


def _create_student(config: Config, classes: tuple[str, ...]) -> MultiLabelModel:
    return create_model(
        config.backbone,
        classes,
        config.head,
        pretrained=config.pretrained,
        image_size=config.image_size,
        embed_dim=config.embed_dim,
        head_settings=config.head_settings,
        **config.backbone_settings,
    )
