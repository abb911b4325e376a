"""Keras layers that TensorFlow computes here in fewer passes over the images.

On two cores with AMX, at 2,000 × 15 × 15 × 64 in bfloat16, forward and backward: batch
normalization takes 28 ms instead of 238, GELU 38 ms instead of 266; at 128 × 16 × 16 × 100 group
normalization and ReLU take 15 ms instead of 58 (``benchmarks/NOTES.md``).
With other backends they are Keras's own layers.
"""

import math
from functools import cache

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("cifar_utils")
class BatchNormalization(layers.BatchNormalization):
    """Keras's layer, computed by TensorFlow's fused kernel for images ``(N, H, W, C)``."""

    def call(self, inputs, training=None, mask=None):
        images = len(inputs.shape) == 4 and self.axis in (-1, 3) and mask is None
        if keras.backend.backend() != "tensorflow" or not images:
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
            # TensorFlow divides by count - 1 (an estimate for all images), Keras by count.
            for kept, new in zip(statistics, (mean, variance * (count - 1) / count), strict=True):
                kept.assign(kept * self.momentum + new * (1 - self.momentum))
        return output


@keras.saving.register_keras_serializable("cifar_utils")
class GELU(layers.Layer):
    """Gaussian error linear unit, x Φ(x) (Hendrycks and Gimpel, arXiv:1606.08415)."""

    def call(self, inputs):
        if keras.backend.backend() != "tensorflow":
            return ops.gelu(inputs, approximate=False)
        return _compiled_gelu()(inputs)


@cache
def _compiled_gelu():
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
class GroupNormReLU(layers.GroupNormalization):
    """Keras's group normalization, then ReLU, for images ``(N, H, W, C)``."""

    def call(self, inputs):
        images = len(inputs.shape) == 4 and self.axis in (-1, 3) and inputs.shape[1] is not None
        if keras.backend.backend() != "tensorflow" or not images:
            return ops.relu(super().call(inputs))
        import tensorflow as tf

        channels = inputs.shape[-1]
        gamma = ops.cast(self.gamma, "float32") if self.scale else tf.ones([channels])
        beta = ops.cast(self.beta, "float32") if self.center else tf.zeros([channels])
        groups = channels if self.groups == -1 else self.groups
        inputs = ops.cast(inputs, self.compute_dtype)
        return _compiled_group_norm_relu(groups, self.epsilon)(inputs, gamma, beta)


@cache
def _compiled_group_norm_relu(groups: int, epsilon: float):
    import tensorflow as tf

    def sums(terms, *images):
        """Sums of ``terms`` over the pixels of each image and channel, ``(N, 1, 1, C)`` each.

        Rows are added one by one. XLA compiles that to a single pass; its own sums are slow.
        """
        rows = [tf.unstack(tf.cast(x, "float32"), axis=1) for x in images]
        totals = map(tf.add_n, zip(*(terms(*row) for row in zip(*rows, strict=True)), strict=True))
        return [tf.reduce_sum(total, 1)[:, None, None] for total in totals]

    def group_means(x, of):
        """The mean over a channel's group and the pixels of ``of``, for each channel."""
        size = x.shape[-1] // groups
        means = tf.reduce_sum(tf.reshape(x, (-1, groups, size)), -1, keepdims=True)
        means = tf.repeat(means / (size * of.shape[1] * of.shape[2]), size, axis=-1)
        return tf.reshape(means, tf.shape(x))

    @tf.function(jit_compile=True)
    def forward(x, gamma, beta):
        mean, square = (group_means(v, x) for v in sums(lambda v: (v, v * v), x))
        inverse = tf.math.rsqrt(tf.maximum(square - mean * mean, 0) + epsilon)
        scale = gamma * inverse
        shift = beta - mean * scale
        output = tf.nn.relu(tf.cast(x, "float32") * scale + shift)
        return tf.cast(output, x.dtype), mean, inverse

    @tf.function(jit_compile=True)
    def backward(x, upstream, gamma, beta, mean, inverse):
        scale = gamma * inverse
        shift = beta - mean * scale

        def passed(x, upstream):
            return tf.where(x * scale[:, 0] + shift[:, 0] > 0, upstream, 0)

        def terms(x, upstream):
            upstream = passed(x, upstream)
            return upstream, upstream * x

        of_beta, of_gamma = sums(terms, x, upstream)
        of_gamma = (of_gamma - mean * of_beta) * inverse
        along = group_means(gamma * of_gamma, x) * inverse
        wide, upstream = tf.cast(x, "float32"), tf.cast(upstream, "float32")
        upstream = tf.where(wide * scale + shift > 0, upstream, 0)
        constant = (mean * along - group_means(gamma * of_beta, x)) * inverse
        of_x = scale * upstream - (along * inverse) * wide + constant
        return tf.cast(of_x, x.dtype), *(tf.reduce_sum(v, (0, 1, 2)) for v in (of_gamma, of_beta))

    @tf.custom_gradient
    def group_norm_relu(x, gamma, beta):
        output, *statistics = forward(x, gamma, beta)
        return output, lambda upstream: backward(x, upstream, gamma, beta, *statistics)

    return group_norm_relu


@keras.saving.register_keras_serializable("cifar_utils")
class SeparableConv2D(layers.SeparableConv2D):
    """Keras's layer; in bfloat16 on the processor, one convolution with the product of its kernels.

    AMX multiplies matrices so fast that a full convolution takes less time than a convolution of
    each channel by itself, forward and backward.
    """

    def call(self, inputs):
        if not (_computes_on_processor() and inputs.dtype == "bfloat16"):
            return super().call(inputs)
        depthwise, pointwise = self.depthwise_kernel, self.pointwise_kernel
        pointwise = ops.reshape(pointwise, (*depthwise.shape[2:], self.filters))
        kernel = ops.einsum("hwcm,cmf->hwcf", depthwise, pointwise)
        outputs = ops.conv(
            inputs, ops.cast(kernel, inputs.dtype), self.strides, self.padding,
            dilation_rate=self.dilation_rate,
        )  # fmt: skip
        return self.activation(ops.add(outputs, self.bias) if self.use_bias else outputs)


@keras.saving.register_keras_serializable("cifar_utils")
class Conv2D(layers.Conv2D):
    """Keras's layer, with a faster gradient of 3×3 filters over narrow images in bfloat16.

    oneDNN multiplies matrices along an image's width; below about 16 pixels they are too small to
    be fast. So images are first laid side by side, with a column of zeros between them.
    """

    def convolution_op(self, inputs, kernel):
        narrow = (
            _computes_on_processor()
            and inputs.dtype == "bfloat16"
            and (self.kernel_size, self.strides, self.padding) == ((3, 3), (1, 1), "same")
            and inputs.shape[2] <= 8
        )
        if not narrow:
            return super().convolution_op(inputs, kernel)
        return _narrow_convolution()(inputs, ops.cast(kernel, inputs.dtype))


@cache
def _computes_on_processor() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
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
        def gradient(upstream):
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

        return tf.nn.conv2d(images, kernel, **same), gradient

    return convolution
