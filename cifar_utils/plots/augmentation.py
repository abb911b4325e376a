"""A figure of augmented images."""

import re
import textwrap

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cifar_utils.augmentation import augmentation_layers
from cifar_utils.backend import keras
from cifar_utils.data.dataset import Dataset
from cifar_utils.plots.figure import STYLE, WIDTH, CaptionedFigure

DRAWS = 5  # epochs
BATCH = 32  # images: the first is shown, the others give cutout its colour


@matplotlib.rc_context(STYLE)
def plot_augmentations(dataset: Dataset, *names: str, seed: int = 0) -> CaptionedFigure:
    """One training image as each augmentation changes it in the first epochs: a row each.

    Parameters
    ----------
    names
        The augmentations of each row, as for :func:`~cifar_utils.models.build_model`:
        ``"crop(4), flip"``.
    seed
        Draws the image and its changes.

    Raises
    ------
    InputError
        Where an augmentation is unknown or doesn't work on these images.

    """
    chosen = np.random.default_rng(seed).permutation(len(dataset.train.labels))[:BATCH]
    images, labels = (part[chosen] for part in dataset.train)
    figure = Figure(figsize=(WIDTH, 0.4 + 1.1 * len(names)))
    grid = figure.subplots(len(names), DRAWS + 1, squeeze=False)
    for panel in grid.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    grid[0, 0].set_title("original", size=11)
    for row, text in zip(grid, names, strict=True):
        row[0].imshow(images[0])
        words = textwrap.fill(re.sub(r",\s*", ", ", text.replace("_", " ")), 18)
        row[0].set_ylabel(words, rotation=0, ha="right", va="center")
        for epoch, panel in enumerate(row[1:]):
            changed = augmented(text, images, seed, epoch)
            panel.imshow(np.clip(changed[0].round(), 0, 255).astype(np.uint8))
            grid[0, epoch + 1].set_title(f"epoch {epoch + 1}", size=11)
    kind = dataset.class_names[labels[0]].replace("_", " ")
    caption = (
        f"{dataset.name}: a training image, and what the network is shown instead in "
        f"{DRAWS} epochs, by augmentation (seed {seed})."
    )
    alt = (
        f"A training image of class {kind}, {DRAWS} times changed by each of {len(names)} "
        f"augmentations: {'; '.join(names).replace('_', ' ')}."
    )
    return CaptionedFigure(figure, caption, alt)


def augmented(text: str, images: np.ndarray, seed: int = 0, epoch: int = 0) -> np.ndarray:
    """A batch, uint8 ``(N, H, W, 3)``, as augmented in an epoch.

    As in training, changes of the batch come first, then the layers of the model.
    """
    layers = augmentation_layers(text)
    within = [layer for layer in layers if not hasattr(layer, "change")]
    for layer in layers:
        if layer not in within:
            images = layer.change(images, np.arange(len(images)), seed, epoch)
    seeds = np.random.SeedSequence([seed, epoch]).generate_state(max(len(within), 1)) >> 1
    whole, images = images.shape, images.astype(np.float32)
    for layer, own in zip(within, seeds, strict=False):
        layer.build(whole)  # as in a model: `shrink` gives smaller images in some epochs alone
        layer.seed_generator.state.assign([int(own), 0])
        if hasattr(layer, "begin_epoch"):
            layer.begin_epoch(epoch)
        # Unlike in training, this is not compiled: for so few images that would take longer.
        images = keras.ops.convert_to_numpy(layer.transform(images, *layer.draw(len(images))))
    return images
