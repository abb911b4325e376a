"""The networks of the reports, layer by layer."""

import functools
import itertools

import pytest

from cifar_utils.backend import keras
from cifar_utils.models import build_transfer_model

# A line "2 × conv 8 3×3 same /2, relu" stands for both layers twice. Keras's defaults are left out.
WORDS = {
    "BatchNormalization": "bn {momentum} {epsilon}",
    "Conv2D": "conv {filters} {kernel_size[0]}×{kernel_size[1]} {padding} /{strides[0]} "
    "{activation}",
    "Dense": "dense {units} {activation}",
    "Dropout": "dropout {rate}",
    "MaxPooling2D": "pool {pool_size[0]}",
    "ZeroPadding2D": "pad {padding[0][0]}",
    "Activation": "{activation}",
}
DEFAULTS = (" 0.99 0.001", " valid", " /1", " linear")
FAN = """
input, rescaling
conv 32 3×3, bn, relu, dropout 0.05
conv 64 3×3, bn, relu, dropout 0.1
2 × conv 128 3×3, bn, relu, dropout 0.1
2 × conv 256 3×3, bn, relu, dropout 0.1
conv 512 3×3, bn, relu, flatten
dense 512, bn, relu
dense 128, bn, relu
dense 10, linear
"""
# The report pools 8×8 pixels, which are all of a CIFAR image's.
PREACT = """
input, rescaling, conv 32 7×7 same
4 × bn, relu, conv 32 3×3 same, add, bn, relu, conv 32 3×3 same, dropout 0.1, add
conv 64 1×1 same, bn, relu, conv 64 3×3 same /2, bn, relu, conv 64 3×3 same, dropout 0.1, add
3 × bn, relu, conv 64 3×3 same, add, bn, relu, conv 64 3×3 same, dropout 0.1, add
conv 128 1×1 same, bn, relu, conv 128 3×3 same /2, bn, relu, conv 128 3×3 same, dropout 0.1, add
3 × bn, relu, conv 128 3×3 same, add, bn, relu, conv 128 3×3 same, dropout 0.1, add
bn, average 8×8, dense 10, linear
"""
HEAD = """
input, conv 128 3×3 relu, average 3×3
dense 512, bn, dropout 0.1, relu
dense 256, bn, dropout 0.1, relu
dense 128, bn, dropout 0.1, relu
dense 10, linear
"""
# PyTorch's momentum of 0.1 is the share of the new batch, Keras's that of the old mean.
CIFARNET = """
input, rescaling, conv 64 3×3 same, bn 0.9 1e-05, relu
conv 128 3×3 same, bn 0.9 1e-05, relu, pool 2
2 × conv 128 3×3 same, bn 0.9 1e-05, relu
add, conv 256 3×3 same, bn 0.9 1e-05, relu, pool 2
conv 256 3×3 same, bn 0.9 1e-05, relu, pool 2
2 × conv 256 3×3 same, bn 0.9 1e-05, relu
add, pool 4, flatten, dense 10 no bias, linear
"""
WORST = """
input, rescaling, pad 3, conv 10 5×5, bn 0.9 1e-05, relu
4 × conv 10 3×3 same, relu, conv 10 3×3 same, add, relu
pool 2, conv 100 3×3 same, bn 0.9 1e-05, relu
4 × conv 100 3×3 same, relu, conv 100 3×3 same, add, relu
pool 2, conv 256 3×3 same, bn 0.9 1e-05, relu
4 × conv 256 3×3 same, relu, conv 256 3×3 same, add, relu
pool 2, conv 512 3×3, bn 0.9 1e-05, relu, pool 2, flatten
dense 512 relu, dense 500 relu, dense 500 relu
3 × dense 100 relu
dense 10, linear
"""


def told(layer) -> str:
    kind = type(layer).__name__
    words = WORDS.get(kind, kind.lower().removesuffix("layer")).format(**layer.get_config())
    if kind == "GlobalAveragePooling2D":
        words = "average {}×{}".format(*layer.input.shape[1:3])
    words += " no bias" * (not getattr(layer, "use_bias", True))
    return functools.reduce(lambda words, default: words.replace(default, ""), DEFAULTS, words)


def check_layers(model, text, *kernels):
    """Each layer is on the one before; initial kernels are drawn in these ways."""
    expected = []
    for line in text.strip().splitlines():
        times, _, row = line.rpartition(" × ")
        expected += row.split(", ") * int(times or 1)
    assert [told(layer) for layer in model.layers] == expected
    for before, layer in itertools.pairwise(model.layers):
        assert any(taken is before.output for taken in keras.tree.flatten(layer.input))
    trained = [layer for layer in model.layers if hasattr(layer, "kernel")]
    assert {type(layer.kernel_initializer).__name__ for layer in trained} == {*kernels}
    assert {type(layer.bias_initializer).__name__ for layer in trained} == {"Zeros"}


@pytest.mark.parametrize(
    ("name", "text", "kernels"),
    [
        ("fan", FAN, ["GlorotUniform"]),
        ("preact", PREACT, ["HeNormal"]),
        ("cifarnet", CIFARNET, ["VarianceScaling"]),
        ("cifarnet_worst", WORST, ["VarianceScaling", "GlorotUniform"]),
    ],
)
def test_a_network_is_its_report_s_layer_by_layer(built, name, text, kernels):
    check_layers(built(name), text, *kernels)


def test_the_head_of_transfer_is_report_b_s_layer_by_layer(digits):
    model = build_transfer_model(digits, base="mobilenet", weights=None, input_size=160, fast=False)
    check_layers(model.get_layer("head"), HEAD, "GlorotUniform")
