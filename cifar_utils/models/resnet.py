"""Residual networks for small images.

Each function takes normalized images as a Keras tensor ``(N, H, W, 3)`` and gives logits
``(N, classes)``.
"""

import math
from collections.abc import Callable
from functools import partial

import keras
from keras import layers, ops, regularizers

from cifar_utils.models.blocks import batch_norm, conv, normal
from cifar_utils.models.fused import Conv2D, GroupNormReLU, SeparableConv2D
from cifar_utils.parameters import InputError, known_name

# Of each stage: its filters and its number of blocks. Every stage but the first halves the sides.
NARROW = {depth: ((16, n), (32, n), (64, n)) for depth, n in ((20, 3), (110, 18), (164, 18))}
WIDE = {
    depth: tuple(zip((64, 128, 256, 512), blocks, strict=True))
    for depth, blocks in ((18, (2, 2, 2, 2)), (34, (3, 4, 6, 3)), (50, (3, 4, 6, 3)))
}
# Of each convolution of a block's branch: its size, and its filters as a multiple of the stage's.
BASIC = ((3, 1), (3, 1))
BOTTLENECK = ((1, 1), (3, 1), (1, 4))


def _resnet(
    stages: tuple,
    branch: tuple,
    preactivated: bool,
    x,
    classes: int,
    dropout: float = 0.0,
    head_dropout: float = 0.0,
    spatial_dropout: float = 0.0,
    gate: float = 0.0,
    highway: bool = False,
):
    """A residual network of He et al. (arXiv:1512.03385; ``preactivated``: arXiv:1603.05027).

    With 16, 32 and 64 filters it is theirs for these images (20, 110 or 164 layers); with 64 to
    512 (18, 34 or 50 layers) theirs for large ones, with a 3×3 stem and no first pooling, as is
    usual at 32×32. Where a stage widens, a 1×1 convolution matches the shortcut (the papers pad
    with zeros in the narrow ones).

    Parameters
    ----------
    dropout, head_dropout
        Rates inside each block, before its last convolution, and before the classifier. Report C
        trains ResNet-18 with 0.5 and 0.3.
    spatial_dropout
        Rate at which whole channels are dropped after the addition, in all blocks but the first of
        each stage (report C, on CIFAR-100: 0.5).
    gate
        Threshold of the ε-sparse gate, :class:`SparseGate`; 0 for none.
    highway
        Blocks mix branch and shortcut by a gate of their own (Srivastava et al., arXiv:1505.00387):
        y T(x) + x (1 - T(x)) instead of y + x.

    """
    x = conv(x, stages[0][0], bias=False)
    x = x if preactivated else layers.ReLU()(batch_norm(x))
    for stage, (filters, blocks) in enumerate(stages):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            x, y = _branches(x, filters, strides, branch, preactivated, dropout)
            y = SparseGate(gate)(y) if gate else y
            x = _mix(x, y) if highway else layers.Add()([x, y])
            x = layers.SpatialDropout2D(spatial_dropout)(x) if spatial_dropout and block else x
            x = x if preactivated else layers.ReLU()(x)
    x = layers.ReLU()(batch_norm(x)) if preactivated else x
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(head_dropout)(x) if head_dropout else x
    return layers.Dense(classes)(x)


def _branches(x, filters: int, strides: int, branch: tuple, preactivated: bool, dropout: float):
    """A block's shortcut and residual branch."""
    widened = filters * branch[-1][1]
    y = layers.ReLU()(batch_norm(x)) if preactivated else x
    if strides != 1 or x.shape[-1] != widened:
        x = conv(y, widened, 1, strides, bias=False)
        x = x if preactivated else batch_norm(x)
    halves = [size for size, _ in branch].index(3)  # the first 3×3 convolution takes the stride
    for place, (size, width) in enumerate(branch):
        if place > 0:
            y = layers.ReLU()(batch_norm(y) if preactivated else y)
        y = layers.Dropout(dropout)(y) if dropout and place == len(branch) - 1 else y
        y = conv(y, filters * width, size, strides if place == halves else 1, bias=False)
        y = y if preactivated else batch_norm(y)
    return x, y


def _mix(x, y):
    """Highway: y T + x (1 - T), where T starts near 1/4, so that most of x is carried through."""
    share = layers.Conv2D(
        x.shape[-1], 1, activation="sigmoid",
        kernel_initializer=normal(), bias_initializer=keras.initializers.Constant(-1.0),
    )(x)  # fmt: skip
    difference = layers.Subtract()([y, x])
    return layers.Add()([x, layers.Multiply()([share, difference])])


@keras.saving.register_keras_serializable("cifar_utils")
class SparseGate(layers.Layer):
    """Drops an image's residual branch where no response in it reaches a threshold ε.

    So a block that has little to add becomes the identity, strictly (Yu et al., Learning Strict
    Identity Mappings in Deep Residual Networks, CVPR 2018, doi:10.1109/CVPR.2018.00466).
    """

    def __init__(self, threshold: float, **kwargs):
        super().__init__(**kwargs)
        if threshold < 0:
            raise InputError(f"gate is {threshold!r}; it takes a threshold above 0, or 0 for none")
        self.threshold = threshold

    def call(self, y):
        strongest = ops.max(ops.abs(y), axis=(1, 2, 3), keepdims=True)
        return y * ops.cast(strongest >= self.threshold, y.dtype)

    def get_config(self):
        return {**super().get_config(), "threshold": self.threshold}


def _named(name: str, *settings) -> Callable:
    function = partial(_resnet, *settings)
    function.__name__, function.__doc__ = name, _resnet.__doc__
    return function


RESNETS = {
    name: _named(name, *settings)
    for name, settings in {
        "resnet18": (WIDE[18], BASIC, False),
        "resnet20": (NARROW[20], BASIC, False),
        "resnet34": (WIDE[34], BASIC, False),
        "resnet50": (WIDE[50], BOTTLENECK, False),
        "resnet110": (NARROW[110], BASIC, False),
        "preact110": (NARROW[110], BASIC, True),
        "preact164": (NARROW[164], BOTTLENECK, True),
    }.items()
}


def preact(x, classes: int, activation: str = "relu", dropout: float = 0.1, l2: float = 1e-6):
    """Pre-activation ResNet of twelve units (report D); 1,574,218 parameters for 10 classes.

    Each unit is two rounds of normalization, activation and convolution with a skip around each
    round; at the 5th and 9th the filters double, and the first round, with stride 2, has no skip.
    The report's text says ELU and L2 1e-4, its code ReLU and 1e-6: both are reachable, the defaults
    are the code's. As in the code, nothing stands between the last normalization and the pooling.
    """

    def convolve(x, filters, size=3, strides=1):
        return Conv2D(
            filters, size, strides, "same",
            kernel_initializer="he_normal", kernel_regularizer=regularizers.L2(l2),
        )(x)  # fmt: skip

    def activate(x):
        return layers.Activation(activation)(batch_norm(x))

    x = convolve(x, 32, 7)
    for unit in range(12):
        filters, widens = 32 * 2 ** (unit // 4), unit in (4, 8)
        if widens:
            x = convolve(activate(convolve(x, filters, 1)), filters, strides=2)
        else:
            x = layers.Add()([x, convolve(activate(x), filters)])
        x = layers.Add()([x, layers.Dropout(dropout)(convolve(activate(x), filters))])
    x = layers.AveragePooling2D(8)(batch_norm(x))
    return layers.Dense(classes, kernel_initializer="he_normal")(layers.Flatten()(x))


def gn_resnet(x, classes: int, width: int = 100, dropout: float = 0.0, dropout_in: str = "block"):
    """Compact residual network with group normalization (report A).

    The report gives the size alone: 9 w² + 30 w + 36 parameters at ``width`` w for 10 classes
    (10,212 at 32; 15,636 at 40; 93,036 at 100). Within it stand a 3×3 stem and three residual
    blocks, at a half, a quarter and an eighth of the image's size, of as many rounds as the budget
    allows: group normalization, ReLU, a 3×3 convolution of each channel by itself, a 1×1 one across
    them (w² + 11 w together, where a full 3×3 one would take 9 w²).

    Parameters
    ----------
    dropout
        Its rate; the report's is 0.5, and too much for networks as small as these.
    dropout_in
        ``"block"``: after each of them, as in the report; ``"convolution"``: in each round, which
        the report would rather have done.

    """
    known_name("", dropout_in, ("block", "convolution"), label="dropout_in")
    if width < 8:
        raise InputError(f"width is {width!r}; gn_resnet takes 8 or more")

    def normalize(x):
        return GroupNormReLU(math.gcd(width, 8))(x)

    def drop(x, where: str):
        return layers.Dropout(dropout)(x) if dropout and dropout_in == where else x

    # Keras takes the fan-in of the first filters for 9 w, though each sees its own channel's 9.
    first, second = normal(float(width)), normal()
    x = conv(x, width, bias=False)
    for rounds in _rounds(width):
        x = y = layers.MaxPooling2D(2)(x)
        for _ in range(rounds):
            y = SeparableConv2D(
                width, 3, padding="same", use_bias=False,
                depthwise_initializer=first, pointwise_initializer=second,
            )(normalize(y))  # fmt: skip
            y = drop(y, "convolution")
        x = drop(layers.Add()([x, y]), "block")
    x = layers.GlobalAveragePooling2D()(normalize(x))
    return layers.Dense(classes)(x)


def _rounds(width: int) -> tuple[int, int, int]:
    """Rounds of the three blocks within the budget; what can't be shared out goes to the last."""
    stem_and_head = 27 * width + 2 * width + 10 * width + 10
    count = (9 * width**2 + 30 * width + 36 - stem_and_head) // (width**2 + 11 * width)
    return count // 3, (count + 1) // 3, (count + 2) // 3


def cifarnet_worst(x, classes: int, residual: bool = True):
    """The deeper and narrower network that report E sets against CifarNet.

    A 5×5 convolution of 10 filters, then three stages of four residual blocks at 10, 100 and 256
    filters, a valid 3×3 one of 512, each followed by pooling; five dense layers to the logits. As
    it gives no activations within the dense part, ReLU is our reading; batch normalization stands
    after each stage's first convolution alone.
    """
    x = layers.ZeroPadding2D(3)(x)
    for filters, size, padding in ((10, 5, "valid"), (100, 3, "same"), (256, 3, "same")):
        x = layers.ReLU()(batch_norm(conv(x, filters, size, padding=padding)))
        for _ in range(4):
            y = conv(layers.ReLU()(conv(x, filters)), filters)
            x = layers.ReLU()(layers.Add()([x, y]) if residual else y)
        x = layers.MaxPooling2D(2)(x)
    x = layers.ReLU()(batch_norm(conv(x, 512, padding="valid")))
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    for units in (512, 500, 500, 100, 100, 100):
        x = layers.Dense(units, "relu", kernel_initializer=normal())(x)
    return layers.Dense(classes)(x)


def report_a(
    x,
    classes: int,
    width: int = 32,
    dropout: float = 0.5,
    activation: bool = False,
    pool: bool = False,
):
    """Report A's compact residual network, as its numbers of parameters give it away.

    The report prints 10,212 parameters at ``width`` w = 32, 15,636 at 40 and 93,036 at 100, on
    CIFAR-100 93,306. All are 9 w² + 30 w + 6 + 3 classes. This network has exactly these: a 3×3
    convolution of w filters, another one, and a 1×1 one back to 3 channels, all without bias; a
    group normalization of 3 channels; and a dense layer from 3 features without bias. The report
    has three residual blocks, so they share these weights. The order of layers within a block is
    our reading.

    Parameters
    ----------
    width
        Filters of the convolutions; the report calls it layer depth.
    dropout
        Its rate after each residual block.
    activation
        Whether a ReLU follows each residual block; the report tried both.
    pool
        Whether each block is followed by max pooling, which the report does not mention. A step
        then takes less than half of the time.

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
        x = layers.Dropout(dropout)(x) if dropout else x
        x = layers.MaxPooling2D(2)(x) if pool else x
    return layers.Dense(classes, use_bias=False)(layers.GlobalAveragePooling2D()(x))
