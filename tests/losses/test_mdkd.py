"""Label-pair dependencies of every order (MDKD, Eqs 4-15) against the sum over all sequences of labels.

`loops` is the paper's text in plain Python numbers; `enumerated` is the same with all sequences in one index tensor,
which torch can differentiate. Both pass the checks by hand, and each other.
"""

import itertools
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlkd.losses.classification import bce
from mlkd.losses.l2d import mld
from mlkd.losses.mdkd import batch_dependency, dependencies, instance_dependency
from mlkd.methods import MDKD, Batch, create_method
from mlkd.models import Output, create_model

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40, database=None)


# --- references -----------------------------------------------------------------------------------


def sequences(q, order):
    """All sequences of different labels, a sequence and its reverse being one: P(q, order) / 2 of them."""
    found = [labels for labels in itertools.permutations(range(q), order) if labels[0] < labels[-1]]
    assert len(found) == math.perm(q, order) / 2
    return found


def sigmoid(logit):
    return 1 / (1 + math.exp(-logit))


def huber(a, b):
    """Eq. 5."""
    return (a - b) ** 2 / 2 if abs(a - b) <= 1 else abs(a - b) - 1 / 2


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


OURS = {"batch": batch_dependency, "instance": instance_dependency}

each_level = pytest.mark.parametrize("level", list(OURS))


def value_and_gradient(loss, student, *args):
    student = student.detach().clone().requires_grad_()
    value = loss(student, *args)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


def both(level, student, teacher, order):
    """Value and gradient, ours and the reference's, the latter in float64."""
    expected = value_and_gradient(lambda *args: enumerated(level, *args), student.double(), teacher.double(), order)
    return value_and_gradient(OURS[level], student, teacher, order), expected


def assert_same(actual, expected, rtol=1e-9):
    """Values up to `rtol`; gradients up to `rtol` of the largest entry."""
    torch.testing.assert_close(actual[0].double(), expected[0].double(), rtol=rtol, atol=1e-30)
    largest = expected[1].abs().max().item()
    torch.testing.assert_close(actual[1].double(), expected[1].double(), rtol=rtol, atol=rtol * largest + 1e-30)


def random_logits(b=3, q=5, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(scale * torch.randn(b, q, generator=generator, dtype=torch.float64) for _ in range(2))


def logits_of(probs):
    return torch.logit(torch.tensor(probs, dtype=torch.float64))


# --- by hand --------------------------------------------------------------------------------------
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
    assert OURS[level](STUDENT, TEACHER, order).item() == expected
    assert loops(level, STUDENT, TEACHER, order) == expected
    assert enumerated(level, STUDENT, TEACHER, order).item() == expected


@each_level
def test_the_largest_disparity_costs_a_half(level):
    certain = torch.tensor([[1e4, -1e4]], dtype=torch.float64)
    even = torch.zeros(1, 2, dtype=torch.float64)
    assert OURS[level](certain, even, 2) == OURS[level](even, certain, 2) == 1 / 2


# --- against enumeration --------------------------------------------------------------------------


@each_level
@pytest.mark.parametrize(("q", "order"), [(2, 2), (4, 2), (3, 3), (5, 3), (4, 4), (6, 4), (5, 5), (6, 6)])
def test_the_references_agree(level, q, order):
    student, teacher = random_logits(2, q)
    value = enumerated(level, student, teacher, order)
    assert loops(level, student, teacher, order) == pytest.approx(value.item(), rel=1e-12)
    _, gradient = value_and_gradient(lambda *args: enumerated(level, *args), student, teacher, order)
    step = torch.zeros_like(student)
    step[1, 0] = 1e-4
    slope = (loops(level, student + step, teacher, order) - loops(level, student - step, teacher, order)) / 2e-4
    assert gradient[1, 0].item() == pytest.approx(slope, rel=1e-5)


@each_level
@pytest.mark.parametrize("order", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("b", [1, 3])
def test_equals_enumeration_for_every_number_of_labels(level, order, b):
    for q in range(order, 9):
        if math.perm(q, order) <= 20_160 // b:
            assert_same(*both(level, *random_logits(b, q, seed=q), order))


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
    teacher, noise = random_logits(b, q, seed, scale)
    student = teacher + apart * (noise - teacher)
    actual, expected = both(level, student, teacher, order)
    # Far better than the reference where the two are close, which loses the digits they share
    assert_same(actual, expected, rtol=1e-9 if apart == 1 else 1e-11 / apart)


@each_level
@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_gradcheck(level, order):
    student, teacher = random_logits(3, 5)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: OURS[level](x, teacher, order), student)


@each_level
def test_of_many_labels_and_images(level):
    """Orders 2 and 3 at q = 60, and more images than labels."""
    for b, q in ((2, 60), (50, 6)):
        for order in (2, 3):
            assert_same(*both(level, *random_logits(b, q), order))


# --- what the equations imply ---------------------------------------------------------------------


@each_level
@pytest.mark.parametrize("q", [6, 7, 8, 80, 1000])
def test_the_fifth_and_sixth_order_add_nothing_new(level, q):
    # (n-1)² L_n is quadratic in n, so its third differences are 0. That gives the fifth and then the sixth order:
    #    16 L_5 = 3 (9 L_4) - 3 (4 L_3) + L_2
    #    25 L_6 = 3 (16 L_5) - 3 (9 L_4) + 4 L_3 = 6 (9 L_4) - 8 (4 L_3) + 3 L_2
    student, teacher = random_logits(4, q)
    losses = {n: value_and_gradient(OURS[level], student, teacher, n) for n in range(2, 7)}
    for second, third, fourth, fifth, sixth in zip(*losses.values(), strict=True):
        torch.testing.assert_close(fifth, (second - 12 * third + 27 * fourth) / 16, rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(sixth, (3 * second - 32 * third + 54 * fourth) / 25, rtol=1e-9, atol=1e-15)


@each_level
def test_enumeration_says_the_same_of_the_fifth_and_sixth_order(level):
    second, third, fourth, fifth, sixth = (enumerated(level, *random_logits(2, 7), n) for n in range(2, 7))
    torch.testing.assert_close(fifth, (second - 12 * third + 27 * fourth) / 16, rtol=1e-12, atol=0)
    torch.testing.assert_close(sixth, (3 * second - 32 * third + 54 * fourth) / 25, rtol=1e-12, atol=0)


@each_level
def test_several_orders_at_once_are_each_of_them(level):
    student, teacher = random_logits(3, 6)
    losses = OURS[level](student, teacher, (2, 5, 3))
    assert losses.shape == (3,)
    for loss, order in zip(losses, (2, 5, 3), strict=True):
        assert loss == OURS[level](student, teacher, order)
    for orders in ([2, 5, 3], range(2, 5)):
        assert torch.equal(OURS[level](student, teacher, orders), OURS[level](student, teacher, tuple(orders)))
    several = value_and_gradient(lambda *args: OURS[level](*args).sum(), student, teacher, (2, 5, 3))
    each = [value_and_gradient(OURS[level], student, teacher, order) for order in (2, 5, 3)]
    assert_same(several, [sum(parts) for parts in zip(*each, strict=True)])


@pytest.mark.parametrize("order", [2, 3, 4, 6])
def test_of_one_image_both_levels_are_the_same(order):
    student, teacher = random_logits(1, 6)
    levels = [value_and_gradient(loss, student, teacher, order) for loss in OURS.values()]
    assert_same(*levels)


@pytest.mark.parametrize("order", [2, 3, 4, 6])
def test_the_instance_level_is_the_mean_of_its_images_and_at_least_the_batch_level(order):
    student, teacher = random_logits(4, 6)
    each = [instance_dependency(s[None], t[None], order) for s, t in zip(student, teacher, strict=True)]
    torch.testing.assert_close(instance_dependency(student, teacher, order), sum(each) / 4, rtol=1e-12, atol=0)
    assert batch_dependency(student, teacher, order) < instance_dependency(student, teacher, order)


@each_level
def test_order_of_images_and_of_labels_does_not_matter(level):
    student, teacher = random_logits(4, 6)
    rows, columns = torch.tensor([2, 0, 3, 1]), torch.tensor([5, 0, 3, 1, 4, 2])
    value, gradient = value_and_gradient(OURS[level], student, teacher, 4)
    actual = value_and_gradient(OURS[level], student[rows][:, columns], teacher[rows][:, columns], 4)
    assert_same(actual, (value, gradient[rows][:, columns]))


@each_level
@pytest.mark.parametrize("order", [2, 3, 4, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_student_equal_to_the_teacher_costs_nothing(level, order, dtype):
    logits = random_logits(3, 8)[0].to(dtype)
    value, gradient = value_and_gradient(OURS[level], logits, logits, order)
    assert value == 0
    assert (gradient == 0).all()


@each_level
@pytest.mark.parametrize("order", [2, 3, 4])
def test_a_student_as_dependent_as_its_teacher_costs_nothing(level, order):
    # 1 - p has the dependencies of p: present and absent exchanged.
    student, _ = random_logits(3, 5)
    value, gradient = value_and_gradient(OURS[level], student, -student, order)
    assert value.item() == pytest.approx(0, abs=1e-25)
    assert gradient.abs().max() < 1e-14


# --- edges and precision --------------------------------------------------------------------------


@each_level
@pytest.mark.parametrize("order", [2, 3, 4, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steep_logits_stay_finite(level, order, dtype):
    # At 0 or 1 the slope of a sigmoid is 0; at 0 it is not.
    steep = torch.tensor([[1e4, -1e4, 0, 1e4, -1e4, 0], [0, 0, 1e4, 1e4, -1e4, -1e4]], dtype=dtype)
    student = torch.tensor([[1e4, 1e4, 0, -1e4, -1e4, 1e4], [-1e4, 0, -1e4, 1e4, 0, 0]], dtype=dtype)
    value, gradient = value_and_gradient(OURS[level], student, steep, order)
    limit = [torch.where(x == 0, 0, 700 * x.sign()).double() for x in (student, steep)]
    expected = value_and_gradient(lambda *args: enumerated(level, *args), *limit, order)
    assert_same((value, gradient), expected, rtol=1e-6 if dtype == torch.float32 else 1e-12)
    largest = torch.finfo(dtype).max
    again = value_and_gradient(OURS[level], student.sign() * largest, steep.sign() * largest, order)
    assert_same(again, (value, gradient))


@each_level
@pytest.mark.parametrize("q", [2, 3, 4, 5, 20, 80])
@pytest.mark.parametrize("b", [1, 32])
@pytest.mark.parametrize("apart", [1.0, 1e-2, 1e-4])
def test_float32_agrees_with_float64(level, q, b, apart):
    teacher, noise = (logits.float() for logits in random_logits(b, q, seed=q))
    student = teacher + apart * noise
    for order in sorted({2, min(3, q), min(4, q), q}):
        actual = value_and_gradient(OURS[level], student, teacher, order)
        assert actual[0] > 0
        assert actual[0].dtype == actual[1].dtype == torch.float32
        assert_same(actual, value_and_gradient(OURS[level], student.double(), teacher.double(), order), rtol=1e-5)


@pytest.mark.parametrize("order", [2, 3, 4, 20])
def test_images_that_cancel_in_the_batch_are_zero_up_to_rounding(order):
    # The student's images in another order: each image differs, the batch does not.
    teacher = random_logits(32, 20)[0].float()
    student = teacher.flip(0)
    value, gradient = value_and_gradient(batch_dependency, student, teacher, order)
    by_image = value_and_gradient(instance_dependency, student, teacher, order)
    assert value.abs() < 1e-6 * by_image[0]
    assert gradient.abs().max() < 1e-5 * by_image[1].abs().max()


@each_level
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("teacher_dtype", [torch.float32, None], ids=["teacher-float32", "teacher-half"])
def test_half_precision_logits_are_compared_in_float32(level, dtype, autocast, teacher_dtype):
    student, teacher = random_logits(8, 20)
    student, teacher = student.to(dtype), teacher.to(dtype).to(teacher_dtype or dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        actual = value_and_gradient(OURS[level], student, teacher, 4)
    assert actual[0].dtype == torch.float32
    expected = value_and_gradient(OURS[level], student.double(), teacher.double(), 4)
    torch.testing.assert_close(actual[0].double(), expected[0], rtol=1e-5, atol=0)
    largest = expected[1].abs().max().item()
    torch.testing.assert_close(actual[1].double(), expected[1], rtol=1e-2, atol=1e-2 * largest)


@each_level
def test_autocast_does_not_change_float32(level):
    student, teacher = (logits.float() for logits in random_logits(8, 20))
    expected = value_and_gradient(OURS[level], student, teacher, 4)
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = OURS[level](student, teacher, 4)
    value.backward()
    assert torch.equal(value, expected[0])
    assert torch.equal(student.grad, expected[1])


@each_level
@pytest.mark.parametrize("order", [2, (2, 3)])
def test_no_images_are_a_zero_with_a_graph(level, order):
    student = torch.zeros(0, 3, requires_grad=True)
    value = OURS[level](student, torch.zeros(0, 3), order).sum()
    value.backward()
    assert value == 0
    assert student.grad.shape == (0, 3)


@each_level
def test_only_the_student_gets_a_gradient_and_nothing_changes(level):
    student, teacher = (logits.requires_grad_() for logits in random_logits())
    copies = student.detach().clone(), teacher.detach().clone()
    OURS[level](student, teacher, 3).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    with torch.no_grad():
        assert not OURS[level](student, teacher, 3).requires_grad
    assert torch.equal(student, copies[0])
    assert torch.equal(teacher, copies[1])


# --- time and memory ------------------------------------------------------------------------------


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
def test_the_work_does_not_depend_on_the_order_nor_the_memory_on_pairs_of_labels(level):
    student, teacher = random_logits(6, 300)
    work = []
    for order in (2, 3, 4, 9, 300):
        with Operations() as operations:
            value_and_gradient(OURS[level], student, teacher, order)
        work.append(operations.names)
        assert operations.largest == 6 * 300
    assert all(names == work[0] for names in work)


@each_level
@pytest.mark.parametrize("order", [2, 4])
def test_of_a_thousand_labels(level, order):
    """The formula of the module's docstring, from the (q, q) matrix of disparities, in float64."""
    student, teacher = (logits.float() for logits in random_logits(2, 1000))

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

    actual = value_and_gradient(OURS[level], student, teacher, order)
    expected = value_and_gradient(from_matrices, student.double(), teacher.double(), order)
    assert_same(actual, expected, rtol=1e-5)


# --- errors ---------------------------------------------------------------------------------------


@each_level
@pytest.mark.parametrize("order", [-1, 0, 1, 6, 2.5, "3", None, (2, 6), [1]])
def test_an_order_that_cannot_be(level, order):
    worst = order[-1] if isinstance(order, tuple | list) else order
    with pytest.raises(ValueError, match=re.escape(f"`order` is {worst!r}, expected a number of labels from 2 to 5")):
        OURS[level](*random_logits(3, 5), order)


@each_level
@pytest.mark.parametrize("shape", [(3, 4), (2, 5), (5,), (3, 5, 1)])
def test_shapes_that_differ(level, shape):
    student, _ = random_logits(3, 5)
    with pytest.raises(ValueError, match=r"(?s)(?=.*student_logits)(?=.*teacher_logits)(?=.*\(3, 5\))"):
        OURS[level](student, torch.zeros(shape), 2)


@each_level
@pytest.mark.parametrize("shape", [(5,), (3, 5, 1)])
def test_shapes_that_are_no_batch(level, shape):
    with pytest.raises(ValueError, match=r"`student_logits` has shape .*, expected \(b, q\)"):
        OURS[level](torch.zeros(shape), torch.zeros(shape), 2)


# --- one sequence ---------------------------------------------------------------------------------


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
def test_the_losses_are_made_of_dependencies(level, order):
    student, teacher = random_logits(3, 5)
    total = 0
    for labels in sequences(5, order):
        sides = [dependencies(torch.sigmoid(logits), order, labels) for logits in (teacher, student)]
        if level == "batch":
            sides = [side.mean() for side in sides]
        total = total + torch.nn.functional.huber_loss(*sides)
    expected = total * 2 / math.perm(5, order)
    torch.testing.assert_close(OURS[level](student, teacher, order), expected, rtol=1e-12, atol=0)


def test_dependencies_of_half_precision():
    probs = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)).half()
    actual = dependencies(probs, 3, (0, 2, 4))
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, dependencies(probs.float(), 3, (0, 2, 4)))


@pytest.mark.parametrize("order", [-1, 0, 1, 6])
def test_dependencies_of_an_order_that_cannot_be(order):
    with pytest.raises(ValueError, match=rf"`order` is {order}, expected a number of labels from 2 to 5"):
        dependencies(torch.zeros(3, 5), order, range(max(order, 0)))


@pytest.mark.parametrize("sequence", [(0, 1), (0, 1, 2, 3), (0, 1, 0), (0, 1, 5), (0, 1, -1), torch.tensor([1, 1, 2])])
def test_dependencies_of_a_sequence_that_cannot_be(sequence):
    found = re.escape(str([int(label) for label in sequence]))
    with pytest.raises(ValueError, match=rf"`sequence` is {found}, expected 3 different labels .*, each in 0\.\.4"):
        dependencies(torch.zeros(3, 5), 3, sequence)


def test_dependencies_of_no_batch():
    with pytest.raises(ValueError, match=r"`probs` has shape \(5,\), expected \(b, q\)"):
        dependencies(torch.zeros(5), 2, (0, 1))


# --- the method -----------------------------------------------------------------------------------


def step(q=5):
    """Outputs of a student and a teacher that both carry gradient, without embeddings; two labels are ignored."""
    (student, teacher), empty = random_logits(4, q), torch.zeros(4, 2, 1, 1)
    targets = (random_logits(4, q, seed=1)[0] > 0).to(torch.uint8)
    ignore_mask = torch.zeros(4, q, dtype=torch.bool)
    ignore_mask[0, 1] = ignore_mask[3, 0] = True
    outputs = [Output(logits.requires_grad_(), None, empty) for logits in (student, teacher)]
    return outputs[0], Batch(torch.zeros(4, 3, 2, 2), targets, ignore_mask, {"teacher": outputs[1]})


def small(classes):
    return create_model("resnet8_cifar", classes, "gap", image_size=16, embed_dim=8, widths=(4, 8, 8))


def test_the_papers_settings():
    """Sec. 4.3: orders 2 to 4, all weights 1 but λ_MLD = 10."""
    method = create_method("mdkd")
    assert isinstance(method, MDKD)
    assert (method.max_order, method.lambda_mld, method.lambda_bd, method.lambda_id) == (4, 10, 1, 1)


@pytest.mark.parametrize("max_order", [2, 4, 5])
@pytest.mark.parametrize("reduction", ["sum", "batchmean"])
def test_the_terms_are_those_of_eq_15(max_order, reduction):
    student, batch = step()
    method = create_method(
        "mdkd", max_order=max_order, lambda_mld=2.0, lambda_bd=3.0, lambda_id=5.0, reduction=reduction
    )
    terms = method.loss_terms(student, batch)
    mine, its = student.logits, batch.teacher.logits
    expected = {
        "bce": bce(mine, batch.targets, reduction=reduction, ignore_mask=batch.ignore_mask),
        "mld": 2 * mld(mine, its),
        **{f"bd{n}": 3 * enumerated("batch", mine, its, n) for n in range(2, max_order + 1)},
        **{f"id{n}": 5 * enumerated("instance", mine, its, n) for n in range(2, max_order + 1)},
    }
    assert list(terms) == list(expected)
    for name, term in terms.items():
        assert term.shape == ()
        torch.testing.assert_close(term, expected[name], rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("off", "left"),
    [
        ("lambda_mld", ["bce", "bd2", "bd3", "bd4", "id2", "id3", "id4"]),
        ("lambda_bd", ["bce", "mld", "id2", "id3", "id4"]),
        ("lambda_id", ["bce", "mld", "bd2", "bd3", "bd4"]),
    ],
)
def test_a_weight_of_zero_leaves_its_terms_out(off, left):
    assert list(create_method("mdkd", **{off: 0.0}).loss_terms(*step())) == left


def test_only_the_student_learns():
    student, batch = step()
    sum(create_method("mdkd").loss_terms(student, batch).values()).backward()
    assert student.logits.grad.isfinite().all()
    assert batch.teacher.logits.grad is None


def test_through_real_models_of_any_head():
    student, teacher = small(tuple("abcde")), small(tuple("abcde"))
    method = create_method("mdkd", teacher=teacher)
    method.check(student)
    images, targets = torch.rand(4, 3, 16, 16), step()[1].targets
    terms = method.loss_terms(student(images), Batch(images, targets, None, {"teacher": teacher(images)}))
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("max_order", [1, 4])
def test_more_orders_than_labels(max_order):
    student = small(tuple("abc"))
    found = re.escape(f"`max_order` is {max_order!r}, expected a number of labels from 2 to 3")
    with pytest.raises(ValueError, match=found):
        create_method("mdkd", teacher=small(tuple("abc")), max_order=max_order).check(student)
    create_method("mdkd", teacher=small(tuple("abc")), max_order=3).check(student)
