"""What a model is, in numbers: parameters, and arithmetic for one image."""

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
from keras import layers

from cifar_utils.backend import keras
from cifar_utils.models.airbench import PatchWhitening
from cifar_utils.words import compact


@dataclass(frozen=True, repr=False)
class ModelSummary:
    """A model's name, size and cost; in a notebook, a sentence with the layers folded below it.

    ``flops`` counts convolutions and dense layers, a multiply-add as two, for one image forward.
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
    TypeError
        Where a layer multiplies by a kernel but is of a kind whose operations are not counted.
    """
    rows = [
        {
            "layer": layer.name,
            "kind": type(layer).__name__,
            "output shape": " × ".join(map(str, layer.output.shape[1:])),
            "parameters": layer.count_params(),
            "operations": 2 * _multiply_adds(layer),
        }
        for layer in layers_of(model)
    ]
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    flops = sum(row["operations"] for row in rows)
    return ModelSummary(model.name, model.count_params(), trained, flops, pd.DataFrame(rows))


def layers_of(model: keras.Model) -> Iterator[keras.Layer]:
    """The layers of a model, and those of the models among them."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
        else:
            yield layer


def _multiply_adds(layer: keras.Layer) -> int:
    if isinstance(layer, layers.DepthwiseConv2D):
        return math.prod(layer.output.shape[1:]) * math.prod(layer.kernel.shape[:2])
    if isinstance(layer, layers.Conv2D | layers.Dense | PatchWhitening):
        # Each output value is the sum of one product for each weight of its filter.
        return math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, layers.SeparableConv2D):
        kernels = layer.depthwise_kernel.shape, layer.pointwise_kernel.shape
        return math.prod(layer.output.shape[1:-1]) * sum(map(math.prod, kernels))
    if getattr(layer, "kernel", None) is not None:
        raise TypeError(f"the operations of {type(layer).__name__} ({layer.name}) are not counted")
    return 0
