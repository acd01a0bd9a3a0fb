"""Every option and argument of every command with a wrong value: an error that names it, and no traceback."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import pytest
from typer.models import ArgumentInfo, ParameterInfo

from mlkd import cli

pytestmark = pytest.mark.usefixtures("own_cache")


class Parameter(NamedTuple):
    """An option or argument of a command: its type without None, its name on the command line, and its minimum."""

    command: str
    name: str
    kind: Any
    option: str
    minimum: float | None


def parameters() -> Iterator[Parameter]:
    """All parameters, from the signatures of the commands."""
    groups = [(f"{group.name} ", group.typer_instance) for group in cli.cli.registered_groups]
    for prefix, app in [("", cli.cli), *groups]:
        for command in app.registered_commands if app else ():
            assert command.callback is not None
            name = prefix + (command.name or command.callback.__name__)
            hints = get_type_hints(command.callback, include_extras=True)
            for parameter in inspect.signature(command.callback).parameters:
                assert get_origin(hints[parameter]) is Annotated
                kind, info = get_args(hints[parameter])[:2]
                assert isinstance(info, ParameterInfo)
                if get_origin(kind) in (Union, UnionType):
                    kind = get_args(kind)[0]
                # in an annotation the first name is in `default`
                declared = [text for text in (info.default, *(info.param_decls or ())) if str(text).startswith("--")]
                option = "" if isinstance(info, ArgumentInfo) else (declared or [f"--{parameter.replace('_', '-')}"])[0]
                yield Parameter(name, parameter, kind, option, info.min)


REQUIRED = {
    "data check": ["scenes"],
    "cache-teacher": ["mlkd:scenes_teacher", "outputs"],
    "sweep": ["sweep.yml", "--dry-run"],
    "table": ["sweep.yml"],
    "tune": ["tuning.yml"],
    "export": ["run", "model.safetensors"],
    "predict": ["mlkd:scenes_teacher", "image.png"],
}
"""The arguments that a command requires."""

TEXTS: dict[str, tuple[str, str]] = {
    "study": ("quik", "Did you mean 'quick'?"),
    "data": ("scene", "Did you mean `scenes`?"),
    "set_": ("student.epochs", "`--set` is 'student.epochs', expected a key and a value"),
    "plugin": ("absent.py", "`plugin` is 'absent.py', expected a Python file"),
    "method": ("vanila", "Did you mean 'vanilla'?"),
    "methods": ("l2b", "`methods` is 'l2b'"),
    "role": ("techer", "Did you mean 'teacher'?"),
    "label_subset": ("cgp", "`--label-subset` is 'cgp', expected a strategy and a number"),
    "counts": ("absent.npz", "absent.npz"),
    "recipes name": ("l2d-coco", "There is no study 'l2d-coco'"),
    "report name": ("../x", "`name` is '../x', expected the name of one folder."),
    "sweep file": ("absent.yml", "absent.yml: cannot be read (No such file or directory)"),
    "table file": ("absent.yml", "absent.yml: cannot be read (No such file or directory)"),
    "tune file": ("absent.yml", "absent.yml: cannot be read (No such file or directory)"),
    "to": ("wab", "`--to` is 'wab'"),
}
"""A wrong text for each parameter, by its name, and a part of the message."""

NOT_CHECKED = {
    "train runs": "a folder that is created",
    "train run_file": "a file that is created",
    "train export": "tests/test_cli.py: the model is written after the training",
    "cache-teacher model": "tests/models/test_damaged_models.py",
    "cache-teacher folder": "tests/training/test_teachers.py",
    "report runs": "a folder that is created",
    "runs folder": "a folder without runs is no error",
    "study show data": "the data are not read",
    "sweep executor": "tests/study: it is created when the sweep starts",
    "sweep runs": "a folder that is created",
    "data check write": "tests/data/test_write_table.py",
    "tune executor": "tests/study: it is created when the tuning starts",
    "tune runs": "a folder that is created",
    "table runs": "a folder without runs is no error",
    "table plot": "the file is written after the table is printed",
    "sweep data": "the data of a sweep are read when it starts",
    "export run": "tests/test_cli.py",
    "export file": "tests/deploy",
    "export data": "tests/deploy",
    "export teacher": "tests/deploy",
    "export runtime": "tests/deploy",
    "predict model": "tests/deploy",
    "predict images": "tests/deploy",
}
"""Parameters whose values are files and folders, which other tests check; or for which no value is wrong."""


def wrong_values() -> Iterator[tuple[str, list[str], str]]:
    """The command with each wrong value: its id, its arguments, and a part of the message."""
    for command, name, kind, option, minimum in parameters():
        key = f"{command} {name}"
        required, words = REQUIRED.get(command, []), command.split()
        if kind is bool:
            yield f"{key}=3", [*words, *required, f"{option}=3"], option
        elif kind in (int, float):
            yield f"{key}=x", [*words, *required, option, "x"], option
            if minimum is not None:
                yield f"{key}=-1", [*words, *required, option, str(minimum - 1)], option
        elif key not in NOT_CHECKED:
            value, message = TEXTS[key] if key in TEXTS else TEXTS[name]
            values = [option, value] if option else [value]
            yield f"{key}={value}", [*words, *(required if option else []), *values], message


CASES = {name: (arguments, message) for name, arguments, message in wrong_values()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yml").write_text("study: smoke\nmethods: [vanilla]\n")
    space = "space: {student.lr: [0.006, 0.01]}\n"
    (tmp_path / "tuning.yml").write_text(f"study: smoke\nmethods: [vanilla]\n{space}")
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_value_is_named(case: str, folder: Path, run_cli: Callable[..., tuple[int, str]]) -> None:
    arguments, message = CASES[case]
    code, error = run_cli(*arguments)
    assert message in " ".join(error.replace("│", " ").split())
    assert code == 2
    assert "Traceback" not in error
    assert {path.name for path in folder.iterdir()} == {"sweep.yml", "tuning.yml"}


@pytest.mark.parametrize("command", sorted({parameter.command for parameter in parameters()}))
def test_unknown_options_and_missing_arguments_are_refused(
    command: str, run_cli: Callable[..., tuple[int, str]]
) -> None:
    code, error = run_cli(*command.split(), *REQUIRED.get(command, []), "--nonsense")
    assert code == 2
    assert "--nonsense" in error
    if command in REQUIRED:
        code, error = run_cli(*command.split())
        assert code == 2
        assert "Missing argument" in error


def test_parameters_that_are_not_checked_exist() -> None:
    keys = {f"{parameter.command} {parameter.name}" for parameter in parameters()}
    assert set(NOT_CHECKED) <= keys
    assert {key for key in TEXTS if " " in key} <= keys


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs the command in this process: its exit code, and what it prints on standard error."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mlkd", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.app()
        return int(caught.value.code or 0), capsys.readouterr().err

    return run
