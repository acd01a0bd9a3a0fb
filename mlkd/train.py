"""The loop: `fit(method, data, config)` trains a student and returns its `Run`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlkd.answers import Answers
from mlkd.config import Config
from mlkd.data.augment import augment, mirrored_at_random
from mlkd.data.check import require
from mlkd.data.dataset import DataError, MultiLabelData
from mlkd.data.pixels import Pixels, decoded
from mlkd.methods import Batch, Method, create
from mlkd.metrics import average_precision
from mlkd.models import MultiLabelModel, Output, create_model, fingerprint, load_model, save_model
from mlkd.progress import Progress
from mlkd.runs import Predictions, Run, open_run


class TrainingError(RuntimeError):
    """A training that cannot go on; the message says why and what to do."""


def fit(
    method: str | Method,
    data: Mapping[str, MultiLabelData],
    config: Config,
    *,
    runs: str | Path = "runs",
) -> Run:
    """Trains one model, keeps the epoch that is best on `val`, and scores every other split once with it.

    The same method, data and config are the same run: a complete one is returned as it is, an interrupted one
    goes on after its last finished epoch, with the same result as if it had never stopped (bit for bit on the
    CPU), because what is random at a step depends on the seed and the step alone.

    Args:
        method: a `Method`, or the name of one that needs no teacher.
        data: "train", "val" and "test" (and what other splits there are), as `mlkd.load_data` gives them.
        config: network, schedule, augmentation and seed.
        runs: the folder of all runs.

    Raises:
        DataError: something in the data is wrong; found before the first step.
        ValueError: the method lacks its teacher, or the teacher does not fit.
        TrainingError: a loss term is not finite.
    """
    method = create(method) if isinstance(method, str) else method
    for name in ("train", "val", "test"):
        if name not in data:
            raise DataError(f"The split {name!r} is missing; found {', '.join(data)}.")
    require(data)
    run = open_run(runs, _description(method, data, config))
    title = f"{method.name} {config.role}, seed {config.seed}"
    if run.complete:
        print(f"{title}: found complete in {run.path}, not trained again.")
        return run
    with torch.random.fork_rng():
        _train(run, title, method, data, config)
    return run


def _train(run: Run, title: str, method: Method, data: Mapping[str, MultiLabelData], config: Config) -> None:
    engine = _engine(config.precision)
    _set_seed(config.seed, 0)
    model = load_model(config.init) if config.init else _new_model(config, data["train"].classes)
    method.check(model)
    model.to(memory_format=torch.channels_last)
    parts = method.parts(model, len(data["train"])) or nn.Identity()
    optimizer = _optimizer(model, parts, config)
    steps = len(list(_batches(len(data["train"]), config, 0, method.needs_overlap)))
    scheduler = _scheduler(optimizer, config, config.epochs * steps)
    student, parts, optimizer = engine.prepare(model, parts, optimizer)

    state = run.load_checkpoint() or {"epoch": 0, "best": -1.0, "best_epoch": 0, "history": []}
    if state["epoch"]:
        model.load_state_dict(state["model"])
        parts.load_state_dict(state["parts"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
    best, best_epoch, history = state["best"], state["best_epoch"], state["history"]

    pixels = {name: decoded(split, config.image_size) for name, split in data.items() if name != "trainval"}
    teachers = _teachers(engine, method, pixels["train"], config)
    with Progress(title, config.epochs, steps, config.batch_size, state["epoch"]) as progress:
        for epoch in range(state["epoch"], config.epochs):
            started, sums = time.monotonic(), dict[str, float]()
            model.train()
            for step, rows in enumerate(_batches(len(data["train"]), config, epoch, method.needs_overlap)):
                _set_seed(config.seed, 1 + epoch * steps + step)
                batch, mirrored = _batch(data["train"], pixels["train"], rows, method, config, engine.device)
                with engine.autocast():
                    batch = batch._replace(
                        teachers={name: ask(batch.images, rows, mirrored) for name, ask in teachers.items()},
                        model=student,
                        parts=parts,
                        progress=epoch / config.epochs,
                    )
                    terms = method.terms(_float32(student(batch.images)), batch)
                _raise_if_not_finite(terms, epoch, step)
                optimizer.zero_grad()
                engine.backward(torch.stack(list(terms.values())).sum())
                if config.clip_norm:
                    engine.clip_grad_norm_([*student.parameters(), *parts.parameters()], config.clip_norm)
                optimizer.step()
                if not engine.optimizer_step_was_skipped:
                    scheduler.step()
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + value.item()
                progress.step(epoch, {name: value / (step + 1) for name, value in sums.items()})

            seconds = time.monotonic() - started
            found = _predict(engine, student, data["val"], pixels["val"])
            if not np.isfinite(found.logits).all():
                raise TrainingError(
                    f"The model's logits on `val` are not finite after epoch {epoch + 1}: lower `lr`, or use "
                    f"precision='float32'. The epoch before is kept."
                )
            score = _mean_ap(found)
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
                save_model(model, run.path / "model.safetensors", epoch=str(epoch + 1), val_mAP=f"{score:.6f}")
            run.write_history(history)
            run.save_checkpoint(
                {
                    "epoch": epoch + 1,
                    "best": best,
                    "best_epoch": best_epoch,
                    "history": history,
                    "model": model.state_dict(),
                    "parts": parts.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                }
            )
            progress.epoch(epoch, row)

    if not config.epochs:
        save_model(model, run.path / "model.safetensors", epoch="0")
    student = engine.prepare(load_model(run.path / "model.safetensors"))
    metrics: dict[str, Any] = {"best_epoch": best_epoch}
    for name, split in data.items():
        if name not in ("train", "trainval"):
            predictions = _predict(engine, student, split, pixels[name])
            run.write_predictions(name, predictions)
            metrics[name] = {"mAP": _mean_ap(predictions)}
    metrics["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    metrics["seconds"] = sum(row["seconds"] for row in history)
    run.finish(metrics)


def predict(model: MultiLabelModel, data: MultiLabelData) -> Predictions:
    """A model's logits for every picture of a split, in its order."""
    engine = _engine("float32")
    return _predict(engine, engine.prepare(model), data, decoded(data, model.image_size))


@torch.no_grad()
def _predict(engine, student, data: MultiLabelData, pixels: Pixels) -> Predictions:
    student.eval()
    logits: list[np.ndarray] = []
    for start in range(0, len(data), 256):
        images = _to_tensor(pixels[start : start + 256]).to(engine.device)
        with engine.autocast():
            output = student(images)
        logits.append(output.logits.float().cpu().numpy())
    return Predictions(np.array(data.ids), data.targets, np.concatenate(logits), data.classes, data.ignored)


def _teachers(
    engine, method: Method, pixels: Pixels, config: Config
) -> dict[str, Callable[[Tensor, np.ndarray, Tensor], Output]]:
    """What says what each teacher says: of these pictures, which are these rows', mirrored or not."""

    def asking(teacher: nn.Module) -> Callable[..., Output]:
        teacher = teacher.to(engine.device).eval()

        @torch.no_grad()
        def ask(images: Tensor, *_) -> Output:
            with engine.autocast():
                return _float32(teacher(images.to(engine.device)))

        return ask

    if config.keep_answers and not method.needs_features:
        return {
            name: Answers(asking(teacher), teacher, pixels, config.precision, method.needs_embeddings)
            for name, teacher in method.teachers.items()
        }
    return {name: asking(teacher) for name, teacher in method.teachers.items()}


def _float32(output: Output) -> Output:
    embeddings = None if output.embeddings is None else output.embeddings.float()
    return Output(output.logits.float(), embeddings, output.features.float())


def _engine(precision: str):
    """Device, autocast and gradient scaling, from accelerate; one process may train with several precisions."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    return Accelerator(mixed_precision={"float32": "no"}.get(precision, precision))


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


def _optimizer(model: MultiLabelModel, parts: nn.Module, config: Config) -> torch.optim.Optimizer:
    groups = [
        {"params": [*model.head.parameters(), *parts.parameters()], "lr": config.lr},
        {"params": list(model.backbone.parameters()), "lr": config.lr * config.backbone_lr},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, config.lr, weight_decay=config.weight_decay)


def _scheduler(optimizer, config: Config, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    steps = max(steps, 1)
    if config.schedule == "one_cycle":
        highest = [group["lr"] for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, steps + 1)
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


def _set_seed(seed: int, step: int) -> None:
    """Everything random until the next call follows from (seed, step)."""
    digest = hashlib.sha256(f"{seed} {step}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little"))


def _batches(n: int, config: Config, epoch: int, overlap: bool = False) -> Iterator[np.ndarray]:
    """The rows of each step of an epoch: all pictures in an order that follows from seed and epoch.

    With `overlap` each batch begins with the second half of the one before, so a picture comes twice an epoch.
    """
    order = np.random.default_rng([config.seed, epoch]).permutation(n)
    stride = max(config.batch_size // 2, 1) if overlap else config.batch_size
    for start in range(0, max(n - config.batch_size, 0) + 1, stride):
        yield np.sort(order[start : start + config.batch_size])  # in file order: one sweep of the memory map


def _batch(
    data: MultiLabelData, pixels: Pixels, rows: np.ndarray, method: Method, config: Config, device
) -> tuple[Batch, Tensor]:
    """One step's pictures and labels, and which pictures are mirrored (told only where answers are kept for that)."""
    images, mirrored = _to_tensor(pixels[rows]).to(device), torch.zeros(len(rows), dtype=torch.bool)
    twins = augment(images, config.augment) if method.needs_twins else None
    if config.keep_answers and config.augment:
        images, mirrored = mirrored_at_random(images)
    else:
        images = augment(images, config.augment)
    ignored = None if data.ignored is None else torch.from_numpy(data.ignored[rows]).to(device)
    targets = torch.from_numpy(data.targets[rows]).float().to(device)
    batch = Batch(images, targets, ignored, twins=twins, rows=torch.from_numpy(rows).to(device))
    return batch, mirrored


def _to_tensor(pixels: np.ndarray) -> Tensor:
    """Pixels (b, H, W, 3) to a tensor (b, 3, H, W), uint8."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)


def _mean_ap(found: Predictions) -> float:
    return float(np.nanmean(average_precision(found.targets, found.logits, found.ignored)))


def _raise_if_not_finite(terms: Mapping[str, Tensor], epoch: int, step: int) -> None:
    for name, value in terms.items():
        if not torch.isfinite(value):
            raise TrainingError(
                f"The loss term {name!r} is {value.item()} at epoch {epoch + 1}, step {step + 1}: lower `lr` or the "
                f"term's weight, or use precision='float32'. The last finished epoch is kept."
            )


def _description(method: Method, data: Mapping[str, MultiLabelData], config: Config) -> dict[str, Any]:
    """All that makes a run, as plain values."""
    splits = {}
    for name, split in data.items():
        digest = hashlib.sha256(json.dumps([split.classes, split.ids]).encode())
        digest.update(split.targets.tobytes())
        if split.ignored is not None:
            digest.update(b"ignored" + split.ignored.tobytes())
        for boxes in split.boxes or ():
            digest.update(boxes.tobytes())
        splits[name] = digest.hexdigest()[:16]
    name = next(iter(data.values())).name
    return {
        "method": method.name,
        "settings": method.settings(),
        "data": {"name": name, "splits": splits},
        "training": config.as_dict(),
        **({"init": fingerprint(load_model(config.init))} if config.init else {}),
    }
