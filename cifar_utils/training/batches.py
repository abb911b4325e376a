"""Batches: for training in an order that seed and epoch decide, for validation as they are."""

import keras
import numpy as np

from cifar_utils.data.dataset import Split
from cifar_utils.errors import InputError, check_count


def check_labels(split: Split, classes: int) -> None:
    """Raise an InputError unless a split has a class number for each image."""
    labels, images = np.asarray(split.labels), len(split.images)
    if labels.shape != (images,) or labels.dtype.kind not in "iu":
        found = f"of shape {labels.shape} and type {labels.dtype}"
        raise InputError(f"labels are {found}; {images:,} images take as many whole numbers")
    if images and not 0 <= labels.min() <= labels.max() < classes:
        found = f"from {labels.min()} to {labels.max()}"
        raise InputError(
            f"labels are {found}; a model of {classes} classes takes 0 to {classes - 1}"
        )


class InOrder(keras.utils.PyDataset):
    """A split in its own order. Of float16 features, Keras would make a float32 copy at once."""

    def __init__(self, split: Split, batch_size: int):
        super().__init__()
        self.split = split
        self.batch_size = check_count("batch_size", batch_size)

    def __len__(self) -> int:
        return -(-len(self.split.labels) // self.batch_size)

    def __getitem__(self, index: int):
        batch = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return self.split.images[batch], self.split.labels[batch]


class Batches(InOrder):
    """A split in random order, as a model takes it.

    The order of an epoch depends on ``(seed, epoch)`` alone. Images may have one axis more than the
    model's input: ``(N, variants, ...)``. An epoch then draws one variant of each. The model's
    layers that have a ``change`` change each batch. It takes the images, their numbers ``(N,)`` in
    the split, the seed and the epoch.
    """

    def __init__(self, model: keras.Model, split: Split, batch_size: int, seed: int):
        super().__init__(split, batch_size)
        self.seed = check_count("seed", seed, "at least 0")
        self.variants = split.images.shape[1] if split.images.ndim > len(model.input_shape) else 0
        self.changes = [layer.change for layer in model.layers if hasattr(layer, "change")]
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Draw the order of an epoch, from 0."""
        self.epoch = epoch
        random = np.random.default_rng([self.seed, epoch])
        self._order = random.permutation(len(self.split.labels))
        self._variant = random.integers(max(self.variants, 1), size=len(self._order))

    def __getitem__(self, index: int):
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        place = (chosen, self._variant[chosen]) if self.variants else chosen
        images, labels = self.split.images[place], self.split.labels[chosen]
        for change in self.changes:
            images = change(images, chosen, self.seed, self.epoch)
        return images, labels
