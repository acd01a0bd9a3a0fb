"""Checks for the exercises at the end of each notebook. A check says whether an answer is correct and gives a hint.

Each `check_...` takes the answer, None for no answer yet, and the notebook's data that the answer depends on, and
returns a `Verdict`. The solutions are in `notebooks/solutions/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import perm
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from mlkd.analysis.correlation import label_correlations
from mlkd.analysis.localization import score_map
from mlkd.graphs import conditional_probability, cooccurrence
from mlkd.metrics import average_precision


class Verdict(NamedTuple):
    """The result of a check: `correct` is None without an answer; `text` is what the notebook shows."""

    correct: bool | None
    text: str

    def __repr__(self) -> str:
        return self.text


def _check(answer: Any, is_correct: Callable[[Any], Any], hint: str) -> Verdict:
    """Checks an answer; one of the wrong type, such as a string for a number, is incorrect."""
    if answer is None:
        return Verdict(None, "Not answered yet.")
    try:
        correct = bool(is_correct(answer))
    except (TypeError, ValueError, IndexError):
        correct = False
    return Verdict(correct, "Correct." if correct else f"Not yet. {hint}")


def _check_numbers(answer: Any, expected: Any, hint: str, tolerance: float = 0.005) -> Verdict:
    """Checks numbers up to a tolerance: by default, two decimal places."""

    def is_close(answer: Any) -> Any:
        values = np.asarray(answer, np.float64)
        return values.shape == np.shape(expected) and np.all(np.abs(values - expected) <= tolerance)

    return _check(answer, is_close, hint)


# 00_start_here


def check_probability(answer: Any) -> Verdict:
    """The probability of a label with logit 2."""
    return _check_numbers(answer, 1 / (1 + np.exp(-2)), "A probability is between 0 and 1; logit 0 gives 0.5.")


def check_num_predicted(answer: Any, probabilities: np.ndarray, threshold: float) -> Verdict:
    """The number of labels, (q,), with a probability of at least the threshold."""
    hint = "Count the labels whose probability reaches the threshold, present or absent."
    return _check_numbers(answer, (probabilities >= threshold).sum(), hint)


# 01_data_and_labels


def check_all_absent(answer: Any, targets: np.ndarray) -> Verdict:
    """The accuracy of a network that predicts every label absent; targets (N, q)."""
    return _check_numbers(answer, 1 - targets.mean(), "Such a network is correct for every 0 in `targets`.")


def check_rare_labels(answer: Any, targets: np.ndarray, classes: Sequence[str], fraction: float = 0.05) -> Verdict:
    """The names of the labels present in less than that fraction of the images; targets (N, q)."""
    rare = {name for name, frequency in zip(classes, targets.mean(axis=0), strict=True) if frequency < fraction}
    hint = "Compare the mean of each column of `targets`; give all such names and no others."
    return _check(answer, lambda answer: not isinstance(answer, str) and set(answer) == rare, hint)


# 02_label_graphs


def check_conditional_probability(answer: Any, targets: np.ndarray) -> Verdict:
    """The fraction of the images with the second most frequent label that also have the most frequent one."""
    e, n = cooccurrence(targets)
    first, second = np.argsort(-n, kind="stable")[:2]
    return _check_numbers(answer, e[first, second] / n[second], "Which of the two counts is the denominator?")


def check_asymmetric_pair(answer: Any, targets: np.ndarray, classes: Sequence[str]) -> Verdict:
    """Two names (k, l) with P(l | k) at least twice P(k | l), and both greater than 0; there are many."""
    probabilities = conditional_probability(*cooccurrence(targets))

    def is_asymmetric(answer: Any) -> Any:
        k, m = (list(classes).index(name) for name in answer)
        return probabilities[k, m] >= 2 * probabilities[m, k] > 0

    return _check(answer, is_asymmetric, "A tuple of two names, the rarer label first; they must co-occur.")


# 03_teacher


def check_average_precision(answer: Any) -> Verdict:
    """AP of three images in descending order of their scores: label present, absent, present."""
    hint = "At each image with the label: the fraction of images with the label up to there."
    return _check_numbers(answer, (1 / 1 + 2 / 3) / 2, hint)


def check_above_random(answer: Any, targets: np.ndarray, logits: np.ndarray, classes: Sequence[str]) -> Verdict:
    """The class whose AP exceeds its frequency, the AP of random scores, by most; both (N, q)."""
    gain = average_precision(targets, logits) - targets.mean(axis=0)
    best = [name for name, class_gain in zip(classes, gain, strict=True) if class_gain >= np.nanmax(gain) - 1e-9]
    hint = "Random scores give a frequent class a high AP: subtract its frequency first."
    return _check(answer, lambda answer: answer in best, hint)


# 04_logits_distillation


def check_softmax_invariance(answer: Any, teacher_logits: Sequence[float]) -> Verdict:
    """Logits with the same softmax as the teacher's, but with a probability of at least 0.5 for every label."""

    def is_equivalent(answer: Any) -> Any:
        values = np.asarray(answer, np.float64)
        same = np.allclose(softmax(values), softmax(np.asarray(teacher_logits)), atol=1e-6)
        return values.shape == np.shape(teacher_logits) and same and (values >= 0).all()

    hint = "Softmax depends on the differences of logits only; a label is predicted from logit 0 on."
    return _check(answer, is_equivalent, hint)


def check_kl_divergence(answer: Any) -> Verdict:
    """The KL divergence of one label: teacher probability 0.5, student probability 0.8."""
    expected = 0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2)
    hint = "Two terms, one for present and one for absent, each weighted by the teacher's probability."
    return _check_numbers(answer, expected, hint)


# 05_l2d


def check_mld_gradient(answer: Any) -> Verdict:
    """The gradient of MLD with respect to the student's logit 0, where the teacher's probability is 0.9."""
    hint = "Compare the two probabilities; a step goes against the gradient."
    return _check_numbers(answer, 0.5 - 0.9, hint)


def check_two_label_images(answer: Any, targets: np.ndarray) -> Verdict:
    """The fraction of images with two labels, whose single distance carries no information for ID; targets (N, q)."""
    return _check_numbers(answer, (targets.sum(axis=1) == 2).mean(), "Exactly two, as a fraction of all images.")


# 06_mdkd


def check_num_chains(answer: Any, q: int) -> Verdict:
    """The number of chains of three different labels out of q, where a chain equals its reverse."""
    hint = "q choices for the first label, one fewer for each next one; and each chain was counted twice."
    return _check_numbers(answer, perm(q, 3) / 2, hint)


def check_chain_dependency(answer: Any) -> Verdict:
    """The third-order dependency along the probabilities 0.9, 0.1, 0.8."""
    return _check_numbers(answer, (0.8**2 + 0.7**2) / 2, "Two steps: square each difference, then take the mean.")


# 07_cpsd


def check_probability_margin(answer: Any, clip: float = 0.05) -> Verdict:
    """The largest probability of an absent label with zero asymmetric loss."""
    hint = "Where does the maximum in the margin become 0? The docstring of the loss gives the default."
    return _check_numbers(answer, clip, hint, 0.0005)


def check_two_teachers(answer: Any) -> Verdict:
    """The student's logit with the smallest distillation loss, where the teachers' logits are 3 and -1."""
    return _check_numbers(answer, 1.0, "Where is the sum of the two squared distances smallest?")


# 08_mskd


def check_uniform_crop_weights(answer: Any) -> Verdict:
    """The weight of each of four crops for a label without a pseudo label in any crop."""
    return _check_numbers(answer, 0.25, "A softmax over four equal values.")


def check_reformulated_softmax(answer: Any) -> Verdict:
    """The reformulated softmax of a positive label with logit 1, next to a positive of 3 and a negative of 0."""
    return _check_numbers(answer, np.e / (np.e + 1), "The denominator does not contain the other positive label.")


# 09_cam


def check_localization_scores(answer: Any) -> Verdict:
    """Hit, energy and area of the map [[0, 3], [1, 0]] and a box over the upper right pixel."""
    expected = tuple(score_map(np.array([[0.0, 3.0], [1.0, 0.0]]), np.array([[0.5, 0.0, 1.0, 0.5]])))
    return _check_numbers(answer, expected, "Three numbers from 0 to 1; the energy is a fraction of the map's sum.")


def check_largest_map_difference(answer: Any, teacher_maps: np.ndarray, student_maps: np.ndarray) -> Verdict:
    """The position of the image whose maps differ most on average; both (b, H, W)."""
    differences = np.abs(teacher_maps - student_maps).mean(axis=(1, 2))

    def is_largest(answer: Any) -> Any:
        return differences[int(answer)] >= differences.max() - 1e-9 and 0 <= int(answer) == answer

    return _check(answer, is_largest, "One mean per image, over its pixels; the position of the largest, from 0.")


# 10_correlation


def check_scaled_correlation(answer: Any) -> Verdict:
    """The mean difference of the correlations where a student predicts half of the teacher's probabilities."""
    teacher_probs = np.array([[0.8, 0.3], [0.2, 0.4], [0.6, 0.1]])
    expected = np.abs(label_correlations(teacher_probs / 2) - label_correlations(teacher_probs)).mean()
    return _check_numbers(answer, expected, "Does Pearson's correlation change when one variable is scaled?")


def check_scaled_dependency(answer: Any) -> Verdict:
    """The difference of the dependencies of two labels: teacher 0.8 and 0.2, student half of that."""
    return _check_numbers(answer, (0.8 - 0.2) ** 2 - (0.4 - 0.1) ** 2, "Subtract the two squared differences.")


def check_largest_pair_difference(answer: Any, matrix: np.ndarray, classes: Sequence[str]) -> Verdict:
    """The two names with the largest value in the matrix (q, q), in any order."""

    def is_largest(answer: Any) -> Any:
        k, m = (list(classes).index(name) for name in answer)
        return matrix[k, m] >= np.nanmax(matrix) - 1e-9

    return _check(answer, is_largest, "A tuple of two names; find the largest value and ignore nan.")


# 11_area_recall


def check_recall(answer: Any, targets: np.ndarray, probabilities: np.ndarray, threshold: float) -> Verdict:
    """The fraction of the present labels that are predicted at the threshold; both (N, q)."""
    expected = (probabilities[targets == 1] >= threshold).mean()
    return _check_numbers(answer, expected, "The denominator counts all present labels of all images.")


def check_precision(answer: Any, targets: np.ndarray, probabilities: np.ndarray, threshold: float) -> Verdict:
    """The fraction of the labels predicted at the threshold that are present; both (N, q). 0 if none is predicted."""
    predicted = probabilities >= threshold
    expected = (targets[predicted] == 1).mean() if predicted.any() else 0.0
    return _check_numbers(answer, expected, "The denominator counts all predicted labels, correct or not.")


# 12_retrieval


def check_ndcg(answer: Any) -> Verdict:
    """nDCG@3 where the retrieved images share 0, 2 and 1 labels with the query and no other image shares any."""
    discount = 1 / np.log2([2, 3, 4])
    expected = np.dot([0, 2, 1], discount) / np.dot([2, 1, 0], discount)
    return _check_numbers(answer, expected, "The ideal order is 2, 1, 0; rank 1 is divided by log2(2).")


def check_random_match(answer: Any, targets: np.ndarray, index: int) -> Verdict:
    """The fraction of the other images that share a label with the image at `index`; targets (N, q)."""
    shared = targets[:, targets[index] == 1].max(axis=1, initial=0)
    expected = (shared.sum() - shared[index]) / (len(targets) - 1)
    return _check_numbers(answer, expected, "Leave out the image itself in numerator and denominator.", 1e-4)


# 13_benchmark


def check_oracle_predictions(answer: Any, targets: np.ndarray) -> Verdict:
    """The number of labels that the protocol oracle_k predicts in all images together; targets (N, q)."""
    hint = "How many labels does it predict for one image, and how is that number chosen?"
    return _check_numbers(answer, int(targets.sum()), hint)


def check_two_cf1(answer: Any) -> Verdict:
    """CF1 and CF1_macro of two classes with precision 1 and 0.2, recall 0.2 and 1."""
    hint = "Two numbers: F1 of the mean precision and mean recall, and the mean of the per-class F1."
    return _check_numbers(answer, (0.6, 1 / 3), hint)


# 14_context


def check_reliance(answer: Any) -> Verdict:
    """The reliance: 0.9 drops to 0.6 with the co-occurring object masked, and to 0.8 with a control region masked."""
    hint = "What is the effect of masking alone? Only the difference to it counts."
    return _check_numbers(answer, 0.2, hint)


def check_top_cooccurring_label(answer: Any, targets: np.ndarray, classes: Sequence[str]) -> Verdict:
    """The label that co-occurs most often with the rarest label present in `targets`, (N, q); any in case of a tie."""
    e, n = cooccurrence(targets)
    rarest = int(np.where(n > 0, n, n.max() + 1).argmin())
    best = [name for name, count in zip(classes, e[rarest], strict=True) if count == e[rarest].max()]
    hint = "First find the label with the fewest images, then the label that co-occurs with it most often."
    return _check(answer, lambda answer: answer in best, hint)
