"""Augmentation of colours: contrast, brightness, saturation and hue."""

from typing import Annotated

import keras
from keras import ops

from cifar_utils.augmentation.layer import Augmentation
from cifar_utils.choices import NonNegativeFloat

GREY = (0.299, 0.587, 0.114)  # how bright red, green and blue look (ITU-R BT.601)


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


@keras.saving.register_keras_serializable("cifar_utils")
class RandomColourJitter(Augmentation):
    """See :func:`colour_jitter`."""

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float, **kwargs):
        super().__init__(**kwargs)
        self.brightness, self.contrast = brightness, contrast
        self.saturation, self.hue = saturation, hue

    def draw(self, count):
        factors = [
            self.uniform(count, 1, 1, low=max(0.0, 1 - strength), high=1 + strength)
            for strength in (self.brightness, self.contrast, self.saturation)
        ]
        return (*factors, self.uniform(count, 1, 1, low=-self.hue, high=self.hue))

    def transform(self, images, brightness, contrast, saturation, turn):
        """Change colours by factors and hue by a turn of the wheel, each ``(N, 1, 1)``."""
        colours = [brightness * images[..., channel] for channel in range(3)]
        mean = ops.mean(_grey(colours), axis=(1, 2), keepdims=True)
        colours = [mean + contrast * (colour - mean) for colour in colours]
        grey = _grey(colours)
        colours = [grey + saturation * (colour - grey) for colour in colours]
        colours = _turn_hue(colours, turn) if self.hue else colours
        return ops.clip(ops.stack(colours, axis=-1), 0, 255)


def _grey(colours):
    return sum(weight * colour for weight, colour in zip(GREY, colours, strict=True))


def _turn_hue(colours, turn):
    """Turn the hue by a share of the wheel; keep the largest and the smallest of the colours."""
    red, green, blue = colours
    lightest = ops.maximum(ops.maximum(red, green), blue)
    span = lightest - ops.minimum(ops.minimum(red, green), blue)
    scale = 1 / ops.maximum(span, 1e-6)
    hue = ops.where(
        lightest == red,
        (green - blue) * scale,
        ops.where(lightest == green, (blue - red) * scale + 2, (red - green) * scale + 4),
    )
    hue = hue + 6 * turn  # in sixths of the wheel, from red by yellow to green and on
    turned = []
    for place in (5, 3, 1):
        sixth = hue + place
        sixth = sixth - 6 * ops.floor(sixth / 6)
        turned.append(lightest - span * ops.clip(ops.minimum(sixth, 4 - sixth), 0, 1))
    return turned


def contrast(
    lower: NonNegativeFloat = 0.25, upper: Annotated[float, "at least {lower}"] = 0.75
) -> Augmentation:
    """Multiply each image's contrast by a random factor (report A).

    Contrast is the distance of each channel from its mean over the image. The means stay the same
    unless values are clipped.

    Parameters
    ----------
    lower
        The smallest factor.
    upper
        The largest factor.
    """
    return RandomContrast(lower, upper)


def colour_jitter(
    brightness: NonNegativeFloat = 0.4,
    contrast: NonNegativeFloat = 0.4,
    saturation: NonNegativeFloat = 0.4,
    hue: Annotated[float, "at least 0, at most 0.5"] = 0.1,
) -> Augmentation:
    """Change each image's brightness, contrast, saturation and hue, in this order (report E).

    Values are clipped once, at the end. torchvision's ColorJitter does the same, but draws the
    order too. Report E does not give strengths; torchvision's defaults are 0 and change nothing.

    Parameters
    ----------
    brightness
        Its factor is between 1 minus this and 1 plus this.
    contrast
        Its factor is between 1 minus this and 1 plus this.
    saturation
        Its factor is between 1 minus this and 1 plus this.
    hue
        The largest turn of the colour wheel, either way, as a share of it.
    """
    return RandomColourJitter(brightness, contrast, saturation, hue)
