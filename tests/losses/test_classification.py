"""Binary cross entropy over labels (L2D, Eq. 1) against a plain-loop reference written from the equation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mlkd.losses.classification import bce

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40, database=None)
STEEP = [-1e4, -100.0, -17.0, -1.0, 0.0, 1.0, 17.0, 100.0, 1e4]


# --- the reference: Eq. 1 in loops over images and labels, one scalar at a time -------------------


def log_sigmoid(logit):
    """log(1 / (1 + exp(-logit))) of one scalar tensor, on the side of 0 where nothing overflows."""
    if logit >= 0:
        return -torch.log1p(torch.exp(-logit))
    return logit - torch.log1p(torch.exp(logit))


def reference_bce(student_logits, targets, *, reduction="sum", ignored=None):
    b, q = student_logits.shape
    terms = [[torch.zeros((), dtype=torch.float64) for _ in range(q)] for _ in range(b)]
    for i in range(b):
        for k in range(q):
            if ignored is not None and bool(ignored[i, k]):
                terms[i][k] = 0 * student_logits[i, k].double()
                continue
            y = float(targets[i, k])
            logit = student_logits[i, k].double()
            terms[i][k] = -(y * log_sigmoid(logit) + (1 - y) * log_sigmoid(-logit))  # 1 - σ(x) = σ(-x)
    if reduction == "none":
        return torch.stack([torch.stack(row) for row in terms])
    total = sum(term for row in terms for term in row)
    return total / b if reduction == "batchmean" else total


both = pytest.mark.parametrize("loss", [bce, reference_bce], ids=["bce", "reference"])
every_reduction = pytest.mark.parametrize("reduction", ["sum", "batchmean", "none"])


def value_and_gradient(loss, logits, *args, **options):
    """The loss and the gradient of its weighted sum (weights 1, 2, ... tell the entries of "none" apart)."""
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, *args, **options)
    weights = torch.arange(1, value.numel() + 1, dtype=value.dtype).reshape(value.shape)
    (gradient,) = torch.autograd.grad((weights * value).sum(), logits)
    return value.detach(), gradient


def assert_same(actual, expected, rtol=1e-9, atol=1e-12):
    for got, wanted in zip(actual, expected, strict=True):
        assert torch.isfinite(got).all()
        torch.testing.assert_close(got, wanted, rtol=rtol, atol=atol, check_dtype=False)


def random_batch(b=5, q=4, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(b, q, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 2, (b, q), generator=generator, dtype=torch.uint8)
    ignored = torch.rand(b, q, generator=generator) < 0.3
    return logits, targets, ignored


# --- by hand --------------------------------------------------------------------------------------


@both
def test_two_images_and_two_labels_by_hand(loss):
    # σ(log 3) = 3/4 and σ(0) = 1/2, so the four terms are
    #   y = 1 at 3/4: -log(3/4) = log(4/3)      y = 0 at 3/4: -log(1/4) = log 4      any y at 1/2: log 2
    logits = torch.tensor([[math.log(3), math.log(3)], [0, -math.log(3)]], dtype=torch.float64)
    targets = torch.tensor([[1, 0], [1, 1]])
    terms = torch.tensor([[math.log(4 / 3), math.log(4)], [math.log(2), math.log(4)]], dtype=torch.float64)
    total = math.log(4 / 3 * 4 * 2 * 4)
    torch.testing.assert_close(loss(logits, targets, reduction="none"), terms, rtol=1e-12, atol=0)
    assert loss(logits, targets, reduction="sum").item() == pytest.approx(total, rel=1e-12)
    assert loss(logits, targets, reduction="batchmean").item() == pytest.approx(total / 2, rel=1e-12)
    assert loss(logits, targets).item() == pytest.approx(total, rel=1e-12), "the default is the sum"


@both
def test_an_ignored_entry_by_hand(loss):
    # As above, but all entries except the first are left out: log(4/3), and still a mean over two images.
    logits = torch.tensor([[math.log(3), math.log(3)], [0, 0]], dtype=torch.float64)
    targets = torch.tensor([[1, 0], [1, 0]])
    ignored = torch.tensor([[False, True], [True, True]])
    expected = math.log(4 / 3)
    assert loss(logits, targets, ignored=ignored).item() == pytest.approx(expected, rel=1e-12)
    mean = loss(logits, targets, ignored=ignored, reduction="batchmean")
    assert mean.item() == pytest.approx(expected / 2, rel=1e-12)


# --- against the reference, torch and calculus ----------------------------------------------------


@st.composite
def batches(draw):
    b, q = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    size = {"min_size": b * q, "max_size": b * q}
    density, left_out = draw(st.integers(0, 10)), draw(st.integers(0, 10))
    logits = torch.tensor(draw(st.lists(st.floats(-60, 60), **size)), dtype=torch.float64)
    targets = torch.tensor(draw(st.lists(st.integers(0, 9), **size))) < density
    ignored = torch.tensor(draw(st.lists(st.integers(0, 9), **size))) < left_out
    return logits.reshape(b, q), targets.to(torch.uint8).reshape(b, q), ignored.reshape(b, q)


@PROPERTY
@given(batches(), st.sampled_from(["sum", "batchmean", "none"]), st.booleans())
def test_equals_the_reference(batch, reduction, with_ignored):
    logits, targets, ignored = batch
    options = {"reduction": reduction, "ignored": ignored if with_ignored else None}
    actual = value_and_gradient(bce, logits, targets, **options)
    assert_same(actual, value_and_gradient(reference_bce, logits, targets, **options))


@both
@every_reduction
def test_agrees_with_torch(loss, reduction):
    logits, targets, _ = random_batch()

    def torchs(logits, targets):
        kind = "none" if reduction == "none" else "sum"
        total = functional.binary_cross_entropy_with_logits(logits, targets.double(), reduction=kind)
        return total / len(logits) if reduction == "batchmean" else total

    actual = value_and_gradient(loss, logits, targets, reduction=reduction)
    assert_same(actual, value_and_gradient(torchs, logits, targets))


@both
def test_gradient_is_probability_minus_target(loss):
    logits, targets, ignored = random_batch()
    _, gradient = value_and_gradient(loss, logits, targets, ignored=ignored)
    expected = torch.where(ignored, 0.0, torch.sigmoid(logits) - targets.double())
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    assert (gradient[ignored] == 0).all()


@every_reduction
def test_gradcheck(reduction):
    logits, targets, ignored = random_batch(3, 3)
    for mask in (None, ignored):
        assert torch.autograd.gradcheck(
            lambda x, mask=mask: bce(x, targets, reduction=reduction, ignored=mask), logits.requires_grad_()
        )


# --- limits ---------------------------------------------------------------------------------------


@both
def test_order_of_images_and_of_labels_does_not_matter(loss):
    logits, targets, ignored = random_batch()
    value, gradient = value_and_gradient(loss, logits, targets, ignored=ignored)
    rows, columns = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 3, 1, 0])
    shuffled = [tensor[rows][:, columns] for tensor in (logits, targets, ignored)]
    actual = value_and_gradient(loss, *shuffled[:2], ignored=shuffled[2])
    assert_same(actual, (value, gradient[rows][:, columns]))


@both
def test_negated_logits_with_swapped_targets_cost_the_same(loss):
    logits, targets, _ = random_batch()
    torch.testing.assert_close(loss(-logits, 1 - targets), loss(logits, targets), rtol=1e-12, atol=0)


@both
def test_doubling_the_batch_doubles_the_sum_and_keeps_the_mean(loss):
    logits, targets, _ = random_batch()
    twice = torch.cat([logits, logits]), torch.cat([targets, targets])
    for reduction, factor in {"sum": 2, "batchmean": 1}.items():
        expected = factor * loss(logits, targets, reduction=reduction)
        torch.testing.assert_close(loss(*twice, reduction=reduction), expected, rtol=1e-12, atol=0)


@both
def test_ignoring_nothing_changes_nothing(loss):
    logits, targets, ignored = random_batch()
    expected = value_and_gradient(loss, logits, targets)
    assert_same(value_and_gradient(loss, logits, targets, ignored=torch.zeros_like(ignored)), expected)


@both
@every_reduction
def test_ignoring_everything_is_zero_with_a_graph(loss, reduction):
    logits, targets, ignored = random_batch()
    value, gradient = value_and_gradient(
        loss, 1e4 * logits, targets, ignored=torch.ones_like(ignored), reduction=reduction
    )
    assert (value == 0).all()
    assert (gradient == 0).all()


@both
def test_what_stands_in_an_ignored_entry_does_not_matter(loss):
    logits, targets, ignored = random_batch()
    expected = value_and_gradient(loss, logits, targets, ignored=ignored)
    other = torch.where(ignored, -1e4 * logits, logits), torch.where(ignored, 1 - targets, targets)
    assert_same(value_and_gradient(loss, *other, ignored=ignored), expected)


# --- edges and precision --------------------------------------------------------------------------


@both
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
@pytest.mark.parametrize("label", [0, 1])
def test_no_positive_and_only_positives(loss, shape, label):
    logits, _, _ = random_batch(*shape)
    targets = torch.full(shape, label, dtype=torch.uint8)
    expected = functional.softplus(-logits if label else logits).sum()
    torch.testing.assert_close(loss(logits, targets), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("label", [0, 1])
def test_steep_logits_stay_finite_and_agree_with_float64(dtype, label):
    logits = torch.tensor([STEEP], dtype=torch.float64)
    targets = torch.full(logits.shape, label, dtype=torch.uint8)
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-7}
    actual = bce(logits.to(dtype), targets, reduction="none")
    expected = reference_bce(logits, targets, reduction="none")
    assert expected.max() == 1e4, "each term grows like |logit| on the wrong side"
    assert_same([actual], [expected], **tolerance)
    (_, actual), (_, expected) = (
        value_and_gradient(loss, x, targets) for loss, x in ((bce, logits.to(dtype)), (reference_bce, logits))
    )
    assert_same([actual], [expected], **tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_largest_logits_stay_finite(dtype):
    largest = torch.finfo(dtype).max
    logits = torch.tensor([[largest, -largest, largest, -largest]], dtype=dtype)
    value, gradient = value_and_gradient(bce, logits, torch.tensor([[0, 1, 1, 0]]), reduction="none")
    assert value.tolist() == [[largest, largest, 0, 0]]
    assert gradient.tolist() == [[1, -2, 0, 0]], "1 and -1, times the weights 1 and 2"


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
def test_the_type_of_the_targets_does_not_matter(dtype):
    logits, targets, _ = random_batch()
    value = bce(logits, targets.to(dtype))
    assert value.dtype == torch.float64
    torch.testing.assert_close(value, reference_bce(logits, targets), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_logits_are_reduced_in_float32(dtype, autocast):
    # 2,000 terms that sum to some 40,000: rounded to 8 bits along the way they would be off by percents.
    logits, targets, _ = random_batch(40, 50, scale=50.0)
    logits = logits.to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        actual = value_and_gradient(bce, logits, targets)
    value, gradient = value_and_gradient(bce, logits.float(), targets)
    assert actual[0].dtype == torch.float32
    torch.testing.assert_close(actual[0], value, rtol=1e-5, atol=0)
    torch.testing.assert_close(actual[1].float(), gradient, rtol=0, atol=1e-2)


def test_autocast_does_not_change_float32():
    logits, targets, _ = random_batch(40, 50)
    expected = value_and_gradient(bce, logits.float(), targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = value_and_gradient(bce, logits.float(), targets)
    assert_same(actual, expected, rtol=1e-6)


# --- manners --------------------------------------------------------------------------------------


def test_inputs_are_left_as_they_were():
    inputs = random_batch()
    before = [tensor.clone() for tensor in inputs]
    versions = [tensor._version for tensor in inputs]
    bce(*inputs[:2], ignored=inputs[2])
    for tensor, copy, version in zip(inputs, before, versions, strict=True):
        assert torch.equal(tensor, copy)
        assert tensor._version == version
        assert not tensor.requires_grad


def test_grad_mode_stays_as_it_was():
    logits, targets, _ = random_batch()
    with torch.no_grad():
        assert not bce(logits.requires_grad_(), targets).requires_grad
        assert not torch.is_grad_enabled()
    assert bce(logits, targets).requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("shape", [(5, 3), (4, 4), (1, 4), (5, 1), (4,), (5, 4, 1)])
def test_targets_of_another_shape(shape):
    logits, _, _ = random_batch()
    with pytest.raises(ValueError, match=r"(?s)(?=.*targets)(?=.*student_logits)(?=.*\(5, 4\))"):
        bce(logits, torch.zeros(shape))


@pytest.mark.parametrize("shape", [(5, 3), (1, 4), (4,)])
def test_ignored_of_another_shape(shape):
    logits, targets, _ = random_batch()
    with pytest.raises(ValueError, match=r"(?s)(?=.*ignored)(?=.*\(5, 4\))"):
        bce(logits, targets, ignored=torch.zeros(shape, dtype=torch.bool))


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("summ", "sum"),
        ("batch_mean", "batchmean"),
        ("batchmaen", "batchmean"),
        ("None", "none"),
        ("NONE", "none"),
    ],
)
def test_an_unknown_reduction_names_the_nearest(wrong, nearest):
    logits, targets, _ = random_batch()
    with pytest.raises(ValueError, match=f"`reduction` is '{wrong}'.*mean '{nearest}'"):
        bce(logits, targets, reduction=wrong)
