"""The squared distances of CPSD (Eq. 6) against plain loops written from the equation."""

import pytest
import torch
from compare import assert_same, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.losses.cpsd import merged_distillation, mse

PROPERTY = settings(derandomize=True, deadline=None, max_examples=30, database=None)
REDUCTIONS = ["sum", "batchmean", "none"]


# --- references: loops over images and labels, one scalar tensor at a time ------------------------


def reference_mse(student_logits, teacher_logits, *, reduction="batchmean"):
    """||y^S - y^T||^2 of each image."""
    b, q = student_logits.shape
    terms = [
        [(student_logits[i, k].double() - float(teacher_logits[i, k].detach())) ** 2 for k in range(q)]
        for i in range(b)
    ]
    if reduction == "none":
        return torch.stack([torch.stack(row) for row in terms])
    total = sum(term for row in terms for term in row)
    return total / b if reduction == "batchmean" else total


def reference_merged(student_logits, co_logits, dis_logits, alpha=0.5, *, reduction="sum"):
    """Eq. 6: 1/2 of both norms, image by image; the weights alpha and 1 - alpha for the halves."""
    b, q = student_logits.shape
    terms = []
    for i in range(b):
        for k in range(q):
            co = (student_logits[i, k].double() - float(co_logits[i, k].detach())) ** 2
            dis = (student_logits[i, k].double() - float(dis_logits[i, k].detach())) ** 2
            terms.append(alpha * co + (1 - alpha) * dis)
    if reduction == "none":
        return torch.stack(terms).reshape(b, q)
    return sum(terms) / b if reduction == "batchmean" else sum(terms)


both_mse = pytest.mark.parametrize("loss", [mse, reference_mse], ids=["mse", "reference"])
both_merged = pytest.mark.parametrize("loss", [merged_distillation, reference_merged], ids=["merged", "reference"])
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def logits(count, b=5, q=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(b, q, generator=generator, dtype=torch.float64) for _ in range(count)]


@st.composite
def batches(draw):
    b, q = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    drawn = st.lists(st.floats(-50, 50), min_size=b * q, max_size=b * q)
    return [torch.tensor(draw(drawn), dtype=torch.float64).reshape(b, q) for _ in range(3)]


# --- values ---------------------------------------------------------------------------------------


@both_mse
def test_mse_by_hand(loss):
    # Two images: 1² + 2² = 5 and 0² + 3² = 9.
    student = torch.tensor([[1.0, 3.0], [2.0, -1.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    assert loss(student, teacher, reduction="none").tolist() == [[1, 4], [0, 9]]
    assert loss(student, teacher, reduction="sum").item() == 14
    assert loss(student, teacher).item() == 7


@both_merged
def test_merged_by_hand(loss):
    # To the first teacher 1² + 2² = 5 and to the second 3² + 1² = 10 in the one image; 0 and 4 in the other.
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
@given(batches(), st.sampled_from(REDUCTIONS), st.floats(0, 1))
def test_equal_the_references(batch, reduction, alpha):
    actual = value_and_gradient(mse, *batch[:2], reduction=reduction)
    assert_same(actual, value_and_gradient(reference_mse, *batch[:2], reduction=reduction))
    options = {"alpha": alpha, "reduction": reduction}
    actual = value_and_gradient(merged_distillation, *batch, **options)
    assert_same(actual, value_and_gradient(reference_merged, *batch, **options))


@each_reduction
def test_gradcheck(reduction):
    student, co, dis = logits(3, 3, 3)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mse(x, co, reduction=reduction), student)
    assert torch.autograd.gradcheck(lambda x: merged_distillation(x, co, dis, 0.3, reduction=reduction), student)


@both_merged
def test_the_minimum_lies_between_the_teachers(loss):
    _, co, dis = logits(3)
    _, gradient = value_and_gradient(loss, 0.3 * co + 0.7 * dis, co, dis, alpha=0.3)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


@both_merged
def test_one_teacher_twice_is_mse(loss):
    student, teacher, _ = logits(3)
    for alpha in (0.0, 0.5, 0.9):
        expected = value_and_gradient(mse, student, teacher, reduction="sum")
        assert_same(value_and_gradient(loss, student, teacher, teacher, alpha=alpha), expected)


@each_reduction
def test_agreement_is_zero_with_a_graph(reduction):
    student, _, _ = logits(3)
    for value, gradient in (
        value_and_gradient(mse, student, student, reduction=reduction),
        value_and_gradient(merged_distillation, student, student, student, reduction=reduction),
    ):
        assert (value == 0).all()
        assert (gradient == 0).all()


# --- precision and manners ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steep_logits_stay_finite(dtype):
    student = torch.tensor([[1e4, -1e4, 1e4]], dtype=dtype)
    value, gradient = value_and_gradient(merged_distillation, student, -student, student)
    assert value.item() == pytest.approx(3 * 4e8 / 2)
    assert torch.isfinite(gradient).all()
    assert mse(student, -student).item() == pytest.approx(3 * 4e8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(dtype, autocast):
    # 300² alone is beyond float16.
    student, co, dis = (100 * tensor.to(dtype) for tensor in logits(3, 20, 30))
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        actual = merged_distillation(student, co, dis)
        single = mse(student, co)
    assert actual.dtype == single.dtype == torch.float32
    torch.testing.assert_close(actual, merged_distillation(student.float(), co.float(), dis.float()))
    torch.testing.assert_close(single, mse(student.float(), co.float()))


def test_teachers_get_no_gradient_and_inputs_stay():
    student, co, dis = (tensor.requires_grad_() for tensor in logits(3))
    merged_distillation(student, co, dis).backward()
    mse(student, co).backward()
    assert student.grad is not None
    assert co.grad is None
    assert dis.grad is None
    assert (student._version, co._version, dis._version) == (0, 0, 0)


@pytest.mark.parametrize("shape", [(5, 3), (1, 4), (4,), (5, 4, 1)])
def test_other_shapes_are_named(shape):
    student, other, _ = logits(3)
    wrong = torch.zeros(shape)
    with pytest.raises(ValueError, match=r"`teacher_logits` has shape .* but `student_logits` has \(5, 4\)"):
        mse(student, wrong)
    with pytest.raises(ValueError, match="`co_logits` has shape"):
        merged_distillation(student, wrong, other)
    with pytest.raises(ValueError, match="`dis_logits` has shape"):
        merged_distillation(student, other, wrong)


def test_wrong_values_are_named():
    student, co, dis = logits(3)
    for alpha in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"`alpha` is {alpha}"):
            merged_distillation(student, co, dis, alpha)
    for call in (
        lambda: mse(student, co, reduction="mean"),
        lambda: merged_distillation(student, co, dis, reduction="mean"),
    ):
        with pytest.raises(ValueError, match="`reduction` is 'mean'"):
            call()
