"""Teachers of label subsets: `train_label_subsets(data, config, "cgp", 5)` trains five networks and merges them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlkd import graphs
from mlkd.data import MultiLabelData
from mlkd.errors import check_choice
from mlkd.methods import Method, create_method
from mlkd.models import MergedTeacher
from mlkd.training.config import Config
from mlkd.training.loop import fit

logger = logging.getLogger(__name__)

STRATEGIES = (*graphs.STRATEGIES, "all_labels")
SUBSET_IMAGES = ("containing", "all")


def train_label_subsets(
    data: Mapping[str, MultiLabelData],
    config: Config,
    strategy: str,
    k: int = 1,
    *,
    tau: float = 3.0,
    seed: int = 0,
    as_in_paper: bool = False,
    subset_images: str = "containing",
    method: Method | None = None,
    runs: str | Path = "runs",
    study: str = "",
) -> MergedTeacher:
    r"""Partitions the labels, trains a network on each label subset and merges them into one teacher of all labels.

    $$ \hat F_{C_t} \leftarrow \arg\min_{F_{C_t}} L_{cls}^{C_t}, \quad t = 1, ..., k $$

    Each network is a run with the role "label_subset": complete runs are read, interrupted ones are resumed.

    Source: Xu et al., CPSD, IJCAI 2022, Sec. 3.1 and Eq. (3), arXiv:2205.10986.
    Differs from the official code, which trains each network on all images: as in the paper, the training images of
    a label subset are those with one of its labels. `subset_images="all"` is the official code's choice.

    Args:
        data: as for `fit`. The graph is built from the training labels; `val` and `test` keep all their images.
        config: how each network is trained; in self-distillation the student's architecture.
        strategy: "cgp", "dgp" or "random" as in `mlkd.graphs.partition`; or "all_labels" for one network of all labels
            on all images, the teacher of plain self-distillation.
        k: the number of label subsets.
        tau, seed, as_in_paper: as in `mlkd.graphs.partition`.
        subset_images: "containing" or "all".
        method: the method of the networks; None for the asymmetric loss on the labels.
        runs, study: as for `fit`.

    Raises:
        ValueError: an unknown strategy or `subset_images`; an impossible k.
        DataError: a label subset has no image in a split.
        TrainingError: one of the trainings failed.
    """
    subsets = label_subset_data(
        data, strategy, k, tau=tau, seed=seed, as_in_paper=as_in_paper, subset_images=subset_images
    )
    method, config = method or create_method("vanilla", loss="asl"), config.replace(role="label_subset")
    models = []
    for number, splits in enumerate(subsets, start=1):
        if strategy != "all_labels":
            logger.info(f"{strategy}, label subset {number} of {k}: {', '.join(splits['train'].classes)}")
        models.append(fit(method, splits, config, runs=runs, study=study).model())  # Eq. (3)
    return MergedTeacher(models, data["train"].classes)


def label_subset_data(
    data: Mapping[str, MultiLabelData],
    strategy: str,
    k: int = 1,
    *,
    tau: float = 3.0,
    seed: int = 0,
    as_in_paper: bool = False,
    subset_images: str = "containing",
) -> list[dict[str, MultiLabelData]]:
    """The splits that the network of each label subset is trained and evaluated on; arguments as above.

    Logs a warning if a label subset has one label and its network would only be trained on images with that label.
    """
    check_choice("strategy", strategy, STRATEGIES)
    check_choice("subset_images", subset_images, SUBSET_IMAGES)
    if strategy == "all_labels":
        if k != 1:
            raise ValueError(f"`k` is {k}, expected 1: the strategy 'all_labels' has one network of all labels.")
        return [dict(data)]
    counts = graphs.cooccurrence(data["train"].targets)
    subsets = graphs.partition(counts, k, strategy, tau, seed, as_in_paper=as_in_paper)
    if subset_images == "containing":
        _warn_about_single_labels(f"{strategy}, k={k}", data["train"].classes, subsets)
    return [_select_labels(data, np.flatnonzero(subsets == number), subset_images) for number in range(k)]


def _warn_about_single_labels(partition: str, classes: Sequence[str], subsets: np.ndarray) -> None:
    """Logs a warning if a label subset has one label: all of its training images have the label."""
    single = [name for name, size in zip(classes, np.bincount(subsets)[subsets], strict=True) if size == 1]
    if single:
        logger.warning(
            f"{partition}: a label subset of one label each: {', '.join(single)}. With subset_images='containing', all "
            f"training images of such a network have its label, so it sees no negative. Use another k, or "
            f"subset_images='all'."
        )


def _select_labels(
    data: Mapping[str, MultiLabelData], labels: np.ndarray, subset_images: str
) -> dict[str, MultiLabelData]:
    """The splits with only these labels."""
    name = f"{data['train'].name}, {len(labels)} of {len(data['train'].classes)} labels"
    names = [split for split in ("train", "val", "test") if split in data]
    splits = {split: replace(data[split].select_classes(labels), name=name) for split in names}
    if subset_images == "containing":
        splits["train"] = splits["train"].subset(np.flatnonzero(splits["train"].targets.any(axis=1)))
    return splits
