"""Exports an executed notebook as one HTML page, which needs no network."""

import ast
import base64
import hashlib
import os
import re
from contextlib import suppress
from datetime import datetime
from functools import cache
from html import escape
from inspect import cleandoc
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from nbconvert.filters import Highlight2HTML, strip_ansi
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode

from cifar_utils import __version__
from cifar_utils.choices import Parameter, parse_parameters
from cifar_utils.errors import InputError
from cifar_utils.files import RECORD, write_atomically
from cifar_utils.provenance import bare_code, fingerprint, own_commit
from cifar_utils.reporting.fragments import Outline, clean, markdown_html, note
from cifar_utils.reporting.notebooks import project_folder, read_notebook, relative_link
from cifar_utils.runs.answer import answer, near_chance
from cifar_utils.runs.folder import Run, find_runs
from cifar_utils.runs.leaderboard import configurations, read_notes
from cifar_utils.runs.record import RunRecord, read_record
from cifar_utils.runs.reported import RESULTS, compare_with_reported, introduction
from cifar_utils.text import compact, duration, interval, percent

TEMPLATE = Path(__file__).parent / "template"
TEMPLATES = Environment(loader=FileSystemLoader(TEMPLATE), autoescape=True)
# What makes a page, beside Keras and the notebook.
CODE = [
    f"cifar_utils.{name}"
    for name in ("reporting.export", "reporting.fragments", "runs.answer", "runs.leaderboard",
                 "runs.record", "runs.reported", "choices", "evaluation", "intervals", "text")
]  # fmt: skip
LINKS = re.compile("<!--links-->.*?<!--/links-->", re.DOTALL)
NEEDS_SCRIPT = re.compile(r"application/(javascript|vnd\..*)")
# A cell with one of these calls, at most after the one that makes the record, tells of it alone.
TELL = {"answer": answer, "compare_with_reported": compare_with_reported}
OF_RECORD = re.compile(
    rf"(?:record = record_run\([^\n]*\)\n)?(?:Markdown\()?({'|'.join(TELL)})\(record\)\)?"
)


def export_page(notebook: Path, page: Path) -> Path:
    """Write the page of a notebook that was executed completely or up to an error.

    Its top, its answer and its comparison with reported figures are told anew from the
    ``record.json`` beside the notebook, if there is one, so they agree. If that is broken, the page
    says so. A page that is there keeps its links to other pages.

    Raises
    ------
    InputError
        Where the file is not a notebook, no cell has been executed, or a cell's output is damaged.

    """
    try:
        html = _render(notebook)
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # of damaged output
        raise InputError(f"the page of {notebook} can't be made ({error!r})") from error
    if page.exists() and (links := LINKS.search(page.read_text("utf-8", "replace"))):
        html = LINKS.sub(lambda _: links[0], html, count=1)
    write_atomically(page, html)
    return page


def page_digest(notebook: Path) -> str:
    """Hash of all that is in a notebook's page: notebook, record, notes, template, this code.

    A page holds its hash, by which an outdated page is recognized.
    """
    names = ("page.html.j2", "head.html.j2", "reports.html.j2", "style.css", "script.js")
    looks = [TEMPLATE / name for name in names]
    files = [*looks, RESULTS, notebook, notebook.with_name(RECORD)]
    content = b"".join(file.read_bytes() if file.exists() else b"" for file in files)
    link = relative_link(_published(), notebook.parent)  # a page near chance has such links
    content += "".join([*map(fingerprint, CODE), *_notes(notebook), link]).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def is_current(page: Path, notebook: Path) -> bool:
    """Whether :func:`export_page` would write the same page, except for its links."""
    mark = f'content="cifar-reports {page_digest(notebook)}"'
    return page.exists() and mark in page.read_text("utf-8", "replace")


def write_links(page: Path, links: str) -> None:
    """Replace the links to other pages (HTML) in the bar of an exported page."""
    old = page.read_text("utf-8", "replace")
    new = LINKS.sub(lambda _: f"<!--links-->{links}<!--/links-->", old, count=1)
    if new != old:
        write_atomically(page, new)


@cache
def page_look(*more: str) -> dict[str, str]:
    """The ``style`` and ``script`` of a page, and the ``policy`` that allows no other.

    They are those of all pages, and those in ``more`` files of the template.
    """
    files = [TEMPLATE / name for name in ("style.css", "script.js", *more)]
    style, script = (
        "\n".join(file.read_text("utf-8").strip() for file in files if file.suffix == kind)
        for kind in (".css", ".js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # A browser fetches nothing, and runs no script but the page's own.
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'; "
    policy += "img-src data:; style-src 'unsafe-inline'; "
    return {"style": style, "script": script, "policy": f"{policy}script-src 'sha256-{digest}'"}


def _render(notebook: Path) -> str:
    file, record = notebook.with_name(RECORD), None
    with suppress(InputError):
        record = read_record(file)
    nb, outline = _ready_cells(notebook, record)
    run = nb.metadata.get("papermill", {})
    parameters = _parameters(nb)
    page = {
        "address": quote(os.fsencode(notebook.name)),
        "title": outline.title or escape(notebook.stem),
        "name": outline.name or notebook.stem,
        "contents": outline.entries,
        "cells": nb.cells,
        "reports": [(name, introduction(name)) for name in outline.reports],
        "date": _date(run.get("end_time")),
        "failed": _mark_failed(nb),
        "broken": file.exists() and record is None,
        "parameters": parameters,
        "changed": sum(value != row.default for row, value in parameters),
        "look": page_look(),
        "digest": page_digest(notebook),
        "notes": _notes(notebook),
        "made": ", commit ".join(filter(None, [f"cifar-reports {__version__}", own_commit()])),
    }
    if record:
        page |= _top(record, notebook.parent)
    return TEMPLATES.get_template("page.html.j2").render(page)


def _top(record: RunRecord, folder: Path) -> dict[str, Any]:
    """What the top of a page shows of a run's record."""
    low = near_chance(record)
    return {
        "facts": record_facts(record),
        "answer": answer(record).partition("\n\n")[0],
        "near_chance": low,
        "twin": low and _twin(record, folder),
        "record": record,
    }


def _notes(notebook: Path) -> list[str]:
    """The notes on a notebook's run, from ``notes.yaml`` beside the run's folder."""
    folder = notebook.absolute().parent
    with suppress(InputError):
        return list(read_notes(folder.parent, [Run(folder)]).values())
    return []


def record_facts(record: RunRecord) -> list[tuple[str, str, str]]:
    """The results of a run: (label, value, detail), such as an accuracy and its 95% interval."""
    scores, facts = record.scores["test"], []
    for key, label in (("top1", "test top-1"), ("top5", "test top-5")):
        if key == "top1" or record.top5 is not None:
            facts.append((label, percent(scores[key]), interval(scores[f"{key}_interval"])))
    facts.append(("parameters", compact(record.model["parameters"]), ""))
    if record.test_flops:
        facts.append(("FLOPs a test image", compact(record.test_flops), record.views_in_words))
    if record.history:
        chosen = "val_accuracy" in record.history[-1]
        stretches = len(record.trained_by)
        details = [
            f"best: {record.best_epoch}" if chosen else "",
            f"stopped: {record.stopped}" if record.stopped else "",
            f"computed in {stretches} stretches" if stretches > 1 else "",
        ]
        facts.append(("epochs", str(len(record.history)), "; ".join(filter(None, details))))
    facts.append(("time", duration(record.seconds["total"]), ""))
    return facts


def _twin(record: RunRecord, folder: Path) -> tuple[str, str, str] | None:
    """The best published configuration's first run: its name, dataset and relative path."""
    published = find_runs(_published())
    for group in configurations([run for run in published if run.record]):
        run = group.runs[0]
        same = run.record.notebook == record.notebook
        if same and run.page.exists() and not near_chance(run.record):
            return run.name, run.record.dataset["name"], relative_link(run.page, folder)
    return None


def _published() -> Path:
    return project_folder() / "reports" / "published"


def _highlighted(source: str) -> Markup:
    html = Highlight2HTML()(source)
    return Markup(html.replace("<pre>", '<pre tabindex="0">', 1))  # for scrolling by keyboard


def _lines(text: str) -> str:
    count = len(text.splitlines())
    return f"{count} line{'s' * (count != 1)}"


TEMPLATES.filters |= {"lines": _lines, "highlighted": _highlighted}
TEMPLATES.filters |= {"strip_ansi": strip_ansi, "repr": repr}


def _mark_failed(nb: NotebookNode) -> NotebookNode | None:
    """Mark the cell whose error ended the notebook, and return that error."""
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error" and "raises-exception" not in cell.tags:
                cell["failed"] = True
                return output
    return None


def _date(end: Any) -> str:
    with suppress(TypeError, ValueError):
        when = datetime.fromisoformat(end)
        return f"{when.day} {when:%B %Y}"
    return ""


def _parameters(nb: NotebookNode) -> list[tuple[Parameter, Any]]:
    """Each parameter and its value, by the cells that set them."""
    sources = {tag: cell.source for cell in reversed(nb.cells) for tag in cell.tags}
    known, given = {}, {}
    with suppress(Exception):  # another kind of notebook, whose cell is shown as it is
        known = parse_parameters(sources.get("parameters", ""))
    with suppress(SyntaxError):  # a reader's
        for node in ast.parse(sources.get("injected-parameters", "")).body:
            with suppress(AttributeError, ValueError):  # no assignment of a literal
                given[node.targets[0].id] = ast.literal_eval(node.value)
    return [
        (row, given.get(row.name, row.default))
        for row in known.values()
        if row.name != "output"  # a path, which says nothing about the run
    ]


# The cells of the notebook.


def _ready_cells(notebook: Path, record: RunRecord | None) -> tuple[NotebookNode, Outline]:
    """Read a notebook and make its cells ready for a page.

    Each cell has ``tags``. A code cell has ``outputs``, each of which is a stream, an error or has
    ``html``; every other cell has ``html``. Outputs that tell of the record alone are told anew.
    """
    nb = read_notebook(notebook)
    if not any(cell.get("execution_count") or cell.get("outputs") for cell in nb.cells):
        raise InputError(f"{notebook} has not been executed; run it: cifar-reports run {notebook}")
    for cell in nb.cells:
        cell.tags = cell.metadata.get("tags", [])
    # Papermill marks an error with additional cells. The page has its own mark.
    nb.cells = [cell for cell in nb.cells if "papermill-error-cell-tag" not in cell.tags]
    outline = Outline(notebook.parent)
    for cell in nb.cells:
        outline.attached = cell.get("attachments", {})
        if cell.cell_type == "code":
            CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, 0)
            told = record and OF_RECORD.fullmatch(bare_code(cell.source))
            for output in cell.outputs:
                if told and output.output_type == "execute_result":
                    output.data = {"text/html": TELL[told[1]](record)._repr_html_()}
                if output.output_type in ("display_data", "execute_result"):
                    output.html = _displayed(output, outline)
        elif cell.cell_type == "raw":
            cell.html = f'<pre tabindex="0">{escape(cell.source)}</pre>'
        else:
            cell.html = clean(markdown_html(cell.source), outline)
    return nb, outline


def _displayed(output: NotebookNode, outline: Outline) -> str:
    """The HTML of an output: the form that JupyterLab would show, if a page can show it."""
    data = dict(output.data)
    plain = strip_ansi(data.pop("text/plain", ""))
    if data.get("text/html"):
        return f'<div class="html">{clean(data["text/html"], outline)}</div>'
    for kind in ("text/markdown", "text/latex"):
        if data.get(kind):
            html = markdown_html(cleandoc(data[kind]) if kind == "text/latex" else data[kind])
            return f'<div class="markdown">{clean(html, outline)}</div>'
    pictures = [kind for kind in data if kind.startswith("image/") and data[kind]]
    for kind in sorted(pictures, key="image/svg+xml".__ne__)[:1]:
        content = data[kind]
        if kind == "image/svg+xml":
            content = base64.b64encode(content.encode()).decode()
        alt = (output.metadata.get(kind) or {}).get("alt") or output.metadata.get("alt", "")
        source = escape(f"data:{kind};base64,{content}")
        figure = f'<figure class="report-figure"><img src="{source}" alt="{escape(alt)}"></figure>'
        return clean(figure, outline)
    if any(NEEDS_SCRIPT.fullmatch(kind) for kind in data):
        return note("interactive output", "it needs JavaScript")
    if data:
        return note("output", f"a page can't show {', '.join(data)}")
    return f'<pre tabindex="0">{escape(plain)}</pre>' if plain.strip() else ""
