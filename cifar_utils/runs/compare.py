"""Runs compared: what differs in their parameters, what it buys, whether that is more than luck."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from cifar_utils.errors import InputError
from cifar_utils.evaluation import wilson_interval
from cifar_utils.files import PREDICTED, PREDICTIONS
from cifar_utils.runs.folder import Run, load_run
from cifar_utils.runs.leaderboard import ABSENT, configurations, in_words, tabulate
from cifar_utils.text import percent

if TYPE_CHECKING:
    from cifar_utils.plots import CaptionedFigure

FIGURES = [
    *("top1", "top1_low", "top1_high", "top5", "loss", "parameters", "flops"),
    *("train_seconds", "total_seconds"),
]


@dataclass(frozen=True)
class PairedTest:
    """Two runs on the same test images: the exact McNemar test (1947) of their accuracies.

    Attributes
    ----------
    run, against
        Their names.
    both_right, only_run, only_against, both_wrong
        Test images, by which of the two classified them rightly.

    """

    run: str
    against: str
    both_right: int
    only_run: int
    only_against: int
    both_wrong: int

    @property
    def n(self) -> int:
        """How many test images there were."""
        return self.both_right + self.only_run + self.only_against + self.both_wrong

    @property
    def difference(self) -> float:
        """Top-1 accuracy of the run less that of the other, a fraction."""
        return (self.only_run - self.only_against) / self.n

    @property
    def p_value(self) -> float:
        """How likely images that only one gets right would divide so unevenly by a fair coin."""
        divided = self.only_run + self.only_against
        return float(binomtest(self.only_run, divided).pvalue) if divided else 1.0

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

        def spread(one: float, other: float) -> float:
            return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0))

        return (
            self.difference - spread(shares[0] - low, other_high - shares[1]),
            self.difference + spread(high - shares[0], shares[1] - other_low),
        )

    def __str__(self) -> str:
        low, high = (f"{100 * bound:+.1f}" for bound in self.interval)
        p = f"= {self.p_value:.2g}" if self.p_value >= 1e-4 else "< 0.0001"
        return (
            f"{self.run} against {self.against} on {self.n:,} test images: top-1 "
            f"{100 * self.difference:+.1f} points (95% interval {low} to {high}), McNemar's exact "
            f"p {p}; both right {self.both_right:,}, only {self.run} {self.only_run:,}, only "
            f"{self.against} {self.only_against:,}, both wrong {self.both_wrong:,}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Runs side by side, each tested against the first one.

    Attributes
    ----------
    runs
        In the order given.
    table
        A row a run: the parameters in which they differ, ``top1`` with ``top1_low`` and
        ``top1_high`` (its 95% interval), ``top5``, ``loss``, ``parameters``, ``flops``,
        ``train_seconds``, ``total_seconds``; accuracies are fractions.
    tests
        Of each later run against the first, where both were tested on the same images.
    notes
        In words: which tests are missing and why; means over seeds.

    """

    runs: tuple[Run, ...]
    table: pd.DataFrame
    tests: tuple[PairedTest, ...]
    notes: tuple[str, ...]

    @property
    def words(self) -> pd.DataFrame:
        """The table as a page or a terminal shows it."""
        settings = self.table.columns[: self.table.columns.get_loc("top1")]
        figures = ("top1", "interval", "top5", "loss", "parameters", "flops", "train_seconds")
        return in_words(self.table, (*settings, *figures))

    @property
    def findings(self) -> list[str]:
        """The tests and notes, a sentence each."""
        many = ["p-values are not corrected for the number of tests"] if len(self.tests) > 1 else []
        return [*map(str, self.tests), *many, *self.notes]

    @cached_property
    def figure(self) -> CaptionedFigure:
        """Validation accuracy by epoch, and test accuracy with its interval, of each run."""
        return _plot(self)

    def __repr__(self) -> str:
        with pd.option_context("display.width", None, "display.max_columns", None):
            return "\n".join([self.words.to_string(), *self.findings])

    def _repr_html_(self) -> str:
        findings = "".join(f"<li>{escape(finding)}</li>" for finding in self.findings)
        html = self.words.to_html() + f"<ul>{findings}</ul>" * bool(findings)
        return html + self.figure._repr_html_()


def compare_runs(runs: Sequence[Run | Path | str]) -> Comparison:
    """Compare runs, each with the first one.

    Parameters
    ----------
    runs
        Two or more, as :func:`~cifar_utils.runs.folder.load_run` gives them, or their folders.

    Raises
    ------
    InputError
        Where there are fewer, one is given twice, or a folder holds no run.

    """
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
    kept = PREDICTED, PREDICTIONS
    without = [
        str(run.folder) for run in runs if not any((run.folder / name).exists() for name in kept)
    ]
    if without:
        them, have = ("it", "it has") if len(without) == 1 else ("them", "they have")
        notes.append(
            f"no paired test with {', '.join(without)}: {have} no predicted.npz; run {them} again"
        )
    for name, run in zip(names[1:], runs[1:], strict=True):
        if not {str(run.folder), str(runs[0].folder)} & {*without}:
            found = _paired_test(name, run, names[0], runs[0])
            (notes if isinstance(found, str) else tests).append(found)
    notes += _over_seeds(dict(zip(runs, names, strict=True)))
    return Comparison(runs, _table(names, runs), tuple(tests), tuple(notes))


def _settings(run: Run) -> dict[str, Any]:
    """What may make two runs differ: notebook, parameters and what computed them."""
    record = run.record
    by = {"backend": "backend", "computed in": "precision"}
    environment = {name: record.environment.get(key) for name, key in by.items()}
    return {"notebook": record.notebook} | record.parameters | environment


def _table(names: list[str], runs: tuple[Run, ...]) -> pd.DataFrame:
    settings = [_settings(run) for run in runs]
    given = {
        name: [each.get(name, ABSENT) for each in settings]
        for name in dict.fromkeys(name for each in settings for name in each)
    }
    index = pd.Index(names, name="run")
    differing = {
        name: pd.Series(values, index, object)
        for name, values in given.items()
        if any(value != values[0] for value in values)
    }
    figures = tabulate(runs).set_index(index)
    losses = [run.record.scores.get("test", {}).get("loss") for run in runs]
    figures["loss"] = pd.Series(losses, index, float)
    return pd.concat([pd.DataFrame(differing, index), figures[FIGURES]], axis=1)


def _paired_test(name: str, run: Run, against: str, other: Run) -> PairedTest | str:
    """The test of two runs, or why there is none."""
    data = [each.record.dataset.get("name", "?") for each in (run, other)]
    labels = [each.predicted.labels for each in (run, other)]
    if data[0] != data[1] or not np.array_equal(*labels):
        told = f"{len(labels[0]):,} of {data[0]}, {len(labels[1]):,} of {data[1]}"
        return f"no paired test of {name} against {against}: their test images differ ({told})"
    right, others = (each.predicted.right for each in (run, other))
    counts = (right & others, right & ~others, ~right & others, ~right & ~others)
    return PairedTest(name, against, *(int(count.sum()) for count in counts))


def _over_seeds(names: Mapping[Run, str]) -> Iterator[str]:
    """Mean and standard deviation of runs that differ in the seed alone."""
    for group in configurations([*names]):
        deviation = group.deviation("top1")
        if deviation is not None:
            yield (
                f"{', '.join(names[run] for run in group.runs)} differ in nothing but the seed: "
                f"top-1 {percent(group.mean('top1'))} ± {100 * deviation:.1f} points "
                f"(mean ± standard deviation over {len(group.runs)} runs)"
            )


def _plot(comparison: Comparison) -> CaptionedFigure:
    import matplotlib
    import seaborn as sns
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    from cifar_utils.plots.figure import MARKERS, STYLE, WIDTH, CaptionedFigure

    names = dict(zip(comparison.runs, comparison.table.index, strict=True))
    groups = configurations(comparison.runs)
    colours = sns.color_palette("colorblind", len(groups))
    firsts = [names[group.runs[0]] for group in groups]
    labels = [
        f"{first} … ({len(group.runs)} seeds)" if len(group.runs) > 1 else first
        for first, group in zip(firsts, groups, strict=True)
    ]
    told = []
    with matplotlib.rc_context(STYLE):
        heights = [3.6, 0.9 + 0.4 * len(groups)]
        figure = Figure(figsize=(WIDTH, sum(heights)))
        curves, marks = figure.subplots(2, height_ratios=heights)
        for row, group in enumerate(groups):
            look = {"color": colours[row], "marker": MARKERS[row % len(MARKERS)]}
            levels = np.linspace(row - 0.4, row + 0.4, len(group.runs) + 2)[1:-1]
            for run, level in zip(group.runs, levels, strict=True):
                history = run.record.history
                epochs = [epoch for epoch in history if epoch.get("val_accuracy") is not None]
                accuracy = [epoch["val_accuracy"] for epoch in epochs]
                best = f", best validation accuracy {percent(max(accuracy))}" if accuracy else ""
                curves.plot([epoch["epoch"] for epoch in epochs], accuracy, ms=5, **look)
                figures = comparison.table.loc[names[run]]
                top1, low, high = figures[["top1", "top1_low", "top1_high"]].astype(float)
                spread = [[top1 - low], [high - top1]]
                marks.errorbar([top1], [level], xerr=spread, capsize=4, ms=8, lw=1.5, **look)
                told.append(f"{names[run]} {ABSENT if pd.isna(top1) else percent(top1)}{best}")
        curves.set(xlabel="epoch", ylabel="validation accuracy")
        curves.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        marks.set_yticks(range(len(groups)), labels)
        marks.set_ylim(len(groups) - 0.5, -0.5)
        marks.grid(False, axis="y")
        marks.set_xlabel("test accuracy, top-1")
        curves.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        marks.xaxis.set_major_locator(MaxNLocator(6))
        marks.xaxis.set_major_formatter(PercentFormatter(1))
    caption = (
        "Above: validation accuracy by epoch. Below: top-1 accuracy on the test images with its "
        "95% interval, in the same colours and marks. Runs that differ in nothing but the seed "
        "share a row."
    )
    return CaptionedFigure(figure, caption, f"Test accuracy: {'; '.join(told)}.")
