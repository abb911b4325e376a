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
from statistics import mean, stdev
from typing import Any

import pandas as pd
import yaml
from scipy.stats import t

from cifar_utils.runs.answer import answer
from cifar_utils.runs.folder import Run, find_runs
from cifar_utils.runs.record import UNKNOWN, RunRecord
from cifar_utils.runs.reported import reported_results, reporter
from cifar_utils.text import compact, duration, interval, percent

CONDITIONS = ("processor", "precision", "commit")  # of training
TEXT = ("run", "notebook", "dataset", "architecture", *CONDITIONS, "date", "reported_by")
SHARES = ("top1", "top1_low", "top1_high", "top5", "reported")
COUNTS = ("parameters", "flops", "epochs", "train_images", "seed")
COLUMNS = [
    *("run", "notebook", "dataset", "architecture", *SHARES, "reported_by"),
    *("parameters", "flops", "epochs", "train_images", "train_seconds", "total_seconds"),
    *(*CONDITIONS, "date", "seed"),
]
ABSENT = "–"
SEEDS = {"seed", "output"}  # parameters in which runs of one configuration may differ
ASIDE = {"first", "last", "platform", "python"}  # of a stretch of epochs: they change no result


def short_commits(commits: str) -> str:
    """Commits by their first eight digits: ``"45844a83 + changes; unknown"``."""
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]+", r"\1", commits).replace("+changes", " + changes")


FORMS: dict[str, tuple[str, Callable[[Any], str]]] = {  # how a column is called and written
    "top1": ("top-1", percent),
    "interval": ("95% interval", interval),
    "top5": ("top-5", percent),
    "reported": ("reported", percent),
    "loss": ("loss", "{:.3f}".format),
    "parameters": ("parameters", compact),
    "flops": ("FLOPs", compact),
    "train_seconds": ("training", duration),
    "commit": ("commit", short_commits),
}


@dataclass(frozen=True, eq=False)
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
    def record(self) -> RunRecord:
        """The first run's."""
        return self.runs[0].record

    @property
    def network(self) -> str:
        """The network with its options, as it was asked for."""
        return str(self.record.parameters.get("architecture") or self.board["architecture"][0])

    @property
    def settings(self) -> dict[str, Any]:
        """Its parameters but for the seed and where the runs went, in order of their names."""
        given = self.record.parameters
        return {name: given[name] for name in sorted(given.keys() - SEEDS)}

    def differing(self, reference: Configuration) -> dict[str, Any]:
        """Of its settings those that are others than a reference's."""
        ours, theirs = self.settings, reference.settings
        names = (name for name in ours | theirs if ours.get(name) != theirs.get(name))
        return {name: ours.get(name) for name in names}

    def mean(self, column: str) -> float | None:
        """The mean of a column of numbers; None where no run has any."""
        value = self.board[column].mean()
        return None if pd.isna(value) else float(value)

    def each(self, column: str) -> str:
        """The texts of a column, each once, with "; " between them."""
        return _each("; ".join(self.board[column]).split("; "))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of top-1: Wilson's of one run, Student's of the mean over seeds."""
        shares = self.board["top1"].dropna()
        if len(shares) < 2:
            bounds = self.mean("top1_low"), self.mean("top1_high")
            return None if None in bounds else bounds
        half = float(t.ppf(0.975, len(shares) - 1)) * stdev(shares) / math.sqrt(len(shares))
        return mean(shares) - half, mean(shares) + half

    @property
    def training(self) -> str:
        """The time that training took, from the quickest seed to the slowest."""
        times = sorted(self.board["train_seconds"].dropna())
        return " to ".join(dict.fromkeys(map(duration, times[:1] + times[-1:])))

    @property
    def reported(self) -> str:
        """The top-1 that others report of the network, and who; empty where nobody does."""
        value, by = self.mean("reported"), self.board["reported_by"][0]
        return "" if value is None else f"{percent(value, 2)} ({by})"

    @property
    def answer(self) -> str:
        """What its runs answer: :func:`~cifar_utils.runs.answer.answer`, or the mean over seeds."""
        if len(self.runs) == 1:
            return answer(self.record)
        data, n = self.record.dataset, self.record.scores["test"]["n"]
        told = (
            f"{self.network} classifies {percent(self.mean('top1'), 2)} of {n:,} test images of "
            f"{data['name']} correctly (mean of {len(self.runs)} seeds, standard deviation "
            f"{100 * stdev(self.board['top1']):.2f} points, 95% interval "
            f"{interval(self.interval)}), after {len(self.record.history)} epochs of "
            f"{data['train']:,} images in {self.training}."
        )
        return f"{told} Reported: {self.reported}." if self.reported else told


def spread(shares: Sequence[float]) -> str:
    """Fractions in percent: ``"86.70%"``; of several ``"94.17% ± 0.13, n = 5"``.

    That is mean, standard deviation in points, and number.
    """
    if len(shares) < 2:
        return percent(shares[0], 2) if len(shares) else ABSENT
    return f"{percent(mean(shares), 2)} ± {100 * stdev(shares):.2f}, n = {len(shares)}"


def leaderboard(folder: Path | str) -> pd.DataFrame:
    """The finished runs below a folder, a row each, the best first within a dataset.

    Columns: ``run``, ``notebook``, ``dataset``, ``architecture``, ``top1`` with ``top1_low`` and
    ``top1_high`` (its 95% interval), ``top5``, ``reported`` (the top-1 reported of that
    architecture and dataset; ``reported_by`` says by whom, and on what images), ``parameters``,
    ``flops`` (an image, forward), ``epochs``, ``train_images``, ``train_seconds``,
    ``total_seconds``, ``processor``, ``precision`` and ``commit`` (of training; "unknown" where
    the record can't tell), ``date``, ``seed``. Accuracies are fractions; what a record does not
    say is NaN.
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
        given = {name: parameters[name] for name in parameters.keys() - SEEDS}
        key = json.dumps([run.record.notebook, given], sort_keys=True)
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


def families(groups: Sequence[Configuration]) -> list[list[Configuration]]:
    """Configurations with their ablations: the first of each list is what the others change.

    They are of one notebook and one kind of network, on as many images of one dataset, for as many
    epochs. The first is the one that differs least from the others; of several the best.
    """
    found: dict[str, list[Configuration]] = {}
    for group in groups:
        record, kind = group.record, group.network.partition("(")[0]
        images = [record.dataset.get(key) for key in ("name", "train", "validation", "test")]
        key = [record.notebook, kind, images, record.parameters.get("epochs")]
        found.setdefault(str(key), []).append(group)
    for alike in found.values():
        first = min(alike, key=lambda one: sum(len(one.differing(other)) for other in alike))
        alike.sort(key=lambda one: one is not first)
    return sorted(found.values(), key=lambda alike: groups.index(alike[0]))


def read_notes(folder: Path, runs: Sequence[Run]) -> dict[str, str]:
    """What a reader must know of some runs: sentences of a folder's ``notes.yaml``.

    Its keys are patterns of runs' names (``"cifarnet-*"``); those that fit none are left out.
    """
    file = folder / "notes.yaml"
    notes = yaml.safe_load(file.read_text("utf-8")) if file.exists() else {}
    names = [run.name for run in runs]
    return {pattern: note for pattern, note in notes.items() if fnmatch.filter(names, pattern)}


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
        "precision": _each(stretch.get("precision") for stretch in stretches),
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
