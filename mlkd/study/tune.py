"""A tuning: a search space for each method, described by a YAML file, with the same number of trials for all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, Strict, field_validator, model_validator

from mlkd.errors import check_choice
from mlkd.methods import METHODS
from mlkd.settings import Settings
from mlkd.study.read import read_yaml
from mlkd.study.study import Study, create_study
from mlkd.study.sweep import Names, Sweep, Task, expand_tasks

BASELINE = "vanilla"
"""The method that the student's settings are tuned with."""


class Range(Settings):
    """A setting's values: the numbers from `low` to `high`, on a logarithmic scale if `log`."""

    title: ClassVar[str] = "a range of `space`"

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _check_order(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"`low` of {self.title} is {self.low}, expected a number less than `high`, {self.high}.")
        if self.log and self.low <= 0:
            raise ValueError(f"`low` of {self.title} is {self.low}, expected more than 0 on a logarithmic scale.")
        return self


class Tuning(Settings):
    """The search for the settings of methods, described by a YAML file.

    Attributes:
        name: the folder of the results is `<runs>/tuning/<name>`; by default the name of the file.
        study, data: as for `create_study`; all that is not tuned.
        methods: the methods to tune.
        space: dotted key -> `{low, high, log}`, or a list of values. Keys of the student ("student.lr") are tuned with
            `vanilla`, first, and then fixed for all other methods. A key of a method ("l2d.lambda_cd") is tuned with
            that method. Settings that a method's teachers depend on cannot be tuned.
        trials: the number of trials of each method. The first one has the study's own settings.
        seed: of the students and of the search. It should be none of the seeds that are reported later.
        warmup_epochs: a trial is stopped after that many epochs or later, if its mAP on validation is below the median
            of the trials before; None for two thirds of the epochs. Earlier, a schedule with a large learning rate is
            below one that ends worse.
        runs, plugins, cpus, gpus: as in `Sweep`.
    """

    title: ClassVar[str] = "the tuning"

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
    study: str = "quick"
    data: str = ""
    methods: Names
    space: dict[str, Range | tuple[Any, ...]]
    trials: Annotated[int, Field(ge=1)] = 8
    seed: Annotated[int, Field(ge=0)] = 1000
    warmup_epochs: Annotated[int, Field(ge=1)] | None = None
    runs: str = "runs"
    plugins: Annotated[tuple[str, ...], Strict(False)] = ()
    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0.0

    @field_validator("space", mode="before")
    @classmethod
    def _ranges(cls, space: Any) -> Any:
        if not isinstance(space, dict):
            return space
        return {key: _values(key, values) for key, values in space.items()}

    @model_validator(mode="after")
    def _check_keys(self) -> Tuning:
        for method in self.methods:
            check_choice("methods", method, METHODS)
        for key in self.space:
            section = key.split(".")[0]
            if section == "student" and BASELINE not in self.methods:
                raise ValueError(f"`space` has {key!r}, which is tuned with {BASELINE}; add it to `methods`.")
            if section != "student" and section not in self.methods:
                raise ValueError(
                    f"`space` has {key!r}, expected a key of `student` or of one of the methods "
                    f"{', '.join(self.methods)}, such as 'student.lr'."
                )
        for method in self.methods:
            if not self.space_of(method):
                raise ValueError(f"`space` has no setting of the method {method!r}; add one, or remove the method.")
        return self

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return Path(self.runs) / "tuning" / self.name

    def space_of(self, method: str) -> dict[str, Range | tuple[Any, ...]]:
        """The part of the space that is tuned with a method."""
        sections = (method, "student") if method == BASELINE else (method,)
        return {key: values for key, values in self.space.items() if key.split(".")[0] in sections}

    def stages(self) -> list[list[str]]:
        """The methods tuned at the same time: first `vanilla`, if settings of the student are tuned."""
        if not any(key.startswith("student.") for key in self.space):
            return [list(self.methods)]
        others = [method for method in self.methods if method != BASELINE]
        return [[BASELINE], *([others] if others else [])]

    def study_at(self, point: Mapping[str, Any]) -> Study:
        """The study with some settings changed."""
        fixed = {"plugins": list(self.plugins)} if self.plugins else {}
        return create_study(self.study, self.data, runs=self.runs, overrides={**fixed, **point})

    def tasks(self, method: str, point: Mapping[str, Any]) -> list[Task]:
        """The teachers that a method requires, and its student at a point of the space, which is the last one."""
        return expand_tasks(
            Sweep(
                name=self.name,
                study=(self.study,),
                data=(self.study_at(point).data,),
                methods=(method,),
                grid=({key: (value,) for key, value in point.items()},),
                seeds=(self.seed,),
                runs=self.runs,
                plugins=self.plugins,
                cpus=self.cpus,
                gpus=self.gpus,
            )
        )


def _values(key: str, values: Any) -> Range | tuple[Any, ...]:
    """The values of a key of the space: a range, or at least two single ones."""
    if isinstance(values, Range):
        return values
    if isinstance(values, dict):
        return Range(**values)
    if not isinstance(values, list | tuple) or len(values) < 2:
        raise ValueError(f"`space` has {values!r} for {key!r}; expected a list of two values or more, or low and high.")
    return tuple(values)


def load_tuning(path: str | Path, **changes: Any) -> Tuning:
    """The tuning in a YAML file.

    Args:
        changes: attributes of `Tuning` in place of those of the file; empty ones change nothing.

    Raises:
        ValueError: no such file, not YAML, an unknown key (the closest is given) or a value of the wrong kind.
    """
    path = Path(path)
    content = {"name": path.stem, **read_yaml(path), **{key: value for key, value in changes.items() if value}}
    try:
        return Tuning(**content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
