"""Label-pair dependencies as single numbers: of chosen labels, pictures and runs, and how far from the teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations

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
    """The dependency along every sequence of the chosen labels, for each picture and run.

    A sequence and its reverse are the same and come once. P labels have P! / (P - n)! / 2 sequences of order n.

    Source: Wang et al., MDKD, ACM MM 2024, Figure 6 and Tables 7 and 8 (single pictures); the mean over pictures is
    the batch-level dependency of Eqs. (4), (7).

    Args:
        probs: title of a run -> (b, q), its probabilities of the chosen pictures.
        classes: the q names.
        labels: indices of the chosen labels, all different.
        orders: how many labels in a sequence, each from 2 to the number of chosen labels.

    Returns:
        One row per run, order, sequence, picture: `run`, `order`, `sequence` ("dog-car-person"), `image` (its place
        in the batch) and `dependency`, in [0, 1]: low where the labels go together.

    Raises:
        ValueError: as `mlkd.losses.mdkd.dependencies`, or an order above the number of labels.
    """
    frames = []
    for order in orders:
        if order > len(labels):
            raise ValueError(f"`orders` has {order}, more than the {len(labels)} labels that were chosen.")
        sequences = [found for found in permutations(labels, order) if found[0] < found[-1]]
        for (run, said), sequence in ((item, found) for item in probs.items() for found in sequences):
            values = dependencies(torch.as_tensor(np.asarray(said, np.float32)), order, sequence).numpy()
            name = "-".join(classes[label] for label in sequence)
            about = {"run": run, "order": order, "sequence": name, "image": np.arange(len(values))}
            frames.append(pd.DataFrame({**about, "dependency": values.astype(np.float64)}))
    columns = ["run", "order", "sequence", "image", "dependency"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def dependency_gaps(table: pd.DataFrame, teacher: str = "teacher") -> pd.DataFrame:
    """How far each run's dependencies are from the teacher's.

    Args:
        table: as `label_dependencies` returns it, the teacher among the runs.
        teacher: its title.

    Returns:
        One row per other run and order: `run`, `order`, `instance` (mean absolute difference over sequences and
        pictures), `batch` (over sequences, of the means over pictures) and `sequences`.

    Raises:
        ValueError: the teacher is not among the runs.
    """
    if teacher not in set(table["run"]):
        raise ValueError(f"`teacher` is {teacher!r}, expected one of the runs: {', '.join(table['run'].unique())}.")
    keys = ["order", "sequence", "image"]
    wide = table.pivot(index=keys, columns="run", values="dependency")
    rows = []
    for run in [title for title in table["run"].unique() if title != teacher]:
        gap = wide[run] - wide[teacher]
        mean = gap.groupby(["order", "sequence"]).mean().abs().groupby("order")
        instance = gap.abs().groupby("order").mean()
        for order, batch in mean.mean().items():
            rows.append((run, order, instance[order], batch, mean.size()[order]))
    return pd.DataFrame(rows, columns=["run", "order", "instance", "batch", "sequences"])


def pair_dependencies(probs: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """The dependency of each two of the chosen labels, the mean over the pictures (MDKD, Figure 6, for a single one).

    Shape: probs (b, q); output (labels, labels) float64 in [0, 1], symmetric, zero diagonal.
    """
    said = torch.as_tensor(np.asarray(probs, np.float32))
    found = np.zeros((len(labels), len(labels)))
    for (i, k), (j, l) in combinations(enumerate(labels), 2):  # noqa: E741
        found[i, j] = found[j, i] = dependencies(said, 2, (k, l)).mean().item()
    return found
