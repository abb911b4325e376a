"""What a model is, in numbers: parameters, and arithmetic for one image."""

import html
import math
from dataclasses import dataclass, field

from keras import layers

from cifar_utils.backend import keras


@dataclass(frozen=True)
class ModelSummary:
    """A model's name, size and cost; in a notebook, a sentence with the layers folded below it.

    ``flops`` counts convolutions and dense layers, a multiply-add as two, for one image forward.
    """

    name: str
    parameters: int
    trainable_parameters: int
    flops: int
    layers: str = field(repr=False)

    def __str__(self) -> str:
        return (
            f"{self.name} has {self.parameters:,} parameters, {self.trainable_parameters:,} of them "
            f"trained, and takes {in_words(self.flops)} floating-point operations for an image "
            "(forward, a multiply-add counted as two)."
        )

    def _repr_html_(self) -> str:
        return (
            f"<p>{html.escape(str(self))}</p>"
            f"<details><summary>Layer by layer</summary><pre>{html.escape(self.layers)}</pre></details>"
        )


def summarize(model: keras.Model) -> ModelSummary:
    """Count a built model's parameters and arithmetic."""
    lines: list[str] = []
    model.summary(line_length=96, print_fn=lines.append, expand_nested=True)
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return ModelSummary(model.name, model.count_params(), trained, flops(model), "\n".join(lines))


def flops(model: keras.Model) -> int:
    """Floating-point operations for one image, forward: twice the multiply-adds of its convolutions and dense layers.

    Raises
    ------
    TypeError
        Where a layer multiplies but is of a kind that is not counted.

    """
    return 2 * sum(_multiply_adds(layer) for layer in model._flatten_layers(include_self=False))


def _multiply_adds(layer: keras.Layer) -> int:
    if isinstance(layer, layers.Conv2D | layers.Dense):
        # Each output value is the sum of one product for each weight of its filter.
        positions = math.prod(layer.output.shape[1:-1])
        return positions * math.prod(layer.kernel.shape)
    if getattr(layer, "kernel", None) is not None:
        raise TypeError(f"the operations of {type(layer).__name__} ({layer.name}) are not counted")
    return 0


def in_words(number: float) -> str:
    """A large number in words: ``"0.57 billion"``."""
    for name, size in {"billion": 1e9, "million": 1e6}.items():
        if number >= size / 10:
            return f"{number / size:,.3g} {name}"
    return f"{number:,.0f}"
