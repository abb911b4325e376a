"""Exports an executed notebook as one HTML page, which needs no network."""

import base64
import hashlib
import os
import re
from contextlib import suppress
from datetime import datetime
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from nbconvert.filters import Highlight2HTML, strip_ansi
from nbformat import NotebookNode

from cifar_utils import __version__, runs
from cifar_utils.choices import parse_parameters
from cifar_utils.errors import InputError
from cifar_utils.files import write_atomically
from cifar_utils.provenance import own_commit
from cifar_utils.reporting.cells import ready_cells
from cifar_utils.reporting.facts import record_facts
from cifar_utils.reporting.runs import project_folder
from cifar_utils.runs.answer import answer, near_chance
from cifar_utils.runs.folder import find_runs
from cifar_utils.runs.record import RunRecord, read_record
from cifar_utils.runs.reported import introduction

TEMPLATE = Path(__file__).parent / "template"
TEMPLATES = Environment(loader=FileSystemLoader(TEMPLATE), autoescape=True)
LINKS = re.compile("<!--links-->.*?<!--/links-->", re.DOTALL)


def export_page(notebook: Path, page: Path) -> Path:
    """Write the page of a notebook that was executed completely or up to an error.

    The facts at its top are from the ``record.json`` beside the notebook, if there is one.

    Raises
    ------
    InputError
        Where the file is not a notebook, or no cell has been executed.

    """
    try:
        record = read_record(notebook.with_name("record.json"))
    except InputError:  # missing or broken: the page shows only the cells
        record = None
    # UTF-8 can't encode the halves of characters in broken output: they become �.
    html = _render(notebook, record).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    write_atomically(page, html)
    return page


def page_digest(notebook: Path) -> str:
    """Hash of everything in a notebook's page: the notebook, its record, the template, this code.

    A page holds its hash, by which an outdated page is recognized.
    """
    looks = [TEMPLATE / name for name in ("page.html.j2", "head.html.j2", "style.css", "script.js")]
    code = map(Path(__file__).with_name, ("export.py", "cells.py", "fragments.py", "facts.py"))
    words = [Path(runs.__file__).parent / name for name in ("answer.py", "reported/results.yaml")]
    files = [*looks, *code, *words, notebook, notebook.with_name("record.json")]
    content = b"".join(file.read_bytes() if file.exists() else b"" for file in files)
    return hashlib.sha256(content).hexdigest()[:16]


def is_current(page: Path, notebook: Path) -> bool:
    """Whether :func:`export_page` would write the same page, except for its links."""
    if not page.exists():
        return False
    with page.open("rb") as file:
        return f'content="cifar-reports {page_digest(notebook)}"'.encode() in file.read(2000)


def write_links(page: Path, links: str) -> None:
    """Replace the links to other pages (HTML) in the bar of an exported page."""
    old = page.read_text("utf-8")
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
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    return {"style": style, "script": script, "policy": f"{policy}script-src 'sha256-{digest}'"}


def _render(notebook: Path, record: RunRecord | None) -> str:
    nb, outline = ready_cells(notebook)
    run = nb.metadata.get("papermill", {})
    page = {
        "address": quote(os.fsencode(notebook.name)),
        "title": outline.title or escape(notebook.stem),
        "name": outline.name or notebook.stem,
        "contents": outline.entries,
        "cells": nb.cells,
        "reports": [(name, introduction(name)) for name in outline.reports or []],
        "date": _date(run.get("end_time")),
        "failed": _mark_failed(nb),
        "parameters": _parameter_rows(nb, run.get("parameters", {})),
        "look": page_look(),
        "digest": page_digest(notebook),
        "made": ", commit ".join(filter(None, [f"cifar-reports {__version__}", own_commit()])),
    }
    with suppress(Exception):  # no record, or a bad one, whose scores may not be numbers
        page |= {"facts": record_facts(record), "record": record}
        if near_chance(record):
            page["warning"] = answer(record)
            page["twin"] = _twin(record, notebook.parent)
    return TEMPLATES.get_template("page.html.j2").render(page)


def _twin(record: RunRecord, folder: Path) -> tuple[str, str, str] | None:
    """The best published run of the same notebook: its name, dataset and relative path."""
    for run in find_runs(project_folder() / "reports" / "published"):
        same = run.record and run.record.notebook == record.notebook
        if same and run.page.exists() and not near_chance(run.record):
            address = quote(Path(os.path.relpath(run.page, folder)).as_posix())
            return run.name, run.record.dataset["name"], address
    return None


def _highlighted(source: str) -> Markup:
    html = Highlight2HTML()(source)
    return Markup(html.replace("<pre>", '<pre tabindex="0">', 1))  # for scrolling by keyboard


def _lines(text: str) -> str:
    count = len(text.splitlines())
    return f"{count} line{'s' * (count != 1)}"


TEMPLATES.filters |= {"lines": _lines, "highlighted": _highlighted, "strip_ansi": strip_ansi}


def _mark_failed(nb: NotebookNode) -> NotebookNode | None:
    """Mark the cell whose error ended the notebook, and return that error."""
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error" and "raises-exception" not in cell.tags:
                cell["failed"] = True
                return output
    return None


def _date(end: Any) -> str:
    try:
        when = datetime.fromisoformat(end)
    except (TypeError, ValueError):
        return ""
    return f"{when.day} {when:%B %Y}"


def _parameter_rows(nb: NotebookNode, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Name, value and meaning of each parameter, and whether its value differs from the default."""
    source = next((cell.source for cell in nb.cells if "parameters" in cell.tags), "")
    try:
        known = parse_parameters(source)
    except Exception:  # another kind of notebook, whose cell is shown as it is
        known = {}
    return [
        {
            "name": row.name,
            "value": repr(given.get(row.name, row.default)),
            "default": repr(row.default),
            "meaning": row.meaning,
            "changed": given.get(row.name, row.default) != row.default,
        }
        for row in known.values()
        if row.name != "output"  # a path, which says nothing about the run
    ]
