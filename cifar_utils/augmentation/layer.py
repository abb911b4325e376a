"""The base class of augmentation layers."""

import keras
from keras import layers, ops

from cifar_utils.errors import InputError


class Augmentation(layers.Layer):
    """Changes training images, whose pixels are from 0 to 255; leaves other images as they are.

    A subclass has two methods. ``draw(count)`` gives the random numbers for a batch, a tuple of
    small tensors. ``transform(images, *draws)`` changes float32 images ``(N, H, W, C)`` by them.
    """

    def __init__(self, **kwargs):
        # Always in float32: bfloat16 has less than three digits.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images, training=False):
        if not training:
            return images
        return self.transform(ops.cast(images, "float32"), *self.draw(ops.shape(images)[0]))

    def uniform(self, *shape, low: float = 0.0, high: float = 1.0):
        """Draw numbers of a shape, uniformly between ``low`` and ``high``."""
        return keras.random.uniform(shape, low, high, seed=self.seed_generator)


def check_smaller(what: str, pixels: int, shape: tuple) -> None:
    """Raise an InputError unless ``pixels`` fit into images of ``shape`` ``(N, H, W, C)``."""
    side = min(shape[1:3])
    if pixels >= side:
        raise InputError(
            f"{what} is {pixels} pixels; it must be less than the {side} that the images have"
        )
