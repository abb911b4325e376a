"""Figures of a search: its trials by their values, and the best one so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from cifar_utils.plots.figure import (
    BLUE,
    GREY,
    STYLE,
    VERMILION,
    WIDTH,
    CaptionedFigure,
    add_legend,
    share_axis,
)
from cifar_utils.text import percent

if TYPE_CHECKING:
    from cifar_utils.tuning import Outcome, Range


@matplotlib.rc_context(STYLE)
def plot_parallel_coordinates(
    trials: Sequence[Outcome], space: Mapping[str, Range]
) -> CaptionedFigure:
    """A line for each training of a search, through its values, coloured by its accuracy.

    A training that Hyperband continued is drawn once. One of fewer epochs than the best is grey,
    because its accuracy can't be compared. One that diverged is dotted.

    Parameters
    ----------
    trials
        One or more.
    space
        The tuned ranges, in the order of the axes.

    """
    continued = {trial.continues for trial in trials if trial.val_accuracy is not None}
    shown = sorted((t for t in trials if t.name not in continued), key=lambda trial: trial.rank)
    best = shown[-1]
    trained = [trial for trial in shown if trial.val_accuracy is not None]
    whole = [trial for trial in trained if trial.epochs >= best.epochs]
    accuracies = [trial.val_accuracy for trial in whole]
    low, high = min(accuracies), max(accuracies)
    colours = ScalarMappable(Normalize(low, high if high > low else low + 0.01), "viridis_r")

    figure = Figure(figsize=(WIDTH, 5))
    panel = figure.add_subplot()
    for trial in shown:
        heights = [_height(trial.values[name], row) for name, row in space.items()]
        style = {"color": GREY, "lw": 1, "ls": "-" if trial in trained else ":"}
        if trial in whole:
            width = 4 if trial is best else 1.8
            style = {"color": colours.to_rgba(trial.val_accuracy), "lw": width, "zorder": 3}
        panel.plot(heights, marker="o", markersize=6, **style)
    for place, row in enumerate(space.values()):
        panel.axvline(place, color="#555555", lw=1, zorder=0)
        for value in _ticks(row):
            panel.annotate(
                f"{value:g}",
                (place, _height(value, row)),
                (6, 0),
                textcoords="offset points",
                va="center",
                size=10,
                bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
            )
    names = [name.replace("_", "\n") for name in space]
    panel.set_xticks(range(len(names)), names)
    panel.set(yticks=[], ylim=(-0.05, 1.05), xlim=(-0.2, len(names) - 0.5))
    panel.grid(False)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    bar = figure.colorbar(
        colours, ax=panel, location="bottom", label="validation accuracy", aspect=40
    )
    share_axis(bar.ax.xaxis)

    values = ", ".join(f"{name.replace('_', ' ')} {best.values[name]:g}" for name in space)
    caption = (
        "Each line is a set of values. Each vertical axis is a parameter between its bounds. "
        "Colour is validation accuracy; the thick line is the best. A parameter may "
        "matter if good trials have similar values of it, and bad trials have others."
    )
    alt = (
        f"Parallel coordinates of {len(shown)} sets of values for {', '.join(space)}. "
        f"Validation accuracy after the most epochs runs from {percent(low)} to {percent(high)}; "
        f"best: {values}."
    )
    if shorter := len(trained) - len(whole):
        caption += f" Grey: {shorter} of fewer epochs than the best."
    if diverged := len(shown) - len(trained):
        caption += f" Dotted: {diverged} whose loss diverged."
        alt += f" {diverged} diverged."
    return CaptionedFigure(figure, caption, alt)


def _height(value: float, row: Range) -> float:
    """The place of a value on its axis, from 0 to 1."""
    low, high = row.low, row.high
    if row.log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)


def _ticks(row: Range) -> list[float]:
    """The bounds, and round values between them, not close to either."""
    low, high = row.low, row.high
    locator = LogLocator() if row.log else MaxNLocator(5)
    inner = [value for value in locator.tick_values(low, high) if low < value < high]
    return [low, *(v for v in inner if 0.06 < _height(v, row) < 0.94), high]


@matplotlib.rc_context(STYLE)
def plot_best_so_far(trials: Sequence[Outcome], defaults: float = math.nan) -> CaptionedFigure:
    """Validation accuracy by trial, and the best accuracy so far.

    A trial of fewer epochs than the best is grey, and not in the line of the best so far.

    Parameters
    ----------
    trials
        One or more.
    defaults
        The accuracy without a search, drawn as a dotted line.

    """
    numbers = np.array([int(trial.name) for trial in trials])
    accuracies = np.array([trial.val_accuracy for trial in trials], float)  # None becomes NaN
    found = max(trials, key=lambda trial: trial.rank)
    whole = np.array([trial.epochs >= found.epochs for trial in trials])
    best = np.maximum.accumulate(np.nan_to_num(np.where(whole, accuracies, 0.0), nan=0.0))
    best[best == 0] = np.nan  # no trial has an accuracy yet
    figure = Figure(figsize=(WIDTH, 4))
    axes = figure.add_subplot()
    axes.plot(numbers[whole], accuracies[whole], "o", color=BLUE, markersize=6, label="trial")
    if not np.all(whole | np.isnan(accuracies)):
        shorter = "trial of fewer epochs"
        axes.plot(numbers[~whole], accuracies[~whole], "o", color=GREY, markersize=4, label=shorter)
    axes.step(numbers, best, where="post", color=VERMILION, label="best so far")
    if len(trials) == 1:  # a line of one point is not visible
        axes.plot(numbers, best, "_", color=VERMILION, markersize=20)
    if not math.isnan(defaults):
        axes.axhline(defaults, color="#333333", lw=1.2, ls=":", label="the first guess")
    diverged = np.flatnonzero(np.isnan(accuracies))
    if len(diverged):
        floor = np.zeros(len(diverged))
        transform = axes.get_xaxis_transform()
        axes.plot(numbers[diverged], floor + 0.03, "x", color=GREY, transform=transform)
    axes.set(xlabel="trial, in the order in which they began", ylabel="validation accuracy")
    share_axis(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(0.5, numbers.max() + 0.5)
    add_legend(figure, axes)

    caption = (
        "Each dot is a trial's validation accuracy after its best epoch. The line is the best so "
        "far. The more trials are compared, the more the best accuracy owes to luck."
    )
    if len(diverged):
        caption += " Crosses: trials whose loss diverged."
    alt = (
        f"Validation accuracy of {len(trials)} trials. The best is trial {found.name}, with "
        f"{percent(found.val_accuracy)}."
    )
    if not math.isnan(defaults):
        alt += f" The first guess has {percent(defaults)}."
    return CaptionedFigure(figure, caption, alt)
