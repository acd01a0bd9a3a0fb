"""Metrics against their definitions in loops, against scikit-learn and torchmetrics, and by hand."""

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from mlkd.metrics import METRICS, PROTOCOLS, Scores, average_precision, binarize, evaluate, tune_thresholds

fixed = settings(derandomize=True, deadline=None, max_examples=150)


# The definitions, image by image and class by class.


def slow_average_precision(targets, scores, ignore_mask=None):
    result = []
    for k in range(len(targets[0])):
        counted = [i for i in range(len(targets)) if ignore_mask is None or not ignore_mask[i][k]]
        total = sum(int(targets[i][k]) for i in counted)
        area, recall = 0.0, 0.0
        for threshold in sorted({float(scores[i][k]) for i in counted}, reverse=True):
            predicted = [i for i in counted if scores[i][k] >= threshold]
            true = sum(int(targets[i][k]) for i in predicted)
            if total:
                area += (true / total - recall) * true / len(predicted)
                recall = true / total
        result.append(area if total else math.nan)
    return np.array(result)


def slow_threshold(targets, scores, ignore_mask):
    """The threshold with the best F1 among all scores of one class; the highest of equally good ones."""
    counted = [i for i in range(len(targets)) if not ignore_mask[i]]
    positives = {i for i in counted if targets[i]}
    best, best_f1 = 0.0, 0.0
    for threshold in sorted({float(scores[i]) for i in counted}, reverse=True):
        predicted = {i for i in counted if scores[i] >= threshold}
        f1 = 2 * len(predicted & positives) / (len(predicted) + len(positives))
        if f1 > best_f1:
            best, best_f1 = threshold, f1
    return best


def slow_predict(targets, scores, protocol, *, ignore_mask=None, validation=None):
    n, q = np.shape(scores)
    predicted = np.zeros((n, q), dtype=bool)
    name, _, argument = protocol.rstrip(")").partition("(")
    for i in range(n):
        counted = [k for k in range(q) if ignore_mask is None or not ignore_mask[i][k]]
        best_first = sorted(counted, key=lambda k: (-scores[i][k], k))
        for k in counted:
            if name == "threshold":
                predicted[i, k] = 1 / (1 + math.exp(-scores[i][k])) >= float(argument)
            elif name == "top_k":
                predicted[i, k] = k in best_first[: int(argument)]
            elif name == "oracle_k":
                predicted[i, k] = k in best_first[: sum(int(targets[i][c]) for c in counted)]
            else:
                hidden = validation[2] if len(validation) == 3 else np.zeros(np.shape(validation[0]), dtype=bool)
                columns = [[row[k] for row in table] for table in (validation[0], validation[1], hidden)]
                predicted[i, k] = scores[i][k] >= slow_threshold(*columns)
    return predicted


def harmonic(a, b):
    return 2 * a * b / (a + b) if a + b else 0.0


def slow_evaluate(
    targets, scores, protocol="threshold(0.5)", *, classes=None, ignore_mask=None, validation=None, bootstrap=0
):
    n, q = np.shape(scores)
    predicted = slow_predict(targets, scores, protocol, ignore_mask=ignore_mask, validation=validation)
    names = classes or [str(k) for k in range(q)]
    ap = slow_average_precision(targets, scores, ignore_mask)
    precision, recall, f1, classes_without_positives = [], [], [], []
    all_true = all_predicted = all_positive = 0
    for k in range(q):
        true = predictions = positives = 0
        for i in range(n):
            counts = ignore_mask is None or not ignore_mask[i][k]
            true += int(counts and targets[i][k] and predicted[i, k])
            predictions += int(counts and predicted[i, k])
            positives += int(counts and targets[i][k])
        all_true, all_predicted, all_positive = (
            all_true + true,
            all_predicted + predictions,
            all_positive + positives,
        )
        if positives == 0:
            classes_without_positives.append(names[k])
            continue
        precision.append(true / predictions if predictions else 0.0)
        recall.append(true / positives)
        f1.append(harmonic(precision[-1], recall[-1]))
    cp, cr = sum(precision) / len(precision), sum(recall) / len(recall)
    op, or_ = all_true / all_predicted if all_predicted else 0.0, all_true / all_positive
    kept = [k for k in range(q) if names[k] not in classes_without_positives]
    values = [ap[kept].mean(), cp, cr, harmonic(cp, cr), sum(f1) / len(f1), op, or_, harmonic(op, or_)]
    return Scores(
        dict(zip(METRICS, map(float, values), strict=True)),
        AP={names[k]: float(ap[k]) for k in kept},
        classes_without_positives=tuple(classes_without_positives),
        interval=None,
        protocol=protocol,
        n=n,
        q=q,
    )


both_ap = pytest.mark.parametrize("ap", [average_precision, slow_average_precision])
both_predict = pytest.mark.parametrize("binarize", [binarize, slow_predict])
both_evaluate = pytest.mark.parametrize("evaluate", [evaluate, slow_evaluate])


def make_scores(n=60, q=5, seed=0, decimals=None):
    """Targets with rare and frequent classes, and scores that correlate with them."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, q)) < np.linspace(0.1, 0.7, q)).astype(np.uint8)
    scores = rng.standard_normal((n, q)) + 1.5 * targets - 0.7
    return targets, scores if decimals is None else scores.round(decimals)


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name in METRICS:
        assert got[name] == pytest.approx(expected[name], abs=1e-12), name
    assert got["AP"] == pytest.approx(expected["AP"], abs=1e-12)
    assert [got[key] for key in ("classes_without_positives", "protocol", "n", "q")] == [
        expected[key] for key in ("classes_without_positives", "protocol", "n", "q")
    ]


# Average precision


@both_ap
@pytest.mark.parametrize(
    ("targets", "scores", "expected"),
    [
        ([1, 0, 1], [3, 2, 1], 1 / 2 * 1 / 1 + 1 / 2 * 2 / 3),
        ([1, 1, 0], [3, 2, 1], 1),
        ([0, 0, 1], [3, 2, 1], 1 / 3),
        (
            [1, 0, 1, 0],
            [2, 2, 1, 0],
            1 / 2 * 1 / 2 + 1 / 2 * 2 / 3,
        ),  # a positive and a negative tie at the top
        ([0, 1, 0, 1], [2, 2, 1, 0], 1 / 2 * 1 / 2 + 1 / 2 * 2 / 4),
        ([1, 0, 0, 1, 0], [7, 7, 7, 7, 7], 2 / 5),  # all tie: the fraction of positives
        ([1, 1, 1], [1, 3, 2], 1),  # all positive
        ([1, 0, 1], [0.0, -1.0, -0.0], 1),  # the two zeros are one score
        ([1], [-5], 1),
        ([0, 0], [1, 2], math.nan),  # no positive
    ],
)
def test_average_precision_by_hand(ap, targets, scores, expected):
    got = ap(np.array(targets)[:, None], np.array(scores, dtype=float)[:, None])
    assert got.shape == (1,)
    assert got.dtype == np.float64
    assert got[0] == pytest.approx(expected, abs=1e-15, nan_ok=True)


@both_ap
@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_average_precision_is_scikit_learns(ap, decimals):
    targets, scores = make_scores(decimals=decimals)
    expected = [average_precision_score(targets[:, k], scores[:, k]) for k in range(5)]
    np.testing.assert_allclose(ap(targets, scores), expected, rtol=1e-12)


@both_ap
def test_ignored_entries_leave_the_ranking(ap):
    targets, scores = make_scores(decimals=1)
    ignore_mask = np.random.default_rng(1).random(targets.shape) < 0.3
    got = ap(targets, scores, ignore_mask)
    for k in range(targets.shape[1]):
        kept = ~ignore_mask[:, k]
        assert got[k] == pytest.approx(average_precision_score(targets[kept, k], scores[kept, k]), abs=1e-12)


@both_ap
def test_average_precision_depends_on_the_order_within_a_class(ap):
    targets, scores = make_scores(decimals=1)
    expected = ap(targets, scores)
    np.testing.assert_allclose(ap(targets, np.tanh(scores / 4) * np.arange(1, 6) + np.arange(5)), expected)
    rows, columns = np.random.default_rng(2).permutation(60), [3, 0, 4, 1, 2]
    np.testing.assert_allclose(ap(targets[rows][:, columns], scores[rows][:, columns]), expected[columns])


# Predicted sets


@both_predict
@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("oracle_k", [[1, 1, 0], [0, 0, 0], [1, 1, 1]]),
        ("threshold(0.5)", [[1, 0, 0], [1, 1, 1], [1, 0, 0]]),
        ("threshold(0.8)", [[1, 0, 0], [0, 0, 0], [1, 0, 0]]),
        ("threshold(0.2)", [[1, 1, 1], [1, 1, 1], [1, 0, 0]]),
        ("top_k(1)", [[1, 0, 0], [1, 0, 0], [1, 0, 0]]),
        ("top_k(2)", [[1, 1, 0], [1, 1, 0], [1, 1, 0]]),
        ("top_k(3)", [[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
    ],
)
def test_predicted_sets_by_hand(binarize, protocol, expected):
    # log(0.8 / 0.2) = 1.386. Row 0 has two labels and a tie for the second place, row 1 none, row 2 all.
    targets = [[0, 1, 1], [0, 0, 0], [1, 1, 1]]
    scores = [[2.0, -1.0, -1.0], [0.0, 0.0, 0.0], [3.0, -3.0, -4.0]]
    got = binarize(np.array(targets), np.array(scores), protocol)
    assert got.dtype == bool
    assert got.tolist() == np.array(expected, dtype=bool).tolist()


@both_predict
@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("oracle_k", [[0, 1, 0, 0]]),  # one label is not ignored; the best score is
        ("threshold(0.5)", [[0, 1, 1, 0]]),
        ("top_k(2)", [[0, 1, 1, 0]]),
        ("top_k(4)", [[0, 1, 1, 0]]),  # only two entries count
    ],
)
def test_ignored_entries_are_never_predicted(binarize, protocol, expected):
    targets, ignore_mask = np.array([[0, 0, 1, 1]]), np.array([[True, False, False, True]])
    got = binarize(targets, np.array([[9.0, 2.0, 1.0, 8.0]]), protocol, ignore_mask=ignore_mask)
    assert got.tolist() == np.array(expected, dtype=bool).tolist()


def test_threshold_includes_its_own_score():
    logit = math.log(0.8 / (1 - 0.8))
    scores = np.array([[np.nextafter(logit, 0), logit, np.nextafter(logit, 2)]])
    assert binarize(np.ones((1, 3)), scores, "threshold(0.8)").tolist() == [[False, True, True]]


@pytest.mark.parametrize("p", [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
def test_threshold_is_not_rounded_to_float32(p):
    scores = np.array([[math.log(p / (1 - p))]], dtype=np.float32)
    expected = binarize(np.ones((1, 1)), scores.astype(np.float64), f"threshold({p})")
    assert binarize(np.ones((1, 1)), scores, f"threshold({p})") == expected


@pytest.mark.parametrize("protocol", ["oracle_k", "top_k(2)"])
def test_k_best_do_not_change_with_a_constant_per_image(protocol):
    targets, scores = make_scores()
    shifted = scores + np.linspace(-50, 50, len(scores))[:, None]
    assert np.array_equal(binarize(targets, scores, protocol), binarize(targets, shifted, protocol))


def test_oracle_k_predicts_as_many_labels_as_there_are():
    targets, scores = make_scores(decimals=0)
    predicted = binarize(targets, scores, "oracle_k")
    assert np.array_equal(predicted.sum(axis=1), targets.sum(axis=1))
    got = evaluate(targets, scores, "oracle_k", bootstrap=0)
    assert got["OP"] == got["OR"] == pytest.approx(got["OF1"])


def test_predictions_of_float32_scores_are_those_of_the_same_float64_scores():
    targets, scores = make_scores(2000)
    scores = scores.astype(np.float32)
    validation = make_scores(50, seed=3)[0], make_scores(50, seed=3)[1].astype(np.float32)
    for protocol in PROTOCOLS:
        single = binarize(targets, scores, protocol, validation=validation)
        assert np.array_equal(single, binarize(targets, scores.astype(float), protocol, validation=validation))


# Tuned thresholds


def test_tuned_thresholds_by_hand():
    targets = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
    scores = np.array([[4.0, 4.0, 4.0], [3.0, 3.0, 3.0], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    # Class 0: F1 is 2/3 from 4 on, 4/5 from 2 on. Class 1: 2/3 from 4 on, 1 from 3 on. Class 2: no positive.
    assert tune_thresholds(targets, scores).tolist() == [2.0, 3.0, 0.0]
    # F1 is 2/3 from 3 on and again from 0 on: the higher one.
    targets, scores = np.array([[1], [0], [0], [1]]), np.array([[3.0], [2.0], [1.0], [0.0]])
    assert tune_thresholds(targets, scores).tolist() == [3.0]
    assert tune_thresholds(targets, scores, np.array([[0], [1], [0], [0]], dtype=bool)).tolist() == [0.0]


@pytest.mark.parametrize("decimals", [None, 0])
def test_no_other_threshold_has_a_better_f1_where_it_was_tuned(decimals):
    targets, scores = make_scores(decimals=decimals)
    tuned = evaluate(targets, scores, "tuned", validation=(targets, scores), bootstrap=0)
    best = [
        max(
            precision_recall_fscore_support(targets[:, k], scores[:, k] >= t, average="binary")[2]
            for t in np.unique(scores[:, k])
        )
        for k in range(5)
    ]
    assert tuned["CF1_macro"] == pytest.approx(np.mean(best), abs=1e-12)


def test_tuned_uses_validation_only():
    targets, scores = make_scores()
    validation = make_scores(40, seed=1)
    expected = scores >= tune_thresholds(*validation)
    assert np.array_equal(binarize(targets, scores, "tuned", validation=validation), expected)
    assert np.array_equal(binarize(1 - targets, scores, "tuned", validation=validation), expected)
    assert not np.array_equal(binarize(targets, scores, "tuned", validation=(targets, scores)), expected)
    ignore_mask = np.random.default_rng(0).random(validation[0].shape) < 0.5
    fewer = binarize(targets, scores, "tuned", validation=(*validation, ignore_mask))
    assert np.array_equal(fewer, scores >= tune_thresholds(*validation, ignore_mask))


# Every metric


@both_evaluate
def test_every_metric_by_hand(evaluate):
    # dog: 3 predicted, 2 true, 2 positives. cat: 1 predicted, 1 true, 2 positives. bus: never predicted,
    # 1 positive. ship: 1 predicted, no positive, so only OP counts it.
    targets = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0]])
    scores = np.array([[2.0, -1.0, -3.0, 1.0], [1.0, -2.0, -4.0, -1.0], [3.0, 2.0, -5.0, -2.0]])
    got = evaluate(targets, scores, classes=["dog", "cat", "bus", "ship"], bootstrap=0)
    cp, cr = (2 / 3 + 1 / 1 + 0) / 3, (2 / 2 + 1 / 2 + 0) / 3
    op, or_ = 3 / 5, 3 / 5
    assert got["AP"] == pytest.approx({"dog": 1, "cat": 1 / 2 + 1 / 2 * 2 / 3, "bus": 1 / 3})
    assert [got[name] for name in METRICS] == pytest.approx(
        [
            (1 + 5 / 6 + 1 / 3) / 3,
            cp,
            cr,
            2 * cp * cr / (cp + cr),
            (4 / 5 + 2 / 3 + 0) / 3,
            op,
            or_,
            2 * op * or_ / (op + or_),
        ]
    )
    assert got["classes_without_positives"] == ("ship",)
    assert (got["protocol"], got["n"], got["q"], got["interval"]) == ("threshold(0.5)", 3, 4, None)


@both_evaluate
@pytest.mark.parametrize("protocol", ["oracle_k", "threshold(0.5)", "threshold(0.8)", "top_k(3)"])
def test_precision_recall_and_f1_are_scikit_learns(evaluate, protocol):
    targets, scores = make_scores(200, 8)
    got = evaluate(targets, scores, protocol, bootstrap=0)
    predicted = binarize(targets, scores, protocol)
    macro = precision_recall_fscore_support(targets, predicted, average="macro", zero_division=0)[:3]
    micro = precision_recall_fscore_support(targets, predicted, average="micro", zero_division=0)[:3]
    assert [got[name] for name in ("CP", "CR", "CF1_macro")] == pytest.approx(macro)
    assert [got[name] for name in ("OP", "OR", "OF1")] == pytest.approx(micro)
    assert got["mAP"] == pytest.approx(average_precision_score(targets, scores, average="macro"))


@both_evaluate
def test_map_and_f1_are_torchmetrics(evaluate):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of torch and torchmetrics
        torch = pytest.importorskip("torch")
        classification = pytest.importorskip("torchmetrics.classification")
        targets, scores = make_scores(200, 8, decimals=1)
        labels, probs = torch.tensor(targets.astype(int)), torch.tensor(scores, dtype=torch.float64).sigmoid()
        expected = {
            "mAP": classification.MultilabelAveragePrecision(8)(probs, labels).item(),
            "CF1_macro": classification.MultilabelF1Score(8, average="macro")(probs, labels).item(),
            "OF1": classification.MultilabelF1Score(8, average="micro")(probs, labels).item(),
        }
    scores[scores == 0] = -1e-9  # torchmetrics predicts above 0.5, `evaluate` from 0.5 on
    got = evaluate(targets, scores, bootstrap=0)
    assert {name: got[name] for name in expected} == pytest.approx(expected, abs=1e-6)


@st.composite
def problems(draw):
    n, q = draw(st.integers(1, 7)), draw(st.integers(1, 4))

    def table(values, rows=n):
        return draw(st.lists(st.lists(values, min_size=q, max_size=q), min_size=rows, max_size=rows))

    halves = st.integers(-6, 6).map(lambda value: value / 2)  # few values, so that many tie
    targets, scores = np.array(table(st.integers(0, 1))), np.array(table(halves))
    ignore_mask = np.array(table(st.sampled_from([False, False, True]))) if draw(st.booleans()) else None
    m = draw(st.integers(1, 7))
    validation = np.array(table(st.integers(0, 1), m)), np.array(table(halves, m))
    protocol = draw(
        st.sampled_from(["oracle_k", "threshold(0.5)", "threshold(0.8)", f"top_k({q})", "top_k(1)", "tuned"])
    )
    return targets, scores, protocol, ignore_mask, validation


@fixed
@given(problems())
def test_everything_agrees_with_the_definitions(problem):
    targets, scores, protocol, ignore_mask, validation = problem
    ap = slow_average_precision(targets, scores, ignore_mask)
    np.testing.assert_allclose(average_precision(targets, scores, ignore_mask), ap, rtol=1e-12)
    more = {"ignore_mask": ignore_mask, "validation": validation}
    expected = slow_predict(targets, scores, protocol, **more)
    assert np.array_equal(binarize(targets, scores, protocol, **more), expected)
    assume(not np.isnan(ap).all())
    expected = slow_evaluate(targets, scores, protocol, **more)
    assert_same(evaluate(targets, scores, protocol, bootstrap=0, **more), expected)


@both_evaluate
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_order_of_images_and_labels_changes_nothing(evaluate, protocol):
    targets, scores = make_scores()
    validation = make_scores(30, seed=1)
    classes = ["a", "b", "c", "d", "e"]
    expected = evaluate(targets, scores, protocol, classes=classes, validation=validation, bootstrap=0)
    rows, columns = np.random.default_rng(2).permutation(60), [3, 0, 4, 1, 2]
    got = evaluate(
        targets[rows][:, columns],
        scores[rows][:, columns],
        protocol,
        classes=[classes[k] for k in columns],
        validation=tuple(table[:, columns] for table in validation),
        bootstrap=0,
    )
    assert_same(got, expected)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_values_of_ignored_entries_do_not_matter(protocol):
    targets, scores = make_scores()
    ignore_mask = np.random.default_rng(1).random(targets.shape) < 0.3
    more = {"ignore_mask": ignore_mask, "validation": make_scores(30, seed=1), "bootstrap": 10}
    expected = evaluate(targets, scores, protocol, **more)
    other = evaluate(np.where(ignore_mask, 1 - targets, targets), np.where(ignore_mask, 1e4, scores), protocol, **more)
    assert other == expected
    assert expected != evaluate(targets, scores, protocol, **{**more, "ignore_mask": None})


@both_evaluate
def test_class_ignored_everywhere_is_excluded(evaluate):
    targets, scores = make_scores(20, 2)
    ignore_mask = np.zeros(targets.shape, dtype=bool)
    ignore_mask[:, 0] = True
    got = evaluate(targets, scores, ignore_mask=ignore_mask, bootstrap=0)
    assert got["classes_without_positives"] == ("0",)
    assert_same(
        Scores({**got, "classes_without_positives": (), "q": 1}),
        evaluate(targets[:, 1:], scores[:, 1:], classes=["1"], bootstrap=0),
    )


# Intervals


def recomputed(targets, scores, protocol, bootstrap, seed, **more):
    """Each metric on each resample, computed by `evaluate`."""
    rng, rows = np.random.default_rng(seed), []
    ignore_mask = more.pop("ignore_mask", None)
    while len(rows) < bootstrap:
        i = rng.integers(len(targets), size=len(targets))
        present = targets[i] if ignore_mask is None else targets[i] & ~ignore_mask[i]
        if present.any():
            hidden = None if ignore_mask is None else ignore_mask[i]
            got = evaluate(targets[i], scores[i], protocol, ignore_mask=hidden, bootstrap=0, **more)
            rows.append([got[name] for name in METRICS])
    return np.array(rows)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("hide", [False, True])
def test_intervals_against_evaluation_of_each_resample(protocol, hide):
    targets, scores = make_scores(25, decimals=1)
    more = {"validation": make_scores(30, seed=1)}
    if hide:
        more["ignore_mask"] = np.random.default_rng(1).random(targets.shape) < 0.3
    got = evaluate(targets, scores, protocol, bootstrap=30, seed=5, **more)
    low, high = np.percentile(recomputed(targets, scores, protocol, 30, 5, **more), [2.5, 97.5], axis=0)
    for j, name in enumerate(METRICS):
        assert got["interval"][name] == pytest.approx((low[j], high[j]), abs=1e-12), name


def test_resamples_without_some_or_all_classes():
    targets = np.array([[1, 0], [0, 0], [0, 0], [0, 1]], dtype=np.uint8)  # some resamples have one class only
    scores = np.array([[-1.0, 2.0], [2.0, 1.0], [1.0, 0.0], [0.0, -1.0]])
    got = evaluate(targets, scores, bootstrap=50)
    values = recomputed(targets, scores, "threshold(0.5)", 50, 0)
    low, high = np.percentile(values, [2.5, 97.5], axis=0)
    for j, name in enumerate(METRICS):
        assert got["interval"][name] == pytest.approx((low[j], high[j]), abs=1e-12), name


def test_intervals_depend_on_the_seed_alone_and_hold_the_value():
    targets, scores = make_scores(300)
    got = evaluate(targets, scores)
    assert got == evaluate(targets, scores, seed=0)
    assert got["interval"] != evaluate(targets, scores, seed=1)["interval"]
    assert all(got["interval"][name][0] < got[name] < got["interval"][name][1] for name in METRICS)
    without = evaluate(targets, scores, bootstrap=0)
    assert without["interval"] is None
    assert {key: value for key, value in got.items() if key != "interval"} == {
        key: value for key, value in without.items() if key != "interval"
    }


def test_one_image_has_intervals_of_no_width():
    got = evaluate(np.array([[1, 0]]), np.array([[1.0, 2.0]]), bootstrap=5)
    assert all(got["interval"][name] == (got[name], got[name]) for name in METRICS)


# Edge cases and the result


@both_evaluate
def test_all_positive_and_all_predicted_is_perfect(evaluate):
    got = evaluate(np.ones((3, 2)), np.full((3, 2), 1e4), bootstrap=0)
    assert [got[name] for name in METRICS] == [1.0] * 8
    got = evaluate(np.ones((3, 2)), np.zeros((3, 2)), "oracle_k", bootstrap=0)  # every label, all tied
    assert [got[name] for name in METRICS] == [1.0] * 8


@both_evaluate
def test_nothing_predicted_gives_zero(evaluate):
    got = evaluate(np.eye(3), np.full((3, 3), -50.0), bootstrap=0)
    assert [got[name] for name in METRICS] == pytest.approx([1 / 3] + [0.0] * 7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_any_real_dtype_scores_the_same_and_stays_untouched(dtype):
    targets, scores = make_scores(decimals=0)
    expected = evaluate(targets, scores, bootstrap=5)
    given_targets, given_scores = targets.copy(), scores.astype(dtype)
    assert evaluate(given_targets, given_scores, bootstrap=5) == expected
    assert evaluate(given_targets.astype(bool), given_scores, bootstrap=5) == expected
    assert np.array_equal(given_targets, targets)
    assert np.array_equal(given_scores, scores.astype(dtype))


def test_average_precision_is_that_of_evaluate():
    targets, scores = make_scores(decimals=1)
    got = evaluate(targets, scores, bootstrap=0)
    assert list(got["AP"].values()) == average_precision(targets, scores).tolist()


def test_scores_as_json_and_as_table():
    targets, scores = make_scores(100)
    targets[:, 0] = 0
    got = evaluate(targets, scores, "top_k(3)", classes=["bus", "cat", "dog", "cow", "cup"], bootstrap=20)
    back = json.loads(json.dumps(got, allow_nan=False))
    assert back["AP"] == got["AP"]
    assert tuple(back["interval"]["mAP"]) == got["interval"]["mAP"]
    lines = repr(got).splitlines()
    low, high = got["interval"]["mAP"]
    assert lines[0] == "top_k(3): 100 images, 5 classes, 95 % bootstrap intervals over images"
    assert lines[1] == f"  mAP       {got['mAP']:.4f}  [{low:.4f}, {high:.4f}]"
    assert lines[-1] == "  classes without positives (excluded): bus"
    assert len(lines) == 10


@pytest.mark.parametrize(
    ("given", "named"),
    [(" threshold(.50) ", "threshold(0.5)"), ("top_k( 2 )", "top_k(2)"), ("oracle_k", "oracle_k")],
)
def test_protocol_name_is_normalized(given, named):
    assert evaluate(*make_scores(), given, bootstrap=0)["protocol"] == named


# Errors


@pytest.mark.parametrize(
    ("protocol", "match"),
    [
        ("oracle", "'oracle'.*Did you mean 'oracle_k'"),
        ("oracle_k(3)", "Did you mean 'oracle_k'"),
        ("thresold(0.8)", r"Did you mean 'threshold\(0.8\)'"),
        ("threshold", r"Did you mean 'threshold\("),
        ("threshold(half)", r"Did you mean 'threshold\("),
        ("threshold(0,5)", r"Did you mean 'threshold\(0.5\)'"),
        ("top3", r"Did you mean 'top_k\(3\)'"),
        ("top_k", r"Did you mean 'top_k\(3\)'"),
        ("tune", r"expected oracle_k, threshold\(p\), top_k\(k\) or tuned. Did you mean 'tuned'\?"),
        (None, "`protocol` is None.*Did you mean"),
        ("threshold(1.5)", "p must be between 0 and 1"),
        ("threshold(0)", "p must be between 0 and 1"),
        ("threshold(1)", "p must be between 0 and 1"),
        ("threshold(-0.5)", "p must be between 0 and 1"),
        ("top_k(0)", "k must be a positive integer"),
        ("top_k(2.5)", "k must be a positive integer"),
        ("top_k(6)", "but `scores` has 5 classes; k is at most 5"),
        ("tuned", "`validation` is missing"),
    ],
)
@pytest.mark.parametrize("function", [binarize, evaluate])
def test_protocol_errors(function, protocol, match):
    with pytest.raises(ValueError, match=match):
        function(*make_scores(), protocol)


@pytest.mark.parametrize("function", [average_precision, binarize, evaluate, tune_thresholds])
def test_input_errors(function):
    targets, scores = make_scores()
    with pytest.raises(ValueError, match=r"`targets` has shape \(60, 4\) but `scores` has \(60, 5\)"):
        function(targets[:, :4], scores)
    with pytest.raises(ValueError, match=r"`scores` has shape \(60,\); expected \(N, q\)"):
        function(targets[:, 0], scores[:, 0])
    for empty in (np.zeros((0, 5)), np.zeros((5, 0))):
        with pytest.raises(ValueError, match=r"`scores` has shape .*0.*; expected \(N, q\)"):
            function(empty, empty)
    for value in (2, -1, 0.5, math.nan):
        wrong = targets.astype(float)
        wrong[7, 3] = value
        with pytest.raises(ValueError, match=f"`targets` is {float(value)} at row 7, column 3; expected 0 or 1"):
            function(wrong, scores)
    for value in (math.nan, math.inf, -math.inf):
        wrong = scores.copy()
        wrong[[7, 9], 3] = value
        with pytest.raises(ValueError, match=f"`scores` is {value} at row 7, column 3; expected a finite logit"):
            function(targets, wrong)
    for ignore_mask in (np.zeros((60, 4), dtype=bool), np.zeros((60, 5))):
        with pytest.raises(ValueError, match=r"`ignore_mask` is .* but `scores` has shape \(60, 5\)"):
            function(targets, scores, ignore_mask=ignore_mask)


def test_evaluate_errors():
    targets, scores = make_scores()
    with pytest.raises(ValueError, match="no positive at all"):
        evaluate(np.zeros((60, 5)), scores)
    with pytest.raises(ValueError, match="no positive at all"):
        evaluate(targets, scores, ignore_mask=np.ones((60, 5), dtype=bool))
    with pytest.raises(ValueError, match="expected 5 distinct names"):
        evaluate(targets, scores, classes=["a", "b"])
    with pytest.raises(ValueError, match="expected 5 distinct names"):
        evaluate(targets, scores, classes=["a", "b", "c", "d", "a"])
    with pytest.raises(ValueError, match="`bootstrap` is -1"):
        evaluate(targets, scores, bootstrap=-1)


def test_validation_errors_name_the_validation():
    targets, scores = make_scores()
    with pytest.raises(ValueError, match=r"In `validation`: `targets` has shape \(9, 5\)"):
        binarize(targets, scores, "tuned", validation=(targets[:9], scores))
    with pytest.raises(ValueError, match="`validation` has 4 classes but `scores` has 5"):
        binarize(targets, scores, "tuned", validation=(targets[:, :4], scores[:, :4]))
