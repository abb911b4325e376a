"""The index page over a folder of runs."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from cifar_utils.files import write_atomically
from cifar_utils.parameters import InputError
from cifar_utils.record import RunRecord, read_record
from cifar_utils.reports.runs import read_identity
from cifar_utils.words import compact, duration, interval, percent

TEMPLATE = Path(__file__).parent / "template"


@dataclass(frozen=True)
class Row:
    """One run on the index: its record, or why it has none."""

    name: str
    page: str
    date: str
    notebook: str
    record: RunRecord | None
    error: str


def build_index(folder: Path) -> Path:
    """Write ``index.html`` into a folder: a table that links the pages of all runs below it.

    Runs are known by their ``record.json`` or ``run.json``. By dataset, the best accuracy comes
    first; runs that failed or are not finished come last, with a line of why.
    """
    files = [*folder.rglob("record.json"), *folder.rglob("run.json")]
    runs = {file.parent for file in files if "/." not in f"/{file.relative_to(folder).as_posix()}"}
    rows = [_row(run, folder) for run in sorted(runs)]
    environment = Environment(loader=FileSystemLoader(TEMPLATE), autoescape=True)
    environment.filters |= {
        function.__name__: function for function in (compact, duration, interval, percent)
    }
    html = environment.get_template("index.html.j2").render(
        style=Markup((TEMPLATE / "style.css").read_text("utf-8")),
        done=sorted((row for row in rows if row.record), key=_order),
        undone=[row for row in rows if not row.record],
    )
    page = folder / "index.html"
    write_atomically(page, html)
    return page


def _order(row: Row) -> tuple[str, float]:
    return row.record.dataset.get("name", ""), -row.record.scores.get("test", {}).get("top1", 0)


def _row(run: Path, folder: Path) -> Row:
    facts: dict[str, Any] = {}
    record, error = None, ""
    try:
        facts = read_identity(run) if (run / "run.json").exists() else {"outcome": "finished"}
        if facts.get("outcome") == "finished":
            record = read_record(run)
        else:
            error = facts.get("error") or "not finished; the same command goes on with it"
    except InputError as broken:
        error = str(broken)
    page = run / "report.html"
    return Row(
        name=run.name,
        page=page.relative_to(folder).as_posix() if page.exists() else "",
        date=facts["ended"][:10] if facts.get("ended") else _changed(run),
        notebook=record.notebook if record else facts.get("notebook", ""),
        record=record,
        error=error,
    )


def _changed(run: Path) -> str:
    """The day that a run's files changed last, where no ``run.json`` tells when it ended."""
    latest = max(path.stat().st_mtime for path in run.glob("r*.json"))
    return f"{datetime.fromtimestamp(latest):%Y-%m-%d}"
