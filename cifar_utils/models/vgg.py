"""Plain stacks of convolutions: CifarNet, the fan and a VGG-19 for small images.

Each function takes normalized images as a Keras tensor ``(N, H, W, 3)`` and gives logits
``(N, classes)``.
"""

from functools import partial

from keras import layers

from cifar_utils.models.blocks import conv_bn_relu, normal


def cifarnet(
    x, classes: int, residual: bool = True, variance: float = 2.0, pool: int = 4, deep: bool = False
):
    """CifarNet, a ResNet-9 shape: eight 3×3 convolutions, 64 to 256 filters (report E).

    2,444,672 parameters for 10 classes.

    Parameters
    ----------
    residual
        Whether the input of each of the two pairs is added to its output; the report's printed list
        does not show it.
    variance
        Initial weights have this over the fan-in: 2 is He et al.'s; the report's layers look like
        PyTorch's, which start at 1/3. (As batch normalization follows, the scale of a filter
        changes no output, but the smaller it is, the more a step turns it.)
    pool
        Size of the last pooling. On 64×64 images the report leaves 4×4 places: 2.
    deep
        Four more convolutions, of 512 filters and with three more poolings, instead of the last
        pooling: the report's deeper network for 64×64 images.

    """
    step = partial(conv_bn_relu, variance=variance)
    halve = layers.MaxPooling2D

    def pair(x, filters: int):
        y = step(step(x, filters), filters)
        return layers.Add()([x, y]) if residual else y

    x = halve(2)(step(step(x, 64), 128))
    x = halve(2)(step(pair(x, 128), 256))
    x = halve(2)(step(x, 256))
    x = pair(x, 256)
    if deep:
        x = halve(2)(step(halve(2)(step(x, 512)), 512))
        x = halve(2)(pair(x, 512))
    else:
        x = halve(pool)(x)
    return layers.Dense(classes, use_bias=False, kernel_initializer=normal(variance))(
        layers.Flatten()(x)
    )


def fan(x, classes: int, dropout: float = 0.1):
    """The "fan" (report B): seven valid convolutions, widening without pooling, and a large head.

    ``dropout`` follows the second to the sixth convolution, half of it the first. 87,316,426
    parameters for 10 classes at 32×32, 85 million of them between the last convolution and the
    first dense layer.
    """
    rates = [dropout / 2, *[dropout] * 5, 0]
    for filters, rate in zip([32, 64, 128, 128, 256, 256, 512], rates, strict=True):
        x = conv_bn_relu(x, filters, padding="valid")
        x = layers.Dropout(rate)(x) if rate else x
    x = layers.Flatten()(x)
    for units in (512, 128):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(x)))
    return layers.Dense(classes)(x)


def vgg19(
    x,
    classes: int,
    batch_norm: bool = True,
    dropout: float = 0.5,
    units: int = 512,
    residual: bool = False,
):
    """VGG-19 (Simonyan and Zisserman, arXiv:1409.1556) for 32×32 images (report C).

    All sixteen convolutions stay. Five poolings leave one position, so the two hidden dense layers
    shrink from 4,096 to ``units``. Without ``batch_norm`` it is the network whose training
    collapses in report C. ``residual`` adds to the output of each convolution, but a stage's first,
    its input: what residual networks mend it by, and nothing else of theirs.
    """
    for filters, depth in zip([64, 128, 256, 512, 512], [2, 2, 4, 4, 4], strict=True):
        for place in range(depth):
            adds = residual and place > 0
            # A tenth of the weights there, so that eleven additions about keep the scale.
            y = conv_bn_relu(x, filters, batch_norm=batch_norm, variance=0.02 if adds else 2.0)
            x = layers.Add()([x, y]) if adds else y
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.Dropout(dropout)(layers.Dense(units, "relu", kernel_initializer="he_normal")(x))
    return layers.Dense(classes)(x)
