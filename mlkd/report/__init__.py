"""The notebooks without a person: executed in order, then read as a folder of pages with an index."""

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
    notebooks: str | Path | None = None,
    reports: str | Path = "reports",
    timeout_s: int = 3600,
    study: Study | None = None,
    no_train: bool = False,
) -> int:
    """Executes the numbered notebooks and writes `<reports>/<name>/index.html`, to be opened from disk.

    Every notebook runs in a process of its own, in the folder of the caller, and is told those of the parameters that
    its cell tagged `parameters` assigns. What is done already, from the same notebook with the same parameters and the
    same mlkd, is not run again: a report that was stopped goes on with the same call.

    A notebook that fails does not stop the others, because none needs what another one computes: all that they share
    are finished runs, and each trains those that it misses. Two only read runs: 13, which fails with a sentence where
    there is none at all, and the part on CPSD of 09, which then says that it is left out.

    Args:
        name: the report's folder in `reports`.
        parameters: plain values (numbers, texts, lists of them, paths) for the notebooks.
        notebooks: the folder of the `NN_*.ipynb`; by default `notebooks` here, else in mlkd's own repository.
        reports: the folder of all reports.
        timeout_s: the most seconds a notebook may take; then its process is killed. Trainings keep their finished
            epochs.
        plan: what the notebooks study. The index shows its data, its finished runs and the table of their scores,
            which the terminal prints too.
        no_train: execute all notebooks anew and train nothing: one that misses a run fails and names it.

    Returns:
        The exit code: 0, 1 when a notebook failed, 130 when the user stopped it.

    Raises:
        ValueError: before anything runs: no notebooks, no such parameter, a notebook without its `parameters` cell.
        ImportError: the packages that run notebooks are not installed.
    """
    try:
        from mlkd.report.series import run_series
    except ModuleNotFoundError as error:
        raise ImportError(f"A report needs the package {error.name!r}: pip install 'mlkd[notebooks]'.") from error
    folder = None if notebooks is None else Path(notebooks)
    return run_series(name, parameters, folder, Path(reports), timeout_s, study, no_train)
