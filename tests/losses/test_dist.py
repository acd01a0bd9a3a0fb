"""The inter- and intra-class relations of DIST against plain loops over images and labels."""

import math

import pytest
import torch
from compare import PROPERTY, assert_equals_reference, log_sigmoid, random_logits, value_and_gradient, zero
from hypothesis import given
from hypothesis import strategies as st

from mlkd.losses.dist import inter_class_relation, intra_class_relation


def correlation_distance(student, teacher):
    """1 - rho of two lists of scalar tensors; 0 if the teacher's are all equal, 1 if only the student's are."""
    if all(entry == teacher[0] for entry in teacher):
        return zero(*student)
    if all(entry == student[0] for entry in student):
        return zero(*student) + 1
    n = len(student)
    student_mean, teacher_mean = sum(student) / n, sum(teacher) / n
    covariance = sum((s - student_mean) * (t - teacher_mean) for s, t in zip(student, teacher, strict=True)) / n
    student_std = torch.sqrt(sum((s - student_mean) ** 2 for s in student) / n)
    teacher_std = torch.sqrt(sum((t - teacher_mean) ** 2 for t in teacher) / n)
    return 1 - covariance / (student_std * teacher_std)


def probabilities(logits, temperature):
    return [[torch.exp(log_sigmoid(logit / temperature)) for logit in row] for row in logits]


def reference_inter(student_logits, teacher_logits, *, temperature=1.0):
    student, teacher = probabilities(student_logits, temperature), probabilities(teacher_logits.detach(), temperature)
    distances = [correlation_distance(s, t) for s, t in zip(student, teacher, strict=True)]
    return temperature**2 * sum(distances) / len(distances)


def reference_intra(student_logits, teacher_logits, *, temperature=1.0):
    student, teacher = probabilities(student_logits, temperature), probabilities(teacher_logits.detach(), temperature)
    distances = [
        correlation_distance([row[k] for row in student], [row[k] for row in teacher]) for k in range(len(student[0]))
    ]
    return temperature**2 * sum(distances) / len(distances)


PAIRS = {"inter": (inter_class_relation, reference_inter), "intra": (intra_class_relation, reference_intra)}
LOSSES = [loss for pair in PAIRS.values() for loss in pair]
each_pair = pytest.mark.parametrize(("loss", "reference"), list(PAIRS.values()), ids=list(PAIRS))
each_loss = pytest.mark.parametrize("loss", [inter_class_relation, intra_class_relation], ids=list(PAIRS))


def logit(probability):
    return math.log(probability / (1 - probability))


def test_by_hand():
    # Probabilities of three labels; minus their mean, times 10:
    #   student 1/10, 4/10, 7/10: -3, 0, 3      teacher 2/10, 2/10, 5/10: -1, -1, 2
    # Covariance 3 + 6 = 9 over sqrt(18 · 6) = sqrt(108). Second image: student and teacher are equal.
    student = torch.tensor([[logit(0.1), logit(0.4), logit(0.7)], [1.0, 2.0, -1.0]], dtype=torch.float64)
    teacher = torch.tensor([[logit(0.2), logit(0.2), logit(0.5)], [1.0, 2.0, -1.0]], dtype=torch.float64)
    expected = (1 - 9 / math.sqrt(108)) / 2
    for loss in PAIRS["inter"]:
        assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)
        assert loss(2 * student, 2 * teacher, temperature=2.0).item() == pytest.approx(4 * expected, rel=1e-12)
    for loss in PAIRS["intra"]:  # with images for labels: a mean over two labels of three images
        assert loss(student.T, teacher.T).item() == pytest.approx(expected, rel=1e-12)
        # Two images: the correlation is the sign of the difference. Label 0 rises in both, 1 too, 2 falls in both.
        assert loss(student, teacher).item() == pytest.approx(0, abs=1e-12)
        assert loss(student, teacher.flip(0)).item() == pytest.approx(2, rel=1e-12)


@each_pair
@PROPERTY
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 2**31),
    st.floats(0.5, 6),
    st.sampled_from(["nothing", "row", "column"]),
)
def test_equals_the_reference(loss, reference, b, q, seed, temperature, constant):
    student, teacher = random_logits(2, b, q, seed)
    if constant == "row":
        student[0], teacher[-1] = 0.3, 0.7
    elif constant == "column":
        student[:, 0], teacher[:, -1] = 1.1, -0.4
    assert_equals_reference(loss, reference, student, teacher, temperature=temperature)


@pytest.mark.parametrize("loss", LOSSES)
def test_offset_and_scale_of_the_probabilities_do_not_matter(loss):
    student, teacher = random_logits(2)
    probability = teacher.sigmoid()
    related = torch.logit(0.1 + 0.5 * probability)
    torch.testing.assert_close(loss(related, teacher), torch.zeros_like(teacher[0, 0]), rtol=0, atol=1e-12)
    torch.testing.assert_close(loss(-related, teacher), 2 * torch.ones_like(teacher[0, 0]), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss(student, related), loss(student, teacher), rtol=1e-9, atol=1e-12)


def test_intra_is_inter_with_images_for_labels():
    student, teacher = random_logits(2)
    torch.testing.assert_close(
        value_and_gradient(lambda x, y: intra_class_relation(x.T, y.T), student, teacher),
        value_and_gradient(inter_class_relation, student, teacher),
    )


@each_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_constant_rows_get_no_gradient(loss, dtype):
    student, teacher = (table.to(dtype) for table in random_logits(2, 3, 3))
    for constant in (0.1, -7.3):
        value, gradient = value_and_gradient(loss, torch.full_like(student, constant), teacher)
        assert value == 1
        assert gradient.abs().sum() == 0
        value, gradient = value_and_gradient(loss, student, torch.full_like(teacher, constant))
        assert value == 0
        assert gradient.abs().sum() == 0


def test_nothing_to_compare_gives_a_zero_with_a_graph():
    for loss, shape in ((inter_class_relation, (4, 1)), (intra_class_relation, (1, 4))):
        value, gradient = value_and_gradient(loss, *random_logits(2, *shape))
        assert value == 0
        assert gradient.abs().sum() == 0


@each_loss
def test_wrong_arguments(loss):
    student, teacher = random_logits(2)
    for temperature in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"`temperature` is {temperature}, expected a number above 0"):
            loss(student, teacher, temperature=temperature)
    with pytest.raises(ValueError, match=r"`student_logits` has shape \(5,\), expected \(b, q\)"):
        loss(student[:, 0], teacher[:, 0])
