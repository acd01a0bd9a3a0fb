"""Binary cross entropy (L2D, Eq. 1) and the asymmetric loss (CPSD, Eq. 4) against plain loops from the equations."""

import math

import pytest
import torch
from compare import assert_same, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mlkd.losses.classification import asl, bce

PROPERTY = settings(derandomize=True, deadline=None, max_examples=40, database=None)
STEEP = [-1e4, -100.0, -17.0, -1.0, 0.0, 1.0, 17.0, 100.0, 1e4]


# --- the reference: Eq. 1 in loops over images and labels, one scalar at a time -------------------


def log_sigmoid(logit):
    """log(1 / (1 + exp(-logit))) of one scalar tensor, on the side of 0 where nothing overflows."""
    if logit >= 0:
        return -torch.log1p(torch.exp(-logit))
    return logit - torch.log1p(torch.exp(logit))


def reference_bce(student_logits, targets, *, reduction="sum", ignore_mask=None):
    b, q = student_logits.shape
    terms = [[torch.zeros((), dtype=torch.float64) for _ in range(q)] for _ in range(b)]
    for i in range(b):
        for k in range(q):
            if ignore_mask is not None and bool(ignore_mask[i, k]):
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


def random_batch(b=5, q=4, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(b, q, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 2, (b, q), generator=generator, dtype=torch.uint8)
    ignore_mask = torch.rand(b, q, generator=generator) < 0.3
    return logits, targets, ignore_mask


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
    ignore_mask = torch.tensor([[False, True], [True, True]])
    expected = math.log(4 / 3)
    assert loss(logits, targets, ignore_mask=ignore_mask).item() == pytest.approx(expected, rel=1e-12)
    mean = loss(logits, targets, ignore_mask=ignore_mask, reduction="batchmean")
    assert mean.item() == pytest.approx(expected / 2, rel=1e-12)


# --- against the reference, torch and calculus ----------------------------------------------------


@st.composite
def batches(draw):
    b, q = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    size = {"min_size": b * q, "max_size": b * q}
    density, classes_without_positives = draw(st.integers(0, 10)), draw(st.integers(0, 10))
    logits = torch.tensor(draw(st.lists(st.floats(-60, 60), **size)), dtype=torch.float64)
    targets = torch.tensor(draw(st.lists(st.integers(0, 9), **size))) < density
    ignore_mask = torch.tensor(draw(st.lists(st.integers(0, 9), **size))) < classes_without_positives
    return logits.reshape(b, q), targets.to(torch.uint8).reshape(b, q), ignore_mask.reshape(b, q)


@PROPERTY
@given(batches(), st.sampled_from(["sum", "batchmean", "none"]), st.booleans())
def test_equals_the_reference(batch, reduction, with_ignored):
    logits, targets, ignore_mask = batch
    options = {"reduction": reduction, "ignore_mask": ignore_mask if with_ignored else None}
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
    logits, targets, ignore_mask = random_batch()
    _, gradient = value_and_gradient(loss, logits, targets, ignore_mask=ignore_mask)
    expected = torch.where(ignore_mask, 0.0, torch.sigmoid(logits) - targets.double())
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    assert (gradient[ignore_mask] == 0).all()


@every_reduction
def test_gradcheck(reduction):
    logits, targets, ignore_mask = random_batch(3, 3)
    for mask in (None, ignore_mask):
        assert torch.autograd.gradcheck(
            lambda x, mask=mask: bce(x, targets, reduction=reduction, ignore_mask=mask), logits.requires_grad_()
        )


# --- limits ---------------------------------------------------------------------------------------


@both
def test_order_of_images_and_of_labels_does_not_matter(loss):
    logits, targets, ignore_mask = random_batch()
    value, gradient = value_and_gradient(loss, logits, targets, ignore_mask=ignore_mask)
    rows, columns = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([2, 3, 1, 0])
    shuffled = [tensor[rows][:, columns] for tensor in (logits, targets, ignore_mask)]
    actual = value_and_gradient(loss, *shuffled[:2], ignore_mask=shuffled[2])
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
    logits, targets, ignore_mask = random_batch()
    expected = value_and_gradient(loss, logits, targets)
    assert_same(value_and_gradient(loss, logits, targets, ignore_mask=torch.zeros_like(ignore_mask)), expected)


@both
@every_reduction
def test_ignoring_everything_is_zero_with_a_graph(loss, reduction):
    logits, targets, ignore_mask = random_batch()
    value, gradient = value_and_gradient(
        loss, 1e4 * logits, targets, ignore_mask=torch.ones_like(ignore_mask), reduction=reduction
    )
    assert (value == 0).all()
    assert (gradient == 0).all()


@both
def test_what_stands_in_an_ignored_entry_does_not_matter(loss):
    logits, targets, ignore_mask = random_batch()
    expected = value_and_gradient(loss, logits, targets, ignore_mask=ignore_mask)
    other = torch.where(ignore_mask, -1e4 * logits, logits), torch.where(ignore_mask, 1 - targets, targets)
    assert_same(value_and_gradient(loss, *other, ignore_mask=ignore_mask), expected)


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
    bce(*inputs[:2], ignore_mask=inputs[2])
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
        bce(logits, targets, ignore_mask=torch.zeros(shape, dtype=torch.bool))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("summ", "sum"),
        ("batch_mean", "batchmean"),
        ("batchmaen", "batchmean"),
        ("None", "none"),
        ("NONE", "none"),
    ],
)
def test_an_unknown_reduction_names_the_nearest(wrong, expected):
    logits, targets, _ = random_batch()
    with pytest.raises(ValueError, match=f"`reduction` is '{wrong}'.*mean '{expected}'"):
        bce(logits, targets, reduction=wrong)


# --- the asymmetric loss (CPSD, Eq. 4 with its minus sign) ------------------------------------------


def reference_asl(
    student_logits,
    targets,
    *,
    gamma_neg=4,
    gamma_pos=0,
    clip=0.05,
    detach_focus=True,
    reduction="sum",
    ignore_mask=None,
):
    b, q = student_logits.shape
    terms = [[torch.zeros((), dtype=torch.float64) for _ in range(q)] for _ in range(b)]
    for i in range(b):
        for k in range(q):
            logit = student_logits[i, k].double()
            nothing = 0 * logit
            if ignore_mask is not None and bool(ignore_mask[i, k]):
                terms[i][k] = nothing
                continue
            if targets[i, k] == 1:
                focus, logarithm = torch.exp(gamma_pos * log_sigmoid(-logit)), log_sigmoid(logit)
            else:
                shifted = torch.sigmoid(logit) - clip
                if shifted <= 0:  # max(p - clip, 0) is 0, and so are its logarithm and the term
                    terms[i][k] = nothing
                    continue
                focus = shifted**gamma_neg
                logarithm = torch.log(1 - shifted) if clip else log_sigmoid(-logit)
            terms[i][k] = -(focus.detach() if detach_focus else focus) * logarithm
    if reduction == "none":
        return torch.stack([torch.stack(row) for row in terms])
    total = sum(term for row in terms for term in row)
    return total / b if reduction == "batchmean" else total


both_asl = pytest.mark.parametrize("loss", [asl, reference_asl], ids=["asl", "reference"])
detached_or_not = pytest.mark.parametrize("detach_focus", [True, False])


@both_asl
def test_asl_by_hand(loss):
    # p = 1/2: present -log(1/2) = log 2 (γ+ = 0); absent (1/2)^4 log 2 without clipping,
    # (9/20)^4 log(20/11) with p - 1/20 = 9/20. p = 1/4, clip 1/4: an absent label costs nothing.
    half = torch.zeros(1, 2, dtype=torch.float64)
    targets = torch.tensor([[1, 0]])
    terms = loss(half, targets, clip=0.0, reduction="none")
    assert terms.tolist() == [pytest.approx([math.log(2), math.log(2) / 16], rel=1e-12)]
    terms = loss(half, targets, reduction="none")
    assert terms.tolist() == [pytest.approx([math.log(2), (9 / 20) ** 4 * math.log(20 / 11)], rel=1e-12)]
    terms = loss(half, targets, gamma_pos=2, gamma_neg=1, clip=0.25, reduction="none")
    assert terms.tolist() == [pytest.approx([math.log(2) / 4, math.log(4 / 3) / 4], rel=1e-12)]
    quarter = torch.full((1, 1), -math.log(3) - 1e-9, dtype=torch.float64)
    assert loss(quarter, torch.tensor([[0]]), clip=0.25).item() == 0


@both_asl
def test_asl_gradient_by_hand(loss):
    # One absent label at p = 1/2, no clipping, γ- = 1. Detached: p · p = 1/4, as BCE's p times the factor p.
    # Else also the factor's own: p(1 - p) log 2 more.
    logit, target = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([[0]])
    options = {"gamma_neg": 1, "clip": 0.0}
    assert value_and_gradient(loss, logit, target, **options)[1].item() == pytest.approx(1 / 4, rel=1e-12)
    _, gradient = value_and_gradient(loss, logit, target, detach_focus=False, **options)
    assert gradient.item() == pytest.approx(1 / 4 + math.log(2) / 4, rel=1e-12)


@PROPERTY
@given(
    batches(),
    st.sampled_from(["sum", "batchmean", "none"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 0.5, 1, 2.5, 4]),
    st.sampled_from([0, 0.5, 1, 4]),
    st.sampled_from([0.0, 0.05, 0.4]),
)
def test_asl_equals_the_reference(batch, reduction, with_ignored, detach_focus, gamma_neg, gamma_pos, clip):
    logits, targets, ignore_mask = batch
    options = {
        "reduction": reduction,
        "ignore_mask": ignore_mask if with_ignored else None,
        "detach_focus": detach_focus,
        "gamma_neg": gamma_neg,
        "gamma_pos": gamma_pos,
        "clip": clip,
    }
    actual = value_and_gradient(asl, logits, targets, **options)
    assert_same(actual, value_and_gradient(reference_asl, logits, targets, **options))


@both_asl
@every_reduction
@detached_or_not
def test_asl_without_asymmetry_is_bce(loss, reduction, detach_focus):
    logits, targets, ignore_mask = random_batch()
    options = {"reduction": reduction, "ignore_mask": ignore_mask}
    plain = {"gamma_neg": 0, "gamma_pos": 0, "clip": 0.0, "detach_focus": detach_focus}
    actual = value_and_gradient(loss, logits, targets, **options, **plain)
    assert_same(actual, value_and_gradient(bce, logits, targets, **options))


@both_asl
def test_the_defaults_of_asl_are_the_papers(loss):
    logits, targets, _ = random_batch()
    named = {"gamma_neg": 4, "gamma_pos": 0, "clip": 0.05, "detach_focus": True, "reduction": "sum"}
    assert_same(value_and_gradient(loss, logits, targets), value_and_gradient(loss, logits, targets, **named))


@detached_or_not
def test_detaching_the_focus_changes_the_gradient_alone(detach_focus):
    logits, targets, _ = random_batch()
    value, gradient = value_and_gradient(asl, logits, targets, detach_focus=detach_focus)
    other_value, other = value_and_gradient(asl, logits, targets, detach_focus=not detach_focus)
    assert value == other_value
    absent = (targets == 0) & (torch.sigmoid(logits) > 0.05)
    assert (gradient != other)[absent].all()
    assert (gradient == other)[targets == 1].all(), "γ+ is 0"


@every_reduction
def test_asl_gradcheck(reduction):
    logits, targets, ignore_mask = random_batch(3, 3)
    options = {"gamma_neg": 2.5, "gamma_pos": 0.5, "detach_focus": False, "reduction": reduction}
    for mask in (None, ignore_mask):
        for clip in (0.0, 0.05):
            assert torch.autograd.gradcheck(
                lambda x, m=mask, c=clip: asl(x, targets, ignore_mask=m, clip=c, **options), logits.requires_grad_()
            )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("gamma", [0, 0.01, 1, 4])
@detached_or_not
def test_asl_of_steep_logits_stays_finite_and_agrees_with_float64(dtype, label, clip, gamma, detach_focus):
    logits = torch.tensor([[*STEEP, -90.0, -87.5, 90.0]], dtype=torch.float64)
    targets = torch.full(logits.shape, label, dtype=torch.uint8)
    options = {"clip": clip, "gamma_neg": gamma, "gamma_pos": gamma, "detach_focus": detach_focus, "reduction": "none"}
    actual = value_and_gradient(asl, logits.to(dtype), targets, **options)
    expected = value_and_gradient(reference_asl, logits, targets, **options)
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
    assert_same(actual, expected, **tolerance)
    largest = 1e4 if label or not clip else -math.log(clip)
    assert actual[0].max().item() == pytest.approx(largest * (1 if label or not clip else 0.95**gamma), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_asl_of_the_largest_logits_stays_finite(dtype):
    largest = torch.finfo(dtype).max
    logits = torch.tensor([[largest, -largest, largest, -largest]], dtype=dtype)
    value, gradient = value_and_gradient(asl, logits, torch.tensor([[0, 1, 1, 0]]), clip=0.0, reduction="none")
    assert value.tolist() == [[largest, largest, 0, 0]]
    assert gradient.tolist() == [[1, -2, 0, 0]]


@both_asl
@every_reduction
def test_asl_of_ignored_entries_is_zero_with_a_graph(loss, reduction):
    logits, targets, ignore_mask = random_batch()
    value, gradient = value_and_gradient(
        loss, 1e4 * logits, targets, ignore_mask=torch.ones_like(ignore_mask), reduction=reduction
    )
    assert (value == 0).all()
    assert (gradient == 0).all()
    other = torch.where(ignore_mask, -1e4 * logits, logits), torch.where(ignore_mask, 1 - targets, targets)
    expected = value_and_gradient(loss, logits, targets, ignore_mask=ignore_mask)
    assert_same(value_and_gradient(loss, *other, ignore_mask=ignore_mask), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_asl_of_half_precision_logits_is_computed_in_float32(dtype, autocast):
    logits, targets, _ = random_batch(40, 50, scale=50.0)
    logits = logits.to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        actual = value_and_gradient(asl, logits, targets, detach_focus=False)
    value, gradient = value_and_gradient(asl, logits.float(), targets, detach_focus=False)
    assert actual[0].dtype == torch.float32
    torch.testing.assert_close(actual[0], value, rtol=1e-5, atol=0)
    torch.testing.assert_close(actual[1].float(), gradient, rtol=0, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_asl_takes_targets_of_any_type(dtype):
    logits, targets, _ = random_batch()
    torch.testing.assert_close(asl(logits, targets.to(dtype)), reference_asl(logits, targets), rtol=1e-9, atol=0)


def test_asl_leaves_inputs_and_grad_mode_as_they_were():
    logits, targets, ignore_mask = random_batch()
    copies = logits.clone(), targets.clone()
    with torch.no_grad():
        assert not asl(logits.requires_grad_(), targets, ignore_mask=ignore_mask).requires_grad
        assert not torch.is_grad_enabled(), "the authors' code switches gradients on as it returns"
    assert asl(logits, targets).requires_grad
    assert torch.equal(logits, copies[0])
    assert torch.equal(targets, copies[1])
    assert (logits._version, targets._version) == (0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma_neg": -1}, "`gamma_neg` is -1"),
        ({"gamma_pos": math.inf}, "`gamma_pos` is inf"),
        ({"gamma_pos": math.nan}, "`gamma_pos` is nan"),
        ({"clip": -0.1}, r"`clip` is -0\.1"),
        ({"clip": 1.0}, r"`clip` is 1\.0"),
        ({"reduction": "summ"}, "`reduction` is 'summ'.*mean 'sum'"),
        ({"ignore_mask": torch.zeros(5, 3, dtype=torch.bool)}, r"`ignored` has shape \(5, 3\)"),
        ({"targets": torch.zeros(5, 3)}, r"`targets` has shape \(5, 3\) but `student_logits` has \(5, 4\)"),
    ],
)
def test_what_asl_cannot_take_is_named(change, message):
    logits, targets, _ = random_batch()
    with pytest.raises(ValueError, match=message):
        asl(logits, **{"targets": targets, **change})
