"""The few groups of layers that more than one family is made of."""

from keras import layers


def conv(
    x, filters: int, size: int = 3, strides: int = 1, padding: str = "same", bias: bool = True
):
    """A convolution, initialized by He et al.'s normal distribution (arXiv:1502.01852)."""
    return layers.Conv2D(
        filters, size, strides, padding, use_bias=bias, kernel_initializer="he_normal"
    )(x)


def batch_norm(x):
    """Batch normalization; its statistics follow within tens of steps, as runs can be short."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def conv_bn_relu(x, filters: int, padding: str = "same", batch_norm: bool = True):
    """3×3 convolution with bias, batch normalization (if asked for), ReLU."""
    x = conv(x, filters, padding=padding)
    return layers.ReLU()(_batch_norm(x) if batch_norm else x)


_batch_norm = batch_norm
