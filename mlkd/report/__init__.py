"""The report: the notebooks are executed in order and written as a folder of HTML pages with an index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlkd.study.study import Study

__all__ = ["run"]


def run(
    name: str,
    parameters: Mapping[str, Any],
    *,
    study: Study | None = None,
    notebooks: str | Path | None = None,
    reports: str | Path = "reports",
    timeout_s: int = 3600,
    no_train: bool = False,
) -> int:
    """Executes the numbered notebooks and writes `<reports>/<name>/index.html`.

    Every notebook runs in its own process, in the current folder. It gets the parameters that its cell tagged
    `parameters` assigns. Notebooks that were executed before, from the same file with the same parameters and the same
    version of mlkd, are skipped, so the same call resumes a report that was interrupted.

    A notebook that fails does not stop the others. Notebooks share finished runs only, and each trains the runs that
    are missing.

    Args:
        name: the report's folder in `reports`.
        parameters: plain values (numbers, strings, lists and mappings of them, paths) for the notebooks: `data`,
            `study` (a name or a file), `seeds`, `runs`, `overrides`, `methods` and `counts`.
        study: the study that the parameters describe. The index shows its data, its finished runs and their scores,
            and the folder gets it as `study.yml`.
        notebooks: the folder of the `NN_*.ipynb`; by default `notebooks` in the current folder or in mlkd's repository.
        reports: the folder of all reports.
        timeout_s: the time limit of a notebook, in seconds. Its process is then killed; finished epochs are kept.
        no_train: execute all notebooks again and train nothing. A notebook that needs a missing run fails and names
            it.

    Returns:
        The exit code: 0, 1 if a notebook failed, 130 if the user interrupted the report.

    Raises:
        ValueError: before anything runs: there are no notebooks, no notebook has such a parameter, or a notebook has
            no `parameters` cell.
        ImportError: the packages that execute notebooks are not installed.
    """
    try:
        from mlkd.report.build import build_report
    except ModuleNotFoundError as error:
        raise ImportError(f"A report needs the package {error.name!r}: pip install 'mlkd[notebooks]'.") from error
    folder = None if notebooks is None else Path(notebooks)
    return build_report(name, parameters, study, folder, Path(reports), timeout_s, no_train)
