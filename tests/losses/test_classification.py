"""Binary cross entropy (L2D, Eq. 1) and the asymmetric loss (CPSD, Eq. 4) against plain loops from the equations."""

import math

import pytest
import torch
from compare import (
    PROPERTY,
    REDUCTIONS,
    STEEP,
    assert_equals_reference,
    assert_same,
    log_sigmoid,
    logit_batches,
    random_logits,
    random_targets,
    reduced,
    value_and_gradient,
    zero,
)
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from mlkd.losses.classification import asl, bce


def reference_bce(
    student_logits, targets, *, reduction="sum", ignore_mask=None, pos_weight=1.0, class_weights=(), label_smoothing=0.0
):
    """Eq. 1 of L2D, with the weights and the label smoothing of the docstring."""
    b, q = student_logits.shape
    present_factors = [pos_weight] * q if isinstance(pos_weight, float) else pos_weight
    class_factors = class_weights or [1.0] * q

    def term(i, k):
        if ignore_mask is not None and ignore_mask[i, k]:
            return zero(student_logits)
        logit = student_logits[i, k].double()
        present = float(targets[i, k]) * (1 - label_smoothing) + label_smoothing / 2
        positive, negative = -present * log_sigmoid(logit), -(1 - present) * log_sigmoid(-logit)
        return class_factors[k] * (present_factors[k] * positive + negative)

    return reduced([[term(i, k) for k in range(q)] for i in range(b)], reduction)


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
    """Eq. 4 of CPSD with its minus sign."""

    def term(i, k):
        logit = student_logits[i, k].double()
        if ignore_mask is not None and ignore_mask[i, k]:
            return zero(logit)
        if targets[i, k] == 1:
            focus, log_prob = torch.exp(gamma_pos * log_sigmoid(-logit)), log_sigmoid(logit)
        else:
            shifted = torch.sigmoid(logit) - clip
            if shifted <= 0:  # max(p - clip, 0) is 0, and so are its logarithm and the term
                return zero(logit)
            focus = shifted**gamma_neg
            log_prob = torch.log(1 - shifted) if clip else log_sigmoid(-logit)
        return -(focus.detach() if detach_focus else focus) * log_prob

    b, q = student_logits.shape
    return reduced([[term(i, k) for k in range(q)] for i in range(b)], reduction)


both_bce = pytest.mark.parametrize("loss", [bce, reference_bce], ids=["bce", "reference"])
both_asl = pytest.mark.parametrize("loss", [asl, reference_asl], ids=["asl", "reference"])


# Binary cross entropy


@both_bce
def test_bce_by_hand(loss):
    # σ(log 3) = 3/4 and σ(0) = 1/2, so the four terms are
    #   y = 1 at 3/4: -log(3/4) = log(4/3)      y = 0 at 3/4: -log(1/4) = log 4      any y at 1/2: log 2
    logits = torch.tensor([[math.log(3), math.log(3)], [0, -math.log(3)]], dtype=torch.float64)
    targets = torch.tensor([[1, 0], [1, 1]])
    terms = torch.tensor([[math.log(4 / 3), math.log(4)], [math.log(2), math.log(4)]], dtype=torch.float64)
    torch.testing.assert_close(loss(logits, targets, reduction="none"), terms, rtol=1e-12, atol=0)
    assert loss(logits, targets).item() == pytest.approx(math.log(4 / 3 * 4 * 2 * 4), rel=1e-12)
    # With all entries but the first ignored: log(4/3), and still a mean over two images.
    ignore_mask = torch.tensor([[False, True], [True, True]])
    mean = loss(logits, targets, ignore_mask=ignore_mask, reduction="batchmean")
    assert mean.item() == pytest.approx(math.log(4 / 3) / 2, rel=1e-12)


@PROPERTY
@given(logit_batches(1), st.sampled_from(REDUCTIONS), st.booleans())
def test_bce_equals_the_reference_and_torch(batch, reduction, with_mask):
    logits, targets, ignore_mask = batch
    options = {"reduction": reduction, "ignore_mask": ignore_mask if with_mask else None}
    assert_equals_reference(bce, reference_bce, logits, targets, **options)
    torchs = functional.binary_cross_entropy_with_logits(logits, targets.double(), reduction="none")
    expected = torchs.masked_fill(ignore_mask, 0.0) if with_mask else torchs
    torch.testing.assert_close(bce(logits, targets, **{**options, "reduction": "none"}), expected)


@PROPERTY
@given(logit_batches(1), st.sampled_from(REDUCTIONS), st.floats(0, 0.99), st.data())
def test_bce_with_weights_and_label_smoothing(batch, reduction, label_smoothing, data):
    logits, targets, ignore_mask = batch
    per_class = st.lists(st.floats(0, 9), min_size=logits.shape[1], max_size=logits.shape[1])
    options = {
        "reduction": reduction,
        "ignore_mask": ignore_mask,
        "pos_weight": data.draw(st.one_of(st.floats(0, 9), per_class)),
        "class_weights": data.draw(st.one_of(st.just(()), per_class)),
        "label_smoothing": label_smoothing,
    }
    assert_equals_reference(bce, reference_bce, logits, targets, **options)


@both_bce
def test_weights_and_label_smoothing_by_hand(loss):
    # σ(log 3) = 3/4. Present: -log(3/4) = log(4/3). Absent: -log(1/4) = log 4. With a smoothing of 1/2 the target of a
    # present label is 3/4, that of an absent one 1/4.
    logits = torch.full((1, 2), math.log(3), dtype=torch.float64)
    targets, present, absent = torch.tensor([[1, 0]]), math.log(4 / 3), math.log(4)

    def terms(**options):
        return loss(logits, targets, reduction="none", **options).tolist()[0]

    assert terms(pos_weight=5.0) == pytest.approx([5 * present, absent])
    assert terms(pos_weight=[2.0, 7.0], class_weights=[3.0, 4.0]) == pytest.approx([6 * present, 4 * absent])
    smoothed = [3 / 4 * present + 1 / 4 * absent, 1 / 4 * present + 3 / 4 * absent]
    assert terms(label_smoothing=0.5) == pytest.approx(smoothed)


def test_weights_of_one_are_the_same_bits():
    (logits,), targets = random_logits(1), random_targets()
    plain = bce(logits, targets, reduction="none")
    assert torch.equal(bce(logits, targets, reduction="none", pos_weight=[1.0] * 4, class_weights=[1.0] * 4), plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pos_weight": [1.0, 2.0]}, r"`pos_weight` is \[1\.0, 2\.0\], expected 4 numbers, one per class"),
        (
            {"class_weights": [1.0, 2.0, 3.0, -1.0]},
            "`class_weights` is .*, expected 4 numbers, .* of 0 or more",
        ),
        ({"pos_weight": -1.0}, r"`pos_weight` is -1\.0"),
        ({"label_smoothing": 1.0}, r"`label_smoothing` is 1\.0, expected a fraction, 0 or more and below 1"),
    ],
)
def test_invalid_weights(options, message):
    (logits,), targets = random_logits(1), random_targets()
    with pytest.raises(ValueError, match=message):
        bce(logits, targets, **options)


@both_bce
def test_bce_gradient_is_probability_minus_target(loss):
    (logits,), targets, ignore_mask = random_logits(1), random_targets(), random_targets(seed=1, density=0.3) > 0
    _, gradient = value_and_gradient(loss, logits, targets, ignore_mask=ignore_mask)
    expected = torch.where(ignore_mask, 0.0, torch.sigmoid(logits) - targets.double())
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@both_bce
def test_bce_of_negated_logits_and_targets_is_the_same(loss):
    (logits,), targets = random_logits(1), random_targets()
    torch.testing.assert_close(loss(-logits, 1 - targets), loss(logits, targets), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("loss", "reference"), [(bce, reference_bce), (asl, reference_asl)], ids=["bce", "asl"])
def test_ignored_entries_do_not_matter(loss, reference):
    (logits,), targets, ignore_mask = random_logits(1), random_targets(), random_targets(seed=1, density=0.3) > 0
    expected = assert_equals_reference(loss, reference, logits, targets, ignore_mask=ignore_mask)
    other = torch.where(ignore_mask, -1e4 * logits, logits), torch.where(ignore_mask, 1 - targets, targets)
    assert_same(value_and_gradient(loss, *other, ignore_mask=ignore_mask), expected)
    for tensor in value_and_gradient(loss, 1e4 * logits, targets, ignore_mask=torch.ones_like(ignore_mask)):
        assert tensor.abs().sum() == 0
    nothing_ignored = value_and_gradient(loss, logits, targets, ignore_mask=torch.zeros_like(ignore_mask))
    assert_same(nothing_ignored, value_and_gradient(loss, logits, targets))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("label", [0, 1])
def test_steep_logits_agree_with_float64(dtype, label):
    logits = torch.tensor([[*STEEP, -90.0, -87.5, 90.0]], dtype=torch.float64)
    targets = torch.full(logits.shape, label, dtype=torch.uint8)
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
    actual = value_and_gradient(bce, logits.to(dtype), targets, reduction="none")
    assert actual[0].max() == 1e4
    assert_same(actual, value_and_gradient(reference_bce, logits, targets, reduction="none"), **tolerance)
    for clip in (0.0, 0.05):
        for gamma in (0, 0.01, 1, 4):
            for detach_focus in (True, False):
                options = {"clip": clip, "gamma_neg": gamma, "gamma_pos": gamma, "detach_focus": detach_focus}
                actual = value_and_gradient(asl, logits.to(dtype), targets, reduction="none", **options)
                expected = value_and_gradient(reference_asl, logits, targets, reduction="none", **options)
                assert_same(actual, expected, **tolerance)
                largest = 1e4 if label or not clip else -math.log(clip) * 0.95**gamma
                assert actual[0].max().item() == pytest.approx(largest, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_largest_logits_give_finite_values(dtype):
    largest = torch.finfo(dtype).max
    logits, targets = torch.tensor([[largest, -largest] * 2], dtype=dtype), torch.tensor([[0, 1, 1, 0]])
    for loss in (bce, lambda *inputs, **options: asl(*inputs, clip=0.0, **options)):
        value, gradient = value_and_gradient(loss, logits, targets, reduction="none")
        assert value.tolist() == [[largest, largest, 0, 0]]
        assert gradient.tolist() == [[1, -2, 0, 0]], "1 and -1, times the weights 1 and 2"


@pytest.mark.parametrize("loss", [bce, asl])
def test_ignore_mask_of_another_shape(loss):
    (logits,), targets = random_logits(1), random_targets()
    with pytest.raises(ValueError, match=r"`ignore_mask` has shape \(5, 3\) but `student_logits` has \(5, 4\)"):
        loss(logits, targets, ignore_mask=torch.zeros(5, 3, dtype=torch.bool))


# The asymmetric loss


@both_asl
def test_asl_by_hand(loss):
    # p = 1/2: present -log(1/2) = log 2 (γ+ = 0); absent (1/2)^4 log 2 without clipping,
    # (9/20)^4 log(20/11) with p - 1/20 = 9/20. p = 1/4, clip 1/4: the term of an absent label is 0.
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
    # One absent label at p = 1/2, no clipping, γ- = 1. Detached: p · p = 1/4, the gradient p of BCE times the factor p.
    # Otherwise the gradient of the factor is added, p (1 - p) log 2.
    logit, target = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([[0]])
    options = {"gamma_neg": 1, "clip": 0.0}
    assert value_and_gradient(loss, logit, target, **options)[1].item() == pytest.approx(1 / 4, rel=1e-12)
    _, gradient = value_and_gradient(loss, logit, target, detach_focus=False, **options)
    assert gradient.item() == pytest.approx(1 / 4 + math.log(2) / 4, rel=1e-12)


@PROPERTY
@given(
    logit_batches(1),
    st.sampled_from(REDUCTIONS),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 0.5, 1, 2.5, 4]),
    st.sampled_from([0, 0.5, 1, 4]),
    st.sampled_from([0.0, 0.05, 0.4]),
)
def test_asl_equals_the_reference(batch, reduction, with_mask, detach_focus, gamma_neg, gamma_pos, clip):
    logits, targets, ignore_mask = batch
    assert_equals_reference(
        asl,
        reference_asl,
        logits,
        targets,
        reduction=reduction,
        ignore_mask=ignore_mask if with_mask else None,
        detach_focus=detach_focus,
        gamma_neg=gamma_neg,
        gamma_pos=gamma_pos,
        clip=clip,
    )
    plain = {"gamma_neg": 0, "gamma_pos": 0, "clip": 0.0, "detach_focus": detach_focus, "reduction": reduction}
    assert_same(
        value_and_gradient(asl, logits, targets, **plain), value_and_gradient(bce, logits, targets, reduction=reduction)
    )


@both_asl
def test_defaults_of_asl_are_the_papers(loss):
    (logits,), targets = random_logits(1), random_targets()
    paper = {"gamma_neg": 4, "gamma_pos": 0, "clip": 0.05, "detach_focus": True, "reduction": "sum"}
    assert_same(value_and_gradient(loss, logits, targets), value_and_gradient(loss, logits, targets, **paper))


def test_detaching_the_focus_changes_the_gradient_only():
    (logits,), targets = random_logits(1), random_targets()
    value, gradient = value_and_gradient(asl, logits, targets)
    other_value, other = value_and_gradient(asl, logits, targets, detach_focus=False)
    assert value == other_value
    absent = (targets == 0) & (torch.sigmoid(logits) > 0.05)
    assert (gradient != other)[absent].all()
    assert (gradient == other)[targets == 1].all(), "γ+ is 0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma_neg": -1}, "`gamma_neg` is -1"),
        ({"gamma_pos": math.inf}, "`gamma_pos` is inf"),
        ({"gamma_pos": math.nan}, "`gamma_pos` is nan"),
        ({"clip": -0.1}, r"`clip` is -0\.1"),
        ({"clip": 1.0}, r"`clip` is 1\.0"),
    ],
)
def test_invalid_settings_of_asl_are_named(change, message):
    (logits,), targets = random_logits(1), random_targets()
    with pytest.raises(ValueError, match=message):
        asl(logits, targets, **change)
