"""Residual networks for small images.

Each function takes normalized images as a Keras tensor ``(N, H, W, 3)`` and gives logits
``(N, classes)``. Parameters are counted for 32×32 images and 10 classes.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import keras
from keras import layers, ops, regularizers

from cifar_utils.choices import NonNegativeFloat, PositiveFloat, PositiveInt, Rate
from cifar_utils.errors import InputError
from cifar_utils.models.blocks import batch_norm, conv, normal, separable_conv


@dataclass(frozen=True)
class Options:
    """Options of the networks of He et al. in this module.

    Parameters
    ----------
    dropout
        Rate inside each block, before its last convolution. Report C trains ResNet-18 with 0.5.
    head_dropout
        Rate before the classifier. Report C trains ResNet-18 with 0.3.
    spatial_dropout
        Rate at which whole channels are dropped after the addition of each identity block. That is
        a block whose shortcut has no projection. Report C trains ResNet-18 on CIFAR-100 with a
        “sparse” dropout of 0.5, and we take it to mean this.
    gate
        Threshold of the ε-sparse gate, :func:`sparse_gate`; 0 for none.
    highway
        Whether blocks mix branch and shortcut by a trained gate (Srivastava et al.,
        arXiv:1505.00387): y T(x) + x (1 - T(x)) instead of y + x.
    residual
        Whether blocks have shortcuts. Without them this is the plain network with which He et al.
        compare. The other options for shortcuts must then be off.

    """

    dropout: float
    head_dropout: float
    spatial_dropout: float
    gate: float
    highway: bool
    residual: bool

    def __post_init__(self):
        if not self.residual and (self.spatial_dropout or self.gate or self.highway):
            raise InputError(
                "residual is False; spatial_dropout, gate and highway act on shortcuts, so leave "
                "them out or set residual to True"
            )


def resnet20(
    x, classes: int, dropout: Rate = 0.0, head_dropout: Rate = 0.0, spatial_dropout: Rate = 0.0,
    gate: NonNegativeFloat = 0.0, highway: bool = False, residual: bool = True,
):  # fmt: skip
    """ResNet-20 of He et al. (arXiv:1512.03385, section 4.2); 274,042 parameters."""
    options = Options(dropout, head_dropout, spatial_dropout, gate, highway, residual)
    return _residual(x, classes, basic_block, {16: 3, 32: 3, 64: 3}, options)


def resnet56(
    x, classes: int, dropout: Rate = 0.0, head_dropout: Rate = 0.0, spatial_dropout: Rate = 0.0,
    gate: NonNegativeFloat = 0.0, highway: bool = False, residual: bool = True,
):  # fmt: skip
    """ResNet-56 of He et al. (arXiv:1512.03385, section 4.2); 860,026 parameters."""
    options = Options(dropout, head_dropout, spatial_dropout, gate, highway, residual)
    return _residual(x, classes, basic_block, {16: 9, 32: 9, 64: 9}, options)


def resnet110(
    x, classes: int, dropout: Rate = 0.0, head_dropout: Rate = 0.0, spatial_dropout: Rate = 0.0,
    gate: NonNegativeFloat = 0.0, highway: bool = False, residual: bool = True,
):  # fmt: skip
    """ResNet-110 of He et al. (arXiv:1512.03385, section 4.2); 1,739,002 parameters."""
    options = Options(dropout, head_dropout, spatial_dropout, gate, highway, residual)
    return _residual(x, classes, basic_block, {16: 18, 32: 18, 64: 18}, options)


def resnet18(
    x, classes: int, dropout: Rate = 0.0, head_dropout: Rate = 0.0, spatial_dropout: Rate = 0.0,
    gate: NonNegativeFloat = 0.0, highway: bool = False, residual: bool = True,
):  # fmt: skip
    """ResNet-18 with a stem for small images; 11,183,562 parameters."""
    options = Options(dropout, head_dropout, spatial_dropout, gate, highway, residual)
    return _residual(x, classes, basic_block, {64: 2, 128: 2, 256: 2, 512: 2}, options)


def resnet50(
    x, classes: int, dropout: Rate = 0.0, head_dropout: Rate = 0.0, spatial_dropout: Rate = 0.0,
    gate: NonNegativeFloat = 0.0, highway: bool = False, residual: bool = True,
):  # fmt: skip
    """ResNet-50 with a stem for small images; 23,573,962 parameters."""
    options = Options(dropout, head_dropout, spatial_dropout, gate, highway, residual)
    return _residual(x, classes, bottleneck_block, {64: 3, 128: 4, 256: 6, 512: 3}, options)


def _residual(x, classes: int, block, blocks: dict[int, int], options: Options):
    """A first convolution, stages of blocks ``{filters: blocks}``, pooling and a dense layer.

    Each stage but the first halves height and width.
    """
    x = _bn_relu(conv(x, min(blocks), bias=False))
    for stage, (filters, count) in enumerate(blocks.items()):
        for place in range(count):
            x = block(x, filters, 2 if stage and not place else 1, options)
    x = _drop(layers.GlobalAveragePooling2D()(x), options.head_dropout)
    return layers.Dense(classes)(x)


def basic_block(x, filters: int, strides: int, options: Options):
    """Two 3×3 convolutions; ReLU after the addition."""
    shortcut = _shortcut(x, filters, strides, options)
    y = _bn_relu(conv(x, filters, strides=strides, bias=False))
    y = _drop(y, options.dropout)
    y = batch_norm(conv(y, filters, bias=False))
    return layers.ReLU()(_add(shortcut, y, shortcut is x, options))


def bottleneck_block(x, filters: int, strides: int, options: Options):
    """1×1, 3×3 and 1×1 convolutions, the last one four times as wide; ReLU after the addition."""
    shortcut = _shortcut(x, 4 * filters, strides, options)
    y = _bn_relu(conv(x, filters, 1, bias=False))
    y = _bn_relu(conv(y, filters, strides=strides, bias=False))
    y = _drop(y, options.dropout)
    y = batch_norm(conv(y, 4 * filters, 1, bias=False))
    return layers.ReLU()(_add(shortcut, y, shortcut is x, options))


def _bn_relu(x):
    return layers.ReLU()(batch_norm(x))


def _drop(x, rate: float):
    return layers.Dropout(rate)(x) if rate else x


def _shortcut(x, filters: int, strides: int, options: Options):
    """The input of a block, projected by a 1×1 convolution if the output has another shape.

    In the networks of 16 to 64 filters, He et al. pad with zeros instead.
    """
    if options.residual and (strides != 1 or x.shape[-1] != filters):
        return batch_norm(conv(x, filters, 1, strides, bias=False))
    return x


def _add(shortcut, y, identity: bool, options: Options):
    """Add a block's shortcut and branch; ``identity`` if the shortcut has no projection."""
    if not options.residual:
        return y
    y = sparse_gate(y, options.gate) if options.gate else y
    x = _mix(shortcut, y) if options.highway else layers.Add()([shortcut, y])
    rate = options.spatial_dropout
    return layers.SpatialDropout2D(rate)(x) if rate and identity else x


def _mix(x, y):
    """Highway: y T + x (1 - T). T starts near 1/4, so most of the output is x."""
    share = layers.Conv2D(
        x.shape[-1], 1, activation="sigmoid",
        kernel_initializer=normal(), bias_initializer=keras.initializers.Constant(-1.0),
    )(x)  # fmt: skip
    difference = layers.Subtract()([y, x])
    return layers.Add()([x, layers.Multiply()([share, difference])])


def sparse_gate(y, threshold: float):
    """Set an image's residual branch to zero if no response in it reaches a threshold ε.

    The block is then exactly the identity for this image (Yu et al., Learning Strict Identity
    Mappings in Deep Residual Networks, CVPR 2018, doi:10.1109/CVPR.2018.00466).
    """
    strongest = ops.max(ops.abs(y), axis=(1, 2, 3), keepdims=True)
    return y * ops.cast(strongest >= threshold, y.dtype)


def preact(
    x,
    classes: int,
    activation: Literal["relu", "elu"] = "relu",
    dropout: Rate = 0.1,
    l2: NonNegativeFloat = 1e-6,
):
    """Pre-activation ResNet of twelve units (report D); 1,574,218 parameters for 10 classes.

    A unit is two rounds of batch normalization, activation and convolution. The input of each round
    is added to its output. The first rounds of the 5th and the 9th unit are an exception: their
    filters double, and the convolution has stride 2. Batch normalization is Keras's default. The
    last pooling is global. The report pools 8×8 pixels, which are all that are left of 32×32.

    Parameters
    ----------
    activation
        The report's code has ``"relu"``, its text ELU (``"elu"``). As in the code, there is no
        activation between the last normalization and the pooling.
    dropout
        Rate after the second convolution of each unit.
    l2
        L2 penalty on the kernels of all 28 layers, including the dense one. The report's code has
        1e-6, its table 1e-4.

    """
    trained = {"kernel_initializer": "he_normal", "kernel_regularizer": regularizers.L2(l2)}

    def convolve(x, filters, size=3, strides=1):
        return layers.Conv2D(filters, size, strides, "same", **trained)(x)

    def activate(x):
        return layers.Activation(activation)(layers.BatchNormalization()(x))

    x = convolve(x, 32, 7)
    for unit in range(12):
        filters, widens = 32 * 2 ** (unit // 4), unit in (4, 8)
        if widens:
            x = convolve(activate(convolve(x, filters, 1)), filters, strides=2)
        else:
            x = layers.Add()([x, convolve(activate(x), filters)])
        x = layers.Add()([x, layers.Dropout(dropout)(convolve(activate(x), filters))])
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    return layers.Dense(classes, **trained)(x)


def gn_resnet(
    x,
    classes: int,
    width: Annotated[int, "at least 8"] = 100,
    dropout: Rate = 0.0,
    dropout_in: Literal["block", "convolution"] = "block",
):
    """Our own compact residual network of report A's size, with group normalization.

    For 10 classes, it has at most as many parameters as report A's network, ``report_a``. At
    ``width`` w these are 9 w² + 30 w + 36: 10,212 at width 32, 15,636 at 40 and 93,036 at 100. Each
    other class adds w + 1, and only 3 to ``report_a``.

    A 3×3 convolution is followed by three residual blocks, each after a max-pooling of 2. A block
    is several rounds of group normalization, ReLU and a separable convolution: 3×3 on each channel
    by itself, then 1×1 across the channels. A round has w² + 11 w parameters; a full 3×3
    convolution has 9 w². There are as many rounds as the budget allows for 10 classes.

    Parameters
    ----------
    width
        Filters of all layers.
    dropout
        Its rate. Report A has 0.5.
    dropout_in
        ``"block"``: after each block, as in report A. ``"convolution"``: after each round, as
        report A recommends in the end.

    """

    def normalize(x):
        return layers.ReLU()(layers.GroupNormalization(math.gcd(width, 8))(x))

    x = conv(x, width, bias=False)
    for rounds in _rounds(width):
        x = y = layers.MaxPooling2D(2)(x)
        for _ in range(rounds):
            y = separable_conv(normalize(y), width)
            y = _drop(y, dropout if dropout_in == "convolution" else 0)
        x = layers.Add()([x, y])
        x = _drop(x, dropout if dropout_in == "block" else 0)
    x = layers.GlobalAveragePooling2D()(normalize(x))
    return layers.Dense(classes)(x)


def _rounds(width: int) -> tuple[int, int, int]:
    """Rounds of the three blocks within the budget for 10 classes; later blocks get the rest."""
    stem_and_head = 27 * width + 2 * width + 10 * width + 10
    count = (9 * width**2 + 30 * width + 36 - stem_and_head) // (width**2 + 11 * width)
    return count // 3, (count + 1) // 3, (count + 2) // 3


def separable(x, classes: int, width: PositiveFloat = 1.0):
    """Our own residual network of separable convolutions; 91,946 parameters, averages included.

    It is within the 93,036 of report A's network, and needs more arithmetic than ``gn_resnet``,
    because more of its rounds work on larger images. A 3×3 convolution is followed by two groups of
    five rounds, each group after a max-pooling of 2. A round is batch normalization, ReLU and a
    separable convolution: 3×3 on each channel by itself, then 1×1 across the channels. Each round
    has a shortcut, except the one that widens.

    Parameters
    ----------
    width
        Factor for the 64 and 112 filters of the two groups.

    """
    x = conv(x, round(width * 64), bias=False)
    for full in (64, 112):
        filters = round(width * full)
        x = layers.MaxPooling2D(2)(x)
        for _ in range(5):
            y = separable_conv(_bn_relu(x), filters)
            x = layers.Add()([x, y]) if x.shape[-1] == filters else y
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(_bn_relu(x)))


def resnet50v2(x, classes: int):
    """ResNet50V2 of ``keras.applications`` from random weights; 23,585,290 parameters.

    Notebook 03 can go on from it: its parameter ``weights`` takes the run's folder. Train with
    ``normalization="half"``, the range that ``keras.applications`` gives this network. It takes
    images of any size.

    (He et al., arXiv:1603.05027.)
    """
    any_size = (None, None, x.shape[-1])
    base = keras.applications.ResNet50V2(include_top=False, weights=None, input_shape=any_size)
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(base(x)))


def cifarnet_worst(x, classes: int, residual: bool = True, width: PositiveFloat = 1.0):
    """The deeper and narrower network that report E compares with CifarNet; 7,713,874 parameters.

    It has three stages of 10, 100 and 256 filters. A stage is a convolution (5×5 in the first, else
    3×3) with batch normalization, four residual blocks of two 3×3 convolutions without it, and
    pooling. A valid 3×3 convolution of 512 filters with batch normalization, pooling and seven
    dense layers follow. The report does not list activations. Our reading is that ReLU follows each
    convolution, each addition and each dense layer but the last.

    Parameters
    ----------
    residual
        Whether blocks add their input to their output.
    width
        Factor for the numbers of filters.

    """
    x = layers.ZeroPadding2D(3)(x)
    for full, size, padding in ((10, 5, "valid"), (100, 3, "same"), (256, 3, "same")):
        filters = round(width * full)
        x = _bn_relu(conv(x, filters, size, padding=padding))
        for _ in range(4):
            y = conv(layers.ReLU()(conv(x, filters)), filters)
            x = layers.ReLU()(layers.Add()([x, y]) if residual else y)
        x = layers.MaxPooling2D(2)(x)
    x = _bn_relu(conv(x, round(width * 512), padding="valid"))
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    for units in (512, 500, 500, 100, 100, 100):
        x = layers.Dense(units, "relu", kernel_initializer=normal())(x)
    return layers.Dense(classes)(x)


def report_a(
    x,
    classes: int,
    width: PositiveInt = 32,
    dropout: Rate = 0.5,
    activation: bool = False,
):
    """Report A's compact residual network, inferred from its numbers of parameters.

    The report prints 10,212 parameters at ``width`` w = 32, 15,636 at 40 and 93,036 at 100, and
    93,306 at 100 on CIFAR-100. All of these are 9 w² + 30 w + 6 + 3 classes. This network has the
    same numbers. Its layers are two 3×3 convolutions of w filters and a 1×1 one back to 3 channels,
    all without bias; a group normalization of 3 channels; and a dense layer from 3 features without
    bias. The report has three residual blocks, so they share these weights. The order of layers
    within a block is our reading.

    Parameters
    ----------
    width
        Filters of the convolutions; the report calls it layer depth.
    dropout
        Rate after each residual block.
    activation
        Whether a ReLU follows each residual block; the report tried both.
    """
    normalize = layers.GroupNormalization(groups=1)
    widen, mix = (
        layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer="he_normal")
        for _ in range(2)
    )
    narrow = layers.Conv2D(3, 1, use_bias=False)
    for _ in range(3):
        y = layers.ReLU()(widen(normalize(x)))
        x = layers.Add()([x, narrow(layers.ReLU()(mix(y)))])
        x = layers.ReLU()(x) if activation else x
        x = _drop(x, dropout)
    return layers.Dense(classes, use_bias=False)(layers.GlobalAveragePooling2D()(x))
