"""The ways in agree with each other, and `import mlkd` loads no more than it must."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()

HEAVY = (
    *("papermill", "nbconvert", "nbclient", "pytorch_grad_cam", "ipywidgets", "jupyterlab", "ipykernel"),
    *("seaborn", "accelerate", "matplotlib.pyplot"),
)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names_and_bounds(requirements: Iterable[str]) -> dict[str, str]:
    """Name -> version specifier: "torch>=2.6" gives torch: ">=2.6"."""
    found = {}
    for requirement in requirements:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)\s*((?:>=[\d.]+)?)", requirement)
        assert match, f"{requirement!r} is not a name and a lower bound"
        found[normal(match[1])] = match[2]
    return found


# environment.yml, pyproject.toml, requirements.lock


def test_conda_and_pip_install_the_same() -> None:
    listed = [entry for entry in CONDA["dependencies"] if isinstance(entry, str)]
    (from_pip,) = (entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict))
    assert from_pip[-1] == "-e ."
    conda = names_and_bounds([*listed, *from_pip[:-1]])
    assert len(conda) == len(listed) + len(from_pip) - 1  # nothing twice
    assert conda.pop("python") == PROJECT["requires-python"]
    assert "pip" in conda
    del conda["pip"]
    conda["matplotlib"] = conda.pop("matplotlib-base")  # conda's matplotlib brings a whole toolkit for windows
    extras = PROJECT["optional-dependencies"]
    wanted = names_and_bounds([*PROJECT["dependencies"], *extras["notebooks"], *extras["export"], *extras["tune"]])
    assert conda == wanted
    assert all(wanted.values()), "every dependency has a lower bound"


def test_conda_uses_free_channels_only() -> None:
    assert CONDA["name"] == "mlkd"
    assert set(CONDA["channels"]) == {"conda-forge", "nodefaults"}
    assert "::" not in (ROOT / "environment.yml").read_text()


def test_every_dependency_is_locked_with_hashes() -> None:
    blocks = re.split(r"\n(?=\S)", LOCK.replace("\\\n", " ").strip())
    locked = {}
    for block in blocks:
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", block)
        assert match, f"{block[:80]!r} is not a pinned package"
        hashes = re.findall(r"--hash=sha256:[0-9a-f]{64}(?=\s|$)", block)
        assert hashes, f"{match[1]} has no hash"
        assert len(hashes) == block.count("--hash")
        locked.setdefault(normal(match[1]), []).append(match[2])
    extras = PROJECT["optional-dependencies"]
    direct = names_and_bounds([*PROJECT["dependencies"], *(name for extra in extras.values() for name in extra)])
    assert direct.keys() <= locked.keys()
    for name, bound in direct.items():
        least = tuple(map(int, re.findall(r"\d+", bound)))
        for version in locked[name]:
            assert tuple(map(int, re.findall(r"\d+", version)))[: len(least)] >= least, f"{name} {version} {bound}"


def test_the_lock_names_no_place_on_the_network() -> None:
    for word in ("http://", "https://", "index-url", "find-links", "trusted-host", "file:", "@"):
        assert word not in LOCK


# The Makefile

make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def run_make(*arguments: str, **settings) -> str:
    """The output of `make`, without the variables of the `make test` that may have started this."""
    outer = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS")
    env = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True, **settings).stdout


def made(*arguments: str) -> str:
    """The last line that `make` would run."""
    return run_make("-n", *arguments).strip().splitlines()[-1]


def pairs(line: str) -> tuple[str, dict[str, str]]:
    command, *words = shlex.split(line)
    assert words[0] == "report"
    return command, dict(zip(words[1::2], words[2::2], strict=True))


@make
def test_make_report_hands_on_its_variables() -> None:
    line = made("report", "DATA=coco:/x", "STUDY=full", "SEEDS=5")
    for part in ("--data 'coco:/x'", "--study 'full'", "--seeds '5'"):
        assert part in line
    command, options = pairs(line)
    assert command.endswith("mlkd")
    assert options == {"--data": "coco:/x", "--study": "full", "--seeds": "5"}
    assert pairs(made("report")) == (command, {})
    assert pairs(made()) == (command, {})  # the default
    assert pairs(made("report", "PYTHON=python3.12", "TIMEOUT=64")) == (command, {"--timeout": "64"})


@make
def test_make_report_hands_on_a_switch() -> None:
    words = shlex.split(made("report", "NO_TRAIN=1", "DATA=coco:/x"))[2:]
    assert sorted(words) == ["--data", "--no-train", "coco:/x"]
    assert words[words.index("--data") + 1] == "coco:/x"


@make
@pytest.mark.parametrize(
    "data", ["voc:/x?year=2007&difficult=ignore", "voc:/my images/VOC", "voc:/my dir/a=b/VOC?year=1"]
)
def test_make_report_keeps_a_path_whole(data: str) -> None:
    assert pairs(made("report", f"DATA={data}"))[1] == {"--data": data}


@make
def test_make_caches_bytecode_where_the_environment_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    target = "include Makefile\nshow:\n\t@echo [$$PYTHONDONTWRITEBYTECODE]\n"
    assert run_make("-s", "-f", "-", "show", input=target).split() == ["[]"]


@make
def test_every_target_is_known_to_make() -> None:
    for target in ("setup", "test", "check", "lint", "types", "lab", "bench", "lock", "teacher"):
        made(target)


def test_the_folders_that_make_lints_exist() -> None:
    text = (ROOT / "Makefile").read_text()
    folders = [set(match.split()) for match in re.findall(r"ruff (?:check|format --check) (.*)", text)]
    assert folders
    for name in set.union(*folders):
        assert (ROOT / name).is_dir(), f"make lint looks at {name}"


# The package


def loaded_by(code: str) -> set[str]:
    program = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(result.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    everything = "import mlkd\nfor name in mlkd.__all__: getattr(mlkd, name)"
    loaded = loaded_by(everything)
    assert {"mlkd", "torch", "timm"} <= loaded
    assert not loaded.intersection(HEAVY)


LAZY = ("mlkd", "mlkd.analysis", "mlkd.data", "mlkd.losses", "mlkd.methods", "mlkd.models", "mlkd.plots", "mlkd.study")


@pytest.mark.parametrize("package", LAZY)
def test_public_names_are_those_of_the_stub(package: str) -> None:
    """The stub is what type checkers read; each of its names can be imported and is the object in its module."""
    loaded = importlib.import_module(package)
    stub = ast.parse((ROOT / package.replace(".", "/") / "__init__.pyi").read_text())
    imports = {alias.name: n.module for n in ast.walk(stub) if isinstance(n, ast.ImportFrom) for alias in n.names}
    (names,) = (ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    assert sorted(names) == sorted(imports) == sorted(loaded.__all__)
    for name, module in imports.items():
        expected = importlib.import_module(f"{package}.{module}" if module else f"{package}.{name}")
        assert getattr(loaded, name) is (getattr(expected, name) if module else expected), name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = loaded.no_such_name


def test_no_device_is_hard_coded() -> None:
    for path in (ROOT / "mlkd").rglob("*.py"):
        text = path.read_text()
        for word in (".cuda(", '"cuda', "'cuda", '"mps', "torch.cuda"):
            assert word not in text, f"{path.name} has {word}"


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_without_spinning_unless_the_user_decides(given: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    command = [sys.executable, "-c", "import mlkd, os; print(os.environ['OMP_WAIT_POLICY'])"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == expected
