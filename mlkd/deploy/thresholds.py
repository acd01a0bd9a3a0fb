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
    """For each class, the probability with the best F1 on the run's predictions for `val`; None without that split.

    These are the thresholds of the protocol "tuned". Each is the probability of one of the images, and is lowered by
    at most 1e-4 in the logit, and not to that of another image, so that rounding does not exclude this image.

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
    logits = predictions.logits.astype(np.float64)
    tuned = tune_thresholds(predictions.targets, logits, predictions.ignore_mask)
    lower = np.where(logits < tuned, logits, -np.inf).max(axis=0, initial=-np.inf)
    margin = np.minimum(MARGIN, (tuned - lower) / 2)
    return expit(np.where(predictions.targets.any(axis=0), tuned - margin, tuned))
