"""Training batches whose order is a function of seed and epoch."""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from cifar_utils.data.dataset import Split


class Batches(keras.utils.PyDataset):
    """A split in a random order, drawn anew for each ``epoch`` from ``(seed, epoch)`` alone.

    With ``variants``, images are ``(N, variants, ...)``, and one variant of each is drawn for the
    epoch too. ``changes`` are applied to each batch in turn: functions of its images, which of the
    split's they are ``(N,)``, the seed and the epoch.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        variants: int = 0,
        changes: Sequence[Callable] = (),
    ):
        super().__init__()
        self.split, self.batch_size, self.seed, self.variants = split, batch_size, seed, variants
        self.changes = changes
        self.epoch = 0

    @property
    def epoch(self) -> int:
        """The epoch that batches are for, from 0; setting it draws their order."""
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
        images = self.split.images[place]
        for change in self.changes:
            images = change(images, chosen, self.seed, self.epoch)
        return images, self.split.labels[chosen]
