"""Label graphs: which labels stand together in a picture."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform


def cooccurrence(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""How often each pair of labels stands in one picture, and each label at all.

    $$ e_{kl} = \sum_i y_{ik} y_{il} \; (k \ne l), \quad n_k = \sum_i y_{ik} $$

    Source: Xu et al., Boosting Multi-Label Image Classification with Complementary Parallel Self-Distillation,
    IJCAI 2022, Sec. 3 (the counts its graphs are made of).

    Args:
        targets: 0 or 1, one row per picture; dense or a SciPy sparse matrix.

    Shape: targets (N, q); e (q, q) int64, symmetric, zero diagonal; n (q,) int64.

    Example:
        >>> e, n = cooccurrence(np.array([[1, 1, 0], [1, 0, 0]]))
        >>> e.tolist(), n.tolist()
        ([[0, 1, 0], [1, 0, 0], [0, 0, 0]], [2, 1, 0])
    """
    if isinstance(targets, np.ndarray):
        counts = np.rint(targets.T.astype(np.float64) @ targets.astype(np.float64)).astype(np.int64)
    else:
        counts = (targets.T.astype(np.int64) @ targets.astype(np.int64)).toarray()
    n = counts.diagonal().copy()
    np.fill_diagonal(counts, 0)
    return counts, n


def conditional(e: np.ndarray, n: np.ndarray) -> np.ndarray:
    r"""$P(l \mid k) = e_{kl} / n_k$: of the pictures with label k (row), the share that has l (column) too.

    Shape: e (q, q), n (q,); output (q, q) float64 in [0, 1], zero diagonal; a label that never occurs has a row of 0.
    """
    return e / np.maximum(n, 1)[:, None]


def seriation(e: np.ndarray, n: np.ndarray) -> np.ndarray:
    r"""An order of the labels in which those that come together stand together.

    Average-linkage clustering with optimal leaf order on 1 - the Jaccard index $e_{kl} / (n_k + n_l - e_{kl})$.

    Shape: e (q, q), n (q,); output (q,), a permutation.
    """
    if len(n) < 3:
        return np.arange(len(n))
    distance = 1 - e / np.maximum(n[:, None] + n[None, :] - e, 1)
    np.fill_diagonal(distance, 0)
    condensed = squareform(distance, checks=False)
    return leaves_list(optimal_leaf_ordering(linkage(condensed, "average"), condensed))
