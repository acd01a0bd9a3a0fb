"""Trainings that are interrupted at a given point, as by Ctrl-C."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mlkd.progress import Progress


@contextmanager
def interrupt(call: int, owner: object = Progress, function: str = "step") -> Iterator[None]:
    """Within the block, the given call of `owner.function`, counted from 1, raises KeyboardInterrupt.

    By default it is a training step. The block must end with this interruption.
    """
    original, calls = getattr(owner, function), itertools.count(1)

    def stopping(*args, **kwargs):
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, function, stopping)
        with pytest.raises(KeyboardInterrupt):
            yield
