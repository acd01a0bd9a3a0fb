"""The losses of Tf-KD, PS-KD, DLB, DDGSD, USKD and MulSupCon against plain loops written from the equations."""

from __future__ import annotations

import math

import pytest
import torch
from compare import (
    PROPERTY,
    assert_equals_reference,
    bernoulli_divergence,
    cross_entropy,
    log_sigmoid,
    log_softmax,
    logit_batches,
    random_logits,
    random_targets,
    reduced,
    value_and_gradient,
    zero,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.ddgsd import mmd, mutual_kl
from mlkd.losses.dlb import dlb_loss
from mlkd.losses.mulsupcon import mulsupcon_loss
from mlkd.losses.ps_kd import ps_kd_loss
from mlkd.losses.tf_kd import tf_kd_loss
from mlkd.losses.uskd import non_target_loss, target_loss, weak_loss

NAN = float("nan")


def reference_tf_kd(student, targets, *, confidence=0.99, temperature=20.0, soften="teacher", reduction="sum"):
    def term(i: int, k: int) -> Tensor:
        a = confidence if targets[i, k] == 1 else 1 - confidence
        # softmax of (log a, log(1 - a)) / temperature
        present, absent = a ** (1 / temperature), (1 - a) ** (1 / temperature)
        teacher = torch.tensor(math.log(present / absent), dtype=torch.float64)
        return bernoulli_divergence(student[i, k] / (temperature if soften == "both" else 1), teacher)

    b, q = student.shape
    return reduced([[term(i, k) for k in range(q)] for i in range(b)], reduction)


def reference_ps_kd(student, past, targets, *, alpha, reduction="sum", ignore_mask=None):
    def term(i: int, k: int) -> Tensor:
        if ignore_mask is not None and ignore_mask[i, k]:
            return zero(student)
        target = targets[i, k].double()
        if not past[i, k].isnan():
            target = (1 - alpha) * target + alpha / (1 + torch.exp(-past[i, k].detach()))
        return cross_entropy(target, student[i, k])

    b, q = student.shape
    return reduced([[term(i, k) for k in range(q)] for i in range(b)], reduction)


def reference_dlb(student, last, *, temperature=3.0):
    total, count = zero(student), 0
    for i in range(student.shape[0]):
        if last[i].isnan().any():
            continue
        count += 1
        for k in range(student.shape[1]):
            divergence = bernoulli_divergence(student[i, k] / temperature, last[i, k] / temperature)
            total = total + temperature**2 * divergence
    return total / count if count else total


def reference_mutual_kl(first, second, *, reduction="sum"):
    def term(i: int, k: int) -> Tensor:
        return bernoulli_divergence(first[i, k], second[i, k]) + bernoulli_divergence(second[i, k], first[i, k])

    b, q = first.shape
    return reduced([[term(i, k) for k in range(q)] for i in range(b)], reduction)


def reference_mmd(first, second):
    total = zero(first, second)
    for c in range(first.shape[1]):
        total = total + (sum(first[:, c]) / len(first) - sum(second[:, c]) / len(second)) ** 2
    return total


def reference_target(student, targets):
    pairs = [(i, k) for i in range(student.shape[0]) for k in range(student.shape[1]) if targets[i, k] == 1]
    squares = {pair: torch.exp(2 * log_sigmoid(student[pair].detach())) for pair in pairs}
    total = zero(student)
    for pair in pairs:
        soft = squares[pair] + 1 - sum(squares.values()) / len(pairs)
        total = total - soft * log_sigmoid(student[pair])
    return total / len(student)


def reference_non_target(student, weak, targets):
    total = zero(student)
    for i in range(student.shape[0]):
        absent = [k for k in range(student.shape[1]) if targets[i, k] == 0]
        if not absent:
            continue
        log_probs, log_weak = (log_softmax([logits[i, k] for k in absent]) for logits in (student, weak))
        score = [math.exp(s.item()) + math.exp(w.item()) for s, w in zip(log_probs, log_weak, strict=True)]
        for position, log_prob in enumerate(log_probs):
            ties = sum(s == score[position] for s in score[:position])
            rank = 1 + sum(s > score[position] for s in score) + ties
            zipf = (1 / rank) / sum(1 / r for r in range(1, len(absent) + 1))
            total = total - zipf * log_prob
    return total / len(student)


def reference_weak(weak, targets, *, smoothing=0.1):
    def term(i: int, k: int) -> Tensor:
        return cross_entropy((1 - smoothing) * targets[i, k].double() + smoothing / 2, weak[i, k])

    b, q = weak.shape
    return reduced([[term(i, k) for k in range(q)] for i in range(b)], "batchmean")


def reference_mulsupcon(embeddings, targets, *, temperature=0.1):
    n = len(embeddings)
    units = [e / torch.sqrt((e**2).sum()) if (e != 0).any() else e for e in embeddings]
    total, anchors = zero(embeddings), 0
    for i in range(n):
        others = [a for a in range(n) if a != i]
        for k in range(targets.shape[1]):
            positives = [p for p in others if targets[i, k] == 1 and targets[p, k] == 1]
            if not positives:
                continue
            anchors += 1
            denominator = sum(torch.exp((units[i] * units[a]).sum() / temperature) for a in others)
            for p in positives:
                prob = torch.exp((units[i] * units[p]).sum() / temperature) / denominator
                total = total - torch.log(prob) / len(positives)
    return total / anchors if anchors else total


def table() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, other logits and targets; an image without labels, one with all, and a label that is absent otherwise."""
    (logits, other), targets = random_logits(2, 6, 5), random_targets(6, 5)
    targets[:, -1] = 0
    targets[0], targets[1] = 0, 1
    return logits, other, targets


@PROPERTY
@given(
    logit_batches(2),
    st.floats(0, 1),
    st.sampled_from([0.6, 0.9, 0.99]),
    st.sampled_from([0.5, 3.0, 20.0]),
    st.sampled_from(["teacher", "both"]),
    st.sampled_from(["sum", "batchmean"]),
)
def test_losses_equal_their_references(batch, alpha, confidence, temperature, soften, reduction) -> None:
    logits, other, targets, ignore_mask = batch
    partly_unknown = other.clone()
    partly_unknown[::2] = NAN
    tf_kd = {"confidence": confidence, "temperature": temperature, "soften": soften, "reduction": reduction}
    assert_equals_reference(tf_kd_loss, reference_tf_kd, logits, targets, **tf_kd)
    ps_kd = {"alpha": alpha, "reduction": reduction, "ignore_mask": ignore_mask}
    for past in (other, partly_unknown):
        assert_equals_reference(ps_kd_loss, reference_ps_kd, logits, past, targets, **ps_kd)
        assert_equals_reference(dlb_loss, reference_dlb, logits, past, temperature=temperature)
    for loss, reference, options in [
        (mutual_kl, reference_mutual_kl, {"reduction": reduction}),
        (mmd, reference_mmd, {}),
    ]:
        assert_equals_reference(loss, reference, logits, other, **options)
        assert_equals_reference(  # the gradient of the second argument
            lambda x, f=loss, o=options: f(logits, x, **o), lambda x, f=reference, o=options: f(logits, x, **o), other
        )
    assert_equals_reference(target_loss, reference_target, logits, targets)
    assert_equals_reference(weak_loss, reference_weak, logits, targets, smoothing=alpha)


@PROPERTY
@given(st.integers(1, 5), st.integers(1, 4), st.floats(0, 1), st.sampled_from([0.1, 2.0, 10.0]), st.integers(0, 2**31))
def test_rank_and_contrastive_losses_equal_their_references(b, q, density, scale, seed) -> None:
    (logits, other), targets = random_logits(2, b, q, seed, scale), random_targets(b, q, seed, density)
    assert_equals_reference(non_target_loss, reference_non_target, logits, other, targets)
    assert_equals_reference(mulsupcon_loss, reference_mulsupcon, logits, targets, temperature=0.5)


# Properties of the equations


def test_tf_kd_is_minimal_at_the_teacher() -> None:
    """Odds of 99 : 1, softened by 2, are 99^(1/2) : 1."""
    targets = torch.tensor([[1, 0]])
    logits = torch.tensor([[math.log(99) / 2, -math.log(99) / 2]], dtype=torch.float64)
    assert float(tf_kd_loss(logits, targets, temperature=2.0)) == pytest.approx(0, abs=1e-12)
    assert float(tf_kd_loss(2 * logits, targets, temperature=2.0, soften="both")) == pytest.approx(0, abs=1e-12)
    assert float(tf_kd_loss(2 * logits, targets, temperature=2.0)) > 0.01


def test_ps_kd_is_between_labels_and_past() -> None:
    logits, other, targets = table()
    torch.testing.assert_close(ps_kd_loss(logits, other, targets, alpha=0.0), bce(logits, targets))
    unknown = torch.full_like(other, NAN)
    torch.testing.assert_close(ps_kd_loss(logits, unknown, targets, alpha=1.0), bce(logits, targets))
    flipped = ps_kd_loss(logits, 1e4 * (1 - 2.0 * targets), targets, alpha=1.0)
    torch.testing.assert_close(flipped, bce(logits, 1 - targets))


def test_dlb_is_a_mean_over_the_images_of_the_last_batch() -> None:
    logits, other, _ = table()
    unknown = torch.full_like(other, NAN)
    twice = torch.cat([logits, logits]), torch.cat([other, unknown])
    torch.testing.assert_close(dlb_loss(*twice), dlb_loss(logits, other))
    for tensor in value_and_gradient(dlb_loss, logits, unknown):
        assert tensor.abs().sum() == 0


def test_target_loss_by_hand() -> None:
    """s^2 + 1 - mean(s^2) with s = 1/2 and 3/4: the soft labels are 1 ∓ 5/32."""
    logits = torch.tensor([[0.0, -3.0], [5.0, math.log(3)]], dtype=torch.float64)
    targets = torch.tensor([[1, 0], [0, 1]])
    expected = ((1 - 5 / 32) * math.log(2) + (1 + 5 / 32) * math.log(4 / 3)) / 2
    assert float(target_loss(logits, targets)) == pytest.approx(expected, rel=1e-12)


def test_non_target_loss_by_hand() -> None:
    """Three absent labels, equal for the student: ranks by the weak logits are 2, 1, 3, Zipf 3/11, 6/11, 2/11."""
    weak = torch.tensor([[50.0, 1.0, 2.0, 0.0]], dtype=torch.float64)
    student = torch.zeros(1, 4, dtype=torch.float64)
    value, gradient = value_and_gradient(non_target_loss, student, weak, torch.tensor([[1, 0, 0, 0]]))
    assert float(value) == pytest.approx(math.log(3), rel=1e-12)
    expected = torch.tensor([[0, 1 / 3 - 3 / 11, 1 / 3 - 6 / 11, 1 / 3 - 2 / 11]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected)


def test_non_target_loss_ranks_absent_labels_only() -> None:
    """A present label has no rank, even where the probability of an absent one is 0 too."""
    logits = torch.tensor([[3.0, 2000.0, 0.0]], dtype=torch.float64)
    loss = non_target_loss(logits, logits, torch.tensor([[1, 0, 0]]))
    assert float(loss) == pytest.approx(2000 / 3, rel=1e-12)  # Zipf 2/3, 1/3; log probabilities 0, -2000


def test_non_target_loss_does_not_depend_on_a_constant() -> None:
    logits, other, targets = table()
    value = non_target_loss(logits, other, targets)
    torch.testing.assert_close(non_target_loss(logits + 7.0, other, targets), value)
    moved = torch.where(targets > 0, -logits, logits)
    torch.testing.assert_close(non_target_loss(moved, other, targets), value)


def test_mulsupcon_by_hand() -> None:
    """Two images have a label in common and a third does not: each of the two has one positive among two others."""
    embeddings = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]], dtype=torch.float64)
    loss = mulsupcon_loss(embeddings, torch.tensor([[1, 0], [1, 0], [0, 1]]), temperature=0.5)
    first, second = math.log(1 + math.exp(-2)), math.log(2)  # similarities 0 and -1; 0 and 0
    assert float(loss) == pytest.approx((first + second) / 2, rel=1e-12)


def test_mulsupcon_does_not_depend_on_lengths() -> None:
    logits, _, targets = table()
    lengths = torch.arange(1, len(logits) + 1)[:, None]
    torch.testing.assert_close(mulsupcon_loss(logits * lengths, targets), mulsupcon_loss(logits, targets))


def test_mulsupcon_without_common_labels_is_a_zero_with_a_graph() -> None:
    for tensor in value_and_gradient(mulsupcon_loss, table()[0], torch.eye(6)):
        assert tensor.abs().sum() == 0


# Invalid settings


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, NAN])
def test_invalid_temperature_is_named(temperature: float) -> None:
    logits, other, targets = table()
    for loss, inputs in [
        (tf_kd_loss, (logits, targets)),
        (dlb_loss, (logits, other)),
        (mulsupcon_loss, (logits, targets)),
    ]:
        with pytest.raises(ValueError, match=r"`temperature` is .*expected a number above 0"):
            loss(*inputs, temperature=temperature)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, NAN])
def test_invalid_fractions_and_choices_are_named(fraction: float) -> None:
    logits, other, targets = table()
    with pytest.raises(ValueError, match=r"`alpha` is .*expected a fraction"):
        ps_kd_loss(logits, other, targets, alpha=fraction)
    with pytest.raises(ValueError, match=r"`smoothing` is .*expected a fraction"):
        weak_loss(logits, targets, smoothing=fraction)
    with pytest.raises(ValueError, match=r"`confidence` is .*expected a probability"):
        tf_kd_loss(logits, targets, confidence=fraction)
    with pytest.raises(ValueError, match=r"`soften` is 'booth'.*Did you mean 'both'"):
        tf_kd_loss(logits, targets, soften="booth")
