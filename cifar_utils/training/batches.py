"""Training batches whose order is a function of seed and epoch."""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from cifar_utils.data.dataset import Split
from cifar_utils.errors import check_bounds


def batches_of(model: keras.Model, split: Split, batch_size: int, seed: int) -> "Batches":
    """A split as training batches for a model's input, with the model's augmentation."""
    changing = [layer for layer in model.layers if hasattr(layer, "change")]
    variants = split.images.shape[1] if split.images.ndim > len(model.input_shape) else 0
    mixed = any(layer.mixes_labels for layer in changing)
    classes = model.output_shape[-1] if mixed else 0
    changes = [layer.change for layer in changing]
    return Batches(split, batch_size, seed, variants, changes, classes)


class Batches(keras.utils.PyDataset):
    """A split in random order. The order of an epoch depends on ``(seed, epoch)`` alone.

    With ``variants``, images are ``(N, variants, ...)``, and an epoch draws one variant of each.
    Each of ``changes`` takes a batch's images, labels and numbers ``(N,)`` in the split, the seed
    and the epoch. It returns images and labels. With ``classes``, labels are shares of each class
    ``(N, classes)``, so that changes may mix them.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        variants: int = 0,
        changes: Sequence[Callable] = (),
        classes: int = 0,
    ):
        super().__init__()
        check_bounds("batch_size", batch_size, "at least 1")
        self.split, self.batch_size, self.seed, self.variants = split, batch_size, seed, variants
        self.changes, self.classes = changes, classes
        self.epoch = 0

    @property
    def epoch(self) -> int:
        """The epoch, from 0. Setting it draws the order."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
        random = np.random.default_rng([self.seed, epoch])
        self._order = random.permutation(len(self.split.labels))
        self._variant = random.integers(max(self.variants, 1), size=len(self._order))

    def __len__(self) -> int:
        return -(-len(self._order) // self.batch_size)

    def __getitem__(self, index: int):
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        place = (chosen, self._variant[chosen]) if self.variants else chosen
        images, labels = self.split.images[place], self.split.labels[chosen]
        if self.classes:
            labels = np.eye(self.classes, dtype=np.float32)[labels]
        for change in self.changes:
            images, labels = change(images, labels, chosen, self.seed, self.epoch)
        return images, labels
