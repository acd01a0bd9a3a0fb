"""The augmented images of each step. Their order and augmentation depend on the seed and the step only."""

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
    """The images of one step that this process trains on: the s images of its slice of the batch of b.

    Attributes:
        sample_indices: (b,) index in the training split of each image of the whole batch.
        rank_positions: (s,) positions of this process's images in the batch.
        images: (s, 3, H, W) uint8, augmented.
        hflipped: (s,) whether each of `images` is flipped horizontally.
        second_view: (s, 3, H, W) a second augmentation of the same images, or empty (0, 3, H, W).
    """

    sample_indices: Tensor
    rank_positions: Tensor
    images: Tensor
    hflipped: Tensor
    second_view: Tensor


class BatchDataset(Dataset[AugmentedBatch]):
    """The batches of a training; item `step` is the batch of that step, counted over all epochs.

    An epoch takes all images in an order that depends on seed and epoch, and drops a last, smaller batch.

    Args:
        data: the training split.
        config: batch size, image size, augmentations, epochs and seed.
        overlap: whether each batch has half of its images in common with the previous one; an image then occurs twice
            per epoch.
        second_view: whether each image is augmented a second time.
        rank_slice: this process's slice of each batch.

    Attributes:
        batch_size: that of `config`, or the number of images if it is smaller.
    """

    def __init__(
        self,
        data: MultiLabelData,
        config: Config,
        overlap: bool,
        second_view: bool,
        rank_slice: slice = slice(None),
    ):
        self.data, self.config, self.second_view, self.rank_slice = data, config, second_view, rank_slice
        self.batch_size = size = min(config.batch_size, len(data))
        self.starts = range(0, max(len(data) - size, 0) + 1, max(size // 2, 1) if overlap else size)

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return len(self.starts)

    def __len__(self) -> int:
        return self.config.epochs * self.steps

    def sample_indices(self, step: int) -> np.ndarray:
        """Indices of the batch's images in the split, (b,), sorted for sequential reading from the memory map."""
        epoch, position = divmod(step, self.steps)
        order = _order(len(self.data), self.config.seed, epoch)
        return np.sort(order[self.starts[position] : self.starts[position] + self.batch_size])

    def __getitem__(self, step: int) -> AugmentedBatch:
        indices = self.sample_indices(step)
        positions = np.arange(len(indices))[self.rank_slice]
        images = torch.from_numpy(self.pixels[indices[positions]]).permute(0, 3, 1, 2)
        random = np.random.default_rng([self.config.seed, 1 + step, 1]).random((2, len(indices), DRAWS), np.float32)
        draws, second_draws = (torch.from_numpy(values)[positions] for values in random)
        return AugmentedBatch(
            sample_indices=torch.from_numpy(indices),
            rank_positions=torch.from_numpy(positions),
            images=augment(images, self.config.augmentations, draws),
            hflipped=is_flipped(draws) & ("flip" in self.config.augmentations),
            second_view=augment(images, self.config.augmentations, second_draws) if self.second_view else images[:0],
        )

    @cached_property
    def pixels(self) -> DecodedImages:
        """The decoded images of the split, a memory map that each process opens for itself."""
        return decoded_images(self.data, self.config.image_size)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "pixels"}

    def make_loader(self, first_step: int, num_workers: int | None, device: torch.device) -> Iterator[AugmentedBatch]:
        """The batches from `first_step` on.

        Args:
            first_step: counted over all epochs.
            num_workers: processes that prepare the batches in advance; 0 for none, None for an automatic choice.
            device: where the training runs.
        """
        num_workers = _default_workers(self.config, device) if num_workers is None else num_workers
        on_accelerator = device.type != "cpu"
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(first_step, len(self)),
            num_workers=num_workers,
            worker_init_fn=_leave_errors_to_parent,
            multiprocessing_context="spawn" if num_workers and on_accelerator else None,  # a fork cannot use the GPU
            pin_memory=on_accelerator,
        )
        # The iterator is created now: it draws a random number, which must not be one of the first step's.
        return _translate_disconnection(iter(loader))


def _translate_disconnection(batches: Iterator[AugmentedBatch]) -> Iterator[AugmentedBatch]:
    try:
        yield from batches
    except (ConnectionError, EOFError) as error:
        raise RuntimeError("DataLoader worker ended while it transferred a batch") from error


def _leave_errors_to_parent(_: int) -> None:
    """Lets the training process alone react to Ctrl-C and report how the training ended; it ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _print_unless_disconnected


def _print_unless_disconnected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an error, but not that the training ended while a batch was transferred."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the images in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def _default_workers(config: Config, device: torch.device) -> int:
    """One worker per two cores, at most four; none where batches are cheap and the CPU is busy training."""
    expensive = device.type != "cpu" or "randaugment" in config.augmentations
    return min(4, (os.cpu_count() or 1) // 2) if expensive else 0
