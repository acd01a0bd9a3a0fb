"""Partial softmax distillation against plain loops over images, positive labels and negatives."""

import math

import pytest
import torch
from compare import (
    PROPERTY,
    REDUCTIONS,
    STEEP,
    assert_equals_reference,
    assert_same,
    logit_batches,
    random_logits,
    random_targets,
    reduced,
    softmax_divergence,
    value_and_gradient,
    zero,
)
from hypothesis import given
from hypothesis import strategies as st

from mlkd.losses.ps import ps_loss


def reference_ps(student_logits, teacher_logits, targets, *, reduction="batchmean"):
    """For each positive label, the divergence of the softmaxes over that label and all negatives."""
    b, q = targets.shape

    def term(i, t):
        negatives = [k for k in range(q) if targets[i, k] == 0]
        if targets[i, t] == 0 or not negatives:
            return zero(student_logits)
        student, teacher = ([logits[i, k] for k in (t, *negatives)] for logits in (student_logits, teacher_logits))
        return softmax_divergence(student, teacher)

    return reduced([[term(i, t) for t in range(q)] for i in range(b)], reduction)


both = pytest.mark.parametrize("loss", [ps_loss, reference_ps], ids=["ps", "reference"])


@both
def test_by_hand(loss):
    # Exponentials: teacher 3, 1 | 1, 1; student 1, 1 | 2, 2. Labels 0, 1 are present, 2, 3 are absent.
    #   label 0: teacher 3/5 1/5 1/5, student 1/5 2/5 2/5:  3/5 log 3 + 2/5 log 1/2
    #   label 1: teacher 1/3 1/3 1/3, student 1/5 2/5 2/5:  1/3 log 5/3 + 2/3 log 5/6
    # The second image has no label: 0. The third has all: 0.
    teacher = torch.tensor([[3, 1, 1, 1], [5, 1, 1, 2], [5, 1, 1, 2]], dtype=torch.float64).log()
    student = torch.tensor([[1, 1, 2, 2], [1, 2, 3, 4], [1, 2, 3, 4]], dtype=torch.float64).log()
    targets = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    first = 3 / 5 * math.log(3) + 2 / 5 * math.log(1 / 2)
    second = 1 / 3 * math.log(5 / 3) + 2 / 3 * math.log(5 / 6)
    table = torch.zeros(3, 4, dtype=torch.float64)
    table[0, 0], table[0, 1] = first, second
    torch.testing.assert_close(loss(student, teacher, targets, reduction="none"), table, rtol=1e-12, atol=1e-15)
    assert loss(student, teacher, targets).item() == pytest.approx((first + second) / 3, rel=1e-12)


@PROPERTY
@given(logit_batches(2), st.sampled_from(REDUCTIONS))
def test_equals_the_reference(batch, reduction):
    student, teacher, targets, _ = batch
    assert_equals_reference(ps_loss, reference_ps, student, teacher, targets, reduction=reduction)


@both
def test_one_positive_gives_the_divergence_of_softmaxes(loss):
    student, teacher = random_logits(2, 5, 6)
    targets = torch.eye(6, dtype=torch.uint8)[:5]
    expected = torch.nn.functional.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True
    )
    torch.testing.assert_close(loss(student, teacher, targets), expected, rtol=1e-9, atol=1e-12)


@both
def test_positives_do_not_depend_on_each_other(loss):
    """A positive's group does not contain the other positives."""
    student, teacher = random_logits(2, 2, 6)
    targets = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]])
    value = loss(student, teacher, targets, reduction="none")
    moved = student.clone()
    moved[:, 1] += 5
    again = loss(moved, teacher, targets, reduction="none")
    torch.testing.assert_close(again[:, [0, 2]], value[:, [0, 2]], rtol=1e-12, atol=0)
    assert (again[:, 1] != value[:, 1]).all()


@both
def test_constant_per_image_does_not_matter(loss):
    (student, teacher), targets = random_logits(2), random_targets()
    value, gradient = value_and_gradient(loss, student, teacher, targets)
    assert value > 0
    shifts = torch.arange(5.0, dtype=torch.float64)[:, None]
    assert_same(value_and_gradient(loss, student + shifts, teacher - 2 * shifts, targets), (value, gradient))
    for tensor in value_and_gradient(loss, student, student + shifts, targets, reduction="none"):
        torch.testing.assert_close(tensor, torch.zeros_like(tensor), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_steep_logits_agree_with_float64(dtype):
    # Every pair of steep values as a positive's logits, among steep negatives.
    rows, columns = torch.meshgrid(*[torch.tensor(STEEP, dtype=torch.float64)] * 2, indexing="ij")
    student = torch.stack([rows.flatten(), columns.flatten(), rows.flatten() / 3, -columns.flatten()], dim=1)
    teacher = torch.stack([columns.flatten(), rows.flatten(), -rows.flatten(), columns.flatten() / 7], dim=1)
    for labels in ([1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1]):
        targets = torch.tensor(labels).expand(len(student), -1)
        actual = value_and_gradient(ps_loss, student.to(dtype), teacher.to(dtype), targets)
        expected = value_and_gradient(reference_ps, student, teacher, targets)
        rtol, atol = (1e-9, 1e-11) if dtype == torch.float64 else (1e-4, 1e-6)
        assert_same([tensor.double() for tensor in actual], expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("label", [0, 1], ids=["no-positives", "no-negatives"])
def test_without_groups_the_loss_is_a_zero_with_a_graph(label):
    for b, q in ((1, 1), (3, 4)):
        student, teacher = random_logits(2, b, q, scale=1e4)
        for tensor in value_and_gradient(ps_loss, student, teacher, torch.full((b, q), label)):
            assert tensor.abs().sum() == 0
