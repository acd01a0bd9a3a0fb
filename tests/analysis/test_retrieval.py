"""Retrieval: neighbors and scores against loops over all images."""

from __future__ import annotations

import time
from math import log2

import numpy as np
import pytest
import torch

from mlkd.analysis import extract_features, nearest_neighbors, retrieval_scores, retrieval_table
from mlkd.data import MultiLabelData
from mlkd.models import MergedTeacher, MultiLabelModel, create_model

Data = dict[str, MultiLabelData]
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(30, 6)).astype(np.float32)
TARGETS = (RNG.random((30, 5)) < 0.3).astype(np.uint8)


def slow_nearest(vectors: np.ndarray, query: int, k: int) -> list[int]:
    distance = {i: sum((vectors[i] - vectors[query]) ** 2) for i in range(len(vectors)) if i != query}
    return sorted(distance, key=lambda i: distance[i])[:k]


def slow_scores(targets: np.ndarray, query: int, neighbors: list[int]) -> tuple[float, float]:
    shared = [sum(a * b for a, b in zip(targets[query], targets[i], strict=True)) for i in range(len(targets))]
    ideal = sorted((s for i, s in enumerate(shared) if i != query), reverse=True)[: len(neighbors)]
    gain = sum(shared[i] / log2(rank + 2) for rank, i in enumerate(neighbors))
    best = sum(s / log2(rank + 2) for rank, s in enumerate(ideal))
    return sum(shared[i] > 0 for i in neighbors) / len(neighbors), gain / best if best else float("nan")


@pytest.mark.parametrize("k", [1, 5, 29])
def test_scores_against_loops(k: int) -> None:
    neighbors = nearest_neighbors(VECTORS, k=k)
    scores = retrieval_scores(TARGETS, neighbors)
    for query in range(30):
        assert neighbors[query].tolist() == slow_nearest(VECTORS, query, k)
        expected = slow_scores(TARGETS.astype(int), query, neighbors[query].tolist())
        if TARGETS[query].any():
            assert scores.loc[query, ["precision", "ndcg"]].tolist() == pytest.approx(expected, nan_ok=True)
        else:
            assert scores.loc[query, ["precision", "ndcg"]].isna().all()
    assert 0 < TARGETS.any(axis=1).sum() < 30


def test_subset_of_queries() -> None:
    queries = [7, 0, 29]
    neighbors = nearest_neighbors(VECTORS, queries)
    np.testing.assert_array_equal(neighbors, nearest_neighbors(VECTORS)[queries])
    subset, full = retrieval_scores(TARGETS, neighbors, queries), retrieval_scores(TARGETS, nearest_neighbors(VECTORS))
    assert subset["image"].tolist() == queries
    np.testing.assert_allclose(subset["ndcg"], full["ndcg"][queries])


def test_query_with_duplicates() -> None:
    neighbors = nearest_neighbors(np.zeros((8, 2)), k=3)
    assert neighbors.shape == (8, 3)
    assert not (neighbors == np.arange(8)[:, None]).any()


def test_invalid_k_gives_one_line_error() -> None:
    with pytest.raises(ValueError, match="`k` is 5, expected 1 to 4"):
        nearest_neighbors(VECTORS[:5])
    with pytest.raises(ValueError, match="expected 1 to 0"):
        nearest_neighbors(VECTORS[:1])


def test_table_has_the_means_over_queries() -> None:
    table = retrieval_table({"b": VECTORS, "a": -VECTORS, "c": TARGETS.astype(np.float32)}, TARGETS)
    assert table["run"].tolist() == ["b", "a", "c"]
    assert table["ndcg"][0] == pytest.approx(table["ndcg"][1])
    scores = retrieval_scores(TARGETS, nearest_neighbors(VECTORS))
    assert table["precision"][0] == pytest.approx(scores["precision"].mean())
    assert table["ndcg"][0] == pytest.approx(scores["ndcg"].mean())
    assert table["ndcg"][2] > table["ndcg"][0]
    assert (table["ndcg_low"] < table["ndcg"]).all()


class TestFeatures:
    def test_features_and_embeddings(self, toy_data: Data, toy_teacher: MultiLabelModel, own_cache) -> None:
        data = toy_data["val"]
        images = torch.from_numpy(data.images[np.arange(40)]).permute(0, 3, 1, 2)
        toy_teacher.train()
        pooled, label_wise = extract_features(toy_teacher, data), extract_features(toy_teacher, data, "embeddings")
        assert toy_teacher.training
        toy_teacher.eval()
        with torch.no_grad():
            output = toy_teacher(images)
        for row in (0, 39):
            expected = [output.features[row, d].mean().item() for d in range(24)]
            np.testing.assert_allclose(pooled[row], expected, atol=1e-5)
            np.testing.assert_allclose(label_wise[row], output.embeddings[row].flatten(), atol=1e-5)
        np.testing.assert_allclose(extract_features(toy_teacher, data, indices=[3, 1]), pooled[[3, 1]], atol=1e-5)

    def test_model_without_the_features(self, toy_data: Data, toy_teacher: MultiLabelModel, own_cache) -> None:
        plain = create_model("resnet8_cifar", toy_teacher.classes, "gap", image_size=32)
        with pytest.raises(ValueError, match=r"'embeddings', which this model with head 'gap'.*expected 'features'"):
            extract_features(plain, toy_data["val"], "embeddings")
        with pytest.raises(ValueError, match="Did you mean 'features'"):
            extract_features(plain, toy_data["val"], "feature")
        submodels = [
            create_model("resnet8_cifar", classes, image_size=32, embed_dim=8, stem_stride=stride)
            for stride, classes in ((1, toy_teacher.classes[:2]), (2, toy_teacher.classes[2:]))
        ]
        merged = MergedTeacher(submodels, toy_teacher.classes)
        assert extract_features(merged, toy_data["val"], "embeddings").shape == (40, 32)
        with pytest.raises(ValueError, match="expected 'embeddings'"):
            extract_features(merged, toy_data["val"])


def test_fast_enough_for_a_widget() -> None:
    vectors, targets = RNG.normal(size=(1000, 512)).astype(np.float32), (RNG.random((1000, 20)) < 0.2).astype(np.uint8)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        retrieval_scores(targets, nearest_neighbors(vectors))
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
