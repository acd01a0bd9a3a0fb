"""The report: notebooks are executed in order, it can be resumed, and its pages need no network."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from filelock import FileLock

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("papermill")
pytest.importorskip("nbconvert")
pytest.importorskip("latex2mathml")

from PIL import Image  # noqa: E402
from tiny_notebooks import write  # noqa: E402

from mlkd import report  # noqa: E402
from mlkd.files import WriteError  # noqa: E402
from mlkd.report.execute import Outcome  # noqa: E402
from mlkd.report.html import as_columns, as_mathml, as_text  # noqa: E402
from mlkd.report.progress import NotebookProgress, format_duration  # noqa: E402
from mlkd.study.study import Study  # noqa: E402
from mlkd.training.runs import iter_runs  # noqa: E402

START = 'data = "scenes"\nseeds = [0]\nruns: str = "runs"\noverrides = {}\nmethods = []'
PRINT = """
import os, sys
print("GIVEN", data, seeds, runs)
print("WHERE", os.getcwd(), sys.executable)
print("FROM", os.environ.get("MLKD_NO_TRAIN"))
assert os.environ["MLKD_PROGRESS_FILE"]
"""
FIGURE = """
import matplotlib.pyplot as plt
for color in ("red", "blue"):
    figure, axes = plt.subplots(figsize=(8, 4), facecolor=color)
    plt.show()
"""
MATH = r"""Rows are $x_i^2$; it costs $5 or $6, and `$y$` is code.

$$ L = \frac{1}{b} \sum_{i=1}^{b} x_i $$

[before](00_start.ipynb)"""


class Result(NamedTuple):
    root: Path
    folder: Path
    code: int
    output: str


def run_report(
    root: Path,
    parameters: Mapping[str, object] | None = None,
    *,
    study: Study | None = None,
    no_train: bool = False,
) -> Result:
    """Runs the report `night` in the folder `root`."""
    out = io.StringIO()
    previous = Path.cwd()
    os.chdir(root)
    try:
        with contextlib.redirect_stdout(out):
            code = report.run("night", parameters or {}, study=study, no_train=no_train)
    finally:
        os.chdir(previous)
    return Result(root, root / "reports" / "night", code, out.getvalue())


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, toy_study: Study) -> Result:
    """A report of three notebooks, the second of which fails."""
    root = tmp_path_factory.mktemp("report")
    write(root / "notebooks", "00_start", START, PRINT)
    write(root / "notebooks", "01_fails", "seeds = [0]", "x = 1", "raise KeyError('no such class')", "x")
    write(root / "notebooks", "02_figure", "size = 1", FIGURE, markdown=MATH)
    (root / "notebooks" / "notes.ipynb").write_text("not one of the series")
    overrides = {"student.epochs": 2, "l2d.lambda_cd": 0.1}
    parameters = {"data": "voc", "seeds": (1, 2), "runs": Path("some/runs"), "overrides": overrides, "methods": []}
    return run_report(root, parameters, study=toy_study)


def outputs(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(out.get("text", "") for cell in cells for out in cell.get("outputs", []))


def test_notebooks_get_the_parameters_they_declare(result: Result) -> None:
    output = outputs(result.folder / "00_start.ipynb")
    assert "GIVEN voc [1, 2] some/runs" in output
    assert f"WHERE {result.root} {sys.executable}" in output
    assert "FROM None" in output
    record = json.loads((result.folder / "report.json").read_text())["notebooks"]
    assert [entry["parameters"] for entry in record.values()] == [
        {
            "data": "voc",
            "seeds": [1, 2],
            "runs": "some/runs",
            "overrides": {"student.epochs": 2, "l2d.lambda_cd": 0.1},
            "methods": [],
        },
        {"seeds": [1, 2]},
        {},
    ]


def test_failed_notebook_does_not_stop_the_others(result: Result) -> None:
    assert result.code == 1
    assert "01_fails: failed after" in result.output
    assert "Cell [4]: KeyError: 'no such class'" in result.output
    assert "1 of 3 notebooks failed: 01_fails." in result.output
    assert re.search(r"02_figure: started, about \d+ s left\n02_figure: done in \d+ s\n", result.output)
    index, page = ((result.folder / f"{name}.html").read_text() for name in ("index", "01_fails"))
    assert "KeyError: &#39;no such class&#39;" in index
    assert "This notebook stopped with an error." in page
    target = re.search(r'href="#(cell-id=[^"]+)"', page)
    assert target
    assert f'id="{target[1]}"' in page


def test_files_of_the_folder(result: Result) -> None:
    stems = ("00_start", "01_fails", "02_figure")
    expected = {"index.html", "report.json", "study.yml"} | {
        f"{stem}.{kind}" for stem in stems for kind in ("ipynb", "html")
    }
    assert {path.name for path in result.folder.iterdir()} == expected
    for stem in stems:
        nbformat.validate(nbformat.read(result.folder / f"{stem}.ipynb", as_version=4))


def test_pages_load_no_other_files(result: Result) -> None:
    bs4 = pytest.importorskip("bs4")
    for path in result.folder.glob("*.html"):
        text = path.read_text()
        page = bs4.BeautifulSoup(text, "html.parser")
        assert not page.find_all(["script", "link", "iframe", "object", "embed"])
        assert all(image["src"].startswith("data:") for image in page.find_all("img"))
        assert not re.search(r"@import|url\(\s*['\"]?(?!data:|#)", "".join(s.text for s in page.find_all("style")))
        policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
        assert policy["content"].startswith("default-src 'none';")
        for link in page.find_all("a", href=True):
            file, _, cell = link["href"].partition("#")
            assert not file or (result.folder / file).is_file()
            assert file or f'id="{cell}"' in text


def test_pages_link_to_the_previous_and_next_page(result: Result) -> None:
    page = (result.folder / "01_fails.html").read_text()
    assert '<a href="00_start.html" rel="prev">← About 00_start</a>' in page
    assert '<a href="02_figure.html" rel="next">About 02_figure →</a>' in page
    assert '<a href="00_start.html">before</a>' in (result.folder / "02_figure.html").read_text()


def test_formulas_are_mathml(result: Result) -> None:
    page = (result.folder / "02_figure.html").read_text()
    assert "<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>" in page
    assert re.search(r'<math display="block".*<mfrac>.*</math>', page)
    assert page.count("<math") == 2
    assert "it costs $5 or $6, and <code>$y$</code> is code" in page


def test_index_shows_parameters_and_outcomes(result: Result) -> None:
    index = (result.folder / "index.html").read_text()
    assert "2 of 3 notebooks done" in index
    assert "<dt>data</dt><dd>voc</dd>" in index
    assert "<dt>seeds</dt><dd>1, 2</dd>" in index
    assert "<dt>overrides</dt><dd>student.epochs=2, l2d.lambda_cd=0.1</dd>" in index
    assert "<dt>methods</dt>" not in index
    assert "<dt>torch</dt>" in index
    assert '<a href="00_start.html">About 00_start</a>' in index
    assert "<p>What is <strong>00_start</strong>?</p>" in index
    assert "More of it" not in index


def test_thumbnail_is_the_last_figure(result: Result) -> None:
    index = (result.folder / "index.html").read_text()
    figures = re.findall(r'src="data:image/png;base64,([^"]+)"', index)
    assert len(figures) == 1
    with Image.open(io.BytesIO(base64.b64decode(figures[0]))) as image:
        assert max(image.size) <= 640
        assert image.getpixel((1, 1)) == (0, 0, 255)  # the second figure, which is blue


def test_index_shows_the_data(result: Result, toy_study: Study) -> None:
    index = (result.folder / "index.html").read_text()
    assert "<h3>toy &lt;b&gt;</h3>" in index
    assert "toy:&lt;path&gt;" in index
    assert "<script" not in index
    match = re.search(r"4 classes, from the most frequent to the rarest: (.+)\.", index)
    train = toy_study.splits["train"]
    counts = dict(zip(train.classes, train.targets.sum(axis=0).tolist(), strict=True))
    classes = [unescape(name) for name in match[1].split(", ")]
    assert sorted(classes) == sorted(counts)
    assert [counts[name] for name in classes] == sorted(counts.values(), reverse=True)
    labels = f"{train.targets.sum() / len(train):.2f}"
    cells = f'<td class="number">{len(train)}</td><td class="number">{labels}</td><td class="number">none</td>'
    assert f'<tr><th scope="row">train</th>{cells}</tr>' in index


def test_index_shows_runs_and_results(result: Result, toy_study: Study) -> None:
    index = (result.folder / "index.html").read_text()
    assert index.count("<h3>vanilla student</h3>") == 1
    assert "vanilla, resnet8_cifar" in index
    assert "1 epoch</p>" in index
    for seed, run in enumerate(sorted(iter_runs(toy_study.runs), key=lambda run: run.config["training"]["seed"])):
        scores = "".join(f'<td class="number">{100 * run.mean_ap[split]:.1f}</td>' for split in ("val", "test"))
        assert f'<tr title="{run.path.name}"><td class="number">{seed}</td>{scores}' in index
    spread = re.search(r'<td class="number">(\d+\.\d ± \d+\.\d)</td>', index)
    assert spread
    assert spread[1] in result.output
    assert result.output.rstrip().endswith(os.path.join("reports", "night", "index.html"))


def test_resumes_with_notebooks_that_are_not_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook is executed again after an error, a change, with other parameters or another version of mlkd."""
    write(tmp_path / "notebooks", "00_start", START)
    changing = write(tmp_path / "notebooks", "01_fails", "seeds = [0]")
    executed: list[tuple[str, object]] = []

    def execute(source: Path, target: Path, parameters: dict[str, object], **_: object) -> Outcome:
        executed.append((source.stem, parameters["seeds"]))
        target.write_bytes(source.read_bytes())
        return Outcome(
            1.0, "Cell [2]: no." if source == Path("notebooks/01_fails.ipynb") and len(executed) == 2 else ""
        )

    monkeypatch.setattr("mlkd.report.build.execute", execute)

    def run_now(seed: int = 1) -> tuple[int, list[tuple[str, object]]]:
        start = len(executed)
        return run_report(tmp_path, {"seeds": [seed]}).code, executed[start:]

    assert run_now() == (1, [("00_start", [1]), ("01_fails", [1])])
    assert run_now() == (0, [("01_fails", [1])])
    output = run_report(tmp_path, {"seeds": [1]}).output
    assert "00_start: up to date, took 1 s\n01_fails: up to date, took 1 s\n" in output
    changing.write_text(changing.read_text().replace("What is", "What was"))
    assert run_now() == (0, [("01_fails", [1])])
    assert run_now(seed=2) == (0, [("00_start", [2]), ("01_fails", [2])])
    monkeypatch.setattr("mlkd.report.build.version", lambda package: "99")
    assert run_now(seed=2) == (0, [("00_start", [2]), ("01_fails", [2])])


def test_resolved_study(result: Result, toy_study: Study) -> None:
    assert (result.folder / "study.yml").read_text() == toy_study.to_yaml()
    assert '<a href="study.yml">study.yml</a>' in (result.folder / "index.html").read_text()


def test_changed_study_executes_its_notebooks_again(
    tmp_path: Path, toy_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parameters stay the same when the content of a study file changes."""
    monkeypatch.setattr("mlkd.study.study.load_data", lambda address: toy_study.splits)
    write(tmp_path / "notebooks", "00_start", "row = 8")
    write(tmp_path / "notebooks", "01_train", 'study = "quick"')
    assert run_report(tmp_path, {"study": "my.yml"}, study=toy_study).code == 0
    output = run_report(tmp_path, {"study": "my.yml"}, study=toy_study.replace(reduction="sum")).output
    assert "00_start: up to date" in output
    assert "01_train: done in" in output


def test_no_train_executes_all_notebooks_again(tmp_path: Path) -> None:
    write(tmp_path / "notebooks", "00_start", START, PRINT)
    assert run_report(tmp_path).code == 0
    rebuilt = run_report(tmp_path, no_train=True)
    assert rebuilt.code == 0
    assert "up to date" not in rebuilt.output
    assert "FROM 1" in outputs(rebuilt.folder / "00_start.ipynb")
    assert re.search(r"after \d+ s, without training</p>", (rebuilt.folder / "index.html").read_text())
    assert "00_start: up to date" in run_report(tmp_path).output


def test_damaged_runs_are_left_out_of_the_results(
    tmp_path: Path, toy_study: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mlkd.study.study.load_data", lambda address: toy_study.splits)
    write(tmp_path / "notebooks", "00_start", START)
    shutil.copytree(toy_study.runs, tmp_path / "runs")
    first, second = sorted((tmp_path / "runs").iterdir())
    (tmp_path / "runs" / "broken").mkdir(parents=True)
    (tmp_path / "runs" / "broken" / "config.json").write_text("{")
    predictions = first / "predictions" / "test.npz"
    predictions.write_bytes(predictions.read_bytes()[:200])
    damaged = run_report(tmp_path, study=toy_study.replace(runs=tmp_path / "runs"))
    assert damaged.code == 0
    assert re.search(r"vanilla student.* 1 ", damaged.output)  # one seed
    for path in (tmp_path / "runs" / "broken" / "config.json", predictions):
        (message,) = (text for text in caplog.messages if text.startswith(f"Left out: {path}: not "))
        assert f"remove the folder {tmp_path / 'runs'}" in message
    index = (damaged.folder / "index.html").read_text()
    assert "<h2>Data</h2>" in index
    assert second.name in index
    assert first.name not in index


@pytest.mark.soak
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_two_reports_in_one_folder_leave_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is terminated; the first one is not disturbed."""
    (tmp_path / "temporary").mkdir()
    write(tmp_path / "notebooks", "00_start", START, "open('inside', 'w').close()", "import time; time.sleep(60)")
    write(tmp_path / "others", "00_start", START, PRINT)
    program = "from mlkd import report; report.run('b', {}, notebooks='notebooks')"
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "inside").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        monkeypatch.chdir(tmp_path)
        assert report.run("a", {}, notebooks=tmp_path / "others") == 0
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "notebooks", "others", "reports", "temporary"]
    assert not list((tmp_path / "temporary").iterdir())
    assert not list((tmp_path / "reports" / "b").iterdir())
    assert [path.name for path in (tmp_path / "reports").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("earlier", "seconds", "time_left"),
    [
        ({}, {}, ""),
        ({}, {"a": 10}, "about 19 s left"),  # b and c are expected to take as long as a; b has run for a second
        ({"a": 10, "b": 60, "c": 30}, {}, "about 1 min 39 s left"),  # with a, which is pending
        ({"a": 10, "b": 60, "c": 30}, {"a": 20}, "about 2 min 59 s left"),  # twice as slow
        ({"a": 10, "b": 60}, {"a": 10}, "about 1 min 34 s left"),  # c is expected to take the mean of a and b
    ],
)
def test_time_left(earlier: dict[str, float], seconds: dict[str, float], time_left: str) -> None:
    progress = NotebookProgress("abc", earlier)
    progress.seconds, progress.pending = seconds, [name for name in "abc" if name not in seconds]
    assert progress.time_left("b", 1) == time_left


def test_time_left_of_a_notebook_slower_than_before() -> None:
    assert NotebookProgress("ab", {"a": 5, "b": 7}).time_left("a", 100) == "about 7 s left"


ENTRY = {"status": "done", "seconds": 1.0, "error": ""}


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", "null", '{"notebooks": 3}', '{"notebooks": {"a": 3}}', "[" * 100_000),
        *(json.dumps({"notebooks": {"a": ENTRY | {name: value}}}) for name, value in (("status", 1), ("seconds", "1"))),
        json.dumps({"notebooks": {"a": {"status": "done"}}}),
    ],
)
def test_a_damaged_record_is_named(content: str, tmp_path: Path) -> None:
    write(tmp_path / "notebooks", "00_start", START)
    path = tmp_path / "reports" / "night" / "report.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ValueError, match=r"report\.json: damaged \(.*; delete it to rebuild the report\."):
        run_report(tmp_path)


def test_unknown_parameter_names_the_closest_one(tmp_path: Path) -> None:
    write(tmp_path / "notebooks", "00_start", START)
    with pytest.raises(ValueError, match=r"No notebook has a parameter 'seed'\. Did you mean 'seeds'"):
        run_report(tmp_path, {"data": "voc", "seed": 3})
    assert not (tmp_path / "reports").exists()


def test_report_is_locked(tmp_path: Path) -> None:
    write(tmp_path / "notebooks", "00_start", START)
    (tmp_path / "reports").mkdir()
    lock = FileLock(tmp_path / "reports" / ".night.lock")
    with lock, pytest.raises(ValueError, match="night: another process writes this report; wait for it"):
        run_report(tmp_path, {"data": "voc"})
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(WriteError, match="could not be written: a parent folder in the path is a file"):
        report.run("night", {}, notebooks=tmp_path / "notebooks", reports=tmp_path / "file")


def test_notebook_needs_one_parameters_cell(tmp_path: Path) -> None:
    path = write(tmp_path, "00_start", START)
    path.write_text(path.read_text().replace('"parameters"', '"settings"'))
    with pytest.raises(ValueError, match=r"00_start.ipynb: 0 cells have the tag `parameters`, expected exactly"):
        report.run("night", {}, notebooks=tmp_path, reports=tmp_path / "reports")


def test_invalid_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no notebooks with names like"):
        report.run("night", {}, notebooks=tmp_path)
    with pytest.raises(ValueError, match="expected the name of one folder"):
        report.run("../night", {}, notebooks=tmp_path)


def test_error_names_the_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mlkd.report.build", "mlkd.report.execute"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(ImportError, match=r"needs the package 'papermill': pip install 'mlkd\[notebooks\]'"):
        report.run("night", {}, notebooks=tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_time_limit_and_killed_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hang = "import ctypes, os; open('pid', 'w').write(str(os.getpid())); ctypes.PyDLL(None).sleep(60)"
    write(tmp_path / "notebooks", "00_slow", START, hang)  # sleeps in C, where Python cannot interrupt it
    write(tmp_path / "notebooks", "01_dies", START, "import os; os._exit(3)")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = report.run("night", {}, notebooks=tmp_path / "notebooks", reports=tmp_path / "reports", timeout_s=3)
    assert code == 1
    assert "Cell [2]: stopped after the notebook's time limit of 3 s; --timeout raises it." in out.getvalue()
    assert "Cell [2]: the notebook's process ended" in out.getvalue()
    assert (tmp_path / "reports" / "night" / "00_slow.ipynb").is_file()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt(number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with a one-line message, SIGTERM without; files are neither half-written nor left behind."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    write(tmp_path / "notebooks", "00_start", START, "open('inside', 'w').close()", "import time; time.sleep(60)")
    folder = tmp_path / "reports" / "night"
    files: list[str] = []

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        while not (tmp_path / "inside").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        files.extend(path.name for path in folder.iterdir())
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    if number == signal.SIGINT:
        interrupted = run_report(tmp_path)
        assert interrupted.code == 130
        assert interrupted.output.endswith("Interrupted in 00_start; the same command resumes there.\n")
    else:
        with pytest.raises(SystemExit, match=str(128 + number)):
            run_report(tmp_path)
        assert signal.getsignal(number) == signal.SIG_DFL
    thread.join()
    assert files == [".unfinished.ipynb"]
    assert not list(folder.iterdir())
    assert not list(temporary.iterdir())  # where the sockets of the kernel were
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "notebooks", "reports", "temporary"]


@pytest.mark.parametrize(
    ("latex", "parts"),
    [
        (r"\begin{aligned} a &= b \\ &= c \end{aligned}", ["<mtable", "<mi>c</mi>"]),
        (r"x \tag{3}", ["<mtext>(3)</mtext>"]),
        (r"\lVert x \rVert_2", ["<msub>"]),
        (r"\begin{cases} a & b", [r"<code>\begin{cases} a &amp; b</code>"]),
    ],
)
def test_mathml(latex: str, parts: list[str]) -> None:
    mathml = as_mathml(latex)
    assert all(part in mathml for part in parts)
    assert "<mi>&" not in mathml


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (3900, "1 h 5 min")]
)
def test_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_plain_text_of_a_title() -> None:
    assert as_text("**MLD** & `cd`, $x$") == "MLD & cd, x"


def test_row_labels_become_columns() -> None:
    table = pd.DataFrame({"mAP": [0.5, None]}, index=pd.Index(["cat", "dog"], name="class"))
    assert as_columns(table).to_dict("list") == {"class": ["cat", "dog"], "mAP": ["0.5", ""]}
