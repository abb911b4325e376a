"""The site over a folder of runs: an index, their learning curves, and a page for each."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from cifar_utils.errors import InputError
from cifar_utils.files import NOTEBOOK, write_atomically
from cifar_utils.reporting.drawings import draw_cost, draw_curves
from cifar_utils.reporting.export import (
    TEMPLATE,
    export_page,
    is_current,
    page_look,
    write_links,
)
from cifar_utils.runs.folder import Run, find_runs
from cifar_utils.runs.leaderboard import (
    COLUMNS,
    Configuration,
    configurations,
    read_notes,
)
from cifar_utils.text import compact, duration, interval, percent


def build_index(folder: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """Write ``index.html`` and ``curves.html`` into a folder, and link the pages of its runs.

    Runs are known by their ``record.json`` or ``run.json``. Seeds of one configuration share a row;
    by dataset, the best accuracy comes first. Runs that failed or are not finished come last, with
    a line of why. A page that is older than its notebook, its record or the template is exported
    again; nothing is executed.

    Parameters
    ----------
    folder
        The runs' folders lie in it, at any depth.
    say
        Is told, in a line each, which pages are exported.

    Returns
    -------
    Path
        The index.

    """
    runs = find_runs(folder)
    _renew_pages(runs, say)
    links = {run.folder: _href(run.page, folder) for run in runs if run.page.exists()}
    _link_pages([run for run in runs if run.folder in links], folder)
    done, undone = [run for run in runs if run.record], [run for run in runs if not run.record]
    rows = [_row(group) for group in configurations(done)]
    board = pd.DataFrame(rows, columns=[*COLUMNS, "name"]).drop(columns="run")
    numbers = ("top1", "top1_low", "top1_high", "train_seconds", "flops")
    board = board.rename(columns={"name": "run"}).astype(dict.fromkeys(numbers, float))

    def link(run: Run) -> Markup:
        html = Markup('<a href="{}">{}</a>') if run.folder in links else Markup("{1}")
        return html.format(links.get(run.folder, ""), run.name)

    datasets = dict.fromkeys(board["dataset"])
    costs = [draw_cost(board[board["dataset"] == name]) for name in datasets]
    curves = [
        (name, draw_curves([run for run in done if run.record.dataset.get("name", "") == name]))
        for name in datasets
    ]
    environment = Environment(loader=FileSystemLoader(TEMPLATE), autoescape=True)
    environment.globals |= {
        "look": {name: Markup(text) for name, text in page_look().items()},
        "link": link,
        "share": partial(percent, digits=2),
        "compact": compact,
        "duration": duration,
    }
    index = environment.get_template("index.html.j2").render(
        rows=rows,
        count=len(done),
        undone=undone,
        notes=read_notes(folder, done),
        drawings=[drawing for drawing in costs if drawing],
    )
    drawn = environment.get_template("curves.html.j2").render(
        drawings=[(name, drawing) for name, drawing in curves if drawing]
    )
    write_atomically(folder / "curves.html", drawn)
    write_atomically(folder / "index.html", index)
    return folder / "index.html"


def _row(group: Configuration) -> dict[str, Any]:
    """A configuration as the leaderboard shows it: means over its seeds."""
    rows = group.board.astype(object).where(group.board.notna(), None).to_dict("records")
    deviation, n = group.deviation("top1"), len(rows)
    low, high = group.interval or (None, None)
    if deviation is None:
        spread = "" if low is None else interval((low, high))
    else:
        spread = f"± {100 * deviation:.2f}, n = {n}"
    return rows[0] | {
        "name": group.name,
        "network": group.network,
        "top1": group.mean("top1"),
        "top1_low": low,
        "top1_high": high,
        "spread": spread,
        "train_seconds": group.mean("train_seconds"),
        "date": max(row["date"] for row in rows),
        "seeds": [
            {"run": run, "top1": row["top1"]} for run, row in zip(group.runs, rows, strict=True)
        ],
    }


def _renew_pages(runs: Sequence[Run], say: Callable[[str], None]) -> None:
    """Export anew the pages that are not as they would be exported now."""
    stale = []
    for run in runs:
        notebook = run.folder / NOTEBOOK
        if notebook.exists() and not is_current(run.page, notebook):
            stale.append((run, notebook))
    for number, (run, notebook) in enumerate(stale, 1):
        say(f"[{number}/{len(stale)}] {run.name}: page exported anew")
        try:
            export_page(notebook, run.page)
        except InputError as error:  # a run that was killed early; its page, if any, stays
            say(f"[{number}/{len(stale)}] {run.name}: {error}")


def _link_pages(runs: Sequence[Run], folder: Path) -> None:
    """Write into each run's page the way to the index and to the runs before and after it."""
    for place, run in enumerate(runs):
        links = Markup('<nav aria-label="Runs"><a href="{}">All runs</a>').format(
            _href(folder / "index.html", run.folder)
        )
        sides = {"prev": runs[place - 1 : place] if place else [], "next": runs[place + 1 :][:1]}
        for side, label, words in (
            ("prev", "Previous", "← <span>{}</span>"),
            ("next", "Next", "<span>{}</span> →"),
        ):
            for other in sides[side]:
                links += Markup(
                    f' <a rel="{side}" href="{{}}" aria-label="{label} run: {{}}">'
                ).format(_href(other.page, run.folder), other.name)
                links += Markup(words + "</a>").format(other.name)
        write_links(run.page, links + Markup("</nav>"))


def _href(path: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(path, folder)).as_posix())
