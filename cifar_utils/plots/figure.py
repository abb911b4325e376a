"""What all figures have in common: their style, their caption and the text that stands for them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape

import matplotlib
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision.
BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8a8a8a"
MARKERS = "os^DvPX*"
WIDTH = 7.5  # inches; at this width 12-point text is still read on a phone
STYLE = {
    "figure.dpi": 130,
    "figure.facecolor": "white",  # the page may be dark: a figure brings its own ground
    "figure.constrained_layout.use": True,
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
}
FEW, MANY = 12, 24  # classes: up to few, each is shown in full; up to many, each is at least named


@dataclass(frozen=True, repr=False)
class CaptionedFigure:
    """A figure, the caption below it and the text that stands for it where it isn't seen."""

    figure: Figure
    caption: str
    alt: str

    def png(self) -> bytes:
        """The figure as a PNG file's bytes."""
        file = io.BytesIO()
        with matplotlib.rc_context(STYLE):  # ticks are made only now
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


def listed(items: list[str]) -> str:
    """Items in words: ``"cat, dog and frog"``."""
    return ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else "".join(items)
