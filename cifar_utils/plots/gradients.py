"""A figure of gradients by depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from cifar_utils.plots.figure import (
    MARKERS,
    STYLE,
    WIDTH,
    CaptionedFigure,
    add_legend,
)

if TYPE_CHECKING:
    import pandas as pd


class _PlainFormatter(LogFormatter):
    """Labels the ticks that LogFormatter chooses, in plain text: 0.1, not 1e-01."""

    def __call__(self, x, pos=None):
        return f"{x:g}" if super().__call__(x, pos) else ""


@matplotlib.rc_context(STYLE)
def plot_gradient_norms(
    networks: Mapping[str, pd.DataFrame], when: str = "before any training"
) -> CaptionedFigure:
    """The norms of gradients by depth: a line for each named network.

    Each table is a result of :func:`~cifar_utils.training.gradient_norms`, at the time ``when``. A
    norm of zero, or one that is not finite, has no place on the logarithmic axis.
    """
    figure = Figure(figsize=(WIDTH, 4.5))
    axes = figure.add_subplot()
    told, zeros, lost = [], 0, 0
    colours = sns.color_palette("colorblind", len(networks))
    for place, (name, table) in enumerate(networks.items()):
        norms = table["norm"].to_numpy()
        finite = np.isfinite(norms)
        zeros += int((norms == 0).sum())
        lost += int((~finite).sum())
        shown = np.where(finite & (norms > 0), norms, np.nan)
        depths, marker = np.arange(1, len(norms) + 1), MARKERS[place % len(MARKERS)]
        axes.plot(depths, shown, marker=marker, ms=5, color=colours[place], label=name)
        first, last = (f"{norms[end]:.2g}" if finite[end] else "not finite" for end in (0, -1))
        ends = f"{first} at the first of {len(norms)}, {last} at the last"
        told.append(f"{name}: {ends}")
    axes.set(yscale="log", xlabel="layer (1 is next to the input)", ylabel="gradient's norm")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(_PlainFormatter())
    axes.yaxis.set_minor_formatter(_PlainFormatter())
    add_legend(figure, axes)
    caption = (
        "A point is a convolution or a dense layer. Its height is the L2 norm of the loss's "
        f"gradient with respect to the layer's kernel, in a step {when}; on a logarithmic scale. "
        "Where a line is far lower at the left, little of the gradient reaches the first layers."
    )
    if zeros:
        caption += f" {zeros} of the gradients are zero and have no point."
    if lost:
        caption += f" {lost} of the gradients are not finite and have no point."
    return CaptionedFigure(figure, caption, f"Gradients' norms by depth. {'; '.join(told)}.")
