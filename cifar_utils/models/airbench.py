"""The network of the speed record, airbench (Jordan, arXiv:2404.00498 and its repository).

It takes normalized images as a Keras tensor ``(N, H, W, 3)`` and gives logits ``(N, classes)``.
"""

import keras
import numpy as np
from keras import layers, ops

from cifar_utils.choices import PositiveFloat


def airbench(
    x, classes: int, width: PositiveFloat = 1.0, whitening: bool = True, identity: bool = True
):
    """Patch whitening, then three pairs of convolutions, pooled early; 1,973,944 parameters.

    Batch normalization has a learned shift, and no learned scale. Logits are divided by the number
    of features.

    Parameters
    ----------
    width
        Factor for the 64, 256 and 256 filters of the three pairs.
    whitening
        Whether the first convolution is :class:`PatchWhitening`. If not, it is trained.
    identity
        Whether filters start as :class:`PartialIdentity`. If not, they start at random.

    """
    filters = [round(width * number) for number in (64, 256, 256)]
    return _network(x, classes, filters, False, 0.6, whitening, identity)


def airbench96(
    x, classes: int, width: PositiveFloat = 1.0, whitening: bool = True, identity: bool = True
):
    """The wider network of airbench96_faster, of three triples; 9,921,848 parameters.

    The second and the third convolution of a triple have a shortcut around both. The averages of
    batch normalization keep 0.9 of themselves at each step, those of ``airbench`` 0.6.

    Parameters
    ----------
    width
        Factor for the 128, 384 and 512 filters of the three triples.
    whitening
        Whether the first convolution is :class:`PatchWhitening`. If not, it is trained.
    identity
        Whether filters start as :class:`PartialIdentity`. If not, they start at random.

    """
    filters = [round(width * number) for number in (128, 384, 512)]
    return _network(x, classes, filters, True, 0.9, whitening, identity)


def _network(x, classes: int, filters, triples: bool, momentum: float, whitening, identity):
    random = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")  # as PyTorch's

    def convolution(x, number, pool=False):
        x = layers.Conv2D(
            number, 3, padding="same", use_bias=False,
            kernel_initializer=PartialIdentity() if identity else random,
        )(x)  # fmt: skip
        x = layers.MaxPooling2D(2)(x) if pool else x
        return layers.BatchNormalization(momentum=momentum, epsilon=1e-12, scale=False)(x)

    # In float32: whitening also amplifies the rounding errors of bfloat16.
    x = PatchWhitening(24, 2, dtype="float32")(x) if whitening else layers.Conv2D(24, 2)(x)
    x = layers.Activation("gelu")(x)
    for number in filters:
        x = first = layers.Activation("gelu")(convolution(x, number, pool=True))
        x = convolution(x, number)
        if triples:
            x = convolution(layers.Activation("gelu")(x), number)
            x = layers.Add()([x, first])
        x = layers.Activation("gelu")(x)
    x = layers.GlobalMaxPooling2D()(x)
    features = x.shape[-1]
    x = layers.Dense(
        classes, use_bias=False, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0)
    )(x)
    return layers.Rescaling(1 / features)(x)


@keras.saving.register_keras_serializable("cifar_utils")
class PartialIdentity(keras.initializers.Initializer):
    """Initial filters: filter i copies input channel i.

    If there are more filters than input channels, the others are random, uniform with variance
    1 / (3 fan-in), as in PyTorch.
    """

    def __call__(self, shape, dtype=None):
        height, width, channels, filters = shape
        kernel = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")(shape, dtype)
        same = min(channels, filters)
        identity = np.zeros((height, width, channels, same), "float32")
        identity[height // 2, width // 2, np.arange(same), np.arange(same)] = 1
        return ops.concatenate([ops.cast(identity, kernel.dtype), kernel[..., same:]], axis=-1)


@keras.saving.register_keras_serializable("cifar_utils")
class PatchWhitening(layers.Conv2D):
    """A frozen convolution that decorrelates patches of pixels.

    Its filters are the eigenvectors of the patches' second moments over some training images, each
    divided by the square root of its eigenvalue, and their negatives: 24 for 2 × 2 pixels in
    colour. Patches of grey images vary in four directions alone. The filters of these four are then
    repeated in place of the others. :meth:`whiten` sets the filters. The bias is trained in the
    first ``bias_epochs`` epochs. Later its gradient is zero, and only momentum still moves it.
    """

    bias_epochs, trains_bias = 3, True

    def begin_epoch(self, epoch: int) -> bool:
        """Set whether this epoch trains the bias; return whether that has changed.

        After a change, the training step must be traced again. A step without the bias's gradient
        takes about a tenth less time.
        """
        before, self.trains_bias = self.trains_bias, epoch < self.bias_epochs
        return self.trains_bias != before

    def build(self, shape):
        super().build(shape)
        self.kernel.trainable = False

    def whiten(self, images: np.ndarray, epsilon: float = 5e-4) -> None:
        """Set the filters from normalized images ``(N, H, W, C)``; a few thousand are enough."""
        shape = self.kernel.shape
        products, count = 0, 0
        for some in np.array_split(images, -(-len(images) // 100)):  # all at once take gigabytes
            windows = np.lib.stride_tricks.sliding_window_view(some, shape[:2], axis=(1, 2))
            patches = np.moveaxis(windows, 3, 5).reshape(-1, np.prod(shape[:3])).astype(np.float64)
            products, count = products + patches.T @ patches, count + len(patches)
        values, vectors = np.linalg.eigh(products / count)
        filters = (vectors / np.sqrt(values + epsilon)).T[::-1]
        # A filter for a direction without variance would enlarge rounding errors 45 times.
        varied = filters[values[::-1] > 1e-6 * values[-1]]
        filters = np.resize(varied, filters.shape).T.reshape(*shape[:3], -1)
        self.kernel.assign(np.concatenate([filters, -filters], axis=-1))

    def call(self, images):
        bias = ops.convert_to_tensor(self.bias)
        return self.convolution_op(images, self.kernel) + (
            bias if self.trains_bias else _frozen(bias)
        )


@ops.custom_gradient
def _frozen(value):
    """The tensor, with a gradient of zero, so the gradient of the output is not computed.

    ``ops.stop_gradient`` would leave no gradient, and Keras warns of that.
    """
    return value, lambda *_, upstream=None: ops.zeros_like(value)
