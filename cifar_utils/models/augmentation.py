"""Augmentation: layers that change training images and leave others alone, composed by listing.

``"crop(padding=4), flip"`` is a pipeline: each image draws its own change, anew each epoch.
"""

import keras
import numpy as np
from keras import layers, ops

from cifar_utils.parameters import InputError, known_name, parse_calls

PAD_MODES = ("constant", "reflect", "symmetric")


@keras.saving.register_keras_serializable("cifar_utils")
class RandomCrop(layers.Layer):
    """Pad each side, then cut the original size out at a random place, drawn for each image.

    (``keras.layers.RandomCrop`` draws one place for the whole batch.)

    Parameters
    ----------
    padding
        Pixels added on each side.
    mode
        What the padding holds: ``"constant"`` (black), ``"reflect"`` or ``"symmetric"``.

    """

    def __init__(self, padding: int = 4, mode: str = "constant", **kwargs):
        super().__init__(**kwargs)
        self.padding, self.mode = padding, mode
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, input_shape):
        if self.mode != "constant" and self.padding >= min(input_shape[1:3]):
            raise InputError(
                f"crop padding is {self.padding} pixels; with mode {self.mode!r} it must be less "
                f"than the {min(input_shape[1:3])} that the images have"
            )

    def call(self, images, training=False):
        if not training:
            return images
        count, height, width, channels = ops.shape(images)
        edge = (self.padding, self.padding)
        padded = ops.pad(images, ((0, 0), edge, edge, (0, 0)), mode=self.mode)
        corner = keras.random.randint(
            (2, count, 1), 0, 2 * self.padding + 1, seed=self.seed_generator
        )
        # Rows, then columns, are picked by a product with one-hot rows: exact, and many times as
        # fast as gathering with an index for each pixel.
        rows = self._one_hot(corner[0], height)
        columns = self._one_hot(corner[1], width)
        padded = ops.reshape(padded, (-1, height + 2 * self.padding, padded.shape[2] * channels))
        picked = ops.reshape(
            ops.matmul(rows, padded), (-1, height, width + 2 * self.padding, channels)
        )
        return ops.einsum("nwk,nhkc->nhwc", columns, picked)

    def _one_hot(self, start, size):
        """Places ``start .. start + size`` of each image, one-hot ``(N, size, padded size)``."""
        index = start + ops.arange(size, dtype="int32")
        return ops.one_hot(index, size + 2 * self.padding, dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "padding": self.padding, "mode": self.mode}


class TrainingOnly:
    """Makes one of Keras's augmentation layers act only when told that this is training.

    Left to themselves, they act unless told that it is not: in ``model(images)``, too.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Some say that they can't be compiled. That is so of TensorFlow's image operations; JAX
        # compiles them, and without that takes a model of such a layer one operation at a time.
        self.supports_jit |= keras.backend.backend() == "jax"

    def call(self, data, training=False):
        return super().call(data, training=training)


@keras.saving.register_keras_serializable("cifar_utils")
class RandomFlip(TrainingOnly, layers.RandomFlip):
    """See :func:`flip`."""


@keras.saving.register_keras_serializable("cifar_utils")
class RandomRotation(TrainingOnly, layers.RandomRotation):
    """See :func:`rotation`."""


@keras.saving.register_keras_serializable("cifar_utils")
class RandomTranslation(TrainingOnly, layers.RandomTranslation):
    """See :func:`shift`."""


@keras.saving.register_keras_serializable("cifar_utils")
class AlternatingFlip(layers.Layer):
    """See :func:`alternating_flip`. Training changes batches by it before the model sees them."""

    def call(self, images):
        return images

    def change(self, images: np.ndarray, index: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """Mirror those of a batch ``(N, H, W, C)`` whose turn it is; ``index`` says which they are.

        Whether an image is mirrored in the first epoch is drawn by ``(seed, index)``.
        """
        first = np.random.PCG64([seed, 1]).random_raw(int(index.max(initial=0)) + 1)
        turn = (first[index] >> np.uint64(63)) % 2 != epoch % 2
        return np.where(turn[:, None, None, None], images[:, :, ::-1], images)


def alternating_flip() -> layers.Layer:
    """Mirror left and right half of the images in one epoch, and the other half in the next.

    So two epochs show each image both ways, which :func:`flip` leaves to chance (Jordan,
    arXiv:2404.00498).
    """
    return AlternatingFlip(dtype="float32")


def flip(direction: str = "horizontal") -> layers.Layer:
    """Mirror each image with probability one half: left and right, or (``vertical``) up and down.

    For both, each drawn for itself, ask for both: ``"flip, flip('vertical')"``.
    """
    known_name("flip direction", direction, ("horizontal", "vertical"))
    return RandomFlip(direction, dtype="float32")


def crop(padding: int = 4, mode: str = "constant") -> layers.Layer:
    """Pad by ``padding`` pixels and cut the original size out at random (He et al., 2015)."""
    if not (isinstance(padding, int) and padding >= 1):
        raise InputError(f"crop padding is {padding!r}; it takes a whole number of pixels >= 1")
    known_name("crop mode", mode, PAD_MODES)
    return RandomCrop(padding, mode, dtype="float32")


def rotation(degrees: float = 30.0) -> layers.Layer:
    """Rotate by up to ``degrees`` either way; what comes into view repeats the nearest pixel."""
    if not 0 < degrees <= 180:
        raise InputError(f"rotation is {degrees!r} degrees; it takes a number > 0, <= 180")
    return RandomRotation(degrees / 360, fill_mode="nearest", dtype="float32")


def shift(fraction: float = 0.1) -> layers.Layer:
    """Shift by up to ``fraction`` of height and width; what comes into view repeats the edge."""
    if not 0 < fraction < 1:
        raise InputError(f"shift is {fraction!r} of the size; it takes a fraction in (0, 1)")
    return RandomTranslation(fraction, fraction, fill_mode="nearest", dtype="float32")


AUGMENTATIONS = {
    function.__name__: function for function in (alternating_flip, crop, flip, rotation, shift)
}


def augmentation_layers(text: str | None) -> list[layers.Layer]:
    """The layers of ``"crop(padding=4), flip"``, in order; none for ``None`` or ``"none"``."""
    if text in (None, "", "none"):
        return []
    return [call() for call in parse_calls("augmentation", text, AUGMENTATIONS)]
