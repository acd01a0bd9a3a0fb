"""The batches: every picture in its turn, the same whoever makes them and from wherever one goes on."""

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


def same(one: AugmentedBatch, other: AugmentedBatch) -> bool:
    return all(torch.equal(mine, its) for mine, its in zip(one, other, strict=True))


@pytest.mark.parametrize(("n", "size"), [(12, 4), (13, 4), (3, 4), (8, 1)])
def test_an_epoch_takes_each_picture_once(n: int, size: int, toy_data: Data, toy_config: Config) -> None:
    batches = BatchDataset(toy_data["train"].subset(np.arange(n)), toy_config.replace(batch_size=size), False, False)
    assert len(batches) == 3 * batches.steps
    epochs = [
        [batches.rows(step).tolist() for step in range(epoch * batches.steps, (epoch + 1) * batches.steps)]
        for epoch in range(3)
    ]
    for epoch in epochs:
        rows = list(itertools.chain(*epoch))
        assert len(set(rows)) == len(rows) == (n - n % size or n)
        assert all(sorted(batch) == batch for batch in epoch)
    if n > 3:
        assert epochs[0] != epochs[1]


@pytest.mark.parametrize(("n", "size"), [(12, 4), (13, 4), (3, 4), (8, 1)])
def test_overlapping_batches_begin_with_half_of_the_one_before(
    n: int, size: int, toy_data: Data, toy_config: Config
) -> None:
    drawn = BatchDataset(
        toy_data["train"].subset(np.arange(n)), toy_config.replace(batch_size=size), overlap=True, second_view=False
    )
    batches = [set(drawn.rows(step).tolist()) for step in range(drawn.steps)]
    half = max(size // 2, 1)
    for one, other in itertools.pairwise(batches):
        assert len(one & other) == size - half
    seen = Counter(row for batch in batches for row in batch)
    assert set(seen.values()) <= {1, 2}
    assert len(seen) >= n - size


@pytest.mark.parametrize("workers", [0, 2])
def test_who_makes_them_and_where_one_begins_change_nothing(
    num_workers: int, toy_data: Data, toy_config: Config
) -> None:
    batches = BatchDataset(toy_data["train"], toy_config.replace(augmentations=ALL), overlap=False, second_view=True)
    expected = [batches[step] for step in range(len(batches))]
    torch.manual_seed(7)
    for first in (0, 5):
        made = list(batches.loaded(first, num_workers, CPU))
        assert len(made) == len(batches) - first
        assert all(same(one, other) for one, other in zip(made, expected[first:], strict=True))
    assert not torch.equal(expected[0].images, expected[0].second_view)


@pytest.mark.parametrize("augmentations", [(), ALL])
def test_shares_are_parts_of_the_whole(augment: tuple[str, ...], toy_data: Data, toy_config: Config) -> None:
    """What happens to a picture does not depend on how many processes share the batch."""
    config = toy_config.replace(augmentations=augment)
    whole = BatchDataset(toy_data["train"], config, overlap=False, second_view=True)[6]
    shares = [
        BatchDataset(toy_data["train"], config, False, True, share)[6]
        for share in (slice(0, 5), slice(5, 6), slice(6, 16))
    ]
    assert all(torch.equal(share.rows, whole.rows) for share in shares)
    for name in ("mine", "images", "mirrored", "twins"):
        assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(whole, name))


def test_mirrored_says_what_was_done(toy_data: Data, toy_config: Config) -> None:
    data = toy_data["train"]
    drawn = BatchDataset(data, toy_config.replace(augmentations=("flip",)), overlap=False, second_view=False)[0]
    assert 0 < drawn.mirrored.sum() < 16
    for row, image, mirrored in zip(drawn.rows, drawn.images, drawn.mirrored, strict=True):
        before = torch.from_numpy(data.images[int(row)]).permute(2, 0, 1)
        assert torch.equal(image, before.flip(-1) if mirrored else before)
    assert not BatchDataset(data, toy_config, overlap=False, second_view=False)[0].mirrored.any()


def test_the_run_is_the_same_with_workers(toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    config = toy_config.replace(augmentations=ALL)
    runs = [mlkd.fit("vanilla", toy_data, config, runs=tmp_path / str(n), num_workers=n) for n in (0, 2)]
    assert runs[0].path.name == runs[1].path.name
    assert np.array_equal(runs[0].predictions("test").logits, runs[1].predictions("test").logits)


@pytest.mark.parametrize("workers", [0, 1])
def test_taking_a_batch_draws_no_random_number(num_workers: int, toy_data: Data, toy_config: Config) -> None:
    """Else a step after a stop would see other numbers than without one."""
    with torch.random.fork_rng():
        loaded = BatchDataset(toy_data["train"], toy_config, False, False).loaded(0, num_workers, CPU)
        before = torch.get_rng_state()
        next(loaded)
        assert torch.equal(torch.get_rng_state(), before)


def test_a_process_that_ends_in_the_middle_of_a_batch(
    toy_data: Data, toy_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then its end is seen on the line first."""

    def ended(*_: object, **__: object) -> Iterator[AugmentedBatch]:
        raise ConnectionResetError
        yield

    monkeypatch.setattr(loader, "DataLoader", ended)
    made = BatchDataset(toy_data["train"], toy_config, False, False)
    with pytest.raises(RuntimeError, match="DataLoader worker ended while it handed a batch over"):
        next(made.loaded(0, 1, CPU))


HANGING_UP = """
import os, socket, sys
from multiprocessing.resource_sharer import DupFd
from mlkd.training.loader import _leave_the_last_word

_leave_the_last_word(0)
batch = DupFd(sys.stdout.fileno())  # a process that makes batches hands over their memory so
with socket.socket(socket.AF_UNIX) as trainer:
    trainer.connect(batch._id[0])  # and the one that trains is interrupted as it takes it
os.close(batch.detach())  # one connection after the other: the broken one is over
raise ValueError("a real failure")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="batches are handed over as file descriptors on Linux")
def test_a_batch_that_nobody_takes_is_no_failure() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING_UP], capture_output=True, text=True, check=False)
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.endswith("ValueError: a real failure\n")
