"""Residual networks for small images.

Each function takes normalized images as a Keras tensor ``(N, H, W, 3)`` and gives logits
``(N, classes)``.
"""

from keras import layers, regularizers

from cifar_utils.models.blocks import batch_norm, conv

# Filters and blocks of each stage; every stage but the first halves height and width.
RESNET20 = ((16, 3), (32, 3), (64, 3))
RESNET18 = ((64, 2), (128, 2), (256, 2), (512, 2))


def resnet20(x, classes: int, dropout: float = 0.0, head_dropout: float = 0.0):
    """ResNet-20 (He et al., arXiv:1512.03385, section 4.2); 0.27 M parameters.

    Three stages of 16, 32 and 64 filters. Where a stage widens, a 1×1 convolution matches the
    shortcut (the paper pads with zeros).
    """
    return _resnet(x, classes, RESNET20, dropout, head_dropout)


def resnet18(x, classes: int, dropout: float = 0.0, head_dropout: float = 0.0):
    """ResNet-18 with a 3×3 stem and no first pooling, as is usual at 32×32; 11.2 M parameters.

    Report C trains it with ``dropout=0.5`` in the blocks and ``head_dropout=0.3``.
    """
    return _resnet(x, classes, RESNET18, dropout, head_dropout)


def _resnet(x, classes, stages, dropout, head_dropout):
    x = layers.ReLU()(batch_norm(conv(x, stages[0][0], bias=False)))
    for stage, (filters, blocks) in enumerate(stages):
        for block in range(blocks):
            x = _basic_block(x, filters, 2 if stage and not block else 1, dropout)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(head_dropout)(x) if head_dropout else x
    return layers.Dense(classes)(x)


def _basic_block(x, filters, strides, dropout):
    shortcut = x
    if strides != 1 or x.shape[-1] != filters:
        shortcut = batch_norm(conv(x, filters, 1, strides, bias=False))
    y = layers.ReLU()(batch_norm(conv(x, filters, strides=strides, bias=False)))
    y = layers.Dropout(dropout)(y) if dropout else y
    y = batch_norm(conv(y, filters, bias=False))
    return layers.ReLU()(layers.Add()([shortcut, y]))


def preact(x, classes: int, activation: str = "relu", dropout: float = 0.1, l2: float = 1e-6):
    """Pre-activation ResNet of twelve units (report D); 1,574,218 parameters for 10 classes.

    Each unit is two rounds of normalization, activation and convolution with a skip around each
    round; at the 5th and 9th the filters double, and the first round, with stride 2, has no skip.
    The report's text says ELU and L2 1e-4, its code ReLU and 1e-6: both are reachable, the defaults
    are the code's. As in the code, nothing stands between the last normalization and the pooling.
    """

    def convolve(x, filters, size=3, strides=1):
        return layers.Conv2D(
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
