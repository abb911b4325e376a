"""Augmentation: layers that change training images and leave other images alone.

``"crop(4), flip, cutout(8), mixup(0.2)"`` is a list of them. Each image draws its own change, anew
in each epoch. First come those that depend on the image's number or also change labels
(alternating_flip, mixup, cutmix): they change the batch before the model sees it, in the order of
the list. The others are layers of the model and follow in the order of the list. So a mixed image
is cropped, flipped or cut as one image.
"""

from cifar_utils.backend import keras  # the first import of Keras, a quiet one
from cifar_utils.choices import REGISTRIES, parse_calls

AUGMENTATIONS = REGISTRIES["augmentation"]


def augmentation_layers(text: str | None) -> list[keras.Layer]:
    """The layers of ``"crop(padding=4), flip"``, in order; none for ``None`` or ``"none"``.

    Raises
    ------
    InputError
        Where a name or an option is unknown, or a value is out of range.

    """
    return [call() for call in parse_calls("augmentation", text or "none")]
