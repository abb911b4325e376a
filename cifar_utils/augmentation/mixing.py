"""Augmentation that hides a part of an image, or mixes two images and their labels."""

from typing import Annotated

import keras
import numpy as np
from keras import layers, ops

from cifar_utils.augmentation.layer import Augmentation, check_smaller
from cifar_utils.choices import PositiveFloat, PositiveInt


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


class Mixing(layers.Layer):
    """Mixes each image of a batch, and its label, with another before the model sees them.

    The draw depends on the seed, the epoch and the number of the batch's first image alone.
    """

    mixes_labels = True
    stream: int  # different in each subclass, so that two draw different numbers

    def __init__(self, alpha: float, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.alpha = alpha

    def call(self, images):
        return images

    def change(self, images: np.ndarray, labels: np.ndarray, index, seed: int, epoch: int) -> tuple:
        """Mix uint8 images ``(N, H, W, C)`` and labels ``(N, K)``, whose rows sum to 1."""
        random = np.random.default_rng([seed, epoch, int(index[0]), self.stream])
        other = random.permutation(len(images))
        kept = random.beta(self.alpha, self.alpha, len(images))
        images, kept = self.mix(images, images[other], kept, random)
        kept = kept[:, None].astype(np.float32)
        return images, kept * labels + (1 - kept) * labels[other]

    def mix(self, images, others, kept, random) -> tuple[np.ndarray, np.ndarray]:
        """The mixed images, and the share ``(N,)`` of each image that is really kept."""
        raise NotImplementedError


@keras.saving.register_keras_serializable("cifar_utils")
class MixUp(Mixing):
    """See :func:`mixup`."""

    stream = 1

    def mix(self, images, others, kept, random):
        # Products of 256ths fit into 16 bits, which is twice as fast as floats.
        share = np.rint(256 * kept).astype(np.uint16)[:, None, None, None]
        mixed = (share * images + (256 - share) * others + np.uint16(128)) >> 8
        return mixed.astype(np.uint8), share[:, 0, 0, 0] / 256


@keras.saving.register_keras_serializable("cifar_utils")
class CutMix(Mixing):
    """See :func:`cutmix`."""

    stream = 2

    def __init__(self, alpha: float, probability: float, **kwargs):
        super().__init__(alpha, **kwargs)
        self.probability = probability

    def mix(self, images, others, kept, random):
        kept = np.where(random.random(len(kept)) < self.probability, kept, 1)
        height, width = images.shape[1:3]
        inside = []
        for size in (height, width):
            side = np.floor(size * np.sqrt(1 - kept))[:, None]
            start = random.integers(size, size=(len(kept), 1)) - side // 2
            inside.append((np.arange(size) >= start) & (np.arange(size) < start + side))
        patch = inside[0][:, :, None] & inside[1][:, None, :]
        mixed = np.where(patch[..., None], others, images)
        return mixed, 1 - patch.mean((1, 2))


def cutout(size: PositiveInt = 8) -> Augmentation:
    """Hide a square of ``size`` pixels a side; it may lie partly outside the image.

    Its centre is drawn uniformly. It takes the batch's mean colour, which is about 0 after
    normalization, as in the paper (DeVries and Taylor, arXiv:1708.04552: size 16 for CIFAR-10, 8
    for CIFAR-100).
    """
    return Cutout(size)


def mixup(alpha: PositiveFloat = 0.2) -> Mixing:
    """Mix each image and its label with another of the batch, with weights λ and 1 - λ.

    λ is drawn for each image from Beta(``alpha``, ``alpha``) (Zhang et al., arXiv:1710.09412).
    """
    return MixUp(alpha)


def cutmix(
    alpha: PositiveFloat = 1.0, probability: Annotated[float, "above 0, at most 1"] = 0.5
) -> Mixing:
    """Lay a rectangle of another image of the batch over each image; mix labels by area.

    The rectangle's share of the image is 1 - λ, with λ drawn for each image from Beta(``alpha``,
    ``alpha``). Its centre is drawn uniformly, so a part may lie outside of the image (Yun et al.,
    arXiv:1905.04899). An image is changed with ``probability``, as in their code for CIFAR.
    """
    return CutMix(alpha, probability)
