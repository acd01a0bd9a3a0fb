"""The losses of MSKD (Eqs 3-9, 13-16) against plain loops.

The references are written from the equations, by the readings that the functions' docstrings name. Numbers that are
constants to the gradient (the teacher's side, MBD's weights) are detached here too, and nothing else is.
"""

import math
import re

import pytest
import torch
from compare import assert_same, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.losses.mskd import graph_propagation, l_sd, mbd, pseudo_labels, r_sd, reformulated_softmax, s_sd

PROPERTY = settings(derandomize=True, deadline=None, max_examples=25, database=None)
STEEP = [-1e4, -100.0, -17.0, -1.0, 0.0, 1.0, 17.0, 100.0, 1e4]
DISTILS = {"mbd": mbd, "s_sd": s_sd}

each_literal = pytest.mark.parametrize("as_in_paper", [False, True])
each_distil = pytest.mark.parametrize("loss", DISTILS.values(), ids=list(DISTILS))
each_half = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


# --- references: loops over images, patches and labels, one scalar tensor at a time ---------------


def log_sum(terms):
    """log of the sum of e^term."""
    return torch.logsumexp(torch.stack(terms), dim=0)


def reference_log_softmax(logits, targets, as_in_paper=False):
    """The logarithm of Eq. 13 for each image and label; None where an image has no positive."""
    b, q = targets.shape
    table = [[None] * q for _ in range(b)]
    for i in range(b):
        row = logits[i].double()
        positives = [j for j in range(q) if targets[i, j] == 1]
        negatives = [j for j in range(q) if targets[i, j] != 1]
        denominator = {t: log_sum([row[j] for j in [t, *negatives]]) for t in positives}
        if not positives:
            continue
        for j in range(q):
            groups = [j] if j in positives and not as_in_paper else positives
            table[i][j] = log_sum([row[j] - denominator[t] for t in groups]) - math.log(len(groups))
    return table


def reference_softmax(logits, targets, *, as_in_paper=False):
    """Eq. 13."""
    zero = 0 * logits.double().sum()
    table = reference_log_softmax(logits, targets, as_in_paper)
    return torch.stack([torch.stack([zero if x is None else torch.exp(x) for x in row]) for row in table])


def reference_mbd(
    student_logits,
    teacher_logits,
    targets,
    *,
    temperature=4,
    omega=0.5,
    gamma_pos=0.25,
    gamma_neg=1,
    as_in_paper=False,
    reduction="sum",
):
    """Eqs. 14-16, summed over the images as in Eq. 17."""
    b, q = targets.shape
    student = reference_log_softmax(student_logits.double() / temperature, targets, as_in_paper)
    teacher = reference_log_softmax(teacher_logits.detach().double() / temperature, targets, as_in_paper)
    terms = []
    for i in range(b):
        for j in range(q):
            term = 0 * student_logits.double().sum()
            if student[i][j] is not None:
                p, q_ = math.exp(teacher[i][j].item()), math.exp(student[i][j].item())
                if targets[i, j] == 1:
                    weight = abs((1 - omega) + p * omega - q_) ** gamma_pos
                else:
                    weight = abs(p * omega - q_) ** gamma_neg
                term = term + temperature**2 * weight * p * (teacher[i][j] - student[i][j])
            terms.append(term)
    if reduction == "none":
        return torch.stack(terms).reshape(b, q)
    return sum(terms) / b if reduction == "batchmean" else sum(terms)


def distance(one, other):
    """The Euclidean distance of two rows; 0 without a gradient where they are equal."""
    if torch.equal(one, other):
        return 0 * one.sum()
    return torch.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)))


def relations(rows):
    """Eq. 3: all pairs of rows, divided by the mean of the distances above zero."""
    table = [[distance(one, other) for other in rows] for one in rows]
    above_zero = [entry for line in table for entry in line if entry > 0]
    mean = sum(above_zero) / len(above_zero) if above_zero else 1
    return [[entry / mean for entry in line] for line in table]


def huber(student, teacher):
    """The mean of the Huber terms of two square matrices."""
    n, total = len(student), 0
    for j in range(n):
        for k in range(n):
            difference = abs(student[j][k] - teacher[j][k])
            total = total + (difference**2 / 2 if difference <= 1 else difference - 1 / 2)
    return total / n**2


def reference_locality(roi_logits, crop_logits):
    """Eqs. 3 and 4."""
    r, o = roi_logits.double(), crop_logits.detach().double()
    b, patches, _ = r.shape
    total = 0 * r.sum()
    for i in range(b):
        total = total + huber(relations(list(r[i])), relations(list(o[i]))) / b
    average = [[sum(x[i][s] for s in range(patches)) / patches for i in range(b)] for x in (r, o)]
    return total + huber(relations(average[0]), relations(average[1]))


def reference_labels(crop_logits, logits, targets):
    """Eq. 5: one largest and one smallest entry after the other (without ties)."""
    b, patches, q = crop_logits.shape
    left = {
        (i, s, j): (crop_logits[i, s, j] - logits[i, j]).item()
        for i in range(b)
        for s in range(patches)
        for j in range(q)
    }
    labels = torch.zeros(b, patches, q, dtype=torch.float64)
    for _ in range(int((targets == 1).sum())):
        if len(left) < 2:
            break
        for choose, label in ((max, 1), (min, -1)):
            place = choose(left, key=left.get)
            labels[place] = label
            del left[place]
    return labels


def reference_propagation(crop_logits, labels, steps=2):
    """Eqs. 6 and 7."""
    o, u = crop_logits.detach().double(), labels.double()
    b, patches, q = o.shape
    table = [[[distance(one, other).item() for other in o[i]] for one in o[i]] for i in range(b)]
    largest = max(entry for image in table for line in image for entry in line) or 1.0
    result = u.clone()
    for i in range(b):
        a = [[table[i][j][k] / largest + (j == k) for k in range(patches)] for j in range(patches)]
        degree = [sum(line) for line in a]
        for _ in range(steps):
            new = torch.zeros(patches, q, dtype=torch.float64)
            for j in range(patches):
                for k in range(patches):
                    new[j] += degree[j] ** -0.5 * a[j][k] * degree[k] ** -0.5 * result[i, k]
            result[i] = new
    return result


def reference_reconstruction(logits, crop_logits, targets, *, steps=2, **options):
    """Eq. 8."""
    b, patches, q = crop_logits.shape
    e = reference_propagation(crop_logits, reference_labels(crop_logits, logits.detach(), targets), steps)
    teacher = torch.zeros(b, q, dtype=torch.float64)
    for i in range(b):
        for j in range(q):
            whole = sum(math.exp(e[i, s, j]) for s in range(patches))
            for s in range(patches):
                teacher[i, j] += math.exp(e[i, s, j]) / whole * crop_logits.detach()[i, s, j].double()
    return reference_mbd(logits, teacher, targets, **options)


# --- helpers --------------------------------------------------------------------------------------


def random_batch(b=5, q=6, patches=4, seed=0, density=0.4, scale=3.0):
    """Logits of the student and of a teacher, of patches by two ways, and targets."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, b, q, generator=generator, dtype=torch.float64)
    roi, crop = scale * torch.randn(2, b, patches, q, generator=generator, dtype=torch.float64)
    targets = (torch.rand(b, q, generator=generator) < density).to(torch.uint8)
    return student, teacher, roi, crop, targets


def edge_targets(b=5, q=6):
    """No positive, one, all, all but one; the last class never."""
    targets = torch.zeros(b, q, dtype=torch.uint8)
    targets[1, 2], targets[2], targets[3, :-1] = 1, 1, 1
    return targets


@st.composite
def batches(draw):
    b, q, patches = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(2, 4))
    density = draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    return random_batch(b, q, patches, draw(st.integers(0, 10**6)), density, draw(st.sampled_from([0.5, 5.0])))


# --- the reformulated softmax ---------------------------------------------------------------------
#
# e^q = 3, 1 | 1, 2, the first two positive. Group of the first: {3, 1, 2} over 6; of the second: {1, 1, 2} over 4.
#
#   default   3/6    1/4    (1/6 + 1/4)/2    (2/6 + 2/4)/2
#   print     (3/6 + 3/4)/2   (1/6 + 1/4)/2   the same two

HAND_LOGITS = torch.tensor([[3, 1, 1, 2]], dtype=torch.float64).log()
HAND_TARGETS = torch.tensor([[1, 1, 0, 0]])
HAND = torch.tensor([[1 / 2, 1 / 4, 5 / 24, 5 / 12]], dtype=torch.float64)
HAND_LITERAL = torch.tensor([[5 / 8, 5 / 24, 5 / 24, 5 / 12]], dtype=torch.float64)

both_softmax = pytest.mark.parametrize("softmax", [reformulated_softmax, reference_softmax], ids=["ours", "reference"])


@both_softmax
def test_softmax_by_hand(softmax):
    torch.testing.assert_close(softmax(HAND_LOGITS, HAND_TARGETS), HAND, rtol=1e-12, atol=0)
    torch.testing.assert_close(softmax(HAND_LOGITS, HAND_TARGETS, as_in_paper=True), HAND_LITERAL, rtol=1e-12, atol=0)


@both_softmax
def test_the_print_exceeds_one_and_the_default_does_not(softmax):
    logits, targets = torch.tensor([[5.0, -5.0, 0.0]], dtype=torch.float64), torch.tensor([[1, 1, 0]])
    printed = softmax(logits, targets, as_in_paper=True)
    assert printed[0, 0] > 70, "e^5 over the group of the other positive, 1 + e^-5"
    assert softmax(logits, targets).max() < 1


@PROPERTY
@given(batches())
def test_each_image_s_groups_are_distributions(batch):
    """The mean over an image's groups of their sums: the mean of the positives and the sum of the negatives."""
    student, *_, targets = batch
    probs, positive = reformulated_softmax(student, targets), targets == 1
    for i in range(len(probs)):
        if positive[i].any():
            total = probs[i][positive[i]].mean() + probs[i][~positive[i]].sum()
            assert total.item() == pytest.approx(1, rel=1e-12)
        else:
            assert (probs[i] == 0).all()


@both_softmax
@each_literal
def test_with_one_positive_it_is_the_softmax(softmax, as_in_paper):
    student = random_batch(6, 6)[0]
    probs = softmax(student, torch.eye(6, dtype=torch.uint8), as_in_paper=as_in_paper)
    torch.testing.assert_close(probs, student.softmax(dim=1), rtol=1e-12, atol=0)


@PROPERTY
@given(batches(), st.booleans())
def test_softmax_equals_the_reference(batch, as_in_paper):
    student, *_, targets = batch
    actual = value_and_gradient(reformulated_softmax, student, targets, as_in_paper=as_in_paper)
    assert_same(actual, value_and_gradient(reference_softmax, student, targets, as_in_paper=as_in_paper))


@each_literal
def test_softmax_of_edge_targets(as_in_paper):
    student, targets = random_batch()[0], edge_targets()
    actual = value_and_gradient(reformulated_softmax, student, targets, as_in_paper=as_in_paper)
    assert_same(actual, value_and_gradient(reference_softmax, student, targets, as_in_paper=as_in_paper))
    assert (actual[1][0] == 0).all(), "no positives"


@each_literal
def test_softmax_gradcheck_and_an_added_constant(as_in_paper):
    student, targets = random_batch()[0], edge_targets()
    assert torch.autograd.gradcheck(
        lambda x: reformulated_softmax(x, targets, as_in_paper=as_in_paper), student.clone().requires_grad_()
    )
    shifted = reformulated_softmax(student + 7, targets, as_in_paper=as_in_paper)
    torch.testing.assert_close(
        shifted, reformulated_softmax(student, targets, as_in_paper=as_in_paper), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_softmax_of_steep_logits(dtype):
    student, targets = steep_pairs()[0].to(dtype), steep_targets()
    actual = value_and_gradient(reformulated_softmax, student, targets)
    expected = value_and_gradient(reference_softmax, student.double(), targets)
    largest = expected[1].abs().max().item()  # the gradients of float32 are exact no further
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-6 * largest}
    assert_same(actual, expected, **tolerance)
    printed = reformulated_softmax(student, targets, as_in_paper=True)
    assert torch.isfinite(printed).all()
    assert printed.max() == pytest.approx(math.exp(20), rel=1e-6)


def steep_pairs():
    """Every pair of steep logits, as two columns beside two more; the second table is the first reversed."""
    one, other = torch.meshgrid(*[torch.tensor(STEEP, dtype=torch.float64)] * 2, indexing="ij")
    first = torch.stack([one.flatten(), other.flatten(), torch.zeros(81).double(), one.flatten().flip(0)], dim=1)
    return first, first.flip(0)


def steep_targets():
    patterns = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
    return patterns[torch.arange(81) % 5]


# --- MBD ------------------------------------------------------------------------------------------


def test_mbd_by_hand():
    # Temperature 1, the teacher HAND, the student e^q = 1, 1 | 1, 2: groups {1, 1, 2} twice, probabilities
    # 1/4, 1/4 | 1/4, 1/2. Omega 1/2, exponents 1:
    #   positives: |1/2 + 1/4 - 1/4| = 1/2,  |1/2 + 1/8 - 1/4| = 3/8;  p log(p/q): 1/2 log 2,  0
    #   negatives: |5/48 - 1/4| = 7/48,  |5/24 - 1/2| = 7/24;          5/24 log(5/6),  5/12 log(5/6)
    student = torch.tensor([[1, 1, 1, 2]], dtype=torch.float64).log()
    wanted = [math.log(2) / 4, 0, 7 / 48 * 5 / 24 * math.log(5 / 6), 7 / 24 * 5 / 12 * math.log(5 / 6)]
    settings = {"temperature": 1, "gamma_pos": 1, "gamma_neg": 1}
    for loss in (mbd, reference_mbd):
        actual = loss(student, HAND_LOGITS, HAND_TARGETS, **settings, reduction="none")
        torch.testing.assert_close(actual, torch.tensor([wanted]).double(), rtol=1e-6, atol=1e-15)
        assert loss(student, HAND_LOGITS, HAND_TARGETS, **settings).item() == pytest.approx(sum(wanted), rel=1e-12)
        # Temperature 2 with logits twice as large: the same probabilities, 2² times the loss.
        warm = loss(2 * student, 2 * HAND_LOGITS, HAND_TARGETS, **(settings | {"temperature": 2}))
        assert warm.item() == pytest.approx(4 * sum(wanted), rel=1e-12)


@PROPERTY
@given(batches(), st.booleans(), st.sampled_from(["sum", "batchmean", "none"]))
def test_mbd_equals_the_reference(batch, as_in_paper, reduction):
    student, teacher, *_, targets = batch
    options = {"as_in_paper": as_in_paper, "reduction": reduction}
    actual = value_and_gradient(mbd, student, teacher, targets, **options)
    assert_same(actual, value_and_gradient(reference_mbd, student, teacher, targets, **options))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 9.0, "omega": 0.2},
        {"omega": 1.0, "gamma_pos": 1.0, "gamma_neg": 3.0},
        {"gamma_pos": 0.0, "gamma_neg": 0.0, "as_in_paper": True},
    ],
)
@each_distil
def test_settings_reach_the_equation(loss, options):
    student, teacher, *_ = random_batch()
    targets = edge_targets()
    actual = value_and_gradient(loss, student, teacher, targets, **options)
    assert_same(actual, value_and_gradient(reference_mbd, student, teacher, targets, **options))
    assert actual[0] != loss(student, teacher, targets)


@each_distil
def test_the_defaults_are_the_paper_s(loss):
    student, teacher, *_, targets = random_batch()
    paper = {
        "temperature": 4,
        "omega": 0.5,
        "gamma_pos": 1 / 4,
        "gamma_neg": 1,
        "reduction": "sum",
        "as_in_paper": False,
    }
    assert loss(student, teacher, targets) == loss(student, teacher, targets, **paper)


@each_literal
def test_mbd_gradcheck(as_in_paper):
    """With both exponents 0; else the weights, which are constants to the gradient, would move under it."""
    student, teacher, *_ = random_batch()
    targets, options = edge_targets(), {"gamma_pos": 0, "gamma_neg": 0, "as_in_paper": as_in_paper, "temperature": 2}
    assert torch.autograd.gradcheck(lambda x: mbd(x, teacher, targets, **options), student.requires_grad_())


def test_equal_logits_cost_nothing_but_still_raise_the_positives():
    student, *_, targets = random_batch(density=0.3)
    value, gradient = value_and_gradient(mbd, student, student, targets, reduction="none")
    assert (value == 0).all()
    value, gradient = value_and_gradient(mbd, student, student, torch.eye(5, 6, dtype=torch.uint8))
    assert (gradient.diagonal() < 0).all(), "a step downhill raises the one positive of each image"


@each_literal
def test_images_without_positives_contribute_nothing(as_in_paper):
    student, teacher, *_ = random_batch()
    value, gradient = value_and_gradient(mbd, student, teacher, torch.zeros(5, 6), as_in_paper=as_in_paper)
    assert value == 0
    assert (gradient == 0).all()
    targets = edge_targets()
    some = value_and_gradient(mbd, student, teacher, targets, as_in_paper=as_in_paper)
    rest = value_and_gradient(mbd, student[1:], teacher[1:], targets[1:], as_in_paper=as_in_paper)
    assert_same(some, (rest[0], torch.cat([torch.zeros(1, 6), rest[1]])))


@each_literal
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mbd_of_steep_logits(as_in_paper, dtype):
    (student, teacher), targets = steep_pairs(), steep_targets()
    actual = value_and_gradient(mbd, student.to(dtype), teacher.to(dtype), targets, as_in_paper=as_in_paper)
    assert all(torch.isfinite(x).all() for x in actual)
    if not as_in_paper:
        expected = value_and_gradient(reference_mbd, student, teacher, targets)
        tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-6}
        assert_same(actual, expected, **tolerance)


@each_half
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(dtype, autocast):
    student, teacher, roi, crop, targets = random_batch()
    student, teacher, roi, crop = (x.to(dtype) for x in (student, teacher, roi, crop))
    calls = [
        (mbd, student, teacher, targets),
        (s_sd, student, teacher, targets),
        (r_sd, student, crop, targets),
        (l_sd, roi, crop),
    ]
    for loss, first, second, *rest in calls:
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            actual = value_and_gradient(loss, first, second, *rest)
        expected = value_and_gradient(loss, first.float(), second.float(), *rest)
        assert actual[0].dtype == torch.float32
        torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(actual[1].float(), expected[1], rtol=1e-2, atol=1e-3)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        labels = pseudo_labels(crop, student, targets)
        propagated = graph_propagation(crop, labels)
    assert labels.dtype == torch.float32
    assert torch.equal(labels, pseudo_labels(crop.float(), student.float(), targets))
    assert torch.equal(propagated, graph_propagation(crop.float(), labels))


def test_the_order_of_images_and_labels_does_not_matter():
    student, teacher, roi, crop, targets = random_batch()
    rows, columns, patches = torch.randperm(5), torch.randperm(6), torch.randperm(4)

    def shuffled(x):
        return x[rows][..., columns] if x.ndim == 2 else x[rows][:, patches][..., columns]

    for loss, *batch in [
        (mbd, student, teacher, targets),
        (r_sd, student, crop, targets),
        (l_sd, roi, crop),
    ]:
        value, gradient = value_and_gradient(loss, *batch)
        assert_same(value_and_gradient(loss, *map(shuffled, batch)), (value, shuffled(gradient)))


# --- L-SD -----------------------------------------------------------------------------------------


def test_locality_by_hand():
    # One image, three patches with one label. r at 0, 3, 7/2: distances 3, 7/2, 1/2, mean 7/3 -> 9/7, 3/2, 3/14;
    # o at 0, 1, 2: distances 1, 2, 1, mean 4/3 -> 3/4, 3/2, 3/4. Differences 15/28, 0, 15/28; each pair twice in
    # 9 entries. One image is no pair.
    roi = torch.tensor([0, 3, 7 / 2], dtype=torch.float64).view(1, 3, 1)
    crop = torch.tensor([0, 1, 2], dtype=torch.float64).view(1, 3, 1)
    between_patches = 2 * 2 * (15 / 28) ** 2 / 2 / 9
    for loss in (l_sd, reference_locality):
        assert loss(roi, crop).item() == pytest.approx(between_patches, rel=1e-12)
        # As three images with one patch each: the same matrix, now between images.
        assert loss(roi.view(3, 1, 1), crop.view(3, 1, 1)).item() == pytest.approx(between_patches, rel=1e-12)


@PROPERTY
@given(batches())
def test_locality_equals_the_reference(batch):
    _, _, roi, crop, _ = batch
    actual = value_and_gradient(l_sd, roi, crop)
    assert_same(actual, value_and_gradient(reference_locality, roi, crop))


def test_locality_gradcheck_and_limits():
    _, _, roi, crop, _ = random_batch(3, 4)
    assert torch.autograd.gradcheck(lambda x: l_sd(x, crop), roi.clone().requires_grad_())
    assert l_sd(crop, crop) == 0
    assert l_sd(2 * crop + 5, crop).item() == pytest.approx(0, abs=1e-12), "distances are over their mean"
    assert l_sd(roi, crop) > 0.01


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 2, 3), (1, 4, 3), (4, 1, 3)])
def test_locality_where_little_can_be_compared(shape):
    torch.manual_seed(0)
    roi, crop = torch.randn(2, *shape, dtype=torch.float64)
    actual = value_and_gradient(l_sd, roi, crop)
    assert_same(actual, value_and_gradient(reference_locality, roi, crop))
    if max(shape[:2]) == 2:
        assert actual[0] == pytest.approx(0, abs=1e-15)


def test_locality_of_equal_patches():
    _, _, roi, crop, _ = random_batch()
    roi[0], roi[1, 0], crop[2] = roi[0, :1], roi[1, 1], 0.0
    actual = value_and_gradient(l_sd, roi, crop)
    assert_same(actual, value_and_gradient(reference_locality, roi, crop))
    same = torch.ones(3, 4, 5, dtype=torch.float64)
    value, gradient = value_and_gradient(l_sd, same, same)
    assert value == 0
    assert (gradient == 0).all()


# --- R-SD -----------------------------------------------------------------------------------------


def test_pseudo_labels_by_hand():
    # Two images, two patches, two labels; differences to the whole image 5, -1 | 2, 0 and 3, -4 | -2, 1; two positives.
    crop = torch.tensor([[[6.0, 0.0], [3.0, 1.0]], [[3.0, -3.0], [-2.0, 2.0]]])
    logits = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    wanted = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, -1.0], [-1.0, 0.0]]])
    targets = torch.tensor([[1, 1], [0, 0]])
    assert torch.equal(pseudo_labels(crop, logits, targets), wanted)
    assert torch.equal(reference_labels(crop, logits, targets), wanted.double())


@PROPERTY
@given(batches())
def test_pseudo_labels_equal_the_reference(batch):
    student, _, _, crop, targets = batch
    labels = pseudo_labels(crop, student, targets)
    assert torch.equal(labels, reference_labels(crop, student, targets))
    assert (labels == 1).sum() == (labels == -1).sum() == targets.sum(), "two patches an image hold 2 beta entries"


def test_pseudo_labels_of_too_few_entries_and_of_ties():
    student, _, _, crop, _ = random_batch(3, 3, patches=1)
    labels = pseudo_labels(crop, student, torch.ones(3, 3))  # 9 entries, beta 9
    assert torch.equal(labels, reference_labels(crop, student, torch.ones(3, 3)))
    assert ((labels == 1).sum(), (labels == -1).sum(), (labels == 0).sum()) == (4, 4, 1)
    targets = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 0]])
    alike = pseudo_labels(student[:, None].expand(-1, 4, -1), student, targets)
    assert ((alike == 1).sum(), (alike == -1).sum()) == (3, 3)


@PROPERTY
@given(batches(), st.integers(0, 3))
def test_graph_propagation_equals_the_reference(batch, steps):
    student, _, _, crop, targets = batch
    labels = reference_labels(crop, student, targets)
    actual = graph_propagation(crop, labels, steps)
    torch.testing.assert_close(actual, reference_propagation(crop, labels, steps), rtol=1e-9, atol=1e-12)


def test_graph_propagation_by_hand():
    # Two images with two patches, distances 4 and 2: A is 1 and 1/2 off the diagonal, with self-loops the degrees
    # are 2 and 3/2. Image 0: all of D^-1/2 (A + I) D^-1/2 is 1/2. Image 1: 2/3 on the diagonal, 1/3 beside it.
    crop = torch.tensor([[[0.0], [4.0]], [[1.0], [3.0]]], dtype=torch.float64)
    labels = torch.tensor([[[1.0], [0.0]], [[1.0], [-1.0]]], dtype=torch.float64)
    for propagate in (graph_propagation, reference_propagation):
        once, twice = propagate(crop, labels, 1), propagate(crop, labels)
        torch.testing.assert_close(once.flatten(), torch.tensor([1 / 2, 1 / 2, 1 / 3, -1 / 3]).double())
        torch.testing.assert_close(twice.flatten(), torch.tensor([1 / 2, 1 / 2, 1 / 9, -1 / 9]).double())


def test_patches_that_say_the_same_keep_their_labels():
    labels = torch.randn(2, 4, 3)
    torch.testing.assert_close(graph_propagation(torch.ones(2, 4, 3), labels), labels)


@PROPERTY
@given(batches(), st.integers(0, 3), st.sampled_from(["sum", "batchmean", "none"]))
def test_reconstruction_equals_the_reference(batch, steps, reduction):
    student, _, _, crop, targets = batch
    options = {"steps": steps, "reduction": reduction}
    actual = value_and_gradient(r_sd, student, crop, targets, **options)
    assert_same(actual, value_and_gradient(reference_reconstruction, student, crop, targets, **options))


def test_reconstruction_of_settings_edges_and_equal_patches():
    student, _, _, crop, _ = random_batch()
    targets = edge_targets()
    options = {"temperature": 2.0, "omega": 0.3, "gamma_pos": 0.5, "gamma_neg": 2.0, "as_in_paper": True}
    actual = value_and_gradient(r_sd, student, crop, targets, **options)
    assert_same(actual, value_and_gradient(reference_reconstruction, student, crop, targets, **options))
    # Whatever the weights are, equal patches are put together to what each of them is.
    alike = value_and_gradient(r_sd, student, crop[:, :1].expand(-1, 4, -1), targets)
    assert_same(alike, value_and_gradient(mbd, student, crop[:, 0], targets))
    for empty in value_and_gradient(r_sd, student, crop, torch.zeros(5, 6)):
        assert (empty == 0).all()


@pytest.mark.parametrize("scale", [1e4, 0.0])
def test_steep_or_equal_patches_stay_finite(scale):
    student, _, roi, crop, targets = (x.float() if x.is_floating_point() else x for x in random_batch())
    for loss, *batch in [
        (r_sd, scale * student.sign(), scale * crop.sign(), targets),
        (l_sd, scale * roi.sign(), scale * crop.sign()),
    ]:
        assert all(torch.isfinite(x).all() for x in value_and_gradient(loss, *batch))


# --- manners --------------------------------------------------------------------------------------


def test_only_the_student_gets_a_gradient():
    student, teacher, roi, crop, targets = random_batch()
    for loss, mine, its, *rest in [
        (mbd, student, teacher, targets),
        (s_sd, student, teacher, targets),
        (r_sd, student, crop, targets),
        (l_sd, roi, crop),
    ]:
        mine, its = mine.clone().requires_grad_(), its.clone().requires_grad_()
        before = mine.detach().clone(), its.detach().clone()
        loss(mine, its, *rest).backward()
        assert mine.grad.abs().sum() > 0
        assert its.grad is None
        assert torch.equal(mine, before[0])
        assert torch.equal(its, before[1])
        with torch.no_grad():
            assert not loss(mine, its, *rest).requires_grad
        assert torch.is_grad_enabled()
    crop.requires_grad_()
    labels = pseudo_labels(crop, student.requires_grad_(), targets)
    assert not labels.requires_grad
    assert not graph_propagation(crop, labels).requires_grad


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_targets_of_any_type(dtype):
    student, teacher, _, crop, targets = random_batch()
    assert mbd(student, teacher, targets.to(dtype)) == mbd(student, teacher, targets)
    assert r_sd(student, crop, targets.to(dtype)) == r_sd(student, crop, targets)


@pytest.mark.parametrize("shape", [(5, 5), (4, 6), (5,), (5, 6, 1)])
def test_shapes_that_do_not_fit(shape):
    student, teacher, roi, crop, targets = random_batch()
    wrong, found = torch.zeros(shape), re.escape(str(tuple(shape)))
    for name, call in [
        ("targets", lambda: reformulated_softmax(student, wrong)),
        ("teacher_logits", lambda: mbd(student, wrong, targets)),
        ("targets", lambda: mbd(student, teacher, wrong)),
        ("previous_logits", lambda: s_sd(student, wrong, targets)),
        ("targets", lambda: s_sd(student, teacher, wrong)),
        ("logits", lambda: pseudo_labels(crop, wrong, targets)),
        ("targets", lambda: pseudo_labels(crop, student, wrong)),
        ("logits", lambda: r_sd(wrong, crop, targets)),
        ("crop_logits", lambda: l_sd(roi, wrong)),
        ("labels", lambda: graph_propagation(crop, wrong)),
    ]:
        with pytest.raises(ValueError, match=f"`{name}` has shape {found}"):
            call()


def test_other_mistakes():
    student, teacher, _, crop, targets = random_batch()
    for call in (lambda: l_sd(student, teacher), lambda: pseudo_labels(student, student, targets)):
        with pytest.raises(ValueError, match=r"has shape \(5, 6\); expected \(b, S, q\)"):
            call()
    with pytest.raises(ValueError, match="`steps` is -1, expected a whole number, 0 or more"):
        graph_propagation(crop, crop, -1)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"`temperature` is .* above 0"):
            mbd(student, teacher, targets, temperature=temperature)
    for name in ("gamma_pos", "gamma_neg"):
        with pytest.raises(ValueError, match=rf"`{name}` is -1\.0, expected a number, 0 or more"):
            mbd(student, teacher, targets, **{name: -1.0})
    with pytest.raises(ValueError, match=r"`reduction` is 'summ'.*Did you mean 'sum'"):
        s_sd(student, teacher, targets, reduction="summ")
