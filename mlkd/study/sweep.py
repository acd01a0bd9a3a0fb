"""A sweep: a grid of students described by a YAML file, and the tasks it consists of."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import Field, Strict, field_validator, model_validator

from mlkd.errors import PluginError, check_choice
from mlkd.methods import METHODS, Method
from mlkd.metrics import METRICS, PROTOCOLS
from mlkd.settings import Settings
from mlkd.study.read import count_seeds, format_value, parse_value
from mlkd.study.study import Study, check_scores, create_study, partition_settings
from mlkd.study.yaml_files import read_yaml
from mlkd.training.runs import COSTS

Names = Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]
Point = Mapping[str, Any]

LABEL = "label"
"""A key of a grid of one point that names the row of its method in tables."""


class TableLayout(Settings):
    """The table that `mlkd table` prints of a sweep.

    Attributes:
        caption: its first line.
        metrics: as for `mlkd.analysis.compare_with_reported`; those that the paper reports if not given.
        protocol: as for `mlkd.evaluate`; the recipe's if not given.
        reported: the paper's scores in %, row -> metric -> score; the recipes' if not given. A row is a method with
            those of its settings that vary, as `mlkd sweep` names it ("l2d lambda_cd=0"), or the label of its grid.
        other_systems: whether the rows of the recipes that are no method of this package are printed.
        notes: what is printed below.
    """

    title: ClassVar[str] = "`table`"

    caption: str = ""
    metrics: Annotated[tuple[str, ...], Strict(False)] = ()
    protocol: str = ""
    reported: dict[str, dict[str, float]] = Field(default_factory=dict)
    other_systems: bool = True
    notes: Annotated[tuple[str, ...], Strict(False)] = ()

    @model_validator(mode="after")
    def _check_names(self) -> TableLayout:
        for metric in self.metrics:
            check_choice("metrics", metric, (*METRICS, *COSTS, "relative_time"))
        if self.protocol:
            check_choice("protocol", self.protocol, PROTOCOLS)
        check_scores("reported", self.reported)
        return self


class Sweep(Settings):
    """Every study x data set x method x point of the grid x seed, and the teachers they require.

    Attributes:
        name: the folder of the logs is `<runs>/sweeps/<name>`; by default the name of the file.
        study: one or several presets, recipes or study files, as for `create_study`.
        data: one or several data addresses; the study's if not given. An address of a data set that a recipe reports
            ("coco:/path") belongs to the recipes of that data set, with their options if it has none, and any other
            address to every study.
        methods: the methods to train students with.
        grid: dotted key -> values, as in `create_study(overrides=...)`: "student.lr", "l2d.lambda_cd". A key of a
            method applies to that method only, and "teacher.lr" to methods that require the teacher. A single value is
            fixed. A list of grids is all their points; `label` names the row of a grid of one point.
        seeds: the students' seeds: a number or a list; the study's if not given.
        runs: the folder of all runs.
        plugins: Python files that register methods, data readers, heads or backbones.
        cpus, gpus: the cores (and threads) and GPUs of one run; GPUs may be a fraction.
        table: how `mlkd table` prints it.
    """

    title: ClassVar[str] = "the sweep"

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
    study: Names = ("quick",)
    data: Annotated[tuple[str, ...], Strict(False)] = ()
    methods: Names
    grid: Annotated[tuple[dict[str, tuple[Any, ...]], ...], Field(min_length=1)] = ({},)
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Strict(False)] = ()
    runs: str = "runs"
    plugins: Annotated[tuple[str, ...], Strict(False)] = ()
    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0.0
    table: TableLayout = TableLayout()

    @field_validator("study", "data", "methods", mode="before")
    @classmethod
    def _one_name(cls, names: Any) -> Any:
        return names if isinstance(names, list | tuple) else [names]

    @field_validator("grid", mode="before")
    @classmethod
    def _lists_of_values(cls, grids: Any) -> Any:
        listed = [grids] if isinstance(grids, dict) else grids
        if not (isinstance(listed, list | tuple) and all(isinstance(grid, dict) for grid in listed)):
            raise ValueError(f"`grid` of the sweep is {grids!r}, expected a mapping, or a list of mappings.")
        grids = tuple({key: _values(key, values) for key, values in grid.items()} for grid in listed)
        for grid in grids:
            several = [key for key, values in grid.items() if len(values) > 1]
            if LABEL in grid and several:
                raise ValueError(f"`grid` has a label, which names one row, but several values of {several[0]!r}.")
        return grids

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_seeds(cls, seeds: Any) -> Any:
        return count_seeds(seeds)

    @property
    def folder(self) -> Path:
        """The folder of the logs."""
        return Path(self.runs) / "sweeps" / self.name

    def study_at(self, study: str, data: str = "", point: Point | None = None) -> Study:
        """A study on one data set, at one point of the grid."""
        fixed = {"plugins": list(self.plugins)} if self.plugins else {}
        return create_study(study, data, runs=self.runs, overrides={**fixed, **(point or {})})

    def addresses(self, study: str) -> tuple[str, ...]:
        """The data addresses that a study is trained on.

        An address without options of a recipe's data set gets the options that the recipe reports.

        Raises:
            ValueError: the study is a recipe of a data set, and neither the sweep nor the recipe has an address.
        """
        resolved = {name: self.study_at(name) for name in self.study}
        datasets = {name: each.reported.dataset if each.reported else "" for name, each in resolved.items()}
        recipe = resolved[study]
        if not self.data:
            if recipe.reported and recipe.data == Study.model_fields["data"].default:
                raise ValueError(
                    f"`data` of the sweep is missing: {study!r} is trained on {datasets[study]}. Pass `--data "
                    f"'{recipe.reported.data_address('/path')}'`, or `--study smoke --data scenes` to try the sweep."
                )
            return (recipe.data,)
        addresses = []
        for address in self.data:
            if recipe.reported and scheme(address) == recipe.reported.dataset:
                addresses.append(address if "?" in address else f"{address}?{recipe.reported.options}")
            elif scheme(address) not in datasets.values():
                addresses.append(address)
        return tuple(addresses)

    def to_yaml(self) -> str:
        """The sweep as a YAML file that `load_sweep` reads."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


@dataclass(frozen=True)
class Task:
    """One run of a sweep.

    Attributes:
        name: unique in the sweep; the log is `<name>.log`.
        arguments: those of `mlkd train`.
        depends_on: the names of the tasks that must be finished first.
        study, data, group: the row of the results table: a study, a data set, and a method with those of its settings
            that vary, or its label. No group for networks of label subsets, which are not evaluated on their own.
        settings: the settings that vary, by dotted key.
        baseline: the group without distillation and otherwise the same settings; "" if the sweep does not train it.
    """

    name: str
    arguments: tuple[str, ...]
    depends_on: tuple[str, ...] = ()
    study: str = ""
    data: str = ""
    group: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    baseline: str = ""


def load_sweep(
    path: str | Path,
    *,
    study: str = "",
    data: Iterable[str] = (),
    seeds: int = 0,
    runs: str = "",
    overrides: Mapping[str, Any] | None = None,
) -> Sweep:
    """The sweep that a YAML file describes; its keys are the attributes of `Sweep`.

    Args:
        path: the file.
        study: in place of the studies of the file. It is added to the name of the sweep, whose logs are separate.
        data, seeds, runs: in place of those of the file.
        overrides: dotted key -> a value or a list of values, in place of the key's values in every grid.

    Raises:
        ValueError: no such file, not YAML, an unknown key (the closest is given) or a value of the wrong kind.
    """
    path, data = Path(path), list(data)
    content = {"name": path.stem, **read_yaml(path)}
    changes = {"data": data, "seeds": seeds, "runs": runs}
    content |= {key: value for key, value in changes.items() if value}
    if study:
        content |= {"study": study, "name": f"{content['name']}-{Path(study).stem}"}
    try:
        if isinstance(content.get("table"), dict):
            content["table"] = TableLayout(**content["table"])
        sweep = Sweep(**content)
        return sweep.replace(grid=[{**grid, **overrides} for grid in sweep.grid]) if overrides else sweep
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def expand_tasks(sweep: Sweep) -> list[Task]:
    """All runs of a sweep, each after those it depends on. Every setting is checked, and no data is read.

    Raises:
        ValueError: as for `create_study`; a method that does not exist, or a grid with a setting of another one. The
            sweep is named.
    """
    try:
        return _expand_tasks(sweep)
    except PluginError:
        raise
    except ValueError as error:
        raise ValueError(f"The sweep {sweep.name!r}: {error}") from None


def _expand_tasks(sweep: Sweep) -> list[Task]:
    columns = [(study, data) for study in sweep.study for data in sweep.addresses(study)]
    for method in sweep.methods:
        check_choice("methods", method, METHODS)
    for key in itertools.chain(*sweep.grid):
        method = key.split(".")[0]
        if method in METHODS and method not in (*sweep.methods, "vanilla"):
            raise ValueError(f"The grid has {key!r}, but {method!r} is not among its methods.")
    tasks: dict[str, Task] = {}
    for study, data in columns:
        names = [study] * (len(sweep.study) > 1) + [data] * (len(sweep.data) > 1)
        prefix = "".join(f"{name} " for name in names)
        for method in sweep.methods:
            for task in _tasks_of(sweep, study, data, method, prefix):
                tasks.setdefault(task.name, task)
    required = {name for task in tasks.values() for name in task.depends_on}
    return sorted(tasks.values(), key=lambda task: task.name not in required)  # teachers first


def _tasks_of(sweep: Sweep, study: str, data: str, method: str, prefix: str) -> Iterator[Task]:
    """The students of one method in one study on one data set, each after its teachers."""
    common = ["--study", study, "--data", data, "--runs", sweep.runs]
    common += [text for file in sweep.plugins for text in ("--plugin", file)]
    varied, baseline_varied = _varied(sweep, method), _varied(sweep, "vanilla")
    for point, label in _points(sweep, method):
        study_at_point = sweep.study_at(study, data, point)
        student = study_at_point.create_method(method)
        teachers = list(_teachers(student, study, data, point, varied, prefix, common))
        yield from teachers
        settings = {key: point[key] for key in varied if key in point}
        baseline = _group("vanilla", {key: point[key] for key in baseline_varied if key in point})
        for seed in sweep.seeds or study_at_point.seeds:
            yield Task(
                name=_file_name(f"{prefix}{' '.join([method, *_shown(settings, method)])} seed={seed}"),
                arguments=("--method", method, "--seed", str(seed), *common, *_overrides(point)),
                depends_on=tuple(task.name for task in teachers),
                study=study,
                data=data,
                group=label or _group(method, settings),
                settings=settings,
                baseline=baseline if "vanilla" in sweep.methods and method != "vanilla" else "",
            )


def _teachers(
    method: Method, study: str, data: str, point: Point, varied: list[str], prefix: str, common: list[str]
) -> Iterator[Task]:
    """A task for each model that the method requires, with the overrides that concern it."""
    for role in method.required_teachers:
        if role == "teacher":
            overrides = _without_varied(point, varied, "student", "label_subsets")
            overrides = _without(overrides, method.name)
            settings = {key: overrides[key] for key in varied if key in overrides}
            name = " ".join(["teacher", *_shown(settings, "teacher")])
            arguments = ("--role", "teacher", *common, *_overrides(overrides))
            group = _group("teacher", settings)
            yield Task(_file_name(f"{prefix}{name}"), arguments, (), study, data, group, settings)
            continue
        partition, defaults = (partition_settings(role, each) for each in (method, type(method)()))
        k = partition.pop("k")
        shown = [f"{name}={value}" for name, value in partition.items() if name == "tau" or value != defaults[name]]
        overrides = _without_varied(point, varied, "teacher")
        settings = {key: overrides[key] for key in varied if key in overrides and not key.startswith(f"{method.name}.")}
        for number in range(1, k + 1):
            name = " ".join([f"{prefix}{role} {number} of {k}", *shown, *_shown(settings)])
            arguments = ("--method", method.name, "--label-subset", f"{role}:{number}", *common, *_overrides(overrides))
            yield Task(_file_name(name), arguments, study=study, data=data)


def _points(sweep: Sweep, method: str) -> list[tuple[Point, str]]:
    """All points of the grids of one method, each once, and their labels ("" for none).

    A point has no settings of other methods, nor of a teacher that the method does not require.
    """
    others = [name for name in METHODS if name not in (method, "vanilla")]  # vanilla trains the teachers
    needs_teacher = "teacher" in METHODS[method].required_teachers
    points: list[tuple[Point, str]] = []
    for grid in sweep.grid:
        settings = _without(grid, LABEL, *others)
        if not needs_teacher:
            settings = _without(settings, "teacher") | {key: settings[key] for key in _fixed(sweep) if key in settings}
        labeled = LABEL in grid and any(key.startswith(f"{method}.") for key in settings)
        for values in itertools.product(*settings.values()):
            point = dict(zip(settings, values, strict=True))
            if point not in [other for other, _ in points]:
                points.append((point, grid[LABEL][0] if labeled else ""))
    return points


def _fixed(sweep: Sweep) -> list[str]:
    """The keys with the same single value in every grid, such as those of `mlkd sweep --set`."""
    first, *others = sweep.grid
    return [key for key in first if len(first[key]) == 1 and all(grid.get(key) == first[key] for grid in others)]


def _varied(sweep: Sweep, method: str) -> list[str]:
    """The keys of a method's grids that do not have the same single value at all points."""
    points = [point for point, _ in _points(sweep, method)]
    keys = dict.fromkeys(itertools.chain(*points))
    return [key for key in keys if any(key not in point or point[key] != points[0].get(key) for point in points)]


def _group(method: str, settings: Point) -> str:
    """The row of a table: the method with its settings. Settings that end in "seed" are repetitions of one row."""
    return " ".join(
        [method, *_shown({key: value for key, value in settings.items() if not key.endswith("seed")}, method)]
    )


def _shown(settings: Point, method: str = "") -> list[str]:
    """The settings as texts; those of the student and of the method without their section."""
    names = {key: short_key(key, method) if method else key for key in settings}
    return [f"{names[key]}={format_value(value)}" for key, value in settings.items()]


def short_key(key: str, method: str) -> str:
    """A dotted key without the section of the student or of the method: "lambda_cd" for "l2d.lambda_cd"."""
    return key.removeprefix(f"{method}.").removeprefix("student.")


def _values(key: str, values: Any) -> tuple[Any, ...]:
    """The values of a key of the grid: a list, or a single one."""
    if values == []:
        raise ValueError(f"`grid` has no value for {key!r}; remove the key, or give at least one value.")
    values = values if isinstance(values, list | tuple) else [values]
    return tuple(parse_value(value) if isinstance(value, str) else value for value in values)


def _without(point: Mapping[str, Any], *sections: str) -> dict[str, Any]:
    """The overrides that belong to none of these sections or methods."""
    return {key: value for key, value in point.items() if key.split(".")[0] not in sections}


def _without_varied(point: Point, varied: Collection[str], *sections: str) -> dict[str, Any]:
    """The overrides without the varied ones of these sections. Fixed ones stay, since a study checks them together."""
    return {key: value for key, value in point.items() if key not in varied or key.split(".")[0] not in sections}


def _overrides(point: Point) -> list[str]:
    return [text for key, value in point.items() for text in ("--set", f"{key}={format_value(value)}")]


def scheme(address: str) -> str:
    """The reader of a data address: "coco" for "coco:/path"."""
    return address.partition("?")[0].partition(":")[0]


def _file_name(text: str) -> str:
    """The text as a file name; where characters had to be left out, a hash keeps names apart."""
    name = re.sub(r"[^A-Za-z0-9._=]+", "-", text).strip("-.")[:120]
    plain = text.replace(" ", "-")
    return name if name == plain else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
