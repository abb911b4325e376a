"""Layers that TensorFlow computes in fewer passes, and a model with them.

On two cores with AMX, in bfloat16, forward and backward: at 2,000 × 15 × 15 × 64, batch
normalization takes 28 ms instead of 238, and GELU 38 ms instead of 266 (``benchmarks/NOTES.md``).

Each layer computes the same as the Keras layer from which it inherits. Where it has no faster way,
it calls that layer.
"""

import math
from functools import cache

import keras
from keras import layers, ops

from cifar_utils.models.graph import layers_of


def accelerate(model: keras.Model) -> keras.Model:
    """Give a model's layers, and those of models within it, this module's ways to compute.

    Layers of other types stay, also subclasses of Keras's, and so do bare operations. With a
    backend other than TensorFlow, nothing changes. The model is returned.
    """
    if keras.backend.backend() == "tensorflow":
        for layer in layers_of(model):
            if kind := FASTER.get(type(layer)):
                # It has another way to call, and everything else in common. Keras's own setting of
                # attributes would track the class as a part of the layer.
                object.__setattr__(layer, "__class__", kind)
    return model


@keras.saving.register_keras_serializable("cifar_utils")
class BatchNormalization(layers.BatchNormalization):
    """Keras's layer, computed by TensorFlow's fused kernel for images ``(N, H, W, C)``."""

    def call(self, inputs, training=None, mask=None):
        images = len(inputs.shape) == 4 and self.axis in (-1, 3) and mask is None
        if self.renorm or self.synchronized or not (images and _has_kernels(inputs)):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        training = bool(training and self.trainable)
        channels = inputs.shape[-1]
        statistics = [self.moving_mean, self.moving_variance]
        output, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.cast(self.gamma, "float32") if self.scale else tf.ones([channels]),
            offset=ops.cast(self.beta, "float32") if self.center else tf.zeros([channels]),
            mean=tf.zeros([0]) if training else ops.cast(statistics[0], "float32"),
            variance=tf.zeros([0]) if training else ops.cast(statistics[1], "float32"),
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            count = tf.cast(tf.size(inputs) // channels, "float32")
            # TensorFlow divides by count - 1, Keras by count.
            for kept, new in zip(statistics, (mean, variance * (count - 1) / count), strict=True):
                new = ops.cast(new, kept.dtype)
                kept.assign(kept * self.momentum + new * (1 - self.momentum))
        return output


@keras.saving.register_keras_serializable("cifar_utils")
class Activation(layers.Activation):
    """Keras's layer; GELU is compiled."""

    def call(self, inputs):
        gelu = self.activation is keras.activations.gelu and _has_kernels(inputs)
        return _compiled_gelu()(inputs) if gelu else super().call(inputs)


@cache
def _compiled_gelu():
    """Gaussian error linear unit, x Φ(x) (Hendrycks and Gimpel, arXiv:1606.08415)."""
    import tensorflow as tf

    def cdf(x):
        return 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5))

    @tf.function(jit_compile=True)
    def forward(x):
        wide = tf.cast(x, "float32")
        return tf.cast(wide * cdf(wide), x.dtype)

    @tf.function(jit_compile=True)
    def backward(x, upstream):
        wide = tf.cast(x, "float32")
        density = tf.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
        return tf.cast(tf.cast(upstream, "float32") * (cdf(wide) + wide * density), x.dtype)

    @tf.custom_gradient
    def gelu(x):
        return forward(x), lambda upstream: backward(x, upstream)

    return gelu


@keras.saving.register_keras_serializable("cifar_utils")
class GroupNormalization(layers.GroupNormalization):
    """Keras's layer, compiled into few passes for images ``(N, H, W, C)``."""

    def call(self, inputs):
        images = len(inputs.shape) == 4 and self.axis in (-1, 3)
        # Each row of the images is a term of the compiled sums.
        small = images and None not in inputs.shape[1:3] and inputs.shape[1] <= 64
        if not (small and _has_kernels(inputs)):
            return super().call(inputs)
        import tensorflow as tf

        channels = inputs.shape[-1]
        gamma = ops.cast(self.gamma, "float32") if self.scale else tf.ones([channels])
        beta = ops.cast(self.beta, "float32") if self.center else tf.zeros([channels])
        groups = channels if self.groups == -1 else self.groups
        return _compiled_group_norm(groups, self.epsilon)(inputs, gamma, beta)


@cache
def _compiled_group_norm(groups: int, epsilon: float):
    import tensorflow as tf

    def sums(terms, *images):
        """Sums of ``terms`` over the pixels of each image and channel, ``(N, 1, 1, C)`` each.

        Rows are added one by one. XLA compiles that to a single pass; its own sums are slow.
        """
        rows = [tf.unstack(tf.cast(x, "float32"), axis=1) for x in images]
        totals = map(tf.add_n, zip(*(terms(*row) for row in zip(*rows, strict=True)), strict=True))
        return [tf.reduce_sum(total, 1)[:, None, None] for total in totals]

    def first_means(x):
        """The mean of each group's first pixel: differences from it keep their digits."""
        first = tf.cast(x[:, :1, :1], "float32")
        return group_means(first, first)

    def group_means(x, of):
        """The mean over a channel's group and the pixels of ``of``, for each channel."""
        size = x.shape[-1] // groups
        means = tf.reduce_sum(tf.reshape(x, (-1, groups, size)), -1, keepdims=True)
        means = tf.repeat(means / (size * of.shape[1] * of.shape[2]), size, axis=-1)
        return tf.reshape(means, tf.shape(x))

    @tf.function(jit_compile=True)
    def forward(x, gamma, beta):
        near = first_means(x)
        terms = sums(lambda v: (v - near[:, 0], (v - near[:, 0]) ** 2), x)
        beyond, square = (group_means(v, x) for v in terms)
        mean = near + beyond
        inverse = tf.math.rsqrt(tf.maximum(square - beyond * beyond, 0) + epsilon)
        scale = gamma * inverse
        shift = beta - mean * scale
        return tf.cast(tf.cast(x, "float32") * scale + shift, x.dtype), mean, inverse

    @tf.function(jit_compile=True)
    def backward(x, upstream, gamma, mean, inverse):
        of_beta, of_gamma = sums(lambda v, u: (u, u * (v - mean[:, 0])), x, upstream)
        of_gamma = of_gamma * inverse
        along = group_means(gamma * of_gamma, x) * inverse
        wide, upstream = tf.cast(x, "float32") - mean, tf.cast(upstream, "float32")
        constant = group_means(gamma * of_beta, x)
        of_x = inverse * (gamma * upstream - along * wide - constant)
        return tf.cast(of_x, x.dtype), *(tf.reduce_sum(v, (0, 1, 2)) for v in (of_gamma, of_beta))

    @tf.custom_gradient
    def group_norm(x, gamma, beta):
        output, *statistics = forward(x, gamma, beta)

        def gradient(upstream):
            upstream = tf.ensure_shape(upstream, output.shape)  # TensorFlow may not know it
            return backward(x, upstream, gamma, *statistics)

        return output, gradient

    return group_norm


@keras.saving.register_keras_serializable("cifar_utils")
class Conv2D(layers.Conv2D):
    """Keras's layer, with a faster gradient of 3×3 filters over narrow images in bfloat16.

    oneDNN multiplies matrices along an image's width. Narrow images make them too small to be fast.
    Images of up to 8 pixels are therefore laid side by side, with a column of zeros between them.
    """

    def convolution_op(self, inputs, kernel):
        narrow = (
            _computes_on_processor()
            and inputs.dtype == "bfloat16"
            and (self.kernel_size, self.strides, self.padding) == ((3, 3), (1, 1), "same")
            and (self.dilation_rate, self.groups, self.data_format) == ((1, 1), 1, "channels_last")
            and None not in inputs.shape[1:]
            and inputs.shape[2] <= 8
        )
        if not narrow:
            return super().convolution_op(inputs, kernel)
        return _narrow_convolution()(inputs, ops.cast(kernel, inputs.dtype))


FASTER = {
    layers.Activation: Activation,
    layers.BatchNormalization: BatchNormalization,
    layers.Conv2D: Conv2D,
    layers.GroupNormalization: GroupNormalization,
}


def _has_kernels(inputs) -> bool:
    return keras.backend.standardize_dtype(inputs.dtype) in ("float32", "bfloat16", "float16")


@cache
def _computes_on_processor() -> bool:
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


@cache
def _narrow_convolution():
    import tensorflow as tf

    same = {"strides": [1, 1, 1, 1], "padding": "SAME"}

    def side_by_side(images):
        height, width, channels = images.shape[1:]
        together = 32 // (width + 1)
        missing = -tf.shape(images)[0] % together
        images = tf.pad(images, ((0, missing), (0, 0), (0, 1), (0, 0)))
        images = tf.reshape(images, (-1, together, height, width + 1, channels))
        images = tf.transpose(images, (0, 2, 1, 3, 4))
        return tf.reshape(images, (-1, height, together * (width + 1), channels))

    @tf.custom_gradient
    def convolution(images, kernel):
        output = tf.nn.conv2d(images, kernel, **same)

        def gradient(upstream):
            upstream = tf.ensure_shape(upstream, output.shape)  # TensorFlow may not know it
            of_images = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(images), filter=kernel, out_backprop=upstream, **same
            )
            of_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=side_by_side(images),
                filter_sizes=kernel.shape,
                out_backprop=side_by_side(upstream),
                **same,
            )
            return of_images, of_kernel

        return output, gradient

    return convolution
