"""Teachers of parts of the labels: `train_label_subsets(data, config, "cgp", 5)` trains five and gives them as one."""

from __future__ import annotations

from collections.abc import Mapping
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

STRATEGIES = (*graphs.STRATEGIES, "whole")
SUBTASK_IMAGES = ("containing", "all")


def train_label_subsets(
    data: Mapping[str, MultiLabelData],
    config: Config,
    strategy: str,
    k: int = 1,
    *,
    tau: float = 3.0,
    seed: int = 0,
    method: Method | None = None,
    runs: str | Path = "runs",
    subset_images: str = "containing",
) -> MergedTeacher:
    r"""Divides the labels into parts, trains a model of each and merges them into one teacher of all labels.

    $$ \hat F_{C_t} \leftarrow \arg\min_{F_{C_t}} L_{cls}^{C_t}, \quad t = 1, ..., k $$

    Each model is a run of its own, with role "part": a second call reads the complete ones, and an interrupted one
    goes on.

    Source: Xu et al., CPSD, IJCAI 2022, Sec. 3.1 and Eq. (3), arXiv:2205.10986.
    Differs from the released code, which trains each model on all pictures: as printed, a part's training pictures
    are those with one of its labels. `subset_images="all"` is the released behaviour.

    Args:
        data: as for `fit`. The graph is made of the training labels; `val` and `test` keep all their pictures.
        config: how each model is trained; the same network as the student's in self-distillation.
        strategy: "cgp", "dgp" or "random" as in `mlkd.graphs.partition`; or "whole" for one model of all labels on
            all pictures, the teacher of plain self-distillation.
        k: how many parts.
        tau, seed: as in `mlkd.graphs.partition`.
        method: what the models are trained with; None for the asymmetric loss on the labels.
        runs: the folder of all runs.
        subset_images: "containing" or "all".

    Raises:
        ValueError: an unknown strategy or choice of pictures; k is not possible.
        DataError: a part has no picture in a split.
        TrainingError: one of them cannot go on; which, and why.
    """
    tasks = label_subset_data(data, strategy, k, tau=tau, seed=seed, subset_images=subset_images)
    method, config = method or create_method("vanilla", loss="asl"), config.replace(role="part")
    models = []
    for number, task in enumerate(tasks, start=1):
        if strategy != "whole":
            print(f"{strategy}, label subset {number} of {k}: {', '.join(task['train'].classes)}")
        models.append(fit(method, task, config, runs=runs).model())  # Eq. (3)
    return MergedTeacher(models, data["train"].classes)


def label_subset_data(
    data: Mapping[str, MultiLabelData],
    strategy: str,
    k: int = 1,
    *,
    tau: float = 3.0,
    seed: int = 0,
    subset_images: str = "containing",
) -> list[dict[str, MultiLabelData]]:
    """The splits that the model of each part is trained, chosen and scored on; arguments as of `train_label_subsets`."""
    check_choice("strategy", strategy, STRATEGIES)
    check_choice("subset_images", subset_images, SUBTASK_IMAGES)
    if strategy == "whole":
        if k != 1:
            raise ValueError(f"`k` is {k}, expected 1: the strategy 'whole' has one model of all labels.")
        return [dict(data)]
    parts = graphs.partition(graphs.cooccurrence(data["train"].targets), k, strategy, tau, seed)
    return [_subtask(data, np.flatnonzero(parts == part), subset_images) for part in range(k)]


def _subtask(data: Mapping[str, MultiLabelData], labels: np.ndarray, subset_images: str) -> dict[str, MultiLabelData]:
    """The splits a model of some labels is trained, chosen and scored on."""
    name = f"{data['train'].name}, {len(labels)} of {len(data['train'].classes)} labels"
    task = {split: replace(data[split].select_classes(labels), name=name) for split in ("train", "val", "test")}
    if subset_images == "containing":
        task["train"] = task["train"].subset(np.flatnonzero(task["train"].targets.any(axis=1)))
    return task
