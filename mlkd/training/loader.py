"""The pictures of each step: which, in which order and how augmented follows from the seed and the step alone."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from functools import cached_property, lru_cache
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mlkd.data import MultiLabelData
from mlkd.data.augmentation import DRAWS, augment, is_flipped
from mlkd.data.image_cache import DecodedImages, decoded_images
from mlkd.training.config import Config


class AugmentedBatch(NamedTuple):
    """One step's pictures, of this process's share of the batch.

    Attributes:
        rows: (b,) the whole batch's rows of the training split.
        mine: (s,) the share's places in `rows`.
        images: (s, 3, H, W) uint8, augmented.
        mirrored: (s,) whether `images` are mirrored.
        twins: (s, 3, H, W) a second augmentation of the same pictures, or of none (0, 3, H, W).
    """

    rows: Tensor
    mine: Tensor
    images: Tensor
    mirrored: Tensor
    second_view: Tensor


class BatchDataset(Dataset[AugmentedBatch]):
    """All steps of a training; `batches[step]` counts the steps of all epochs.

    An epoch takes all pictures in an order that follows from seed and epoch, and drops a last, smaller batch. With
    `overlap` each batch has half of its pictures from the one before, so a picture comes twice an epoch. With
    `twins` every picture comes augmented a second time.

    Args:
        share: this process's part of a batch, by places.
    """

    def __init__(
        self, data: MultiLabelData, config: Config, overlap: bool, second_view: bool, share: slice = slice(None)
    ):
        self.data, self.config, self.second_view, self.share = data, config, second_view, share
        size = config.batch_size
        self.starts = range(0, max(len(data) - size, 0) + 1, max(size // 2, 1) if overlap else size)

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return len(self.starts)

    def __len__(self) -> int:
        return self.config.epochs * self.steps

    def rows(self, step: int) -> np.ndarray:
        """The batch's rows, in the file's order: one sweep of the memory map."""
        epoch, place = divmod(step, self.steps)
        order = _order(len(self.data), self.config.seed, epoch)
        return np.sort(order[self.starts[place] : self.starts[place] + self.config.batch_size])

    def __getitem__(self, step: int) -> AugmentedBatch:
        rows = self.rows(step)
        mine = np.arange(len(rows))[self.share]
        images = torch.from_numpy(self.pixels[rows[mine]]).permute(0, 3, 1, 2)
        random = np.random.default_rng([self.config.seed, 1 + step, 1])
        draws, others = (torch.from_numpy(x)[mine] for x in random.random((2, len(rows), DRAWS), np.float32))
        second_view = augment(images, self.config.augmentations, others) if self.second_view else images[:0]
        mirrored = is_flipped(draws) & ("flip" in self.config.augmentations)
        return AugmentedBatch(
            torch.from_numpy(rows),
            torch.from_numpy(mine),
            augment(images, self.config.augmentations, draws),
            mirrored,
            second_view,
        )

    @cached_property
    def pixels(self) -> DecodedImages:
        """The split's pictures, a memory map that each process opens for itself."""
        return decoded_images(self.data, self.config.image_size)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "pixels"}

    def loaded(self, first: int, num_workers: int | None, device: torch.device) -> Iterator[AugmentedBatch]:
        """The steps from `first` on, made ahead by `workers` processes (0: by this one, each when it is asked for)."""
        count = _workers(self.config, device) if num_workers is None else num_workers
        accelerated = device.type != "cpu"
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(first, len(self)),
            num_workers=count,
            worker_init_fn=_leave_the_last_word,
            multiprocessing_context="spawn" if count and accelerated else None,  # what holds a GPU must not be forked
            pin_memory=accelerated,
        )
        return _received(iter(loader))  # begun now: it draws a random number, which must not be one of a step's


def _received(batches: Iterator[AugmentedBatch]) -> Iterator[AugmentedBatch]:
    try:
        yield from batches
    except (ConnectionError, EOFError) as error:
        raise RuntimeError("DataLoader worker ended while it handed a batch over") from error


def _leave_the_last_word(_: int) -> None:
    """Only the process that trains says how a training ended: it ends the others on Ctrl-C, in a sentence."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _told_unless_hung_up


def _told_unless_hung_up(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A batch that is being handed over when the training ends is no failure of its maker."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def _workers(config: Config, device: torch.device) -> int:
    """None where batches are cheap and the cores are busy training; else one for every two cores, four at most."""
    costly = device.type != "cpu" or "randaugment" in config.augmentations
    return min(4, (os.cpu_count() or 1) // 2) if costly else 0
