"""The table of a sweep: its runs beside the scores that a paper reports, in the layout of the paper."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from mlkd.methods import METHODS
from mlkd.metrics import METRICS
from mlkd.study.run_sweep import finished_runs, group_tasks
from mlkd.study.study import Reported, Study
from mlkd.study.sweep import Sweep, scheme, short_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mlkd.training.runs import Run

PROTOCOL_TEXTS = {
    "oracle_k": "each image's k best scores, where k is its true number of labels",
    "threshold(0.5)": "a probability of at least 0.5",
    "threshold(0.8)": "a probability of at least 0.8",
    "top_k(3)": "each image's 3 best scores",
    "tuned": "a threshold per class, tuned on val",
}

Cells = Mapping[str, tuple[str, str]]


def sweep_table(sweep: Sweep, resamples: int = 200) -> pd.DataFrame:
    """The finished runs of a sweep and the scores that its studies or its `table` report.

    Args:
        sweep: as `load_sweep` returns it.
        resamples: as for `mlkd.analysis.compare_with_reported`.

    Returns:
        The rows of `compare_with_reported` for each study and data set, with the columns `study`, `networks`, `data`
        ("" where there are no runs) and `protocol`. The paper's scores are beside runs on the paper's data set only.
    """
    from mlkd.analysis import compare_with_reported

    tasks, runs = finished_runs(sweep)
    groups = group_tasks(tasks, runs)
    baselines = dict.fromkeys([*sweep.methods, *sweep.table.reported], "vanilla") | {"teacher": "", "vanilla": ""}
    baselines |= {task.group: task.baseline for task in tasks}
    tables = []
    for study in sweep.study:
        reported = sweep.study_at(study).reported
        protocol = sweep.table.protocol or (reported.protocol if reported else "threshold(0.5)")
        addresses = [data for name, data in groups if name == study]
        for data in addresses or [""]:
            rows = _reported_rows(sweep, reported, data)
            table = compare_with_reported(
                groups.get((study, data), {}),
                rows,
                metrics=sweep.table.metrics,
                protocol=protocol,
                baselines=dict.fromkeys(rows, "") | baselines,
                resamples=resamples,
            )
            networks = reported.networks if reported else study
            tables.append(table.assign(study=study, networks=networks, data=data, protocol=protocol))
    first = ["study", "networks", "data", "protocol"]
    table = pd.concat(tables, ignore_index=True)
    return table[[*first, *(name for name in table if name not in first)]]


def format_table(sweep: Sweep, table: pd.DataFrame, width: int = 120) -> str:
    """The table as text: caption, scores, gains in mAP over the baseline, and notes.

    With several metrics there is a block of rows for each column of the paper's table, with the metrics as columns;
    with one metric, the columns are those of the paper.

    Args:
        sweep: of the table.
        table: from `sweep_table`.
        width: the most characters in a line of the table.
    """
    columns = table[["study", "networks", "data"]].drop_duplicates()
    titles = {index: f"{row.networks}, {row.data}" if row.data else row.networks for index, row in columns.iterrows()}
    parts = {titles[index]: table[(table[list(columns)] == row).all(axis=1)] for index, row in columns.iterrows()}
    metrics = list(dict.fromkeys(table["metric"]))
    score_cells = {title: {metric: _score_cells(part, metric) for metric in metrics} for title, part in parts.items()}
    lines = [sweep.table.caption or sweep.name, *_explanations(table), ""]
    if len(metrics) == 1:
        lines += _block(metrics[0], {title: cells[metrics[0]] for title, cells in score_cells.items()}, width)
    else:
        for title, cells in score_cells.items():
            lines += _block(title, cells, width)
    if table["gain"].notna().any() or table["reported_gain"].notna().any():
        lines += _block("gain in mAP over vanilla", {title: _gain_cells(part) for title, part in parts.items()}, width)
    notes = [textwrap.fill(note, width) for note in sweep.table.notes]
    return "\n".join([*lines, *notes]).rstrip()


def reported_lines(study: Study, row: str, run: Run) -> list[str]:
    """What the paper reports for a row and the scores of a run under the same protocol; [] if there is nothing.

    Args:
        study: of the run.
        row: "teacher" or a method.
        run: finished, on the study's data.
    """
    from mlkd.analysis import compare_with_reported

    reported = study.reported
    if reported is None or row not in reported.scores or scheme(study.data) != reported.dataset:
        return []
    table = compare_with_reported({row: [run]}, {row: reported.scores[row]}, protocol=reported.protocol)
    scores, own_scores = (
        ", ".join(f"{metric} {score:.{decimals}f}" for metric, score in zip(table["metric"], table[name], strict=True))
        for name, decimals in (("reported", _decimals(table["reported"])), ("mean", 1))
    )
    source = f"{reported.paper}, table {reported.table}; protocol {reported.protocol}"
    return [f"Reported ({source}): {scores}", f"This run (the same protocol): {own_scores}"]


def sensitivity_figure(sweep: Sweep) -> Figure:
    """The mAP of a sweep's runs against each setting that varies.

    Raises:
        ValueError: no finished run has a setting that varies and is a number.
    """
    from mlkd import plots

    tasks, runs = finished_runs(sweep)
    panels: dict[str, dict[str, dict[float, list[float]]]] = {}
    references: dict[str, list[float]] = {}
    for task in tasks:
        if not task.group or task.name not in runs:
            continue
        run = runs[task.name]
        method, score = task.group.split()[0], run.mean_ap["test"]
        section = method if method in METHODS else ""
        settings = {short_key(key, section): value for key, value in task.settings.items() if not key.endswith("seed")}
        numbers = {key: value for key, value in settings.items() if isinstance(value, int | float)}
        if not settings:
            references.setdefault(method, []).append(score)
        for key, value in numbers.items():
            others = [f"{name}={other}" for name, other in settings.items() if name != key]
            line = panels.setdefault(key, {}).setdefault(" ".join([method, *others]), {})
            line.setdefault(value, []).append(score)
    if not panels:
        raise ValueError(f"{sweep.folder}: no finished run has a setting that varies and is a number.")
    return plots.sensitivity(panels, references)


def _reported_rows(sweep: Sweep, reported: Reported | None, data: str) -> Mapping[str, Mapping[str, float]]:
    """The paper's rows: for runs on the paper's data set only, and of the methods that the sweep trains."""
    if reported is None or (data and scheme(data) != reported.dataset):
        return {}
    if sweep.table.reported:
        return sweep.table.reported
    scores = reported.scores
    systems = [row for row in scores if row not in METHODS and row != "teacher"] if sweep.table.other_systems else []
    return {row: scores[row] for row in (*systems, "teacher", *sweep.methods) if row in scores}


def _explanations(table: pd.DataFrame) -> Iterator[str]:
    if set(table["metric"]) & set(METRICS) - {"mAP"}:
        for protocol in dict.fromkeys(table["protocol"]):
            explanation = PROTOCOL_TEXTS.get(protocol, "see mlkd.evaluate")
            yield f"Labels are predicted under the protocol {protocol}: {explanation}."
    yield "ours: mean ± standard deviation over runs (their number). Scores are in %."
    if table["gain"].notna().any():
        yield "gain: with its 95 % interval over images and seeds; * significant."


def _score_cells(table: pd.DataFrame, metric: str) -> dict[str, tuple[str, str]]:
    """Row -> "57.1 ± 0.4 (3)", and the paper's score."""
    rows = table[table["metric"] == metric]
    decimals = _decimals(rows["reported"])
    cells = {}
    for row in rows.itertuples():
        spread = "" if pd.isna(row.std) else f" ± {row.std:.1f}"
        ours = "-" if pd.isna(row.mean) else f"{row.mean:.1f}{spread} ({row.seeds})"
        cells[row.row] = ours, "-" if pd.isna(row.reported) else f"{row.reported:.{decimals}f}"
    return cells


def _decimals(scores: pd.Series) -> int:
    """The number of decimals that a paper gives."""
    return 1 if (scores.dropna().round(1) == scores.dropna()).all() else 2


def _gain_cells(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Row -> "+2.6 [1.9, 3.2] *", and the paper's gain."""
    cells = {}
    for row in table[table["metric"] == "mAP"].itertuples():
        interval = "" if pd.isna(row.gain_low) else f" [{row.gain_low:.1f}, {row.gain_high:.1f}]"
        star = " *" if pd.notna(row.significant) and row.significant else ""
        ours = "-" if pd.isna(row.gain) else f"{row.gain:+.1f}{interval}{star}"
        reported = "-" if pd.isna(row.reported_gain) else f"{row.reported_gain:+.2f}"
        if (ours, reported) != ("-", "-"):
            cells[row.row] = ours, reported
    return cells


def _block(title: str, heads: Mapping[str, Cells], width: int) -> list[str]:
    """Lines of a table with two columns, ours and the paper's, for each head; heads that do not fit are below.

    Where the paper has nothing, ours is the only column.
    """
    rows = list(dict.fromkeys(row for cells in heads.values() for row in cells))
    paired = any(reported != "-" for cells in heads.values() for _, reported in cells.values())
    first = ["", *([""] if paired else []), *rows]
    columns = [_column(head, [cells.get(row, ("-", "-")) for row in rows], paired) for head, cells in heads.items()]
    lines, names = [title], [f"{name:{max(map(len, first))}}" for name in first]
    while columns:
        count = 1
        while count < len(columns) and len(names[0]) + sum(3 + len(each[0]) for each in columns[: count + 1]) <= width:
            count += 1
        lines += ["   ".join(texts).rstrip() for texts in zip(names, *columns[:count], strict=True)]
        lines.append("")
        columns = columns[count:]
    return lines


def _column(head: str, cells: Sequence[tuple[str, str]], paired: bool) -> list[str]:
    """Lines of equal length: the head, then ours and, if `paired`, the paper's, aligned to the right."""
    if paired:
        columns = [("ours", *(ours for ours, _ in cells)), ("paper", *(reported for _, reported in cells))]
        widths = [max(map(len, column)) for column in columns]
        lines = [head, *(f"{ours:>{widths[0]}}  {paper:>{widths[1]}}" for ours, paper in zip(*columns, strict=True))]
        return [f"{line:{max(map(len, lines))}}" for line in lines]
    lines = [head, *(ours for ours, _ in cells)]
    return [f"{line:>{max(map(len, lines))}}" for line in lines]
