"""Augmentation of colours: contrast, brightness, saturation and hue."""

import keras
from keras import ops

from cifar_utils.augmentation.layer import Augmentation, blend
from cifar_utils.errors import InputError

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

    def get_config(self):
        return {**super().get_config(), "lower": self.lower, "upper": self.upper}


@keras.saving.register_keras_serializable("cifar_utils")
class RandomColourJitter(Augmentation):
    """See :func:`colour_jitter`.

    Without clipping, brightness, contrast and saturation give the same result in any order, and so
    do brightness and hue. So the order only decides whether contrast and saturation use the grey
    values from before or after the turn of hue.
    """

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float, **kwargs):
        super().__init__(**kwargs)
        self.brightness, self.contrast = brightness, contrast
        self.saturation, self.hue = saturation, hue

    def build(self, input_shape):
        if input_shape[-1] != 3:
            raise InputError(f"colour_jitter takes images of 3 channels, not {input_shape[-1]}")

    def draw(self, count):
        factors = [
            self.uniform(count, 1, 1, low=max(0.0, 1 - strength), high=1 + strength)
            for strength in (self.brightness, self.contrast, self.saturation)
        ]
        turn = self.uniform(count, 1, 1, low=-self.hue, high=self.hue)
        order = self.uniform(3, count, 1, 1)
        hued, contrasted, saturated = order[0], order[1], order[2]
        return (*factors, turn, hued < contrasted, hued < saturated)

    def transform(
        self, images, brightness, contrast, saturation, turn, before_contrast, before_saturation
    ):
        """Change colours by factors and hue by a turn of the wheel, each ``(N, 1, 1)``.

        The last two say for which images hue comes before contrast, and before saturation.
        """
        colours = [images[..., channel] for channel in range(3)]
        plain = turned = _grey(colours)
        if self.hue:
            colours = _turn_hue(colours, turn)
            turned = _grey(colours)
        grey = ops.where(before_saturation, turned, plain)
        seen = ops.where(before_contrast, blend(grey, turned, saturation), plain)
        mean = ops.mean(seen, axis=(1, 2), keepdims=True)
        changed = [
            brightness * blend(mean, blend(grey, colour, saturation), contrast)
            for colour in colours
        ]
        return ops.clip(ops.stack(changed, axis=-1), 0, 255)

    def get_config(self):
        own = {"brightness": self.brightness, "contrast": self.contrast}
        return {**super().get_config(), **own, "saturation": self.saturation, "hue": self.hue}


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


def contrast(lower: float = 0.25, upper: float = 0.75) -> Augmentation:
    """Multiply each image's contrast by a factor between ``lower`` and ``upper`` (report A).

    Contrast is the distance of each channel from its mean over the image. The means stay the same
    unless values are clipped.
    """
    if not 0 <= lower <= upper:
        raise InputError(
            f"contrast is from {lower!r} to {upper!r}; it takes lower >= 0 and upper >= lower"
        )
    return RandomContrast(lower, upper)


def colour_jitter(
    brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.1
) -> Augmentation:
    """Change each image's brightness, contrast, saturation and hue, in any order (report E).

    As torchvision's ColorJitter: the first three change by factors between ``1 - strength`` and
    ``1 + strength``, hue by up to a share of the wheel either way. Values are clipped once, at the
    end. Report E does not give strengths; torchvision's defaults are 0 and change nothing.
    """
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, strength in strengths.items():
        if strength < 0:
            raise InputError(f"colour_jitter {name} is {strength!r}; it takes a number >= 0")
    if not 0 <= hue <= 0.5:
        raise InputError(
            f"colour_jitter hue is {hue!r}; it takes a share of the wheel >= 0, <= 0.5"
        )
    return RandomColourJitter(brightness, contrast, saturation, hue)
