"""Loss and accuracy so far, drawn for the cell that trains; a page's figures are in ``plots``."""

import math
from typing import Any

from cifar_utils.words import percent

WIDTH, HEIGHT = 360, 220  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 40, 24  # margins
COLOURS = {"training": "#0072B2", "validation": "#D55E00"}  # as in plots


def draw_curves(rows: list[dict[str, Any]], epochs: int) -> str:
    """An SVG of training and validation, loss beside accuracy, by epoch.

    (Writing it takes about a millisecond, where a plotting library takes a tenth of a second.)

    Parameters
    ----------
    rows
        The epochs so far, one or more, as in :class:`~cifar_utils.training.history.History`; what
        is missing, or no number, is left out.
    epochs
        How many there will be.

    """
    panels = (
        _panel(rows, epochs, "loss", "{:.3g}".format),
        _panel(rows, epochs, "accuracy", percent),
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Loss and accuracy of {len(rows)} of {epochs} epochs" fill="currentColor" '
        f'font-family="sans-serif" font-size="12" style="width:100%;max-width:{2 * WIDTH}px">'
        f'{panels[0]}<g transform="translate({WIDTH})">{panels[1]}</g></svg>'
    )


def _panel(rows: list[dict[str, Any]], epochs: int, metric: str, words: Any) -> str:
    series = {
        kind: [
            (row["epoch"], row[key])
            for row in rows
            if row.get(key) is not None and math.isfinite(row[key])
        ]
        for kind, key in (("training", metric), ("validation", f"val_{metric}"))
    }
    values = [value for points in series.values() for _, value in points] or [0.0]
    low, high = min(values), max(values)
    right, base = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(epoch: float, value: float) -> str:
        x = LEFT + (right - LEFT) * (epoch - 1) / max(epochs - 1, 1)
        y = base - 6 - (base - TOP - 6) * (value - low) / (high - low or 1)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<path d="M{LEFT},{TOP - 6}V{base}H{right}" fill="none" stroke="currentColor"/>',
        f'<text x="{LEFT}" y="{base + 16}">1</text>',
        f'<text x="{right}" y="{base + 16}" text-anchor="end">{epochs} epochs</text>',
        *(
            f'<text x="{LEFT - 6}" y="{float(place(1, value).split(",")[1]) + 4}" '
            f'text-anchor="end">{words(value)}</text>'
            for value in {low, high}
        ),
    ]
    legend = f'<text x="{LEFT}" y="18"><tspan font-weight="bold">{metric}</tspan>'
    for (kind, points), dashes in zip(series.items(), ("5 3", "none"), strict=True):
        if points:
            colour, places = COLOURS[kind], [place(*point) for point in points]
            x, y = places[-1].split(",")
            parts.append(
                f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}" '
                f'stroke-width="2" stroke-dasharray="{dashes}"/>'
                f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>'
            )
            legend += f'<tspan dx="12" fill="{colour}">{kind} {words(points[-1][1])}</tspan>'
    return "".join(parts) + legend + "</text>"
