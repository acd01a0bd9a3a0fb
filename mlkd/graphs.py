"""Label graphs: co-occurrence of labels, and partitions of the labels into label subsets."""

from __future__ import annotations

import warnings
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, TypeAlias
from zipfile import BadZipFile

import numpy as np
from scipy import sparse
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.sparse.linalg import LinearOperator, eigsh
from scipy.spatial.distance import squareform
from sklearn.cluster import KMeans, spectral_clustering
from sklearn.metrics import adjusted_rand_score

from mlkd.errors import check_choice

GRAPHS = ("cgp", "dgp")
STRATEGIES = (*GRAPHS, "random")

Table: TypeAlias = "np.ndarray | sparse.csr_array"
Counts = tuple[Table, np.ndarray]
"""The result of `cooccurrence`: e (q, q), how often two labels co-occur, and n (q,), how often each label occurs."""


def cooccurrence(targets: np.ndarray | sparse.sparray | sparse.spmatrix) -> Counts:
    r"""The number of images with each pair of labels, and with each label.

    $$ e_{kl} = \sum_i y_{ik} y_{il} \; (k \ne l), \quad n_k = \sum_i y_{ik} $$

    Source: Xu et al., Boosting Multi-Label Image Classification with Complementary Parallel Self-Distillation,
    IJCAI 2022, Sec. 3 (the counts of its graphs).

    Args:
        targets: 0 or 1, one row per image; dense or sparse (SciPy). For sparse targets e is sparse too (CSR), so that
            only pairs that occur take memory.

    Shape: targets (N, q); e (q, q) int64, symmetric, zero diagonal; n (q,) int64.

    Example:
        >>> e, n = cooccurrence(np.array([[1, 1, 0], [1, 0, 0]]))
        >>> e.tolist(), n.tolist()
        ([[0, 1, 0], [1, 0, 0], [0, 0, 0]], [2, 1, 0])
    """
    if isinstance(targets, np.ndarray):
        counts = np.rint(targets.T.astype(np.float64) @ targets.astype(np.float64)).astype(np.int64)
        n = counts.diagonal().copy()
        np.fill_diagonal(counts, 0)
        return counts, n
    present = sparse.csr_array(targets, dtype=np.int64)
    pairs = sparse.csr_array(present.T @ present)
    n = pairs.diagonal()
    e = sparse.csr_array(pairs - sparse.diags_array(n, dtype=np.int64))
    e.eliminate_zeros()
    return e, n


def conditional_probability(e: Table, n: np.ndarray) -> Table:
    r"""$P(l \mid k) = e_{kl} / n_k$: the fraction of the images with label k (row) that also have label l (column).

    Shape: e (q, q), n (q,); output (q, q) float64 in [0, 1], zero diagonal; the row of a label that never occurs is 0.
    Sparse if e is sparse.
    """
    return e / np.maximum(n, 1)[:, None]


def seriation(e: np.ndarray, n: np.ndarray) -> np.ndarray:
    r"""An order of the labels in which co-occurring labels are neighbors.

    Average-linkage clustering with optimal leaf order on 1 - the Jaccard index $e_{kl} / (n_k + n_l - e_{kl})$.

    Shape: e (q, q), dense, n (q,); output (q,), a permutation.
    """
    if len(n) < 3:
        return np.arange(len(n))
    distance = 1 - e / np.maximum(n[:, None] + n[None, :] - e, 1)
    np.fill_diagonal(distance, 0)
    condensed = squareform(distance, checks=False)
    return leaves_list(optimal_leaf_ordering(linkage(condensed, "average"), condensed))


def load_cooccurrence(path: str | Path) -> tuple[Counts, tuple[str, ...]]:
    """Label counts and names from an .npz file with `counts` (q, q), `nums` (q,) and `class_names` (q,).

    Raises:
        ValueError: the file does not exist, lacks an array, or has arrays of inconsistent shapes.
    """
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            e, n, names = arrays["counts"].astype(np.int64), arrays["nums"].astype(np.int64), arrays["class_names"]
    except (OSError, KeyError, ValueError, TypeError, BadZipFile) as error:  # TypeError: an .npy file
        raise ValueError(
            f"{path}: {error}; expected an .npz file with counts (q, q), nums (q,) and class_names (q,)."
        ) from error
    if e.shape != (len(n), len(n)) or len(names) != len(n) or (e != e.T).any():
        raise ValueError(
            f"{path}: counts has shape {e.shape}, nums {n.shape} and class_names {names.shape}; expected a symmetric "
            f"(q, q), and (q,) for the other two."
        )
    np.fill_diagonal(e, 0)
    return (e, n), tuple(str(name) for name in names)


def affinity(counts: Counts, strategy: str = "cgp", tau: float = 3.0) -> Table:
    r"""Affinity of two labels in the label graph: high for labels that co-occur ("cgp") or that do not ("dgp").

    $$ P^+ = \tfrac12 \big(S^{1/\tau} + (S^{1/\tau})^T\big), \quad P^- = 1 - P^+, \quad S_{kl} = e_{kl} / n_k $$

    with the root taken entry by entry.

    Source: Xu et al., CPSD, IJCAI 2022, Eq. (1), arXiv:2205.10986.
    Differs from the paper: $P^-$ is computed from the matrix of ones instead of the identity matrix, which would give
    negative entries. The diagonal of both is 0, as that of $S$: no label is connected to itself. One minus $P^+$ alone
    would give $P^-$ a diagonal of 1.

    Args:
        counts: (e, n) from `cooccurrence`.
        strategy: "cgp" for $P^+$ or "dgp" for $P^-$.
        tau: the root, > 0; a larger root increases small probabilities.

    Shape: e (q, q), n (q,); output (q, q) float64 in [0, 1], symmetric, zero diagonal. A label that never occurs has
    0 in $P^+$. For sparse counts $P^+$ is sparse.

    Raises:
        ValueError: an unknown strategy, or `tau` is not above 0.
    """
    check_choice("strategy", strategy, GRAPHS)
    if not tau > 0:
        raise ValueError(f"`tau` is {tau}, expected a number above 0.")
    rooted = conditional_probability(*counts) ** (1 / tau)
    positive = (rooted + rooted.T) / 2
    if strategy == "cgp":
        return positive  # P^+, Eq. (1)
    negative = 1 - (positive if isinstance(positive, np.ndarray) else positive.toarray())  # P^-, Eq. (1)
    np.fill_diagonal(negative, 0)
    return negative


def partition(
    counts: Counts, k: int, strategy: str = "cgp", tau: float = 3.0, seed: int = 0, *, as_in_paper: bool = False
) -> np.ndarray:
    r"""Partition the labels into k label subsets: co-occurring labels ("cgp"), the opposite ("dgp"), or "random".

    $$ \hat F = \arg\min_F \operatorname{Trace}\big(F^T D^{-1/2} L D^{-1/2} F\big), \; F^T F = I,
       \quad L = D - P, \; D_{kk} = \sum_l P_{kl} $$

    whose solution is the k eigenvectors with the smallest eigenvalues; k-means on the rows of $\hat F$ gives the
    label subsets. "random" assigns the labels at random to subsets whose sizes differ by at most one.

    Source: Xu et al., CPSD, IJCAI 2022, Eq. (2) and Sec. 3.2, arXiv:2205.10986.
    Differs from the paper by default: scikit-learn's spectral clustering divides the rows of $\hat F$ by
    $\sqrt{D_{kk}}$ before k-means. `as_in_paper=True` does not. In both cases the diagonal of P is 0, see `affinity`.

    The sizes of the subsets may differ much: without a clear structure, the subset of one label has the smallest cut.

    For sparse counts no dense (q, q) matrix is built: the eigenvectors are computed from products with P (Lanczos
    iteration). They are equal up to rounding, and so are the label subsets of well-separated labels.

    k-means starts at random; without clear clusters of labels the result depends on the seed, see `stability`.
    Labels that never occur are not part of the graph; each is assigned to the smallest subset. The result does not
    depend on the order of the labels (if no two labels have the same counts).

    Args:
        counts: (e, n) from `cooccurrence`.
        k: number of label subsets.
        strategy: "cgp", "dgp" or "random".
        tau: as in `affinity`.
        seed: of k-means, or of the random assignment.
        as_in_paper: whether k-means uses the rows of $\hat F$ without division, as in Eq. (2).

    Shape: e (q, q), n (q,); output (q,) int64, the number of each label's subset. No subset is empty; they are numbered
    in the order of their first labels.

    Raises:
        ValueError: an unknown strategy; k is below 1 or above the number of labels that occur.
    """
    check_choice("strategy", strategy, STRATEGIES)
    e, n = counts
    q, occurring = len(n), int((n > 0).sum())
    max_k = q if strategy == "random" or k == 1 else occurring
    if not 1 <= k <= max_k:
        raise ValueError(f"`k` is {k}, expected 1 to {max_k} label subsets of {q} labels, of which {occurring} occur.")
    e = sparse.csr_array(e) if sparse.issparse(e) else e
    order = np.array(sorted(range(q), key=lambda label: (n[label] == 0, n[label], *_cooccurrence_profile(e, label))))
    if strategy == "random":
        sorted_clusters = np.random.default_rng(seed).permutation(np.arange(q) % k)
    else:
        kept = order[:occurring]
        sorted_clusters = _spectral_clusters((e[kept][:, kept], n[kept]), k, strategy, tau, seed, as_in_paper)
        for _ in range(q - occurring):
            smallest = np.bincount(sorted_clusters, minlength=k).argmin()
            sorted_clusters = np.append(sorted_clusters, smallest)
    clusters = np.empty(q, np.int64)
    clusters[order] = sorted_clusters
    _, first, number = np.unique(clusters, return_index=True, return_inverse=True)
    return first.argsort().argsort()[number]


def _cooccurrence_profile(e: Table, label: int) -> list[int]:
    """The number of labels that co-occur with this one, and how often each does, in ascending order."""
    row = e.data[e.indptr[label] : e.indptr[label + 1]] if isinstance(e, sparse.csr_array) else e[label]
    return [np.count_nonzero(row), *np.sort(row[row > 0]).tolist()]


def _spectral_clusters(counts: Counts, k: int, strategy: str, tau: float, seed: int, as_in_paper: bool) -> np.ndarray:
    """Spectral clustering of the labels, (q,) in 0..k-1."""
    q = len(counts[1])
    if k == 1 or k == q:
        return np.arange(q) % k
    if sparse.issparse(counts[0]):
        return _sparse_spectral_clusters(affinity(counts, "cgp", tau), k, strategy, seed, as_in_paper)
    p = affinity(counts, strategy, tau)
    if as_in_paper:
        scale = 1 / np.sqrt(np.maximum(p.sum(axis=1), np.finfo(float).tiny))
        laplacian = np.eye(q) - scale[:, None] * p * scale[None, :]  # D^-1/2 (D - P) D^-1/2
        _, vectors = np.linalg.eigh(laplacian)
        return KMeans(k, n_init=10, random_state=seed).fit_predict(vectors[:, :k])  # Eq. (2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Graph is not fully connected")  # labels that never co-occur with another
        return spectral_clustering(p, n_clusters=k, random_state=seed)


def _sparse_spectral_clusters(
    positive: sparse.csr_array, k: int, strategy: str, seed: int, as_in_paper: bool
) -> np.ndarray:
    """`_spectral_clusters` from products with P, which need only the nonzero entries of $P^+$ (q, q)."""
    q = positive.shape[0]

    def multiply(x: np.ndarray) -> np.ndarray:
        return positive @ x if strategy == "cgp" else x.sum() - x - positive @ x  # P x, Eq. (1)

    degree = multiply(np.ones(q))
    scale = 1 / np.sqrt(np.where(degree > 1e-9, degree, 1))  # 1 for a label without connections
    flipped = LinearOperator((q, q), lambda x: x + scale * multiply(scale * x), dtype=np.float64)  # 2 I - D^-½ L D^-½
    random = np.random.RandomState(seed)  # the draws are those of scikit-learn's spectral clustering
    _, vectors = eigsh(flipped, k, which="LA", v0=random.uniform(-1, 1, q))  # largest here, smallest in Eq. (2)
    if as_in_paper:
        return KMeans(k, n_init=10, random_state=seed).fit_predict(vectors)
    return KMeans(k, n_init=10, random_state=random).fit_predict(scale[:, None] * vectors)


def cut_fraction(affinities: Table, clusters: np.ndarray) -> float:
    r"""The fraction of the edge weight of a label graph that a partition cuts.

    $$ \operatorname{cut} = \frac{\sum_{k, l : c_k \ne c_l} P_{kl}}{\sum_{k, l} P_{kl}} $$

    Args:
        affinities: P, from `affinity`.
        clusters: c, from `partition`.

    Shape: affinities (q, q), clusters (q,). Range: [0, 1]; 0 for one label subset, and for a graph without edges.
    """
    edges = sparse.coo_array(affinities)
    total = float(edges.data.sum())
    return float(edges.data[clusters[edges.row] != clusters[edges.col]].sum()) / total if total else 0.0


class Stability(NamedTuple):
    """Adjusted Rand indices of partitions with different seeds: 1 for equal partitions, about 0 for random ones."""

    mean: float
    min: float


def stability(counts: Counts, k: int, strategy: str = "cgp", tau: float = 3.0, seeds: int = 10) -> Stability:
    """Agreement between the partitions of different seeds, over each two of several seeds.

    Args:
        counts, k, strategy, tau: as in `partition`.
        seeds: number of seeds, at least 2.

    Raises:
        ValueError: as `partition`, or fewer than two seeds.
    """
    if seeds < 2:
        raise ValueError(f"`seeds` is {seeds}, expected at least 2 to compare.")
    partitions = [partition(counts, k, strategy, tau, seed) for seed in range(seeds)]
    agreement = [adjusted_rand_score(first, second) for first, second in combinations(partitions, 2)]
    return Stability(float(np.mean(agreement)), float(np.min(agreement)))
