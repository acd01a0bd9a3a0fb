"""Pictures that a network finds alike, and whether they share labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlkd.analysis.tables import mean_by_group
from mlkd.data import MultiLabelData
from mlkd.errors import check_choice
from mlkd.training.evaluate import iter_batches, model_output

KINDS = ("features", "embeddings")


def extract_features(
    model, data: MultiLabelData, kind: str = "features", rows: Sequence[int] | None = None
) -> np.ndarray:
    """Each picture as one vector.

    Args:
        model: any model of `mlkd.models`.
        data: a split.
        kind: "features" for the mean over the cells of the feature map, "embeddings" for the label-wise embeddings
            one after the other.
        rows: which pictures; all of them for None.

    Shape: output (N, D) or (N, q * d) float32.

    Raises:
        ValueError: an unknown kind; the model has no embeddings, or (a merged teacher) no common feature map.
    """
    check_choice("kind", kind, KINDS)
    found = []
    for _, images in iter_batches(model, data, rows):
        output = model_output(model, images)
        vectors = output.features.mean(dim=(2, 3)) if kind == "features" else output.embeddings
        if vectors is None or not vectors.numel():
            raise ValueError(
                f"`kind` is {kind!r}, which this model with head {model.settings['head']!r} does not have; expected "
                f"{'features' if kind == 'embeddings' else 'embeddings'!r}."
            )
        found.append(vectors.flatten(1).float().cpu().numpy())
    return np.concatenate(found)


def nearest_neighbors(vectors: np.ndarray, queries: Sequence[int] | None = None, k: int = 5) -> np.ndarray:
    """The k other pictures nearest to each query, by Euclidean distance, the nearest first (scikit-learn).

    Source: the retrieval of Yang et al., L2D, ICCV 2023, Sec. 4.3, and Xu et al., MSKD, AAAI 2025.

    Args:
        vectors: as `representations` returns them.
        queries: rows; all of them for None.
        k: how many, at most N - 1.

    Shape: vectors (N, D); output (queries, k) int64, rows of `vectors`, never the query itself.

    Raises:
        ValueError: k is not in 1..N-1.
    """
    from sklearn.neighbors import NearestNeighbors

    if not 1 <= k < len(vectors):
        raise ValueError(f"`k` is {k}, expected 1 to {len(vectors) - 1}: one less than there are pictures.")
    rows = np.arange(len(vectors)) if queries is None else np.asarray(queries, np.int64)
    search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(vectors)
    found = search.kneighbors(vectors[rows], return_distance=False)
    itself = found == rows[:, None]
    itself[~itself.any(axis=1), -1] = True  # more than k copies of the query: any k of them
    return found[~itself].reshape(len(rows), k)


def retrieval_scores(targets: np.ndarray, neighbors: np.ndarray, queries: Sequence[int] | None = None) -> pd.DataFrame:
    r"""How many labels the pictures found share with the query.

    $$ P@k = \frac1k \sum_{r=1}^{k} [s_r > 0], \quad nDCG@k = \frac{DCG}{\text{the largest possible}}, \quad
       DCG = \sum_{r=1}^{k} \frac{s_r}{\log_2(r + 1)} $$

    where $s_r$ is the number of labels that the r-th picture shares with the query.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, 2002 (nDCG), with the number of
    shared labels as gain.

    Args:
        targets: 0 or 1, of all pictures.
        neighbors: as `nearest_neighbors` returns them.
        queries: the rows they belong to; all of them for None.

    Shape: targets (N, q), nearest (queries, k).

    Returns:
        One row per query: `image` (its row), `precision` and `ndcg`, both in [0, 1]; nan for a query without labels,
        and nDCG nan where no other picture shares one.
    """
    rows = np.arange(len(targets)) if queries is None else np.asarray(queries, np.int64)
    y = targets.astype(np.float32)
    k = neighbors.shape[1]
    discount = 1 / np.log2(np.arange(2, k + 2))
    precision, ndcg = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for start in range(0, len(rows), 1024):
        part = slice(start, start + 1024)
        shared = y[rows[part]] @ y.T
        shared[np.arange(len(shared)), rows[part]] = 0  # a picture is not found by itself
        gains = np.take_along_axis(shared, neighbors[part], axis=1)
        ideal = -np.sort(np.partition(-shared, k - 1, axis=1)[:, :k], axis=1)
        labelled = y[rows[part]].any(axis=1)
        precision[part] = np.where(labelled, (gains > 0).mean(axis=1), np.nan)
        best = ideal @ discount
        ndcg[part] = np.divide(gains @ discount, best, out=np.full(len(best), np.nan), where=best > 0)
    return pd.DataFrame({"image": rows, "precision": precision, "ndcg": ndcg})


def retrieval_table(
    vectors: Mapping[str, np.ndarray], targets: np.ndarray, k: int = 5, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Each run's precision@k and nDCG@k, every picture once the query, with 95 % intervals over the queries.

    Args:
        vectors: title of a run -> its `representations` of the same pictures.
        targets: (N, q), 0 or 1.
        k, resamples, seed: pictures found, and the bootstrap's.

    Returns:
        One row per run: `run`, `n` queries, `images`, then `precision` and `ndcg` with `_low` and `_high`.
    """
    tables = [
        retrieval_scores(targets, nearest_neighbors(found, k=k)).assign(run=run) for run, found in vectors.items()
    ]
    means = mean_by_group(pd.concat(tables), ("run",), ("precision", "ndcg"), resamples, seed)
    return means.set_index("run").loc[list(vectors)].reset_index()
