"""The pages of a report: each executed notebook as HTML, and the index. They load nothing from other files."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape, unescape
from pathlib import Path
from typing import Any, ClassVar

import nbformat
import pandas as pd
from jinja2 import Environment, PackageLoader, pass_context
from latex2mathml.converter import convert
from markupsafe import Markup
from nbconvert.exporters.html import HTMLExporter
from nbconvert.filters.markdown_mistune import (
    IPythonRenderer,
    MarkdownWithMath,
    MathBlockParser,
    MathInlineParser,
)
from PIL import Image

from mlkd.files import atomic_write
from mlkd.notebook.series import Notebook
from mlkd.report.progress import format_duration
from mlkd.training.runs import environment

THUMBNAIL = (640, 480)  # maximum width and height, in pixels
WIDGET = "application/vnd.jupyter.widget-view+json"
ERROR_MARKER = (
    "papermill-error-cell-tag"  # tag of the cells that papermill adds next to an error; the page has its own message
)

REPLACEMENTS = (  # LaTeX that the converter does not support or sets with wrong spacing -> LaTeX that it supports
    (r"\\(begin|end)\{(?:aligned|split|eqnarray\*?)\}", r"\\\1{align*}"),
    (r"\\tag\{([^{}]*)\}", r"\\qquad\\text{(\1)}"),
    (r"\\[lr]Vert(?![a-zA-Z])", r"\\|"),
    (r"\\[lr]vert(?![a-zA-Z])", "|"),
)


class Report:
    """The pages of one report, in one folder."""

    def __init__(self, name: str, folder: Path, parameters: Mapping[str, Any], series: Sequence[Notebook]):
        self.name, self.folder, self.parameters, self.series = name, folder, parameters, series
        self.templates = Environment(loader=PackageLoader("mlkd.report"), autoescape=True, trim_blocks=True)
        source, _, _ = PackageLoader("mlkd.report").get_source(self.templates, "notebook.html.j2")
        self.exporter = _Exporter(raw_template=source, embed_images=True)
        self.style = Markup(PackageLoader("mlkd.report").get_source(self.templates, "report.css")[0])
        self.thumbnails: dict[str, str] = {}

    def write_page(self, notebook: Notebook, entry: Mapping[str, Any]) -> None:
        """Writes the page of an executed notebook; `entry` is its outcome in the record."""
        executed = nbformat.read(self.folder / notebook.path.name, as_version=4)
        executed.cells = [cell for cell in executed.cells if ERROR_MARKER not in cell.metadata.get("tags", [])]
        executed.metadata.pop("widgets", None)
        outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
        for output in outputs:
            _make_static(output)
        failed_cells = [
            cell.get("id", "")
            for cell in executed.cells
            if any(output.output_type == "error" for output in cell.get("outputs", []))
        ]
        index = self.series.index(notebook)
        page = {
            "report": self.name,
            "style": self.style,
            "previous": self._link(self.series[index - 1]) if index else None,
            "next": self._link(self.series[index + 1]) if index + 1 < len(self.series) else None,
            "error": entry["error"],
            "failed_cell": next(iter(failed_cells), ""),
        }
        metadata = {"name": as_text(notebook.title), "path": str(notebook.path.parent)}
        html, _ = self.exporter.from_notebook_node(executed, {"metadata": metadata, "mlkd": page})
        with atomic_write(self.folder / f"{notebook.stem}.html") as unfinished:
            unfinished.write_text(self._link_pages(html), encoding="utf-8")
        self.thumbnails[notebook.stem] = _thumbnail(outputs)

    def write_index(
        self,
        record: Mapping[str, Mapping[str, Any]],
        data: Mapping[str, Any] | None = None,
        runs: Sequence[Mapping[str, Any]] = (),
        results: pd.DataFrame | None = None,
    ) -> Path:
        """Writes the index: data, runs, results, each notebook with its last figure, and the parameters.

        Args:
            record: the outcome of each notebook, by its file name without the suffix.
            data, runs: as `mlkd.report.cards` returns them.
            results: the table of scores.

        Returns:
            The page's path.
        """
        notebooks = [
            {
                "page": f"{notebook.stem}.html",
                "title": self._markup(notebook.title, inline=True),
                "summary": self._markup(notebook.summary),
                "thumbnail": self.thumbnails.get(notebook.stem),
                "status": record.get(notebook.stem, {}).get("status", "pending"),
                "duration": format_duration(record.get(notebook.stem, {}).get("seconds", 0)),
                "error": record.get(notebook.stem, {}).get("error", ""),
                "no_train": record.get(notebook.stem, {}).get("no_train", False),
            }
            for notebook in self.series
        ]
        table = None if results is None else as_columns(results)
        text = self.templates.get_template("index.html.j2").render(
            name=self.name,
            style=self.style,
            created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
            duration=format_duration(sum(entry["seconds"] for entry in record.values())),
            parameters=self.parameters,
            study="study.yml" if (self.folder / "study.yml").is_file() else "",
            environment=environment(),
            data=data,
            runs=runs,
            notebooks=notebooks,
            done=sum(notebook["status"] == "done" for notebook in notebooks),
            failed=sum(notebook["status"] == "failed" for notebook in notebooks),
            columns=[] if table is None else [(name, _is_number(table[name])) for name in table],
            rows=[] if table is None else table.to_numpy().tolist(),
        )
        path = self.folder / "index.html"
        with atomic_write(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
        return path

    def _markup(self, markdown: str, *, inline: bool = False) -> Markup:
        html = self._link_pages(_to_html(markdown))
        return Markup(re.sub(r"^<p>|</p>\s*$", "", html) if inline else html)

    def _link_pages(self, html: str) -> str:
        """Links to notebooks become links to their pages."""
        stems = "|".join(re.escape(notebook.stem) for notebook in self.series)
        return re.sub(rf'href="(?:\./)?({stems})\.ipynb', r'href="\1.html', html)

    def _link(self, notebook: Notebook) -> dict[str, str]:
        return {"page": f"{notebook.stem}.html", "title": self._markup(notebook.title, inline=True)}


class _BlockParser(MathBlockParser):
    """Parses Markdown blocks. Unlike nbconvert's parser, it does not take `$$` in a code span for a formula."""

    SPECIFICATION: ClassVar = {
        **MathBlockParser.SPECIFICATION,
        "multiline_math": r"(?<![\\`])\$\$[^`]*?(?<!\\)\$\$"
        r"|\\begin\{(?P<math_env_name>[a-z]*\*?)\}(?s:.*?)\\end\{(?P=math_env_name)\}",
    }


class _InlineParser(MathInlineParser):
    """Parses paragraphs. Unlike nbconvert's parser, it does not take "$5 and $6" or "$5, `$HOME`" for formulas."""

    SPECIFICATION: ClassVar = {
        **MathInlineParser.SPECIFICATION,
        "inline_math_tex": r"(?<![$\\])\$(?=\S)(?P<math_inline_tex>(?:\\\$|[^`$])+?)(?<![\s\\])\$(?!\d)",
    }


class _Renderer(IPythonRenderer):
    """Renders Markdown with formulas as MathML, which browsers show without MathJax."""

    def inline_math(self, body: str) -> str:
        return as_mathml(body)

    def block_math(self, body: str) -> str:
        return as_mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return as_mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


class _Exporter(HTMLExporter):
    """nbconvert's HTML exporter with the Markdown renderer above."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        cell, metadata = context.get("cell", {}), context.get("resources", {}).get("metadata", {})
        return _to_html(source, attachments=cell.get("attachments", {}), path=metadata.get("path", ""))


def as_mathml(latex: str, display: str = "inline") -> str:
    r"""A LaTeX formula as MathML; as its source in `<code>` if the converter does not support it."""
    for pattern, replacement in REPLACEMENTS:
        latex = re.sub(pattern, replacement, latex)
    try:
        mathml = convert(latex.strip(), display=display)
    except Exception:  # the converter's errors have no common base class
        return f"<code>{escape(latex)}</code>"
    return mathml.replace("<mo minsize=", '<mo lspace="0" rspace="0" minsize=')  # \big( is not a binary operator


def as_text(markdown: str) -> str:
    """A line of Markdown as plain text."""
    return unescape(re.sub(r"<[^>]+>", "", _to_html(markdown))).strip()


def as_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The table with all cells as text, and with its row labels as the first columns."""
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index()
    cells = [["" if pd.isna(cell) else str(cell) for cell in row] for row in table.to_numpy(dtype=object)]
    return pd.DataFrame(cells, columns=[str(name) for name in table.columns])


def _to_html(markdown: str, **settings: Any) -> str:
    renderer = _Renderer(escape=False, embed_images=True, exclude_anchor_links=True, **settings)
    return MarkdownWithMath(renderer, _BlockParser(), _InlineParser(hard_wrap=False)).render(markdown)


def _make_static(output: Any) -> None:
    """Removes from an output what needs JavaScript."""
    data = output.get("data", {})
    data.pop("application/javascript", None)
    if data.pop(WIDGET, None) is not None:
        data["text/html"] = '<p class="mlkd-note">Open the notebook in JupyterLab to use this widget.</p>'
    if "text/latex" in data and "text/html" not in data:
        data["text/markdown"] = data.pop("text/latex")


def _thumbnail(outputs: Sequence[Any]) -> str:
    """The last figure of a notebook, scaled down, as a data URL; empty if there is none."""
    figures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    if not figures:
        return ""
    with Image.open(io.BytesIO(base64.b64decode(figures[-1]))) as image:
        figure = image.convert("RGBA")
    thumbnail = Image.new("RGBA", figure.size, "white")
    thumbnail.alpha_composite(figure)
    thumbnail.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    thumbnail.convert("RGB").save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _is_number(column: pd.Series) -> bool:
    """Whether all non-empty cells of a column start like a number."""
    cells = [cell for cell in column if cell]
    return bool(cells) and all(re.match(r"[-+−±]?\.?\d", cell) for cell in cells)
