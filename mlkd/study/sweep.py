"""What a sweep trains: the file `sweep.yml`, and the tasks it stands for."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from mlkd.errors import check_choice, closest_match
from mlkd.methods import METHODS, Method
from mlkd.study.study import Study, create_study, division
from mlkd.training.config import Config

Grid = Mapping[str, tuple[Any, ...]]

TRAINING = tuple(field.name for field in fields(Config) if field.name not in ("role", "seed"))


@dataclass(frozen=True)
class Sweep:
    """A grid of students: every data set x method x combination of settings x seed, and the teachers they need.

    Attributes:
        name: the folder of its logs, `<runs>/sweeps/<name>`; the file's name without its ending if not given.
        methods: method -> its own grid: setting -> values. In the file also a list of names.
        settings: a grid for all methods: setting -> values. One of the training (`lr`) goes to every method, one of
            some methods (`lambda_mld`) to those that have it; a method's own grid goes before it.
        data: one or several, as for `mlkd train`.
        seeds: the students' seeds; in the file a number or a list. Empty for as many as the preset says.
        preset, recipe, teacher_backbone, teacher_weights, student_backbone, student_weights, image_size, plugin: as
            for `mlkd train`.
        runs: the folder of all runs.
        cpus, gpus: what one run has: cores, which are its threads, and GPUs, which may be a fraction.
    """

    name: str
    methods: Mapping[str, Grid]
    settings: Grid = field(default_factory=dict)
    data: tuple[str, ...] = ("scenes",)
    seeds: tuple[int, ...] = ()
    preset: str = ""
    recipe: str = ""
    teacher_backbone: str = ""
    teacher_weights: str = ""
    student_backbone: str = ""
    student_weights: str = ""
    image_size: int = 0
    plugin: str = ""
    runs: str = "runs"
    cpus: int = 1
    gpus: float = 0.0

    @property
    def folder(self) -> Path:
        """Where its logs are."""
        return Path(self.runs) / "sweeps" / self.name


@dataclass(frozen=True)
class Task:
    """One run of a sweep.

    Attributes:
        name: unique in the sweep; its log is `<name>.log`.
        arguments: what `mlkd train` is given.
        needs: the names of the tasks that must be done before.
        data, group: the row of the results it belongs to: a data set, and a method with those of its settings that have
            several values. No group for models of parts, which are not scored by themselves.
    """

    name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    data: str = ""
    group: str = ""


def read(path: str | Path) -> Sweep:
    """The sweep that a YAML file describes; its keys are the attributes of `Sweep`.

    Raises:
        ValueError: no such file, not YAML, an unknown key (the nearest is named) or a value of the wrong kind.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such sweep file.")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or "methods" not in content:
        raise ValueError(f"{path}: expected a mapping with at least `methods`, as in `methods: [vanilla, l2d]`.")
    known = {field.name: field for field in fields(Sweep)}
    for key in content:
        if key not in known:
            raise ValueError(f"{path}: there is no key {key!r}. Did you mean {closest_match(str(key), known)!r}?")
    content.setdefault("name", path.stem)
    try:
        found = Sweep(**{key: _READERS.get(key, _plain)(key, value) for key, value in content.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def tasks(sweep: Sweep) -> list[Task]:
    """All runs of a sweep, each after those it needs. The data sets are read and every setting is checked.

    Raises:
        ValueError: as for `mlkd.create_study`; a method or setting that does not exist, or a value it cannot have.
    """
    found: dict[str, Task] = {}
    for spec in sweep.data:
        study = create_study(
            spec,
            sweep.preset,
            recipe=sweep.recipe,
            runs=sweep.runs,
            plugin=sweep.plugin,
            teacher_backbone=sweep.teacher_backbone,
            teacher_weights=sweep.teacher_weights,
            student_backbone=sweep.student_backbone,
            student_weights=sweep.student_weights,
            image_size=sweep.image_size,
        )
        for name in sweep.methods:
            check_choice("methods", name, METHODS)
        _check_names(sweep)
        for task in _tasks_on(sweep, spec, study):
            found.setdefault(task.name, task)
    needed = {name for task in found.values() for name in task.needs}
    return sorted(found.values(), key=lambda task: task.name not in needed)  # teachers first


def _tasks_on(sweep: Sweep, spec: str, study: Study) -> Iterator[Task]:
    prefix = f"{spec} " if len(sweep.data) > 1 else ""
    common = ["--data", spec]
    for option in (
        *("preset", "recipe", "runs", "teacher_backbone", "teacher_weights", "student_backbone", "student_weights"),
        *("image_size", "plugin"),
    ):
        if value := getattr(sweep, option):
            common += [f"--{option.replace('_', '-')}", str(value)]
    for method, own in sweep.methods.items():
        mine = _settings_of(method)
        grid = {name: values for name, values in sweep.settings.items() if name in mine or name in TRAINING} | dict(own)
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            study.student.replace(**{name: value for name, value in point.items() if name in TRAINING})
            untaught = study.create_method(method, **{name: value for name, value in point.items() if name in mine})
            teachers = list(_teachers(untaught, prefix, spec, common))
            yield from teachers
            varied = [f"{name}={_text(value)}" for name, value in point.items() if len(grid[name]) > 1]
            group = " ".join([method, *varied])
            changes = [text for name, value in point.items() for text in ("--set", f"{name}={_text(value)}")]
            for seed in sweep.seeds or study.seeds:
                arguments = ("--method", method, "--seed", str(seed), *common, *changes)
                needs = tuple(task.name for task in teachers)
                yield Task(_file_name(f"{prefix}{group} seed={seed}"), arguments, needs, spec, group)


def _teachers(method: Method, prefix: str, spec: str, common: list[str]) -> Iterator[Task]:
    """A task for each model that the method needs."""
    for role in method.required_teachers:
        if role == "teacher":
            yield Task(_file_name(f"{prefix}teacher"), ("--role", "teacher", *common), data=spec, group="teacher")
            continue
        k, tau = division(role, method)
        divided = () if role == "whole" else ("--set", f"k={k}", "--set", f"tau={tau}")
        for number in range(1, k + 1):
            name = f"{prefix}{role} part={number}of{k}" + ("" if role == "whole" else f" tau={tau}")
            arguments = ("--method", method.name, "--role", "part", "--part", f"{role}:{number}", *common, *divided)
            yield Task(_file_name(name), arguments, data=spec)


def _settings_of(method: str) -> list[str]:
    kind = METHODS[method]
    return [field.name for field in fields(kind) if field.name not in kind.required_teachers]


def _check_names(sweep: Sweep) -> None:
    """Every setting must belong to the training or to a method: its own, or for `settings` any of the sweep's."""
    scopes = {f"methods: {name}": (grid, _settings_of(name)) for name, grid in sweep.methods.items()}
    scopes["settings"] = (sweep.settings, [setting for name in sweep.methods for setting in _settings_of(name)])
    for where, (grid, known) in scopes.items():
        for name in grid:
            if name not in known and name not in TRAINING:
                raise ValueError(
                    f"`{where}` has {name!r}, which is no setting of the training or of {', '.join(sweep.methods)}. "
                    f"Did you mean {closest_match(name, [*known, *TRAINING])!r}?"
                )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _file_name(text: str) -> str:
    """The text as a file's name; what cannot stand in one is left out, and a hash then keeps names apart."""
    name = re.sub(r"[^A-Za-z0-9._=]+", "-", text).strip("-.")[:120]
    plain = text.replace(" ", "-")
    return name if name == plain else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


# Reading the values of the file


def setting_value(text: str) -> Any:
    """A number, true, false, a list or a mapping in JSON's notation, else the word itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _grid(key: str, value: Any) -> dict[str, tuple[Any, ...]]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"`{key}` is {value!r}, expected a mapping from a setting's name to its values.")
    grid = {str(name): tuple(values) if isinstance(values, list) else (values,) for name, values in value.items()}
    for name, values in grid.items():
        if not values:
            raise ValueError(f"`{key}` has no value for {name!r}; leave it out, or give at least one.")
    return {name: tuple(setting_value(v) if isinstance(v, str) else v for v in grid[name]) for name in grid}


def _grids(key: str, value: Any) -> dict[str, Grid]:
    names = [value] if isinstance(value, str) else value
    grids = dict.fromkeys(names) if isinstance(names, list) and all(isinstance(n, str) for n in names) else value
    if not grids or not isinstance(grids, dict):
        raise ValueError(f"`{key}` is {value!r}, expected a list of methods, or a mapping from methods to settings.")
    return {str(name): _grid(f"{key}: {name}", grid) for name, grid in grids.items()}


def _texts(key: str, value: Any) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"`{key}` is {value!r}, expected a text such as scenes or voc:/path, or a list of them.")
    return tuple(texts)


def _seeds(key: str, value: Any) -> tuple[int, ...]:
    seeds = value if isinstance(value, list) else [*range(value)] if _whole(value) else []
    if not seeds or not all(_whole(seed) for seed in seeds):
        raise ValueError(f"`{key}` is {value!r}, expected how many (at least 1), or a list of whole numbers.")
    return tuple(seeds)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _name(key: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", value):
        raise ValueError(f"`{key}` is {value!r}, expected letters, digits, '.', '_' and '-': it names a folder.")
    return value


def _cpus(key: str, value: Any) -> int:
    if not _whole(value) or value < 1:
        raise ValueError(f"`{key}` is {value!r}, expected a whole number of at least 1.")
    return value


def _gpus(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"`{key}` is {value!r}, expected a number, 0 or more.")
    return float(value)


def _plain(key: str, value: Any) -> Any:
    if key == "image_size":
        if _whole(value):
            return value
        raise ValueError(f"`{key}` is {value!r}, expected a whole number of pixels.")
    if not isinstance(value, str):
        raise ValueError(f"`{key}` is {value!r}, expected a text.")
    return value


_READERS = {
    "name": _name,
    "methods": _grids,
    "settings": _grid,
    "data": _texts,
    "seeds": _seeds,
    "cpus": _cpus,
    "gpus": _gpus,
}
