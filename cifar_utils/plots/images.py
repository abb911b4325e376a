"""Figures of images: samples of the data, first filters, mistakes."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cifar_utils.data.dataset import Dataset, Split
from cifar_utils.evaluation import Scores
from cifar_utils.plots.figure import FEW, STYLE, WIDTH, CaptionedFigure, readable
from cifar_utils.text import listed, percent

if TYPE_CHECKING:
    import keras


@matplotlib.rc_context(STYLE)
def plot_samples(dataset: Dataset, seed: int = 0, columns: int = 9) -> CaptionedFigure:
    """Training images, a row for each class. The seed draws 8 classes if there are more than 12."""
    rng = np.random.default_rng(seed)
    images, labels = dataset.train
    count = len(dataset.class_names)
    shown = np.sort(rng.choice(count, count if count <= FEW else 8, replace=False))
    height, width, channels = dataset.image_shape
    gap = max(1, height // 12)
    grid = np.full((len(shown), columns, height + gap, width + gap, channels), 255, np.uint8)
    for row, label in enumerate(shown):
        found = np.flatnonzero(labels == label)
        picked = images[rng.permutation(found)[:columns]]
        grid[row, : len(picked), :height, :width] = picked
    shape = (len(shown) * (height + gap), columns * (width + gap), channels)
    mosaic = grid.swapaxes(1, 2).reshape(shape)[:-gap, :-gap]

    names = [readable(dataset.class_names[label]) for label in shown]
    lines = [textwrap.fill(name, 16) for name in names]
    letters = max(len(part) for line in lines for part in line.split("\n"))
    margin = 0.3 + 0.1 * letters  # inches
    tall = (WIDTH - margin) * mosaic.shape[0] / mosaic.shape[1]
    figure = Figure(figsize=(WIDTH, tall))
    figure.set_layout_engine("none")
    axes = figure.add_axes((margin / WIDTH, 0, 1 - margin / WIDTH, 1))
    axes.imshow(mosaic, interpolation="auto")
    axes.set_yticks(np.arange(len(shown)) * (height + gap) + height / 2, lines)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    which = "each class" if len(shown) == count else f"{len(shown)} of the {count} classes"
    caption = f"{dataset.name}: training images of {which}, drawn at random (seed {seed})."
    sizes = [len(split.labels) for split in (dataset.train, dataset.validation, dataset.test)]
    alt = (
        f"Training images of {dataset.name}, {height} by {width} pixels, up to {columns} of each "
        f"of {len(shown)} classes: {listed(names)}. The data set has {count} classes; "
        f"{sizes[0]:,} images for training, {sizes[1]:,} for validation, {sizes[2]:,} for the test."
    )
    return CaptionedFigure(figure, caption, alt)


@matplotlib.rc_context(STYLE)
def plot_whitening(model: keras.Model) -> CaptionedFigure:
    """The filters of a model's :class:`~cifar_utils.models.airbench.PatchWhitening`, in colour.

    For a model without this layer, they are those of its first convolution.
    """
    layer = next(layer for layer in model.layers if getattr(layer, "kernel", None) is not None)
    filters = np.moveaxis(np.asarray(layer.kernel), -1, 0)
    whitens = hasattr(layer, "whiten")
    if whitens:  # the second half are negatives of the first; those of grey images repeat
        _, first = np.unique(filters[: len(filters) // 2], axis=0, return_index=True)
        filters = filters[np.sort(first)]
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
    caption += "Each is multiplied by the number above it."
    if whitens:
        caption = (
            f"Patterns of {size} pixels, by their strength in the training images, the strongest "
            "first; grey is zero. Each is multiplied by the number above it, so that all outputs "
            "have nearly the same variance. Each is there with the opposite sign, too."
        )
    alt = (
        f"{len(filters)} colour patterns of {size} pixels, with weights from "
        f"{strengths.min():.1f} to {strengths.max():.1f}."
    )
    return CaptionedFigure(figure, caption, alt)


@matplotlib.rc_context(STYLE)
def plot_mistakes(scores: Scores, split: Split, count: int = 12) -> CaptionedFigure:
    """The wrong predictions of the highest probability, with true and predicted class.

    ``split`` is the scored one: ``scores.labels[i]`` is the label of its image ``i``.
    """
    certainty = scores.probabilities.max(axis=1)

    def names(index: int) -> tuple[str, str]:
        pair = scores.labels[index], scores.predictions[index]
        return tuple(readable(scores.class_names[label]) for label in pair)

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
        axes.imshow(split.images[index], interpolation="auto")
        below = textwrap.fill(f"→ {said} {percent(certainty[index])}", 20)
        axes.set_title(f"{textwrap.fill(truth, 20)}\n{below}", size=11)
    first, last = percent(certainty[shown[0]]), percent(certainty[shown[-1]])
    which = f"{len(shown)} most confident of {len(wrong):,} mistakes"
    if len(shown) == len(wrong):
        which = f"{len(wrong)} mistakes" if len(wrong) > 1 else "only mistake"
    caption = (
        f"The {which} in {scores.n:,} images: "
        "the true class → the predicted one, and the probability given to it."
    )
    truth, said = names(shown[0])
    alt = (
        f"{len(shown)} images that were classified wrongly with probabilities of {first} down to "
        f"{last}; the first is of class {truth}, taken for {said}. {len(wrong):,} of "
        f"{scores.n:,} images ({percent(len(wrong) / scores.n)}) are misclassified."
    )
    return CaptionedFigure(figure, caption, alt)
