"""Label graphs against double loops, and against published counts."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import sparse

from mlkd import graphs
from mlkd.graphs import conditional, cooccurrence, seriation

matrices = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7), elements=st.integers(0, 1))


def slow_cooccurrence(targets: np.ndarray) -> tuple[list[list[int]], list[int]]:
    q = targets.shape[1]
    e, n = [[0] * q for _ in range(q)], [0] * q
    for row in targets:
        for k in range(q):
            n[k] += int(row[k])
            for other in range(q):
                e[k][other] += int(k != other and row[k] and row[other])
    return e, n


def test_documented_example() -> None:
    assert doctest.testmod(graphs).failed == 0


class TestCooccurrence:
    @given(matrices)
    def test_against_loops(self, targets: np.ndarray) -> None:
        e, n = cooccurrence(targets)
        assert (e.tolist(), n.tolist()) == slow_cooccurrence(targets)
        assert e.dtype == n.dtype == np.int64
        assert np.array_equal(e, e.T)
        assert not e.diagonal().any()

    @given(matrices, st.sampled_from([sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.coo_array]))
    @settings(max_examples=40)
    def test_sparse(self, targets: np.ndarray, kind: type) -> None:
        for found, expected in zip(cooccurrence(kind(targets)), cooccurrence(targets), strict=True):
            assert isinstance(found, np.ndarray)
            assert found.dtype == np.int64
            assert np.array_equal(found, expected)

    @pytest.mark.parametrize("dtype", [bool, np.int8, np.float32])
    def test_more_than_255_pictures(self, dtype: type) -> None:
        """Small integers must not wrap around."""
        e, n = cooccurrence(np.ones((70_000, 2), dtype))
        assert e.tolist() == [[0, 70_000], [70_000, 0]]
        assert n.tolist() == [70_000, 70_000]
        e, _ = cooccurrence(sparse.csr_array(np.ones((300, 2), np.uint8)))
        assert e[0, 1] == 300

    def test_input_stays(self) -> None:
        targets = np.array([[1, 1], [0, 1]], np.uint8)
        cooccurrence(targets)
        assert targets.tolist() == [[1, 1], [0, 1]]

    def test_published_counts(self, real_data: Path) -> None:
        """CPSD's own counts of COCO 2014, and ours from an independent list of its labels."""
        folder = real_data / "labels"
        if not (folder / "coco_adj.npz").is_file():
            pytest.skip("no published counts: labels/coco_adj.npz is not in MLKD_TEST_DATA")
        labels, published = np.load(folder / "coco2014_labels.npz"), np.load(folder / "coco_adj.npz")
        order = labels["alphabetical_order"]
        assert labels["class_names"][order].tolist() == published["class_names"].tolist()
        targets = labels["train_labels"][:, order]
        for kind in (np.asarray, sparse.csr_array):
            e, n = cooccurrence(kind(targets))
            assert np.array_equal(e, published["counts"])
            assert np.array_equal(n, published["nums"])


class TestConditional:
    def test_by_hand(self) -> None:
        """Of three pictures with label 0, two have label 1; label 2 never occurs."""
        e, n = cooccurrence(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]]))
        assert conditional(e, n).tolist() == [[0, 2 / 3, 0], [2 / 4, 0, 0], [0, 0, 0]]

    @given(matrices)
    def test_rows(self, targets: np.ndarray) -> None:
        e, n = cooccurrence(targets)
        p = conditional(e, n)
        assert ((p >= 0) & (p <= 1)).all()
        assert not p.diagonal().any()
        for k in range(len(n)):
            for other in range(len(n)):
                if k != other and n[k]:
                    assert p[k, other] == targets[targets[:, k] == 1, other].mean()
            if not n[k]:
                assert not p[k].any()


class TestSeriation:
    @given(matrices)
    def test_a_permutation(self, targets: np.ndarray) -> None:
        order = seriation(*cooccurrence(targets))
        assert sorted(order.tolist()) == list(range(targets.shape[1]))

    @pytest.mark.parametrize("seed", range(5))
    def test_two_communities(self, seed: int) -> None:
        """Labels of even and of odd number never meet; the order has one kind first and then the other."""
        rng = np.random.default_rng(seed)
        targets = (rng.random((200, 10)) < 0.6).astype(np.uint8)
        targets[:100, ::2] = 0
        targets[100:, 1::2] = 0
        parity = [int(k) % 2 for k in seriation(*cooccurrence(targets))]
        assert parity in ([0] * 5 + [1] * 5, [1] * 5 + [0] * 5)

    def test_a_chain(self) -> None:
        """Each label meets only its neighbours: the order is the chain, from either end."""
        chain = [3, 0, 4, 1, 2]
        targets = np.zeros((40, 5), np.uint8)
        for position in range(4):
            targets[10 * position : 10 * position + 10, chain[position : position + 2]] = 1
        order = seriation(*cooccurrence(targets)).tolist()
        assert order in (chain, chain[::-1])
