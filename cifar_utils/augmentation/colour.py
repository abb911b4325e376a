"""Augmentation of colours: contrast."""

from typing import Annotated

import keras
from keras import ops

from cifar_utils.augmentation.layer import Augmentation
from cifar_utils.choices import NonNegativeFloat


@keras.saving.register_keras_serializable("cifar_utils")
class RandomContrast(Augmentation):
    """See :func:`contrast`."""

    def __init__(self, lower: float, upper: float, **kwargs):
        super().__init__(**kwargs)
        self.lower, self.upper = lower, upper

    def draw(self, count):
        return (self.uniform(count, 1, 1, 1, low=self.lower, high=self.upper),)

    def transform(self, images, factor):
        mean = ops.mean(images, axis=(1, 2), keepdims=True)
        return ops.clip(mean + factor * (images - mean), 0, 255)


def contrast(
    lower: NonNegativeFloat = 0.25, upper: Annotated[float, "at least {lower}"] = 0.75
) -> Augmentation:
    """Multiply each image's contrast by a factor between ``lower`` and ``upper`` (report A).

    Contrast is the distance of each channel from its mean over the image. The means stay the same
    unless values are clipped.
    """
    return RandomContrast(lower, upper)
