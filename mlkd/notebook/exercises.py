"""The exercises at the end of each notebook: a check tells right from wrong and does not give the answer away.

Each `check_...` takes what was answered, None for nothing yet, and what the notebook has at hand, and returns a
`Verdict`. Solutions are in `notebooks/solutions/`.
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
    """`right` is None where nothing was answered; `text` is what the notebook shows."""

    right: bool | None
    text: str

    def __repr__(self) -> str:
        return self.text


def _judge(answer: Any, is_right: Callable[[Any], Any], hint: str) -> Verdict:
    """An answer that cannot be compared, such as a word for a number, is a wrong one."""
    if answer is None:
        return Verdict(None, "Not answered yet.")
    try:
        right = bool(is_right(answer))
    except (TypeError, ValueError, IndexError):
        right = False
    return Verdict(right, "Right." if right else f"Not yet. {hint}")


def _numbers(answer: Any, expected: Any, hint: str, tolerance: float = 0.005) -> Verdict:
    """Numbers that are right to two digits behind the point."""

    def near(found: Any) -> Any:
        values = np.asarray(found, np.float64)
        return values.shape == np.shape(expected) and np.all(np.abs(values - expected) <= tolerance)

    return _judge(answer, near, hint)


def _name(answer: Any, expected: Sequence[str], hint: str) -> Verdict:
    """One name; of equally good ones any."""
    return _judge(answer, lambda found: found in expected, hint)


# 00_start_here


def check_probability(answer: Any) -> Verdict:
    """The probability of a label with the logit 2."""
    return _numbers(answer, 1 / (1 + np.exp(-2)), "A probability lies between 0 and 1; a logit of 0 gives one half.")


def check_predicted(answer: Any, probabilities: np.ndarray, threshold: float) -> Verdict:
    """How many of the probabilities, (q,), reach the threshold."""
    return _numbers(answer, (probabilities >= threshold).sum(), "Count the labels that reach it, there or not.")


# 01_data_and_labels


def check_always_no(answer: Any, targets: np.ndarray) -> Verdict:
    """The share of right answers of a network that says no to every label; targets (N, q)."""
    return _numbers(answer, 1 - targets.mean(), "Of all the zeros and ones in `targets`, a no is right for the zeros.")


def check_rare_labels(answer: Any, targets: np.ndarray, classes: Sequence[str], share: float = 0.05) -> Verdict:
    """The names of the labels that less than that share of the pictures have; targets (N, q)."""
    rare = {name for name, found in zip(classes, targets.mean(axis=0), strict=True) if found < share}
    hint = "Compare the mean of each column of `targets`; names, all of them and no other."
    return _judge(answer, lambda found: not isinstance(found, str) and set(found) == rare, hint)


# 02_label_graphs


def check_conditional(answer: Any, targets: np.ndarray) -> Verdict:
    """Of the pictures with the second most frequent label, the share that has the most frequent one too."""
    e, n = cooccurrence(targets)
    first, second = np.argsort(-n, kind="stable")[:2]
    return _numbers(answer, e[first, second] / n[second], "Which of the two counts stands below the line?")


def check_lopsided(answer: Any, targets: np.ndarray, classes: Sequence[str]) -> Verdict:
    """Two names (k, l) with P(l | k) at least twice P(k | l), and both not 0; there are many."""
    together = conditional_probability(*cooccurrence(targets))

    def lopsided(found: Any) -> Any:
        k, other = (list(classes).index(name) for name in found)
        return together[k, other] >= 2 * together[other, k] > 0

    return _judge(answer, lopsided, "Two names in a tuple; the rarer one first, and they must meet in some picture.")


# 03_teacher


def check_average_precision(answer: Any) -> Verdict:
    """AP of three pictures, from the highest score down: with the label, without, with."""
    return _numbers(answer, (1 / 1 + 2 / 3) / 2, "At each picture with the label: how many so far, of how many seen?")


def check_above_chance(answer: Any, targets: np.ndarray, logits: np.ndarray, classes: Sequence[str]) -> Verdict:
    """The class whose AP is farthest above its share of the pictures, which is what chance gives; both (N, q)."""
    lead = average_precision(targets, logits) - targets.mean(axis=0)
    best = [name for name, one in zip(classes, lead, strict=True) if one >= np.nanmax(lead) - 1e-9]
    return _name(answer, best, "A frequent class has a high AP by chance already: take that away first.")


# 04_logits_distillation


def check_fooled_softmax(answer: Any, teacher_logits: Sequence[float]) -> Verdict:
    """Logits that softmax distillation cannot tell from the teacher's, though every label is predicted at 50 %."""

    def fooled(found: Any) -> Any:
        values = np.asarray(found, np.float64)
        same = np.allclose(softmax(values), softmax(np.asarray(teacher_logits)), atol=1e-6)
        return values.shape == np.shape(teacher_logits) and same and (values >= 0).all()

    return _judge(answer, fooled, "Softmax knows only differences of logits; a label is predicted from logit 0 on.")


def check_divergence(answer: Any) -> Verdict:
    """The divergence of one label: the teacher says 50 %, the student 80 %."""
    expected = 0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2)
    return _numbers(answer, expected, "Two terms, one for yes and one for no, each weighed by the teacher's.")


# 05_l2d


def check_mld_gradient(answer: Any) -> Verdict:
    """The gradient of MLD to the student's logit 0, where the teacher says 90 %."""
    return _numbers(answer, 0.5 - 0.9, "Compare the two probabilities; the step goes against the gradient.")


def check_two_labels(answer: Any, targets: np.ndarray) -> Verdict:
    """The share of pictures with two labels: they have a distance, but ID says nothing of them; targets (N, q)."""
    return _numbers(answer, (targets.sum(axis=1) == 2).mean(), "Exactly two, as a fraction of all pictures.")


# 06_mdkd


def check_chains(answer: Any, q: int) -> Verdict:
    """How many chains of three different labels there are among q, a chain and its reverse being one."""
    return _numbers(answer, perm(q, 3) / 2, "The first of q, the next of one less; and each was counted twice.")


def check_chain_dependency(answer: Any) -> Verdict:
    """The third-order dependency along the probabilities 0.9, 0.1, 0.8."""
    return _numbers(answer, (0.8**2 + 0.7**2) / 2, "Two steps: square each difference, then take the mean.")


# 07_cpsd


def check_free_of_loss(answer: Any, clip: float = 0.05) -> Verdict:
    """The largest probability of an absent label that costs nothing under the asymmetric loss."""
    return _numbers(answer, clip, "Where is the margin's maximum 0? The loss's docstring has its default.", 0.0005)


def check_between_teachers(answer: Any) -> Verdict:
    """The student's logit with the smallest distillation loss, where the teachers say 3 and -1."""
    return _numbers(answer, 1.0, "Two squared distances: where are they smallest together?")


# 08_mskd


def check_silent_crops(answer: Any) -> Verdict:
    """The weight of each of four crops for a label that got no pseudo label anywhere in the picture."""
    return _numbers(answer, 0.25, "A softmax over four equal values.")


def check_reformulated(answer: Any) -> Verdict:
    """The reformulated softmax of a positive label of logit 1, beside a positive of logit 3 and a negative of 0."""
    return _numbers(answer, np.e / (np.e + 1), "The other positive label is no rival: leave it out below the line.")


# 09_cam


def check_map_score(answer: Any) -> Verdict:
    """Hit, energy and area of the map [[0, 3], [1, 0]] and a box over the upper right pixel."""
    expected = tuple(score_map(np.array([[0.0, 3.0], [1.0, 0.0]]), np.array([[0.5, 0.0, 1.0, 0.5]])))
    return _numbers(answer, expected, "Three numbers from 0 to 1; the energy is a part of the map's sum.")


def check_farthest_map(answer: Any, teacher_maps: np.ndarray, student_maps: np.ndarray) -> Verdict:
    """The place of the picture whose maps differ most; both (b, H, W)."""
    gaps = np.abs(teacher_maps - student_maps).mean(axis=(1, 2))
    hint = "One mean for each picture, over its pixels; the place of the largest, counted from 0."
    return _judge(answer, lambda found: gaps[int(found)] >= gaps.max() - 1e-9 and 0 <= int(found) == found, hint)


# 10_correlation


def check_half_correlation(answer: Any) -> Verdict:
    """The mean difference of the correlations where a student gives half of the teacher's probabilities."""
    its = np.array([[0.8, 0.3], [0.2, 0.4], [0.6, 0.1]])
    expected = np.abs(label_correlations(its / 2) - label_correlations(its)).mean()
    return _numbers(answer, expected, "Does Pearson's correlation change when one side is multiplied by a number?")


def check_half_dependency(answer: Any) -> Verdict:
    """How far the dependency of two labels is from the teacher's, 80 % and 20 %, at half of its probabilities."""
    return _numbers(answer, (0.8 - 0.2) ** 2 - (0.4 - 0.1) ** 2, "A squared difference for each of the two.")


def check_farthest_pair(answer: Any, matrix: np.ndarray, classes: Sequence[str]) -> Verdict:
    """The two names with the largest value in the matrix (q, q), in any order."""

    def farthest(found: Any) -> Any:
        k, other = (list(classes).index(name) for name in found)
        return matrix[k, other] >= np.nanmax(matrix) - 1e-9

    return _judge(answer, farthest, "Two names in a tuple; look for the largest value, and beware of nan.")


# 11_area_recall


def check_recall(answer: Any, targets: np.ndarray, probabilities: np.ndarray, threshold: float) -> Verdict:
    """Of all labels that are there, the share that is predicted at the threshold; both (N, q)."""
    found = probabilities[targets == 1] >= threshold
    return _numbers(answer, found.mean(), "Below the line stand all labels that are there, in all pictures.")


def check_precision(answer: Any, targets: np.ndarray, probabilities: np.ndarray, threshold: float) -> Verdict:
    """Of all labels that are predicted at the threshold, the share that is there; both (N, q), 0 for none."""
    predicted = probabilities >= threshold
    expected = (targets[predicted] == 1).mean() if predicted.any() else 0.0
    return _numbers(answer, expected, "Below the line stand all labels that are predicted, right or wrong.")


# 12_retrieval


def check_ndcg(answer: Any) -> Verdict:
    """nDCG@3 where the pictures found share 0, 2 and 1 labels with the query and no other shares any."""
    discount = 1 / np.log2([2, 3, 4])
    expected = np.dot([0, 2, 1], discount) / np.dot([2, 1, 0], discount)
    return _numbers(answer, expected, "The best order is 2, 1, 0; the first place is divided by log2(2).")


def check_blind_match(answer: Any, targets: np.ndarray, row: int) -> Verdict:
    """The share of the other pictures that have a label of picture `row`; targets (N, q)."""
    shared = targets[:, targets[row] == 1].max(axis=1, initial=0)
    expected = (shared.sum() - shared[row]) / (len(targets) - 1)
    return _numbers(answer, expected, "The picture itself is left out, above and below the line.", 1e-4)


# 13_benchmark


def check_oracle_predictions(answer: Any, targets: np.ndarray) -> Verdict:
    """How many labels oracle_k predicts in all pictures together; targets (N, q)."""
    return _numbers(answer, int(targets.sum()), "How many does it predict for one picture, and where is that from?")


def check_two_cf1(answer: Any) -> Verdict:
    """CF1 and CF1_macro of two classes with precision 1 and 0.2, recall 0.2 and 1."""
    hint = "Two numbers: the mean of each first and then F1, or F1 of each first and then the mean."
    return _numbers(answer, (0.6, 1 / 3), hint)


# 14_context


def check_reliance(answer: Any) -> Verdict:
    """The reliance where 90 % become 60 % without the companion, and 80 % with as much grey elsewhere."""
    return _numbers(answer, 0.2, "What does the grey do by itself? Only what goes beyond it counts.")


def check_companion(answer: Any, targets: np.ndarray, classes: Sequence[str]) -> Verdict:
    """The usual companion of the rarest label that occurs; of equally good ones any; targets (N, q)."""
    e, n = cooccurrence(targets)
    rarest = int(np.where(n > 0, n, n.max() + 1).argmin())
    best = [name for name, count in zip(classes, e[rarest], strict=True) if count == e[rarest].max()]
    return _name(answer, best, "First the label with the fewest pictures, then who stands with it most often.")
