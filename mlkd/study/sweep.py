"""A sweep: a grid of students described by a YAML file, and the tasks it consists of."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, Strict, field_validator

from mlkd.errors import check_choice
from mlkd.methods import METHODS, Method
from mlkd.settings import Settings
from mlkd.study.read import format_value, parse_value, read_yaml
from mlkd.study.study import Study, create_study, partition_settings

Names = Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]
Point = Mapping[str, Any]


class Sweep(Settings):
    """Every data set x method x point of the grid x seed, and the teachers they require.

    Attributes:
        name: the folder of the logs is `<runs>/sweeps/<name>`; by default the name of the file.
        study: a preset, a recipe or a study file, as for `create_study`.
        data: one or several data addresses; the study's if not given.
        methods: the methods to train students with.
        grid: dotted key -> values, as in `create_study(overrides=...)`: "student.lr", "l2d.lambda_cd". A key of a
            method applies to that method only. A single value is fixed.
        seeds: the students' seeds: a number or a list; the study's if not given.
        runs: the folder of all runs.
        plugins: Python files that register methods, data readers, heads or backbones.
        cpus, gpus: the cores (and threads) and GPUs of one run; GPUs may be a fraction.
    """

    title: ClassVar[str] = "the sweep"

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
    study: str = "quick"
    data: Annotated[tuple[str, ...], Strict(False)] = ()
    methods: Names
    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Strict(False)] = ()
    runs: str = "runs"
    plugins: Annotated[tuple[str, ...], Strict(False)] = ()
    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0.0

    @field_validator("data", "methods", mode="before")
    @classmethod
    def _one_name(cls, names: Any) -> Any:
        return [names] if isinstance(names, str) else names

    @field_validator("grid", mode="before")
    @classmethod
    def _lists_of_values(cls, grid: Any) -> Any:
        if not isinstance(grid, dict):
            return grid
        for key, values in grid.items():
            if values == []:
                raise ValueError(f"`grid` has no value for {key!r}; remove the key, or give at least one value.")
        lists = {key: values if isinstance(values, list | tuple) else [values] for key, values in grid.items()}
        return {key: tuple(parse_value(v) if isinstance(v, str) else v for v in lists[key]) for key in lists}

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_seeds(cls, seeds: Any) -> Any:
        return range(seeds) if type(seeds) is int and seeds > 0 else seeds

    @property
    def folder(self) -> Path:
        """The folder of the logs."""
        return Path(self.runs) / "sweeps" / self.name

    def study_at(self, data: str, point: Point) -> Study:
        """The study of one data set and one point of the grid."""
        fixed = {"plugins": list(self.plugins)} if self.plugins else {}
        return create_study(self.study, data, runs=self.runs, overrides={**fixed, **point})


@dataclass(frozen=True)
class Task:
    """One run of a sweep.

    Attributes:
        name: unique in the sweep; the log is `<name>.log`.
        arguments: those of `mlkd train`.
        depends_on: the names of the tasks that must be finished first.
        data, group: the row of the results table: a data set, and a method with those of its settings that vary. No
            group for networks of label subsets, which are not evaluated on their own.
    """

    name: str
    arguments: tuple[str, ...]
    depends_on: tuple[str, ...] = ()
    data: str = ""
    group: str = ""


def load_sweep(path: str | Path) -> Sweep:
    """The sweep that a YAML file describes; its keys are the attributes of `Sweep`.

    Raises:
        ValueError: no such file, not YAML, an unknown key (the closest is given) or a value of the wrong kind.
    """
    path = Path(path)
    content = read_yaml(path)
    try:
        return Sweep(**{"name": path.stem, **content})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def expand_tasks(sweep: Sweep) -> list[Task]:
    """All runs of a sweep, each after those it depends on. Every setting is checked, and the data sets are read.

    Raises:
        ValueError: as for `create_study`; a method that does not exist, or a grid with a setting of another one.
        DataError: invalid data.
    """
    for method in sweep.methods:
        check_choice("methods", method, METHODS)
    for key in sweep.grid:
        method = key.split(".")[0]
        if method in METHODS and method not in (*sweep.methods, "vanilla"):
            raise ValueError(f"The grid has {key!r}, but {method!r} is not among its methods.")
    addresses = sweep.data or (sweep.study_at("", {}).data,)
    tasks: dict[str, Task] = {}
    for data in addresses:
        _ = sweep.study_at(data, {}).splits  # unreadable data is an error before the first run
        for method in sweep.methods:
            for task in _tasks_of(sweep, data, method):
                tasks.setdefault(task.name, task)
    required = {name for task in tasks.values() for name in task.depends_on}
    return sorted(tasks.values(), key=lambda task: task.name not in required)  # teachers first


def _tasks_of(sweep: Sweep, data: str, method: str) -> Iterator[Task]:
    """The students of one method on one data set, each after its teachers."""
    prefix = f"{data} " if len(sweep.data) > 1 else ""
    common = ["--study", sweep.study, "--data", data, "--runs", sweep.runs]
    common += [text for file in sweep.plugins for text in ("--plugin", file)]
    others = [name for name in METHODS if name not in (method, "vanilla")]  # vanilla trains the teachers
    grid = _without(sweep.grid, *others)
    varied = [key for key, values in grid.items() if len(values) > 1]
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        study = sweep.study_at(data, point)
        teachers = list(_teachers(study.create_method(method), data, point, varied, prefix, common))
        yield from teachers
        group = " ".join([method, *(f"{_short(key, method)}={format_value(point[key])}" for key in varied)])
        for seed in sweep.seeds or study.seeds:
            yield Task(
                name=_file_name(f"{prefix}{group} seed={seed}"),
                arguments=("--method", method, "--seed", str(seed), *common, *_overrides(point)),
                depends_on=tuple(task.name for task in teachers),
                data=data,
                group=group,
            )


def _teachers(
    method: Method, data: str, point: Point, varied: list[str], prefix: str, common: list[str]
) -> Iterator[Task]:
    """A task for each model that the method requires, with the overrides that concern it."""
    for role in method.required_teachers:
        if role == "teacher":
            overrides = _without(point, "student", "label_subsets", method.name)
            shown = [f"{key}={format_value(overrides[key])}" for key in varied if key in overrides]
            name = " ".join(["teacher", *shown])
            arguments = ("--role", "teacher", *common, *_overrides(overrides))
            yield Task(name=_file_name(f"{prefix}{name}"), arguments=arguments, data=data, group=name)
            continue
        k, tau = partition_settings(role, method)
        overrides = _without(point, "teacher")
        varied_settings = [key for key in varied if key in overrides and not key.startswith(f"{method.name}.")]
        shown = [f"{key}={format_value(overrides[key])}" for key in varied_settings]
        partition = [] if role == "all_labels" else [f"tau={tau}"]
        for number in range(1, k + 1):
            name = " ".join([f"{prefix}{role} {number} of {k}", *partition, *shown])
            arguments = ("--method", method.name, "--label-subset", f"{role}:{number}", *common, *_overrides(overrides))
            yield Task(name=_file_name(name), arguments=arguments, data=data)


def _without(point: Point, *sections: str) -> dict[str, Any]:
    """The overrides that belong to none of these sections or methods."""
    return {key: value for key, value in point.items() if key.split(".")[0] not in sections}


def _overrides(point: Point) -> list[str]:
    return [text for key, value in point.items() for text in ("--set", f"{key}={format_value(value)}")]


def _short(key: str, method: str) -> str:
    return key.removeprefix(f"{method}.").removeprefix("student.")


def _file_name(text: str) -> str:
    """The text as a file name; where characters had to be left out, a hash keeps names apart."""
    name = re.sub(r"[^A-Za-z0-9._=]+", "-", text).strip("-.")[:120]
    plain = text.replace(" ", "-")
    return name if name == plain else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
