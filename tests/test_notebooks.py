"""Every notebook is committed clean, and runs by itself in preset `smoke`."""

from __future__ import annotations

import ast
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import mlkd

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("papermill")

from mlkd.report.execute import execute  # noqa: E402
from mlkd.report.screen import Screen  # noqa: E402

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters_of(notebook) -> dict[str, object]:
    """The plain values that the cell tagged `parameters` assigns."""
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    found = {}
    for line in ast.parse(cell.source).body:
        assert isinstance(line, ast.Assign), f"{ast.unparse(line)!r} is no plain assignment"
        (name,) = line.targets
        assert isinstance(name, ast.Name)
        found[name.id] = ast.literal_eval(line.value)
    return found


def solutions_of(path: Path) -> list[str]:
    """The code that a notebook's solutions put in the place of `answer = None`, in the order of its exercises."""
    solutions = path.parent / "solutions" / f"{path.stem}.md"
    return re.findall(r"```python\n(.+?)```", solutions.read_text(), re.DOTALL)


def exercises_of(notebook) -> list:
    return [cell for cell in code_cells(notebook) if "exercise" in cell.metadata.get("tags", ())]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS[0].name == "00_start_here.ipynb"
    numbers = [path.name[:2] for path in NOTEBOOKS]
    assert len(set(numbers)) == len(numbers)
    assert len(NOTEBOOKS) == len(list(NOTEBOOKS[0].parent.glob("*.ipynb")))


@each_notebook
def test_a_notebook_is_committed_clean(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
        assert cell.source.strip()
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@each_notebook
def test_a_notebook_has_the_form_of_the_series(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    first, *_ = code_cells(notebook)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert tagged == [first]
    parameters = parameters_of(notebook)
    if path != NOTEBOOKS[0]:
        assert {"data", "preset", "seeds", "runs"} <= parameters.keys()
        assert (parameters["data"], parameters["preset"]) == ("scenes", "quick")
    title = notebook.cells[0]
    assert title.cell_type == "markdown"
    assert title.source.startswith("# ")
    for cell in notebook.cells:
        lines = cell.source.count("\n") + 1
        assert lines <= 25, f"a cell of {lines} lines: {cell.source[:60]!r}"
    assert "filterwarnings" not in path.read_text()


def test_each_notebook_names_an_existing_one_as_the_next() -> None:
    for path, following in pairwise(NOTEBOOKS):
        last = nbformat.read(path, 4).cells[-1]
        assert f"Next: `{following.stem}`" in last.source, path.stem


@each_notebook
def test_a_notebook_ends_with_exercises(path: Path) -> None:
    exercises = exercises_of(nbformat.read(path, 4))
    assert len(exercises) in (2, 3)
    for cell in exercises:
        assert len(re.findall(r"^answer = None( |$)", cell.source, re.MULTILINE)) == 1
        assert re.fullmatch(r"exercises\.check_\w+\(answer\b.*\)", cell.source.splitlines()[-1])
    assert len(solutions_of(path)) == len(exercises)


# Running


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all notebooks of this process: a network that one has trained, the next ones read."""
    return tmp_path_factory.mktemp("notebooks") / "runs"


def peak_memory() -> str:
    """The most that any process started here has used so far."""
    if sys.platform == "win32":
        return ""
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return f", at most {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit:.0f} MiB"


@pytest.fixture
def answered(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the notebook in which each exercise, still empty, is followed by its solution."""
    notebook = nbformat.read(path, 4)
    for cell, solution in zip(exercises_of(notebook), solutions_of(path), strict=True):
        source = re.sub(r"^answer = None.*$", lambda _, text=solution: text, cell.source, flags=re.MULTILINE)
        copy = nbformat.v4.new_code_cell(source, metadata={"tags": ["solution"]})
        notebook.cells.insert(notebook.cells.index(cell) + 1, copy)
    target = tmp_path_factory.mktemp("answered") / path.name
    nbformat.write(notebook, target)
    return target


@pytest.fixture
def bare_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin that takes from the scenes what other data may lack: the boxes and the split without companions."""
    plugin = tmp_path_factory.mktemp("plugin") / "bare.py"
    plugin.write_text(
        "from dataclasses import replace\n"
        "from mlkd.study import study as studies\n"
        "whole = presets.load_data\n"
        "presets.load_data = lambda spec: {\n"
        "    name: replace(split, boxes=None) for name, split in whole(spec).items() if name != 'context_shift'\n"
        "}\n"
    )
    return plugin


@pytest.mark.parametrize("stem", ["09_cam", "11_area_recall", "14_context"])
def test_a_notebook_says_what_it_leaves_out(
    stem: str, bare_data: Path, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (path,) = (path for path in NOTEBOOKS if path.stem == stem)
    given = {"preset": "smoke", "runs": str(runs), "plugin": str(bare_data)}
    outcome = execute(path, tmp_path / path.name, given, cells=30, timeout_s=300, screen=Screen())
    assert outcome.error == ""
    outputs = [output for cell in code_cells(nbformat.read(tmp_path / path.name, 4)) for output in cell.outputs]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "This data set has no boxes" in said
    assert "left out" in said
    assert " nan" not in said


@pytest.mark.parametrize(
    ("stem", "no_train", "error"),
    [
        ("05_l2d", True, "RunError: {runs}/vanilla-teacher-resnet8_cifar-s0-"),
        ("13_benchmark", False, "AssertionError: No finished run on this data yet: run notebooks 03 to 05 first."),
    ],
)
def test_a_notebook_that_misses_its_runs_names_them(
    stem: str, no_train: bool, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (path,) = (path for path in NOTEBOOKS if path.stem == stem)
    runs = tmp_path / "runs"
    given = {"preset": "smoke", "runs": str(runs)}
    target = tmp_path / path.name
    outcome = execute(path, target, given, cells=30, timeout_s=300, screen=Screen(), no_train=no_train)
    assert error.format(runs=runs) in outcome.error
    assert not runs.exists()


@each_notebook
def test_a_notebook_runs(
    path: Path,
    answered: Path,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    source = path.read_text()
    if "runs_on(" in source:  # it only reads runs, so there must be some, also when it is tested alone
        study = mlkd.create_study("scenes", "smoke", runs=runs)
        study.train_students("vanilla")
        study.train_students("l2d")
    notebook = nbformat.read(answered, 4)
    known = parameters_of(notebook)
    given = {name: value for name, value in {"preset": "smoke", "runs": str(runs)}.items() if name in known}
    target = tmp_path / path.name
    outcome = execute(answered, target, given, cells=len(notebook.cells), timeout_s=300, screen=Screen())
    with capfd.disabled():
        print(f"\n{path.stem}: {outcome.seconds:.0f} s{peak_memory()}", flush=True)
    assert outcome.error == ""

    figures, said = 0, ""
    for cell in code_cells(nbformat.read(target, 4)):
        for output in cell.outputs:
            assert output.output_type != "error", output
            if output.output_type == "stream" and output.name == "stderr":
                assert "Warning" not in output.text, output.text
            elif output.output_type == "stream":
                said = output.text
            else:
                figures += "image/png" in output.data
        if tags := {"exercise", "solution"} & set(cell.metadata.get("tags", ())):
            (output,) = cell.outputs
            verdict = {"exercise": "Not answered yet.", "solution": "Right."}[tags.pop()]
            assert output.data["text/plain"] == verdict, cell.source
    assert figures, "no figure"
    assert said.strip().endswith("."), "the last thing it says is a sentence"
    assert " nan" not in said
    assert {file.name for file in tmp_path.iterdir()} == {path.name}  # nothing is written beside it
