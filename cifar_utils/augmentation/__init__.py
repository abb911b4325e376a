"""Augmentation: layers that change training images and leave other images alone.

``"crop(4), flip, cutout(8), mixup(0.2)"`` is a list of them. Each image draws its own change, anew
in each epoch. First come those that depend on the image's number or also change labels
(alternating_flip, mixup, cutmix): they change the batch before the model sees it, in the order of
the list. The others are layers of the model and follow in the order of the list. So a mixed image
is cropped, flipped or cut as one image.
"""

from cifar_utils.backend import keras  # the first import of Keras, a quiet one

# isort: split
from cifar_utils.augmentation.colour import colour_jitter, contrast
from cifar_utils.augmentation.geometry import (
    PAD_MODES,
    affine,
    alternating_flip,
    crop,
    flip,
    rotation,
    shift,
)
from cifar_utils.augmentation.mixing import cutmix, cutout, mixup
from cifar_utils.choices import parse_calls
from cifar_utils.errors import InputError

__all__ = ["AUGMENTATIONS", "PAD_MODES", "augmentation_layers"]

AUGMENTATIONS = {
    function.__name__: function
    for function in (
        affine, alternating_flip, colour_jitter, contrast, crop, cutmix, cutout, flip, mixup,
        rotation, shift,
    )
}  # fmt: skip


def augmentation_layers(text: str | None) -> list[keras.Layer]:
    """The layers of ``"crop(padding=4), flip"``, in order; none for ``None`` or ``"none"``.

    Raises
    ------
    InputError
        Where a name or an option is unknown, a value is out of range, or an augmentation of whole
        batches is listed twice.

    """
    if text in (None, "", "none"):
        return []
    calls = parse_calls("augmentation", text, AUGMENTATIONS)
    made = [call() for call in calls]
    kinds = [type(layer) for layer in made]
    for call, layer in zip(calls, made, strict=True):
        if hasattr(layer, "change") and kinds.count(type(layer)) > 1:  # both would draw the same
            raise InputError(f"augmentation {text!r} has {call.name} more than once; list it once")
    return made
