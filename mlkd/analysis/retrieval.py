"""Image retrieval: nearest neighbors in feature space, and whether they share labels with the query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlkd.analysis.tables import mean_by_group
from mlkd.data import MultiLabelData
from mlkd.errors import check_choice
from mlkd.models import model_output
from mlkd.training.evaluate import iter_batches

KINDS = ("features", "embeddings")


def extract_features(
    model, data: MultiLabelData, kind: str = "features", indices: Sequence[int] | None = None
) -> np.ndarray:
    """One feature vector per image.

    Args:
        model: any model of `mlkd.models`.
        data: a split.
        kind: "features" for the globally averaged feature map, "embeddings" for the concatenated label-wise embeddings.
        indices: images of the split; None for all.

    Shape: output (N, D) or (N, q * d) float32.

    Raises:
        ValueError: an unknown kind; the model has no embeddings, or no common feature map (a merged teacher).
    """
    check_choice("kind", kind, KINDS)
    features = []
    for _, images in iter_batches(model, data, indices):
        output = model_output(model, images)
        vectors = output.features.mean(dim=(2, 3)) if kind == "features" else output.embeddings
        if vectors is None or not vectors.numel():
            raise ValueError(
                f"`kind` is {kind!r}, which this model with head {model.settings['head']!r} does not have; expected "
                f"{'features' if kind == 'embeddings' else 'embeddings'!r}."
            )
        features.append(vectors.flatten(1).float().cpu().numpy())
    return np.concatenate(features)


def nearest_neighbors(vectors: np.ndarray, queries: Sequence[int] | None = None, k: int = 5) -> np.ndarray:
    """The k other images nearest to each query by Euclidean distance, the nearest first (scikit-learn).

    Source: the retrieval of Yang et al., L2D, ICCV 2023, Sec. 4.3, and Wang et al., MSKD, AAAI 2025.

    Args:
        vectors: from `extract_features`.
        queries: indices of the queries; None for all images.
        k: number of neighbors, at most N - 1.

    Shape: vectors (N, D); output (queries, k) int64, indices of `vectors`, never the query itself.

    Raises:
        ValueError: k is not in 1..N-1.
    """
    from sklearn.neighbors import NearestNeighbors

    if not 1 <= k < len(vectors):
        raise ValueError(f"`k` is {k}, expected 1 to {len(vectors) - 1}, one less than the number of images.")
    indices = np.arange(len(vectors)) if queries is None else np.asarray(queries, np.int64)
    search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(vectors)
    neighbors = search.kneighbors(vectors[indices], return_distance=False)
    is_query = neighbors == indices[:, None]
    is_query[~is_query.any(axis=1), -1] = True  # more than k duplicates of the query: drop the last one instead
    return neighbors[~is_query].reshape(len(indices), k)


def retrieval_scores(targets: np.ndarray, neighbors: np.ndarray, queries: Sequence[int] | None = None) -> pd.DataFrame:
    r"""Precision@k and nDCG@k of the retrieved images.

    $$ P@k = \frac1k \sum_{r=1}^{k} [s_r > 0], \quad nDCG@k = \frac{DCG}{\text{the largest possible}}, \quad
       DCG = \sum_{r=1}^{k} \frac{s_r}{\log_2(r + 1)} $$

    where $s_r$ is the number of labels that the r-th image shares with the query.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, 2002 (nDCG), with the number of
    shared labels as gain.

    Args:
        targets: 0 or 1, of all images.
        neighbors: from `nearest_neighbors`.
        queries: indices of the queries; None for all images.

    Shape: targets (N, q), neighbors (queries, k).

    Returns:
        One row per query: `image` (its index), `precision` and `ndcg`, both in [0, 1]; nan for a query without labels,
        and nDCG nan where no other image shares a label.
    """
    indices = np.arange(len(targets)) if queries is None else np.asarray(queries, np.int64)
    y = targets.astype(np.float32)
    k = neighbors.shape[1]
    discount = 1 / np.log2(np.arange(2, k + 2))
    precision, ndcg = np.full(len(indices), np.nan), np.full(len(indices), np.nan)
    for start in range(0, len(indices), 1024):
        chunk = slice(start, start + 1024)
        shared = y[indices[chunk]] @ y.T
        shared[np.arange(len(shared)), indices[chunk]] = 0  # the query itself is not retrieved
        gains = np.take_along_axis(shared, neighbors[chunk], axis=1)  # s_r
        largest_gains = -np.sort(np.partition(-shared, k - 1, axis=1)[:, :k], axis=1)
        labelled = y[indices[chunk]].any(axis=1)
        precision[chunk] = np.where(labelled, (gains > 0).mean(axis=1), np.nan)
        ideal = largest_gains @ discount
        ndcg[chunk] = np.divide(gains @ discount, ideal, out=np.full(len(ideal), np.nan), where=ideal > 0)
    return pd.DataFrame({"image": indices, "precision": precision, "ndcg": ndcg})


def retrieval_table(
    vectors: Mapping[str, np.ndarray], targets: np.ndarray, k: int = 5, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Precision@k and nDCG@k of each run with every image as query, with 95 % bootstrap intervals over the queries.

    Args:
        vectors: title of a run -> `extract_features` of the same images.
        targets: (N, q), 0 or 1.
        k: number of retrieved images.
        resamples, seed: of the bootstrap.

    Returns:
        One row per run: `run`, `n` queries, `images`, then `precision` and `ndcg` with `_low` and `_high`.
    """
    scores = [
        retrieval_scores(targets, nearest_neighbors(features, k=k)).assign(run=run) for run, features in vectors.items()
    ]
    means = mean_by_group(pd.concat(scores), ("run",), ("precision", "ndcg"), resamples, seed)
    return means.set_index("run").loc[list(vectors)].reset_index()
