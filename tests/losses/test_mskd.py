"""The losses of MSKD (Eqs 3-9, 13-16) against plain loops, and its crops.

The references are written from the equations, as interpreted in the functions' docstrings. Constants to the gradient
(the teacher's side, MBD's weights) are detached here too, and nothing else is.
"""

import math
import re

import pytest
import torch
from compare import (
    PROPERTY,
    REDUCTIONS,
    STEEP,
    assert_equals_reference,
    assert_same,
    huber,
    reduced,
    value_and_gradient,
    zero,
)
from hypothesis import given
from hypothesis import strategies as st

from mlkd.losses.mskd import (
    combine_crops,
    corner_boxes,
    graph_propagation,
    l_sd,
    mbd,
    pseudo_labels,
    random_boxes,
    reformulated_softmax,
    roi_crop,
)

each_definition = pytest.mark.parametrize("as_in_paper", [False, True])


# References: loops over images, crops and labels, one scalar tensor at a time


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
    table = reference_log_softmax(logits, targets, as_in_paper)
    return reduced([[zero(logits) if x is None else torch.exp(x) for x in row] for row in table], "none")


def reference_mbd(
    student_logits,
    teacher_logits,
    targets,
    *,
    temperature=4,
    omega=0.5,
    gamma_pos=0.25,
    gamma_neg=1,
    detach_weights=True,
    as_in_paper=False,
    reduction="sum",
):
    """Eqs. 14-16, summed over the images as in Eq. 17."""
    b, q = targets.shape
    student = reference_log_softmax(student_logits.double() / temperature, targets, as_in_paper)
    teacher = reference_log_softmax(teacher_logits.detach().double() / temperature, targets, as_in_paper)

    def term(i, j):
        if student[i][j] is None:
            return zero(student_logits)
        p = math.exp(teacher[i][j].item())
        q_ = math.exp(student[i][j].item()) if detach_weights else student[i][j].exp()
        if targets[i, j] == 1:
            weight = abs((1 - omega) + p * omega - q_) ** gamma_pos
        else:
            weight = abs(p * omega - q_) ** gamma_neg
        return temperature**2 * weight * p * (teacher[i][j] - student[i][j])

    return reduced([[term(i, j) for j in range(q)] for i in range(b)], reduction)


def distance(first, second):
    """The Euclidean distance of two rows; 0 without a gradient where they are equal."""
    if torch.equal(first, second):
        return 0 * first.sum()
    return torch.sqrt(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)))


def relations(rows):
    """Eq. 3: all pairs of rows, divided by the mean of the distances above zero."""
    table = [[distance(first, second) for second in rows] for first in rows]
    above_zero = [entry for line in table for entry in line if entry > 0]
    mean = sum(above_zero) / len(above_zero) if above_zero else 1
    return [[entry / mean for entry in line] for line in table]


def mean_huber(student, teacher):
    """The mean of the Huber terms of two square matrices."""
    n = len(student)
    return sum(huber(student[j][k], teacher[j][k]) for j in range(n) for k in range(n)) / n**2


def reference_l_sd(roi_logits, crop_logits):
    """Eqs. 3 and 4."""
    r, o = roi_logits.double(), crop_logits.detach().double()
    b, num_crops, _ = r.shape
    total = 0 * r.sum()
    for i in range(b):
        total = total + mean_huber(relations(list(r[i])), relations(list(o[i]))) / b
    average = [[sum(x[i][s] for s in range(num_crops)) / num_crops for i in range(b)] for x in (r, o)]
    return total + mean_huber(relations(average[0]), relations(average[1]))


def reference_labels(crop_logits, logits, targets):
    """Eq. 5: one largest and one smallest entry after the other (without ties)."""
    b, num_crops, q = crop_logits.shape
    left = {
        (i, s, j): (crop_logits[i, s, j] - logits[i, j]).item()
        for i in range(b)
        for s in range(num_crops)
        for j in range(q)
    }
    labels = torch.zeros(b, num_crops, q, dtype=torch.float64)
    for _ in range(int((targets == 1).sum())):
        if len(left) < 2:
            break
        for choose, label in ((max, 1), (min, -1)):
            entry = choose(left, key=left.get)
            labels[entry] = label
            del left[entry]
    return labels


def reference_propagation(crop_logits, labels, steps=2):
    """Eqs. 6 and 7."""
    o, u = crop_logits.detach().double(), labels.double()
    b, num_crops, q = o.shape
    table = [[[distance(first, second).item() for second in o[i]] for first in o[i]] for i in range(b)]
    largest = max(entry for image in table for line in image for entry in line) or 1.0
    result = u.clone()
    for i in range(b):
        a = [[table[i][j][k] / largest + (j == k) for k in range(num_crops)] for j in range(num_crops)]
        degree = [sum(line) for line in a]
        for _ in range(steps):
            new = torch.zeros(num_crops, q, dtype=torch.float64)
            for j in range(num_crops):
                for k in range(num_crops):
                    new[j] += degree[j] ** -0.5 * a[j][k] * degree[k] ** -0.5 * result[i, k]
            result[i] = new
    return result


def r_sd(logits, crop_logits, targets, *, steps=2, **options):
    """Eq. 8."""
    return mbd(logits, combine_crops(crop_logits, logits, targets, steps), targets, **options)


def reference_r_sd(logits, crop_logits, targets, *, steps=2, **options):
    """Eq. 8."""
    b, num_crops, q = crop_logits.shape
    e = reference_propagation(crop_logits, reference_labels(crop_logits, logits.detach(), targets), steps)
    teacher = torch.zeros(b, q, dtype=torch.float64)
    for i in range(b):
        for j in range(q):
            total = sum(math.exp(e[i, s, j]) for s in range(num_crops))
            for s in range(num_crops):
                teacher[i, j] += math.exp(e[i, s, j]) / total * crop_logits.detach()[i, s, j].double()
    return reference_mbd(logits, teacher, targets, **options)


# Helpers


def random_batch(b=5, q=6, num_crops=4, seed=0, density=0.4, scale=3.0):
    """Logits of the student and of a teacher, of crops of feature map and image, and targets."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, b, q, generator=generator, dtype=torch.float64)
    roi, crop = scale * torch.randn(2, b, num_crops, q, generator=generator, dtype=torch.float64)
    targets = (torch.rand(b, q, generator=generator) < density).to(torch.uint8)
    return student, teacher, roi, crop, targets


def edge_targets(b=5, q=6):
    """No positive, one, all, all but one; the last class never."""
    targets = torch.zeros(b, q, dtype=torch.uint8)
    targets[1, 2], targets[2], targets[3, :-1] = 1, 1, 1
    return targets


@st.composite
def batches(draw):
    b, q, num_crops = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(2, 4))
    density = draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    return random_batch(b, q, num_crops, draw(st.integers(0, 10**6)), density, draw(st.sampled_from([0.5, 5.0])))


# The reformulated softmax
#
# e^q = 3, 1 | 1, 2, the first two positive. Group of the first: {3, 1, 2} over 6; of the second: {1, 1, 2} over 4.
#
#   default   3/6    1/4    (1/6 + 1/4)/2    (2/6 + 2/4)/2
#   paper     (3/6 + 3/4)/2   (1/6 + 1/4)/2   the same two

HAND_LOGITS = torch.tensor([[3, 1, 1, 2]], dtype=torch.float64).log()
HAND_TARGETS = torch.tensor([[1, 1, 0, 0]])
HAND = torch.tensor([[1 / 2, 1 / 4, 5 / 24, 5 / 12]], dtype=torch.float64)
HAND_AS_IN_PAPER = torch.tensor([[5 / 8, 5 / 24, 5 / 24, 5 / 12]], dtype=torch.float64)

both_softmax = pytest.mark.parametrize("softmax", [reformulated_softmax, reference_softmax], ids=["loss", "reference"])


@both_softmax
def test_softmax_by_hand(softmax):
    torch.testing.assert_close(softmax(HAND_LOGITS, HAND_TARGETS), HAND, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        softmax(HAND_LOGITS, HAND_TARGETS, as_in_paper=True), HAND_AS_IN_PAPER, rtol=1e-12, atol=0
    )


@both_softmax
def test_the_papers_probabilities_exceed_one_and_the_default_ones_do_not(softmax):
    logits, targets = torch.tensor([[5.0, -5.0, 0.0]], dtype=torch.float64), torch.tensor([[1, 1, 0]])
    assert softmax(logits, targets, as_in_paper=True)[0, 0] > 70, "e^5 over the group of the other positive, 1 + e^-5"
    assert softmax(logits, targets).max() < 1


@PROPERTY
@given(batches())
def test_groups_of_each_image_are_distributions(batch):
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
@each_definition
def test_with_one_positive_it_is_the_softmax(softmax, as_in_paper):
    student = random_batch(6, 6)[0]
    probs = softmax(student, torch.eye(6, dtype=torch.uint8), as_in_paper=as_in_paper)
    torch.testing.assert_close(probs, student.softmax(dim=1), rtol=1e-12, atol=0)


@PROPERTY
@given(batches(), st.booleans())
def test_softmax_equals_the_reference(batch, as_in_paper):
    student, *_, targets = batch
    assert_equals_reference(reformulated_softmax, reference_softmax, student, targets, as_in_paper=as_in_paper)


@each_definition
def test_softmax_of_edge_targets_and_of_a_shifted_image(as_in_paper):
    student, targets = random_batch()[0], edge_targets()
    settings = {"as_in_paper": as_in_paper}
    actual = assert_equals_reference(reformulated_softmax, reference_softmax, student, targets, **settings)
    assert (actual[1][0] == 0).all(), "no positives"
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
    as_in_paper = reformulated_softmax(student, targets, as_in_paper=True)
    assert torch.isfinite(as_in_paper).all()
    assert as_in_paper.max() == pytest.approx(math.exp(20), rel=1e-6)


def steep_pairs():
    """Every pair of steep logits, as two columns beside two more; the second table is the first reversed."""
    rows, columns = torch.meshgrid(*[torch.tensor(STEEP, dtype=torch.float64)] * 2, indexing="ij")
    logits = torch.stack([rows.flatten(), columns.flatten(), torch.zeros(81), rows.flatten().flip(0)], dim=1)
    return logits, logits.flip(0)


def steep_targets():
    patterns = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
    return patterns[torch.arange(81) % 5]


# MBD


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
@given(batches(), st.booleans(), st.sampled_from(REDUCTIONS))
def test_mbd_equals_the_reference(batch, as_in_paper, reduction):
    student, teacher, *_, targets = batch
    options = {"as_in_paper": as_in_paper, "reduction": reduction}
    assert_equals_reference(mbd, reference_mbd, student, teacher, targets, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 9.0, "omega": 0.2},
        {"omega": 1.0, "gamma_pos": 1.0, "gamma_neg": 3.0},
        {"gamma_pos": 0.0, "gamma_neg": 0.0, "as_in_paper": True},
        {"detach_weights": False, "gamma_pos": 1.5, "gamma_neg": 2.0},
    ],
)
def test_mbd_with_other_settings_equals_the_reference(options):
    student, teacher, *_ = random_batch()
    targets = edge_targets()
    actual = assert_equals_reference(mbd, reference_mbd, student, teacher, targets, **options)
    assert actual[0] != mbd(student, teacher, targets)


def test_defaults_are_the_papers():
    student, teacher, *_, targets = random_batch()
    paper = {
        "temperature": 4,
        "omega": 0.5,
        "gamma_pos": 1 / 4,
        "gamma_neg": 1,
        "reduction": "sum",
        "detach_weights": True,
        "as_in_paper": False,
    }
    assert mbd(student, teacher, targets) == mbd(student, teacher, targets, **paper)


def test_equal_logits_give_zero_and_still_increase_the_positives():
    student, *_, targets = random_batch(density=0.3)
    value, gradient = value_and_gradient(mbd, student, student, targets, reduction="none")
    assert (value == 0).all()
    value, gradient = value_and_gradient(mbd, student, student, torch.eye(5, 6, dtype=torch.uint8))
    assert (gradient.diagonal() < 0).all(), "a gradient step increases the positive of each image"


@each_definition
def test_images_without_positives_contribute_nothing(as_in_paper):
    student, teacher, *_ = random_batch()
    value, gradient = value_and_gradient(mbd, student, teacher, torch.zeros(5, 6), as_in_paper=as_in_paper)
    assert value == 0
    assert (gradient == 0).all()
    targets = edge_targets()
    some = value_and_gradient(mbd, student, teacher, targets, as_in_paper=as_in_paper)
    rest = value_and_gradient(mbd, student[1:], teacher[1:], targets[1:], as_in_paper=as_in_paper)
    assert_same(some, (rest[0], torch.cat([torch.zeros(1, 6), rest[1]])))


@each_definition
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mbd_of_steep_logits(as_in_paper, dtype):
    (student, teacher), targets = steep_pairs(), steep_targets()
    actual = value_and_gradient(mbd, student.to(dtype), teacher.to(dtype), targets, as_in_paper=as_in_paper)
    assert all(torch.isfinite(x).all() for x in actual)
    if not as_in_paper:
        expected = value_and_gradient(reference_mbd, student, teacher, targets)
        tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-6}
        assert_same(actual, expected, **tolerance)


def test_pseudo_labels_of_half_precision_are_those_of_float32():
    student, _, _, crop, targets = (x.half() if x.is_floating_point() else x for x in random_batch())
    labels = pseudo_labels(crop, student, targets)
    assert labels.dtype == torch.float32
    assert torch.equal(labels, pseudo_labels(crop.float(), student.float(), targets))
    assert torch.equal(graph_propagation(crop, labels), graph_propagation(crop.float(), labels))


# L-SD


def test_l_sd_by_hand():
    # One image, three crops with one label. r at 0, 3, 7/2: distances 3, 7/2, 1/2, mean 7/3 -> 9/7, 3/2, 3/14;
    # o at 0, 1, 2: distances 1, 2, 1, mean 4/3 -> 3/4, 3/2, 3/4. Differences 15/28, 0, 15/28; each pair twice in
    # 9 entries. One image has no pairs.
    roi = torch.tensor([0, 3, 7 / 2], dtype=torch.float64).view(1, 3, 1)
    crop = torch.tensor([0, 1, 2], dtype=torch.float64).view(1, 3, 1)
    between_crops = 2 * 2 * (15 / 28) ** 2 / 2 / 9
    for loss in (l_sd, reference_l_sd):
        assert loss(roi, crop).item() == pytest.approx(between_crops, rel=1e-12)
        # As three images with one crop each: the same matrix, now between images.
        assert loss(roi.view(3, 1, 1), crop.view(3, 1, 1)).item() == pytest.approx(between_crops, rel=1e-12)


@PROPERTY
@given(batches())
def test_l_sd_equals_the_reference(batch):
    _, _, roi, crop, _ = batch
    assert_equals_reference(l_sd, reference_l_sd, roi, crop)


def test_l_sd_does_not_depend_on_scale_and_shift():
    _, _, roi, crop, _ = random_batch(3, 4)
    assert l_sd(2 * crop + 5, crop).item() == pytest.approx(0, abs=1e-12), "distances are divided by their mean"
    assert l_sd(roi, crop) > 0.01


def test_l_sd_of_few_or_equal_crops():
    for b, num_crops in [(1, 1), (2, 2), (1, 4), (4, 1)]:
        _, _, roi, crop, _ = random_batch(b, 3, num_crops)
        actual = assert_equals_reference(l_sd, reference_l_sd, roi, crop)
        if max(b, num_crops) == 2:
            assert actual[0] == pytest.approx(0, abs=1e-15)
    _, _, roi, crop, _ = random_batch()
    roi[0], roi[1, 0], crop[2] = roi[0, :1], roi[1, 1], 0.0
    assert_equals_reference(l_sd, reference_l_sd, roi, crop)
    same = torch.ones(3, 4, 5, dtype=torch.float64)
    value, gradient = value_and_gradient(l_sd, same, same)
    assert value == 0
    assert (gradient == 0).all()


# R-SD


def test_pseudo_labels_by_hand():
    # Two images, two crops, two labels; differences to the full image 5, -1 | 2, 0 and 3, -4 | -2, 1; two positives.
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
    assert (labels == 1).sum() == (labels == -1).sum() == targets.sum(), "two crops per image have 2 beta entries"


def test_pseudo_labels_of_too_few_entries_and_of_ties():
    student, _, _, crop, _ = random_batch(3, 3, num_crops=1)
    labels = pseudo_labels(crop, student, torch.ones(3, 3))  # 9 entries, beta 9
    assert torch.equal(labels, reference_labels(crop, student, torch.ones(3, 3)))
    assert ((labels == 1).sum(), (labels == -1).sum(), (labels == 0).sum()) == (4, 4, 1)
    targets = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 0]])
    labels = pseudo_labels(student[:, None].expand(-1, 4, -1), student, targets)
    assert ((labels == 1).sum(), (labels == -1).sum()) == (3, 3)


@PROPERTY
@given(batches(), st.integers(0, 3))
def test_graph_propagation_equals_the_reference(batch, steps):
    student, _, _, crop, targets = batch
    labels = reference_labels(crop, student, targets)
    actual = graph_propagation(crop, labels, steps)
    torch.testing.assert_close(actual, reference_propagation(crop, labels, steps), rtol=1e-9, atol=1e-12)


def test_graph_propagation_by_hand():
    # Two images with two crops, distances 4 and 2: A is 1 and 1/2 off the diagonal, with self-loops the degrees
    # are 2 and 3/2. Image 0: all of D^-1/2 (A + I) D^-1/2 is 1/2. Image 1: 2/3 on the diagonal, 1/3 beside it.
    crop = torch.tensor([[[0.0], [4.0]], [[1.0], [3.0]]], dtype=torch.float64)
    labels = torch.tensor([[[1.0], [0.0]], [[1.0], [-1.0]]], dtype=torch.float64)
    for propagate in (graph_propagation, reference_propagation):
        once, twice = propagate(crop, labels, 1), propagate(crop, labels)
        torch.testing.assert_close(once.flatten(), torch.tensor([1 / 2, 1 / 2, 1 / 3, -1 / 3]).double())
        torch.testing.assert_close(twice.flatten(), torch.tensor([1 / 2, 1 / 2, 1 / 9, -1 / 9]).double())


def test_crops_with_equal_logits_keep_their_labels():
    labels = torch.randn(2, 4, 3)
    torch.testing.assert_close(graph_propagation(torch.ones(2, 4, 3), labels), labels)


@PROPERTY
@given(batches(), st.integers(0, 3), st.sampled_from(REDUCTIONS))
def test_r_sd_equals_the_reference(batch, steps, reduction):
    student, _, _, crop, targets = batch
    assert_equals_reference(r_sd, reference_r_sd, student, crop, targets, steps=steps, reduction=reduction)


def test_r_sd_with_other_settings_and_equal_crops():
    student, _, _, crop, _ = random_batch()
    targets = edge_targets()
    options = {"temperature": 2.0, "omega": 0.3, "gamma_pos": 0.5, "gamma_neg": 2.0, "as_in_paper": True}
    assert_equals_reference(r_sd, reference_r_sd, student, crop, targets, **options)
    # Equal crops are combined to the logits of each of them, for all weights.
    equal = value_and_gradient(r_sd, student, crop[:, :1].expand(-1, 4, -1), targets)
    assert_same(equal, value_and_gradient(mbd, student, crop[:, 0], targets))
    for empty in value_and_gradient(r_sd, student, crop, torch.zeros(5, 6)):
        assert (empty == 0).all()


# Crops


def test_random_boxes_have_the_official_codes_sizes():
    torch.manual_seed(0)
    boxes = random_boxes(2000, 3)
    assert boxes.shape == (2000, 3, 4)
    assert boxes.min() >= 0
    assert boxes.max() <= 1 + 1e-6
    sides = boxes[..., 2:] - boxes[..., :2]
    area, ratio = sides.prod(dim=-1), sides[..., 0] / sides[..., 1]
    for values, low, high in [(area, 0.2, 0.3), (ratio, 2 / 5, 5 / 3)]:
        assert low - 1e-5 <= values.min() < low * 1.01  # the full range is used
        assert high * 0.99 < values.max() <= high + 1e-5
    position = boxes[..., :2] / (1 - sides)  # as a fraction of the free space
    assert position.flatten(0, 1).mean(dim=0).tolist() == pytest.approx([0.5, 0.5], abs=0.02)


def test_random_boxes_follow_torchs_generator():
    boxes = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        boxes.append(random_boxes(3, 4))
    assert torch.equal(boxes[0], boxes[1])
    assert not torch.equal(boxes[0], boxes[2])


def test_corner_boxes_are_the_quarters():
    quarters = [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    assert corner_boxes(2).tolist() == [quarters, quarters]


def test_roi_crop_of_a_ramp():
    """Channels with each pixel's x and y: a crop shows where it was taken."""
    y, x = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(12) + 0.5, indexing="ij")
    maps = torch.stack([torch.stack([x, y]), torch.stack([x, y]) + 100])
    boxes = torch.tensor([[[0.25, 0.25, 0.75, 0.5], [0.5, 0.125, 0.75, 0.625]]]).expand(2, -1, -1)
    crops = roi_crop(maps, boxes)
    assert crops.shape == (4, 2, 8, 12)
    for row, (left, top, right, bottom) in enumerate([(3, 2, 9, 4), (6, 1, 9, 5)]):
        columns = left + (right - left) * (torch.arange(12) + 0.5) / 12
        rows = top + (bottom - top) * (torch.arange(8) + 0.5) / 8
        for image in (0, 1):
            crop = crops[2 * image + row] - 100 * image
            torch.testing.assert_close(crop[0], columns.expand(8, 12), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(crop[1], rows[:, None].expand(8, 12), rtol=1e-5, atol=1e-5)


def test_roi_crop_is_differentiable():
    maps = torch.rand(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: roi_crop(x, corner_boxes(1)), maps)


# Errors


def test_shapes_that_do_not_fit_are_named():
    student, teacher, roi, crop, targets = random_batch()
    for shape in [(5, 5), (4, 6), (5,), (5, 6, 1)]:
        wrong = torch.zeros(shape)
        for name, call in [
            ("logits", lambda x: pseudo_labels(crop, x, targets)),
            ("targets", lambda x: pseudo_labels(crop, student, x)),
            ("logits", lambda x: r_sd(x, crop, targets)),
            ("crop_logits", lambda x: l_sd(roi, x)),
            ("labels", lambda x: graph_propagation(crop, x)),
        ]:
            with pytest.raises(ValueError, match=f"`{name}` has shape {re.escape(str(shape))}"):
                call(wrong)
    for call in (lambda: l_sd(student, teacher), lambda: pseudo_labels(student, student, targets)):
        with pytest.raises(ValueError, match=r"has shape \(5, 6\); expected \(b, S, q\)"):
            call()


def test_invalid_settings_are_named():
    student, teacher, _, crop, targets = random_batch()
    with pytest.raises(ValueError, match="`steps` is -1, expected a whole number of at least 0"):
        graph_propagation(crop, crop, -1)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"`temperature` is .* above 0"):
            mbd(student, teacher, targets, temperature=temperature)
    for name in ("gamma_pos", "gamma_neg"):
        with pytest.raises(ValueError, match=rf"`{name}` is -1\.0, expected a number, 0 or more"):
            mbd(student, teacher, targets, **{name: -1.0})
