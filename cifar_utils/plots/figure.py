"""The common parts of all figures: style, caption, alternative text, legend."""

from __future__ import annotations

import base64
import io
import math
import re
import textwrap
from dataclasses import dataclass
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

# Okabe and Ito's colours, which differ for every kind of colour vision.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#8a8a8a"
MARKERS = "os^DvPX*"
# Fonts with Chinese, Japanese or Korean letters, which matplotlib's own font does not have.
ASIAN = re.compile("Sans CJK|Arial Unicode|Hiragino|PingFang|YaHei|Yu Gothic|Malgun")
WIDTH = 7.5  # inches; at this width 12-point text is readable on a phone
STYLE = {
    "figure.dpi": 130,
    "figure.facecolor": "white",  # because the page may be dark
    "figure.constrained_layout.use": True,
    "font.family": [
        *matplotlib.rcParams["font.family"],
        *sorted(filter(ASIAN.search, fontManager.get_font_names())),
    ],
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "text.parse_math": False,  # a name may hold dollar signs
}
FEW, MANY = 12, 24  # classes: up to FEW, each is shown in full; up to MANY, each is named


@dataclass(frozen=True, repr=False)
class CaptionedFigure:
    """A figure, the caption below it, and alternative text for readers who can't see it."""

    figure: Figure
    caption: str
    alt: str

    def png(self) -> bytes:
        """The figure as a PNG file's bytes."""
        file = io.BytesIO()
        with matplotlib.rc_context(STYLE):  # the ticks are made here
            self.figure.savefig(file, format="png")
        return file.getvalue()

    def __repr__(self) -> str:
        return f"{self.caption} [{self.alt}]"

    def _repr_html_(self) -> str:
        source = base64.b64encode(self.png()).decode()
        return (
            f'<figure class="report-figure"><img alt="{escape(self.alt)}" '
            f'src="data:image/png;base64,{source}"><figcaption>{escape(self.caption)}</figcaption></figure>'
        )


def readable(name: str) -> str:
    """A class's name as a figure shows it."""
    return name.replace("_", " ")


def share_axis(axis: Axis) -> None:
    """Mark an axis of fractions in percent, with as many digits as its ticks need."""
    axis.set_major_formatter(lambda fraction, _: f"{100 * fraction:.4g}%")


def add_legend(figure: Figure, axes: Axes, title: str | None = None) -> None:
    """Add a legend above ``axes``; long names are wrapped and take fewer columns."""
    named = axes.get_legend_handles_labels()
    named = {label: handle for handle, label in zip(*named, strict=True)}
    size = 12 if len(named) <= 12 else 9
    width = 930 // size  # letters to a line of the figure
    labels = [textwrap.fill(label, width - 12) for label in named]
    longest = max(len(line) for label in labels for line in label.splitlines())
    columns = max(1, min(len(labels), width // (longest + 8)))
    figure.legend(
        named.values(), labels, loc="outside upper center", ncols=columns, title=title,
        fontsize=size,
    )  # fmt: skip
    # The legend takes no height from the axes.
    lines = math.ceil(sum(label.count("\n") + 1 for label in labels) / columns)
    figure.set_figheight(figure.get_figheight() + 1.6 * size / 72 * (lines - 1))
