"""The losses of Tf-KD, PS-KD, DLB, DDGSD, USKD and MulSupCon against plain loops written from the equations."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mlkd.losses.classification import bce
from mlkd.losses.ddgsd import mmd, mutual_kl
from mlkd.losses.dlb import dlb
from mlkd.losses.mulsupcon import mulsupcon
from mlkd.losses.ps_kd import ps_kd
from mlkd.losses.tf_kd import tf_kd
from mlkd.losses.uskd import non_target_loss, target_loss, weak_loss

NAN = float("nan")


# --- references: one scalar tensor at a time ---------------------------------------------------------


def log_probability(logit: Tensor, yes: bool) -> Tensor:
    """log of what a logit gives to yes or to no, on the side of 0 where nothing overflows."""
    logit = logit if yes else -logit
    return -torch.log1p(torch.exp(-logit)) if logit >= 0 else logit - torch.log1p(torch.exp(logit))


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL between the Bernoulli distributions of two logits; the teacher's is a constant."""
    teacher = teacher.detach()
    total = torch.zeros((), dtype=torch.float64)
    for yes in (True, False):
        known = log_probability(teacher, yes)
        total = total + torch.exp(known) * (known - log_probability(student, yes))
    return total


def cross_entropy(share: Tensor | float, logit: Tensor) -> Tensor:
    return -(share * log_probability(logit, True) + (1 - share) * log_probability(logit, False))


def nothing(*tensors: Tensor) -> Tensor:
    """A zero with a graph."""
    total = torch.zeros((), dtype=torch.float64)
    for tensor in tensors:
        total = total + 0 * tensor.sum()
    return total


def reference_tf_kd(student, targets, *, confidence=0.99, temperature=20.0, soften="teacher", reduction="sum"):
    total = nothing(student)
    for i in range(student.shape[0]):
        for k in range(student.shape[1]):
            a = confidence if targets[i, k] == 1 else 1 - confidence
            # softmax of (log a, log(1 - a)) / temperature
            yes, no = a ** (1 / temperature), (1 - a) ** (1 / temperature)
            teacher = torch.tensor(math.log(yes / no), dtype=torch.float64)
            mine = student[i, k] / temperature if soften == "both" else student[i, k]
            total = total + divergence(teacher, mine)
    return total / len(student) if reduction == "batchmean" else total


def reference_ps_kd(student, past, targets, *, alpha, reduction="sum", ignore_mask=None):
    total = nothing(student)
    for i in range(student.shape[0]):
        for k in range(student.shape[1]):
            if ignore_mask is not None and ignore_mask[i, k]:
                continue
            share = targets[i, k].double()
            if not past[i, k].isnan():
                share = (1 - alpha) * share + alpha / (1 + torch.exp(-past[i, k].detach().double()))
            total = total + cross_entropy(share, student[i, k])
    return total / len(student) if reduction == "batchmean" else total


def reference_dlb(student, last, *, temperature=3.0):
    total, known = nothing(student), 0
    for i in range(student.shape[0]):
        if last[i].isnan().any():
            continue
        known += 1
        for k in range(student.shape[1]):
            total = total + temperature**2 * divergence(last[i, k] / temperature, student[i, k] / temperature)
    return total / known if known else total


def reference_mutual_kl(student, twin, *, reduction="sum"):
    total = nothing(student, twin)
    for i in range(student.shape[0]):
        for k in range(student.shape[1]):
            total = total + divergence(twin[i, k], student[i, k]) + divergence(student[i, k], twin[i, k])
    return total / len(student) if reduction == "batchmean" else total


def reference_mmd(student, twin):
    total = nothing(student, twin)
    for c in range(student.shape[1]):
        total = total + (sum(student[:, c]) / len(student) - sum(twin[:, c]) / len(twin)) ** 2
    return total


def reference_target(student, targets):
    pairs = [(i, k) for i in range(student.shape[0]) for k in range(student.shape[1]) if targets[i, k] == 1]
    squares = {pair: torch.exp(2 * log_probability(student[pair].detach(), True)) for pair in pairs}
    total = nothing(student)
    for pair in pairs:
        soft = squares[pair] + 1 - sum(squares.values()) / len(pairs)
        total = total - soft * log_probability(student[pair], True)
    return total / len(student)


def softmax(logits: list[Tensor]) -> list[Tensor]:
    top = max(float(logit.detach()) for logit in logits)
    powers = [torch.exp(logit - top) for logit in logits]
    return [power / sum(powers) for power in powers]


def reference_non_target(student, weak, targets):
    total = nothing(student)
    for i in range(student.shape[0]):
        others = [k for k in range(student.shape[1]) if targets[i, k] == 0]
        if not others:
            continue
        own = softmax([student[i, k] for k in others])
        score = [float((s + w).detach()) for s, w in zip(own, softmax([weak[i, k] for k in others]), strict=True)]
        for place, mine in enumerate(own):
            rank = 1 + sum(s > score[place] for s in score) + sum(s == score[place] for s in score[:place])
            zipf = (1 / rank) / sum(1 / r for r in range(1, len(others) + 1))
            total = total - zipf * torch.log(mine)
    return total / len(student)


def reference_weak(weak, targets, *, smoothing=0.1):
    total = nothing(weak)
    for i in range(weak.shape[0]):
        for k in range(weak.shape[1]):
            total = total + cross_entropy((1 - smoothing) * targets[i, k].double() + smoothing / 2, weak[i, k])
    return total / len(weak)


def reference_mulsupcon(embeddings, targets, *, temperature=0.1):
    n = len(embeddings)
    unit = [e / torch.sqrt((e**2).sum()) if (e != 0).any() else e for e in embeddings]
    total, anchors = nothing(embeddings), 0
    for i in range(n):
        others = [a for a in range(n) if a != i]
        for k in range(targets.shape[1]):
            positives = [p for p in others if targets[i, k] == 1 and targets[p, k] == 1]
            if not positives:
                continue
            anchors += 1
            everyone = sum(torch.exp((unit[i] * unit[a]).sum() / temperature) for a in others)
            for p in positives:
                share = torch.exp((unit[i] * unit[p]).sum() / temperature) / everyone
                total = total - torch.log(share) / len(positives)
    return total / anchors if anchors else total


# --- the losses, their references, and what they take ------------------------------------------------

PAIRS: dict[str, tuple[Callable, Callable]] = {
    "tf_kd": (tf_kd, reference_tf_kd),
    "tf_kd both": (
        lambda *inputs: tf_kd(*inputs, soften="both", temperature=4.0, confidence=0.9, reduction="batchmean"),
        lambda *inputs: reference_tf_kd(*inputs, soften="both", temperature=4.0, confidence=0.9, reduction="batchmean"),
    ),
    "ps_kd": (
        lambda *inputs: ps_kd(*inputs, alpha=0.3),
        lambda *inputs: reference_ps_kd(*inputs, alpha=0.3),
    ),
    "dlb": (dlb, reference_dlb),
    "mutual_kl": (mutual_kl, reference_mutual_kl),
    "mmd": (mmd, reference_mmd),
    "target": (target_loss, reference_target),
    "non_target": (non_target_loss, reference_non_target),
    "weak": (weak_loss, reference_weak),
    "mulsupcon": (mulsupcon, reference_mulsupcon),
}
each_pair = pytest.mark.parametrize("name", PAIRS)


def inputs_of(name: str, logits: Tensor, other: Tensor, targets: Tensor) -> list[Tensor]:
    """The arguments of a loss, made of two tables of real numbers and the targets."""
    match name.split()[0]:
        case "tf_kd" | "target" | "weak" | "mulsupcon":
            return [logits, targets]
        case "ps_kd":
            return [logits, other, targets]
        case "non_target":
            return [logits, other, targets]
        case _:
            return [logits, other]


BOTH_LEARN = ("mutual_kl", "mmd")


def table(b: int = 6, q: int = 5, scale: float = 3.0, density: float = 0.5, seed: int = 0) -> tuple[Tensor, ...]:
    """Logits, other logits and targets; a row without labels, one with all, and a label nobody has."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(b, q, generator=generator, dtype=torch.float64)
    other = scale * torch.randn(b, q, generator=generator, dtype=torch.float64)
    targets = (torch.rand(b, q, generator=generator) < density).to(torch.uint8)
    if b > 2:
        targets[:, -1] = 0
        targets[0], targets[1] = 0, 1
        targets[1, -1] = 1 if q == 1 else targets[1, -1]
    return logits, other, targets


def with_holes(name: str, other: Tensor) -> Tensor:
    """Some rows of the past are not known, for the losses that allow it."""
    other = other.clone()
    if name in ("ps_kd", "dlb"):
        other[::2] = NAN
    return other


def value_and_gradients(loss: Callable, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """The loss and its gradients in everything real, 0 where there is none."""
    real = [x.detach().clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    value = loss(*real)
    leaves = [x for x in real if x.requires_grad]
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    zeros = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)]
    return value.detach(), *zeros


def assert_same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], rtol: float = 1e-9) -> None:
    for got, wanted in zip(actual, expected, strict=True):
        assert got.isfinite().all()
        largest = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(got.double(), wanted.double(), rtol=rtol, atol=1e-3 * rtol * largest)


@each_pair
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("holes", [False, True])
def test_value_and_gradient(name: str, seed: int, holes: bool) -> None:
    logits, other, targets = table(seed=seed)
    inputs = inputs_of(name, logits, with_holes(name, other) if holes else other, targets)
    loss, reference = PAIRS[name]
    actual, expected = value_and_gradients(loss, inputs), value_and_gradients(reference, inputs)
    assert_same(actual, expected)
    assert actual[0] > 0
    assert actual[1].abs().max() > 0


@each_pair
@given(
    b=st.integers(1, 5),
    q=st.integers(1, 4),
    density=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    scale=st.sampled_from([0.1, 2.0, 10.0]),
    seed=st.integers(0, 1000),
)
def test_any_shape(name: str, b: int, q: int, density: float, scale: float, seed: int) -> None:
    inputs = inputs_of(name, *table(b, q, scale, density, seed))
    loss, reference = PAIRS[name]
    assert_same(value_and_gradients(loss, inputs), value_and_gradients(reference, inputs), rtol=1e-8)


@each_pair
def test_gradcheck(name: str) -> None:
    """By differences, for the losses whose constants do not hang on the student."""
    if name in ("mutual_kl", "target"):
        pytest.skip("a part of it is a constant to the gradient alone")
    logits, other, targets = table(3, 4, scale=1.0, seed=5)
    first, *rest = inputs_of(name, logits, other, targets)
    loss = PAIRS[name][0]
    assert torch.autograd.gradcheck(lambda x: loss(x, *rest), first.requires_grad_())


@each_pair
def test_who_learns(name: str) -> None:
    inputs = [x.requires_grad_() if x.is_floating_point() else x for x in inputs_of(name, *table())]
    PAIRS[name][0](*inputs).backward()
    assert inputs[0].grad.abs().sum() > 0
    if inputs[1].is_floating_point():
        assert (inputs[1].grad is not None) == (name in BOTH_LEARN)


@each_pair
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("targets_dtype", [torch.uint8, torch.int64, torch.bool, torch.float32])
def test_extremes_are_finite(name: str, dtype: torch.dtype, targets_dtype: torch.dtype) -> None:
    """Logits of ±1e4, rows that are equal, rows of zeros, no labels, all labels, one picture."""
    signs = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, -1.0, -1.0], [0, 0, 0, 0]])
    for rows in (4, 1):
        for present in ("none", "all", "mixed"):
            targets = torch.zeros(rows, 4) if present == "none" else torch.ones(rows, 4)
            if present == "mixed":
                targets[:, ::2] = 0
            for logits, other in [(signs, -signs), (signs, signs), (signs.flip(0), signs), (0 * signs, signs)]:
                large = [(1e4 * x[:rows]).to(dtype) for x in (logits, other)]
                found = value_and_gradients(PAIRS[name][0], inputs_of(name, *large, targets.to(targets_dtype)))
                for tensor in found:
                    assert tensor.isfinite().all()


@each_pair
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    logits, other, targets = table(scale=1.0)
    inputs = inputs_of(name, logits.to(dtype), other.to(dtype), targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = PAIRS[name][0](*inputs)
    assert value.dtype == torch.float32
    exact = PAIRS[name][0](*[x.double() if x.is_floating_point() else x for x in inputs])
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)


@each_pair
def test_other_shapes(name: str) -> None:
    logits, other, targets = table()
    for change in (lambda x: x[:-1], lambda x: x[:, :-1]):
        first, *rest = inputs_of(name, logits, other, targets)
        if name == "mulsupcon" and change(logits).shape[0] == len(targets):
            continue  # embeddings have a width of their own
        with pytest.raises(ValueError, match="has shape"):
            PAIRS[name][0](change(first), *rest)


@pytest.mark.parametrize("reduction", ["sum", "batchmean"])
def test_reductions(reduction: str) -> None:
    logits, other, targets = table()
    for loss, reference, inputs in [
        (tf_kd, reference_tf_kd, (logits, targets)),
        (mutual_kl, reference_mutual_kl, (logits, other)),
    ]:
        torch.testing.assert_close(loss(*inputs, reduction=reduction), reference(*inputs, reduction=reduction))
    ignore_mask = other > 1
    settings = {"alpha": 0.7, "reduction": reduction, "ignore_mask": ignore_mask}
    assert ignore_mask.any()
    torch.testing.assert_close(
        ps_kd(logits, other, targets, **settings), reference_ps_kd(logits, other, targets, **settings)
    )


# --- what the equations imply ------------------------------------------------------------------------


def test_tf_kd_is_least_at_the_teacher() -> None:
    """Odds of 99 : 1, softened by 2, are 99^(1/2) : 1."""
    targets = torch.tensor([[1, 0]])
    logits = torch.tensor([[math.log(99) / 2, -math.log(99) / 2]], dtype=torch.float64)
    assert float(tf_kd(logits, targets, temperature=2.0)) == pytest.approx(0, abs=1e-12)
    assert float(tf_kd(2 * logits, targets, temperature=2.0, soften="both")) == pytest.approx(0, abs=1e-12)
    assert float(tf_kd(2 * logits, targets, temperature=2.0)) > 0.01


def test_ps_kd_between_labels_and_past() -> None:
    logits, other, targets = table()
    torch.testing.assert_close(ps_kd(logits, other, targets, alpha=0.0), bce(logits, targets))
    torch.testing.assert_close(ps_kd(logits, torch.full_like(other, NAN), targets, alpha=1.0), bce(logits, targets))
    flipped = ps_kd(logits, 1e4 * (1 - 2.0 * targets), targets, alpha=1.0)
    torch.testing.assert_close(flipped, bce(logits, 1 - targets))


def test_dlb_without_a_last_batch() -> None:
    logits = table()[0].requires_grad_()
    loss = dlb(logits, torch.full_like(logits, NAN).detach())
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_dlb_is_a_mean_over_the_known() -> None:
    logits, other, _ = table()
    twice = torch.cat([logits, logits]), torch.cat([other, torch.full_like(other, NAN)])
    torch.testing.assert_close(dlb(*twice), dlb(logits, other))


def test_target_loss_of_one_label_an_image_is_the_prints() -> None:
    """s^2 + 1 - mean(s^2), by hand: s = 1/2 and 3/4, so the soft labels are 1 ∓ 5/32."""
    logits = torch.tensor([[0.0, -3.0], [5.0, math.log(3)]], dtype=torch.float64)
    targets = torch.tensor([[1, 0], [0, 1]])
    expected = ((1 - 5 / 32) * math.log(2) + (1 + 5 / 32) * math.log(4 / 3)) / 2
    assert float(target_loss(logits, targets)) == pytest.approx(expected, rel=1e-12)


def test_non_target_loss_by_hand() -> None:
    """Three absent labels, equal to the student: ranks by the weak logits are 2, 1, 3, Zipf 3/11, 6/11, 2/11."""
    weak = torch.tensor([[50.0, 1.0, 2.0, 0.0]], dtype=torch.float64)
    student = torch.zeros(1, 4, dtype=torch.float64).requires_grad_()
    loss = non_target_loss(student, weak, torch.tensor([[1, 0, 0, 0]]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(3), rel=1e-12)
    expected = torch.tensor([[0, 1 / 3 - 3 / 11, 1 / 3 - 6 / 11, 1 / 3 - 2 / 11]], dtype=torch.float64)
    torch.testing.assert_close(student.grad, expected)


def test_non_target_loss_ranks_the_absent_alone() -> None:
    """A label that is there does not take a rank, even where the share of an absent one is 0 too."""
    logits = torch.tensor([[3.0, 2000.0, 0.0]], dtype=torch.float64)
    loss = non_target_loss(logits, logits, torch.tensor([[1, 0, 0]]))
    assert float(loss) == pytest.approx(2000 / 3, rel=1e-12)  # Zipf 2/3, 1/3; log-shares 0, -2000


def test_non_target_loss_leaves_the_level_free() -> None:
    logits, other, targets = table()
    one, two = (non_target_loss(x, other, targets) for x in (logits, logits + 7.0))
    torch.testing.assert_close(one, two)
    moved = torch.where(targets > 0, -logits, logits)
    torch.testing.assert_close(non_target_loss(moved, other, targets), one)


def test_mulsupcon_by_hand() -> None:
    """Of two pictures with a label and one without, each of the two sees one of two others as its own."""
    embeddings = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]], dtype=torch.float64)
    loss = mulsupcon(embeddings, torch.tensor([[1, 0], [1, 0], [0, 1]]), temperature=0.5)
    first, second = math.log(1 + math.exp(-2)), math.log(2)  # similarities 0 and -1; 0 and 0
    assert float(loss) == pytest.approx((first + second) / 2, rel=1e-12)


def test_mulsupcon_does_not_see_lengths_or_order() -> None:
    logits, _, targets = table()
    lengths = torch.arange(1, len(logits) + 1)[:, None]
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    loss = mulsupcon(logits, targets)
    torch.testing.assert_close(mulsupcon(logits * lengths, targets), loss)
    torch.testing.assert_close(mulsupcon(logits[order], targets[order]), loss)


def test_mulsupcon_with_nobody_alike() -> None:
    embeddings = table(3, 3)[0].requires_grad_()
    loss = mulsupcon(embeddings, torch.eye(3))
    loss.backward()
    assert loss == 0
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


# --- settings out of range ---------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, NAN])
def test_temperatures(temperature: float) -> None:
    logits, other, targets = table()
    for loss, inputs in [(tf_kd, (logits, targets)), (dlb, (logits, other)), (mulsupcon, (logits, targets))]:
        with pytest.raises(ValueError, match=r"`temperature` is .*expected a number above 0"):
            loss(*inputs, temperature=temperature)


@pytest.mark.parametrize("share", [-0.1, 1.1, NAN])
def test_shares(share: float) -> None:
    logits, other, targets = table()
    with pytest.raises(ValueError, match="`alpha` is"):
        ps_kd(logits, other, targets, alpha=share)
    with pytest.raises(ValueError, match="`smoothing` is"):
        weak_loss(logits, targets, smoothing=share)
    with pytest.raises(ValueError, match="`confidence` is"):
        tf_kd(logits, targets, confidence=share)


def test_names() -> None:
    logits, other, targets = table()
    with pytest.raises(ValueError, match=r"`soften` is 'booth'.*Did you mean 'both'"):
        tf_kd(logits, targets, soften="booth")
    for loss in (
        lambda name: tf_kd(logits, targets, reduction=name),
        lambda name: ps_kd(logits, other, targets, alpha=0.5, reduction=name),
        lambda name: mutual_kl(logits, other, reduction=name),
    ):
        with pytest.raises(ValueError, match=r"`reduction` is 'sun'.*Did you mean 'sum'"):
            loss("sun")
