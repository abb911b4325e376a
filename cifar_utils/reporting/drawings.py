"""The index's figures: SVG within the page, in the page's own colours and letters."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from cifar_utils.runs.folder import Run
from cifar_utils.runs.reported import reported_curve, reported_results
from cifar_utils.text import compact, duration, percent

MOST_CURVES, MOST_POINTS = 32, 300  # beyond, the best: a page is to stay small and legible
COLOURS = 8  # --c0 to --c7 in the style sheet: told apart in the light and in the dark
DASHES = ("-", "--", ":", "-.")
# Stand for the style sheet's colours until the figure is drawn.
INK, SOFT, LINE, PAPER = "#0a0b0c", "#0a0b0d", "#0a0b0e", "#0a0b0f"
VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line", PAPER: "--paper"}
VARIABLES |= {f"#0a0c{index:02x}": f"--c{index}" for index in range(COLOURS)}
STYLE = {
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 10.5,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "lines.linewidth": 1.8,
}
SECONDS = (1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10800, 36000, 108000, 360000)
FLOPS = tuple(digit * 10.0**power for power in range(3, 13) for digit in (1, 3))


@dataclass(frozen=True)
class Drawing:
    """A figure: its panels as SVG, each with text for who can't see it, a caption and a legend.

    ``legend`` holds, for each colour, a place (0, 1, …) and words, or a run; a place of None is
    the reports' grey.
    """

    panels: list[Markup]
    caption: str
    legend: list[tuple[int | None, str | Run]]


@matplotlib.rc_context(STYLE)
def draw_cost(board: pd.DataFrame) -> Drawing | None:
    """Test accuracy against training time and FLOPs, of one dataset's rows of the leaderboard."""
    board = board[board["top1"].notna() & (board["train_seconds"] > 0)].head(MOST_POINTS)
    if board.empty:
        return None
    networks = list(dict.fromkeys(board["architecture"]))
    dataset = board["dataset"].iloc[0]
    costs = {
        "train_seconds": ("training time", SECONDS, _clock),
        "flops": ("FLOPs", FLOPS, compact),
    }
    panels = []
    for column, (label, ticks, words) in costs.items():
        shown = board[board[column] > 0].astype({column: float})
        if shown.empty:
            continue
        figure = Figure(figsize=(4.4, 3.6))
        axes = figure.add_subplot()
        for place, network in enumerate(networks):
            rows = shown[shown["architecture"] == network]
            y = rows["top1"]
            spread = np.nan_to_num([y - rows["top1_low"], rows["top1_high"] - y]).clip(0)
            look = {
                "color": _colour(place),
                "ms": 6.5,
                "lw": 1.3,
                "fmt": "osD^"[place // COLOURS % 4],
            }
            axes.errorbar(rows[column], y, yerr=spread, **look)
        axes.set(xlabel=label if column != "flops" else "FLOPs an image", ylabel="test accuracy")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.margins(y=0.15)
        _log_axis(axes, shown[column], ticks, words)
        cheap = _efficient(shown, column)
        apart = np.ptp(axes.get_ylim()) / 20
        named = [np.inf]  # the best first; names of neighbours would lie on one another
        for _, row in cheap[::-1].iterrows():
            if named[-1] - row["top1"] < apart:
                continue
            named.append(row["top1"])
            right = np.log(row[column]) > np.log(axes.get_xlim()).mean()
            axes.annotate(
                row["run"],
                (row[column], row["top1"]),
                (-4 if right else 4, 7),
                textcoords="offset points",
                ha="right" if right else "left",
                size=9,
            )
        alt = f"Test accuracy of {_runs(shown)} on {dataset} against {label}. "
        alt += _course(cheap, column, duration if column == "train_seconds" else compact)
        panels.append(_svg(figure, alt, f"{column}-{dataset}"))
    caption = (
        "Test accuracy with its 95% interval, against what a run cost to train and what its "
        "network costs for one image, on logarithmic scales. No cheaper run beats those that are "
        "named; training times are of the machine that each ran on."
    )
    return Drawing(panels, caption, list(enumerate(networks)))


@matplotlib.rc_context(STYLE)
def draw_curves(runs: Sequence[Run]) -> Drawing | None:
    """Validation accuracy by epoch of one dataset's runs, and the training curves reported on it.

    The reports printed no validation curves: theirs are of training, top-1 or top-5.
    """
    curves = []
    for run in runs:
        pairs = [(row.get("epoch"), row.get("val_accuracy")) for row in run.record.history]
        pairs = [pair for pair in pairs if None not in pair]
        if pairs:
            curves.append((run, *np.transpose(pairs)))
    if not curves:
        return None
    count, curves = len(curves), curves[:MOST_CURVES]
    dataset = runs[0].record.dataset["name"]
    figure = Figure(figsize=(6.2, 4))
    axes = figure.add_subplot()
    longest = max(epochs.max() for _, epochs, _ in curves)
    legend: list[tuple[int | None, str | Run]] = []
    reported = []
    for network in reported_results(dataset=dataset)["architecture"].unique():
        curve = reported_curve(network, dataset)
        if curve is not None:
            metric = "accuracy" if "accuracy" in curve else "top_5_accuracy"
            shown = curve[curve["epoch"] <= max(longest, 10)]
            axes.plot(shown["epoch"], shown[metric], color=SOFT, lw=5, alpha=0.45)
            kind = "training" if metric == "accuracy" else "top-5 in training"
            legend.append((None, f"{curve.attrs['source']}: {network}, {kind}"))
            last = curve.iloc[-1]
            reported.append(
                f"{curve.attrs['source']}'s {network} comes to {percent(last[metric])} ({kind}) "
                f"after its {last['epoch']:.0f} epochs"
            )
    for place, (run, epochs, shares) in enumerate(curves):
        dash = DASHES[place // COLOURS % len(DASHES)]
        one = {"marker": "o"} if len(epochs) == 1 else {}
        axes.plot(epochs, shares, dash, color=_colour(place), gid=f"curve-{place}", **one)
        best = epochs == run.record.best_epoch
        axes.plot(epochs[best], shares[best], "o", color=_colour(place), ms=6)
        legend.append((place, run))
    axes.set(xlabel="epoch", ylabel="validation accuracy", xlim=(0.5, longest + 0.5))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    best = {run.name: shares.max() for run, _, shares in curves}
    high, low = max(best, key=best.__getitem__), min(best, key=best.__getitem__)
    alt = f"Validation accuracy by epoch of {_runs(curves)} on {dataset}: the best epoch of {high} "
    alt += f"comes to {percent(best[high])}"
    alt += f", that of {low} to {percent(best[low])}." if len(best) > 1 else "."
    caption = (
        "Validation accuracy after each epoch; a dot marks the epoch whose weights were tested."
    )
    if count > len(curves):
        caption = f"Of {count} runs the {len(curves)} best on test images. {caption}"
    if reported:
        caption += f" Grey, as far as the runs here go: {'; '.join(reported)}. The reports printed "
        caption += "curves of training alone, which may lie below validation at first."
        alt += f" Reported: {'; '.join(reported)}."
    else:
        caption += " No report printed a curve for this dataset."
    return Drawing([_svg(figure, alt, f"curves-{dataset}")], caption, legend)


def _runs(many: Sequence) -> str:
    return f"{len(many)} run{'s' * (len(many) != 1)}"


def _colour(place: int) -> str:
    return f"#0a0c{place % COLOURS:02x}"


def _efficient(board: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The rows that are better than all cheaper ones, the cheapest first."""
    board = board.sort_values([cost, "top1"], ascending=[True, False])
    return board[board["top1"] > board["top1"].cummax().shift(fill_value=-1)]


def _course(cheap: pd.DataFrame, cost: str, words: Callable[[float], str]) -> str:
    """What more cost buys, in a sentence."""
    least, most = (
        f"{percent(row['top1'])} at {words(row[cost])} ({row['run']})"
        for row in (cheap.iloc[0], cheap.iloc[-1])
    )
    if len(cheap) == 1:
        return f"The cheapest is the best as well: {most}."
    return f"The best for their cost go from {least} to {most}."


def _log_axis(
    axes: Axes, values: pd.Series, ticks: Sequence[float], words: Callable[[float], str]
) -> None:
    """A logarithmic axis that spans a factor of ten at least, marked in round figures."""
    middle = np.sqrt(values.min() * values.max())
    half = max(np.sqrt(10), 1.6 * np.sqrt(values.max() / values.min()))
    axes.set_xscale("log")
    axes.set_xlim(middle / half, middle * half)
    inside = [tick for tick in ticks if middle / half <= tick <= middle * half]
    axes.xaxis.set_major_locator(FixedLocator(inside[:: 1 + len(inside) // 5]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: words(tick)))


def _clock(seconds: float) -> str:
    """Round seconds, minutes or hours: ``"30 min"``."""
    size, unit = next(pair for pair in ((3600, "h"), (60, "min"), (0, "s")) if seconds >= pair[0])
    return f"{seconds / (size or 1):g} {unit}"


def _svg(figure: Figure, alt: str, salt: str) -> Markup:
    """The figure as SVG to put into a page, with the style sheet's colours in place of its own."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": salt}):  # of ids: one page holds several
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()[file.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="curve-(\d+)">', r'<g data-curve="\1">', svg)
    svg = re.sub(r'<g id="[\w.]+">', "<g>", svg)
    svg = re.sub(r' (width|height)="[^"]*pt"', "", svg, count=2)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1))
