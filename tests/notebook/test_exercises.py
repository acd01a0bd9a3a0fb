"""Each check accepts correct answers, rejects wrong ones and reports a missing one."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from mlkd.notebook import exercises

TARGETS = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 1]])  # cat in all, dog in two, ant in one
CLASSES = ("cat", "dog", "ant")
LOGITS = np.array([[3.0, 2, -2], [2, 1, -1], [1, 3, -3], [0, -1, 1]])
PROBABILITIES = np.array([[0.9, 0.2, 0.4], [0.8, 0.6, 0.1], [0.2, 0.9, 0.1], [0.7, 0.1, 0.1]])
MAPS = np.zeros((2, 2, 2))
FARTHER = np.array([[[0, 0], [0, 0.1]], [[0, 1], [0, 0]]])
MATRIX = np.array([[0, 0.1, np.nan], [0.1, 0, 0.4], [np.nan, 0.4, 0]])

# name -> further arguments, correct answers, wrong answers
CASES = {
    "check_probability": ((), [0.881, 1 / (1 + np.exp(-2))], [2, 0.5, 88, "two"]),
    "check_num_predicted": ((np.array([0.9, 0.5, 0.1]), 0.5), [2, np.int64(2)], [1, 3]),
    "check_all_absent": ((TARGETS,), [5 / 12], [7 / 12, 5]),
    "check_rare_labels": ((TARGETS, CLASSES, 0.6), [{"dog", "ant"}, ["ant", "dog"]], [{"ant"}, set(CLASSES), "ant", 2]),
    "check_conditional_probability": ((TARGETS,), [1.0], [0.5, 2]),
    "check_asymmetric_pair": (
        (TARGETS, CLASSES),
        [("dog", "cat"), ("ant", "cat")],
        [("cat", "dog"), ("dog", "ant"), "ant"],
    ),
    "check_average_precision": ((), [5 / 6, 0.83], [0.5, 2 / 3]),
    "check_above_random": ((TARGETS, LOGITS, CLASSES), ["ant"], ["cat", "dog", 2]),
    "check_softmax_invariance": (([4, 3, -3],), [[8, 7, 1], np.array([7.0, 6, 0])], [[4, 3, -3], [8, 8, 8], [8, 7], 3]),
    "check_kl_divergence": ((), [0.223, 0.22314], [0.193, -0.223]),
    "check_mld_gradient": ((), [-0.4], [0.4, 0.9]),
    "check_two_label_images": ((TARGETS,), [0.75], [3, 0.25]),
    "check_num_chains": ((20,), [3420], [6840, 1140]),
    "check_chain_dependency": ((), [0.565], [1.13, 0.75, 0.25]),
    "check_probability_margin": ((), [0.05], [0, 0.5, 0.06]),
    "check_two_teachers": ((), [1], [2, 3, -1]),
    "check_uniform_crop_weights": ((), [0.25], [0, 1]),
    "check_reformulated_softmax": ((), [0.731], [0.114, 0.269]),
    "check_localization_scores": ((), [(1, 0.75, 0.25)], [(1, 1, 0.25), (1, 0.75), 1]),
    "check_largest_map_difference": ((MAPS, FARTHER), [1], [0, 2, -1, 1.5]),
    "check_scaled_correlation": ((), [0], [0.5, 1]),
    "check_scaled_dependency": ((), [0.27], [0.36, 0.09, 0.18]),
    "check_largest_pair_difference": (
        (MATRIX, CLASSES),
        [("dog", "ant"), ("ant", "dog")],
        [("cat", "ant"), ("cat", "dog"), "dog"],
    ),
    "check_recall": ((TARGETS, PROBABILITIES, 0.5), [4 / 7], [4 / 5, 4]),
    "check_precision": ((TARGETS, PROBABILITIES, 0.5), [4 / 5], [4 / 7, 4]),
    "check_ndcg": ((), [0.67], [1, 0.5, 1.76]),
    "check_random_match": ((TARGETS[:, 1:], 0), [1 / 3], [2 / 4, 2 / 3]),
    "check_oracle_predictions": ((TARGETS,), [7], [12, 3]),
    "check_two_cf1": ((), [(0.6, 1 / 3)], [(1 / 3, 0.6), 0.6]),
    "check_reliance": ((), [0.2], [0.3, 0.1, -0.2]),
    "check_top_cooccurring_label": ((TARGETS, CLASSES), ["cat"], ["ant", "dog", 0]),
}
each_check = pytest.mark.parametrize("name", CASES)


def test_every_check_has_cases() -> None:
    checks = {name for name, _ in inspect.getmembers(exercises, inspect.isfunction) if name.startswith("check_")}
    assert checks == {*CASES}


@each_check
def test_missing_answer(name: str) -> None:
    verdict = getattr(exercises, name)(None, *CASES[name][0])
    assert verdict.correct is None
    assert repr(verdict) == "Not answered yet."


@each_check
def test_correct_answers(name: str) -> None:
    arguments, correct, _ = CASES[name]
    for answer in correct:
        assert getattr(exercises, name)(answer, *arguments) == (True, "Correct."), answer


@each_check
def test_wrong_answers_get_a_hint_without_the_solution(name: str) -> None:
    arguments, correct, wrong = CASES[name]
    for answer in wrong:
        verdict = getattr(exercises, name)(answer, *arguments)
        assert verdict.correct is False, answer
        assert verdict.text.startswith("Not yet. ")
        assert verdict.text.endswith((".", "?"))
        if isinstance(correct[0], float | str):
            assert str(correct[0]) not in verdict.text
