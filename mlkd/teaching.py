"""How the loop asks its teachers: live, or from answers that are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mlkd.answers import KeptTeacher, keep_answers
from mlkd.batches import Drawn
from mlkd.config import Config
from mlkd.data import MultiLabelData
from mlkd.data.pixels import decoded
from mlkd.files import cache_folder
from mlkd.methods import Method
from mlkd.models import Output, fingerprint
from mlkd.precision import Speed

if TYPE_CHECKING:
    from accelerate import Accelerator

Ask = Callable[[Drawn, Tensor], Output]
"""From a step's pictures, as drawn and on the device, to what a teacher says of them."""


def asked(engine: Accelerator, method: Method, data: MultiLabelData, config: Config, speed: Speed) -> dict[str, Ask]:
    """For each teacher of a method, by its role, how to ask it.

    Args:
        data: the split the student is trained on.
        speed: what the training computes in, and so its teachers.

    Raises:
        ValueError: kept answers that do not fit the data or the training.
    """
    found: dict[str, Ask] = {}
    for role, teacher in method.teachers.items():
        if not isinstance(teacher, KeptTeacher) and config.keep_answers and not method.needs_features:
            teacher = _kept(engine, teacher, method, data, config, speed)
        if isinstance(teacher, KeptTeacher):
            _check(teacher, method, data, config)
            found[role] = _remembering(engine, teacher)
        else:
            found[role] = partial(_looking, _live(engine, teacher, speed.layout))
    return found


def _live(engine: Accelerator, teacher: nn.Module, layout: torch.memory_format) -> Callable[[Tensor], Output]:
    """Without gradient, in eval mode, in the training's precision."""
    teacher = teacher.to(engine.device).to(memory_format=layout).eval()

    @torch.no_grad()
    def ask(images: Tensor) -> Output:
        with engine.autocast():
            return teacher(images.to(engine.device))

    return ask


def _looking(ask: Callable[[Tensor], Output], _: Drawn, images: Tensor) -> Output:
    return ask(images)


def _remembering(engine: Accelerator, kept: KeptTeacher) -> Ask:
    def ask(drawn: Drawn, _: Tensor) -> Output:
        logits, embeddings, features = kept.answer(drawn.rows[drawn.mine], drawn.mirrored)
        return Output(logits.to(engine.device), None if embeddings is None else embeddings.to(engine.device), features)

    return ask


def _kept(
    engine: Accelerator, teacher: nn.Module, method: Method, data: MultiLabelData, config: Config, speed: Speed
) -> KeptTeacher:
    """Its answers in the cache folder, asked for now if they are not there yet."""
    pixels, embeddings = decoded(data, config.image_size), method.needs_embeddings
    key = f"{fingerprint(teacher)} {pixels.name} {speed.precision} {engine.device.type} {embeddings}"
    folder = cache_folder() / "answers" / hashlib.sha256(key.encode()).hexdigest()[:24]
    return keep_answers(teacher, data, pixels, folder, ask=_live(engine, teacher, speed.layout), embeddings=embeddings)


def _check(kept: KeptTeacher, method: Method, data: MultiLabelData, config: Config) -> None:
    kept.check(data, config.image_size)
    if method.needs_features:
        raise ValueError(
            f"The method {method.name!r} compares feature maps, which {kept.folder} does not keep; give the teacher "
            f"itself."
        )
    if set(config.augment) - {"flip"}:
        raise ValueError(
            f"`augment` is {list(config.augment)}, but {kept.folder} has the teacher's answers to each picture and its "
            f"mirror image only; use augment=() or ('flip',), or give the teacher itself."
        )
