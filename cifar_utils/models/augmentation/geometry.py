"""Augmentation that moves pixels: flips, crops, shifts, rotations."""

import math

import keras
import numpy as np
from keras import layers, ops

from cifar_utils.models.augmentation.layer import Augmentation, blend
from cifar_utils.parameters import InputError, known_name

DIRECTIONS = {"horizontal": 2, "vertical": 1}  # each with the axis that is mirrored
PAD_MODES = ("constant", "reflect", "symmetric")


@keras.saving.register_keras_serializable("cifar_utils")
class RandomFlip(Augmentation):
    """See :func:`flip`."""

    def __init__(self, direction: str, probability: float, per_batch: bool, **kwargs):
        super().__init__(**kwargs)
        self.direction, self.probability, self.per_batch = direction, probability, per_batch

    def draw(self, count):
        return (self.uniform(1 if self.per_batch else count, 1, 1, 1) < self.probability,)

    def transform(self, images, mirrored):
        return ops.where(mirrored, ops.flip(images, axis=DIRECTIONS[self.direction]), images)

    def get_config(self):
        own = {"direction": self.direction, "probability": self.probability}
        return {**super().get_config(), **own, "per_batch": self.per_batch}


@keras.saving.register_keras_serializable("cifar_utils")
class AlternatingFlip(layers.Layer):
    """See :func:`alternating_flip`. Training changes batches by it before the model sees them."""

    mixes_labels = False

    def call(self, images):
        return images

    def change(self, images: np.ndarray, labels, index: np.ndarray, seed: int, epoch: int) -> tuple:
        """Mirror those of a batch ``(N, H, W, C)`` whose turn it is; ``index`` says which they are.

        Whether an image is mirrored in the first epoch is drawn by ``(seed, index)``.
        """
        first = np.random.PCG64([seed, 1]).random_raw(int(index.max(initial=0)) + 1)
        turn = (first[index] >> np.uint64(63)) % 2 != epoch % 2
        return np.where(turn[:, None, None, None], images[:, :, ::-1], images), labels


@keras.saving.register_keras_serializable("cifar_utils")
class RandomCrop(Augmentation):
    """See :func:`crop`; ``keras.layers.RandomCrop`` draws one place for the whole batch."""

    def __init__(self, padding: int = 4, mode: str = "constant", **kwargs):
        super().__init__(**kwargs)
        self.padding, self.mode = padding, mode

    def build(self, input_shape):
        if self.mode != "constant" and self.padding >= min(input_shape[1:3]):
            raise InputError(
                f"crop padding is {self.padding} pixels; with mode {self.mode!r} it must be less "
                f"than the {min(input_shape[1:3])} that the images have"
            )

    def draw(self, count):
        places = 2 * self.padding + 1
        corner = keras.random.randint((2, count, 1), 0, places, seed=self.seed_generator)
        return corner[0], corner[1]

    def transform(self, images, top, left):
        height, width = images.shape[1:3]
        rows = top + ops.arange(height) - self.padding
        columns = left + ops.arange(width) - self.padding
        if self.mode != "constant":
            edge = int(self.mode == "symmetric")  # whether the edge itself is seen twice
            return _pixels(images, _mirrored(rows, height, edge), _mirrored(columns, width, edge))
        inside = _within(rows, height)[:, :, None] & _within(columns, width)[:, None, :]
        cut = _pixels(images, ops.clip(rows, 0, height - 1), ops.clip(columns, 0, width - 1))
        return ops.where(inside[..., None], cut, 0.0)

    def get_config(self):
        return {**super().get_config(), "padding": self.padding, "mode": self.mode}


def _within(place, size: int):
    return (place >= 0) & (place < size)


def _mirrored(place, size: int, edge: int):
    """Places outside of ``0 .. size - 1``, mirrored into it."""
    place = ops.where(place < 0, -place - edge, place)
    return ops.where(place >= size, 2 * (size - 1) + edge - place, place)


@keras.saving.register_keras_serializable("cifar_utils")
class RandomRotation(Augmentation):
    """See :func:`rotation`."""

    def __init__(self, degrees: float, **kwargs):
        super().__init__(**kwargs)
        self.degrees = degrees

    def draw(self, count):
        limit = math.radians(self.degrees)
        return (self.uniform(count, 1, 1, low=-limit, high=limit),)

    def transform(self, images, angle):
        height, width = images.shape[1:3]
        down = ops.arange(height, dtype="float32")[:, None] - (height - 1) / 2
        right = ops.arange(width, dtype="float32") - (width - 1) / 2
        cos, sin = ops.cos(angle), ops.sin(angle)
        # Where each pixel comes from; what lies outside, from the edge.
        row = ops.clip(cos * down + sin * right + (height - 1) / 2, 0, height - 1)
        column = ops.clip(cos * right - sin * down + (width - 1) / 2, 0, width - 1)
        top, left = ops.floor(row), ops.floor(column)
        below, beside = (row - top)[..., None], (column - left)[..., None]
        top, left = ops.cast(top, "int32"), ops.cast(left, "int32")
        bottom, far = ops.minimum(top + 1, height - 1), ops.minimum(left + 1, width - 1)
        upper = blend(_pixels(images, top, left), _pixels(images, top, far), beside)
        lower = blend(_pixels(images, bottom, left), _pixels(images, bottom, far), beside)
        return blend(upper, lower, below)

    def get_config(self):
        return {**super().get_config(), "degrees": self.degrees}


@keras.saving.register_keras_serializable("cifar_utils")
class RandomShift(Augmentation):
    """See :func:`shift`."""

    def __init__(self, fraction: float, **kwargs):
        super().__init__(**kwargs)
        self.fraction = fraction

    def build(self, input_shape):
        size = max(input_shape[1:3])
        if self.fraction * size <= 0.5:
            raise InputError(
                f"shift is {self.fraction:g} of {size} pixels, which is never one; it must be more "
                f"than {0.5 / size:g}"
            )

    def draw(self, count):
        share = self.uniform(2, count, 1, low=-self.fraction, high=self.fraction)
        return share[0], share[1]

    def transform(self, images, down, right):
        places = []
        for share, size in zip((down, right), images.shape[1:3], strict=True):
            moved = ops.cast(ops.round(share * size), "int32")
            places.append(ops.clip(ops.arange(size) - moved, 0, size - 1))
        return _pixels(images, *places)

    def get_config(self):
        return {**super().get_config(), "fraction": self.fraction}


def _pixels(images, rows, columns):
    """Of each image the pixels at ``rows`` and ``columns``: ``(N, h)`` and ``(N, w)`` give all that
    they have in common, ``(N, h, w)`` each one of these.
    """
    if len(rows.shape) == 2:
        rows, columns = rows[:, :, None], columns[:, None, :]
    count, height, width, channels = ops.shape(images)
    first = ops.arange(count)[:, None, None] * (height * width)
    index = first + rows * width + columns
    return ops.take(ops.reshape(images, (-1, channels)), index, axis=0)


def alternating_flip() -> layers.Layer:
    """Mirror left and right half of the images in one epoch, and the other half in the next.

    So two epochs show each image both ways, which :func:`flip` leaves to chance (Jordan,
    arXiv:2404.00498).
    """
    return AlternatingFlip(dtype="float32")


def flip(
    direction: str = "horizontal", probability: float = 0.5, per_batch: bool = False
) -> Augmentation:
    """Mirror each image by chance: left and right, or (``vertical``) up and down.

    For both, each drawn for itself, ask for both: ``"flip, flip('vertical')"``. Report A's "flip
    all" is ``flip(probability=1)``, its random flip for each batch ``flip(per_batch=True)``: one
    draw for all images of a batch.
    """
    known_name("flip direction", direction, DIRECTIONS)
    if not 0 < probability <= 1:
        raise InputError(f"flip probability is {probability!r}; it takes a number > 0, <= 1")
    return RandomFlip(direction, probability, per_batch)


def crop(padding: int = 4, mode: str = "constant") -> Augmentation:
    """Pad by ``padding`` pixels and cut the original size out at random (He et al., 2015).

    The padding is black (``constant``), or what the edge mirrors, with the edge (``symmetric``) or
    without it (``reflect``).
    """
    if not (isinstance(padding, int) and padding >= 1):
        raise InputError(f"crop padding is {padding!r}; it takes a whole number of pixels >= 1")
    known_name("crop mode", mode, PAD_MODES)
    return RandomCrop(padding, mode)


def rotation(degrees: float = 30.0) -> Augmentation:
    """Rotate by up to ``degrees`` either way; what comes into view repeats the nearest pixel."""
    if not 0 < degrees <= 180:
        raise InputError(f"rotation is {degrees!r} degrees; it takes a number > 0, <= 180")
    return RandomRotation(degrees)


def shift(fraction: float = 0.1) -> Augmentation:
    """Shift by up to ``fraction`` of height and width; what comes into view repeats the edge.

    By whole pixels, so that nothing is blurred.
    """
    if not 0 < fraction < 1:
        raise InputError(f"shift is {fraction!r} of the size; it takes a fraction in (0, 1)")
    return RandomShift(fraction)
