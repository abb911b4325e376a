"""The runs below a folder as one table, the best first; and configurations of several seeds."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

import pandas as pd
import yaml

from cifar_utils.choices import first_name
from cifar_utils.errors import InputError
from cifar_utils.intervals import student_interval
from cifar_utils.runs.answer import answer, classified, reported_sentence
from cifar_utils.runs.folder import Run
from cifar_utils.runs.record import UNKNOWN, RunRecord
from cifar_utils.runs.reported import best_reported
from cifar_utils.text import ABSENT, as_given, compact, duration, from_to, interval, percent

SHARES = ["top1", "top1_low", "top1_high", "top5", "reported"]
COUNTS = ["parameters", "flops", "epochs", "train_images", "seed"]
SEEDS = {"seed", "output"}  # parameters that may differ between runs of one configuration
# Columns of what computed a training, with their names where runs are compared.
COMPUTED = {
    "backend": "backend",
    "precision": "computed in",
    "processor": "processor",
    "commit": "commit",
}
ASIDE = {"first", "last", "platform", "python"}  # facts of a stretch that change no result


def short_commits(commits: str) -> str:
    """Commits by their first eight digits: ``"45844a83 + changes; unknown"``."""
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]+", r"\1", commits).replace("+changes", " + changes")


FORMS: dict[str, tuple[str, Callable[[Any], str]]] = {  # a column's title and values
    "top1": ("top-1", percent),
    "interval": ("95% interval", interval),
    "top5": ("top-5", percent),
    "reported": ("reported", as_given),
    "loss": ("loss", "{:.3f}".format),
    "parameters": ("parameters", compact),
    "flops": ("FLOPs", compact),
    "train_seconds": ("training", duration),
    "commit": ("commit", short_commits),
}


@dataclass(frozen=True, eq=False)
class Configuration:
    """Finished runs that differ in no parameter but the seed.

    Attributes
    ----------
    runs
        The runs in the order of their seeds.
    board
        Their rows of :func:`tabulate`.

    """

    runs: tuple[Run, ...]
    board: pd.DataFrame

    @property
    def epochs(self) -> int | None:
        """The epochs of the tested training; if it was stopped early, those it should have had."""
        record = self.record
        return record.parameters.get("epochs") if record.stopped else len(record.history)

    @property
    def name(self) -> str:
        """The first run's name, without its seed where there are several."""
        name = self.runs[0].name
        return re.sub(r"-s\d+(?=$|-[0-9a-f]{6}$)", "", name) if len(self.runs) > 1 else name

    @property
    def record(self) -> RunRecord:
        """The first run's record."""
        return self.runs[0].record

    @property
    def network(self) -> str:
        """The network that was tested, with its options."""
        return self.record.model["architecture"]

    @property
    def kind(self) -> str:
        """The network without its options: ``"resnet18"`` of ``"resnet18(dropout=0.5)"``."""
        return first_name(self.network)

    @property
    def settings(self) -> dict[str, Any]:
        """The first run's :func:`settings`."""
        return settings(self.record)

    def differing(self, reference: Configuration) -> dict[str, Any]:
        """Its settings that differ from a reference's."""
        ours, theirs = self.settings, reference.settings
        names = (name for name in ours | theirs if ours.get(name) != theirs.get(name))
        return {name: ours.get(name) for name in names}

    def mean(self, column: str) -> float | None:
        """The mean of a column of numbers; None where no run has any."""
        value = self.board[column].mean()
        return None if pd.isna(value) else float(value)

    def each(self, column: str) -> str:
        """The different texts of a column, joined by "; "."""
        return _each("; ".join(self.board[column]).split("; "))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of top-1: Student's for seeds that differ, else Wilson's for images."""
        if self._over_seeds is None:
            return self.mean("top1_low"), self.mean("top1_high")
        return max(self._over_seeds[0], 0.0), min(self._over_seeds[1], 1.0)

    @property
    def _over_seeds(self) -> tuple[float, float] | None:
        return student_interval(self.board["top1"].tolist())

    @property
    def training(self) -> str:
        """The time of training, from the fastest seed to the slowest."""
        return from_to(self.board["train_seconds"], duration)

    @property
    def reported(self) -> str:
        """The top-1 that others report of the network, with their name; empty without one."""
        value, by = self.mean("reported"), self.board["reported_by"][0]
        return "" if value is None else f"{as_given(value)} ({by})"

    @property
    def answer(self) -> str:
        """The answer of one run, :func:`~cifar_utils.runs.answer.answer`, or the mean of seeds."""
        shares = self.board["top1"]
        if len(shares) == 1:
            return answer(self.record)
        over = "" if self._over_seeds else " over images"
        told = (
            f"mean of {len(shares)} seeds, standard deviation {100 * stdev(shares):.2f} "
            f"points, 95% interval {interval(self.interval)}{over}"
        )
        sentences = [
            classified(
                [run.record for run in self.runs], self.network, percent(self.mean("top1"), 2), told
            ),
            f"Training took {self.training}.",
            reported_sentence(self.network, self.reported),
        ]
        return " ".join(filter(None, sentences))

    @property
    def lead(self) -> str:
        """The answer's first paragraph."""
        return self.answer.partition("\n\n")[0]


def settings(record: RunRecord) -> dict[str, Any]:
    """A record's parameters without the seed and the output, by name, in order.

    Those that are None are left out: that is the default of a parameter which older notebooks do
    not have. The name of a reader's own network has a digest of its code, that of a folder of
    pictures one of its test pictures, and that of pretrained weights one of their file.
    """
    given = {
        name: value
        for name, value in sorted(record.parameters.items())
        if name not in SEEDS and value is not None
    }
    if code := record.model.get("source"):
        digest = hashlib.sha256(code.encode()).hexdigest()[:6]
        given["architecture"] = f"{record.model['architecture']}, code {digest}"
    if "dataset" in given:
        given["dataset"] = dataset_of(record)
    if "weights" in given and (digest := record.model.get("weights_sha256")):
        given["weights"] = f"{given['weights']}, file {digest[:6]}"
    return given


def dataset_of(record: RunRecord) -> str:
    """The name of a record's dataset; of a folder, with a digest of its test pictures."""
    name, digest = record.dataset["name"], record.dataset.get("test_pictures")
    return f"{name}, test pictures {digest[:6]}" if digest else name


def tabulate(runs: Sequence[Run]) -> pd.DataFrame:
    """One or more finished runs, a row each, in their order.

    Columns: ``run``, ``notebook``, ``dataset``, ``architecture``, ``top1`` with ``top1_low`` and
    ``top1_high`` (its 95% interval), ``top5``, ``loss``, ``reported`` (the top-1 reported of that
    network and dataset), ``reported_by`` (its author and images), ``parameters``, ``flops`` (for a
    test image, all of its views included), ``epochs``, ``train_images``, ``train_seconds``,
    ``total_seconds``, ``backend``, ``processor``, ``precision`` and ``commit`` (of training;
    "unknown" without a record of it), ``date``, ``seed``. Accuracies are fractions. Missing values
    are NaN.
    """
    board = pd.DataFrame([_row(run) for run in runs])
    for column in [*SHARES, *COUNTS, "loss", "train_seconds", "total_seconds"]:
        board[column] = pd.to_numeric(board[column], errors="coerce").astype(float)
    board[COUNTS] = board[COUNTS].round().astype("Int64")
    return board


def configurations(runs: Sequence[Run]) -> list[Configuration]:
    """Group finished runs by all parameters but the seed; by dataset, the best mean comes first.

    Notebook and parameters of a configuration are the same. Commits and machines may differ; the
    columns ``commit`` and ``processor`` list them. A run that compares several networks stands
    alone: its answer is not a mean of theirs.
    """
    found: dict[str, list[Run]] = {}
    seen: Counter[str] = Counter()
    for run in sorted(runs, key=lambda run: run.folder):
        key = json.dumps([run.record.notebook, settings(run.record)])
        seed = run.record.seed
        if len(run.record.trials) > 1:  # it compares networks, perhaps of several seeds already
            key += f" {seed}"
        # A second run of a seed is not another seed. By folder, so that one folder's runs stay
        # together: by accuracy, the better run of each seed would be in the first group.
        again = f"{key} {seed}"
        found.setdefault(f"{key} {seen[again]}", []).append(run)
        seen[again] += 1
    for alike in found.values():
        alike.sort(key=lambda run: str(run.record.seed).zfill(10))
    groups = [Configuration(tuple(alike), tabulate(alike)) for alike in found.values()]

    def order(group: Configuration) -> tuple[Any, ...]:
        return group.board["dataset"][0], -group.mean("top1"), group.name

    return sorted(groups, key=order)


def families(groups: Sequence[Configuration]) -> list[list[Configuration]]:
    """Configurations with their ablations: the first of each list is the one that others change.

    A family has the same notebook, kind of network, dataset, number of images and number of epochs.
    The first is the one that differs least from the others, or the first by name of several such.
    """
    found: dict[str, list[Configuration]] = {}
    for group in groups:
        record = group.record
        images = [
            dataset_of(record),
            *(record.dataset[key] for key in ("train", "validation", "test")),
        ]
        found.setdefault(str([record.notebook, group.kind, images, group.epochs]), []).append(group)
    for alike in found.values():
        first = min(
            alike, key=lambda one: (sum(len(one.differing(other)) for other in alike), one.name)
        )
        alike.sort(key=lambda one: one is not first)
    return sorted(found.values(), key=lambda alike: groups.index(alike[0]))


def read_notes(folder: Path, runs: Sequence[Run]) -> dict[str, str]:
    """Notes on runs, from a folder's ``notes.yaml``.

    The keys are patterns of names: ``"cifarnet-*"``, or several, ``"cifarnet-*, fan-*"``. Keys that
    fit none of the runs are left out. A note may have two lines; the first one then also stands
    beside its runs' answer. A file of another form is an InputError.
    """
    file = folder / "notes.yaml"
    try:
        notes = yaml.safe_load(file.read_text("utf-8")) if file.exists() else None
        return _notes_on(runs, notes or {})
    except (yaml.YAMLError, ValueError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} has no lines of the form 'name-*: note' ({reason})") from error


def _notes_on(runs: Sequence[Run], notes: Mapping[str, str]) -> dict[str, str]:
    names = [run.name for run in runs]

    def fits(key: str) -> bool:
        return any(fnmatch.filter(names, pattern) for pattern in key.split(", "))

    found = {key: note for key, note in notes.items() if fits(key)}
    for key, note in found.items():
        if not isinstance(note, str):
            raise TypeError(f"the note of {key!r} is {note!r}, not text")
    return found


def leading_notes(notes: Mapping[str, str], group: Configuration) -> str:
    """What stands beside a configuration's answer: the first line of each note that has two.

    ``notes`` may also be on other runs: :func:`read_notes`.
    """
    notes = (note.partition("\n") for note in _notes_on(group.runs, notes).values())
    return " ".join(first for first, end, _ in notes if end)


def trained_by(record: RunRecord) -> list[dict[str, Any]]:
    """The environments of the training, each once: commit, processor, cores, precision and so on.

    Empty where the record has none.
    """
    found = []
    for stretch in record.trained_by:
        one = {key: stretch[key] for key in sorted(stretch) if key not in ASIDE}
        if one not in found:
            found.append(one)
    return found


def in_words(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Columns of a table of runs in words, for a page or a terminal; missing values are dashes.

    ``interval`` stands for ``top1_low`` and ``top1_high``.
    """
    table = table.assign(interval=[*zip(table["top1_low"], table["top1_high"], strict=True)])
    shown = pd.DataFrame(index=table.index)
    for key in columns:
        title, form = FORMS.get(key, (key, str))
        known = table[key].astype(object)
        shown[title] = known.map(form, na_action="ignore").where(known.notna(), ABSENT)
    return shown


def _row(run: Run) -> dict[str, Any]:
    record = run.record
    test, seconds = record.scores["test"], record.seconds
    low, high = test["top1_interval"]
    reported, reported_by = best_reported(record)
    stretches = trained_by(record) or [{}]
    processors = [", ".join(s.get("accelerators") or []) or s.get("processor") for s in stretches]
    return {
        "run": run.name,
        "notebook": record.notebook,
        "dataset": dataset_of(record),
        "architecture": record.model["architecture"],
        "top1": test["top1"],
        "top1_low": low,
        "top1_high": high,
        "top5": record.top5,
        "loss": test.get("loss"),
        "reported": reported,
        "reported_by": reported_by,
        "parameters": record.model["parameters"],
        "flops": record.test_flops,
        "epochs": len(record.history),
        "train_images": record.dataset["train"],
        "train_seconds": seconds["train"],
        "total_seconds": seconds["total"],
        "backend": _each(stretch.get("backend") for stretch in stretches),
        "processor": _each(processors),
        "precision": _each(stretch.get("precision") for stretch in stretches),
        "commit": _each(stretch.get("git") for stretch in stretches),
        "date": run.date,
        "seed": record.seed,
    }


def _each(values: Iterable[str | None]) -> str:
    return "; ".join(dict.fromkeys(value or UNKNOWN for value in values))
