"""Figures of scores: accuracy by class, confusion, calibration."""

from __future__ import annotations

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cifar_utils.evaluation import Scores
from cifar_utils.intervals import wilson_interval
from cifar_utils.plots.figure import (
    BLUE,
    FEW,
    GREY,
    MANY,
    STYLE,
    VERMILION,
    WIDTH,
    CaptionedFigure,
    add_legend,
    readable,
    share_axis,
)
from cifar_utils.text import listed, percent


@matplotlib.rc_context(STYLE)
def plot_per_class(scores: Scores, reported: dict[str, float] | None = None) -> CaptionedFigure:
    """Accuracy by class, sorted, with 95% intervals. Of more than 24 classes, 10 best and 10 worst.

    ``reported`` has fractions by class name, which are drawn as diamonds.
    """
    right, totals = scores.confusion.diagonal(), scores.confusion.sum(axis=1)
    ranked = [k for k in np.argsort(-right / np.maximum(totals, 1), kind="stable") if totals[k]]
    many = len(ranked) > MANY
    shown = ranked[:10] + ranked[-10:] if many else ranked
    names = [scores.class_names[k] for k in shown]
    values = right[shown] / totals[shown]
    intervals = [wilson_interval(right[k], totals[k]) for k in shown]
    places = np.arange(len(names)) + (np.arange(len(names)) >= 10) * many

    figure = Figure(figsize=(WIDTH, 1.5 + 0.36 * len(names)))
    axes = figure.add_subplot()
    axes.barh(places, values, height=0.72, color=BLUE, alpha=0.85)
    spread = np.abs(np.transpose(intervals) - values)
    axes.errorbar(values, places, xerr=spread, fmt="none", color="#222222", lw=1.3, capsize=3)
    overall = f"all classes: {percent(scores.top1)}"
    axes.axvline(scores.top1, color=VERMILION, ls="--", lw=1.5, label=overall)
    if reported:
        there = [reported.get(name, np.nan) for name in names]
        axes.plot(there, places, "D", ms=7, mfc="white", mec="#222222", label="reported")
    for place, value in zip(places, values, strict=True):
        axes.text(1.015, place, percent(value), va="center", transform=axes.get_yaxis_transform())
    axes.set_yticks(places, [readable(name) for name in names])
    axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.set_xlim(0, 1)
    share_axis(axes.xaxis)
    axes.set_xlabel("share of the class's test images classified correctly")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    add_legend(figure, axes)

    caption = "Accuracy by class, best first; thin lines: 95% intervals; dashed line: all classes."
    if many:
        caption = f"The 10 best and the 10 worst of {len(ranked)} classes. " + caption
    if reported:
        caption += (
            " Diamonds: as reported of a network of this name, after the epochs of the report; "
            "options and settings may differ."
        )
    alt = (
        f"Accuracy by class runs from {percent(values[0])} ({readable(names[0])}) down to "
        f"{percent(values[-1])} ({readable(names[-1])}); over all classes it is "
        f"{percent(scores.top1)} of {scores.n:,} images."
    )
    return CaptionedFigure(figure, caption, alt)


@matplotlib.rc_context(STYLE)
def plot_confusion(scores: Scores, pairs: int = 15) -> CaptionedFigure:
    """The confusion matrix: counts, coloured by their share of the true class.

    With more than 12 classes, the matrix has no counts, and the ``pairs`` most frequent confusions
    are named below it.
    """
    counts, classes = scores.confusion, [readable(name) for name in scores.class_names]
    totals = counts.sum(axis=1, keepdims=True)
    few, named = len(classes) <= FEW, len(classes) <= MANY
    wrong = np.where(np.eye(len(classes), dtype=bool), 0, counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:pairs]
    worst = zip(*np.unravel_index(order, wrong.shape), strict=True)
    worst = [pair for pair in worst if wrong[pair]]

    figure = Figure(figsize=(WIDTH, 7))
    matrix = figure
    if worst and not few:
        names = [f"{classes[row]} → {classes[column]}" for row, column in worst]
        if max(map(len, names)) > 36:
            names = [name.replace(" →", "\n→") for name in names]
        tall, bar = 5.7 if named else 7.8, 0.5 if "\n" in names[0] else 0.32
        heights = [tall, 0.6 + bar * len(worst)]
        figure.set_size_inches(WIDTH, sum(heights))
        matrix, below = figure.subfigures(2, height_ratios=heights)
        axes = below.add_subplot()
        axes.barh(names, [wrong[pair] for pair in worst], color=VERMILION, height=0.7)
        axes.set_ylim(len(worst) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("images of the first class taken for the second")
    axes = sns.heatmap(
        counts / np.maximum(totals, 1),
        ax=matrix.add_subplot(),
        cmap="Blues",
        norm=PowerNorm(0.5, 0, 1),  # square root: confusions of 2% show beside a diagonal of 90%
        square=few or not named,  # beside long names a square would be small
        annot=np.where(counts, np.char.mod("%d", counts), "") if few else None,
        fmt="",
        linewidths=0.5 if few else 0,
        xticklabels=classes if few else False,
        yticklabels=classes if named else False,
        cbar=not few,
        cbar_kws={
            "location": "bottom",
            "format": PercentFormatter(1, decimals=0),
            "label": "share of the true class's images",
            "ticks": [0, 0.01, 0.05, 0.2, 0.5, 1],
            "aspect": 40,
        },
    )
    aside = "" if few else f" ({len(classes)}, in order of label)"
    axes.set(xlabel="predicted class" + aside, ylabel="true class" + aside)
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)
    if few:
        axes.set_xticks(axes.get_xticks(), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.grid(False)

    found = [
        f"{classes[row]} taken for {classes[column]} ({wrong[row, column]:,} of {totals[row, 0]:,})"
        for row, column in worst[:3]
    ]
    finding = f"Most frequent confusions: {listed(found)}." if found else "There is no mistake."
    caption = (
        "A row is a true class, a column what it was taken for; colour is the share of the row, on "
        f"a square-root scale; a perfect classifier fills the diagonal alone. {finding}"
    )
    alt = (
        f"Confusion matrix of {len(classes)} classes, {percent(scores.top1)} of {scores.n:,} "
        f"images on the diagonal. {finding}"
    )
    return CaptionedFigure(figure, caption, alt)


@matplotlib.rc_context(STYLE)
def plot_calibration(scores: Scores) -> CaptionedFigure:
    """A reliability diagram: accuracy by confidence with 95% intervals, and the number of images.

    Confidence is the probability of the predicted class, in bins of
    :attr:`~cifar_utils.evaluation.Scores.confidence_bins`.
    """
    bins = scores.confidence_bins
    width, full = bins["high"] - bins["low"], bins[bins["n"] > 0]
    accuracy = full["hits"] / full["n"]
    bounds = [wilson_interval(row.hits, row.n) for row in full.itertuples()]
    figure = Figure(figsize=(WIDTH, 6.5))
    above, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1.5, label="confidence equals accuracy")
    above.errorbar(
        full["confidence"], accuracy, yerr=np.abs(np.transpose(bounds) - accuracy.to_numpy()),
        fmt="o", color=BLUE, ms=6, lw=1.3, capsize=3, label="images of similar confidence",
    )  # fmt: skip
    above.set(ylabel="share classified correctly", xlim=(0, 1), ylim=(-0.02, 1.02))
    below.bar(bins["low"], bins["n"] / scores.n, width, align="edge", color=BLUE, ec="white")
    below.set(xlabel="confidence: probability of the predicted class", ylabel="share of images")
    for axis in (above.xaxis, above.yaxis, below.yaxis):
        share_axis(axis)
    add_legend(figure, above)
    figure.align_ylabels()

    sure = float(scores.probabilities.max(axis=1).mean())
    error, gap = percent(scores.calibration_error), sure - scores.top1
    manner = "as confident as it is accurate on average"
    if abs(gap) >= 0.0005:
        manner = "overconfident" if gap > 0 else "underconfident"
    finding = (
        f"The model's mean confidence is {percent(sure)}, and its accuracy {percent(scores.top1)} "
        f"of {scores.n:,} images"
    )
    caption = (
        f"Expected calibration error {error}, over {len(bins)} bins of confidence. On the dashed "
        "line, confidence equals accuracy; below it the model is overconfident. Bars are 95% "
        "intervals. The lower panel shows how many images have that confidence."
    )
    alt = (
        f"Accuracy by confidence in {len(full)} bins that hold images. {finding}: it is {manner}. "
        f"The expected calibration error is {error}."
    )
    return CaptionedFigure(figure, caption, alt)
