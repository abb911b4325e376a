"""What augmentation layers have in common."""

import keras
from keras import layers, ops

COMPILED = {}  # by kind and options, so that models after the first need not wait for it


class Augmentation(layers.Layer):
    """Changes training images, pixels from 0 to 255, and leaves others as they are.

    A subclass says what is drawn for a batch (:meth:`draw`) and what that makes of its images
    (:meth:`transform`). TensorFlow has XLA compile the latter into one pass over the images or two,
    where it would else take one for each operation (``benchmarks/NOTES.md``).
    """

    def __init__(self, **kwargs):
        # In float32 whatever the model's precision: bfloat16 has three digits.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images, training=False):
        if not training:
            return images
        tensorflow = keras.backend.backend() == "tensorflow"
        transform = self._compiled() if tensorflow else self.transform
        return transform(ops.cast(images, "float32"), *self.draw(ops.shape(images)[0]))

    def draw(self, count) -> tuple:
        """What is random in a batch of ``count`` images: small tensors."""
        raise NotImplementedError

    def transform(self, images, *draws):
        """Change float32 images ``(N, H, W, C)`` as drawn."""
        raise NotImplementedError

    def uniform(self, *shape, low: float = 0.0, high: float = 1.0):
        """Draw numbers between two, of a shape."""
        return keras.random.uniform(shape, low, high, seed=self.seed_generator)

    def _compiled(self):
        import tensorflow as tf

        base = layers.Layer.get_config(self)
        own = {name: value for name, value in self.get_config().items() if name not in base}
        key = (type(self), *own.items())
        if key not in COMPILED:
            COMPILED[key] = tf.function(self.transform, jit_compile=True, autograph=False)
        return COMPILED[key]


def blend(a, b, share):
    """``a`` and ``b``, the latter with a weight of ``share``."""
    return a + share * (b - a)
