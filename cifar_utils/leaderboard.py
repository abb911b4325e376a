"""The runs below a folder: what each came to, and all of them as one table, the best first."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cifar_utils.parameters import InputError
from cifar_utils.record import RunRecord, read_record
from cifar_utils.reported import reported_results, reporter
from cifar_utils.words import compact, duration, interval, percent

TEXT = ("run", "notebook", "dataset", "architecture", "family", "processor", "date", "reported_by")
SHARES = ("top1", "top1_low", "top1_high", "top5", "reported")
COUNTS = ("parameters", "flops", "epochs", "train_images", "seed")
COLUMNS = [
    *("run", "notebook", "dataset", "architecture", "family", *SHARES, "reported_by"),
    *("parameters", "flops", "epochs", "train_images", "train_seconds", "total_seconds"),
    *("processor", "date", "seed"),
]
UNFINISHED = "not finished; the same command goes on with it"


@dataclass(frozen=True)
class FoundRun:
    """A run's folder on disk, with its record or a line of why it has none.

    Attributes
    ----------
    date
        The day it ended (``"2026-11-21"``); where nothing tells, that of its last change.

    """

    folder: Path
    notebook: str
    date: str
    record: RunRecord | None = None
    error: str = ""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def page(self) -> Path:
        """Where its page is, if it has one."""
        return self.folder / "report.html"


def find_runs(folder: Path) -> list[FoundRun]:
    """All runs below a folder: finished ones by dataset, best first; then the others, by name.

    Runs are known by their ``record.json`` or ``run.json``; hidden folders are not looked into.
    """
    files = [*folder.rglob("record.json"), *folder.rglob("run.json")]
    found = {file.parent for file in files if "/." not in f"/{file.relative_to(folder).as_posix()}"}
    return sorted(map(_find_run, found), key=_order)


def leaderboard(folder: Path | str) -> pd.DataFrame:
    """The finished runs below a folder, a row each, the best first within a dataset.

    Columns: ``run``, ``notebook``, ``dataset``, ``architecture``, ``family`` (the notebook's name
    without its number), ``top1`` with ``top1_low`` and ``top1_high`` (its 95% interval), ``top5``,
    ``reported`` (the top-1 a report gives for that architecture and dataset; ``reported_by`` says
    which one, and on what images), ``parameters``, ``flops`` (an image, forward), ``epochs``,
    ``train_images``, ``train_seconds``, ``total_seconds``, ``processor``, ``date``, ``seed``.
    Accuracies are fractions; what a record does not say is missing (NaN).
    """
    return tabulate([run for run in find_runs(Path(folder)) if run.record])


def tabulate(runs: Sequence[FoundRun]) -> pd.DataFrame:
    """The rows of :func:`leaderboard` for these finished runs, in their order."""
    reports = reported_results()
    reports = reports[reports["top1"].notna() & (reports["split"] != "train")]
    # A figure on test images is the one to compare with; then, the best.
    reports = reports.assign(other=reports["split"] != "test")
    reports = reports.sort_values(["other", "top1"], ascending=[True, False])
    board = pd.DataFrame([_row(run, reports) for run in runs], columns=COLUMNS)
    for column in board.columns.difference(TEXT):
        numbers = pd.to_numeric(board[column], errors="coerce")
        board[column] = (
            numbers.round().astype("Int64") if column in COUNTS else numbers.astype(float)
        )
    return board


def standings(board: pd.DataFrame) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The leaderboard's heads and rows in words, for a terminal; a dash for what is missing."""
    forms: dict[str, Callable[[Any], str]] = {
        **dict.fromkeys(("run", "dataset", "architecture"), str),
        **{"top1": percent, "interval": interval, "reported": percent, "parameters": compact},
        **{"train_seconds": duration, "date": str},
    }
    heads = [{"top1": "accuracy", "train_seconds": "training"}.get(key, key) for key in forms]
    rows = []
    for row in board.to_dict("records"):
        bounds = row["top1_low"], row["top1_high"]
        row["interval"] = None if any(map(pd.isna, bounds)) else bounds
        lacks = {
            key for key, value in row.items() if value is None or value is pd.NA or value != value
        }
        cells = ["–" if key in lacks else form(row[key]) for key, form in forms.items()]
        rows.append(tuple(cells))
    return tuple(heads), rows


def _row(run: FoundRun, reports: pd.DataFrame) -> dict[str, Any]:
    record = run.record
    test, model, seconds = record.scores.get("test", {}), record.model, record.seconds
    low, high = test.get("top1_interval") or (None, None)
    accelerators = record.environment.get("accelerators") or []
    dataset, architecture = record.dataset.get("name", ""), model.get("architecture", "")
    network = str(architecture).partition("(")[0].strip()
    same = reports[(reports["architecture"] == network) & (reports["dataset"] == dataset)]
    reported = same.iloc[0] if len(same) else {}
    split = {"test": "", "unclear": ", split unclear"}.get(
        reported.get("split", "test"), f", {reported.get('split')}"
    )
    return {
        "run": run.name,
        "notebook": record.notebook,
        "dataset": dataset,
        "architecture": architecture,
        "family": record.notebook.lstrip("0123456789").lstrip("_-") or record.notebook,
        "top1": test.get("top1"),
        "top1_low": low,
        "top1_high": high,
        "top5": test.get("top5"),
        "reported": reported.get("top1"),
        "reported_by": f"{reporter(reported)}{split}" if len(same) else "",
        "parameters": model.get("parameters"),
        "flops": model.get("flops"),
        "epochs": len(record.history),
        "train_images": record.dataset.get("train"),
        "train_seconds": seconds.get("train"),
        "total_seconds": seconds.get("total"),
        "processor": ", ".join(accelerators) or record.environment.get("processor", ""),
        "date": run.date,
        "seed": record.parameters.get("seed"),
    }


def _find_run(folder: Path) -> FoundRun:
    file = folder / "run.json"
    facts: dict[str, Any] = {}
    record, error = None, ""
    try:
        # A record alone is a run too.
        facts = json.loads(file.read_text("utf-8")) if file.exists() else {"outcome": "finished"}
        if facts.get("outcome") == "finished":
            record = read_record(folder)
        else:
            error = str(facts.get("error") or UNFINISHED)
    except InputError as broken:
        error = str(broken)
    except (OSError, ValueError, AttributeError) as broken:
        facts, error = {}, f"{file} is broken ({broken}); run its notebook again"
    return FoundRun(
        folder,
        notebook=record.notebook if record else str(facts.get("notebook", "")),
        date=str(facts.get("ended") or "")[:10] or _changed(folder),
        record=record,
        error=error,
    )


def _order(run: FoundRun) -> tuple[Any, ...]:
    if not run.record:
        return 1, "", 0.0, run.name, str(run.folder)
    top1 = run.record.scores.get("test", {}).get("top1")
    rank = -top1 if isinstance(top1, int | float) else 1.0
    return 0, str(run.record.dataset.get("name", "")), rank, run.name, str(run.folder)


def _changed(run: Path) -> str:
    latest = max(path.stat().st_mtime for path in run.glob("r*.json"))
    return f"{datetime.fromtimestamp(latest):%Y-%m-%d}"
