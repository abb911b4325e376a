"""Augmentation that moves or hides pixels: flips, crops, rotations, shifts, holes."""

import math
from typing import Annotated, Literal

import keras
import numpy as np
from keras import layers, ops

from cifar_utils.augmentation.layer import Augmentation, check_smaller
from cifar_utils.choices import PositiveInt, Rate

AXES = {"horizontal": 2, "vertical": 1}  # the axis that each direction mirrors


@keras.saving.register_keras_serializable("cifar_utils")
class RandomFlip(Augmentation):
    """See :func:`flip`."""

    def __init__(self, direction: str, probability: float, per_batch: bool, **kwargs):
        super().__init__(**kwargs)
        self.direction, self.probability, self.per_batch = direction, probability, per_batch

    def draw(self, count):
        return (self.uniform(1 if self.per_batch else count, 1, 1, 1) < self.probability,)

    def transform(self, images, mirrored):
        return ops.where(mirrored, ops.flip(images, axis=AXES[self.direction]), images)


@keras.saving.register_keras_serializable("cifar_utils")
class AlternatingFlip(layers.Layer):
    """See :func:`alternating_flip`. It changes batches before the model sees them."""

    def call(self, images):
        return images

    def change(self, images: np.ndarray, index: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """Mirror the images of a batch ``(N, H, W, C)`` whose turn it is.

        ``index`` holds the images' numbers. ``(seed, index)`` decides whether an image is mirrored
        in the first epoch.
        """
        first = np.random.PCG64([seed, 1]).random_raw(int(index.max(initial=0)) + 1)
        turn = (first[index] >> np.uint64(63)) % 2 != epoch % 2
        return np.where(turn[:, None, None, None], images[:, :, ::-1], images)


@keras.saving.register_keras_serializable("cifar_utils")
class RandomCrop(Augmentation):
    """See :func:`crop`; ``keras.layers.RandomCrop`` draws one place for the whole batch."""

    def __init__(self, padding: int = 4, mode: str = "constant", **kwargs):
        super().__init__(**kwargs)
        self.padding, self.mode = padding, mode

    def build(self, input_shape):
        check_smaller("crop padding", self.padding, input_shape)

    def draw(self, count):
        places = 2 * self.padding + 1
        corner = keras.random.randint((2, count, 1), 0, places, seed=self.seed_generator)
        return corner[0], corner[1]

    def transform(self, images, top, left):
        height, width = images.shape[1:3]
        rows, columns = top + ops.arange(height), left + ops.arange(width)  # of the padded image
        edges = (self.padding, self.padding)
        if self.mode == "constant":
            return _pixels(ops.pad(images, ((0, 0), edges, edges, (0, 0))), rows, columns)
        # The places of the mirrored pixels: fewer bytes to copy than a padded image.
        down, across = (
            np.pad(np.arange(size, dtype="int32"), edges, "reflect") for size in (height, width)
        )
        return _pixels(images, ops.take(down, rows), ops.take(across, columns))


@keras.saving.register_keras_serializable("cifar_utils")
class RandomAffine(Augmentation):
    """See :func:`affine`."""

    def __init__(self, degrees: float, shift: float, **kwargs):
        super().__init__(**kwargs)
        self.degrees, self.shift = degrees, shift

    def draw(self, count):
        limit = math.radians(self.degrees)
        angle = self.uniform(count, low=-limit, high=limit)
        shifts = self.uniform(2, count, low=-self.shift, high=self.shift)
        return angle, shifts[0], shifts[1]

    def transform(self, images, angle, down, right):
        """Rotate by an angle in radians, then shift by shares of height and width, ``(N,)`` each.

        A positive angle turns anticlockwise.
        """
        height, width = images.shape[1:3]
        y, x = (height - 1) / 2, (width - 1) / 2
        down, right = y + down * height, x + right * width  # the new place of the centre
        cos, sin, zero = ops.cos(angle), ops.sin(angle), ops.zeros_like(angle)
        # The source of a pixel (column, row): two rows of a matrix, and no perspective.
        column = [cos, -sin, x - cos * right + sin * down]
        row = [sin, cos, y - cos * down - sin * right]
        return ops.image.affine_transform(
            images, ops.stack([*column, *row, zero, zero], axis=-1),
            fill_mode="nearest", data_format="channels_last",
        )  # fmt: skip


@keras.saving.register_keras_serializable("cifar_utils")
class Cutout(Augmentation):
    """See :func:`cutout`."""

    def __init__(self, size: int, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def build(self, input_shape):
        check_smaller("cutout size", self.size, input_shape)

    def draw(self, count):
        centre = self.uniform(2, count, 1)
        return centre[0], centre[1]

    def transform(self, images, down, right):
        inside = []
        for share, size in zip((down, right), images.shape[1:3], strict=True):
            place = ops.arange(size) - ops.cast(share * size, "int32") + self.size // 2
            inside.append((place >= 0) & (place < self.size))
        hole = inside[0][:, :, None, None] & inside[1][:, None, :, None]
        return ops.where(hole, ops.mean(images, axis=(0, 1, 2)), images)


@keras.saving.register_keras_serializable("cifar_utils")
class Shrink(Augmentation):
    """See :func:`shrink`."""

    def __init__(self, size: int, epochs: int, **kwargs):
        super().__init__(**kwargs)
        self.size, self.epochs, self.shrinks = size, epochs, False

    def build(self, input_shape):
        check_smaller("shrink size", self.size, input_shape)
        self.all_pixels = math.prod(input_shape[1:3])

    def share_of_pixels(self, epoch: int) -> float:
        """The share of an image's pixels that an epoch computes with."""
        return self.size**2 / self.all_pixels if epoch < self.epochs else 1.0

    def begin_epoch(self, epoch: int) -> bool:
        """Set whether this epoch shrinks images; return whether that has changed."""
        before, self.shrinks = self.shrinks, epoch < self.epochs
        return self.shrinks != before

    def draw(self, count):
        return ()

    def transform(self, images):
        if not self.shrinks or min(images.shape[1:3]) <= self.size:
            return images
        size = (self.size, self.size)
        return ops.image.resize(images, size, antialias=True, data_format="channels_last")


def _pixels(images, rows, columns):
    """The pixels of each image where ``rows`` ``(N, H)`` and ``columns`` ``(N, W)`` cross."""
    count, height, width, channels = ops.shape(images)
    first = ops.arange(count)[:, None, None] * (height * width)
    index = first + rows[:, :, None] * width + columns[:, None, :]
    return ops.take(ops.reshape(images, (-1, channels)), index, axis=0)


def alternating_flip() -> layers.Layer:
    """Mirror one half of the images, left to right, in one epoch, and the other half in the next.

    Two epochs therefore show each image both ways; with :func:`flip` that is left to chance
    (Jordan, arXiv:2404.00498).
    """
    return AlternatingFlip(dtype="float32")


def flip(
    direction: Literal["horizontal", "vertical"] = "horizontal",
    probability: Annotated[float, "above 0, at most 1"] = 0.5,
    per_batch: bool = False,
) -> Augmentation:
    """Mirror images at random.

    ``"flip, flip('vertical')"`` does both, drawn independently. Report A's "flip all" is
    ``flip(probability=1)``, and its random flip of batches is ``flip(per_batch=True)``.

    Parameters
    ----------
    direction
        Left to right, or top to bottom.
    probability
        Of each image.
    per_batch
        Whether all images of a batch are mirrored, or none.
    """
    return RandomFlip(direction, probability, per_batch)


def crop(
    padding: PositiveInt = 4, mode: Literal["constant", "reflect"] = "constant"
) -> Augmentation:
    """Pad, and cut out the original size at a random place (He et al., 2015).

    Parameters
    ----------
    padding
        Pixels on each side.
    mode
        The padding is black, or it mirrors the image without its edge.
    """
    return RandomCrop(padding, mode)


def affine(
    degrees: Annotated[float, "at least 0, at most 180"] = 30.0, shift: Rate = 0.1
) -> Augmentation:
    """Rotate, then shift.

    Angle and shifts are drawn uniformly for each image. Shifts need not be whole pixels. The image
    is interpolated once (bilinear). Places outside it take the nearest pixel's value. Keras's
    ImageDataGenerator, which report D uses, does the same.

    Parameters
    ----------
    degrees
        The largest angle, either way.
    shift
        The largest shift, as a share of height and width.
    """
    return RandomAffine(degrees, shift)


def rotation(degrees: Annotated[float, "above 0, at most 180"] = 30.0) -> Augmentation:
    """Rotate: :func:`affine` without a shift."""
    return RandomAffine(degrees, 0.0)


def cutout(size: PositiveInt = 8) -> Augmentation:
    """Hide a square, which may lie partly outside the image.

    Its centre is drawn uniformly. It takes the batch's mean colour, which is about 0 after
    normalization, as in the paper (DeVries and Taylor, arXiv:1708.04552: size 16 for CIFAR-10, 8
    for CIFAR-100).

    Parameters
    ----------
    size
        Pixels a side.
    """
    return Cutout(size)


def shrink(size: PositiveInt = 16, epochs: PositiveInt = 2) -> Augmentation:
    """Make the images of the first epochs smaller (bilinear), so that a step takes less time.

    This is progressive resizing (Howard, fast.ai, DAWNBench, 2018). With ``"shrink(16, 2),
    shrink(24, 4)"``, images have 16 pixels in two epochs and 24 in the next two. The network must
    take images of any size: its last pooling leaves one place. Validation images keep their size,
    so validation accuracy is low as long as training images are smaller.

    Parameters
    ----------
    size
        Height and width, in pixels.
    epochs
        The last epoch with this size, from 1.
    """
    return Shrink(size, epochs)
