"""The graph of a model: its layers, and those of models within it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from keras import layers

from cifar_utils.backend import keras
from cifar_utils.errors import InputError

if TYPE_CHECKING:
    import numpy as np

# What Keras raises for a reader's layer that has no get_config that it can write down.
NO_CONFIG = (NotImplementedError, TypeError)


def layers_of(model: keras.Model) -> Iterator[keras.Layer]:
    """The layers of a model, including those of models within it that have a graph."""
    for layer in model.layers:
        if has_graph(layer):
            yield from layers_of(layer)
        else:
            yield layer


def at_once(model: keras.Model, images: np.ndarray) -> int:
    """The number of images that a model gets at once outside of training: fewer of large ones.

    Their size is the one to which the model resizes them, if that is larger.
    """
    resized = [layer for layer in layers_of(model) if isinstance(layer, layers.Resizing)]
    sides = [images.shape[-3:-1], *((layer.height, layer.width) for layer in resized)]
    return max(1, min(500, 500 * 64 * 64 // max(map(math.prod, sides))))


def need_graph(model: keras.Model) -> None:
    """Raise an InputError for a model of which Keras has no graph.

    It is of a class of its own, or a Sequential that does not know the shape of its input.
    """
    if isinstance(model, keras.Sequential) and not model.built:
        raise InputError(f"{model.name} has no input shape; let it begin with keras.Input(shape)")
    if not has_graph(model):
        raise InputError(
            f"{type(model).__name__} has no graph of layers; call it in a function (x, classes) -> "
            "logits, and give that to build_model"
        )


def has_graph(layer: keras.Layer) -> bool:
    """Whether a layer is a model of layers, and not a class with its own ``call``."""
    return isinstance(layer, keras.Sequential) or hasattr(layer, "operations")
