"""A model in numbers: parameters, and arithmetic for one image."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras import layers

from cifar_utils.backend import keras
from cifar_utils.models.graph import NO_CONFIG, has_graph, layers_of, need_graph
from cifar_utils.text import compact, listed

if TYPE_CHECKING:
    import pandas as pd


UNKNOWN = "not counted"


@dataclass(frozen=True, repr=False)
class ModelSummary:
    """A model's name, size and cost; in a notebook, a sentence with the layers folded below it.

    ``flops`` counts the operations of convolutions and dense layers in the forward pass of one
    image. A multiply-add counts as two. A layer that is used several times counts each time.
    ``flops`` is None if a layer of another kind has a matrix of weights, or if a layer has no
    ``get_config`` that Keras can write down: operations can't be counted then.
    """

    name: str
    parameters: int
    trainable_parameters: int
    flops: int | None
    layers: pd.DataFrame

    def __repr__(self) -> str:
        size = f"{self.parameters:,} parameters, {self.trainable_parameters:,} of them trained"
        if self.flops is None:
            kinds = self.layers["kind"][self.layers["operations"] == UNKNOWN].unique()
            return f"{self.name} has {size}. The operations of {listed(kinds)} are not counted."
        return (
            f"{self.name} has {size}, and takes {compact(self.flops)}FLOP for an image (forward; "
            "a multiply-add counts as two)."
        )

    def _repr_html_(self) -> str:
        table = self.layers.to_html(index=False)
        return (
            f"<p>{html.escape(repr(self))}</p>"
            f"<details><summary>Layer by layer</summary>{table}</details>"
        )


def summarize(model: keras.Model) -> ModelSummary:
    """Count a built model's parameters and arithmetic; an InputError if it has no graph."""
    need_graph(model)
    import pandas as pd

    operations: dict[int, float] = {}
    try:
        uses = list(_uses(model))
    except NO_CONFIG:
        uses = []
        operations = {id(layer): math.nan for layer in layers_of(model) if layer.weights}
    for layer, taken in uses:
        operations[id(layer)] = operations.get(id(layer), 0) + 2 * _multiply_adds(layer, taken)
    known = {
        key: int(count) if math.isfinite(count) else UNKNOWN for key, count in operations.items()
    }
    rows = [
        {
            "layer": layer.name,
            "kind": type(layer).__name__,
            "output shape": " × ".join(map(str, keras.tree.flatten(layer.output)[0].shape[1:])),
            "parameters": layer.count_params(),
            "operations": known.get(id(layer), 0),
        }
        for layer in layers_of(model)
    ]
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    name = getattr(model, "architecture", model.name)
    flops = None if UNKNOWN in known.values() else sum(known.values())
    return ModelSummary(name, model.count_params(), trained, flops, pd.DataFrame(rows))


def _uses(model: keras.Model) -> Iterator[tuple[keras.Layer, tuple[int | None, ...] | None]]:
    """Each layer and the shape of its input, once for each use in the model."""
    if isinstance(model, keras.Sequential):
        found = [(layer, None) for layer in model.layers]
    else:
        named = {layer.name: layer for layer in model.layers}
        found = [
            (named[row["name"]], _input_shape(node))
            for row in model.get_config()["layers"]
            if row["name"] in named  # a bare operation is not
            for node in row["inbound_nodes"]
        ]
    for layer, shape in found:
        if not has_graph(layer):
            yield layer, shape
        elif shape and None in layer.input_shape[1:]:
            # For images of any size: a copy for this size has the shapes.
            inner = keras.Model(layer.inputs, layer.outputs)
            copy = keras.models.clone_model(inner, input_tensors=[keras.Input(shape[1:])])
            for (own, _), (_, size) in zip(_uses(inner), _uses(copy), strict=True):
                yield own, size
        else:
            yield from _uses(layer)


def _input_shape(node: dict[str, Any]) -> tuple[int | None, ...] | None:
    """The shape of the first tensor that a use in a configuration takes; None if it has none."""
    (taken, *_) = node.get("args") or [{}]
    return taken.get("config", {}).get("shape") if isinstance(taken, dict) else None


def _multiply_adds(layer: keras.Layer, taken: tuple[int | None, ...] | None) -> float:
    """The multiply-adds of one use of a layer on an input of shape ``taken``; NaN if unknown."""
    # Each weight of a filter gives one product in the sum of an output value.
    if isinstance(layer, layers.DepthwiseConv2D | layers.Conv2D | layers.Dense):
        weights = math.prod(layer.kernel.shape)
    elif isinstance(layer, layers.SeparableConv2D):
        weights = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    elif isinstance(layer, layers.PReLU | layers.LayerNormalization | layers.Embedding):
        return 0
    else:
        return math.nan if any(len(weight.shape) > 1 for weight in layer.weights) else 0
    shape = layer.compute_output_shape(taken) if taken else layer.output.shape
    return math.prod(shape[1:-1]) * weights
