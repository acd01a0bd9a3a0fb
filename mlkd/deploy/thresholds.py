"""The thresholds per class that are stored with an exported model."""

from __future__ import annotations

import numpy as np
from numpy import ndarray
from scipy.special import expit

from mlkd.errors import RunError, first_few
from mlkd.metrics import tune_thresholds
from mlkd.training.runs import Run

MARGIN = 1e-4
"""The largest difference between the logits of two formats of the same model."""


def tuned_thresholds(run: Run, classes: tuple[str, ...]) -> ndarray | None:
    """The thresholds of `tune` for a run's predictions for `val`; None without that split.

    Args:
        run: a finished run.
        classes: the class names of its model.

    Returns:
        (q,) float64.

    Raises:
        RunError: the predictions have other classes than the run's model.
    """
    if "val" not in run.mean_ap:
        return None
    predictions = run.predictions("val")
    if predictions.classes != classes:
        raise RunError(
            f"{run.path}: its predictions have the classes {first_few(predictions.classes)}, its model has "
            f"{first_few(classes)}. Remove the folder to restart the training."
        )
    return tune(predictions.targets, predictions.logits, predictions.ignore_mask)


def tune(targets: ndarray, logits: ndarray, ignore_mask: ndarray | None = None) -> ndarray:
    """For each class, the probability with the best F1: the thresholds of the protocol "tuned".

    Each is the probability of one of the images. It is lowered by at most 1e-4 in the logit, and not to that of another
    image, so that rounding does not exclude this image. A class without positives has 0.5.

    Shape: all (N, q); output (q,) float64.
    """
    logits = logits.astype(np.float64)
    tuned = tune_thresholds(targets, logits, ignore_mask)
    lower = np.where(logits < tuned, logits, -np.inf).max(axis=0, initial=-np.inf)
    margin = np.minimum(MARGIN, (tuned - lower) / 2)
    return expit(np.where(targets.any(axis=0), tuned - margin, tuned))
