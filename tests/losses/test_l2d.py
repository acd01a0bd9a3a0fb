"""Multi-label logits distillation and label-wise embedding distillation (L2D, Eqs 3-8) against plain loops.

The references are written from the equations and pass every check by themselves. "raw" is Eqs 4-8 as printed;
"mean" divides each class's (CD) or image's (ID) distances by the mean of their own positive entries, and each
class's or image's sum of Huber terms by its number of positives.
"""

import math
import re

import pytest
import torch
from compare import assert_same, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlkd.losses.classification import bce
from mlkd.losses.l2d import cd, id_, led, mld

PROPERTY = settings(derandomize=True, deadline=None, max_examples=30, database=None)
STEEP = [-1e4, -100.0, -17.0, -1.0, 0.0, 1.0, 17.0, 100.0, 1e4]


# --- references: loops over images, labels and pairs, one scalar tensor at a time -----------------


def log_sigmoid(logit):
    """log(1 / (1 + exp(-logit))) of one scalar tensor, on the side of 0 where nothing overflows."""
    if logit >= 0:
        return -torch.log1p(torch.exp(-logit))
    return logit - torch.log1p(torch.exp(logit))


def reference_mld(student_logits, teacher_logits, *, reduction="batchmean"):
    """Eq. 3: KL([t, 1 - t] || [s, 1 - s]) of each image and label."""
    b, q = student_logits.shape
    terms = []
    for i in range(b):
        for k in range(q):
            student, teacher = student_logits[i, k].double(), teacher_logits[i, k].detach().double()
            term = torch.zeros((), dtype=torch.float64)
            for sign in (1, -1):  # σ(x) and 1 - σ(x) = σ(-x)
                probability = torch.exp(log_sigmoid(sign * teacher))
                term = term + probability * (log_sigmoid(sign * teacher) - log_sigmoid(sign * student))
            terms.append(term)
    if reduction == "none":
        return torch.stack(terms).reshape(b, q)
    return sum(terms) / b if reduction == "batchmean" else sum(terms)


def huber(a, b):
    """Eq. 6."""
    difference = abs(a - b)
    return difference**2 / 2 if difference <= 1 else difference - 1 / 2


def distances(rows, positive):
    """Eq. 4 or 7 for every ordered pair of rows; where two rows are equal, 0 without a gradient."""
    zero = torch.zeros((), dtype=torch.float64)
    table = [[zero for _ in rows] for _ in rows]
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            if positive[i] and positive[j] and not torch.equal(one, other):
                table[i][j] = torch.sqrt(((one.double() - other.double()) ** 2).sum())
    return table


def divided_by_their_mean(table):
    above_zero = [entry for row in table for entry in row if entry > 0]
    if not above_zero:
        return table
    mean = sum(above_zero) / len(above_zero)
    return [[entry / mean for entry in row] for row in table]


def consistency(student_rows, teacher_rows, positive, normalize):
    """The inner sum of Eq. 5 or 8: one class or one image."""
    student, teacher = distances(student_rows, positive), distances(teacher_rows.detach(), positive)
    divisor = 1
    if normalize:
        student, teacher = divided_by_their_mean(student), divided_by_their_mean(teacher)
        divisor = max(int(positive.sum()), 1)
    n = len(positive)
    return sum(huber(teacher[i][j], student[i][j]) for i in range(n) for j in range(n)) / divisor


def zero_with_a_graph(student_embeddings):
    return (0 * student_embeddings.double()).sum()


def reference_cd(student_embeddings, teacher_embeddings, targets, *, normalize=True):
    """Eqs 4-6: for each class, the distances between its positive images."""
    total = zero_with_a_graph(student_embeddings)
    for k in range(targets.shape[1]):
        rows = student_embeddings[:, k], teacher_embeddings[:, k]
        total = total + consistency(*rows, targets[:, k] == 1, normalize)
    return total


def reference_id(student_embeddings, teacher_embeddings, targets, *, normalize=True):
    """Eqs 6-8: for each image, the distances between its positive labels."""
    total = zero_with_a_graph(student_embeddings)
    for i in range(targets.shape[0]):
        rows = student_embeddings[i], teacher_embeddings[i]
        total = total + consistency(*rows, targets[i] == 1, normalize)
    return total


def reference_led(student_embeddings, teacher_embeddings, targets, *, lambda_cd=100, lambda_id=1000, normalize=True):
    """The two embedding terms of Eq. 9 with their weights."""
    batch = student_embeddings, teacher_embeddings, targets
    return lambda_cd * reference_cd(*batch, normalize=normalize) + lambda_id * reference_id(*batch, normalize=normalize)


PAIRS = {"cd": (cd, reference_cd), "id": (id_, reference_id), "led": (led, reference_led)}

both_mld = pytest.mark.parametrize("loss", [mld, reference_mld], ids=["mld", "reference"])
both_cd = pytest.mark.parametrize("loss", [cd, reference_cd], ids=["cd", "reference"])
both_id = pytest.mark.parametrize("loss", [id_, reference_id], ids=["id", "reference"])
each_loss = pytest.mark.parametrize(
    "loss",
    [loss for pair in PAIRS.values() for loss in pair],
    ids=[name for pair in PAIRS for name in (pair, f"{pair}-reference")],
)
each_pair = pytest.mark.parametrize(("loss", "reference"), list(PAIRS.values()), ids=list(PAIRS))
each_ours = pytest.mark.parametrize("loss", [cd, id_, led], ids=["cd", "id", "led"])
each_distance = pytest.mark.parametrize("normalize", [True, False])
each_reduction = pytest.mark.parametrize("reduction", ["batchmean", "sum", "none"])


def random_logits(b=5, q=4, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(scale * torch.randn(b, q, generator=generator, dtype=torch.float64) for _ in range(2))


def random_embeddings(b=5, q=4, d=3, seed=0, density=0.6, teacher_d=None):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(b, q, d, generator=generator, dtype=torch.float64)
    teacher = 2 * torch.randn(b, q, teacher_d or d, generator=generator, dtype=torch.float64)
    targets = (torch.rand(b, q, generator=generator) < density).to(torch.uint8)
    return student, teacher, targets


# --- MLD: by hand, against the reference, torch and calculus --------------------------------------


@both_mld
def test_mld_by_hand(loss):
    # σ(log 3) = 3/4, σ(0) = 1/2.
    #   teacher 1/2, student 3/4:  1/2 log(1/2 / 3/4) + 1/2 log(1/2 / 1/4) = 1/2 log(4/3)
    #   teacher 3/4, student 1/2:  3/4 log(3/4 / 1/2) + 1/4 log(1/4 / 1/2) = 3/4 log 3 - log 2
    #   teacher 3/4, student 1/4:  3/4 log 3 + 1/4 log(1/3)                = 1/2 log 3
    three = math.log(3)
    student = torch.tensor([[three, 0], [-three, three]], dtype=torch.float64)
    teacher = torch.tensor([[0, three], [three, three]], dtype=torch.float64)
    terms = [[math.log(4 / 3) / 2, 3 / 4 * three - math.log(2)], [three / 2, 0]]
    terms = torch.tensor(terms, dtype=torch.float64)
    torch.testing.assert_close(loss(student, teacher, reduction="none"), terms, rtol=1e-12, atol=1e-15)
    assert loss(student, teacher, reduction="sum").item() == pytest.approx(terms.sum().item(), rel=1e-12)
    mean = terms.sum().item() / 2
    assert loss(student, teacher, reduction="batchmean").item() == pytest.approx(mean, rel=1e-12)
    assert loss(student, teacher).item() == pytest.approx(mean, rel=1e-12), "the default is Eq. 3's 1/b"


@st.composite
def logit_batches(draw):
    b, q = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    logits = st.lists(st.floats(-60, 60), min_size=b * q, max_size=b * q)
    return tuple(torch.tensor(draw(logits), dtype=torch.float64).reshape(b, q) for _ in range(2))


@PROPERTY
@given(logit_batches(), st.sampled_from(["batchmean", "sum", "none"]))
def test_mld_equals_the_reference(batch, reduction):
    actual = value_and_gradient(mld, *batch, reduction=reduction)
    assert_same(actual, value_and_gradient(reference_mld, *batch, reduction=reduction))


@both_mld
def test_mld_is_the_kl_divergence_of_bernoullis(loss):
    student, teacher = random_logits()
    expected = kl_divergence(Bernoulli(logits=teacher), Bernoulli(logits=student))
    torch.testing.assert_close(loss(student, teacher, reduction="none"), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss(student, teacher), expected.sum(1).mean(), rtol=1e-9, atol=1e-12)


@both_mld
def test_mld_gradient_is_the_difference_of_probabilities(loss):
    student, teacher = random_logits()
    _, gradient = value_and_gradient(loss, student, teacher)
    expected = (torch.sigmoid(student) - torch.sigmoid(teacher)) / len(student)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@each_reduction
def test_mld_gradcheck(reduction):
    student, teacher = random_logits(3, 3)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mld(x, teacher, reduction=reduction), student)


@both_mld
def test_mld_of_equal_logits_is_zero(loss):
    logits = torch.tensor([STEEP, STEEP[::-1]], dtype=torch.float64)
    value, gradient = value_and_gradient(loss, logits, logits, reduction="none")
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-15)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-14)


@both_mld
def test_mld_does_not_depend_on_the_order_of_images_and_labels(loss):
    student, teacher = random_logits()
    value, gradient = value_and_gradient(loss, student, teacher)
    rows, columns = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 3, 1, 0])
    shuffled = [logits[rows][:, columns] for logits in (student, teacher)]
    assert_same(value_and_gradient(loss, *shuffled), (value, gradient[rows][:, columns]))


@both_mld
def test_mld_does_not_tell_present_from_absent(loss):
    student, teacher = random_logits()
    actual = loss(-student, -teacher, reduction="none")
    torch.testing.assert_close(actual, loss(student, teacher, reduction="none"), rtol=1e-9, atol=1e-12)


@both_mld
def test_mld_of_a_certain_teacher_is_bce(loss):
    # A teacher at 0 or 1 has no entropy: its KL divergence is the cross entropy with its hard labels.
    student, _ = random_logits()
    targets = random_embeddings(5, 4)[2]
    certain = 1e4 * (2 * targets.double() - 1)
    actual = value_and_gradient(loss, student, certain)
    assert_same(actual, value_and_gradient(bce, student, targets, reduction="batchmean"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mld_of_steep_logits_stays_finite_and_agrees_with_float64(dtype):
    student, teacher = torch.meshgrid(*[torch.tensor(STEEP, dtype=torch.float64)] * 2, indexing="ij")
    actual = value_and_gradient(mld, student.to(dtype), teacher.to(dtype), reduction="none")
    expected = value_and_gradient(reference_mld, student, teacher, reduction="none")
    assert expected[0].max() == 1e4
    rtol, atol = (1e-9, 1e-15) if dtype == torch.float64 else (1e-5, 2e-7)
    assert all(torch.isfinite(got).all() for got in actual)
    torch.testing.assert_close(actual[0].double(), expected[0], rtol=rtol, atol=atol)
    weights = torch.arange(1, student.numel() + 1).reshape(student.shape)
    torch.testing.assert_close(actual[1].double() / weights, expected[1] / weights, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mld_of_the_largest_logits_stays_finite(dtype):
    largest = torch.finfo(dtype).max
    student = torch.tensor([[largest, -largest, largest, -largest]], dtype=dtype)
    teacher = torch.tensor([[-largest, largest, largest, -largest]], dtype=dtype)
    value, gradient = value_and_gradient(mld, student, teacher, reduction="none")
    assert value.tolist() == [[largest, largest, 0, 0]]
    assert gradient.tolist() == [[1, -2, 0, 0]], "1 and -1, times the weights 1 and 2"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("teacher_dtype", [torch.float32, None], ids=["teacher-float32", "teacher-half"])
def test_mld_of_half_precision_logits_is_computed_in_float32(dtype, autocast, teacher_dtype):
    student, teacher = random_logits(40, 50)
    student, teacher = student.to(dtype), teacher.to(dtype).to(teacher_dtype or dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        actual = value_and_gradient(mld, student, teacher, reduction="sum")
    expected = value_and_gradient(mld, student.float(), teacher.float(), reduction="sum")
    assert actual[0].dtype == torch.float32
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(actual[1].float(), expected[1], rtol=1e-2, atol=1e-3)


def test_autocast_does_not_change_mld_of_float32():
    student, teacher = (logits.float() for logits in random_logits(40, 50))
    expected = value_and_gradient(mld, student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = value_and_gradient(mld, student, teacher)
    assert_same(actual, expected, rtol=1e-6)


@both_mld
@each_reduction
def test_mld_gives_the_teacher_no_gradient(loss, reduction):
    student, teacher = (logits.requires_grad_() for logits in random_logits())
    loss(student, teacher, reduction=reduction).sum().backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_mld_leaves_inputs_and_grad_mode_as_they_were():
    student, teacher = random_logits()
    copies = student.clone(), teacher.clone()
    with torch.no_grad():
        assert not mld(student.requires_grad_(), teacher).requires_grad
        assert not torch.is_grad_enabled()
    assert mld(student, teacher).requires_grad
    assert torch.is_grad_enabled()
    assert torch.equal(student, copies[0])
    assert torch.equal(teacher, copies[1])
    assert (student._version, teacher._version, teacher.requires_grad) == (0, 0, False)


@pytest.mark.parametrize("shape", [(5, 3), (4, 4), (1, 4), (5, 1), (4,), (5, 4, 1)])
def test_mld_names_both_arguments_when_their_shapes_differ(shape):
    student, _ = random_logits()
    with pytest.raises(ValueError, match=r"(?s)(?=.*student_logits)(?=.*teacher_logits)(?=.*\(5, 4\))"):
        mld(student, torch.zeros(shape))


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("batch_mean", "batchmean"), ("summ", "sum"), ("None", "none"), ("SUM", "sum")]
)
def test_mld_of_an_unknown_reduction_names_the_nearest(wrong, closest_match):
    with pytest.raises(ValueError, match=f"`reduction` is '{wrong}'.*mean '{closest_match}'"):
        mld(*random_logits(), reduction=wrong)


# --- CD, ID, LED: by hand -------------------------------------------------------------------------
#
# Three positives. Teacher in the plane, a triangle of sides 3, 4 and 5; student on a line, at 0, 3 and 7/2.
#
#   pair          01      02      12
#   teacher       3       4       5       mean 4    -> 3/4   1     5/4
#   student       3       7/2     1/2     mean 7/3  -> 9/7   3/2   3/14
#
#   raw:  differences 0, -1/2, -9/2        -> Huber 0, 1/8, 4
#   mean: differences 15/28, 1/2, -29/28   -> Huber (15/28)²/2, 1/8, 29/28 - 1/2
#
# Ordered pairs count each of these twice; "mean" divides by 3 positives.

TRIANGLE = torch.tensor([[0, 0], [3, 0], [0, 4]], dtype=torch.float64)
LINE = torch.tensor([[0], [3], [7 / 2]], dtype=torch.float64)
RAW = 2 * (0 + 1 / 8 + 4)
MEAN = 2 / 3 * ((15 / 28) ** 2 / 2 + 1 / 8 + (29 / 28 - 1 / 2))

# Gradient: the Huber slopes are the differences, cut at 1. Raw: 0, -1/2, -1, times 2. Mean, where the
# student's mean (7/3) moves too: 2/3 * (slope / (7/3) - sum(slope * normalize) / (3 (7/3)²)); the sum is 20/7.
RAW_SLOPES = (2 * 0, 2 * (-1 / 2), 2 * (-1))
MEAN_SLOPES = tuple(2 / 3 * (slope * 3 / 7 - 20 / 7 * 3 / 49) for slope in (15 / 28, 1 / 2, -1))


def on_the_line(d01, d02, d12):
    """Slopes of the three distances as slopes of the three points; distances grow to the right."""
    return torch.tensor([[-d01 - d02], [d01 - d12], [d02 + d12]], dtype=torch.float64)


BY_HAND = pytest.mark.parametrize(
    ("normalize", "value", "slopes"),
    [(False, RAW, RAW_SLOPES), (True, MEAN, MEAN_SLOPES)],
    ids=["raw", "mean"],
)


def test_the_fractions_of_the_example():
    assert pytest.approx(33 / 4, rel=1e-15) == RAW
    assert pytest.approx(1261 / 2352, rel=1e-15) == MEAN


@both_cd
@BY_HAND
def test_cd_by_hand(loss, normalize, value, slopes):
    # Class 0: the three points, and one image without the class. Class 1: one positive. Class 2: none.
    student, teacher, _ = random_embeddings(4, 3, 1, teacher_d=2)
    student[[0, 1, 3], 0], teacher[[0, 1, 3], 0] = LINE, TRIANGLE
    targets = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]])
    expected = torch.zeros_like(student)
    expected[[0, 1, 3], 0] = on_the_line(*slopes)
    actual = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    assert_same(actual, (torch.tensor(value, dtype=torch.float64), expected), rtol=1e-12, atol=1e-14)


@both_id
@BY_HAND
def test_id_by_hand(loss, normalize, value, slopes):
    # Image 0: the three points, and one label it does not have. Image 1: one positive. Image 2: none.
    student, teacher, _ = random_embeddings(3, 4, 1, teacher_d=2)
    student[0, [0, 1, 3]], teacher[0, [0, 1, 3]] = LINE, TRIANGLE
    targets = torch.tensor([[1, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    expected = torch.zeros_like(student)
    expected[0, [0, 1, 3]] = on_the_line(*slopes)
    actual = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    assert_same(actual, (torch.tensor(value, dtype=torch.float64), expected), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("loss", PAIRS["led"], ids=["led", "reference"])
@BY_HAND
def test_led_by_hand(loss, normalize, value, slopes):
    # Class 0 is the example of CD (images 0-2), image 3 is the example of ID (labels 1-3).
    student, teacher, _ = random_embeddings(4, 4, 1, teacher_d=2)
    student[:3, 0], teacher[:3, 0] = LINE, TRIANGLE
    student[3, 1:], teacher[3, 1:] = LINE, TRIANGLE
    targets = torch.tensor([[1, 0, 0, 0]] * 3 + [[0, 1, 1, 1]])
    batch = student, teacher, targets
    default = {} if normalize else {"normalize": normalize}
    assert loss(*batch, **default).item() == pytest.approx((100 + 1000) * value, rel=1e-12)
    weighted = loss(*batch, lambda_cd=2, lambda_id=0.5, normalize=normalize)
    assert weighted.item() == pytest.approx(2.5 * value, rel=1e-12)
    _, gradient = value_and_gradient(loss, *batch, lambda_cd=2, lambda_id=0.5, normalize=normalize)
    torch.testing.assert_close(gradient[:3, 0], 2 * on_the_line(*slopes), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradient[3, 1:], on_the_line(*slopes) / 2, rtol=1e-12, atol=1e-14)


# --- CD, ID, LED: against the reference -----------------------------------------------------------


@st.composite
def embedding_batches(draw):
    """Embeddings on a grid, so that equal ones and differences of exactly 1 come up, in any unit."""
    b, q, d, teacher_d = (draw(st.integers(1, 4)) for _ in range(4))
    unit, density = draw(st.sampled_from([1.0, 0.37, 0.01, 73.0])), draw(st.integers(0, 10))

    def grid(*shape):
        count = math.prod(shape)
        steps = draw(st.lists(st.integers(-3, 3), min_size=count, max_size=count))
        return unit * torch.tensor(steps, dtype=torch.float64).reshape(shape)

    positives = draw(st.lists(st.integers(0, 9), min_size=b * q, max_size=b * q))
    targets = (torch.tensor(positives) < density).to(torch.uint8).reshape(b, q)
    return grid(b, q, d), grid(b, q, teacher_d), targets


@each_pair
@PROPERTY
@given(embedding_batches(), st.sampled_from([True, False]))
def test_equals_the_reference_on_a_grid(loss, reference, batch, normalize):
    actual = value_and_gradient(loss, *batch, normalize=normalize)
    assert_same(actual, value_and_gradient(reference, *batch, normalize=normalize))


@each_pair
@PROPERTY
@given(
    st.tuples(*[st.integers(1, 6)] * 4),
    st.floats(0, 1),
    st.sampled_from([0.1, 1.0, 10.0]),
    st.integers(0, 2**31),
    st.sampled_from([True, False]),
)
def test_equals_the_reference_on_random_embeddings(loss, reference, shape, density, scale, seed, normalize):
    b, q, d, teacher_d = shape
    student, teacher, targets = random_embeddings(b, q, d, seed, density, teacher_d)
    batch = scale * student, teacher, targets
    actual = value_and_gradient(loss, *batch, normalize=normalize)
    assert_same(actual, value_and_gradient(reference, *batch, normalize=normalize))


@each_ours
def test_the_default_distance_is_mean(loss):
    batch = random_embeddings()
    assert loss(*batch) == loss(*batch, normalize=True)
    assert loss(*batch) != loss(*batch, normalize=False)


@each_ours
@each_distance
def test_gradcheck(loss, normalize):
    student, teacher, targets = random_embeddings(4, 4, 2, seed=3, density=0.7, teacher_d=3)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher, targets, normalize=normalize), student)


# --- CD, ID, LED: limits --------------------------------------------------------------------------


@each_loss
@each_distance
def test_student_equal_to_the_teacher_costs_nothing(loss, normalize):
    _, teacher, targets = random_embeddings()
    value, gradient = value_and_gradient(loss, teacher, teacher, targets, normalize=normalize)
    assert value == 0
    assert (gradient == 0).all()


@each_loss
@each_distance
def test_order_of_images_and_of_labels_does_not_matter(loss, normalize):
    batch = random_embeddings()
    value, gradient = value_and_gradient(loss, *batch, normalize=normalize)
    rows, columns = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 3, 1, 0])
    shuffled = [tensor[rows][:, columns] for tensor in batch]
    actual = value_and_gradient(loss, *shuffled, normalize=normalize)
    assert_same(actual, (value, gradient[rows][:, columns]))


@pytest.mark.parametrize("losses", [(cd, id_), (reference_cd, reference_id)], ids=["l2d", "reference"])
@each_distance
def test_id_is_cd_with_images_and_labels_exchanged(losses, normalize):
    student, teacher, targets = random_embeddings()
    value, gradient = value_and_gradient(losses[0], student, teacher, targets, normalize=normalize)
    exchanged = [tensor.transpose(0, 1) for tensor in (student, teacher, targets)]
    actual = value_and_gradient(losses[1], *exchanged, normalize=normalize)
    assert_same(actual, (value, gradient.transpose(0, 1)))


@each_loss
@pytest.mark.parametrize(("student_scale", "teacher_scale"), [(1e3, 1), (1, 1e-3), (0.07, 130.0)])
def test_mean_distances_have_no_unit(loss, student_scale, teacher_scale):
    student, teacher, targets = random_embeddings()
    value, gradient = value_and_gradient(loss, student, teacher, targets)
    actual = value_and_gradient(loss, student_scale * student, teacher_scale * teacher, targets)
    assert_same(actual, (value, gradient / student_scale))
    assert value > 0


@each_loss
def test_mean_distances_have_no_slope_along_their_scale(loss):
    # The derivative along a common factor of the student is 0; with a detached mean it would not be.
    student, teacher, targets = random_embeddings()
    _, gradient = value_and_gradient(loss, student, teacher, targets)
    assert gradient.abs().sum() > 0.1
    assert (gradient * student).sum().item() == pytest.approx(0, abs=1e-9)


@each_loss
@each_distance
def test_moving_and_turning_all_embeddings_changes_nothing(loss, normalize):
    student, teacher, targets = random_embeddings()
    turn = torch.linalg.qr(random_embeddings(1, 3, 3, seed=1)[0][0]).Q
    value, gradient = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    actual = value_and_gradient(loss, student @ turn + 5, teacher @ turn.T - 2, targets, normalize=normalize)
    assert_same(actual, (value, gradient @ turn))


@pytest.mark.parametrize(
    ("loss", "pairs"),
    [(cd, 4 * 5 * 4), (reference_cd, 4 * 5 * 4), (id_, 5 * 4 * 3), (reference_id, 5 * 4 * 3)],
    ids=["cd", "cd-reference", "id", "id-reference"],
)
def test_raw_distances_far_apart_are_in_the_linear_branch(loss, pairs):
    # Every pair costs its normalize less 1/2, so twice the embeddings cost twice as much and 1/2 per pair.
    student, teacher, targets = random_embeddings(5, 4, density=1.0)
    batch = torch.zeros_like(teacher), targets
    once, twice = (loss(factor * student, *batch, normalize=False).item() for factor in (1e3, 2e3))
    assert twice - 2 * once == pytest.approx(pairs / 2, rel=1e-6)


@each_loss
def test_exactly_two_positives_are_silent_under_mean(loss):
    # One normalize divided by its own mean is 1, whatever it was. Here each class and each image has two.
    student, teacher, _ = random_embeddings(3, 3, 4, seed=2)
    targets = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
    value, gradient = value_and_gradient(loss, student, teacher, targets)
    assert value == 0
    assert (gradient == 0).all()
    value, gradient = value_and_gradient(loss, student, teacher, targets, normalize=False)
    assert value > 0
    assert (gradient != 0).any()


@each_loss
@each_distance
@pytest.mark.parametrize(
    "targets",
    [
        pytest.param([[0, 0, 0]] * 3, id="no positives"),
        pytest.param([[0, 0, 0], [0, 1, 0], [0, 0, 0]], id="one positive"),
        pytest.param([[1, 0, 0], [0, 1, 0], [0, 0, 1]], id="one positive in each class and image"),
        pytest.param([[1]], id="one image, one label"),
        pytest.param([[0]], id="one image, one absent label"),
    ],
)
def test_nothing_to_compare_is_a_zero_with_a_graph(loss, normalize, targets):
    targets = torch.tensor(targets)
    student, teacher, _ = random_embeddings(*targets.shape)
    student.requires_grad_()
    value = loss(student, teacher, targets, normalize=normalize)
    assert isinstance(value, torch.Tensor)
    assert value.shape == ()
    assert value == 0
    assert value.requires_grad
    value.backward()
    assert (student.grad == 0).all()


@each_ours
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nothing_to_compare_among_the_largest_embeddings(loss, dtype):
    # Their sum overflows: 0 * inf is no zero.
    student = torch.full((2, 2, 3), torch.finfo(dtype).max, dtype=dtype)
    value, gradient = value_and_gradient(loss, student, student, torch.zeros(2, 2))
    assert value == 0
    assert (gradient == 0).all()


@each_loss
@each_distance
def test_embeddings_of_absent_labels_do_not_matter(loss, normalize):
    student, teacher, targets = random_embeddings()
    expected = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    absent = (targets == 0).unsqueeze(2)
    for filler in (0.0, 1e30):
        other = student.masked_fill(absent, filler), teacher.masked_fill(absent, -filler)
        actual = value_and_gradient(loss, *other, targets, normalize=normalize)
        assert_same(actual, expected)
        assert (actual[1][targets == 0] == 0).all()


@each_ours
@each_distance
@pytest.mark.parametrize("b_or_q", [0, 1])
def test_the_largest_embeddings_of_absent_labels_do_not_matter(loss, normalize, b_or_q):
    # Two of them are further apart than any float32.
    student, teacher, _ = (tensor.float() for tensor in random_embeddings(4, 4))
    targets = torch.zeros(4, 4)
    targets.select(b_or_q, 0)[:] = 1
    targets[0, 3], targets[3, 0] = 0, 0
    expected = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    filler = torch.tensor([-1.0, 1.0, -1.0, 1.0]) * torch.finfo(torch.float32).max
    filler = (filler[:, None] * torch.tensor([-1.0, 1.0, -1.0, 1.0]))[:, :, None].expand(4, 4, 3)
    student = torch.where(targets[:, :, None] == 1, student, filler)
    actual = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    assert_same(actual, expected, rtol=1e-6)


@each_loss
@each_distance
def test_a_zero_embedding_of_a_present_label_takes_part(loss, normalize):
    # Positives are what the targets say, not the rows that are not all zero.
    student, teacher, targets = random_embeddings(4, 4, seed=5, density=1.0)
    student[1, 2], teacher[2, 1] = 0, 0
    value, gradient = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    assert (gradient[1, 2] != 0).all()
    targets[1, 2] = 0
    assert abs(loss(student, teacher, targets, normalize=normalize) - value) > 1e-3


# --- CD, ID, LED: edges and precision -------------------------------------------------------------


@each_pair
@each_distance
@pytest.mark.parametrize(
    ("shape", "density"),
    [((1, 5, 3), 1.0), ((5, 1, 3), 1.0), ((4, 5, 1), 1.0), ((4, 4, 3), 1.0), ((3, 6, 2), 0.5)],
    ids=["one image", "one label", "one dimension", "all positive", "row and class empty"],
)
def test_edges_equal_the_reference(loss, reference, normalize, shape, density):
    student, teacher, targets = random_embeddings(*shape, density=density)
    if density < 1:
        targets[1], targets[:, 4] = 0, 0
    actual = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    assert_same(actual, value_and_gradient(reference, student, teacher, targets, normalize=normalize))


@each_loss
@each_distance
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("who", ["both", "student", "teacher"])
def test_identical_embeddings_give_finite_numbers(loss, normalize, dtype, who):
    student, teacher, targets = (tensor.clone() for tensor in random_embeddings(3, 4, seed=7, density=1.0))
    if who != "teacher":
        student[:] = student[0, 0].clone()
    if who != "student":
        teacher[:] = teacher[0, 0].clone()
    value, gradient = value_and_gradient(loss, student.to(dtype), teacher.to(dtype), targets, normalize=normalize)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert (value == 0) == (who == "both")
    if who != "teacher":
        assert (gradient == 0).all(), "a normalize of 0 has gradient 0"


@each_ours
@each_distance
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(32, 3, 5), (3, 32, 5)])
def test_many_identical_embeddings_are_at_distance_zero(loss, normalize, dtype, shape):
    # From inner products, |a|² + |b|² - 2ab (torch's choice above 25 rows), it would be rounding.
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(shape[2], generator=generator).to(dtype).expand(shape) * 10
    teacher = torch.randn(shape[2], generator=generator).to(dtype).expand(shape) * 10
    value, gradient = value_and_gradient(loss, student, teacher, torch.ones(shape[:2]), normalize=normalize)
    assert value == 0
    assert (gradient == 0).all()


@each_ours
@each_distance
@pytest.mark.parametrize("shape", [(32, 3, 5), (3, 32, 5)])
def test_close_embeddings_far_from_the_origin_agree_with_float64(loss, normalize, shape):
    generator = torch.Generator().manual_seed(1)
    targets = torch.ones(shape[:2])
    student, teacher = (100 + torch.randn(shape, generator=generator) / 8 for _ in range(2))
    actual = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    expected = value_and_gradient(loss, student.double(), teacher.double(), targets, normalize=normalize)
    largest = max(tensor.abs().max().item() for tensor in expected)
    assert_same(actual, expected, rtol=1e-4, atol=1e-5 * largest)  # of float32, whose sums cancel


@each_pair
@each_distance
def test_a_pair_of_identical_embeddings_among_others(loss, reference, normalize):
    # Its zero is left out of the mean of the positive distances.
    student, teacher, targets = random_embeddings(4, 4, seed=8, density=1.0)
    student[1], teacher[3] = student[0], teacher[2]
    student[:, 1], teacher[:, 3] = student[:, 0], teacher[:, 2]
    actual = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    assert_same(actual, value_and_gradient(reference, student, teacher, targets, normalize=normalize))


@each_ours
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
def test_the_type_of_the_targets_does_not_matter(loss, dtype):
    student, teacher, targets = random_embeddings()
    assert loss(student, teacher, targets.to(dtype)) == loss(student, teacher, targets)


@each_pair
@each_distance
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_embeddings_are_compared_in_float32(loss, reference, normalize, dtype, autocast):
    # Entries of some hundreds: a squared difference is above 65504, the largest float16.
    student, teacher, targets = random_embeddings(4, 4, 8)
    student, teacher = (200 * student).to(dtype), (200 * teacher).to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        value, gradient = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    wanted = value_and_gradient(reference, student.double(), teacher.double(), targets, normalize=normalize)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), wanted[0], rtol=1e-5, atol=0)
    largest = wanted[1].abs().max().item()
    torch.testing.assert_close(gradient.double(), wanted[1], rtol=1e-2, atol=1e-2 * largest)


@each_ours
@each_distance
def test_autocast_does_not_change_float32(loss, normalize):
    student, teacher, targets = random_embeddings(6, 6, 16)
    batch = student.float(), teacher.float(), targets
    expected = value_and_gradient(loss, *batch, normalize=normalize)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = value_and_gradient(loss, *batch, normalize=normalize)
    assert_same(actual, expected, rtol=1e-6, atol=1e-6)


@each_ours
@each_distance
@pytest.mark.parametrize(
    ("student_dtype", "teacher_dtype"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float32, torch.float64),
        (torch.float64, torch.float32),
    ],
)
def test_student_and_teacher_in_different_precisions(loss, normalize, student_dtype, teacher_dtype):
    student, teacher, targets = random_embeddings()
    student, teacher = student.to(student_dtype), teacher.to(teacher_dtype)
    actual = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    expected = value_and_gradient(loss, student.double(), teacher.double(), targets, normalize=normalize)
    torch.testing.assert_close(actual[0].double(), expected[0], rtol=1e-5, atol=0)
    rtol = 1e-2 if student_dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(actual[1].double(), expected[1], rtol=rtol, atol=rtol * expected[1].abs().max().item())


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements in the largest storage that any operation returned."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


@each_distance
@pytest.mark.parametrize("hub", [False, True], ids=["alike", "hub class and full image"])
def test_led_builds_no_tensor_over_all_pairs(normalize, hub):
    # (b, q, q, d) would be 80 and (b, b, q, d) 64 times as large as the embeddings.
    b, q, d = 64, 80, 512
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(b, q, d, generator=generator).requires_grad_()
    teacher = torch.randn(b, q, d, generator=generator)
    targets = (torch.rand(b, q, generator=generator) < 3 / q).to(torch.uint8)
    if hub:
        targets[:, 0], targets[0] = 1, 1
    with LargestTensor() as largest:
        led(student, teacher, targets, normalize=normalize).backward()
    assert largest.elements <= 4 * b * q * d


# --- CD, ID, LED: manners -------------------------------------------------------------------------


@each_loss
@each_distance
def test_the_teacher_gets_no_gradient(loss, normalize):
    student, teacher, targets = random_embeddings()
    loss(student.requires_grad_(), teacher.requires_grad_(), targets, normalize=normalize).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


@each_ours
@each_distance
def test_inputs_are_left_as_they_were(loss, normalize):
    inputs = random_embeddings()
    copies = [tensor.clone() for tensor in inputs]
    versions = [tensor._version for tensor in inputs]
    loss(inputs[0].requires_grad_(), *inputs[1:], normalize=normalize).backward()
    for tensor, copy, version in zip(inputs, copies, versions, strict=True):
        assert torch.equal(tensor, copy)
        assert tensor._version == version
    assert not inputs[1].requires_grad


@each_ours
@each_distance
@pytest.mark.parametrize("density", [0.0, 0.6])
def test_grad_mode_stays_as_it_was(loss, normalize, density):
    student, teacher, targets = random_embeddings(density=density)
    student.requires_grad_()
    with torch.no_grad():
        assert not loss(student, teacher, targets, normalize=normalize).requires_grad
        assert not torch.is_grad_enabled()
    assert loss(student, teacher, targets, normalize=normalize).requires_grad
    assert torch.is_grad_enabled()


@each_ours
@pytest.mark.parametrize("shape", [(4, 4, 3), (5, 3, 3), (1, 4, 3), (5, 1, 3)])
def test_teacher_embeddings_of_other_images_or_labels(loss, shape):
    student, _, targets = random_embeddings()
    with pytest.raises(ValueError, match=r"(?s)(?=.*student_embeddings)(?=.*teacher_embeddings)(?=.*5, 4)"):
        loss(student, torch.zeros(shape), targets)


@each_ours
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3, 1)])
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_embeddings_that_are_not_one_vector_per_image_and_label(loss, shape, who):
    student, teacher, targets = random_embeddings(5, 4, 3)
    batch = (torch.zeros(shape), teacher) if who == "student" else (student, torch.zeros(shape))
    with pytest.raises(ValueError, match=rf"(?s)(?=.*{who}_embeddings)(?=.*{re.escape(str(shape))})"):
        loss(*batch, targets)


@each_ours
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (1, 4), (5, 1), (4,), (5, 4, 3)])
def test_targets_of_other_images_or_labels(loss, shape):
    student, teacher, _ = random_embeddings()
    with pytest.raises(ValueError, match=r"(?s)(?=.*targets)(?=.*student_embeddings)(?=.*5, 4)"):
        loss(student, teacher, torch.zeros(shape))


@each_ours
@pytest.mark.parametrize(("wrong", "nearest"), [("men", "mean"), ("MEAN", "mean"), ("rawr", "raw"), ("row", "raw")])
def test_an_unknown_distance_names_the_nearest(loss, wrong, closest_match):
    with pytest.raises(ValueError, match=f"`distance` is '{wrong}'.*mean '{closest_match}'"):
        loss(*random_embeddings(), normalize=wrong)
