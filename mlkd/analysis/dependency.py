"""Label dependencies of MDKD for chosen labels, images and runs, and their distance to the teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations, product

import numpy as np
import pandas as pd
import torch

from mlkd.losses.mdkd import dependencies


def label_dependencies(
    probs: Mapping[str, np.ndarray],
    classes: Sequence[str],
    labels: Sequence[int],
    orders: Sequence[int] = (2, 3, 4),
) -> pd.DataFrame:
    """The dependency along each sequence of the chosen labels, for each image and run.

    A sequence and its reverse have the same dependency and are listed once: P labels have P! / (P - n)! / 2 sequences
    of order n.

    Source: Wang et al., MDKD, ACM MM 2024, Figure 6 and Tables 7 and 8 (single images); the mean over images is the
    batch-level dependency of Eqs. (4), (7).

    Args:
        probs: title of a run -> (b, q), its probabilities for the chosen images.
        classes: the q names.
        labels: indices of the chosen labels, all different.
        orders: the lengths of the sequences, each from 2 to the number of chosen labels.

    Returns:
        One row per run, order, sequence and image: `run`, `order`, `sequence` ("dog-car-person"), `image` (its index in
        the batch) and `dependency`, in [0, 1]: low for labels with similar probabilities.

    Raises:
        ValueError: as `mlkd.losses.mdkd.dependencies`, or an order above the number of labels.
    """
    frames = []
    for order in orders:
        if order > len(labels):
            raise ValueError(f"`orders` has {order}, more than the {len(labels)} labels in `labels`.")
        sequences = [sequence for sequence in permutations(labels, order) if sequence[0] < sequence[-1]]
        for (run, run_probs), sequence in product(probs.items(), sequences):
            values = dependencies(torch.as_tensor(np.asarray(run_probs, np.float32)), order, sequence).numpy()
            name = "-".join(classes[label] for label in sequence)
            keys = {"run": run, "order": order, "sequence": name, "image": np.arange(len(values))}
            frames.append(pd.DataFrame({**keys, "dependency": values.astype(np.float64)}))
    columns = ["run", "order", "sequence", "image", "dependency"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def dependency_gaps(table: pd.DataFrame, teacher: str = "teacher") -> pd.DataFrame:
    """Distance between the dependencies of each run and the teacher's.

    Args:
        table: from `label_dependencies`, with the teacher among the runs.
        teacher: title of the teacher.

    Returns:
        One row per other run and order: `run`, `order`, `instance` (mean absolute difference over sequences and
        images), `batch` (mean absolute difference over sequences of the means over images) and `sequences`.

    Raises:
        ValueError: the teacher is not among the runs.
    """
    if teacher not in set(table["run"]):
        raise ValueError(f"`teacher` is {teacher!r}, expected one of the runs: {', '.join(table['run'].unique())}.")
    wide = table.pivot(index=["order", "sequence", "image"], columns="run", values="dependency")
    rows = []
    for run in [title for title in table["run"].unique() if title != teacher]:
        gap = wide[run] - wide[teacher]
        batch = gap.groupby(["order", "sequence"]).mean().abs().groupby("order")
        instance = gap.abs().groupby("order").mean()
        for order, mean in batch.mean().items():
            rows.append((run, order, instance[order], mean, batch.size()[order]))
    return pd.DataFrame(rows, columns=["run", "order", "instance", "batch", "sequences"])


def pair_dependencies(probs: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """The dependency of each two of the chosen labels, averaged over the images (MDKD, Figure 6, for one image).

    Shape: probs (b, q); output (labels, labels) float64 in [0, 1], symmetric, zero diagonal.
    """
    tensor = torch.as_tensor(np.asarray(probs, np.float32))
    matrix = np.zeros((len(labels), len(labels)))
    for i, j in combinations(range(len(labels)), 2):
        matrix[i, j] = matrix[j, i] = dependencies(tensor, 2, (labels[i], labels[j])).mean().item()
    return matrix
