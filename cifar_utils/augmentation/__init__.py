"""Augmentation: layers that change training images and leave other images alone.

``"crop(4), flip, cutout(8)"`` is a list of them. Most draw a new change for each image in each
epoch. A flip of batches draws one for a batch; alternating_flip draws one for each image, then
alternates; shrink changes all images alike. alternating_flip comes first: it needs the image's
number, so it changes the batch before the model sees it. The others are layers of the model, in the
order of the list.
"""

from cifar_utils.backend import keras  # first, so that Keras is imported without messages
from cifar_utils.choices import parse_calls


def augmentation_layers(text: str | None) -> list[keras.Layer]:
    """The layers of ``"crop(padding=4), flip"``, in order; none for ``None`` or ``"none"``.

    Raises
    ------
    InputError
        Where a name or an option is unknown, or a value is out of range.

    """
    return [call() for call in parse_calls("augmentation", text or "none")]
