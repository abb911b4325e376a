"""VGG-like networks: CifarNet, the fan and a VGG-19 for small images.

Each function takes normalized images as a Keras tensor ``(N, H, W, 3)`` and gives logits
``(N, classes)``.
"""

from keras import layers

from cifar_utils.choices import PositiveFloat, PositiveInt, Rate
from cifar_utils.models.blocks import conv_bn_relu, normal


def cifarnet(
    x, classes: int, residual: bool = True, variance: PositiveFloat = 2.0, pool: PositiveInt = 4,
    deep: bool = False, width: PositiveFloat = 1.0,
):  # fmt: skip
    """CifarNet (report E): eight 3×3 convolutions of 64 to 256 filters, as in a ResNet-9.

    It has 2,444,672 parameters for 10 classes, 2,441,728 of them trained.

    Parameters
    ----------
    residual
        Whether the input of each of the two pairs of convolutions is added to its output. The
        report's printed list does not show it.
    variance
        Variance of the initial weights, times the fan-in. He et al. have 2. PyTorch's layers, which
        the report seems to use, have 1/3. Batch normalization cancels the scale of a filter, but a
        step turns smaller weights further.
    pool
        Size of the last pooling. With 2, 64×64 images leave 4×4 places, as in the report.
    deep
        Whether this is the report's deeper network for 64×64 images: four more convolutions of 512
        filters and three more poolings replace the last pooling.
    width
        Factor for the numbers of filters.

    """
    halve = layers.MaxPooling2D

    def step(x, filters: int):
        return conv_bn_relu(x, round(width * filters), variance=variance)

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


def fan(x, classes: int, dropout: Rate = 0.1):
    """The "fan" (report B): seven valid 3×3 convolutions of 32 to 512 filters and a large head.

    It has 87,316,426 parameters for 10 classes at 32×32; 85 million of them are in the first dense
    layer. Initial weights and batch normalization are Keras's defaults.

    Parameters
    ----------
    dropout
        Rate after the second to the sixth convolution. The first has half of it, the seventh none.

    """
    rates = [dropout / 2, *[dropout] * 5, 0]
    for filters, rate in zip([32, 64, 128, 128, 256, 256, 512], rates, strict=True):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3)(x)))
        x = layers.Dropout(rate)(x) if rate else x
    x = layers.Flatten()(x)
    for units in (512, 128):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(x)))
    return layers.Dense(classes)(x)


def vgg19(
    x,
    classes: int,
    batch_norm: bool = True,
    dropout: Rate = 0.5,
    residual: bool = False,
    width: PositiveFloat = 1.0,
):
    """VGG-19 (Simonyan and Zisserman, arXiv:1409.1556) for images up to 32×32.

    It has all sixteen convolutions, and 20,576,842 parameters for 10 classes. Five poolings leave
    one place, so the two hidden dense layers have 512 units instead of the paper's 4,096. Report C
    trains a similar network.

    Parameters
    ----------
    batch_norm
        Whether batch normalization follows each convolution. Report C does not say this of its
        network.
    dropout
        Rate after each of the two hidden dense layers.
    residual
        Whether the input of each convolution, except the first of a stage, is added to its output.
    width
        Factor for the numbers of filters.

    """
    for filters, depth in zip([64, 128, 256, 512, 512], [2, 2, 4, 4, 4], strict=True):
        for place in range(depth):
            adds = residual and place > 0
            # A hundredth of the variance nearly keeps the scale over eleven additions.
            y = conv_bn_relu(x, round(width * filters), batch_norm, 0.02 if adds else 2.0)
            x = layers.Add()([x, y]) if adds else y
        x = layers.MaxPooling2D(2, padding="same")(x)  # one place stays one
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.Dropout(dropout)(layers.Dense(512, "relu", kernel_initializer="he_normal")(x))
    return layers.Dense(classes)(x)
