"""Label graphs against loops and published counts."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import sparse
from sklearn.cluster import KMeans

from mlkd.graphs import (
    STRATEGIES,
    affinity,
    conditional_probability,
    cooccurrence,
    cut_fraction,
    load_cooccurrence,
    partition,
    seriation,
    stability,
)

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
        e, n = cooccurrence(kind(targets))
        expected = cooccurrence(targets)
        assert isinstance(e, sparse.csr_array)
        assert e.dtype == n.dtype == np.int64
        assert e.nnz == np.count_nonzero(expected[0])  # a pair that never occurs is not stored
        assert np.array_equal(e.toarray(), expected[0])
        assert np.array_equal(n, expected[1])

    @pytest.mark.parametrize("dtype", [bool, np.int8, np.float32])
    def test_more_than_255_images(self, dtype: type) -> None:
        """Small integers must not wrap around."""
        e, n = cooccurrence(np.ones((70_000, 2), dtype))
        assert e.tolist() == [[0, 70_000], [70_000, 0]]
        assert n.tolist() == [70_000, 70_000]
        e, _ = cooccurrence(sparse.csr_array(np.ones((300, 2), np.uint8)))
        assert e[0, 1] == 300

    def test_input_is_not_changed(self) -> None:
        targets = np.array([[1, 1], [0, 1]], np.uint8)
        cooccurrence(targets)
        assert targets.tolist() == [[1, 1], [0, 1]]

    def test_invalid_files(self, tmp_path: Path) -> None:
        np.save(tmp_path / "counts.npy", np.eye(2))
        np.savez(tmp_path / "nameless.npz", counts=np.eye(2), nums=np.ones(2))
        (tmp_path / "truncated.npz").write_bytes((tmp_path / "nameless.npz").read_bytes()[:100])
        for name in ("counts.npy", "nameless.npz", "truncated.npz", "absent.npz"):
            with pytest.raises(ValueError, match=rf"{name}.*expected an .npz file with counts \(q, q\)"):
                load_cooccurrence(tmp_path / name)

    def test_published_counts(self, real_data: Path) -> None:
        """The published counts of CPSD for COCO 2014, and ours from an independent list of its labels."""
        folder = real_data / "labels"
        if not (folder / "coco_adj.npz").is_file():
            pytest.skip("no published counts: labels/coco_adj.npz is not in MLKD_TEST_DATA")
        labels, published = np.load(folder / "coco2014_labels.npz"), np.load(folder / "coco_adj.npz")
        order = labels["alphabetical_order"]
        assert labels["class_names"][order].tolist() == published["class_names"].tolist()
        targets = labels["train_labels"][:, order]
        e, n = cooccurrence(targets)
        assert np.array_equal(e, published["counts"])
        assert np.array_equal(n, published["nums"])
        e, n = cooccurrence(sparse.csr_array(targets))
        assert np.array_equal(e.toarray(), published["counts"])
        assert np.array_equal(n, published["nums"])


class TestConditional:
    def test_by_hand(self) -> None:
        """Of three images with label 0, two have label 1; label 2 never occurs."""
        e, n = cooccurrence(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]]))
        assert conditional_probability(e, n).tolist() == [[0, 2 / 3, 0], [2 / 4, 0, 0], [0, 0, 0]]

    @given(matrices)
    def test_rows(self, targets: np.ndarray) -> None:
        e, n = cooccurrence(targets)
        p = conditional_probability(e, n)
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
        """Even and odd labels never co-occur; the order has one group first and then the other."""
        rng = np.random.default_rng(seed)
        targets = (rng.random((200, 10)) < 0.6).astype(np.uint8)
        targets[:100, ::2] = 0
        targets[100:, 1::2] = 0
        parity = [int(k) % 2 for k in seriation(*cooccurrence(targets))]
        assert parity in ([0] * 5 + [1] * 5, [1] * 5 + [0] * 5)

    def test_a_chain(self) -> None:
        """Each label co-occurs with its neighbors only: the order is the chain, from either end."""
        chain = [3, 0, 4, 1, 2]
        targets = np.zeros((40, 5), np.uint8)
        for position in range(4):
            targets[10 * position : 10 * position + 10, chain[position : position + 2]] = 1
        order = seriation(*cooccurrence(targets)).tolist()
        assert order in (chain, chain[::-1])


def slow_affinity(e: np.ndarray, n: np.ndarray, strategy: str, tau: float) -> np.ndarray:
    """Eq. (1), entry by entry."""
    q = len(n)
    result = np.zeros((q, q))
    for k in range(q):
        for other in range(q):
            if k == other:
                continue
            forward = (e[k, other] / n[k]) ** (1 / tau) if n[k] else 0.0
            backward = (e[other, k] / n[other]) ** (1 / tau) if n[other] else 0.0
            result[k, other] = (forward + backward) / 2 if strategy == "cgp" else 1 - (forward + backward) / 2
    return result


def groups(clusters: np.ndarray) -> set[frozenset[int]]:
    """A partition as a set of sets of labels."""
    return {frozenset(np.flatnonzero(clusters == number).tolist()) for number in np.unique(clusters)}


def communities(sizes: list[int], inside: float = 0.8, outside: float = 0.05, seed: int = 0) -> np.ndarray:
    """Images of one community each: its labels are frequent in them, all others rare."""
    rng = np.random.default_rng(seed)
    member = np.repeat(np.arange(len(sizes)), sizes)
    where = rng.integers(len(sizes), size=600)
    return (rng.random((600, len(member))) < np.where(member == where[:, None], inside, outside)).astype(np.uint8)


class TestAffinity:
    def test_by_hand(self) -> None:
        """Label 0 is in 8 images, one of them with label 1, its only one: S = 1/8 and 1, cube roots 1/2 and 1."""
        counts = cooccurrence(np.array([[1, 1, 0]] + [[1, 0, 0]] * 7))
        assert affinity(counts) == pytest.approx(np.array([[0, 0.75, 0], [0.75, 0, 0], [0, 0, 0]]))
        assert affinity(counts, "dgp") == pytest.approx(np.array([[0, 0.25, 1], [0.25, 0, 1], [1, 1, 0]]))
        assert affinity(counts, tau=1)[0, 1] == pytest.approx(9 / 16)

    @given(matrices, st.sampled_from(["cgp", "dgp"]), st.sampled_from([1.0, 2.0, 3.0, 7.5]))
    def test_against_loops(self, targets: np.ndarray, strategy: str, tau: float) -> None:
        e, n = cooccurrence(targets)
        p = affinity((e, n), strategy, tau)
        np.testing.assert_allclose(p, slow_affinity(e, n, strategy, tau), rtol=1e-12, atol=1e-15)
        assert np.array_equal(p, p.T)
        assert ((p >= 0) & (p <= 1)).all()
        assert not p.diagonal().any()

    @given(matrices, st.sampled_from([1.0, 3.0]))
    def test_sparse(self, targets: np.ndarray, tau: float) -> None:
        counts, sparse_counts = cooccurrence(targets), cooccurrence(sparse.csr_array(targets))
        p = affinity(sparse_counts, "cgp", tau)
        assert isinstance(p, sparse.csr_array)
        np.testing.assert_allclose(p.toarray(), affinity(counts, "cgp", tau), rtol=1e-12)
        np.testing.assert_allclose(affinity(sparse_counts, "dgp", tau), affinity(counts, "dgp", tau), rtol=1e-12)

    def test_invalid_arguments_give_one_line_errors(self) -> None:
        counts = cooccurrence(np.eye(3, dtype=np.uint8))
        with pytest.raises(ValueError, match="`strategy` is 'random', expected one of cgp, dgp"):
            affinity(counts, "random")
        for tau in (0, -1, float("nan")):
            with pytest.raises(ValueError, match=f"`tau` is {tau}"):
                affinity(counts, tau=tau)


each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
spectral = pytest.mark.parametrize(
    ("strategy", "as_in_paper"), [("cgp", False), ("cgp", True), ("dgp", False), ("dgp", True)]
)


class TestPartition:
    @given(matrices, st.sampled_from(STRATEGIES), st.booleans(), st.integers(0, 3), st.data())
    @settings(max_examples=60)
    def test_is_a_partition(
        self, targets: np.ndarray, strategy: str, as_in_paper: bool, seed: int, data: st.DataObject
    ) -> None:
        counts = cooccurrence(targets)
        k = data.draw(st.integers(1, max(len(counts[1]) if strategy == "random" else int((counts[1] > 0).sum()), 1)))
        clusters = partition(counts, k, strategy, seed=seed, as_in_paper=as_in_paper)
        assert clusters.shape == (targets.shape[1],)
        assert clusters.dtype == np.int64
        firsts = [np.flatnonzero(clusters == number)[0] for number in range(k)]  # fails if a cluster is empty
        assert firsts == sorted(firsts)
        assert clusters.max() == k - 1
        assert np.array_equal(clusters, partition(counts, k, strategy, seed=seed, as_in_paper=as_in_paper))

    @pytest.mark.parametrize("as_in_paper", [False, True])
    @pytest.mark.parametrize("seed", range(3))
    def test_cgp_groups_labels_that_cooccur(self, as_in_paper: bool, seed: int) -> None:
        counts = cooccurrence(communities([4, 3, 5]))
        clusters = partition(counts, 3, "cgp", seed=seed, as_in_paper=as_in_paper)
        assert clusters.tolist() == [0] * 4 + [1] * 3 + [2] * 5

    @pytest.mark.parametrize("as_in_paper", [False, True])
    @pytest.mark.parametrize("seed", range(3))
    def test_dgp_groups_labels_that_do_not_cooccur(self, as_in_paper: bool, seed: int) -> None:
        """Each image has one label of 0 to 3 and one of 4 to 8."""
        rng = np.random.default_rng(0)
        targets = np.zeros((600, 9), np.uint8)
        targets[np.arange(600), rng.integers(0, 4, 600)] = 1
        targets[np.arange(600), rng.integers(4, 9, 600)] = 1
        clusters = partition(cooccurrence(targets), 2, "dgp", seed=seed, as_in_paper=as_in_paper)
        assert clusters.tolist() == [0] * 4 + [1] * 5

    @spectral
    @given(order=st.permutations(range(12)), k=st.integers(1, 5))
    @settings(max_examples=15)
    def test_order_of_the_labels_does_not_matter(
        self, strategy: str, as_in_paper: bool, order: list[int], k: int
    ) -> None:
        e, n = cooccurrence(communities([4, 3, 5], 0.5, 0.2, seed=1))
        expected = groups(partition((e, n), k, strategy, as_in_paper=as_in_paper))
        permuted = partition((e[np.ix_(order, order)], n[order]), k, strategy, as_in_paper=as_in_paper)
        assert {frozenset(order[label] for label in group) for group in groups(permuted)} == expected

    @given(order=st.permutations(range(12)))
    @settings(max_examples=15)
    def test_order_of_the_labels_does_not_matter_at_random(self, order: list[int]) -> None:
        e, n = cooccurrence(communities([4, 3, 5], 0.5, 0.2, seed=1))
        permuted = partition((e[np.ix_(order, order)], n[order]), 5, "random")
        expected = groups(partition((e, n), 5, "random"))
        assert {frozenset(order[label] for label in group) for group in groups(permuted)} == expected

    @pytest.mark.parametrize("strategy", ["cgp", "dgp"])
    @pytest.mark.parametrize("seed", range(3))
    def test_as_in_paper_against_the_equation(self, strategy: str, seed: int) -> None:
        """Eq. (2) in loops, on labels without clear clusters, sorted by frequency."""
        targets = communities([4, 3, 5], 0.5, 0.3, seed=21)
        e, n = cooccurrence(targets[:, targets.sum(axis=0).argsort()])
        assert len(set(n.tolist())) == len(n)
        p = slow_affinity(e, n, strategy, 3)
        degree = [sum(row) for row in p]
        laplacian = [
            [((k == other) * degree[k] - p[k, other]) / math.sqrt(degree[k] * degree[other]) for other in range(12)]
            for k in range(12)
        ]
        values, vectors = scipy.linalg.eig(laplacian)
        smallest = vectors[:, values.real.argsort()[:4]].real
        expected = KMeans(4, n_init=10, random_state=seed).fit_predict(smallest)
        assert groups(partition((e, n), 4, strategy, seed=seed, as_in_paper=True)) == groups(expected)

    @spectral
    @pytest.mark.parametrize("seed", range(3))
    def test_sparse_counts(self, strategy: str, as_in_paper: bool, seed: int) -> None:
        """The same partition as for dense counts, also without clear clusters."""
        absent = np.zeros((600, 1), np.uint8)
        for sizes, inside, outside in ([4, 3, 5], 0.8, 0.05), ([14, 13, 25], 0.5, 0.2), ([20] * 5, 0.3, 0.05):
            targets = np.hstack([absent, communities(sizes, inside, outside, seed=1)])
            for k in (1, 3, 5):
                clusters = partition(
                    cooccurrence(sparse.csr_array(targets)), k, strategy, seed=seed, as_in_paper=as_in_paper
                )
                expected = partition(cooccurrence(targets), k, strategy, seed=seed, as_in_paper=as_in_paper)
                assert np.array_equal(clusters, expected)

    @spectral
    def test_sparse_counts_of_labels_that_cooccur_with_none_or_all(self, strategy: str, as_in_paper: bool) -> None:
        for targets in (np.eye(6), np.ones((4, 6)), np.tril(np.ones((6, 6)))):
            clusters = partition(cooccurrence(sparse.csr_array(targets)), 3, strategy, as_in_paper=as_in_paper)
            assert sorted(set(clusters.tolist())) == [0, 1, 2]

    @spectral
    def test_sparse_counts_are_not_made_dense(
        self, strategy: str, as_in_paper: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For 10,000 labels the dense matrix takes 800 MB."""
        counts = cooccurrence(sparse.csr_array(communities([14, 13, 25])))

        def fail(self, *_, **__) -> None:
            raise AssertionError

        for name in ("toarray", "todense"):
            monkeypatch.setattr(sparse.csr_array, name, fail)
        assert partition(counts, 3, strategy, as_in_paper=as_in_paper).max() == 2

    @pytest.mark.parametrize("k", [1, 2, 3, 5, 9, 12])
    def test_random_subsets_have_equal_sizes(self, k: int) -> None:
        counts = cooccurrence(communities([4, 3, 5]))
        partitions = [partition(counts, k, "random", seed=seed) for seed in range(5)]
        for clusters in partitions:
            sizes = np.bincount(clusters)
            assert sizes.max() - sizes.min() <= 1
        assert len({clusters.tobytes() for clusters in partitions}) == (1 if k in (1, 12) else 5)

    @each_strategy
    def test_one_subset_and_one_subset_per_label(self, strategy: str) -> None:
        counts = cooccurrence(communities([2, 3]))
        assert partition(counts, 1, strategy).tolist() == [0] * 5
        assert partition(counts, 5, strategy).tolist() == [0, 1, 2, 3, 4]

    @spectral
    def test_labels_that_never_occur_do_not_change_the_others(self, strategy: str, as_in_paper: bool) -> None:
        targets = communities([4, 3, 5])
        expected = partition(cooccurrence(targets), 3, strategy, as_in_paper=as_in_paper)
        absent = np.zeros((600, 1), np.uint8)
        clusters = partition(cooccurrence(np.hstack([absent, targets, absent])), 3, strategy, as_in_paper=as_in_paper)
        assert groups(clusters[1:-1]) == groups(expected)
        smallest = np.bincount(clusters[1:-1]).min()
        sizes = np.bincount(clusters[1:-1])
        assert smallest in (sizes[clusters[0]], sizes[clusters[-1]])
        assert partition(cooccurrence(np.zeros((5, 3), np.uint8)), 1, strategy).tolist() == [0, 0, 0]

    @spectral
    def test_labels_that_never_cooccur(self, strategy: str, as_in_paper: bool) -> None:
        """Without a single pair there are still k label subsets."""
        clusters = partition(cooccurrence(np.eye(6, dtype=np.uint8)), 3, strategy, as_in_paper=as_in_paper)
        assert sorted(set(clusters.tolist())) == [0, 1, 2]

    def test_invalid_arguments_give_one_line_errors(self) -> None:
        counts = cooccurrence(np.array([[1, 1, 1, 0], [0, 1, 1, 0]]))
        with pytest.raises(ValueError, match="Did you mean 'cgp'"):
            partition(counts, 2, "cgd")
        for k in (0, -1, 5):
            with pytest.raises(ValueError, match=f"`k` is {k}, expected 1 to 4 label subsets of 4 labels"):
                partition(counts, k, "random")
        for strategy in ("cgp", "dgp"):
            with pytest.raises(
                ValueError, match="`k` is 4, expected 1 to 3 label subsets of 4 labels, of which 3 occur"
            ):
                partition(counts, 4, strategy)


class TestCut:
    @given(matrices, st.integers(0, 5))
    def test_against_loops(self, targets: np.ndarray, seed: int) -> None:
        p = affinity(cooccurrence(targets))
        q = len(p)
        clusters = np.random.default_rng(seed).integers(0, 3, q)
        between = total = 0.0
        for k in range(q):
            for other in range(q):
                total += p[k, other]
                between += p[k, other] if clusters[k] != clusters[other] else 0
        expected = between / total if total else 0
        assert cut_fraction(p, clusters) == pytest.approx(expected)
        assert cut_fraction(sparse.csr_array(p), clusters) == pytest.approx(expected)

    def test_limits(self) -> None:
        pairs = np.kron(np.eye(2), 1 - np.eye(2))  # edges between labels 0 and 1, and 2 and 3
        assert cut_fraction(pairs, np.array([0, 0, 1, 1])) == 0
        assert cut_fraction(pairs, np.array([0, 1, 0, 1])) == 1
        assert cut_fraction(pairs, np.array([0, 0, 0, 1])) == 1 / 2
        assert cut_fraction(pairs, np.zeros(4, int)) == 0
        assert cut_fraction(np.zeros((3, 3)), np.arange(3)) == 0

    def test_communities_are_not_cut(self) -> None:
        counts = cooccurrence(communities([5, 5]))
        cuts = {name: cut_fraction(affinity(counts), partition(counts, 2, name)) for name in STRATEGIES}
        assert cuts["cgp"] < cuts["random"]
        assert cuts["cgp"] < cuts["dgp"]


class TestStability:
    def test_clear_clusters(self) -> None:
        assert stability(cooccurrence(communities([4, 3, 5])), 3) == (1.0, 1.0)

    def test_against_pairs(self) -> None:
        """The adjusted Rand index from its definition: agreeing pairs of labels, above chance."""
        counts = cooccurrence(communities([4, 3, 5]))

        def index(x: np.ndarray, y: np.ndarray) -> float:
            pairs = list(combinations(range(len(x)), 2))
            both = sum(x[a] == x[b] and y[a] == y[b] for a, b in pairs)
            in_x, in_y = (sum(clusters[a] == clusters[b] for a, b in pairs) for clusters in (x, y))
            chance = in_x * in_y / len(pairs)
            return (both - chance) / ((in_x + in_y) / 2 - chance)

        partitions = [partition(counts, 3, "random", seed=seed) for seed in range(4)]
        values = [index(x, y) for x, y in combinations(partitions, 2)]
        result = stability(counts, 3, "random", seeds=4)
        assert (result.mean, result.min) == pytest.approx((np.mean(values), min(values)))
        assert result.min < result.mean < 0.5

    def test_needs_two_seeds(self) -> None:
        with pytest.raises(ValueError, match="`seeds` is 1"):
            stability(cooccurrence(communities([2, 2])), 2, seeds=1)

    @pytest.mark.parametrize("name", ["coco", "nuswide"])
    def test_published_counts(self, name: str, real_data: Path) -> None:
        """On real labels the seed matters little for the graph "cgp" and much for "dgp", at k = 5."""
        path = real_data / "labels" / f"{name}_adj.npz"
        if not path.is_file():
            pytest.skip(f"no published counts: labels/{path.name} is not in MLKD_TEST_DATA")
        with np.load(path) as file:
            counts = file["counts"].astype(np.int64), file["nums"].astype(np.int64)
        agreement = {(strategy, k): stability(counts, k, strategy) for strategy in ("cgp", "dgp") for k in (3, 5)}
        assert agreement["cgp", 3].mean > 0.9
        assert agreement["cgp", 5].mean > 0.75
        assert agreement["dgp", 5].mean < 0.7
        assert agreement["dgp", 5].mean < agreement["cgp", 5].mean - 0.2


class TestLoadCooccurrence:
    def test_loads_the_arrays(self, tmp_path: Path) -> None:
        e = np.array([[5, 2], [2, 3]])
        np.savez(tmp_path / "c.npz", counts=e, nums=np.array([5, 3]), class_names=np.array(["a", "b"]))
        (loaded, n), names = load_cooccurrence(tmp_path / "c.npz")
        assert loaded.tolist() == [[0, 2], [2, 0]]
        assert (n.tolist(), names) == ([5, 3], ("a", "b"))

    def test_inconsistent_files(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"none\.npz: .*expected an \.npz file with counts"):
            load_cooccurrence(tmp_path / "none.npz")
        np.savez(tmp_path / "lacks.npz", counts=np.eye(2))
        with pytest.raises(ValueError, match=r"lacks\.npz: .*nums.*expected an \.npz file with counts"):
            load_cooccurrence(tmp_path / "lacks.npz")
        np.savez(tmp_path / "odd.npz", counts=np.eye(2), nums=np.ones(3), class_names=np.array(["a", "b"]))
        with pytest.raises(ValueError, match=r"odd\.npz: counts has shape \(2, 2\), nums \(3,\)"):
            load_cooccurrence(tmp_path / "odd.npz")
