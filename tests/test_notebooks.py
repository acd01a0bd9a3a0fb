"""Every notebook is committed without outputs, has the form of the series, and runs in the study `smoke`."""

from __future__ import annotations

import ast
import re
import sys
import time
from pathlib import Path

import pytest

import mlkd

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("papermill")

from mlkd.notebook.series import read_notebook  # noqa: E402
from mlkd.report.execute import execute  # noqa: E402
from mlkd.report.progress import NotebookProgress  # noqa: E402

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

STUDY_PARAMETERS = {"data", "study", "seeds", "runs", "overrides"}


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameter_values(notebook) -> dict[str, object]:
    """The plain values that the cell tagged `parameters` assigns."""
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    values = {}
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.Assign), f"{ast.unparse(statement)!r} is not a plain assignment"
        (name,) = statement.targets
        assert isinstance(name, ast.Name)
        values[name.id] = ast.literal_eval(statement.value)
    return values


def solutions(path: Path) -> list[str]:
    """The code that the solutions of a notebook put in place of `answer = None`, in the order of its exercises."""
    file = path.parent / "solutions" / f"{path.stem}.md"
    return re.findall(r"```python\n(.+?)```", file.read_text(), re.DOTALL)


def exercise_cells(notebook) -> list:
    return [cell for cell in code_cells(notebook) if "exercise" in cell.metadata.get("tags", ())]


def stream_text(notebook) -> str:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_numbers_of_the_notebooks() -> None:
    assert NOTEBOOKS[0].name == "00_start_here.ipynb"
    numbers = [path.name[:2] for path in NOTEBOOKS]
    assert len(set(numbers)) == len(numbers)
    assert len(NOTEBOOKS) == len(list(NOTEBOOKS[0].parent.glob("*.ipynb")))


@each_notebook
def test_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
        assert cell.source.strip()
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@each_notebook
def test_form_of_the_series(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    first, *_ = code_cells(notebook)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert tagged == [first]
    values = parameter_values(notebook)
    if path != NOTEBOOKS[0]:
        assert values.keys() - {"methods", "counts", "cam_method"} == STUDY_PARAMETERS
        assert (values["data"], values["study"], values["overrides"]) == ("", "quick", {})
    title = notebook.cells[0]
    assert title.cell_type == "markdown"
    assert title.source.startswith("# ")
    assert read_notebook(path).question.endswith("?")
    for cell in notebook.cells:
        lines = cell.source.count("\n") + 1
        assert lines <= 25, f"a cell of {lines} lines: {cell.source[:60]!r}"
    assert "filterwarnings" not in path.read_text()


@each_notebook
def test_no_handwritten_link_to_the_next_notebook(path: Path) -> None:
    for cell in nbformat.read(path, 4).cells:
        assert not re.search(r"^Next: ", cell.source, re.MULTILINE), "`mlkd.notebook.series` makes this link"


@each_notebook
def test_exercises_at_the_end(path: Path) -> None:
    exercises = exercise_cells(nbformat.read(path, 4))
    assert len(exercises) in (2, 3)
    for cell in exercises:
        assert len(re.findall(r"^answer = None( |$)", cell.source, re.MULTILINE)) == 1
        assert re.fullmatch(r"exercises\.check_\w+\(answer\b.*\)", cell.source.splitlines()[-1])
    assert len(solutions(path)) == len(exercises)


# Execution


@pytest.fixture
def runs(shared_folder: Path, own_cache: Path) -> Path:
    """One runs folder for all notebooks: a network that one has trained, the next ones load."""
    return shared_folder / "notebook-runs"


def peak_memory() -> str:
    """The peak memory of all processes started here so far."""
    if sys.platform == "win32":
        return ""
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return f", at most {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit:.0f} MiB"


@pytest.fixture
def with_solutions(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the notebook in which each exercise, without an answer, is followed by its solution."""
    notebook = nbformat.read(path, 4)
    for cell, solution in zip(exercise_cells(notebook), solutions(path), strict=True):
        source = re.sub(r"^answer = None.*$", lambda _, text=solution: text, cell.source, flags=re.MULTILINE)
        copy = nbformat.v4.new_code_cell(source, metadata={"tags": ["solution"]})
        notebook.cells.insert(notebook.cells.index(cell) + 1, copy)
    target = tmp_path_factory.mktemp("solutions") / path.name
    nbformat.write(notebook, target)
    return target


@pytest.fixture
def plugin_without_boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin that removes from the scenes what other data may lack: the boxes and the split `context_shift`."""
    plugin = tmp_path_factory.mktemp("plugin") / "without_boxes.py"
    plugin.write_text(
        "from dataclasses import replace\n"
        "import mlkd.study.study as module\n"
        "load_data = module.load_data\n"
        "module.load_data = lambda address: {\n"
        "    name: replace(split, boxes=None)\n"
        "    for name, split in load_data(address).items() if name != 'context_shift'\n"
        "}\n"
    )
    return plugin


def execute_smoke(source: Path, target: Path, runs: Path, *, no_train: bool = False, **parameters: object) -> str:
    """Executes a notebook in the study `smoke` and returns its error message, or ""."""
    notebook = nbformat.read(source, 4)
    values = {"study": "smoke", "runs": str(runs), **parameters}
    values = {name: value for name, value in values.items() if name in parameter_values(notebook)}
    cells = len(notebook.cells) + 1
    progress = NotebookProgress()
    outcome = execute(source, target, values, cells=cells, timeout_s=300, progress=progress, no_train=no_train)
    return outcome.error


@pytest.mark.parametrize("stem", ["09_cam", "11_area_recall", "14_context"])
def test_data_without_boxes(
    stem: str, plugin_without_boxes: Path, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (path,) = (path for path in NOTEBOOKS if path.stem == stem)
    overrides, methods = {"plugins": [str(plugin_without_boxes)]}, ["vanilla"]
    assert execute_smoke(path, tmp_path / path.name, runs, overrides=overrides, methods=methods) == ""
    text = stream_text(nbformat.read(tmp_path / path.name, 4))
    assert "This data set has no boxes" in text
    assert "left out" in text
    assert " nan" not in text


@pytest.mark.parametrize(
    ("stem", "no_train", "error"),
    [
        ("05_l2d", True, "RunError: {runs}/vanilla-teacher-resnet8_cifar-s0-"),
        ("13_benchmark", False, "AssertionError: No finished run on this data yet: run notebooks 03 to 05 first."),
    ],
)
def test_missing_runs_are_named(
    stem: str, no_train: bool, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (path,) = (path for path in NOTEBOOKS if path.stem == stem)
    runs = tmp_path / "runs"
    assert error.format(runs=runs) in execute_smoke(path, tmp_path / path.name, runs, no_train=no_train)
    assert not runs.exists()


@each_notebook
def test_execution(
    path: Path,
    with_solutions: Path,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if "runs_on(" in path.read_text():  # it only reads runs, so this test trains some if it runs alone
        study = mlkd.create_study("smoke", runs=runs)
        study.train_students("vanilla")
        study.train_students("l2d")
    target = tmp_path / path.name
    started = time.monotonic()
    error = execute_smoke(with_solutions, target, runs)
    with capfd.disabled():
        print(f"\n{path.stem}: {time.monotonic() - started:.0f} s{peak_memory()}", flush=True)
    assert error == ""

    figures, last_text = 0, ""
    for cell in code_cells(nbformat.read(target, 4)):
        for output in cell.outputs:
            assert output.output_type != "error", output
            if output.output_type == "stream" and output.name == "stderr":
                assert "Warning" not in output.text, output.text
            elif output.output_type == "stream":
                last_text = output.text
            else:
                figures += "image/png" in output.data
        if tags := {"exercise", "solution"} & set(cell.metadata.get("tags", ())):
            (output,) = cell.outputs
            verdict = {"exercise": "Not answered yet.", "solution": "Correct."}[tags.pop()]
            assert output.data["text/plain"] == verdict, cell.source
    assert figures, "no figure"
    assert last_text.strip().endswith("."), "the last printed text is not a sentence"
    assert " nan" not in last_text
    assert {file.name for file in tmp_path.iterdir()} == {path.name}  # nothing else is written
