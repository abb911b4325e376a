"""The runs below a folder as one table, the best first; and seeds of one configuration together."""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from scipy.stats import t

from cifar_utils.runs.folder import Run, find_runs
from cifar_utils.runs.record import UNKNOWN, RunRecord
from cifar_utils.runs.reported import reported_results, reporter
from cifar_utils.text import compact, duration, interval, percent

TEXT = ("run", "notebook", "dataset", "architecture", "processor", "commit", "date", "reported_by")
SHARES = ("top1", "top1_low", "top1_high", "top5", "reported")
COUNTS = ("parameters", "flops", "epochs", "train_images", "seed")
COLUMNS = [
    *("run", "notebook", "dataset", "architecture", *SHARES, "reported_by"),
    *("parameters", "flops", "epochs", "train_images", "train_seconds", "total_seconds"),
    *("processor", "commit", "date", "seed"),
]
ABSENT = "–"
FORMS: dict[str, tuple[str, Callable[[Any], str]]] = {  # how a column is called and written
    "top1": ("top-1", percent),
    "interval": ("95% interval", interval),
    "top5": ("top-5", percent),
    "reported": ("reported", percent),
    "loss": ("loss", "{:.3f}".format),
    "parameters": ("parameters", compact),
    "flops": ("FLOPs", compact),
    "train_seconds": ("training", duration),
}
ASIDE = {"first", "last", "platform", "python"}  # of a stretch of epochs: they change no result


@dataclass(frozen=True)
class Configuration:
    """Finished runs that differ in nothing but the seed.

    Attributes
    ----------
    runs
        By seed.
    board
        Their rows of the :func:`leaderboard`.

    """

    runs: tuple[Run, ...]
    board: pd.DataFrame

    @property
    def name(self) -> str:
        """The first run's name, without its seed where there are several."""
        name = self.runs[0].name
        return re.sub(r"-s\d+$", "", name) if len(self.runs) > 1 else name

    @property
    def network(self) -> str:
        """The network with its options, as it was asked for."""
        asked = self.runs[0].record.parameters.get("architecture")
        return str(asked or self.board["architecture"][0])

    def mean(self, column: str) -> float | None:
        """The mean of a column of numbers; None where no run has any."""
        value = self.board[column].mean()
        return None if pd.isna(value) else float(value)

    def deviation(self, column: str) -> float | None:
        """The standard deviation between seeds; None where there is one only."""
        value = self.board[column].astype(float).std()
        return None if pd.isna(value) else float(value)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of top-1: Wilson's of one run, Student's of the mean over seeds."""
        deviation, n = self.deviation("top1"), len(self.runs)
        if deviation is None:
            bounds = self.mean("top1_low"), self.mean("top1_high")
            return None if None in bounds else bounds
        half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
        return self.mean("top1") - half, self.mean("top1") + half


def leaderboard(folder: Path | str) -> pd.DataFrame:
    """The finished runs below a folder, a row each, the best first within a dataset.

    Columns: ``run``, ``notebook``, ``dataset``, ``architecture``, ``top1`` with ``top1_low`` and
    ``top1_high`` (its 95% interval), ``top5``, ``reported`` (the top-1 reported of that
    architecture and dataset; ``reported_by`` says by whom, and on what images), ``parameters``,
    ``flops`` (an image, forward), ``epochs``, ``train_images``, ``train_seconds``,
    ``total_seconds``, ``processor`` and ``commit`` (of training; "unknown" where the record
    can't tell), ``date``, ``seed``. Accuracies are fractions; what a record does not say is NaN.
    """
    return tabulate([run for run in find_runs(Path(folder)) if run.record])


def tabulate(runs: Sequence[Run]) -> pd.DataFrame:
    """The rows of :func:`leaderboard` for these finished runs, in their order."""
    board = pd.DataFrame([_row(run) for run in runs], columns=COLUMNS)
    for column in board.columns.difference(TEXT):
        numbers = pd.to_numeric(board[column], errors="coerce")
        board[column] = (
            numbers.round().astype("Int64") if column in COUNTS else numbers.astype(float)
        )
    return board


def configurations(runs: Sequence[Run]) -> list[Configuration]:
    """Finished runs, seeds of one configuration together: by dataset, the best mean first.

    Seeds are of one configuration where notebook and parameters are the same. They may be of
    several commits and machines, which the columns ``commit`` and ``processor`` list.
    """
    found: dict[str, list[Run]] = {}
    seen: Counter[str] = Counter()
    for run in runs:
        parameters = run.record.parameters
        key = json.dumps([run.record.notebook, settings(run.record)])
        again = f"{key} {parameters.get('seed')}"  # a seed that was run twice is no other seed
        found.setdefault(f"{key} {seen[again]}", []).append(run)
        seen[again] += 1
    groups = []
    for alike in found.values():
        alike.sort(key=lambda run: str(run.record.parameters.get("seed")).zfill(9))
        groups.append(Configuration(tuple(alike), tabulate(alike)))

    def order(group: Configuration) -> tuple[Any, ...]:
        top1 = group.mean("top1")
        return group.board["dataset"][0], 1.0 if top1 is None else -top1, group.name

    return sorted(groups, key=order)


def read_notes(folder: Path, runs: Sequence[Run]) -> dict[str, str]:
    """What a reader must know of some runs: sentences of a folder's ``notes.yaml``.

    Its keys are patterns of runs' names (``"cifarnet-*"``); those that fit none are left out.
    """
    file = folder / "notes.yaml"
    notes = yaml.safe_load(file.read_text("utf-8")) if file.exists() else {}
    names = [run.name for run in runs]
    return {pattern: note for pattern, note in notes.items() if fnmatch.filter(names, pattern)}


def settings(record: RunRecord) -> dict[str, Any]:
    """A run's parameters but for the seed and where it went, in order of their names."""
    given = record.parameters.items()
    return dict(sorted((name, value) for name, value in given if name not in {"seed", "output"}))


def trained_by(record: RunRecord) -> list[dict[str, Any]]:
    """What computed the training, each once: commit, processor, cores, precision and so on.

    Empty where the record does not tell.
    """
    found = []
    for stretch in record.trained_by:
        one = {key: stretch[key] for key in sorted(stretch) if key not in ASIDE}
        if one not in found:
            found.append(one)
    return found


def in_words(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Columns of a table of runs as a page or a terminal shows them; a dash for what is missing.

    ``interval`` stands for ``top1_low`` and ``top1_high``.
    """
    shown = pd.DataFrame(index=table.index)
    for key in columns:
        title, form = FORMS.get(key, (key, str))
        bounds = ("top1_low", "top1_high") if key == "interval" else (key,)
        rows = zip(*(table[bound] for bound in bounds), strict=True)
        shown[title] = [
            ABSENT if pd.isna(list(row)).any() else form(row if len(row) > 1 else row[0])
            for row in rows
        ]
    return shown


def _row(run: Run) -> dict[str, Any]:
    record = run.record
    test, model, seconds = record.scores.get("test", {}), record.model, record.seconds
    low, high = test.get("top1_interval") or (None, None)
    dataset, architecture = record.dataset.get("name", ""), model.get("architecture", "")
    reported, reported_by = _reported(str(architecture), dataset)
    stretches = trained_by(record) or [{}]
    processors = [", ".join(s.get("accelerators") or []) or s.get("processor") for s in stretches]
    return {
        "run": run.name,
        "notebook": record.notebook,
        "dataset": dataset,
        "architecture": architecture,
        "top1": test.get("top1"),
        "top1_low": low,
        "top1_high": high,
        "top5": test.get("top5"),
        "reported": reported,
        "reported_by": reported_by,
        "parameters": model.get("parameters"),
        "flops": model.get("flops"),
        "epochs": len(record.history),
        "train_images": record.dataset.get("train"),
        "train_seconds": seconds.get("train"),
        "total_seconds": seconds.get("total"),
        "processor": _each(processors),
        "commit": _each(stretch.get("git") for stretch in stretches),
        "date": run.date,
        "seed": record.parameters.get("seed"),
    }


def _each(values: Iterable[str | None]) -> str:
    return "; ".join(dict.fromkeys(value or UNKNOWN for value in values))


@cache
def _reported(architecture: str, dataset: str) -> tuple[float | None, str]:
    """The top-1 reported of a network, best on test images if there is any, and by whom."""
    rows = reported_results(architecture, dataset)
    rows = rows[rows["top1"].notna() & (rows["split"] != "train")]
    rows = rows.assign(other=rows["split"] != "test")
    rows = rows.sort_values(["other", "top1"], ascending=[True, False]).to_dict("records")
    if not rows:
        return None, ""
    best = rows[0]
    splits = {"test": "", "unclear": ", split unclear"}
    return best["top1"], reporter(best) + splits.get(best["split"], f", {best['split']}")
