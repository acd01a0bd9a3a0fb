"""Partial softmax and uncertainty distillation against plain loops over images, positive labels and negatives."""

import math
import re

import pytest
import torch
from compare import assert_same, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.losses.uncertainty import (
    attention,
    disagreement,
    distribution,
    pick_all_labels,
    ps,
    uncertainty_map,
)

PROPERTY = settings(derandomize=True, deadline=None, max_examples=30, database=None)
STEEP = [-1e4, -100.0, -17.0, -1.0, 0.0, 1.0, 17.0, 100.0, 1e4]


# --- references: one scalar tensor at a time ------------------------------------------------------


def log_softmax(entries):
    """Logs of the softmax of a list of scalar tensors."""
    largest = max(entry.item() for entry in entries)
    total = torch.log(sum(torch.exp(entry.double() - largest) for entry in entries)) + largest
    return [entry.double() - total for entry in entries]


def divergence(student_entries, teacher_entries):
    """KL(softmax(teacher) || softmax(student))."""
    student, teacher = log_softmax(student_entries), log_softmax([entry.detach() for entry in teacher_entries])
    return sum(torch.exp(known) * (known - mine) for mine, known in zip(student, teacher, strict=True))


def members(row, positive):
    """For each positive label: itself and all negatives, itself first. None without negatives."""
    negatives = [k for k in range(len(row)) if row[k] == 0]
    return [positive, *negatives] if negatives else None


def reference_ps(student_logits, teacher_logits, targets, *, reduction="batchmean"):
    b, q = targets.shape
    terms = [[(0 * student_logits).sum().double() for _ in range(q)] for _ in range(b)]
    for i in range(b):
        for t in range(q):
            group = members(targets[i], t)
            if targets[i, t] == 1 and group:
                sides = [[logits[i, k] for k in group] for logits in (student_logits, teacher_logits)]
                terms[i][t] = terms[i][t] + divergence(*sides)
    table = torch.stack([torch.stack(row) for row in terms])
    return {"none": table, "sum": table.sum(), "batchmean": table.sum() / b}[reduction]


def reference_pick_all_labels(logits, targets, *, reduction="sum"):
    b, q = targets.shape
    terms = [[(0 * logits).sum().double() for _ in range(q)] for _ in range(b)]
    for i in range(b):
        for t in range(q):
            group = members(targets[i], t)
            if targets[i, t] == 1 and group:
                own = log_softmax([logits[i, k] for k in group])[0]
                terms[i][t] = terms[i][t] - own / int(targets[i].sum())
    table = torch.stack([torch.stack(row) for row in terms])
    return {"none": table, "sum": table.sum(), "batchmean": table.sum() / b}[reduction]


def reference_distribution(student, teacher, student_branch, teacher_branch, *, temperature=3, reduction="sum"):
    rows = []
    for i in range(len(student)):
        branches = [list(logits[i] / temperature) for logits in (student_branch, teacher_branch)]
        row = divergence(*branches)
        for k in range(student.shape[1]):
            one, other = student[i, k] / temperature, teacher[i, k] / temperature
            # A sigmoid is the softmax of the logit and 0.
            row = row + divergence([one, 0 * one], [other, 0 * other]) / (2 * student.shape[1])
        rows.append(temperature**2 / 2 * row)
    table = torch.stack(rows)
    return {"none": table, "sum": table.sum(), "batchmean": table.mean()}[reduction]


both_ps = pytest.mark.parametrize("loss", [ps, reference_ps], ids=["ps", "reference"])
both_pal = pytest.mark.parametrize("loss", [pick_all_labels, reference_pick_all_labels], ids=["pal", "reference"])
both_distributions = pytest.mark.parametrize("loss", [distribution, reference_distribution], ids=["ours", "reference"])
each_reduction = pytest.mark.parametrize("reduction", ["batchmean", "sum", "none"])


def random_batch(b=5, q=6, seed=0, density=0.4, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(b, q, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher, (torch.rand(b, q, generator=generator) < density).to(torch.uint8)


@st.composite
def batches(draw):
    b, q = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    logits = st.lists(st.floats(-60, 60), min_size=b * q, max_size=b * q)
    student, teacher = (torch.tensor(draw(logits), dtype=torch.float64).reshape(b, q) for _ in range(2))
    density = draw(st.integers(0, 10))  # from no positive at all to only positives
    labels = draw(st.lists(st.integers(0, 9), min_size=b * q, max_size=b * q))
    return student, teacher, (torch.tensor(labels) < density).to(torch.uint8).reshape(b, q)


# --- PS -------------------------------------------------------------------------------------------


@both_ps
def test_ps_by_hand(loss):
    # Exponentials: teacher 3, 1 | 1, 1; student 1, 1 | 2, 2. Labels 0, 1 are there, 2, 3 are not.
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
    assert loss(student, teacher, targets, reduction="sum").item() == pytest.approx(first + second, rel=1e-12)
    assert loss(student, teacher, targets).item() == pytest.approx((first + second) / 3, rel=1e-12)


@PROPERTY
@given(batches(), st.sampled_from(["batchmean", "sum", "none"]))
def test_ps_equals_the_reference(batch, reduction):
    actual = value_and_gradient(ps, *batch, reduction=reduction)
    assert_same(actual, value_and_gradient(reference_ps, *batch, reduction=reduction))


@both_ps
def test_ps_of_one_positive_is_kullback_leibler_of_softmaxes(loss):
    student, teacher, targets = random_batch()
    targets = torch.eye(6, dtype=torch.uint8)[:5]
    expected = torch.nn.functional.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True
    )
    torch.testing.assert_close(loss(student, teacher, targets), expected, rtol=1e-9, atol=1e-12)


@both_ps
def test_ps_knows_no_difference_of_two_positives(loss):
    """A positive's group is without the other positives, so nothing pulls it towards or away from them."""
    student, teacher, _ = random_batch(2)
    targets = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]])
    value = loss(student, teacher, targets, reduction="none")
    moved = student.clone()
    moved[:, 1] += 5
    again = loss(moved, teacher, targets, reduction="none")
    torch.testing.assert_close(again[:, [0, 2]], value[:, [0, 2]], rtol=1e-12, atol=0)
    assert (again[:, 1] != value[:, 1]).all()


@both_ps
def test_ps_does_not_depend_on_a_constant_per_image_nor_on_order(loss):
    student, teacher, targets = random_batch()
    value, gradient = value_and_gradient(loss, student, teacher, targets)
    assert value > 0
    shifts = torch.arange(5.0, dtype=torch.float64)[:, None]
    assert_same(value_and_gradient(loss, student + shifts, teacher - 2 * shifts, targets), (value, gradient))
    rows, columns = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 3, 1, 0, 5, 4])
    shuffled = [table[rows][:, columns] for table in (student, teacher, targets)]
    assert_same(value_and_gradient(loss, *shuffled), (value, gradient[rows][:, columns]))


def test_ps_of_equal_logits_is_zero():
    logits = torch.tensor([STEEP, STEEP[::-1]], dtype=torch.float64)
    targets = torch.tensor([[1, 0, 1, 0, 1, 0, 1, 0, 1], [0, 1, 1, 0, 0, 0, 0, 1, 0]])
    value, gradient = value_and_gradient(ps, logits, logits + 3, targets, reduction="none")
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-11)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-11)


@each_reduction
def test_ps_gradcheck(reduction):
    student, teacher, targets = random_batch(3, 4, scale=1.0)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ps(x, teacher, targets, reduction=reduction), student)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ps_of_steep_logits_stays_finite_and_agrees_with_float64(dtype):
    # Every pair of steep values as a positive's logits, among steep negatives.
    one, other = torch.meshgrid(*[torch.tensor(STEEP, dtype=torch.float64)] * 2, indexing="ij")
    student = torch.stack([one.flatten(), other.flatten(), one.flatten() / 3, -other.flatten()], dim=1)
    teacher = torch.stack([other.flatten(), one.flatten(), -one.flatten(), other.flatten() / 7], dim=1)
    for labels in ([1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1]):
        targets = torch.tensor(labels).expand(len(student), -1)
        actual = value_and_gradient(ps, student.to(dtype), teacher.to(dtype), targets)
        expected = value_and_gradient(reference_ps, student, teacher, targets)
        rtol, atol = (1e-9, 1e-11) if dtype == torch.float64 else (1e-4, 1e-6)
        assert_same([part.double() for part in actual], expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("reduction", ["batchmean", "sum"])
@pytest.mark.parametrize("label", [0, 1], ids=["no-positives", "no-negatives"])
@pytest.mark.parametrize(("b", "q"), [(1, 1), (3, 4)])
def test_ps_without_groups_is_a_zero_with_a_graph(reduction, label, b, q):
    student, teacher, _ = random_batch(b, q, scale=1e4)
    targets = torch.full((b, q), label)
    value, gradient = value_and_gradient(ps, student, teacher, targets, reduction=reduction)
    assert value == 0
    assert gradient.abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_ps_of_half_precision_logits_is_computed_in_float32(dtype, autocast):
    student, teacher, targets = random_batch(40, 50)
    student, teacher = student.to(dtype), teacher.to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        actual = value_and_gradient(ps, student, teacher, targets)
    expected = value_and_gradient(ps, student.float(), teacher.float(), targets)
    assert actual[0].dtype == torch.float32
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(actual[1].float(), expected[1], rtol=1e-2, atol=1e-3)


def test_ps_leaves_teacher_and_inputs_alone():
    student, teacher, targets = random_batch()
    copies = student.clone(), teacher.clone(), targets.clone()
    ps(student.requires_grad_(), teacher.requires_grad_(), targets).backward()
    assert teacher.grad is None
    assert all(torch.equal(now, before) for now, before in zip((student, teacher, targets), copies, strict=True))
    with torch.no_grad():
        assert not ps(student, teacher, targets).requires_grad


@pytest.mark.parametrize("wrong", ["teacher_logits", "targets"])
def test_ps_names_both_arguments_when_their_shapes_differ(wrong):
    names = ["student_logits", "teacher_logits", "targets"]
    batch = dict(zip(names, random_batch(), strict=True))
    batch[wrong] = batch[wrong][:, :4]
    with pytest.raises(ValueError, match=re.escape(f"`{wrong}` has shape (5, 4) but `student_logits` has (5, 6)")):
        ps(**batch)


def test_ps_of_an_unknown_reduction_names_the_nearest():
    with pytest.raises(ValueError, match=r"`reduction` is 'batch_mean'.*'batchmean'"):
        ps(*random_batch(), reduction="batch_mean")


# --- PAL-N ----------------------------------------------------------------------------------------


@both_pal
def test_pal_by_hand(loss):
    # Exponentials 1, 3 | 2, 4: label 0 has 1/7, label 1 has 3/9, and the mean of both counts. No label: 0. All: 0.
    logits = torch.tensor([[1, 3, 2, 4]] * 3, dtype=torch.float64).log()
    targets = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    table = torch.zeros(3, 4, dtype=torch.float64)
    table[0, 0], table[0, 1] = math.log(7) / 2, math.log(3) / 2
    torch.testing.assert_close(loss(logits, targets, reduction="none"), table, rtol=1e-12, atol=1e-15)
    assert loss(logits, targets).item() == pytest.approx(math.log(21) / 2, rel=1e-12), "the default is a sum"
    assert loss(logits, targets, reduction="batchmean").item() == pytest.approx(math.log(21) / 6, rel=1e-12)


@PROPERTY
@given(batches(), st.sampled_from(["batchmean", "sum", "none"]))
def test_pal_equals_the_reference(batch, reduction):
    logits, _, targets = batch
    actual = value_and_gradient(pick_all_labels, logits, targets, reduction=reduction)
    assert_same(actual, value_and_gradient(reference_pick_all_labels, logits, targets, reduction=reduction))


def test_pal_gradcheck_and_steep_logits():
    logits, _, targets = random_batch(3, 4, scale=1.0)
    assert torch.autograd.gradcheck(lambda x: pick_all_labels(x, targets), logits.requires_grad_())
    steep = torch.tensor([STEEP], dtype=torch.float32)
    for labels in ([1, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1, 1], [1] * 9, [0] * 9):
        value, gradient = value_and_gradient(pick_all_labels, steep, torch.tensor([labels]))
        assert value.isfinite()
        assert gradient.isfinite().all()


# --- uncertainty distillation ---------------------------------------------------------------------


@both_distributions
def test_distribution_by_hand(loss):
    # One image, two labels, temperature 1. Calibration: teacher 3/4 1/4, student 1/2 1/2: 3/4 log 3/2 + 1/4 log 1/2.
    # Classifier: teacher 3/4 and 1/2, student 1/2 and 1/2: the same divergence, and 0.
    three = math.log(3)
    student, teacher = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[three, 0]], dtype=torch.float64)
    one = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    expected = 1 / 2 * (one + one / 4)
    assert loss(student, teacher, student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-12)
    # At temperature 3 the same with logits three times as large is 9 times as much; 3 is the default.
    assert loss(student, 3 * teacher, student, 3 * teacher).item() == pytest.approx(9 * expected, rel=1e-12)


@PROPERTY
@given(batches(), batches(), st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from(["batchmean", "sum", "none"]))
def test_distribution_equals_the_reference(one, other, temperature, reduction):
    b, q = (min(one[0].shape[k], other[0].shape[k]) for k in (0, 1))
    tables = [table[:b, :q] for table in (one[0], one[1], other[0], other[1])]
    options = {"temperature": temperature, "reduction": reduction}
    for turn in ((0, 1, 2, 3), (2, 3, 0, 1)):  # so that the gradient of either branch is seen

        def arranged(loss, order=turn):
            def call(first, second, third, fourth):
                batch = (first, second, third, fourth)
                return loss(*[batch[k] for k in order], **options)

            return value_and_gradient(call, *tables)

        assert_same(arranged(distribution), arranged(reference_distribution))


def test_distribution_gives_only_the_student_gradient():
    tables = [table.requires_grad_() for table in (*random_batch()[:2], *random_batch(seed=1)[:2])]
    distribution(*tables).backward()
    student, teacher, student_branch, teacher_branch = tables
    for mine, its in ((student, teacher), (student_branch, teacher_branch)):
        assert mine.grad.abs().sum() > 0
        assert its.grad is None


def test_distribution_of_steep_logits_stays_finite():
    student, teacher = torch.meshgrid(*[torch.tensor(STEEP)] * 2, indexing="ij")
    value, gradient = value_and_gradient(distribution, student, teacher, teacher, student)
    assert value.isfinite()
    assert gradient.isfinite().all()
    same = student.clone().requires_grad_()
    assert distribution(same, student, same, student).item() == pytest.approx(0, abs=1e-5)


def test_distribution_errors():
    tables = [*random_batch()[:2]] * 2
    with pytest.raises(ValueError, match="`temperature` is 0, expected a number above 0"):
        distribution(*tables, temperature=0)
    with pytest.raises(ValueError, match="`temperature` is nan"):
        distribution(*tables, temperature=math.nan)
    with pytest.raises(ValueError, match=r"`teacher_calibration` has shape \(5, 5\) but `student_logits` has \(5, 6\)"):
        distribution(*tables[:3], tables[3][:, :5])


def test_disagreement_is_a_divergence_with_gradient_on_both_sides():
    logits, calibration, _ = random_batch()
    expected = sum(divergence(list(logits[i]), list(calibration[i])) for i in range(5))
    torch.testing.assert_close(disagreement(logits, calibration), expected, rtol=1e-9, atol=1e-12)
    inputs = logits.requires_grad_(), calibration.requires_grad_()
    assert torch.autograd.gradcheck(disagreement, inputs)
    steep = torch.tensor([STEEP], requires_grad=True)
    disagreement(steep, steep.flip(1)).backward()
    assert steep.grad.isfinite().all()
    with pytest.raises(ValueError, match="`calibration_logits` has shape"):
        disagreement(logits, calibration[:2])


def test_uncertainty_map_by_hand():
    # Gradients sum to log 3 and 0 over the map: weights 3/4 and 1/4.
    three = math.log(3)
    gradient = torch.tensor([[[[three, 0.0]], [[1.0, -1.0]]]], dtype=torch.float64, requires_grad=True)
    features = torch.tensor([[[[4.0, 8.0]], [[0.0, 4.0]]]], dtype=torch.float64, requires_grad=True)
    found = uncertainty_map(features, gradient)
    torch.testing.assert_close(found, torch.tensor([[[3.0, 7.0]]], dtype=torch.float64), rtol=1e-12, atol=0)
    found.sum().backward()
    expected = torch.tensor([[[[3 / 4] * 2], [[1 / 4] * 2]]], dtype=torch.float64)
    torch.testing.assert_close(features.grad, expected, rtol=1e-12, atol=0)
    assert gradient.grad is None
    with pytest.raises(ValueError, match="`gradient` has shape"):
        uncertainty_map(features, gradient[:, :1])


def test_attention_by_hand():
    student = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]], requires_grad=True)
    teacher = torch.tensor([[[1.0, 0.0], [3.0, 7.0]]], requires_grad=True)
    value = attention(student, teacher)
    assert value.item() == pytest.approx((4 + 9) / 4)
    value.backward()
    torch.testing.assert_close(student.grad, torch.tensor([[[0, 1.0], [0, -1.5]]]))
    assert teacher.grad is None
    # A finer student is averaged, a coarser one repeated.
    assert attention(student, torch.tensor([[[2.0]]])).item() == pytest.approx(0.25)
    assert attention(torch.tensor([[[2.0]]]), teacher).item() == pytest.approx((1 + 4 + 1 + 25) / 4)
    with pytest.raises(ValueError, match=r"`student_map` has shape \(1, 2, 2\) and `teacher_map` \(2, 2, 2\)"):
        attention(student, torch.zeros(2, 2, 2))
