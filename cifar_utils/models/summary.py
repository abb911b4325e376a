"""A model in numbers: parameters, and arithmetic for one image."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras import layers

from cifar_utils.backend import keras
from cifar_utils.errors import InputError
from cifar_utils.text import compact

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class ModelSummary:
    """A model's name, size and cost; in a notebook, a sentence with the layers folded below it.

    ``flops`` counts the operations of convolutions and dense layers in the forward pass of one
    image. A multiply-add counts as two. A layer that is used several times counts each time.
    """

    name: str
    parameters: int
    trainable_parameters: int
    flops: int
    layers: pd.DataFrame

    def __repr__(self) -> str:
        return (
            f"{self.name} has {self.parameters:,} parameters, {self.trainable_parameters:,} of "
            f"them trained, and takes {compact(self.flops)}FLOP for an image (forward; "
            "a multiply-add counts as two)."
        )

    def _repr_html_(self) -> str:
        table = self.layers.to_html(index=False)
        return (
            f"<p>{html.escape(repr(self))}</p>"
            f"<details><summary>Layer by layer</summary>{table}</details>"
        )


def summarize(model: keras.Model) -> ModelSummary:
    """Count a built model's parameters and arithmetic.

    Raises
    ------
    InputError
        Where a layer has a kernel, but operations of its kind can't be counted.

    """
    import pandas as pd

    operations: dict[int, int] = {}
    for layer, taken in _uses(model):
        operations[id(layer)] = operations.get(id(layer), 0) + 2 * _multiply_adds(layer, taken)
    rows = [
        {
            "layer": layer.name,
            "kind": type(layer).__name__,
            "output shape": " × ".join(map(str, layer.output.shape[1:])),
            "parameters": layer.count_params(),
            "operations": operations.get(id(layer), 0),
        }
        for layer in layers_of(model)
    ]
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    name = getattr(model, "architecture", model.name)
    return ModelSummary(
        name, model.count_params(), trained, sum(operations.values()), pd.DataFrame(rows)
    )


def layers_of(model: keras.Model) -> Iterator[keras.Layer]:
    """The layers of a model, including those of models within it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
        else:
            yield layer


def _uses(model: keras.Model) -> Iterator[tuple[keras.Layer, tuple[int | None, ...] | None]]:
    """Each layer and the shape of its input, once for each use in the model."""
    named = {layer.name: layer for layer in model.layers}
    for row in model.get_config()["layers"]:
        layer = named.get(row["config"].get("name"))  # None for the input of a Sequential model
        for node in row.get("inbound_nodes", [{}]):  # absent in a Sequential model: one use each
            if isinstance(layer, keras.Model):
                yield from _uses(layer)
            elif layer is not None:
                (taken, *_) = node.get("args") or [{}]
                yield layer, taken["config"]["shape"] if isinstance(taken, dict) and taken else None


def _multiply_adds(layer: keras.Layer, taken: tuple[int | None, ...] | None) -> int:
    """The multiply-adds of one use of a layer, on an input of the shape ``taken``."""
    # Each weight of a filter gives one product in the sum of an output value.
    if isinstance(layer, layers.DepthwiseConv2D | layers.Conv2D | layers.Dense):
        weights = math.prod(layer.kernel.shape)
    elif isinstance(layer, layers.SeparableConv2D):
        weights = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    elif getattr(layer, "kernel", None) is not None:
        raise InputError(
            f"the operations of {type(layer).__name__} ({layer.name}) can't be counted; those of "
            "Conv2D, DepthwiseConv2D, SeparableConv2D and Dense can"
        )
    else:
        return 0
    shape = layer.compute_output_shape(taken) if taken else layer.output.shape
    return math.prod(shape[1:-1]) * weights
