"""Figures of training: curves by epoch; of what comes before it: learning rates, gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cifar_utils.errors import InputError
from cifar_utils.plots.figure import BLUE, GREEN, GREY, STYLE, VERMILION, WIDTH, CaptionedFigure
from cifar_utils.text import percent

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from cifar_utils.training.history import History
    from cifar_utils.training.probes import LearningRateRange

MARKERS = "os^DvPX*"


@matplotlib.rc_context(STYLE)
def plot_history(
    history: History, reported: pd.DataFrame | None = None, title: str | None = None
) -> CaptionedFigure:
    """Loss and accuracies of training and validation by epoch, the best one marked; learning rate.

    Parameters
    ----------
    history
        One epoch or more; ``top5`` and what was taken on validation images may be missing.
    reported
        A training curve to draw behind, as far as the run goes:
        :func:`cifar_utils.runs.reported.reported_curve`.
    title
        What was trained, on what.

    """
    epochs = [row["epoch"] for row in history.epochs]
    names = {"loss": "loss (nats)", "accuracy": "accuracy", "top5": "top-5 accuracy"}
    shown = [key for key in names if key in history.epochs[0] or key != "top5"]
    keys = [f"{prefix}{key}" for key in names for prefix in ("", "val_")]
    columns = {
        key: np.array([row.get(key) for row in history.epochs], float)  # None becomes NaN
        for key in (*keys, "learning_rate")
    }
    figure = Figure(figsize=(WIDTH, 2 * len(shown) + 4))
    *panels, rate = figure.subplots(
        len(shown) + 1, sharex=True, height_ratios=[*[3] * len(shown), 1.3]
    )
    dots = {"marker": "o", "markersize": 4 if len(epochs) > 3 else 8} if len(epochs) <= 40 else {}
    caption = (
        "Training figures are means over an epoch, with augmentation and dropout on; validation "
        "figures, where images were held out, are taken after it. The dotted line marks the epoch "
        "whose weights are kept."
    )
    if history.stopped:
        caption += f" Training stopped: {history.stopped}."
    source = None if reported is None else reported.attrs.get("source", "reported")
    for panel, metric in zip(panels, shown, strict=True):
        column = {"top5": "top_5_accuracy"}.get(metric, metric)
        if reported is not None and column in reported:
            behind = reported[reported["epoch"] <= max(epochs)]
            look = {"color": GREY, "lw": 3, "alpha": 0.6}
            panel.plot(behind["epoch"], behind[column], label=f"{source}, training", **look)
        panel.plot(epochs, columns[metric], color=BLUE, ls="--", label="training", **dots)
        validation = columns[f"val_{metric}"]
        if not np.isnan(validation).all():
            panel.plot(epochs, validation, color=VERMILION, label="validation", **dots)
        panel.set_ylabel(names[metric])
        if metric != "loss":
            panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, title=title
    )
    if reported is not None:
        last = reported.iloc[-1]
        caption += f" Grey: {source}, whose training loss is {last['loss']:.3f} "
        caption += f"after its {last['epoch']:.0f} epochs."
    _mark_best(panels[1], history, columns)

    rates = columns["learning_rate"]
    cuts = len(set(rates)) < len(rates) / 2  # a factor now and then, rather than a smooth course
    rate.plot(epochs, rates, color=GREEN, drawstyle="steps-mid" if cuts else "default", **dots)
    rate.set(xlabel="epoch", ylabel="learning rate")
    if cuts and rates.min() > 0 and rates.max() > 30 * rates.min():
        rate.set_yscale("log")
    else:
        rate.margins(y=0.15)
        rate.set_ylim(bottom=0)
    for panel in (*panels, rate):
        panel.axvline(history.best_epoch, color="#333333", lw=1.2, ls=":")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    rate.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    figure.align_ylabels([*panels, rate])
    return CaptionedFigure(figure, caption, _history_in_words(history, columns))


def _mark_best(axes: Axes, history: History, columns: dict[str, np.ndarray]) -> None:
    """Write the best epoch and its accuracy beside its line, on the side with more room."""
    value = columns["val_accuracy"][history.best_epoch - 1]
    words = f"kept: epoch {history.best_epoch}"
    if not np.isnan(value):
        words = f"best epoch: {history.best_epoch}\nvalidation {percent(value)}"
    left = history.best_epoch > len(history.epochs) / 2
    axes.annotate(
        words,
        (history.best_epoch, 0.05),
        (-8 if left else 8, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right" if left else "left",
    )


def _history_in_words(history: History, columns: dict[str, np.ndarray]) -> str:
    best, n = history.best_epoch, len(history.epochs)
    accuracy, val, rates = (columns[key] for key in ("accuracy", "val_accuracy", "learning_rate"))
    words = f"Learning curves of {n} {'epoch' if n == 1 else 'epochs'}. "
    if not np.isnan(val).all():
        words += (
            f"Validation accuracy starts at {percent(val[0])} and is best after epoch {best}: "
            f"{percent(val[best - 1])}, where training accuracy is {percent(accuracy[best - 1])}. "
            f"It ends at {percent(val[-1])}, validation loss at {columns['val_loss'][-1]:.3f}. "
        )
    loss, first, last = columns["loss"][-1], rates[0], rates[-1]
    words += f"Training accuracy ends at {percent(accuracy[-1])}, its loss at {loss:.3f}. "
    course = f"goes from {first:.3g} to {last:.3g}" if len(set(rates)) > 1 else f"is {first:.3g}"
    words += f"The learning rate {course}."
    return words + (f" Training stopped: {history.stopped}." if history.stopped else "")


@matplotlib.rc_context(STYLE)
def plot_learning_rate_range(found: LearningRateRange) -> CaptionedFigure:
    """The loss by learning rate of :func:`~cifar_utils.training.learning_rate_range`."""
    rates, smoothed, peak = found.rates, found.smoothed, found.suggested
    figure = Figure(figsize=(WIDTH, 4.2))
    axes = figure.add_subplot()
    axes.plot(rates, found.losses, color=GREY, lw=1, alpha=0.7, label="of each batch")
    axes.plot(rates, smoothed, color=BLUE, label="moving average")
    axes.plot(rates[found.lowest], smoothed[found.lowest], "o", color=BLUE, ms=8, label="lowest")
    axes.axvline(peak, color=VERMILION, ls="--", lw=1.5, label=f"suggested: {peak:.2g}")
    low, high = smoothed.min(), smoothed[0]
    axes.set_ylim(low - 0.3 * (high - low) - 0.1, high + 0.6 * (high - low) + 0.2)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss (nats)")
    figure.legend(loc="outside upper center", ncols=4, columnspacing=1.2, handlelength=1.5)
    lowest = rates[found.lowest]
    caption = (
        f"The learning rate rises with every step. Suggested is {peak:.2g}, a tenth of the "
        f"{lowest:.2g} at which the moving average of the loss is lowest."
    )
    caption += f" But {found.caution}." if found.caution else ""
    alt = (
        f"Loss over {len(rates)} steps, whose learning rate rises from {rates[0]:.2g} to "
        f"{rates[-1]:.2g}. Its moving average starts at {high:.3f}, is lowest, {low:.3f}, "
        f"at a rate of {lowest:.2g}, and ends at {smoothed[-1]:.3f}"
        f"{', where it blew up' if found.blew_up else ''}. Suggested is a peak of {peak:.2g}."
    )
    return CaptionedFigure(figure, caption, alt)


@matplotlib.rc_context(STYLE)
def plot_gradient_norms(
    networks: Mapping[str, pd.DataFrame], when: str = "before any training"
) -> CaptionedFigure:
    """The gradients' norms by depth: of each named network, one line.

    Each table is what :func:`~cifar_utils.training.gradient_norms` gave, at the time that ``when``
    names. A norm of zero has no place on the logarithmic axis, so its point is missing.
    """
    if not networks or any(table.empty for table in networks.values()):
        raise InputError(
            f"no gradients to draw in {[*networks]}; give tables of gradient_norms by name"
        )
    figure = Figure(figsize=(WIDTH, 4.5))
    axes = figure.add_subplot()
    told, zeros = [], 0
    colours = sns.color_palette("colorblind", len(networks))
    for place, (name, table) in enumerate(networks.items()):
        norms = table["norm"].to_numpy()
        shown = np.where(norms > 0, norms, np.nan)
        zeros += int(np.isnan(shown).sum())
        depths, marker = np.arange(1, len(norms) + 1), MARKERS[place % len(MARKERS)]
        axes.plot(depths, shown, marker=marker, ms=5, color=colours[place], label=name)
        ends = f"{norms[0]:.2g} at the first of {len(norms)}, {norms[-1]:.2g} at the last"
        told.append(f"{name}: {ends}")
    axes.set(yscale="log", xlabel="kernel, from the input on", ylabel="norm of its gradient")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.legend(loc="outside upper center", ncols=3)
    caption = (
        f"The L2 norm of the loss's gradient by each kernel of a convolution or dense layer, in a "
        f"step {when}; on a logarithmic scale. Where a line falls off towards the input, little of "
        f"the gradient gets there."
    )
    if zeros:
        caption += f" {zeros} of the gradients are zero and have no point."
    return CaptionedFigure(figure, caption, f"Gradients' norms by depth. {'; '.join(told)}.")
