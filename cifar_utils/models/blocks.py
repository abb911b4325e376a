"""Groups of layers that several architectures share."""

from keras import initializers, layers


def normal(variance: float = 2.0):
    """Initial weights from a normal distribution of variance ``variance`` / fan-in.

    The default, 2, is that of He et al. (arXiv:1502.01852). PyTorch's layers have 1/3.
    """
    return initializers.VarianceScaling(variance, "fan_in", "truncated_normal")


def conv(
    x,
    filters: int,
    size: int = 3,
    strides: int = 1,
    padding: str = "same",
    bias: bool = True,
    variance: float = 2.0,
):
    """A convolution; ``variance`` as in :func:`normal`."""
    return layers.Conv2D(
        filters, size, strides, padding, use_bias=bias, kernel_initializer=normal(variance)
    )(x)


def separable_conv(x, filters: int):
    """3×3 convolution of each channel by itself, then 1×1 across the channels; no bias."""
    # For Keras their fan-in is 9 times the channels, but each depthwise filter sees only 9 inputs.
    return layers.SeparableConv2D(
        filters, 3, padding="same", use_bias=False,
        depthwise_initializer=normal(float(x.shape[-1])), pointwise_initializer=normal(),
    )(x)  # fmt: skip


def batch_norm(x):
    """Batch normalization whose averages adapt within tens of steps, because runs can be short."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def conv_bn_relu(x, filters: int, normalized: bool = True, variance: float = 2.0):
    """3×3 convolution with bias, batch normalization (if ``normalized``), ReLU."""
    x = conv(x, filters, variance=variance)
    return layers.ReLU()(batch_norm(x) if normalized else x)
