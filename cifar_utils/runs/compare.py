"""Comparison of runs: parameters that differ, accuracies, and paired tests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from cifar_utils.errors import InputError
from cifar_utils.intervals import student_interval, wilson_interval
from cifar_utils.runs.folder import Run, load_run
from cifar_utils.runs.leaderboard import (
    COMPUTED,
    FORMS,
    Configuration,
    configurations,
    dataset_of,
    in_words,
    settings,
    tabulate,
)
from cifar_utils.text import spread

FIGURES = [
    *("top1", "top1_low", "top1_high", "top5", "loss", "parameters", "flops"),
    *("train_seconds", "total_seconds"),
]
TAKEN = {"run", "notebook", *FIGURES, *FORMS, *COMPUTED.values()}  # a table's own columns
OF_SEEDS = "McNemar's tests are of two trained networks. Other seeds may change them."
OF_TESTS = "P-values and intervals are not corrected for the number of tests."


def points(share: float) -> str:
    """A difference of accuracies in points, with its sign: ``"+1.05"`` for 0.0105."""
    return f"{100 * share + math.copysign(1e-9, share):+.2f}"  # halves round away from 0


@dataclass(frozen=True)
class PairedTest:
    """Two runs on the same test images: the exact McNemar test (1947) of their accuracies.

    Attributes
    ----------
    run, against
        Their names.
    both_right, only_run, only_against, both_wrong
        Numbers of test images, by the runs that classified them correctly.

    """

    run: str
    against: str
    both_right: int
    only_run: int
    only_against: int
    both_wrong: int

    @property
    def n(self) -> int:
        """The number of test images."""
        return self.both_right + self.only_run + self.only_against + self.both_wrong

    @property
    def difference(self) -> float:
        """Top-1 accuracy of the run less that of the other, a fraction."""
        return (self.only_run - self.only_against) / self.n

    @property
    def p_value(self) -> float:
        """The probability that a fair coin divides the images that one run gets right as unevenly.

        Images that both runs get right, or both wrong, don't count.
        """
        divided = self.only_run + self.only_against
        return float(binomtest(self.only_run, divided).pvalue) if divided else 1.0

    @property
    def p_in_words(self) -> str:
        """The p-value with its sign: ``"= 0.0022"`` or ``"< 0.0001"``."""
        p = self.p_value
        return f"= {p:.2g}" if p >= 1e-4 else "< 0.0001"

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the difference: Newcombe's method 10 for paired data.

        (Statistics in Medicine 17, 2635-2650, 1998.)
        """
        right = self.both_right + self.only_run, self.both_right + self.only_against
        shares = [count / self.n for count in right]
        (low, high), (other_low, other_high) = (wilson_interval(count, self.n) for count in right)
        product = math.prod(count * (self.n - count) for count in right)
        excess = self.both_right * self.both_wrong - self.only_run * self.only_against
        if excess > 0:  # a correction for continuity
            excess = max(excess - self.n / 2, 0)
        correlation = excess / math.sqrt(product) if product else 0.0

        def distance(one: float, other: float) -> float:
            return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0))

        return (
            self.difference - distance(shares[0] - low, other_high - shares[1]),
            self.difference + distance(high - shares[0], shares[1] - other_low),
        )

    def __str__(self) -> str:
        gain, low, high = map(points, (self.difference, *self.interval))
        return (
            f"{self.run} against {self.against} on {self.n:,} test images: top-1 "
            f"{gain} points (95% interval {low} to {high}), McNemar's exact p {self.p_in_words}; "
            f"both right {self.both_right:,}, only {self.run} {self.only_run:,}, only "
            f"{self.against} {self.only_against:,}, both wrong {self.both_wrong:,}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Runs side by side, each tested against the first one.

    Attributes
    ----------
    table
        A row for each run, in the order given: the parameters that differ, ``top1`` with
        ``top1_low`` and ``top1_high`` (its 95% interval), ``top5``, ``loss``, ``parameters``,
        ``flops``, ``train_seconds``, ``total_seconds``. Accuracies are fractions.
    tests
        Each later run against the first, if both were tested on the same images.
    notes
        Missing tests, with the reason; means over seeds; and how many things differ, in words.

    """

    table: pd.DataFrame
    tests: tuple[PairedTest, ...]
    notes: tuple[str, ...]

    @property
    def words(self) -> pd.DataFrame:
        """The table with values in words, for a page or a terminal."""
        differing = self.table.columns[: self.table.columns.get_loc("top1")]
        figures = ("top1", "interval", "top5", "loss", "parameters", "flops", "train_seconds")
        return in_words(self.table, (*differing, *figures))

    @property
    def findings(self) -> list[str]:
        """The tests and notes, and what they do not cover, a sentence each."""
        told = [*map(str, self.tests), *self.notes]
        if self.tests:
            told.append(OF_SEEDS)
        if any("95% interval" in finding for finding in told):
            told.append(OF_TESTS)
        return told

    def __repr__(self) -> str:
        with pd.option_context("display.width", None, "display.max_columns", None):
            return "\n".join([self.words.to_string(), *self.findings])

    def _repr_html_(self) -> str:
        findings = "".join(f"<li>{escape(finding)}</li>" for finding in self.findings)
        return self.words.to_html() + f"<ul>{findings}</ul>" * bool(findings)


def compare_runs(runs: Sequence[Run | Path | str]) -> Comparison:
    """Compare runs, each with the first one.

    Parameters
    ----------
    runs
        Two or more runs, from :func:`~cifar_utils.runs.folder.load_run`, or their folders.

    Raises
    ------
    InputError
        Where there are fewer than two, one is given twice, or a folder holds no run.

    """
    runs = [runs] if isinstance(runs, str | Path | Run) else runs
    if len(runs) < 2:
        raise InputError(f"a comparison takes two runs or more, not {len(runs)}")
    runs = tuple(run if isinstance(run, Run) else load_run(run) for run in runs)
    folders = [run.folder.resolve() for run in runs]
    for folder in folders:
        if folders.count(folder) > 1:
            raise InputError(f"run {folder} is given twice; name another one")
    names = [run.name for run in runs]
    if len(set(names)) < len(names):  # of the same name in different folders
        names = [str(run.folder) for run in runs]
    tests, notes = [], []
    for name, run in zip(names[1:], runs[1:], strict=True):
        try:
            tests.append(paired_test(name, run, names[0], runs[0]))
        except InputError as error:
            notes.append(f"no paired test of {name} against {names[0]}: {error}")
    notes += _over_seeds(dict(zip(runs, names, strict=True)))
    table = _table(names, runs)
    if (count := table.columns.get_loc("top1")) > 1:
        notes.append(f"They differ in {count} things, so no single one explains the result.")
    return Comparison(table, tuple(tests), tuple(notes))


def same_images(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs whose predicted classes can be read, grouped by their test images."""
    found: dict[Any, list[Run]] = {}
    for run in runs:
        with suppress(InputError):
            found.setdefault(_tested_on(run), []).append(run)
    return list(found.values())


def missed_by_all(runs: Sequence[Run]) -> pd.DataFrame:
    """Test images that all of several runs get wrong; the runs are from :func:`same_images`.

    Images on whose class most runs agree come first, then those of the highest mean probability. If
    a label is wrong, it is probably one of these.

    Returns
    -------
    DataFrame
        Indexed by ``image``, its number in these test images, from 0; another copy may have another
        order. ``label`` is the class. ``said`` has the predicted classes as (class, number of
        runs), most frequent first. ``probability`` is the mean over the runs.

    """
    predicted = [run.predicted for run in runs]
    labels, classes = predicted[0].labels, np.stack([each.classes for each in predicted])
    missed = np.flatnonzero((classes != labels).all(axis=0))
    known = runs[0].record.scores["test"]["per_class"]  # of the labels there, in order
    names = dict(zip(np.unique(labels).tolist(), known, strict=False))
    said = [Counter(column).most_common() for column in classes[:, missed].T.tolist()]
    table = pd.DataFrame(
        {
            "label": [names.get(label, str(label)) for label in labels[missed].tolist()],
            "said": [[(names.get(c, str(c)), n) for c, n in counts] for counts in said],
            "probability": np.mean([each.probabilities[missed] for each in predicted], axis=0),
        },
        pd.Index(missed, name="image"),
    )
    order = sorted(range(len(said)), key=lambda i: (-said[i][0][1], -table["probability"].iat[i]))
    return table.iloc[order]


def _tested_on(run: Run) -> tuple[str, bytes]:
    return dataset_of(run.record), run.predicted.labels.tobytes()


def _table(names: list[str], runs: tuple[Run, ...]) -> pd.DataFrame:
    index = pd.Index(names, name="run")
    board = tabulate(runs).set_index(index)
    rows = [
        {"notebook": run.record.notebook}
        | {
            f"{name} (parameter)" if name in TAKEN else name: value
            for name, value in (run.record.parameters | settings(run.record)).items()
        }
        for run in runs
    ]
    made_by = board[[*COMPUTED]].rename(columns=COMPUTED)
    given = pd.DataFrame(rows, index, dtype=object).join(made_by)
    # None is the default of a parameter that older notebooks do not have.
    differing = given.loc[:, given.where(given.notna(), None).map(repr).nunique() > 1]
    return pd.concat([differing, board[FIGURES]], axis=1)


def paired_test(name: str, run: Run, against: str, other: Run) -> PairedTest:
    """The test of two runs; an InputError if they were not tested on the same images."""
    (data, labels), (other_data, other_labels) = _tested_on(run), _tested_on(other)
    if (data, labels) != (other_data, other_labels):
        n, m = len(run.predicted.labels), len(other.predicted.labels)
        raise InputError(f"their test images differ ({n:,} of {data}, {m:,} of {other_data})")
    right, others = (each.predicted.right for each in (run, other))
    counts = (right & others, right & ~others, ~right & others, ~right & ~others)
    return PairedTest(name, against, *(int(count.sum()) for count in counts))


def compare_means(
    group: Configuration, other: Configuration
) -> tuple[int, float, float, float] | None:
    """The difference of two configurations' mean top-1, by pairs of runs with the same seed.

    Returns
    -------
    tuple or None
        The number of pairs, their mean difference, and the ends of its 95% interval, Student's:
        fractions. None where the test images differ, for fewer than two pairs, or where all pairs
        have the same difference.

    """
    tested = [(dataset_of(each.record), each.record.dataset["test"]) for each in (group, other)]
    ours, theirs = (
        {run.record.seed: run.record.scores["test"]["top1"] for run in each.runs}
        for each in (group, other)
    )
    gains = [ours[seed] - theirs[seed] for seed in ours if seed is not None and seed in theirs]
    interval = student_interval(gains)
    if tested[0] != tested[1] or not interval:
        return None
    return len(gains), mean(gains), *interval


def _over_seeds(names: Mapping[Run, str]) -> Iterator[str]:
    """Means over runs that differ in no parameter but the seed, each against the first run's."""
    groups = configurations([*names])
    for group in groups:
        shares = group.board["top1"].tolist()
        if len(shares) > 1:
            yield (
                f"{', '.join(names[run] for run in group.runs)} differ in no parameter but the "
                f"seed: top-1 {spread(shares)} (mean ± standard deviation in points)"
            )
    first = next(iter(names))
    (reference,) = (group for group in groups if first in group.runs)
    for group in groups:
        if group is not reference and (found := compare_means(group, reference)):
            gain, low, high = map(points, found[1:])
            yield (
                f"{group.name} against {reference.name}, {found[0]} pairs of runs with the same "
                f"seed: top-1 {gain} points on average (95% interval {low} to {high}, Student's)"
            )
