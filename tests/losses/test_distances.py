"""Padded groups of rows, distances within them, and distances over their mean."""

import torch
from compare import PROPERTY, assert_same, value_and_gradient
from hypothesis import given
from hypothesis import strategies as st

from mlkd.losses.distances import group_distances, normalize_by_mean, pad_groups, pairwise_distances


@PROPERTY
@given(st.lists(st.integers(0, 3), max_size=8), st.integers(4, 5), st.integers(1, 3))
def test_pad_groups_equals_a_loop(groups, num_groups, width):
    rows = torch.arange(1.0, len(groups) * width + 1).reshape(len(groups), width)
    group = torch.tensor(groups, dtype=torch.int64)
    (padded, doubled), mask = pad_groups((rows, 2 * rows), group, num_groups)
    members = [[i for i, g in enumerate(groups) if g == number] for number in range(num_groups)]
    size = max(1, *map(len, members))
    assert padded.shape == (num_groups, size, width)
    for number, indices in enumerate(members):
        for slot in range(size):
            assert mask[number, slot] == (slot < len(indices))
            expected = rows[indices[slot]] if slot < len(indices) else torch.zeros(width)
            assert torch.equal(padded[number, slot], expected)
    assert torch.equal(doubled, 2 * padded)


def test_pad_groups_passes_the_gradient_to_each_row():
    rows = torch.rand(3, 2, requires_grad=True)
    (padded,), _ = pad_groups((rows,), torch.tensor([1, 0, 1]), 3)
    (padded * torch.arange(12.0).view(3, 2, 2)).sum().backward()
    assert rows.grad.tolist() == [[4, 5], [0, 1], [6, 7]]


def test_distances_by_hand():
    rows = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]]])
    for distances in (pairwise_distances, group_distances):
        value, gradient = value_and_gradient(distances, rows)
        assert value.tolist() == [[[0, 5, 5], [5, 0, 0], [5, 0, 0]]]
        # Weights 2 + 4 of 01 and 3 + 7 of 02, along (-3, -4) / 5; the equal rows have no gradient between them.
        expected = torch.tensor([[[-16 * 0.6, -16 * 0.8], [6 * 0.6, 6 * 0.8], [10 * 0.6, 10 * 0.8]]])
        assert_same([gradient], [expected], rtol=1e-6)


@PROPERTY
@given(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4)), st.integers(0, 2**31))
def test_group_distances_are_pairwise_distances(shape, seed):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert_same(value_and_gradient(group_distances, rows), value_and_gradient(pairwise_distances, rows))


def test_normalize_by_mean_by_hand():
    # Positive entries 1, 3, 1, 3 with mean 2; none; one pair.
    distances = torch.tensor([[[0.0, 1, 0], [1, 0, 3], [0, 3, 0]], [[0.0] * 3] * 3, [[0.0, 5, 0], [5, 0, 0], [0] * 3]])
    expected = [[[0, 0.5, 0], [0.5, 0, 1.5], [0, 1.5, 0]], [[0] * 3] * 3, [[0, 1, 0], [1, 0, 0], [0] * 3]]
    assert normalize_by_mean(distances).tolist() == expected
    # Over 6 pairs the mean of the first is 8 / 6.
    assert_same([normalize_by_mean(distances[0], 6)], [distances[0] * 6 / 8], rtol=1e-6)
    assert torch.equal(normalize_by_mean(distances[1], 6), distances[1])


def test_normalize_by_mean_is_differentiable_through_the_mean():
    distances = torch.rand(2, 3, 3, dtype=torch.float64) + 0.1
    for num_pairs in (None, 6):
        assert torch.autograd.gradcheck(lambda x, n=num_pairs: normalize_by_mean(x, n), distances.requires_grad_())
    value, gradient = value_and_gradient(normalize_by_mean, torch.zeros(1, 2, 2))
    assert value.abs().sum() == 0
    assert gradient.isfinite().all()
