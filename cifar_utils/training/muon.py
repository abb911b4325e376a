"""Muon for convolution filters, beside SGD for all else, as one Keras optimizer."""

import math
from collections.abc import Sequence

import keras
from keras import ops

# Coefficients of a x + b x^3 + c x^5. Jordan found that they raise small singular values fastest.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix, steps: int = 3, dtype: str = "float32"):
    """Move a matrix's singular values towards 1 by ``steps`` of a Newton-Schulz iteration.

    In three steps, those above a fiftieth of the matrix's Frobenius norm become 0.7 to 1.2. Smaller
    ones grow up to 41 times. Singular vectors stay the same (Bernstein and Newhouse,
    arXiv:2409.20325; Jordan, Muon, 2024).

    Parameters
    ----------
    matrix
        Of any shape ``(M, N)``.
    dtype
        The type of the computation. The result has the matrix's own type.

    """
    a, b, c = COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x = ops.cast(matrix / (ops.norm(matrix) + 1e-7), dtype)  # no singular value is above 1 now
    x = x if wide else ops.transpose(x)
    for _ in range(steps):
        gram = ops.matmul(x, ops.transpose(x))
        x = a * x + ops.matmul(b * gram + c * ops.matmul(gram, gram), x)
    return ops.cast(x if wide else ops.transpose(x), matrix.dtype)


@keras.saving.register_keras_serializable("cifar_utils")
class Muon(keras.optimizers.Optimizer):
    """Orthogonalized momentum for the filters of convolutions, SGD for every other weight.

    A kernel ``(h, w, in, out)`` is treated as a matrix ``(h w in, out)``. Each update first scales
    it to the Frobenius norm √out. The step is the momentum, made nearly orthogonal, times the
    learning rate. In a kernel ``(h, w, in, n)`` of a depthwise convolution, each filter ``(h, w)``
    is scaled to norm 1, and so is the momentum of its step. Other kernels, biases and
    normalization parameters follow SGD with Nesterov momentum, at rates in a fixed proportion to
    the learning rate.

    It is the optimizer of airbench94_muon (Jordan, arXiv:2404.00498 and its repository).

    Parameters
    ----------
    learning_rate
        The rate of filters: a number or a schedule.
    momentum
        The Nesterov momentum of filters.
    dense_factor, bias_factor
        Rates of the other kernels, and of biases and normalization parameters, as multiples of the
        learning rate.
    sgd_momentum
        The momentum of all weights that follow SGD.
    steps
        Steps of the Newton-Schulz iteration. With 0 the momentum is only scaled to norm 1.
    matrix_dtype
        The type in which that iteration computes; None for that of Keras's policy.
    depthwise
        Paths of the kernels of depthwise convolutions.
    weight_decay
        Decoupled: each step subtracts ``learning_rate * weight_decay`` of each weight that follows
        SGD. Filters have no decay, because their norm is set.

    """

    def __init__(
        self,
        learning_rate,
        momentum: float,
        dense_factor: float,
        bias_factor: float,
        sgd_momentum: float = 0.85,
        steps: int = 3,
        matrix_dtype: str | None = None,
        depthwise: Sequence[str] = (),
        weight_decay: float | None = None,
        name: str = "muon",
        **kwargs,
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.momentum, self.sgd_momentum, self.steps = momentum, sgd_momentum, steps
        self.dense_factor, self.bias_factor = dense_factor, bias_factor
        self.depthwise = list(depthwise)
        self.matrix_dtype = matrix_dtype or keras.config.dtype_policy().compute_dtype

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.velocities = [
            self.add_variable_from_reference(variable, name="velocity") for variable in variables
        ]
        self.by_filter = [variable.path in self.depthwise for variable in variables]

    def _use_weight_decay(self, variable):
        return len(variable.shape) != 4 and super()._use_weight_decay(variable)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        velocity = self.velocities[index]
        learning_rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        momentum = self.momentum if len(variable.shape) == 4 else self.sgd_momentum
        self.assign(velocity, ops.add(ops.multiply(velocity, momentum), gradient))
        ahead = gradient + momentum * velocity
        if len(variable.shape) != 4:
            factor = self.dense_factor if len(variable.shape) > 1 else self.bias_factor
            self.assign_sub(variable, learning_rate * factor * ahead)
            return
        if self.by_filter[index]:
            kept, turn = _unit_filters(variable), _unit_filters(ahead)
        else:
            filters = variable.shape[-1]
            kept = variable * math.sqrt(filters) / (ops.norm(ops.reshape(variable, (-1,))) + 1e-7)
            matrix = ops.reshape(ahead, (-1, filters))
            turn = orthogonalize(matrix, self.steps, self.matrix_dtype)
            turn = ops.reshape(turn, variable.shape)
        self.assign(variable, kept - learning_rate * turn)

    def get_config(self):
        own = ("momentum", "dense_factor", "bias_factor", "sgd_momentum", "steps")
        own += ("matrix_dtype", "depthwise")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _unit_filters(kernel):
    """Each filter of ``(h, w, in, n)``, divided by its norm."""
    return kernel / (ops.norm(kernel, axis=(0, 1), keepdims=True) + 1e-7)
