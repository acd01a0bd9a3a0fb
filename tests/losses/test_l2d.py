"""Multi-label logits distillation and label-wise embedding distillation (L2D, Eqs 3-8) against plain loops.

The references are written from the equations and pass the checks by hand themselves. `normalize=False` is Eqs 4-8;
`normalize=True` divides the distances of each class (CD) or image (ID) by the mean of the positive ones, and each
class's or image's sum of Huber terms by its number of positives.
"""

import math

import pytest
import torch
from compare import (
    PROPERTY,
    REDUCTIONS,
    STEEP,
    assert_equals_reference,
    assert_same,
    bernoulli_divergence,
    huber,
    logit_batches,
    random_logits,
    random_targets,
    reduced,
    value_and_gradient,
    zero,
)
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Bernoulli, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlkd.losses.classification import bce
from mlkd.losses.l2d import cd, id_, led, mld

# References


def reference_mld(student_logits, teacher_logits, *, temperature=1.0, reduction="batchmean"):
    """Eq. 3: KL([t, 1 - t] || [s, 1 - s]) of each image and label, of logits over the temperature, times its square."""
    (b, q), tau = student_logits.shape, temperature
    terms = [
        [tau**2 * bernoulli_divergence(student_logits[i, k] / tau, teacher_logits[i, k] / tau) for k in range(q)]
        for i in range(b)
    ]
    return reduced(terms, reduction)


def distances(rows, positive):
    """Eq. 4 or 7 for every ordered pair of rows; where two rows are equal, 0 without a gradient."""
    table = [[torch.zeros((), dtype=torch.float64) for _ in rows] for _ in rows]
    for i, first in enumerate(rows):
        for j, second in enumerate(rows):
            if positive[i] and positive[j] and not torch.equal(first, second):
                table[i][j] = torch.sqrt(((first.double() - second.double()) ** 2).sum())
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


def reference_cd(student_embeddings, teacher_embeddings, targets, *, normalize=True):
    """Eqs 4-6: for each class, the distances between its positive images."""
    total = zero(student_embeddings)
    for k in range(targets.shape[1]):
        rows = student_embeddings[:, k], teacher_embeddings[:, k]
        total = total + consistency(*rows, targets[:, k] == 1, normalize)
    return total


def reference_id(student_embeddings, teacher_embeddings, targets, *, normalize=True):
    """Eqs 6-8: for each image, the distances between its positive labels."""
    total = zero(student_embeddings)
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
each_pair = pytest.mark.parametrize(("loss", "reference"), list(PAIRS.values()), ids=list(PAIRS))
each_loss = pytest.mark.parametrize("loss", [cd, id_, led], ids=list(PAIRS))
each_case = pytest.mark.parametrize(  # raw distances of `led` are those of `cd` and `id_`
    ("loss", "normalize"), [(cd, True), (id_, True), (led, True), (led, False)], ids=["cd", "id", "led", "led-raw"]
)
each_normalize = pytest.mark.parametrize("normalize", [True, False], ids=["normalized", "raw"])


def random_embeddings(b=5, q=4, d=3, seed=0, density=0.6, teacher_d=None):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(b, q, d, generator=generator, dtype=torch.float64)
    teacher = 2 * torch.randn(b, q, teacher_d or d, generator=generator, dtype=torch.float64)
    targets = (torch.rand(b, q, generator=generator) < density).to(torch.uint8)
    return student, teacher, targets


# MLD


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
    assert loss(student, teacher).item() == pytest.approx(terms.sum().item() / 2, rel=1e-12), "the default is 1/b"


@PROPERTY
@given(logit_batches(2), st.sampled_from(REDUCTIONS), st.floats(0.25, 8))
def test_mld_equals_the_reference_and_torch(batch, reduction, temperature):
    student, teacher, *_ = batch
    assert_equals_reference(mld, reference_mld, student, teacher, reduction=reduction)
    assert_equals_reference(mld, reference_mld, student, teacher, temperature=temperature, reduction=reduction)
    student, teacher = student / 4, teacher / 4  # torch's divergence is accurate for moderate logits only
    expected = kl_divergence(Bernoulli(logits=teacher), Bernoulli(logits=student))
    torch.testing.assert_close(mld(student, teacher, reduction="none"), expected, rtol=1e-9, atol=1e-12)


@both_mld
def test_mld_gradient_is_the_difference_of_probabilities(loss):
    student, teacher = random_logits(2)
    _, gradient = value_and_gradient(loss, student, teacher)
    expected = (torch.sigmoid(student) - torch.sigmoid(teacher)) / len(student)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@both_mld
def test_mld_at_a_high_temperature_is_the_squared_distance_of_the_logits(loss):
    # σ(z/τ) = 1/2 + z / (4τ) + ..., and KL([p, 1 - p] || [q, 1 - q]) = 2 (p - q)² + ... near 1/2
    student, teacher = random_logits(2)
    actual = loss(student, teacher, temperature=1e3, reduction="none")
    torch.testing.assert_close(actual, (student - teacher) ** 2 / 8, rtol=1e-4, atol=1e-6)


def test_temperature_of_mld_is_above_0():
    for temperature in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"`temperature` is {temperature}, expected a number above 0"):
            mld(*random_logits(2), temperature=temperature)


@both_mld
def test_mld_treats_present_and_absent_alike(loss):
    student, teacher = random_logits(2)
    actual = loss(-student, -teacher, reduction="none")
    torch.testing.assert_close(actual, loss(student, teacher, reduction="none"), rtol=1e-9, atol=1e-12)


@both_mld
def test_mld_of_a_certain_teacher_is_bce(loss):
    # A teacher at 0 or 1 has no entropy: its KL divergence is the cross entropy with its hard labels.
    (student,), targets = random_logits(1), random_targets()
    certain = 1e4 * (2 * targets.double() - 1)
    actual = value_and_gradient(loss, student, certain)
    assert_same(actual, value_and_gradient(bce, student, targets, reduction="batchmean"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mld_of_steep_logits_agrees_with_float64(dtype):
    student, teacher = torch.meshgrid(*[torch.tensor(STEEP, dtype=torch.float64)] * 2, indexing="ij")
    actual = value_and_gradient(mld, student.to(dtype), teacher.to(dtype), reduction="none")
    expected = value_and_gradient(reference_mld, student, teacher, reduction="none")
    assert expected[0].max() == 1e4
    rtol, atol = (1e-9, 1e-15) if dtype == torch.float64 else (1e-5, 2e-7)
    torch.testing.assert_close(actual[0].double(), expected[0], rtol=rtol, atol=atol)
    weights = torch.arange(1, student.numel() + 1).reshape(student.shape)
    torch.testing.assert_close(actual[1].double() / weights, expected[1] / weights, rtol=rtol, atol=atol)
    # The largest numbers of the dtype
    largest = torch.finfo(dtype).max
    student = torch.tensor([[largest, -largest, largest, -largest]], dtype=dtype)
    teacher = torch.tensor([[-largest, largest, largest, -largest]], dtype=dtype)
    value, gradient = value_and_gradient(mld, student, teacher, reduction="none")
    assert value.tolist() == [[largest, largest, 0, 0]]
    assert gradient.tolist() == [[1, -2, 0, 0]], "1 and -1, times the weights 1 and 2"


# CD, ID and LED by hand
#
# Three positives. Teacher in the plane, a triangle of sides 3, 4 and 5; student on a line, at 0, 3 and 7/2.
#
#   pair          01      02      12
#   teacher       3       4       5       mean 4    -> 3/4   1     5/4
#   student       3       7/2     1/2     mean 7/3  -> 9/7   3/2   3/14
#
#   raw:         differences 0, -1/2, -9/2        -> Huber 0, 1/8, 4
#   normalized:  differences 15/28, 1/2, -29/28   -> Huber (15/28)²/2, 1/8, 29/28 - 1/2
#
# Ordered pairs count each of these twice; normalized divides by 3 positives.

TRIANGLE = torch.tensor([[0, 0], [3, 0], [0, 4]], dtype=torch.float64)
LINE = torch.tensor([[0], [3], [7 / 2]], dtype=torch.float64)
RAW = 2 * (0 + 1 / 8 + 4)
NORMALIZED = 2 / 3 * ((15 / 28) ** 2 / 2 + 1 / 8 + (29 / 28 - 1 / 2))

# Gradient: the Huber slopes are the differences, clipped at 1. Raw: 0, -1/2, -1, times 2. Normalized, where the
# student's mean (7/3) has a gradient too: 2/3 * (slope / (7/3) - sum(slope * distance) / (3 (7/3)²)); the sum is 20/7.
RAW_SLOPES = (2 * 0, 2 * (-1 / 2), 2 * (-1))
NORMALIZED_SLOPES = tuple(2 / 3 * (slope * 3 / 7 - 20 / 7 * 3 / 49) for slope in (15 / 28, 1 / 2, -1))


def on_the_line(d01, d02, d12):
    """Slopes of the three distances as slopes of the three points; distances grow to the right."""
    return torch.tensor([[-d01 - d02], [d01 - d12], [d02 + d12]], dtype=torch.float64)


BY_HAND = pytest.mark.parametrize(
    ("normalize", "value", "slopes"),
    [(False, RAW, RAW_SLOPES), (True, NORMALIZED, NORMALIZED_SLOPES)],
    ids=["raw", "normalized"],
)


def test_the_fractions_of_the_example():
    assert pytest.approx(33 / 4, rel=1e-15) == RAW
    assert pytest.approx(1261 / 2352, rel=1e-15) == NORMALIZED


@pytest.mark.parametrize("loss", PAIRS["cd"], ids=["cd", "reference"])
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


@pytest.mark.parametrize("loss", PAIRS["id"], ids=["id", "reference"])
@BY_HAND
def test_id_by_hand(loss, normalize, value, slopes):
    # Image 0: the three points, and one absent label. Image 1: one positive. Image 2: none.
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


# CD, ID and LED against the reference


@st.composite
def embedding_batches(draw):
    """Embeddings on a grid of any unit, where equal ones and differences of exactly 1 occur, or random ones."""
    b, q, d, teacher_d = (draw(st.integers(1, 5)) for _ in range(4))
    scale, density, seed = (
        draw(st.sampled_from([1.0, 0.37, 0.01, 73.0])),
        draw(st.floats(0, 1)),
        draw(st.integers(0, 2**31)),
    )
    student, teacher, targets = random_embeddings(b, q, d, seed, density, teacher_d)
    if draw(st.booleans()):
        student, teacher = student.round(), teacher.round()
    return scale * student, scale * teacher, targets


@each_pair
@PROPERTY
@given(embedding_batches(), st.booleans())
def test_equals_the_reference(loss, reference, batch, normalize):
    assert_equals_reference(loss, reference, *batch, normalize=normalize)


@each_pair
@each_normalize
def test_edges_equal_the_reference(loss, reference, normalize):
    for shape in [(1, 5, 3), (5, 1, 3), (4, 5, 1), (4, 4, 3)]:
        assert_equals_reference(loss, reference, *random_embeddings(*shape, density=1.0), normalize=normalize)
    # An image and a class without positives
    student, teacher, targets = random_embeddings(3, 6, 2, density=0.5)
    targets[1], targets[:, 4] = 0, 0
    assert_equals_reference(loss, reference, student, teacher, targets, normalize=normalize)
    # Equal pairs are not in the mean of the positive distances
    student, teacher, targets = random_embeddings(4, 4, seed=8, density=1.0)
    student[1], teacher[3] = student[0], teacher[2]
    student[:, 1], teacher[:, 3] = student[:, 0], teacher[:, 2]
    assert_equals_reference(loss, reference, student, teacher, targets, normalize=normalize)


@each_loss
def test_normalized_distances_are_the_default(loss):
    batch = random_embeddings()
    assert loss(*batch) == loss(*batch, normalize=True)
    assert loss(*batch) != loss(*batch, normalize=False)


# CD, ID and LED: limits


@pytest.mark.parametrize("losses", [(cd, id_), (reference_cd, reference_id)], ids=["l2d", "reference"])
@each_normalize
def test_id_is_cd_with_images_and_labels_exchanged(losses, normalize):
    student, teacher, targets = random_embeddings()
    value, gradient = value_and_gradient(losses[0], student, teacher, targets, normalize=normalize)
    exchanged = [tensor.transpose(0, 1) for tensor in (student, teacher, targets)]
    actual = value_and_gradient(losses[1], *exchanged, normalize=normalize)
    assert_same(actual, (value, gradient.transpose(0, 1)))


@each_loss
def test_normalized_distances_have_no_unit(loss):
    student, teacher, targets = random_embeddings()
    value, gradient = value_and_gradient(loss, student, teacher, targets)
    assert value > 0
    for student_scale, teacher_scale in [(1e3, 1), (1, 1e-3), (0.07, 130.0)]:
        actual = value_and_gradient(loss, student_scale * student, teacher_scale * teacher, targets)
        assert_same(actual, (value, gradient / student_scale))
    # The derivative along a common factor of the student is 0; with a detached mean it would not be.
    assert gradient.abs().sum() > 0.1
    assert (gradient * student).sum().item() == pytest.approx(0, abs=1e-9)


@each_case
def test_moving_and_rotating_all_embeddings_changes_nothing(loss, normalize):
    student, teacher, targets = random_embeddings()
    rotation = torch.linalg.qr(random_embeddings(1, 3, 3, seed=1)[0][0]).Q
    value, gradient = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    actual = value_and_gradient(loss, student @ rotation + 5, teacher @ rotation.T - 2, targets, normalize=normalize)
    assert_same(actual, (value, gradient @ rotation))


@pytest.mark.parametrize(("loss", "pairs"), [(cd, 4 * 5 * 4), (id_, 5 * 4 * 3)], ids=["cd", "id"])
def test_large_raw_distances_are_in_the_linear_branch(loss, pairs):
    # The term of a pair is its distance less 1/2, so twice the embeddings give twice the loss and 1/2 per pair.
    student, teacher, targets = random_embeddings(5, 4, density=1.0)
    batch = torch.zeros_like(teacher), targets
    once, twice = (loss(factor * student, *batch, normalize=False).item() for factor in (1e3, 2e3))
    assert twice - 2 * once == pytest.approx(pairs / 2, rel=1e-6)


@each_loss
def test_exactly_two_positives_contribute_nothing_when_normalized(loss):
    # A single distance divided by its mean is 1. Here each class and each image has two positives.
    student, teacher, _ = random_embeddings(3, 3, 4, seed=2)
    targets = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
    for tensor in value_and_gradient(loss, student, teacher, targets):
        assert tensor.abs().sum() == 0
    for tensor in value_and_gradient(loss, student, teacher, targets, normalize=False):
        assert tensor.abs().sum() > 0


@each_case
def test_without_pairs_the_loss_is_a_zero_with_a_graph(loss, normalize):
    for targets in ([[0, 0, 0]] * 3, [[0, 0, 0], [0, 1, 0], [0, 0, 0]], torch.eye(3), [[1]], [[0]]):
        targets = torch.as_tensor(targets)
        # The sum of the largest floats overflows, and 0 * inf is not 0.
        for student in (random_embeddings(*targets.shape)[0], torch.full((*targets.shape, 3), torch.finfo().max)):
            value, gradient = value_and_gradient(loss, student, student, targets, normalize=normalize)
            assert value == 0
            assert (gradient == 0).all()


@each_case
def test_embeddings_of_absent_labels_do_not_matter(loss, normalize):
    student, teacher, targets = random_embeddings()
    expected = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    absent = (targets == 0).unsqueeze(2)
    signs = torch.tensor([-1.0, 1.0, -1.0, 1.0]).view(1, 4, 1)
    for filler in (0.0, 1e30, torch.finfo(torch.float64).max * signs):  # the last are infinitely far from each other
        other = torch.where(absent, filler, student), torch.where(absent, -filler, teacher)
        actual = value_and_gradient(loss, *other, targets, normalize=normalize)
        assert_same(actual, expected)
        assert (actual[1][targets == 0] == 0).all()


@each_case
def test_zero_embedding_of_a_present_label_is_compared(loss, normalize):
    # Positives are given by the targets, not by rows that are not all zero.
    student, teacher, targets = random_embeddings(4, 4, seed=5, density=1.0)
    student[1, 2], teacher[2, 1] = 0, 0
    value, gradient = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
    assert (gradient[1, 2] != 0).all()
    targets[1, 2] = 0
    assert abs(loss(student, teacher, targets, normalize=normalize) - value) > 1e-3


# CD, ID and LED: precision and memory


@each_case
def test_identical_embeddings_are_at_distance_zero(loss, normalize):
    # From inner products, |a|² + |b|² - 2ab (torch's default above 25 rows), it would be rounding.
    for shape in ((32, 3, 5), (3, 32, 5)):
        student, teacher, _ = (tensor.float() for tensor in random_embeddings(*shape, seed=7))
        same_student, same_teacher = (10 * tensor[:1, :1].expand(shape) for tensor in (student, teacher))
        targets = torch.ones(shape[:2])
        for tensor in value_and_gradient(loss, same_student, same_teacher, targets, normalize=normalize):
            assert tensor.abs().sum() == 0
        value, gradient = value_and_gradient(loss, same_student, teacher, targets, normalize=normalize)
        assert value > 0
        assert (gradient == 0).all(), "a distance of 0 has gradient 0"
        value, gradient = value_and_gradient(loss, student, same_teacher, targets, normalize=normalize)
        assert value > 0
        assert gradient.isfinite().all()


@each_case
def test_close_embeddings_far_from_the_origin_agree_with_float64(loss, normalize):
    for shape in ((32, 3, 5), (3, 32, 5)):
        generator = torch.Generator().manual_seed(1)
        targets = torch.ones(shape[:2])
        student, teacher = (100 + torch.randn(shape, generator=generator) / 8 for _ in range(2))
        actual = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
        expected = value_and_gradient(loss, student.double(), teacher.double(), targets, normalize=normalize)
        largest = max(tensor.abs().max().item() for tensor in expected)
        assert_same(actual, expected, rtol=1e-4, atol=1e-5 * largest)  # of float32, whose sums cancel


@each_case
def test_student_and_teacher_in_different_precisions(loss, normalize):
    for student_dtype, teacher_dtype in [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float32, torch.float64),
        (torch.float64, torch.float32),
    ]:
        student, teacher, targets = random_embeddings()
        student, teacher = student.to(student_dtype), teacher.to(teacher_dtype)
        actual = value_and_gradient(loss, student, teacher, targets, normalize=normalize)
        expected = value_and_gradient(loss, student.double(), teacher.double(), targets, normalize=normalize)
        torch.testing.assert_close(actual[0].double(), expected[0], rtol=1e-5, atol=0)
        rtol = 1e-2 if student_dtype == torch.bfloat16 else 1e-4
        torch.testing.assert_close(
            actual[1].double(), expected[1], rtol=rtol, atol=rtol * expected[1].abs().max().item()
        )


class LargestTensor(TorchDispatchMode):
    """Records the number of elements in the largest storage that any operation returned."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


@each_normalize
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
