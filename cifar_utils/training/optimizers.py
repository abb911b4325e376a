"""Optimizers by name, each a Keras one with the series' conventions."""

from cifar_utils.backend import dtype_policy, keras
from cifar_utils.choices import NonNegativeFloat, NonNegativeInt, Rate, parse_call


def sgd(learning_rate, weight_decay, batch_size, momentum: Rate = 0.9, nesterov: bool = False):
    """Stochastic gradient descent with momentum.

    Parameters
    ----------
    momentum
        Share of a step that the next one repeats.
    nesterov
        Whether the momentum is Nesterov's.
    """
    return keras.optimizers.SGD(learning_rate, momentum, nesterov, weight_decay=weight_decay)


def adam(learning_rate, weight_decay, batch_size, beta_1: Rate = 0.9, beta_2: Rate = 0.999):
    """Adam (Kingma and Ba, arXiv:1412.6980), and AdamW (arXiv:1711.05101) where weights decay.

    Parameters
    ----------
    beta_1
        Share that the mean of the gradients keeps at each step.
    beta_2
        Share that the mean of their squares keeps.
    """
    return keras.optimizers.Adam(learning_rate, beta_1, beta_2, weight_decay=weight_decay)


def muon(
    learning_rate,
    weight_decay,
    batch_size,
    momentum: Rate = 0.6,
    dense_factor: NonNegativeFloat = 2.8,
    bias_factor: NonNegativeFloat = 0.22,
    steps: NonNegativeInt = 3,
):
    """Orthogonalized momentum for filters, SGD for the rest (Jordan et al., 2024).

    The factors are for each image of a batch, because SGD follows the sum of the images' losses.
    The defaults suit airbench, which scales its logits down. Other networks need factors of about
    1 / batch size. The length of Muon's step does not depend on the gradient's length.

    Parameters
    ----------
    momentum
        Nesterov momentum of the filters.
    dense_factor
        Rate of the dense layers' kernels, as a multiple of the learning rate.
    bias_factor
        Rate of biases and of normalization, as a multiple of the learning rate.
    steps
        Newton-Schulz steps that make the filters' momentum nearly orthogonal.
    """
    from cifar_utils.training.muon import Muon

    factors = dense_factor * batch_size, bias_factor * batch_size
    return Muon(learning_rate, momentum, *factors, steps=steps, weight_decay=weight_decay)


def make_optimizer(
    text: str,
    learning_rate,
    weight_decay: float = 0.0,
    batch_size: int = 1,
    model: keras.Model | None = None,
) -> keras.optimizers.Optimizer:
    """The optimizer that a text such as ``"sgd(momentum=0.9)"`` names.

    Parameters
    ----------
    learning_rate
        A number or a Keras schedule.
    weight_decay
        Decoupled: each step subtracts ``learning_rate * weight_decay`` of every kernel, not of
        weights with one axis, such as biases and those of normalization. Muon's filters have none.
        In SGD with momentum m, PyTorch's coupled ``weight_decay`` of the same strength is (1 - m)
        times this one.
    batch_size
        Images in a batch; the gradient is of their mean loss.
    model
        What it is to train. It gives the precision of Muon's matrices and the kernels of depthwise
        convolutions, which Muon takes filter by filter.

    Raises
    ------
    InputError
        Where the name or an option is unknown, or an option's value is not allowed.

    """
    call = parse_call("optimizer", text)
    with dtype_policy(model.dtype_policy.name if model else "auto"):
        optimizer = call(learning_rate, weight_decay or None, batch_size)
    if model and hasattr(optimizer, "depthwise"):
        optimizer.depthwise = _depthwise_kernels(model)
    if optimizer.weight_decay:
        lines = [v for v in model.trainable_variables if len(v.shape) < 2] if model else None
        optimizer.exclude_from_weight_decay(lines, ["bias", "gamma", "beta", "alpha"])
    return optimizer


def _depthwise_kernels(model: keras.Model) -> list[str]:
    """The paths of the kernels of a model's depthwise convolutions, also within other layers."""
    layers = keras.layers
    names = {layers.DepthwiseConv2D: "kernel", layers.SeparableConv2D: "depthwise_kernel"}
    return [
        getattr(layer, name).path
        for layer in model._flatten_layers()  # Keras has no public way into a layer
        for kind, name in names.items()
        if isinstance(layer, kind) and hasattr(layer, name)  # else it is not built
    ]
