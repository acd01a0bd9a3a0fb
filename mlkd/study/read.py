"""From a name, a file or a mapping to a study's plain settings: `base` studies are merged, dotted keys override."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mlkd.errors import closest_match
from mlkd.methods import METHODS
from mlkd.study.yaml_files import read_yaml
from mlkd.training.config import Config

FILES = Path(__file__).parent / "files"
PRESETS = ("smoke", "quick", "full")
SECTIONS = ("teacher", "student", "label_subsets", "methods")
LISTS = ("notes", "plugins")
MAX_SEEDS = 10_000


def read_study(study: str | Path | Mapping[str, Any], data: str = "", derived: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings of a study as nested plain values, merged with those of its base studies.

    Args:
        study: a preset, a recipe, a YAML file, or a mapping with the same keys.
        data: the data address, on which a preset depends; "" for the study's own.
        derived: the studies that this one is the base of.

    Raises:
        ValueError: an unknown name (the closest is given), a file that is not a mapping in YAML, a section of the
            wrong kind, or a study that is its own base.
    """
    content = dict(study) if isinstance(study, Mapping) else _read(str(study), data)
    content = {**{key: {} for key in SECTIONS}, **check_sections(content, file_prefix(study))}
    content["methods"] = {name: settings or {} for name, settings in content["methods"].items()}
    base = content.pop("base", "")
    if not base:
        return content
    if str(base) in (*derived, str(study)) and base not in PRESETS:
        raise ValueError(f"{file_prefix(study)}`base` is {base!r}, which is based on this study itself.")
    try:
        base_content = read_study(base, data or content.get("data", ""), (*derived, str(study)))
    except ValueError as error:
        raise ValueError(f"{file_prefix(study)}{error}") from None
    return merge(base_content, content)


def check_sections(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The content itself.

    Raises:
        ValueError: a section is not a mapping, a list is not a list of texts, or a text is not a text.
    """
    for key, value in content.items():
        if key in (*SECTIONS, "reported") and not isinstance(value, dict):
            raise ValueError(f"{prefix}`{key}` is {value!r}, expected a mapping.")
        if key in (*SECTIONS, "reported") and not all(isinstance(name, str) for name in value):
            raise ValueError(f"{prefix}`{key}` is {value!r}, expected texts as keys.")
        if key in LISTS and not (isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)):
            raise ValueError(f"{prefix}`{key}` is {value!r}, expected a list of texts.")
        if key in ("base", "data") and not isinstance(value, str):
            raise ValueError(f"{prefix}`{key}` is {value!r}, expected a text.")
    return content


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`; mappings are merged key by key, notes and plugins are appended, the rest is replaced.

    Another backbone drops the settings and the weight file of the base's backbone. A change of the teacher drops the
    base's `teacher_model`, so that the changed teacher is trained.
    """
    merged = dict(base)
    for section in ("teacher", "student"):
        old, new = base.get(section) or {}, changes.get(section) or {}
        if new.get("backbone", old.get("backbone")) != old.get("backbone"):
            merged[section] = {**old, "backbone_settings": {}, "pretrained": bool(old.get("pretrained", True))}
    merged = _merge_mappings(merged, changes)
    if changes.get("teacher") and "teacher_model" not in changes:
        merged["teacher_model"] = ""
    for key in LISTS:
        if key in changes:
            merged[key] = [*base.get(key, ()), *changes[key]]
    return merged


def _merge_mappings(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, key by key at every level."""
    merged = {**base, **changes}
    for key, value in changes.items():
        if isinstance(value, dict):
            old = base.get(key)
            merged[key] = _merge_mappings(old if isinstance(old, Mapping) else {}, value)
    return merged


def nested(overrides: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Overrides with dotted keys as a study's nested settings: "student.epochs", "l2d.lambda_cd", "seeds".

    Args:
        overrides: dotted key -> value.
        known: the names of a study's own settings.

    Raises:
        ValueError: a key that begins with neither a setting of the study nor a method; the closest is given.
    """
    known = list(known)
    content: dict[str, Any] = {}
    for key, value in overrides.items():
        first, *rest = key.split(".")
        if first not in known and first not in METHODS:
            settings = [f"student.{setting}" for setting in Config.model_fields]
            settings += [f"{name}.{setting}" for name in METHODS for setting in METHODS[name].setting_names()]
            raise ValueError(f"There is no setting {key!r}. Did you mean {_closest_key(key, [*known, *settings])!r}?")
        path = [first, *rest] if first in known else ["methods", first, *rest]
        section = content
        for name in path[:-1]:
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise ValueError(f"{key!r} cannot be set, because `{name}` is set to {section!r}.")
        section[path[-1]] = value
    return content


def parse_override(text: str) -> tuple[str, Any]:
    """`student.epochs=5` as ("student.epochs", 5).

    Raises:
        ValueError: no equals sign.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"`--set` is {text!r}, expected a key and a value, as in student.epochs=5.")
    return key, parse_value(value)


def parse_value(text: str) -> Any:
    """A number, true, false, a list or a mapping in JSON's notation, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def format_value(value: Any) -> str:
    """The text that `parse_value` reads as this value."""
    return value if isinstance(value, str) else json.dumps(value)


def count_seeds(seeds: Any) -> Any:
    """The seeds 0 to n - 1 for a number n, else the seeds themselves.

    Raises:
        ValueError: more than `MAX_SEEDS`.
    """
    if type(seeds) is int and seeds > MAX_SEEDS:
        raise ValueError(f"`seeds` is {seeds}, expected at most {MAX_SEEDS} seeds.")
    return range(seeds) if type(seeds) is int and seeds > 0 else seeds


def file_prefix(study: object) -> str:
    """The beginning of an error message about a study: its file, if it is one."""
    return f"{study}: " if str(study).endswith((".yml", ".yaml")) else ""


@cache
def recipe_files() -> dict[str, Path]:
    """The recipes by name, such as "l2d-coco-r101-r34": one study for each row of the papers' tables."""
    files = sorted((FILES / "recipes").glob("*/*.yml"))
    return {f"{file.parent.name}-{file.stem}": file for file in files}


@cache
def unavailable_recipes() -> dict[str, str]:
    """Rows of the papers' tables without a recipe: name -> the reason."""
    return read_yaml(FILES / "recipes" / "unavailable.yml")


def _read(study: str, data: str) -> dict[str, Any]:
    """The content of a preset, a recipe or a file."""
    if study in PRESETS:
        family = "scenes" if data.split("?")[0] in ("", "scenes") else "images"
        return {"name": study, **read_yaml(FILES / "presets" / family / f"{study}.yml")}
    if study in recipe_files():
        return {"name": study, **read_yaml(recipe_files()[study])}
    if study in unavailable_recipes():
        raise ValueError(f"There is no recipe {study!r}: {unavailable_recipes()[study]}")
    if study.endswith((".yml", ".yaml")) or Path(study).is_file():
        return {"name": Path(study).stem, **read_yaml(Path(study).expanduser())}
    names = [*PRESETS, *recipe_files()]
    raise ValueError(
        f"There is no study {study!r}, expected smoke, quick, full, a recipe of `mlkd recipes`, or a .yml file. "
        f"Did you mean {closest_match(study, names)!r}?"
    )


def _closest_key(key: str, known: list[str]) -> str:
    """The known key that is meant: one that ends in the same name, else the one spelled most alike."""
    same = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    return closest_match(key, same or known)
