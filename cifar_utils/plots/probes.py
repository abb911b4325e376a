"""Figures of single steps: losses by learning rate, gradients by depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from cifar_utils.plots.figure import (
    BLUE,
    GREY,
    MARKERS,
    STYLE,
    VERMILION,
    WIDTH,
    CaptionedFigure,
    add_legend,
)

if TYPE_CHECKING:
    import pandas as pd

    from cifar_utils.training.probes import LearningRateRange


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
    add_legend(figure, axes)
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
    """The norms of gradients by depth: a line for each named network.

    Each table is a result of :func:`~cifar_utils.training.gradient_norms`, at the time ``when``. A
    norm of zero has no place on the logarithmic axis, so its point is missing.
    """
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
    axes.yaxis.set_major_formatter(LogFormatter())  # 60 instead of 6 × 10¹
    axes.yaxis.set_minor_formatter(LogFormatter())
    add_legend(figure, axes)
    caption = (
        f"The L2 norm of the loss's gradient by each kernel of a convolution or dense layer, in a "
        f"step {when}; on a logarithmic scale. Where a line falls off towards the input, little of "
        f"the gradient gets there."
    )
    if zeros:
        caption += f" {zeros} of the gradients are zero and have no point."
    return CaptionedFigure(figure, caption, f"Gradients' norms by depth. {'; '.join(told)}.")
