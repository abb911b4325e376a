"""The site's figures: what accuracy costs, and the learning curves of all runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from markupsafe import Markup
from matplotlib.figure import Figure

from cifar_utils.plots import STYLE, WIDTH, CaptionedFigure, by_epoch, plot_curves
from cifar_utils.plots.figure import GREY, MARKERS, add_legend, share_axis
from cifar_utils.reporting.fragments import Outline, clean
from cifar_utils.runs.folder import Run
from cifar_utils.runs.leaderboard import configurations
from cifar_utils.runs.reported import reported_curve, reported_results
from cifar_utils.text import compact, duration, percent

MOST_CURVES = 32  # beyond, the best: a figure is to stay legible
TIMES = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 36000: "10 h"}
COSTS = {
    "train_seconds": ("training time", duration, TIMES),
    "flops": ("FLOPs an image", compact, {10**power: compact(10**power) for power in range(3, 13)}),
}


@matplotlib.rc_context(STYLE)
def draw_cost(board: pd.DataFrame) -> Markup | None:
    """Test accuracy against training time and FLOPs, of one dataset's rows of the leaderboard."""
    board = board[board["top1"].notna() & (board["train_seconds"] > 0)]
    if board.empty:
        return None
    figure = Figure(figsize=(WIDTH, 4.4))
    panels = figure.subplots(1, 2, sharey=True)
    networks, palette = board["architecture"].unique(), sns.color_palette("colorblind")
    alt = f"Test accuracy of {_runs(board)} on {board['dataset'].iloc[0]}."
    caption = (
        "Test accuracy with its 95% interval, against what a run cost to train and what its "
        "network costs for one image, on logarithmic scales. Training times are of the machine "
        "that each ran on. Along the grey line no cheaper run is better."
    )
    for panel, (cost, (label, words, ticks)) in zip(panels, COSTS.items(), strict=True):
        shown = board[board[cost] > 0].sort_values([cost, "top1"], ascending=[True, False])
        for place, network in enumerate(networks):
            rows = shown[shown["architecture"] == network]
            spread = [rows["top1"] - rows["top1_low"], rows["top1_high"] - rows["top1"]]
            panel.errorbar(
                rows[cost], rows["top1"], yerr=np.nan_to_num(spread).clip(0), label=network, lw=1.3,
                fmt=MARKERS[place % len(MARKERS)], color=palette[place % len(palette)],
            )  # fmt: skip
        panel.set(xscale="log", xlabel=label)
        panel.set_xticks([*ticks], ticks.values())
        panel.set_xticks([], minor=True)
        if len(shown):
            panel.set_xlim(shown[cost].min() / 6, shown[cost].max() * 6)
            best = shown[shown["top1"] > shown["top1"].cummax().shift(fill_value=-1)]
            panel.step(best[cost], best["top1"], where="post", color=GREY, lw=1.2, zorder=1)
            told = zip(best["top1"].map(percent), best[cost].map(words), best["run"], strict=True)
            told = ", ".join("{} at {} ({})".format(*row) for row in told)
            alt += f" By {label}, the best for their cost: {told}."
    panels[0].set_ylabel("test accuracy")
    share_axis(panels[0].yaxis)
    add_legend(figure, panels[0])
    return _html(CaptionedFigure(figure, caption, alt))


def draw_curves(runs: Sequence[Run]) -> Markup | None:
    """Validation accuracy by epoch of one dataset's runs, and the training curves reported on it.

    The reports printed no validation curves: theirs are of training, top-1 or top-5.
    """
    columns = {"val_accuracy": "validation accuracy"}
    curves = [
        (group.name if len(group.runs) == 1 else f"{group.name}, {len(group.runs)} seeds", table)
        for group in configurations(runs)
        for run in group.runs
        if len(table := by_epoch(run.record.history, columns).dropna())
    ]
    if not curves:
        return None
    count, curves = len(curves), curves[:MOST_CURVES]
    dataset, reported, told = runs[0].record.dataset["name"], [], ""
    for network in reported_results(dataset=dataset)["architecture"].unique():
        curve = reported_curve(network, dataset)
        if curve is not None:
            kinds = {"accuracy": "training", "top_5_accuracy": "top-5 in training"}
            key = next(key for key in kinds if key in curve)
            label = f"{curve.attrs['source']}: {network}, {kinds[key]}"
            table = by_epoch(curve.to_dict("records"), {key: columns["val_accuracy"]})
            reported.append((label, table))
            told += f" Grey: {label}, {percent(table.iat[-1, 0])} after {table.index[-1]} epochs."
    best = pd.Series([table.max().item() for _, table in curves], [label for label, _ in curves])
    best = best.groupby(level=0, sort=False).max().map(percent)
    alt = f"Validation accuracy by epoch of {_runs(curves)} on {dataset}. Best epoch of each: "
    alt += f"{', '.join(map(' '.join, best.items()))}."
    caption = "Validation accuracy after each epoch. Seeds of one configuration share a colour."
    if count > len(curves):
        caption = f"Of {count} runs the {len(curves)} best on test images. {caption}"
    caption += told or " No report printed a curve for this dataset."
    if told:
        caption += " Reports printed training curves only, which may lie below validation at first."
    return _html(CaptionedFigure(plot_curves(curves, reported=reported), caption, alt))


def _runs(many: Sequence) -> str:
    return f"{len(many)} run{'s' * (len(many) != 1)}"


def _html(figure: CaptionedFigure) -> Markup:
    return Markup(clean(figure._repr_html_(), Path(), Outline()))
