"""Label graphs: which labels stand together in a picture, and how they fall into parts."""

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
"""What `cooccurrence` returns: e (q, q), how often two labels stand together, and n (q,), how often each stands."""


def cooccurrence(targets: np.ndarray | sparse.sparray | sparse.spmatrix) -> Counts:
    r"""How often each pair of labels stands in one picture, and each label at all.

    $$ e_{kl} = \sum_i y_{ik} y_{il} \; (k \ne l), \quad n_k = \sum_i y_{ik} $$

    Source: Xu et al., Boosting Multi-Label Image Classification with Complementary Parallel Self-Distillation,
    IJCAI 2022, Sec. 3 (the counts its graphs are made of).

    Args:
        targets: 0 or 1, one row per picture; dense or sparse (SciPy). Of sparse targets e is sparse too (CSR), so that
            with many labels only the pairs that occur take memory.

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
    r"""$P(l \mid k) = e_{kl} / n_k$: of the pictures with label k (row), the share that has l (column) too.

    Shape: e (q, q), n (q,); output (q, q) float64 in [0, 1], zero diagonal; a label that never occurs has a row of 0.
    Sparse where e is.
    """
    return e / np.maximum(n, 1)[:, None]


def seriation(e: np.ndarray, n: np.ndarray) -> np.ndarray:
    r"""An order of the labels in which those that come together stand together.

    Average-linkage clustering with optimal leaf order on 1 - the Jaccard index $e_{kl} / (n_k + n_l - e_{kl})$.

    Shape: e (q, q), not sparse, n (q,); output (q,), a permutation.
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
        ValueError: there is no such file, or something is missing in it or does not fit.
    """
    try:
        with open(path, "rb") as opened, np.load(opened) as file:
            e, n, names = file["counts"].astype(np.int64), file["nums"].astype(np.int64), file["class_names"]
    except (OSError, KeyError, ValueError, TypeError, BadZipFile) as error:  # TypeError: an .npy file
        raise ValueError(
            f"{path}: {error}; expected an .npz file with counts (q, q), nums (q,) and class_names (q,)."
        ) from error
    if e.shape != (len(n), len(n)) or len(names) != len(n) or (e != e.T).any():
        raise ValueError(
            f"{path}: counts has shape {e.shape}, nums {n.shape} and class_names {names.shape}; expected a symmetric "
            f"(q, q) and twice (q,)."
        )
    np.fill_diagonal(e, 0)
    return (e, n), tuple(str(name) for name in names)


def affinity(counts: Counts, strategy: str = "cgp", tau: float = 3.0) -> Table:
    r"""How strongly two labels pull each other into one part: by standing together, or by never doing so.

    $$ P^+ = \tfrac12 \big(S^{1/\tau} + (S^{1/\tau})^T\big), \quad P^- = 1 - P^+, \quad S_{kl} = e_{kl} / n_k $$

    with the root taken entry by entry.

    Source: Xu et al., CPSD, IJCAI 2022, Eq. (1), arXiv:2205.10986.
    Differs from the print: $P^-$ has the matrix of ones for the identity, from which nothing can be taken away
    without becoming negative. No label is joined to itself: the diagonal is 0 in both.

    Args:
        counts: (e, n) of `cooccurrence`.
        strategy: "cgp" for $P^+$ or "dgp" for $P^-$.
        tau: the root, > 0; a larger one lifts what is rare.

    Shape: e (q, q), n (q,); output (q, q) float64 in [0, 1], symmetric, zero diagonal. A label that never occurs has
    0 in $P^+$. Of sparse counts $P^+$ is sparse.

    Raises:
        ValueError: an unknown strategy, or `tau` is not above 0.
    """
    check_choice("strategy", strategy, GRAPHS)
    if not tau > 0:
        raise ValueError(f"`tau` is {tau}, expected a number above 0.")
    rooted = conditional_probability(*counts) ** (1 / tau)
    together = (rooted + rooted.T) / 2
    if strategy == "cgp":
        return together  # Eq. (1)
    apart = 1 - (together if isinstance(together, np.ndarray) else together.toarray())  # Eq. (1)
    np.fill_diagonal(apart, 0)
    return apart


def partition(
    counts: Counts, k: int, strategy: str = "cgp", tau: float = 3.0, seed: int = 0, *, as_in_paper: bool = False
) -> np.ndarray:
    r"""The labels in k parts: those that stand together ("cgp"), those that do not ("dgp"), or any ("random").

    $$ \hat F = \arg\min_F \operatorname{Trace}\big(F^T D^{-1/2} L D^{-1/2} F\big), \; F^T F = I,
       \quad L = D - P, \; D_{kk} = \sum_l P_{kl} $$

    whose solution is the k eigenvectors with the smallest eigenvalues; k-means on the rows of $\hat F$ gives the
    parts. "random" deals the labels out, so that no part has more than one label more than another.

    Source: Xu et al., CPSD, IJCAI 2022, Eq. (2) and Sec. 3.2, arXiv:2205.10986.
    Differs from the print by default: scikit-learn's spectral clustering divides the rows of $\hat F$ by
    $\sqrt{D_{kk}}$ before k-means. `as_in_paper=True` does not.

    Sparse counts never become a table of q x q: the eigenvectors come from products with P (Lanczos iteration). They
    are the same up to rounding, and so are the parts where the labels have clear ones.

    k-means starts at random, and where the labels have no clear parts another seed finds others: see `stability`.
    Labels that never occur have no place in a graph; each goes to the part that is smallest by then. The result
    follows the labels, not their order (where no two labels have the same counts).

    Args:
        counts: (e, n) of `cooccurrence`.
        k: how many parts.
        strategy: "cgp", "dgp" or "random".
        tau: as in `affinity`.
        seed: of k-means, or of the deal.
        as_in_paper: whether to take Eq. (2) as printed.

    Shape: e (q, q), n (q,); output (q,) int64, the part of each label. No part is empty; they are numbered in the
    order of their first labels.

    Raises:
        ValueError: an unknown strategy; k is below 1 or above the number of labels that occur.
    """
    check_choice("strategy", strategy, STRATEGIES)
    e, n = counts
    q, occurring = len(n), int((n > 0).sum())
    most = q if strategy == "random" or k == 1 else occurring
    if not 1 <= k <= most:
        raise ValueError(f"`k` is {k}, expected 1 to {most} parts of {q} labels, of which {occurring} occur.")
    e = sparse.csr_array(e) if sparse.issparse(e) else e
    order = np.array(sorted(range(q), key=lambda label: (n[label] == 0, n[label], *_meetings(e, label))))
    if strategy == "random":
        parts = np.random.default_rng(seed).permutation(np.arange(q) % k)
    else:
        kept = order[:occurring]
        parts = _clusters((e[kept][:, kept], n[kept]), k, strategy, tau, seed, as_in_paper)
        for _ in range(q - occurring):
            parts = np.append(parts, np.bincount(parts, minlength=k).argmin())
    found = np.empty(q, np.int64)
    found[order] = parts
    _, first, number = np.unique(found, return_index=True, return_inverse=True)
    return first.argsort().argsort()[number]


def _meetings(e: Table, label: int) -> list[int]:
    """How many labels stand with this one, and how often each does, in ascending order."""
    row = e.data[e.indptr[label] : e.indptr[label + 1]] if isinstance(e, sparse.csr_array) else e[label]
    return [np.count_nonzero(row), *np.sort(row[row > 0]).tolist()]


def _clusters(counts: Counts, k: int, strategy: str, tau: float, seed: int, as_in_paper: bool) -> np.ndarray:
    """Spectral clustering of the labels, (q,) in 0..k-1."""
    q = len(counts[1])
    if k == 1 or k == q:
        return np.arange(q) % k
    if sparse.issparse(counts[0]):
        return _clusters_by_products(affinity(counts, "cgp", tau), k, strategy, seed, as_in_paper)
    joined = affinity(counts, strategy, tau)
    if as_in_paper:
        scale = 1 / np.sqrt(np.maximum(joined.sum(axis=1), np.finfo(float).tiny))
        laplacian = np.eye(q) - scale[:, None] * joined * scale[None, :]  # D^-1/2 (D - P) D^-1/2
        _, vectors = np.linalg.eigh(laplacian)
        return KMeans(k, n_init=10, random_state=seed).fit_predict(vectors[:, :k])  # Eq. (2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Graph is not fully connected")  # labels that never meet another
        return spectral_clustering(joined, n_clusters=k, random_state=seed)


def _clusters_by_products(
    together: sparse.csr_array, k: int, strategy: str, seed: int, as_in_paper: bool
) -> np.ndarray:
    """The same from products with P alone, which need only the entries of $P^+$ (q, q) that are not 0."""
    q = together.shape[0]

    def joined(x: np.ndarray) -> np.ndarray:
        return together @ x if strategy == "cgp" else x.sum() - x - together @ x  # P x, Eq. (1)

    degree = joined(np.ones(q))
    scale = 1 / np.sqrt(np.where(degree > 1e-9, degree, 1))  # 1 for a label that is joined to none
    turned = LinearOperator((q, q), lambda x: x + scale * joined(scale * x), dtype=np.float64)  # 2 I - D^-1/2 L D^-1/2
    random = np.random.RandomState(seed)  # drawn from in the order of scikit-learn's spectral clustering
    _, vectors = eigsh(turned, k, which="LA", v0=random.uniform(-1, 1, q))  # largest here, smallest in Eq. (2)
    if as_in_paper:
        return KMeans(k, n_init=10, random_state=seed).fit_predict(vectors)
    return KMeans(k, n_init=10, random_state=random).fit_predict(scale[:, None] * vectors)


def cut_fraction(joined: Table, parts: np.ndarray) -> float:
    r"""How much of a label graph a partition cuts through: the share of its weight that joins labels of two parts.

    $$ \operatorname{cut} = \frac{\sum_{k, l : \text{part}(k) \ne \text{part}(l)} P_{kl}}{\sum_{k, l} P_{kl}} $$

    Args:
        joined: the graph, as `affinity` returns it.
        parts: as `partition` returns them.

    Shape: joined (q, q), parts (q,). Range: [0, 1]; 0 for one part, and for a graph without weight.
    """
    edges = sparse.coo_array(joined)
    total = float(edges.data.sum())
    return float(edges.data[parts[edges.row] != parts[edges.col]].sum()) / total if total else 0.0


class Stability(NamedTuple):
    """How far partitions of different seeds agree: adjusted Rand indices, 1 for the same, about 0 for chance."""

    mean: float
    min: float


def stability(counts: Counts, k: int, strategy: str = "cgp", tau: float = 3.0, seeds: int = 10) -> Stability:
    """Whether a partition says something of the labels or of the seed: the agreement of each two of several seeds.

    Args:
        counts, k, strategy, tau: as in `partition`.
        seeds: how many, at least 2.

    Raises:
        ValueError: as `partition`, or fewer than two seeds.
    """
    if seeds < 2:
        raise ValueError(f"`seeds` is {seeds}, expected at least 2 to compare.")
    found = [partition(counts, k, strategy, tau, seed) for seed in range(seeds)]
    agreement = [adjusted_rand_score(one, other) for one, other in combinations(found, 2)]
    return Stability(float(np.mean(agreement)), float(np.min(agreement)))
