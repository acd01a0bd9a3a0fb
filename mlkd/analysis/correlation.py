"""Whether a student's labels go up and down together as its teacher's do."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlkd.graphs import Counts, seriation


class CorrelationDifference(NamedTuple):
    """`matrix` (q, q), the absolute difference of two correlation matrices, and `mean` over the pairs of labels."""

    matrix: np.ndarray
    mean: float


def label_correlations(probs: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each two labels' probabilities over the pictures.

    Shape: probs (N, q); output (q, q) float64 in [-1, 1], symmetric, diagonal 1; nan in the row and column of a label
    whose probability is always the same.
    """
    scaled = _scaled(probs)
    found = np.clip(scaled.T @ scaled, -1, 1)
    np.fill_diagonal(found, np.where(np.isnan(scaled).any(axis=0), np.nan, 1.0))
    return found


def _scaled(probs: np.ndarray) -> np.ndarray:
    r"""$z / \sqrt N$: probabilities (N, q), each label's less their mean, divided by their length; nan if all equal."""
    centred = np.asarray(probs, np.float64) - np.mean(probs, axis=0, dtype=np.float64)
    length = np.linalg.norm(centred, axis=0)
    moves = length > 1e-12 * np.sqrt(len(centred))
    return np.divide(centred, length, out=np.full(centred.shape, np.nan), where=moves)


def correlation_difference(student_probs: np.ndarray, teacher_probs: np.ndarray) -> CorrelationDifference:
    r"""How far the student's correlations between labels are from the teacher's.

    $$ \Delta_{kl} = |\operatorname{corr}(\hat y^S_k, \hat y^S_l) - \operatorname{corr}(\hat y^T_k, \hat y^T_l)|, \quad
       \text{mean} = \frac{2}{q (q-1)} \sum_{k < l} \Delta_{kl} $$

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Figure 5, arXiv:2308.06453 (the matrices; the
    mean is ours, as is Pearson's correlation, which the paper does not name).

    Shape: both (N, q), of the same pictures. Range: [0, 2]. A label whose probability never changes for one of the two
    has nan and is left out of the mean.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(student_probs, teacher_probs)
    matrix = np.abs(label_correlations(student_probs) - label_correlations(teacher_probs))
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    known = pairs[~np.isnan(pairs)]
    return CorrelationDifference(matrix, float(known.mean()) if len(known) else np.nan)


def pair_contributions(student_probs: np.ndarray, teacher_probs: np.ndarray, k: int, m: int) -> np.ndarray:
    r"""What each picture adds to the difference of the student's and the teacher's correlation of two labels.

    $$ c_i = \frac{1}{N} \left( z^S_{ik} z^S_{im} - z^T_{ik} z^T_{im} \right), \quad
       \sum_i c_i = \operatorname{corr}(\hat y^S_k, \hat y^S_m) - \operatorname{corr}(\hat y^T_k, \hat y^T_m) $$

    where $z_{ik}$ is the probability of label k in picture i, less the mean over the pictures and divided by the
    standard deviation, because $\operatorname{corr} = \frac{1}{N} \sum_i z_{ik} z_{im}$. A picture with $c_i > 0$
    joins the two labels more for the student than for the teacher, one with $c_i < 0$ less.

    Args:
        student_probs, teacher_probs: of the same pictures.
        k, m: two class indices.

    Shape: both (N, q); output (N,) float64, all nan where a label's probability never changes for one of the two.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(student_probs, teacher_probs)
    its, own = (_scaled(np.asarray(probs)[:, [k, m]]).prod(axis=1) for probs in (teacher_probs, student_probs))
    return own - its


def _check_shapes(student_probs: np.ndarray, teacher_probs: np.ndarray) -> None:
    if np.shape(student_probs) != np.shape(teacher_probs) or np.ndim(student_probs) != 2:
        raise ValueError(
            f"`student_probs` has shape {np.shape(student_probs)} but `teacher_probs` has {np.shape(teacher_probs)}; "
            f"both are (N, q), of the same split."
        )


def order_by_cluster(counts: Counts, parts: np.ndarray) -> np.ndarray:
    """An order of the labels part by part, and in a part those that come together beside each other.

    Args:
        counts: as `mlkd.graphs.cooccurrence` returns them.
        parts: as `mlkd.graphs.partition` returns them.

    Shape: parts (q,); output (q,), a permutation.
    """
    place = np.argsort(seriation(*counts))
    return np.lexsort((place, parts))
