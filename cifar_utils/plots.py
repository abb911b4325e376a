"""Figures of a page: a caption says what to see, alternative text states the finding."""

from __future__ import annotations

import base64
import io
import textwrap
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cifar_utils.data.dataset import Dataset, Split
from cifar_utils.evaluation import Scores, wilson_interval
from cifar_utils.words import percent

if TYPE_CHECKING:
    import keras
    import pandas as pd
    from matplotlib.axes import Axes

    from cifar_utils.training.history import History

# Okabe and Ito's colours, told apart with any colour vision.
BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8a8a8a"
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


def _named(name: str) -> str:
    return name.replace("_", " ")


def _listed(items: list[str]) -> str:
    return ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else "".join(items)


@matplotlib.rc_context(STYLE)
def plot_samples(dataset: Dataset, seed: int = 0, columns: int = 9) -> CaptionedFigure:
    """Training images, a row a class; of more than 12 classes, 12 drawn by the seed."""
    rng = np.random.default_rng(seed)
    images, labels = dataset.train
    count = len(dataset.class_names)
    shown = np.sort(rng.choice(count, min(count, FEW), replace=False))
    height, width, channels = dataset.image_shape
    gap = max(1, height // 12)
    grid = np.full((len(shown), columns, height + gap, width + gap, channels), 255, np.uint8)
    for row, label in enumerate(shown):
        found = np.flatnonzero(labels == label)
        picked = images[rng.permutation(found)[:columns]]
        grid[row, : len(picked), :height, :width] = picked
    shape = (len(shown) * (height + gap), columns * (width + gap), channels)
    mosaic = grid.swapaxes(1, 2).reshape(shape)[:-gap, :-gap]

    names = [_named(dataset.class_names[label]) for label in shown]
    lines = [textwrap.fill(name, 16) for name in names]
    letters = max(len(part) for line in lines for part in line.split("\n"))
    margin = 0.3 + 0.1 * letters  # inches
    tall = (WIDTH - margin) * mosaic.shape[0] / mosaic.shape[1]
    figure = Figure(figsize=(WIDTH, tall))
    figure.set_layout_engine("none")
    axes = figure.add_axes((margin / WIDTH, 0, 1 - margin / WIDTH, 1))
    axes.imshow(mosaic, interpolation="nearest")
    axes.set_yticks(np.arange(len(shown)) * (height + gap) + height / 2, lines)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    which = "each class" if len(shown) == count else f"{len(shown)} of the {count} classes"
    caption = f"{dataset.name}: training images of {which}, drawn at random (seed {seed})."
    sizes = [len(split.labels) for split in (dataset.train, dataset.validation, dataset.test)]
    alt = (
        f"Training images of {dataset.name}, {height} by {width} pixels, {columns} of each of "
        f"{len(shown)} classes: {_listed(names)}. The data set has {count} classes; "
        f"{sizes[0]:,} images for training, {sizes[1]:,} for validation, {sizes[2]:,} for the test."
    )
    return CaptionedFigure(figure, caption, alt)


@matplotlib.rc_context(STYLE)
def plot_whitening(model: keras.Model) -> CaptionedFigure:
    """The filters of a model's :class:`~cifar_utils.models.airbench.PatchWhitening`, in colour.

    Of a model without one, those of its first convolution.
    """
    from cifar_utils.models.airbench import PatchWhitening

    layer = next(layer for layer in model.layers if getattr(layer, "kernel", None) is not None)
    filters = np.moveaxis(np.asarray(layer.kernel), -1, 0)
    whitens = isinstance(layer, PatchWhitening)
    filters = filters[: len(filters) // 2] if whitens else filters  # the others are their negatives
    strengths = np.sqrt((filters**2).sum(axis=(1, 2, 3)))
    rows = -(-len(filters) // 6)
    figure = Figure(figsize=(WIDTH, 1.45 * rows))
    panels = figure.subplots(rows, 6)
    for panel, pattern, strength in zip(panels.flat, filters, strengths, strict=False):
        panel.imshow(0.5 + 0.5 * pattern / np.abs(pattern).max())
        panel.set_title(f"×{strength:.1f}")
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
        panel.set_visible(bool(panel.images))
    size = "{} × {}".format(*filters.shape[1:3])
    caption = f"Filters of {size} pixels as training starts; grey is zero. "
    caption += "Each is weighed by the number above it."
    if whitens:
        caption = (
            f"Patterns of {size} pixels, from the most to the least common in the training images; "
            "grey is zero. Each is weighed by the number above it, so that all come out equally "
            "strong. Each is there with the opposite sign, too."
        )
    alt = (
        f"{len(filters)} colour patterns of {size} pixels, with weights from "
        f"{strengths.min():.1f} to {strengths.max():.1f}."
    )
    return CaptionedFigure(figure, caption, alt)


@matplotlib.rc_context(STYLE)
def plot_history(
    history: History, reported: pd.DataFrame | None = None, title: str | None = None
) -> CaptionedFigure:
    """Loss and accuracy of training and validation by epoch, the best one marked; learning rate.

    Parameters
    ----------
    history
        One epoch or more; ``val_loss`` and ``val_accuracy`` may be missing.
    reported
        A training curve to draw behind, as far as the run goes:
        :func:`cifar_utils.reported.reported_curve`.
    title
        What was trained, on what.

    """
    epochs = [row["epoch"] for row in history.epochs]
    columns = {
        key: np.array([row.get(key) for row in history.epochs], float)  # None becomes NaN
        for key in ("loss", "val_loss", "accuracy", "val_accuracy", "learning_rate")
    }
    figure = Figure(figsize=(WIDTH, 8))
    panels = figure.subplots(3, sharex=True, height_ratios=[3, 3, 1.3])
    dots = {"marker": "o", "markersize": 4 if len(epochs) > 3 else 8} if len(epochs) <= 40 else {}
    caption = (
        "Training figures are means over an epoch, with augmentation and dropout on; validation "
        "figures, where images were held out, are taken after it. The dotted line marks the epoch "
        "whose weights are kept."
    )
    source = None if reported is None else reported.attrs.get("source", "reported")
    for panel, metric in zip(panels, ("loss", "accuracy"), strict=False):
        if reported is not None:
            behind = reported[reported["epoch"] <= max(epochs)]
            column = metric if metric in reported else f"top_5_{metric}"
            name = f"{source}, training" + (" (top-5)" if column != metric else "")
            panel.plot(behind["epoch"], behind[column], color=GREY, lw=3, alpha=0.6, label=name)
        panel.plot(epochs, columns[metric], color=BLUE, ls="--", label="training", **dots)
        validation = columns[f"val_{metric}"]
        if not np.isnan(validation).all():
            panel.plot(epochs, validation, color=VERMILION, label="validation", **dots)
    lines = panels[1].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper center", ncols=3, title=title)
    panels[0].set_ylabel("loss (nats)")
    panels[1].set_ylabel("accuracy")
    panels[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if reported is not None:
        last = reported.iloc[-1]
        caption += f" Grey: {source}, whose training loss is {last['loss']:.3f} "
        caption += f"after its {last['epoch']:.0f} epochs."
    _mark_best(panels[1], history, columns)

    rates = columns["learning_rate"]
    cuts = len(set(rates)) < len(rates) / 2  # a factor now and then, rather than a smooth course
    panels[2].plot(epochs, rates, color=GREEN, drawstyle="steps-mid" if cuts else "default", **dots)
    panels[2].set(xlabel="epoch", ylabel="learning rate")
    if cuts and rates.min() > 0 and rates.max() > 30 * rates.min():
        panels[2].set_yscale("log")
    else:
        panels[2].margins(y=0.15)
        panels[2].set_ylim(bottom=0)
    for panel in panels:
        panel.axvline(history.best_epoch, color="#333333", lw=1.2, ls=":")
    panels[2].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels[2].set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    figure.align_ylabels(panels)
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
    return words + f"The learning rate {course}."


@matplotlib.rc_context(STYLE)
def plot_per_class(scores: Scores, reported: dict[str, float] | None = None) -> CaptionedFigure:
    """Accuracy by class, sorted, with 95% intervals; of more than 24 classes the 10 best and worst.

    ``reported`` fractions by class name, where given, are drawn as diamonds.
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
    axes.set_yticks(places, [_named(name) for name in names])
    axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("share of the class's test images classified rightly")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=2)

    caption = "Accuracy by class, best first; thin lines: 95% intervals; dashed line: all classes."
    if many:
        caption = f"The 10 best and the 10 worst of {len(ranked)} classes. " + caption
    if reported:
        caption += " Diamonds are the reported figures."
    alt = (
        f"Accuracy by class runs from {percent(values[0])} ({_named(names[0])}) down to "
        f"{percent(values[-1])} ({_named(names[-1])}); over all classes it is "
        f"{percent(scores.top1)} of {scores.n:,} images."
    )
    return CaptionedFigure(figure, caption, alt)


@matplotlib.rc_context(STYLE)
def plot_confusion(scores: Scores, pairs: int = 15) -> CaptionedFigure:
    """What each class is taken for: counts, coloured by their share of the true class.

    Of more than 12 classes the matrix goes without counts, and the ``pairs`` most frequent
    confusions are named below it.
    """
    counts, classes = scores.confusion, [_named(name) for name in scores.class_names]
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
        square=few or not named,  # names take width: a square would be small beside them
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
    finding = f"Most frequent confusions: {_listed(found)}." if found else "No image is mistaken."
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
def plot_mistakes(scores: Scores, split: Split, count: int = 12) -> CaptionedFigure:
    """The wrong predictions of the highest probability, with true and predicted class.

    ``split`` is the one that was scored: image ``i`` is the one of ``scores.labels[i]``.
    """
    certainty = scores.probabilities.max(axis=1)

    def names(index: int) -> tuple[str, str]:
        pair = scores.labels[index], scores.predictions[index]
        return tuple(_named(scores.class_names[label]) for label in pair)

    wrong = np.flatnonzero(scores.predictions != scores.labels)
    shown = wrong[np.argsort(-certainty[wrong], kind="stable")][:count]
    if not len(shown):
        figure = Figure(figsize=(WIDTH, 1.2))
        words = f"No mistakes among {scores.n:,} images."
        figure.text(0.5, 0.5, words, ha="center", va="center", size=14)
        return CaptionedFigure(figure, words, words)

    columns = 4
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(WIDTH, 2.35 * rows))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, index in zip(grid.flat, shown, strict=False):
        truth, said = names(index)
        axes.imshow(split.images[index], interpolation="nearest")
        below = textwrap.fill(f"→ {said} {percent(certainty[index])}", 20)
        axes.set_title(f"{textwrap.fill(truth, 20)}\n{below}", size=11)
    first, last = percent(certainty[shown[0]]), percent(certainty[shown[-1]])
    caption = (
        f"The {len(shown)} most confident of {len(wrong):,} mistakes in {scores.n:,} images: "
        "the true class → the predicted one, and the probability given to it."
    )
    truth, said = names(shown[0])
    alt = (
        f"{len(shown)} images that were classified wrongly with probabilities of {first} down to "
        f"{last}; the first is of class {truth}, taken for {said}. {len(wrong):,} of "
        f"{scores.n:,} images ({percent(len(wrong) / scores.n)}) are mistaken."
    )
    return CaptionedFigure(figure, caption, alt)
