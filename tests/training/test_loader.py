"""Batches: every image once per epoch, independent of workers, processes and the step they start from."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

import mlkd
from mlkd.data import MultiLabelData
from mlkd.training import loader
from mlkd.training.config import Config
from mlkd.training.loader import AugmentedBatch, BatchDataset

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]

Data = Mapping[str, MultiLabelData]
CPU = torch.device("cpu")
ALL = ("flip", "crop", "cutout", "randaugment")


def same(batch: AugmentedBatch, expected: AugmentedBatch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(batch, expected, strict=True))


@pytest.mark.parametrize(("n", "size"), [(12, 4), (13, 4), (3, 4), (8, 1)])
def test_an_epoch_has_each_image_once(n: int, size: int, toy_data: Data, toy_config: Config) -> None:
    batches = BatchDataset(toy_data["train"].subset(np.arange(n)), toy_config.replace(batch_size=size), False, False)
    assert len(batches) == 3 * batches.steps
    epochs = [
        [batches.sample_indices(step).tolist() for step in range(epoch * batches.steps, (epoch + 1) * batches.steps)]
        for epoch in range(3)
    ]
    for epoch in epochs:
        indices = list(itertools.chain(*epoch))
        assert len(set(indices)) == len(indices) == (n - n % size or n)
        assert all(sorted(batch) == batch for batch in epoch)
    if n > 3:
        assert epochs[0] != epochs[1]


def test_a_batch_has_at_most_all_images(toy_data: Data, toy_config: Config) -> None:
    """The number of images per second counts these."""
    batches = BatchDataset(toy_data["train"], toy_config.replace(batch_size=10**8), False, False)
    assert (batches.steps, batches.batch_size) == (1, 64)


@pytest.mark.parametrize(("n", "size"), [(12, 4), (13, 4), (3, 4), (8, 1)])
def test_overlapping_batches_have_half_of_the_previous_one(
    n: int, size: int, toy_data: Data, toy_config: Config
) -> None:
    dataset = BatchDataset(
        toy_data["train"].subset(np.arange(n)), toy_config.replace(batch_size=size), overlap=True, second_view=False
    )
    batches = [set(dataset.sample_indices(step).tolist()) for step in range(dataset.steps)]
    half = max(size // 2, 1)
    for previous, batch in itertools.pairwise(batches):
        assert len(previous & batch) == size - half
    counts = Counter(index for batch in batches for index in batch)
    assert set(counts.values()) <= {1, 2}
    assert len(counts) >= n - size


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_do_not_depend_on_workers_and_first_step(num_workers: int, toy_data: Data, toy_config: Config) -> None:
    batches = BatchDataset(toy_data["train"], toy_config.replace(augmentations=ALL), overlap=False, second_view=True)
    expected = [batches[step] for step in range(len(batches))]
    torch.manual_seed(7)
    for first in (0, 5):
        loaded = list(batches.make_loader(first, num_workers, CPU))
        assert len(loaded) == len(batches) - first
        assert all(same(batch, other) for batch, other in zip(loaded, expected[first:], strict=True))
    assert not torch.equal(expected[0].images, expected[0].second_view)


@pytest.mark.parametrize("augmentations", [(), ALL])
def test_slices_of_the_processes_are_the_whole_batch(
    augmentations: tuple[str, ...], toy_data: Data, toy_config: Config
) -> None:
    """The augmentation of an image does not depend on the number of processes."""
    config = toy_config.replace(augmentations=augmentations)
    whole = BatchDataset(toy_data["train"], config, overlap=False, second_view=True)[6]
    shards = [
        BatchDataset(toy_data["train"], config, False, True, rank_slice)[6]
        for rank_slice in (slice(0, 5), slice(5, 6), slice(6, 16))
    ]
    assert all(torch.equal(shard.sample_indices, whole.sample_indices) for shard in shards)
    for name in ("rank_positions", "images", "hflipped", "second_view"):
        assert torch.equal(torch.cat([getattr(shard, name) for shard in shards]), getattr(whole, name))


def test_hflipped_is_true_for_flipped_images(toy_data: Data, toy_config: Config) -> None:
    data = toy_data["train"]
    batch = BatchDataset(data, toy_config.replace(augmentations=("flip",)), overlap=False, second_view=False)[0]
    assert 0 < batch.hflipped.sum() < 16
    for index, image, hflipped in zip(batch.sample_indices, batch.images, batch.hflipped, strict=True):
        original = torch.from_numpy(data.images[int(index)]).permute(2, 0, 1)
        assert torch.equal(image, original.flip(-1) if hflipped else original)
    assert not BatchDataset(data, toy_config, overlap=False, second_view=False)[0].hflipped.any()


def test_the_run_is_the_same_with_workers(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    config = toy_config.replace(augmentations=ALL)
    runs = [mlkd.fit("vanilla", toy_data, config, runs=tmp_path / str(n), num_workers=n) for n in (0, 2)]
    assert runs[0].path.name == runs[1].path.name
    assert np.array_equal(runs[0].predictions("test").logits, runs[1].predictions("test").logits)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_a_batch_draws_no_random_number(num_workers: int, toy_data: Data, toy_config: Config) -> None:
    """Otherwise a step after an interruption would see other numbers than without one."""
    with torch.random.fork_rng():
        batches = BatchDataset(toy_data["train"], toy_config, False, False).make_loader(0, num_workers, CPU)
        before = torch.get_rng_state()
        next(batches)
        assert torch.equal(torch.get_rng_state(), before)


def test_a_worker_that_ends_while_it_transfers_a_batch(
    toy_data: Data, toy_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sometimes the closed connection is noticed before the end of the process."""

    def ended(*_: object, **__: object) -> Iterator[AugmentedBatch]:
        raise ConnectionResetError
        yield

    monkeypatch.setattr(loader, "DataLoader", ended)
    batches = BatchDataset(toy_data["train"], toy_config, False, False)
    with pytest.raises(RuntimeError, match="DataLoader worker ended while it transferred a batch"):
        next(batches.make_loader(0, 1, CPU))


DISCONNECTION = """
import os, socket, sys
from multiprocessing.resource_sharer import DupFd
from mlkd.training.loader import _leave_errors_to_parent

_leave_errors_to_parent(0)
batch = DupFd(sys.stdout.fileno())  # as a worker transfers the memory of a batch
with socket.socket(socket.AF_UNIX) as trainer:
    trainer.connect(batch._id[0])  # and the training is interrupted while it receives it
os.close(batch.detach())  # connections are handled one after the other: the broken one is done
raise ValueError("a real failure")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="batches are transferred as file descriptors on Linux")
def test_a_batch_that_is_not_received_prints_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", DISCONNECTION], capture_output=True, text=True, check=False)
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.endswith("ValueError: a real failure\n")
