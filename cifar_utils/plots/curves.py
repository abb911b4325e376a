"""Learning curves: of one training, or of several trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from cifar_utils.plots.figure import (
    GREY,
    MARKERS,
    STYLE,
    WIDTH,
    CaptionedFigure,
    add_legend,
    share_axis,
)
from cifar_utils.text import as_given, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cifar_utils.training.history import History
    from cifar_utils.training.trials import Trial

DASHES = ("-", "--", ":", "-.")
RATE = "learning rate"


def by_epoch(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    """Rows of a history as a table for :func:`plot_curves`, indexed by epoch.

    ``columns`` maps keys of the rows to names of columns. A missing value is NaN.
    """
    table = pd.DataFrame(rows, columns=["epoch", *columns]).astype({"epoch": int})
    return table.set_index("epoch").astype(float).rename(columns=columns)


@matplotlib.rc_context(STYLE)
def plot_curves(
    curves: Mapping[str, pd.DataFrame],
    *,
    reported: tuple[str, pd.DataFrame] | None = None,
    marks: Mapping[str, float] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw values by epoch: a panel for each column, a line for each table.

    Names that contain "accuracy" get an axis in percent. Losses that are far above all others
    are cut off, and their panel says so.

    Parameters
    ----------
    curves
        Tables of :func:`by_epoch`, by label. A column's name is the label of its panel.
    reported
        A label and its table, to draw in grey behind the curves, up to their last epoch.
    marks
        Epochs to mark with a line, by the line's label. The first line is dotted.
    title
        A title above the legend.

    """
    names = list(dict.fromkeys(name for table in curves.values() for name in table))
    longest = max([table.index.max() for table in curves.values() if len(table)], default=1)
    heights = [1.3 if name == RATE else 3 for name in names]
    figure = Figure(figsize=(WIDTH, 0.8 + sum(heights)))
    grid = figure.subplots(len(names), sharex=True, height_ratios=heights, squeeze=False)
    panels = dict(zip(names, grid[:, 0], strict=True))
    if reported:
        label, table = reported
        for name in table.columns.intersection(names):
            shown = table.loc[:longest, name]
            panels[name].plot(shown.index, shown, color=GREY, lw=3, alpha=0.6, label=label)
    palette = sns.color_palette("colorblind")
    for place, (label, table) in enumerate(curves.items()):
        turn, colour = divmod(place, len(palette))
        look = {"color": palette[colour], "ls": DASHES[turn % len(DASHES)], "label": label}
        if len(table) <= 40:
            look |= {"marker": MARKERS[place % len(MARKERS)], "ms": 5 if len(table) > 3 else 8}
        for name, values in table.items():
            panels[name].plot(table.index, values, **look)
    for name, panel in panels.items():
        panel.set_ylabel(name)
        for (label, epoch), dashes in zip((marks or {}).items(), DASHES[2:], strict=False):
            panel.axvline(epoch, color="#333333", lw=1.2, ls=dashes, label=label)
        if "accuracy" in name:
            share_axis(panel.yaxis)
        values = [table[name].to_numpy() for table in curves.values() if name in table]
        if name == RATE:
            _scale_rates(panel, values)
        elif "loss" in name:
            _cut_off(panel, np.concatenate([each[np.isfinite(each)] for each in values]))
    panel.set(xlabel="epoch", xlim=(0.5, longest + 0.5))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    add_legend(figure, grid[0, 0], title)
    figure.align_ylabels(grid[:, 0])
    return figure


def _cut_off(panel: Axes, losses: np.ndarray) -> None:
    """Cut off losses that would flatten all others, and name their maximum."""
    usual = losses[losses <= max(6, 3 * np.quantile(losses, 0.75))] if len(losses) else losses
    if len(usual) < len(losses):
        panel.set_ylim(min(0, usual.min()), 1.1 * usual.max())
        panel.set_title(f"↑ cut off: values up to {losses.max():.3g}", loc="right", size=10)


def _scale_rates(panel: Axes, courses: Sequence[np.ndarray]) -> None:
    rates = np.concatenate(courses)
    # All rates change by steps, not smoothly.
    cuts = all(2 * len(set(course)) <= len(course) for course in courses)
    if cuts:
        for line in panel.lines:
            line.set_drawstyle("steps-mid")
    if cuts and rates.min() > 0 and rates.max() > 30 * rates.min():
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter("{x:g}")  # plain text: figures have no formulas
        panel.yaxis.set_minor_formatter(NullFormatter())
    else:
        panel.margins(y=0.15)
        panel.set_ylim(bottom=0)


def plot_history(
    history: History, reported: pd.DataFrame | None = None, title: str | None = None
) -> CaptionedFigure:
    """Loss, accuracies and learning rate by epoch, with the best epoch marked.

    Parameters
    ----------
    history
        One epoch or more; ``top5`` and validation figures may be missing.
    reported
        A training curve to draw behind the run's, up to the run's last epoch:
        :func:`cifar_utils.runs.reported.reported_curve`.
    title
        The network and the dataset.

    """
    columns = {"loss": "loss (nats)", "accuracy": "accuracy", "top5": "top-5 accuracy"}
    columns = {key: name for key, name in columns.items() if key in history.epochs[0]}
    curves = {"training": by_epoch(history.epochs, columns | {"learning_rate": RATE})}
    of_validation = {f"val_{key}": name for key, name in columns.items()}
    validation = by_epoch(history.epochs, of_validation).dropna(how="all", axis="columns")
    kept = f"kept: epoch {history.best_epoch}"
    if len(validation.columns):
        curves["validation"] = validation
        kept = f"best epoch: {history.best_epoch}"
        if not math.isnan(value := validation["accuracy"].get(history.best_epoch, math.nan)):
            kept += f" ({percent(value)})"
    caption = (
        "Training figures are means over an epoch, with augmentation and dropout on; validation "
        "figures, where images were held out, are taken after it. The dotted line marks the epoch "
        "whose weights are kept. The learning rate is that of each epoch's last step."
    )
    if history.stopped:
        caption += f" Training stopped: {history.stopped}."
    behind = None
    if reported is not None:
        source, last = reported.attrs.get("source", "reported"), reported.iloc[-1]
        renamed = reported.set_index("epoch").rename(
            columns=columns | {"top_5_accuracy": "top-5 accuracy"}
        )
        behind = f"{source}, training", renamed
        caption += f" Grey: {source}, whose training loss is {last['loss']:.3f} "
        caption += f"after its {last['epoch']:.0f} epochs."
    marks = {kept: history.best_epoch}
    if history.joined:
        marks["second training begins"] = history.joined + 0.5
        caption += f" A second training begins after epoch {history.joined}."
    figure = plot_curves(curves, reported=behind, marks=marks, title=title)
    return CaptionedFigure(figure, caption, _history_in_words(history, *curves.values()))


def _history_in_words(
    history: History, training: pd.DataFrame, validation: pd.DataFrame | None = None
) -> str:
    best, n = history.best_epoch, len(training)
    accuracy, loss = training["accuracy"], training["loss (nats)"]
    words = f"Learning curves of {n} {'epoch' if n == 1 else 'epochs'}. "
    if validation is not None:
        val = validation["accuracy"]
        words += (
            f"Validation accuracy starts at {percent(val.iloc[0])} and is best after epoch {best}: "
            f"{percent(val[best])}, where training accuracy is {percent(accuracy[best])}. It ends "
            f"at {percent(val.iloc[-1])}, "
            f"validation loss at {validation['loss (nats)'].iloc[-1]:.3f}. "
        )
    words += f"Training accuracy ends at {percent(accuracy.iloc[-1])}, "
    words += f"its loss at {loss.iloc[-1]:.3f}. "
    rates = training[RATE]
    first, last = rates.iloc[0], rates.iloc[-1]
    course = f"goes from {first:.3g} to {last:.3g}" if rates.nunique() > 1 else f"is {first:.3g}"
    words += f"The learning rate {course}."
    return words + (f" Training stopped: {history.stopped}." if history.stopped else "")


def plot_trials(trials: Sequence[Trial], target: float | None = None) -> CaptionedFigure:
    """Training loss and validation accuracy by epoch, a line for each trial.

    Learning rates have a panel if trials differ in them. Trials that differ in the seed alone share
    a line, their mean, with a band from the lowest of them to the highest. A cross ends a training
    that diverged. ``target`` is a validation accuracy to draw as a dotted line.
    """
    from cifar_utils.training.trials import by_name  # who has trials has imported Keras

    columns = {"loss": "training loss (nats)", "val_accuracy": "validation accuracy"}
    rates = pd.concat([by_epoch(trial.history.epochs, {"learning_rate": RATE}) for trial in trials])
    differ = bool((rates[RATE].groupby(level=0).nunique() > 1).any())
    columns |= {"learning_rate": RATE} if differ else {}
    groups = {
        name: pd.concat([by_epoch(trial.history.epochs, columns) for trial in group])
        for name, group in by_name(trials).items()
    }
    figure = plot_curves({name: rows.groupby(level=0).mean() for name, rows in groups.items()})
    for panel, column in zip(figure.axes, columns.values(), strict=True):
        colours = {line.get_label(): line.get_color() for line in panel.lines}
        for name, rows in groups.items():
            ends = rows[column].groupby(level=0).agg(["min", "max"])
            panel.fill_between(ends.index, *ends.T.values, color=colours[name], alpha=0.15, lw=0)
        for trial in trials:
            if trial.diverged:
                end = by_epoch(trial.history.epochs[-1:], columns)[column]
                panel.plot(end.index, end, "x", color=colours[trial.name], ms=14, mew=3)
    caption = (
        "Training loss, a mean over each epoch, and accuracy on the validation images after it. "
        "Trials of one seed have the images in the same order."
    )
    if differ:
        caption += " Below: the learning rate of each epoch's last step."
    if len(groups) < len(trials):
        caption += " Lines are means over seeds, bands go from the lowest seed's to the highest's."
        if any(rows.index.value_counts().nunique() > 1 for rows in groups.values()):
            caption += " Where some seeds ended earlier, they are of those still in training."
    if any(trial.diverged and trial.history.epochs for trial in trials):
        caption += " A cross marks the last whole epoch of a training that diverged."
    if target is not None:
        figure.axes[1].axhline(target, color="#333333", lw=1.2, ls=":")
        caption += f" Dotted: the target, {as_given(target)}."
    told = "; ".join(map(_trial_in_words, trials))
    return CaptionedFigure(figure, caption, f"Best and last validation accuracy: {told}.")


def _trial_in_words(trial: Trial) -> str:
    if math.isnan(trial.accuracy):
        return f"{trial.name} diverged in its first epoch"
    words = f"{trial.name} {percent(trial.accuracy)} after epoch {trial.history.best_epoch}"
    if trial.diverged:
        return f"{words}, then it diverged"
    last = trial.history.epochs[-1]
    return f"{words}, {percent(last['val_accuracy'])} after epoch {last['epoch']}"
