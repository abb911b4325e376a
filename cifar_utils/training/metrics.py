"""Loss and accuracy of logits. Labels are class numbers or, with mixup, shares."""

import keras
from keras import ops


def crossentropy(label_smoothing: float, mixed: bool):
    """The loss with which a model is compiled.

    Parameters
    ----------
    label_smoothing
        The share of each label that goes to all classes alike.
    mixed
        Whether training labels are shares of each class ``(N, K)``. Validation labels are always
        integers ``(N,)``.

    """
    if not (label_smoothing or mixed):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def crossentropy(labels, logits):
        if not _are_shares(labels, logits):  # Keras smooths one-hot labels alone
            labels = ops.one_hot(ops.reshape(labels, (-1,)), logits.shape[-1])
        return keras.losses.categorical_crossentropy(
            labels, logits, from_logits=True, label_smoothing=label_smoothing
        )

    return crossentropy


def accuracy(labels, logits):
    """1.0 where the most probable class is the label, else 0.0, float32 ``(N,)``.

    Labels are class numbers ``(N,)`` or, with mixup, shares ``(N, K)``. The largest share counts.
    """
    return ops.cast(_numbers(labels, logits) == ops.argmax(logits, axis=-1), "float32")


def top5(labels, logits):
    """1.0 where the label is among the five most probable classes, as :func:`accuracy`."""
    hit = ops.in_top_k(_numbers(labels, logits), ops.cast(logits, "float32"), 5)
    return ops.cast(hit, "float32")


def _numbers(labels, logits):
    """The class numbers of labels, ``(N,)``."""
    if _are_shares(labels, logits):
        return ops.cast(ops.argmax(labels, axis=-1), "int32")
    return ops.cast(ops.reshape(labels, (-1,)), "int32")


def _are_shares(labels, logits) -> bool:
    return labels.shape[1:] == logits.shape[1:]
