"""Label-pair dependencies of every order (MDKD, Eqs 4-15) against the sum over all sequences of labels.

`loops` is the paper's text in plain Python numbers. `enumerated` is the same with all sequences in one index tensor,
which torch can differentiate. Both agree with the examples by hand and with each other.
"""

import itertools
import math
import re

import pytest
import torch
from compare import PROPERTY, huber, random_logits, value_and_gradient
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlkd.losses.mdkd import batch_dependency, dependencies, instance_dependency

# References


def sequences(q, order):
    """All sequences of different labels, a sequence and its reverse being one: P(q, order) / 2 of them."""
    unique = [labels for labels in itertools.permutations(range(q), order) if labels[0] < labels[-1]]
    assert len(unique) == math.perm(q, order) / 2
    return unique


def sigmoid(logit):
    return 1 / (1 + math.exp(-logit))


def loops(level, student_logits, teacher_logits, order):
    """Eqs. 4-8 or 10-13, one number at a time."""
    student, teacher = (
        [[sigmoid(x) for x in row] for row in logits.tolist()] for logits in (student_logits, teacher_logits)
    )
    b, q = len(student), len(student[0])

    def second_order(probs, images, k, other):
        return sum((probs[i][k] - probs[i][other]) ** 2 for i in images) / len(images)  # Eq. 4; of one image Eq. 10

    def along(probs, images, labels):
        pairs = itertools.pairwise(labels)
        return sum(second_order(probs, images, *pair) for pair in pairs) / (order - 1)  # Eqs. 7, 12

    groups = [range(b)] if level == "batch" else [[i] for i in range(b)]
    total = 0.0
    for images in groups:
        for labels in sequences(q, order):
            total += huber(along(teacher, images, labels), along(student, images, labels))
    return total * 2 / math.perm(q, order) / len(groups)  # Eqs. 8, 13


def enumerated(level, student_logits, teacher_logits, order):
    """Eqs. 4-8 or 10-13, all sequences at once."""
    index = torch.tensor(sequences(student_logits.shape[1], order))

    def along(logits):
        probs = 1 / (1 + torch.exp(-logits))
        pairs = (probs[:, :, None] - probs[:, None, :]) ** 2
        if level == "batch":
            pairs = pairs.mean(0, keepdim=True)
        return pairs[:, index[:, :-1], index[:, 1:]].mean(2)

    difference = (along(teacher_logits.detach()) - along(student_logits)).abs()
    return torch.where(difference <= 1, difference**2 / 2, difference - 1 / 2).mean()


LOSSES = {"batch": batch_dependency, "instance": instance_dependency}

each_level = pytest.mark.parametrize("level", list(LOSSES))


def both(level, student, teacher, order):
    """Value and gradient of the loss and of its reference, the latter in float64."""
    expected = value_and_gradient(lambda *args: enumerated(level, *args), student.double(), teacher.double(), order)
    return value_and_gradient(LOSSES[level], student, teacher, order), expected


def assert_same(actual, expected, rtol=1e-9):
    """Values up to `rtol`; gradients up to `rtol` of the largest entry."""
    torch.testing.assert_close(actual[0].double(), expected[0].double(), rtol=rtol, atol=1e-30)
    largest = expected[1].abs().max().item()
    torch.testing.assert_close(actual[1].double(), expected[1].double(), rtol=rtol, atol=rtol * largest + 1e-30)


def logits_of(probs):
    return torch.logit(torch.tensor(probs, dtype=torch.float64))


# By hand
#
# Teacher (1/2, 3/4, 1/4) and (1/2, 1/2, 3/4); student 1/2 throughout, so its dependencies are 0.
#
#   pair        01     02     12
#   image 0    1/16   1/16   1/4
#   image 1     0     1/16   1/16
#   mean       1/32   1/16   5/32
#
#   order 2, halves of squares, mean of 3 pairs
#     image 0: (1 + 1 + 16) / 512 / 3 = 18/1536;  image 1: 2/1536;  mean 10/1536
#     batch:   (1 + 4 + 25) / 2048 / 3 = 30/6144
#   order 3, sequences 0-1-2, 0-2-1 and 1-0-2, each the mean of its two pairs
#     image 0: 5/32, 5/32, 2/32 -> 54/2048 / 3;  image 1: 1/32, 2/32, 1/32 -> 6/2048 / 3;  mean 30/6144
#     batch:   6/64, 7/64, 3/64 -> 94/8192 / 3

TEACHER = logits_of([[1 / 2, 3 / 4, 1 / 4], [1 / 2, 1 / 2, 3 / 4]])
STUDENT = torch.zeros(2, 3, dtype=torch.float64)
BY_HAND = {("instance", 2): 10 / 1536, ("batch", 2): 30 / 6144, ("instance", 3): 30 / 6144, ("batch", 3): 94 / 24576}


@pytest.mark.parametrize(("level", "order"), BY_HAND)
def test_by_hand(level, order):
    expected = pytest.approx(BY_HAND[level, order], rel=1e-13)
    assert LOSSES[level](STUDENT, TEACHER, order).item() == expected
    assert loops(level, STUDENT, TEACHER, order) == expected
    assert enumerated(level, STUDENT, TEACHER, order).item() == expected


@each_level
def test_largest_disparity_gives_one_half(level):
    certain = torch.tensor([[1e4, -1e4]], dtype=torch.float64)
    even = torch.zeros(1, 2, dtype=torch.float64)
    assert LOSSES[level](certain, even, 2) == LOSSES[level](even, certain, 2) == 1 / 2


# Against enumeration


@each_level
def test_the_references_agree(level):
    for q, order in [(2, 2), (4, 2), (3, 3), (5, 3), (4, 4), (6, 4), (5, 5), (6, 6)]:
        student, teacher = random_logits(2, 2, q)
        value = enumerated(level, student, teacher, order)
        assert loops(level, student, teacher, order) == pytest.approx(value.item(), rel=1e-12)
        _, gradient = value_and_gradient(lambda *args: enumerated(level, *args), student, teacher, order)
        step = torch.zeros_like(student)
        step[1, 0] = 1e-4
        slope = (loops(level, student + step, teacher, order) - loops(level, student - step, teacher, order)) / 2e-4
        assert gradient[1, 0].item() == pytest.approx(slope, rel=1e-5)


@each_level
def test_equals_enumeration_for_every_number_of_labels(level):
    for b, q in itertools.product((1, 3), range(2, 9)):
        for order in range(2, min(q, 6) + 1):
            if math.perm(q, order) <= 20_160 // b:
                assert_same(*both(level, *random_logits(2, b, q, seed=q), order))


@each_level
@PROPERTY
@given(
    st.integers(1, 6),
    st.integers(2, 6),
    st.floats(0, 1),
    st.sampled_from([0.01, 1.0, 5.0]),
    st.sampled_from([1e-6, 1e-3, 1.0]),
    st.integers(0, 2**31),
)
def test_equals_enumeration(level, b, q, highest, scale, apart, seed):
    order = 2 + round(highest * (q - 2))
    teacher, noise = random_logits(2, b, q, seed, scale)
    student = teacher + apart * (noise - teacher)
    actual, expected = both(level, student, teacher, order)
    # The reference is less accurate where the two are close: it loses the digits that they have in common
    assert_same(actual, expected, rtol=1e-9 if apart == 1 else 1e-11 / apart)


@each_level
def test_equals_enumeration_for_many_labels_and_images(level):
    for b, q in ((2, 60), (50, 6)):
        for order in (2, 3):
            assert_same(*both(level, *random_logits(2, b, q), order))


# What the equations imply


@each_level
def test_fifth_and_sixth_order_follow_from_the_others(level):
    # (n-1)² L_n is quadratic in n, so its third differences are 0. That gives the fifth and then the sixth order:
    #    16 L_5 = 3 (9 L_4) - 3 (4 L_3) + L_2
    #    25 L_6 = 3 (16 L_5) - 3 (9 L_4) + 4 L_3 = 6 (9 L_4) - 8 (4 L_3) + 3 L_2
    for q in (6, 7, 8, 80, 1000):
        student, teacher = random_logits(2, 4, q)
        losses = {n: value_and_gradient(LOSSES[level], student, teacher, n) for n in range(2, 7)}
        for second, third, fourth, fifth, sixth in zip(*losses.values(), strict=True):
            torch.testing.assert_close(fifth, (second - 12 * third + 27 * fourth) / 16, rtol=1e-9, atol=1e-15)
            torch.testing.assert_close(sixth, (3 * second - 32 * third + 54 * fourth) / 25, rtol=1e-9, atol=1e-15)
    # And of the references
    second, third, fourth, fifth, sixth = (enumerated(level, *random_logits(2, 2, 7), n) for n in range(2, 7))
    torch.testing.assert_close(fifth, (second - 12 * third + 27 * fourth) / 16, rtol=1e-12, atol=0)
    torch.testing.assert_close(sixth, (3 * second - 32 * third + 54 * fourth) / 25, rtol=1e-12, atol=0)


@each_level
def test_several_orders_at_once_are_each_of_them(level):
    student, teacher = random_logits(2, 3, 6)
    losses = LOSSES[level](student, teacher, (2, 5, 3))
    assert losses.shape == (3,)
    for loss, order in zip(losses, (2, 5, 3), strict=True):
        assert loss == LOSSES[level](student, teacher, order)
    for orders in ([2, 5, 3], range(2, 5)):
        assert torch.equal(LOSSES[level](student, teacher, orders), LOSSES[level](student, teacher, tuple(orders)))
    several = value_and_gradient(lambda *args: LOSSES[level](*args).sum(), student, teacher, (2, 5, 3))
    each = [value_and_gradient(LOSSES[level], student, teacher, order) for order in (2, 5, 3)]
    assert_same(several, [sum(parts) for parts in zip(*each, strict=True)])


@pytest.mark.parametrize("order", [2, 3, 4, 6])
def test_instance_level_is_the_mean_over_images_and_at_least_the_batch_level(order):
    student, teacher = random_logits(2, 1, 6)
    assert_same(*[value_and_gradient(loss, student, teacher, order) for loss in LOSSES.values()])
    student, teacher = random_logits(2, 4, 6)
    each = [instance_dependency(s[None], t[None], order) for s, t in zip(student, teacher, strict=True)]
    torch.testing.assert_close(instance_dependency(student, teacher, order), sum(each) / 4, rtol=1e-12, atol=0)
    assert batch_dependency(student, teacher, order) < instance_dependency(student, teacher, order)


@each_level
@pytest.mark.parametrize("order", [2, 3, 4])
def test_equal_dependencies_give_zero(level, order):
    # 1 - p has the dependencies of p: present and absent exchanged.
    student, _ = random_logits(2, 3, 5)
    value, gradient = value_and_gradient(LOSSES[level], student, -student, order)
    assert value.item() == pytest.approx(0, abs=1e-25)
    assert gradient.abs().max() < 1e-14
    for dtype in (torch.float32, torch.float64):
        for tensor in value_and_gradient(LOSSES[level], student.to(dtype), student.to(dtype), order):
            assert (tensor == 0).all()


# Edges and precision


@each_level
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steep_logits_agree_with_their_limit(level, dtype):
    # At 0 or 1 the slope of a sigmoid is 0; at 0 it is not.
    steep = torch.tensor([[1e4, -1e4, 0, 1e4, -1e4, 0], [0, 0, 1e4, 1e4, -1e4, -1e4]], dtype=dtype)
    student = torch.tensor([[1e4, 1e4, 0, -1e4, -1e4, 1e4], [-1e4, 0, -1e4, 1e4, 0, 0]], dtype=dtype)
    limit = [torch.where(x == 0, 0, 700 * x.sign()).double() for x in (student, steep)]
    largest = torch.finfo(dtype).max
    for order in (2, 3, 4, 6):
        value, gradient = value_and_gradient(LOSSES[level], student, steep, order)
        expected = value_and_gradient(lambda *args: enumerated(level, *args), *limit, order)
        assert_same((value, gradient), expected, rtol=1e-6 if dtype == torch.float32 else 1e-12)
        again = value_and_gradient(LOSSES[level], student.sign() * largest, steep.sign() * largest, order)
        assert_same(again, (value, gradient))


@each_level
@pytest.mark.parametrize("distance", [1.0, 1e-2, 1e-4])
def test_float32_agrees_with_float64(level, distance):
    for b, q in itertools.product((1, 32), (2, 3, 4, 5, 20, 80)):
        teacher, noise = (logits.float() for logits in random_logits(2, b, q, seed=q))
        student = teacher + distance * noise
        for order in sorted({2, min(3, q), min(4, q), q}):
            actual = value_and_gradient(LOSSES[level], student, teacher, order)
            assert actual[0] > 0
            assert actual[0].dtype == actual[1].dtype == torch.float32
            assert_same(actual, value_and_gradient(LOSSES[level], student.double(), teacher.double(), order), rtol=1e-5)


def test_images_that_cancel_in_the_batch_give_zero_up_to_rounding():
    # The student's images in another order: each image differs, the batch does not.
    teacher = random_logits(2, 32, 20)[0].float()
    student = teacher.flip(0)
    for order in (2, 3, 4, 20):
        value, gradient = value_and_gradient(batch_dependency, student, teacher, order)
        by_image = value_and_gradient(instance_dependency, student, teacher, order)
        assert value.abs() < 1e-6 * by_image[0]
        assert gradient.abs().max() < 1e-5 * by_image[1].abs().max()


@each_level
def test_empty_batch_gives_a_zero_with_a_graph(level):
    for order in (2, (2, 3)):
        student = torch.zeros(0, 3, requires_grad=True)
        value = LOSSES[level](student, torch.zeros(0, 3), order).sum()
        value.backward()
        assert value == 0
        assert student.grad.shape == (0, 3)


# Time and memory


class Operations(TorchDispatchMode):
    """The names of the tensor operations that run, and the size of the largest result."""

    def __init__(self):
        super().__init__()
        self.names, self.largest = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.names.append(str(func))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.largest = max(self.largest, *sizes, 0)
        return result


@each_level
def test_operations_do_not_depend_on_the_order_nor_memory_on_pairs_of_labels(level):
    student, teacher = random_logits(2, 6, 300)
    work = []
    for order in (2, 3, 4, 9, 300):
        with Operations() as operations:
            value_and_gradient(LOSSES[level], student, teacher, order)
        work.append(operations.names)
        assert operations.largest == 6 * 300
    assert all(names == work[0] for names in work)


@each_level
@pytest.mark.parametrize("order", [2, 4])
def test_thousand_labels_equal_the_formula(level, order):
    """The formula of the module's docstring, from the (q, q) matrix of disparities, in float64."""
    student, teacher = (logits.float() for logits in random_logits(2, 2, 1000))

    def from_matrices(student, teacher, n):
        probs = torch.sigmoid(torch.stack([teacher, student]))
        pairs = (probs[..., :, None] - probs[..., None, :]) ** 2
        disparity = pairs[0] - pairs[1]
        if level == "batch":
            disparity = disparity.mean(0, keepdim=True)
        rows, q = disparity.sum(2), disparity.shape[2]
        f, r, s = (disparity**2).sum((1, 2)), (rows**2).sum(1), rows.sum(1)
        same, touching = (n - 1) * f / math.perm(q, 2), 2 * (n - 2) * (r - f) / math.perm(q, 3)
        apart = (n - 2) * (n - 3) * (s**2 - 4 * r + 2 * f) / math.perm(q, 4)
        return (same + touching + apart).mean() / (2 * (n - 1) ** 2)

    actual = value_and_gradient(LOSSES[level], student, teacher, order)
    expected = value_and_gradient(from_matrices, student.double(), teacher.double(), order)
    assert_same(actual, expected, rtol=1e-5)


# Errors


@pytest.mark.parametrize("order", [-1, 0, 1, 6, 2.5, "3", None, (2, 6), [1]])
def test_invalid_order_is_named(order):
    invalid = order[-1] if isinstance(order, tuple | list) else order
    message = re.escape(f"`order` is {invalid!r}, expected a number of labels from 2 to 5, the number of all labels")
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match=message):
            loss(*random_logits(2, 3, 5), order)
    if isinstance(order, int):
        with pytest.raises(ValueError, match=message):
            dependencies(torch.zeros(3, 5), order, range(max(order, 0)))


@each_level
def test_logits_of_other_dimensions_are_named(level):
    for shape in ((5,), (3, 5, 1)):
        with pytest.raises(ValueError, match=r"`student_logits` has shape .*, expected \(b, q\)"):
            LOSSES[level](torch.zeros(shape), torch.zeros(shape), 2)


# One sequence


def test_dependencies_by_hand():
    # Image 0: (1 - 1/2)² = 1/4, (1/2 - 0)² = 1/4, (0 - 1)² = 1. Image 1: 0, 1/16, 1/16.
    probs = torch.tensor([[1, 1 / 2, 0], [1 / 4, 1 / 4, 1 / 2]], dtype=torch.float64)
    assert dependencies(probs, 2, (0, 1)).tolist() == [1 / 4, 0]
    assert dependencies(probs, 3, (0, 1, 2)).tolist() == [1 / 4, 1 / 32]
    assert dependencies(probs, 3, (1, 0, 2)).tolist() == [5 / 8, 1 / 32]
    assert dependencies(probs, 3, [2, 0, 1]).tolist() == [5 / 8, 1 / 32], "there and back are the same"
    assert dependencies(probs, 2, torch.tensor([2, 1])).tolist() == [1 / 4, 1 / 16]


@each_level
@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_losses_are_means_over_dependencies(level, order):
    student, teacher = random_logits(2, 3, 5)
    total = 0
    for labels in sequences(5, order):
        sides = [dependencies(torch.sigmoid(logits), order, labels) for logits in (teacher, student)]
        if level == "batch":
            sides = [side.mean() for side in sides]
        total = total + torch.nn.functional.huber_loss(*sides)
    expected = total * 2 / math.perm(5, order)
    torch.testing.assert_close(LOSSES[level](student, teacher, order), expected, rtol=1e-12, atol=0)


def test_dependencies_of_half_precision():
    probs = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)).half()
    actual = dependencies(probs, 3, (0, 2, 4))
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, dependencies(probs.float(), 3, (0, 2, 4)))


@pytest.mark.parametrize("sequence", [(0, 1), (0, 1, 2, 3), (0, 1, 0), (0, 1, 5), (0, 1, -1), torch.tensor([1, 1, 2])])
def test_invalid_sequence_is_named(sequence):
    labels = re.escape(str([int(label) for label in sequence]))
    with pytest.raises(ValueError, match=rf"`sequence` is {labels}, expected 3 different labels .*, each in 0\.\.4"):
        dependencies(torch.zeros(3, 5), 3, sequence)


def test_probabilities_of_other_dimensions_are_named():
    with pytest.raises(ValueError, match=r"`probs` has shape \(5,\), expected \(b, q\)"):
        dependencies(torch.zeros(5), 2, (0, 1))
