"""Uncertainty distillation against plain loops over images, labels and cells."""

import math

import pytest
import torch
from compare import (
    PROPERTY,
    REDUCTIONS,
    STEEP,
    assert_equals_reference,
    log_softmax,
    logit_batches,
    random_logits,
    reduced,
    softmax_divergence,
    value_and_gradient,
    zero,
)
from hypothesis import given
from hypothesis import strategies as st

from mlkd.losses.ud import (
    pick_all_labels_normalized,
    prediction_distribution_distillation,
    uncertainty,
    uncertainty_attention_distillation,
    uncertainty_gradient,
    uncertainty_map,
)


def reference_pal(logits, targets, *, reduction="sum"):
    b, q = targets.shape

    def term(i, t):
        negatives = [k for k in range(q) if targets[i, k] == 0]
        if targets[i, t] == 0 or not negatives:
            return zero(logits)
        return -log_softmax([logits[i, k] for k in (t, *negatives)])[0] / int(targets[i].sum())

    return reduced([[term(i, t) for t in range(q)] for i in range(b)], reduction)


def reference_distribution(student, teacher, student_branch, teacher_branch, *, temperature=3, reduction="sum"):
    rows = []
    for i in range(len(student)):
        row = softmax_divergence(*[list(logits[i] / temperature) for logits in (student_branch, teacher_branch)])
        for k in range(student.shape[1]):
            s, t = student[i, k] / temperature, teacher[i, k] / temperature
            # A sigmoid is the softmax of the logit and 0.
            row = row + softmax_divergence([s, 0 * s], [t, 0 * t]) / (2 * student.shape[1])
        rows.append(temperature**2 / 2 * row)
    table = torch.stack(rows)
    return {"none": table, "sum": table.sum(), "batchmean": table.mean()}[reduction]


both_pal = pytest.mark.parametrize("loss", [pick_all_labels_normalized, reference_pal], ids=["pal", "reference"])
both_distributions = pytest.mark.parametrize(
    "loss", [prediction_distribution_distillation, reference_distribution], ids=["distribution", "reference"]
)


@both_pal
def test_pal_by_hand(loss):
    # Exponentials 1, 3 | 2, 4: label 0 has 1/7, label 1 has 3/9, averaged. No label: 0. All labels: 0.
    logits = torch.tensor([[1, 3, 2, 4]] * 3, dtype=torch.float64).log()
    targets = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    table = torch.zeros(3, 4, dtype=torch.float64)
    table[0, 0], table[0, 1] = math.log(7) / 2, math.log(3) / 2
    torch.testing.assert_close(loss(logits, targets, reduction="none"), table, rtol=1e-12, atol=1e-15)
    assert loss(logits, targets).item() == pytest.approx(math.log(21) / 2, rel=1e-12), "the default is a sum"


@PROPERTY
@given(logit_batches(1), st.sampled_from(REDUCTIONS))
def test_pal_equals_the_reference(batch, reduction):
    logits, targets, _ = batch
    assert_equals_reference(pick_all_labels_normalized, reference_pal, logits, targets, reduction=reduction)


def test_pal_of_steep_logits_is_finite():
    steep = torch.tensor([STEEP], dtype=torch.float32)
    for labels in ([1, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1, 1], [1] * 9, [0] * 9):
        for tensor in value_and_gradient(pick_all_labels_normalized, steep, torch.tensor([labels])):
            assert tensor.isfinite().all()


@both_distributions
def test_distribution_by_hand(loss):
    # One image, two labels, temperature 1. Calibration: teacher 3/4 1/4, student 1/2 1/2: 3/4 log 3/2 + 1/4 log 1/2.
    # Classifier: teacher 3/4 and 1/2, student 1/2 and 1/2: the same divergence, and 0.
    three = math.log(3)
    student, teacher = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[three, 0]], dtype=torch.float64)
    divergence = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    expected = 1 / 2 * (divergence + divergence / 4)
    assert loss(student, teacher, student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-12)
    # At temperature 3, with logits three times as large, it is 9 times as much; 3 is the default.
    assert loss(student, 3 * teacher, student, 3 * teacher).item() == pytest.approx(9 * expected, rel=1e-12)


@PROPERTY
@given(logit_batches(4), st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from(REDUCTIONS))
def test_distribution_equals_the_reference(batch, temperature, reduction):
    student, teacher, student_branch, teacher_branch, *_ = batch
    options = {"temperature": temperature, "reduction": reduction}
    assert_equals_reference(
        prediction_distribution_distillation,
        reference_distribution,
        student,
        teacher,
        student_branch,
        teacher_branch,
        **options,
    )
    assert_equals_reference(  # the gradient of the student's calibration branch
        lambda branch: prediction_distribution_distillation(student, teacher, branch, teacher_branch, **options),
        lambda branch: reference_distribution(student, teacher, branch, teacher_branch, **options),
        student_branch,
    )


def test_distribution_of_steep_logits_is_finite():
    student, teacher = torch.meshgrid(*[torch.tensor(STEEP)] * 2, indexing="ij")
    for tensor in value_and_gradient(prediction_distribution_distillation, student, teacher, teacher, student):
        assert tensor.isfinite().all()
    same = prediction_distribution_distillation(student, student, student, student)
    assert same.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("temperature", [0, -1, math.nan])
def test_invalid_temperature_is_named(temperature):
    with pytest.raises(ValueError, match=f"`temperature` is {temperature}, expected a number above 0"):
        prediction_distribution_distillation(*random_logits(4), temperature=temperature)


def test_uncertainty_is_the_divergence_of_the_softmaxes():
    logits, calibration = random_logits(2)
    expected = sum(softmax_divergence(list(logits[i]), list(calibration[i])) for i in range(5))
    torch.testing.assert_close(uncertainty(logits, calibration), expected, rtol=1e-9, atol=1e-12)


def test_uncertainty_gradient_is_that_of_the_feature_map():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 2, 2, generator=generator, requires_grad=True)
    heads = torch.randn(2, 3, 4, generator=generator, requires_grad=True)

    def classify(maps):
        return maps.mean(dim=(2, 3)) @ heads[0], None

    def calibrate(maps):
        return maps.amax(dim=(2, 3)) @ heads[1]

    gradient = uncertainty_gradient(features, classify, calibrate)
    (expected,) = torch.autograd.grad(uncertainty(classify(features)[0], calibrate(features)), features)
    assert torch.equal(gradient, expected)
    assert not gradient.requires_grad
    assert heads.grad is None
    assert features.grad is None


def test_uncertainty_map_by_hand():
    # Gradients sum to log 3 and 0 over the map: weights 3/4 and 1/4.
    three = math.log(3)
    gradient = torch.tensor([[[[three, 0.0]], [[1.0, -1.0]]]], dtype=torch.float64)
    features = torch.tensor([[[[4.0, 8.0]], [[0.0, 4.0]]]], dtype=torch.float64)
    value, slope = value_and_gradient(lambda x: uncertainty_map(x, gradient).sum(), features)
    assert value.item() == pytest.approx(3 + 7)
    torch.testing.assert_close(uncertainty_map(features, gradient), torch.tensor([[[3.0, 7.0]]], dtype=torch.float64))
    torch.testing.assert_close(slope, torch.tensor([[[[3 / 4] * 2], [[1 / 4] * 2]]], dtype=torch.float64))


def test_attention_by_hand():
    student, teacher = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[1.0, 0.0], [3.0, 7.0]]])
    value, gradient = value_and_gradient(uncertainty_attention_distillation, student, teacher)
    assert value.item() == pytest.approx((4 + 9) / 4)
    torch.testing.assert_close(gradient, torch.tensor([[[0, 1.0], [0, -1.5]]]))
    # A finer student is averaged, a coarser one repeated.
    assert uncertainty_attention_distillation(student, torch.tensor([[[2.0]]])).item() == pytest.approx(0.25)
    coarse = uncertainty_attention_distillation(torch.tensor([[[2.0]]]), teacher)
    assert coarse.item() == pytest.approx((1 + 4 + 1 + 25) / 4)
