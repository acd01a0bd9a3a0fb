"""The loop: `fit(method, data, config)` trains a student and returns its `Run`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mlkd.data.dataset import DataError, MultiLabelData
from mlkd.data.image_cache import decoded_images
from mlkd.data.validate import validate
from mlkd.errors import TrainingError, first_few
from mlkd.methods import Batch, Method, create_method
from mlkd.metrics import average_precision
from mlkd.models import MultiLabelModel, create_model, fingerprint, load_model, save_model
from mlkd.progress import Progress
from mlkd.training import distributed
from mlkd.training.config import Config
from mlkd.training.evaluate import answer
from mlkd.training.evaluate import batches as pictures
from mlkd.training.gradients import GradientMonitor
from mlkd.training.loader import AugmentedBatch, BatchDataset
from mlkd.training.optimizers import create_optimizer, create_scheduler
from mlkd.training.precision import ComputeFormat, autotune_precision
from mlkd.training.runs import Predictions, Run, open_run
from mlkd.training.teachers import Ask, asked

if TYPE_CHECKING:
    from accelerate import Accelerator


def fit(
    method: str | Method,
    data: Mapping[str, MultiLabelData],
    config: Config,
    *,
    runs: str | Path = "runs",
    num_workers: int | None = None,
    keep: int = 1,
    log_gradients_every: int = 0,
) -> Run:
    """Trains one model, keeps the epoch that is best on `val`, and scores every other split once with it.

    The same method, data and config are the same run: a complete one is returned as it is, an interrupted one
    goes on after its last finished epoch, with the same result as if it had never stopped (bit for bit on the
    CPU), because what is random at a step depends on the seed and the step alone. A run that another process is
    training is waited for.

    Under torchrun each process takes a share of every batch and the losses are those of the whole batch; see
    `mlkd.training.distributed`.

    Args:
        method: a `Method`, or the name of one that needs no teacher.
        data: "train", "val" and "test" (and what other splits there are), as `mlkd.load_data` gives them.
        config: network, schedule, augmentation and seed.
        runs: the folder of all runs.
        workers: processes that make the batches ahead; 0 for none. None for what suits the device and the
            augmentation. The batches are the same.
        keep: how many checkpoints stay while it trains.
        log_gradients_every: steps from one look at the loss terms' gradients to the next (`Run.gradients`);
            0 for none. The weights are the same; a look takes two more backward passes per term. Not for several
            processes, and not for `compile`.

    Raises:
        DataError: something in the data is wrong; found before the first step.
        ValueError: the method lacks its teacher, or the teacher does not fit.
        TrainingError: a loss term is not finite, or a process of the training was killed.
        WriteError: the disk is full or read-only, or the like.
    """
    if keep < 1:
        raise ValueError(f"`keep` is {keep}, expected at least 1 checkpoint.")
    if log_gradients_every < 0:
        raise ValueError(f"`log_gradients_every` is {log_gradients_every}, expected a number of steps, or 0 for none.")
    method = create_method(method) if isinstance(method, str) else method
    for name in ("train", "val", "test"):
        if name not in data:
            raise DataError(f"The split {name!r} is missing; found {', '.join(data)}.")
    validate(data)
    run = find_run(method, data, config, runs=runs)
    title = f"{method.name} {config.role}, seed {config.seed}"
    accelerator = distributed.create_accelerator()
    if log_gradients_every and (config.compile or accelerator.num_processes > 1):
        raise ValueError(
            f"`log_gradients_every` is {log_gradients_every}, but gradients are looked at in one process and without `compile`."
        )
    alone = accelerator.num_processes == 1  # several would wait for each other longer than they are allowed to
    with run.locked(wait=alone) if accelerator.is_main_process and not run.complete else nullcontext():
        accelerator.wait_for_everyone()
        if run.complete:
            unseen = " Its gradients were not recorded." if log_gradients_every and run.gradients.empty else ""
            accelerator.print(f"{title}: found complete in {run.path}, not trained again.{unseen}")
            return run
        with torch.random.fork_rng(), _told(accelerator):
            _train(run, title, method, data, config, num_workers, keep, log_gradients_every)
    accelerator.wait_for_everyone()
    return run


def find_run(method: Method, data: Mapping[str, MultiLabelData], config: Config, *, runs: str | Path = "runs") -> Run:
    """The run that `fit` would return: complete, interrupted, or not begun and empty."""
    return open_run(runs, _description(method, data, config))


def _train(
    run: Run,
    title: str,
    method: Method,
    data: Mapping[str, MultiLabelData],
    config: Config,
    num_workers: int | None,
    keep: int,
    log_gradients_every: int,
) -> None:
    distributed.set_seed(config.seed, 0)
    model = load_model(config.init_from) if config.init_from else _new_model(config, data["train"].classes)
    _check_labels(model, data["train"])
    method.check(model)
    speed = _speed(run, model, config)
    accelerator = distributed.create_accelerator(speed.precision)
    model.to(accelerator.device).to(memory_format=speed.layout)
    if config.compile:
        model.compile()
    parts = method.build_auxiliary(model, len(data["train"])) or nn.Identity()
    optimizer = create_optimizer(model, parts, config)
    share = distributed.even_rank_slice(accelerator, min(config.batch_size, len(data["train"])))
    batches = BatchDataset(data["train"], config, method.needs_overlapping_batches, method.needs_two_views, share)
    scheduler = create_scheduler(optimizer, config, len(batches))
    trained = distributed.Trained(model, parts)
    student, optimizer = accelerator.prepare(trained, optimizer)
    microscope = GradientMonitor(model, log_gradients_every) if log_gradients_every else None

    state: dict[str, Any] = {"epoch": 0, "best": -1.0, "best_epoch": 0, "history": []}
    if found := run.load_checkpoint():
        weights, state = found
        trained.load_state_dict(weights)
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        if accelerator.scaler:
            accelerator.scaler.load_state_dict(state["scaler"])
    best, best_epoch, history = state["best"], state["best_epoch"], state["history"]

    for name, split in data.items():
        if name != "trainval":
            decoded_images(
                split, model.image_size
            )  # all of them now: a picture that is broken is told before the first step
    teachers = asked(accelerator, method, data["train"], config, speed)
    steps, first = batches.steps, state["epoch"]
    drawn = batches.loaded(first * steps, num_workers, accelerator.device)
    with Progress(title, config.epochs, steps, config.batch_size, first, not accelerator.is_main_process) as progress:
        for epoch in range(first, config.epochs):
            started, sums = time.monotonic(), dict[str, float]()
            model.train()
            for step in range(steps):
                distributed.set_seed(config.seed, 1 + epoch * steps + step, accelerator.process_index)
                now = next(drawn)
                with accelerator.autocast():
                    batch = _batch(accelerator, data["train"], now, teachers, speed.layout)
                    batch = batch._replace(model=model, parts=parts, progress=epoch / config.epochs)
                    terms = method.loss_terms(distributed.all_gather_output(accelerator, student(batch.images)), batch)
                losses = torch.stack([value.float() for value in terms.values()])
                told = dict(zip(terms, losses.tolist(), strict=True))
                if not np.isfinite(list(told.values())).all():
                    ids = [data["train"].ids[row] for row in now.rows.tolist()]
                    raise _not_finite(run, accelerator, told, epoch, step, ids)
                if microscope:
                    microscope.step(terms, epoch * steps + step)
                optimizer.zero_grad()
                accelerator.backward(losses.sum())
                if config.max_grad_norm:
                    accelerator.clip_grad_norm_(trained.parameters(), config.max_grad_norm)
                optimizer.step()
                if not accelerator.optimizer_step_was_skipped:
                    scheduler.step()
                sums = {name: sums.get(name, 0.0) + value for name, value in told.items()}
                progress.step(epoch, {name: value / (step + 1) for name, value in sums.items()})

            seconds = time.monotonic() - started
            distributed.broadcast_buffers(accelerator, model)
            scored = _predict(accelerator, model, data["val"])
            if not np.isfinite(scored.logits).all():
                raise TrainingError(
                    f"The model's logits on `val` are not finite after epoch {epoch + 1}: lower `lr`, or use "
                    f"precision='float32'. The epoch before is kept."
                )
            score = _mean_ap(scored)
            row: dict[str, float] = {"epoch": epoch + 1, "lr": float(scheduler.get_last_lr()[0])}
            row |= {name: value / steps for name, value in sums.items()}
            row |= {
                "val_mAP": score,
                "seconds": seconds,
                "images_per_second": steps * config.batch_size / seconds,
            }
            history.append(row)
            if score > best:
                best, best_epoch = score, epoch + 1
            if accelerator.is_main_process:
                if best_epoch == epoch + 1:
                    save_model(model, run.path / "model.safetensors", epoch=str(epoch + 1), val_mAP=f"{score:.6f}")
                run.write_history(history)
                if microscope:
                    run.write_gradients(epoch + 1, microscope.take())
                state = {
                    "epoch": epoch + 1,
                    "best": best,
                    "best_epoch": best_epoch,
                    "history": history,
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "scaler": accelerator.scaler.state_dict() if accelerator.scaler else {},
                }
                run.save_checkpoint(epoch + 1, trained.state_dict(), state, keep)
            progress.epoch(epoch, row)

    if not config.epochs and accelerator.is_main_process:
        save_model(model, run.path / "model.safetensors", epoch="0")
    metrics: dict[str, Any] = {
        "best_epoch": best_epoch,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": sum(row["seconds"] for row in history),
    }
    _score(accelerator, run, data, metrics)


def _score(accelerator: Accelerator, run: Run, data: Mapping[str, MultiLabelData], metrics: dict[str, Any]) -> None:
    """Scores every split but the training pictures with the weights that were best on `val`, and completes the run."""
    accelerator.wait_for_everyone()
    model = load_model(run.path / "model.safetensors").to(accelerator.device)
    for name, split in data.items():
        if name not in ("train", "trainval"):
            predictions = _predict(accelerator, model, split)
            if accelerator.is_main_process:
                run.write_predictions(name, predictions)
            metrics[name] = {"mAP": _mean_ap(predictions)}
    if accelerator.is_main_process:
        run.finish(metrics)


def predict(model: MultiLabelModel, data: MultiLabelData) -> Predictions:
    """A model's logits for every picture of a split, in its order.

    Raises:
        ValueError: the model has other labels than the data.
    """
    _check_labels(model, data)
    accelerator = distributed.create_accelerator()
    return _predict(accelerator, model.to(accelerator.device), data)


def _predict(accelerator: Accelerator, model: MultiLabelModel, data: MultiLabelData) -> Predictions:
    """Each process asks about its share of the pictures; every process gets all answers."""
    mine = distributed.rank_slice(accelerator, len(data))
    logits = [np.zeros((0, len(data.classes)), np.float32)]
    for _, images in pictures(model, data, range(mine.start, mine.stop), 256):
        with accelerator.autocast():
            logits.append(answer(model, images).logits.float().cpu().numpy())
    gather_arrays = distributed.gather_arrays(accelerator, np.concatenate(logits))
    return Predictions(np.array(data.ids), data.targets, gather_arrays, data.classes, data.ignore_mask)


def _check_labels(model: MultiLabelModel, data: MultiLabelData) -> None:
    if model.classes != data.classes:
        raise ValueError(
            f"The model knows the labels {first_few(model.classes)}, {data.name} has {first_few(data.classes)}; both "
            f"must have the same names in the same order. Is `init_from` a model of other data?"
        )


def _batch(
    accelerator: Accelerator,
    data: MultiLabelData,
    drawn: AugmentedBatch,
    teachers: Mapping[str, Ask],
    layout: torch.memory_format,
) -> Batch:
    """One step as a method sees it."""
    rows = drawn.rows.numpy()
    images, second_view = (
        x.to(accelerator.device, non_blocking=True, memory_format=layout) for x in (drawn.images, drawn.second_view)
    )
    return Batch(
        images,
        torch.from_numpy(data.targets[rows]).float().to(accelerator.device),
        None if data.ignore_mask is None else torch.from_numpy(data.ignore_mask[rows]).to(accelerator.device),
        {name: distributed.all_gather_output(accelerator, ask(drawn, images)) for name, ask in teachers.items()},
        second_view=second_view,
        rows=drawn.rows.to(accelerator.device),
        all_gather=partial(distributed.all_gather, accelerator),
    )


def _speed(run: Run, model: MultiLabelModel, config: Config) -> ComputeFormat:
    """What to compute in: as the configuration says, or as it was measured when the run began."""
    if config.precision != "auto":
        return ComputeFormat(config.precision)
    accelerator = distributed.create_accelerator()
    if accelerator.is_main_process and not run.speed:
        share = distributed.rank_slice(accelerator, config.batch_size)
        speed = autotune_precision(model, share.stop - share.start, accelerator.device, config.compile)
        run.write_json("speed.json", speed._asdict())
    accelerator.wait_for_everyone()
    return ComputeFormat(**run.speed)


def _new_model(config: Config, classes: tuple[str, ...]) -> MultiLabelModel:
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


def _mean_ap(found: Predictions) -> float:
    return float(np.nanmean(average_precision(found.targets, found.logits, found.ignore_mask)))


def _not_finite(
    run: Run, accelerator: Accelerator, terms: Mapping[str, float], epoch: int, step: int, ids: list[str]
) -> TrainingError:
    """The error for a step whose loss is nan or infinite; the batch's pictures are written to the run."""
    if accelerator.is_main_process:
        shown = {name: str(value) for name, value in terms.items()}
        run.write_json("not_finite.json", {"epoch": epoch + 1, "step": step + 1, "terms": shown, "ids": ids})
    name, value = next((name, value) for name, value in terms.items() if not np.isfinite(value))
    return TrainingError(
        f"The loss term {name!r} is {value} at epoch {epoch + 1}, step {step + 1}: lower `lr` or the term's weight, or "
        f"use precision='float32'. The batch's pictures are named in {run.path / 'not_finite.json'}; the last finished "
        f"epoch is kept."
    )


@contextmanager
def _told(accelerator: Accelerator) -> Iterator[None]:
    """Says in a sentence what happened where a process that helps this one was killed."""
    try:
        yield
    except RuntimeError as error:
        message = str(error)
        if "DataLoader worker" in message:
            raise TrainingError(
                f"A process that makes the batches ended by itself, mostly because the memory was full: use fewer "
                f"`workers` (0 for none) or a smaller `batch_size`. The last finished epoch is kept. ({message})"
            ) from error
        if accelerator.num_processes > 1 and not isinstance(error, TrainingError):
            raise TrainingError(
                f"Process {accelerator.process_index} of {accelerator.num_processes} cannot go on, mostly because another one "
                f"ended; its message is above or below. The last finished epoch is kept, and the same command, or "
                f"torchrun's --max-restarts, goes on from there. ({message.splitlines()[0]})"
            ) from error
        raise


def _description(method: Method, data: Mapping[str, MultiLabelData], config: Config) -> dict[str, Any]:
    """All that makes a run, as plain values."""
    splits = {}
    for name, split in data.items():
        digest = hashlib.sha256(json.dumps([split.classes, split.ids]).encode())
        digest.update(split.targets.tobytes())
        if split.ignore_mask is not None:
            digest.update(b"ignored" + split.ignore_mask.tobytes())
        for boxes in split.boxes or ():
            digest.update(boxes.tobytes())
        splits[name] = digest.hexdigest()[:16]
    name = next(iter(data.values())).name
    return {
        "method": method.name,
        "settings": method.settings(),
        "data": {"name": name, "splits": splits},
        "training": config.as_dict(),
        **({"init_from": fingerprint(load_model(config.init_from))} if config.init_from else {}),
        **({"files": files} if (files := _weight_files(config)) else {}),
    }


def _weight_files(config: Config) -> dict[str, str]:
    """The files that a configuration names by their paths, as hashes of what is in them."""
    named = {"pretrained": config.pretrained, "word_vectors": config.head_settings.get("word_vectors")}
    paths = {name: Path(path) for name, path in named.items() if isinstance(path, str | Path)}
    return {name: _hash(path, path.stat().st_mtime_ns) for name, path in paths.items() if path.is_file()}


@lru_cache
def _hash(path: Path, _changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
