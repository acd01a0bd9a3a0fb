"""The squared distances of CPSD (Eq. 6) against plain loops from the equation."""

import pytest
import torch
from compare import (
    PROPERTY,
    REDUCTIONS,
    assert_equals_reference,
    assert_same,
    logit_batches,
    random_logits,
    reduced,
    value_and_gradient,
)
from hypothesis import given
from hypothesis import strategies as st

from mlkd.losses.cpsd import merged_distillation, mse


def reference_mse(student_logits, teacher_logits, *, reduction="batchmean"):
    """||y^S - y^T||^2 of each image."""
    b, q = student_logits.shape
    terms = [[(student_logits[i, k] - float(teacher_logits[i, k].detach())) ** 2 for k in range(q)] for i in range(b)]
    return reduced(terms, reduction)


def reference_merged(student_logits, co_logits, dis_logits, alpha=0.5, *, reduction="sum"):
    """Eq. 6: half of both norms, image by image; with alpha and 1 - alpha in place of the halves."""

    def term(i, k):
        co = (student_logits[i, k] - float(co_logits[i, k].detach())) ** 2
        dis = (student_logits[i, k] - float(dis_logits[i, k].detach())) ** 2
        return alpha * co + (1 - alpha) * dis

    b, q = student_logits.shape
    return reduced([[term(i, k) for k in range(q)] for i in range(b)], reduction)


both_merged = pytest.mark.parametrize("loss", [merged_distillation, reference_merged], ids=["merged", "reference"])


@pytest.mark.parametrize("loss", [mse, reference_mse], ids=["mse", "reference"])
def test_mse_by_hand(loss):
    # Two images: 1² + 2² = 5 and 0² + 3² = 9.
    student = torch.tensor([[1.0, 3.0], [2.0, -1.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    assert loss(student, teacher, reduction="none").tolist() == [[1, 4], [0, 9]]
    assert loss(student, teacher, reduction="sum").item() == 14
    assert loss(student, teacher).item() == 7


@both_merged
def test_merged_by_hand(loss):
    # To the first teacher 1² + 2² = 5 and to the second 3² + 1² = 10 in the first image; 0 and 4 in the second.
    student = torch.tensor([[1.0, 3.0], [0.0, 0.0]], dtype=torch.float64)
    co = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    dis = torch.tensor([[4.0, 2.0], [2.0, 0.0]], dtype=torch.float64)
    assert loss(student, co, dis).item() == (5 + 10 + 0 + 4) / 2, "Eq. (6): half of the sum over images"
    assert loss(student, co, dis, reduction="batchmean").item() == (5 + 10 + 0 + 4) / 4
    assert loss(student, co, dis, 1.0).item() == 5
    assert loss(student, co, dis, alpha=0.0).item() == 14
    assert loss(student, co, dis, alpha=0.75).item() == 0.75 * 5 + 0.25 * 14
    assert loss(student, co, dis, reduction="none").tolist() == [[(1 + 9) / 2, (4 + 1) / 2], [2, 0]]


@PROPERTY
@given(logit_batches(3), st.sampled_from(REDUCTIONS), st.floats(0, 1))
def test_equals_the_reference(batch, reduction, alpha):
    student, co, dis, *_ = batch
    assert_equals_reference(mse, reference_mse, student, co, reduction=reduction)
    assert_equals_reference(merged_distillation, reference_merged, student, co, dis, alpha=alpha, reduction=reduction)


@both_merged
def test_minimum_is_between_the_teachers(loss):
    co, dis = random_logits(2)
    _, gradient = value_and_gradient(loss, 0.3 * co + 0.7 * dis, co, dis, alpha=0.3)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


@both_merged
def test_same_teacher_twice_is_mse(loss):
    student, teacher = random_logits(2)
    for alpha in (0.0, 0.5, 0.9):
        expected = value_and_gradient(mse, student, teacher, reduction="sum")
        assert_same(value_and_gradient(loss, student, teacher, teacher, alpha=alpha), expected)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_invalid_alpha_is_named(alpha):
    with pytest.raises(ValueError, match=f"`alpha` is {alpha}, expected a fraction"):
        merged_distillation(*random_logits(3), alpha)
