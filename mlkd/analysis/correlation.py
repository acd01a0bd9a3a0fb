"""Correlations between the predicted labels, and how a student's differ from its teacher's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlkd.graphs import Counts, seriation


class CorrelationDifference(NamedTuple):
    """The absolute difference of two correlation matrices, `matrix` (q, q), and its `mean` over the pairs of labels."""

    matrix: np.ndarray
    mean: float


def label_correlations(probs: np.ndarray) -> np.ndarray:
    """Pearson correlation over the images between the probabilities of each two labels.

    Shape: probs (N, q); output (q, q) float64 in [-1, 1], symmetric, diagonal 1; nan in the row and column of a label
    whose probability is constant.
    """
    z = _standardize(probs)
    correlations = np.clip(z.T @ z, -1, 1)
    np.fill_diagonal(correlations, np.where(np.isnan(z).any(axis=0), np.nan, 1.0))
    return correlations


def _standardize(probs: np.ndarray) -> np.ndarray:
    r"""$z / \sqrt N$ with the standard scores z of each label's probabilities, (N, q); nan where they are constant."""
    centered = np.asarray(probs, np.float64) - np.mean(probs, axis=0, dtype=np.float64)
    norm = np.linalg.norm(centered, axis=0)
    varies = norm > 1e-12 * np.sqrt(len(centered))
    return np.divide(centered, norm, out=np.full(centered.shape, np.nan), where=varies)


def correlation_difference(student_probs: np.ndarray, teacher_probs: np.ndarray) -> CorrelationDifference:
    r"""Absolute difference between the label correlations of student and teacher.

    $$ \Delta_{kl} = |\operatorname{corr}(\hat y^S_k, \hat y^S_l) - \operatorname{corr}(\hat y^T_k, \hat y^T_l)|, \quad
       \text{mean} = \frac{2}{q (q-1)} \sum_{k < l} \Delta_{kl} $$

    Source: Yang et al., Multi-Label Knowledge Distillation, ICCV 2023, Figure 5, arXiv:2308.06453 (the matrices). The
    paper does not name its correlation; Pearson's and the mean over pairs are our choice.

    Shape: both (N, q), of the same images. Range: [0, 2]. A label whose probability is constant for student or teacher
    has nan and is excluded from the mean.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(student_probs, teacher_probs)
    matrix = np.abs(label_correlations(student_probs) - label_correlations(teacher_probs))
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    known = pairs[~np.isnan(pairs)]
    return CorrelationDifference(matrix, float(known.mean()) if len(known) else np.nan)


def pair_contributions(student_probs: np.ndarray, teacher_probs: np.ndarray, k: int, m: int) -> np.ndarray:
    r"""The contribution of each image to the difference between student and teacher in the correlation of two labels.

    $$ c_i = \frac{1}{N} \left( z^S_{ik} z^S_{im} - z^T_{ik} z^T_{im} \right), \quad
       \sum_i c_i = \operatorname{corr}(\hat y^S_k, \hat y^S_m) - \operatorname{corr}(\hat y^T_k, \hat y^T_m) $$

    where $z_{ik}$ is the standard score of the probability of label k in image i, because
    $\operatorname{corr} = \frac{1}{N} \sum_i z_{ik} z_{im}$. An image with $c_i > 0$ makes the two labels more
    correlated for the student than for the teacher, one with $c_i < 0$ less.

    Args:
        student_probs, teacher_probs: of the same images.
        k, m: two class indices.

    Shape: both (N, q); output (N,) float64, all nan if the probability of a label is constant for student or teacher.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(student_probs, teacher_probs)
    student, teacher = (
        _standardize(np.asarray(probs)[:, [k, m]]).prod(axis=1) for probs in (student_probs, teacher_probs)
    )
    return student - teacher


def _check_shapes(student_probs: np.ndarray, teacher_probs: np.ndarray) -> None:
    if np.shape(student_probs) != np.shape(teacher_probs) or np.ndim(student_probs) != 2:
        raise ValueError(
            f"`student_probs` has shape {np.shape(student_probs)} but `teacher_probs` has {np.shape(teacher_probs)}; "
            f"both are (N, q), of the same split."
        )


def order_by_cluster(counts: Counts, clusters: np.ndarray) -> np.ndarray:
    """An order of the labels by cluster, and within a cluster by seriation: co-occurring labels are neighbors.

    Args:
        counts: from `mlkd.graphs.cooccurrence`.
        clusters: from `mlkd.graphs.partition`.

    Shape: clusters (q,); output (q,), a permutation.
    """
    rank = np.argsort(seriation(*counts))
    return np.lexsort((rank, clusters))
