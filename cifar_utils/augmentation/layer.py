"""The base class of augmentation layers."""

import keras
from keras import layers, ops

from cifar_utils.errors import InputError

COMPILED = {}  # by class and options, so that each is compiled once for all models


class Augmentation(layers.Layer):
    """Changes training images, whose pixels are from 0 to 255; leaves other images as they are.

    A subclass draws random numbers for a batch (:meth:`draw`) and changes the images by them
    (:meth:`transform`). With TensorFlow, XLA compiles the change into one or two passes over the
    images instead of one for each operation (``benchmarks/NOTES.md``).
    """

    def __init__(self, **kwargs):
        # Always in float32: bfloat16 has less than three digits.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images, training=False):
        if not training:
            return images
        tensorflow = keras.backend.backend() == "tensorflow"
        transform = self._compiled() if tensorflow else self.transform
        return transform(ops.cast(images, "float32"), *self.draw(ops.shape(images)[0]))

    def draw(self, count) -> tuple:
        """Draw the random numbers for a batch of ``count`` images: small tensors."""
        raise NotImplementedError

    def transform(self, images, *draws):
        """Change float32 images ``(N, H, W, C)`` as drawn."""
        raise NotImplementedError

    def uniform(self, *shape, low: float = 0.0, high: float = 1.0):
        """Draw numbers of a shape, uniformly between ``low`` and ``high``."""
        return keras.random.uniform(shape, low, high, seed=self.seed_generator)

    def _compiled(self):
        import tensorflow as tf

        of_any_layer = ("name", "trainable", "dtype")
        own = [item for item in self.get_config().items() if item[0] not in of_any_layer]
        key = (type(self), *own)
        if key not in COMPILED:
            COMPILED[key] = tf.function(self.transform, jit_compile=True, autograph=False)
        return COMPILED[key]


def blend(a, b, share):
    """The mean of ``a`` and ``b`` with weights 1 - ``share`` and ``share``."""
    return a + share * (b - a)


def check_smaller(what: str, pixels: int, shape: tuple, where: str = "") -> None:
    """Raise an InputError unless ``pixels`` fit into images of ``shape`` ``(N, H, W, C)``."""
    side = min(shape[1:3])
    if pixels >= side:
        raise InputError(
            f"{what} is {pixels} pixels; {where}it must be less than the {side} that the images "
            "have"
        )
