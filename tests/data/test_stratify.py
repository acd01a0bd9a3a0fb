"""Stratified splits: equal to the algorithm of the paper in plain loops, and better than random ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.data import ImageFiles, MultiLabelData
from mlkd.data.stratify import stratified_splits, stratify


def reference(labels: list[set[int]], q: int, fractions: list[float], seed: int) -> list[int]:
    """Algorithm 1 of Sechidis et al., line by line; the random tie-break draws as ours does."""
    rng = np.random.default_rng(seed)
    remaining = set(range(len(labels)))
    c = [len(labels) * r for r in fractions]
    c_label = [[r * sum(k in own for own in labels) for k in range(q)] for r in fractions]
    split = [-1] * len(labels)

    def place(example: int, best: list[int]) -> None:
        best = [m for m in best if c[m] == max(c[n] for n in best)]
        m = best[0] if len(best) == 1 else int(rng.choice(np.array(best)))
        split[example] = m
        remaining.remove(example)
        for k in labels[example]:
            c_label[m][k] -= 1
        c[m] -= 1

    while counts := {k: n for k in range(q) if (n := sum(k in labels[e] for e in remaining))}:
        rarest = min(counts, key=lambda k: (counts[k], k))
        for example in [e for e in sorted(remaining) if rarest in labels[e]]:
            most = max(row[rarest] for row in c_label)
            place(example, [m for m, row in enumerate(c_label) if row[rarest] == most])
    for example in sorted(remaining):
        place(example, list(range(len(fractions))))
    return split


@settings(max_examples=40)
@given(
    st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=30),
    st.sampled_from([[0.75, 0.25], [0.5, 0.25, 0.25], [0.5, 0.5]]),
    st.integers(0, 3),
)
def test_equals_the_algorithm_of_the_paper(labels: list[set[int]], fractions: list[float], seed: int) -> None:
    matrix = np.array([[k in own for k in range(5)] for own in labels], np.int64)
    splits = stratify(matrix, np.ones(len(labels)), np.array(fractions), seed)
    assert splits.tolist() == reference(labels, 5, fractions, seed)


def test_label_frequencies_are_closer_than_at_random() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((1000, 20)) < np.linspace(0.005, 0.3, 20)).astype(np.int64)
    fractions = np.array([0.7, 0.1, 0.2])

    def error(splits: np.ndarray) -> float:
        counts = np.array([labels[splits == k].sum(axis=0) for k in range(3)])
        return float(np.abs(counts - fractions[:, None] * labels.sum(axis=0)).mean())

    stratified = stratify(labels, np.ones(1000), fractions)
    assert np.abs(np.bincount(stratified) - 1000 * fractions).max() <= 20
    assert error(stratified) < 0.4 * error(rng.permutation(stratified))


def folder_data(folder: Path, contents: list[bytes]) -> MultiLabelData:
    folder.mkdir()
    names = [f"{k}.jpg" for k in range(len(contents))]
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(content)
    targets = np.eye(3, dtype=np.uint8)[np.arange(len(names)) % 3]
    return MultiLabelData("toy", "all", ImageFiles(folder, names), targets, ("a", "b", "c"), tuple(names))


def test_equal_files_are_in_one_split(tmp_path: Path) -> None:
    contents = [b"%d" % (k % 20) for k in range(60)]  # each content three times
    data = folder_data(tmp_path / "a", contents)
    splits = stratified_splits(data, {"train": 0.6, "val": 0.2, "test": 0.2})
    assert {
        content: len({s for s, c in zip(splits, contents, strict=True) if c == content}) for content in contents
    } == {b"%d" % k: 1 for k in range(20)}
    assert {name: splits.count(name) for name in ("train", "val", "test")} == {"train": 36, "val": 12, "test": 12}


def test_independent_of_the_order_and_dependent_on_the_seed(tmp_path: Path) -> None:
    data = folder_data(tmp_path / "a", [b"%d" % k for k in range(50)])
    fractions = {"train": 0.7, "val": 0.1, "test": 0.2}
    splits = dict(zip(data.ids, stratified_splits(data, fractions), strict=True))
    reversed_data = data.subset(range(50)[::-1])
    assert dict(zip(reversed_data.ids, stratified_splits(reversed_data, fractions), strict=True)) == splits
    assert dict(zip(data.ids, stratified_splits(data, fractions, seed=1), strict=True)) != splits
    in_memory = replace(data, images=[np.zeros((2, 2, 3), np.uint8)] * 50)
    assert dict(zip(data.ids, stratified_splits(in_memory, fractions), strict=True)) == splits
