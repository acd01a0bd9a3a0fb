"""Extensions register themselves: in modules of the package, in plugin files, in installed packages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import mlkd
from mlkd import registry
from mlkd.methods import METHODS
from mlkd.models import create_model
from mlkd.registry import Registry, load_installed_plugins, load_plugin

pytestmark = pytest.mark.usefixtures("own_cache")

PLUGIN = """
from mlkd.methods import Vanilla, register_method
from mlkd.models.cifar_resnet import CifarResNet
from timm.models import register_model


@register_model
def NAME(pretrained=False, **settings):
    return CifarResNet(blocks=1, widths=(8, 8, 12))


@register_method("NAME")
class Extended(Vanilla):
    margin: float = 2.0
"""


@pytest.fixture
def write_plugin(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A function that writes a plugin with a backbone and a method of the given name."""
    names = []

    def write(name: str, file: str = "plugin.py") -> str:
        names.append(name)
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(PLUGIN.replace("NAME", name))
        return str(path)

    yield write
    for name in names:
        METHODS.entries.pop(name, None)
    for module in [module for module in sys.modules if module.startswith("mlkd_plugin_")]:
        del sys.modules[module]


def test_a_registry_loads_the_modules_of_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_shapes"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from mlkd.registry import Registry\nSHAPES = Registry('shape', 'some_shapes')\n"
    )
    (package / "round.py").write_text("from some_shapes import SHAPES\n\n\n@SHAPES.register('ball')\nclass Ball: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    from some_shapes import SHAPES  # type: ignore[import-not-found]

    assert not SHAPES.entries  # nothing is imported before the first lookup
    assert list(SHAPES) == ["ball"]
    assert "ball" in SHAPES
    assert "cube" not in SHAPES
    assert SHAPES["ball"].__name__ == "Ball"
    with pytest.raises(ValueError, match=r"`shape` is 'bal', expected one of ball. Did you mean 'ball'\?"):
        SHAPES["bal"]


def test_a_plugin_registers_backbones_and_methods(write_plugin: Callable[..., str]) -> None:
    path = write_plugin("net_of_a_plugin")
    for _ in range(2):  # the second time changes nothing
        overrides = {"plugins": [path], "student.backbone": "net_of_a_plugin", "net_of_a_plugin.margin": 3.0}
        study = mlkd.create_study("full", overrides=overrides)
    assert study.student.backbone == "net_of_a_plugin"
    assert create_model("net_of_a_plugin", ("a", "b"), image_size=32).backbone.width == 12
    assert study.build_method("net_of_a_plugin").settings()["margin"] == 3.0


def test_two_plugins_with_the_same_file_name_are_both_loaded(write_plugin: Callable[..., str]) -> None:
    load_plugin(write_plugin("net_in_a", "a/plugin.py"))
    load_plugin(write_plugin("net_in_b", "b/plugin.py"))
    assert {"net_in_a", "net_in_b"} <= set(METHODS)


def test_a_missing_plugin_is_named(tmp_path: Path) -> None:
    (tmp_path / "plugin.txt").write_text("")
    for path in (tmp_path / "absent.py", tmp_path, tmp_path / "plugin.txt"):
        with pytest.raises(ValueError, match=r"`plugin` is .*expected a Python file") as caught:
            load_plugin(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\nraise KeyError('radius')", "failed: KeyError in line 2: 'radius'"),
        ("import sys\nsys.exit(0)", "failed: SystemExit in line 2: 0"),
        ("def broken(:", "failed: SyntaxError: invalid syntax"),
    ],
)
def test_a_plugin_that_fails_is_named_and_can_be_loaded_again(
    source: str, message: str, tmp_path: Path, write_plugin: Callable[..., str]
) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(source)
    with pytest.raises(ValueError, match=r"plugin\.py failed: ") as caught:
        load_plugin(path)
    assert message in str(caught.value)
    name = f"net_after_{message.split()[1].strip(':')}"
    load_plugin(write_plugin(name))
    assert name in METHODS


def test_installed_packages_register_through_entry_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_plugin: Callable[..., str]
) -> None:
    write_plugin("net_of_a_package", "package_with_a_plugin.py")
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("shapes", "package_with_a_plugin", registry.ENTRY_POINTS)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "mlkd.plugins" else [])
    load_installed_plugins.cache_clear()
    load_installed_plugins()
    assert "net_of_a_package" in METHODS
    points[:] = [EntryPoint("shapes", "package_that_is_absent", registry.ENTRY_POINTS)]
    load_installed_plugins.cache_clear()
    with pytest.raises(ValueError, match=r"The plugin 'shapes' \(package_that_is_absent\) failed: ModuleNotFoundError"):
        load_installed_plugins()
    load_installed_plugins.cache_clear()


def test_registries_hold_what_the_package_offers() -> None:
    assert isinstance(METHODS, Registry)
    assert {"vanilla", "l2d", "mdkd", "cpsd", "mskd"} <= set(METHODS)
    assert len(METHODS) == len(list(METHODS))
