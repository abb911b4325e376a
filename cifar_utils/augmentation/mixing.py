"""Augmentation that hides a part of an image."""

import keras
from keras import ops

from cifar_utils.augmentation.layer import Augmentation, check_smaller
from cifar_utils.choices import PositiveInt


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


def cutout(size: PositiveInt = 8) -> Augmentation:
    """Hide a square of ``size`` pixels a side; it may lie partly outside the image.

    Its centre is drawn uniformly. It takes the batch's mean colour, which is about 0 after
    normalization, as in the paper (DeVries and Taylor, arXiv:1708.04552: size 16 for CIFAR-10, 8
    for CIFAR-100).
    """
    return Cutout(size)
