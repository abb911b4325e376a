"""Figures of several trainings in one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cifar_utils.plots.figure import MARKERS, STYLE, WIDTH, CaptionedFigure
from cifar_utils.text import percent

if TYPE_CHECKING:
    from cifar_utils.training.trials import Trial


@matplotlib.rc_context(STYLE)
def plot_trials(trials: Sequence[Trial], target: float | None = None) -> CaptionedFigure:
    """Training loss and validation accuracy by epoch, a line for each trial.

    A cross ends the line of a training that diverged. ``target`` draws a validation accuracy that
    was aimed at.
    """
    figure = Figure(figsize=(WIDTH, 7.5))
    panels = figure.subplots(2, sharex=True, height_ratios=[2, 3])
    colours = sns.color_palette("colorblind", len(trials))
    for trial, colour, marker in zip(trials, colours, MARKERS * len(trials), strict=False):
        rows = trial.history.epochs
        for panel, key in zip(panels, ("loss", "val_accuracy"), strict=True):
            epochs, values = [row["epoch"] for row in rows], [row[key] for row in rows]
            look = {"color": colour, "marker": marker, "ms": 5}
            panel.plot(epochs, values, label=trial.name, **look)
            if trial.diverged and rows:
                panel.plot(epochs[-1:], values[-1:], "x", color=colour, ms=14, mew=3)
    panels[0].set_ylabel("training loss (nats)")
    panels[1].set(xlabel="epoch", ylabel="validation accuracy")
    panels[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if target is not None:
        panels[1].axhline(target, color="#333333", lw=1.2, ls=":")
    lines, names = panels[1].get_legend_handles_labels()
    columns = 1 if max(map(len, names)) > 34 else 2
    figure.legend(lines, names, loc="outside upper center", ncols=columns)
    figure.align_ylabels(panels)
    caption = (
        "Above: training loss, a mean over each epoch. Below: accuracy on the validation images "
        "after it. Data, order of images and seed are the same in all trials."
    )
    if any(trial.diverged for trial in trials):
        caption += " A cross marks the last whole epoch of a training that diverged."
    if target is not None:
        caption += f" Dotted: the target, {percent(target)}."
    told = "; ".join(_in_words(trial) for trial in trials)
    return CaptionedFigure(figure, caption, f"Best and last validation accuracy: {told}.")


def _in_words(trial: Trial) -> str:
    if math.isnan(trial.accuracy):
        return f"{trial.name} diverged in its first epoch"
    words = f"{trial.name} {percent(trial.accuracy)} after epoch {trial.history.best_epoch}"
    if trial.diverged:
        return f"{words}, then it diverged"
    last = trial.history.epochs[-1]
    return f"{words}, {percent(last['val_accuracy'])} after epoch {last['epoch']}"
