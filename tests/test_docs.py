"""README, docs and examples: their commands exist, their code runs, their table is that of the notebooks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
import torch
import typer
from PIL import Image

import mlkd
from mlkd.cli import cli
from mlkd.models import create_model
from mlkd.notebook.series import notebooks
from mlkd.registry import load_plugin
from mlkd.study.sweep import load_sweep

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", path.read_text(), re.M | re.S)


COMMANDS = sorted(
    {
        (path.name, line.split("  #")[0].strip())
        for path in [*TEXTS, *sorted((ROOT / "examples").glob("*.py"))]
        for block in (code_blocks(path, "sh") if path.suffix == ".md" else [path.read_text()])
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip().startswith("mlkd ")
    }
)


@pytest.mark.parametrize(("file", "line"), COMMANDS)
def test_commands_have_the_options_of_the_command_line(file: str, line: str) -> None:
    command: click.Command = typer.main.get_command(cli)
    words = shlex.split(line)[1:]
    context = click.Context(command)
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"{file}: there is no command {name!r}"
        command = command.commands[name]
    command.make_context("mlkd", words, parent=context)  # parses the options and runs nothing


@pytest.mark.usefixtures("own_cache")
def test_python_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = code_blocks(ROOT / "README.md", "python")
    assert '"quick"' in code
    exec(compile(code.replace('"quick"', '"smoke"'), "README.md", "exec"), {})
    assert "mAP" in capsys.readouterr().out


def test_study_of_the_readme(tmp_path: Path) -> None:
    (text,) = code_blocks(ROOT / "README.md", "yaml")
    path = tmp_path / "mine.yml"
    path.write_text(text)
    study = mlkd.create_study(path)
    assert (study.student.epochs, study.seeds) == (40, (0, 1, 2))


def test_study_of_the_docs(tmp_path: Path) -> None:
    (text,) = code_blocks(ROOT / "docs" / "training.md", "yaml")
    path = tmp_path / "mine.yml"
    path.write_text(text)
    study = mlkd.create_study(path)
    assert (study.train_split, study.teacher.select, study.student.select) == ("trainval", "last", "last")


def test_sweep_of_the_docs(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yml"
    methods = []
    for text in code_blocks(ROOT / "docs" / "sweeps.md", "yaml"):
        path.write_text(text)
        methods.append(load_sweep(path).methods)
    assert methods == [("vanilla", "l2d", "cpsd"), ("vanilla", "l2d")]


def test_the_papers_page_lists_every_file() -> None:
    files = sorted(file.name for file in (ROOT / "examples" / "papers").glob("*.yml"))
    listed = re.findall(r"\[([\w-]+\.yml)\]\(\.\./examples/papers/\1\)", (ROOT / "docs" / "papers.md").read_text())
    assert sorted(listed) == files


def test_table_of_the_readme_is_that_of_the_notebooks() -> None:
    rows = [
        f"| [{n.number} {n.topic}](notebooks/{n.path.name}) | {n.question} |" for n in notebooks(ROOT / "notebooks")
    ]
    text = (ROOT / "README.md").read_text()
    assert len(rows) == text.count("](notebooks/") - text.count("](notebooks/solutions")
    assert "\n".join(rows) in text


def test_relative_links_exist() -> None:
    for path in TEXTS:
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            assert link.startswith("https://") or (path.parent / link).exists(), f"{path.name}: {link}"


@pytest.mark.usefixtures("own_cache")
def test_example_method(toy_teacher: mlkd.models.MultiLabelModel, toy_data, toy_config, tmp_path: Path) -> None:
    load_plugin(ROOT / "examples" / "cosine_method.py")
    method = mlkd.methods.create_method("cosine", teacher=toy_teacher)
    run = mlkd.fit(method, toy_data, toy_config, runs=tmp_path)
    losses = run.history["cosine"]
    assert losses.iloc[-1] < losses.iloc[0]


def test_example_reader(tmp_path: Path) -> None:
    load_plugin(ROOT / "examples" / "csv_reader.py")
    lines = ["split,image,labels"]
    for index in range(30):
        Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(tmp_path / f"{index}.png")
        lines.append(f"{'train' if index < 20 else 'test'},{index}.png,{'dog;cat' if index % 2 else 'cat'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    splits = mlkd.load_data(f"csv:{tmp_path}")
    assert {"train", "val", "test"} <= set(splits)
    assert splits["test"].classes == ("cat", "dog")
    assert splits["test"].targets.tolist() == [[1, index % 2] for index in range(20, 30)]


def test_example_head() -> None:
    load_plugin(ROOT / "examples" / "max_pool_head.py")
    model = create_model("resnet8_cifar", ("a", "b"), "max_pool", image_size=32, head_settings={"dropout": 0.1})
    assert model.eval()(torch.zeros(2, 3, 32, 32)).logits.shape == (2, 2)
