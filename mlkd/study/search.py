"""The search for the best settings of one method: its trials, one after the other, by Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlkd.study.study import Study
from mlkd.study.tune import Range, Tuning

if TYPE_CHECKING:
    import optuna

    from mlkd.training.runs import Run


class Search:
    """The trials of one method, each a run of the study with other settings.

    The first trial has the study's own settings. The settings of the next one depend on those before and on the seed
    only (tree-structured Parzen estimator; Bergstra et al., NeurIPS 2011), so a search that is repeated finds its runs
    again and continues after them. A trial below the median of those before is stopped (`Tuning.warmup_epochs`).

    Attributes:
        method: the method's name.
        trial: the running trial; None at the end.
        rows: the trials that have ended, as in `trials.csv`.

    Raises:
        ImportError: the package `optuna` is missing.
        ValueError: a setting of the study lies outside its range.
    """

    trial: optuna.Trial | None
    _run: Run | None
    _epochs_reported: int
    _stopped: bool

    def __init__(self, tuning: Tuning, method: str, fixed: Mapping[str, Any]):
        try:
            import optuna
        except ImportError as error:
            raise ImportError("`mlkd tune` requires the package 'optuna': pip install 'mlkd[tune]'.") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.tuning, self.method, self.fixed, self.space = tuning, method, fixed, tuning.space_of(method)
        study = tuning.study_at(fixed)
        warmup = tuning.warmup_epochs or max(2 * study.student.epochs // 3, 1)
        self.search = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(n_startup_trials=max(tuning.trials // 2, 1), seed=tuning.seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=warmup - 1),
        )
        self.search.enqueue_trial(_own_settings(study, method, self.space))
        self.rows: list[dict[str, Any]] = []
        self._next_trial()

    @property
    def point(self) -> dict[str, Any]:
        """The settings of the running trial by dotted key, with the fixed ones."""
        assert self.trial is not None
        return {**self.fixed, **_rounded(self.trial.params)}

    @property
    def title(self) -> str:
        """The running trial in a progress display."""
        assert self.trial is not None
        return f"{self.method} trial {self.trial.number + 1} of {self.tuning.trials}"

    @property
    def best(self) -> dict[str, Any]:
        """The settings with the highest mAP on validation, the first of several; none if no trial was complete."""
        complete = [trial for trial in self.search.trials if trial.state.name == "COMPLETE"]
        return _rounded(max(complete, key=lambda trial: trial.value or 0.0).params) if complete else {}

    @property
    def run(self) -> Run:
        """The run of the trial: complete, stopped or new. The teachers of the method are trained if necessary."""
        if self._run is None:
            self._run = self.tuning.study_at(self.point).find_student(self.method, self.tuning.seed)
        return self._run

    def state(self) -> str:
        """The state of the trial: "stopped", "complete" or "" (neither).

        A trial is stopped if it is below the median of those before at any epoch of its run. This also holds for a
        complete run, so that a search that is repeated has the same results.
        """
        assert self.trial is not None
        if self.run.epochs_done > self._epochs_reported:
            scores = self.run.history.get("val_mAP", ())
            for epoch in range(self._epochs_reported, len(scores)):
                self.trial.report(scores[epoch], epoch)
                self._stopped = self._stopped or self.trial.should_prune()
            self._epochs_reported = len(scores)
        return "stopped" if self._stopped else "complete" if self.run.complete else ""

    def end_trial(self, state: str) -> None:
        """Records the end of the trial: "complete", "stopped" or "failed"."""
        from optuna.trial import TrialState

        assert self.trial is not None
        history = self.run.history
        self.rows.append(
            {
                "method": self.method,
                "trial": self.trial.number + 1,
                "state": state,
                "epochs": len(history),
                "val_mAP": float(history["val_mAP"].max()) if len(history) else np.nan,
                "run": self.run.path.name,
                **self.point,
            }
        )
        states = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
        score = self.run.mean_ap["val"] if state == "complete" else None
        self.search.tell(self.trial, score, state=states[state])
        self._next_trial()

    def _next_trial(self) -> None:
        self.trial, self._run, self._epochs_reported, self._stopped = None, None, 0, False
        if len(self.rows) == self.tuning.trials:
            return
        self.trial = self.search.ask()
        for key, values in self.space.items():
            if isinstance(values, Range):
                self.trial.suggest_float(key, values.low, values.high, log=values.log)
            else:
                self.trial.suggest_categorical(key, values)


def _rounded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with three digits, which is what is trained."""
    return {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in settings.items()}


def _own_settings(study: Study, method: str, space: Mapping[str, Range | tuple[Any, ...]]) -> dict[str, Any]:
    """The values of dotted keys in a study: of its student, or of its method.

    Raises:
        ValueError: an unknown key, or a value outside the space.
    """
    sections = {"student": study.student.as_dict(), method: study.create_method(method).settings()}
    values: dict[str, Any] = {}
    for key, allowed in space.items():
        value = sections[key.split(".")[0]][key.split(".")[1]]
        if isinstance(value, dict) and len(set(value.values())) == 1:  # the same weight for each order
            value = next(iter(value.values()))
        inside = allowed.low <= value <= allowed.high if isinstance(allowed, Range) else value in allowed
        if not inside:
            raise ValueError(f"`space` has {key!r} without the study's own value, {value!r}; add it.")
        values[key] = value
    return values
